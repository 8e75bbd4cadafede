"""Methods as their authors define them, derived a second time from the model's own modules.

Each test follows the paper's formula on a copy of an open_clip model, in plain torch.
"""

import copy
from typing import NamedTuple

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.methods.attention import game, legrad
from gradeclip_utils.methods.features import maskclip
from gradeclip_utils.methods.grad_eclip import (
    attention_gradient,
    channel_weights,
    spatial_weights,
)
from gradeclip_utils.methods.registry import METHODS
from gradeclip_utils.towers import open_image_tower, open_text_tower
from tests import plain
from tests.methods.helpers import close, directions, run

PROMPT = "a red car and a blue ball."
SIDES = pytest.mark.parametrize("side", ["image", "text"])


class Case(NamedTuple):
    """One input, the token that reads, and the tokens (N,) that a map covers."""

    inputs: torch.Tensor
    reader: int
    valid: torch.Tensor

    def on_valid(self, row):
        """A map (N,) that is zero at all other tokens."""
        return torch.where(self.valid, row[: len(self.valid)].detach(), 0)


def case_of(side, clip, pixels):
    if side == "image":
        return Case(pixels[:1], 0, torch.arange(17) > 0)
    ids = clip.tokenizer([PROMPT])
    end = int(ids[0].argmax())
    return Case(ids, end, torch.ones(end + 1, dtype=torch.bool))


def tower_of(side, model, layers):
    return (open_image_tower if side == "image" else open_text_tower)(model, layers)


# ------------------------------------------------------------------ Grad-ECLIP with one head


def one_headed_maps(model, side, case, target, layers):
    """A map (N,) for each of the last layers, which run again with one head."""
    model = copy.deepcopy(model)
    for block in plain.blocks_of(model, side)[-layers:]:
        block.attn.num_heads = 1
        block.attn.head_dim = block.attn.embed_dim
    return plain.grad_eclip_by_layer(
        lambda: plain.embed(model, side, case.inputs), target, layers, [case.reader], case.valid
    )


@pytest.mark.parametrize(("side", "layers"), [("image", 1), ("text", 1), ("text", 3)])
def test_grad_eclip_with_one_head_is_the_published_map(side, layers, tiny, pixels):
    """The published code adds the text layers before it cuts off what is negative."""
    case = case_of(side, tiny, pixels)
    target = directions(1, 1)
    expected = sum(one_headed_maps(tiny.model, side, case, target[0, 0], layers))

    tower = tower_of(side, tiny.model, layers)
    method = getattr(METHODS["grad-eclip-single-head"], side)
    maps = method(tower, tower.trace(case.inputs), target)
    close(maps[0, 0].relu(), expected.relu())


def test_the_positive_part_of_each_image_layer_adds_up_to_the_published_map(tiny, pixels):
    """Our maps are signed sums over layers; the published code adds positive parts."""
    case = case_of("image", tiny, pixels)
    target = directions(1, 1)
    layer_maps = one_headed_maps(tiny.model, "image", case, target[0, 0], 3)

    tower = open_image_tower(tiny.model, 3)
    trace = tower.with_one_head(tower.trace(case.inputs))
    weights = channel_weights(tower, trace, target)
    positive = torch.zeros(17)
    for position, layer in enumerate(trace.layers):
        lam = spatial_weights(layer, trace.valid_mask)
        relevance = lam * attention_gradient(weights[:, 0, position], layer.v)
        positive += relevance.sum(dim=(1, 2))[0].relu()
    close(positive, sum(layer_map.relu() for layer_map in layer_maps))

    signed = METHODS["grad-eclip-single-head"].image(tower, tower.trace(case.inputs), target)[0, 0]
    close(signed, sum(layer_maps))


# ------------------------------------------------------------------------- attention and GAME


@SIDES
def test_raw_attention_is_the_reading_row_of_the_last_layer(side, tiny, pixels):
    case = case_of(side, tiny, pixels)
    recording = plain.Recording(tiny.model, side, case.inputs)
    expected = recording.alphas[-1][0].mean(dim=0)[case.reader]
    maps = run("attention", side, tiny.model, case.inputs, directions(1, 2))
    close(maps[0, 1], case.on_valid(expected))


@SIDES
def test_rollout_is_the_reading_row_of_the_product_over_all_layers(side, tiny, pixels):
    case = case_of(side, tiny, pixels)
    recording = plain.Recording(tiny.model, side, case.inputs)
    identity = torch.eye(recording.alphas[0].shape[-1])
    product = identity
    for alpha in recording.alphas:
        product = (alpha[0].mean(dim=0) + identity) / 2 @ product

    row = run("rollout", side, tiny.model, case.inputs, directions(1, 1))[0, 0]
    close(row, case.on_valid(product[case.reader]))
    on_cls = product[0, 0] if side == "image" else 0  # rows of the product sum to one
    assert abs(1 - row.sum() - on_cls) < 1e-5


