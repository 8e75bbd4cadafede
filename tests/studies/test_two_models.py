"""Two models: a figure holds, changes sign, or cannot be told, by the intervals of both."""

from dataclasses import replace
from itertools import product

import pandas as pd
import pytest

from gradeclip_utils import load_clip
from gradeclip_utils.__main__ import main
from gradeclip_utils.files import data_path, version
from studies import two_models
from studies.architectures import compare_models, two_thing_examples
from studies.two_models import (
    COMPARED,
    HOLDS,
    MODELS,
    NEITHER,
    ONE,
    SECOND_SEED,
    TURNED,
    compare_two,
    neutral_value,
    two_in_words,
)
from studies.recognition import recognised

CASES = {  # figure: intervals of two models, and what is to be said
    "moved": ((0.1, 0.3), (0.2, 0.4), HOLDS),
    "moved back": ((-0.3, -0.1), (-0.4, -0.2), HOLDS),
    "turned": ((0.1, 0.3), (-0.3, -0.1), TURNED),
    "faded": ((0.1, 0.3), (-0.1, 0.2), ONE),
    "nothing": ((-0.1, 0.3), (-0.1, 0.2), NEITHER),
    "accuracy, size": ((0.6, 0.8), (0.55, 0.9), HOLDS),
    "accuracy, place": ((0.6, 0.8), (0.1, 0.4), TURNED),
    "accuracy, at chance": ((0.4, 0.6), (0.45, 0.7), NEITHER),
}


def table_of(figures):
    return pd.DataFrame([
        ("matching", model, figure, sum(span) / 2, *span, 10)
        for figure, (*spans, _) in figures.items() for model, span in zip(MODELS, spans, strict=True)
    ], columns=["study", "model", "figure", "value", "low", "high", "n"])  # fmt: skip


def test_a_figure_is_judged_by_the_side_on_which_every_interval_lies():
    found = compare_two("matching", table_of(CASES))
    assert found["both models"].to_dict() == {figure: said for figure, (_, _, said) in CASES.items()}
    assert list(found.index) == list(CASES) and found.loc["moved", "intervals"] == "[0.10, 0.30] [0.20, 0.40]"
    assert found.loc["turned", list(MODELS)].tolist() == pytest.approx([0.2, -0.2])


def test_exchanging_the_models_changes_no_judgement():
    table, others = table_of(CASES), dict(zip(MODELS, MODELS[::-1], strict=True))
    turned = compare_two("matching", table.assign(model=table["model"].map(others)))
    assert turned["both models"].to_dict() == compare_two("matching", table)["both models"].to_dict()


def test_the_sentence_names_what_changes_sign_and_what_is_not_clear():
    said = two_in_words(compare_two("matching", table_of(CASES)))
    assert said.startswith("3 of 8 figures hold for both models; changes sign: “turned”, “accuracy, place”;")
    assert "one model only: “faded”" in said and "either: “nothing”, “accuracy, at chance”" in said
    alone = two_in_words(compare_two("matching", table_of({"moved": CASES["moved"]})))
    assert alone == "1 of 1 figures hold for both models"


def test_a_figure_whose_intervals_do_not_overlap_keeps_its_sign_and_not_its_size():
    both = compare_two("matching", table_of({"grown": ((0.1, 0.3), (0.35, 0.4), HOLDS), "moved": CASES["moved"]}))
    assert both["apart"].to_dict() == {"grown": True, "moved": False}
    assert two_in_words(both).endswith("both models; of another size, their intervals apart: “grown”")


def test_one_model_alone_and_unknown_studies_are_refused():
    table = table_of(CASES)
    with pytest.raises(ValueError, match=r"'matching' has \['emoji'\]; studies: matching, binding"):
        compare_two("matching", table[table["model"] == "emoji"])
    with pytest.raises(ValueError, match="'cooking' has"):
        compare_two("cooking", table)
    with pytest.raises(ValueError, match="the table has no column 'study'"):
        compare_two("matching", table.drop(columns="study"))


def test_every_model_is_measured_under_its_name_and_a_table_is_added_to(tmp_path, monkeypatch):
    monkeypatch.setattr(two_models, "COMPARED", ("matching",))
    monkeypatch.setattr(two_models, "load_clip", len)  # a model that is as good as its name is long
    monkeypatch.setitem(
        two_models.STUDIES,
        "matching",
        lambda length: pd.DataFrame([{"figure": "moved", "value": length, "low": length, "high": length, "n": 1}]),
    )
    out = tmp_path / "two_models.csv"
    for names in ((), ("emoji-bag",), ("emoji",)):
        assert main(["study", "two-models", *names, "--out", str(out)]) == 0
        rows = pd.read_csv(out)
        assert rows["model"].tolist() == list(MODELS) and rows["value"].tolist() == [len(name) for name in MODELS]
        assert [said.split()[-1] for said in rows["command"]] == list(MODELS) and rows["commit"].notna().all()
        assert (rows["version"] == version("gradeclip")).all()


