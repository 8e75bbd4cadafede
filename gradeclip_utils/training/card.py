"""The model card's figures: what the bundled model recognises, and what it cannot, on scenes that training never drew.

    python -m gradeclip_utils card                          # development scenes, printed
    python -m gradeclip_utils card --remove                 # takes concepts that it hardly recognises out of data/
    python -m gradeclip_utils card --split test --write     # the published figures, into data/
    python -m gradeclip_utils card --gallery gallery.png    # maps of the first test scenes, unchosen

Every figure is a fraction of right answers with its 95 % Wilson interval; where an image gives several answers, as in
pointing, the interval resamples images. Classification is zero-shot, by cosine similarity with the prompts "a dog",
"an owl", "bread" of all concepts; what was withheld from training (drawings, compositions) is always reported beside
what was not.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluation.pointing_game import CHANCE, games, play
from ..evaluation.statistics import proportion_interval, summarise
from ..explain import Explainer
from ..files import data_path
from ..models import Clip, load_clip
from ..plots import InlineFigure, axes_at, paint, show_image
from ..plots.colours import largest, range_in_words
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
from .options import markdown_table, write_between

WELL_ENOUGH = 0.5  # a concept is kept if the model recognises more than this fraction of its trained drawings
_COLUMNS = ("figure", "fraction", "low", "high", "n", "chance")
START, END = "<!-- figures: written by python -m gradeclip_utils card -->", "<!-- end of figures -->"


def embed_scenes(explainer: Explainer, scenes: Sequence[Scene], batch: int = 64) -> Tensor:
    """Unit image embeddings (N, E) on the CPU, of the images that are shown to people, drawn a batch at a time."""
    parts = (scenes[start : start + batch] for start in range(0, len(scenes), batch))
    return torch.cat([explainer.embed_images([scene.image() for scene in part]).cpu() for part in parts])


def prompt_of(noun: str) -> str:
    """What a concept is asked for by: "a dog", "an owl", "bread"."""
    return describe([Object(noun)])[0]


def single(noun: str, artist: str, seed: Sequence[int], split: str, colour: str | None = None) -> Scene:
    """A scene of one given drawing; size, place and background are those of a random single-object scene."""
    like = draw_scene(seed, split=split, n_objects=1)
    return arrange([replace(like.objects[0], noun=noun, artist=artist, colour=colour)], background=like.background)


def classification(
    clip: Clip,
    split: str,
    repeats: int = 2,
    *,
    tints: Sequence[bool] = (False, True),
    removed: bool = False,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Zero-shot answers for images of one object, at random sizes and places. The answer is one of all concepts.

    Args:
        clip: the model.
        split: of the scenes, "development" or "test".
        repeats: how often each of a concept's two drawings is shown without, and with a colour.
        tints: which of the two: without a colour (False), with one (True).
        removed: whether removed concepts are shown and can be answered.
        only: some concepts to show; by default all.

    Returns:
        One row an image: noun, artist, colour, withheld_drawing, withheld_colour, size, and whether it is right.
    """
    nouns, explainer = list(concepts(removed=removed).index), Explainer(clip)
    prompts = explainer.embed_texts([prompt_of(noun) for noun in nouns]).cpu()
    asked = [
        (i, noun, artist, tinted, turn)
        for tinted in tints
        for turn in range(repeats)
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
    right = (embed_scenes(explainer, scenes) @ prompts.T).argmax(-1) == torch.tensor([i for i, *_ in asked])
    columns = ["noun", "artist", "colour", "withheld_drawing", "withheld_colour", "size"]
    return pd.DataFrame(rows, columns=columns).assign(right=right.numpy())


def recognised(clip: Clip, n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Zero-shot answers for development images of one untinted thing, of `n` concepts (trained drawings).

    Returns:
        One row an image: noun, artist, right, ...; the answer is one of all concepts.
    """
    nouns = np.random.default_rng(seed).choice(list(concepts().index), n, replace=False)
    rows = classification(clip, "development", 1, tints=(False,), only=list(nouns))
    return rows[~rows["withheld_drawing"]].reset_index(drop=True)


def weak(clip: Clip) -> pd.Series:
    """The concepts that are not recognised well enough, and their recall: untinted, eight images a trained drawing.

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


def caption_among_256(clip: Clip, split: str, n_objects: int, repeats: int = 4) -> list[bool]:
    """For each image: is its caption the best of 256? One that reads the same as its own counts as right."""
    explainer, right = Explainer(clip), []
    for turn in range(repeats):
        scenes = [draw_scene([10 + n_objects, turn, i], split=split, n_objects=n_objects) for i in range(256)]
        captions = [s.caption for s in scenes]
        best = (embed_scenes(explainer, scenes) @ explainer.embed_texts(captions).cpu().T).argmax(-1).tolist()
        right += [captions[i] == captions[j] for i, j in enumerate(best)]
    return right


def binding_pairs(split: str, seed: int, keep: Callable[[Scene], bool], n: int) -> list[Scene]:
    """`n` scenes of two different single objects that satisfy `keep`, all different drawings of the same seeds."""
    found: list[Scene] = []
    i = 0
    while len(found) < n:
        scene = draw_scene([20, seed, i], split=split, n_objects=2, tint=0, trained=False, plain=True)
        i += 1
        if scene.objects[0].noun != scene.objects[1].noun and keep(scene):
            found.append(scene)
    return found


def chosen(clip: Clip, triples: Sequence[tuple[Scene, str, str]]) -> list[bool]:
    """For each (scene, right caption, wrong caption): does the right one have the higher similarity?"""
    scenes, right, wrong = zip(*triples, strict=True)
    explainer = Explainer(clip)
    apart = (explainer.embed_texts(right) - explainer.embed_texts(wrong)).cpu()
    return ((embed_scenes(explainer, scenes) * apart).sum(-1) > 0).tolist()


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
        first, second = scene.objects
        said = relation_between(first, second, kind=kind)
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
    return told.rename(columns={"mean": "fraction"}).assign(figure=names, chance=CHANCE)[list(_COLUMNS)]


def figures(clip: Clip, split: str, n: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All figures of the card.

    Args:
        clip: the model.
        split: of the scenes, "development" or "test".
        n: images of each question with a right and a wrong caption.

    Returns:
        The figures (figure, fraction, low, high, n, chance), and the rows of `classification`.
    """
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
    told = pd.DataFrame([_fraction(name, list(right), chance) for name, right, chance in answers])
    return pd.concat([told, pointing(clip, split)], ignore_index=True), singles


def _fraction(name: str, right: list[bool], chance: float) -> dict:
    """A figure with its Wilson interval."""
    low, high = proportion_interval(right)
    return {"figure": name, "fraction": np.mean(right), "low": low, "high": high, "n": len(right), "chance": chance}


def as_markdown(table: pd.DataFrame) -> str:
    """The table of figures for the card."""
    rows = [
        (row.figure.replace("  ", "&emsp;"), f"{row.fraction:.1%}", f"{row.low:.1%} to {row.high:.1%}", str(row.n),
         f"{row.chance:.1%}")
        for row in table.itertuples()
    ]  # fmt: skip
    return markdown_table(("figure", "right", "95 % interval", "images", "chance"), rows)


def write(table: pd.DataFrame, singles: pd.DataFrame, folder: Path) -> None:
    """Put the figures into README.md, between its two markers, and what was recognised into recognised.csv."""
    write_between(folder / "README.md", START, END, as_markdown(table))
    drawings = singles[singles["colour"].isna()].groupby(["noun", "artist", "withheld_drawing"], sort=False)["right"]
    drawings.agg(right="sum", images="size").reset_index().to_csv(folder / "recognised.csv", index=False)
    table.to_csv(folder / "figures.csv", index=False)


def named_nouns(scene: Scene) -> list[str]:
    """The nouns that a scene's caption says, each once, in the order of its words."""
    return list(dict.fromkeys(scene.objects[span.objects[0]].noun for span in scene.spans if span.kind == "noun"))


def gallery(clip: Clip, n: int = 24) -> Figure:
    """Maps of the first `n` test scenes, of two and three things in turn, all in one scale: none is chosen.

    Beside each image stands a map for every noun that its caption names, asked for by "a dog". The figure is 9 inches
    wide, with two scenes in a row.
    """
    scenes = [draw_scene([90, i], split="test", n_objects=2 + i % 2) for i in range(n)]
    explainer = Explainer(clip)
    found = [explainer.explain(scene.image(), [prompt_of(noun) for noun in named_nouns(scene)]) for scene in scenes]
    most = largest(np.maximum(one.image_maps, 0) for one in found)
    side, across, down, left = 1.08, 1.16, 1.72, (0.12, 3.9)  # inches
    alt = "Images and maps of test scenes: " + "; ".join(scene.caption for scene in scenes)
    figure = InlineFigure(9.0, down * -(-n // 2) + 0.35, alt)
    for number, (scene, one) in enumerate(zip(scenes, found, strict=True)):
        x, top = left[number % 2], 0.52 + down * (number // 2)
        caption = textwrap.fill(scene.caption, 58 if number % 2 == 0 else 76)
        figure.text(x / 9, 1 - (top - 0.2) / figure.get_figheight(), caption, va="bottom", fontsize=7.5, color="0.3")
        show_image(axes_at(figure, x, top, side, side), one.image, "")
        for i, prompt in enumerate(one.prompts):
            map_ = paint(one.image, one.image_maps[i], box=one.box, vmax=most)
            axes = axes_at(figure, x + (i + 1) * across, top, side, side)
            show_image(axes, map_, "")
            axes.set_title(f"{prompt}  {one.similarity[i]:.2f}", fontsize=7.5, loc="left", pad=2)
    sentence = range_in_words("relevance", False, most, "the most in this figure; numbers: similarity")
    figure.text(left[0] / 9, 0.08 / figure.get_figheight(), sentence, va="bottom", fontsize=8, color="0.35")
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `card`."""
    parser.add_argument("--split", choices=["development", "test"], default="development")
    parser.add_argument("--weights", help="another compact checkpoint than the bundled one")
    parser.add_argument("--write", action="store_true", help="put the figures into the folder data/")
    parser.add_argument("--gallery", type=Path, metavar="PNG", help="only draw maps of the first test scenes")
    parser.add_argument("--remove", action="store_true", help="only mark concepts that are hardly recognised, in data/")


def run_command(options: argparse.Namespace) -> None:
    """The command `card`: measure and print the figures, or what they advise."""
    clip = load_clip("emoji", options.weights)
    if options.gallery:
        return gallery(clip).savefig(options.gallery, dpi=100)
    if options.remove:
        recall = weak(clip)
        print(f"{len(recall)} of {len(concepts(removed=True))} concepts removed: {recall.to_dict()}")
        return remove(list(recall.index), data_path("concepts.csv"))
    table, singles = figures(clip, options.split)
    print(as_markdown(table))
    if options.write:
        write(table, singles, data_path())
