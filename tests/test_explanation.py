"""Explanation: frozen results, one shape for prompts and words, saved and read again."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import pearsonr, ttest_1samp

from gradeclip_utils import Explainer, Explanation, Interactions
from gradeclip_utils.errors import GradeclipError

PROMPTS = ["a dog", "a red car", "cat"]


@pytest.fixture(scope="module")
def explainer(tiny):
    return Explainer(tiny)


@pytest.fixture(scope="module")
def explanation(explainer, picture):
    return explainer.explain(picture, PROMPTS)


@pytest.fixture(scope="module")
def interactions(explainer, picture):
    return explainer.interactions(picture, "a red car")


def test_one_prompt_is_found_by_its_text_or_its_place(explainer, picture, explanation):
    assert len(explanation) == 3
    by_iteration = list(explanation)
    for i, prompt in enumerate(PROMPTS):
        expected = explainer.explain(picture, prompt)
        for single in (by_iteration[i], explanation[i], explanation[i - 3], explanation[prompt]):
            assert single.prompts == (prompt,)
            assert single.words == explanation.words[i : i + 1]
            assert_array_equal(single.image_maps, explanation.image_maps[i : i + 1])
            assert_allclose(single.percentile, expected.percentile, atol=1e-6)

    assert_array_equal(explanation.heatmap("cat"), explanation.heatmap(2))
    with pytest.raises(GradeclipError, match="there is no 'a cat' here: did you mean"):
        explanation["a cat"]
    with pytest.raises(IndexError):
        explanation[3]


def test_words_of_interactions_are_found_in_the_same_way(interactions):
    texts = [word.words[0][0].text for word in interactions]
    assert texts == ["a", "red", "car"]
    red = interactions["red"]
    assert red.prompts == interactions.prompts
    assert red.similarity.shape == (1,)
    assert_array_equal(red.image_maps, interactions.image_maps[1:2])
    assert_array_equal(interactions.heatmap("red"), interactions.heatmap(1))


def test_a_contrast_of_one_prompt_keeps_its_other_side(explainer, picture):
    explanation = explainer.explain(picture, PROMPTS, against=["a cow", "a bus", "a tree"])
    single = explanation["a red car"]
    assert single.against == ("a bus",)
    assert single.against_words == explanation.against_words[1:2]
    assert single.against_similarity == explanation.against_similarity[1:2]


def test_a_result_is_frozen_and_a_heat_map_is_cut_off_at_zero(explanation):
    maps = np.array(explanation.image_maps)
    copied = replace(explanation, image_maps=maps)
    maps += 1  # it can be written to
    assert not copied.image_maps.flags.writeable
    assert_array_equal(copied.image_maps, explanation.image_maps)
    with pytest.raises(FrozenInstanceError):
        explanation.prompts = ()
    heat = explanation.heatmap(0)
    assert heat.shape == (50, 80)
    assert heat.min() == 0
    assert explanation.heatmap(0, signed=True).min() < 0


def test_a_method_of_prompts_alone_has_no_maps(tiny, picture):
    explanation = Explainer(tiny, method="leave-one-out").explain(picture, "a dog")
    assert explanation.image_maps is None
    assert explanation.provenance.image_layers is None
    with pytest.raises(GradeclipError, match="Leave one word out explains prompts only"):
        explanation.heatmap()


@pytest.mark.parametrize("against", [None, "a cow", "others"])
def test_a_saved_explanation_is_read_back_as_it_was(against, explainer, picture, tmp_path):
    prompts = ["日本 <b> 🍕", "a dog"]
    explanation = explainer.explain(picture, prompts, against=against, heads="separate")
    loaded = Explanation.load(explanation.save(tmp_path / "dog.npz"))
    for name, value in vars(explanation).items():
        if isinstance(value, np.ndarray) or name == "image":
            assert_array_equal(getattr(loaded, name), value)
        else:
            assert getattr(loaded, name) == value


def test_saved_interactions_are_read_back_and_their_place_is_one_file(interactions, tmp_path):
    path = interactions.centred(over=[1, 2]).save(tmp_path / "words.npz")
    loaded = Interactions.load(path)
    assert loaded.words == interactions.words
    assert loaded.provenance.centred == ((1,), (2,))
    with pytest.raises(GradeclipError, match="it holds Interactions, which Interactions.load"):
        Explanation.load(path)
    with pytest.raises(GradeclipError, match="one .npz file"):
        interactions.save(tmp_path / "folder")


def test_regions_are_the_connected_parts_of_the_highest_pixels(explanation):
    maps = np.zeros((3, 4, 4))
    maps[1, 0, 0] = 1
    maps[1, 3, 3] = 2
    with_two_parts = replace(explanation, image_maps=maps)
    regions = with_two_parts.regions("a red car", quantile=0.5)
    assert len(regions.boxes) == 2
    parts = zip(regions.boxes, regions.points, strict=True)
    for (left_side, top, right_side, bottom), (x, y) in parts:
        assert left_side <= x < right_side
        assert top <= y < bottom
        assert regions.mask[y, x]

    left_side, _, right_side, _ = explanation.box
    middle = (left_side + right_side) / 2
    (x_of_larger, _), (x_of_smaller, _) = regions.points
    assert x_of_larger > middle > x_of_smaller
    assert not with_two_parts.regions("cat").mask.any()


def test_provenance_says_what_was_explained_and_with_how_many_layers(tiny, picture):
    clip = replace(tiny, name="some", pretrained="tag")
    explainer = Explainer(clip, image_layers=2)
    provenance = explainer.explain(picture, "a dog", words="grad-eclip").provenance
    assert (provenance.model, provenance.pretrained) == ("some", "tag")
    assert (provenance.method, provenance.title) == ("grad-eclip", "Grad-ECLIP")
    assert (provenance.words, provenance.words_title) == ("grad-eclip", "Grad-ECLIP")
    assert (provenance.image_layers, provenance.text_layers) == (2, 2)


def test_dependence_is_one_less_the_mean_correlation_with_maps_of_other_prompts(
    explainer, picture, explanation
):
    nulls = explainer.null_maps(picture, "a dog", 9)
    map_ = explanation.image_maps[0].ravel().astype(float)
    distances = []
    for null in nulls:
        correlation, _ = pearsonr(map_, null.ravel())
        distances.append(1 - correlation)
    mean = np.mean(distances)
    low, high = ttest_1samp(distances, 0).confidence_interval()

    dependence = explanation.prompt_dependence(nulls, "a dog")
    expected = np.clip([mean, low, high], 0, 2)
    assert_allclose(dependence, expected, atol=1e-6)
    value_of_scaled, *_ = explanation.prompt_dependence(3 * nulls + 1)
    assert value_of_scaled == pytest.approx(mean, abs=1e-5)


def test_dependence_of_a_map_of_zeros_is_none_on_equal_maps_and_whole_on_others(explanation):
    maps = explanation.image_maps
    flat = replace(explanation, image_maps=np.zeros_like(maps))
    value, *_ = flat.prompt_dependence(np.ones((3, 4, 4)))
    assert value == 0
    value, *_ = flat.prompt_dependence(maps[[0, 0, 0]])
    assert value == 1


def test_a_result_says_in_one_line_what_it_explains(explainer, picture):
    explanation = explainer.explain(picture, ["a dog", "a red car"])
    number = f"{explanation.similarity[0]:.2f}"
    assert repr(explanation).startswith(
        f"Explanation of 'a dog' (similarity {number}), 'a red car'"
    )
    assert "Grad-ECLIP" in repr(explanation)
    assert len(repr(explanation)) < 250
    assert repr(explainer.interactions(picture, "a dog")).startswith("Interactions of 'a dog' (")


def test_an_index_beyond_the_last_map_is_refused_as_by_a_list(explainer, picture):
    explanation = explainer.explain(picture, "a dog")
    for call in (explanation.heatmap, explanation.__getitem__, explanation.regions):
        with pytest.raises(IndexError, match="index 3 is out of range: the last one is 0"):
            call(3)
