"""Explanations that the tests of plots share: made of numbers, without a model."""

from dataclasses import replace

import numpy as np
from PIL import Image

from gradeclip_utils.explanation import Explanation, Interactions
from gradeclip_utils.words import Word

PROVENANCE = {
    "model": "tiny",
    "pretrained": "",
    "method": "Grad-ECLIP",
    "attention": "model",
    "explains": "",
    "image_layers": 4,
}


def words(text, scores=None):
    """Words of a text, with scores from -0.01 to 0.02."""
    found, end = [], 0
    texts = text.split()
    for part, score in zip(
        texts, np.linspace(-0.01, 0.02, len(texts)) if scores is None else scores, strict=True
    ):
        start = text.index(part, end)
        end = start + len(part)
        found.append(Word(part, float(score), start, end))
    return tuple(found)


def explanation(*prompts, size=(120, 90), against=None, box=None, **more):
    """An explanation of prompts, whose maps are noise."""
    maps = (0.004 * np.random.default_rng(0).normal(size=(len(prompts), 6, 8))).astype(np.float32)
    similarity, box = np.linspace(0.4, 0.3, len(prompts)), box or (0, 0, *size)
    image = Image.effect_noise(size, 60).convert("RGB")
    made = Explanation(
        prompts, similarity, maps, tuple(map(words, prompts)), image, box, PROVENANCE, **more
    )
    if against is None:
        return made
    count = len(prompts)
    return replace(
        made,
        against=(against,) * count,
        against_similarity=similarity - 0.1,
        against_words=(words(against),) * count,
    )


def interactions(caption="a red car and a ball", size=(120, 90)):
    """Word x region of a caption, whose maps are noise."""
    said = words(caption)
    maps = np.random.default_rng(1).normal(size=(len(said), 6, 8)).astype(np.float32)
    image = Image.effect_noise(size, 60).convert("RGB")
    return Interactions(caption, said, maps, 0.4, image, (0, 0, *size), PROVENANCE)
