"""Pairs of images and captions in which nothing but one attribute differs: does a model know who is red?

    kind of attribute -> pairs: two images, two captions -> embeddings -> one row per image ->
    accuracy

Each image of a pair is asked which of the two captions is its own, so each caption is right once
and wrong once, and a scorer that looks at the captions alone is right in exactly one of two (Hsieh
et al., "SugarCrepe", NeurIPS 2023, show what such a scorer reaches elsewhere). This is the text
score of Winoground (Thrush et al., CVPR 2022), one image at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from gradeclip_utils.checks import chosen, whole
from gradeclip_utils.explainer import Explainer
from gradeclip_utils.measures.statistics import mean_interval
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import (
    CANVAS,
    COLOURS,
    IMAGE_SIZE,
    SPLITS,
    Object,
    Scene,
    Span,
    arrange,
    concepts,
    draw_layout,
)
from gradeclip_utils.scenes.emoji import BACKGROUNDS
from gradeclip_utils.scenes.grammar import relation_between
from gradeclip_utils.scenes.scene import BIG, SIZES, SMALL, is_withheld_colour, is_withheld_pair

# kind of attribute -> the kind of the caption's words (`Span.kind`) that say it
KINDS = {
    "object identity": "noun",
    "colour": "colour",
    "size": "size",
    "count": "count",
    "left / right": "relation",
    "above / below": "relation",
    "bigger / smaller": "relation",
    "swapped colours": "colour",
    "swapped sizes": "size",
}
SWAPPED = (
    "swapped colours",
    "swapped sizes",
)  # both captions hold the same words: only binding tells them apart
COMPOSITIONS = ("seen", "withheld")
_ANY_NUMBER = ("object identity", "colour", "size", *SWAPPED)  # of objects; the other kinds fix it
_BIGGEST = 45.0  # of what pairs call big, so that two of them leave room for two others
_OF_FOUR = (SIZES[0], 34.0)  # sizes, where three of a kind and another thing find room


@dataclass(frozen=True)
class Pair:
    """Two scenes that differ in one attribute of the objects `asked`; the caption of each is wrong for the other."""

    name: str
    kind: str
    composition: str
    scenes: tuple[Scene, Scene]
    asked: tuple[int, ...]

    def words(self, side: int) -> list[Span]:
        """The words of caption 0 or 1 that the other says otherwise, in reading order."""
        scene = self.scenes[side]
        mine = [
            span
            for span in scene.spans
            if span.kind == KINDS[self.kind] and span.objects[0] in self.asked
        ]
        return sorted(mine, key=lambda span: span.start)


# -------------------------------------------------------------------------------------------- pairs


def draw_pairs(
    kind: str,
    n: int = 50,
    *,
    objects: int | None = None,
    composition: str = "seen",
    split: str = "development",
    nouns: int = 64,
) -> list[Pair]:
    """`n` random pairs of one kind of attribute; the same arguments always give the same ones."""
    given = (
        ("kind", kind, KINDS),
        ("composition", composition, COMPOSITIONS),
        ("split", split, SPLITS),
    )
    for name, value, known in given:
        chosen(name, value, known)
    n = whole("n", n, 0, 100_000)
    allowed = (2, 3, 4) if kind in _ANY_NUMBER else (4,) if kind == "count" else (2,)
    objects = allowed[0] if objects is None else chosen(f"objects of {kind!r}", objects, allowed)
    withheld = composition == "withheld"
    rng = np.random.default_rng([60, SPLITS[split], 0, list(KINDS).index(kind), objects, withheld])
    found: list[Pair] = []
    while len(found) < n:
        drawn = _DRAWN[kind](rng, _pool(nouns), objects, withheld)
        if drawn is not None and all(_fits(scene, kind, withheld) for scene in drawn[0]):
            name = f"{kind}, {objects}, {composition}, {len(found)}"
            found.append(Pair(name, kind, composition, *drawn))
    return found


def _fits(scene: Scene, kind: str, withheld: bool) -> bool:
    """Whether what is withheld in a scene is what should be: nothing, a noun with a colour, or two nouns together."""
    pairs = any(is_withheld_pair(a.noun, b.noun) for a, b in combinations(scene.objects, 2))
    colours = any(is_withheld_colour(thing.noun, thing.colour) for thing in scene.objects)
    return (pairs, colours) == ((False, withheld) if KINDS[kind] == "colour" else (withheld, False))


@lru_cache(maxsize=4)
def _pool(nouns: int) -> tuple[str, ...]:
    """Concepts that can be counted, drawn once and for all."""
    table = concepts().query("plural != '' and article != ''")
    chosen = np.random.default_rng(61).permutation(len(table))[:nouns]
    return tuple(table.index[chosen])


def _things(
    rng: np.random.Generator, nouns: Sequence[str], sizes: Sequence[float] = ()
) -> list[Object]:
    """Objects drawn and laid out as training draws and lays out its own; of given sizes where sizes matter."""
    things = arrange(list(nouns), seed=int(rng.integers(2**32))).objects
    if not sizes:
        return list(things)
    places = draw_layout(rng, sizes=sizes)
    return [
        replace(thing, x=x, y=y, size=size)
        for thing, (x, y, size) in zip(things, places, strict=True)
    ]


def _nouns(rng: np.random.Generator, pool: Sequence[str], n: int, withheld: bool) -> list[str]:
    """`n` different nouns, of which two are withheld from training together, or none."""
    while True:
        nouns = [str(noun) for noun in rng.choice(pool, n, replace=False)]
        if any(is_withheld_pair(*pair) for pair in combinations(nouns, 2)) == withheld:
            return nouns


def _both(
    rng: np.random.Generator, first: Sequence[Object], second: Sequence[Object], said=({}, {})
) -> tuple:
    background = int(rng.integers(BACKGROUNDS))
    scenes = zip((first, second), said, strict=True)
    return tuple(
        arrange(list(things), background=background, **caption) for things, caption in scenes
    )


def _changed(things: Sequence[Object], i: int, **change) -> list[Object]:
    return [replace(thing, **change) if k == i else thing for k, thing in enumerate(things)]


def _identity(rng, pool, n, withheld):
    things, i = _things(rng, _nouns(rng, pool, n, withheld)), int(rng.integers(n))
    (other,) = _things(
        rng, rng.choice([noun for noun in pool if noun not in {thing.noun for thing in things}], 1)
    )
    at = {"x": things[i].x, "y": things[i].y, "size": things[i].size}
    return _both(rng, things, [*things[:i], replace(other, **at), *things[i + 1 :]]), (i,)


def _colour(rng, pool, n, withheld):
    things, i = _things(rng, _nouns(rng, pool, n, False)), int(rng.integers(n))
    fitting = [c for c in COLOURS if is_withheld_colour(things[i].noun, c) == withheld]
    if len(fitting) < 2:
        return None
    one, two = rng.choice(fitting, 2, replace=False)
    return _both(rng, _changed(things, i, colour=str(one)), _changed(things, i, colour=str(two))), (
        i,
    )


def _swapped_colours(rng, pool, n, withheld):
    things = _things(rng, _nouns(rng, pool, n, False))
    i, j = (int(k) for k in rng.choice(n, 2, replace=False))
    a, b = things[i].noun, things[j].noun
    fitting = [
        (c, d)
        for c, d in permutations(COLOURS, 2)
        if all(
            (is_withheld_colour(a, x) or is_withheld_colour(b, y)) == withheld
            for x, y in ((c, d), (d, c))
        )
    ]
    if not fitting:
        return None
    chosen = fitting[rng.integers(len(fitting))]
    others = [str(c) for c in rng.permutation([c for c in COLOURS if c not in chosen])]
    colours = {i: chosen[0], j: chosen[1]}
    first = [replace(thing, colour=colours.get(k, others[k])) for k, thing in enumerate(things)]
    second = _changed(_changed(first, i, colour=chosen[1]), j, colour=chosen[0])
    return _both(rng, first, second), (i, j)


def _sizes(rng, pool, n, withheld, asked: Sequence[int]):
    """Small and big things at `asked`, first so and then the other way round; the captions say these sizes."""
    small, big = rng.uniform(SIZES[0], SMALL), rng.uniform(BIG, _BIGGEST)
    others = rng.uniform(SIZES[0], SMALL, n)  # which are not called so
    room = [float(big if k in asked else others[k]) for k in range(n)]
    things, scenes = _things(rng, _nouns(rng, pool, n, withheld), room), []
    for turn in (0, 1):
        large = {k: place % 2 != turn for place, k in enumerate(asked)}
        sized = [
            replace(thing, size=float(big if large[k] else small)) if k in large else thing
            for k, thing in enumerate(things)
        ]
        said = [("big" if large[k] else "small") if k in large else "" for k in range(n)]
        scenes.append((sized, {"size": said}))
    (first, one), (second, two) = scenes
    return _both(rng, first, second, (one, two)), tuple(asked)


def _count(rng, pool, n, withheld):
    kind, other = _nouns(rng, pool, 2, withheld)
    size, last = float(rng.uniform(*_OF_FOUR)), bool(rng.integers(2))
    *many, alone = _things(rng, [kind] * 3 + [other], [size] * 3 + [float(rng.uniform(*_OF_FOUR))])
    two, three = ([alone, *group] if last else [*group, alone] for group in (many[:2], many))
    return _both(rng, two, three), ((1,) if last else (0,))


def _position(rng, pool, withheld, across: bool):
    """Two things of one size that lie more side by side than one above the other, or the other way round."""
    one, two = _things(rng, _nouns(rng, pool, 2, withheld), [float(rng.uniform(SMALL, BIG))] * 2)
    apart = abs(one.x - two.x), abs(one.y - two.y)
    if apart[not across] < 2 * apart[across]:
        return None
    first, second = [one, two], [replace(one, x=two.x, y=two.y), replace(two, x=one.x, y=one.y)]
    return _both(
        rng, first, second, [{"relation": relation_between(a, b)} for a, b in (first, second)]
    ), (0,)


def _comparison(rng, pool, n, withheld):
    (first, second), _ = _sizes(rng, pool, 2, withheld, [0, 1])
    relations = [
        {"relation": relation_between(*scene.objects, kind="size")} for scene in (first, second)
    ]
    scenes = zip((first, second), relations, strict=True)
    return tuple(
        arrange(list(scene.objects), background=scene.background, **said) for scene, said in scenes
    ), (0,)


_DRAWN: dict[str, Callable] = {
    "object identity": _identity,
    "colour": _colour,
    "count": _count,
    "size": lambda rng, pool, n, withheld: _sizes(rng, pool, n, withheld, [int(rng.integers(n))]),
    "swapped sizes": lambda rng, pool, n, withheld: _sizes(
        rng, pool, n, withheld, [int(k) for k in rng.choice(n, 2, replace=False)]
    ),
    "left / right": lambda rng, pool, n, withheld: _position(rng, pool, withheld, True),
    "above / below": lambda rng, pool, n, withheld: _position(rng, pool, withheld, False),
    "bigger / smaller": _comparison,
    "swapped colours": _swapped_colours,
}


# ------------------------------------------------------------------------------------------ answers


def image_pixels(clip: Clip) -> int:
    """The pixels on a side at which scenes are drawn for a model: no more than it needs, a multiple of `CANVAS`."""
    size = getattr(getattr(clip.model, "visual", None), "image_size", IMAGE_SIZE)
    wanted = max(size) if isinstance(size, (tuple, list)) else size
    return min(IMAGE_SIZE, CANVAS * math.ceil(wanted / CANVAS))


def images_of(clip: Clip, scenes: Sequence[Scene]) -> list[Image.Image]:
    """The B images of scenes, square, no larger than the model needs."""
    return [_image(scene, image_pixels(clip)) for scene in scenes]


@lru_cache(maxsize=4096)  # several models are shown the same images
def _image(scene: Scene, pixels: int) -> Image.Image:
    return scene.image(pixels)


def embed_scenes(explainer: Explainer, scenes: Sequence[Scene]) -> Tensor:
    """Unit image embeddings (N, E) on the CPU, from images as large as the model sees them."""
    return explainer.embed_images(
        image for scene in scenes for image in images_of(explainer.clip, [scene])
    ).cpu()


class Embedded(NamedTuple):
    """Unit embeddings of pairs: images and captions, (P, 2, E) each."""

    images: Tensor
    texts: Tensor


def embed_pairs(clip: Clip, pairs: Sequence[Pair]) -> Embedded:
    """Embed both images and both captions of pairs."""
    scenes, explainer = [scene for pair in pairs for scene in pair.scenes], Explainer(clip)
    found = (
        embed_scenes(explainer, scenes),
        explainer.embed_texts([one.caption for one in scenes]).cpu(),
    )
    return Embedded(*(one.unflatten(0, (-1, 2)) for one in found))


def judge(clip: Clip, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Ask both images of every pair which caption is theirs: one row per image, see `answers`."""
    return answers(pairs, embed_pairs(clip, pairs))


