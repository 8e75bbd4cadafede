"""Matching and binding on photographs: COCO with its masks, and published sets of right and wrong captions.

    rows = matching_rows(clip, load("coco:FOLDER"), folder="results/mine/matching")     # one row an image
    rows = colour_rows(clip, load("coco:FOLDER"))                                       # one row a colour and its noun
    rows = choice_rows(clip, load_choices("sugar-crepe:DATA@IMAGES"))                   # one row a choice

Each function reads an image once, appends its rows to a table as they are measured, and goes on from there after a
kill. Memory does not grow with the number of images. Intervals are over images (column `image`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.nn import functional as F
from tqdm.auto import tqdm

from gradeclip_utils.datasets import Choice, Example
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.images import onto_image
from gradeclip_utils.measures.localisation import located
from gradeclip_utils.measures.table import Table, describe_model
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import COLOURS

from .lesson import RESULTS

AT_ONCE = 64  # images or choices between two writes
PHRASE = re.compile(rf"\b({'|'.join(COLOURS)})\s+(?:\w+\s+)?(\w+)\b", re.IGNORECASE)


def matching_rows(
    clip: Clip, examples: Sequence[Example], *, folder: str | Path | None = None, limit: int | None = None,
    seed: int = 0, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Ask images that show X and Y for "a X", "a Y" and "a X and a Y", and say where each map lies.

    Args:
        clip: the model.
        examples: with masks and keys IMAGE/CONCEPT, as `datasets.coco` gives them.
        folder: keeps the rows; the same call goes on from there.
        limit: at most this many images.
        seed: of the other image whose prompts are the control of the sum.
        progress: show a bar.

    Returns:
        One row an image: image, x, y; for each of X and Y the fraction of positive relevance of its prompt on its own
        mask, on the other one, and its area; the same of the joint prompt; `embeddings`, the cosine of the joint
        prompt's embedding with the sum of both, and `embeddings_other`, with the sum for another image; `maps`, the
        correlation of the joint map with the sum of both maps.

    Raises:
        GradeclipError: no image has two concepts with masks, or `folder` holds another run.
    """
    pairs = [found for found in map(_two_concepts, _by_image(examples)) if found][:limit]
    if not pairs:
        raise GradeclipError("no image has masks of two concepts: matching needs data such as coco:FOLDER")
    explainer, rng = Explainer(clip), np.random.default_rng(seed)
    others = rng.permutation(len(pairs))

    def measure(i: int) -> list[dict]:
        x, y = pairs[i]
        image, prompts = x.image(), [_article(x.concept), _article(y.concept)]
        prompts.append(f"{prompts[0]} and {prompts[1]}")
        explanation, embedded = explainer.explain(image, prompts), explainer.embed_texts(prompts)
        masks = np.stack([x.mask(), y.mask() & ~x.mask()])
        row: dict[str, Any] = {"image": _image_of(x), "x": x.concept, "y": y.concept}
        for name, index, own in (("x", 0, 0), ("y", 1, 1)):
            alone, joint = (located(explanation.heatmap(k, signed=True), masks)[own] for k in (index, 2))
            row |= {f"{name}_own": alone.on_thing, f"{name}_other": alone.on_others, f"{name}_hit": alone.hit}
            row |= {f"{name}_joint": joint.on_thing, f"{name}_area": masks[own].mean()}
        other = [_article(one.concept) for one in pairs[others[i] if others[i] != i else i - 1]]
        sums = embedded[:2].sum(0), explainer.embed_texts(other).sum(0)
        row["embeddings"], row["embeddings_other"] = (float(F.cosine_similarity(embedded[2], s, dim=0)) for s in sums)
        maps = explanation.image_maps
        row["maps"] = float(np.corrcoef(maps[2].ravel(), (maps[0] + maps[1]).ravel())[0, 1])
        return [row]

    keys = [_image_of(x) for x, _ in pairs]
    return _kept(clip, "matching", keys, measure, folder, progress, seed=seed)


