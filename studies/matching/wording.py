"""Wording: what the words of a caption do. Scores by kind of word, the template, and which word answers to which thing.

    captions, images -> Explainer -> words, interactions -> one row a word and question -> statistics

The part of speech is the tagger's (`language`), which works for any caption and errs now and then; the *kind* is the
grammar's own, which the scenes know for certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.explanation import Interactions
from gradeclip_utils.language import tagged_words
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.measures.sanity import agreement
from gradeclip_utils.notices import heard_by
from gradeclip_utils.scenes import PREFIXES, Scene, arrange, phrase

from ..relevance import as_array, embedded, object_coverage

KINDS = (
    "noun", "colour", "size", "count", "keyword", "something", "relation", "opening", "function", "punctuation",
)  # fmt: skip
ELSEWHERE = "elsewhere"
TEMPLATES = {"cat": "[]", "a cat": "{}", **{f"{prefix} a cat": f"{prefix} {{}}" for prefix in PREFIXES}}


def caption_word_kinds(scene: Scene) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """Words of a caption: text, part of speech, kind (of `KINDS`), and the objects that it speaks of."""
    opening = max((len(prefix) for prefix in PREFIXES if scene.caption.startswith(f"{prefix} ")), default=0)
    found = []
    for word in tagged_words(scene.caption):
        own = next((span for span in scene.spans if span.start < word.end and word.start < span.end), None)
        written = any(map(str.isalnum, word.text))
        other = "opening" if word.end <= opening else "function" if written else "punctuation"
        found.append((word.text, word.part, own.kind if own else other, own.objects if own else ()))
    return found


def word_fractions(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """On which words does the relevance of a caption fall? One row a word, for its own image and for another one's."""
    images, rows = [scene.image() for scene in scenes], []
    captions, told = [scene.caption for scene in scenes], [caption_word_kinds(scene) for scene in scenes]
    shorter = [embedded(explainer, leave_one_out_captions(caption)) for caption in captions]  # (W, E) each
    effects = [full - rest for full, rest in zip(embedded(explainer, captions), shorter, strict=True)]
    seen = as_array(explainer.embed_images(images))
    for which, step in (("own image", 0), ("another image", 1)):
        order = np.roll(np.arange(len(scenes)), -step)
        found = explainer.explain_batch([images[i] for i in order], captions)
        for i, one in enumerate(found):
            scores = np.array([word.score for word in one.words[0]])
            positive = np.maximum(scores, 0)
            fractions = positive / positive.mean() if positive.any() else np.ones(len(scores))
            assert [word.text for word in one.words[0]] == [text for text, *_ in told[i]]
            columns = {"fraction": fractions, "score": scores, "leave_one_out": effects[i] @ seen[order[i]]}
            words = pd.DataFrame([row[:3] for row in told[i]], columns=["word", "part", "kind"])
            rows.append(words.assign(image=i, shown=which, **columns))
    return pd.concat(rows, ignore_index=True)


def leave_one_out_agreement(words: pd.DataFrame) -> pd.Series:
    """Spearman's rank correlation of score and leave-one-out effect in each caption beside its own image, by image."""
    own = words[words["shown"] == "own image"].groupby("image")
    ordered = {
        image: rows["score"].corr(rows["leave_one_out"], method="spearman")
        for image, rows in own
        if len(rows) > 3 and rows["score"].nunique() > 1 and rows["leave_one_out"].nunique() > 1
    }
    return pd.Series(ordered, dtype=float)


def leave_one_out_captions(caption: str) -> list[str]:
    """The caption without each of its words, one after the other."""
    return [
        " ".join((caption[: word.start] + caption[word.end :]).split()).replace(" ,", ",")
        for word in tagged_words(caption)
    ]


