"""Recognition: which of all concepts does a model see in an image of one thing?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradeclip_utils.explainer import Explainer
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


def single(
    noun: str, artist: str, seed: Sequence[int], split: str, colour: str | None = None
) -> Scene:
    """A scene with one given drawing, otherwise like a random scene of one thing."""
    like = draw_scene(seed, split=split, n_objects=1, tint=0)
    mirrored = like.objects[0].mirrored and noun not in NOT_MIRRORED
    thing = replace(like.objects[0], noun=noun, artist=artist, colour=colour, mirrored=mirrored)
    return arrange([thing], background=like.background)


def classification(
    clip: Clip,
    split: str,
    repeats: int = 1,
    *,
    tinted: bool = False,
    artists: Sequence[str] = ARTISTS,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Zero-shot answers among all concepts, one row per object's image: noun, artist, colour, right, right_said."""
    nouns, explainer = list(concepts().index), Explainer(clip)
    rows, scenes = [], []
    for number, noun in enumerate(nouns):
        if only is not None and noun not in only:
            continue
        own = [artist for artist in artists_of(noun) if artist in artists]
        for turn in range(repeats):
            rng = np.random.default_rng([9, turn, number])
            colour = (
                str(rng.choice([c for c in COLOURS if not is_withheld_colour(noun, c)]))
                if tinted
                else None
            )
            for artist in [str(rng.choice(own))] if tinted else own:
                scenes.append(
                    single(
                        noun,
                        artist,
                        [int(tinted), turn, number, ARTISTS.index(artist)],
                        split,
                        colour,
                    )
                )
                rows.append((noun, artist, colour))
    table, images = (
        pd.DataFrame(rows, columns=["noun", "artist", "colour"]),
        embed_scenes(explainer, scenes),
    )
    wanted = torch.tensor([nouns.index(noun) for noun in table["noun"]])
    table["right"] = chosen(explainer, images, [phrase(noun) for noun in nouns]).eq(wanted).numpy()
    table["right_said"] = table["right"]
    for colour in table["colour"].dropna().unique():
        mine = np.flatnonzero(table["colour"] == colour)
        found = chosen(explainer, images[mine], [phrase(noun, colour=colour) for noun in nouns])
        table.loc[mine, "right_said"] = found.eq(wanted[mine]).numpy()
    return table


def chosen(explainer: Explainer, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The number (N,) of the prompt with the highest similarity to each of N images."""
    return (images @ explainer.embed_texts(prompts).cpu().T).argmax(-1)


def recognised(clip: Clip, n: int = 60) -> pd.DataFrame:
    """Zero-shot answers for development images of one untinted thing, by the artists of training."""
    nouns = np.random.default_rng(0).choice(list(concepts().index), n, replace=False)
    return classification(clip, "development", artists=TRAINED_ARTISTS, only=list(nouns))
