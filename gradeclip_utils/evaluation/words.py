"""Words: are the scores of a prompt's words right? A benchmark of explanations of text.

    captions, true and false --methods--> a score for each word --here--> one number a caption --statistics--> table

Four questions, of which no single one decides:

- **deletion, insertion**: does the similarity fall early when the highest words are taken out first, and rise early
  when they are put back first (`faithfulness.word_curves`)? Areas under the curves; low and high are good.
- **as leave-one-out**: rank correlation with what each word alone makes of the similarity when it is left out.
- **shown above zero, absent above zero**: the fraction of the nouns that the image shows, and of nouns that it does not
  show, whose score speaks for the image. A noun of several words has their sum.
- **shown above absent**: in a caption with one false noun, how often a true noun scores higher; chance is one half.

All scores come from the words in their caption, and all similarities from the unmodified model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import InvalidValue
from ..explain import Explainer
from ..methods import METHODS
from ..models import Clip
from ..scenes import concepts, draw_scene
from .faithfulness import areas, word_curves
from .statistics import spearman

Span = tuple[int, int]
MEASURES = (
    "deletion", "insertion", "as leave-one-out", "shown above zero", "absent above zero", "shown above absent",
)  # fmt: skip
_SEED = 94  # of the scenes


@dataclass(frozen=True)
class Captioned:
    """An image and a caption, of which it is known which nouns the image shows.

    Attributes:
        key: the image's name; several captions may have one image.
        image: the image.
        caption: the caption.
        nouns: where each noun stands, `caption[start:end]`.
        shown: for each noun, whether the image shows it.
    """

    key: str
    image: Image.Image
    caption: str
    nouns: tuple[Span, ...]
    shown: tuple[bool, ...]

    @property
    def true(self) -> bool:
        """Whether the image shows every noun."""
        return all(self.shown)


def captioned_scenes(n: int, *, split: str = "development", seed: int = 0) -> list[Captioned]:
    """Scenes of two to four things, each with its own caption and with one noun exchanged for one that is not there.

    Args:
        n: how many scenes.
        split: see `scenes.SPLITS`.
        seed: of the scenes and the false nouns.

    Returns:
        2 n captions: the true one of a scene, then the false one.
    """
    found, place, names = [], 0, concepts()["noun"].tolist()
    while len(found) < 2 * n:
        rng = np.random.default_rng([_SEED, seed, place])
        scene = draw_scene([_SEED, seed, place], split=split, n_objects=int(rng.integers(2, 5)))
        place += 1
        spans = [span for span in scene.spans if span.kind == "noun"]
        single = [i for i, span in enumerate(spans) if scene.caption[span.start : span.end] in names]
        if len(spans) < 2 or not single:
            continue
        false = int(rng.choice(single))
        start, end = spans[false].start, spans[false].end
        vowel, there = scene.caption[start] in "aeiou", {thing.noun for thing in scene.objects}
        other = str(rng.choice([name for name in names if name not in there and (name[0] in "aeiou") == vowel]))
        shift = len(other) - (end - start)
        nouns = tuple((span.start, span.end) for span in spans)
        moved = tuple((a + shift * (a > start), b + shift * (a >= start)) for a, b in nouns)
        image, key = scene.image(), f"{split}/{seed}/{place - 1}"
        found.append(Captioned(key, image, scene.caption, nouns, (True,) * len(nouns)))
        caption = scene.caption[:start] + other + scene.caption[end:]
        found.append(Captioned(key, image, caption, moved, tuple(i != false for i in range(len(nouns)))))
    return found


def text_methods(depth: int) -> dict[str, tuple[str, int | None]]:
    """What is compared: a name for tables -> a method of `METHODS` that has scores of words, and how many text layers.

    Grad-ECLIP goes through one layer, half of them, two thirds (its default) and all; the others through what they ask
    for.

    Args:
        depth: how many layers the text encoder has.
    """
    parts = sorted({1, round(depth / 2), round(2 * depth / 3), depth} - {0})
    ours: dict[str, tuple[str, int | None]] = {
        f"Grad-ECLIP, {layers} of {depth} layers": ("grad-eclip", layers) for layers in parts
    }
    others = ("metagame", "leave-one-out", "input-x-gradient", "integrated-gradients", "attention", "rollout")
    return ours | {METHODS[name].title: (name, None) for name in others}


def word_rows(
    clip: Clip,
    captions: Sequence[Captioned],
    methods: Mapping[str, tuple[str, int | None]] | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the scores that methods give to the words of captions.

        rows = word_rows(load_clip(), captioned_scenes(200))
        summarise(rows, "value", by=["measure", "method"])

    Args:
        clip: the model; its tokenizer must say which tokens make up a word.
        captions: true and false ones.
        methods: as `text_methods` gives them, which is the default. A method "Random" is added as the chance level.
        seed: of random scores, of ties, and of methods that draw.

    Returns:
        One row a caption, method and measure that is defined for it: image (the key), caption, measure (one of
        `MEASURES`), method, value. Deletion, insertion and the rank correlation are those of true captions, and
        leave-one-out is not compared with itself.

    Raises:
        ValueError: a method without scores of words, or no captions.
        TypeError: the tokenizer does not say which tokens make up a word.
    """
    if not captions:
        raise InvalidValue("there are no captions to score: give at least one", "prompt-none")
    asker = Explainer(clip)
    tower = asker.text_tower
    methods = text_methods(tower.depth if tower is not None else 1) if methods is None else methods
    for name, (method, _) in methods.items():
        if METHODS[method].text is None:
            raise InvalidValue(f"{name!r} is {METHODS[method].title}, which has no scores of words", "method-words")
    texts, of_image = [one.caption for one in captions], {one.key: one.image for one in captions}
    embeddings = dict(zip(of_image, asker.embed_images(list(of_image.values())), strict=True))
    images = [embeddings[one.key] for one in captions]
    words = {
        name: Explainer(clip, method=replace(METHODS[method], image=None), text_layers=layers, seed=seed).score_words(
            texts, images
        )
        for name, (method, layers) in methods.items()
    }
    alone = Explainer(clip, method="leave-one-out").score_words(texts, images)
    rows, themselves = [], [name for name, (method, _) in methods.items() if method == "leave-one-out"]
    for i, one in enumerate(captions):
        spans = [(word.start, word.end) for word in alone[i]]
        scores = {name: np.array([word.score for word in found[i]]) for name, found in words.items()}
        scores["Random"] = np.random.default_rng([seed, i]).normal(size=len(spans))
        rows += _nouns(one, spans, scores)
        if one.true:
            rows += _curves(asker, one, spans, scores, images[i], seed)
            effects = np.array([word.score for word in alone[i]])
            agreed = {name: spearman(values, effects) for name, values in scores.items() if name not in themselves}
            rows += [("as leave-one-out", name, value) for name, value in agreed.items() if np.isfinite(value)]
        rows[:] = [row if len(row) == 5 else (one.key, one.caption, *row) for row in rows]
    return pd.DataFrame(rows, columns=["image", "caption", "measure", "method", "value"])