def test_weights_in_a_file_get_a_name_and_only_the_studies_that_were_asked_for_are_measured_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(two_models, "load_clip", lambda *asked: asked)
    for study in COMPARED:
        row = {"figure": "deletion, ahead of GAME", "low": 0, "high": 1, "n": 1}
        monkeypatch.setitem(
            two_models.STUDIES, study, lambda asked, row=row, **given: pd.DataFrame([row | {"value": len(asked)}])
        )
    out = tmp_path / "two.csv"
    assert main(["study", "two-models", "emoji", f"{SECOND_SEED}=seed7.safetensors", "--out", str(out)]) == 0
    before = pd.read_csv(out)
    assert before.groupby("model")["value"].unique().map(list).to_dict() == {"emoji": [1], SECOND_SEED: [2]}
    assert before["command"].iloc[-1].endswith(f"two-models '{SECOND_SEED}=seed7.safetensors'")
    monkeypatch.setattr(two_models, "load_clip", lambda *asked: (*asked, None))
    assert main(["study", "two-models", "emoji", "--studies", "methods", "--out", str(out)]) == 0
    after = pd.read_csv(out).set_index(["model", "study"])["value"]
    assert len(after) == len(before) and after["emoji", "methods"] == 2 and after["emoji", "matching"] == 1

    said = pd.read_csv(out).set_index(["model", "study"])["command"]
    assert said["emoji", "methods"].endswith("study two-models emoji --studies methods")
    assert said["emoji", "matching"].endswith("study two-models emoji")


def test_students_are_compared_with_the_first_model_through_the_last_layer_alone(tmp_path, monkeypatch):
    drawn = two_thing_examples(6)
    monkeypatch.setattr(two_models, "two_thing_examples", lambda n: drawn)
    monkeypatch.setattr("studies.summaries.two_thing_examples", lambda n: drawn)
    monkeypatch.setattr("studies.summaries.recognised", lambda clip, things: recognised(clip, 2))
    out, models = tmp_path / "two.csv", ["emoji", "emoji-average"]
    assert main(["study", "two-models", *models, "--studies", "architectures", "--out", str(out)]) == 0
    table = pd.read_csv(out).set_index(["model", "figure"])
    ahead = "average precision, ahead of the first model"
    assert ("emoji", ahead) not in table.index and table.loc[("emoji-average", ahead), "n"] == 6
    clips = {name: replace(load_clip(name), image_layers=1) for name in models}
    rows = compare_models(clips, drawn)
    means = rows[rows["method"] == "grad-eclip"].groupby("model")["average_precision"].mean()
    assert table.loc[("emoji-average", ahead), "value"] == pytest.approx(means[models[1]] - means[models[0]], abs=1e-4)
    assert table.loc[("emoji-average", ahead), "command"].endswith(
        "two-models emoji emoji-average --studies architectures"
    )


REFUSED = {
    "emoji-bug": "has no model 'emoji-bug'",
    "emoji=seed7.safetensors": "by a name that no bundled model has, got 'emoji=seed7.safetensors'",
    "emoji-fine=seed7.safetensors": "by a name that no bundled model has",
    "=seed7.safetensors": "by a name that no bundled model has, got '=seed7.safetensors'",
    "second seed=": "by a name that no bundled model has, got 'second seed='",
    "second seed=nowhere.safetensors": "There is no file of weights nowhere.safetensors",
    "emoji": "there is a model 'emoji': choose another name",
}


@pytest.mark.parametrize("model", REFUSED)
def test_a_model_that_cannot_be_told_or_loaded_is_refused_before_the_first_is_measured(
    tmp_path, monkeypatch, capsys, model
):
    monkeypatch.setattr(two_models, "model_figures", None)
    assert main(["study", "two-models", "emoji", model, "--out", str(tmp_path / "two.csv")]) == 2
    error = capsys.readouterr().err
    assert REFUSED[model] in error and error.count("\n") == 1 and not any(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"study,model\n1,2,3\n", b"\xff\xfe\x00 dear", b"a,b\n1,2\n"])
def test_a_table_of_something_else_is_left_as_it_is(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setattr(two_models, "model_figures", lambda *given: pytest.fail("it was measured"))
    monkeypatch.setattr(two_models, "load_clip", lambda *given: pytest.fail("a model was loaded"))
    (tmp_path / "two.csv").write_bytes(content)
    assert main(["study", "two-models", "--out", str(tmp_path / "two.csv")]) == 2
    assert "[E-table-other]" in capsys.readouterr().err
    assert (tmp_path / "two.csv").read_bytes() == content


def test_the_shipped_table_has_every_figure_of_both_models_and_says_how_it_was_made():
    table = pd.read_csv(data_path(two_models.TABLE))
    assert table["command"].str.startswith("python -m gradeclip_utils study two-models").all()
    assert table["commit"].notna().all()
    for study, second in product(COMPARED, (MODELS[1], SECOND_SEED)):
        both = compare_two(study, table, [MODELS[0], second])
        assert both[[MODELS[0], second]].notna().all(axis=None) and len(both) >= 5


def test_what_is_judged_against_a_half_is_a_fraction_and_what_is_not_is_a_signed_figure():
    table = pd.read_csv(data_path(two_models.TABLE))
    half = table["figure"].map(neutral_value).eq(0.5)
    assert half.any() and not half.all()
    assert table[half][["low", "value", "high"]].stack().between(0, 1).all()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
