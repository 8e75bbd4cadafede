"""Pairs of images and captions in which nothing but one attribute differs.

Does a model know who is red?

    kind of attribute -> pairs: two images, two captions -> embeddings -> one row per image

Each image of a pair is asked which of the two captions is its own, so each caption is right once
and wrong once, and a scorer that looks at the captions alone is right in exactly one of two (Hsieh
et al., "SugarCrepe", NeurIPS 2023, show what such a scorer reaches elsewhere). This is the text
score of Winoground (Thrush et al., CVPR 2022), one image at a time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from gradeclip_utils import Explainer
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
)
from gradeclip_utils.scenes.emoji import BACKGROUNDS
from gradeclip_utils.scenes.grammar import relation_between
from gradeclip_utils.scenes.scene import (
    BIG,
    SIZES,
    SMALL,
    draw_layout,
    is_withheld_colour,
    is_withheld_pair,
)

from .relevance import as_array

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
SWAPPED = ("swapped colours", "swapped sizes")  # both captions hold the same words
COMPOSITIONS = ("seen", "withheld")
_BIGGEST = 45.0  # of what pairs call big, so that two of them leave room for two others
_OF_FOUR = (SIZES[0], 34.0)  # sizes, where three of a kind and another thing find room


@dataclass(frozen=True)
class Pair:
    """Two scenes that differ in one attribute of the objects `asked`.

    The caption of each is wrong for the other.
    """

    name: str
    kind: str
    composition: str
    scenes: tuple[Scene, Scene]
    asked: tuple[int, ...]

    def words(self, side: int) -> list[Span]:
        """The words of caption 0 or 1 that the other says otherwise, in reading order."""
        words = []
        for span in self.scenes[side].spans:
            if span.kind == KINDS[self.kind] and span.objects[0] in self.asked:
                words.append(span)
        return sorted(words, key=lambda span: span.start)


# -------------------------------------------------------------------------------------------- pairs


def draw_pairs(
    kind: str,
    n: int = 50,
    *,
    composition: str = "seen",
    split: str = "development",
    nouns: int = 64,
) -> list[Pair]:
    """`n` random pairs of one kind of attribute; the same arguments always give the same ones.

    Args:
        kind: one of `KINDS`.
        n: how many.
        composition: "withheld" for combinations that training never showed.
        split: "development" or "test".
        nouns: how many concepts the objects are drawn from.
    """
    objects = 4 if kind == "count" else 2
    withheld = COMPOSITIONS.index(composition) == 1
    number = list(KINDS).index(kind)
    rng = np.random.default_rng([60, SPLITS[split], 0, number, objects, withheld])

    pairs: list[Pair] = []
    while len(pairs) < n:
        drawn = _DRAWN[kind](rng, _pool(nouns), withheld)
        if drawn is None:
            continue
        scenes, asked = drawn
        if all(_fits(scene, kind, withheld) for scene in scenes):
            name = f"{kind}, {objects}, {composition}, {len(pairs)}"
            pairs.append(Pair(name, kind, composition, scenes, asked))
    return pairs


def _fits(scene: Scene, kind: str, withheld: bool) -> bool:
    """Whether what is withheld in a scene is what should be.

    Nothing, a noun with a colour, or two nouns together.
    """
    nouns = [thing.noun for thing in scene.objects]
    has_pair = any(is_withheld_pair(*pair) for pair in combinations(nouns, 2))
    has_colour = any(is_withheld_colour(thing.noun, thing.colour) for thing in scene.objects)
    if KINDS[kind] == "colour":
        return has_colour == withheld and not has_pair
    return has_pair == withheld and not has_colour


@lru_cache(maxsize=4)
def _pool(nouns: int) -> tuple[str, ...]:
    """Concepts that can be counted, drawn once and for all."""
    table = concepts().query("plural != '' and article != ''")
    chosen = np.random.default_rng(61).permutation(len(table))[:nouns]
    return tuple(table.index[chosen])


# What `_DRAWN` has for each kind: from a generator, a pool of nouns, and whether a combination is
# withheld, to two scenes and the objects in which they differ; None if the draw does not fit.
Drawn = tuple[tuple[Scene, Scene], tuple[int, ...]]


def _things(
    rng: np.random.Generator,
    nouns: Sequence[str],
    sizes: Sequence[float] = (),
) -> list[Object]:
    """Objects drawn and laid out as training does; of these sizes where sizes matter."""
    seed = int(rng.integers(2**32))
    things = list(arrange(list(nouns), seed=seed).objects)
    if not sizes:
        return things
    places = draw_layout(rng, sizes=sizes)
    return [
        replace(thing, x=x, y=y, size=size)
        for thing, (x, y, size) in zip(things, places, strict=True)
    ]


def _nouns(rng: np.random.Generator, pool: Sequence[str], withheld: bool) -> list[str]:
    """Two different nouns that are withheld from training together, or not."""
    while True:
        first, second = rng.choice(pool, 2, replace=False).tolist()
        if is_withheld_pair(first, second) == withheld:
            return [first, second]


def _scenes(
    rng: np.random.Generator,
    first: Sequence[Object],
    second: Sequence[Object],
    captions: Sequence[dict] = ({}, {}),
) -> tuple[Scene, Scene]:
    """Two scenes on one background; of each, what its caption says of sizes and relations."""
    background = int(rng.integers(BACKGROUNDS))
    return (
        arrange(list(first), background=background, **captions[0]),
        arrange(list(second), background=background, **captions[1]),
    )


def _coloured(things: Sequence[Object], colours: dict[int, str]) -> list[Object]:
    """The same things, with these colours at these places."""
    coloured = list(things)
    for i, colour in colours.items():
        coloured[i] = replace(things[i], colour=colour)
    return coloured


def _identity(rng, pool, withheld) -> Drawn:
    things = _things(rng, _nouns(rng, pool, withheld))
    i = int(rng.integers(2))
    nouns = {thing.noun for thing in things}
    unused = [noun for noun in pool if noun not in nouns]
    (stranger,) = _things(rng, rng.choice(unused, 1))

    exchanged = list(things)
    before = things[i]
    exchanged[i] = replace(stranger, x=before.x, y=before.y, size=before.size)
    return _scenes(rng, things, exchanged), (i,)


def _colour(rng, pool, withheld) -> Drawn | None:
    things = _things(rng, _nouns(rng, pool, False))
    i = int(rng.integers(2))
    noun = things[i].noun
    fitting = [colour for colour in COLOURS if is_withheld_colour(noun, colour) == withheld]
    if len(fitting) < 2:
        return None

    colours = rng.choice(fitting, 2, replace=False).tolist()
    first, second = [_coloured(things, {i: colour}) for colour in colours]
    return _scenes(rng, first, second), (i,)


def _swapped_colours(rng, pool, withheld) -> Drawn | None:
    things = _things(rng, _nouns(rng, pool, False))
    i, j = rng.choice(2, 2, replace=False).tolist()

    fitting = []
    for a, b in permutations(COLOURS, 2):
        before = _withheld_colours(things, {i: a, j: b})
        after = _withheld_colours(things, {i: b, j: a})
        if before == after == withheld:
            fitting.append((a, b))
    if not fitting:
        return None

    a, b = fitting[rng.integers(len(fitting))]
    rng.permutation(len(COLOURS) - 2)  # further things took colours: the pairs stay what they were
    first = _coloured(things, {i: a, j: b})
    second = _coloured(things, {i: b, j: a})
    return _scenes(rng, first, second), (i, j)


def _withheld_colours(things: Sequence[Object], colours: dict[int, str]) -> bool:
    return any(is_withheld_colour(things[k].noun, colour) for k, colour in colours.items())


def _sizes(rng, pool, withheld, named: Sequence[int]) -> Drawn:
    """Small and big things at the places `named`, first so and then the other way round.

    The captions say these sizes.
    """
    sizes = {
        "small": float(rng.uniform(SIZES[0], SMALL)),
        "big": float(rng.uniform(BIG, _BIGGEST)),
    }
    room = rng.uniform(SIZES[0], SMALL, 2).tolist()  # of a thing whose size no caption says
    for k in named:
        room[k] = sizes["big"]
    things = _things(rng, _nouns(rng, pool, withheld), room)

    sides = []
    captions = []
    for words in (("small", "big"), ("big", "small")):
        sized = list(things)
        sizes_in_caption = ["", ""]
        for k, word in zip(named, words, strict=False):  # one thing or two
            sized[k] = replace(things[k], size=sizes[word])
            sizes_in_caption[k] = word
        sides.append(sized)
        captions.append({"size": sizes_in_caption})
    return _scenes(rng, *sides, captions), tuple(named)


def _one_size(rng, pool, withheld) -> Drawn:
    return _sizes(rng, pool, withheld, [int(rng.integers(2))])


def _swapped_sizes(rng, pool, withheld) -> Drawn:
    named = rng.choice(2, 2, replace=False).tolist()
    return _sizes(rng, pool, withheld, named)


def _count(rng, pool, withheld) -> Drawn:
    """Two things of a kind beside another thing, and then three."""
    kind, single = _nouns(rng, pool, withheld)
    size = float(rng.uniform(*_OF_FOUR))
    group_is_last = bool(rng.integers(2))
    single_size = float(rng.uniform(*_OF_FOUR))

    nouns = [kind] * 3 + [single]
    sizes = [size] * 3 + [single_size]
    *three, alone = _things(rng, nouns, sizes)
    two = three[:2]
    if group_is_last:
        return _scenes(rng, [alone, *two], [alone, *three]), (1,)
    return _scenes(rng, [*two, alone], [*three, alone]), (0,)


def _position(rng, pool, withheld, across: bool) -> Drawn | None:
    """Two things of one size that lie side by side, or one above the other."""
    nouns = _nouns(rng, pool, withheld)
    size = float(rng.uniform(SMALL, BIG))
    a, b = _things(rng, nouns, [size, size])
    distance = abs(a.x - b.x)
    distance_otherwise = abs(a.y - b.y)
    if not across:
        distance, distance_otherwise = distance_otherwise, distance
    if distance < 2 * distance_otherwise:
        return None

    a_moved = replace(a, x=b.x, y=b.y)
    b_moved = replace(b, x=a.x, y=a.y)
    sides = [[a, b], [a_moved, b_moved]]
    captions = [{"relation": relation_between(*things)} for things in sides]
    return _scenes(rng, *sides, captions), (0,)


def _comparison(rng, pool, withheld) -> Drawn:
    scenes, _ = _sizes(rng, pool, withheld, [0, 1])
    compared = []
    for scene in scenes:
        things = list(scene.objects)
        relation = relation_between(*things, kind="size")
        compared.append(arrange(things, background=scene.background, relation=relation))
    return tuple(compared), (0,)


_DRAWN: dict[str, Callable[..., Drawn | None]] = {
    "object identity": _identity,
    "colour": _colour,
    "size": _one_size,
    "count": _count,
    "left / right": partial(_position, across=True),
    "above / below": partial(_position, across=False),
    "bigger / smaller": _comparison,
    "swapped colours": _swapped_colours,
    "swapped sizes": _swapped_sizes,
}


# ------------------------------------------------------------------------------------------ answers


def image_pixels(clip: Clip) -> int:
    """The pixels on a side at which scenes are drawn for a model.

    No more than it needs, a multiple of `CANVAS`.
    """
    visual = getattr(clip.model, "visual", None)
    size = getattr(visual, "image_size", IMAGE_SIZE)
    side = max(size) if isinstance(size, (tuple, list)) else size
    return min(IMAGE_SIZE, CANVAS * math.ceil(side / CANVAS))


def images_of(clip: Clip, scenes: Sequence[Scene]) -> list[Image.Image]:
    """The B images of scenes, square, no larger than the model needs."""
    return [_image(scene, image_pixels(clip)) for scene in scenes]


@lru_cache(maxsize=4096)  # several models are shown the same images
def _image(scene: Scene, pixels: int) -> Image.Image:
    return scene.image(pixels)


def embed_scenes(explainer: Explainer, scenes: Sequence[Scene]) -> Tensor:
    """Unit image embeddings (N, E) on the CPU, from images as large as the model sees them."""
    images = (_image(scene, image_pixels(explainer.clip)) for scene in scenes)
    return explainer.embed_images(images).cpu()


def maps_of(explainer: Explainer, scenes: Sequence[Scene], directions: Tensor) -> np.ndarray:
    """Signed maps (N, M, h, w) of scenes in float64; directions are as in `Explainer.maps`."""
    images = images_of(explainer.clip, scenes)
    return as_array(explainer.maps(images, directions))


class Embedded(NamedTuple):
    """Unit embeddings of pairs: images and captions, (P, 2, E) each."""

    images: Tensor
    texts: Tensor


def embed_pairs(clip: Clip, pairs: Sequence[Pair]) -> Embedded:
    """Embed both images and both captions of pairs."""
    explainer = Explainer(clip)
    scenes = [scene for pair in pairs for scene in pair.scenes]
    captions = [scene.caption for scene in scenes]
    images = embed_scenes(explainer, scenes).unflatten(0, (-1, 2))
    texts = explainer.embed_texts(captions).cpu().unflatten(0, (-1, 2))
    return Embedded(images, texts)


def judge(clip: Clip, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Ask both images of every pair which caption is theirs: one row per image, see `answers`."""
    return answers(pairs, embed_pairs(clip, pairs))


