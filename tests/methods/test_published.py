"""Methods as their authors define them, derived a second time from the model's own modules.

Each test follows the paper's formula on a copy of an open_clip model, in plain torch.
"""

import copy
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.methods.attention import game, legrad
from gradeclip_utils.methods.features import maskclip
from gradeclip_utils.methods.registry import METHODS
from gradeclip_utils.towers import open_image_tower
from tests import plain
from tests.methods.helpers import close, directions, run, tower_of

PROMPT = "a red car and a blue ball."
SIDES = pytest.mark.parametrize("side", ["image", "text"])


class Case(NamedTuple):
    """One input, the token that reads, and the tokens (N,) that a map covers."""

    inputs: torch.Tensor
    reader: int
    valid: torch.Tensor

    def check(self, row, expected):
        """A map (N,) is as expected, and zero at all other tokens."""
        expected = expected[: len(self.valid)].detach()
        close(row, expected.where(self.valid, 0))


def case_of(side, clip, pixels):
    if side == "image":
        return Case(pixels[:1], 0, torch.arange(17) > 0)
    ids = clip.tokenizer([PROMPT])
    end = int(ids[0].argmax())
    return Case(ids, end, torch.ones(end + 1, dtype=torch.bool))


# ------------------------------------------------------------------ Grad-ECLIP with one head


@pytest.mark.parametrize(("side", "layers"), [("image", 1), ("image", 3), ("text", 1), ("text", 3)])
def test_grad_eclip_with_one_head_is_the_published_map(side, layers, tiny, pixels):
    """Signed: the published code cuts off what is negative, of images before layers are added."""
    case = case_of(side, tiny, pixels)
    target = directions(1, 1)
    tower = tower_of(tiny.model, side, layers)
    trace = tower.trace(case.inputs)
    method = getattr(METHODS["grad-eclip-single-head"], side)
    maps = method(tower, trace, target)

    model = copy.deepcopy(tiny.model)
    for block in plain.blocks_of(model, side)[-layers:]:
        block.attn.num_heads = 1
        block.attn.head_dim = block.attn.embed_dim
    expected = plain.grad_eclip(
        lambda: plain.embed(model, side, case.inputs),
        target[0, 0],
        layers,
        [case.reader],
        case.valid,
    )
    close(maps[0, 0], expected)


# ------------------------------------------------------------------------- attention and GAME


@SIDES
def test_raw_attention_is_the_reading_row_of_the_last_layer(side, tiny, pixels):
    case = case_of(side, tiny, pixels)
    recording = plain.Recording(tiny.model, side, case.inputs)
    last = recording.alphas[-1][0]  # (H, N, N)
    row = last.mean(dim=0)[case.reader]
    maps = run("attention", side, tiny.model, case.inputs, directions(1, 2))
    case.check(maps[0, 1], row)


@SIDES
def test_rollout_is_the_reading_row_of_the_product_over_all_layers(side, tiny, pixels):
    case = case_of(side, tiny, pixels)
    recording = plain.Recording(tiny.model, side, case.inputs)
    alphas = recording.alphas
    identity = torch.eye(alphas[0].shape[-1])
    product = identity
    for alpha in alphas:
        mean_alpha = alpha[0].mean(dim=0)  # (N, N)
        product = (mean_alpha + identity) / 2 @ product

    maps = run("rollout", side, tiny.model, case.inputs, directions(1, 1))
    row = product[case.reader]
    case.check(maps[0, 0], row)


@SIDES
@pytest.mark.parametrize("layers", [1, 3])
def test_game_is_the_reading_row_of_the_relevance_matrix(side, layers, tiny, pixels):
    """Through all layers, or through the last alone, as GAME's authors explain CLIP."""
    case = case_of(side, tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, side, case.inputs)
    alphas = recording.alphas[-layers:]
    identity = torch.eye(alphas[0].shape[-1])

    tower = tower_of(tiny.model, side, layers)
    trace = tower.trace(case.inputs)
    maps = game(tower, trace, target)[0]
    for t in range(2):
        score = recording.embedding[0] @ target[0, t]
        slopes = torch.autograd.grad(score, alphas, retain_graph=True)
        relevance = identity
        for alpha, slope in zip(alphas, slopes, strict=True):
            positive = (alpha * slope).clamp_min(0)
            step = positive[0].mean(dim=0)  # over heads: (N, N)
            relevance = relevance + step @ relevance
        row = (relevance - identity)[case.reader]
        case.check(maps[t], row)


