"""How fine a model sees, and the experiment on fine-tuning: known regions, arms, a search, and a table that resumes."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.files import weights_digest
from gradeclip_utils.scenes import arrange, concepts, draw_scene, phrase
from studies.finetuning import arms, evaluate, experiment
from studies.finetuning.arms import BEFORE, GLOBAL, KEPT, OURS, RECIPE, TUNED_FOR
from studies.finetuning.pairs import spoken
from studies.finetuning.run import Tuned
from tests.scenes import is_trained
from training import fine

FEW = evaluate.Amount(regions=6, pointing=2, pairs=2, whole=8)


def test_scenes_of_regions_have_one_to_four_different_things_and_pilots_have_other_ones():
    scenes = evaluate.region_scenes(8)
    assert [len(scene.objects) for scene in scenes] == [1, 2, 3, 4] * 2
    for scene in scenes:
        assert is_trained(scene.objects) and len({thing.noun for thing in scene.objects}) == len(
            scene.objects
        )
    pilots = evaluate.region_scenes(8, evaluate.PILOT.split)
    assert not {scene.objects for scene in scenes} & {scene.objects for scene in pilots}


def test_regions_whose_features_are_the_right_prompts_are_all_right(bundled, monkeypatch):
    """Dense features made from the truth: every cell has the prompt of the object that covers it most."""
    nouns = list(concepts().index)
    prompts = Explainer(bundled).embed_texts([phrase(noun) for noun in nouns]).cpu()
    scenes = tuple(
        arrange(nouns[start : start + count]) for start, count in ((0, 1), (5, 2), (9, 3), (20, 4))
    )
    monkeypatch.setattr(evaluate, "region_scenes", lambda n, split: scenes)
    real = list(evaluate.dense_features(bundled, scenes))

    def perfect(clip, scenes):
        for scene, dense, *seen in real:
            truth = torch.zeros_like(dense)
            for thing, mask in zip(scene.objects, scene.masks(96), strict=True):
                share = torch.from_numpy(mask.reshape(12, 8, 12, 8).mean((1, 3))).float()
                truth += share[..., None] * prompts[nouns.index(thing.noun)]
            yield scene, truth, *seen

    monkeypatch.setattr(evaluate, "dense_features", perfect)
    found = evaluate.summary(evaluate.region_rows(bundled)).set_index("figure")
    assert list(found.index) == [f"{s}, top-{k}" for s in ("boxes", "masks") for k in (1, 5)]
    assert (found["estimate"] == 1).all() and (found["low"] < 1).all()
    named = evaluate.named_regions(bundled, scenes[0])
    assert named[nouns[0]] == nouns[0]


def test_a_model_is_measured_in_every_part_with_intervals_and_chance(bundled):
    figures = evaluate.measure(bundled, FEW)
    assert figures["figure"].is_unique and figures["chance"].between(0, 0.5).all()
    assert (
        (figures["low"] <= figures["estimate"]) & (figures["estimate"] <= figures["high"])
    ).all()
    known = figures.set_index("figure")
    assert known.loc[KEPT, "n"] == 8 and known.loc["binding, swapped colours", "n"] == 4
    again = evaluate.measure(bundled, FEW, only=["regions"])
    pd.testing.assert_frame_equal(
        again, figures[figures["figure"].isin(again["figure"])].reset_index(drop=True)
    )


def test_pairs_are_training_scenes_that_know_which_pixels_a_phrase_describes():
    pairs = arms.ScenePairs(12)
    with pytest.raises(IndexError, match="there are 12 pairs"):
        pairs[12]
    for i in range(12):
        scene = draw_scene([70, i], split="train")
        assert pairs[i].caption == scene.caption and pairs[i].image().size == (96, 96)
        for part in spoken(scene.caption):
            words = [s for s in scene.spans if part.start <= s.start and s.end <= part.end]
            if words:
                objects = sorted({k for span in words for k in span.objects})
                assert (
                    pairs[i].where(part.start, part.end) == scene.masks(96)[objects].any(0)
                ).all()


@pytest.fixture
def quick(monkeypatch, bundled):
    """Training and measuring that take no time; each kind of map is the better the nearer it is to its best recipe."""
    best, last, tried = {"grad-eclip": (1e-3, 0.1), "uniform": (1e-4, 0.25)}, [], []

    def fine_tune(clip, pairs, tuning, folder, **options):
        last[:] = [tuning]
        tried.append(
            (tuning.maps, round(tuning.learning_rate, 5), round(tuning.regions, 3), tuning.seed)
        )
        (folder / "state.pt").touch()
        return Tuned(clip, pd.DataFrame({"cpu_seconds": [30.0]}))

    def measured(clip, amount, only=()):  # of models that are not loaded, nor written
        far = 9.0
        if last:
            pair = zip((last[0].learning_rate, last[0].regions), best[last[0].maps], strict=True)
            far = sum(abs(np.log(value / wanted)) for value, wanted in pair if value)
        rows = [
            (name, value, 0.0, 1.0, 9, 0.1)
            for name, value in ((TUNED_FOR, 1 - far / 100), (KEPT, 0.5))
        ]
        return pd.DataFrame(rows, columns=["figure", "estimate", "low", "high", "n", "chance"])

    monkeypatch.setattr(experiment, "fine_tune", fine_tune)
    monkeypatch.setattr(experiment, "measure", measured)
    monkeypatch.setattr(experiment, "load_clip", lambda *given: bundled)
    monkeypatch.setattr(Tuned, "save", lambda tuned, file, about: file.touch())
    monkeypatch.setattr(experiment, "weights_digest", cache(weights_digest))
    return tried


def test_the_search_finds_the_best_recipe_of_each_arm_and_measures_nothing_twice(tmp_path, quick):
    table = tmp_path / "pilots.csv"
    recipes = experiment.choose(table, tmp_path / "runs", [BEFORE, OURS, "uniform map"])
    assert recipes[OURS].learning_rate == 1e-3 and recipes[OURS].regions == 0.1
    assert recipes["uniform map"].learning_rate == 1e-4 and recipes["uniform map"].maps == "uniform"
    n = len(quick)
    assert (
        experiment.choose(table, tmp_path / "runs", [BEFORE, OURS, "uniform map"]) == recipes
        and len(quick) == n
    )


def test_the_table_gains_the_rows_of_an_arm_and_seed_once(tmp_path, quick, bundled, monkeypatch):
    table = tmp_path / "table.csv"
    recipes = {BEFORE: RECIPE, OURS: RECIPE, "uniform map": replace(RECIPE, maps="uniform")}
    experiment.run(table, tmp_path / "runs", recipes, range(1))
    experiment.run(table, tmp_path / "runs", recipes, range(2))
    rows = arms.read(table)
    assert list(rows) == arms.COLUMNS and not rows.duplicated(["arm", "seed", "figure"]).any()
    seeds = rows.groupby("arm")["seed"].unique().map(list).to_dict()
    assert seeds == {BEFORE: [0], OURS: [0, 1], "uniform map": [0, 1]}
    assert len(quick) == 4 and set(rows.loc[rows["arm"] == OURS, "cpu_minutes"]) == {0.5}
    rows.assign(weights="another").to_csv(table, index=False)
    with pytest.raises(ValueError, match="holds arms of a different `emoji`"):
        experiment.run(table, tmp_path / "runs", recipes, range(2))
    rows.to_csv(table, index=False)
    with pytest.raises(ValueError, match="holds 'grad-eclip' by another recipe"):
        experiment.run(table, tmp_path / "runs", {OURS: replace(RECIPE, steps=400)}, range(3))
    other = replace(bundled, model=copy.deepcopy(bundled.model))
    with torch.no_grad():
        other.model.logit_scale += 1
    assert experiment.folder_of(OURS, RECIPE, tmp_path, other) != experiment.folder_of(
        OURS, RECIPE, tmp_path, bundled
    )


def table_of(values):
    """A table as the experiment writes it, from (arm, seed) -> estimate of one figure."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": seed,
                "figure": TUNED_FOR,
                "estimate": value,
                "low": value - 0.1,
                "high": value + 0.1,
            }
            for (arm, seed), value in values.items()
        ]
    )


