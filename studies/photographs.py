"""Photographs in lessons 05 and 06.

COCO with its masks, and published sets of right and wrong captions.

    photographs = read_photographs("06", "coco:FOLDER,colorswap:FOLDER")    # refused, or read
    show_photographs(claims, clip, photographs)         # a lesson's table and figure of them

    matching_rows(clip, load("coco:FOLDER"), folder="runs/matching")    # a row per image
    colour_rows(clip, load("coco:FOLDER"))              # a row per colour and its noun
    choice_rows(clip, load_choices("sugar-crepe:DATA@IMAGES"))          # a row per choice

The last three keep their rows in `folder` as they are measured: the same call goes on from there,
after a kill as well. One image is in memory at a time.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gradeclip_utils import Explainer
from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.images import model_view, onto_image
from gradeclip_utils.language import phrases
from gradeclip_utils.measures.table import Table, describe_model
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import plot_intervals
from gradeclip_utils.scenes import COLOURS
from gradeclip_utils.scenes.grammar import article

from .binding import with_word
from .choices import KINDS, Choice, load_choices
from .lesson import Claims, mean_and_interval, readable
from .relevance import direction_of, located
from .s07_word_concreteness import check_captions, image_numbers

_COLOURS = {*COLOURS, "black", "white", "grey", "gray"}
_TYPICAL = 64  # images whose mean stands for no image in particular
_MARGIN = 0.01  # of the relevance: a map is about as much on a thing as a constant map is
_FEWEST_CASES = 25  # of a pair of attributes that counts in ARO, as published
_ANSWERS = {  # by column, what it claims
    "right": "finds its caption",
    "text_only": "without the image",
}
_CONTENT = {
    "05": (
        "where the maps of “a X”, “a Y” and “a X and a Y” lie, and whether maps and embeddings add"
    ),
    "06": "where the maps of colour words lie, or which captions the model prefers",
}


# ---------------------------------------------------------------------------- masks of two concepts


def matching_rows(
    clip: Clip,
    examples: Sequence[Example],
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Measure where the maps of "a X", "a Y" and "a X and a Y" lie in images that show X and Y.

    The examples have masks, one for each concept of an image, as `datasets.coco` or a table of your
    own gives them. Pixels of both masks belong to the smaller one. An image is left out if the
    model's view, such as a crop from the middle, shows nothing of one of the two.

    Returns:
        One row per image with masks of exactly two concepts: image, x, y; for X and Y (`x_own` ...)
        the fraction of positive relevance of the own prompt on the mask, of the own prompt on the
        other mask, of the joint prompt on the mask, and, as `chance`, of a constant map, which is
        the mask's part of what the model saw; `embeddings`, the cosine of the joint prompt's
        embedding with the sum of both, and `embeddings_other`, with the sum for an image of other
        concepts; `maps`, the correlation of the joint map with the sum of both maps.

    Raises:
        GradeclipError: no image has two concepts with masks, or `folder` holds another run.
    """
    pairs = _with_two_masks(examples)
    explainer = Explainer(clip)
    prompts = {}
    for image, things in pairs.items():
        prompts[image] = [f"{article(thing.concept.lower())} {thing.concept}" for thing in things]

    def measure(image: str) -> dict | None:
        x, y = pairs[image]
        masks = np.stack([x.mask(), y.mask()])  # (2, H, W)
        is_shared = masks.all(0)
        areas = masks.sum((1, 2))
        masks[areas.argmax()] &= ~is_shared
        is_seen = masks.any((1, 2))
        if not is_seen.all():
            return None

        joint_prompt = " and ".join(prompts[image])
        texts = explainer.embed_texts([*prompts[image], joint_prompt])  # (3, E)
        maps, heats, constant = _maps(explainer, x, texts)
        chance = located(constant, masks)
        if not all(thing.on_thing for thing in chance):
            return None

        row: dict[str, Any] = {"x": x.concept, "y": y.concept}
        joint = located(heats[2], masks)
        for i, name in enumerate("xy"):
            single = located(heats[i], masks)[i]
            row[f"{name}_own"] = single.on_thing
            row[f"{name}_other"] = single.on_others
            row[f"{name}_joint"] = joint[i].on_thing
            row[f"{name}_chance"] = chance[i].on_thing

        row["embeddings"] = _cosine_with_sum(texts[2], texts[:2])
        row["embeddings_other"] = np.nan
        foreign = _disjoint(prompts, image)
        if foreign:
            foreign_texts = explainer.embed_texts(foreign)
            row["embeddings_other"] = _cosine_with_sum(texts[2], foreign_texts)

        x_map, y_map, joint_map = maps
        sum_of_maps = x_map + y_map
        row["maps"] = np.corrcoef(joint_map.ravel(), sum_of_maps.ravel())[0, 1]
        return row

    questions = {image: "; ".join(pair) for image, pair in prompts.items()}
    return _measured(clip, "matching", questions, measure, folder)