# ----------------------------------------------------------------------- LeGrad and Grad-CAM


def test_legrad_is_the_positive_gradient_of_each_layers_own_score(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, "image", case.inputs)
    expected = torch.zeros(2, 17)
    for layer in (1, 2):
        average = recording.leaving[layer].mean(dim=1)
        alpha = recording.alphas[layer]
        for t in range(2):
            score = recording.read(average)[0] @ target[0, t]
            (slope,) = torch.autograd.grad(score, alpha, retain_graph=True)
            positive = slope[0].clamp_min(0)  # (H, N, N)
            expected[t] += positive.mean(dim=(0, 1)) / 2

    tower = open_image_tower(tiny.model, 2)
    trace = tower.trace(case.inputs)
    maps = legrad(tower, trace, target)[0]
    for row, expected_row in zip(maps, expected, strict=True):
        case.check(row, expected_row)


def test_grad_cam_weighs_channels_by_their_mean_gradient_over_the_patches(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, "image", case.inputs)
    tokens = recording.entering[-1]
    score = recording.embedding[0] @ target[0, 1]
    (slope,) = torch.autograd.grad(score, tokens)
    of_patches = slope[0, 1:]
    weights = of_patches.mean(dim=0)
    expected = tokens[0] @ weights

    maps = run("grad-cam", "image", tiny.model, case.inputs, target)
    case.check(maps[0, 1], expected)


# ------------------------------------------------------------------ MaskCLIP and CLIP Surgery


@pytest.mark.parametrize("layers", [1, 2])
def test_maskclip_is_the_last_block_with_the_identity_for_attention(layers, tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)

    def attend_to_itself(block, alpha):
        if block < 2:
            return alpha
        return torch.eye(alpha.shape[-1]).expand_as(alpha)

    recording = plain.Recording(tiny.model, "image", case.inputs, attend_to_itself)
    tokens = recording.leaving[-1][0]
    features = recording.read(tokens)
    expected = features @ target[0, 1]

    tower = open_image_tower(tiny.model, layers)
    trace = tower.trace(case.inputs)
    maps = maskclip(tower, trace, target)
    case.check(maps[0, 1], expected)


def surgery_features(model, pixels):
    """Unit features (N, E) of the v-v path through all blocks but the first, and the embedding."""
    recording = plain.Recording(model, "image", pixels)
    path = recording.entering[1][0]
    blocks = recording.blocks[1:]
    for block, tokens in zip(blocks, recording.entering[1:], strict=True):
        attention = block.attn
        *_, weight = attention.in_proj_weight.chunk(3)
        *_, bias = attention.in_proj_bias.chunk(3)
        v = F.linear(block.ln_1(tokens), weight, bias)  # (B, N, D)
        v = v.unflatten(-1, (-1, attention.head_dim))
        v = v.transpose(1, 2)  # (B, H, N, C)
        o = F.scaled_dot_product_attention(v, v, v)
        o = o.transpose(1, 2).flatten(2)
        path = path + attention.out_proj(o)[0]
    features = recording.read(path).detach()
    return features, recording.embedding[0].detach()


def test_clip_surgery_with_one_prompt_subtracts_the_empty_prompt(tiny, picture):
    explanation = Explainer(tiny, method="clip-surgery").explain(picture, "a dog")
    with torch.no_grad():
        ids = tiny.tokenizer(["a dog", ""])
        prompt, empty = tiny.model.encode_text(ids, normalize=True)
    pixels = tiny.preprocess(picture)[None]
    features, _ = surgery_features(tiny.model, pixels)
    expected = features[1:] @ (prompt - empty)

    (map_,) = explanation.image_maps
    np.testing.assert_allclose(map_.ravel(), expected, atol=1e-6)


def test_clip_surgery_with_several_prompts_subtracts_what_they_share(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 3)
    features, embedding = surgery_features(tiny.model, case.inputs)
    similarities = target[0] @ embedding
    chances = torch.softmax(2 * similarities, dim=0)
    weights = chances / chances.mean()
    weighted_targets = target[0] * weights[:, None]  # (T, E)
    products = features[:, None] * weighted_targets  # (N, T, E)
    shared = products.mean(dim=1, keepdim=True)
    expected = (products - shared).sum(dim=-1)

    maps = run("clip-surgery", "image", tiny.model, case.inputs, target)[0]
    for row, expected_row in zip(maps, expected.T, strict=True):
        case.check(row, expected_row)
