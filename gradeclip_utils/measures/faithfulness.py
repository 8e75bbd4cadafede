"""Faithfulness: remove or restore the pixels or words that a map ranks highest, and score each step.

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

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import Normalize

from .. import checks
from ..checks import (
    all_chosen,
    chosen,
    columns,
    finite,
    instance,
    listed,
    number,
    short,
    text,
    whole,
)
from ..errors import GradeclipError
from ..images import onto_image
from ..prompts import as_prompts
from ..words import Word
from .localisation import levelled

GAMES = ("deletion", "insertion")
_FILLS = ("mean", "random", "black")
_CURVE = ["method", "game", "fraction"]
_Score = Callable[..., Tensor]  # of a batch: one number each
_Colours = tuple[
    Sequence[float], Sequence[float]
]  # mean and deviation of the model's normalisation


@dataclass(frozen=True)
class Protocol:
    """How pixels are removed and inserted. The defaults are the published ones.

    Attributes:
        span: the fraction of the image that is removed or inserted in the end, above 0 and at most
            1.
        points: how many points of the curve are read, evenly from 0 to `span`, 2 to 1001.
        fill: the colour of deleted pixels: "random" (uniform in colour, seeded), "mean" (the
            image's own mean colour) or "black".
        canvas: the empty image of insertion: the same choices.
        seed: of the random pixels and of the order of ties.
    """

    span: float = 0.5
    points: int = 11
    fill: str = "random"
    canvas: str = "black"
    seed: int = 0

    def __post_init__(self):
        if number("span", self.span, 0, 1) == 0:
            raise GradeclipError("span is the fraction that is removed in the end, above 0")
        whole("points", self.points, 2, 1001)
        chosen("fill", self.fill, _FILLS)
        chosen("canvas", self.canvas, _FILLS)
        checks.seed(self.seed)


PROTOCOLS = {
    "published": Protocol(),
    "full": Protocol(span=1.0, points=21),
    "mean-colour": Protocol(fill="mean", canvas="mean"),
}


@torch.no_grad()
def image_curves(
    score: _Score,
    pixels: Tensor,
    maps: Mapping[str, np.ndarray],
    protocol: str | Protocol = "published",
    *,
    colours: _Colours | None = None,
    games: Sequence[str] = GAMES,
    batch: int = 64,
) -> pd.DataFrame:
    """Deletion and insertion curves of one image, for one map per method (Petsiuk, Das and Saenko, BMVC 2018).

    >>> pixels = model_view(clip.preprocess, image).pixels                               # doctest: +SKIP
    >>> text = explainer.embed_texts([prompt])[0]                                        # doctest: +SKIP
    >>> score = lambda pixels: explainer.image_tower.forward(pixels) @ text              # doctest: +SKIP
    >>> maps = {"grad-eclip": explainer.explain(image, prompt).image_maps[0]}            # doctest: +SKIP
    >>> curve_auc(image_curves(score, pixels, maps, colours=colours_of(clip.preprocess)))    # doctest: +SKIP

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
        games: "deletion", "insertion" or both.
        batch: how many changed images go through the model at once, 1 to 4096.

    Returns:
        Rows of method, game, fraction (of the pixels that are gone, or back) and score, curve by
        curve.

    Raises:
        GradeclipError: a map that is not finite or does not fit the input, pixels of a wrong shape,
            colours that are missing, an unknown game.
    """
    games, batch = all_chosen("games", games, GAMES), whole("batch", batch, 1, 4096)
    if not isinstance(protocol, Protocol):
        protocol = PROTOCOLS[chosen("protocol", protocol, PROTOCOLS)]
    maps, size = _checked_maps(pixels, maps), tuple(pixels.shape[1:])
    fill, canvas = (
        _blank(kind, pixels, colours, protocol.seed) for kind in (protocol.fill, protocol.canvas)
    )
    points, asked = [], {}  # of all curves, and the changed images that they are about, each once
    for name, map_ in maps.items():
        heat = (
            map_ if map_.shape == size else onto_image(map_, (0, 0, size[1], size[0]), size[::-1])
        )
        order, last = _order(heat, protocol.seed), round(protocol.span * heat.size)
        for game in games:
            for taken in np.unique(np.rint(np.linspace(0, last, protocol.points)).astype(int)):
                whose = (
                    name if 0 < taken < heat.size else ""
                )  # all of the image, and none of it, is alike for all maps
                asked[whose, game, taken] = order, taken, game == "deletion"
                points.append((name, game, taken / heat.size, (whose, game, taken)))
    scores, changes = [], list(asked.values())
    for start in range(0, len(changes), batch):
        some = changes[start : start + batch]
        touched = torch.from_numpy(np.stack([order < taken for order, taken, _ in some])).to(
            pixels.device
        )[:, None]
        deletes = torch.tensor([deleted for *_, deleted in some], device=pixels.device)[
            :, None, None, None
        ]
        images = torch.where(
            deletes, torch.where(touched, fill, pixels), torch.where(touched, pixels, canvas)
        )
        scores += _answer(score, images).tolist()
    found = dict(zip(asked, scores, strict=True))
    return pd.DataFrame(
        [(*point, found[key]) for *point, key in points], columns=[*_CURVE, "score"]
    )


def colours_of(preprocess: Callable) -> _Colours:
    """Return mean and deviation of a preprocessing's normalisation."""
    for step in getattr(preprocess, "transforms", [preprocess]):
        if isinstance(step, Normalize):
            return tuple(step.mean), tuple(step.std)
    msg = "the preprocessing has no Normalize step: give the model's mean and deviation of colours by hand"
    raise GradeclipError(msg)


@torch.no_grad()
def word_curves(
    score: _Score, caption: str, words: Mapping[str, Sequence[Word]], seed: int = 0
) -> pd.DataFrame:
    """Deletion and insertion curves of a caption's words; the words that are left keep their order.

    Words are removed one by one, from the whole caption to the empty one.

    >>> image = explainer.embed_images([image])[0]                                         # doctest: +SKIP
    >>> score = lambda texts: explainer.embed_texts(texts) @ image                         # doctest: +SKIP
    >>> word_curves(score, caption, {"grad-eclip": explanation.words[0]})                  # doctest: +SKIP

    Args:
        score: a list of B captions -> numbers (B,).
        caption: the caption.
        words: for each method the caption's words with their scores, as explanations have them.
            Letters outside of all words always stay.
        seed: of the order of ties.

    Returns:
        Rows of method, game, fraction (of the words that are gone, or back) and score, curve by
        curve.

    Raises:
        GradeclipError: no words, words of another caption, scores that are not finite.
    """
    seed, (caption,) = checks.seed(seed), as_prompts(text("caption", caption))
    jobs, captions = [], []
    for name, given in _by_name("words", words).items():
        own = [
            instance("a word", word, Word, "a Word")
            for word in listed(f"the words of {name!r}", given)
        ]
        if not own or any(
            caption[word.start : word.end] != word.text or not word.text for word in own
        ):
            raise GradeclipError(
                f"{name!r} needs the words of {short(caption)}, got {[word.text for word in own]}"
            )
        order = _order(finite(f"the scores of {name!r}", [word.score for word in own]), seed)
        for game in GAMES:
            for taken in range(len(own) + 1):
                gone = order < taken if game == "deletion" else order >= taken
                jobs.append((name, game, taken / len(own)))
                captions.append(
                    _without(
                        caption, [word for word, is_gone in zip(own, gone, strict=True) if is_gone]
                    )
                )
    return pd.DataFrame(jobs, columns=_CURVE).assign(score=_answer(score, captions))


def curve_auc(curves: pd.DataFrame) -> pd.DataFrame:
    """Area under each curve over its range, by trapezia: its mean height.

    >>> curve = pd.DataFrame({"method": "a", "fraction": [0.0, 0.25, 0.5], "score": [1.0, 0.5, 0.0]})
    >>> curve_auc(curve)["auc"].tolist()
    [0.5]

    Args:
        curves: as `image_curves` and `word_curves` give them; columns other than fraction and score
            tell curves apart.

    Returns:
        One row per curve: those columns, and `auc`; ready for `statistics.group_means` once a column
        names the image.

    Raises:
        GradeclipError: a curve of one point, fractions that do not grow, NaN, a column that is
            missing.
    """
    columns(curves, ("method", "fraction", "score"))
    keys = [name for name in curves if name not in ("fraction", "score")]
    records = []
    for group, curve in curves.groupby(keys, sort=False, dropna=False):
        fraction, height = (
            finite(f"the {name} of a curve", curve[name]) for name in ("fraction", "score")
        )
        if len(fraction) < 2 or (np.diff(fraction) <= 0).any():
            msg = f"the curve of {group} must have two points or more, with growing fractions: {fraction}"
            raise GradeclipError(msg)
        records.append((*group, np.trapezoid(height, fraction) / (fraction[-1] - fraction[0])))
    return pd.DataFrame(records, columns=[*keys, "auc"])


def _checked_maps(pixels: Tensor, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the maps as floats, checked, as the pixels are."""
    if (
        not isinstance(pixels, Tensor)
        or pixels.ndim != 3
        or len(pixels) != 3
        or not pixels.is_floating_point()
    ):
        msg = f"pixels must be one input of the model, a float tensor (3, H, W), got {tuple(np.shape(pixels))}"
        raise GradeclipError(msg)
    if not torch.isfinite(pixels).all():
        raise GradeclipError("pixels must be finite, and some are NaN or infinite")
    found = {}
    for name, given in _by_name("maps", maps).items():
        map_ = finite(f"the map of {name!r}", given).astype(float, copy=False)
        if map_.ndim != 2 or not all(
            0 < a <= b for a, b in zip(map_.shape, pixels.shape[1:], strict=True)
        ):
            raise GradeclipError(
                f"the map of {name!r} has shape {map_.shape}: it must be on the token grid or in the pixels of the "
                f"model's input {tuple(pixels.shape[1:])}; bring an image's heat map there with images.pool"
            )
        found[name] = map_
    return found


def _by_name(what: str, given: Mapping) -> Mapping:
    if not isinstance(given, Mapping) or not given:
        raise GradeclipError(f"{what} must be a dict, by the names of methods, got {short(given)}")
    return given


def _answer(score: _Score, batch: Tensor | list[str]) -> np.ndarray:
    """Return the scores (B,) of a batch, all of them finite."""
    answer = instance("score", score, Callable, "a function")(batch)
    found = finite("a score", answer).astype(float, copy=False)
    if found.shape != (len(batch),):
        raise GradeclipError(
            f"a score is one number for each of a batch of {len(batch)}, got {found.shape}"
        )
    return found


def _blank(kind: str, pixels: Tensor, colours: _Colours | None, seed: int) -> Tensor:
    """Return the pixels of an empty image, (3, H, W) or (3, 1, 1), as the model's input."""
    if kind == "mean":
        return pixels.mean(dim=(1, 2), keepdim=True)
    if colours is None:
        raise GradeclipError(
            f"{kind!r} pixels need the model's normalisation: colours=colours_of(clip.preprocess)"
        )
    given = finite("colours", colours)
    if given.shape != (2, 3) or not (given[1] > 0).all():
        raise GradeclipError(
            f"colours must be mean and deviation of three channels, got {short(colours)}"
        )
    mean, deviation = torch.tensor(given, dtype=torch.float32)[:, :, None, None]
    colour = torch.zeros(3, 1, 1)
    if kind == "random":
        colour = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return ((colour - mean) / deviation).to(pixels)


def _order(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the place of each value when the largest comes first; the seed decides ties."""
    flat = levelled(values).ravel()
    order = np.lexsort((np.random.default_rng(seed).permutation(flat.size), -flat))
    return order.argsort().reshape(values.shape)


def _without(caption: str, words: list[Word]) -> str:
    for word in sorted(words, key=lambda word: word.start, reverse=True):
        caption = f"{caption[: word.start]} {caption[word.end :]}"
    return " ".join(caption.split())
