"""The model card's figures: what the bundled model recognises, and what it cannot, on scenes that training never drew.

    python -m gradeclip_utils card                          # development scenes, printed
    python -m gradeclip_utils card --remove                 # takes concepts that it hardly recognises out of data/
    python -m gradeclip_utils card --split test --write     # the published figures, into data/

Every figure is a share of right answers with its 95 % Wilson interval; where a picture gives several answers, as in
pointing, the interval resamples pictures. Classification is zero-shot, by cosine similarity with the prompts "a dog",
"an owl", "bread" of all concepts; what was withheld from training (drawings, compositions) is always reported beside
what was not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

from ..evaluation.attributes import embed_captions
from ..evaluation.pointing_game import CHANCE, games, play
from ..evaluation.statistics import summarise
from ..files import data_path
from ..models import Clip, load_clip
from ..scenes import (
    ARTISTS,
    COLOURS,
    Object,
    Scene,
    arrange,
    concepts,
    describe,
    draw_scene,
    is_trained,
    is_withheld_colour,
    is_withheld_pair,
    recoloured,
    relation_between,
    withheld_artist,
)

WELL_ENOUGH = 0.5  # a concept is kept if the model recognises more than this share of its trained drawings
_COLUMNS = ("figure", "share", "low", "high", "n", "chance")
START, END = "<!-- figures: written by python -m gradeclip_utils card -->", "<!-- end of figures -->"


@torch.no_grad()
def embed_scenes(clip: Clip, scenes: Sequence[Scene], batch: int = 64) -> Tensor:
    """Unit image embeddings (N, E), through the model's own preprocessing of the pictures shown to people."""
    parts = []
    for start in range(0, len(scenes), batch):
        pixels = torch.stack([clip.preprocess(scene.image()) for scene in scenes[start : start + batch]])
        parts.append(clip.model.encode_image(pixels, normalize=True))
    return torch.cat(parts)


def single(noun: str, artist: str, seed: Sequence[int], split: str, colour: str | None = None) -> Scene:
    """A scene of one given drawing; size, place and background are those of a random single-object scene."""
    like = draw_scene(seed, split=split, n_objects=1)
    return arrange([replace(like.objects[0], noun=noun, artist=artist, colour=colour)], background=like.background)


