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
    TRUE,
    as_table,
    explainer_of,
    measure,
    precision,
)
from studies.relevance import maps_by


@pytest.fixture(scope="module")
def rows(bundled):
    return measure(bundled, [PACKAGE], shown_scenes(3, 4, whole=False))


def test_true_masks_are_precise_and_a_map_that_is_the_same_everywhere_scores_the_area(rows):
    means = rows.groupby("method")["average precision"].mean()
    assert (
        means[TRUE] > 0.8 > 0.3 > means[SAME]
        and np.isfinite(rows[list(MEASURES)].to_numpy(float)).all()
    )


def test_one_layer_is_the_papers_and_the_packages_own_number_the_packages(bundled):
    assert explainer_of(bundled, PAPER).image_tower.layers == 1
    assert explainer_of(bundled, PACKAGE).image_tower.layers == bundled.image_layers


def test_a_method_that_compares_the_prompts_of_a_call_is_asked_for_each_by_itself(bundled):
    image, texts = (
        shown_scenes(1)[0].image(96),
        Explainer(bundled).embed_texts(["a dog", "a cat"])[None],
    )
    surgery = {"CLIP Surgery": explainer_of(bundled, "CLIP Surgery")}
    both, one = (
        maps_by(
            surgery,
            [image],
            some,
        )["CLIP Surgery"]
        for some in (texts, texts[:, :1])
    )
    assert np.allclose(both[:, :1], one, atol=1e-6)


def test_the_mask_itself_has_the_best_precision_and_its_opposite_the_worst():
    mask = np.arange(96)[:, None] < [48] * 96
    both = np.stack([mask, ~mask])
    assert methods.precision_on(both[None].astype(float), [both]) == 1 > precision(1.0 - mask, mask)


def test_the_table_is_sorted_and_names_mean_interval_cost_and_number_of_scenes(rows):
    table = as_table(rows, pd.Series({PACKAGE: 3.2}))
    assert (
        table.index[0] == TRUE
        and table.loc[PACKAGE, "cost in passes"] == "3"
        and table.loc[SAME, "scenes"] == 3
    )
    apart = methods.differences(rows[(rows["method"] == SAME) | (rows["scene"] > 0)], SAME)
    assert all("[" in cell for cell in [*table["deletion"], *apart["taken out"]]) and set(
        apart["scenes"]
    ) == {2}


def test_slow_methods_are_measured_with_both_models_and_read_for_the_model_that_has_them(
    tmp_path, monkeypatch, rows
):
    measured = {
        "measure": lambda clip, titles, *_, **__: rows.assign(model=clip, method=titles[0]),
        "passes": lambda clip, titles, **__: pd.Series(500.0, titles),
        "load_clip": str,
        "data_path": lambda name: tmp_path / name,
    }
    for name, instead in measured.items():
        monkeypatch.setattr(methods, name, instead)
    monkeypatch.setattr("sys.argv", ["methods"])
    methods.main()
    (found, costs), (plain, _), (none, _) = map(
        methods.read_slow, ("emoji", "emoji-plain", "another")
    )
    assert (
        set(found["method"]) == set(plain["method"]) == {*methods.SLOW}
        and costs["RISE"] == 500
        and not len(none)
    )