def answers(pairs: Sequence[Pair], embedded: Embedded) -> pd.DataFrame:
    """What embeddings answer: one row per image.

    Columns pair, kind, composition, side; similarity to the own caption and to the other one, and
    the margin; right (1, 0 or .5), right_image (the same asked of captions: which image is yours?),
    and text_only: what a scorer answers who sees the mean of all images instead of the image.
    """
    images, texts = (one.double() for one in embedded)
    scores, prior = (images @ texts.transpose(1, 2)).numpy(), (texts @ images.mean((0, 1))).numpy()
    rows = []
    for pair, similarity, blind in zip(pairs, scores, prior, strict=True):
        about = {"pair": pair.name, "kind": pair.kind, "composition": pair.composition}
        for side in (0, 1):
            own, other = similarity[side, side], similarity[side, 1 - side]
            answer = {
                "side": side,
                "similarity": own,
                "other_similarity": other,
                "margin": own - other,
            }
            asked = own - other, own - similarity[1 - side, side], blind[side] - blind[1 - side]
            found = zip(("right", "right_image", "text_only"), map(_right, asked), strict=True)
            rows.append({**about, **answer, **dict(found)})
    return pd.DataFrame(rows)


def all_right(rows: pd.DataFrame) -> pd.Series:
    """Winoground's group score of each pair: 1 if both images find their caption and both captions their image."""
    return (
        rows.groupby("pair", sort=False)[["right", "right_image"]].min().min(axis=1) == 1
    ).astype(float)


def right_interval(right: ArrayLike, clusters: Sequence) -> np.ndarray:
    """The 95 % interval of a fraction of right answers; Wilson's if all are alike, where a bootstrap has no width."""
    kind = "proportion" if np.mean(right) in (0, 1) else "mean"
    return mean_interval(right, clusters, kind=kind)


def _right(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)
