"""transformers' CLIPs as towers: traced as they compute, by any attention, with adapters or not."""

import copy
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
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
from tests.test_explainer import state_of
from tests.tiny_transformers import NAMES, build_tiny, ids_of, with_processor
from tests.towers.test_architectures import close

tiny_model = cache(build_tiny)
tiny_clip = cache(with_processor)
PROMPTS = ["A red car, a café", "一只猫"]
HIDE_PADDING = ("ChineseCLIP", "AltCLIP")


def features(output):
    """transformers 4 returns a tensor, and 5 an output that holds it."""
    return output if torch.is_tensor(output) else output.pooler_output


def encode_image(model, pixels, **options):
    return F.normalize(features(model.get_image_features(pixel_values=pixels, **options)), dim=-1)


def encode_text(model, name, ids):
    mask = {}
    if name in HIDE_PADDING:  # as their processors send it
        mask["attention_mask"] = (ids != 0).long()
    return F.normalize(features(model.get_text_features(input_ids=ids, **mask)), dim=-1)


BY_ATTENTION = [(name, "sdpa") for name in NAMES] + [("CLIP", "eager")]


@pytest.mark.parametrize(("name", "attention"), BY_ATTENTION)
def test_traces_are_what_get_image_features_and_get_text_features_give(name, attention, pixels):
    model, ids = tiny_model(name, attention), ids_of(name)
    with torch.no_grad():
        image, text = encode_image(model, pixels), encode_text(model, name, ids)
    image_layers = (1,) if name == "Siglip" else (1, 3)  # it ends in a pool

    cases = [(open_image_tower, pixels, image, layers) for layers in image_layers]
    cases += [(open_text_tower, ids, text, layers) for layers in (1, 2, 3)]
    for opens, inputs, expected, layers in cases:
        assert (expected[0] - expected[1]).abs().max() > 1e-2, "the inputs must matter"
        tower = opens(model, layers)
        trace = tower.trace(inputs)
        close(trace.embedding, expected)
        close(tower.trace(inputs[1:]).embedding, expected[1:])
        close(tower.forward_from(trace, tower.first, trace.tokens), expected)

    # CLS, two words, SEP; SigLIP reads one token of padding as the end
    assert trace.valid_mask[1].sum() == (5 if name == "Siglip" else 4)


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_scores_are_the_papers_formula_on_the_models_own_attention(name, pixels):
    model, ids = copy.deepcopy(tiny_model(name)), ids_of(name)[:1]
    if model.config._attn_implementation == "eager":
        pytest.skip("this version of transformers gives this model no other attention")
    if name == "Siglip":  # its pool asks for its weights, and goes another way to have them
        pool = open_image_tower(model).vision.head.attention
        pool.forward = partial(pool.forward, need_weights=False)

    towers = [
        (open_image_tower(model), pixels[:1], lambda: encode_image(model, pixels[:1])),
        (open_text_tower(model, 2), ids, lambda: encode_text(model, name, ids)),
    ]
    for tower, inputs, encode in towers:
        generator = torch.Generator().manual_seed(1)
        direction = F.normalize(torch.randn(tower.width, generator=generator), dim=0)
        trace = tower.trace(inputs)
        maps = grad_eclip(tower, trace, direction[None, None])[0, 0]

        readers = trace.query_index[0].tolist() or [0]
        valid = trace.valid_mask[0]
        expected = plain.grad_eclip(encode, direction, tower.layers, readers, valid)
        largest = float(maps.abs().max())
        assert largest > 1e-3
        torch.testing.assert_close(maps, expected, atol=1e-4 * largest, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_similarity_that_is_explained_is_the_models_and_the_model_stays_as_it_was(
    name, picture
):
    model, processor = tiny_clip(name)
    before = state_of(model.train())
    explanation = Explainer(Clip.from_transformers(model, processor)).explain(picture, PROMPTS)
    assert state_of(model) == before

    model.eval()
    images = processor.image_processor(images=picture, return_tensors="pt")
    texts = processor.tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    inputs = {"input_ids": texts["input_ids"]}
    if name != "Siglip":
        inputs["attention_mask"] = texts["attention_mask"]
    with torch.no_grad():
        output = model(**images, **inputs)
    image, text = F.normalize(output.image_embeds, dim=-1), F.normalize(output.text_embeds, dim=-1)
    assert explanation.similarity == pytest.approx((image @ text.T)[0].numpy(), abs=1e-5)

    assert explanation.image_maps.shape[1:] == (4, 4)
    crops = name in ("CLIP", "MetaClip2", "AltCLIP")
    box = (15, 0, 65, 50) if crops else (0, 0, 80, 50)
    assert explanation.box == pytest.approx(box, abs=1)


@pytest.mark.parametrize("name", NAMES)
def test_words_are_those_that_were_written(name, picture):
    explanation = Explainer(Clip.from_transformers(*tiny_clip(name))).explain(picture, PROMPTS)
    english, chinese = ([word.text for word in words] for words in explanation.words)
    assert "".join(english).replace(" ", "") == "Aredcar,acafé"
    assert english[:2] == ["A", "red"]
    assert english[-1] == "café"
    assert "".join(chinese) == "一只猫"
    assert all(any(word.score for word in words) for words in explanation.words)


def test_words_end_at_an_eot_among_them_and_no_html_is_seen_in_them(picture):
    clip = Explainer(Clip.from_transformers(*tiny_clip("CLIP")))
    chinese = Explainer(Clip.from_transformers(*tiny_clip("ChineseCLIP")))
    with pytest.warns(ExplanationWarning, match="reads only 3 tokens of 'a cat"):
        explanation = clip.explain(picture, ["a cat <end> on a dog", *PROMPTS])
    assert [word.text for word in explanation.words[0]] == ["a", "cat"]
    words = chinese.explain(picture, "A &amp; car").words[0]
    assert [word.text for word in words] == ["A", "&", "amp", ";", "car"]


@pytest.mark.parametrize("name", NAMES)
def test_native_resolution_has_the_positions_that_transformers_would_give(name, picture):
    explainer = Explainer(Clip.from_transformers(*tiny_clip(name)), resolution="native")
    explanation = explainer.explain(picture, PROMPTS[0])
    assert explanation.image_maps.shape == (1, 6, 10)
    assert explanation.box == (0, 0, 80, 50)

    pixels = torch.randn(1, 3, 24, 56, generator=torch.Generator().manual_seed(1))
    trace = explainer.image_tower.trace(pixels)
    with torch.no_grad():
        expected = encode_image(explainer.clip.model, pixels, interpolate_pos_encoding=True)
    close(trace.embedding, expected)
    assert trace.grid == (3, 7)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_these_towers(method, picture):
    clip = Clip.from_transformers(*tiny_clip("ChineseCLIP"))
    words = method if METHODS[method].text is not None else None
    explainer = Explainer(clip, method=method, words=words)
    explanation = explainer.explain(picture, PROMPTS[0])
    if METHODS[method].image is not None:
        assert np.isfinite(explanation.image_maps).all()
        assert explanation.image_maps.any()
    assert any(explanation.words[0]) == (METHODS[method].text is not None)


# ------------------------------------------------------------------------------------ adapters


def with_adapter(name, config):
    """A tiny model in PEFT's wrapper, whose adapters are not zero."""
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = peft.get_peft_model(copy.deepcopy(tiny_model(name)), config)
        for key, parameter in model.named_parameters():
            if "lora_" in key or "ia3_" in key:
                parameter.data = 0.3 * torch.randn_like(parameter)
    return model.eval()


def lora(name, **options):
    peft = pytest.importorskip("peft")
    targets = ["q_proj", "v_proj", "fc1"]
    if name != "Siglip":  # its head has an out_proj that is no layer of its own
        targets += ["visual_projection", "out_proj", "query", "value", "dense"]
    if "lora_bias" in options:
        targets.remove("visual_projection")  # it has no bias to add to
    elif not options.get("use_dora"):
        targets.append("word_embeddings" if name == "ChineseCLIP" else "token_embedding")
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, **options)


