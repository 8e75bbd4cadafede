"""Explainer: what a user asks for and gets, in one batch or many, on any model state."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageOps
from scipy.stats import binomtest
from torch.testing import assert_close

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
close = partial(assert_allclose, atol=1e-6)
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
    texts = [word.text for word in explanation.words[index]]
    assert texts == [word.text for word in expected.words[expected_index]]
    close(scores_of(explanation, index), scores_of(expected, expected_index))


@pytest.fixture(scope="module")
def explainer(tiny):
    return Explainer(tiny)


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


def test_an_explanation_holds_the_models_own_similarity_and_signed_maps(explainer, tiny, picture):
    explanation = explainer.explain(picture, PROMPTS)
    close(explanation.similarity, plain.similarities(tiny, picture, PROMPTS))
    assert explanation.image_maps.shape == (3, 4, 4)
    assert explanation.image_maps.dtype == np.float32
    assert explanation.image_maps.min() < 0 < explanation.image_maps.max()
    words = [word.text for word in explanation.words[1]]
    assert words == ["a", "red", "car", "and", "a", "blue", "ball", "."]


@pytest.mark.parametrize(
    ("options", "prompts"),
    [
        ({"words": "grad-eclip"}, PROMPTS),
        ({"method": "grad-eclip-single-head", "words": "grad-eclip-single-head"}, PROMPTS),
        ({"resolution": "native"}, PROMPTS),
        # more than fit into one batch
        ({}, [f"{'very ' * (i % 5)}number {i}" for i in range(70)]),
    ],
)
def test_many_prompts_are_explained_as_each_alone(options, prompts, tiny, picture):
    explainer = Explainer(tiny, **options)
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


def test_a_contrast_is_the_difference_of_two_explanations(explainer, picture):
    contrast = explainer.explain(picture, "a red car", against="a blue car")
    red = explainer.explain(picture, "a red car")
    blue = explainer.explain(picture, "a blue car")
    close(contrast.image_maps, red.image_maps - blue.image_maps)
    assert contrast.against == ("a blue car",)
    close(contrast.against_similarity, blue.similarity)

    close(scores_of(contrast), scores_of(red))
    against_scores = [word.score for word in contrast.against_words[0]]
    close(against_scores, [-score for score in scores_of(blue)])
    contrasts = explainer.explain(picture, PROMPTS, against="a cow")
    assert contrasts.against == ("a cow",) * 3


@pytest.fixture
def other_captions():
    return ["a cow", "a boat", "a red car", "two pears"]


@pytest.mark.filterwarnings("ignore:.*the two prompts are the same")
def test_the_lead_over_others_is_the_mean_of_the_contrasts_with_each_of_them(
    tiny, picture, other_captions
):
    prompts = ["a dog", "a red car"]  # the second is among the others
    explainer = Explainer(tiny, null_captions=other_captions)
    lead = explainer.explain(picture, prompts, against="others")
    contrasts = [explainer.explain(picture, prompts, against=caption) for caption in other_captions]
    mean_maps = np.mean([contrast.image_maps for contrast in contrasts], axis=0)
    mean_leads = np.mean([contrast.lead for contrast in contrasts], axis=0)
    close(lead.image_maps, mean_maps)
    close(lead.lead, mean_leads)

    explanation = explainer.explain(picture, prompts)
    assert_array_equal(lead.similarity, explanation.similarity)
    assert_array_equal(lead.percentile, explanation.percentile)
    # the others do not change with the prompt: a word takes the same from the lead
    close(scores_of(lead), scores_of(explanation))
    assert lead.words_legend == "fall of the lead without this word"
    assert lead.lead_over == "4 other captions"
    assert explanation.lead is None
    assert "less that of 4 other captions" in lead.origin
    assert "less that of “a cow”" in contrasts[0].origin
    assert "less that of" not in explanation.origin


def test_the_lead_over_others_is_the_same_in_every_call(tiny, pictures, other_captions):
    explainer = Explainer(tiny, null_captions=other_captions, batch_size=2)
    prompts = ["a dog", "a cat", "a red car"]
    batch = explainer.explain_batch(pictures[:3], prompts, against="others")
    for image, prompt, explanation in zip(pictures, prompts, batch, strict=False):
        assert_same(explanation, explainer.explain(image, prompt, against="others"))

    image = pictures[0]
    several = explainer.explain(image, prompts, against="others", methods=["game"])
    by_game = explainer.with_method("game").explain(image, prompts, against="others")
    close(several["game"].image_maps, by_game.image_maps)

    mean_of_others = explainer.embed_texts(other_captions).mean(0)
    direction = explainer.embed_texts("a dog") - mean_of_others
    (maps,) = explainer.maps(image, direction)
    close(batch[0].image_maps, maps)

    nulls = explainer.null_maps(image, "a red dog", 3)
    null_leads = explainer.null_maps(image, "a red dog", 3, against="others")
    (shared,) = explainer.maps(image, mean_of_others[None])
    close(null_leads, nulls - shared.numpy())


def test_a_caption_may_be_the_word_others(explainer, picture):
    contrast = explainer.explain(picture, "a dog", against=["others"])
    assert contrast.against == ("others",)
    assert not contrast.against_others


def test_a_bias_of_siglip_takes_no_part_in_a_lead(picture, other_captions):
    model = build(init_logit_bias=-10.0)
    explainer = Explainer(wrap(model), null_captions=other_captions)
    lead = explainer.explain(picture, "a dog", against="others")
    model.logit_bias.data.zero_()
    explainer = Explainer(wrap(model), null_captions=other_captions)
    without_bias = explainer.explain(picture, "a dog", against="others")
    assert_array_equal(lead.image_maps, without_bias.image_maps)
    assert_array_equal(lead.lead, without_bias.lead)
    # of the pair, as the model gives it
    assert (lead.probability < without_bias.probability).all()


def test_a_map_of_zeros_is_said_with_its_reason(explainer, picture):
    with pytest.warns(ExplanationWarning, match="zero everywhere: the two prompts are the same"):
        explanation = explainer.explain(picture, "a dog", against="a dog")
    assert (explanation.image_maps == 0).all()

    model = build()
    model.visual.positional_embedding.data.zero_()  # patches of one colour are then the same token
    with pytest.warns(ExplanationWarning, match="keys of all patches fit the query alike"):
        explanation = Explainer(wrap(model)).explain(Image.new("RGB", (64, 64), "red"), "a dog")
    assert (explanation.image_maps == 0).all()


def test_one_prompt_of_interactions_may_stand_in_a_list(explainer, picture):
    expected = explainer.interactions(picture, "a dog")
    interactions = explainer.interactions(picture, ["a dog"])
    assert interactions.prompts == ("a dog",)
    assert_array_equal(interactions.image_maps, expected.image_maps)


def test_embeddings_are_explained_like_the_prompts_that_they_come_from(explainer, picture):
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

    repeated = embeddings[:1].expand(18, -1)
    batch = explainer.explain_batch([picture] * 18, repeated)
    for i, pair in enumerate(batch):
        assert pair.prompts == (f"embedding {i}",)


def test_single_head_explains_another_number_and_says_so(explainer, tiny, picture):
    model = explainer.explain(picture, PROMPTS)
    name = "grad-eclip-single-head"
    single = Explainer(tiny, method=name, words=name).explain(picture, PROMPTS)
    close(single.similarity, model.similarity)  # the model's own
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

    numbers = ", ".join(f"{number:.3f}" for number in single.provenance.explained_similarity)
    assert f"explains {numbers} (image) and" in single.origin


def test_interactions_have_a_map_and_the_first_order_score_for_every_word(explainer, picture):
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


def test_native_resolution_shows_the_whole_image_in_its_own_shape(explainer, tiny, picture):
    native = Explainer(tiny, resolution="native")
    explanation = native.explain(picture, SEVERAL)
    assert explanation.image_maps.shape == (4, 6, 10)  # 50 x 80 pixels, patches of 8
    assert explanation.box == (0, 0, 80, 50)

    square = picture.resize((32, 32))
    assert_same(native.explain(square, "a dog"), explainer.explain(square, "a dog"))

    texts = native.embed_texts(SEVERAL)
    (embedding,) = native.embed_images([picture])
    (maps,) = native.maps([picture], texts)
    close(texts @ embedding, explanation.similarity)
    close(maps, explanation.image_maps)
    upright = picture.crop((0, 0, 30, 50))
    with pytest.raises(GradeclipError, match="one at a time"):
        native.maps([picture, upright], texts)


# -------------------------------------------------------------------------- the words' own method


def test_a_words_score_is_what_the_similarity_loses_without_the_word(explainer, tiny, picture):
    explanation = explainer.explain(picture, ["a red car", "a dog"])
    assert explanation.provenance.words == "leave-one-out"
    assert explanation.provenance.text_layers is None  # no layer is looked into
    prompts = ["a red car", "red car", "a car", "a red"]
    whole, *shorter = plain.similarities(tiny, picture, prompts)
    close(scores_of(explanation), [whole - similarity for similarity in shorter])

    negative = replace(explanation.words[0][0], score=-0.0414)
    assert explanation.word_sentence(negative).endswith("0.041 higher")


def test_a_published_score_says_why_it_is_zero_and_only_then(tiny, picture):
    explanation = Explainer(tiny, words="grad-eclip").explain(picture, "a red car")
    word = explanation.words[0][1]
    assert "by definition" not in explanation.word_sentence(word)
    assert "by definition" in explanation.word_sentence(replace(word, score=0.0))


def test_an_explanation_without_words_has_the_same_maps(tiny, picture):
    published = Explainer(tiny, words="grad-eclip")
    expected = published.explain(picture, PROMPTS)
    assert expected.words_legend == "relevance of a word"
    assert "words:" not in expected.origin  # by the method of the maps

    for explanation in (
        Explainer(tiny, words=None).explain(picture, PROMPTS),
        published.explain(picture, PROMPTS, words=None),
    ):
        assert explanation.words == ((), (), ())
        assert explanation.provenance.words is None
        close(explanation.image_maps, expected.image_maps)
        explanation.plot()  # the caption alone


def test_a_call_by_another_method_keeps_the_words_unless_it_is_told_other_ones(tiny, picture):
    explainer = Explainer(tiny, words="grad-eclip")
    prompt = "a red car"
    published = scores_of(explainer.explain(picture, prompt))
    several = explainer.explain(picture, prompt, methods=["game", "maskclip"])
    for method, explanation in several.items():
        by_call = explainer.explain(picture, prompt, method=method)
        by_explainer = explainer.with_method(method).explain(picture, prompt)
        close(scores_of(explanation), published)
        close(scores_of(by_call), published)
        close(scores_of(by_explainer), published)

    expected = scores_of(Explainer(tiny).explain(picture, prompt))
    for call in ({"method": "game"}, {}):
        explanation = explainer.explain(picture, prompt, words="leave-one-out", **call)
        close(scores_of(explanation), expected)
    words_alone = explainer.explain(picture, prompt, method="leave-one-out")
    assert words_alone.image_maps is None
    close(scores_of(words_alone), expected)


# ----------------------------------------------------------------- several methods, traced once


@pytest.fixture
def count_traces(monkeypatch):
    """A function that notes each trace by the towers of an explainer: its side and layers."""

    def count(explainer):
        traces = {"image": [], "text": []}

        def noting(trace, side, layers):
            def noted(inputs, graph=None):
                traces[side].append(layers)
                return trace(inputs, graph)

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
    by_game = explainer.explain(picture, PROMPTS, method="game")
    assert_same(by_game, expected["game"])


def test_a_method_that_is_not_registered_can_be_one_of_several(tiny, picture):
    unregistered = replace(METHODS["maskclip"], name="mine")
    explanations = Explainer(tiny).explain(picture, "a dog", methods=[unregistered, "game"])
    assert list(explanations) == ["mine", "game"]


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


def test_the_percentile_counts_captions_below_and_half_of_the_equal_ones(explainer, picture):
    captions = null_captions(None)
    explanation = explainer.explain(picture, [*PROMPTS, captions[4]])
    nulls = explainer.explain(picture, captions).similarity

    *of_prompts, of_caption = explanation.percentile
    is_below = nulls < explanation.similarity[:3, None]  # (prompts, captions)
    assert_allclose(of_prompts, 100 * is_below.mean(axis=1))
    captions_below = (nulls < nulls[4]).sum() + 0.5
    assert of_caption == pytest.approx(100 * captions_below / len(captions))
    close(explanation.null_median, np.median(nulls))
    close(explanation.null_max, nulls.max())
    assert explanation.null_count == len(captions)

    counts = is_below.sum(axis=1).tolist()
    for count, interval in zip(counts, explanation.percentile_interval, strict=False):
        bounds = binomtest(count, len(captions)).proportion_ci(method="wilson")
        assert_allclose(interval, 100 * np.array(bounds), atol=0.01)


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


def test_nothing_is_left_behind_after_success_and_after_bad_input(picture):
    model = build({"patch_dropout": 0.5}).train()
    model.visual.conv1.weight.requires_grad = False
    before = state_of(model)
    explainer = Explainer(wrap(model))
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
    ],
    ids=lambda mode: type(mode).__name__,
)
def test_the_callers_modes_do_not_matter(mode, explainer, picture):
    expected = explainer.explain(picture, PROMPTS)
    expected_embeddings = explainer.embed_images(picture), explainer.embed_texts(PROMPTS)
    with mode:
        explanation = explainer.explain(picture, PROMPTS)
        explainer.interactions(picture, PROMPTS[1])
        embeddings = explainer.embed_images(picture), explainer.embed_texts(PROMPTS)
        maps = explainer.maps(picture, embeddings[1])

    for value in (*expected_embeddings, *embeddings, maps):
        assert not value.requires_grad
        assert not value.is_inference()
    assert_close(embeddings, expected_embeddings)
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
    assert_allclose(maps, expected, rtol=1e-3, atol=1e-5)


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
    largest = np.abs(expected.image_maps).max()
    close(explanation.similarity, expected.similarity, atol=4 * eps, rtol=0)
    close(explanation.image_maps, expected.image_maps, atol=40 * eps * largest, rtol=0)


def test_text_that_cannot_be_opened_leaves_embeddings_that_can_be_explained(picture):
    model = build()
    model.text_pool_type = "unknown"
    explainer = Explainer(wrap(model))
    model.text_pool_type = "argmax"
    embeddings = explainer.embed_texts(PROMPTS)
    assert_close(embeddings, Explainer(wrap(build())).embed_texts(PROMPTS))
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


def test_a_prompt_longer_than_the_context_is_explained_as_truncated(explainer, picture):
    with pytest.warns(ExplanationWarning, match="only 22 tokens of .*right extraordinarily"):
        explanation = explainer.explain(picture, LONG)
    assert [word.text for word in explanation.words[0]] == LONG.split()[:22]


def test_a_tokenizer_without_pieces_gives_maps_and_a_warning_in_place_of_words(
    explainer, tiny, picture
):
    clip = replace(tiny, tokenizer=lambda prompts: tiny.tokenizer(prompts))
    with pytest.warns(ExplanationWarning, match=r"words of the prompt are not: .*SimpleTokenizer"):
        explanation = Explainer(clip).explain(picture, PROMPTS, against="a cat")
    expected = explainer.explain(picture, PROMPTS, against="a cat")
    assert explanation.words == explanation.against_words == ((), (), ())
    assert_array_equal(explanation.image_maps, expected.image_maps)


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


def test_embeddings_are_those_of_the_unmodified_model_whatever_the_batches(
    explainer, tiny, pictures
):
    images = pictures * 4
    prompts = SEVERAL * 20
    pixels = torch.stack([tiny.preprocess(image) for image in images])
    ids = tiny.tokenizer(prompts)
    with torch.no_grad():
        image_embeddings = tiny.model.encode_image(pixels, normalize=True)
        text_embeddings = tiny.model.encode_text(ids, normalize=True)
    close(explainer.embed_images(images), image_embeddings, atol=1e-5)
    close(explainer.embed_texts(prompts), text_embeddings, atol=1e-5)

    array = np.asarray(pictures[0])
    close(explainer.embed_images(array), image_embeddings[:1], atol=1e-5)
    assert explainer.embed_texts("a dog").shape == (1, 48)


def test_a_generator_is_asked_for_a_batch_at_a_time(tiny, pictures, monkeypatch):
    explainer = Explainer(tiny, batch_size=8)
    drawn = []
    batches = []
    trace = explainer.image_tower.trace

    def recorded(pixels, graph=None):
        batches.append((len(drawn), len(pixels)))
        return trace(pixels, graph)

    def images():
        for image in pictures * 4:
            drawn.append(image)
            yield image

    monkeypatch.setattr(explainer.image_tower, "trace", recorded)
    embeddings = explainer.embed_images(images())
    assert batches == [(8, 8), (16, 8), (20, 4)]
    assert_close(embeddings, explainer.embed_images(pictures * 4))


@pytest.mark.parametrize("method", ["grad-eclip", "grad-eclip-single-head", "clip-surgery"])
def test_maps_are_those_that_explain_shows(method, tiny, pictures):
    explainer = Explainer(tiny, method=method)
    maps = explainer.maps(pictures, explainer.embed_texts(SEVERAL))
    assert maps.shape == (5, 4, 4, 4)
    for image, image_maps in zip(pictures, maps, strict=True):
        expected = explainer.explain(image, SEVERAL).image_maps
        close(image_maps, expected)


def test_every_image_may_have_directions_of_its_own_which_keep_their_length(explainer, pictures):
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(5, 3, 48, generator=generator, dtype=torch.float64)
    maps = explainer.maps(pictures, directions.numpy())
    for i, image in enumerate(pictures):
        (expected,) = explainer.maps(image, directions[i])
        assert_close(maps[i], expected)
    assert_close(explainer.maps(pictures, 2 * directions), 2 * maps)


def test_maps_of_word_directions_are_interactions(explainer, picture):
    (image_embedding,) = explainer.embed_images(picture)
    pairs = explainer.word_directions(SEVERAL)
    for prompt, (split, directions) in zip(SEVERAL, pairs, strict=True):
        interactions = explainer.interactions(picture, prompt)
        (maps,) = explainer.maps(picture, directions)
        close(maps, interactions.image_maps)
        close(directions @ image_embedding, scores_of(interactions))

        texts = [prompt[start:end] for start, end in split.spans]
        assert texts == [word.text for word in interactions.words[0]]


def test_prompts_may_stand_in_any_sequence_and_their_names_are_plain_strings(explainer, picture):
    for sequence in (np.array(PROMPTS), pd.Series(PROMPTS, index=range(7, 7 + len(PROMPTS)))):
        explanation = explainer.explain(picture, sequence)
        assert explanation.prompts == tuple(PROMPTS)
        assert {type(prompt) for prompt in explanation.prompts} == {str}


def test_a_tensor_is_explained_as_the_image_that_it_holds_and_a_batch_as_its_images(
    explainer, picture
):
    pixels = torch.from_numpy(np.array(picture))
    tensor = pixels.permute(2, 0, 1) / 255
    assert_same(explainer.explain(tensor, PROMPTS), explainer.explain(picture, PROMPTS))

    batch = torch.stack([tensor, tensor.flip(2)])
    mirrored = ImageOps.mirror(picture)
    expected = explainer.embed_images([picture, mirrored])
    assert_close(explainer.embed_images(batch), expected)
    assert len(explainer.explain_batch(batch, ["a dog", "a cat"])) == 2
    with pytest.raises(GradeclipError, match="before it is normalised"):
        explainer.explain(tensor * 4 - 2, "a dog")


def logits_of(clip, image):
    """The model's own logits of an image with each of the prompts."""
    pixels = clip.preprocess(image)[None]
    ids = clip.tokenizer(PROMPTS)
    with torch.no_grad():
        logits_per_image, _ = clip.model.get_logits(pixels, ids)
    return logits_per_image[0]


