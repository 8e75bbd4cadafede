"""Embeddings: what the two sides of an answer hold. How far a change moves the text, and what a probe reads of images.

pairs, scenes -> embeddings -> change in synonyms, answers of a linear classifier
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from gradeclip_utils.explain import Explainer
from gradeclip_utils.scenes import draw_scene, relation_between

from ..pairs import Pair, images_of

PROBED = ("place", "colour")


def yardstick(explainer: Explainer, pairs: Sequence[Pair]) -> dict[str, float]:
    """How far a synonym moves a caption's embedding ("text"), and another background an image's ("image")."""
    plain = [pair.scenes[0] for pair in pairs]
    said = [explainer.embed_texts([f"{one} {scene.caption}" for scene in plain])
            for one in ("a photo of", "a picture of")]  # fmt: skip
    elsewhere = [replace(scene, background=scene.background + 1) for scene in plain]
    drawn = [explainer.embed_images(images_of(explainer.clip, scenes)) for scenes in (plain, elsewhere)]
    return {name: float((a - b).norm(dim=-1).mean()) for name, (a, b) in (("text", said), ("image", drawn))}


def portraits(explainer: Explainer, n: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, E) of images of a dog and an apple, and a label each: is the dog on the left, or is it red?"""
    rng, scenes, labels, attempt = np.random.default_rng(0), [], [], 0
    while len(scenes) < n:
        label, attempt = bool(rng.integers(2)), attempt + 1
        colours = [None, None] if kind == "place" else ["red", "blue"] if label else ["blue", "red"]
        groups = [(noun, colour, 1) for noun, colour in zip(("dog", "apple"), colours, strict=True)]
        scene = draw_scene([98, 0, attempt], split="development", plain=True, groups=groups)
        stands = relation_between(scene.objects[0], scene.objects[1])
        if kind == "colour" or stands in ("to the left of", "to the right of"):
            scenes.append(scene)
            labels.append(label if kind == "colour" else stands == "to the left of")
    return explainer.embed_images(images_of(explainer.clip, scenes)).cpu().numpy(), np.array(labels)


def probe(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether a linear classifier is right (n,), on images that it was not fitted on: five folds."""
    return cross_val_predict(LogisticRegression(C=100, max_iter=5000), images, labels, cv=5) == labels
