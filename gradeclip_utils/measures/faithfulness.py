"""Faithfulness: the pixels or words that a map ranks highest go, or come back, and the model scores each step.

    map --order--> changed images or captions --unmodified model--> curve --area--> one number an image

Deletion removes the highest first: a small area under the curve is good. Insertion starts from an empty canvas and
brings the highest back first: a large area is good (Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for
Explanation of Black-box Models", BMVC 2018). An area is divided by its range, so it is the mean height of the curve.
Pixels are changed in the model's own input, after its preprocessing. `PUBLISHED` is the protocol of Grad-ECLIP's
evaluation: half of the pixels, read in steps of 5 % (its insertion script appends the whole image as an eleventh point,
which we leave out). `FULL` removes all pixels. Ties are ordered at random, the same way for every map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import Normalize

from .. import checks
from ..checks import all_chosen, chosen, columns, finite, instance, listed, number, short, text, whole
from ..errors import GradeclipError
from ..images import onto_image
from .localisation import levelled

GAMES = ("deletion", "insertion")
_FILLS = ("mean", "random", "black")
_CURVE = ["method", "game", "fraction"]
_MOST_POINTS = 1001  # of a curve, each of which is a forward pass
_MOST_AT_ONCE = 4096  # changed images
Score = Callable[..., Tensor]  # of a batch: one number each
Colours = tuple[Sequence[float], Sequence[float]]  # mean and deviation of the model's normalisation


@dataclass(frozen=True)
class Protocol:
    """How pixels are removed and inserted. The defaults are the published ones.

    Attributes:
        span: the fraction of the image that is removed or inserted in the end, above 0 and at most 1.
        points: how many points of the curve are read, evenly from 0 to `span`, 2 to 1001.
        fill: the colour of deleted pixels: "random" (uniform in colour, seeded), "mean" (the image's own mean colour)
            or "black".
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
        whole("points", self.points, 2, _MOST_POINTS)
        chosen("fill", self.fill, _FILLS)
        chosen("canvas", self.canvas, _FILLS)
        checks.seed(self.seed)


PUBLISHED = Protocol()
FULL = Protocol(span=1.0, points=21)


@torch.no_grad()
def image_curves(
    score: Score, pixels: Tensor, maps: Mapping[str, np.ndarray], protocol: Protocol = PUBLISHED, *,
    colours: Colours | None = None, games: Sequence[str] = GAMES, batch: int = 64,
) -> pd.DataFrame:  # fmt: skip
    """Deletion and insertion curves of one image, for one map a method (Petsiuk, Das and Saenko, BMVC 2018).

    >>> pixels = model_view(clip.preprocess, image).pixels                               # doctest: +SKIP
    >>> score = image_score(explainer.image_tower.forward, text_embedding)              # doctest: +SKIP
    >>> maps = {"grad-eclip": explainer.explain(image, prompt).image_maps[0]}            # doctest: +SKIP
    >>> areas(image_curves(score, pixels, maps, colours=colours_of(clip.preprocess)))    # doctest: +SKIP

    Args:
        score: changed images (B, 3, H, W) -> numbers (B,); see `image_score`.
        pixels: (3, H, W) the model's input, as its own preprocessing makes it.
        maps: for each method a map of this input, signed or not: (h, w) on its token grid, resized as heat maps are, or
            (H, W) in its pixels. A heat map in the image's own pixels comes there by
            `localisation.pool(heat, pixels.shape[1:], view.box)`.
        protocol: how far pixels go, and which colour takes their place.
        colours: mean and deviation of the model's normalisation, for "random" and "black"; see `colours_of`.
        games: "deletion", "insertion" or both.
        batch: how many changed images go through the model at once, 1 to 4096.

    Returns:
        Rows of method, game, fraction (of the pixels that are gone, or back) and score, curve by curve.

    Raises:
        GradeclipError: a map that is not finite or does not fit the input, pixels of another shape, colours that are
            missing, an unknown game.
    """
    games, batch = all_chosen("games", games, GAMES), whole("batch", batch, 1, _MOST_AT_ONCE)
    if not isinstance(protocol, Protocol):
        raise GradeclipError(f"protocol must be a Protocol, got {short(protocol)}")
    maps, size = _checked_maps(pixels, maps), tuple(pixels.shape[1:])
    blanks = [_blank(kind, pixels, colours, protocol.seed) for kind in (protocol.fill, protocol.canvas)]
    jobs, rows, masks = [], [], []  # curves' points, which image each is about, changed images
    places: dict[tuple, int] = {}
    for name, map_ in maps.items():
        height, width = size
        heat = map_ if map_.shape == size else onto_image(map_, (0, 0, width, height), (width, height))
        order, last = _order(heat, protocol.seed), round(protocol.span * heat.size)
        for game in games:
            for taken in np.unique(np.rint(np.linspace(0, last, protocol.points)).astype(int)):
                jobs.append((name, game, taken / heat.size))
                whose = name if 0 < taken < heat.size else ""  # all of the image, and none of it, is alike for all maps
                rows.append(places.setdefault((whose, *jobs[-1][1:]), len(masks)))
                if rows[-1] == len(masks):
                    masks.append((order, taken, game == "deletion"))

    def changed(start: int) -> Tensor:
        """Return images (B, 3, H, W), from mask number `start` on."""
        touched = np.stack([order < taken for order, taken, _ in masks[start : start + batch]])
        touched = torch.from_numpy(touched).to(pixels.device)[:, None]  # (B, 1, H, W)
        deletes = torch.tensor([deleted for *_, deleted in masks[start : start + batch]], device=pixels.device)
        deleted, inserted = torch.where(touched, blanks[0], pixels), torch.where(touched, pixels, blanks[1])
        return torch.where(deletes[:, None, None, None], deleted, inserted)

    scores = np.concatenate([_answer(score, changed(start)) for start in range(0, len(masks), batch)])
    return pd.DataFrame(jobs, columns=_CURVE).assign(score=scores[rows])


def image_score(encode: Callable[..., Tensor], target: Tensor) -> Score:
    """Return a score for `image_curves` and `word_curves`: the similarity with a target embedding (E,)."""
    encode = instance("encode", encode, Callable, "a function")
    if not isinstance(target, Tensor) or target.ndim != 1 or not torch.isfinite(target).all():
        raise GradeclipError(f"target must be a tensor (E,) of finite numbers, got {short(target)}")
    target = F.normalize(target.float(), dim=-1)

    def score(images: Tensor) -> Tensor:
        """Return similarities (B,) of images or captions."""
        embeddings = F.normalize(encode(images).float(), dim=-1)
        if embeddings.shape[-1] != target.shape[-1]:
            msg = f"the model's embeddings have width {embeddings.shape[-1]}, and the target's is {target.shape[-1]}"
            raise GradeclipError(msg)
        return embeddings @ target.to(embeddings.device)

    return score


def colours_of(preprocess: Callable) -> Colours:
    """Return mean and deviation of a preprocessing's normalisation."""
    for step in getattr(preprocess, "transforms", [preprocess]):
        if isinstance(step, Normalize):
            return tuple(step.mean), tuple(step.std)
    msg = "the preprocessing has no Normalize step: give the model's mean and deviation of colours by hand"
    raise GradeclipError(msg)


@torch.no_grad()
def word_curves(
    score: Score, caption: str, scores: Mapping[str, Sequence[float]], spans: Sequence[tuple[int, int]], seed: int = 0
) -> pd.DataFrame:
    """Deletion and insertion curves of a caption's words; the words that are left keep their order.

    Words go one after the other, from the whole caption to the empty one; ties are ordered by `seed`.

    >>> spans = [(word.start, word.end) for word in explanation.words[0]]                  # doctest: +SKIP
    >>> scores = {"grad-eclip": [word.score for word in explanation.words[0]]}             # doctest: +SKIP
    >>> score = image_score(lambda said: tower.forward(clip.tokenizer(said)), embedding)   # doctest: +SKIP
    >>> word_curves(score, caption, scores, spans)                                         # doctest: +SKIP

    Args:
        score: a list of B captions -> numbers (B,); `image_score` makes it of an image's embedding.
        caption: the caption.
        scores: for each method one number a word.
        spans: (start, end) of each of the W words, `caption[start:end]`. Letters outside of all spans always stay.
        seed: of the order of ties.

    Returns:
        Rows of method, game, fraction (of the words that are gone, or back) and score, curve by curve.

    Raises:
        GradeclipError: a caption without words, scores that are not one a word or not finite.
    """
    seed, spans = checks.seed(seed), _checked_spans(text("caption", caption), spans)
    if not spans:
        raise GradeclipError(f"a caption needs at least one word, got {caption!r}")
    jobs, captions = [], []
    for name, given in _by_name("scores", scores).items():
        values = finite(f"the scores of {name!r}", given)
        if values.shape != (len(spans),):
            words = [caption[start:end] for start, end in spans]
            msg = f"{name!r} needs one finite score for each of {len(words)} words {words}, got {values}"
            raise GradeclipError(msg)
        order = _order(values, seed)
        for game in GAMES:
            for taken in range(len(spans) + 1):
                gone = order < taken if game == "deletion" else order >= taken
                jobs.append((name, game, taken / len(spans)))
                captions.append(_without(caption, [span for span, is_gone in zip(spans, gone, strict=True) if is_gone]))
    return pd.DataFrame(jobs, columns=_CURVE).assign(score=_answer(score, captions))


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Area under each curve over its range, by trapezia: its mean height.

    >>> curve = pd.DataFrame({"method": "a", "fraction": [0.0, 0.25, 0.5], "score": [1.0, 0.5, 0.0]})
    >>> areas(curve)["auc"].tolist()
    [0.5]

    Args:
        curves: as `image_curves` and `word_curves` give them; columns other than fraction and score tell curves apart.

    Returns:
        One row a curve: those columns, and `auc`; ready for `statistics.summarise` once a column names the image.

    Raises:
        GradeclipError: a curve of one point, fractions that do not grow, NaN, a column that is missing.
    """
    columns(curves, ("method", "fraction", "score"))
    keys = [name for name in curves if name not in ("fraction", "score")]
    records = []
    for group, curve in curves.groupby(keys, sort=False, dropna=False):
        fraction, height = (finite(f"the {name} of a curve", curve[name]) for name in ("fraction", "score"))
        if len(fraction) < 2 or (np.diff(fraction) <= 0).any():
            msg = f"the curve of {group} must have two points or more, with growing fractions: {fraction}"
            raise GradeclipError(msg)
        records.append((*group, np.trapezoid(height, fraction) / (fraction[-1] - fraction[0])))
    return pd.DataFrame(records, columns=[*keys, "auc"])


def _checked_maps(pixels: Tensor, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the maps as floats, checked, as the pixels are."""
    if not isinstance(pixels, Tensor) or pixels.ndim != 3 or len(pixels) != 3 or not pixels.is_floating_point():
        msg = f"pixels must be one input of the model, a float tensor (3, H, W), got {tuple(np.shape(pixels))}"
        raise GradeclipError(msg)
    if not torch.isfinite(pixels).all():
        raise GradeclipError("pixels must be finite, and some are NaN or infinite")
    found = {}
    for name, given in _by_name("maps", maps).items():
        map_ = finite(f"the map of {name!r}", given).astype(float, copy=False)
        if map_.ndim != 2 or not all(0 < a <= b for a, b in zip(map_.shape, pixels.shape[1:], strict=True)):
            raise GradeclipError(
                f"the map of {name!r} has shape {map_.shape}: it must be on the token grid or in the pixels of the "
                f"model's input {tuple(pixels.shape[1:])}; bring an image's heat map there with localisation.pool",
            )
        found[name] = map_
    return found


def _by_name(what: str, given: Mapping) -> Mapping:
    if not isinstance(given, Mapping) or not given:
        raise GradeclipError(f"{what} must be a dict, by the names of methods, got {short(given)}")
    return given


def _checked_spans(caption: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if not (given := listed("spans", spans)):
        return []
    found = finite("spans", given).astype(int)
    if (found.shape != (len(given), 2) or not ((found >= 0) & (found <= len(caption))).all()
            or not (found[:, 0] < found[:, 1]).all()):  # fmt: skip
        raise GradeclipError(f"spans must be (start, end) within {caption!r}, got {short(spans)}")
    return [(int(start), int(end)) for start, end in found]


def _answer(score: Score, batch: Tensor | list[str]) -> np.ndarray:
    """Return the scores (B,) of a batch, all of them finite."""
    answer = instance("score", score, Callable, "a function")(batch)
    found = finite("a score", answer).astype(float, copy=False)
    if found.shape != (len(batch),):
        msg = f"a score is one number for each of a batch of {len(batch)}, got {found.shape}"
        raise GradeclipError(msg)
    return found


def _blank(kind: str, pixels: Tensor, colours: Colours | None, seed: int) -> Tensor:
    """Return the pixels of an empty image, (3, H, W) or (3, 1, 1), as the model's input."""
    if kind == "mean":
        return pixels.mean(dim=(1, 2), keepdim=True)
    if colours is None:
        msg = f"{kind!r} pixels need the model's normalisation: colours=colours_of(clip.preprocess)"
        raise GradeclipError(msg)
    given = finite("colours", colours)
    if given.shape != (2, 3) or not (given[1] > 0).all():
        raise GradeclipError(f"colours must be mean and deviation of three channels, got {colours!r}")
    mean, deviation = torch.tensor(given, dtype=torch.float32)[:, :, None, None]
    colour = torch.zeros(3, 1, 1)
    if kind == "random":
        colour = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return ((colour - mean) / deviation).to(pixels)


def _order(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the place of each value when the largest comes first; the seed decides ties."""
    flat = levelled(values).ravel()
    order = np.lexsort((np.random.default_rng(seed).permutation(flat.size), -flat))
    places = np.empty(flat.size, dtype=int)
    places[order] = np.arange(flat.size)
    return places.reshape(values.shape)


def _without(caption: str, spans: list[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        caption = f"{caption[:start]} {caption[end:]}"
    return " ".join(caption.split())