def _with_two_masks(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """By image, the examples of the images that have masks of exactly two concepts."""
    by_image: dict[str, list[Example]] = {}
    for example, image in zip(examples, _images_of(examples), strict=True):
        if example.has_mask:
            by_image.setdefault(image, []).append(example)
    pairs = {image: things for image, things in by_image.items() if len(things) == 2}
    if not pairs:
        raise GradeclipError(
            "no image has masks of two concepts: matching needs data such as coco:FOLDER"
        )
    return pairs


def _disjoint(prompts: Mapping[str, list[str]], image: str) -> list[str] | None:
    """The prompts of the first image that shares none with this one."""
    for pair in prompts.values():
        if not set(pair) & set(prompts[image]):
            return pair
    return None


def _cosine_with_sum(text: Tensor, parts: Tensor) -> float:
    return float(F.cosine_similarity(text, parts.sum(0), dim=0))


# ------------------------------------------------------------------------------------- colour words


def colour_rows(
    clip: Clip,
    examples: Sequence[Example],
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Measure where the map of a colour word lies if its caption gives it to a thing with a mask.

    The control is the same caption with a colour that it does not mention. The examples have masks
    and captions. An example is left out if the model's view, such as a crop from the middle, shows
    nothing of its thing.

    Returns:
        One row per example: key, image, colour, `own`, the fraction of positive relevance of the
        colour word on the mask of its noun, `absent`, the same of the absent colour, and `chance`,
        of a constant map, which is the mask's part of what the model saw.

    Raises:
        GradeclipError: no caption gives a colour to a concept with a mask, or `folder` holds
            another run.
    """
    keys = [example.key for example in examples]
    images = dict(zip(keys, _images_of(examples), strict=True))
    coloured = _with_colours(examples)
    explainer = Explainer(clip)

    def measure(key: str) -> dict | None:
        example, start, end = coloured[key]
        colour = example.caption[start:end]
        mentioned = set(re.findall(r"\w+", example.caption.lower()))
        absent = next(name for name in COLOURS if name not in mentioned)

        captions = [with_word(example.caption, start, end, word) for word in (colour, absent)]
        split_words = explainer.word_directions([caption for caption, _, _ in captions])
        directions = []
        for (words, vectors), (_, first, last) in zip(split_words, captions, strict=True):
            directions.append(direction_of(words, vectors, first, last))

        mask = example.mask()[None]
        _, heats, constant = _maps(explainer, example, torch.stack(directions))
        chance = located(constant, mask)[0].on_thing
        if not chance:
            return None
        return {
            "image": images[key],
            "colour": colour.lower(),
            "own": located(heats[0], mask)[0].on_thing,
            "absent": located(heats[1], mask)[0].on_thing,
            "chance": chance,
        }

    questions = {key: example.caption for key, (example, _, _) in coloured.items()}
    return _measured(clip, "colours", questions, measure, folder)


def _with_colours(examples: Sequence[Example]) -> dict[str, tuple[Example, int, int]]:
    """By key, the examples whose caption says the colour of their concept, and where it does."""
    coloured = {}
    for example in examples:
        place = _colour_of(example)
        if place:
            coloured[example.key] = (example, *place)
    if not coloured:
        raise GradeclipError(
            "no caption gives a colour to a concept that has a mask, such as 'a red car' for car"
        )
    return coloured


def _colour_of(example: Example) -> tuple[int, int] | None:
    """Where the caption says the colour of the example's concept.

    "a red car", "two big red cars".
    """
    if not example.has_mask or not example.concept:
        return None
    noun = example.concept.lower().split()[-1]
    for phrase in phrases(example.caption):
        if phrase.head.lower() in (noun, f"{noun}s"):
            for word in phrase.words:
                if word.text.lower() in _COLOURS:
                    return word.start, word.end
    return None


# ------------------------------------------------------------------------------ choices of captions


def choice_rows(
    clip: Clip,
    choices: Sequence[Choice],
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Ask each image which of its two captions is right: SugarCrepe, ARO, Winoground, ColorSwap.

    An image is embedded once, however many choices show it.

    Returns:
        One row per choice: key, image, kind, the similarity of the right caption and of the `wrong`
        one, `right` (1, 0, or .5 for a tie) and `text_only`, the same answer of the mean of some of
        the images, which sees no image.

    Raises:
        GradeclipError: there are no choices, or `folder` holds another run.
    """
    if not len(choices):
        raise GradeclipError("there are no choices to ask")
    explainer = Explainer(clip)
    by_key = {choice.key: choice for choice in choices}
    images = dict(zip(by_key, image_numbers(choices), strict=True))
    embeddings: dict[int, Tensor] = {}

    step = max(1, len(choices) // _TYPICAL)
    sample = choices[::step][:_TYPICAL]
    typical = explainer.embed_images(choice.image() for choice in sample).mean(0)
    typical = F.normalize(typical, dim=-1)

    def measure(key: str) -> dict:
        choice = by_key[key]
        image = images[key]
        if image not in embeddings:
            embeddings[image] = explainer.embed_images(choice.image())[0]

        texts = explainer.embed_texts([choice.caption, choice.negative])  # (2, E)
        similarities = texts @ embeddings[image]
        right, wrong = similarities.tolist()
        difference = texts[0] - texts[1]
        lead = float(difference @ typical)
        return {
            "image": choice.image_key or key,
            "kind": choice.kind,
            "similarity": right,
            "wrong": wrong,
            "right": np.heaviside(right - wrong, 0.5),
            "text_only": np.heaviside(lead, 0.5),
        }

    questions = {key: f"{choice.caption}; {choice.negative}" for key, choice in by_key.items()}
    return _measured(clip, "choices", questions, measure, folder)


def group_scores(rows: pd.DataFrame) -> pd.Series:
    """Winoground's group score of each example: 1 if both images and both captions find each other.

    The rows of `choice_rows` are two an example, with keys EXAMPLE/IMAGE.
    """
    example = rows["key"].str.rpartition("/")[0]
    wrong_by_example = rows.groupby(example)["wrong"]
    crossed = wrong_by_example.transform(lambda wrong: wrong.to_numpy()[::-1])  # the other image
    similarity = rows["similarity"]
    right = (similarity > rows["wrong"]) & (similarity > crossed)
    return right.groupby(example).all().astype(float)


# -------------------------------------------------------------------------------------- measurement


def _maps(
    explainer: Explainer,
    example: Example,
    directions: Tensor,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed maps (T, h, w) of an image, its heat maps (T, H, W), and a constant one (H, W).

    Heat maps and the constant one are zero outside of what the model saw.
    """
    image = example.image()
    batch = explainer.maps(image, directions)  # (1, T, h, w)
    maps = batch[0].float().cpu().numpy()
    box = model_view(explainer.clip.preprocess, image).box

    heats = np.stack([onto_image(map_, box, image.size) for map_ in maps])
    constant = onto_image(np.ones_like(maps[0]), box, image.size)
    return maps, heats, constant


def _measured(
    clip: Clip,
    study: str,
    questions: Mapping[str, str],
    measure: Callable[[str], Mapping | None],
    folder: str | Path | None,
) -> pd.DataFrame:
    """Measure the keys that `folder` lacks, and return all rows in the order of the keys."""
    with TemporaryDirectory() as scratch:
        settings = {"study": study, **describe_model(clip)}
        table = Table(folder or scratch, settings, ["key"])
        check_captions(table, questions)
        waiting = [key for key in questions if (key,) not in table.rows]
        for key in tqdm(waiting, desc=study, unit="image", disable=folder is None):
            row = measure(key)
            if row:
                table.add([{"key": key, "asked": questions[key], **row}])
    rows = [table.rows[(key,)] for key in questions if (key,) in table.rows]
    return pd.DataFrame(rows).drop(columns="asked", errors="ignore")


def _images_of(examples: Sequence[Example]) -> list[str]:
    """The image of each example, by the key of the first one that shows it."""
    names: dict[int, str] = {}
    numbers = image_numbers(examples)
    return [
        names.setdefault(number, example.key)
        for example, number in zip(examples, numbers, strict=True)
    ]


# ------------------------------------------------------------------------------------------ lessons


def split_sources(data: str) -> list[str]:
    """The data sets of a text such as "coco:FOLDER,colorswap:FOLDER"."""
    return re.split(r",(?=[\w-]+:)", data) if data else []


def read_photographs(lesson: str, data: str) -> dict[str, Sequence]:
    """Read the photographs of lesson 05 or 06 before anything is measured: cases by data set.

    `data` is as `datasets.load` takes it, such as coco:FOLDER; for lesson 06 also as `load_choices`
    does, and several with commas between them. Without data there are no cases.

    Raises:
        GradeclipError: data that cannot be read, or that have no case for the lesson.
    """
    photographs: dict[str, Sequence] = {}
    for source in split_sources(data):
        if source.partition(":")[0] in KINDS:
            cases = load_choices(source)
        elif lesson == "05":
            pairs = _with_two_masks(load(source))
            cases = [thing for pair in pairs.values() for thing in pair]
        else:
            cases = [example for example, _, _ in _with_colours(load(source)).values()]
        cases[0].image()  # refuses a wrong folder of images
        photographs[source] = cases
    return photographs


def show_photographs(
    claims: Claims,
    clip: Clip,
    photographs: Mapping[str, Sequence],
) -> Figure | None:
    """Measure a lesson's question on photographs.

    Add claims, show them as a table, and return their figure.

    The rows lie in `results/MODEL-WEIGHTS/LESSON/DATA`. Without photographs, one line says what the
    cell would show.
    """
    if not photographs:
        print(f"With your photographs, this cell shows {_CONTENT[claims.lesson]}:")
        model = "MODEL=ViT-B-16 PRETRAINED=openai"
        print(f"make lesson NOTEBOOK={claims.lesson} {model} DATA=coco:FOLDER")
        return None

    before = len(claims.table)
    add_claims(claims, clip, photographs)
    table = claims.table[before:]
    display(readable(table))
    names = [claim.removeprefix("photographs: ") for claim in table["claim"]]
    return plot_intervals(table, names=names, sort=False, title="In photographs")


def add_claims(claims: Claims, clip: Clip, photographs: Mapping[str, Sequence]) -> None:
    """Measure a lesson's question on the photographs of `read_photographs`, and add the claims."""
    for source, cases in photographs.items():
        folder = claims.rows_folder(source)
        kind = source.partition(":")[0]
        if kind in KINDS:
            _claim_choices(claims, choice_rows(clip, cases, folder), kind)
        elif claims.lesson == "05":
            _claim_matching(claims, matching_rows(clip, cases, folder))
        else:
            _claim_colours(claims, colour_rows(clip, cases, folder))


def _claim_matching(claims: Claims, rows: pd.DataFrame) -> None:
    means = {}
    for name in ("own", "other", "joint", "chance"):
        means[name] = rows[[f"x_{name}", f"y_{name}"]].mean(axis=1)

    claims.add(
        "photographs: “a X” lies on X, beyond chance",
        means["own"] - means["chance"],
        margin=_MARGIN,
    )
    claims.add(
        "photographs: “a X” lies on X, more than “a Y” does",
        means["own"] - means["other"],
    )
    claims.add(
        "photographs: “a X and a Y” lies on X, more than “a X”",
        means["joint"] - means["own"],
    )
    claims.add(
        "photographs: “a X and a Y” embeds as a sum, more than of other nouns",
        rows["embeddings"] - rows["embeddings_other"].astype(float),
    )
    claims.add("photographs: its map correlates with the sum of both", rows["maps"])


def _claim_colours(claims: Claims, rows: pd.DataFrame) -> None:
    claims.add(
        "photographs: a colour word lies on its object, beyond chance",
        rows["own"] - rows["chance"],
        clusters=rows["image"],
        margin=_MARGIN,
    )
    claims.add(
        "photographs: it does so more than an absent colour",
        rows["own"] - rows["absent"],
        clusters=rows["image"],
    )


def _claim_choices(claims: Claims, rows: pd.DataFrame, data: str) -> None:
    if data in ("winoground", "colorswap"):  # two images and two captions per example
        example = rows["key"].str.rpartition("/")[0]
        name = f"photographs: {data}"
        for column, claim in _ANSWERS.items():
            claims.add(f"{name}: {claim}", rows[column], clusters=example, than=0.5)
        claims.add(f"{name}: all four right", group_scores(rows), than=1 / 6)
        return

    files = rows["kind"].str.partition(":")[0]  # ARO's kinds have a relation after it
    for file, cases in rows.groupby(files, sort=False):
        for column, claim in _ANSWERS.items():
            name = f"photographs: {data}, {file}: {claim}"
            if data == "aro":
                estimate, bounds, n = _mean_over_kinds(cases, column)
                claims.add(name, estimate=estimate, bounds=bounds, n=n, than=0.5)
            else:
                claims.add(name, cases[column], clusters=cases["image"], than=0.5)


def _mean_over_kinds(cases: pd.DataFrame, column: str) -> tuple[float, np.ndarray, int]:
    """ARO's score of relations or attributes as its authors compute it, with its interval.

    It is the mean over relations that are not symmetric, or over pairs of attributes with 25 cases
    or more.
    """
    sizes = cases.groupby("kind")["kind"].transform("size")
    parts = cases["kind"].str.partition(": ")  # the file, and its relation or pair of attributes
    is_relation = parts[0] == "relation"
    symmetric = data_path("aro_symmetric.txt").read_text().splitlines()
    is_asymmetric = ~parts[2].isin(symmetric)
    is_frequent = sizes >= _FEWEST_CASES
    counts = is_asymmetric.where(is_relation, is_frequent)
    cases = cases[counts]
    if cases.empty:
        return np.nan, np.full(2, np.nan), 0

    # the mean over kinds is a mean over cases in which each kind weighs the same
    n_kinds = cases["kind"].nunique()
    weights = len(cases) / (n_kinds * sizes[counts])
    mean, bounds, n = mean_and_interval(weights * cases[column], cases["image"])
    return mean, np.clip(bounds, 0, 1), n
