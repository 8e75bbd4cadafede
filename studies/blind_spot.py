"""The blind spot: how much relevance lies where the model cannot look? Lesson 02.

    image --half of its patches hidden from every layer--> maps -> their share on the hidden half

A mask of the attention hides some tokens: in no layer does any token read them, so the embedding
does not depend on them, whatever they hold. A map that shows what the similarity depends on has no
relevance there. No mask of an object is needed, and any transformer and photograph will do. DiFull
(Rao, Boehle and Schiele, arXiv 2205.10435 and 2303.11884) tests maps of convolutional networks in
this way.

Shapes: B inputs, T targets, N tokens, W words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from gradeclip_utils import METHODS, Explainer
from gradeclip_utils.methods.common import word_ids_of
from gradeclip_utils.methods.options import Options
from gradeclip_utils.models import Clip
from gradeclip_utils.towers import Tower, Trace
from gradeclip_utils.words import split_read

from . import rivals  # noqa: F401 # adds CCI and integrated attention to the methods
from .relevance import AT_ONCE, pixels_of

VISIBLE_ONLY = "loosened, visible tokens only"
IMAGE_METHODS = {  # title -> method and number of layers, None for as many as the method explains
    "loosened (package)": ("grad-eclip", None),
    "loosened (paper)": ("grad-eclip", 1),
    VISIBLE_ONLY: ("grad-eclip", None),
    "no spatial weight": ("grad-eclip-no-spatial", 1),
    "softmax x gradient": ("grad-eclip-softmax", 1),
    "one head (published code)": ("grad-eclip-single-head", 1),
    "GAME": ("game", None),
    "LeGrad": ("legrad", None),
    "Grad-CAM": ("grad-cam", None),
    "MaskCLIP": ("maskclip", None),
    "CLIP Surgery": ("clip-surgery", None),
    "CCI": ("cci", None),
    "raw attention": ("attention", None),
    "rollout": ("rollout", None),
}
TEXT_METHODS = {
    "loosened (package)": "grad-eclip",
    VISIBLE_ONLY: "grad-eclip",
    "no spatial weight": "grad-eclip-no-spatial",
    "softmax x gradient": "grad-eclip-softmax",
    "one head (published code)": "grad-eclip-single-head",
    "GAME": "game",
    "input x gradient": "input-x-gradient",
    "integrated attention": "integrated-attention",
    "raw attention": "attention",
    "rollout": "rollout",
}
HALVES = ("left", "right", "upper", "lower")


def half(grid: tuple[int, int], side: str) -> np.ndarray:
    """Which patches (h, w) lie in a half of an image: "left", "right", "upper" or "lower"."""
    rows, columns = np.indices(grid)
    if side in ("left", "right"):
        is_first = columns < grid[1] / 2
    else:
        is_first = rows < grid[0] / 2
    return is_first if side in ("left", "upper") else ~is_first


def hide(tower: Tower, whole: Trace, hidden: Tensor) -> Trace:
    """A trace in which no token, in no layer, reads the hidden ones.

    Args:
        tower: the encoder, with the layers that are explained.
        whole: a trace of the same encoder with all layers.
        hidden: (B, N) bool.
    """
    batch, token_count = hidden.shape
    visible = ~hidden[:, None, None].expand(batch, 1, token_count, token_count)
    if whole.attention_mask is not None:
        visible = visible & whole.attention_mask
    masked = replace(whole, attention_mask=visible)

    tokens = whole.tokens
    with torch.no_grad():
        for position in range(tower.first):
            tokens = tower.run_block(masked, position, tokens)
    return tower.trace_again(replace(masked, tokens=tokens))


def _share(maps: Tensor, hidden: Tensor) -> Tensor:
    """The share (B, T) of the positive relevance of maps (B, T, N) on hidden tokens (B, N).

    NaN for a map without a positive part.
    """
    positive = maps.clamp(min=0).double()
    on_hidden = (positive * hidden[:, None]).sum(-1)
    return on_hidden / positive.sum(-1)


# ------------------------------------------------------------------------------------ images


def blind_images(
    clip: Clip,
    images: Sequence[Image.Image],
    texts: Tensor,
    sides: Sequence[str] = ("right",),
    methods: Mapping[str, tuple[str, int | None]] = IMAGE_METHODS,
) -> pd.DataFrame:
    """Hide a half of each image from the model, and see which share of relevance lies there.

    Args:
        clip: a transformer whose image encoder reads one token.
        images: B images.
        texts: (B, T, E), the prompts of each.
        sides: the halves that are hidden, one after the other.
        methods: by title, a method's name and the number of its layers.

    Returns:
        Columns method, image, side, share: the mean of an image's prompts. Half of the image is
        hidden, so that a map that knows nothing has .5.
    """
    explainers = {
        title: Explainer(clip, method=name, image_layers=layers)
        for title, (name, layers) in methods.items()
    }
    depth = Explainer(clip).image_tower.depth
    deepest = Explainer(clip, image_layers=depth).image_tower

    rows = []
    for start in range(0, len(images), AT_ONCE):
        batch = images[start : start + AT_ONCE]
        directions = texts[start : start + AT_ONCE]
        whole = deepest.trace(pixels_of(clip, batch))

        for side in sides:
            hidden_patches = torch.from_numpy(half(whole.grid, side)).flatten()
            hidden = torch.zeros_like(whole.valid_mask)
            hidden[:, -len(hidden_patches) :] = hidden_patches

            for title, explainer in explainers.items():
                trace = hide(explainer.image_tower, whole, hidden)
                if title == VISIBLE_ONLY:
                    trace = replace(trace, valid_mask=trace.valid_mask & ~hidden)
                maps = _maps(explainer, trace, directions)
                shares = _share(maps, hidden).nanmean(dim=1).tolist()
                for i, share in enumerate(shares, start):
                    rows.append({"method": title, "image": i, "side": side, "share": share})
    return pd.DataFrame(rows)


def _maps(explainer: Explainer, trace: Trace, directions: Tensor) -> Tensor:
    """Maps (B, T, N); a method that compares the targets of a call gets each by itself."""
    targets = [directions]
    options = Options()
    if explainer.method.compares_targets:
        targets = directions.split(1, dim=1)
        options = Options(empty=explainer.embed_texts([""])[0])
    method = explainer.method.image
    maps = [method(explainer.image_tower, trace, part, options) for part in targets]
    return torch.cat(maps, dim=1)


# ------------------------------------------------------------------------------------- words


def blind_words(
    clip: Clip,
    captions: Sequence[str],
    image_embeddings: Tensor,
) -> pd.DataFrame:
    """Hide the last word of each caption, and see which share of the words' relevance it has.

    Args:
        clip: a model with a transformer for text.
        captions: B captions.
        image_embeddings: (B, E), the target of each.

    Returns:
        Columns method, image, share, even: `even` is what each word of the caption has if all have
        the same.
    """
    tokenizer = clip.tokenizer
    depth = Explainer(clip).text_tower.depth
    deepest = Explainer(clip, text_layers=depth).text_tower
    towers = {title: Explainer(clip, words=name).text_tower for title, name in TEXT_METHODS.items()}

    rows = []
    for i, caption in enumerate(captions):
        split = split_read(caption, tokenizer, deepest)
        whole = deepest.trace(tokenizer([caption]).to(deepest.device))
        word_ids = word_ids_of([split], whole.valid_mask)  # (1, N)
        word_count = len(split.spans)
        hidden = word_ids == word_count - 1
        options = Options(word_ids=word_ids)

        for title, name in TEXT_METHODS.items():
            trace = hide(towers[title], whole, hidden)
            if title == VISIBLE_ONLY:
                trace = replace(trace, valid_mask=trace.valid_mask & ~hidden)
            direction = image_embeddings[i][None, None]  # (1, 1, E)
            scores = METHODS[name].text(towers[title], trace, direction, options)
            of_words = scores * (word_ids >= 0)

            row = {
                "method": title,
                "image": i,
                "share": _share(of_words, hidden).item(),
                "even": 1 / word_count,
            }
            rows.append(row)
    return pd.DataFrame(rows)
