"""Explanations that the tests of plots share: made of numbers, without a model."""

from dataclasses import replace

import numpy as np
from PIL import Image

from gradeclip_utils.explanation import Explanation, Interactions, Provenance
from gradeclip_utils.words import Word

PROVENANCE = Provenance(
    model="tiny",
    pretrained="",
    method="grad-eclip",
    title="Grad-ECLIP",
    explains="the model's own similarity",
    image_layers=4,
    text_layers=None,
    resolution="model",
    versions={},
)
NULLS = {
    "percentile": np.array([98.0, 33.0]),
    "null_median": 0.34,
    "null_max": 0.41,
    "null_count": 243,
}


OVER_OTHERS = {**NULLS, "null_mean": 0.35, "against_others": True}


def words(text):
    """Words of a text, with scores from -0.01 to 0.02."""
    texts = text.split()
    scores = np.linspace(-0.01, 0.02, len(texts))
    result = []
    end = 0
    for part, score in zip(texts, scores, strict=True):
        start = text.index(part, end)
        end = start + len(part)
        result.append(Word(part, float(score), start, end))
    return tuple(result)


def explanation(*prompts, size=(120, 90), against=None, box=None, **more):
    """An explanation of prompts, whose maps are noise."""
    random = np.random.default_rng(0)
    maps = 0.004 * random.normal(size=(len(prompts), 6, 8))
    maps = maps.astype(np.float32)
    result = Explanation(
        prompts,
        np.linspace(0.4, 0.3, len(prompts)),
        maps,
        tuple(map(words, prompts)),
        Image.effect_noise(size, 60).convert("RGB"),
        box or (0, 0, *size),
        PROVENANCE,
        **more,
    )
    if against is None:
        return result
    return replace(
        result,
        against=(against,) * len(prompts),
        against_similarity=result.similarity - 0.1,
        against_words=(words(against),) * len(prompts),
    )


def by_leave_one_out(*prompts):
    """An explanation whose scores are what the similarity loses without a word."""
    provenance = replace(
        PROVENANCE,
        words="leave-one-out",
        words_title="Leave one word out",
        word_change="without this word",
    )
    return replace(explanation(*prompts), provenance=provenance)


def interactions(caption="a red car and a ball"):
    """Word x region of a caption, whose maps are noise."""
    caption_words = words(caption)
    random = np.random.default_rng(1)
    maps = random.normal(size=(len(caption_words), 6, 8))
    return Interactions(
        (caption,),
        np.array([0.4]),
        maps.astype(np.float32),
        (caption_words,),
        Image.effect_noise((120, 90), 60).convert("RGB"),
        (0, 0, 120, 90),
        PROVENANCE,
    )
