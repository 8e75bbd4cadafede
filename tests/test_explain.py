"""Explain: what a user asks for and gets, in one batch or many, on any model state, and what is refused."""

import copy
import json
import warnings
from dataclasses import FrozenInstanceError, replace
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from scipy.stats import ttest_1samp

from gradeclip_utils import Clip, Explainer, Explanation, ExplanationWarning, UnsupportedModel, Word, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import MOST_PATCHES, native_view
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.notices import mark_drawn
from gradeclip_utils.scenes import draw_scene
from tests.conftest import build, wrap

PROMPTS = ["a dog", "a red car and a blue ball.", "cat"]


def same(found: Explanation, expected: Explanation, index: int, among: int = 0, tolerance=1e-6):
    """Prompt ``among`` of ``found`` is explained as prompt ``index`` of ``expected``."""
    np.testing.assert_allclose(found.similarity[among], expected.similarity[index], atol=tolerance)
    np.testing.assert_allclose(found.image_maps[among], expected.image_maps[index], atol=tolerance)
    assert [w.text for w in found.words[among]] == [w.text for w in expected.words[index]]
    np.testing.assert_allclose(
        [w.score for w in found.words[among]], [w.score for w in expected.words[index]], atol=tolerance
    )


def test_an_explanation_holds_the_models_own_similarity_and_signed_maps(tiny, picture):
    explanation = Explainer(tiny).explain(picture, PROMPTS)
    with torch.no_grad():
        image = tiny.model.encode_image(tiny.preprocess(picture)[None], normalize=True)
        text = tiny.model.encode_text(tiny.tokenizer(PROMPTS), normalize=True)
    np.testing.assert_allclose(explanation.similarity, (image @ text.T)[0], atol=1e-6)
    assert explanation.image_maps.shape == (3, 4, 4) and explanation.image_maps.dtype == np.float32
    assert explanation.image_maps.min() < 0 < explanation.image_maps.max()
    assert explanation.prompts == tuple(PROMPTS)
    assert [word.text for word in explanation.words[1]] == ["a", "red", "car", "and", "a", "blue", "ball", "."]


def test_maps_and_scores_are_those_of_the_methods(tiny, picture):
    explainer = Explainer(tiny)
    explanation = explainer.explain(picture, PROMPTS[1])
    image = explainer.image_tower.trace(tiny.preprocess(picture)[None])
    text = explainer.text_tower.trace(tiny.tokenizer(PROMPTS[1:2]))
    maps = grad_eclip(explainer.image_tower, image, text.embedding[None])
    np.testing.assert_allclose(explanation.image_maps[0].ravel(), maps[0, 0, 1:], atol=1e-7)
    scores = grad_eclip(explainer.text_tower, text, image.embedding[None])
    np.testing.assert_allclose([word.score for word in explanation.words[0]], scores[0, 0, 1:-1], atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"attention": "single-head"}, {"image_layers": 2}, {"resolution": "native"}])
