"""Explainer: what a user asks for and gets, in one batch or many, on any model state."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from scipy.stats import binomtest

from gradeclip_utils import (
    METHODS,
    Explainer,
    Explanation,
    ExplanationWarning,
    UnsupportedModel,
)
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.language import with_other_nouns
from gradeclip_utils.measures import randomised
from gradeclip_utils.prompts import null_captions
from gradeclip_utils.scenes import draw_scene
from tests import plain
from tests.conftest import build, wrap

PROMPTS = ["a dog", "a red car and a blue ball.", "cat"]
SEVERAL = [*PROMPTS, "a very long caption of a small dog beside a red car"]
close = partial(np.testing.assert_allclose, atol=1e-6)
LONG = "one two three four five six seven eight nine ten " * 2 + "left and right extraordinarily"


def scores_of(explanation: Explanation, index: int = 0) -> list[float]:
    return [word.score for word in explanation.words[index]]


def assert_same(
    explanation: Explanation,
    expected: Explanation,
    index: int = 0,
    expected_index: int = 0,
):
    """A prompt of one explanation is explained as a prompt of another one."""
    close(explanation.similarity[index], expected.similarity[expected_index])
    close(explanation.image_maps[index], expected.image_maps[expected_index])
    words, expected_words = explanation.words[index], expected.words[expected_index]
    assert [word.text for word in words] == [word.text for word in expected_words]
    close(scores_of(explanation, index), scores_of(expected, expected_index))


@pytest.fixture
def pictures(picture):
    return [
        picture,
        picture.rotate(90),
        picture.rotate(180),
        picture.crop((0, 0, 50, 50)),
        picture.rotate(270),
    ]


# ------------------------------------------------------------------------------- what it explains


def test_an_explanation_holds_the_models_own_similarity_and_signed_maps(tiny, picture):
    explanation = Explainer(tiny).explain(picture, PROMPTS)
    close(explanation.similarity, plain.similarities(tiny, picture, PROMPTS))
    assert explanation.image_maps.shape == (3, 4, 4)
    assert explanation.image_maps.dtype == np.float32
    assert explanation.image_maps.min() < 0 < explanation.image_maps.max()
    words = [word.text for word in explanation.words[1]]
    assert words == ["a", "red", "car", "and", "a", "blue", "ball", "."]


@pytest.mark.parametrize(
    ("name", "options", "prompts"),
    [
        ("tiny", {}, PROMPTS),
        ("tiny", {"words": "grad-eclip"}, PROMPTS),
        ("tiny", {"method": "grad-eclip-single-head", "words": "grad-eclip-single-head"}, PROMPTS),
        ("tiny", {"resolution": "native"}, PROMPTS),
        ("averaging", {"image_layers": 2}, PROMPTS),
        # more than fit into one batch
        ("tiny", {}, [f"{'very ' * (i % 5)}number {i}" for i in range(70)]),
    ],
)
def test_many_prompts_are_explained_as_each_alone(name, options, prompts, picture, request):
    explainer = Explainer(request.getfixturevalue(name), **options)
    together = explainer.explain(picture, prompts)
    for i in (0, len(prompts) // 2, len(prompts) - 1):
        assert_same(explainer.explain(picture, prompts[i]), together, 0, i)


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_a_batch_of_pairs_is_explained_as_each_pair_alone(resolution, tiny, picture):
    upright = picture.rotate(90, expand=True)
    square = picture.crop((0, 0, 40, 40))
    pictures = [picture, upright, square] * 6
    prompts = PROMPTS * 6
    explainer = Explainer(tiny, resolution=resolution)  # 18 images are more than one batch
    batch = explainer.explain_batch((image for image in pictures), prompts, against="a cow")
    assert len(batch) == 18
    for i in (0, 1, 17):
        alone = explainer.explain(pictures[i], prompts[i], against="a cow")
        assert_same(batch[i], alone)
        assert batch[i].image.size == pictures[i].size
        assert batch[i].box == alone.box


def test_a_contrast_is_the_difference_of_two_explanations(tiny, picture):
    explainer = Explainer(tiny)
    contrast = explainer.explain(picture, "a red car", against="a blue car")
    red = explainer.explain(picture, "a red car")
    blue = explainer.explain(picture, "a blue car")
    close(contrast.image_maps, red.image_maps - blue.image_maps)
    assert contrast.against == ("a blue car",)
    close(contrast.against_similarity, blue.similarity)

    scores = [word.score for word in contrast.words[0]]
    assert scores == pytest.approx([word.score for word in red.words[0]], abs=1e-6)
    scores = [word.score for word in contrast.against_words[0]]
    assert scores == pytest.approx([-word.score for word in blue.words[0]], abs=1e-6)
    assert explainer.explain(picture, PROMPTS, against="a cow").against == ("a cow",) * 3


@pytest.fixture
def others():
    return ["a cow", "a boat", "a red car", "two pears"]


def test_the_lead_over_others_is_the_mean_of_the_contrasts_with_each_of_them(tiny, picture, others):
    explainer = Explainer(tiny, null_captions=others)
    lead = explainer.explain(picture, ["a dog", "a cat"], against="others")
    contrasts = [explainer.explain(picture, ["a dog", "a cat"], against=other) for other in others]
    mean_maps = np.mean([contrast.image_maps for contrast in contrasts], axis=0)
    close(lead.image_maps, mean_maps)
    close(lead.lead, np.mean([contrast.lead for contrast in contrasts], axis=0))

    plain = explainer.explain(picture, ["a dog", "a cat"])
    np.testing.assert_array_equal(lead.similarity, plain.similarity)
    np.testing.assert_array_equal(lead.percentile, plain.percentile)
    # the others do not change with the prompt: a word takes the same from the lead
    close(scores_of(lead), scores_of(plain))
    assert lead.words_legend == "fall of the lead without this word"
    assert (lead.lead_over, plain.lead_over, plain.lead) == ("4 other captions", "", None)
    explains = "explains the model's own similarity"
    assert f"{explains} less that of 4 other captions, last layer" in lead.origin
    assert f"{explains} less that of “a cow”, last layer" in contrasts[0].origin
    assert f"{explains}, last layer" in plain.origin


def test_a_prompt_among_the_others_has_its_lead_over_the_rest_made_smaller(tiny, picture, others):
    explainer = Explainer(tiny, null_captions=others)
    lead = explainer.explain(picture, "a red car", against="others")
    rest = Explainer(tiny, null_captions=[other for other in others if other != "a red car"])
    lead_over_rest = rest.explain(picture, "a red car", against="others")
    close(lead.image_maps, 3 / 4 * lead_over_rest.image_maps)
    close(lead.lead, 3 / 4 * lead_over_rest.lead)


def test_the_lead_over_others_is_the_same_in_every_call(tiny, pictures, others):
    explainer = Explainer(tiny, null_captions=others, batch_size=2)
    prompts = ["a dog", "a cat", "a red car"]
    batch = explainer.explain_batch(pictures[:3], prompts, against="others")
    several = explainer.explain(pictures[0], prompts, against="others", methods=["game"])
    for image, prompt, explanation in zip(pictures, prompts, batch, strict=False):
        assert_same(explanation, explainer.explain(image, prompt, against="others"))
    expected = explainer.with_method("game").explain(pictures[0], prompts, against="others")
    close(several["game"].image_maps, expected.image_maps)

    directions = explainer.embed_texts(prompts) - explainer.embed_texts(others).mean(0)
    maps = explainer.maps(pictures[0], directions[:1])[0]
    close(batch[0].image_maps, maps)
    nulls = explainer.null_maps(pictures[0], "a red dog", 3)
    null_leads = explainer.null_maps(pictures[0], "a red dog", 3, against="others")
    shared = explainer.maps(pictures[0], explainer.embed_texts(others).mean(0)[None])[0]
    close(null_leads, nulls - shared.numpy())


def test_a_caption_may_be_the_word_others(tiny, picture):
    explainer = Explainer(tiny)
    contrast = explainer.explain(picture, "a dog", against=["others"])
    assert contrast.against == ("others",)
    assert not contrast.against_others


def test_a_bias_of_siglip_takes_no_part_in_a_lead(picture, others):
    model = build(init_logit_bias=-10.0)
    lead = Explainer(wrap(model), null_captions=others).explain(picture, "a dog", against="others")
    model.logit_bias.data.zero_()
    same = Explainer(wrap(model), null_captions=others).explain(picture, "a dog", against="others")
    np.testing.assert_array_equal(lead.image_maps, same.image_maps)
    np.testing.assert_array_equal(lead.lead, same.lead)
    assert (lead.probability < same.probability).all()  # of the pair, as the model gives it


def test_a_map_of_zeros_is_said_with_its_reason_and_a_word_of_zero_is_not(tiny, picture):
    explainer = Explainer(tiny)
    with pytest.warns(ExplanationWarning, match="zero everywhere: the two prompts are the same"):
        explanation = explainer.explain(picture, "a dog", against="a dog")
    assert (explanation.image_maps == 0).all()

    model = build()
    model.visual.positional_embedding.data.zero_()  # patches of one colour are then the same token
    with pytest.warns(ExplanationWarning, match="keys of all patches fit the query alike"):
        explanation = Explainer(wrap(model)).explain(Image.new("RGB", (64, 64), "red"), "a dog")
    assert (explanation.image_maps == 0).all()


def test_embeddings_are_explained_like_the_prompts_that_they_come_from(tiny, picture):
    explainer = Explainer(tiny)
    expected = explainer.explain(picture, PROMPTS)
    embeddings = 3 * explainer.embed_texts(PROMPTS)
    for prompts in (embeddings, embeddings.numpy(), embeddings.double()):
        explanation = explainer.explain(picture, prompts)
        close(explanation.image_maps, expected.image_maps)
    assert explanation.words == ((), (), ())
    assert explanation.prompts[2] == "embedding 2"

    contrast = explainer.explain(picture, "a dog", against=embeddings[1])
    difference = expected.image_maps[0] - expected.image_maps[1]
    close(contrast.image_maps[0], difference)
    batch = explainer.explain_batch([picture] * 18, embeddings[[0] * 18])
    for i, pair in enumerate(batch):
        assert pair.prompts == (f"embedding {i}",)


def test_single_head_explains_another_number_and_says_so(tiny, picture):
    model = Explainer(tiny).explain(picture, PROMPTS)
    name = "grad-eclip-single-head"
    single = Explainer(tiny, method=name, words=name).explain(picture, PROMPTS)
    np.testing.assert_allclose(single.similarity, model.similarity, atol=1e-6)  # the model's own
    assert not np.allclose(single.image_maps, model.image_maps, atol=1e-4)

    changed = copy.deepcopy(tiny.model)
    last_image_block = changed.visual.transformer.resblocks[-1]
    for block in (last_image_block, *changed.transformer.resblocks[-2:]):
        block.attn.num_heads = 1
        block.attn.head_dim = 64
    pixels = tiny.preprocess(picture)[None]
    ids = tiny.tokenizer(PROMPTS)
    with torch.no_grad():
        (image,) = tiny.model.encode_image(pixels, normalize=True)
        texts = tiny.model.encode_text(ids, normalize=True)
        (single_image,) = changed.encode_image(pixels, normalize=True)
        single_texts = changed.encode_text(ids, normalize=True)
    close(single.provenance.explained_similarity, texts @ single_image)
    close(single.provenance.explained_word_similarity, single_texts @ image)
    assert model.provenance.explained_similarity is None

    assert "Grad-ECLIP: explains the model's own similarity" in model.origin
    numbers = ", ".join(f"{number:.3f}" for number in single.provenance.explained_similarity)
    assert f"with one head: explains {numbers} (image) and" in single.origin


def test_interactions_have_a_map_and_the_first_order_score_for_every_word(tiny, picture):
    explainer = Explainer(tiny)
    prompt = "a red car, a bluish baaaall"
    interactions = explainer.interactions(picture, prompt)
    explanation = explainer.explain(picture, prompt, words="grad-eclip")
    assert interactions.prompts == explanation.prompts
    assert interactions.provenance == explanation.provenance
    assert interactions.image_maps.shape == (6 + 1, 4, 4)
    close(interactions.similarity, explanation.similarity)
    for word, expected in zip(interactions.words[0], explanation.words[0], strict=True):
        assert (word.text, word.start, word.end) == (expected.text, expected.start, expected.end)
        close(word.score, expected.score)


def test_native_resolution_shows_the_whole_image_in_its_own_shape(tiny, picture):
    native = Explainer(tiny, resolution="native")
    explanation = native.explain(picture, SEVERAL)
    assert explanation.image_maps.shape == (4, 6, 10)  # 50 x 80 pixels, patches of 8
    assert explanation.box == (0, 0, 80, 50)

    square = picture.resize((32, 32))
    assert_same(native.explain(square, "a dog"), Explainer(tiny).explain(square, "a dog"))
    texts = native.embed_texts(SEVERAL)
    similarity = native.embed_images([picture]) @ texts.T
    close(similarity[0], explanation.similarity)
    close(native.maps([picture], texts)[0], explanation.image_maps)
    with pytest.raises(GradeclipError, match="one at a time"):
        native.maps([picture, picture.crop((0, 0, 30, 50))], texts)


# -------------------------------------------------------------------------- the words' own method


def test_a_words_score_is_what_the_similarity_loses_without_the_word(tiny, picture):
    explanation = Explainer(tiny).explain(picture, ["a red car", "a dog"])
    assert explanation.provenance.words == "leave-one-out"
    assert explanation.provenance.text_layers is None  # no layer is looked into
    prompts = ["a red car", "red car", "a car", "a red"]
    whole, *shorter = plain.similarities(tiny, picture, prompts)
    close(scores_of(explanation), [whole - similarity for similarity in shorter])

    lower, higher = (
        explanation.word_sentence(replace(explanation.words[0][0], score=score))
        for score in (0.0414, -0.0414)
    )
    assert lower == "without this word the similarity is 0.041 lower"
    assert higher == "without this word the similarity is 0.041 higher"
    assert explanation.words_legend == "fall of the similarity without this word"


def test_words_and_maps_have_methods_of_their_own(tiny, picture):
    published = Explainer(tiny, words="grad-eclip")
    expected = published.explain(picture, PROMPTS)
    assert expected.words_legend == "relevance of a word"
    assert "words:" not in expected.origin  # by the method of the maps

    explanation = Explainer(tiny, method="maskclip", words="grad-eclip").explain(picture, PROMPTS)
    assert scores_of(explanation, 1) == pytest.approx(scores_of(expected, 1), abs=1e-6)
    maps = Explainer(tiny, method="maskclip").explain(picture, PROMPTS).image_maps
    close(explanation.image_maps, maps)

    for without in (
        Explainer(tiny, words=None).explain(picture, PROMPTS),
        published.explain(picture, PROMPTS, words=None),
    ):
        assert without.words == ((), (), ())
        assert without.provenance.words is None
        close(without.image_maps, expected.image_maps)
        without.plot()  # the caption alone


def test_a_call_by_another_method_keeps_the_words_unless_it_is_told_other_ones(tiny, picture):
    explainer = Explainer(tiny, words="grad-eclip")
    published = scores_of(explainer.explain(picture, "a red car"))
    for method in ("maskclip", "game"):
        close(scores_of(explainer.explain(picture, "a red car", method=method)), published)
        other = explainer.with_method(method)
        close(scores_of(other.explain(picture, "a red car")), published)
    several = explainer.explain(picture, "a red car", methods=["game", "grad-eclip"])
    for explanation in several.values():
        close(scores_of(explanation), published)

    scores = scores_of(Explainer(tiny).explain(picture, "a red car"))
    for call in ({"method": "game"}, {}):
        other = explainer.explain(picture, "a red car", words="leave-one-out", **call)
        close(scores_of(other), scores)
    alone = explainer.explain(picture, "a red car", method="leave-one-out")
    assert alone.image_maps is None  # a method of prompts alone scores the words
    close(scores_of(alone), scores)


def test_function_words_have_no_colour_under_the_published_scores_alone(tiny, picture):
    prompt = "a photo of a red car."
    for words, filled in (
        ("leave-one-out", ["a", "photo", "of", "a", "red", "car", "."]),
        ("grad-eclip", ["photo", "red", "car"]),
    ):
        explanation = Explainer(tiny, words=words).explain(picture, prompt)
        colours = [word.text for word in explanation.words[0] if explanation.is_filled(word)]
        assert colours == filled


def test_a_published_score_of_zero_is_explained_when_it_is_asked_for(tiny, picture):
    explanation = Explainer(tiny, words="grad-eclip").explain(picture, "a red car")
    word = explanation.words[0][1]
    assert explanation.word_sentence(word) == f"relevance {word.score:+.4f}"
    zero = explanation.word_sentence(replace(word, score=0.0))
    assert zero == "relevance 0: its key fits the query least, so lambda is 0 by definition"


def test_words_of_a_contrast_are_what_the_lead_loses_without_them(tiny, picture):
    explanation = Explainer(tiny).explain(picture, "a red car", against="a blue car")
    prompts = ["a red car", "a car", "a blue car"]
    red, without_colour, blue = plain.similarities(tiny, picture, prompts)
    _, word, _ = explanation.words[0]
    _, other_word, _ = explanation.against_words[0]
    lead = red - blue
    close(word.score, lead - (without_colour - blue))
    close(other_word.score, lead - (red - without_colour))
    assert explanation.words_legend == "fall of the lead without this word"


# ----------------------------------------------------------------- several methods, traced once


@pytest.fixture
def count_traces(monkeypatch):
    """A function that notes each trace by the towers of an explainer: its side and layers."""

    def count(explainer):
        traces = {"image": [], "text": []}

        def noting(trace, side, layers):
            def noted(inputs, **graphs):
                traces[side].append(layers)
                return trace(inputs, **graphs)

            return noted

        for (side, layers), tower in explainer._towers.items():
            monkeypatch.setattr(tower, "trace", noting(tower.trace, side, layers))
        return traces

    return count


def test_several_methods_explain_as_each_alone_from_one_trace_of_the_same_layers(
    tiny, picture, count_traces
):
    methods = ["attention", "maskclip", "grad-eclip", "game", "rollout", "leave-one-out"]
    explainer = Explainer(tiny, null_captions=["a cow", "a cat"])
    expected = {name: Explainer(tiny, method=name).explain(picture, PROMPTS) for name in methods}
    explainer.explain(picture, PROMPTS, methods=methods)  # opens all towers, and verifies them
    traces = count_traces(explainer)
    explanations = explainer.explain(picture, PROMPTS, methods=methods)

    assert list(explanations) == methods
    assert sorted(traces["image"]) == [1, 3]  # the last layer; all three for GAME and rollout
    # the prompts and, in one batch, all of them without each of their words, for all methods
    assert traces["text"] == [1, 1]
    for name, explanation in explanations.items():
        assert explanation.provenance.method == name
        assert (explanation.image_maps is None) == (METHODS[name].image is None)
        if METHODS[name].image is not None:
            assert_same(explanation, expected[name], 1, 1)
    one = explainer.explain(picture, PROMPTS, method="game")
    assert_same(one, expected["game"])


def test_maps_of_several_methods_are_those_of_each_from_one_trace_a_batch(
    tiny, pictures, count_traces
):
    methods = ["grad-eclip", "maskclip", "grad-cam"]
    explainer = Explainer(tiny, batch_size=2)
    directions = explainer.embed_texts(SEVERAL)
    expected = {name: Explainer(tiny, method=name).maps(pictures, directions) for name in methods}
    traces = count_traces(explainer)
    maps = explainer.maps(pictures, directions, methods=methods)
    assert traces["image"] == [1, 1, 1]  # of two, two and one image
    for name in methods:
        torch.testing.assert_close(maps[name], expected[name], atol=1e-6, rtol=1e-5)

    mine = replace(METHODS["maskclip"], name="mine")  # not registered
    assert list(explainer.maps(pictures, directions, methods=[mine, "game"])) == ["mine", "game"]
    assert list(explainer.explain(pictures[0], "a dog", methods=[mine])) == ["mine"]


def test_a_kept_trace_serves_the_same_image_with_another_prompt(tiny, picture, count_traces):
    explainer = Explainer(tiny, keep_trace=True, null_captions=["a cow", "a cat"])
    explainer.explain(picture, "a cow")
    traces = count_traces(explainer)
    for prompt in PROMPTS:
        explanation = explainer.explain(picture, prompt)
    assert traces["image"] == []
    assert_same(explanation, Explainer(tiny).explain(picture, PROMPTS[-1]))
    explainer.explain(picture.rotate(90), "a dog")
    assert traces["image"] == [1]


# ------------------------------------------------------------------------- the place of a number


@pytest.mark.slow
def test_true_captions_are_high_among_others_and_false_ones_are_not(bundled):
    """On test scenes; false captions are those of other scenes."""
    scenes = [draw_scene([7, i], split="test") for i in range(300)]
    images = [scene.image(96) for scene in scenes]

    def places(clip):
        explainer = Explainer(clip, method="attention")
        captions = explainer.embed_texts([scene.caption for scene in scenes])
        pairs = torch.stack([captions, captions.roll(1, 0)], dim=1)  # (scenes, 2, E)
        rows = [
            explainer.explain(image, pair).percentile
            for image, pair in zip(images, pairs, strict=True)
        ]
        return np.array(rows).T

    true, false = places(bundled)
    assert true.mean() > 95
    assert np.median(false) < 70
    assert (true[:, None] > false).mean() > 0.95  # the AUC of true against false captions
    true, false = places(randomised(bundled))
    assert abs(true.mean() - false.mean()) < 5


def test_the_percentile_counts_captions_below_and_half_of_the_equal_ones(tiny, picture):
    captions = null_captions(None)
    explainer = Explainer(tiny)
    explanation = explainer.explain(picture, [*PROMPTS, captions[4]])
    nulls = explainer.explain(picture, captions).similarity

    *of_prompts, of_caption = explanation.percentile
    expected = [100 * (nulls < similarity).mean() for similarity in explanation.similarity[:3]]
    np.testing.assert_allclose(of_prompts, expected)
    below = (nulls < nulls[4]).sum() + 0.5
    assert of_caption == pytest.approx(100 * below / len(captions))
    close(explanation.null_median, np.median(nulls))
    close(explanation.null_max, nulls.max())
    assert explanation.null_count == len(captions)

    rows = zip(explanation.percentile[:3], explanation.percentile_interval, strict=False)
    for percentile, interval in rows:
        count = round(percentile / 100 * len(captions))
        test = binomtest(count, len(captions))
        bounds = np.array(test.proportion_ci(method="wilson"))
        np.testing.assert_allclose(interval, 100 * bounds, atol=0.01)


def test_null_captions_are_the_users_and_without_a_tokenizer_there_are_none(tiny, picture):
    explainer = Explainer(tiny, null_captions=["a red car", "a dog"])
    similarity = explainer.explain(picture, ["a red car", "a dog"]).similarity
    explanation = explainer.explain(picture, PROMPTS)
    assert explanation.null_count == 2
    close(explanation.null_median, similarity.mean())

    explainer = Explainer(replace(tiny, tokenizer=None))
    explanation = explainer.explain(picture, torch.ones(1, 48))
    assert explanation.percentile is explanation.null_median is None


def test_null_captions_are_embedded_once_and_again_for_other_weights(picture, monkeypatch):
    embedded = []
    embed_texts = Explainer.embed_texts

    def counted(explainer, prompts):
        embedded.append(len(prompts))
        return embed_texts(explainer, prompts)

    monkeypatch.setattr(Explainer, "embed_texts", counted)
    model = build()
    explainer = Explainer(wrap(model))
    before = explainer.explain(picture, "a dog")
    explainer.explain(picture, "a cat")
    assert sum(embedded) == before.null_count

    with torch.no_grad():
        model.text_projection.mul_(-1)
    after = explainer.explain(picture, "a dog")
    assert sum(embedded) == 2 * before.null_count
    close(after.null_median, -before.null_median)


# -------------------------------------------------------------------------- nothing is left behind


def state_of(model):
    """Everything about a model and torch that an explanation could leave behind."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [
        (
            name,
            module.training,
            sorted(vars(module)),
            [len(getattr(module, hook)) for hook in hooks],
        )
        for name, module in model.named_modules()
    ]
    parameters = [
        (name, weight.requires_grad, weight.grad is None, weight.sum().item(), weight._version)
        for name, weight in model.named_parameters()
    ]
    modes = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
    )
    return modules, parameters, modes


