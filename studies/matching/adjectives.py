"""Adjectives: two things of one noun, and how much relevance goes to the red one because the prompt says "red".

    colour pairs, prompts -> directions -> Grad-ECLIP -> maps -> one row an image and prompt -> statistics

A map is linear in the direction that it is drawn for, so the difference of two prompts has a map as well: what the
adjective adds. Grad-ECLIP: Zhao et al., arXiv 2502.18816.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pandas as pd
from PIL import Image

from gradeclip_utils.checks import whole
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.scenes import COLOURS, SPLITS, Scene, arrange, concepts, draw_scene, is_withheld_colour, phrase

from ..relevance import as_array, embedded, fraction_on_first, object_coverage
from .composition import seen_whole

_ADJECTIVES = {"its colour": "colour", "the other's colour": "other", "a colour of neither": "absent"}


@dataclass(frozen=True)
class ColourPair:
    """Two things of one noun, alike in drawing, size, tilt and all but colour and place, and nothing else."""

    noun: str
    colour: str  # of the first
    other: str  # of the second
    absent: str  # a colour that neither is tinted in
    scene: Scene  # both tinted
    plain: Scene  # the second keeps its own colours


def colour_pairs(n: int) -> list[ColourPair]:
    """Pairs of like things in two colours, every pair of another noun, in places of a random development scene."""
    nouns, found = np.random.default_rng([SPLITS["development"], 70]).permutation(list(concepts().index)), []
    for number, noun in enumerate(map(str, nouns[: whole("n", n, 1, len(nouns))])):
        rng = np.random.default_rng([SPLITS["development"], 71, number])
        known = [colour for colour in COLOURS if not is_withheld_colour(noun, colour)]
        colour, other, absent = (str(one) for one in rng.choice(known, 3, replace=False))
        groups = [(noun, colour, 1), (noun, other, 1)]
        for attempt in count():
            drawn = draw_scene([71, number, attempt], split="development", plain=True, groups=groups)
            first, second = drawn.objects
            first = replace(first, size=min(first.size, second.size))
            second = replace(first, colour=other, x=second.x, y=second.y)
            if seen_whole([first, second]):
                break
        tinted = (replace(second, colour=tint) for tint in (other, None))
        scenes = (arrange([first, one], background=drawn.background) for one in tinted)
        found.append(ColourPair(noun, colour, other, absent, *scenes))
    return found


@dataclass(frozen=True, eq=False)
class PromptPath:
    """The straight way from one prompt's embedding to another's, and the map at every point of it."""

    before: str  # the prompts
    after: str
    first: str  # the thing whose fraction of the relevance is followed
    maps: np.ndarray  # (2, h, w), signed, of the two ends
    coverage: np.ndarray  # (2, h, w), which fraction of every token each of the two things covers
    image: Image.Image
    box: tuple[float, float, float, float]  # what the model saw of the image, in pixels

    def at(self, weight: float) -> np.ndarray:
        """The map (h, w) at e(before) + weight * (e(after) - e(before))."""
        return self.maps[0] + weight * (self.maps[1] - self.maps[0])

    def fraction(self, weight: float) -> float:
        """Of the positive relevance on both things, the fraction on the first."""
        return fraction_on_first(self.at(weight), self.coverage)


def prompt_path(explainer: Explainer, scene: Scene, before: str, after: str) -> PromptPath:
    """The way from one prompt to another in one image of two things."""
    if len(scene.objects) != 2:
        msg = f"a way is followed between two things, and the scene has {len(scene.objects)}"
        raise GradeclipError(msg)
    image = scene.image()
    maps = as_array(explainer.maps([image], explainer.embed_texts([before, after])))[0]
    coverage, first = object_coverage(explainer, scene, maps.shape[1:]), scene.objects[0]
    box = model_view(explainer.clip.preprocess, image).box
    return PromptPath(before, after, phrase(first.noun, colour=first.colour), maps, coverage, image, box)


def adjective_shift(explainer: Explainer, pairs: Sequence[ColourPair]) -> pd.DataFrame:
    """Where does the adjective move the map? One row a colour pair, second thing and prompt."""
    rows = []
    for second in ("another colour", "its own colours"):
        scenes = [one.scene if second == "another colour" else one.plain for one in pairs]
        asked = {"no adjective": [phrase(one.noun) for one in pairs]}
        for name, colour in _ADJECTIVES.items():
            asked[name] = [phrase(one.noun, colour=getattr(one, colour)) for one in pairs]
        asked["the colour alone"] = [one.colour for one in pairs]
        found = {name: embedded(explainer, texts) for name, texts in asked.items()}
        found["what the adjective adds"] = found["its colour"] - found["no adjective"]
        directions = np.stack(list(found.values()), axis=1)
        maps = as_array(explainer.maps([scene.image() for scene in scenes], directions))
        for one, scene, mine in zip(pairs, scenes, maps, strict=True):
            coverage = object_coverage(explainer, scene, mine.shape[1:])
            fractions = {name: fraction_on_first(map_, coverage) for name, map_ in zip(found, mine, strict=True)}
            told = {"image": one.noun, "second": second, "area": float(coverage.sum(0).mean())}
            for (name, fraction), heat in zip(fractions.items(), np.maximum(mine, 0), strict=True):
                if (name, second) == ("the other's colour", "its own colours"):
                    continue  # nobody tinted it
                on_things = float((heat * coverage.sum(0)).sum() / heat.sum()) if heat.any() else told["area"]
                moved = fraction - fractions["no adjective"]
                rows.append({**told, "prompt": name, "fraction": fraction, "moved": moved, "on_things": on_things})
    return pd.DataFrame(rows)
