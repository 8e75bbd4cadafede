"""The figures of the bundled models' card: how well they recognise things, bind colours, and point.

    # `emoji` on development scenes, printed
    python -m training card
    # only some parts, much quicker, for any weights
    python -m training card --parts words targets --weights runs/emoji/round-4.safetensors
    # the published figures, into data/
    python -m training card --split test --model emoji-bag --write

Fractions of right answers have 95 % Wilson intervals; where an image gives several answers, as in
pointing, the interval resamples images. Classification is zero-shot, among the prompts "a dog", "an
owl", "bread" of all concepts.
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole
from gradeclip_utils.measures.localisation import localisation_scores
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import (
    CANVAS,
    TRAINED_ARTISTS,
    UNSEEN_ARTIST,
    Scene,
    concepts,
    draw_scene,
)
from studies.lesson import different_things, embed_prompts
from studies.pairs import draw_pairs, embed_scenes, judge, right_interval
from studies.pointing_game import games, play, play_true_masks, question_maps
from studies.relevance import null_mean
from studies.s04_word_importance import word_scores

from . import layers
from .recognition import caption_hits, classification
from .rounds import MODELS
from .scratch import CONFIG
from .tables import by_model, markdown_table, write_figures

TABLE = "figures.csv"
LAYERS_FIGURE = "layers.png"
TRUE_MASK = "true mask"  # its rows stand beside the models'
INDENT = "  "  # before an artist, whose row is folded
CENTRED = "word x region, centred"
PAIRS = 400  # pairs of images of each kind
GAMES = 150  # scenes of each number of things
CAPTIONS = 200
COLUMNS = ["figure", "value", "low", "high", "n", "chance"]

# what was aimed at for `emoji`, chosen on development scenes
AIMS = {
    "a function word is the darkest, captions of two things, grad-eclip": "at most 0.10",
    '"a X", 2 things: average precision of the similarity': "0.70",
    '"a X", 2 things: average precision of the lead over other captions': "0.75",
    '"a X", 2 things: maximum of the similarity on X': "0.80",
    "swapped colours told apart, trained compositions": "0.70 to 0.88",
}

# what the card shows; all other figures are folded
SHOWN = (
    "untinted, the six trained artists",
    f"untinted, the artist never trained on ({UNSEEN_ARTIST})",
    "tinted, the prompt says the colour",
    "right caption among 256, 2 things",
    "swapped colours told apart, trained compositions",
    "swapped colours told apart, withheld compositions",
    "one of two nouns replaced",
    "left / right",
    "bigger / smaller",
    "two / three of a kind",
    '"a X", 2 things: relevance on X',
    '"a X", 2 things: average precision of the similarity',
    '"a X", 2 things: maximum of the similarity on X',
    '"a X", 2 things: average precision of the lead over other captions',
    '"a X", 2 things: maximum of the lead over other captions on X',
    "rank correlation of a caption's word scores with leave-one-out",
    "a function word is the darkest, captions of two things, grad-eclip",
)


# ------------------------------------------------------------------------------- recognition


def recognition_rows(clip: Clip, split: str) -> list[dict]:
    """Top-1 of one thing: untinted, by artist; tinted, with and without its colour in prompts."""
    chance = 1 / len(concepts())
    plain = classification(clip, split)
    tinted = classification(clip, split, 3, tinted=True, artists=TRAINED_ARTISTS)

    trained = plain[plain["artist"] != UNSEEN_ARTIST]
    rows = [row("untinted, the six trained artists", trained["right"], chance)]
    for artist in TRAINED_ARTISTS:
        answers = plain[plain["artist"] == artist]
        rows.append(row(f"{INDENT}{artist}", answers["right"], chance))
    unseen = plain[plain["artist"] == UNSEEN_ARTIST]
    figure = f"untinted, the artist never trained on ({UNSEEN_ARTIST})"
    rows.append(row(figure, unseen["right"], chance))
    rows.append(row("tinted, the prompt says the colour", tinted["right_said"], chance))
    rows.append(row("tinted, the prompt does not", tinted["right"], chance))
    return rows


def caption_rows(clip: Clip, split: str) -> list[dict]:
    """How often the plain caption of an image is the best of 256, by the number of things."""
    explainer = Explainer(clip)
    rows = []
    for n in (1, 2, 3, 4):
        right: list[bool] = []
        for turn in range(2):
            scenes = [
                draw_scene([10 + n, turn, i], split=split, n_objects=n, plain=True)
                for i in range(256)
            ]
            captions = [scene.caption for scene in scenes]
            right += caption_hits(explainer, embed_scenes(explainer, scenes), captions)
        rows.append(row(f"right caption among 256, {things(n)}", right, 1 / 256))
    return rows


def attribute_rows(clip: Clip, split: str) -> list[dict]:
    """How often the right one of two captions is chosen that differ in one attribute.

    One image of each pair is asked about.
    """
    questions = [
        ("swapped colours told apart, trained compositions", "swapped colours", "seen"),
        ("swapped colours told apart, withheld compositions", "swapped colours", "withheld"),
        ("one of two nouns replaced", "object identity", "seen"),
        ("left / right", "left / right", "seen"),
        ("above / below", "above / below", "seen"),
        ("bigger / smaller", "bigger / smaller", "seen"),
        ("two / three of a kind", "count", "seen"),
    ]
    rows = []
    for figure, kind, composition in questions:
        pairs = draw_pairs(kind, PAIRS, composition=composition, split=split, nouns=len(concepts()))
        answers = judge(clip, pairs)
        first_images = answers[answers["side"] == 0]
        rows.append(row(figure, first_images["right"] == 1, 1 / 2))
    return rows


# -------------------------------------------------------------------------------------- maps


def map_rows(clip: Clip, split: str) -> list[dict]:
    """Where the maps of "a dog" and of the words of a caption lie, by the number of things."""
    return located_rows(play(clip, games(GAMES, split=split), ("prompt", CENTRED)))


def mask_rows(split: str) -> list[dict]:
    """Where a map lies that is the thing's own mask, as fine as the patches of the models."""
    vision = CONFIG["vision_cfg"]
    side = vision["image_size"] // vision["patch_size"]
    answers = play_true_masks(games(GAMES, split=split), (side, side))
    return located_rows(answers.assign(question="prompt"))


