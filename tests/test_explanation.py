"""Explanation: frozen results, one shape for prompts and words, saved and read again."""

import json
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
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
    for i, prompt in enumerate(PROMPTS):
        expected = explainer.explain(picture, prompt)
        by_iteration = list(explanation)[i]
        for single in (by_iteration, explanation[i], explanation[i - 3], explanation[prompt]):
            assert single.prompts == (prompt,)
            assert single.words == explanation.words[i : i + 1]
            np.testing.assert_array_equal(single.image_maps, explanation.image_maps[i : i + 1])
            np.testing.assert_allclose(single.percentile, expected.percentile, atol=1e-6)
    np.testing.assert_array_equal(explanation.heatmap("cat"), explanation.heatmap(2))
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
    np.testing.assert_array_equal(red.image_maps, interactions.image_maps[1:2])
    np.testing.assert_array_equal(interactions.heatmap("red"), interactions.heatmap(1))


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
    np.testing.assert_array_equal(copied.image_maps, explanation.image_maps)
    with pytest.raises(FrozenInstanceError):
        explanation.prompts = ()
    signed = explanation.heatmap(0, signed=True)
    assert signed.min() < 0
    heat = explanation.heatmap(0)
    assert heat.min() == 0
    assert heat.shape == (50, 80)


def test_a_method_of_prompts_alone_has_no_maps(tiny, picture):
    explanation = Explainer(tiny, method="leave-one-out").explain(picture, "a dog")
    assert explanation.image_maps is None
    assert explanation.provenance.image_layers is None
    with pytest.raises(GradeclipError, match="Leave one word out explains prompts only"):
        explanation.heatmap()


@pytest.mark.parametrize("against", [None, "a cow", "others"])
def test_a_saved_explanation_is_read_back_as_it_was(against, explainer, picture, tmp_path):
    explanation = explainer.explain(picture, ["日本 <b> 🍕", "a dog"], against=against)
    loaded = Explanation.load(explanation.save(tmp_path / "dog.npz"))
    for name, value in vars(explanation).items():
        if isinstance(value, np.ndarray) or name == "image":
            np.testing.assert_array_equal(getattr(loaded, name), value)
        else:
            assert getattr(loaded, name) == value


def test_a_file_of_the_time_when_words_had_no_method_of_their_own_is_read(explanation, tmp_path):
    path = explanation.save(tmp_path / "dog.npz")
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(str(arrays["record"]))
    for name in ("words", "words_title", "word_change"):
        del record["provenance"][name]
    arrays["record"] = np.array(json.dumps(record))
    np.savez(path, **arrays)
    loaded = Explanation.load(path)
    assert loaded.words == explanation.words
    assert loaded.provenance.words == loaded.provenance.method == "grad-eclip"


def test_saved_interactions_are_read_back_and_another_file_is_refused(interactions, tmp_path):
    path = interactions.centred(over=[1, 2]).save(tmp_path / "words.npz")
    loaded = Interactions.load(path)
    assert loaded.words == interactions.words
    assert loaded.provenance.centred == ((1,), (2,))
    np.savez(tmp_path / "other.npz", numbers=np.ones(3))
    with pytest.raises(GradeclipError, match="other.npz is no saved Explanation"):
        Explanation.load(tmp_path / "other.npz")
    with pytest.raises(GradeclipError, match="one .npz file"):
        interactions.save(tmp_path / "folder")


def test_regions_are_the_connected_parts_of_the_highest_pixels(explanation):
    maps = np.zeros((3, 4, 4))
    maps[1, 0, 0] = 1
    maps[1, 3, 3] = 2
    with_two_parts = replace(explanation, image_maps=maps)
    regions = with_two_parts.regions("a red car", quantile=0.5)
    left, _, right, _ = explanation.box
    assert len(regions.boxes) == 2
    parts = zip(regions.boxes, regions.points, strict=True)
    for (left_side, top, right_side, bottom), (x, y) in parts:
        assert left_side <= x < right_side
        assert top <= y < bottom
        assert regions.mask[y, x]
    (first, _), (second, _) = regions.points
    assert first > (left + right) / 2 > second  # the larger one first
    assert not with_two_parts.regions("cat").mask.any()


def test_provenance_says_what_was_explained_and_with_how_many_layers(tiny, picture):
    clip = replace(tiny, name="some", pretrained="tag")
    explainer = Explainer(clip, image_layers=2)
    provenance = explainer.explain(picture, "a dog", words="grad-eclip").provenance
    as_json = json.loads(json.dumps(asdict(provenance)))
    assert as_json == asdict(provenance) | {"unknown_words": []}
    assert (provenance.model, provenance.pretrained) == ("some", "tag")
    assert (provenance.method, provenance.title) == ("grad-eclip", "Grad-ECLIP")
    assert (provenance.image_layers, provenance.text_layers) == (2, 2)
    assert (provenance.words, provenance.words_title) == ("grad-eclip", "Grad-ECLIP")
    left_out = explainer.explain(picture, "a dog", method="maskclip").provenance
    assert (left_out.words, left_out.words_title) == ("leave-one-out", "Leave one word out")
    assert left_out.text_layers is None  # leaving words out looks into no layer
    without = explainer.explain(picture, "a dog", words=None).provenance
    assert (without.words, without.text_layers) == (None, None)


def test_dependence_is_one_less_the_mean_correlation_with_maps_of_other_prompts(
    explainer, picture, explanation
):
    nulls = explainer.null_maps(picture, "a dog", 9)
    map_ = explanation.image_maps[0].ravel().astype(float)
    distances = []
    for null in nulls:
        correlation, _ = pearsonr(map_, null.ravel())
        distances.append(1 - correlation)
    value, low, high = explanation.prompt_dependence(nulls, "a dog")
    assert value == pytest.approx(np.mean(distances), abs=1e-6)
    student = ttest_1samp(distances, 0).confidence_interval()
    np.testing.assert_allclose((low, high), np.clip(student, 0, 2), atol=1e-6)
    value_of_scaled, *_ = explanation.prompt_dependence(3 * nulls + 1)
    assert value_of_scaled == pytest.approx(value, abs=1e-5)


def test_a_map_that_is_the_same_for_any_prompt_depends_on_none(tiny, picture, explanation):
    explainer = Explainer(tiny, method="attention")
    nulls = explainer.null_maps(picture, "a dog", 5)
    dependence = explainer.explain(picture, "a dog").prompt_dependence(nulls)
    np.testing.assert_allclose(dependence, 0, atol=1e-6)

    maps = explanation.image_maps
    flat = replace(explanation, image_maps=np.zeros_like(maps))
    value, *_ = flat.prompt_dependence(np.ones((3, 4, 4)))
    assert value == 0
    value, *_ = flat.prompt_dependence(maps[[0, 0, 0]])
    assert value == 1
