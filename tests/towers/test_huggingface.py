"""transformers' CLIPs as towers: what is traced is what the model computes, on any version and by any attention."""

import copy
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradeclip_utils import Clip, Explainer, ExplanationWarning, UnsupportedModel
from gradeclip_utils.methods import METHODS
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.towers import open_image_tower, open_text_tower
from gradeclip_utils.towers.transformers import unwrapped
from tests import plain
from tests.huggingface import NAMES, build_hub, ids_of, transformers, with_processor
from tests.shrinking import stir
from tests.test_explainer import state_of

built = cache(build_hub)
whole = cache(with_processor)
PROMPTS = ["A red car, a café", "一只猫"]


def features(found):
    """What transformers 4 returns as a tensor, and 5 in an output."""
    return found if torch.is_tensor(found) else found.pooler_output


def patches_of(pixels, step=8):
    """NaFlex's input, cut out patch by patch: (B, h*w, step * step * 3)."""
    rows, columns = pixels.shape[-2] // step, pixels.shape[-1] // step
    places = [(step * i, step * j) for i in range(rows) for j in range(columns)]
    cut = [
        pixels[:, :, y : y + step, x : x + step].permute(0, 2, 3, 1).flatten(1) for y, x in places
    ]
    return torch.stack(cut, 1), torch.tensor([[rows, columns]] * len(pixels))


def own_image_features(model, name, pixels):
    if name != "Siglip2":
        return features(model.get_image_features(pixel_values=pixels))
    patches, shapes = patches_of(pixels)
    return features(
        model.get_image_features(patches, torch.ones(patches.shape[:2], dtype=torch.long), shapes)
    )


def own_text_features(model, name, ids):
    mask = (
        {"attention_mask": (ids != 0).long()} if name in ("ChineseCLIP", "AltCLIP") else {}
    )  # as processors send it
    return features(model.get_text_features(input_ids=ids, **mask))