def test_adapters_of_other_kinds_are_explained_as_they_compute(pixels):
    peft = pytest.importorskip("peft")
    steps = {"init_r": 4, "target_r": 2, "total_step": 9, "tinit": 1, "tfinal": 1}
    without = open_image_tower(tiny_model("CLIP")).trace(pixels).embedding
    for config in (
        peft.AdaLoraConfig(target_modules=["q_proj"], **steps),
        peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    ):
        tower = open_image_tower(with_adapter("CLIP", config))
        embedding = tower.trace(pixels).embedding  # compared with the model's own pass here
        assert (embedding - without).abs().max() > 1e-3


ADAPTED = [
    ("CLIP", {"use_rslora": True}),
    ("CLIP", {"use_dora": True}),
    ("CLIP", {"lora_bias": True}),
    ("Siglip", {}),
    ("ChineseCLIP", {}),
]


@pytest.mark.parametrize(("name", "options"), ADAPTED)
@pytest.mark.parametrize("opens", [open_image_tower, open_text_tower])
def test_a_model_with_lora_is_explained_as_it_is_merged_or_not(name, options, opens, pixels):
    model = with_adapter(name, lora(name, **options))
    inputs = pixels if opens is open_image_tower else ids_of(name)
    tower = opens(model)
    merged = opens(copy.deepcopy(model).merge_and_unload())
    without = opens(tiny_model(name)).trace(inputs).embedding

    trace = tower.trace(inputs)  # compared with the model's own pass here
    assert (trace.embedding - without).abs().amax(-1).min() > 1e-3
    direction = torch.randn(1, 1, tower.width, generator=torch.Generator().manual_seed(0))
    direction = direction.expand(2, 1, -1)
    maps = grad_eclip(tower, trace, direction)
    expected = grad_eclip(merged, merged.trace(inputs), direction)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)

    with model.disable_adapter():
        close(tower.trace(inputs).embedding, without)
    model.merge_adapter()
    close(tower.trace(inputs).embedding, trace.embedding)


