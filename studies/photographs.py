"""Photographs in lessons 04 and 05: COCO with its masks, and published sets of right and wrong captions.

    rows = matching_rows(clip, load("coco:FOLDER"), folder="runs/matching")    # one row per image
    rows = colour_rows(clip, load("coco:FOLDER"))                              # one row per colour
    and its noun rows = choice_rows(clip, load_choices("sugar-crepe:DATA@IMAGES"))          # one
    row per choice show_photographs(claims, clip, "coco:FOLDER")                              # a
    lesson's table and figure of them

The first three keep their rows in `folder` as they are measured: the same call goes on from there,
after a kill as well. One image is in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explainer import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.images import model_view, onto_image
from gradeclip_utils.language import phrases
from gradeclip_utils.measures.table import Table, describe_model
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import InlineFigure, plot_intervals
from gradeclip_utils.scenes import COLOURS

from .binding import with_word
from .choices import KINDS, Choice, load_choices
from .concreteness import check_asked, image_numbers
from .lesson import RESULTS, Claims, readable, rows_folder
from .relevance import direction_of, located

_COLOURS = {*COLOURS, "black", "white", "grey", "gray"}
_TYPICAL = 64  # images whose mean stands for no image in particular
_SHOWS = {
    "04": "where the maps of “a X”, “a Y” and “a X and a Y” lie, and whether maps and embeddings add",
    "05": "where the maps of colour words lie, or which captions the model prefers",
}


def matching_rows(
    clip: Clip, examples: Sequence[Example], folder: str | Path | None = None
) -> pd.DataFrame:
    """Ask images that show X and Y for "a X", "a Y" and "a X and a Y", and measure where each map lies.

    The examples have masks, one for each concept of an image, as `datasets.coco` or a table of your
    own gives them.

    Returns:
        One row per image with masks of exactly two concepts: image, x, y; for X and Y (`x_own` ...)
        the fraction of positive relevance of the own prompt on the mask, of the own prompt on the
        other mask, of the joint prompt on the mask, and the mask's area; `embeddings`, the cosine
        of the joint prompt's embedding with the sum of both, and `embeddings_other`, with the sum
        for an image of other concepts; `maps`, the correlation of the joint map with the sum of
        both maps.

    Raises:
        GradeclipError: no image has two concepts with masks, or `folder` holds another run.
    """
    shown: dict[str, list[Example]] = {}
    for one, image in zip(examples, _images_of(examples), strict=True):
        shown.setdefault(image, []).extend([one] if one.has_mask else [])
    pairs = {image: some for image, some in shown.items() if len(some) == 2}
    if not pairs:
        raise GradeclipError(
            "no image has masks of two concepts: matching needs data such as coco:FOLDER"
        )
    explainer = Explainer(clip)
    prompts = {image: [_article(one.concept) for one in some] for image, some in pairs.items()}
    waiting = list(prompts.values())

    def measure(image: str) -> dict | None:
        things, own = pairs[image], prompts[image]
        masks = np.stack([thing.mask() for thing in things])
        masks[masks.sum((1, 2)).argmax()] &= ~masks.all(
            0
        )  # shared pixels belong to the smaller thing
        if not masks.any((1, 2)).all():
            return None
        embedded = explainer.embed_texts([*own, " and ".join(own)])
        maps, heats = _maps(explainer, things[0].image(), embedded)
        (x, y), joint = [located(heat, masks) for heat in heats[:2]], located(heats[2], masks)
        row: dict[str, Any] = {"x": things[0].concept, "y": things[1].concept}
        for name, alone, both, mask in (
            ("x", x[0], joint[0], masks[0]),
            ("y", y[1], joint[1], masks[1]),
        ):
            found = {
                "own": alone.on_thing,
                "other": alone.on_others,
                "joint": both.on_thing,
                "area": mask.mean(),
            }
            row |= {f"{name}_{key}": value for key, value in found.items()}
        other = next((one for one in waiting if not set(one) & set(own)), None)
        sums = {
            "embeddings": embedded[:2],
            "embeddings_other": explainer.embed_texts(other) if other else None,
        }
        for name, parts in sums.items():
            row[name] = (
                np.nan
                if parts is None
                else float(F.cosine_similarity(embedded[2], parts.sum(0), dim=0))
            )
        return row | {"maps": np.corrcoef(maps[2].ravel(), (maps[0] + maps[1]).ravel())[0, 1]}

    asked = {image: "; ".join(own) for image, own in prompts.items()}
    return _measured(clip, "matching", asked, measure, folder)


def colour_rows(
    clip: Clip, examples: Sequence[Example], folder: str | Path | None = None
) -> pd.DataFrame:
    """Measure where the map of a colour word lies when a caption gives a colour to a thing that has a mask.

    The control asks the same caption with a colour that it does not mention. The examples have
    masks and captions.

    Returns:
        One row per example: key, image, colour, `own`, the fraction of positive relevance of the
        colour word on the mask of its noun, `absent`, the same of the absent colour, and `area`.

    Raises:
        GradeclipError: no caption gives a colour to a concept with a mask, or `folder` holds
            another run.
    """
    shown = zip(examples, _images_of(examples), strict=True)
    asked = {one.key: (one, image, place) for one, image in shown if (place := _colour_of(one))}
    if not asked:
        raise GradeclipError(
            "no caption gives a colour to a concept that has a mask, such as 'a red car' for car"
        )
    explainer = Explainer(clip)

    def measure(key: str) -> dict:
        one, image, (start, end) = asked[key]
        mask, mentioned = one.mask(), set(re.findall(r"\w+", one.caption.lower()))
        absent = next(colour for colour in COLOURS if colour not in mentioned)
        said = [
            with_word(one.caption, start, end, word) for word in (one.caption[start:end], absent)
        ]
        read = explainer.word_directions([caption for caption, *_ in said])
        directions = [
            direction_of(*words, *place) for words, (_, *place) in zip(read, said, strict=True)
        ]
        _, heats = _maps(explainer, one.image(), torch.stack(directions))
        own, other = (located(heat, mask[None])[0].on_thing for heat in heats)
        about = {"image": image, "colour": one.caption[start:end].lower()}
        return about | {"own": own, "absent": other, "area": float(mask.mean())}

    return _measured(
        clip, "colours", {key: one.caption for key, (one, *_) in asked.items()}, measure, folder
    )


def choice_rows(
    clip: Clip, choices: Sequence[Choice], folder: str | Path | None = None
) -> pd.DataFrame:
    """Ask each image which of its two captions is right: SugarCrepe, ARO, Winoground, ColorSwap.

    Returns:
        One row per choice: key, image, kind, the similarity of the right caption and of the `wrong`
        one, `right` (1, 0, or .5 for a tie) and `text_only`, the same answer of the mean of some of
        the images, which sees no image.

    Raises:
        GradeclipError: there are no choices, or `folder` holds another run.
    """
    if not len(choices):
        raise GradeclipError("there are no choices to ask")
    explainer, asked = Explainer(clip), {one.key: one for one in choices}
    some = choices[:: max(1, len(choices) // _TYPICAL)][:_TYPICAL]
    typical = F.normalize(explainer.embed_images(one.image() for one in some).mean(0), dim=-1)

    def measure(key: str) -> dict:
        one = asked[key]
        texts = explainer.embed_texts([one.caption, one.negative])
        right, wrong = (texts @ explainer.embed_images(one.image())[0]).tolist()
        lead = float((texts[0] - texts[1]) @ typical)
        about = {
            "image": one.image_key or key,
            "kind": one.kind,
            "similarity": right,
            "wrong": wrong,
        }
        return about | {
            "right": (np.sign(right - wrong) + 1) / 2,
            "text_only": (np.sign(lead) + 1) / 2,
        }

    texts = {key: f"{one.caption}; {one.negative}" for key, one in asked.items()}
    return _measured(clip, "choices", texts, measure, folder)


def group_scores(rows: pd.DataFrame) -> pd.Series:
    """Winoground's group score, a value per example: 1 if both images find their caption and both captions their image.

    The rows of `choice_rows` are two an example, with keys EXAMPLE/IMAGE.
    """
    example = rows["key"].str.rpartition("/")[0]
    crossed = rows.groupby(example)["wrong"].transform(
        lambda wrong: wrong.to_numpy()[::-1]
    )  # with the other image
    right = (rows["similarity"] > rows["wrong"]) & (rows["similarity"] > crossed)
    return right.groupby(example).all().astype(float)


def _maps(
    explainer: Explainer, image: Image.Image, directions: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Signed maps of an image for directions (T, E): on the token grid (T, h, w), and as heat maps (T, H, W)."""
    maps = explainer.maps(image, directions)[0].float().cpu().numpy()
    box = model_view(explainer.clip.preprocess, image).box
    return maps, np.stack([onto_image(map_, box, image.size) for map_ in maps])