@pytest.mark.parametrize(
    ("name", "attention"), [*((name, "sdpa") for name in NAMES), ("CLIP", "eager")]
)
def test_traces_are_what_get_image_features_and_get_text_features_give(name, attention, pixels):
    model, ids = built(name, attention), ids_of(name)
    with torch.no_grad():
        image = F.normalize(own_image_features(model, name, pixels), dim=-1)
        text = F.normalize(own_text_features(model, name, ids), dim=-1)
    assert (image[0] - image[1]).abs().max() > 1e-2 and (text[0] - text[1]).abs().max() > 1e-2
    for opens, inputs, own, some in (
        (open_image_tower, pixels, image, (1,) if name.startswith("Siglip") else (1, 3)),
        (open_text_tower, ids, text, (1, 2, 3)),
    ):
        for layers in some:
            tower = opens(model, layers)
            trace = tower.trace(inputs)
            torch.testing.assert_close(trace.embedding, own, atol=1e-5, rtol=0)
            torch.testing.assert_close(
                tower.trace(inputs[1:]).embedding, own[1:], atol=1e-5, rtol=0
            )
            resumed = tower.forward_from(trace, tower.depth - layers, trace.tokens)
            torch.testing.assert_close(resumed, own, atol=1e-5, rtol=0)
    assert trace.valid_mask[1].sum() == (
        4 if name not in ("Siglip", "Siglip2") else 5
    )  # CLS, two words, SEP (pad)


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_scores_are_the_papers_formula_on_the_models_own_attention(name, pixels):
    model, ids = copy.deepcopy(built(name)), ids_of(name)[:1]
    if name.startswith(
        "Siglip"
    ):  # whose pool asks for its weights, and goes another way to have them
        pool = open_image_tower(model).vision.head.attention
        pool.forward = partial(pool.forward, need_weights=False)
    if model.config._attn_implementation == "eager":
        pytest.skip("this version of transformers gives this model no other attention")
    for tower, inputs, own in (
        (open_image_tower(model), pixels[:1], lambda: own_image_features(model, name, pixels[:1])),
        (open_text_tower(model, 2), ids, lambda: own_text_features(model, name, ids)),
    ):
        direction = F.normalize(
            torch.randn(tower.width, generator=torch.Generator().manual_seed(1)), dim=0
        )
        trace = tower.trace(inputs)
        found = grad_eclip(tower, trace, direction[None, None])[0, 0]
        readers, encode = (
            trace.query_index[0].tolist() or [0],
            lambda own=own: F.normalize(own(), dim=-1),
        )
        expected = plain.grad_eclip(encode, direction, tower.layers, readers, trace.valid_mask[0])
        assert found.abs().max() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-4 * float(found.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_similarity_that_is_explained_is_the_models_own_and_the_model_stays_as_it_was(
    name, picture
):
    model, processor = whole(name)
    before = state_of(model.train())
    explanation = Explainer(Clip.from_transformers(model, processor)).explain(picture, PROMPTS)
    assert state_of(model) == before
    model.eval()
    sent = processor.tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    text = {
        "input_ids": sent["input_ids"],
        **({"attention_mask": sent["attention_mask"]} if "Sig" not in name else {}),
    }
    with torch.no_grad():
        out = model(**processor.image_processor(images=picture, return_tensors="pt"), **text)
    own = F.normalize(out.image_embeds, dim=-1) @ F.normalize(out.text_embeds, dim=-1).T
    assert explanation.similarity == pytest.approx(own[0].numpy(), abs=1e-5)
    height, width = explanation.image_maps.shape[1:]
    assert (height, width) == ((3, 5) if name == "Siglip2" else (4, 4))
    crops = name in ("CLIP", "MetaClip2", "AltCLIP")
    assert explanation.box == pytest.approx((15, 0, 65, 50) if crops else (0, 0, 80, 50), abs=1)
    written, other = ([word.text for word in words] for words in explanation.words)
    assert written == (
        ["A", "red", "car,", "a", "café"]
        if name == "Siglip"
        else ["A", "red", "car", ",", "a", "café"]
    )
    assert "".join(other) == "一只猫"
    assert all(any(word.score for word in words) for words in explanation.words)


def test_words_are_those_that_were_written_up_to_an_eot_among_them_and_no_html_is_seen_in_them(
    picture,
):
    clip, chinese = (
        Explainer(Clip.from_transformers(*whole(name))) for name in ("CLIP", "ChineseCLIP")
    )
    with pytest.warns(
        ExplanationWarning, match="reads only 3 tokens of 'a cat.* not read: <end> on"
    ):
        found = clip.explain(picture, ["a cat <end> on a dog", *PROMPTS])
    assert [word.text for word in found.words[0]] == ["a", "cat"]
    assert [word.text for word in chinese.explain(picture, "A &amp; car").words[0]] == [
        "A",
        "&",
        "amp",
        ";",
        "car",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_native_resolution_has_the_positions_that_transformers_would_give(name, picture):
    explainer = Explainer(Clip.from_transformers(*whole(name)), resolution="native")
    found = explainer.explain(picture, PROMPTS[0])
    assert found.image_maps.shape == (1, 6, 10) and found.box == (0, 0, 80, 50)
    tower = explainer.image_tower
    pixels = torch.randn(1, 3, 24, 56, generator=torch.Generator().manual_seed(1))
    trace = tower.trace(pixels)
    model, size = unwrapped(explainer.clip.model), {"interpolate_pos_encoding": True}
    with torch.no_grad():
        if name == "Siglip2":
            own = own_image_features(model, name, pixels)
        else:
            own = features(model.get_image_features(pixel_values=pixels, **size))
    torch.testing.assert_close(trace.embedding, F.normalize(own, dim=-1), atol=1e-5, rtol=0)
    assert trace.grid == (3, 7)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_these_towers(method, picture):
    found = Explainer(Clip.from_transformers(*whole("ChineseCLIP")), method=method).explain(
        picture, PROMPTS[0]
    )
    assert np.isfinite(found.image_maps).all() and (
        found.image_maps.any() or METHODS[method].image is None
    )
    assert any(found.words[0]) == (METHODS[method].text is not None)


@pytest.mark.skipif("Siglip2" not in NAMES, reason="this version of transformers has no SigLIP 2")
def test_naflex_keeps_an_images_shape_and_what_it_pads_is_in_no_map(picture):
    model, processor = whole("Siglip2")
    explainer = Explainer(Clip.from_transformers(model, processor))
    sent = processor.image_processor(images=picture, return_tensors="pt")
    assert sent["pixel_attention_mask"].sum() == 15 < sent["pixel_values"].shape[1] == 16
    view = explainer.clip.preprocess(picture)
    torch.testing.assert_close(patches_of(view[None])[0][0], sent["pixel_values"][0, :15])
    trace = explainer.image_tower.trace(view[None])
    with torch.no_grad():
        own = F.normalize(features(model.get_image_features(**sent)), dim=-1)
    torch.testing.assert_close(trace.embedding, own, atol=1e-5, rtol=0)
    assert trace.grid == (3, 5) and trace.valid_mask.all() and trace.tokens.shape[1] == 15
    images = [picture, picture.rotate(90, expand=True)]
    wide, tall = explainer.explain_batch(images, PROMPTS)  # no two make a batch
    assert tall.image_maps.shape == (1, 5, 3) and tall.box == (0, 0, 50, 80)
    np.testing.assert_allclose(
        wide.image_maps, explainer.explain(picture, PROMPTS[0]).image_maps, atol=1e-5
    )


def with_lora(name, **options):
    peft = pytest.importorskip("peft")
    model = copy.deepcopy(built(name))
    targets = ["q_proj", "v_proj", "fc1"]
    if name != "Siglip":  # whose head has an out_proj that is no layer of its own
        targets += ["visual_projection", "out_proj", "query", "value", "dense"]
    if name == "CLIP" and "lora_bias" in options:
        targets.remove("visual_projection")  # it has no bias to add to
    elif not options.get("use_dora"):
        targets.append("word_embeddings" if name == "ChineseCLIP" else "token_embedding")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wrapped = peft.get_peft_model(
            model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, **options)
        )
        for key, parameter in wrapped.named_parameters():
            if "lora_" in key:
                parameter.data = 0.3 * torch.randn_like(parameter)
    return wrapped.eval()


def test_adapters_of_other_kinds_are_explained_as_they_compute(pixels):
    peft = pytest.importorskip("peft")
    steps = {"init_r": 4, "target_r": 2, "total_step": 9, "tinit": 1, "tfinal": 1}
    adaptive = peft.AdaLoraConfig(target_modules=["q_proj"], **steps)
    scaling = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    without = open_image_tower(built("CLIP")).trace(pixels).embedding
    for config in (adaptive, scaling):
        model = peft.get_peft_model(copy.deepcopy(built("CLIP")), config).eval()
        for name, parameter in model.named_parameters():
            if "lora_" in name or "ia3_" in name:
                parameter.data = 0.3 * torch.randn_like(parameter)
        traced = (
            open_image_tower(model).trace(pixels).embedding
        )  # compared with the model's own pass here
        assert (traced - without).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CLIP", {"use_rslora": True}),
        ("CLIP", {"use_dora": True}),
        ("CLIP", {"lora_bias": True}),
        ("Siglip", {}),
        ("ChineseCLIP", {}),
    ],
)
def test_a_model_with_lora_is_explained_as_it_is_merged_or_not(name, options, pixels):
    model = with_lora(name, **options)
    merged = copy.deepcopy(model).merge_and_unload()
    sides = []
    for opened, inputs in ((open_image_tower, pixels), (open_text_tower, ids_of(name))):
        tower, without = opened(model), opened(built(name)).trace(inputs).embedding
        traced = tower.trace(inputs).embedding  # compared with the model's own pass here
        assert (traced - without).abs().amax(-1).min() > 1e-3
        direction = torch.randn(
            1, 1, tower.width, generator=torch.Generator().manual_seed(0)
        ).expand(2, 1, -1)
        maps = [grad_eclip(one, one.trace(inputs), direction) for one in (tower, opened(merged))]
        torch.testing.assert_close(*maps, atol=1e-5, rtol=1e-4)
        with model.disable_adapter():
            torch.testing.assert_close(tower.trace(inputs).embedding, without, atol=1e-5, rtol=0)
        sides.append((tower, inputs, traced))
    model.merge_adapter()
    for tower, inputs, traced in sides:
        torch.testing.assert_close(tower.trace(inputs).embedding, traced, atol=1e-5, rtol=0)


