"""The model card's figures: what the bundled models recognise, and what they cannot, on scenes never trained on.

    python -m gradeclip_utils card                                           # of `emoji`, development scenes, printed
    python -m gradeclip_utils card --split test --model emoji-bag --write    # the published figures, into data/
    python -m gradeclip_utils card --gallery gallery.png                     # maps of the first test scenes, unchosen

Fractions of independent right answers have 95 % Wilson intervals; where an image gives several answers, as in pointing,
the interval resamples images. Classification is zero-shot, by cosine similarity with the prompts "a dog", "an owl",
"bread" of all concepts; what was withheld from training (an artist, compositions) is always reported beside what was
not. Images are as large as the model sees them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gradeclip_utils.checks import all_chosen, readable, writable
from gradeclip_utils.explain import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.finetune.options import markdown_table, write_between
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.measures.statistics import interval, spearman, summarise
from gradeclip_utils.models import BUNDLED, BUNDLED_MODELS, Clip, load_clip
from gradeclip_utils.scenes.art import ARTISTS, TRAINED_ARTISTS, UNSEEN_ARTIST, artists_of
from gradeclip_utils.scenes.compose import Scene, arrange, draw_scene
from gradeclip_utils.scenes.emoji import COLOURS, NOT_MIRRORED, concepts
from gradeclip_utils.scenes.grammar import phrase
from gradeclip_utils.scenes.heldout import is_withheld_colour
from studies.pairs import CHANCE, draw_pairs, images_of, judge
from studies.pointing_game import games, play, play_true_masks

from .gallery import clear_maps, gallery
from .scratch import CONFIG

TABLE = "figures.csv"
TRUE_MASK = "true mask"  # its rows stand beside the models'
START, END = "<!-- figures: written by python -m gradeclip_utils card -->", "<!-- end of figures -->"
_CENTRED = "word x region, centred"
NO_EMPTY_PATCH = "maps of the gallery in which no empty patch has half of what X has"
AIMS = {  # set before the training; how far they are reached is for the table to say
    "untinted, the six trained artists": "0.93",
    f"untinted, the artist never trained on ({UNSEEN_ARTIST})": "0.70",
    "tinted, the prompt says the colour": "0.70",
    "tinted, the prompt does not": "0.50",
    "right caption among 256, 2 things": "0.95",
    "swapped colours told apart, withheld compositions": "0.93, `emoji-bag` at most 0.65",
    **{f'"a X", {k} things: relevance on X': "0.75" for k in (2, 3)},
    **{f'"a X", {k} things: relevance on nothing': "at most 0.12" for k in (2, 3)},
    **{f'"a X", {k} things: maximum on X': "0.93" for k in (2, 3)},
    **{f"{_CENTRED}, {k} things: maximum on its own thing": aim for k, aim in ((2, "0.95"), (3, "0.92"), (4, "0.88"))},
    NO_EMPTY_PATCH: "0.90",
    "nouns of a true caption above zero, Grad-ECLIP": "0.90",
    "rank correlation of a caption's word scores with leave-one-out": "0.50",
}
PAIRS, GAMES, CAPTIONS = 400, 150, 200  # pairs of a kind, scenes of each number of things, captions that are asked
_COLUMNS = ("figure", "value", "low", "high", "n", "chance")


def embed_scenes(explainer: Explainer, scenes: Sequence[Scene]) -> Tensor:
    """Unit image embeddings (N, E) on the CPU, of images as large as the model sees them, drawn a batch at a time."""
    return explainer.embed_images(image for scene in scenes for image in images_of(explainer.clip, [scene])).cpu()


def single(noun: str, artist: str, seed: Sequence[int], split: str, colour: str | None = None) -> Scene:
    """A scene of one given drawing; all else is that of a random single-object scene."""
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
    """Zero-shot answers for images of one object. The answer is one of all concepts."""
    nouns, explainer = list(concepts().index), Explainer(clip)
    rows, scenes = [], []
    for number, noun in enumerate(nouns):
        if only is not None and noun not in only:
            continue
        own = [artist for artist in artists_of(noun) if artist in artists]
        for turn in range(repeats):
            rng = np.random.default_rng([9, turn, number])
            colour = str(rng.choice([c for c in COLOURS if not is_withheld_colour(noun, c)])) if tinted else None
            for artist in [str(rng.choice(own))] if tinted else own:
                scenes.append(single(noun, artist, [int(tinted), turn, number, ARTISTS.index(artist)], split, colour))
                rows.append((noun, artist, colour))
    table, images = pd.DataFrame(rows, columns=["noun", "artist", "colour"]), embed_scenes(explainer, scenes)
    wanted = torch.tensor([nouns.index(noun) for noun in table["noun"]])
    table["right"] = _chosen(explainer, images, [phrase(noun) for noun in nouns]).eq(wanted).numpy()
    table["right_said"] = table["right"]
    for colour in table["colour"].dropna().unique():
        mine = np.flatnonzero(table["colour"] == colour)
        found = _chosen(explainer, images[mine], [phrase(noun, colour=colour) for noun in nouns])
        table.loc[mine, "right_said"] = found.eq(wanted[mine]).numpy()
    return table


def _chosen(explainer: Explainer, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """For each of N images the number of the prompt with the highest similarity: (N,)."""
    return (images @ explainer.embed_texts(prompts).cpu().T).argmax(-1)


def recognised(clip: Clip, n: int = 60) -> pd.DataFrame:
    """Zero-shot answers for development images of one untinted thing, by the artists of training."""
    nouns = np.random.default_rng(0).choice(list(concepts().index), n, replace=False)
    return classification(clip, "development", artists=TRAINED_ARTISTS, only=list(nouns))


def caption_among_256(clip: Clip, split: str, n_objects: int) -> list[bool]:
    """Whether the plain caption of each of 512 images is the best of 256; one that reads the same counts as right."""
    explainer, right = Explainer(clip), []
    for turn in range(2):
        seeds = ([10 + n_objects, turn, i] for i in range(256))
        scenes = [draw_scene(seed, split=split, n_objects=n_objects, plain=True) for seed in seeds]
        captions = [scene.caption for scene in scenes]
        best = _chosen(explainer, embed_scenes(explainer, scenes), captions).tolist()
        right += [captions[i] == captions[j] for i, j in enumerate(best)]
    return right


def _recognition_rows(clip: Clip, split: str) -> list[dict]:
    """Top-1 of one thing: untinted by artist, and tinted, with and without its colour in the prompts."""
    chance, plain = 1 / len(concepts()), classification(clip, split)
    tinted = classification(clip, split, 3, tinted=True, artists=TRAINED_ARTISTS)
    known = plain["artist"] != UNSEEN_ARTIST
    answers = [
        ("untinted, the six trained artists", plain[known]["right"]),
        *((f"  {artist}", plain[plain["artist"] == artist]["right"]) for artist in TRAINED_ARTISTS),
        (f"untinted, the artist never trained on ({UNSEEN_ARTIST})", plain[~known]["right"]),
        ("tinted, the prompt says the colour", tinted["right_said"]),
        ("tinted, the prompt does not", tinted["right"]),
    ]
    return [_row(name, right, chance) for name, right in answers]


def _caption_rows(clip: Clip, split: str) -> list[dict]:
    """Is the right caption the best of 256? By the number of things."""
    names = {k: f"right caption among 256, {_things(k)}" for k in (1, 2, 3, 4)}
    return [_row(name, caption_among_256(clip, split, k), 1 / 256) for k, name in names.items()]


def _attribute_rows(clip: Clip, split: str) -> list[dict]:
    """Is the right one of two captions chosen that differ in one attribute? One image of each pair is asked."""
    asked = [
        ("swapped colours told apart, trained compositions", "swapped colours", "seen"),
        ("swapped colours told apart, withheld compositions", "swapped colours", "withheld"),
        ("one of two nouns replaced", "object identity", "seen"),
        *((kind, kind, "seen") for kind in ("left / right", "above / below", "bigger / smaller")),
        ("two / three of a kind", "count", "seen"),
    ]
    rows = []
    for name, kind, composition in asked:
        pairs = draw_pairs(kind, PAIRS, composition=composition, split=split, nouns=len(concepts()))
        answers = judge(clip, pairs).query("side == 0")
        rows.append(_row(name, answers["right"] == 1, CHANCE))
    return rows


def _map_rows(clip: Clip, split: str) -> list[dict]:
    """Where do the maps of "a dog", and of the words of a caption, lie? By the number of things, one to four."""
    return _located_rows(play(clip, games(GAMES, split=split), questions=("prompt", _CENTRED)))


def mask_rows(split: str) -> list[dict]:
    """Where would the maps of "a dog" lie, were they the thing's own mask in the bundled models' patches?"""
    vision = CONFIG["vision_cfg"]
    side = vision["image_size"] // vision["patch_size"]
    return _located_rows(play_true_masks(games(GAMES, split=split), (side, side)).assign(question="prompt"))


def _located_rows(found: pd.DataFrame) -> list[dict]:
    """The figures of what `play` gives."""
    others = found.groupby(["question", "image", "objects"])["area"].transform("sum") - found["area"]
    found = found.assign(chance_on_others=others, chance_on_nothing=1 - others - found["area"])
    measures = {
        "relevance on X": ("on_thing", "area"),
        "relevance on other things": ("on_others", "chance_on_others"),
        "relevance on nothing": ("on_nothing", "chance_on_nothing"),
        "maximum on X": ("hit", "area"),
    }
    rows = []
    for (question, k), own in found.groupby(["question", "objects"]):
        for said, (measure, chance) in measures.items():
            if question == _CENTRED and measure == "hit":
                name = f"{_CENTRED}, {_things(k)}: maximum on its own thing"
            elif question == "prompt" and k < 4:
                name = f'"a X", {_things(k)}: {said}'
            else:
                continue
            (row,) = summarise(own, measure, by="objects").rename(columns={"mean": "value"}).to_dict("records")
            rows.append({**row, "figure": name, "chance": own[chance].mean()})
    return rows


def _word_rows(clip: Clip, split: str) -> list[dict]:
    """Are the nouns of a true caption above zero, and do word scores agree with leaving the word out?"""
    scenes = [draw_scene([95, i], split=split) for i in range(CAPTIONS)]
    images, captions = images_of(clip, scenes), [scene.caption for scene in scenes]
    methods = {"Grad-ECLIP": "grad-eclip", "leave-one-out": "leave-one-out"}
    scored = {
        name: [one.words[0] for one in Explainer(clip, method=method).explain_batch(images, captions)]
        for name, method in methods.items()
    }
    rows = []
    for name, words in scored.items():
        above = [
            (i, sum(word.score for word in own if word.start < span.end and word.end > span.start) > 0)
            for i, (scene, own) in enumerate(zip(scenes, words, strict=True))
            for span in scene.spans
            if span.kind == "noun"
        ]
        clusters, right = zip(*above, strict=True)
        rows.append(_row(f"nouns of a true caption above zero, {name}", right, clusters=clusters))
    agreement = [
        float(spearman(*([word.score for word in own if word.text.isalnum()] for own in pair)))
        for pair in zip(*scored.values(), strict=True)
    ]
    known = [value for value in agreement if np.isfinite(value)]
    return [*rows, _row("rank correlation of a caption's word scores with leave-one-out", known, 0.0)]


def _gallery_rows(clip: Clip, split: str) -> list[dict]:
    """In how many of the gallery's maps has no patch that shows nothing half of what the thing's own best patch has?"""
    models = clip, *(randomised(clip, seed=i) for i in range(3))
    clear, *by_chance = (clear_maps(one, split) for one in models)
    return [_row(NO_EMPTY_PATCH, clear, float(np.mean(by_chance)))]


_PARTS = {
    "recognition": _recognition_rows, "captions": _caption_rows, "attributes": _attribute_rows, "maps": _map_rows,
    "gallery": _gallery_rows, "words": _word_rows,
}  # fmt: skip


def figures(clip: Clip, split: str, only: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model: figure, value, low, high (95 %), n (images or captions), chance."""
    parts = all_chosen("only", only or list(_PARTS), _PARTS)
    rows = [row for part in tqdm(parts, unit="part") for row in _PARTS[part](clip, split)]
    return pd.DataFrame(rows)[list(_COLUMNS)]


