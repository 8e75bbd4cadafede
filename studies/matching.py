"""Image-text matching (lesson 05): does a caption match an image word by word?

    captions with two words exchanged -> whose scores change? (`exchanged_scores`)
    phrases -> what is lost without words, without the phrase (`phrase_losses`)
    two things of one noun -> maps with and without a colour  (`adjective_shift`, `plot_twins`)
    sentences -> the plane of their parts' embeddings         (`span_fractions`)
    words x things                                            (`region_table`, `region_hits`)

Grad-ECLIP on adjectives: Zhao et al., arXiv 2502.18816. Sums of embeddings as a model of meaning:
Mitchell and Lapata, "Composition in Distributional Models of Semantics", Cognitive Science 2010; of
CLIP: Trager et al., ICCV 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gradeclip_utils import Explainer
from gradeclip_utils.language import tagged_words
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import plot_maps
from gradeclip_utils.scenes import (
    CANVAS,
    COLOURS,
    PREFIXES,
    SPLITS,
    Object,
    Scene,
    Span,
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

from .lesson import different_things
from .pairs import embed_scenes, maps_of
from .relevance import as_array, embedded, fraction_on_first, object_coverage

LARGE = 40  # units of the canvas, of a thing whose map is shown

# -------------------------------------------------------------------------------------------- words


def two_coloured(n: int) -> list[Scene]:
    """The first `n` test scenes of two different things whose captions say the colours of both."""
    scenes = different_things(81, n_objects=2, tint=1)
    return list(islice(filter(_have_two_colours, scenes), n))


def _have_two_colours(scene: Scene) -> bool:
    first, second = scene.objects
    return first.colour != second.colour


def shown_scene(scenes: Sequence[Scene]) -> Scene:
    """The first scene in which no object is cut or small, and none is called a map."""
    return next(
        scene
        for scene in scenes
        if showable(scene) and "map" not in [thing.noun for thing in scene.objects]
    )


def word_kinds(scene: Scene) -> list[str]:
    """The kind of each word of the caption, as the scene's grammar knows it.

    Noun, colour, opening, function, ...
    """
    caption = scene.caption
    openings = [len(prefix) for prefix in PREFIXES if caption.startswith(f"{prefix} ")]

    kinds = []
    for word in tagged_words(caption):
        spans = scene.spans_of(word.start, word.end)
        if spans:
            kinds.append(spans[0].kind)
        elif word.end <= max(openings, default=0):
            kinds.append("opening")
        elif word.text.isalnum():
            kinds.append("function")
        else:
            kinds.append("punctuation")
    return kinds


def places_of(scene: Scene, *kinds: str) -> list[int]:
    """Which words of the caption are of these kinds."""
    return [place for place, kind in enumerate(word_kinds(scene)) if kind in kinds]


def exchanged(scene: Scene, kind: str) -> str:
    """The caption of a scene of two things with its two words of a kind exchanged.

    "noun" and "colour" give captions that say the same, in another order.
    """
    if kind == "colour":  # the article before a colour changes with it
        first, second = scene.objects
        return recoloured(scene, [second.colour, first.colour]).caption
    words = scene.caption.split()
    i, j = places_of(scene, kind)
    words[i], words[j] = words[j], words[i]
    return " ".join(words)


def exchanged_scores(explainer: Explainer, scenes: Sequence[Scene], kind: str) -> pd.DataFrame:
    """Word scores in the true caption and in the one with two words exchanged, place by place.

    One row per word: columns image, kind, change. All other words stay in their places.
    """
    images = embed_scenes(explainer, scenes)
    captions = [scene.caption for scene in scenes]
    captions_exchanged = [exchanged(scene, kind) for scene in scenes]
    scored = explainer.score_words(captions, images)
    scored_exchanged = explainer.score_words(captions_exchanged, images)

    rows = []
    for i, scene in enumerate(scenes):
        words = zip(scored[i], scored_exchanged[i], strict=True)
        changes = [abs(before.score - after.score) for before, after in words]
        table = {"image": i, "kind": word_kinds(scene), "change": changes}
        rows.append(pd.DataFrame(table))
    return pd.concat(rows, ignore_index=True)


def phrase_losses(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """What the similarity loses without a colour, without its noun, and without the whole phrase.

    One row per scene of two coloured things, about the first: columns colour, noun, phrase. Without
    its phrase, "a red car and a blue owl" is "a blue owl".
    """
    images = as_array(embed_scenes(explainer, scenes))
    texts = []
    for scene in scenes:
        words = scene.caption.split()
        kinds = word_kinds(scene)
        second = scene.objects[1]
        texts += [
            scene.caption,
            _without(words, kinds.index("colour")),
            _without(words, kinds.index("noun")),
            phrase(second.noun, colour=second.colour),
        ]

    embeddings = embedded(explainer, texts).reshape(len(scenes), 4, -1)
    whole, no_colour, no_noun, no_phrase = np.einsum("pte,pe->tp", embeddings, images)
    losses = {
        "colour": whole - no_colour,
        "noun": whole - no_noun,
        "phrase": whole - no_phrase,
    }
    return pd.DataFrame(losses)


def _without(words: Sequence[str], place: int) -> str:
    return " ".join([*words[:place], *words[place + 1 :]])


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
    """Pairs of like things in two colours, each of another noun, in places of a random scene."""
    rng = np.random.default_rng([SPLITS["test"], 70])
    nouns = rng.permutation(list(concepts().index)).tolist()

    pairs = []
    for number, noun in enumerate(nouns[:n]):
        rng = np.random.default_rng([SPLITS["test"], 71, number])
        trained = [colour for colour in COLOURS if not is_withheld_colour(noun, colour)]
        colour, second_colour, absent = rng.choice(trained, 3, replace=False).tolist()

        first, second, background = _twins(noun, colour, second_colour, number)
        untinted = replace(second, colour=None)
        pair = ColourPair(
            noun,
            colour,
            second_colour,
            absent,
            scene=arrange([first, second], background=background),
            plain=arrange([first, untinted], background=background),
        )
        pairs.append(pair)
    return pairs


def _twins(noun: str, colour: str, second_colour: str, number: int) -> tuple[Object, Object, int]:
    """Two like things in two colours, both seen whole, and their background.

    The first of many draws.
    """
    groups = [(noun, colour, 1), (noun, second_colour, 1)]
    for attempt in count():
        scene = draw_scene([71, number, attempt], split="test", plain=True, groups=groups)
        first, second = scene.objects
        first = replace(first, size=min(first.size, second.size))
        second = replace(first, colour=second_colour, x=second.x, y=second.y)
        if _seen_whole(first, second):
            break
    return first, second, scene.background


def _seen_whole(*things: Object) -> bool:
    """Whether no thing hides part of another, and none reaches the border of the image."""
    masks = covered(list(things), CANVAS)  # (things, H, W)
    if masks[:, [0, -1]].any():  # above or below
        return False
    if masks[:, :, [0, -1]].any():  # on the left or on the right
        return False
    alone = [covered([thing], CANVAS)[0] for thing in things]
    return np.array_equal(masks, alone)


def colour_prompts(pair: ColourPair) -> dict[str, str]:
    """The prompts about a pair, by what they say of the first thing."""
    return {
        "no colour": phrase(pair.noun),
        "its colour": phrase(pair.noun, colour=pair.colour),
        "the other's colour": phrase(pair.noun, colour=pair.other),
        "a colour of neither": phrase(pair.noun, colour=pair.absent),
    }


def plot_twins(clip: Clip, pairs: Sequence[ColourPair], plain: bool = False) -> Figure:
    """The maps of the four prompts about the first pair of large things.

    `plain` shows the image whose second thing has its own colours.
    """
    large = [pair for pair in pairs if pair.scene.objects[0].size > LARGE]
    pair = (large or pairs)[0]
    scene = pair.plain if plain else pair.scene
    image = scene.image()

    prompts = list(colour_prompts(pair).values())
    explanation = Explainer(clip).explain(image, prompts)
    maps = {prompt: explanation.heatmap(i) for i, prompt in enumerate(prompts)}
    return plot_maps(image, maps, columns=4)


def adjective_shift(
    explainer: Explainer,
    pairs: Sequence[ColourPair],
    plain: bool = False,
) -> pd.DataFrame:
    """How much of the relevance on both things a colour word moves to the first.

    One row per pair and prompt.

    Columns noun, prompt, fraction (of the positive relevance on both things, on the first) and
    moved (less that of the prompt without a colour). `plain` explains images whose second thing has
    its own colours.
    """
    scenes = [pair.plain if plain else pair.scene for pair in pairs]
    prompts: list[str] = []
    for pair in pairs:
        prompts += colour_prompts(pair).values()
    texts = explainer.embed_texts(prompts)
    directions = texts.unflatten(0, (len(pairs), -1))  # (pairs, prompts, E)
    maps = maps_of(explainer, scenes, directions)

    rows = []
    for pair, scene, pair_maps in zip(pairs, scenes, maps, strict=True):
        coverage = object_coverage(explainer, scene, pair_maps.shape[1:])
        fractions = [fraction_on_first(map_, coverage) for map_ in pair_maps]
        for name, fraction in zip(colour_prompts(pair), fractions, strict=True):
            row = {
                "noun": pair.noun,
                "prompt": name,
                "fraction": fraction,
                "moved": fraction - fractions[0],
            }
            rows.append(row)
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------- sums


def noun_pairs(n: int) -> list[tuple[str, str]]:
    """Pairs of nouns that training may show together; no noun comes twice."""
    rng = np.random.default_rng([SPLITS["test"], 80])
    nouns = rng.permutation(list(concepts().index)).tolist()
    waiting = [noun for noun in nouns if concept(noun)["plural"]]

    pairs: list[tuple[str, str]] = []
    while len(waiting) > 1 and len(pairs) < n:
        first = waiting.pop(0)
        partners = [noun for noun in waiting if not is_withheld_pair(first, noun)]
        if partners:
            second = partners[0]
            waiting.remove(second)
            pairs.append((first, second))
    return pairs


def span_fractions(explainer: Explainer, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """How much of "an A and a B" lies in the plane of e("an A") and e("a B").

    One row per pair; the fractions are of the sentence's squared length.

    The mean of the parts is taken from the parts, and the mean of the sentences from the sentences:
    all prompts share a large part. `foreign` is the plane of another pair's parts, the control;
    first and second are the weights.
    """
    first = embedded(explainer, [phrase(noun) for noun, _ in pairs])  # (P, E)
    second = embedded(explainer, [phrase(noun) for _, noun in pairs])
    parts = np.stack([first, second], axis=1)  # (P, 2, E)
    parts = parts - np.concatenate([first, second]).mean(0)
    sentences = embedded(explainer, [phrase(*pair) for pair in pairs])
    sentences = sentences - sentences.mean(0)

    foreign_parts = np.roll(parts, 1, axis=0)
    fraction, weights = _in_plane(sentences, parts)
    foreign, _ = _in_plane(sentences, foreign_parts)
    table = {
        "own": fraction,
        "foreign": foreign,
        "first": weights[:, 0],
        "second": weights[:, 1],
    }
    return pd.DataFrame(table)


def _in_plane(targets: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (P,) of the targets' squares in the spans of parts (P, K, E); weights (P, K)."""
    inverses = np.linalg.pinv(parts)  # (P, E, K)
    weights = np.einsum("pek,pe->pk", inverses, targets)
    projections = np.einsum("pk,pke->pe", weights, parts)
    fractions = (projections**2).sum(-1) / (targets**2).sum(-1)
    return fractions, weights


