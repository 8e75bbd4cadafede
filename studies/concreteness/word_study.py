"""The study of words: what each word of many captions counts for, and what it is asked.

scenes -> word scores -> saliency, a table of words --here--> questions -> correlations
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import Scene

from ..pairs import image_pixels
from .correlations import Question
from .informativeness import chosen_words
from .saliency import OTHER, gather_scenes, saliency, scene_examples, score_columns, word_scores, word_table

RANDOM = ", random weights"  # added to a method's name: the text encoder knew nothing
ONE_LAYER = ", one text layer"  # ... or it was explained through its last layer alone
CONTROLS = ("part", "role", "frequency", "tokens", "place", "exposure", "mutual_information", "when_said")


@dataclass(frozen=True, eq=False)
class WordStudy:
    """All that was measured of one model."""

    clip: Clip
    scenes: tuple[Scene, ...]  # images with captions
    rows: pd.DataFrame  # of `word_scores`
    values: pd.DataFrame
    table: pd.DataFrame  # of `word_table`

    @property
    def controls(self) -> tuple[str, ...]:
        """What is held constant: `CONTROLS`; exposure only of a model that was trained on this world."""
        return tuple(name for name in CONTROLS if name != "exposure" or self.clip.vocabulary is not None)


def word_study(clip: Clip, words: Iterable[str] | None = None, *, each: int = 4, draw: int = 20_000) -> WordStudy:
    """Gather scenes, measure the model and its controls, and join the norms."""
    scenes = gather_scenes(chosen_words().index if words is None else words, each=each, draw=draw)
    examples = scene_examples(scenes, image_pixels(clip))
    embeddings = Explainer(clip).embed_images(one.image() for one in examples)
    rows = word_scores(clip, examples, embeddings)
    values = pd.DataFrame({name: saliency(rows, name) for name in score_columns(rows)})
    others = {RANDOM: randomised(clip, side="text"), ONE_LAYER: replace(clip, text_layers=1)}
    for what, names in ((RANDOM, ("grad-eclip", "leave-one-out")), (ONE_LAYER, ("grad-eclip",))):
        measured = word_scores(others[what], examples, embeddings, methods=names)
        for name in names:
            values[name + what] = saliency(measured, name).to_numpy()
    return WordStudy(clip, tuple(scenes), rows, values, word_table(rows))


def study_questions(found: WordStudy) -> list[Question]:
    """All that the study asks, each with one number for an answer; figures are named "method: what"."""
    asked = []
    for method in ("grad-eclip", "leave-one-out"):
        plain = Question(f"{method}: studied words", "concreteness", method, "studied")
        other, blind = replace(plain, y=method + OTHER), replace(plain, y=method + RANDOM)
        asked += [
            Question(f"{method}: all words", "concreteness", method, "all"),
            Question(f"{method}: content words", "concreteness", method, "content"),
            plain,
            Question(f"{method}: associations only", "concreteness", method, "association"),
            replace(plain, figure=f"{method}: informativeness", x="mutual_information"),
            replace(plain, figure=f"{method}: visual strength", x="visual"),
            replace(plain, figure=f"{method}: concreteness - visual", minus=replace(plain, x="visual")),
            replace(plain, figure=f"{method}: beyond all controls", given=found.controls),
            replace(plain, figure=f"{method}: taken by controls", minus=replace(plain, given=found.controls)),
            replace(other, figure=f"{method}: another image"),
            replace(plain, figure=f"{method}: own - another image", minus=other),
            replace(blind, figure=f"{method}: random weights"),
        ]
    for y, layers in (("attention", ""), ("grad-eclip" + ONE_LAYER, ONE_LAYER)):
        plain = Question(f"{y.split(',')[0]}: studied words{layers}", "concreteness", y, "studied")
        bits = plain.figure.replace("studied words", "informativeness")
        asked += [plain, replace(plain, figure=bits, x="mutual_information")]
    return asked
