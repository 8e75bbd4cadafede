"""Families beyond open_clip's registry: each is one tower, and everything behind the tower is the same."""

import copy

import open_clip
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from gradeclip_utils import Clip, Explainer, UnsupportedModel
from gradeclip_utils.methods import METHODS
from gradeclip_utils.methods.grad_eclip import attention_gradient, channel_weights
from gradeclip_utils.methods.perturbation import means_over_patches
from gradeclip_utils.towers import (
    REGISTERED,
    Entry,
    Tower,
    open_feature_map,
    open_image_tower,
    open_text_tower,
    register_tower,
)
from gradeclip_utils.towers.base import places
from gradeclip_utils.towers.blocks import Block
from gradeclip_utils.towers.open_clip import VisionTower
from tests.conftest import TINY_TEXT, TINY_VISION, build, wrap
from tests.shrinking import attention_changed, stir

# --- open_clip's own attention module, which takes the place of torch's on its main branch ----------------------


class OwnAttention(nn.Module):
    """Attention with the parameters of torch's MultiheadAttention, and none of its code."""

    def __init__(self, old: nn.MultiheadAttention):
        super().__init__()
        self.num_heads, self.head_dim = old.num_heads, old.head_dim
        self.in_proj_weight, self.in_proj_bias = old.in_proj_weight, old.in_proj_bias
        self.out_proj = nn.Linear(old.embed_dim, old.embed_dim)
        self.out_proj.load_state_dict(old.out_proj.state_dict())
        self.q_norm = nn.Identity()

    def forward(self, q, k=None, v=None, need_weights=False, attn_mask=None):
        q, k, v = F.linear(q, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return (self.out_proj(o.transpose(1, 2).flatten(2)),)


def with_own_attention(model):
    changed = copy.deepcopy(model)
    for transformer in (changed.visual.transformer, changed.transformer):
        for block in transformer.resblocks:
            block.attn = OwnAttention(block.attn)
    return changed


def test_a_block_with_an_own_attention_module_is_accepted_by_its_structure(tiny, pixels, ids):
    model = with_own_attention(tiny.model)
    for door, inputs in ((open_image_tower, pixels), (open_text_tower, ids)):
        found, expected = door(model).trace(inputs), door(tiny.model).trace(inputs)
        torch.testing.assert_close(found.embedding, expected.embedding, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.layers[-1].attention, expected.layers[-1].attention, atol=1e-6, rtol=0)


@pytest.mark.parametrize("extra", ["q_norm", "head_scale"])
def test_an_own_attention_module_that_computes_more_is_refused_by_the_name_of_its_weight(extra, tiny):
    model = with_own_attention(tiny.model)
    attn = model.visual.transformer.resblocks[1].attn
    setattr(attn, extra, nn.LayerNorm(16) if extra == "q_norm" else nn.Parameter(torch.ones(4)))
    with pytest.raises(UnsupportedModel, match=f"the image tower has a ResidualAttentionBlock with attn.{extra}"):
        open_image_tower(model)


def test_a_custom_block_without_its_extras_is_an_ordinary_block(pixels):
    model = build({"block_type": "custom"})
    tower = open_image_tower(model, 2)
    torch.testing.assert_close(tower.trace(pixels).embedding, tower.forward(pixels), atol=1e-5, rtol=0)


# --- from picture and prompt to words, through every kind of tower ----------------------------------------------


def coca():
    text = {**TINY_TEXT, "embed_cls": True, "output_tokens": True}
    vision = {**TINY_VISION, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stir(open_clip.CoCa(48, {**TINY_TEXT, "attn_pooler_heads": 4}, text, vision))


def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stir(build({"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64}))


MODELS = {
    "CoCa": coca,
    "ResNet": resnet,
    "not causal": lambda: build(text={"no_causal_mask": True}, custom_text=True),
    "not causal, last token": lambda: build(text={"no_causal_mask": True, "pool_type": "last"}, custom_text=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_pictures_and_words_are_explained_through_every_kind_of_tower(name, picture):
    model = MODELS[name]()
    size = 64 if name == "ResNet" else 32
    clip = wrap(model, size)
    prompts = ["a red car and a ball", "unbelievable!"]
    explanation = Explainer(clip).explain(picture, prompts)
    with torch.no_grad():
        image = F.normalize(model.encode_image(clip.preprocess(picture)[None]), dim=-1)
        text = F.normalize(model.encode_text(clip.tokenizer(prompts)), dim=-1)
    assert explanation.similarity == pytest.approx((text @ image[0]).tolist(), abs=1e-5)
    assert [[word.text for word in words] for words in explanation.words] == [prompts[0].split(), ["unbelievable", "!"]]
    assert all(any(word.score for word in words) for words in explanation.words)
    assert explanation.image_maps.shape == (2, *((2, 2) if size == 64 else (4, 4))) and explanation.image_maps.any()


# --- a plain ViT classifier: the target is a logit, its direction is one-hot ------------------------------------


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4, "num_classes": 7}
        return stir(timm.create_model("vit_tiny_patch16_224", **options))


def test_a_classifier_is_explained_by_its_logits(classifier, picture):
    preprocess = open_clip.image_transform(32, is_train=False)
    explanation = Explainer(Clip(classifier, preprocess, None)).explain(picture, torch.eye(7)[[2, 5]])
    with torch.no_grad():
        logits = classifier(preprocess(picture)[None])[0]
    assert abs(float(logits.abs().max()) - 1) > 0.1, "logits must not be of unit length"
    assert explanation.similarity == pytest.approx(logits[[2, 5]].tolist(), abs=1e-5)
    assert explanation.image_maps.shape == (2, 4, 4) and (explanation.image_maps != 0).any()
    rather = Explainer(Clip(classifier, preprocess, None)).explain(picture, torch.eye(7)[[2]], torch.eye(7)[[5]])
    assert rather.image_maps[0] == pytest.approx(explanation.image_maps[0] - explanation.image_maps[1], abs=1e-5)


def test_weighted_values_of_a_classifier_are_the_derivative_of_the_logit(classifier, pixels):
    model = copy.deepcopy(classifier).double()
    tower, inputs = open_image_tower(model), pixels[:1].double()
    trace = tower.trace(inputs)
    weights = channel_weights(tower, trace, torch.eye(7, dtype=torch.float64)[None, 3:4])[:, 0, 0]
    slopes = attention_gradient(weights, trace.layers[0].v).sum(1)[0, 0]  # (N,)
    for token in (0, 1, 9):
        scores = []
        for amount in (1e-4, -1e-4):
            with attention_changed(2, 0, token, amount):
                scores.append(model(inputs)[0, 3])
        torch.testing.assert_close(slopes[token], (scores[0] - scores[1]) / 2e-4, rtol=1e-5, atol=1e-9)


@pytest.fixture(scope="module")
def remainder() -> Clip:
    """Images of 36 pixels in patches of 8: the last four pixels are not read, as six of SigLIP's 384 by 14."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"img_size": 36, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 7}
        return Clip(
            stir(timm.create_model("vit_tiny_patch16_224", **options)), open_clip.image_transform(36, False), None
        )


def test_a_map_ends_with_the_last_whole_patch(remainder, picture):
    explanation = Explainer(remainder).explain(picture.resize((72, 72)), torch.eye(7)[:1])
    assert explanation.image_maps.shape == (1, 4, 4) and explanation.box == (0, 0, 64, 64)
    heat = explanation.heatmap(0, signed=True)
    assert not heat[64:].any() and not heat[:, 64:].any() and heat[:64, :64].any()


def test_pixels_that_no_patch_holds_are_in_no_map(remainder):
    model, tower = remainder.model, open_image_tower(remainder.model)
    pixels = torch.randn(1, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    trace, logit = tower.trace(pixels), torch.eye(7)[None, :1]
    with torch.no_grad():
        total = (model(pixels) - model(0 * pixels))[0, 0]
        torch.testing.assert_close(METHODS["integrated-gradients"].image(tower, trace, logit).sum(), total)
        apart = F.conv2d(pixels[:, :1], torch.ones(1, 1, 8, 8) / 64, stride=8)[0].flatten(1)
    torch.testing.assert_close(means_over_patches(tower, trace, pixels[0, :1]), apart)


def test_a_classifier_without_attention_keeps_its_feature_map(pixels):
    model = timm.create_model("convnext_atto", num_classes=7).eval()
    with pytest.raises(UnsupportedModel, match="a timm ConvNeXt"):
        open_image_tower(model)
    tower = open_feature_map(model)
    trace = tower.trace(F.interpolate(pixels, 64))
    assert trace.grid == (2, 2) and trace.embedding.shape == (2, 7)
    torch.testing.assert_close(trace.embedding, model(F.interpolate(pixels, 64)).detach(), atol=1e-5, rtol=0)


# --- a family of your own -----------------------------------------------------------------------------------------


class Linear(nn.Module):
    """An encoder that nobody here knows: patches, and one attention whose query is the first of them."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.out = nn.Linear(16, 48)

    def encode_image(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        alpha = (x[:, :1] @ x.transpose(1, 2) / 4).softmax(-1)
        return self.out(alpha @ x)[:, 0]


class LinearTower(Tower):
    name, kind, query_token, width, image_size, patch_size = "image", "Linear", "the first patch", 48, (32, 32), (8, 8)

    def __init__(self, model, layers):
        # a patch asks with itself, is answered with the others as they are, and nothing follows
        block = Block(model, 1, lambda x, part, positions: x, lambda o: o, pools=True)
        super().__init__(model, model, [block], layers, model.encode_image)

    def _enter(self, pixels):
        x = self.model.patches(pixels).flatten(2).transpose(1, 2)
        query_index, valid_mask = places(x, [0], 0)
        return Entry(pixels, x, query_index, valid_mask, 1, (4, 4))

    def _embed(self, x):
        return self.model.out(x)[:, 0]


@pytest.fixture
def linear():
    register_tower("linear", "image", lambda model: isinstance(model, Linear), LinearTower)
    yield
    del REGISTERED["linear"]


def test_a_family_of_your_own_is_opened_and_explained_like_others(linear, tiny, picture):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Linear().eval()
    explainer = Explainer(Clip(model, tiny.preprocess, None))
    directions = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
    found = explainer.explain(picture, directions)
    with torch.no_grad():
        image = F.normalize(model.encode_image(tiny.preprocess(picture)[None]), dim=-1)
    torch.testing.assert_close(torch.tensor(found.similarity), (image @ F.normalize(directions, dim=-1).T)[0])
    assert found.image_maps.shape == (2, 4, 4) and found.image_maps.any()
    assert isinstance(open_image_tower(tiny.model), VisionTower), "others are opened as before"


def test_a_family_of_a_name_that_is_taken_or_of_no_side_is_refused(linear):
    with pytest.raises(ValueError, match="there is a family of towers 'linear': choose another name"):
        register_tower("linear", "text", lambda model: True, LinearTower)
    with pytest.raises(ValueError, match="side must be 'image' or 'text', got 'audio'"):
        register_tower("other", "audio", lambda model: True, LinearTower)


def test_what_was_registered_last_is_asked_first_and_can_be_taken_out(linear, tiny):
    register_tower("later", "image", lambda model: isinstance(model, Linear), lambda model, layers: "later")
    assert open_image_tower(Linear()) == "later"
    del REGISTERED["later"]
    assert isinstance(open_image_tower(Linear()), LinearTower)
    register_tower("prompts", "text", lambda model: isinstance(model, Linear), lambda model, layers: layers)
    assert open_text_tower(Linear(), 2) == 2 and open_text_tower(Linear()) is None
    del REGISTERED["prompts"]
    with pytest.raises(UnsupportedModel):
        open_text_tower(Linear())


def test_a_family_that_is_opened_wrongly_is_refused_at_its_first_trace(tiny, picture):
    class Wrong(LinearTower):
        def _embed(self, x):
            return self.model.out(2 * x + 1)[:, 0]

    register_tower("wrong", "image", lambda model: isinstance(model, Linear), Wrong)
    try:
        explainer = Explainer(Clip(Linear().eval(), tiny.preprocess, None))
        with pytest.raises(UnsupportedModel, match=r"the image encoder of this Linear computes something else than"):
            explainer.explain(picture, torch.ones(1, 48))
    finally:
        del REGISTERED["wrong"]
