"""Image-text matching (lesson 04): does a caption match an image word by word?

    captions -> word scores beside leaving words out          (`word_table`)
    two things of one noun -> maps with and without a colour  (`adjective_shift`)
    sentences -> the plane of their parts' embeddings         (`span_fractions`)
    words x things                                            (`region_table`, `region_hits`)

Grad-ECLIP on adjectives: Zhao et al., arXiv 2502.18816. Sums of embeddings as a model of meaning:
Mitchell and Lapata, "Composition in Distributional Models of Semantics", Cognitive Science 2010; of
CLIP: Trager et al., ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.language import tagged_words
from gradeclip_utils.scenes import (
    CANVAS,
    COLOURS,
    PREFIXES,
    SPLITS,
    Scene,
    arrange,
    concept,
    concepts,
    draw_scene,
    phrase,
    recoloured,
    showable,
)
from gradeclip_utils.scenes.emoji import covered
from gradeclip_utils.scenes.scene import is_withheld_colour, is_withheld_pair

from .pairs import images_of
from .relevance import as_array, embedded, fraction_on_first, object_coverage

# -------------------------------------------------------------------------------------------- words


def two_coloured(n: int) -> list[Scene]:
    """The first `n` test scenes of two different things whose captions say the colours of both."""
    drawn = (
        draw_scene([81, seed], split="test", n_objects=2, tint=1, plain=True) for seed in count()
    )
    different = (
        s
        for s in drawn
        if len({t.noun for t in s.objects}) == len({t.colour for t in s.objects}) == 2
    )
    return list(islice(different, n))


def shown_scene(scenes: Sequence[Scene]) -> Scene:
    """The first scene in which no object is cut or small, and none is called a map."""
    return next(
        one
        for one in scenes
        if showable(one) and "map" not in {thing.noun for thing in one.objects}
    )


def word_kinds(scene: Scene) -> list[str]:
    """The kind of each word of the caption, as the scene's grammar knows it: noun, colour, opening, function, ..."""
    opening = max(
        (len(prefix) for prefix in PREFIXES if scene.caption.startswith(f"{prefix} ")), default=0
    )
    kinds = []
    for word in tagged_words(scene.caption):
        own = next(
            (span.kind for span in scene.spans if span.start < word.end and word.start < span.end),
            None,
        )
        kinds.append(
            own
            or (
                "opening"
                if word.end <= opening
                else "function"
                if word.text.isalnum()
                else "punctuation"
            )
        )
    return kinds