def located_rows(answers: pd.DataFrame) -> list[dict]:
    """The figures of a table of `play`."""
    rows = []
    for means in layers.located_means(answers).itertuples():
        if means.question == CENTRED and means.measure == "maximum on X":
            figure = f"{CENTRED}, {things(means.objects)}: maximum on its own thing"
        elif means.question == "prompt" and means.objects < 4:
            figure = f'"a X", {things(means.objects)}: {means.measure}'
        else:
            continue
        rows.append(mean_row(figure, means))
    return rows


def target_rows(clip: Clip, split: str) -> list[dict]:
    """How maps of "a X" rank the pixels of two things, for two targets.

    The similarity, and its lead: less the mean similarity of the null captions.
    """
    scenes = [game.scene for game in games(GAMES, split=split, counts=(2,))]
    explainer = Explainer(clip)
    prompts = embed_prompts(explainer, scenes)  # (B, 2, E)

    rows = []
    targets = {"similarity": prompts, "lead over other captions": prompts - null_mean(explainer)}
    for target, directions in targets.items():
        heats = question_maps(explainer, scenes, {target: directions})[target]  # (B, 2, H, W)
        scores = []
        for scene, scene_heats in zip(scenes, heats, strict=True):
            for heat, mask in zip(scene_heats, scene.masks(CANVAS), strict=True):
                scores.append(localisation_scores(heat, mask) | {"area": mask.mean()})
        table = pd.DataFrame(scores)
        clusters = [i for i in range(len(scenes)) for _ in range(2)]
        chance = table["area"].mean()
        for measure, column in (
            ("average precision of the {}", "average_precision"),
            ("maximum of the {} on X", "pointing_game"),
        ):
            figure = f'"a X", 2 things: {measure.format(target)}'
            rows.append(row(figure, table[column], chance, clusters))
    return rows


def layer_rows(clip: Clip, split: str) -> list[dict]:
    """Where the maps of "a dog" lie when one, two or four layers are explained."""
    rows = []
    for means in layers.measure(clip, split, GAMES).itertuples():
        count = f"{means.layers} layer{'s' * (means.layers > 1)}"
        figure = f'"a X", {things(means.objects)}, {count}: {means.measure}'
        rows.append(mean_row(figure, means))
    return rows


# ------------------------------------------------------------------------------------- words


def word_rows(clip: Clip, split: str) -> list[dict]:
    """What word scores say: nouns above zero, agreement with leaving out, function words."""
    methods = ["grad-eclip", "leave-one-out"]
    scenes = [draw_scene([95, i], split=split) for i in range(CAPTIONS)]
    words = word_scores(clip, scenes, methods)
    words = words[words["kind"] != "punctuation"]
    nouns = words[words["kind"] == "noun"]
    rows = []
    for method in methods:
        figure = f"nouns of a true caption above zero, {method}"
        rows.append(row(figure, nouns[method] > 0, clusters=nouns["caption"]))

    ranks = words.groupby("caption")[methods].corr("spearman")
    correlations = ranks["leave-one-out"].unstack()["grad-eclip"]
    figure = "rank correlation of a caption's word scores with leave-one-out"
    rows.append(row(figure, correlations.dropna(), 0.0))

    two_things = word_scores(clip, plain_pairs(CAPTIONS, split), methods)
    for method in methods:
        darkest = two_things.loc[two_things.groupby("caption")[method].idxmax()]
        figure = f"a function word is the darkest, captions of two things, {method}"
        rows.append(row(figure, darkest["kind"] == "function"))
    return rows


def plain_pairs(count: int, split: str) -> list[Scene]:
    """Scenes of two different things without colours: "a dog and a drum"."""
    return list(islice(different_things(96, split=split, n_objects=2, tint=0), count))


# ------------------------------------------------------------------------------- the figures