@SIDES
@pytest.mark.parametrize("layers", [1, 3])
def test_game_is_the_reading_row_of_the_relevance_matrix(side, layers, tiny, pixels):
    """Through all layers, or through the last alone, as GAME's authors explain CLIP."""
    case = case_of(side, tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, side, case.inputs)
    alphas = recording.alphas[-layers:]
    identity = torch.eye(alphas[0].shape[-1])

    tower = tower_of(side, tiny.model, layers)
    maps = game(tower, tower.trace(case.inputs), target)[0]
    for t in range(2):
        score = recording.embedding[0] @ target[0, t]
        slopes = torch.autograd.grad(score, alphas, retain_graph=True)
        relevance = identity
        for alpha, slope in zip(alphas, slopes, strict=True):
            relevance = relevance + (alpha * slope)[0].clamp_min(0).mean(dim=0) @ relevance
        close(maps[t], case.on_valid((relevance - identity)[case.reader]))


# ----------------------------------------------------------------------- LeGrad and Grad-CAM


def test_legrad_is_the_positive_gradient_of_each_layers_own_score(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, "image", case.inputs)
    expected = torch.zeros(2, 17)
    for layer in (1, 2):
        average = recording.leaving[layer].mean(dim=1)
        for t in range(2):
            score = recording.read(average)[0] @ target[0, t]
            (slope,) = torch.autograd.grad(score, recording.alphas[layer], retain_graph=True)
            expected[t] += slope[0].clamp_min(0).mean(dim=(0, 1)) / 2

    tower = open_image_tower(tiny.model, 2)
    maps = legrad(tower, tower.trace(case.inputs), target)[0]
    for t in range(2):
        close(maps[t], case.on_valid(expected[t]))


def test_grad_cam_weighs_channels_by_their_mean_gradient_over_the_patches(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, "image", case.inputs)
    tokens = recording.entering[-1]
    (slope,) = torch.autograd.grad(recording.embedding[0] @ target[0, 1], tokens)
    expected = (tokens[0] * slope[0, 1:].mean(dim=0)).sum(dim=-1)
    maps = run("grad-cam", "image", tiny.model, case.inputs, target)
    close(maps[0, 1], case.on_valid(expected))


# ------------------------------------------------------------------ MaskCLIP and CLIP Surgery


@pytest.mark.parametrize("layers", [1, 2])
def test_maskclip_is_the_last_block_with_the_identity_for_attention(layers, tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)

    def attend_to_itself(block, alpha):
        return alpha if block < 2 else torch.eye(alpha.shape[-1]).expand_as(alpha)

    recording = plain.Recording(tiny.model, "image", case.inputs, attend_to_itself)
    expected = recording.read(recording.leaving[-1][0]) @ target[0, 1]
    tower = open_image_tower(tiny.model, layers)
    close(maskclip(tower, tower.trace(case.inputs), target)[0, 1], case.on_valid(expected))


def surgery_features(model, pixels, first):
    """Unit features (N, E) of the v-v path, which starts at block ``first``, and the embedding."""
    recording = plain.Recording(model, "image", pixels)
    path = recording.entering[first][0]
    for tokens, block in zip(recording.entering[first:], recording.blocks[first:], strict=True):
        width = path.shape[-1]
        heads = block.attn.num_heads
        weight = block.attn.in_proj_weight[2 * width :]
        bias = block.attn.in_proj_bias[2 * width :]

        v = block.ln_1(tokens[0]) @ weight.T + bias
        v = v.reshape(-1, heads, width // heads).transpose(0, 1)  # (H, N, C)
        alpha = (v @ v.transpose(1, 2) * (width // heads) ** -0.5).softmax(dim=-1)
        o = (alpha @ v).transpose(0, 1).reshape(-1, width)
        path = path + o @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    return recording.read(path).detach(), recording.embedding[0].detach()


def test_clip_surgery_with_one_prompt_subtracts_the_empty_prompt(tiny, picture):
    explanation = Explainer(tiny, method="clip-surgery").explain(picture, "a dog")
    with torch.no_grad():
        ids = tiny.tokenizer(["a dog", ""])
        prompt, empty = tiny.model.encode_text(ids, normalize=True)
    features, _ = surgery_features(tiny.model, tiny.preprocess(picture)[None], first=1)
    expected = features[1:] @ (prompt - empty)
    np.testing.assert_allclose(explanation.image_maps[0].ravel(), expected, atol=1e-6)


def test_clip_surgery_with_several_prompts_subtracts_what_they_share(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 3)
    features, embedding = surgery_features(tiny.model, case.inputs, first=1)
    chances = torch.softmax(2 * target[0] @ embedding, dim=0)
    products = features[:, None] * target[0] * (chances / chances.mean())[:, None]  # (N, T, E)
    expected = (products - products.mean(dim=1, keepdim=True)).sum(dim=-1)

    maps = run("clip-surgery", "image", tiny.model, case.inputs, target)[0]
    for t in range(3):
        close(maps[t], case.on_valid(expected[:, t]))