def _things(n: int) -> str:
    return f"{n} thing{'s' * (n > 1)}"


def _row(name: str, values: Sequence | pd.Series, chance: float = np.nan, clusters: Sequence | None = None) -> dict:
    """A mean with its interval: Wilson's of right answers, else the bootstrap's; of clusters, n counts these."""
    low, high = interval(values, clusters, kind="proportion" if np.isin(values, (0, 1)).all() else "mean")
    n = len(values if clusters is None else set(clusters))
    return dict(zip(_COLUMNS, (name, np.mean(values), low, high, n, chance), strict=True))


def as_markdown(table: pd.DataFrame) -> str:
    """The figures as a table for the card, each with its 95 % interval, beside the aims."""
    models, rows = table["model"].drop_duplicates(), []
    for figure, own in table.groupby("figure", sort=False):
        by_model = own.set_index("model")
        cells = [
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**by_model.loc[model]) if model in by_model.index else ""
            for model in models
        ]
        n, chance = own[["n", "chance"]].iloc[0]
        guessed = "" if np.isnan(chance) else f"{chance:.3f}"
        rows.append((str(figure).replace("  ", "&emsp;"), *cells, AIMS.get(figure, ""), f"{n:.0f}", guessed))
    titles = (f"`{model}`" if model in BUNDLED_MODELS else model for model in models)
    return markdown_table(("figure", *titles, "aim", "n", "chance"), rows)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Put a model's figures into figures.csv, beside others' of the same split, and all of them into README.md."""
    path = folder / TABLE
    if path.is_file() and set(known := pd.read_csv(path)) == set(table):
        others = known[(known["split"] == table["split"].iloc[0]) & ~known["model"].isin(table["model"])]
        order = {name: place for place, name in enumerate(BUNDLED_MODELS)}
        whole = pd.concat([table, others])
        table = whole.sort_values("model", key=lambda models: models.map(order), kind="stable", ignore_index=True)
    table.to_csv(path, index=False)
    write_between(folder / "README.md", START, END, as_markdown(table))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `card`."""
    parser.add_argument("--split", choices=["development", "test"], default="development")
    parser.add_argument("--model", choices=list(BUNDLED_MODELS), default=BUNDLED, help="default: %(default)s")
    parser.add_argument("--weights", help="another compact checkpoint than the model's own")
    parser.add_argument("--write", action="store_true", help="put the figures into the folder data/")
    parser.add_argument("--gallery", type=Path, metavar="PNG", help="only draw maps of the first test scenes")


def run_command(options: argparse.Namespace) -> None:
    """The command `card`: measure and print the figures, or draw maps."""
    if options.gallery:
        writable(options.gallery, "--gallery", suffixes=(".png",), size=1_000_000)
    if options.write:
        readable(writable(data_path(), "--write", folder=True, size=1_000_000) / "README.md", "a card")
    clip = load_clip(options.model, options.weights)
    if options.gallery:
        return gallery(clip).savefig(options.gallery, dpi=100)
    masks = pd.DataFrame(mask_rows(options.split)).assign(model=TRUE_MASK)
    table = pd.concat([figures(clip, options.split).assign(model=options.model), masks])
    table = table.assign(split=options.split)[[*_COLUMNS, "model", "split"]]
    print(as_markdown(table))
    if options.write:
        write(table, data_path())