def _measured(
    clip: Clip,
    study: str,
    asked: Mapping[str, str],
    measure: Callable[[str], Mapping | None],
    folder: str | Path | None,
) -> pd.DataFrame:
    """Measure the keys that `folder` does not have yet, and return all rows in the order of the keys."""
    with TemporaryDirectory() as scratch:
        settings = {"study": study, **describe_model(clip)}
        with Table(folder or scratch, settings, ["key"]) as table:
            check_asked(table, asked)
            waiting = [key for key in asked if (key,) not in table.rows]
            for key in tqdm(waiting, desc=study, unit="image", disable=folder is None):
                if row := measure(key):
                    table.add([{"key": key, "asked": asked[key], **row}])
            found = pd.DataFrame([table.rows[(key,)] for key in asked if (key,) in table.rows])
            return found.drop(columns="asked", errors="ignore")


def _colour_of(example: Example) -> tuple[int, int] | None:
    """Where the caption says the colour of the example's concept, if it does: "a red car", "two big red cars"."""
    noun = example.concept.lower().split()[-1] if example.has_mask and example.concept else ""
    for phrase in phrases(example.caption):
        if phrase.head.lower() in (noun, f"{noun}s"):
            for word in phrase.words:
                if word.text.lower() in _COLOURS:
                    return word.start, word.end
    return None


