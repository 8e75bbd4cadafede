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
from gradeclip_utils.methods.grad_eclip import (
    attention_gradient,
    channel_weights,
    spatial_weights,
)
from gradeclip_utils.methods.options import Options
from gradeclip_utils.methods.registry import METHODS
from gradeclip_utils.towers import open_image_tower, open_text_tower
from gradeclip_utils.towers.blocks import Block
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
        row = row[: len(self.valid)].detach()
        return row.where(self.valid, 0)


def case_of(side, clip, pixels):
    if side == "image":
        return Case(pixels[:1], 0, torch.arange(17) > 0)
    ids = clip.tokenizer([PROMPT])
    end = int(ids[0].argmax())
    return Case(ids, end, torch.ones(end + 1, dtype=torch.bool))


def tower_of(side, model, layers):
    open_tower = open_image_tower if side == "image" else open_text_tower
    return open_tower(model, layers)


# ------------------------------------------------------------------ Grad-ECLIP with one head


def one_headed_maps(model, side, case, target, layers):
    """A map (N,) for each of the last layers, which run again with one head."""
    model = copy.deepcopy(model)
    for block in plain.blocks_of(model, side)[-layers:]:
        block.attn.num_heads = 1
        block.attn.head_dim = block.attn.embed_dim
    return plain.grad_eclip_by_layer(
        lambda: plain.embed(model, side, case.inputs),
        target,
        layers,
        [case.reader],
        case.valid,
    )


@pytest.mark.parametrize(
    ("side", "layers"),
    [
        ("image", 1),
        ("text", 1),
        ("text", 3),
    ],
)
def test_grad_eclip_with_one_head_is_the_published_map(side, layers, tiny, pixels):
    """The published code adds the text layers before it cuts off what is negative."""
    case = case_of(side, tiny, pixels)
    target = directions(1, 1)
    layer_maps = one_headed_maps(tiny.model, side, case, target[0, 0], layers)

    tower = tower_of(side, tiny.model, layers)
    method = getattr(METHODS["grad-eclip-single-head"], side)
    maps = method(tower, tower.trace(case.inputs), target)
    expected = sum(layer_maps)
    close(maps[0, 0].relu(), expected.relu())


def test_the_positive_part_of_each_image_layer_adds_up_to_the_published_map(tiny, pixels):
    """Our maps are signed sums over layers; the published code adds positive parts."""
    case = case_of("image", tiny, pixels)
    target = directions(1, 1)
    layer_maps = one_headed_maps(tiny.model, "image", case, target[0, 0], 3)

    tower = open_image_tower(tiny.model, 3)
    trace = tower.trace(case.inputs)
    one_headed = tower.with_one_head(trace)
    weights = channel_weights(tower, one_headed, target)
    positive = torch.zeros(17)
    for position, layer in enumerate(one_headed.layers):
        lam = spatial_weights(layer, trace.valid_mask)
        gradient = attention_gradient(weights[:, 0, position], layer.v)
        relevance = (lam * gradient).sum(dim=(1, 2))  # (B, N)
        positive += relevance[0].relu()
    positive_maps = [layer_map.relu() for layer_map in layer_maps]
    close(positive, sum(positive_maps))

    method = METHODS["grad-eclip-single-head"]
    signed = method.image(tower, trace, target)
    close(signed[0, 0], sum(layer_maps))


# ------------------------------------------------------------------------- attention and GAME


@SIDES
def test_raw_attention_is_the_reading_row_of_the_last_layer(side, tiny, pixels):
    case = case_of(side, tiny, pixels)
    recording = plain.Recording(tiny.model, side, case.inputs)
    mean_alpha = recording.alphas[-1][0].mean(dim=0)
    maps = run("attention", side, tiny.model, case.inputs, directions(1, 2))
    row = mean_alpha[case.reader]
    close(maps[0, 1], case.on_valid(row))


