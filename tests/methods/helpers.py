"""Directions of targets, methods run through the layers that they ask for, and comparisons."""

import torch
from torch.nn import functional as F

from gradeclip_utils.methods import METHODS, Options, gradients, perturbation
from gradeclip_utils.methods.registry import layers_to_explain
from gradeclip_utils.towers import open_image_tower, open_text_tower
from gradeclip_utils.words import split_read
from studies.rivals.second_order import fixlip_of_patches
from tests import plain

QUICK = {  # slow methods with fewer steps
    "rise": (perturbation.rise, {"masks": 40}),
    "integrated-gradients": (gradients.integrated_gradients, {"steps": 6}),
    "fixlip": (fixlip_of_patches, {"masks": 40}),
}


def directions(*shape, width=48, seed=0, dtype=torch.float32):
    """Unit vectors (*shape, width)."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, width, generator=generator, dtype=dtype), dim=-1)


def close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def run(name, side, model, inputs, target, options=None):
    """Maps (B, T, N) by a method, through the layers that it asks for."""
    method = METHODS[name]
    depth = len(plain.blocks_of(model, side))
    layers = layers_to_explain(None, None, method, depth, side)
    tower = (open_image_tower if side == "image" else open_text_tower)(model, layers)

    function = getattr(method, side)
    steps = {}
    if name in QUICK and side == "image":
        function, steps = QUICK[name]
    with torch.no_grad():
        trace = tower.trace(inputs, graph=method.needs_graph)
        return function(tower, trace, target, options or Options(), **steps)


def prompt_options(clip, prompts):
    """Options with the words of these prompts."""
    tower = open_text_tower(clip.model)
    splits = [split_read(prompt, clip.tokenizer, tower) for prompt in prompts]
    length = max(len(split.word_ids) for split in splits) + 2
    word_ids = torch.full((len(prompts), length), -1)
    for row, split in zip(word_ids, splits, strict=True):
        row[1 : 1 + len(split.word_ids)] = torch.tensor(split.word_ids)
    return Options(word_ids=word_ids, splits=splits, tokenize=clip.tokenizer)
