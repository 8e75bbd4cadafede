"""How fine a model sees, and the experiment: regions, arms, a search, a table that goes on."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.files import weights_digest
from gradeclip_utils.models import load_clip
from gradeclip_utils.scenes import arrange, concepts, draw_scene, phrase
from studies.finetuning import Tuned, arms, evaluate, experiment, figures
from studies.finetuning.arms import BEFORE, GLOBAL, OURS, RECIPE, RECOGNISED, TUNED_FOR
from studies.finetuning.pairs import noun_phrases
from tests.scenes import is_trained
from training import fine

FEW = evaluate.Amount(regions=6, pointing=2, pairs=2, whole=8)


# -------------------------------------------------------------------------------- measures


def test_scenes_of_regions_have_one_to_four_different_things_and_pilots_have_other_ones():
    scenes = evaluate.region_scenes(8)
    for scene, count in zip(scenes, [1, 2, 3, 4] * 2, strict=True):
        nouns = {thing.noun for thing in scene.objects}
        assert len(nouns) == len(scene.objects) == count
        assert is_trained(scene.objects)
    objects = {scene.objects for scene in scenes}
    pilots = evaluate.region_scenes(8, evaluate.PILOT.split)
    assert objects.isdisjoint(scene.objects for scene in pilots)


def test_regions_whose_features_are_the_right_prompts_are_all_right(bundled, monkeypatch):
    """Dense features from the truth: a cell has the prompt of the object that covers it most."""
    nouns = list(concepts().index)
    texts = [phrase(noun) for noun in nouns]
    prompts = Explainer(bundled).embed_texts(texts).cpu()
    prompt_of = dict(zip(nouns, prompts, strict=True))
    scenes = [
        arrange(nouns[:1]),
        arrange(nouns[5:7]),
        arrange(nouns[9:12]),
        arrange(nouns[20:24]),
    ]
    monkeypatch.setattr(evaluate, "region_scenes", lambda n, split: scenes)
    features = list(evaluate.dense_features(bundled, scenes))

    def true_features(clip, scenes):
        for scene, dense, size, box in features:
            truth = torch.zeros_like(dense)
            for thing, mask in zip(scene.objects, scene.masks(96), strict=True):
                cells = mask.reshape(12, 8, 12, 8)
                share = torch.tensor(cells.mean(axis=(1, 3)), dtype=dense.dtype)  # (12, 12)
                truth += share[..., None] * prompt_of[thing.noun]
            yield scene, truth, size, box

    monkeypatch.setattr(evaluate, "dense_features", true_features)
    rows = evaluate.region_rows(bundled)
    figures = evaluate.summary(rows)
    assert figures["figure"].nunique() == 4  # boxes and masks, top-1 and top-5
    assert set(figures["estimate"]) == {1}
    assert figures["low"].max() < 1


def test_a_model_is_measured_in_every_part_with_intervals_and_chance(bundled):
    figures = evaluate.measure(bundled, FEW)
    assert figures["figure"].is_unique
    assert figures["chance"].between(0, 0.5).all()
    assert figures["estimate"].between(figures["low"], figures["high"]).all()
    counts = figures.set_index("figure")["n"]
    assert counts[RECOGNISED] == 8
    assert counts["binding, swapped colours"] == 4

    regions = evaluate.measure(bundled, FEW, only=["regions"])
    is_region = figures["figure"].isin(regions["figure"])
    expected = figures[is_region].reset_index(drop=True)
    pd.testing.assert_frame_equal(regions, expected)


def test_pairs_are_training_scenes_that_know_which_pixels_a_phrase_describes():
    pairs = list(arms.ScenePairs(12))
    assert len(pairs) == 12
    for i, pair in enumerate(pairs):
        scene = draw_scene([70, i], split="train")
        assert pair.caption == scene.caption
        assert pair.image().size == (96, 96)
        masks = scene.masks(96)
        for part in noun_phrases(scene.caption):
            objects = []
            for span in scene.spans:
                if part.start <= span.start and span.end <= part.end:
                    objects += span.objects
            if objects:
                mask = pair.where(part.start, part.end)
                expected = masks[objects].any(axis=0)
                assert np.array_equal(mask, expected)


def test_a_part_of_the_phrases_names_what_the_image_does_not_show():
    phrases = 0
    false_phrases = 0
    for i, pair in enumerate(arms.ScenePairs(150, false_part=0.3)):
        scene = draw_scene([70, i], split="train")
        assert pair.caption.startswith(scene.caption)
        for part in noun_phrases(pair.caption):
            phrases += 1
            if part.start > len(scene.caption):
                false_phrases += 1
                assert pair.where(part.start, part.end) is None
    assert false_phrases / phrases == pytest.approx(0.3, abs=0.06)


def test_the_map_of_a_name_shows_where_dense_features_resemble_it(bundled, monkeypatch):
    scene = arrange(["cat", "dog"])
    cat, dog = Explainer(bundled).embed_texts(["a cat", "a dog"])
    dense = dog.repeat(12, 12, 1)
    dense[3, 4] = cat
    features = [(scene, dense, 96, (0, 0, 96, 96))]
    monkeypatch.setattr(figures, "dense_features", lambda clip, scenes: iter(features))
    map_ = figures.name_map(bundled, scene, "cat")
    assert map_.shape == (12, 12)
    assert map_.argmax() == 3 * 12 + 4


# ------------------------------------------------------------------------------ experiment


@pytest.fixture
def quick(monkeypatch, bundled):
    """Training and measuring in no time: maps are the better the nearer to their best recipe.

    Gives the list of all recipes that were trained.
    """
    best_recipes = {"grad-eclip": (1e-3, 0.1), "uniform": (1e-5, 0.25), "maskclip": (1e-2, 0.25)}
    trained = []

    def fine_tune(clip, pairs, tuning, **options):
        trained.append(tuning)
        log = pd.DataFrame({"cpu_seconds": [10.0, 20.0]})
        return Tuned(clip, tuning, log)

    def measure(clip, amount, only=()):
        distance = 9.0
        if trained:
            tuning = trained[-1]
            rate, weight = best_recipes[tuning.maps]
            distance = abs(np.log(tuning.learning_rate / rate))
            if tuning.regions:
                distance += abs(np.log(tuning.regions / weight))
        figures = pd.DataFrame({"figure": [TUNED_FOR, RECOGNISED]})
        figures["estimate"] = [1 - distance / 100, 0.5]
        return figures.assign(low=0.0, high=1.0, n=9, chance=0.1)

    monkeypatch.setattr(experiment, "fine_tune", fine_tune)
    monkeypatch.setattr(experiment, "measure", measure)
    monkeypatch.setattr(experiment, "load_clip", lambda *arguments: bundled)
    monkeypatch.setattr(Tuned, "save", lambda tuned, file: file.touch())
    monkeypatch.setattr(experiment, "weights_digest", cache(weights_digest))
    return trained


@pytest.fixture
def table(tmp_path):
    return tmp_path / "table.csv"


@pytest.fixture
def choose(table, tmp_path, quick):
    """Search the recipes of arms: a function of their names."""
    return partial(experiment.choose, table, tmp_path / "runs")


@pytest.fixture
def run(table, tmp_path, quick):
    """Train and measure arms: a function of their recipes and of the seeds."""
    return partial(experiment.run, table, tmp_path / "runs")


def test_the_search_finds_the_best_recipe_of_each_arm_and_measures_nothing_twice(choose, quick):
    with_false_phrases = "grad-eclip without w, false phrases"
    names = [BEFORE, OURS, "uniform map", "maskclip", with_false_phrases]
    recipes = choose(names)
    best = recipes[OURS]
    assert (best.learning_rate, best.regions) == (1e-3, 0.1)
    uniform = recipes["uniform map"]
    assert (uniform.learning_rate, uniform.maps) == (1e-5, "uniform")
    largest = recipes["maskclip"]
    assert largest.learning_rate == 1e-2
    assert recipes[with_false_phrases] == replace(best, weighted=False)

    trainings = len(quick)
    assert choose(names) == recipes
    assert len(quick) == trainings


def test_a_climb_stays_where_no_neighbour_is_better():
    recipe = replace(RECIPE, regions=1.0)
    ladder = [0.1, 1.0, 2.5]
    assert experiment.climb(recipe, "regions", ladder, lambda _: 0.5) == recipe
    highest = experiment.climb(recipe, "regions", ladder, lambda recipe: recipe.regions)
    assert highest.regions == 2.5


def test_without_a_region_loss_its_weight_is_not_searched(choose, table):
    recipes = choose([arms.GLOBAL_AS_OURS, GLOBAL])
    shared = recipes[arms.GLOBAL_AS_OURS]
    assert (shared.learning_rate, shared.regions) == (1e-3, 0.0)
    rows = arms.read(table).query("arm == @GLOBAL")
    assert set(rows["regions"]) == {0.0}


def test_an_arm_shares_the_recipe_of_one_that_is_searched():
    assert set(arms.RECIPE_OF) <= set(arms.ARMS)
    assert not set(arms.RECIPE_OF.values()) & set(arms.RECIPE_OF)


def test_arms_with_false_phrases_are_trained_on_captions_that_have_some(
    tmp_path, quick, monkeypatch
):
    pairs_of_arms = []
    fine_tune = experiment.fine_tune

    def watched(clip, pairs, tuning, **options):
        pairs_of_arms.append(pairs)
        return fine_tune(clip, pairs, tuning, **options)

    monkeypatch.setattr(experiment, "fine_tune", watched)
    for arm in (OURS, *arms.FALSE_PHRASES):
        experiment.tune(arm, RECIPE, tmp_path)
    assert [pairs.false_part for pairs in pairs_of_arms] == [0, 0.3, 0.3]


def test_the_table_gains_the_rows_of_an_arm_and_seed_once(run, table, quick):
    uniform = replace(RECIPE, maps="uniform")
    recipes = {BEFORE: RECIPE, OURS: RECIPE, "uniform map": uniform}
    run(recipes, range(1))
    run(recipes, range(2))
    assert len(quick) == 4

    rows = arms.read(table)
    assert list(rows) == arms.COLUMNS
    assert not rows.duplicated(["arm", "seed", "figure"]).any()
    seeds = rows.groupby("arm")["seed"].agg(set)
    assert seeds.to_dict() == {
        BEFORE: {0},
        OURS: {0, 1},
        "uniform map": {0, 1},
    }
    rows_of_ours = rows.query("arm == @OURS")
    assert set(rows_of_ours["cpu_minutes"]) == {0.5}


def test_a_table_of_other_weights_or_another_recipe_is_refused(run, choose, table):
    run({BEFORE: RECIPE, OURS: RECIPE}, range(1))
    longer = replace(RECIPE, steps=400)
    with pytest.raises(ValueError, match="holds 'grad-eclip' by another recipe"):
        run({OURS: longer}, range(2))

    rows = arms.read(table).assign(weights="another")
    rows.to_csv(table, index=False)
    message = f"holds arms of a different `{arms.START}`"
    with pytest.raises(ValueError, match=message):
        run({OURS: RECIPE}, range(2))
    with pytest.raises(ValueError, match=message):
        choose([OURS])


def test_arms_are_compared_over_the_seeds_that_both_have():
    rows = pd.DataFrame(
        {
            "arm": [OURS, OURS, OURS, GLOBAL, GLOBAL, GLOBAL],
            "seed": [0, 1, 2, 0, 1, 7],
            "estimate": [0.5, 0.6, 0.55, 0.2, 0.25, 0.9],
        }
    )
    comparison = arms.compare(rows.assign(figure=TUNED_FOR), OURS, GLOBAL)
    half_width = 12.7062 * 0.025  # Student's, one degree of freedom; differences .3 and .35
    expected = {"difference": 0.325, "low": 0.325 - half_width, "high": 0.325 + half_width}
    assert comparison == pytest.approx(expected | {"n": 2}, rel=1e-4)


def test_the_shipped_model_is_that_of_the_table_and_stands_in_its_card(tmp_path):
    clip = load_clip(arms.START)
    rows = arms.read().query("seed == 0 and figure == @TUNED_FOR").set_index("arm")
    ours = rows.loc[OURS]
    recipe = replace(RECIPE, learning_rate=ours["learning_rate"], regions=ours["regions"])
    begin = "<!-- figures: written by python -m training emoji-fine -->"
    end = "<!-- end of figures -->"
    card = tmp_path / fine.CARD
    card.write_text(f"# A card\n\n{begin}\nold\n{end}\n")

    folder = experiment.folder_of(OURS, recipe, tmp_path, clip)
    with pytest.raises(ValueError, match=f"no model tuned from the present {arms.START}"):
        fine.ship(tmp_path, tmp_path)
    folder.mkdir()
    tuned = Tuned(clip, recipe, pd.DataFrame())
    tuned.save(folder / experiment.MODEL)
    fine.ship(tmp_path, tmp_path)
    text = card.read_text()
    assert text.startswith("# A card")
    before = rows.loc[BEFORE, "estimate"]
    assert f"| {TUNED_FOR} | {before:.3f} " in text
    assert "old" not in text