def _nouns(one: Captioned, spans: Sequence[Span], scores: Mapping[str, np.ndarray]) -> list[tuple]:
    """Measure, method and value of what a caption's nouns score."""
    members = [[k for k, (a, b) in enumerate(spans) if a < end and b > start] for start, end in one.nouns]
    there = np.array(one.shown)
    found = []
    for name, values in scores.items():
        nouns = np.array([values[some].sum() for some in members])
        if one.true:
            found.append(("shown above zero", name, (nouns > 0).mean()))
        else:
            found.append(("absent above zero", name, (nouns[~there] > 0).mean()))
            if there.any():
                higher = np.sign(nouns[there][:, None] - nouns[~there]) / 2 + 0.5
                found.append(("shown above absent", name, higher.mean()))
    return found


def _curves(asker: Explainer, one: Captioned, spans: Sequence[Span], scores, image, seed: int) -> list[tuple]:
    """Measure, method and value of deletion and insertion; what several methods write is embedded once."""
    similarity: dict[str, float] = {}

    def score(captions: list[str]):
        new = [caption for caption in dict.fromkeys(captions) if caption not in similarity]
        if new:
            similarity.update(zip(new, (asker.embed_texts(new) @ image).tolist(), strict=True))
        return image.new_tensor([similarity[caption] for caption in captions])

    curves = areas(word_curves(score, one.caption, scores, spans, seed=seed, batch=10**6))
    return list(curves[["game", "method", "auc"]].itertuples(index=False, name=None))
