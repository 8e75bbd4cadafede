"""Methods compared.

The measures tell a good map from a bad one, and the table holds what was measured.
"""

from dataclasses import replace

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
    measure,
    measure_depths,
    measured,
    measured_depths,
    plot_methods,
    plot_quick,
    precision,
    precision_on,
)
from studies.relevance import layer_maps, maps_by, null_mean


@pytest.fixture(scope="module")
def rows(bundled):
    return measure(bundled, [PACKAGE], shown_scenes(2, 4, whole=False), deletion=2)


def test_true_masks_are_precise_and_a_map_that_is_the_same_everywhere_scores_the_area(rows):
    means = rows.groupby("method")["average precision"].mean()
    assert means[TRUE] > 0.8
    assert means[SAME] < 0.3
    maps = rows[rows["method"] != INDICATOR]
    assert np.isfinite(maps[[*MEASURES, *LEADS]].to_numpy(float)).all()


def test_naming_a_thing_orders_four_things_and_says_nothing_about_the_named_ones(rows):
    indicator = rows[rows["method"] == INDICATOR]
    assert (indicator["taken out"] == 0).all()
    assert indicator["all four"].mean() > 0.3


def test_deletion_and_insertion_are_parts_of_the_way_to_the_intact_image(bundled, rows):
    scene = shown_scenes(1, 4, whole=False)[0]
    explainer = Explainer(bundled)
    text = explainer.embed_texts(prompts_of(scene)[:1])[0]
    curves = image_curves(
        lambda batch: explainer.image_tower.forward(batch) @ text,
        bundled.preprocess(scene.image(96)),
        {SAME: np.ones((8, 8))},
        Protocol(span=1, points=21),
        colours=colours_of(bundled.preprocess),
    )
    row = rows[(rows["method"] == SAME) & (rows["scene"] == 0)].iloc[0]
    for game, empty_at in [("deletion", 1), ("insertion", 0)]:
        curve = curves[curves["game"] == game].set_index("fraction")["score"]
        heights = curve[curve.index < 0.51] - curve[empty_at]
        area = (heights.iloc[0] / 2 + heights.iloc[1:-1].sum() + heights.iloc[-1] / 2) / 10
        assert row[game] == pytest.approx(area, abs=1e-4)
        assert row[f"{game} range"] == pytest.approx(
            curve[1 - empty_at] - curve[empty_at], abs=1e-6
        )

        scaled = in_parts(rows)
        ways = rows[f"{game} range"].mean()
        assert scaled[game].mean() == pytest.approx(rows[game].mean() / ways)


def test_the_target_of_a_lead_is_the_prompt_less_the_mean_of_null_captions(bundled, rows):
    scenes = shown_scenes(2, 4, whole=False)
    explainer = Explainer(bundled)
    mean = null_mean(explainer)
    for k, scene in enumerate(scenes):
        directions = explainer.embed_texts(prompts_of(scene)) - mean
        maps = explainer.maps(scene.image(96), directions).numpy()
        row = rows[(rows["method"] == PACKAGE) & (rows["scene"] == k)]
        expected = precision_on(maps, [scene.masks(96)])
        assert row["average precision (lead)"].item() == pytest.approx(expected.item(), abs=1e-4)


def test_positive_parts_are_taken_in_each_layer_before_they_are_added(bundled):
    image = shown_scenes(1)[0].image(96)
    texts = Explainer(bundled).embed_texts(["a dog"])[None]
    layers = layer_maps(bundled, [image], texts)["loosened"]
    expected = layers[:, :, :2].clip(min=0).sum(2)
    maps = explainer_of(bundled, POSITIVE, 2).maps([image], texts).numpy()
    assert np.allclose(maps, expected, atol=1e-6)


def test_depths_are_those_of_the_paper_the_package_and_all_layers(bundled):
    rows = measure_depths(bundled, shown_scenes(2, 4, whole=False))
    tower = Explainer(bundled).image_tower
    assert set(rows["layers"]) == {1, tower.layers, tower.depth}
    assert set(rows["method"]) == set(SUMMED)
    assert rows["average precision"].between(0, 1).all()


def test_one_layer_is_the_papers_and_the_packages_own_number_the_packages(bundled):
    assert explainer_of(bundled, PAPER).image_tower.layers == 1
    assert explainer_of(bundled, PACKAGE).image_tower.layers == bundled.image_layers


def test_a_method_that_compares_the_prompts_of_a_call_is_asked_for_each_by_itself(bundled):
    image = shown_scenes(1)[0].image(96)
    texts = Explainer(bundled).embed_texts(["a dog", "a cat"])[None]
    surgery = {"CLIP Surgery": explainer_of(bundled, "CLIP Surgery")}
    together = maps_by(surgery, [image], texts)["CLIP Surgery"]
    alone = maps_by(surgery, [image], texts[:, :1])["CLIP Surgery"]
    assert np.allclose(together[:, :1], alone, atol=1e-6)


def test_the_mask_itself_has_the_best_precision_and_its_opposite_the_worst():
    mask = np.arange(96)[:, None] < [48] * 96
    masks = np.stack([mask, ~mask])
    assert precision_on(masks[None].astype(float), [masks]) == 1
    assert precision(1.0 - mask, mask) < 1


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
    """A folder for the table and for weights of the models, and a short list of methods."""
    for model in ("emoji", "another"):
        (tmp_path / f"{model}.safetensors").write_text(model)

    def load(name):
        return replace(bundled, name=name)

    monkeypatch.setattr(methods, "data_path", lambda name: tmp_path / name)
    monkeypatch.setattr(methods, "load_clip", load)
    monkeypatch.setattr(methods, "QUICK", {PAPER: "grad-eclip", "rollout": "rollout"})
    monkeypatch.setattr(methods, "SLOW", {})
    monkeypatch.setattr(methods, "CURVED", 0)
    return tmp_path


def run(folder, monkeypatch, n):
    arguments = f"methods --models emoji --n {n} --slow 0 --depths 1 --out {folder / 'methods.csv'}"
    monkeypatch.setattr("sys.argv", arguments.split())
    methods.main()


def test_the_table_goes_on_where_it_was_stopped_and_is_that_of_its_weights(
    table_on_disk, monkeypatch, bundled
):
    file = table_on_disk / "methods.csv"
    run(table_on_disk, monkeypatch, 2)
    first = pd.read_csv(file)
    run(table_on_disk, monkeypatch, 3)
    both = pd.read_csv(file)
    assert len(both) > len(first)
    assert sorted(both[both["method"] == PAPER]["scene"]) == [0, 1, 2]
    depths = measured_depths(replace(bundled, name="emoji"), 2)
    assert set(depths["scene"]) == {0}

    rows, costs = measured(replace(bundled, name="emoji"), 2)
    assert set(rows["scene"]) == {0, 1}
    assert costs[PAPER] >= 0

    (table_on_disk / "emoji.safetensors").write_text("other weights")
    monkeypatch.setattr(methods, "passes", lambda *_: pd.Series(dtype=float))
    rows, _ = measured(replace(bundled, name="emoji"), 1)
    assert set(rows["method"]) == {PAPER, "rollout", TRUE, SAME, INDICATOR}


def test_the_first_figure_has_a_map_of_every_quick_method(bundled, monkeypatch):
    monkeypatch.setattr(methods, "QUICK", {PAPER: "grad-eclip", "rollout": "rollout"})
    figure = plot_quick(bundled, shown_scenes(1)[0])
    assert PAPER in figure.alt
    assert "rollout" in figure.alt
