"""Methods compared.

The measures tell a good map from a bad one, and the table holds what was measured.
"""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.measures.faithfulness import (
    Protocol,
    colours_of,
    image_curves,
)
from studies import methods
from studies.lesson import prompts_of, shown_scenes
from studies.methods import (
    INDICATOR,
    LEADS,
    MEASURES,
    PACKAGE,
    PAPER,
    POSITIVE,
    SAME,
    SUMMED,
    TRUE,
    as_table,
    explainer_of,
    in_parts,
    mean_precision,
    measure,
    measure_depths,
    measured,
    measured_depths,
    plot_methods,
)
from studies.relevance import layer_maps, maps_by


@pytest.fixture(scope="module")
def scenes():
    return shown_scenes(2, 4, whole=False)


@pytest.fixture(scope="module")
def rows(bundled, scenes):
    return measure(bundled, [PACKAGE], scenes, deletion=2)


def test_true_masks_are_precise_and_a_map_that_is_the_same_everywhere_scores_the_area(rows):
    means = rows.groupby("method")["average precision"].mean()
    assert means[TRUE] > 0.8
    assert means[SAME] < 0.3
    maps = rows[rows["method"] != INDICATOR]
    assert maps[[*MEASURES, *LEADS]].notna().all(axis=None)


def test_naming_a_thing_orders_four_things_and_says_nothing_about_the_named_ones(rows):
    indicator = rows[rows["method"] == INDICATOR]
    assert set(indicator["taken out"]) == {0}
    assert indicator["all four"].mean() > 0.3


def test_deletion_and_insertion_are_parts_of_the_way_to_the_intact_image(bundled, scenes, rows):
    scene = scenes[0]
    explainer = Explainer(bundled)
    text, *_ = explainer.embed_texts(prompts_of(scene))
    curves = image_curves(
        lambda batch: explainer.image_tower.forward(batch) @ text,
        bundled.preprocess(scene.image(96)),
        {SAME: np.ones((8, 8))},
        Protocol(span=1, points=21),
        colours=colours_of(bundled.preprocess),
    )
    scores = curves.set_index(["game", "fraction"])["score"]
    row = rows.set_index(["method", "scene"]).loc[SAME, 0]
    scaled = in_parts(rows)
    for game, empty_at in [("deletion", 1), ("insertion", 0)]:
        curve = scores[game]
        heights = curve[:0.51] - curve[empty_at]
        area = np.trapezoid(heights, dx=0.1)  # of the half that is measured, as its mean
        way = curve[1 - empty_at] - curve[empty_at]
        assert row[game] == pytest.approx(area, abs=1e-4)
        assert row[f"{game} range"] == pytest.approx(way, abs=1e-6)

        mean_way = rows[f"{game} range"].mean()
        mean_area = rows[game].mean()
        assert scaled[game].mean() == pytest.approx(mean_area / mean_way)


def test_the_target_of_a_lead_is_the_prompt_less_the_mean_of_null_captions(bundled, scenes, rows):
    explainer = Explainer(bundled)
    nulls = explainer.embed_texts(explainer.null_captions)
    mean = nulls.mean(0)
    rows = rows.set_index(["method", "scene"])
    for k, scene in enumerate(scenes):
        leads = explainer.embed_texts(prompts_of(scene)) - mean
        maps = explainer.maps(scene.image(96), leads)
        expected = mean_precision(maps[0].numpy(), scene.masks(96))
        row = rows.loc[PACKAGE, k]
        assert row["average precision (lead)"] == pytest.approx(expected, abs=1e-4)


def test_positive_parts_are_taken_in_each_layer_before_they_are_added(bundled, scenes):
    image = scenes[0].image(96)
    texts = Explainer(bundled).embed_texts(["a dog"])[None]
    by_layer = layer_maps(bundled, [image], texts)["loosened"]
    positive_parts = by_layer[:, :, :2].clip(min=0)
    explainer = explainer_of(bundled, POSITIVE, 2)
    maps = explainer.maps([image], texts)
    assert np.allclose(maps, positive_parts.sum(2), atol=1e-6)