@SIDES
def test_rollout_is_the_reading_row_of_the_product_over_all_layers(side, tiny, pixels):
    case = case_of(side, tiny, pixels)
    recording = plain.Recording(tiny.model, side, case.inputs)
    identity = torch.eye(recording.alphas[0].shape[-1])
    product = identity
    for alpha in recording.alphas:
        mean_alpha = alpha[0].mean(dim=0)
        product = (mean_alpha + identity) / 2 @ product

    maps = run("rollout", side, tiny.model, case.inputs, directions(1, 1))
    row = maps[0, 0]
    close(row, case.on_valid(product[case.reader]))
    on_cls = product[0, 0] if side == "image" else 0
    total = row.sum() + on_cls
    assert abs(total - 1) < 1e-5


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
            positive = (alpha * slope)[0].clamp_min(0)
            relevance = relevance + positive.mean(dim=0) @ relevance
        row = (relevance - identity)[case.reader]
        close(maps[t], case.on_valid(row))


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
            positive = slope[0].clamp_min(0)
            expected[t] += positive.mean(dim=(0, 1)) / 2

    tower = open_image_tower(tiny.model, 2)
    maps = legrad(tower, tower.trace(case.inputs), target)[0]
    for t in range(2):
        close(maps[t], case.on_valid(expected[t]))


@pytest.mark.parametrize(
    ("side", "name"),
    [
        ("image", "rollout"),
        ("image", "game"),
        ("image", "legrad"),
        ("text", "rollout"),
        ("text", "game"),
    ],
)
def test_a_trace_with_a_layer_graph_gives_the_same_maps_without_a_further_pass(
    side, name, tiny, pixels, monkeypatch
):
    method = getattr(METHODS[name], side)
    case = case_of(side, tiny, pixels)
    target = directions(1, 2)
    tower = tower_of(side, tiny.model, 3)
    plain_trace = tower.trace(case.inputs)
    expected = method(tower, plain_trace, target, Options())

    trace = tower.trace(case.inputs, layer_graph=True)
    close(trace.embedding, plain_trace.embedding)
    for layer, plain_layer in zip(trace.layers, plain_trace.layers, strict=True):
        for part, plain_part in zip(vars(layer).values(), vars(plain_layer).values(), strict=True):
            close(part, plain_part)
            assert not part.requires_grad
    monkeypatch.setattr(Block, "project", None)  # no layer runs again
    for _ in range(2):  # the graph is kept
        close(method(tower, trace, target, Options()), expected)


def test_grad_cam_weighs_channels_by_their_mean_gradient_over_the_patches(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 2)
    recording = plain.Recording(tiny.model, "image", case.inputs)
    tokens = recording.entering[-1]
    score = recording.embedding[0] @ target[0, 1]
    (slope,) = torch.autograd.grad(score, tokens)
    weights = slope[0, 1:].mean(dim=0)
    expected = (tokens[0] * weights).sum(dim=-1)

    maps = run("grad-cam", "image", tiny.model, case.inputs, target)
    close(maps[0, 1], case.on_valid(expected))


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
    features = recording.read(recording.leaving[-1][0])
    expected = features @ target[0, 1]

    tower = open_image_tower(tiny.model, layers)
    maps = maskclip(tower, tower.trace(case.inputs), target)
    close(maps[0, 1], case.on_valid(expected))


def surgery_features(model, pixels):
    """Unit features (N, E) of the v-v path through all blocks but the first, and the embedding."""
    recording = plain.Recording(model, "image", pixels)
    path = recording.entering[1][0]
    blocks = recording.blocks[1:]
    for block, tokens in zip(blocks, recording.entering[1:], strict=True):
        attention = block.attn
        head_width = attention.head_dim
        *_, weight = attention.in_proj_weight.chunk(3)
        *_, bias = attention.in_proj_bias.chunk(3)

        v = F.linear(block.ln_1(tokens[0]), weight, bias)
        v = v.unflatten(1, (-1, head_width)).transpose(0, 1)  # (H, N, C)
        similarity = v @ v.transpose(1, 2)
        alpha = torch.softmax(similarity / head_width**0.5, dim=-1)
        o = (alpha @ v).transpose(0, 1).flatten(1)
        path = path + attention.out_proj(o)
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

    map_ = explanation.image_maps[0].ravel()
    np.testing.assert_allclose(map_, expected, atol=1e-6)


def test_clip_surgery_with_several_prompts_subtracts_what_they_share(tiny, pixels):
    case = case_of("image", tiny, pixels)
    target = directions(1, 3)
    features, embedding = surgery_features(tiny.model, case.inputs)
    chances = torch.softmax(2 * target[0] @ embedding, dim=0)
    weights = chances / chances.mean()
    weighted_targets = target[0] * weights[:, None]  # (T, E)
    products = features[:, None] * weighted_targets  # (N, T, E)
    shared = products.mean(dim=1, keepdim=True)
    expected = (products - shared).sum(dim=-1)

    maps = run("clip-surgery", "image", tiny.model, case.inputs, target)[0]
    for t in range(3):
        close(maps[t], case.on_valid(expected[:, t]))
