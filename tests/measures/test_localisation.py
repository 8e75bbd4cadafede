"""Metrics: a perfect map scores one, a map that says nothing scores chance, and the checks see what they should."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from gradeclip_utils import Explainer
from gradeclip_utils.images import model_view, onto_image, pool
from gradeclip_utils.measures import sanity
from gradeclip_utils.measures.localisation import MEASURES, localisation_scores, reference_baselines
from gradeclip_utils.measures.sanity import randomised, rank_correlation, time_methods

HIGH, WIDE = 36, 48
GRID = (6, 8)  # tokens of 6 x 6 pixels


@pytest.fixture
def mask() -> np.ndarray:
    """A blob that respects no token border."""
    down, across = np.mgrid[:HIGH, :WIDE]
    return (down - 20.5) ** 2 + 0.6 * (across - 14) ** 2 < 60


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def grid_map(map_) -> np.ndarray:
    return onto_image(map_, (0, 0, WIDE, HIGH), (WIDE, HIGH))


def test_the_true_mask_scores_one_in_everything(mask):
    assert localisation_scores(mask.astype(float), mask) == dict.fromkeys(MEASURES, 1.0)


def test_a_constant_map_scores_exactly_chance_whatever_its_value_and_also_after_resizing(mask):
    resized = onto_image(np.full(GRID, 0.1), (-0.3, -0.7, WIDE + 0.4, HIGH + 0.2), (WIDE, HIGH))
    assert np.ptp(resized) > 0  # resizing rounds
    for heat in (resized, *(np.full(mask.shape, value) for value in (0.0, 0.7, -0.3, 1e-30, 1e9))):
        assert localisation_scores(heat, mask) == pytest.approx(
            dict.fromkeys(MEASURES, mask.mean()), abs=1e-12
        )


def test_tied_maxima_share_the_point(mask):
    heat = np.zeros(mask.shape)
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    heat[tuple(inside[0])] = heat[tuple(outside[5])] = heat[tuple(outside[9])] = 2.0
    heat[tuple(outside[9])] += 1e-9  # a tie up to rounding
    assert localisation_scores(heat, mask)["pointing_game"] == pytest.approx(1 / 3)


def test_measures_are_what_their_definitions_say_pixel_by_pixel(mask, rng):
    heat = grid_map(rng.normal(size=GRID)) + mask
    found = localisation_scores(heat, mask)
    positive = [(heat[i], mask[i]) for i in np.ndindex(mask.shape) if heat[i] > 0]
    energy = sum(v for v, m in positive if m) / sum(v for v, _ in positive)
    assert found["energy_pointing_game"] == pytest.approx(energy, rel=1e-5)
    assert found["average_precision"] == pytest.approx(
        average_precision_score(mask.ravel(), heat.ravel()), abs=1e-4
    )
    marked = heat >= 0.2 * heat.max()
    assert found["iou_fixed"] == pytest.approx(
        (marked & mask).sum() / (marked | mask).sum(), abs=2e-3
    )
    assert found["pixel_accuracy"] == pytest.approx((marked == mask).mean(), abs=2e-3)
    each = [((heat >= t) & mask).sum() / ((heat >= t) | mask).sum() for t in np.unique(heat)]
    assert found["iou_best"] == pytest.approx(max(each), abs=2e-3)
    assert localisation_scores(1e-4 * heat, mask) == pytest.approx(found)


def test_pooling_averages_over_tokens_and_counts_padding_as_nothing(rng):
    values = rng.random((6, 8))
    np.testing.assert_allclose(pool(values, (3, 2)), values.reshape(3, 2, 2, 4).mean(axis=(1, 3)))
    np.testing.assert_allclose(pool(values, (6, 8)), values)
    np.testing.assert_allclose(pool(np.ones((4, 4)), (1, 2), (-4, 0, 4, 4)), [[0, 1]])
    fractional = pool(values, (3, 3), (0.7, 0.2, 7.9, 5.3))
    assert fractional.sum() / 9 * 7.2 * 5.1 == pytest.approx(
        (np.outer([0.8, 1, 1, 1, 1, 0.3], [0.3, 1, 1, 1, 1, 1, 1, 0.9]) * values).sum()
    )


def test_another_tools_heat_map_is_brought_to_the_models_input_crop_included(tiny):
    wide = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1))).convert("RGB")
    view = model_view(tiny.preprocess, wide)  # the middle 32 of 64 columns
    heat = np.asarray(wide)[..., 0].astype(float)
    np.testing.assert_allclose(pool(heat, (32, 32), view.box), heat[:, 16:48])


def test_the_oracle_beats_every_other_map_on_its_grid(mask, rng):
    framed = reference_baselines(GRID, mask, rng)
    assert list(framed) == ["random", "centre", "oracle", "area"]
    best = localisation_scores(framed["oracle"], mask)
    assert best["pointing_game"] == 1 and best["average_precision"] > 0.9
    for _ in range(30):
        other = localisation_scores(reference_baselines(GRID, mask, rng)["random"], mask)
        assert all(best[measure] >= other[measure] for measure in MEASURES)
    centre = localisation_scores(framed["centre"], mask)
    assert all(best[measure] > centre[measure] for measure in MEASURES)


def test_reference_baselines_are_seeded_and_zero_where_the_model_does_not_look(mask):
    box = (6.0, 0.0, 42.0, 36.0)
    first, again = (
        reference_baselines(GRID, mask, np.random.default_rng(7), box=box) for _ in range(2)
    )
    for name, heat in first.items():
        np.testing.assert_array_equal(heat, again[name])
        assert heat.shape == mask.shape and heat.any()
        assert name == "area" or not (heat[:, :6].any() or heat[:, 42:].any())
    assert np.argmax(first["centre"].sum(0)) in range(20, 28)
    assert (first["area"] == 1).all()


def test_a_randomised_model_is_a_seeded_copy_and_the_original_is_untouched(tiny):
    before = {name: weight.clone() for name, weight in tiny.model.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = randomised(tiny), randomised(tiny), randomised(tiny, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in tiny.model.state_dict().items():
        assert torch.equal(weight, before[name])
        assert torch.equal(first.model.state_dict()[name], again.model.state_dict()[name])
    for name, weight in first.model.named_parameters():
        same = torch.equal(weight, before[name])
        assert same == (weight.numel() == 1 or bool(before[name].std() == 0))
        if not same:
            assert not torch.equal(weight, other.model.get_parameter(name)) and weight.requires_grad
    assert "random weights (seed 0)" in first.name and first.tokenizer is tiny.tokenizer


def test_a_randomised_model_can_be_explained_even_if_made_in_inference_mode(tiny, picture):
    with torch.inference_mode():
        clip = randomised(tiny)
    assert np.isfinite(Explainer(clip).explain(picture, "a dog").image_maps).all()


def test_agreement_is_spearmans_rank_correlation(rng):
    maps, others = rng.normal(size=(2, 5, 4, 6)).round(1)  # rounded: there are ties
    expected = [
        spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(maps, others), expected)
    np.testing.assert_allclose(rank_correlation(maps, 3 * maps), 1)
    np.testing.assert_allclose(rank_correlation(maps, -maps), -1)
    assert rank_correlation(maps, np.ones_like(maps)).tolist() == [0] * 5
    with pytest.raises(
        ValueError, match=r"two stacks of maps \(P, ...\), got \(5, 4, 6\) and \(4, 6\)"
    ):
        rank_correlation(maps, others[0])


def test_cost_is_counted_in_plain_passes_after_a_first_round_that_does_not_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sanity.time, "perf_counter", lambda: clock[0])
    first = iter([9.0])

    def waits(seconds):
        return lambda: clock.append(clock.pop() + next(first, seconds))

    table = time_methods({"same": waits(2), "five": waits(10)}, waits(2), repeats=3)
    assert table["method"].tolist() == ["same", "five"] and table["seconds"].tolist() == [2, 10]
    for column in ("passes", "low", "high"):
        assert table[column].tolist() == [1, 5]