def word_table(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Word scores of captions beside their own image: one row per word.

    `relevance` is the word's part of the caption's positive relevance, times the number of words: 1
    is an average word. `left_out` is what the similarity loses without the word.
    """
    images, captions, rows = (
        images_of(explainer.clip, scenes),
        [scene.caption for scene in scenes],
        [],
    )
    whole, seen = embedded(explainer, captions), as_array(explainer.embed_images(images))
    shorter = embedded(
        explainer, [one for caption in captions for one in without_each_word(caption)]
    )
    scored, start = explainer.score_words(captions, explainer.embed_images(images)), 0
    for i, (scene, words) in enumerate(zip(scenes, scored, strict=True)):
        kinds, rest = word_kinds(scene), shorter[start : start + len(words)]
        start += len(words)
        positive = np.maximum([word.score for word in words], 0)
        relevance = positive / positive.mean() if positive.any() else np.ones(len(words))
        left_out = (whole[i] - rest) @ seen[i]
        about = {"image": i, "word": [word.text for word in words], "kind": kinds}
        rows.append(pd.DataFrame({**about, "relevance": relevance, "left_out": left_out}))
    return pd.concat(rows, ignore_index=True)


def exchanged_scores(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Scores in the true caption and in the one with colours exchanged, place by place: one row per word.

    Columns image, kind, true, exchanged; nouns and function words stay the same, and colour words
    change places.
    """
    exchanged = [
        recoloured(scene, [thing.colour for thing in scene.objects][::-1]) for scene in scenes
    ]
    seen, rows = explainer.embed_images(images_of(explainer.clip, scenes)), []
    scored = (
        explainer.score_words([one.caption for one in asked], seen) for asked in (scenes, exchanged)
    )
    for i, (scene, *both) in enumerate(zip(scenes, *scored, strict=True)):
        true, other = ([word.score for word in words] for words in both)
        rows.append(
            pd.DataFrame({"image": i, "kind": word_kinds(scene), "true": true, "exchanged": other})
        )
    return pd.concat(rows, ignore_index=True)


def without_each_word(caption: str) -> list[str]:
    """The caption without each of its words, one after the other."""
    words = tagged_words(caption)
    shorter = (caption[: word.start] + caption[word.end :] for word in words)
    return [" ".join(one.split()).replace(" ,", ",") for one in shorter]


# --------------------------------------------------------------------------------------- adjectives


@dataclass(frozen=True)
class ColourPair:
    """Two things of one noun, alike in all but colour and place, and nothing else."""

    noun: str
    colour: str  # of the first
    other: str  # of the second
    absent: str  # a colour that neither is tinted in
    scene: Scene  # both tinted
    plain: Scene  # the second keeps its own colours


def colour_pairs(n: int) -> list[ColourPair]:
    """Pairs of like things in two colours, every pair of another noun, in places of a random scene."""
    nouns, found = (
        np.random.default_rng([SPLITS["test"], 70]).permutation(list(concepts().index)),
        [],
    )
    for number, noun in enumerate(map(str, nouns[:n])):
        rng = np.random.default_rng([SPLITS["test"], 71, number])
        known = [colour for colour in COLOURS if not is_withheld_colour(noun, colour)]
        colour, other, absent = (str(one) for one in rng.choice(known, 3, replace=False))
        groups = [(noun, colour, 1), (noun, other, 1)]
        for attempt in count():
            drawn = draw_scene([71, number, attempt], split="test", plain=True, groups=groups)
            first, second = drawn.objects
            first = replace(first, size=min(first.size, second.size))
            second = replace(first, colour=other, x=second.x, y=second.y)
            if _seen_whole(first, second):
                break
        scenes = (
            arrange([first, replace(second, colour=one)], background=drawn.background)
            for one in (other, None)
        )
        found.append(ColourPair(noun, colour, other, absent, *scenes))
    return found


def _seen_whole(*things) -> bool:
    """Whether no thing hides part of another, and none reaches the border of the image."""
    masks, alone = covered(list(things), CANVAS), [covered([thing], CANVAS)[0] for thing in things]
    inside = not any(mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in masks)
    return inside and np.array_equal(masks, alone)


def colour_prompts(pair: ColourPair) -> dict[str, str]:
    """The prompts that are asked about a pair, by what they say of the first thing."""
    colours = {
        "its colour": pair.colour,
        "the other's colour": pair.other,
        "a colour of neither": pair.absent,
    }
    said = {name: phrase(pair.noun, colour=colour) for name, colour in colours.items()}
    return {"no colour": phrase(pair.noun), **said}


def adjective_shift(
    explainer: Explainer, pairs: Sequence[ColourPair], plain: bool = False
) -> pd.DataFrame:
    """How much of the relevance on both things a colour word moves to the first: one row per pair and prompt.

    Columns noun, prompt, fraction (of the positive relevance on both things, on the first) and
    moved (less that of the prompt without a colour). `plain` asks images whose second thing has its
    own colours.
    """
    scenes, rows = [pair.plain if plain else pair.scene for pair in pairs], []
    prompts = [colour_prompts(pair) for pair in pairs]
    texts = explainer.embed_texts([text for one in prompts for text in one.values()])
    directions = texts.unflatten(0, (len(pairs), -1))
    maps = as_array(explainer.maps(images_of(explainer.clip, scenes), directions))
    for pair, scene, asked, mine in zip(pairs, scenes, prompts, maps, strict=True):
        coverage = object_coverage(explainer, scene, mine.shape[1:])
        fractions = [fraction_on_first(map_, coverage) for map_ in mine]
        for name, fraction in zip(asked, fractions, strict=True):
            rows.append(
                {
                    "noun": pair.noun,
                    "prompt": name,
                    "fraction": fraction,
                    "moved": fraction - fractions[0],
                }
            )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------- sums


def noun_pairs(n: int) -> list[tuple[str, str]]:
    """Pairs of nouns that training may show together; no noun comes twice."""
    rng = np.random.default_rng([SPLITS["test"], 80])
    waiting, found = (
        [noun for noun in rng.permutation(list(concepts().index)) if concept(noun)["plural"]],
        [],
    )
    while len(waiting) > 1 and len(found) < n:
        first = waiting.pop(0)
        second = next((noun for noun in waiting if not is_withheld_pair(first, noun)), None)
        if second is not None:
            waiting.remove(second)
            found.append((str(first), str(second)))
    return found


def span_fractions(explainer: Explainer, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """How much of "an A and a B" lies in the plane of e("an A") and e("a B"): one row per pair, of its squared length.

    The mean of the parts is taken from the parts, and the mean of the sentences from the sentences:
    all prompts share a large part. `foreign` is the plane of another pair's parts, the control;
    first and second are the weights.
    """
    first, second = (
        embedded(explainer, [phrase(noun) for noun in nouns]) for nouns in zip(*pairs, strict=True)
    )
    parts = np.stack([first, second], axis=1) - np.concatenate([first, second]).mean(0)  # (P, 2, E)
    whole = embedded(explainer, [phrase(*pair) for pair in pairs])
    whole = whole - whole.mean(0)
    own, weights = _in_plane(whole, parts)
    foreign, _ = _in_plane(whole, np.roll(parts, 1, axis=0))
    return pd.DataFrame(
        {"own": own, "foreign": foreign, "first": weights[:, 0], "second": weights[:, 1]}
    )


def _in_plane(targets: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fraction (P,) of each target's squared length in the span of its parts (P, K, E), and the weights (P, K)."""
    weights = np.einsum("pek,pe->pk", np.linalg.pinv(parts), targets)
    projection = np.einsum("pk,pke->pe", weights, parts)
    return (projection**2).sum(-1) / (targets**2).sum(-1), weights


def energy_explained(target: np.ndarray, model: np.ndarray) -> float:
    """The fraction of a map's sum of squares that the best positive multiple of another map explains."""
    lengths = np.linalg.norm(target) * np.linalg.norm(model)
    return float(max((target * model).sum() / lengths, 0) ** 2) if lengths > 0 else 0.0


# ------------------------------------------------------------------------------------------ regions


def region_table(explainer: Explainer, scene: Scene) -> pd.DataFrame:
    """Mean signed relevance of each word on each thing: a row per word, a column per thing."""
    ((split, directions),) = explainer.word_directions(scene.caption)
    (values,) = _on_things(explainer, [scene], [directions])
    names = [phrase(thing.noun, colour=thing.colour) for thing in scene.objects]
    return pd.DataFrame(
        values, index=[scene.caption[start:end] for start, end in split.spans], columns=names
    )


def region_hits(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Whether each noun and each colour word matches its own thing more than the others: one row per word."""
    asked, directions, rows = [], [], []
    for scene, (split, found) in zip(
        scenes, explainer.word_directions([one.caption for one in scenes]), strict=True
    ):
        known = [
            one for one in scene.spans if one.kind in ("noun", "colour") and len(one.objects) == 1
        ]
        places = enumerate(split.spans)
        own = [
            (i, span) for i, (a, b) in places for span in known if span.start < b and a < span.end
        ]
        asked.append([(scene.caption[slice(*split.spans[i])], span) for i, span in own])
        directions.append(found[[i for i, _ in own]])
    for image, (words, values) in enumerate(
        zip(asked, _on_things(explainer, scenes, directions), strict=True)
    ):
        for (word, span), row in zip(words, values, strict=True):
            hit = float(row.argmax() == span.objects[0]) if row.any() else 1 / len(row)
            rows.append({"image": image, "word": word, "kind": span.kind, "hit": hit})
    return pd.DataFrame(rows)


def _on_things(
    explainer: Explainer, scenes: Sequence[Scene], directions: Sequence[Tensor]
) -> list[np.ndarray]:
    """For each scene the means (W, things) of the maps of its W directions over the tokens of each thing."""
    padded = pad_sequence(list(directions), batch_first=True)  # (scenes, W, E)
    maps, found = as_array(explainer.maps(images_of(explainer.clip, scenes), padded)), []
    for scene, own, asked in zip(scenes, maps, directions, strict=True):
        coverage = object_coverage(explainer, scene, own.shape[1:])
        found.append(np.einsum("whv,rhv->wr", own[: len(asked)], coverage) / coverage.sum((1, 2)))
    return found