PARTS = {
    "recognition": recognition_rows,
    "captions": caption_rows,
    "attributes": attribute_rows,
    "maps": map_rows,
    "targets": target_rows,
    "layers": layer_rows,
    "words": word_rows,
}


def figures(clip: Clip, split: str, parts: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model, or those of some parts.

    Columns figure, value, low, high (95 %), n (images or captions), chance.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise GradeclipError(f"there is no part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    rows: list[dict] = []
    for part in tqdm(parts or PARTS, unit="part"):
        rows += PARTS[part](clip, split)
    return pd.DataFrame(rows)[COLUMNS]


def measure(clip: Clip, name: str, split: str, parts: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model, and where maps that are true masks would lie: rows of figures.csv."""
    tables = [figures(clip, split, parts).assign(model=name)]
    if not parts or "maps" in parts:
        tables.append(pd.DataFrame(mask_rows(split)).assign(model=TRUE_MASK))
    return pd.concat(tables).assign(split=split)[[*COLUMNS, "model", "split"]]


def mean_row(figure: str, means: Any) -> dict:
    """The figure of a row of `layers.located_means`."""
    cells = (figure, means.mean, means.low, means.high, means.n, means.chance)
    return dict(zip(COLUMNS, cells, strict=True))


def things(n: int) -> str:
    """A number of things in words, such as "2 things"."""
    return f"{n} thing{'s' * (n > 1)}"


def row(
    figure: str,
    values: ArrayLike,
    chance: float = np.nan,
    clusters: Sequence | None = None,
) -> dict:
    """A mean with its interval: Wilson's of right answers, else the bootstrap's.

    Of clusters, n counts these.
    """
    values = np.asarray(values, float)
    n = len(values) if clusters is None else len(np.unique(clusters))
    cells = (figure, values.mean(), *right_interval(values, clusters), n, chance)
    return dict(zip(COLUMNS, cells, strict=True))


# ----------------------------------------------------------------------------------- the card


def as_markdown(table: pd.DataFrame) -> str:
    """The figures for the card: a table of those in `SHOWN`, and one of the others that is folded.

    The others include the rows by artist and what a true mask would reach. Those by number of
    layers are drawn (`plot_layers`).
    """
    table = table[~table["figure"].str.contains(" layers?: ")]
    is_shown = table["figure"].isin(SHOWN) & (table["model"] != TRUE_MASK)
    shown = figure_table(table[is_shown], digits=2)
    if is_shown.all():
        return shown
    summary = "<details><summary>All other figures, and the thing's own mask as a map</summary>"
    folded = figure_table(table[~is_shown], digits=3)
    return "\n\n".join([shown, summary, folded, "</details>"])


def figure_table(table: pd.DataFrame, digits: int) -> str:
    """Figures in Markdown: a column a model with 95 % intervals, and n, chance and aim."""
    by_figure = table.drop_duplicates("figure").set_index("figure")
    wide = by_model(table, digits)
    rows = []
    for figure, *cells in wide.itertuples():
        n, chance = by_figure.loc[figure, ["n", "chance"]]
        guess = "" if np.isnan(chance) else f"{chance:.{digits}f}"
        rows.append((figure, *cells, f"{n:.0f}", guess, AIMS.get(figure, "")))
    titles = [f"`{model}`" if model in MODELS else model for model in wide]
    return markdown_table(("figure", *titles, "n", "chance", "aim"), rows)


def plot_layers(table: pd.DataFrame) -> Figure:
    """Where maps of "a X" lie among two things, by the number of explained layers."""
    pattern = r'"a X", 2 things, (?P<layers>\d) layers?: (?P<measure>.*)'
    rows = table.join(table["figure"].str.extract(pattern)).dropna(subset="layers")
    measures = ["relevance on X", "maximum on X"]

    figure = Figure(figsize=(6.4, 2.2), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 2, sharey=True), measures, strict=True):
        for model, means in rows[rows["measure"] == measure].groupby("model", sort=False):
            bounds = [means["value"] - means["low"], means["high"] - means["value"]]
            axes.errorbar(means["layers"], means["value"], bounds, marker="o", label=model)
        axes.set(title=measure, xlabel="explained layers", ylim=(0, 1))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def write(table: pd.DataFrame, folder: Path) -> None:
    """Put a model's figures into figures.csv, the card's table and its figure of layers.

    Figures of other models stay if they are of the same split.
    """
    file = folder / TABLE
    if file.is_file():
        published = pd.read_csv(file)
        same_split = published["split"] == table["split"].iloc[0]
        others = published[same_split & ~published["model"].isin(table["model"])]
        order = {name: place for place, name in enumerate(MODELS)}
        table = pd.concat([table, others]).sort_values(
            "model",
            key=lambda models: models.map(order),
            kind="stable",
            ignore_index=True,
        )
    write_whole(
        {
            file: table.to_csv(index=False).encode(),
            folder / LAYERS_FIGURE: partial(plot_layers(table).savefig, dpi=150, format="png"),
        }
    )
    write_figures(folder / "README.md", "card", as_markdown(table))