@pytest.mark.parametrize(
    ("options", "training"),
    [
        ({}, True),
        ({"image_layers": 2}, False),
    ],
)
def test_nothing_is_left_behind_after_success_and_after_bad_input(options, training, picture):
    model = build({"patch_dropout": 0.5}).train(training)
    model.visual.conv1.weight.requires_grad = False
    before = state_of(model)
    explainer = Explainer(wrap(model), **options)
    explainer.explain(picture, PROMPTS, against="a cow")
    explainer.interactions(picture, "a red car")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        explainer.maps(picture, explainer.embed_texts(PROMPTS))
    bad_input = [("no.png", "a dog"), (picture, torch.ones(1, 2)), (picture, [])]
    for image, prompts in bad_input:
        with pytest.raises((GradeclipError, OSError)):
            explainer.explain(image, prompts)
    assert state_of(model) == before


def test_nothing_is_left_behind_after_an_exception_inside_the_model(picture):
    model = build().train()

    def fail(module, inputs):
        raise FloatingPointError("inside")

    for module in (model.visual.ln_pre, model.transformer.resblocks[0].mlp):
        handle = module.register_forward_pre_hook(fail)
        before = state_of(model)
        with pytest.raises(FloatingPointError, match="inside"):
            Explainer(wrap(model)).explain(picture, "a dog")
        assert state_of(model) == before
        handle.remove()


