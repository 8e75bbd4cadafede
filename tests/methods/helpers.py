"""Directions of targets, methods run through the layers that they ask for, and comparisons."""

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

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
    abs_max = expected.abs().max()
    assert abs_max > 0
    error = (actual - expected).abs()
    assert error.max() <= tolerance * abs_max


def tower_of(model, side, layers):
    """The tower of a side, through its last layers."""
    if side == "image":
        return open_image_tower(model, layers)
    return open_text_tower(model, layers)


def run(name, side, model, inputs, target, options=None):
    """Maps (B, T, N) by a method, through the layers that it asks for."""
    method = METHODS[name]
    depth = len(plain.blocks_of(model, side))
    layers = layers_to_explain(None, None, method, depth, side)
    tower = tower_of(model, side, layers)

    function = getattr(method, side)
    steps = {}
    if name in QUICK and side == "image":
        function, steps = QUICK[name]
    with torch.no_grad():
        trace = tower.trace(inputs, method.graph)
        return function(tower, trace, target, options or Options(), **steps)


def prompt_options(clip, prompts):
    """Options with the words of these prompts."""
    tower = open_text_tower(clip.model)
    splits = [split_read(prompt, clip.tokenizer, tower) for prompt in prompts]
    rows = [torch.tensor([-1, *split.word_ids, -1]) for split in splits]
    word_ids = pad_sequence(rows, batch_first=True, padding_value=-1)
    return Options(word_ids=word_ids, splits=splits, tokenize=clip.tokenizer)
