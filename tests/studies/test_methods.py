"""Methods compared: the three measures tell a good map from a bad one, and the table holds what was measured."""

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from studies import methods
from studies.lesson import shown_scenes
from studies.methods import MEASURES, PACKAGE, PAPER, SAME, TRUE, as_table, explainer_of, measure, precision
from studies.relevance import maps_by


@pytest.fixture(scope="module")
def rows(bundled):
    return measure(bundled, [PACKAGE], shown_scenes(3, 4, whole=False))


def test_true_masks_are_precise_and_a_map_that_is_the_same_everywhere_scores_the_area(rows):
    means = rows.groupby("method")["average precision"].mean()
    assert means[TRUE] > 0.8 > 0.3 > means[SAME] and np.isfinite(rows[list(MEASURES)].to_numpy(float)).all()


def test_one_layer_is_the_papers_and_the_packages_own_number_the_packages(bundled):
    assert explainer_of(bundled, PAPER).image_tower.layers == 1
    assert explainer_of(bundled, PACKAGE).image_tower.layers == bundled.image_layers


def test_a_method_that_compares_the_prompts_of_a_call_is_asked_for_each_by_itself(bundled):
    image, texts = shown_scenes(1)[0].image(96), Explainer(bundled).embed_texts(["a dog", "a cat"])[None]
    surgery = {"CLIP Surgery": explainer_of(bundled, "CLIP Surgery")}
    both, one = (maps_by(surgery, [image], some)["CLIP Surgery"] for some in (texts, texts[:, :1]))
    assert np.allclose(both[:, :1], one, atol=1e-6) and torch.is_tensor(texts)


def test_the_mask_itself_has_the_best_precision_and_its_opposite_the_worst():
    mask = np.zeros((96, 96), bool)
    mask[:48, :48] = True
    assert precision(mask.astype(float), mask) == 1 > precision(1.0 - mask, mask)


def test_the_table_is_sorted_and_names_mean_interval_cost_and_number_of_scenes(rows):
    table = as_table(rows, pd.Series({PACKAGE: 3.2}))
    assert table.index[0] == TRUE and table.loc[PACKAGE, "cost in passes"] == "3" and table.loc[SAME, "scenes"] == 3
    assert all("[" in cell for cell in table["deletion"])


def test_slow_methods_are_read_for_the_model_that_has_them(tmp_path, monkeypatch, rows):
    kept = rows.assign(passes=500.0)
    kept.to_csv(tmp_path / "methods.csv", index=False)
    monkeypatch.setattr(methods, "data_path", lambda name: tmp_path / name)
    found, costs = methods.read_slow("emoji")
    assert len(found) == len(kept) and costs[PACKAGE] == 500
    assert not len(methods.read_slow("another")[0])
