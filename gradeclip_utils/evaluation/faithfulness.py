"""Faithfulness: what a map calls important is taken away, or given back, and the model is asked again.

    map --order--> changed images or captions --unmodified model--> curve --area--> one number an image

*Deletion* removes what the map ranks highest first: the score should fall early, so a small area under the curve is
good. *Insertion* starts from an empty canvas and brings the highest back first: the score should rise early, so a large
area is good. (Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC
2018.) An area is divided by the range it was taken over, so it is the mean height of the curve.

Three choices decide what such a figure means, and all are arguments here:

- **What the model sees.** Pixels are removed from the model's own input, after its preprocessing, and a map is on that
  input. Nobody's map is stretched over a crop that it was not made for.
- **How far.** `PUBLISHED` removes half of the pixels, read in steps of 5 % (Grad-ECLIP's evaluation: 100 steps of
  0.5 %, read every 10), on uniform noise, and inserts on black. Half a curve ignores how the lower half is ranked.
  `FULL` goes all the way. (The published insertion script does not read its empty canvas, and appends the whole
  image as an eleventh point; ours reads 0 to 50 %, as for deletion.)
- **Ties.** Equal values are ordered at random, by the seed, the same way for every map; raster order would give a
  constant map the top of the image as its opinion.

Scores come from the unmodified model. `similarity` is a cosine; `accuracy` is 1 or 0, whether the true class is
the nearest of all.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import Normalize

from .. import checks
from ..checks import chosen, whole
from ..errors import InvalidValue
from ..images import onto_image
from .localisation import levelled

GAMES = ("deletion", "insertion")
_FILLS = ("mean", "random", "black")
_UNITS = ("pixel", "patch")
MOST_POINTS = 1001  # of a curve, each of which is a forward pass
Score = Callable[..., Mapping[str, Tensor] | Tensor]  # of a batch: one number each, or several by name
Colours = tuple[Sequence[float], Sequence[float]]  # mean and deviation of the model's normalisation


@dataclass(frozen=True)
class Protocol:
    """How an image is taken apart and put together. The defaults are the published ones, see `PUBLISHED`.

    Attributes:
        span: the fraction of the image that is removed or inserted in the end: 0.5 is the half range, 1 the full one.
        points: how many points of the curve are read, evenly from 0 to `span`; None reads after every unit.
        unit: "pixel", or "patch": whole cells of the map's token grid, which fits small grids and costs fewer points.
        fill: what deleted pixels become: "random" (uniform in colour, seeded), "mean" (the image's own mean colour)
            or "black".
        canvas: what insertion starts from: the same choices.
        seed: of the random pixels and of the order of ties.
    """

    span: float = 0.5
    points: int | None = 11
    unit: str = "pixel"
    fill: str = "random"
    canvas: str = "black"
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.span <= 1:
            msg = f"span is the fraction that is removed in the end, in (0, 1], got {self.span!r}"
            raise InvalidValue(msg, "curve-option")
        if self.points is not None:
            whole("points", self.points, 2, MOST_POINTS)
        for name, value, known in (
            ("unit", self.unit, _UNITS),
            ("fill", self.fill, _FILLS),
            ("canvas", self.canvas, _FILLS),
        ):
            chosen(name, value, known)
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
        score: changed images (B, 3, H, W) -> numbers (B,), or several by name; see `image_score`.
        pixels: (3, H, W) the model's input, as its own preprocessing makes it.
        maps: for each method a map of *this input*, signed or not: (h, w) on its token grid, resized as heat maps are,
            or (H, W) in its pixels. A heat map in the image's own pixels must be cropped to what the model sees
            first: `localisation.pool(heat, pixels.shape[1:], explanation.box)`.
        protocol: how far, in which units, with what in place of what is gone.
        colours: mean and deviation of the model's normalisation, which "random" and "black" need; `colours_of`.
        games: "deletion", "insertion" or both.
        batch: how many changed images go through the model at once.

    Returns:
        Rows of method, game, measure, fraction (of the units that are gone, or back) and score, curve by curve.

    Raises:
        ValueError: a map that is not finite or does not fit the input, pixels of another shape, colours that are
            missing, an unknown game.
    """
    _check_image(pixels, maps, games)
    size = tuple(pixels.shape[1:])
    blanks = [_blank(kind, pixels, colours, protocol.seed) for kind in (protocol.fill, protocol.canvas)]
    jobs, masks = [], []  # rows of the table; changed images
    places: dict[tuple, int] = {}  # which image a row is about
    for name, map_ in maps.items():
        order, count = _ranks(np.asarray(map_, dtype=float), size, protocol)
        for game in games:
            for taken in _readings(count, protocol.span, protocol.points):
                jobs.append((name, game, taken / count))
                whose = name if 0 < taken < count else ""  # all of the image, and none of it, is the same for every map
                if places.setdefault((whose, *jobs[-1][1:]), len(masks)) == len(masks):
                    masks.append((order, taken, game == "deletion"))
    rows = [places.get(job, places.get(("", *job[1:]))) for job in jobs]

    def changed(start: int) -> Tensor:
        """Images (B, 3, H, W), from mask number `start` on."""
        touched = np.stack([order < taken for order, taken, _ in masks[start : start + batch]])
        touched = torch.from_numpy(touched).to(pixels.device)[:, None]  # (B, 1, H, W)
        deletes = torch.tensor([deleted for *_, deleted in masks[start : start + batch]], device=pixels.device)
        deleted, inserted = torch.where(touched, blanks[0], pixels), torch.where(touched, pixels, blanks[1])
        return torch.where(deletes[:, None, None, None], deleted, inserted)

    return _table(jobs, (score(changed(start)) for start in range(0, len(masks), batch)), rows)


def image_score(
    encode: Callable[..., Tensor], target: Tensor, classes: Tensor | None = None, label: int | None = None
) -> Score:
    """A score for `image_curves`: the similarity with `target` (E,), and zero-shot accuracy if there are classes.

    With captions for images, and an image's embedding for the target, it is one for `word_curves`.

    Args:
        encode: images (B, 3, H, W) -> embeddings (B, E) by the unmodified model; `explainer.image_tower.forward`.
        target: the embedding of the prompt.
        classes: (C, E) embeddings of all classes.
        label: which of them is the true one.

    Returns:
        A function: changed images (B, 3, H, W) -> `similarity` (B,) and, with classes, `accuracy` (B,), 0 or 1.

    Raises:
        ValueError: classes without a label, or a label without classes.
    """
    if (classes is None) != (label is None):
        raise InvalidValue("accuracy needs both classes (C, E) and the label of the true one", "curve-option")
    target = F.normalize(target.float(), dim=-1)

    def score(images: Tensor) -> dict[str, Tensor]:
        """Numbers (B,) by name, of images or captions."""
        embeddings = F.normalize(encode(images).float(), dim=-1)
        scores = {"similarity": embeddings @ target.to(embeddings.device)}
        if classes is not None:
            nearest = (embeddings @ F.normalize(classes.float(), dim=-1).to(embeddings.device).T).argmax(-1)
            scores["accuracy"] = (nearest == label).float()
        return scores

    return score


def colours_of(preprocess: Callable) -> Colours:
    """Mean and deviation by which a model's preprocessing normalises colours.

    Args:
        preprocess: `clip.preprocess`.

    Returns:
        Both as (red, green, blue), of values in 0 to 1.

    Raises:
        ValueError: it has no Normalize step.
    """
    for step in getattr(preprocess, "transforms", [preprocess]):
        if isinstance(step, Normalize):
            return tuple(step.mean), tuple(step.std)
    msg = "the preprocessing has no Normalize step: give the model's mean and deviation of colours by hand"
    raise InvalidValue(msg, "curve-option")


@torch.no_grad()
def word_curves(
    score: Score, caption: str, scores: Mapping[str, Sequence[float]], spans: Sequence[tuple[int, int]] | None = None,
    *, seed: int = 0, batch: int = 64,
) -> pd.DataFrame:  # fmt: skip
    """Deletion and insertion of words: as `image_curves`, and what is left of the caption keeps its order.

    Every word counts, one after the other, from the whole caption to the empty one; ties are ordered by `seed`.

    >>> spans = [(word.start, word.end) for word in explanation.words[0]]                  # doctest: +SKIP
    >>> scores = {"grad-eclip": [word.score for word in explanation.words[0]]}             # doctest: +SKIP
    >>> score = image_score(lambda said: tower.forward(clip.tokenizer(said)), embedding)   # doctest: +SKIP
    >>> word_curves(score, caption, scores, spans)                                         # doctest: +SKIP

    Args:
        score: a list of B captions -> numbers (B,), or several by name; `image_score` makes it of an image's embedding.
        caption: the caption.
        scores: for each method one number a word.
        spans: where the W words stand, `caption[start:end]`; cut at white space if left out. What no span covers
            stays in every caption, however many words are deleted.
        seed: of the order of ties.
        batch: how many changed captions go through the model at once.

    Returns:
        Rows of method, game, measure, fraction (of the words that are gone, or back) and score, curve by curve.

    Raises:
        ValueError: a caption without words, scores that are not one a word or not finite.
    """
    spans = [match.span() for match in re.finditer(r"\S+", caption)] if spans is None else list(spans)
    if not spans:
        raise InvalidValue(f"a caption needs at least one word, got {caption!r}", "curve-option")
    jobs, captions = [], []
    for name, given in scores.items():
        values = np.asarray(given, dtype=float)
        if values.shape != (len(spans),) or not np.isfinite(values).all():
            words = [caption[start:end] for start, end in spans]
            msg = f"{name!r} needs one finite score for each of {len(words)} words {words}, got {values}"
            raise InvalidValue(msg, "curve-option")
        order = _order(values, seed)
        for game in GAMES:
            for taken in range(len(spans) + 1):
                gone = order < taken if game == "deletion" else order >= taken
                jobs.append((name, game, taken / len(spans)))
                captions.append(_without(caption, [span for span, is_gone in zip(spans, gone, strict=True) if is_gone]))
    return _table(jobs, (score(captions[start : start + batch]) for start in range(0, len(jobs), batch)))


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
        ValueError: a curve of one point, or whose fractions do not grow.
    """
    keys = [name for name in curves if name not in ("fraction", "score")]
    records = []
    for group, curve in curves.groupby(keys, sort=False, dropna=False):
        fraction, height = curve["fraction"].to_numpy(), curve["score"].to_numpy()
        if len(fraction) < 2 or (np.diff(fraction) <= 0).any():
            msg = f"the curve of {group} must have two points or more, with growing fractions: {fraction}"
            raise InvalidValue(msg, "curve-option")
        records.append((*group, np.trapezoid(height, fraction) / (fraction[-1] - fraction[0])))
    return pd.DataFrame(records, columns=[*keys, "auc"])


def _check_image(pixels: Tensor, maps: Mapping[str, np.ndarray], games: Sequence[str]) -> None:
    if isinstance(games, str) or not games or not set(games) <= set(GAMES):
        raise InvalidValue(f"games must be a list of 'deletion', 'insertion' or both, got {games!r}", "curve-option")
    if not isinstance(pixels, Tensor) or pixels.ndim != 3 or len(pixels) != 3:
        msg = f"pixels must be one input of the model, a tensor (3, H, W), got {tuple(np.shape(pixels))}"
        raise InvalidValue(msg, "curve-option")
    for name, map_ in maps.items():
        if np.ndim(map_) != 2 or not all(0 < a <= b for a, b in zip(np.shape(map_), pixels.shape[1:], strict=True)):
            raise InvalidValue(
                f"the map of {name!r} has shape {np.shape(map_)}: it must be on the token grid or in the pixels of the "
                f"model's input {tuple(pixels.shape[1:])}; bring an image's heat map there with localisation.pool",
                "curve-option",
            )
        if not np.isfinite(map_).all():
            msg = f"the map of {name!r} holds NaN or infinite values; it has no order to delete by"
            raise InvalidValue(msg, "curve-option")


def _blank(kind: str, pixels: Tensor, colours: Colours | None, seed: int) -> Tensor:
    """What stands where there is no image, (3, H, W) or (3, 1, 1), as the model's input."""
    if kind == "mean":
        return pixels.mean(dim=(1, 2), keepdim=True)
    if colours is None:
        msg = f"{kind!r} pixels need the model's normalisation: colours=colours_of(clip.preprocess)"
        raise InvalidValue(msg, "curve-option")
    mean, deviation = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in colours)
    colour = torch.zeros(3, 1, 1)
    if kind == "random":
        colour = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return ((colour - mean) / deviation).to(pixels)


