"""transformers' CLIPs as towers: traced as they compute, by any attention, with adapters or not."""

import copy
import re
from functools import cache, partial

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
from tests.conftest import ROOT
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
    output = model.get_image_features(pixel_values=pixels, **options)
    return F.normalize(features(output), dim=-1)


def encode_text(model, name, ids):
    mask = {}
    if name in HIDE_PADDING:  # as their processors send it
        mask["attention_mask"] = (ids != 0).long()
    output = model.get_text_features(input_ids=ids, **mask)
    return F.normalize(features(output), dim=-1)


def transformers_clip(name):
    model, processor = tiny_clip(name)
    return Clip.from_transformers(model, processor)


def texts_of(words):
    return [word.text for word in words]


BY_ATTENTION = [(name, "sdpa") for name in NAMES]
BY_ATTENTION += [("CLIP", "eager")]


@pytest.mark.parametrize(("name", "attention"), BY_ATTENTION)
def test_traces_are_what_get_image_features_and_get_text_features_give(name, attention, pixels):
    model = tiny_model(name, attention)
    ids = ids_of(name)
    with torch.no_grad():
        image = encode_image(model, pixels)
        text = encode_text(model, name, ids)
    image_layers = (1,) if name == "Siglip" else (1, 3)  # it ends in a pool

    cases = [(open_image_tower, pixels, image, layers) for layers in image_layers]
    cases += [(open_text_tower, ids, text, layers) for layers in (1, 2, 3)]
    for opens, inputs, expected, layers in cases:
        difference = expected[0] - expected[1]
        assert difference.abs().max() > 1e-2, "the inputs must matter"

        tower = opens(model, layers)
        trace = tower.trace(inputs)
        close(trace.embedding, expected)
        close(tower.forward_from(trace, tower.first, trace.tokens), expected)
        of_second = tower.trace(inputs[1:])
        close(of_second.embedding, expected[1:])

    # CLS, two words, SEP; SigLIP reads one token of padding as the end
    tokens_read = 5 if name == "Siglip" else 4
    assert trace.valid_mask[1].sum() == tokens_read


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_scores_are_the_papers_formula_on_the_models_own_attention(name, pixels):
    model = copy.deepcopy(tiny_model(name))
    ids = ids_of(name)[:1]
    image = pixels[:1]
    if model.config._attn_implementation == "eager":
        pytest.skip("this version of transformers gives this model no other attention")
    if name == "Siglip":  # its pool asks for its weights, and goes another way to have them
        pool = open_image_tower(model).vision.head.attention
        pool.forward = partial(pool.forward, need_weights=False)

    image_tower = open_image_tower(model)
    text_tower = open_text_tower(model, 2)
    cases = [
        (image_tower, image, lambda: encode_image(model, image)),
        (text_tower, ids, lambda: encode_text(model, name, ids)),
    ]
    for tower, inputs, encode in cases:
        generator = torch.Generator().manual_seed(1)
        direction = torch.randn(tower.width, generator=generator)
        direction = F.normalize(direction, dim=0)
        trace = tower.trace(inputs)
        maps = grad_eclip(tower, trace, direction[None, None])

        readers = trace.query_index[0].tolist() or [0]
        valid = trace.valid_mask[0]
        expected = plain.grad_eclip(encode, direction, tower.layers, readers, valid)
        largest = float(expected.abs().max())
        assert largest > 1e-3
        torch.testing.assert_close(maps[0, 0], expected, atol=1e-4 * largest, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_similarity_that_is_explained_is_the_models_and_the_model_stays_as_it_was(
    name, picture
):
    model, processor = tiny_clip(name)
    before = state_of(model.train())
    clip = Clip.from_transformers(model, processor)
    explanation = Explainer(clip).explain(picture, PROMPTS)
    assert state_of(model) == before

    model.eval()
    images = processor.image_processor(images=picture, return_tensors="pt")
    texts = processor.tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    inputs = {"input_ids": texts["input_ids"]}
    if name != "Siglip":
        inputs["attention_mask"] = texts["attention_mask"]
    with torch.no_grad():
        output = model(**images, **inputs)
    similarity = F.cosine_similarity(output.text_embeds, output.image_embeds)
    assert explanation.similarity == pytest.approx(similarity.numpy(), abs=1e-5)

    assert explanation.image_maps.shape[1:] == (4, 4)
    box = (0, 0, 80, 50)
    if name in ("CLIP", "MetaClip2", "AltCLIP"):  # they crop
        box = (15, 0, 65, 50)
    assert explanation.box == pytest.approx(box, abs=1)


@pytest.mark.parametrize("name", NAMES)
def test_words_are_those_that_were_written(name, picture):
    explanation = Explainer(transformers_clip(name)).explain(picture, PROMPTS)
    english, chinese = map(texts_of, explanation.words)
    first, second, *_, last = english
    assert (first, second, last) == ("A", "red", "café")
    assert "".join(english).replace(" ", "") == "Aredcar,acafé"
    assert "".join(chinese) == "一只猫"
    for words in explanation.words:
        assert any(word.score for word in words)


def test_words_end_at_an_eot_among_them_and_no_html_is_seen_in_them(picture):
    explainer = Explainer(transformers_clip("CLIP"))
    with pytest.warns(ExplanationWarning, match="reads only 3 tokens of 'a cat"):
        explanation = explainer.explain(picture, ["a cat <end> on a dog", *PROMPTS])
    assert texts_of(explanation.words[0]) == ["a", "cat"]

    chinese = Explainer(transformers_clip("ChineseCLIP"))
    explanation = chinese.explain(picture, "A &amp; car")
    assert texts_of(explanation.words[0]) == ["A", "&", "amp", ";", "car"]


@pytest.mark.parametrize("name", NAMES)
def test_native_resolution_has_the_positions_that_transformers_would_give(name, picture):
    explainer = Explainer(transformers_clip(name), resolution="native")
    explanation = explainer.explain(picture, PROMPTS[0])
    assert explanation.image_maps.shape == (1, 6, 10)
    assert explanation.box == (0, 0, 80, 50)

    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 24, 56, generator=generator)
    trace = explainer.image_tower.trace(pixels)
    with torch.no_grad():
        expected = encode_image(explainer.clip.model, pixels, interpolate_pos_encoding=True)
    close(trace.embedding, expected)
    assert trace.grid == (3, 7)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_these_towers(method, picture):
    explains_words = METHODS[method].text is not None
    explainer = Explainer(
        transformers_clip("ChineseCLIP"),
        method=method,
        words=method if explains_words else None,
    )
    explanation = explainer.explain(picture, PROMPTS[0])
    if METHODS[method].image is not None:
        assert np.isfinite(explanation.image_maps).all()
        assert explanation.image_maps.any()
    assert any(explanation.words[0]) == explains_words


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
    changes = (trace.embedding - without).abs().amax(dim=-1)
    assert changes.min() > 1e-3
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(1, 1, tower.width, generator=generator)
    direction = direction.expand(2, 1, -1)
    maps = grad_eclip(tower, trace, direction)
    expected = grad_eclip(merged, merged.trace(inputs), direction)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)

    with model.disable_adapter():
        close(tower.trace(inputs).embedding, without)
    model.merge_adapter()
    close(tower.trace(inputs).embedding, trace.embedding)