# ------------------------------------------------------------------------------------ refusals


def quantised(model):
    layer = model.vision_model.encoder.layers[0].mlp.fc1
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)


def without_pool(model):
    model.vision_model.head = None


def with_another_layer(model):
    model.vision_model.encoder.layers[1] = nn.Linear(64, 64)


def without_a_norm(model):
    del model.vision_model.encoder.layers[1].layer_norm2


CHANGES = [
    ("CLIP", quantised, r"mlp.fc1.weight are quantised \(Parameter, torch.int8\)"),
    ("Siglip", without_pool, "the image tower of this SiglipModel lacks a part: 'NoneType'"),
    ("CLIP", with_another_layer, "the image tower of this CLIPModel lacks a part: 'Linear'"),
    ("CLIP", without_a_norm, "the image tower of this CLIPModel lacks a part: 'CLIPEncoderLayer'"),
]


@pytest.mark.parametrize(("name", "change", "message"), CHANGES)
def test_a_model_with_another_part_is_refused_by_the_name_of_the_part(name, change, message):
    model = copy.deepcopy(tiny_model(name))
    change(model)
    with pytest.raises(UnsupportedModel, match=message):
        open_image_tower(model)


def test_learned_prompts_are_refused():
    class Prompted(nn.Module):
        active_peft_config = type("PromptTuningConfig", (), {"is_prompt_learning": True})()

    Prompted.__module__ = "peft.peft_model"
    with pytest.raises(UnsupportedModel, match=r"learned prompts \(PromptTuningConfig\)"):
        unwrapped(Prompted())


def test_models_that_are_not_known_are_refused_by_their_class():
    class BlipForImageTextRetrieval(nn.Module):
        pass

    for opens, side in ((open_image_tower, "image"), (open_text_tower, "text")):
        with pytest.raises(UnsupportedModel, match=f"the {side} tower is a BlipForImageTextRetr"):
            opens(BlipForImageTextRetrieval())


def test_a_new_config_says_where_eot_is_and_an_old_one_means_the_largest_token():
    new = copy.deepcopy(tiny_model("CLIP"))
    new.text_model.config.eos_token_id = new.text_model.eos_token_id = 7
    ids = torch.tensor([[1, 9, 7, 119, 7, 7]])
    assert open_text_tower(tiny_model("CLIP")).ends(ids).tolist() == [3]
    assert open_text_tower(new).ends(ids).tolist() == [2]


def test_the_committed_table_says_which_token_reads_in_each_of_them():
    table = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    for name in NAMES:
        image, text = open_image_tower(tiny_model(name)), open_text_tower(tiny_model(name))
        order = "causal" if text.causal else "not causal"
        cells = rf"\| {image.query_token} \| {order}, {text.query_token} \|"
        assert re.search(rf"\| `{name}Model`[^|]*{cells}", table), name
