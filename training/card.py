"""The figures of the bundled models' card: how well they recognise things, bind colours, and point.

    python -m training card                                          # `emoji` on development
    scenes, printed python -m training card --parts recognition words                # only some
    parts, much quicker python -m training card --split test --model emoji-bag --write   # the
    published figures, into data/ python -m training gallery                                       #
    maps of the first test scenes, data/gallery.png

Fractions of right answers have 95 % Wilson intervals; where an image gives several answers, as in
pointing, the interval resamples images. Classification is zero-shot, among the prompts "a dog", "an
owl", "bread" of all concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from gradeclip_utils.checks import all_chosen
from gradeclip_utils.explainer import Explainer
from gradeclip_utils.measures.statistics import mean_interval
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import TRAINED_ARTISTS, UNSEEN_ARTIST, concepts, draw_scene
from studies.pairs import draw_pairs, embed_scenes, images_of, judge
from studies.pointing_game import games, play, play_true_masks

from . import layers
from .recognition import chosen, classification
from .rounds import MODELS
from .scratch import CONFIG
from .tables import by_model, markdown_table, write_figures

TABLE = "figures.csv"
TRUE_MASK = "true mask"  # its rows stand beside the models'
_CENTRED = "word x region, centred"
AIMS = {  # set before the training
    f"untinted, the artist never trained on ({UNSEEN_ARTIST})": "0.70",
    "tinted, the prompt says the colour": "0.65",
    "tinted, the prompt does not": "0.50",
    "right caption among 256, 2 things": "0.95",
    "swapped colours told apart, withheld compositions": "0.93, `emoji-bag` at most 0.65",
    **{f'"a X", {k} things: relevance on X': "0.70" for k in (2, 3)},
    **{f'"a X", {k} things: relevance on nothing': "at most 0.20" for k in (2, 3)},
    **{f'"a X", {k} things: maximum on X': "0.90" for k in (2, 3)},
    "nouns of a true caption above zero, Grad-ECLIP": "0.85",
    "rank correlation of a caption's word scores with leave-one-out": "0.55",
}
PAIRS, GAMES, CAPTIONS = 400, 150, 200  # pairs of a kind, scenes of each number of things, captions
_COLUMNS = ("figure", "value", "low", "high", "n", "chance")


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
    """How often the plain caption of an image is the best of 256, or reads as the best one, by the number of things."""
    explainer, rows = Explainer(clip), []
    for k in (1, 2, 3, 4):
        right = []
        for turn in range(2):
            scenes = [
                draw_scene([10 + k, turn, i], split=split, n_objects=k, plain=True)
                for i in range(256)
            ]
            captions = [scene.caption for scene in scenes]
            best = chosen(explainer, embed_scenes(explainer, scenes), captions).tolist()
            right += [captions[i] == captions[j] for i, j in enumerate(best)]
        rows.append(_row(f"right caption among 256, {_things(k)}", right, 1 / 256))
    return rows


def _attribute_rows(clip: Clip, split: str) -> list[dict]:
    """How often the right one of two captions is chosen that differ in one attribute, for one image of each pair."""
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
        rows.append(_row(name, answers["right"] == 1, 1 / 2))
    return rows


def _map_rows(clip: Clip, split: str) -> list[dict]:
    """Where the maps of "a dog" and of the words of a caption lie, by the number of things, one to four."""
    return _located_rows(play(clip, games(GAMES, split=split), ("prompt", _CENTRED)))


def mask_rows(split: str) -> list[dict]:
    """Where a map lies that is the thing's own mask, as fine as the patches of the bundled models."""
    vision = CONFIG["vision_cfg"]
    side = vision["image_size"] // vision["patch_size"]
    return _located_rows(
        play_true_masks(games(GAMES, split=split), (side, side)).assign(question="prompt")
    )


def _located_rows(found: pd.DataFrame) -> list[dict]:
    """The figures of a table of `play`."""
    rows = []
    for one in layers.located_means(found).itertuples():
        if one.question == _CENTRED and one.measure == "maximum on X":
            name = f"{_CENTRED}, {_things(one.objects)}: maximum on its own thing"
        elif one.question == "prompt" and one.objects < 4:
            name = f'"a X", {_things(one.objects)}: {one.measure}'
        else:
            continue
        rows.append(
            dict(zip(_COLUMNS, (name, one.mean, one.low, one.high, one.n, one.chance), strict=True))
        )
    return rows