def _images_of(examples: Sequence[Example]) -> list[str]:
    """The image of each example, by the key of the first one that shows it."""
    names: dict[int, str] = {}
    numbers = zip(examples, image_numbers(examples), strict=True)
    return [names.setdefault(number, one.key) for one, number in numbers]


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


# ------------------------------------------------------------------------------------------ lessons


def show_photographs(claims: Claims, clip: Clip, data: str) -> InlineFigure | None:
    """Measure a lesson's question on photographs: add claims, show them as a table, and return their figure.

    The rows lie in `results/MODEL/LESSON/DATA`. `data` is as `datasets.load` takes it, such as
    coco:FOLDER; for lesson 05 also as `load_choices` does, and several with commas between them.
    Without data, one line says what the cell would show.
    """
    if not data:
        command = f"make lesson NOTEBOOK={claims.lesson} MODEL=ViT-B-16 PRETRAINED=openai DATA=coco:FOLDER"
        print(f"With your photographs, this cell shows {_SHOWS[claims.lesson]}:\n{command}")
        return None
    before = len(claims.table)
    for one in re.split(r",(?=[\w-]+:)", data):
        folder = rows_folder(claims.lesson, claims.model, one)
        if one.partition(":")[0] in KINDS:
            _claim_choices(
                claims, choice_rows(clip, load_choices(one), folder), one.partition(":")[0]
            )
        elif claims.lesson == "04":
            _claim_matching(claims, matching_rows(clip, load(one), folder))
        else:
            _claim_colours(claims, colour_rows(clip, load(one), folder))
    found = claims.table[before:]
    display(readable(found))
    names = [claim.removeprefix("photographs: ") for claim in found["claim"]]
    return plot_intervals(found, names=names, sort=False, title="In photographs")


def _claim_matching(claims: Claims, rows: pd.DataFrame) -> None:
    own, other, joint, area = (
        rows[[f"x_{name}", f"y_{name}"]].mean(axis=1) for name in ("own", "other", "joint", "area")
    )
    claims.add("photographs: “a X” lies on X, beyond its area", own - area)
    claims.add("photographs: “a X” lies on X, more than “a Y” does", own - other)
    claims.add("photographs: “a X and a Y” lies on X, more than “a X”", joint - own)
    ahead = (rows["embeddings"] - rows["embeddings_other"].astype(float)).dropna()
    if len(ahead) > 1:  # with other concepts in other images
        claims.add("photographs: “a X and a Y” embeds as a sum, more than of other nouns", ahead)
    claims.add("photographs: its map correlates with the sum of both", rows["maps"])


def _claim_colours(claims: Claims, rows: pd.DataFrame) -> None:
    by_image = {"clusters": rows["image"]}
    claims.add(
        "photographs: a colour word lies on its object, beyond its area",
        rows["own"] - rows["area"],
        **by_image,
    )
    claims.add(
        "photographs: it does so more than an absent colour",
        rows["own"] - rows["absent"],
        **by_image,
    )


def _claim_choices(claims: Claims, rows: pd.DataFrame, data: str) -> None:
    four = data in ("winoground", "colorswap")  # two images and two captions per example
    kinds = (
        data if four else data + ", " + rows["kind"].str.partition(":")[0]
    )  # ARO's relations count together
    for name, some in rows.assign(kinds=kinds).groupby("kinds", sort=False):
        said = f"photographs: {name}"
        shared = (
            some["key"].str.rpartition("/")[0] if four else some["image"]
        )  # both images have the same captions
        claims.add(f"{said}: finds its caption", some["right"], clusters=shared, than=0.5)
        claims.add(f"{said}: without the image", some["text_only"], clusters=shared, than=0.5)
        if four:
            claims.add(f"{said}: all four right", group_scores(some), than=1 / 6)


def side_by_side(results: str | Path = RESULTS) -> pd.DataFrame:
    """The claims of all results, one column per model, and published numbers in the last column."""
    tables = [
        pd.read_csv(file, dtype={"lesson": str}) for file in sorted(Path(results).glob("*/*.csv"))
    ]
    if not tables:
        raise GradeclipError(
            f"{results} has no results: run a lesson first, such as `make lesson NOTEBOOK=05`"
        )
    rows, published = (
        pd.concat(tables),
        pd.read_csv(data_path("published.csv"), dtype={"lesson": str}),
    )
    numbers = zip(rows["estimate"], rows["low"], rows["high"], strict=True)
    rows["said"] = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in numbers]
    values = published["model"] + " " + published["value"].map("{:.2f}".format)
    rows = pd.concat([rows, published.assign(model="published", said=values)])
    by = {"index": ["lesson", "claim"], "columns": "model", "values": "said"}
    return (
        rows.pivot_table(**by, aggfunc=", ".join, sort=False).fillna("").rename_axis(columns=None)
    )
