"""Recognition: which of all concepts does a model see in an image of one thing?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import (
    ARTISTS,
    COLOURS,
    TRAINED_ARTISTS,
    Scene,
    arrange,
    artists_of,
    concepts,
    draw_scene,
    phrase,
)
from gradeclip_utils.scenes.emoji import NOT_MIRRORED
from gradeclip_utils.scenes.scene import is_withheld_colour
from studies.pairs import embed_scenes


def single_scene(
    noun: str,
    artist: str,
    seed: Sequence[int],
    split: str,
    colour: str | None = None,
) -> Scene:
    """A scene of one drawing, otherwise like a random scene of one thing."""
    scene = draw_scene(seed, split=split, n_objects=1, tint=0)
    thing = scene.objects[0]
    mirrored = thing.mirrored and noun not in NOT_MIRRORED
    thing = replace(thing, noun=noun, artist=artist, colour=colour, mirrored=mirrored)
    return arrange([thing], background=scene.background)


def classification(
    clip: Clip,
    split: str,
    repeats: int = 1,
    *,
    tinted: bool = False,
    artists: Sequence[str] = ARTISTS,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Zero-shot answers among all concepts, one row per image of one thing.

    Columns noun, artist, colour, right, and right_said: whether it is also right by prompts that
    say the colour. Untinted, every artist's drawing is shown; tinted, that of one at random.
    """
    rows: list[dict] = []
    scenes: list[Scene] = []
    for number, noun in enumerate(concepts().index):
        if only is not None and noun not in only:
            continue
        drawn_by = [artist for artist in artists_of(noun) if artist in artists]
        for turn in range(repeats):
            rng = np.random.default_rng([9, turn, number])
            colour = None
            chosen_artists = drawn_by
            if tinted:
                trained = [c for c in COLOURS if not is_withheld_colour(noun, c)]
                colour = str(rng.choice(trained))
                chosen_artists = [str(rng.choice(drawn_by))]
            for artist in chosen_artists:
                seed = [int(tinted), turn, number, ARTISTS.index(artist)]
                scenes.append(single_scene(noun, artist, seed, split, colour))
                rows.append({"noun": noun, "artist": artist, "colour": colour})

    table = pd.DataFrame(rows)
    explainer = Explainer(clip)
    images = embed_scenes(explainer, scenes)
    table["right"] = names_noun(explainer, images, table["noun"], None)
    table["right_said"] = table["right"]
    for colour in table["colour"].dropna().unique():
        members = np.flatnonzero(table["colour"] == colour)
        nouns = table["noun"].iloc[members]
        table.loc[members, "right_said"] = names_noun(explainer, images[members], nouns, colour)
    return table


def names_noun(
    explainer: Explainer,
    images: Tensor,
    nouns: Sequence[str],
    colour: str | None,
) -> np.ndarray:
    """Whether the nearest of the prompts of all concepts is that of the image's noun: (N,) bool."""
    concept_names = list(concepts().index)
    answers = nearest_prompt(
        explainer, images, [phrase(name, colour=colour) for name in concept_names]
    )
    expected = torch.tensor([concept_names.index(noun) for noun in nouns])
    return answers.eq(expected).numpy()


def nearest_prompt(explainer: Explainer, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The number (N,) of the prompt with the highest similarity to each of N images."""
    return (images @ explainer.embed_texts(prompts).cpu().T).argmax(-1)


def caption_hits(explainer: Explainer, images: Tensor, captions: Sequence[str]) -> list[bool]:
    """Whether the caption nearest to each of N images is its own, or one that says the same."""
    nearest = nearest_prompt(explainer, images, captions).tolist()
    return [captions[i] == captions[j] for i, j in enumerate(nearest)]


def recognition_sample(clip: Clip, n: int = 60) -> pd.DataFrame:
    """Zero-shot answers for some development images of one untinted thing, by trained artists."""
    nouns = np.random.default_rng(0).choice(list(concepts().index), n, replace=False)
    return classification(clip, "development", artists=TRAINED_ARTISTS, only=list(nouns))
