"""The command of a study: parts are measured once, go on where they were stopped, and can be dealt out."""

import argparse
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from gradeclip_utils.__main__ import main
from studies import STUDIES, command


class Counted:
    """A study of three parts that notes which of them was measured."""

    parts = ("first", "second one", "third")

    def __init__(self):
        self.measured, self.stops_at = [], ""

    def __call__(self, clip, part=None):
        if part == self.stops_at:
            raise KeyboardInterrupt
        self.measured.append(part)
        rows = [("binding", f"figure of {name}", 0.5, 0.4, 0.6, 7) for name in self.parts if part in (None, name)]
        return pd.DataFrame(rows, columns=command.COLUMNS)


@pytest.fixture
def study(monkeypatch, tiny):
    one = Counted()
    monkeypatch.setitem(STUDIES, "binding", one)
    monkeypatch.setattr(command, "load_clip", lambda *named, **options: tiny)
    monkeypatch.setattr(command, "commit", lambda: "abc1234")
    return one


def figures(table):
    return pd.read_csv(table)["figure"].tolist()


ALL = [f"figure of {name}" for name in Counted.parts]


def test_a_study_goes_on_with_the_part_at_which_it_was_stopped(study, tmp_path):
    table, study.stops_at = tmp_path / "out.csv", "second one"
    assert main(["study", "binding", "--out", str(table)]) == 130
    assert figures(table) == ALL[:1]
    study.stops_at = ""
    assert main(["study", "binding", "--out", str(table)]) == 0
    assert study.measured == list(Counted.parts) and figures(table) == ALL
    assert pd.read_csv(table)["command"][1].endswith("study binding --part 'second one'")  # makes that row alone


def test_shards_measure_all_parts_once_and_without_a_shard_their_figures_are_put_together(study, tmp_path, capsys):
    table = tmp_path / "out [1].csv"
    for shard in ("1/2", "0/2"):
        assert main(["study", "binding", "--out", str(table), "--shard", shard]) == 0
    assert study.measured == ["second one", "first", "third"] and not table.exists()
    assert figures(tmp_path / "out [1]-shard-0-of-2.csv") == [ALL[0], ALL[2]]
    assert main(["study", "binding", "--out", str(table)]) == 0
    assert figures(table) == ALL and len(study.measured) == 3
    assert "1 figures are there already" in capsys.readouterr().out


@pytest.mark.parametrize("now", ["def5678", "abc1234+"])
def test_what_another_commit_gave_or_files_that_differ_from_one_is_measured_again(study, tmp_path, monkeypatch, now):
    table = str(tmp_path / "out.csv")
    main(["study", "binding", "--out", table])
    monkeypatch.setattr(command, "commit", lambda: now)
    for _ in range(2):
        main(["study", "binding", "--out", table])
    assert len(study.measured) == (9 if now.endswith("+") else 6)
    assert figures(table) == ALL and set(pd.read_csv(table)["commit"]) == {now}


def test_a_part_may_be_asked_for_and_without_a_table_all_of_them_are_printed_at_once(study, capsys):
    assert main(["study", "binding", "--part", "third"]) == 0
    assert main(["study", "binding"]) == 0
    assert study.measured == ["third", None] and capsys.readouterr().out.count("figure of third") == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--shard", "0/2"], "--shard needs --out FILE.csv"),
        (["--part", "fourth"], "part must be one of first, second one, third, got 'fourth'"),
    ],
)
def test_a_shard_without_a_table_and_a_part_that_is_none_are_refused(study, capsys, given, says):
    assert main(["study", "binding", *given]) == 2
    assert says in capsys.readouterr().err and not study.measured


def test_what_a_lesson_shows_besides_is_measured_by_name_or_after_the_main_parts(study, tmp_path):
    study.more = ("shown",)
    assert main(["study", "binding", "--part", "shown", "--out", str(tmp_path / "one.csv")]) == 0
    assert study.measured == ["shown"]
    assert main(["study", "binding", "--out", str(tmp_path / "all.csv")]) == 0
    assert study.measured == ["shown", *Counted.parts, "shown"] and figures(tmp_path / "all.csv") == ALL
    study.parts, study.measured = (), []
    assert main(["study", "binding", "--out", str(tmp_path / "whole.csv")]) == 0
    assert study.measured == [None, "shown"]  # the main figures of one that has no parts come as one measurement


def test_parts_that_come_to_one_table_at_once_lose_none_of_their_figures(tmp_path):
    options = argparse.Namespace(out=tmp_path / "out.csv", command="binding")

    def measured(i):
        rows = pd.DataFrame([("binding", f"figure {i}", 0.5, 0.4, 0.6, 7)], columns=command.COLUMNS)
        command.say(rows, {"model": "tiny", "weights": "0"}, options)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(measured, range(24)))
    assert sorted(figures(options.out)) == sorted(f"figure {i}" for i in range(24))
