"""Faithfulness: remove or restore the pixels or words that a map ranks highest, and score it.

    map --order--> changed images or captions --unmodified model--> curve --area--> one number per
    image

Deletion removes the highest first: a small area under the curve is good. Insertion starts from an
empty canvas and brings the highest back first: a large area is good (Petsiuk, Das and Saenko,
"RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018). An area is
divided by its range, so it is the mean height of the curve. Pixels are changed in the model's own
input, after its preprocessing. The protocol "published" is that of Grad-ECLIP's
evaluation: half of the pixels, read in steps of 5 % (its insertion script appends the whole image
as an eleventh point, which we leave out). "full" removes all pixels. Ties are ordered at random,
the same way for every map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import Normalize

from ..errors import GradeclipError, hint
from ..images import onto_image
from .localisation import as_levels

GAMES = ("deletion", "insertion")
Fill: TypeAlias = Literal["random", "mean", "black"]
Colours: TypeAlias = tuple[Sequence[float], Sequence[float]]  # the normalisation's mean, deviation


@dataclass(frozen=True)
class Protocol:
    """How pixels are removed and inserted. The defaults are the published ones.

    Attributes:
        span: the fraction of the image that is removed or inserted in the end.
        points: how many points of the curve are read, evenly from 0 to `span`.
        fill: the colour of deleted pixels: "random" (uniform in colour, seeded), "mean" (the
            image's own mean colour) or "black".
        canvas: the empty image of insertion: the same choices.
        seed: of the random pixels and of the order of ties.
    """

    span: float = 0.5
    points: int = 11
    fill: Fill = "random"
    canvas: Fill = "black"
    seed: int = 0


PROTOCOLS = {
    "published": Protocol(),
    "full": Protocol(span=1.0, points=21),
    "mean-colour": Protocol(fill="mean", canvas="mean"),
}


def as_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of a name."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise GradeclipError(f"there is no protocol {protocol!r}: {hint(protocol, PROTOCOLS)}")
    return PROTOCOLS[protocol]


@torch.no_grad()
def image_curves(
    score: Callable[[Tensor], Tensor],
    pixels: Tensor,
    maps: Mapping[str, np.ndarray],
    protocol: str | Protocol = "published",
    *,
    colours: Colours | None = None,
) -> pd.DataFrame:
    """Deletion and insertion curves of one image, for one map per method.

    >>> pixels = model_view(clip.preprocess, image).pixels                     # doctest: +SKIP
    >>> text = explainer.embed_texts([prompt])[0]                              # doctest: +SKIP
    >>> score = lambda pixels: explainer.image_tower.forward(pixels) @ text    # doctest: +SKIP
    >>> maps = {"grad-eclip": explainer.explain(image, prompt).image_maps[0]}  # doctest: +SKIP
    >>> colours = colours_of(clip.preprocess)                                  # doctest: +SKIP
    >>> curve_auc(image_curves(score, pixels, maps, colours=colours))          # doctest: +SKIP

    Args:
        score: changed images (B, 3, H, W) -> numbers (B,).
        pixels: (3, H, W) the model's input, as its own preprocessing makes it.
        maps: for each method a map of this input, signed or not: (h, w) on its token grid, resized
            as heat maps are, or (H, W) in its pixels. A heat map in the image's own pixels comes
            there by `images.pool(heat, pixels.shape[1:], view.box)`.
        protocol: how many pixels are replaced, and by which colour: "published", "full",
            "mean-colour" or a `Protocol`.
        colours: mean and deviation of the model's normalisation, for "random" and "black"; see
            `colours_of`.

    Returns:
        Rows of method, game, fraction (of the pixels that are gone, or back) and score, curve by
        curve.

    Raises:
        GradeclipError: a map that does not fit the input, colours that are missing, an unknown
            protocol.
    """
    protocol = as_protocol(protocol)
    height, width = pixels.shape[1:]
    fill = _blank(protocol.fill, pixels, colours, protocol.seed)
    canvas = _blank(protocol.canvas, pixels, colours, protocol.seed)

    last = round(protocol.span * height * width)
    counts = np.unique(np.rint(np.linspace(0, last, protocol.points)).astype(int))
    curves = []
    for name, map_ in maps.items():
        order = _order(_in_pixels(name, map_, height, width), protocol.seed)
        taken = [torch.from_numpy(order < count).to(pixels.device) for count in counts]
        images_of_game = {
            "deletion": [torch.where(mask, fill, pixels) for mask in taken],
            "insertion": [torch.where(mask, pixels, canvas) for mask in taken],
        }
        for game, images in images_of_game.items():
            curve = {
                "method": name,
                "game": game,
                "fraction": counts / order.size,
                "score": score(torch.stack(images)).tolist(),
            }
            curves.append(pd.DataFrame(curve))
    return pd.concat(curves, ignore_index=True)


def colours_of(preprocess: Callable) -> Colours | None:
    """Mean and deviation of a preprocessing's normalisation; None if it has no such step."""
    for step in getattr(preprocess, "transforms", [preprocess]):
        if isinstance(step, Normalize):
            return tuple(step.mean), tuple(step.std)
    return None


def curve_auc(curves: pd.DataFrame) -> pd.DataFrame:
    """Area under each curve over its range, by trapezia: its mean height.

    >>> curve = pd.DataFrame({"method": "a", "fraction": [0.0, 0.5], "score": [1.0, 0.5]})
    >>> curve_auc(curve)["auc"].tolist()
    [0.75]

    Args:
        curves: as `image_curves` gives them; columns other than fraction and score
            tell curves apart.

    Returns:
        One row per curve: those columns, and `auc`; ready for `statistics.group_means` once a
        column names the image.
    """
    keys = [name for name in curves if name not in ("fraction", "score")]
    rows: list[tuple] = []
    for group, curve in curves.groupby(keys, sort=False, dropna=False):
        fraction = curve["fraction"].to_numpy()
        area = np.trapezoid(curve["score"], fraction)
        rows.append((*group, area / (fraction[-1] - fraction[0])))
    return pd.DataFrame(rows, columns=[*keys, "auc"])


def _in_pixels(name: str, map_: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map (H, W) in the pixels of the input, resized from its token grid if need be."""
    if map_.shape == (height, width):
        return map_
    if map_.ndim != 2 or map_.shape[0] > height or map_.shape[1] > width:
        raise GradeclipError(
            f"the map of {name!r} has shape {map_.shape}: it must be on the token grid or in the "
            f"pixels of the input {(height, width)}; images.pool brings an image's heat map there"
        )
    return onto_image(map_, (0, 0, width, height), (width, height))


def _blank(kind: Fill, pixels: Tensor, colours: Colours | None, seed: int) -> Tensor:
    """The pixels of an empty image, (3, H, W) or (3, 1, 1), as the model's input."""
    if kind == "mean":
        return pixels.mean(dim=(1, 2), keepdim=True)
    if colours is None:
        msg = f"{kind!r} pixels need colours, mean and deviation of the model's normalisation"
        raise GradeclipError(f"{msg}: colours=colours_of(clip.preprocess)")

    mean, deviation = torch.tensor(colours, dtype=torch.float32)[:, :, None, None]  # (3, 1, 1)
    colour = torch.zeros(3, 1, 1)
    if kind == "random":
        colour = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return ((colour - mean) / deviation).to(pixels)


def _order(values: np.ndarray, seed: int) -> np.ndarray:
    """The place of each value when the largest comes first; the seed decides ties."""
    levels = as_levels(values).ravel()
    lots = np.random.default_rng(seed).permutation(levels.size)
    order = np.lexsort((lots, -levels))
    return order.argsort().reshape(values.shape)
