"""Assigned: one drawing, tagged with a concrete word or with an abstract one, so that concreteness is our choice.

    concepts with two kinds of association -> two captions of each image -> saliency of the tag, in pairs

Over all words concreteness goes with role, exposure and place, and what is held constant by arithmetic may be held
badly. Here the noun, the image, the length of the caption and the place of the word are the same. What is left are
properties of the two words themselves: how often they were said, and how many other concepts share them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ...evaluation.attributes import image_pixels
from ...language import norms
from ...models import Clip
from ...scenes import arrange, concepts
from .saliency import METHODS, saliency, scene_examples, word_scores

APART = 1.5  # of ratings from 1 to 5: less, and people hardly agree which of two words is the more concrete


def tag_pairs() -> pd.DataFrame:
    """The concepts that CLDR gives both a concrete and an abstract word, and the two that lie furthest apart: `APART`.

    Returns:
        Indexed by noun: concrete and abstract (words), gap (of their ratings), concrete_concepts and abstract_concepts
        (of how many concepts either word is said: a word of one concept tells more than a word of many).
    """
    words = concepts()["keywords"].explode().dropna()
    ratings = norms(words.unique())["concreteness"]
    table = pd.DataFrame({"noun": words.index, "word": words.to_numpy(), "rating": words.map(ratings).to_numpy()})
    by_noun = table.dropna().sort_values("rating", kind="stable").groupby("noun", sort=True)
    pairs = pd.DataFrame({"concrete": by_noun["word"].last(), "abstract": by_noun["word"].first()})
    pairs["gap"] = by_noun["rating"].max() - by_noun["rating"].min()
    shared = words.value_counts()
    for kind in ("concrete", "abstract"):
        pairs[f"{kind}_concepts"] = pairs[kind].map(shared)
    return pairs[pairs["gap"] >= APART]


def tag_effects(clip: Clip, pairs: pd.DataFrame, *, seeds: Iterable[int] = range(4)) -> pd.DataFrame:
    """How salient either tag is in its caption, beside one and the same image.

    Args:
        clip: the model.
        pairs: of `tag_pairs`, two concepts or more.
        seeds: of the images, one each of every concept (`scenes.arrange`).

    Returns:
        One row a concept, seed and method of `METHODS`: noun, seed, method, concrete and abstract (`saliency`; NaN
        where no word of the caption has a positive score).

    Raises:
        ValueError: as `word_scores`.
    """
    asked = [(noun, seed, kind) for noun in pairs.index for seed in seeds for kind in ("concrete", "abstract")]
    scenes = [arrange([noun], seed=seed, tag=[pairs.loc[noun, kind]]) for noun, seed, kind in asked]
    rows = word_scores(clip, scene_examples(scenes, image_pixels(clip)))
    last = ~rows["caption"].duplicated(keep="last")  # the tag is the last word
    told = pd.DataFrame(asked, columns=["noun", "seed", "kind"])
    parts = [
        told.assign(method=name, value=saliency(rows, name)[last].to_numpy()).pivot(
            index=["noun", "seed", "method"], columns="kind", values="value"
        )
        for name in METHODS
    ]
    table = pd.concat(parts).reset_index()[["noun", "seed", "method", "concrete", "abstract"]]
    table.columns.name = None
    return table
