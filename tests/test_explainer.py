"""Explain: what a user asks for and gets, in one batch or many, on any model state."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, ttest_1samp

from gradeclip_utils import (
    Explainer,
    Explanation,
    ExplanationWarning,
    Interactions,
    UnsupportedModel,
    load_clip,
)
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.language import with_other_nouns
from gradeclip_utils.measures import randomised
from gradeclip_utils.prompts import null_captions
from gradeclip_utils.scenes import draw_scene
from tests.conftest import build, wrap

PROMPTS = ["a dog", "a red car and a blue ball.", "cat"]
SEVERAL = [*PROMPTS, "a very long caption of a small dog beside a red car"]


def same(found: Explanation, expected: Explanation, index: int, among: int = 0, tolerance=1e-6):
    """Prompt ``among`` of ``found`` is explained as prompt ``index`` of ``expected``."""
    np.testing.assert_allclose(found.similarity[among], expected.similarity[index], atol=tolerance)
    np.testing.assert_allclose(found.image_maps[among], expected.image_maps[index], atol=tolerance)
    words, wanted = found.words[among], expected.words[index]
    assert [w.text for w in words] == [w.text for w in wanted]
    np.testing.assert_allclose([w.score for w in words], [w.score for w in wanted], atol=tolerance)


def test_an_explanation_holds_the_models_own_similarity_and_signed_maps(tiny, picture):
    explanation = Explainer(tiny).explain(picture, PROMPTS)
    with torch.no_grad():
        image = tiny.model.encode_image(tiny.preprocess(picture)[None], normalize=True)
        text = tiny.model.encode_text(tiny.tokenizer(PROMPTS), normalize=True)
    np.testing.assert_allclose(explanation.similarity, (image @ text.T)[0], atol=1e-6)
    assert explanation.image_maps.shape == (3, 4, 4) and explanation.image_maps.dtype == np.float32
    assert explanation.image_maps.min() < 0 < explanation.image_maps.max()
    assert [word.text for word in explanation.words[1]] == [
        "a",
        "red",
        "car",
        "and",
        "a",
        "blue",
        "ball",
        ".",
    ]


@pytest.mark.parametrize(
    ("name", "options", "prompts"),
    [
        ("tiny", {}, PROMPTS),
        ("tiny", {"method": "grad-eclip-single-head"}, PROMPTS),
        ("tiny", {"resolution": "native"}, PROMPTS),
        ("averaging", {"image_layers": 2}, PROMPTS),
        (
            "tiny",
            {},
            [f"{'very ' * (i % 5)}number {i}" for i in range(70)],
        ),  # more than fit into one batch
    ],
)
def test_many_prompts_are_explained_as_each_alone(name, options, prompts, picture, request):
    explainer = Explainer(request.getfixturevalue(name), **options)
    together = explainer.explain(picture, prompts)
    for i in (0, len(prompts) // 2, len(prompts) - 1):
        same(explainer.explain(picture, prompts[i]), together, i)


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_a_batch_of_pairs_is_explained_as_each_pair_alone(resolution, tiny, picture):
    pictures = [
        picture,
        picture.rotate(90, expand=True),
        picture.crop((0, 0, 40, 40)),
    ] * 6  # more than one batch
    prompts, explainer = PROMPTS * 6, Explainer(tiny, resolution=resolution)
    batch = explainer.explain_batch((one for one in pictures), prompts, against="a cow")
    assert len(batch) == 18
    for i in (0, 1, 17):
        alone = explainer.explain(pictures[i], prompts[i], against="a cow")
        same(batch[i], alone, 0)
        assert batch[i].image.size == pictures[i].size and batch[i].box == alone.box


def test_a_contrast_is_the_difference_of_two_explanations(tiny, picture):
    explainer, a, b = Explainer(tiny), "a red car", "a blue car"
    contrast, for_a, for_b = (
        explainer.explain(picture, a, against=b),
        *(explainer.explain(picture, p) for p in (a, b)),
    )
    np.testing.assert_allclose(contrast.image_maps, for_a.image_maps - for_b.image_maps, atol=1e-6)
    assert contrast.against == (b,) and contrast.against_similarity == pytest.approx(
        for_b.similarity, abs=1e-6
    )
    assert [w.score for w in contrast.words[0]] == pytest.approx(
        [w.score for w in for_a.words[0]], abs=1e-6
    )
    assert [w.score for w in contrast.against_words[0]] == pytest.approx(
        [-w.score for w in for_b.words[0]], abs=1e-6
    )
    assert explainer.explain(picture, PROMPTS, against="a cow").against == ("a cow",) * 3
    with pytest.warns(
        ExplanationWarning, match="the map of 'a red car' is zero everywhere: the two captions are"
    ):
        assert (explainer.explain(picture, a, against=a).image_maps == 0).all()


def test_embeddings_are_explained_like_the_prompts_that_they_come_from(tiny, picture):
    explainer, prompts = Explainer(tiny), Explainer(tiny).explain(picture, PROMPTS)
    own = 3 * explainer.embed_texts(PROMPTS).numpy()
    for given in (
        torch.from_numpy(own),
        own,
        own.astype(">f4"),
        own.astype(np.longdouble),
        np.flip(own, 0)[::-1],
    ):
        found = explainer.explain(picture, given)
        np.testing.assert_allclose(found.image_maps, prompts.image_maps, atol=1e-6)
    assert found.words == ((), (), ()) and found.prompts[2] == "embedding 2"
    contrast = explainer.explain(picture, "a dog", against=own[1])
    np.testing.assert_allclose(
        contrast.image_maps[0], prompts.image_maps[0] - prompts.image_maps[1], atol=1e-6
    )
    batch = explainer.explain_batch([picture] * 18, own[[0] * 18])
    assert [one.prompts for one in batch] == [(f"embedding {i}",) for i in range(18)]


@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e38, 1e-40])
def test_the_length_of_an_embedding_changes_nothing_however_large_or_small(tiny, picture, factor):
    direction = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    direction = direction / direction.abs().max()
    plain, long = (Explainer(tiny).explain(picture, direction * one) for one in (1, factor))
    np.testing.assert_allclose(
        long.similarity, plain.similarity, atol=1e-3 if factor < 1e-38 else 1e-6
    )


def test_single_head_explains_another_number_and_says_so(tiny, picture):
    model, single = (
        Explainer(tiny).explain(picture, PROMPTS),
        Explainer(tiny, method="grad-eclip-single-head"),
    )
    explanation = single.explain(picture, PROMPTS)
    np.testing.assert_allclose(
        explanation.similarity, model.similarity, atol=1e-6
    )  # the model's own, still
    assert not np.allclose(explanation.image_maps, model.image_maps, atol=1e-4)
    changed, sides = copy.deepcopy(tiny.model), []
    for block in (changed.visual.transformer.resblocks[-1], *changed.transformer.resblocks[-2:]):
        block.attn.num_heads, block.attn.head_dim = 1, 64
    for one in (tiny.model, changed):
        with torch.no_grad():
            image = one.encode_image(tiny.preprocess(picture)[None], normalize=True)[0]
            sides.append((image, one.encode_text(tiny.tokenizer(PROMPTS), normalize=True)))
    (own_image, own_texts), (image, texts) = sides
    scores = explanation.provenance["single_head_similarity"]
    np.testing.assert_allclose(scores["image"], own_texts @ image, atol=1e-6)
    np.testing.assert_allclose(scores["text"], texts @ own_image, atol=1e-6)
    both = single.interactions(picture, PROMPTS[1]).provenance["single_head_similarity"]
    np.testing.assert_allclose(both["image"], [texts[1] @ image], atol=1e-6)
    assert "single_head_similarity" not in model.provenance
    assert model.origin == "tiny (weights not named), Grad-ECLIP with the model's own heads"
    listed = ", ".join(f"{score:.3f}" for score in scores["image"])
    assert f"with one head: explains {listed} (image) and" in explanation.origin


def test_interactions_have_a_map_and_the_first_order_score_for_every_word(tiny, picture):
    explainer, caption = Explainer(tiny), "a red car, a bluish baaaall"
    interactions, explanation = (
        explainer.interactions(picture, caption),
        explainer.explain(picture, caption),
    )
    assert interactions.maps.shape == (6 + 1, 4, 4)
    for found, expected in zip(interactions.words, explanation.words[0], strict=True):
        assert (found.text, found.start, found.end) == (expected.text, expected.start, expected.end)
        assert found.score == pytest.approx(expected.score, abs=1e-6)
    assert interactions.similarity == pytest.approx(explanation.similarity[0], abs=1e-6)


def test_native_resolution_shows_the_whole_image_in_its_own_shape(tiny, picture):
    native, square = Explainer(tiny, resolution="native"), picture.resize((32, 32))
    explanation = native.explain(picture, "a dog")
    assert explanation.image_maps.shape == (1, 6, 10)  # 50 x 80 pixels, patches of 8
    assert explanation.box == (0, 0, 80, 50)
    same(native.explain(square, "a dog"), Explainer(tiny).explain(square, "a dog"), 0)
    with pytest.warns(ExplanationWarning, match="zero everywhere"):
        assert native.explain(Image.new("RGB", (1, 1)), "a dog").heatmap(0).shape == (1, 1)
    texts, explanation = native.embed_texts(SEVERAL), native.explain(picture, SEVERAL)
    np.testing.assert_allclose(
        native.embed_images([picture]) @ texts.T, explanation.similarity[None], atol=1e-6
    )
    np.testing.assert_allclose(native.maps([picture], texts)[0], explanation.image_maps, atol=1e-6)
    with pytest.raises(ValueError, match="one at a time"):
        native.maps([picture, picture.crop((0, 0, 30, 50))], texts)


def test_an_image_of_one_colour_and_identical_tokens_gives_zeros_not_nan():
    model = build()
    model.visual.positional_embedding.data.zero_()
    with pytest.warns(ExplanationWarning, match="zero everywhere"):
        explanation = Explainer(wrap(model)).explain(Image.new("RGB", (64, 64), "red"), "a dog")
    assert (explanation.image_maps == 0).all() and (explanation.heatmap(0) == 0).all()


@pytest.mark.slow
def test_true_captions_have_a_high_percentile_and_false_ones_any_and_with_random_weights_both_are_alike(
    bundled,
):
    """On test scenes, with the captions that the bundled model knows; false captions are those of other scenes."""
    scenes = [draw_scene([7, i], split="test") for i in range(300)]
    images, said = [scene.image(96) for scene in scenes], [scene.caption for scene in scenes]

    def places(clip):
        explainer = Explainer(clip, method="attention")
        captions = explainer.embed_texts(said)
        both = torch.stack([captions, captions.roll(1, 0)], dim=1)  # (scenes, 2, E)
        return np.array(
            [explainer.explain(*asked).percentile for asked in zip(images, both, strict=True)]
        ).T

    true, false = places(bundled)
    assert true.mean() > 95 and np.median(false) < 70
    assert (true[:, None] > false).mean() > 0.95  # the AUC of true against false captions
    true, false = places(randomised(bundled))
    assert abs(true.mean() - false.mean()) < 5


def test_the_percentile_counts_captions_below_and_half_of_the_equal_ones_and_its_interval_is_wilsons(
    tiny, picture
):
    own, explainer = null_captions(None), Explainer(tiny)
    found, nulls = (
        explainer.explain(picture, [*PROMPTS, own[4]]),
        explainer.explain(picture, own).similarity,
    )
    expected = [100 * (nulls < one).mean() for one in found.similarity[:3]]
    np.testing.assert_allclose(found.percentile[:3], expected)
    assert found.percentile[3] == pytest.approx(100 * ((nulls < nulls[4]).sum() + 0.5) / len(own))
    assert (found.null_median, found.null_count) == (
        pytest.approx(np.median(nulls), abs=1e-6),
        len(own),
    )
    for place, interval in zip(found.percentile[:3], found.percentile_interval, strict=False):
        wilson = binomtest(round(place / 100 * len(own)), len(own)).proportion_ci(method="wilson")
        np.testing.assert_allclose(interval, 100 * np.array(wilson), atol=0.01)


def test_ones_own_null_captions_take_the_place_of_the_others_and_without_a_tokenizer_there_are_none(
    tiny, picture
):
    explainer = Explainer(tiny, null_captions=["a red car", "a dog"])
    found = explainer.explain(picture, PROMPTS)
    car, dog = explainer.explain(picture, ["a red car", "a dog"]).similarity
    assert found.null_count == 2 and found.null_median == pytest.approx((car + dog) / 2, abs=1e-6)
    assert Explainer(tiny).explain(picture, PROMPTS).null_count == len(null_captions(None))
    found = Explainer(replace(tiny, tokenizer=None)).explain(picture, torch.ones(1, 48))
    assert found.percentile is found.null_median is None
    for wrong in (["a dog"], [], [3]):
        with pytest.raises(GradeclipError):
            Explainer(tiny, null_captions=wrong)


def test_null_captions_are_embedded_once_for_a_model_and_again_when_it_says_something_else(
    picture, monkeypatch
):
    peft, asked, embed = pytest.importorskip("peft"), [], Explainer.embed_texts
    adapter = peft.LoraConfig(target_modules=["c_fc"], init_lora_weights=False)
    clip = replace(wrap(build()), model=peft.get_peft_model(build(), adapter))
    clip.model.add_adapter("other", adapter)
    weight, other = (
        clip.model.get_base_model().text_projection,
        open_clip.SimpleTokenizer(context_length=24),
    )
    mlp = clip.model.get_base_model().transformer.resblocks[-1].mlp
    other.encoder = {piece: 100 + number % 200 for piece, number in other.encoder.items()}
    weight.requires_grad, weight.grad = True, torch.ones_like(weight)
    monkeypatch.setattr(
        Explainer, "embed_texts", lambda *given: asked.append(len(given[1])) or embed(*given)
    )
    for _ in range(2):
        before = Explainer(clip, method="attention").explain(picture, "a dog")
        Explainer(clip).explain(picture, "a cat")
    assert asked == [before.null_count]
    for change in (
        lambda: weight.detach().mul_(-1),
        lambda: weight.data.mul_(-1),
        lambda: clip.model.set_adapter("other"),
        lambda: [
            layer.set_scale("other", 9)
            for layer in clip.model.modules()
            if hasattr(layer, "set_scale")
        ],
        torch.optim.SGD([weight], lr=0.01, fused=True).step,
        clip.model.base_model.disable_adapter_layers,
        lambda: object.__setattr__(clip, "tokenizer", other),
        lambda: setattr(mlp, "gelu", torch.nn.Tanh()),
    ):
        change()
        after, own = (
            Explainer(one).explain(picture, "a dog") for one in (clip, copy.deepcopy(clip))
        )
        assert after.null_median == pytest.approx(own.null_median, abs=1e-6)
        assert after.null_median != pytest.approx(before.null_median, abs=1e-4)
        before = after


def state_of(model):
    """Everything about a model that an explanation could leave behind."""
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
        (n, p.requires_grad, p.grad is None, p.sum().item(), p._version)
        for n, p in model.named_parameters()
    ]
    ours = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
    )
    return modules, parameters, ours


@pytest.mark.parametrize(("options", "training"), [({}, True), ({"image_layers": 2}, False)])
def test_nothing_is_left_behind_after_success_and_after_bad_input(options, training, picture):
    model = build({"patch_dropout": 0.5}).train(training)
    model.visual.conv1.weight.requires_grad = False
    before = state_of(model)
    explainer = Explainer(wrap(model), **options)
    explainer.explain(picture, PROMPTS, against="a cow")
    explainer.interactions(picture, "a red car")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        explainer.maps(picture, explainer.embed_texts(PROMPTS))
    for image, texts in (
        (picture, ""),
        ("no.png", "a dog"),
        (picture, torch.ones(1, 2)),
        (picture, []),
    ):
        with pytest.raises(GradeclipError):
            explainer.explain(image, texts)
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


def test_the_callers_modes_and_precision_do_not_matter(tiny, picture):
    explainer, expected = Explainer(tiny), Explainer(tiny).explain(picture, PROMPTS)
    embedded = explainer.embed_images(picture), explainer.embed_texts(PROMPTS)
    autocast, device = (
        torch.autocast("cpu", torch.bfloat16),
        torch.device("meta"),
    )  # a default, as set_default_device's
    anomaly = torch.autograd.set_detect_anomaly(True)
    for context in (
        torch.no_grad(),
        torch.inference_mode(),
        autocast,
        torch.enable_grad(),
        device,
        anomaly,
    ):
        with context:
            found = explainer.explain(picture, PROMPTS)
            explainer.interactions(picture, PROMPTS[1])
            again = explainer.embed_images(picture), explainer.embed_texts(PROMPTS)
            maps = explainer.maps(picture, again[1])
        assert not any(value.requires_grad or value.is_inference() for value in (*again, maps))
        torch.testing.assert_close(again, embedded)
        for i in range(3):
            same(found, expected, i, i)
    torch.autograd.set_detect_anomaly(False)


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


def test_a_wrapped_frozen_or_training_model_is_explained_as_it_is(picture):
    model = build({"patch_dropout": 0.5})
    expected = Explainer(wrap(model)).explain(picture, PROMPTS)
    compiled, frozen = (
        partial(torch.compile, backend="eager"),
        lambda one: copy.deepcopy(one).requires_grad_(False),
    )
    for change in (compiled, torch.nn.DataParallel, frozen, lambda one: copy.deepcopy(one).train()):
        found = Explainer(replace(wrap(model), model=change(model))).explain(picture, PROMPTS)
        for i in range(3):
            same(found, expected, i, i)


def test_a_model_that_is_loaded_in_inference_mode_is_explained_and_one_made_in_it_refused():
    with torch.inference_mode():
        clip, made = load_clip(), wrap(build())
    assert Explainer(clip).explain(draw_scene(1).image(), "a dog").image_maps.any()
    with pytest.raises(
        UnsupportedModel, match=r"was made in torch.inference_mode, .*: make it outside"
    ):
        Explainer(made)


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
    half = Explainer(wrap(copy.deepcopy(tiny.model).to(dtype)), method=method).explain(
        picture, PROMPTS
    )
    assert half.image_maps.dtype == np.float32
    eps = torch.finfo(dtype).eps
    assert np.abs(half.similarity - expected.similarity).max() < 4 * eps
    assert (
        np.abs(half.image_maps - expected.image_maps).max()
        < 40 * eps * np.abs(expected.image_maps).max()
    )


def test_text_that_cannot_be_opened_leaves_embeddings_that_can_be_explained(picture):
    model = build()
    model.text_pool_type = "unknown"
    explainer = Explainer(wrap(model))
    model.text_pool_type = "argmax"
    embeddings = explainer.embed_texts(PROMPTS)
    torch.testing.assert_close(embeddings, Explainer(wrap(build())).embed_texts(PROMPTS))
    found = explainer.explain(picture, embeddings)
    assert found.image_maps.shape == (3, 4, 4) and found.percentile.shape == (3,)
    for ask in (
        explainer.explain,
        explainer.interactions,
        lambda image, text: explainer.word_directions(text),
    ):
        with pytest.raises(UnsupportedModel, match="text tower"):
            ask(picture, PROMPTS[0])


@pytest.mark.parametrize("late", [False, True])
def test_a_model_that_computes_something_else_than_its_layers_say_is_refused_by_what_was_found(
    late, picture
):
    clip = wrap(build())
    block, explainer = clip.model.visual.transformer.resblocks[-1], Explainer(clip)
    expected = (
        explainer.explain(picture, PROMPTS)
        if late
        else Explainer(wrap(build())).explain(picture, PROMPTS)
    )
    recording = block.register_forward_hook(lambda module, entering, leaving: None)
    same(explainer.explain(picture, PROMPTS), expected, 0)  # it changes nothing
    changing = block.register_forward_hook(
        lambda module, entering, leaving: leaving + leaving.roll(1, -1)
    )
    with pytest.raises(
        UnsupportedModel, match=r"does not compute what its layers say \(a hook on visual"
    ):
        explainer.explain(picture, PROMPTS)
    changing.remove()
    recording.remove()
    block.forward = lambda x, attn_mask=None: x
    with pytest.raises(UnsupportedModel, match="another forward of visual.transformer.resblocks.2"):
        explainer.explain(picture, PROMPTS)
    del block.forward
    clip.model.encode_image = lambda pixels: clip.model.visual(pixels).flip(-1)
    with pytest.raises(UnsupportedModel, match="another encode_image of the model"):
        Explainer(clip).explain(picture, PROMPTS)
    del clip.model.encode_image
    same(explainer.explain(picture, PROMPTS), expected, 0)
    block.mlp = copy.deepcopy(block.mlp)  # which changes nothing yet, like a new LoRA
    explainer.explain(picture, PROMPTS)
    block.mlp.c_fc.weight.data.mul_(3)
    same(explainer.explain(picture, PROMPTS), Explainer(clip).explain(picture, PROMPTS), 0)


def test_threads_explain_a_model_in_training_as_one_alone_and_leave_its_statistics(picture):
    resnet = {
        "layers": [1, 1, 1, 1],
        "width": 16,
        "head_width": 16,
        "patch_size": None,
        "image_size": 64,
    }
    model = build(resnet).train()
    explainer, before = Explainer(wrap(model, 64)), copy.deepcopy(model.state_dict())
    expected = explainer.explain(picture, PROMPTS)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(explainer.explain, [picture] * 20, [PROMPTS] * 20):
            same(found, expected, 1, 1)
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())


def test_an_explainer_goes_to_another_process_as_it_is_and_a_deep_copy_has_its_own_model():
    explainer = Explainer(load_clip("emoji"), method="maskclip", seed=3, image_layers=2)
    scene = draw_scene(1).image()
    for again in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer)):
        same(again.explain(scene, "a dog"), explainer.explain(scene, "a dog"), 0)
        assert (again.method, again.seed, again.image_tower.layers) == (explainer.method, 3, 2)
        assert again.clip.model is not explainer.clip.model


def test_a_prompt_longer_than_the_context_is_explained_as_truncated_and_names_what_was_dropped(
    tiny, picture
):
    prompt = (
        "one two three four five six seven eight nine ten " * 2 + "left and right extraordinarily"
    )
    with pytest.warns(
        ExplanationWarning,
        match=r"reads only 22 tokens of 'one two .*not read: right extraordinarily",
    ):
        explanation = Explainer(tiny).explain(picture, prompt)
    assert [word.text for word in explanation.words[0]] == prompt.split()[:22]


def test_a_tokenizer_without_pieces_gives_maps_and_a_warning_in_place_of_words(tiny, picture):
    def of_a_hub(prompts):
        return tiny.tokenizer(prompts)

    explainer = Explainer(replace(tiny, tokenizer=of_a_hub))
    with pytest.warns(
        ExplanationWarning, match=r"words of the prompt are not: .*SimpleTokenizer.*with of_a_hub"
    ):
        explanation = explainer.explain(picture, PROMPTS, against="a cat")
    expected = Explainer(tiny).explain(picture, PROMPTS, against="a cat")
    assert explanation.words == explanation.against_words == ((), (), ())
    assert np.array_equal(explanation.image_maps, expected.image_maps)


def test_a_result_is_frozen_and_a_heat_map_is_cut_off_at_zero(tiny, picture):
    explanation = Explainer(tiny).explain(picture, "a dog", against="a cat")
    mine = {
        name: np.array(getattr(explanation, name))
        for name in ("similarity", "image_maps", "against_similarity")
    }
    made = replace(explanation, **mine)
    for name, array in mine.items():
        array += 1  # it can be written to
        assert (
            not getattr(made, name).flags.writeable
            and (getattr(made, name) == getattr(explanation, name)).all()
        )
    with pytest.raises(FrozenInstanceError):
        explanation.prompts = ()
    assert explanation.heatmap(0).min() == 0 > explanation.heatmap(0, signed=True).min()
    assert explanation.heatmap(0).shape == (50, 80)


@pytest.mark.parametrize("against", [None, "a cow"])
def test_a_saved_explanation_is_read_back_as_it_was(against, tiny, picture, tmp_path):
    explanation = Explainer(tiny).explain(picture, ["日本 <b> 🍕", "a dog"], against=against)
    loaded = Explanation.load(explanation.save(tmp_path / "a" / "b"))
    for name in (
        "prompts",
        "words",
        "box",
        "provenance",
        "against",
        "against_words",
        "null_median",
        "null_count",
    ):
        assert getattr(loaded, name) == getattr(explanation, name)
    for name in ("similarity", "image_maps", "against_similarity", "percentile"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(explanation, name))
    np.testing.assert_array_equal(loaded.image, explanation.image)
    interactions = Explainer(tiny).interactions(picture, "a dog")
    loaded = Interactions.load(interactions.save(tmp_path))
    np.testing.assert_array_equal(loaded.maps, interactions.maps)
    for name in ("words", "caption", "similarity"):
        assert getattr(loaded, name) == getattr(interactions, name)


def test_provenance_says_what_was_explained_and_with_how_many_layers(tiny, picture):
    explainer = Explainer(replace(tiny, name="some", pretrained="tag"), image_layers=2)
    provenance = explainer.explain(picture, "a dog").provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert (provenance["model"], provenance["pretrained"], provenance["attention"]) == (
        "some",
        "tag",
        "model",
    )
    assert (provenance["image_layers"], provenance["text_layers"]) == (2, 2)
    words = Explainer(tiny, method="leave-one-out").explain(picture, "a dog").provenance
    assert (words["image_layers"], words["text_layers"]) == (None, 2)
    assert (
        Explainer(tiny, method="maskclip").explain(picture, "a dog").provenance["text_layers"]
        is None
    )


def test_dependence_is_one_less_the_mean_correlation_with_maps_of_other_prompts(tiny, picture):
    explainer = Explainer(tiny)
    explanation, nulls = (
        explainer.explain(picture, ["a cat", "a dog"]),
        explainer.null_maps(picture, "a dog", 9),
    )
    own = explanation.image_maps[1].ravel()
    distances = [1 - np.corrcoef(own, other.ravel())[0, 1] for other in nulls]
    value, low, high = explanation.prompt_dependence(nulls, index=1)
    assert value == pytest.approx(np.mean(distances))
    student = ttest_1samp(distances, 0).confidence_interval()
    np.testing.assert_allclose((low, high), np.clip(student, 0, 2), atol=1e-6)
    scaled = explanation.prompt_dependence(3 * nulls + 1, index=1)[0]
    assert scaled == pytest.approx(value, abs=1e-5)
    explainer = Explainer(tiny, method="attention")  # whose map is the same for any prompt
    found = explainer.explain(picture, "a dog").prompt_dependence(
        explainer.null_maps(picture, "a dog", 5)
    )
    np.testing.assert_allclose(found, 0, atol=1e-6)
    flat = replace(explanation, image_maps=np.zeros_like(explanation.image_maps))
    assert flat.prompt_dependence(np.ones((3, 4, 4)))[0] == 0
    assert flat.prompt_dependence(np.stack([own.reshape(4, 4)] * 3))[0] == 1


def test_null_maps_are_those_of_prompts_of_the_same_form_and_of_the_empty_one(tiny, picture):
    for method in ("grad-eclip", "clip-surgery"):
        explainer = Explainer(tiny, method=method)
        nulls = explainer.null_maps(picture, "a red dog", 3)
        for found, prompt in zip(nulls, with_other_nouns("a red dog", 2), strict=False):
            np.testing.assert_allclose(
                found, explainer.explain(picture, prompt).image_maps[0], atol=1e-6
            )
        empty = explainer.maps(picture, explainer.embed_texts([""]))[0, 0]
        np.testing.assert_allclose(nulls[-1], empty, atol=1e-6)


@pytest.fixture
def pictures(picture):
    return [
        picture,
        picture.rotate(90),
        picture.rotate(180),
        picture.crop((0, 0, 50, 50)),
        picture.rotate(270),
    ]


def test_embeddings_are_those_of_the_unmodified_model_whatever_the_batches(tiny, pictures):
    explainer, pictures, prompts = Explainer(tiny), pictures * 4, SEVERAL * 20
    with torch.no_grad():
        images = tiny.model.encode_image(
            torch.stack([tiny.preprocess(one) for one in pictures]), normalize=True
        )
        texts = tiny.model.encode_text(tiny.tokenizer(prompts), normalize=True)
    torch.testing.assert_close(explainer.embed_images(pictures), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(explainer.embed_texts(prompts), texts, atol=1e-5, rtol=0)
    for single in (pictures[0], np.asarray(pictures[0])):
        torch.testing.assert_close(explainer.embed_images(single), images[:1], atol=1e-5, rtol=0)
    assert explainer.embed_texts("a dog").shape == (1, 48)


def test_a_generator_is_asked_for_a_batch_at_a_time(tiny, pictures):
    explainer, drawn, batches = Explainer(tiny), [], []
    trace = explainer.image_tower.trace
    explainer.image_tower.trace = lambda pixels, graph: (
        batches.append((len(drawn), len(pixels))),
        trace(pixels),
    )[1]
    found = explainer.embed_images(drawn.append(one) or one for one in pictures * 4)
    assert batches == [(16, 16), (20, 4)]
    assert torch.equal(found, explainer.embed_images(pictures * 4))
    with pytest.raises(ValueError, match="there are no images"):
        explainer.embed_images(one for one in pictures[:0])


def test_maps_are_those_that_explain_shows(tiny, pictures):
    for method in ("grad-eclip", "grad-eclip-single-head", "clip-surgery"):
        explainer = Explainer(tiny, method=method)
        maps = explainer.maps(pictures, explainer.embed_texts(SEVERAL))
        assert maps.shape == (5, 4, 4, 4)
        for one, found in zip(pictures, maps, strict=True):
            np.testing.assert_allclose(found, explainer.explain(one, SEVERAL).image_maps, atol=1e-6)
    explainer = Explainer(tiny)  # and every image may have directions of its own
    directions = torch.randn(
        5, 3, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    maps = explainer.maps(pictures, directions.numpy())
    for i, one in enumerate(pictures):
        torch.testing.assert_close(maps[i], explainer.maps(one, directions[i])[0])
    torch.testing.assert_close(
        explainer.maps(pictures, 2 * directions), 2 * maps
    )  # they keep their length


@pytest.mark.parametrize("method", ["grad-eclip", "grad-eclip-single-head"])
def test_maps_of_word_directions_are_interactions_however_many_captions_are_read_together(
    method, tiny, picture
):
    explainer = Explainer(tiny, method=method)
    for caption, (split, directions) in zip(
        SEVERAL, explainer.word_directions(SEVERAL), strict=True
    ):
        expected = explainer.interactions(picture, caption)
        np.testing.assert_allclose(explainer.maps(picture, directions)[0], expected.maps, atol=1e-6)
        assert [caption[start:end] for start, end in split.spans] == [
            word.text for word in expected.words
        ]
        scores = directions @ explainer.embed_images(picture)[0]
        np.testing.assert_allclose(scores, [word.score for word in expected.words], atol=1e-6)