def _word_rows(clip: Clip, split: str) -> list[dict]:
    """How often nouns of a true caption score above zero, and how word scores agree with leaving words out."""
    scenes = [draw_scene([95, i], split=split) for i in range(CAPTIONS)]
    images, captions = images_of(clip, scenes), [scene.caption for scene in scenes]
    methods = {"Grad-ECLIP": "grad-eclip", "leave-one-out": "leave-one-out"}
    scored = {
        name: [
            one.words[0] for one in Explainer(clip, method=method).explain_batch(images, captions)
        ]
        for name, method in methods.items()
    }
    rows = []
    for name, words in scored.items():
        above = [
            (
                i,
                sum(word.score for word in own if word.start < span.end and word.end > span.start)
                > 0,
            )
            for i, (scene, own) in enumerate(zip(scenes, words, strict=True))
            for span in scene.spans
            if span.kind == "noun"
        ]
        clusters, right = zip(*above, strict=True)
        rows.append(_row(f"nouns of a true caption above zero, {name}", right, clusters=clusters))
    agreement = [
        float(
            spearmanr(
                *([word.score for word in own if word.text.isalnum()] for own in pair)
            ).statistic
        )
        for pair in zip(*scored.values(), strict=True)
    ]
    known = [value for value in agreement if np.isfinite(value)]
    return [
        *rows,
        _row("rank correlation of a caption's word scores with leave-one-out", known, 0.0),
    ]


def _layer_rows(clip: Clip, split: str) -> list[dict]:
    """Where the maps of "a dog" lie when one, two or four layers are explained."""
    table = layers.measure(clip, split, GAMES)
    names = [
        f'"a X", {_things(one.objects)}, {one.layers} layer{"s" * (one.layers > 1)}: {one.measure}'
        for one in table.itertuples()
    ]
    return table.assign(figure=names, value=table["mean"])[list(_COLUMNS)].to_dict("records")


PARTS = {
    "recognition": _recognition_rows,
    "captions": _caption_rows,
    "attributes": _attribute_rows,
    "maps": _map_rows,
    "layers": _layer_rows,
    "words": _word_rows,
}


def figures(clip: Clip, split: str, only: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model: figure, value, low, high (95 %), n (images or captions), chance."""
    parts = all_chosen("only", only or list(PARTS), PARTS)
    rows = [row for part in tqdm(parts, unit="part") for row in PARTS[part](clip, split)]
    return pd.DataFrame(rows)[list(_COLUMNS)]


def _things(n: int) -> str:
    return f"{n} thing{'s' * (n > 1)}"


def _row(
    name: str,
    values: Sequence | pd.Series,
    chance: float = np.nan,
    clusters: Sequence | None = None,
) -> dict:
    """A mean with its interval: Wilson's of right answers, else the bootstrap's; of clusters, n counts these."""
    low, high = mean_interval(
        values, clusters, kind="proportion" if np.isin(values, (0, 1)).all() else "mean"
    )
    n = len(values if clusters is None else set(clusters))
    return dict(zip(_COLUMNS, (name, np.mean(values), low, high, n, chance), strict=True))


def as_markdown(table: pd.DataFrame) -> str:
    """The figures as a table for the card, each with its 95 % interval, beside the aims."""
    wide, about, rows = by_model(table, 3), table.drop_duplicates("figure").set_index("figure"), []
    for figure, *cells in wide.itertuples():
        n, chance = about.loc[figure, ["n", "chance"]]
        guessed = "" if np.isnan(chance) else f"{chance:.3f}"
        rows.append(
            (figure.replace("  ", "&emsp;"), *cells, AIMS.get(figure, ""), f"{n:.0f}", guessed)
        )
    titles = (f"`{model}`" if model in MODELS else model for model in wide)
    return markdown_table(("figure", *titles, "aim", "n", "chance"), rows)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Put a model's figures into figures.csv, beside others' of the same split, and all of them into README.md."""
    path = folder / TABLE
    if path.is_file() and set(known := pd.read_csv(path)) == set(table):
        others = known[
            (known["split"] == table["split"].iloc[0]) & ~known["model"].isin(table["model"])
        ]
        order = {name: place for place, name in enumerate(MODELS)}
        whole = pd.concat([table, others])
        table = whole.sort_values(
            "model", key=lambda models: models.map(order), kind="stable", ignore_index=True
        )
    table.to_csv(path, index=False)
    write_figures(folder / "README.md", "card", as_markdown(table))


def measure(clip: Clip, name: str, split: str, parts: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model, and where maps that are true masks would lie: the rows of figures.csv."""
    rows = [figures(clip, split, parts).assign(model=name)]
    if not parts or "maps" in parts:
        rows.append(pd.DataFrame(mask_rows(split)).assign(model=TRUE_MASK))
    return pd.concat(rows).assign(split=split)[[*_COLUMNS, "model", "split"]]
