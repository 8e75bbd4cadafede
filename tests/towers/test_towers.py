"""Towers: the trace is the model, and models that cannot be opened are refused by name."""

import open_clip
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from gradeclip_utils import Clip, Explainer, UnsupportedModel
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods import METHODS
from gradeclip_utils.towers import (
    REGISTERED,
    Tower,
    open_image_tower,
    open_text_tower,
    register_tower,
)
from gradeclip_utils.towers.blocks import Block
from tests import plain
from tests.conftest import build
from tests.shrinking import stir
from tests.towers.test_architectures import close, coherent

OPENS = {"image": open_image_tower, "text": open_text_tower}


def traced(model, side, inputs, **options):
    """The trace is the model's own pass, and holds together."""
    tower = OPENS[side](model, **options)
    trace = tower.trace(inputs)
    expected = plain.embed(model, side, inputs).detach()
    close(trace.embedding, expected)
    coherent(tower, trace)


VARIANTS = {  # beside those that open_clip registers
    "CLS": {},
    "LayerScale": {"vision": {"ls_init_value": 0.5}, "text": {"ls_init_value": 0.5}},
    "no norm before the blocks": {"vision": {"no_ln_pre": True}},
    "average, norm before": {"vision": {"pool_type": "avg"}},
    "sine positions": {"vision": {"pos_embed_type": "sin_cos_2d"}},
    "a custom block without extras": {"vision": {"block_type": "custom"}},
    "a norm within the MLP": {"custom_text": True, "text": {"scale_fc": True}},
    "no text projection": {"text": {"proj_type": "none"}, "embed_dim": 64},
    "eos pooling": {"text": {"pool_type": "eos", "eos_id": 49407}},
    "not causal": {"custom_text": True, "text": {"no_causal_mask": True}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_traces_equal_the_plain_forward_pass(variant, pixels):
    model = build(**VARIANTS[variant])
    context_length = getattr(model, "text", model).context_length
    tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    too_long = "a word more than the context can hold " * 20
    ids = tokenizer(["a red car and a blue ball", "a dog", "", too_long])
    for layers in (1, 2, 3):
        traced(model, "image", pixels, layers=layers)
        traced(model, "text", ids, layers=layers)


def test_blocks_with_the_batch_second_are_traced_as_they_compute(pixels, ids):
    model = build()
    for transformer in (model.visual.transformer, model.transformer):
        transformer.batch_first = False
        for block in transformer.resblocks:
            block.attn.batch_first = False
    traced(model, "image", pixels)
    traced(model, "text", ids)


def test_matrices_in_half_precision_are_traced_to_it_and_explained_in_float32(pixels, ids):
    model = build(cast_dtype=torch.float16)
    open_clip.convert_weights_to_lp(model, torch.float16)  # norms stay in float32
    largest_error = torch.finfo(torch.float16).eps
    for tower, inputs in ((open_image_tower(model), pixels), (open_text_tower(model), ids)):
        trace = tower.trace(inputs)
        assert trace.embedding.dtype == torch.float32
        assert trace.layers[0].o.dtype == torch.float32
        close(trace.embedding, tower.forward(inputs), largest_error)


def test_padding_after_eot_is_neither_real_nor_attended(tiny, ids):
    trace = open_text_tower(tiny.model).trace(ids)
    assert trace.valid_mask.sum(-1).tolist() == [9, 4]  # SOT, pieces, EOT
    assert trace.tokens.shape[1] == 9  # cropped after the last EOT of the batch
    is_padding = ~trace.valid_mask[:, None, None]
    for layer in trace.layers:
        assert layer.attention.masked_select(is_padding).eq(0).all()


def test_another_grid_gets_the_positions_that_open_clip_would_give_it(pixels):
    small = build()
    large = build({"image_size": (32, 56)})
    state = small.state_dict()
    open_clip.model.resize_pos_embed(state, large)  # as open_clip does when a checkpoint is loaded
    large.load_state_dict(state)

    wide = F.interpolate(pixels, (32, 56))
    trace = open_image_tower(small).trace(wide)
    assert trace.grid == (4, 7)
    close(trace.embedding, plain.embed(large, "image", wide))


def quantise(block):
    block.mlp.c_fc = torch.ao.nn.quantized.dynamic.Linear(64, 256)


BROKEN = {
    "a block in half precision": (nn.Module.half, "fails in its forward"),
    "no attention": (
        lambda block: setattr(block, "attn", nn.Identity()),
        "lacks a part: .*num_heads",
    ),
    "quantised dynamically": (quantise, "are quantised .*: load the model unquantised"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_model_that_is_broken_is_refused_in_a_sentence(broken, pixels):
    model = build()
    change, message = BROKEN[broken]
    change(model.visual.transformer.resblocks[1])
    with pytest.raises(UnsupportedModel, match=message):
        open_image_tower(model).trace(pixels)


def test_a_compiled_encoder_is_opened_as_the_one_inside(pixels):
    model = build()
    expected = open_image_tower(model).trace(pixels).embedding
    model.visual = torch.compile(model.visual, backend="eager")
    close(open_image_tower(model).trace(pixels).embedding, expected)


def test_nan_weights_are_refused_by_their_name(pixels, ids):
    model = build()
    mlp = model.visual.transformer.resblocks[1].mlp
    mlp.c_fc.weight.data[0, 0] = torch.nan
    message = r"its weight 'visual.transformer.resblocks.1.mlp.c_fc.weight' holds NaN"
    with pytest.raises(GradeclipError, match=message):
        open_image_tower(model).trace(pixels)
    assert open_text_tower(model).trace(ids).embedding.isfinite().all()


def test_layers_that_do_not_exist_are_refused():
    model = build()
    for layers in (0, 4):
        for side, opens in OPENS.items():
            with pytest.raises(GradeclipError, match=f"{side}_layers must be"):
                opens(model, layers)


def test_two_thirds_of_a_text_encoders_layers_are_explained():
    for depth, layers in ((3, 2), (12, 8)):
        model = build(text={"layers": depth})
        assert open_text_tower(model).layers == layers


@pytest.mark.parametrize(
    ("side", "config", "message"),
    [
        ("image", {"attentional_pool": "parallel"}, r"two attention pools \(parallel\)"),
        ("image", {"qk_norm": True}, "CustomResidualAttentionBlock with attn.ln_q.weight"),
        ("image", {"pool_type": "none"}, "pools by 'none'"),
        ("text", {"pool_type": "none"}, "pools by 'none'"),
        (
            "text",
            {"scaled_cosine_attn": True},
            "CustomResidualAttentionBlock with attn.logit_scale",
        ),
    ],
)
def test_towers_that_cannot_be_opened_are_refused_by_name(side, config, message):
    configs = {"image": {"vision": config}, "text": {"text": config, "custom_text": True}}
    model = build(**configs[side])
    with pytest.raises(UnsupportedModel, match=message):
        OPENS[side](model)


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """Images of 36 pixels in patches of 8: the last four pixels are not read."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {
            "img_size": 36,
            "patch_size": 8,
            "embed_dim": 64,
            "depth": 3,
            "num_heads": 4,
            "num_classes": 7,
        }
        return stir(timm.create_model("vit_tiny_patch16_224", **options))


def test_a_classifier_is_explained_by_its_logits_on_the_pixels_that_it_reads(classifier, picture):
    preprocess = open_clip.image_transform(36, is_train=False)
    explainer = Explainer(Clip(classifier, preprocess, None))
    image = picture.resize((72, 72))
    classes = torch.eye(7)[[2, 5]]
    explanation = explainer.explain(image, classes)
    with torch.no_grad():
        (logits,) = classifier(preprocess(image)[None])
    expected = classes @ logits
    assert abs(logits.norm() - 1) > 0.1, "logits must not be of unit length"
    assert explanation.similarity == pytest.approx(expected.tolist(), abs=1e-5)

    assert explanation.image_maps.shape == (2, 4, 4)
    assert explanation.box == (0, 0, 64, 64)
    heat = explanation.heatmap(0, signed=True)
    assert heat[:64, :64].any()
    heat[:64, :64] = 0
    assert not heat.any()

    contrast = explainer.explain(image, classes[:1], against=classes[1:])
    second, fifth = explanation.image_maps
    assert contrast.image_maps[0] == pytest.approx(second - fifth, abs=1e-5)


def test_integrated_gradients_of_a_classifier_add_up_to_its_logit(classifier):
    tower = open_image_tower(classifier)
    pixels = torch.randn(1, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    first_class = torch.eye(7)[None, :1]  # (B, T, E)
    method = METHODS["integrated-gradients"]
    with torch.no_grad():
        logits = classifier(pixels) - classifier(0 * pixels)
        maps = method.image(tower, tower.trace(pixels), first_class)
    torch.testing.assert_close(maps.sum(), logits[0, 0])


class Linear(nn.Module):
    """An encoder that the package does not know: patches, of which the first reads them all."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.out = nn.Linear(16, 48)

    def encode_image(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        similarity = x[:, :1] @ x.transpose(1, 2)
        alpha = torch.softmax(similarity / 4, dim=-1)
        return self.out(alpha @ x)[:, 0]


class LinearTower(Tower):
    name = "image"
    kind = "Linear"
    query_token = "the first patch"
    width = 48
    image_size = (32, 32)
    patch_size = (8, 8)

    def __init__(self, model, layers):
        block = Block(model, 1, lambda x, positions: (x, x, x), out=(), pools=True)
        super().__init__(model, model, [block], layers, model.encode_image)

    def _enter(self, pixels):
        x = self.model.patches(pixels).flatten(2).transpose(1, 2)
        return self.image_entry(pixels, x, (4, 4))

    def _embed(self, x, entry):
        return self.model.out(x)[:, 0]


class WrongTower(LinearTower):
    def _embed(self, x, entry):
        return self.model.out(2 * x + 1)[:, 0]


def is_linear(model):
    return isinstance(model, Linear)


@pytest.fixture
def linear():
    register_tower("linear", "image", is_linear, LinearTower)
    yield Linear().eval()
    for name in ("linear", "later", "prompts"):
        REGISTERED.pop(name, None)


def test_a_family_of_your_own_is_opened_and_explained_like_others(linear, tiny, picture):
    directions = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
    clip = Clip(linear, tiny.preprocess, None)
    explanation = Explainer(clip).explain(picture, directions)
    pixels = tiny.preprocess(picture)[None]
    with torch.no_grad():
        image_embedding = linear.encode_image(pixels)
    expected = F.cosine_similarity(directions, image_embedding)
    torch.testing.assert_close(torch.tensor(explanation.similarity), expected)
    assert explanation.image_maps.shape == (2, 4, 4)
    assert explanation.image_maps.any()
    assert open_image_tower(tiny.model).kind == "VisionTransformer", "others are opened as before"

    register_tower("later", "image", is_linear, WrongTower)
    message = "the image encoder of this Linear does not compute what its"
    with pytest.raises(UnsupportedModel, match=message):
        Explainer(clip).explain(picture, torch.ones(1, 48))
    register_tower("prompts", "text", is_linear, lambda model, layers: layers)
    assert open_text_tower(linear, 2) == 2


def test_a_family_whose_name_is_taken_or_whose_side_is_unknown_is_not_registered(linear):
    with pytest.raises(GradeclipError, match="there is a family of towers 'linear'"):
        register_tower("linear", "text", callable, LinearTower)
    with pytest.raises(GradeclipError, match="side must be 'image' or 'text', got 'audio'"):
        register_tower("other", "audio", callable, LinearTower)
    assert list(REGISTERED)[-1] == "linear"