def test_arms_are_compared_over_the_seeds_that_both_have():
    values = {
        (OURS, 0): 0.5,
        (OURS, 1): 0.6,
        (OURS, 2): 0.55,
        (GLOBAL, 0): 0.2,
        (GLOBAL, 1): 0.25,
        (GLOBAL, 7): 0.9,
    }
    found = arms.compare(table_of(values), OURS, GLOBAL)
    differences = np.array([0.3, 0.35])
    half = 12.7062 * differences.std(ddof=1) / np.sqrt(2)  # Student's, one degree of freedom
    assert found["n"] == 2 and found["difference"] == pytest.approx(0.325)
    assert (found["low"], found["high"]) == pytest.approx((0.325 - half, 0.325 + half), rel=1e-4)


def test_the_shipped_model_is_that_of_the_table_and_stands_in_its_card(bundled, tmp_path, quick):
    rows = arms.read()
    made = rows[(rows["arm"] == OURS) & (rows["seed"] == 0)].iloc[0]
    before = rows.set_index(["arm", "figure"]).loc[(BEFORE, TUNED_FOR), "estimate"].item()
    recipe = replace(RECIPE, learning_rate=made["learning_rate"], regions=made["regions"])
    begin, end = (
        "<!-- figures: written by python -m training emoji-fine -->",
        "<!-- end of figures -->",
    )
    (tmp_path / fine.CARD).write_text(f"# A card\n\n{begin}\nold\n{end}\n")
    rows.to_csv(tmp_path / "table.csv", index=False)
    folder = experiment.folder_of(OURS, recipe, tmp_path, bundled)
    with pytest.raises(ValueError, match="There is no model tuned from the present emoji"):
        fine.ship(tmp_path / "table.csv", tmp_path, tmp_path)
    folder.mkdir()
    (folder / experiment.MODEL).write_bytes(b"weights")
    fine.ship(tmp_path / "table.csv", tmp_path, tmp_path)
    card = (tmp_path / fine.CARD).read_text()
    assert (
        f"| {TUNED_FOR} | {before:.3f} " in card
        and "old" not in card
        and card.startswith("# A card")
    )
    assert (tmp_path / "emoji-fine.safetensors").read_bytes() == b"weights"