def _ranks(map_: np.ndarray, size: tuple[int, int], protocol: Protocol) -> tuple[np.ndarray, int]:
    """The place of each pixel (H, W) in the order, 0 for the most relevant, and how many places there are."""
    if protocol.unit == "pixel":
        height, width = size
        heat = map_ if map_.shape == size else onto_image(map_, (0, 0, width, height), (width, height))
        return _order(heat, protocol.seed), heat.size
    if map_.shape == size or any(a % b for a, b in zip(size, map_.shape, strict=True)):
        msg = f"patches need a map on the token grid of the input {size}, got shape {map_.shape}"
        raise InvalidValue(msg, "curve-option")
    cell = np.ones([a // b for a, b in zip(size, map_.shape, strict=True)], dtype=int)
    return np.kron(_order(map_, protocol.seed), cell), map_.size


def _order(values: np.ndarray, seed: int) -> np.ndarray:
    """The place of each value when the largest comes first; ties in an order that the seed decides."""
    flat = levelled(values).ravel()
    order = np.lexsort((np.random.default_rng(seed).permutation(flat.size), -flat))
    places = np.empty(flat.size, dtype=int)
    places[order] = np.arange(flat.size)
    return places.reshape(values.shape)


def _readings(count: int, span: float, points: int | None) -> np.ndarray:
    """How many of `count` units are gone at each point that is read."""
    last = round(span * count)
    return np.arange(last + 1) if points is None else np.unique(np.rint(np.linspace(0, last, points)).astype(int))


def _without(caption: str, spans: list[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        caption = f"{caption[:start]} {caption[end:]}"
    return " ".join(caption.split())


def _table(jobs: list[tuple], answers: Iterator[Mapping[str, Tensor] | Tensor], rows: Sequence | None = None):
    """Rows of method, game, measure, fraction and score, curve by curve; `rows` says which answer is whose."""
    named = [answer if isinstance(answer, Mapping) else {"score": answer} for answer in answers]
    parts = []
    for measure in named[0]:
        scores = np.concatenate([torch.as_tensor(answer[measure]).detach().float().cpu().numpy() for answer in named])
        part = pd.DataFrame(jobs, columns=["method", "game", "fraction"])
        part.insert(2, "measure", measure)
        parts.append(part.assign(score=scores[slice(None) if rows is None else rows].astype(float)))
    return pd.concat(parts, ignore_index=True)
