"""Lesson 04: captions with one false word, scenes with a hint, and the scores of words.

false_captions, tagged_scenes    what is asked
word_scores                      a row a word of a caption, with its score by each method
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from gradeclip_utils import Explainer
from gradeclip_utils.language import tagged_words
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import COLOURS, Scene, concepts, draw_scene, phrase

from .drawn import two_coloured
from .matching import places_of, word_kinds
from .pairs import images_of

CONTENT = ["noun", "colour"]  # the kinds of words that a caption can be false in


def word_scores(
    clip: Clip,
    scenes: Sequence[Scene],
    methods: Sequence[str],
    captions: Sequence[str] | None = None,
    *,
    beside: Sequence[Scene] | None = None,
) -> pd.DataFrame:
    """The words of captions, a row each: caption, word, kind, and a score by each method.

    The captions are the scenes' own, or as many words of the same kinds. As a control they can
    stand beside other scenes than their own.
    """
    captions = [scene.caption for scene in scenes] if captions is None else captions
    rows = []
    for i, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
        words = [word.text for word in tagged_words(caption)]
        rows += [(i, *word) for word in zip(words, word_kinds(scene), strict=True)]
    table = pd.DataFrame(rows, columns=["caption", "word", "kind"])

    explainer = Explainer(clip)
    images = explainer.embed_images(images_of(clip, beside or scenes))
    for method in methods:
        by_caption = explainer.with_method(words=method).score_words(captions, images)
        table[method] = [word.score for words in by_caption for word in words]
    return table


def false_captions(n: int) -> pd.DataFrame:
    """The first n coloured test scenes, twice each: a noun is false, then a colour.

    Columns image, scene, caption, kind and place, of the false word.
    """
    rows = []
    for number, scene in enumerate(two_coloured(n)):
        rng = np.random.default_rng([0, number])
        for kind in CONTENT:
            caption, place = _with_false_word(scene, kind, rng)
            rows.append((number, scene, caption, kind, place))
    return pd.DataFrame(rows, columns=["image", "scene", "caption", "kind", "place"])


def _with_false_word(scene: Scene, kind: str, rng: np.random.Generator) -> tuple[str, int]:
    """Exchange one word of a kind for another of its kind that is not in the scene."""
    words = scene.caption.split()
    place = int(rng.choice(places_of(scene, kind)))
    present = {getattr(thing, kind) for thing in scene.objects}
    world = COLOURS if kind == "colour" else concepts().index
    words[place] = str(rng.choice([word for word in world if word not in present]))

    # the article stands before the colour: it fits the new one, so that no other word is false
    if kind == "colour" and words[place - 1] in ("a", "an"):
        words[place - 1] = phrase(words[place + 1], colour=words[place]).split()[0]
    return " ".join(words), place


def tagged_scenes() -> Iterator[tuple[str, str, Scene]]:
    """Test scenes of one thing that has a hint: its phrase, its rarest hint, the scene."""
    hints_of_noun = concepts()["keywords"]
    nouns_of_hint = hints_of_noun.explode().value_counts()
    for number, (noun, hints) in enumerate(hints_of_noun.items()):
        if hints:
            hint = min(hints, key=lambda word: nouns_of_hint[word])
            scene = draw_scene([83, number], split="test", groups=[(noun, None, 1)])
            yield phrase(noun), hint, scene
