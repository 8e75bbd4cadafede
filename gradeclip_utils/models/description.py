"""Description: a few lines for a person about a model, as the code that explains it sees it."""

from collections.abc import Callable
from typing import Any

from torch import nn

from ..towers import Tower, UnsupportedModel, open_feature_map, open_image_tower, open_text_tower
from ..words import why_no_words


def describe(clip: Any) -> str:
    """Name, size, precision, both towers as the code that explains them sees them, and the vocabulary.

    Args:
        clip: a `Clip`.
    """
    weights = sum(parameter.numel() for parameter in clip.model.parameters())
    sample = next(clip.model.parameters())
    words = "any" if clip.vocabulary is None else f"only {len(clip.vocabulary)} (others get a warning)"
    return "\n".join((
        f"{clip.name} ({clip.pretrained or 'weights of your own'})",
        f"  model    {type(clip.model).__name__}, {weights / 1e6:.1f} million weights, "
        f"{str(sample.dtype).removeprefix('torch.')} on {sample.device}",
        f"  image    {_describe_image(clip.model, clip.image_layers or 1)}",
        f"  prompt   {_describe_text(clip.model, clip.tokenizer, clip.text_layers)}",
        f"  words    {words}",
    ))  # fmt: skip


def _describe_image(model: nn.Module, layers: int) -> str:
    try:
        tower = open_image_tower(model, layers)
        return f"{tower.kind}, explained as a map of {_describe_grid(tower)}; {_describe_layers(tower)}"
    except UnsupportedModel as refusal:
        said = f"cannot be explained by attention: {refusal}"
    try:
        grid = _describe_grid(open_feature_map(model))
        return f"{said}; Grad-CAM, RISE and input gradients apply, on a map of {grid}"
    except UnsupportedModel:
        return said


def _describe_grid(tower: Tower) -> str:
    (height, width), (down, across) = tower.image_size, tower.patch_size
    return f"{height // down} x {width // across} patches ({height} x {width} pixels)"


def _describe_layers(tower: Tower) -> str:
    pools = tower.explained[-1].pools
    blocks = tower.depth - pools
    if not pools:
        return f"{blocks} layers of {tower.heads} heads, {tower.query_token}; the last {tower.layers} by default"
    below = f"{blocks} layers of {tower.blocks[0].heads} heads and " if blocks else ""
    return f"{below}an attention pool of {tower.heads} heads, {tower.query_token}; the pool alone can be explained"


def _describe_text(model: nn.Module, tokenizer: Callable, layers: int | None) -> str:
    try:
        tower = open_text_tower(model, layers)
    except UnsupportedModel as refusal:
        return f"cannot be explained: {refusal}"
    how = "causal" if tower.causal else "not causal"
    count = min(tower.context_length, getattr(tokenizer, "context_length", None) or tower.context_length)
    length = f"{count} tokens"
    if why_no_words(tokenizer) is None:
        words = f"explained word by word (up to {count - 2} pieces of {length})"
    else:
        words = f"read as a whole ({length}; its tokenizer does not say which pieces make up a word): images alone"
    return f"{tower.kind}, {how}, {words}; {_describe_layers(tower)}"