def colour_rows(
    clip: Clip, examples: Sequence[Example], *, folder: str | Path | None = None, limit: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Say where the map of a colour word lies when a caption gives a colour to a thing that has a mask.

    The control asks the same caption with a colour that it does not mention.

    Args:
        clip: the model; its text encoder has words.
        examples: with masks, captions and keys IMAGE/CONCEPT, as `datasets.coco` gives them.
        folder: keeps the rows; the same call goes on from there.
        limit: at most this many images.
        progress: show a bar.

    Returns:
        One row an image: image, concept, colour, `own`, the fraction of positive relevance of the colour word on the
        mask of its noun, `absent`, the same of the absent colour, and `area`.

    Raises:
        GradeclipError: no caption gives a colour to a concept with a mask, or `folder` holds another run.
    """
    asked = []
    for one in examples:
        for match in PHRASE.finditer(one.caption):
            if one.has_mask and one.concept.lower().split()[-1] in match.group(0).lower().split():
                asked.append((one, match.group(1).lower(), match.span(1)))
                break
    asked = asked[:limit]
    if not asked:
        raise GradeclipError("no caption gives a colour to a concept that has a mask, such as 'a red car' for car")
    explainer = Explainer(clip)

    def measure(i: int) -> list[dict]:
        one, colour, (start, end) = asked[i]
        image, mask, row = one.image(), one.mask(), {"image": one.key, "concept": one.concept, "colour": colour}
        said = {word.lower() for word in re.findall(r"\w+", one.caption)}
        absent = next(other for other in COLOURS if other not in said)
        for name, word in (("own", colour), ("absent", absent)):
            caption = one.caption[:start] + word + one.caption[end:]
            ((split, directions),) = explainer.word_directions(caption)
            here = [k for k, (a, b) in enumerate(split.spans) if a < start + len(word) and b > start]
            map_ = explainer.maps(image, directions[here].sum(0, keepdim=True))[0, 0].cpu().numpy()
            heat = onto_image(map_, explainer.explain(image, caption).box, image.size)
            row[name] = located(heat, mask[None])[0].on_thing
        return [row | {"area": float(mask.mean())}]

    return _kept(clip, "colours", [one.key for one, *_ in asked], measure, folder, progress)


def choice_rows(
    clip: Clip, choices: Sequence[Choice], *, folder: str | Path | None = None, limit: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Ask each image which of its two captions is right: SugarCrepe, ARO, Winoground, ColorSwap.

    Args:
        clip: the model.
        choices: as `datasets.load_choices` gives them.
        folder: keeps the rows; the same call goes on from there.
        limit: at most this many choices.
        progress: show a bar.

    Returns:
        One row a choice: key, image, kind, `right` (1 or 0; .5 for a tie) and `text_only`, the same answer from the
        captions alone, asked of the mean of some of the images.

    Raises:
        GradeclipError: there are no choices, or `folder` holds another run.
    """
    choices = list(choices)[:limit]
    if not choices:
        raise GradeclipError("there are no choices to ask")
    explainer, step = Explainer(clip), max(1, len(choices) // AT_ONCE)
    typical = F.normalize(explainer.embed_images(one.image() for one in choices[::step][:AT_ONCE]).mean(0), dim=-1)

    def measure(i: int) -> list[dict]:
        one = choices[i]
        texts = explainer.embed_texts([one.caption, one.negative])
        leads = [float((texts[0] - texts[1]) @ image) for image in (explainer.embed_images(one.image())[0], typical)]
        right, text_only = ((np.sign(lead) + 1) / 2 for lead in leads)
        return [
            {"image": one.key, "of": one.image_key or one.key, "kind": one.kind, "right": right, "text_only": text_only}
        ]

    return _kept(clip, "choices", [one.key for one in choices], measure, folder, progress)


def _kept(
    clip: Clip, study: str, keys: list[str], measure: Callable[[int], list[dict]], folder: str | Path | None,
    progress: bool, **settings,
) -> pd.DataFrame:  # fmt: skip
    """Measure what `folder` does not have yet, and return all rows in the order of the keys."""
    bar = tqdm(total=len(keys), unit="image", desc=study, disable=not progress)
    with bar:
        if folder is None:
            rows = {}
            for i, key in enumerate(keys):
                rows[key] = measure(i)
                bar.update()
            return pd.DataFrame([row for key in keys for row in rows[key]])
        with Table(folder, {"study": study, **settings, **describe_model(clip)}, ["image"]) as table:
            todo = [i for i, key in enumerate(keys) if (key,) not in table.rows]
            bar.update(len(keys) - len(todo))
            for part in _parts(todo):
                table.add([row for i in part for row in measure(i)])
                bar.update(len(part))
            return pd.DataFrame([table.rows[(key,)] for key in keys])


def _parts(numbers: Iterable[int]) -> Iterator[list[int]]:
    waiting = iter(numbers)
    while part := list(islice(waiting, AT_ONCE)):
        yield part


def _image_of(example: Example) -> str:
    return example.key.rpartition("/")[0] or example.key


def _by_image(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """The examples of each image that have masks."""
    for _, group in groupby(examples, _image_of):
        yield [one for one in group if one.has_mask]


def _two_concepts(examples: list[Example]) -> tuple[Example, Example] | None:
    """The two concepts of an image, in the order of the data; None where there are not exactly two with masks."""
    return (examples[0], examples[1]) if len(examples) == 2 else None


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def side_by_side(results: str | Path = RESULTS) -> pd.DataFrame:
    """The claims of all results, one column a model, and published numbers in the last column."""
    results = Path(results)
    tables = [pd.read_csv(file, dtype={"lesson": str}) for file in sorted(results.glob("*/*.csv"))]
    if not tables:
        raise GradeclipError(f"{results} has no results: run a lesson first, such as `make lesson NOTEBOOK=05`")
    rows = pd.concat(tables, ignore_index=True)
    numbers = zip(rows["estimate"], rows["low"], rows["high"], strict=True)
    rows["said"] = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in numbers]
    wide = rows.pivot_table(index=["lesson", "claim"], columns="model", values="said", aggfunc="first", sort=False)
    published = pd.read_csv(data_path("published.csv"))
    if "claim" in published:
        wide["published"] = wide.index.get_level_values("claim").map(published.set_index("claim")["value"].to_dict())
    return wide.fillna("").rename_axis(columns=None)