# ------------------------------------------------------------------------------ states of a model


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
        torch.enable_grad(),
    ],
    ids=lambda mode: type(mode).__name__,
)
def test_the_callers_modes_do_not_matter(mode, tiny, picture):
    explainer = Explainer(tiny)
    expected = explainer.explain(picture, PROMPTS)
    expected_embeddings = explainer.embed_images(picture), explainer.embed_texts(PROMPTS)
    with mode:
        explanation = explainer.explain(picture, PROMPTS)
        explainer.interactions(picture, PROMPTS[1])
        embeddings = explainer.embed_images(picture), explainer.embed_texts(PROMPTS)
        maps = explainer.maps(picture, embeddings[1])
    for value in (*embeddings, maps):
        assert not value.requires_grad
        assert not value.is_inference()
    torch.testing.assert_close(embeddings, expected_embeddings)
    for i in range(3):
        assert_same(explanation, expected, i, i)


@pytest.mark.parametrize("method", ["rise", "m2ib"])
def test_the_callers_default_precision_draws_no_other_numbers(method, tiny, picture):
    explainer = Explainer(tiny, method=method)
    expected = explainer.explain(picture, PROMPTS[1]).image_maps
    torch.set_default_dtype(torch.float64)
    try:
        maps = explainer.explain(picture, PROMPTS[1]).image_maps
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5)