def template_effect(explainer: Explainer, nouns: Sequence[str]) -> pd.DataFrame:
    """One thing, one noun, many templates: one row a noun and template (of `TEMPLATES`), beside the template "a cat"."""
    images = [arrange([noun], seed=i).image() for i, noun in enumerate(nouns)]
    seen = as_array(explainer.embed_images(images))
    texts = {name: embedded(explainer, [filled(one, noun) for noun in nouns]) for name, one in TEMPLATES.items()}
    texts["another noun"] = np.roll(texts["a cat"], 1, axis=0)
    maps = as_array(explainer.maps(images, np.stack(list(texts.values()), axis=1)))
    plain = list(TEMPLATES).index("a cat")
    base, tables = texts["a cat"], []
    for i, (name, own) in enumerate(texts.items()):
        scores = seen @ own.T
        columns = {
            "gain": np.diag(scores) - (seen * base).sum(-1),
            "right": (scores.argmax(1) == np.arange(len(nouns))).astype(float),
            "map": agreement(maps[:, i], maps[:, plain]),
            "alike": (own * base).sum(-1),
        }
        tables.append(pd.DataFrame({"image": list(nouns), "template": name, **columns}))
    return pd.concat(tables, ignore_index=True)


def filled(template: str, noun: str) -> str:
    """A noun put into a template."""
    return template.replace("{}", phrase(noun)).replace("[]", noun)


@dataclass(frozen=True, eq=False)
class WordRegions:
    """Which word answers to which region: mean signed interactions a token, of W words and R regions."""

    caption: str
    words: tuple[str, ...]
    regions: tuple[str, ...]
    values: np.ndarray  # (W, R)
    image: Image.Image
    masks: tuple[np.ndarray, ...]  # (H, W) bool of each region, in the image's pixels
    origin: str  # which model made it


def word_regions(
    explainer: Explainer, image: Image.Image, caption: str, masks: Mapping[str, np.ndarray]
) -> WordRegions:
    """The word x region matrix of one caption: interactions (`methods.interactions`) averaged over each region."""
    size = image.size[::-1]
    wrong = [name for name, mask in masks.items() if mask.shape != size or not mask.any()]
    if wrong or not masks:
        msg = f"masks must be {size} and cover something, as the image is; not so: {wrong or 'there are none'}"
        raise GradeclipError(msg)
    found = _interactions(explainer, image, caption)
    named = {name: mask.astype(bool) for name, mask in masks.items()}
    rest = ~np.any(list(named.values()), axis=0)
    if rest.any():
        named[ELSEWHERE] = rest
    coverage = np.stack([pool(mask, found.maps.shape[1:], found.box) for mask in named.values()])
    values = _region_means(found.maps.astype(float), coverage, centred=True)
    words = tuple(word.text for word in found.words)
    return WordRegions(caption, words, tuple(named), values, image, tuple(named.values()), found.origin)


def scene_regions(explainer: Explainer, scene: Scene) -> WordRegions:
    """`word_regions` of a scene: its regions are its things, named by colour and noun."""
    names: list[str] = []
    for thing in scene.objects:
        name = phrase(thing.noun, colour=thing.colour)
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    masks = dict(zip(names, scene.masks(), strict=True))
    return word_regions(explainer, scene.image(), scene.caption, masks)


def own_region_hits(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Does a noun, and does a colour, answer to its own thing most? One row a word, with and without centring."""
    rows = []
    for i, scene in enumerate(scenes):
        found = _interactions(explainer, scene.image(), scene.caption)
        coverage = object_coverage(explainer, scene, found.maps.shape[1:])
        told = caption_word_kinds(scene)
        assert [word.text for word in found.words] == [text for text, *_ in told]
        for centred in (False, True):
            values = _region_means(found.maps.astype(float), coverage, centred)  # (W, things)
            for (text, _, kind, own), row, map_ in zip(told, values, found.maps, strict=True):
                if kind in ("noun", "colour") and len(own) == 1:
                    hit = float(row.argmax() == own[0]) if map_.any() else 1 / len(row)
                    rows.append({"image": i, "word": text, "kind": kind, "centred": centred, "hit": hit})
    return pd.DataFrame(rows)


def _interactions(explainer: Explainer, image: Image.Image, caption: str) -> Interactions:
    """The maps of all words; nobody is warned of one that is zero everywhere, for its row is read as what it is."""
    with heard_by(lambda warning: None):
        return explainer.interactions(image, caption)


def _region_means(maps: np.ndarray, coverage: np.ndarray, centred: bool) -> np.ndarray:
    """Mean of each map (W, h, w) over the tokens of each region (R, h, w), weighted by how much it covers: (W, R)."""
    values = np.einsum("whv,rhv->wr", maps, coverage) / coverage.sum((1, 2))
    return values - values.mean(0) if centred else values
