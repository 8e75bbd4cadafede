"""Composition: what the embedding of a sentence is made of. Is "a cat and a dog" the sum of "a cat" and "a dog"?

    prompts -> text encoder -> embeddings -> one row a sentence and question -> statistics

Signed Grad-ECLIP maps are linear in the text embedding as long as the spatial weight is fixed, so whether the map of a
sentence is the sum of the maps of its parts is decided here, before any image is looked at. All prompts of a model
share a large part: the *mean prompt*. It lies in every span, and is therefore taken away: from parts the mean of the
parts, from sentences the mean of the sentences of the same form. What remains is compared with the parts of *another*
sentence, the control.

Two vectors span little of a space of hundreds of dimensions, so a high fraction is no accident of geometry. Sums of
word embeddings as a model of meaning: Mitchell and Lapata, "Composition in Distributional Models of Semantics",
Cognitive Science 2010. CLIP as a bag of words: Yuksekgonul et al., "When and why vision-language models behave like
bags-of-words, and what to do about it?", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, islice

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import paired_cosine_distances

from gradeclip_utils.checks import chosen, whole
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.scenes import SPLITS, Scene, draw_scene, recoloured
from gradeclip_utils.scenes.emoji import CANVAS, Object, concept, concepts, covered
from gradeclip_utils.scenes.grammar import POSITIONS, describe, phrase, relation_between
from gradeclip_utils.scenes.heldout import is_withheld_pair

from ..relevance import as_array, embedded

CASES: dict[str, Callable[[str, str], str]] = {  # sentences of two nouns, by what they add to the two
    "and": lambda first, second: phrase(first, second),
    "to the left of": lambda first, second: phrase(first, second, relation="to the left of"),
    "and no": lambda first, second: f"{phrase(first)} and no {second}",
    "two of the first": lambda first, second: phrase(first, first),
}
PARTS = ("own", "one foreign", "foreign")  # whose parts a sentence is compared with: "foreign" is the control
CHANGES = ("things in another order", "words shuffled", "colours swapped", "relation turned round", "a noun replaced")
_LEFT, _RIGHT, _ABOVE, _BELOW = POSITIONS
_OPPOSITE = {_LEFT: _RIGHT, _RIGHT: _LEFT, _ABOVE: _BELOW, _BELOW: _ABOVE}


def noun_pairs(n: int) -> list[tuple[str, str]]:
    """Pairs of nouns that training may show together. No noun comes twice, so pairs are independent of each other."""
    whole("n", n, 1)
    rng = np.random.default_rng([SPLITS["development"], 80])
    waiting, found = [noun for noun in rng.permutation(list(concepts().index)) if concept(noun)["plural"]], []
    while len(waiting) > 1 and len(found) < n:
        first = waiting.pop(0)
        second = next((noun for noun in waiting if not is_withheld_pair(first, noun)), None)
        if second is not None:
            waiting.remove(second)
            found.append((str(first), str(second)))
    whole("n", n, 1, len(found))
    return found


def in_span(targets: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each target lies in the span of its parts, by least squares."""
    weights = np.einsum("pek,pe->pk", np.linalg.pinv(parts), targets)
    projection = np.einsum("pk,pke->pe", weights, parts)
    return (projection**2).sum(-1) / (targets**2).sum(-1), weights


def span_fractions(
    explainer: Explainer, pairs: Sequence[tuple[str, str]], cases: Sequence[str] = tuple(CASES)
) -> pd.DataFrame:
    """Sentences of two nouns A and B against the span of e("a A") and e("a B"): one row a pair, case and question."""
    if len(pairs) < 3:
        msg = f"sentences are compared with the parts of others: three pairs or more, got {len(pairs)}"
        raise GradeclipError(msg)
    firsts, seconds = (embedded(explainer, [phrase(noun) for noun in nouns]) for nouns in zip(*pairs, strict=True))
    centre, rows = np.concatenate([firsts, seconds]).mean(0), []
    names = [" + ".join(pair) for pair in pairs]
    for case in cases:
        sentences = embedded(explainer, [CASES[case](*pair) for pair in pairs])
        for kept in (False, True):
            away, middle = (0, 0) if kept else (centre, sentences.mean(0))
            own, other = firsts - away, seconds - away
            strange = np.roll(own, 1, axis=0), np.roll(other, 1, axis=0)
            for parts, both in zip(PARTS, [(own, other), (own, strange[1]), strange], strict=True):
                fraction, weights = in_span(sentences - middle, np.stack(both, axis=1))
                told = {"pair": names, "case": case, "mean_prompt": "kept" if kept else "removed", "parts": parts}
                found = {"fraction": fraction, "first": weights[:, 0], "second": weights[:, 1]}
                rows.append(pd.DataFrame({**told, **found}))
    return pd.concat(rows, ignore_index=True)


def two_colour_scenes(n: int) -> list[Scene]:
    """Development scenes of two different nouns, each in a colour of its own; nouns and colours are said."""
    drawn = (draw_scene([81, seed], split="development", n_objects=2, tint=1, plain=True) for seed in count())
    unlike = (s for s in drawn if len({t.noun for t in s.objects}) == len({t.colour for t in s.objects}) == 2)
    return list(islice(unlike, n))


def seen_whole(objects: Sequence[Object]) -> bool:
    """Whether no object hides part of another, and none reaches the border of the image."""
    masks, alone = covered(objects, CANVAS), [covered([thing], CANVAS)[0] for thing in objects]
    inside = not any(mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in masks)
    return inside and np.array_equal(masks, alone)


def changed_captions(scene: Scene, change: str, rng: np.random.Generator) -> tuple[str, str]:
    """The caption of a scene of two things, and the same after one change."""
    chosen("change", change, CHANGES)
    first, second = scene.objects
    if change == "things in another order":
        return scene.caption, describe([second, first])[0]
    if change == "words shuffled":
        words = scene.caption.split()
        shuffled = words
        while shuffled == words:
            shuffled = list(rng.permutation(words))
        return scene.caption, " ".join(shuffled)
    if change == "colours swapped":
        return scene.caption, recoloured(scene, [second.colour, first.colour]).caption
    if change == "relation turned round":
        relation = relation_between(first, second)
        return describe(scene.objects, relation)[0], describe(scene.objects, _OPPOSITE[relation])[0]
    others = [noun for noun in concepts().index if noun not in (first.noun, second.noun)]  # "a noun replaced"
    return scene.caption, describe([first, Object(str(rng.choice(others)), colour=second.colour)])[0]


def caption_changes(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Does the image still prefer its own caption to a changed one? One row a scene and change."""
    seen = as_array(explainer.embed_images([scene.image() for scene in scenes]))
    rng, tables = np.random.default_rng([82, 0]), []
    for change in CHANGES:
        before, after = zip(*(changed_captions(scene, change, rng) for scene in scenes), strict=True)
        own, other = (embedded(explainer, texts) for texts in (before, after))
        drop = (seen * (own - other)).sum(-1)
        columns = {"image": range(len(scenes)), "change": change, "caption": before, "changed": after, "drop": drop}
        alike = 1 - paired_cosine_distances(own - own.mean(0), other - own.mean(0))
        tables.append(pd.DataFrame({**columns, "wins": (np.sign(drop) + 1) / 2, "alike": alike}))
    return pd.concat(tables, ignore_index=True)