@pytest.mark.parametrize("name", ["tiny", "averaging"])
def test_many_prompts_are_explained_as_each_alone(name, options, picture, request):
    explainer = Explainer(request.getfixturevalue(name), **options)
    together = explainer.explain(picture, PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        same(explainer.explain(picture, prompt), together, i)


def test_more_prompts_than_fit_into_one_batch_come_back_in_order(tiny, picture):
    prompts = [f"{'very ' * (i % 5)}number {i}" for i in range(70)]
    explainer = Explainer(tiny)
    together = explainer.explain(picture, prompts)
    for i in (0, 33, 69):
        same(explainer.explain(picture, prompts[i]), together, i)


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_a_batch_of_pairs_is_explained_as_each_pair_alone(resolution, tiny, picture):
    pictures = [picture, picture.rotate(90, expand=True), picture.crop((0, 0, 40, 40))] * 6  # more than one batch
    prompts, explainer = PROMPTS * 6, Explainer(tiny, resolution=resolution)
    batch = explainer.explain_batch(pictures, prompts, against="a cow")
    assert len(batch) == 18
    for i in (0, 1, 2, 16, 17):
        alone = explainer.explain(pictures[i], prompts[i], against="a cow")
        same(batch[i], alone, 0)
        assert batch[i].image.size == pictures[i].size and batch[i].box == alone.box


def test_a_contrast_is_the_difference_of_two_explanations(tiny, picture):
    explainer, a, b = Explainer(tiny), "a red car", "a blue car"
    contrast, for_a, for_b = explainer.explain(picture, a, against=b), *(explainer.explain(picture, p) for p in (a, b))
    np.testing.assert_allclose(contrast.image_maps, for_a.image_maps - for_b.image_maps, atol=1e-6)
    assert contrast.similarity == pytest.approx(for_a.similarity, abs=1e-6)
    assert contrast.against == (b,) and contrast.against_similarity == pytest.approx(for_b.similarity, abs=1e-6)
    assert [w.score for w in contrast.words[0]] == pytest.approx([w.score for w in for_a.words[0]], abs=1e-6)
    assert [w.score for w in contrast.against_words[0]] == pytest.approx([-w.score for w in for_b.words[0]], abs=1e-6)


def test_a_prompt_against_itself_has_an_empty_map_and_a_warning(tiny, picture):
    with pytest.warns(ExplanationWarning, match="1 of 1 image maps are zero everywhere"):
        explanation = Explainer(tiny).explain(picture, "a dog", against="a dog")
    assert (explanation.image_maps == 0).all()


def test_against_may_be_one_for_all_or_one_for_each_but_nothing_else(tiny, picture):
    explainer = Explainer(tiny)
    assert explainer.explain(picture, PROMPTS, against="a cow").against == ("a cow",) * 3
    with pytest.raises(ValueError, match="against must be one prompt, or one for each of 3, got 2"):
        explainer.explain(picture, PROMPTS, against=["a cow", "a pig"])


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_embeddings_are_explained_like_the_prompts_that_they_come_from(kind, tiny, picture):
    with torch.no_grad():
        embeddings = 3 * tiny.model.encode_text(tiny.tokenizer(PROMPTS))
    explainer, prompts = Explainer(tiny), Explainer(tiny).explain(picture, PROMPTS)
    found = explainer.explain(picture, embeddings.numpy() if kind is np.ndarray else embeddings)
    np.testing.assert_allclose(found.image_maps, prompts.image_maps, atol=1e-6)
    assert found.words == ((), (), ()) and found.prompts[2] == "embedding 2"
    contrast = explainer.explain(picture, "a dog", against=embeddings[1])
    np.testing.assert_allclose(contrast.image_maps[0], prompts.image_maps[0] - prompts.image_maps[1], atol=1e-6)


def test_arrays_may_be_views_of_any_stride_byte_order_and_precision_and_read_only(tiny, picture):
    explainer = Explainer(tiny)
    own = explainer.embed_texts(PROMPTS).numpy()
    frozen = own.copy()
    frozen.flags.writeable = False
    expected, scores = explainer.maps(picture, own), explainer.score_words(PROMPTS, own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (frozen, own.astype(">f4"), own.astype(np.float64), np.flip(own.copy(), 0)[::-1]):
            np.testing.assert_allclose(explainer.explain(picture, array).image_maps, expected[0], atol=1e-6)
            for given in (array, list(array)):
                torch.testing.assert_close(explainer.maps(picture, given), expected, atol=1e-6, rtol=0)
                for found, wanted in zip(explainer.score_words(PROMPTS, given), scores, strict=True):
                    assert [word.score for word in found] == pytest.approx([word.score for word in wanted], abs=1e-6)
        assert explainer.maps(picture, own[::-1]).flip(1).allclose(expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"directions must be \(P, 48\), and finite"):
        explainer.score_words(PROMPTS, own * np.nan)


@pytest.mark.parametrize(
    "bad", [torch.ones(2, 47), torch.zeros(1, 48), torch.full((1, 48), torch.nan)], ids=["width", "zero", "nan"]
)
def test_embeddings_that_do_not_fit_are_refused(bad, tiny, picture):
    with pytest.raises(ValueError, match=r"prompt embeddings must be \(T, 48\), finite and not zero, got"):
        Explainer(tiny).explain(picture, bad)


def test_single_head_explains_another_number_and_says_so(tiny, picture):
    model, single = Explainer(tiny).explain(picture, PROMPTS), Explainer(tiny, attention="single-head")
    explanation = single.explain(picture, PROMPTS)
    np.testing.assert_allclose(explanation.similarity, model.similarity, atol=1e-6)  # the model's own, still
    assert not np.allclose(explanation.image_maps, model.image_maps, atol=1e-4)
    changed = copy.deepcopy(tiny.model)
    changed.visual.transformer.resblocks[-1].attn.num_heads = 1
    changed.visual.transformer.resblocks[-1].attn.head_dim = 64
    with torch.no_grad():
        image = changed.encode_image(tiny.preprocess(picture)[None], normalize=True)
        expected = image @ changed.encode_text(tiny.tokenizer(PROMPTS), normalize=True).T
    scores = explanation.provenance["single_head_similarity"]
    np.testing.assert_allclose(scores["image"], expected[0], atol=1e-6)
    assert len(scores["text"]) == 3 and explanation.provenance["attention"] == "single-head"
    assert "single_head_similarity" not in model.provenance
    assert model.origin == "tiny (own weights), Grad-ECLIP with the model's own heads"
    listed = ", ".join(f"{score:.3f}" for score in scores["image"])
    assert f"with one head: explains {listed} (image) and" in explanation.origin
    assert explanation.origin.endswith("not " + ", ".join(f"{score:.3f}" for score in model.similarity))


def test_interactions_have_a_map_and_the_first_order_score_for_every_word(tiny, picture):
    explainer, caption = Explainer(tiny), "a red car, a bluish baaaall"
    interactions, explanation = explainer.interactions(picture, caption), explainer.explain(picture, caption)
    assert interactions.maps.shape == (6 + 1, 4, 4)
    for found, expected in zip(interactions.words, explanation.words[0], strict=True):
        assert (found.text, found.start, found.end) == (expected.text, expected.start, expected.end)
        assert found.score == pytest.approx(expected.score, abs=1e-6)
    assert interactions.similarity == pytest.approx(explanation.similarity[0], abs=1e-6)
    assert interactions.heatmap(1).shape == (50, 80)
    with pytest.raises(ValueError, match="caption must be a text, got"):
        explainer.interactions(picture, PROMPTS)


def test_native_resolution_shows_the_whole_picture_in_its_own_shape(tiny, picture):
    explanation = Explainer(tiny, resolution="native").explain(picture, "a dog")
    assert explanation.image_maps.shape == (1, 6, 10)  # 50 x 80 pixels, patches of 8
    assert explanation.box == (0, 0, 80, 50)


def test_a_picture_of_the_models_own_size_is_the_same_at_native_resolution(tiny, picture):
    square = picture.resize((32, 32))
    same(Explainer(tiny, resolution="native").explain(square, "a dog"), Explainer(tiny).explain(square, "a dog"), 0)


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (3000, 3000), (500, 90)])
def test_no_picture_at_native_resolution_has_more_patches_than_the_bound(tiny, size):
    view = native_view(tiny.preprocess, Image.new("RGB", size), (8, 8))
    height, width = (side // 8 for side in view.pixels.shape[1:])
    assert 1 <= height * width <= MOST_PATCHES and view.box == (0, 0, *size)


def test_a_one_pixel_picture_at_native_resolution_is_one_patch_and_an_empty_map(tiny):
    with pytest.warns(ExplanationWarning, match="zero everywhere"):
        explanation = Explainer(tiny, resolution="native").explain(Image.new("RGB", (1, 1)), "a dog")
    assert explanation.image_maps.shape == (1, 1, 1) and explanation.heatmap(0).shape == (1, 1)


def test_a_picture_of_one_colour_and_identical_tokens_gives_zeros_not_nan(picture):
    model = build()
    model.visual.positional_embedding.data.zero_()
    with pytest.warns(ExplanationWarning, match="zero everywhere"):
        explanation = Explainer(wrap(model)).explain(Image.new("RGB", (64, 64), "red"), "a dog")
    assert (explanation.image_maps == 0).all() and (explanation.heatmap(0) == 0).all()


# --- the state of the model and of the caller -------------------------------------------------------------------


def state_of(model):
    """Everything about a model that an explanation could leave behind."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [
        (name, module.training, sorted(vars(module)), [len(getattr(module, hook)) for hook in hooks])
        for name, module in model.named_modules()
    ]
    parameters = [(n, p.requires_grad, p.grad is None, p.sum().item(), p._version) for n, p in model.named_parameters()]
    return modules, parameters, torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"attention": "single-head"}, {"image_layers": 2}, {"resolution": "native"}])
def test_nothing_is_left_behind_after_success(options, training, picture):
    model = build({"patch_dropout": 0.5}).train(training)
    model.visual.conv1.weight.requires_grad = False
    before = state_of(model)
    explainer = Explainer(wrap(model), **options)
    explainer.explain(picture, PROMPTS, against="a cow")
    explainer.interactions(picture, "a red car")
    explainer.explain_batch([picture, picture], PROMPTS[:2])
    assert state_of(model) == before


def test_nothing_is_left_behind_after_bad_input(picture, tmp_path):
    model = build().train()
    before = state_of(model)
    explainer = Explainer(wrap(model))
    (tmp_path / "no.png").write_text("no picture")
    for image, texts in ((picture, ""), (tmp_path / "no.png", "a dog"), (picture, torch.ones(1, 2)), (picture, [])):
        with pytest.raises((ValueError, TypeError)):
            explainer.explain(image, texts)
    assert state_of(model) == before


def test_nothing_is_left_behind_after_an_exception_inside_the_model(picture):
    model = build().train()

    def fail(module, inputs):
        raise FloatingPointError("inside")

    for module in (model.visual.ln_pre, model.visual.transformer.resblocks[0], model.transformer.resblocks[0].mlp):
        handle = module.register_forward_pre_hook(fail)
        before = state_of(model)
        with pytest.raises(FloatingPointError, match="inside"):
            Explainer(wrap(model)).explain(picture, "a dog")
        assert state_of(model) == before
        handle.remove()


def test_the_callers_gradient_mode_and_autocast_do_not_matter(tiny, picture):
    explainer, expected = Explainer(tiny), Explainer(tiny).explain(picture, PROMPTS)
    autocast, device = torch.autocast("cpu", torch.bfloat16), torch.device("meta")  # a default, as set_default_device's
    for context in (torch.no_grad(), torch.inference_mode(), autocast, torch.enable_grad(), device):
        with context:
            found = explainer.explain(picture, PROMPTS)
            explainer.interactions(picture, PROMPTS[1])
        for i in range(3):
            same(found, expected, i, i)


@pytest.mark.parametrize("method", ["rise", "m2ib"])
def test_the_callers_default_precision_draws_no_other_numbers(method, tiny, picture):
    explainer = Explainer(tiny, method=method)
    expected = explainer.explain(picture, PROMPTS[1]).image_maps
    torch.set_default_dtype(torch.float64)
    try:
        found = explainer.explain(picture, PROMPTS[1]).image_maps
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_model_in_a_wrapper_of_torchs_is_explained_as_it_is(tiny, picture):
    expected = Explainer(tiny).explain(picture, PROMPTS)
    for wrapper in (partial(torch.compile, backend="eager"), torch.nn.DataParallel):
        found = Explainer(replace(tiny, model=wrapper(tiny.model))).explain(picture, PROMPTS)
        for i in range(3):
            same(found, expected, i, i)


def test_a_model_that_is_loaded_in_inference_mode_is_explained_and_one_made_in_it_refused(picture):
    with torch.inference_mode():
        clip, made = load_clip(), wrap(build())
    assert Explainer(clip).explain(draw_scene(1).image(), "a dog").image_maps.any()
    with pytest.raises(UnsupportedModel, match=r"the CLIP was made in torch.inference_mode, .*: make it outside"):
        Explainer(made)


def test_frozen_parameters_and_training_mode_change_nothing(picture):
    model = build({"patch_dropout": 0.5})
    expected = Explainer(wrap(model)).explain(picture, PROMPTS)
    frozen = copy.deepcopy(model).requires_grad_(False)
    training = copy.deepcopy(model).train()
    for changed in (frozen, training):
        found = Explainer(wrap(changed)).explain(picture, PROMPTS)
        for i in range(3):
            same(found, expected, i, i)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_explained_nearly_the_same(dtype, picture):
    model = build()
    expected = Explainer(wrap(model)).explain(picture, PROMPTS)
    half = Explainer(wrap(copy.deepcopy(model).to(dtype))).explain(picture, PROMPTS)
    assert half.image_maps.dtype == np.float32
    eps = torch.finfo(dtype).eps
    assert np.abs(half.similarity - expected.similarity).max() < 4 * eps
    assert np.abs(half.image_maps - expected.image_maps).max() < 40 * eps * np.abs(expected.image_maps).max()


def test_text_that_cannot_be_opened_leaves_embeddings_that_can_be_explained(picture):
    model = build(text={"scale_fc": True}, custom_text=True)
    explainer = Explainer(wrap(model))
    with torch.no_grad():
        embeddings = model.encode_text(wrap(model).tokenizer(PROMPTS))
    assert explainer.explain(picture, embeddings).image_maps.shape == (3, 4, 4)
    with pytest.raises(UnsupportedModel, match="the text tower has a CustomResidualAttentionBlock"):
        explainer.explain(picture, PROMPTS)
    with pytest.raises(UnsupportedModel, match="the text tower has a CustomResidualAttentionBlock"):
        explainer.interactions(picture, PROMPTS[0])


# --- refused, or explained with a warning -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "multi"}, "attention must be 'model' or 'single-head', got 'multi'"),
        ({"resolution": 224}, "resolution must be 'model' or 'native', got 224"),
        ({"image_layers": 4}, "image_layers must be at most 3, got 4"),
        ({"text_layers": 0}, "text_layers must be at least 1, got 0"),
    ],
)
def test_arguments_that_are_no_choice_are_refused_at_the_door(options, message, tiny):
    with pytest.raises(ValueError, match=message):
        Explainer(tiny, **options)


def test_a_bare_model_is_refused_with_what_to_wrap_it_in(tiny):
    with pytest.raises(ValueError, match=r"Explainer needs a Clip\(model, preprocess, tokenizer\), got CLIP"):
        Explainer(tiny.model)


@pytest.mark.parametrize("empty", ["", "   ", "\n", "\ufeff"])
def test_an_empty_prompt_is_refused(empty, tiny, picture):
    with pytest.raises(ValueError, match="a prompt needs at least one word, got"):
        Explainer(tiny).explain(picture, ["a dog", empty])


@pytest.mark.parametrize("prompts", [[], [3], None, np.ones((1, 48), dtype=int)])
def test_prompts_that_are_neither_text_nor_embeddings_are_refused(prompts, tiny, picture):
    with pytest.raises(ValueError, match=r"prompts must be strings, or a float array|'NoneType'"):
        Explainer(tiny).explain(picture, prompts)


def test_pairs_of_different_number_are_refused(tiny, picture):
    with pytest.raises(ValueError, match="pairs need as many pictures as prompts, got 1 and 3"):
        Explainer(tiny).explain_batch([picture], PROMPTS)


def test_a_prompt_longer_than_the_context_is_explained_as_truncated_and_names_what_was_dropped(tiny, picture):
    prompt = "one two three four five six seven eight nine ten " * 2 + "left and right extraordinarily"
    with pytest.warns(ExplanationWarning, match=r"reads only 22 tokens of 'one two .*not read: right extraordinarily"):
        explanation = Explainer(tiny).explain(picture, prompt)
    assert [word.text for word in explanation.words[0]] == prompt.split()[:22]


def test_words_that_the_model_never_saw_are_named_whole_and_once(knowing, picture):
    with pytest.warns(ExplanationWarning, match=r"never shown these words: skateboarding, cat \[W-word-unknown\]$"):
        Explainer(knowing).explain(picture, ["a RED skateboarding dog!", "a cat, a cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Explainer(knowing).explain(mark_drawn(picture.copy()), ["a dog don't, A Dog?!"])


def test_nan_weights_are_refused_in_one_sentence(picture):
    model = build()
    model.transformer.resblocks[0].attn.out_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"its weight 'transformer.resblocks.0.attn.out_proj.weight' holds NaN"):
        Explainer(wrap(model)).explain(picture, "a dog")


def test_a_tokenizer_without_pieces_gives_maps_and_a_warning_in_place_of_words(tiny, picture):
    def of_a_hub(prompts):
        return tiny.tokenizer(prompts)

    prompts = ["a dog", "a red car and a cat"]
    explainer = Explainer(replace(tiny, tokenizer=of_a_hub))
    with pytest.warns(ExplanationWarning, match=r"words of the prompt are not: .*SimpleTokenizer.*with of_a_hub"):
        explanation = explainer.explain(picture, prompts, against="a cat")
    expected = Explainer(tiny).explain(picture, prompts, against="a cat")
    assert explanation.words == explanation.against_words == ((), ())
    assert np.array_equal(explanation.image_maps, expected.image_maps)
    assert np.array_equal(explanation.similarity, expected.similarity)
    with pytest.raises(ValueError, match=r"word scores need open_clip's SimpleTokenizer.*with of_a_hub"):
        explainer.interactions(picture, "a dog")


def test_a_tokenizer_that_drops_tokens_is_refused(tiny, picture):
    masking = open_clip.SimpleTokenizer(context_length=24, reduction_mask="random")
    with pytest.raises(ValueError, match="drops tokens at random"):
        Explainer(replace(tiny, tokenizer=masking)).explain(picture, "a dog")


# --- the result -------------------------------------------------------------------------------------------------


def test_an_explanation_cannot_be_changed(tiny, picture):
    explanation = Explainer(tiny).explain(picture, "a dog")
    with pytest.raises(FrozenInstanceError):
        explanation.prompts = ()
    with pytest.raises(ValueError, match="read-only"):
        explanation.image_maps[0] = 0


@pytest.mark.parametrize("against", [None, "a cow"])
def test_saving_and_loading_gives_the_same_explanation(against, tiny, picture, tmp_path):
    explanation = Explainer(tiny, attention="single-head").explain(picture, ["日本 <b> 🍕", "a dog"], against=against)
    loaded = Explanation.load(explanation.save(tmp_path / "a" / "b"))
    for name in ("prompts", "words", "box", "provenance", "against", "against_words"):
        assert getattr(loaded, name) == getattr(explanation, name)
    for name in ("similarity", "image_maps", "against_similarity"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(explanation, name))
    np.testing.assert_array_equal(loaded.image, explanation.image)
    np.testing.assert_array_equal(loaded.heatmap(1), explanation.heatmap(1))
    assert {file.suffix for file in (tmp_path / "a" / "b").iterdir()} == {".safetensors", ".json", ".png"}


def test_provenance_says_what_was_explained_and_with_what(tiny, picture):
    explainer = Explainer(replace(tiny, name="some", pretrained="tag"), image_layers=2)
    provenance = explainer.explain(picture, "a dog").provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert (provenance["model"], provenance["pretrained"], provenance["attention"]) == ("some", "tag", "model")
    assert (provenance["image_layers"], provenance["text_layers"]) == (2, 2)
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0] or provenance["versions"]["torch"]


def test_a_clip_in_hand_needs_only_model_preprocess_and_tokenizer(tiny, picture):
    clip = Clip(tiny.model, tiny.preprocess, tiny.tokenizer)
    explanation = Explainer(clip).explain(np.asarray(picture), "a dog")
    assert isinstance(explanation.words[0][0], Word) and explanation.provenance["model"] == "custom"


def test_single_head_interactions_report_the_similarity_that_they_explain(tiny, picture):
    explainer = Explainer(tiny, attention="single-head")
    found = explainer.interactions(picture, PROMPTS[1])
    image = explainer.image_tower.trace(tiny.preprocess(picture)[None])
    text = explainer.text_tower.trace(tiny.tokenizer(PROMPTS[1:2]))
    one_head = [
        tower.with_one_head(trace) for tower, trace in ((explainer.image_tower, image), (explainer.text_tower, text))
    ]
    both = float(one_head[0].embedding[0] @ one_head[1].embedding[0])
    prompt_alone = float(image.embedding[0] @ one_head[1].embedding[0])
    reported = found.provenance["single_head_similarity"]
    np.testing.assert_allclose([*reported["image"], *reported["text"]], [both, prompt_alone], atol=1e-6)
    assert f"explains {both:.3f} (image) and {prompt_alone:.3f} (words), not {found.similarity:.3f}" in found.origin
    assert reported["text"] == explainer.explain(picture, PROMPTS[1]).provenance["single_head_similarity"]["text"]
    assert "single_head_similarity" not in Explainer(tiny).interactions(picture, PROMPTS[1]).provenance


def test_embeddings_of_a_large_batch_are_numbered_on(tiny, picture):
    prompts = torch.randn(18, 48, generator=torch.Generator().manual_seed(0))
    found = Explainer(tiny).explain_batch([picture] * 18, prompts, against=prompts.flip(0))
    assert [one.prompts for one in found] == [(f"embedding {i}",) for i in range(18)]
    assert [one.against for one in found] == [(f"embedding {i}",) for i in range(18)]


def test_an_explanation_freezes_a_copy_and_not_the_callers_array(tiny, picture):
    explanation = Explainer(tiny).explain(picture, "a dog", against="a cat")
    mine = {name: np.array(getattr(explanation, name)) for name in ("similarity", "image_maps", "against_similarity")}
    made = replace(explanation, **mine)
    for name, array in mine.items():
        array += 1  # it can be written to
        assert not getattr(made, name).flags.writeable and (getattr(made, name) == getattr(explanation, name)).all()
    interactions = Explainer(tiny).interactions(picture, "a dog")
    maps = np.array(interactions.maps)
    made = replace(interactions, maps=maps)
    maps += 1
    assert not made.maps.flags.writeable and (made.maps == interactions.maps).all()


# --- does it depend on the prompt? --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_a_map_that_is_the_same_whatever_is_asked_depends_on_nothing(method, tiny, picture):
    explainer = Explainer(tiny, method=method)
    found = explainer.explain(picture, "a dog").prompt_dependence(explainer.null_maps(picture, "a dog", 5))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_dependence_is_one_less_the_mean_correlation_with_maps_of_other_prompts(tiny, picture):
    explainer = Explainer(tiny)
    explanation, nulls = explainer.explain(picture, ["a cat", "a dog"]), explainer.null_maps(picture, "a dog", 9)
    own = explanation.image_maps[1].ravel()
    distances = [1 - np.corrcoef(own, other.ravel())[0, 1] for other in nulls]
    value, low, high = explanation.prompt_dependence(nulls, index=1)
    assert value == pytest.approx(np.mean(distances))
    student = ttest_1samp(distances, 0).confidence_interval()
    np.testing.assert_allclose((low, high), np.clip(student, 0, 2), atol=1e-6)
    assert explanation.prompt_dependence(3 * nulls + 1, index=1)[0] == pytest.approx(
        value, abs=1e-5
    )  # scales do not matter
    assert explanation.prompt_dependence(-np.stack([explanation.image_maps[1]] * 2), index=1)[0] == pytest.approx(2)


@pytest.mark.parametrize(
    ("nulls", "index", "message"),
    [
        ("x", 0, "null maps must be an array of numbers"),
        (np.full((3, 4, 4), np.nan), 0, "48 of 48 values of null maps are NaN"),
        (np.ones((3, 4, 4)), 9, "index must be at most 0, got 9"),
        (np.ones((3, 4, 4)), "x", "index must be a whole number"),
    ],
)
def test_prompt_dependence_of_what_is_no_map_or_no_prompt_is_refused(tiny, picture, nulls, index, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny).explain(picture, "a dog").prompt_dependence(nulls, index)


def test_null_maps_are_those_of_prompts_of_the_same_form_and_of_the_empty_one(tiny, picture):
    from gradeclip_utils.language import with_other_nouns

    for method in ("grad-eclip", "clip-surgery"):
        explainer = Explainer(tiny, method=method)
        nulls = explainer.null_maps(picture, "a red dog", 3)
        for found, prompt in zip(nulls, with_other_nouns("a red dog", 2), strict=False):
            np.testing.assert_allclose(found, explainer.explain(picture, prompt).image_maps[0], atol=1e-6)
        empty = explainer.maps(picture, explainer.embed_texts([""]))[0, 0]
        np.testing.assert_allclose(nulls[-1], empty, atol=1e-6)


def test_maps_without_any_relevance_are_the_same_and_differ_from_all_others(tiny, picture):
    explanation = Explainer(tiny).explain(picture, "a dog")
    flat = replace(explanation, image_maps=np.zeros_like(explanation.image_maps))
    assert flat.prompt_dependence(np.ones((3, 4, 4)))[0] == 0
    assert flat.prompt_dependence(np.stack([explanation.image_maps[0]] * 3))[0] == 1


def test_null_maps_that_cannot_be_compared_are_refused(tiny, picture):
    explanation = Explainer(tiny).explain(picture, "a dog")
    for nulls in (np.zeros((1, 4, 4)), np.zeros((3, 5, 4)), np.zeros((4, 4))):
        with pytest.raises(ValueError, match=r"null maps must be \(M, 4, 4\), two or more of them, got"):
            explanation.prompt_dependence(nulls)
    with pytest.raises(ValueError, match="need two prompts or more and a method that explains images, got 1"):
        Explainer(tiny).null_maps(picture, "a dog", 1)
    with pytest.raises(ValueError, match="got 16 and Leave one word out"):
        Explainer(tiny, method="leave-one-out").null_maps(picture, "a dog")