def test_depths_are_those_of_the_paper_the_package_and_all_layers(bundled, scenes):
    rows = measure_depths(bundled, scenes)
    tower = Explainer(bundled).image_tower
    assert set(rows["layers"]) == {1, tower.layers, tower.depth}
    assert set(rows["method"]) == set(SUMMED)
    assert rows["average precision"].between(0, 1).all()


def test_one_layer_is_the_papers_and_the_packages_own_number_the_packages(bundled):
    assert explainer_of(bundled, PAPER).image_tower.layers == 1
    assert explainer_of(bundled, PACKAGE).image_tower.layers == bundled.image_layers


def test_a_method_that_compares_the_prompts_of_a_call_is_asked_for_each_by_itself(bundled, scenes):
    image = scenes[0].image(96)
    texts = Explainer(bundled).embed_texts(["a dog", "a cat"])[None]
    surgery = {"CLIP Surgery": explainer_of(bundled, "CLIP Surgery")}
    together = maps_by(surgery, [image], texts)["CLIP Surgery"]
    alone = maps_by(surgery, [image], texts[:, :1])["CLIP Surgery"]
    assert np.allclose(together[:, :1], alone, atol=1e-6)


def test_the_table_is_sorted_and_names_mean_interval_cost_and_number_of_scenes(rows):
    table = as_table(rows, pd.Series({PACKAGE: 3.2}))
    assert table.index[0] == TRUE
    assert table.loc[PACKAGE, "cost in passes"] == "3"
    assert table.loc[SAME, "scenes"] == 2
    assert table["average precision"].iloc[:-1].str.contains("[", regex=False).all()


def test_each_method_has_a_dot_and_a_name_in_the_figure(rows):
    figure = plot_methods(rows, pd.Series({PACKAGE: 3.0}))
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {PACKAGE, TRUE, SAME}
    assert len(axes.collections[0].get_offsets()) == 3


@pytest.fixture
def table_on_disk(tmp_path, monkeypatch, bundled):
    """A folder for the table and for weights of the model, and a short list of methods."""
    (tmp_path / "emoji.safetensors").write_text("weights")
    monkeypatch.setattr(methods, "data_path", lambda name: tmp_path / name)
    monkeypatch.setattr(methods, "load_clip", lambda name: bundled)
    monkeypatch.setattr(methods, "QUICK", {PAPER: "grad-eclip", "rollout": "rollout"})
    monkeypatch.setattr(methods, "SLOW", {})
    monkeypatch.setattr(methods, "MODELS", ["emoji"])
    monkeypatch.setattr(methods, "SLOW_SCENES", 0)
    monkeypatch.setattr(methods, "DEPTH_SCENES", 1)
    monkeypatch.setattr(methods, "CURVED", 0)
    return tmp_path


def test_the_table_goes_on_where_it_was_stopped_and_is_that_of_its_weights(
    table_on_disk, monkeypatch, bundled
):
    for count in (2, 3):
        monkeypatch.setattr(methods, "SCENES", count)
        methods.main()
    table = pd.read_csv(table_on_disk / "methods.csv")
    of_paper = table[table["method"] == PAPER]
    assert sorted(of_paper["scene"]) == [0, 1, 2]

    depths = measured_depths(bundled, 2)
    assert set(depths["scene"]) == {0}
    rows, costs = measured(bundled, 2)
    assert set(rows["scene"]) == {0, 1}
    assert costs[PAPER] >= 0

    (table_on_disk / "emoji.safetensors").write_text("other weights")
    monkeypatch.setattr(methods, "passes", lambda *_: pd.Series(dtype=float))
    rows, _ = measured(bundled, 1)
    assert set(rows["method"]) == {PAPER, "rollout", TRUE, SAME, INDICATOR}
