"""Seeds: a figure holds, is withdrawn, or cannot be told, by the intervals of two trained models."""

import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gradeclip_utils.__main__ import main
from gradeclip_utils.files import data_path
from gradeclip_utils.studies import seeds
from gradeclip_utils.studies.seeds import (
    COMPARED,
    HOLDS,
    NEITHER,
    ONE,
    WITHDRAWN,
    compare_seeds,
    neutral_value,
    seed_figures,
    seeds_in_words,
)

CASES = {  # figure: intervals of two seeds, and what is to be said
    "moved": ((0.1, 0.3), (0.2, 0.4), HOLDS),
    "moved back": ((-0.3, -0.1), (-0.4, -0.2), HOLDS),
    "turned": ((0.1, 0.3), (-0.3, -0.1), WITHDRAWN),
    "faded": ((0.1, 0.3), (-0.1, 0.2), ONE),
    "nothing": ((-0.1, 0.3), (-0.1, 0.2), NEITHER),
    "accuracy, size": ((0.6, 0.8), (0.55, 0.9), HOLDS),
    "accuracy, place": ((0.6, 0.8), (0.1, 0.4), WITHDRAWN),
    "accuracy, at chance": ((0.4, 0.6), (0.45, 0.7), NEITHER),
}


def table_of(figures):
    return pd.DataFrame([
        ("matching", seed, figure, sum(span) / 2, *span, 10)
        for figure, (*spans, _) in figures.items() for seed, span in enumerate(spans)
    ], columns=["study", "seed", "figure", "value", "low", "high", "n"])  # fmt: skip


def test_a_figure_is_judged_by_the_side_on_which_every_interval_lies():
    found = compare_seeds("matching", table_of(CASES))
    assert found["both seeds"].to_dict() == {figure: said for figure, (_, _, said) in CASES.items()}
    assert list(found.index) == list(CASES) and found.loc["moved", "intervals"] == "[0.10, 0.30] [0.20, 0.40]"
    assert found.loc["turned", ["seed 0", "seed 1"]].tolist() == pytest.approx([0.2, -0.2])


def test_exchanging_the_seeds_changes_no_judgement():
    table = table_of(CASES)
    turned = compare_seeds("matching", table.assign(seed=1 - table["seed"]))
    assert turned["both seeds"].to_dict() == compare_seeds("matching", table)["both seeds"].to_dict()


def test_the_sentence_names_what_is_withdrawn_and_what_is_not_clear():
    said = seeds_in_words(compare_seeds("matching", table_of(CASES)))
    assert said.startswith("3 of 8 figures hold; withdrawn: “turned”, “accuracy, place”;")
    assert "one seed only: “faded”" in said and "either: “nothing”, “accuracy, at chance”" in said
    assert (
        seeds_in_words(compare_seeds("matching", table_of({"moved": CASES["moved"]})))
        == "1 of 1 figures hold; withdrawn: none"
    )


def test_a_figure_whose_intervals_do_not_overlap_keeps_its_sign_and_not_its_size():
    both = compare_seeds("matching", table_of({"grown": ((0.1, 0.3), (0.35, 0.4), HOLDS), "moved": CASES["moved"]}))
    assert both["apart"].to_dict() == {"grown": True, "moved": False}
    assert seeds_in_words(both).endswith("withdrawn: none; of another size, their intervals apart: “grown”")


def test_one_seed_alone_and_unknown_studies_are_refused():
    table = table_of(CASES)
    with pytest.raises(ValueError, match=r"two or more, and 'matching' has \[.*0.*\]; studies: matching, binding"):
        compare_seeds("matching", table[table["seed"] == 0])
    with pytest.raises(ValueError, match="'cooking' has"):
        compare_seeds("cooking", table)


@pytest.fixture
def trained(tmp_path):
    """Copies of the bundled model that say another seed, and are another model."""

    def save(seed):
        file = data_path("emoji.safetensors")
        with safe_open(file, "pt") as stream:
            metadata = {**stream.metadata(), "seed": str(seed)}
        path, state = tmp_path / f"seed{seed}.safetensors", load_file(file)
        state["visual.proj"] = state["visual.proj"] + 0.01 * (seed or 0)
        save_file(state, path, metadata={key: value for key, value in metadata.items() if value != "None"})
        path.with_suffix(".json").write_bytes(file.with_suffix(".json").read_bytes())
        return path

    return save


def weight(clip):
    value = clip.model.visual.proj.detach().float().mean().item()
    return pd.DataFrame([{"figure": "moved", "value": value, "low": value, "high": value, "n": 1}])


def test_a_file_is_measured_under_the_seed_that_trained_it_and_a_table_is_added_to(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "COMPARED", ("matching",))
    monkeypatch.setitem(seeds.STUDIES, "matching", weight)
    out = tmp_path / "seeds.csv"
    for first, second in ((3, 1), (1, 3)):
        assert main(["study", "seeds", str(trained(first)), str(trained(second)), "--out", str(out)]) == 0
        rows = pd.read_csv(out)
        assert rows["seed"].tolist() == [1, 3] and rows["value"].nunique() == 2
        assert rows["command"].str.contains("seed[13].safetensors").all() and rows["commit"].notna().all()


def test_a_file_that_does_not_say_its_seed_is_refused(trained):
    with pytest.raises(ValueError, match="does not say its seed"):
        seed_figures(trained(None), {"matching": weight})


def test_a_file_that_is_damaged_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "junk.safetensors").write_text("junk")
    assert main(["study", "seeds", str(tmp_path / "junk.safetensors")]) == 2
    assert "junk.safetensors is damaged" in capsys.readouterr().err


def test_the_shipped_table_has_both_seeds_of_every_figure_and_says_how_it_was_made():
    table = pd.read_csv(data_path(seeds.TABLE))
    assert table["command"].str.match(r"python -m gradeclip_utils[. ]stud(y|ies)[. ]seeds").all()
    assert table["commit"].notna().all()
    for study in COMPARED:
        both = compare_seeds(study, table)
        assert both[["seed 0", "seed 1"]].notna().all(axis=None) and len(both) >= 5


def test_what_is_judged_against_a_half_is_a_fraction_and_what_is_not_is_a_signed_figure():
    table = pd.read_csv(data_path(seeds.TABLE))
    half = table["figure"].map(neutral_value).eq(0.5)
    assert half.any() and not half.all()
    assert table[half][["low", "value", "high"]].stack().between(0, 1).all()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
