"""Methods compared.

The three measures tell a good map from a bad one, and the table holds what was measured.
"""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from studies import methods
from studies.lesson import shown_scenes
from studies.methods import (
    MEASURES,
    PACKAGE,
    PAPER,
    SAME,
    SLOW,
    TRUE,
    as_table,
    differences,
    explainer_of,
    measure,
    precision,
    precision_on,
    read_slow,
)
from studies.relevance import maps_by


@pytest.fixture(scope="module")
def rows(bundled):
    return measure(bundled, [PACKAGE], shown_scenes(3, 4, whole=False))


def test_true_masks_are_precise_and_a_map_that_is_the_same_everywhere_scores_the_area(rows):
    means = rows.groupby("method")["average precision"].mean()
    assert means[TRUE] > 0.8
    assert means[SAME] < 0.3
    assert np.isfinite(rows[list(MEASURES)].to_numpy(float)).all()


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
    assert table.loc[SAME, "scenes"] == 3
    assert table["deletion"].str.contains("[", regex=False).all()


def test_differences_are_those_of_the_scenes_of_both(rows):
    fewer = rows[(rows["method"] == SAME) | (rows["scene"] > 0)]
    table = differences(fewer, SAME)
    assert set(table["scenes"]) == {2}
    assert table["taken out"].str.contains("[", regex=False).all()


def test_slow_methods_are_measured_with_both_models_and_read_for_the_model_that_has_them(
    tmp_path, monkeypatch, rows
):
    def measured(clip, titles, *_, **__):
        return rows.assign(model=clip, method=titles[0])

    def passes(clip, titles, **_):
        return pd.Series(500.0, titles)

    monkeypatch.setattr(methods, "measure", measured)
    monkeypatch.setattr(methods, "passes", passes)
    monkeypatch.setattr(methods, "load_clip", str)
    monkeypatch.setattr(methods, "data_path", lambda name: tmp_path / name)
    monkeypatch.setattr("sys.argv", ["methods"])
    methods.main()
    for model in ("emoji", "emoji-aided"):
        table, costs = read_slow(model)
        assert set(table["method"]) == set(SLOW)
        assert costs["RISE"] == 500
    table, _ = read_slow("another")
    assert table.empty