def energy_explained(target: np.ndarray, model: np.ndarray) -> float:
    """The fraction of a map's sum of squares that the best multiple of another map explains."""
    lengths = np.linalg.norm(target) * np.linalg.norm(model)
    if lengths == 0:
        return 0.0
    cosine = (target * model).sum() / lengths
    return float(max(cosine, 0) ** 2)


# ------------------------------------------------------------------------------------------ regions


def region_table(explainer: Explainer, scene: Scene) -> pd.DataFrame:
    """Mean signed relevance of each word on each thing: a row per word, a column per thing."""
    ((split, directions),) = explainer.word_directions(scene.caption)
    (values,) = _on_things(explainer, [scene], [directions])
    words = [scene.caption[start:end] for start, end in split.spans]
    things = [phrase(thing.noun, colour=thing.colour) for thing in scene.objects]
    return pd.DataFrame(values, index=words, columns=things)


def region_hits(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Whether each noun and each colour word matches its own thing more than the others.

    One row per word.
    """
    captions = [scene.caption for scene in scenes]
    words_of_scenes = []
    directions = []
    split_captions = explainer.word_directions(captions)
    for scene, (split, vectors) in zip(scenes, split_captions, strict=True):
        words = _words_of_one_thing(scene, split.spans)
        numbers = [number for number, _, _ in words]
        words_of_scenes.append(words)
        directions.append(vectors[numbers])

    rows = []
    for image, means in enumerate(_on_things(explainer, scenes, directions)):
        for (_, word, span), on_things in zip(words_of_scenes[image], means, strict=True):
            hit = float(on_things.argmax() == span.objects[0])
            if not on_things.any():
                hit = 1 / len(on_things)  # a word without a map guesses
            row = {
                "image": image,
                "word": word,
                "kind": span.kind,
                "hit": hit,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _words_of_one_thing(
    scene: Scene,
    places: Sequence[tuple[int, int]],
) -> list[tuple[int, str, Span]]:
    """The nouns and colour words of a caption that are about one thing.

    The number of the word, the word, and its span.
    """
    words = []
    for number, (start, end) in enumerate(places):
        word = scene.caption[start:end]
        for span in scene.spans_of(start, end):
            if span.kind in ("noun", "colour") and len(span.objects) == 1:
                words.append((number, word, span))
    return words


def _on_things(
    explainer: Explainer,
    scenes: Sequence[Scene],
    directions: Sequence[Tensor],
) -> list[np.ndarray]:
    """For each scene, means (W, things) of the maps of W directions over each thing's tokens."""
    padded = pad_sequence(list(directions), batch_first=True)  # (scenes, W, E)
    maps = maps_of(explainer, scenes, padded)

    means = []
    for scene, scene_maps, scene_directions in zip(scenes, maps, directions, strict=True):
        coverage = object_coverage(explainer, scene, scene_maps.shape[1:])  # (things, h, w)
        scene_maps = scene_maps[: len(scene_directions)]  # without the padding
        sums = np.einsum("whv,rhv->wr", scene_maps, coverage)
        areas = coverage.sum((1, 2))
        means.append(sums / areas)
    return means