def answers(pairs: Sequence[Pair], embedded: Embedded) -> pd.DataFrame:
    """What embeddings answer: one row per image.

    Columns pair, kind, composition, side; similarity to the own caption and to the other one, and
    the margin; right (1, 0 or .5), right_image (the same asked of captions: which image is yours?),
    and text_only: what a scorer answers who sees the mean of all images instead of the image.
    """
    images = embedded.images.double()
    texts = embedded.texts.double()
    similarities = (images @ texts.transpose(1, 2)).numpy()  # (P, images, captions)
    priors = (texts @ images.mean((0, 1))).numpy()  # (P, captions)

    rows = []
    for pair, similarity, prior in zip(pairs, similarities, priors, strict=True):
        for side in (0, 1):
            right_caption = similarity[side, side]
            wrong_caption = similarity[side, 1 - side]
            wrong_image = similarity[1 - side, side]
            row = {
                "pair": pair.name,
                "kind": pair.kind,
                "composition": pair.composition,
                "side": side,
                "similarity": right_caption,
                "other_similarity": wrong_caption,
                "margin": right_caption - wrong_caption,
                "right": np.heaviside(right_caption - wrong_caption, 0.5),
                "right_image": np.heaviside(right_caption - wrong_image, 0.5),
                "text_only": np.heaviside(prior[side] - prior[1 - side], 0.5),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def all_right(rows: pd.DataFrame) -> pd.Series:
    """Winoground's group score of each pair: 1 if both images and both captions find each other."""
    lowest = rows.groupby("pair", sort=False)[["right", "right_image"]].min()
    return (lowest.min(axis=1) == 1).astype(float)


def right_interval(right: ArrayLike, clusters: Sequence | None) -> np.ndarray:
    """The 95 % interval of a fraction of right answers: Wilson's, in which a cluster counts once.

    The bootstrap's, if answers are right in parts.
    """
    kind = "proportion" if np.isin(right, (0, 0.5, 1)).all() else "mean"
    return mean_interval(right, clusters, kind=kind)
