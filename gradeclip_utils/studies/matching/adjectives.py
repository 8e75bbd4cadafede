"""Matching: how a caption meets a picture. Maps of words, phrases and sentences, taken apart and put together.

    scenes, prompts -> directions -> traces, Grad-ECLIP -> maps -> one row a picture and question -> statistics

Everything is asked of pictures whose truth is known, by the plain Grad-ECLIP of the model's own towers:

    decomposition   is the map of "a red car" that of "a car"? and the sentence's that of its phrases, or its words?
    the adjective   two things of one noun: how much relevance goes to the red one because the prompt says "red"?
    addition        is the map of "A and B" the sum of two maps? (``composition`` asks the same of the embeddings)
    words           which kinds of words the relevance falls on, and which word answers to which thing

A map is linear in the direction that it is drawn for, so differences and sums of directions have maps as well.
Grad-ECLIP: Zhao et al., arXiv 2502.18816; interactions of words and regions: see ``methods.interactions.interactions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image

from ...evaluation.sanity import agreement
from ...evaluation.statistics import interval
from ...explain import Explainer
from ...images import model_view
from ...models import Clip
from ...scenes import (
    ARTISTS,
    CANVAS,
    COLOURS,
    SPLITS,
    Object,
    Scene,
    arrange,
    concepts,
    draw_scene,
    is_withheld_colour,
    withheld_artist,
)
from .composition import CASES, changes, coloured_pairs, noun_pairs, phrase, spans
from .directions import embed, maps_of, regions, share_on_first, words_of
from .wording import own_region, score_and_fall, template_effect, word_shares

_SIZE, _HIDING = 40, 5  # canvas units: of a thing, and between the middles of two that overlap, halved
_ADJECTIVES = {"its colour": "colour", "the other's colour": "other", "a colour of neither": "absent"}
DISPLAYS = ("signed", "signed, mean removed", "relu", "relu, normalised")


@dataclass(frozen=True)
class Twins:
    """Two things of one noun, alike in size, drawing and all but colour.

    In `scene` the first is tinted in `colour` and the second in `other`; in `plain` the second keeps its own colours.
    `absent` is a colour that neither is tinted in.
    """

    noun: str
    colour: str
    other: str
    absent: str
    scene: Scene
    plain: Scene


def twins(n: int, split: str = "development") -> list[Twins]:
    """`n` pairs of twins, every one of another noun, in two quadrants drawn at random. All tints are trained ones.

    Raises ValueError for more than there are nouns.
    """
    nouns = np.random.default_rng([SPLITS[split], 70]).permutation(list(concepts().index))
    if not 1 <= n <= len(nouns):
        raise ValueError(f"there are twins of 1 to {len(nouns)} nouns, got n={n!r}")
    return [_twins(str(noun), np.random.default_rng([SPLITS[split], 71, i])) for i, noun in enumerate(nouns[:n])]


def _twins(noun: str, rng: np.random.Generator) -> Twins:
    known = [colour for colour in COLOURS if not is_withheld_colour(noun, colour)]
    colours = [str(colour) for colour in rng.choice(known, 3, replace=False)]
    artist = str(rng.choice([artist for artist in ARTISTS if artist != withheld_artist(noun)]))
    size, background = int(rng.choice([34, 38, 42])), int(rng.integers(100_000))
    places = [(CANVAS / 4 + CANVAS / 2 * (i % 2), CANVAS / 4 + CANVAS / 2 * (i // 2)) for i in rng.permutation(4)[:2]]
    first, second = (Object(noun, artist, tint, *at, size) for tint, at in zip(colours[:2], places, strict=True))
    plain = arrange([first, replace(second, colour=None)], background=background)
    return Twins(noun, *colours, arrange([first, second], background=background), plain)


@dataclass(frozen=True, eq=False)
class Path:
    """The straight way from one prompt's embedding to another's, and the map at every point of it.

    ``maps`` (2, h, w) are those of the two ends; a map is linear in its direction, so every map between lies on the
    line between these two, and the image tower has to run once.
    """

    before: str
    after: str
    first: str  # the thing whose share of the relevance is followed
    maps: np.ndarray
    covered: np.ndarray  # (2, h, w): which share of every token each of the two things covers
    image: Image.Image
    box: tuple[float, float, float, float]

    def at(self, weight: float) -> np.ndarray:
        """The map (h, w) at e(before) + weight * (e(after) - e(before))."""
        return self.maps[0] + weight * (self.maps[1] - self.maps[0])

    def share(self, weight: float) -> float:
        """Of the positive relevance on both things, the share on the first."""
        return share_on_first(self.at(weight), self.covered)


def path_between(explainer: Explainer, scene: Scene, before: str, after: str) -> Path:
    """The way from one prompt to another in one picture of two things.

    Raises ValueError if the scene has another number of things.
    """
    if len(scene.objects) != 2:
        raise ValueError(f"a way is followed between two things, and the scene has {len(scene.objects)}")
    ends = embed(explainer, [before, after])
    maps = maps_of(explainer, [scene.image()], ends[None])[0]
    covered, first = regions(explainer, scene, maps.shape[1:]), scene.objects[0]
    box = model_view(explainer.clip.preprocess, scene.image()).box
    return Path(before, after, phrase(first.noun, colour=first.colour), maps, covered, scene.image(), box)


def adjective_shift(explainer: Explainer, pairs: Sequence[Twins]) -> pd.DataFrame:
    """Where does the adjective move the map? One row a pair of twins, second thing and prompt.

    Columns: picture (the noun), second ("another colour" or "its own colours"), prompt, share (of the positive
    relevance on both twins, what lies on the first), moved (share minus that of the prompt without an adjective),
    on_things (of all positive relevance, what lies on the twins), area (of all tokens, what the twins cover).
    Prompts: "no adjective" a car; "its colour" a red car; "the other's colour" a blue car; "a colour of neither" a
    green car; "the colour alone" red; "what the adjective adds", the direction e(a red car) - e(a car).
    """
    rows = []
    for second in ("another colour", "its own colours"):
        scenes = [one.scene if second == "another colour" else one.plain for one in pairs]
        asked = {"no adjective": [phrase(one.noun) for one in pairs]}
        for name, colour in _ADJECTIVES.items():
            asked[name] = [phrase(one.noun, colour=getattr(one, colour)) for one in pairs]
        asked["the colour alone"] = [one.colour for one in pairs]
        found = {name: embed(explainer, texts) for name, texts in asked.items()}
        found["what the adjective adds"] = found["its colour"] - found["no adjective"]
        maps = maps_of(explainer, [scene.image() for scene in scenes], np.stack(list(found.values()), axis=1))
        for one, scene, mine in zip(pairs, scenes, maps, strict=True):
            covered = regions(explainer, scene, mine.shape[1:])
            shares = dict(zip(found, [share_on_first(map_, covered) for map_ in mine], strict=True))
            if second == "its own colours":
                shares.pop("the other's colour")  # nobody tinted it
            told = {"image": one.noun, "second": second, "area": float(covered.sum(0).mean())}
            positive = dict(zip(found, np.maximum(mine, 0), strict=True))
            for name, share in shares.items():
                heat = positive[name]
                on_things = float((heat * covered.sum(0)).sum() / heat.sum()) if heat.any() else told["area"]
                moved = share - shares["no adjective"]
                rows.append({**told, "prompt": name, "share": share, "moved": moved, "on_things": on_things})
    return pd.DataFrame(rows)


def decomposition(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """How alike are the maps of a whole and of its parts, in one picture? One row a scene of two things and question.

    Columns: picture, whole, part, agreement (Spearman's rank correlation of the two signed maps). The last row of each
    whole is the control: the same part of *another* scene, asked of this picture.
    """
    things = [[phrase(thing.noun) for thing in scene.objects] for scene in scenes]
    phrases = [[phrase(thing.noun, colour=thing.colour) for thing in scene.objects] for scene in scenes]
    noun, red_noun = (embed(explainer, [pair[0] for pair in pairs]) for pairs in (things, phrases))
    second = embed(explainer, [pair[1] for pair in phrases])
    colour = embed(explainer, [scene.objects[0].colour for scene in scenes])
    sentence = embed(explainer, [scene.caption for scene in scenes])
    apart = np.stack([embed(explainer, scene.caption.split()).sum(0) for scene in scenes])
    inside = np.stack([words_of(explainer, scene.caption).sum(0) for scene in scenes])
    asked = [
        ("adjective + noun", "its noun", red_noun, noun),
        ("adjective + noun", "its adjective alone", red_noun, colour),
        ("adjective + noun", "what the adjective adds", red_noun, red_noun - noun),
        ("adjective + noun", "another's adjective + noun", red_noun, np.roll(red_noun, 1, axis=0)),
        ("sentence", "one of its phrases", sentence, red_noun),
        ("sentence", "its phrases, added", sentence, red_noun + second),
        ("sentence", "its words as prompts, added", sentence, apart),
        ("sentence", "its words as read in it, added", sentence, inside),
        ("sentence", "another's phrases, added", sentence, np.roll(red_noun + second, 1, axis=0)),
    ]
    directions = np.stack([one for _, _, *both in asked for one in both], axis=1)
    maps = maps_of(explainer, [scene.image() for scene in scenes], directions)
    tables = []
    for i, (whole, part, *_) in enumerate(asked):
        alike = agreement(maps[:, 2 * i], maps[:, 2 * i + 1])
        tables.append(pd.DataFrame({"image": range(len(scenes)), "whole": whole, "part": part, "agreement": alike}))
    return pd.concat(tables, ignore_index=True)


ARRANGEMENTS = ("apart", "in this order", "occluded", "twice")
SUMS = {  # case: the sentence (of `composition.CASES`), and how the things lie
    "A and B": ("and", "apart"),
    "A and B, A half hidden": ("and", "occluded"),
    "A to the left of B": ("to the left of", "in this order"),
    "A and no B": ("and no", "apart"),
    "two As": ("two of the first", "twice"),
}


def pair_scene(first: str, second: str, arrangement: str, *, seed: int = 0) -> Scene:
    """A scene of two untinted things, side by side: one of ``ARRANGEMENTS``.

    "apart", on sides that the seed decides; "in this order", the first on the left; "occluded", the second before the
    first, so that about half of that is hidden; "twice", the first noun on both sides.
    """
    if arrangement not in ARRANGEMENTS:
        raise ValueError(f"an arrangement is one of {', '.join(ARRANGEMENTS)}, got {arrangement!r}")
    rng = np.random.default_rng([72, seed])
    side = 1 if rng.random() < 0.5 or arrangement == "in this order" else -1
    offset = side * (_HIDING if arrangement == "occluded" else CANVAS / 4)
    things = []
    for noun, x in ((first, CANVAS / 2 - offset), (first if arrangement == "twice" else second, CANVAS / 2 + offset)):
        artist = next(artist for artist in ARTISTS if artist != withheld_artist(noun))
        things.append(Object(noun, artist, None, x, CANVAS / 2, _SIZE))
    return arrange(things, background=int(rng.integers(100_000)))


def map_sums(
    explainer: Explainer, pairs: Sequence[tuple[str, str]], cases: Sequence[str] = tuple(SUMS)
) -> pd.DataFrame:
    """Is the map of a sentence the sum of its nouns' maps, as they are displayed? One row a pair, case and question.

    Columns: picture, case (of ``SUMS``), display, parts ("own", or "foreign": the nouns of another pair, asked of this
    picture), alike: which share of the map's energy (sum of squares) the best positive multiple of the sum explains.
    Displays: signed; signed with the mean prompt's map removed; relu; relu and each divided by its maximum, then added.
    And of the sentence's positive relevance on both things, the share on the first ("on_first"), that of the sum of the
    two maps ("on_first_sum"), and the first one's share of the visible pixels ("seen_first").
    """
    names = [" + ".join(pair) for pair in pairs]
    firsts, seconds = (embed(explainer, [phrase(noun) for noun in nouns]) for nouns in zip(*pairs, strict=True))
    middle, rows = np.concatenate([firsts, seconds]).mean(0), []
    for case in cases:
        sentence, arrangement = SUMS[case]
        scenes = [pair_scene(*pair, arrangement, seed=i) for i, pair in enumerate(pairs)]
        whole = embed(explainer, [CASES[sentence](*pair) for pair in pairs])
        left, right = firsts, firsts if arrangement == "twice" else seconds
        still = (np.broadcast_to(one, whole.shape) for one in (middle, whole.mean(0)))
        asked = [whole, left, right, np.roll(left, 1, axis=0), np.roll(right, 1, axis=0), *still]
        maps = maps_of(explainer, [one.image() for one in scenes], np.stack(asked, axis=1))
        for name, scene, mine in zip(names, scenes, maps, strict=True):
            rows += [{"image": name, "case": case, **row} for row in _sum_rows(explainer, scene, mine)]
    return pd.DataFrame(rows)


def _sum_rows(explainer: Explainer, scene: Scene, maps: np.ndarray) -> list[dict]:
    """The rows of one picture from its maps: whole, own parts (2), foreign parts (2), mean part, mean sentence."""
    whole, first, second, *foreign, mean, mean_whole = maps
    covered = regions(explainer, scene, whole.shape)
    seen = covered.sum((1, 2))
    on = {"on_first": share_on_first(whole, covered), "on_first_sum": share_on_first(first + second, covered)}
    on["seen_first"] = float(seen[0] / seen.sum())
    rows = []
    for parts, both in (("own", (first, second)), ("foreign", foreign)):
        for display in DISPLAYS:
            removed = display == "signed, mean removed"
            total = sum(shown(one - removed * mean, display) for one in both)
            target = shown(whole - removed * mean_whole, display)
            rows.append({"display": display, "parts": parts, "alike": explained(target, total), **on})
    return rows


def shown(map_: np.ndarray, display: str) -> np.ndarray:
    """A map as one of ``DISPLAYS`` shows it (the mean prompt's map is to be removed before)."""
    if display not in DISPLAYS:
        raise ValueError(f"a display is one of {', '.join(DISPLAYS)}, got {display!r}")
    heat = map_ if display.startswith("signed") else np.maximum(map_, 0)
    return heat / heat.max() if display == "relu, normalised" and heat.max() > 0 else heat


def explained(target: np.ndarray, model: np.ndarray) -> float:
    """Share of the energy of a map that the best positive multiple of another explains: their cosine, squared.

    >>> explained(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]]))
    0.36
    """
    lengths = np.linalg.norm(target) * np.linalg.norm(model)
    return float(max((target * model).sum() / lengths, 0) ** 2) if lengths > 0 else 0.0


def measure(clip: Clip, n: int = 40) -> dict[str, pd.DataFrame]:
    """Every table of this study, from about `n` pictures or pairs each. "spans" needs no pictures, and takes 3 n.

    Keys: adjective, decomposition, spans, sums, words, templates, changes, own region. ``figures`` sums them up.
    """
    explainer, pairs, coloured = Explainer(clip), noun_pairs(3 * n), coloured_pairs(n)
    talkative = [draw_scene([73, i], split="development") for i in range(2 * n)]
    return {
        "adjective": adjective_shift(explainer, twins(2 * n)),
        "decomposition": decomposition(explainer, coloured),
        "spans": spans(explainer, pairs),
        "sums": map_sums(explainer, pairs[:n]),
        "words": word_shares(explainer, talkative),
        "templates": template_effect(explainer, [noun for pair in pairs[:n] for noun in pair][:n]),
        "changes": changes(explainer, coloured_pairs(2 * n)),
        "own region": own_region(explainer, coloured),
    }


def figures(clip: Clip, n: int = 40, *, tables: dict[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """The main figures of this study for one model: columns figure, estimate, low, high (95 %), n.

    Another model, or another training seed of the bundled one, is measured by the same call.

    Args:
        n: as in ``measure``.
        tables: what ``measure`` gave for this model, when it is at hand.
    """
    tables = measure(clip, n) if tables is None else tables
    adjective, span, sums, words = (tables[name] for name in ("adjective", "spans", "sums", "words"))
    tinted, plain = (adjective[adjective["second"] == one] for one in ("another colour", "its own colours"))
    removed = span[span["mean_prompt"] == "removed"]
    gap = sums[sums["case"] == "A and B"].pivot(index=["image", "display"], columns="parts", values="alike")
    gap = (gap["own"] - gap["foreign"]).unstack("display")
    change, hit = tables["changes"], tables["own region"]
    hit = hit[~hit["centred"]].groupby(["image", "kind"])["hit"].mean().unstack()
    values = {
        "moved by the adjective": _picked(tinted, "moved", prompt="its colour"),
        "moved by the adjective of the other": _picked(tinted, "moved", prompt="the other's colour"),
        "moved by a colour of neither": _picked(tinted, "moved", prompt="a colour of neither"),
        "moved by a colour of neither, other untinted": _picked(plain, "moved", prompt="a colour of neither"),
        "A and B in the span of its parts": _picked(removed, "share", case="and", parts="own"),
        "A and B in the span of foreign parts": _picked(removed, "share", case="and", parts="foreign"),
        "weight of B in A and no B": _picked(removed, "second", case="and no", parts="own"),
        "map sum, own minus foreign: signed": gap["signed"],
        "map sum, own minus foreign: relu, normalised": gap["relu, normalised"],
        "relation preferred to its opposite": _picked(change, "wins", change="relation turned round"),
        "word score and fall, rank correlation": score_and_fall(words),
        "colour word answers to its own thing": hit["colour"],
    }
    rows = [(name, np.mean(one), *interval(np.asarray(one)), len(one)) for name, one in values.items()]
    return pd.DataFrame(rows, columns=["figure", "estimate", "low", "high", "n"])


def _picked(rows: pd.DataFrame, value: str, **where: str) -> np.ndarray:
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    return rows[value].to_numpy()