def test_models_with_other_parts_are_refused_by_name():
    siglip, (layer, norm, quantised) = (
        copy.deepcopy(built("Siglip")),
        (copy.deepcopy(built("CLIP")) for _ in range(3)),
    )
    siglip.vision_model.head = None
    first = quantised.vision_model.encoder.layers[0].mlp.fc1
    first.weight = nn.Parameter(first.weight.to(torch.int8), requires_grad=False)
    layer.vision_model.encoder.layers[1] = nn.Linear(64, 64)
    del norm.vision_model.encoder.layers[1].layer_norm2

    class Prompted(nn.Module):
        active_peft_config = type("PromptTuningConfig", (), {"is_prompt_learning": True})()

    Prompted.__module__ = "peft.peft_model"
    for model, message in (
        (quantised, r"mlp.fc1.weight are quantised \(Parameter, torch.int8\)"),
        (siglip, "SiglipModel without an attention pool"),
        (layer, "the image tower has a Linear, which has none of self_attn"),
        (norm, "the image tower of this CLIPModel lacks a part: 'CLIPEncoderLayer'"),
        (Prompted(), r"learned prompts \(PromptTuningConfig\); only LoRA adapters can be opened"),
    ):
        with pytest.raises(UnsupportedModel, match=message):
            open_image_tower(model)