def test_the_probability_is_the_softmax_of_the_models_logits_over_the_prompts(
    explainer, tiny, picture
):
    explanation = explainer.explain(picture, PROMPTS)
    expected = logits_of(tiny, picture).softmax(0)
    assert_allclose(explanation.probability, expected, rtol=1e-4)
    assert explanation["cat"].probability == explanation.probability[2:]
    assert explainer.explain(picture, "cat").probability is None


def test_the_probability_of_siglip_is_that_of_each_pair_alone(picture):
    clip = wrap(build(init_logit_bias=-1.0, init_logit_scale=1.0))
    explanation = Explainer(clip).explain(picture, PROMPTS)
    expected = logits_of(clip, picture).sigmoid()
    assert_allclose(explanation.probability, expected, rtol=1e-4)
    assert Explainer(clip).explain(picture, "cat").probability == explanation.probability[2:]


def test_an_explainer_says_what_it_explains_and_moves_its_model(tiny):
    explainer = Explainer(replace(tiny, model=copy.deepcopy(tiny.model)), device="cpu")
    maps = "Explainer of tiny: maps by Grad-ECLIP of the last 1 of 3 image layers"
    assert repr(explainer) == f"{maps}, words by Leave one word out"
    rise = explainer.with_method("rise", words=None)  # it looks into no layer
    assert repr(rise) == "Explainer of tiny: maps by RISE"
    assert explainer.to(torch.device("cpu")) is explainer
    assert explainer.device == torch.device("cpu")