def classification(
    clip: Clip, split: str, rounds: int = 2, *, tints: Sequence[bool] = (False, True), removed: bool = False,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """One row a picture of one object: noun, artist, colour, whether withheld, and whether the top concept is right.

    Each concept's two drawings are shown `rounds` times untinted and tinted, at random sizes and places; `only` some
    concepts, if named, but the answer is always one of all.
    """
    nouns = list(concepts(removed=removed).index)
    prompts = embed_captions(clip, [describe([Object(noun)])[0] for noun in nouns])
    asked = [
        (i, noun, artist, tinted, turn)
        for tinted in tints
        for turn in range(rounds)
        for i, noun in enumerate(nouns)
        if only is None or noun in only
        for artist in ARTISTS
    ]
    rows, scenes = [], []
    for i, noun, artist, tinted, turn in asked:
        seed = [tinted, turn, i, ARTISTS.index(artist)]
        colour = str(np.random.default_rng([9, *seed]).choice(list(COLOURS))) if tinted else None
        scenes.append(single(noun, artist, seed, split, colour))
        withheld = withheld_artist(noun) == artist, is_withheld_colour(noun, colour)
        rows.append((noun, artist, colour, *withheld, scenes[-1].objects[0].size))
    right = (embed_scenes(clip, scenes) @ prompts.T).argmax(-1) == torch.tensor([i for i, *_ in asked])
    columns = ["noun", "artist", "colour", "withheld_drawing", "withheld_colour", "size"]
    return pd.DataFrame(rows, columns=columns).assign(right=right.numpy())


def recognised(clip: Clip, n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Zero-shot answers for pictures of one untinted thing, of ``n`` concepts (trained drawings): noun, artist, right.

    The answer is one of all concepts, on development scenes.
    """
    nouns = np.random.default_rng(seed).choice(list(concepts().index), n, replace=False)
    rows = classification(clip, "development", 1, tints=(False,), only=list(nouns))
    return rows[~rows["withheld_drawing"]].reset_index(drop=True)


def weak(clip: Clip) -> pd.Series:
    """The concepts that are not recognised well enough, and their recall: untinted, eight pictures a trained drawing.

    Measured on development scenes and among all concepts that training shows, whether they were removed before or not.
    """
    rows = classification(clip, "development", 8, tints=(False,), removed=True)
    recall = rows[~rows["withheld_drawing"]].groupby("noun", sort=False)["right"].mean()
    return recall[recall <= WELL_ENOUGH]


def remove(nouns: Sequence[str], path: Path) -> None:
    """Mark these concepts, and no others, as removed in a table of concepts."""
    table = pd.read_csv(path, keep_default_na=False)
    table["removed"] = ["yes" if noun in set(nouns) else "" for noun in table["noun"]]
    table.to_csv(path, index=False)


def caption_among_256(clip: Clip, split: str, n_objects: int, rounds: int = 4) -> list[bool]:
    """For each picture: is its caption the best of 256? One that reads the same as its own counts as right."""
    right = []
    for turn in range(rounds):
        scenes = [draw_scene([10 + n_objects, turn, i], split=split, n_objects=n_objects) for i in range(256)]
        captions = [s.caption for s in scenes]
        best = (embed_scenes(clip, scenes) @ embed_captions(clip, captions).T).argmax(-1).tolist()
        right += [captions[i] == captions[j] for i, j in enumerate(best)]
    return right


def binding_pairs(split: str, seed: int, keep: Callable[[Scene], bool], n: int) -> list[Scene]:
    """`n` scenes of two different single objects that satisfy `keep`, all different drawings of the same seeds."""
    found, i = [], 0
    while len(found) < n:
        scene = draw_scene([20, seed, i], split=split, n_objects=2, tint=0, trained=False, plain=True)
        i += 1
        if scene.objects[0].noun != scene.objects[1].noun and keep(scene):
            found.append(scene)
    return found


def chosen(clip: Clip, triples: Sequence[tuple[Scene, str, str]]) -> list[bool]:
    """For each (scene, right caption, wrong caption): does the right one have the higher similarity?"""
    scenes, right, wrong = zip(*triples, strict=True)
    image = embed_scenes(clip, scenes)
    margin = (image * (embed_captions(clip, right) - embed_captions(clip, wrong))).sum(-1)
    return (margin > 0).tolist()


def _swapped_colours(split: str, trained: bool, n: int) -> list[tuple[Scene, str, str]]:
    """Two tinted objects; the wrong caption swaps the colours."""
    rng, triples = np.random.default_rng([31, trained]), []
    for scene in binding_pairs(split, 1, lambda s: _seen_pair(s) and _seen_drawings(s), 4 * n):
        colours = [str(c) for c in rng.choice(list(COLOURS), 2, replace=False)]
        right, wrong = recoloured(scene, colours), recoloured(scene, colours[::-1])
        withheld = [is_withheld_colour(t.noun, t.colour) for s in (right, wrong) for t in s.objects]
        if not any(withheld) if trained else any(withheld[:2]):
            triples.append((right, right.caption, wrong.caption))
    return triples[:n]


def _seen_pair(scene: Scene) -> bool:
    return not is_withheld_pair(*(t.noun for t in scene.objects))


def _seen_drawings(scene: Scene) -> bool:
    return all(withheld_artist(t.noun) != t.artist for t in scene.objects)


def _relation(split: str, words: tuple[str, str], n: int) -> list[tuple[Scene, str, str]]:
    """Two objects; the wrong caption says the opposite of how they stand to each other."""
    kind = "size" if "than" in words[0] else "position"
    triples = []
    for scene in binding_pairs(split, 2, is_trained, 6 * n):
        said = relation_between(*scene.objects, kind=kind)
        if said in words:
            other = words[1 - words.index(said)]
            triples.append((scene, describe(scene.objects, said)[0], describe(scene.objects, other)[0]))
    return triples[:n]


def _other_noun(split: str, keep: Callable[[Scene], bool], n: int) -> list[tuple[Scene, str, str]]:
    """Two objects; the wrong caption names another concept of the same category in place of one of them."""
    rng, table, triples = np.random.default_rng(33), concepts(), []
    for scene in binding_pairs(split, 3, keep, n):
        i = int(rng.integers(2))
        same = table[table["category"] == table.loc[scene.objects[i].noun, "category"]].index
        other = str(rng.choice([noun for noun in same if noun not in {t.noun for t in scene.objects}]))
        things = [replace(t, noun=other) if k == i else t for k, t in enumerate(scene.objects)]
        triples.append((scene, scene.caption, describe(things)[0]))
    return triples


def _counts(split: str, n: int) -> list[tuple[Scene, str, str]]:
    """Two or three of a kind; the wrong caption says the other number."""
    triples, i, nouns = [], 0, concepts().query("plural != ''").index
    rng = np.random.default_rng(34)
    while len(triples) < n:
        like = draw_scene([35, i], split=split, n_objects=3, tint=0, plain=True)
        noun, count = str(rng.choice(nouns)), 2 + i % 2
        artist = next(a for a in ARTISTS if a != withheld_artist(noun))
        things = [replace(t, noun=noun, artist=artist) for t in like.objects]
        scene = arrange(things[:count], background=like.background)
        other = describe([*things, things[0]][: 5 - count])[0]
        triples.append((scene, scene.caption, other))
        i += 1
    return triples


def pointing(clip: Clip, split: str, n: int = 150) -> pd.DataFrame:
    """Does the map of a word have its maximum in the quarter of its own object? By question and number of objects.

    Grad-ECLIP of the last image layer, and of the last two where a word of the caption is asked for. Same columns as
    the other figures.
    """
    played = games(n, split=split)
    one = play(clip, played, questions=("caption", "prompt", "word x region", "word x region, centred"))
    two = play(clip, played, questions=("word x region", "word x region, centred"), image_layers=2)
    rows = pd.concat([one, two.assign(question=two["question"] + ", two image layers")])
    told = summarise(rows, "hit", by=["question", "objects"]).sort_values(["objects", "question"], kind="stable")
    names = [f"points at its own object, objects: {row.objects}, {row.question}" for row in told.itertuples()]
    return told.rename(columns={"mean": "share"}).assign(figure=names, chance=CHANCE)[list(_COLUMNS)]


def figures(clip: Clip, split: str, n: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All figures of the card (figure, share, low, high, n, chance), and the rows of `classification`."""
    singles = classification(clip, split)
    known = singles[~singles["withheld_drawing"] & ~singles["withheld_colour"]]
    plain, tinted = known[known["colour"].isna()], known[known["colour"].notna()]
    unseen = singles[singles["withheld_drawing"] & singles["colour"].isna()]
    chance = 1 / len(concepts())
    two = partial(chosen, clip)

    def new_pair(scene: Scene) -> bool:
        return not _seen_pair(scene) and _seen_drawings(scene)

    among = [
        (f"right caption among 256, objects: {k}", caption_among_256(clip, split, k), 1 / 256) for k in range(1, 5)
    ]
    answers = [
        ("top-1, one untinted object, trained drawings", plain["right"], chance),
        *((f"  drawn by {artist}", rows["right"], chance) for artist, rows in plain.groupby("artist")),
        ("  small (up to 34 of 96 units)", plain["right"][plain["size"] <= 34], chance),
        ("top-1, one untinted object, unseen drawings", unseen["right"], chance),
        ("top-1, one tinted object, trained drawings", tinted["right"], chance),
        *among,
        ("swapped colours told apart, trained compositions", two(_swapped_colours(split, True, n)), 0.5),
        ("swapped colours told apart, withheld compositions", two(_swapped_colours(split, False, n)), 0.5),
        ("one of two nouns replaced, trained pairs", two(_other_noun(split, is_trained, n)), 0.5),
        ("one of two nouns replaced, withheld pairs", two(_other_noun(split, new_pair, n)), 0.5),
        ("left / right", two(_relation(split, ("to the left of", "to the right of"), n)), 0.5),
        ("above / below", two(_relation(split, ("above", "below"), n)), 0.5),
        ("bigger / smaller", two(_relation(split, ("bigger than", "smaller than"), n)), 0.5),
        ("two / three of a kind", two(_counts(split, n)), 0.5),
    ]  # fmt: skip
    told = pd.DataFrame([_share(name, list(right), chance) for name, right, chance in answers])
    return pd.concat([told, pointing(clip, split)], ignore_index=True), singles


def _share(name: str, right: list[bool], chance: float) -> dict:
    test = binomtest(sum(map(bool, right)), len(right))
    low, high = test.proportion_ci(method="wilson")
    return {"figure": name, "share": test.statistic, "low": low, "high": high, "n": len(right), "chance": chance}


def as_markdown(table: pd.DataFrame) -> str:
    """The table of figures for the card."""
    lines = ["| figure | right | 95 % interval | pictures | chance |", "| --- | --- | --- | --- | --- |"]
    for row in table.itertuples():
        name = row.figure.replace("  ", "&emsp;")
        interval = f"{row.low:.1%} to {row.high:.1%}"
        lines.append(f"| {name} | {row.share:.1%} | {interval} | {row.n} | {row.chance:.1%} |")
    return "\n".join(lines)


def write(table: pd.DataFrame, singles: pd.DataFrame, folder: Path) -> None:
    """Put the figures into README.md, between its two markers, and what was recognised into recognised.csv."""
    card = folder / "README.md"
    text = card.read_text()
    before, rest = text.split(START)
    card.write_text(f"{before}{START}\n\n{as_markdown(table)}\n\n{END}{rest.split(END)[1]}")
    drawings = singles[singles["colour"].isna()].groupby(["noun", "artist", "withheld_drawing"], sort=False)["right"]
    drawings.agg(right="sum", pictures="size").reset_index().to_csv(folder / "recognised.csv", index=False)
    table.to_csv(folder / "figures.csv", index=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `card`."""
    parser.add_argument("--split", choices=["development", "test"], default="development")
    parser.add_argument("--weights", help="another compact checkpoint than the bundled one")
    parser.add_argument("--write", action="store_true", help="put the figures into the folder data/")
    parser.add_argument("--remove", action="store_true", help="only mark concepts that are hardly recognised, in data/")


def run_command(options: argparse.Namespace) -> None:
    """The command `card`: measure and print the figures, or what they advise."""
    clip = load_clip("emoji", options.weights)
    if options.remove:
        recall = weak(clip)
        print(f"{len(recall)} of {len(concepts(removed=True))} concepts removed: {recall.to_dict()}")
        return remove(list(recall.index), data_path("concepts.csv"))
    table, singles = figures(clip, options.split)
    print(as_markdown(table))
    if options.write:
        write(table, singles, data_path())