# ------------------------------------------------------------------------------------ refusals


def quantise(model):
    layer = model.vision_model.encoder.layers[0].mlp.fc1
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)


def replace_a_layer(model):
    model.vision_model.encoder.layers[1] = nn.Linear(64, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quantise, r"mlp.fc1.weight are quantised \(Parameter, torch.int8\)"),
        (replace_a_layer, "the image tower of this CLIPModel lacks a part: 'Linear'"),
    ],
)
def test_a_model_with_another_part_is_refused_by_the_name_of_the_part(change, message):
    model = copy.deepcopy(tiny_model("CLIP"))
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

    blip = BlipForImageTextRetrieval()
    with pytest.raises(UnsupportedModel, match="the image tower is a BlipForImageTextRetr"):
        open_image_tower(blip)
    with pytest.raises(UnsupportedModel, match="a BlipForImageTextRetr"):
        open_text_tower(blip)


def test_the_committed_table_says_which_token_reads_in_each_of_them():
    table = (ROOT / "docs" / "architectures.md").read_text()
    for name in NAMES:
        model = tiny_model(name)
        image = open_image_tower(model)
        text = open_text_tower(model)
        order = "causal" if text.causal else "not causal"
        cells = rf"\| {image.query_token} \| {order}, {text.query_token} \|"
        assert re.search(rf"\| `{name}Model`[^|]*{cells}", table), name