def test_a_new_config_says_where_eot_is_and_an_old_one_means_the_largest_token():
    new = copy.deepcopy(built("CLIP"))
    new.text_model.config.eos_token_id = new.text_model.eos_token_id = 7
    ids = torch.tensor([[1, 9, 7, 119, 7, 7]])
    assert open_text_tower(built("CLIP")).ends(ids).tolist() == [3]
    assert open_text_tower(new).ends(ids).tolist() == [2]


def test_the_committed_table_says_who_reads_in_each_of_them():
    table = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    for name in NAMES:
        image, text = open_image_tower(built(name)), open_text_tower(built(name))
        order = "causal" if text.causal else "not causal"
        assert re.search(
            rf"\| `{name}Model`[^|]*\| {image.query_token} \| {order}, {text.query_token} \|", table
        ), name


@pytest.fixture(scope="module")
def blip() -> nn.Module:
    common = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    text = {
        **common,
        "encoder_hidden_size": 64,
        "vocab_size": 50,
        "max_position_embeddings": 16,
        "bos_token_id": 1,
    }
    vision = {**common, "image_size": 32, "patch_size": 8}
    config = transformers.BlipConfig(
        text_config=text, vision_config=vision, image_text_hidden_size=24
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stir(transformers.BlipForImageTextRetrieval(config))


def test_the_image_encoder_of_blip_is_traced_as_it_computes_at_any_size(blip, pixels):
    tower = open_image_tower(blip, 3)
    for inputs in (pixels, torch.randn(1, 3, 24, 56, generator=torch.Generator().manual_seed(1))):
        trace = tower.trace(inputs)
        with torch.no_grad():
            hidden = blip.vision_model(inputs, interpolate_pos_encoding=True).last_hidden_state[
                :, 0
            ]
        own = F.normalize(blip.vision_proj(hidden), dim=-1).detach()
        torch.testing.assert_close(trace.embedding, own, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            tower.forward_from(trace, 0, trace.tokens), own, atol=1e-5, rtol=0
        )


def test_the_similarity_that_is_explained_is_blips_own(blip, picture):
    preprocess = open_clip.image_transform(32, is_train=False)
    prompt = torch.tensor([[1, 5, 7, 2]])
    with torch.no_grad():
        own = blip(prompt, preprocess(picture)[None], use_itm_head=False).itm_score
        text = blip.text_proj(blip.text_encoder(prompt).last_hidden_state[:, 0])
    explainer = Explainer(Clip(blip, preprocess, None))
    explanation = explainer.explain(picture, text)
    assert explanation.similarity == pytest.approx(own[0].tolist(), abs=1e-5)
    assert explanation.image_maps.shape == (1, 4, 4) and (explanation.image_maps != 0).any()
    with pytest.raises(UnsupportedModel, match="the text tower is a BlipForImageTextRetrieval"):
        explainer.explain(picture, "a dog")