CHANGES = {
    "compiled": partial(torch.compile, backend="eager"),
    "wrapped": torch.nn.DataParallel,
    "frozen": lambda model: copy.deepcopy(model).requires_grad_(False),
    "training": lambda model: copy.deepcopy(model).train(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrapped_frozen_or_training_model_is_explained_as_it_is(change, picture):
    model = build({"patch_dropout": 0.5})
    expected = Explainer(wrap(model)).explain(picture, PROMPTS)
    changed = replace(wrap(model), model=CHANGES[change](model))
    explanation = Explainer(changed).explain(picture, PROMPTS)
    for i in range(3):
        assert_same(explanation, expected, i, i)


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        clip = wrap(build())
    with pytest.raises(UnsupportedModel, match=r"was made in torch.inference_mode"):
        Explainer(clip)


@pytest.mark.parametrize(
    ("dtype", "method"),
    [
        (torch.float16, "grad-eclip"),
        (torch.bfloat16, "grad-eclip"),
        (torch.bfloat16, "input-x-gradient"),
    ],
)
def test_a_model_in_half_precision_is_explained_nearly_the_same(dtype, method, tiny, picture):
    expected = Explainer(tiny, method=method).explain(picture, PROMPTS)
    half = wrap(copy.deepcopy(tiny.model).to(dtype))
    explanation = Explainer(half, method=method).explain(picture, PROMPTS)
    assert explanation.image_maps.dtype == np.float32

    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(explanation.similarity, expected.similarity, atol=4 * eps, rtol=0)
    tolerance = 40 * eps * np.abs(expected.image_maps).max()
    np.testing.assert_allclose(
        explanation.image_maps,
        expected.image_maps,
        atol=tolerance,
        rtol=0,
    )


def test_text_that_cannot_be_opened_leaves_embeddings_that_can_be_explained(picture):
    model = build()
    model.text_pool_type = "unknown"
    explainer = Explainer(wrap(model))
    model.text_pool_type = "argmax"
    embeddings = explainer.embed_texts(PROMPTS)
    torch.testing.assert_close(embeddings, Explainer(wrap(build())).embed_texts(PROMPTS))
    explanation = explainer.explain(picture, embeddings)
    assert explanation.image_maps.shape == (3, 4, 4)
    assert explanation.percentile.shape == (3,)
    for ask in (explainer.explain, explainer.interactions):
        with pytest.raises(UnsupportedModel, match="text tower"):
            ask(picture, PROMPTS[0])


def test_a_model_that_computes_something_else_than_its_layers_say_is_refused(picture):
    clip = wrap(build())
    block = clip.model.visual.transformer.resblocks[-1]
    block.register_forward_hook(lambda module, entering, leaving: leaving + leaving.roll(1, -1))
    with pytest.raises(
        UnsupportedModel, match=r"does not compute what its layers say \(a hook on visual"
    ):
        Explainer(clip).explain(picture, PROMPTS)


# -------------------------------------------------------------------------------------- tokenizers


def test_a_prompt_longer_than_the_context_is_explained_as_truncated(tiny, picture):
    with pytest.warns(ExplanationWarning, match="only 22 tokens of .*right extraordinarily"):
        explanation = Explainer(tiny).explain(picture, LONG)
    assert [word.text for word in explanation.words[0]] == LONG.split()[:22]


def test_a_tokenizer_without_pieces_gives_maps_and_a_warning_in_place_of_words(tiny, picture):
    clip = replace(tiny, tokenizer=lambda prompts: tiny.tokenizer(prompts))
    with pytest.warns(ExplanationWarning, match=r"words of the prompt are not: .*SimpleTokenizer"):
        explanation = Explainer(clip).explain(picture, PROMPTS, against="a cat")
    expected = Explainer(tiny).explain(picture, PROMPTS, against="a cat")
    assert explanation.words == explanation.against_words == ((), (), ())
    np.testing.assert_array_equal(explanation.image_maps, expected.image_maps)


# ------------------------------------------------------------- embeddings, maps and word scores


def test_null_maps_are_those_of_prompts_of_the_same_form_and_of_the_empty_one(tiny, picture):
    for method in ("grad-eclip", "clip-surgery"):
        explainer = Explainer(tiny, method=method)
        nulls = explainer.null_maps(picture, "a red dog", 3)
        for map_, prompt in zip(nulls, with_other_nouns("a red dog", 2), strict=False):
            expected = explainer.explain(picture, prompt).image_maps[0]
            close(map_, expected)
        empty = explainer.maps(picture, explainer.embed_texts([""]))[0, 0]
        close(nulls[-1], empty)


def test_embeddings_are_those_of_the_unmodified_model_whatever_the_batches(tiny, pictures):
    explainer = Explainer(tiny)
    pictures, prompts = pictures * 4, SEVERAL * 20
    with torch.no_grad():
        pixels = torch.stack([tiny.preprocess(image) for image in pictures])
        images = tiny.model.encode_image(pixels, normalize=True)
        texts = tiny.model.encode_text(tiny.tokenizer(prompts), normalize=True)
    as_array = np.asarray(pictures[0])
    np.testing.assert_allclose(explainer.embed_images(pictures), images, atol=1e-5)
    np.testing.assert_allclose(explainer.embed_images(as_array), images[:1], atol=1e-5)
    np.testing.assert_allclose(explainer.embed_texts(prompts), texts, atol=1e-5)
    assert explainer.embed_texts("a dog").shape == (1, 48)


def test_a_generator_is_asked_for_a_batch_at_a_time(tiny, pictures, monkeypatch):
    explainer = Explainer(tiny, batch_size=8)
    drawn = []
    batches = []
    trace = explainer.image_tower.trace

    def recorded(pixels, **graphs):
        batches.append((len(drawn), len(pixels)))
        return trace(pixels, **graphs)

    monkeypatch.setattr(explainer.image_tower, "trace", recorded)

    def images():
        for image in pictures * 4:
            drawn.append(image)
            yield image

    embeddings = explainer.embed_images(images())
    assert batches == [(8, 8), (16, 8), (20, 4)]
    torch.testing.assert_close(embeddings, explainer.embed_images(pictures * 4))


@pytest.mark.parametrize("method", ["grad-eclip", "grad-eclip-single-head", "clip-surgery"])
def test_maps_are_those_that_explain_shows(method, tiny, pictures):
    explainer = Explainer(tiny, method=method)
    maps = explainer.maps(pictures, explainer.embed_texts(SEVERAL))
    assert maps.shape == (5, 4, 4, 4)
    for image, image_maps in zip(pictures, maps, strict=True):
        expected = explainer.explain(image, SEVERAL).image_maps
        close(image_maps, expected)


def test_every_image_may_have_directions_of_its_own_which_keep_their_length(tiny, pictures):
    explainer = Explainer(tiny)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(5, 3, 48, generator=generator, dtype=torch.float64)
    maps = explainer.maps(pictures, directions.numpy())
    for i, image in enumerate(pictures):
        (expected,) = explainer.maps(image, directions[i])
        torch.testing.assert_close(maps[i], expected)
    torch.testing.assert_close(explainer.maps(pictures, 2 * directions), 2 * maps)


def test_maps_of_word_directions_are_interactions(tiny, picture):
    explainer = Explainer(tiny)
    pairs = explainer.word_directions(SEVERAL)
    for prompt, (split, directions) in zip(SEVERAL, pairs, strict=True):
        interactions = explainer.interactions(picture, prompt)
        maps = explainer.maps(picture, directions)[0]
        close(maps, interactions.image_maps)
        words = interactions.words[0]
        texts = [prompt[start:end] for start, end in split.spans]
        assert texts == [word.text for word in words]
        close(directions @ explainer.embed_images(picture)[0], scores_of(interactions))


def test_prompts_may_stand_in_any_sequence_and_their_names_are_plain_strings(tiny, picture):
    explainer = Explainer(tiny)
    for sequence in (np.array(PROMPTS), pd.Series(PROMPTS, index=range(7, 7 + len(PROMPTS)))):
        explanation = explainer.explain(picture, sequence)
        assert explanation.prompts == tuple(PROMPTS)
        assert {type(prompt) for prompt in explanation.prompts} == {str}


def test_a_tensor_is_explained_as_the_image_that_it_holds_and_a_batch_as_its_images(tiny, picture):
    explainer = Explainer(tiny)
    pixels = torch.from_numpy(np.array(picture))
    tensor = pixels.permute(2, 0, 1) / 255
    assert_same(explainer.explain(tensor, PROMPTS), explainer.explain(picture, PROMPTS))
    batch = torch.stack([tensor, tensor.flip(2)])
    embeddings = explainer.embed_images(batch)
    expected = explainer.embed_images([picture, ImageOps.mirror(picture)])
    torch.testing.assert_close(embeddings, expected)
    assert len(explainer.explain_batch(batch, ["a dog", "a cat"])) == 2
    with pytest.raises(GradeclipError, match="before it is normalised"):
        explainer.explain(tensor * 4 - 2, "a dog")


def test_the_probability_is_the_softmax_of_the_models_logits_over_the_prompts(tiny, picture):
    explanation = Explainer(tiny).explain(picture, PROMPTS)
    with torch.no_grad():
        pixels = tiny.preprocess(picture)[None]
        logits = tiny.model.get_logits(pixels, tiny.tokenizer(PROMPTS))[0][0]
    np.testing.assert_allclose(explanation.probability, logits.softmax(0), rtol=1e-4)
    assert explanation["cat"].probability == explanation.probability[2:]
    assert Explainer(tiny).explain(picture, "cat").probability is None


def test_the_probability_of_siglip_is_that_of_each_pair_alone(picture):
    clip = wrap(build(init_logit_bias=-1.0, init_logit_scale=1.0))
    explanation = Explainer(clip).explain(picture, PROMPTS)
    with torch.no_grad():
        pixels = clip.preprocess(picture)[None]
        logits = clip.model.get_logits(pixels, clip.tokenizer(PROMPTS))[0][0]
    np.testing.assert_allclose(explanation.probability, logits.sigmoid(), rtol=1e-4)
    assert Explainer(clip).explain(picture, "cat").probability == explanation.probability[2:]


def test_nearest_words_are_those_of_the_image_or_of_a_dense_feature(tiny, picture):
    explainer = Explainer(tiny)
    words = ["dog", "owl", "car", "tree"]
    captions = ["a photo of a dog", "a photo of an owl", "a photo of a car", "a photo of a tree"]
    similarity = explainer.explain(picture, captions).similarity
    nearest = explainer.nearest_words(picture, vocabulary=words, count=2)
    best = np.argsort(-similarity)[:2]
    nearest_words, values = zip(*nearest, strict=True)
    assert list(nearest_words) == [words[i] for i in best]
    close(values, similarity[best])

    maps = explainer.with_method("maskclip").explain(picture, captions).image_maps
    of_patch = maps[:, 1, 2]
    ((word, value),) = explainer.nearest_words(picture, (1, 2), vocabulary=words, count=1)
    assert word == words[of_patch.argmax()]
    close(value, of_patch.max())
    assert len(explainer.nearest_words(picture)) == 5


def test_an_explainer_says_what_it_explains_and_moves_its_model(tiny, picture):
    explainer = Explainer(replace(tiny, model=copy.deepcopy(tiny.model)), device="cpu")
    maps = "Explainer of tiny: maps by Grad-ECLIP of the last 1 of 3 image layers"
    assert repr(explainer) == f"{maps}, words by Leave one word out"
    published = explainer.with_method(words="grad-eclip")
    assert repr(published) == f"{maps}, words by Grad-ECLIP of the last 2 of 3 text layers"
    assert repr(published.with_method(words=None)) == maps
    rise = explainer.with_method("rise", words=None)  # it looks into no layer
    assert repr(rise) == "Explainer of tiny: maps by RISE"
    assert explainer.device == torch.device("cpu")
    expected = explainer.explain(picture, PROMPTS)
    half = explainer.to(torch.device("cpu"))
    assert half is explainer
    assert_same(explainer.explain(picture, PROMPTS), expected)


def test_maps_of_heads_sum_to_the_joint_map_and_each_is_that_of_its_own_values(tiny, picture):
    explainer = Explainer(tiny, image_layers=2)
    explanation = explainer.explain(picture, PROMPTS, heads="separate")
    prompts, layers, heads, *grid = explanation.head_maps.shape
    assert (prompts, layers, heads) == (3, 2, 4)
    assert grid == list(explanation.image_maps.shape[1:])
    total = explanation.head_maps.sum(axis=(1, 2))
    close(total, explanation.image_maps)
    np.testing.assert_array_equal(explanation["cat"].head_maps, explanation.head_maps[2:])

    # the map of a model in whose last layer one head alone has values
    tower = explainer.image_tower
    trace = tower.trace(tiny.preprocess(picture)[None], graph=True)
    texts = explainer.embed_texts(PROMPTS)[None]
    silent = [replace(layer, v=torch.zeros_like(layer.v)) for layer in trace.layers]
    v = torch.zeros_like(trace.layers[-1].v)
    v[:, :, 2] = trace.layers[-1].v[:, :, 2]
    alone = replace(trace, layers=(silent[0], replace(trace.layers[-1], v=v)))
    maps = METHODS["grad-eclip"].image(tower, alone, texts)[0, :, 1:]
    expected = maps.unflatten(-1, trace.grid).numpy()
    close(explanation.head_maps[:, 1, 2], expected)


def test_maps_of_heads_are_kept_in_a_file_and_refused_where_a_map_is_no_sum(
    tiny, picture, tmp_path
):
    explainer = Explainer(tiny)
    explanation = explainer.explain(picture, "a dog", heads="separate")
    stored = Explanation.load(explanation.save(tmp_path / "dog.npz"))
    np.testing.assert_array_equal(stored.head_maps, explanation.head_maps)
    assert explainer.explain(picture, "a dog").head_maps is None

    with pytest.raises(GradeclipError, match="GAME are no sum over heads: ask for one of grad-ecl"):
        explainer.explain(picture, "a dog", method="game", heads="separate")
    with pytest.raises(GradeclipError, match="heads must be 'joint' or 'separate', got 'all'"):
        explainer.explain(picture, "a dog", heads="all")
