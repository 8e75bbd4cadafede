"""Wording: what the words of a caption do. Scores by kind of word, the template, and which word answers to which thing.

    captions, pictures -> Explainer -> words, interactions -> one row a word and question -> statistics

The part of speech is the tagger's (``language``), which works for any caption and errs now and then; the *kind* is the
grammar's own, which the scenes know for certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from ...evaluation.localisation import pool
from ...evaluation.sanity import agreement
from ...explain import Explainer
from ...language import tagged_words
from ...scenes import PREFIXES, Scene, arrange
from .composition import phrase
from .directions import embed, look, maps_of, regions

KINDS = ("noun", "colour", "size", "count", "keyword", "something", "relation", "opening", "function", "mark")
ELSEWHERE = "elsewhere"
TEMPLATES = {"cat": "[]", "a cat": "{}", **{f"{prefix} a cat": f"{prefix} {{}}" for prefix in PREFIXES}}


def kinds_of(scene: Scene) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """Words of a scene's caption: text, part of speech, kind (of ``KINDS``), and the objects that it speaks of.

    >>> kinds_of(arrange(["red car"]))[1:]
    [('red', 'adjective', 'colour', (0,)), ('car', 'noun', 'noun', (0,))]
    """
    opening = max((len(prefix) for prefix in PREFIXES if scene.caption.startswith(f"{prefix} ")), default=0)
    found = []
    for word in tagged_words(scene.caption):
        own = next((span for span in scene.spans if span.start < word.end and word.start < span.end), None)
        kind = own.kind if own else "opening" if word.end <= opening else "mark" if word.part == "mark" else "function"
        found.append((word.text, word.part, kind, own.objects if own else ()))
    return found


def word_shares(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """On which words does the relevance of a caption fall? One row a word, for its own picture and for another one's.

    Columns: picture, shown ("own picture" or "another picture", the control: what is left is the text tower's own
    habit), word, part, kind, share: the word's share of the caption's positive relevance, times the number of words, so
    that 1 is what every word has when all are alike; score, signed; and fall: by how much the similarity falls when the
    word is left out, which asks the model itself and knows no gradient.
    """
    pictures, rows = [scene.image() for scene in scenes], []
    captions, told = [scene.caption for scene in scenes], [kinds_of(scene) for scene in scenes]
    falls = [embed(explainer, [caption])[0] - embed(explainer, shortened(caption)) for caption in captions]  # (W, E)
    seen = look(explainer, pictures)
    for which, step in (("own picture", 0), ("another picture", 1)):
        order = np.roll(np.arange(len(scenes)), -step)
        found = explainer.explain_batch([pictures[i] for i in order], captions)
        for i, one in enumerate(found):
            scores = np.array([word.score for word in one.words[0]])
            positive = np.maximum(scores, 0)
            shares = positive / positive.mean() if positive.any() else np.ones(len(scores))
            assert [word.text for word in one.words[0]] == [text for text, *_ in told[i]]
            columns = {"share": shares, "score": scores, "fall": falls[i] @ seen[order[i]]}
            words = pd.DataFrame([row[:3] for row in told[i]], columns=["word", "part", "kind"])
            rows.append(words.assign(image=i, shown=which, **columns))
    return pd.concat(rows, ignore_index=True)


def score_and_fall(words: pd.DataFrame) -> pd.Series:
    """Spearman's rank correlation of score and fall within each caption of ``word_shares``, beside its own picture.

    Captions of fewer than four words, or whose scores are all alike, have no order worth the name and are left out.
    """
    own = words[words["shown"] == "own picture"].groupby("image")
    ordered = {
        picture: rows["score"].corr(rows["fall"], method="spearman")
        for picture, rows in own
        if len(rows) > 3 and rows["score"].nunique() > 1 and rows["fall"].nunique() > 1
    }
    return pd.Series(ordered, dtype=float)


def shortened(caption: str) -> list[str]:
    """The caption without each of its words, one after the other.

    >>> shortened("a cat, a dog")[:3]
    ['cat, a dog', 'a, a dog', 'a cat a dog']
    """
    return [
        " ".join((caption[: word.start] + caption[word.end :]).split()).replace(" ,", ",")
        for word in tagged_words(caption)
    ]


def template_effect(explainer: Explainer, nouns: Sequence[str]) -> pd.DataFrame:
    """One thing, one noun, many templates (``TEMPLATES``): one row a noun and template, beside the template "a cat".

    Columns: picture (the noun), template, gain (similarity minus that of "a cat"), right (1 if the true noun is the
    most similar of these nouns, in the same template), map (rank correlation with the map of "a cat"), alike (cosine of
    the prompt with "a cat"), alike_centred (the same, the mean of each template over the nouns removed).
    """
    pictures = [arrange([noun], background=i).image() for i, noun in enumerate(nouns)]
    seen = look(explainer, pictures)
    texts = {name: embed(explainer, [filled(one, noun) for noun in nouns]) for name, one in TEMPLATES.items()}
    maps = maps_of(explainer, pictures, np.stack(list(texts.values()), axis=1))
    plain = list(TEMPLATES).index("a cat")
    base, tables = texts["a cat"], []
    for i, (name, own) in enumerate(texts.items()):
        scores = seen @ own.T
        columns = {
            "gain": np.diag(scores) - (seen * base).sum(-1),
            "right": (scores.argmax(1) == np.arange(len(nouns))).astype(float),
            "map": agreement(maps[:, i], maps[:, plain]),
            "alike": (own * base).sum(-1),
            "alike_centred": _cosine(own - own.mean(0), base - base.mean(0)),
        }
        tables.append(pd.DataFrame({"image": list(nouns), "template": name, **columns}))
    return pd.concat(tables, ignore_index=True)


def filled(template: str, noun: str) -> str:
    """The noun put into a template: {} stands for "a cat", [] for "cat".

    >>> filled("a photo of {}", "owl"), filled("[]", "owl")
    ('a photo of an owl', 'owl')
    """
    return template.replace("{}", phrase(noun)).replace("[]", noun)


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))


@dataclass(frozen=True, eq=False)
class WordRegions:
    """Which word answers to which region: ``values`` (W, R), mean signed interaction a token, of words and regions.

    ``centred``: the mean of the caption's words is taken away, because words share a part.
    """

    caption: str
    words: tuple[str, ...]
    regions: tuple[str, ...]
    values: np.ndarray
    centred: bool
    image: Image.Image
    masks: tuple[np.ndarray, ...]  # (H, W) bool each, in the picture's pixels
    origin: str


def word_regions(
    explainer: Explainer, picture: Image.Image, caption: str, masks: Mapping[str, np.ndarray], *, centred: bool = True
) -> WordRegions:
    """The word x region matrix of one caption: interactions (`methods.interactions`) averaged over each region.

    Args:
        masks: name -> (H, W) bool in the picture's pixels. What no mask covers is added as "elsewhere".

    Raises:
        ValueError: no masks, or one that does not fit the picture.
    """
    size = picture.size[::-1]
    wrong = [name for name, mask in masks.items() if mask.shape != size or not mask.any()]
    if wrong or not masks:
        raise ValueError(
            f"masks must be {size} and mark something, as the picture is; not so: {wrong or 'there are none'}"
        )
    found = explainer.interactions(picture, caption)
    named = {name: mask.astype(bool) for name, mask in masks.items()}
    rest = ~np.any(list(named.values()), axis=0)
    if rest.any():
        named[ELSEWHERE] = rest
    covered = np.stack([pool(mask, found.maps.shape[1:], found.box) for mask in named.values()])
    values = _means(found.maps.astype(float), covered)
    values = values - values.mean(0) if centred else values
    words = tuple(word.text for word in found.words)
    return WordRegions(caption, words, tuple(named), values, centred, picture, tuple(named.values()), found.origin)


def scene_regions(explainer: Explainer, scene: Scene, *, centred: bool = True) -> WordRegions:
    """``word_regions`` of a scene: its regions are its things, named by their nouns."""
    names = []
    for thing in scene.objects:
        name = phrase(thing.noun, colour=thing.colour)
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    masks = dict(zip(names, scene.masks(), strict=True))
    return word_regions(explainer, scene.image(), scene.caption, masks, centred=centred)


def own_region(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Does a noun, and does a colour, answer to its own thing most? One row a word, with and without centring.

    Columns: picture, word, kind ("noun" or "colour"), centred, hit (1 if the mean interaction is largest on its own
    thing, of all things; by chance 1 / number of things).
    """
    rows = []
    for i, scene in enumerate(scenes):
        found = explainer.interactions(scene.image(), scene.caption)
        values = _means(found.maps.astype(float), regions(explainer, scene, found.maps.shape[1:]))  # (W, things)
        told = kinds_of(scene)
        assert [word.text for word in found.words] == [text for text, *_ in told]
        for centred in (False, True):
            shown = values - values.mean(0) if centred else values
            rows += [
                {"image": i, "word": text, "kind": kind, "centred": centred, "hit": float(row.argmax() == own[0])}
                for (text, _, kind, own), row in zip(told, shown, strict=True)
                if kind in ("noun", "colour") and len(own) == 1
            ]
    return pd.DataFrame(rows)


def _means(maps: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Mean of each map (W, h, w) over the tokens of each region (R, h, w), weighted by how much it covers: (W, R)."""
    return np.einsum("whv,rhv->wr", maps, covered) / covered.sum((1, 2))