def test_maps_of_heads_sum_to_the_joint_map_and_each_is_that_of_its_own_values(tiny, picture):
    explainer = Explainer(tiny, image_layers=2)
    explanation = explainer.explain(picture, PROMPTS, heads="separate")
    maps = explanation.head_maps
    assert maps.shape == (3, 2, 4, 4, 4)  # prompts, layers, heads and the grid
    close(maps.sum(axis=(1, 2)), explanation.image_maps)
    assert_array_equal(explanation["cat"].head_maps, maps[2:])

    # the map of a model in whose last layer one head alone has values
    tower = explainer.image_tower
    trace = tower.trace(tiny.preprocess(picture)[None], graph="query_graph")
    first, last = trace.layers
    values_of_head = torch.zeros_like(last.v)
    values_of_head[:, :, 2] = last.v[:, :, 2]
    layers = replace(first, v=torch.zeros_like(first.v)), replace(last, v=values_of_head)
    texts = explainer.embed_texts(PROMPTS)[None]
    (maps_of_head,) = METHODS["grad-eclip"].image(tower, replace(trace, layers=layers), texts)
    patches = maps_of_head[:, 1:].unflatten(-1, trace.grid)
    close(maps[:, 1, 2], patches.numpy())


def test_maps_of_heads_are_given_on_request_and_refused_where_a_map_is_no_sum(explainer, picture):
    assert explainer.explain(picture, "a dog").head_maps is None
    with pytest.raises(GradeclipError, match="GAME are no sum over heads: ask for one of grad-ecl"):
        explainer.explain(picture, "a dog", method="game", heads="separate")
    with pytest.raises(GradeclipError, match="heads must be 'joint' or 'separate', got 'all'"):
        explainer.explain(picture, "a dog", heads="all")
