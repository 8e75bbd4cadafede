"""Shards: whoever deals them out, together they are what one process computes, or nothing."""

import json
import shutil

import pandas as pd
import pytest

from gradeclip_utils.__main__ import main
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.evaluation import evaluate
from gradeclip_utils.measures.shards import merge, part_of, read_shard
from tests.measures.test_run import write_folder
from tests.runs import read_run

OPTIONS = {"chunk": 3, "seed": 1, "progress": False}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """8 examples: three chunks of three, three and two."""
    return write_folder(tmp_path_factory.mktemp("data") / "mine", 7)


@pytest.fixture(scope="module")
def computed(tiny, data, tmp_path_factory):
    """A folder with two shards of an evaluation."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    for i in (0, 1):
        evaluate(tiny, data, "grad-eclip", out=out, shard=(i, 2), **OPTIONS)
    return out


@pytest.fixture
def shards(computed, tmp_path):
    return shutil.copytree(computed, tmp_path / "mine")


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def test_shards_deal_all_parts_out_once_and_none_gets_a_stretch_of_a_sorted_data_set():
    dealt = [part_of(range(11), (i, 4)) for i in range(4)]
    assert sorted(number for part in dealt for number in part) == list(range(11))
    assert [list(part)[:2] for part in dealt] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert part_of(range(3), None) == range(3)


@pytest.mark.parametrize(
    ("given", "environment", "shard"),
    [
        (None, {}, None),
        ("2/8", {"RANK": "1", "WORLD_SIZE": "4"}, (2, 8)),
        (None, {"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        (None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "5", "RANK": "0", "WORLD_SIZE": "1"}, (3, 5)),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        (None, {"SLURM_NTASKS": "8"}, None),  # a shell that Slurm allotted, and no task of it
        ("0/1", {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
    ],
)
def test_which_shard_a_process_is_comes_from_the_command_or_from_who_started_it(given, environment, shard, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert read_shard(given) == shard


@pytest.mark.parametrize("text", ["8/8", "1", "-1/4", "a/b", "0/0", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(GradeclipError, match="--shard must be i/n"):
        read_shard(text)


def test_an_environment_that_says_something_else_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(GradeclipError, match="RANK/WORLD_SIZE must be i/n.*got '4/4'"):
        read_shard(None)


def test_merged_shards_are_what_one_process_computes_and_go_on_as_such(tiny, data, shards):
    whole = evaluate(tiny, data, "grad-eclip", **OPTIONS)
    columns = [name for name in whole if name != "seconds"]
    rows, settings = merge(shards)
    pd.testing.assert_frame_equal(rows[columns], whole[columns])
    pd.testing.assert_frame_equal(read_run(shards), rows)
    pd.testing.assert_frame_equal(pd.read_parquet(shards / "rows.parquet"), rows)
    assert (settings["examples"], settings["model"]) == (8, tiny.name)
    again = evaluate(tiny, data, "grad-eclip", out=shards, **OPTIONS)  # nothing is computed: the seconds are the same
    pd.testing.assert_frame_equal(again, rows)
    pd.testing.assert_frame_equal(merge(shards)[0], rows)


def test_a_shard_that_is_missing_or_not_done_is_named_and_nothing_is_written(shards):
    before = files(shards)
    chunk = shards / "shard-0-of-2" / "chunks" / "2.json"
    chunk.write_bytes(chunk.read_bytes()[1:])
    with pytest.raises(GradeclipError, match="shard 0 of 2 in .* is not done: 1 of its 2 chunks .*--shard 0/2"):
        merge(shards)
    shutil.rmtree(shards / "shard-1-of-2")
    with pytest.raises(FileNotFoundError, match="lacks shard 1 of 2: run it with --shard 1/2"):
        merge(shards)
    assert files(shards) == before[:1]
    shutil.rmtree(shards / "shard-0-of-2")
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        merge(shards)


def test_shards_of_other_computations_are_not_mixed(shards):
    file = shards / "shard-1-of-2" / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 7}))
    with pytest.raises(GradeclipError, match="shard 1 of 2 in .* is of another computation than shard 0: seed differ"):
        merge(shards)
    shutil.copytree(shards / "shard-0-of-2", shards / "shard-0-of-3")
    with pytest.raises(GradeclipError, match="holds shards of 2 and 3"):
        merge(shards)


def test_a_shard_without_work_is_no_mistake_and_one_without_a_folder_is(tiny, data, tmp_path):
    rows = evaluate(tiny, data, "grad-eclip", out=tmp_path / "run", shard=(3, 4), **OPTIONS)
    assert rows.empty and (tmp_path / "run" / "shard-3-of-4" / "settings.json").is_file()
    with pytest.raises(GradeclipError, match="a shard needs out="):
        evaluate(tiny, data, "grad-eclip", shard=(0, 4), **OPTIONS)


def test_the_command_puts_shards_together_without_a_model_and_prints_the_table(shards, capsys):
    assert main(["evaluate", "--model", "never looked for", "--out", str(shards), "--merge"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny (own weights) on folder:") and "(8 images)" in out
    assert "average_precision" in out
