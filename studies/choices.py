"""Choices: of two captions, which is this image's? SugarCrepe, Winoground, ARO, with any model.

    data set of choices -> similarities -> one row a choice -> accuracy, with that of captions alone

    python -m gradeclip_utils study choices --data sugar-crepe:sugar-crepe/data@coco/val2017 --model ViT-B-16 \
        --pretrained openai

What counts is how far a figure lies above that of the captions alone: hard negatives of several published sets can be
told by a model that sees no image (Hsieh et al., NeurIPS 2023). Here the captions alone are asked of one embedding for
all, the mean of some of the data set's images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from gradeclip_utils.checks import columns
from gradeclip_utils.datasets import load_choices, spread
from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.table import Table, describe_model, weights_digest
from gradeclip_utils.models import Clip, load_clip

from . import command
from .pairs import judge_choices
from .tables import as_figures, told

CHUNK = 64  # choices whose images are in memory at once
SAMPLE = 64  # images whose mean is asked where captions alone are asked


def choice_rows(
    clip: Clip, data: str, limit: int | None = None, *, folder: str | Path | None = None, progress: bool = True
) -> pd.DataFrame:
    """Ask every image of a data set of choices which of its two captions is right; a folder keeps the rows."""
    choices = load_choices(data, limit)
    asked = [(choice.key, choice.kind, choice.caption, choice.negative, choice.image_key) for choice in choices]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    settings = {"data": data, "asked": digest, **describe_model(clip)}
    kept = nullcontext() if folder is None else Table(folder, settings, ("image",))
    with kept as table, tqdm(total=len(choices), unit="choice", disable=not progress) as bar:
        found, typical = {} if table is None else table.rows, None
        todo = [choice for choice in choices if (choice.key,) not in found]
        bar.update(len(choices) - len(todo))
        for start in range(0, len(todo), CHUNK):
            part = todo[start : start + CHUNK]
            if typical is None:  # the mean of some images, spread over the data set
                some = spread(list(choices), SAMPLE)
                typical = Explainer(clip).embed_images(choice.image() for choice in some).mean(0)
            rows = judge_choices(clip, part, mean_image=typical).rename(columns={"key": "image"})
            rows["image_key"] = [choice.image_key or choice.key for choice in part]
            records = rows.to_dict("records")
            if table is None:
                found |= {(row["image"],): row for row in records}
            else:
                table.add(records)
            bar.update(len(part))
        return pd.DataFrame([found[choice.key,] for choice in choices])


def choice_figures(rows: pd.DataFrame, data: str) -> pd.DataFrame:
    """Accuracy by kind, beside that of the captions alone, with 95 % intervals."""
    columns(rows, ("image", "kind", "right", "text_only", "image_key"))
    name, cluster = data.partition(":")[0], "image_key"
    if name == "winoground":  # both images of an example have its two captions, of which one is right of either
        rows, cluster = rows.assign(example=rows["image"].str.rpartition("/")[0]), "example"
    every = rows if rows["kind"].nunique() == 1 else pd.concat([rows, rows.assign(kind="all kinds")])
    asked = {"": "right", ", captions alone": "text_only"}
    tables = [
        told(f"{name}, {{kind}}{end}", part, column, cluster=cluster if part[cluster].duplicated().any() else None)
        for end, column in asked.items()
        for _, part in every.groupby("kind", sort=False)
    ]
    if name == "winoground":
        both = rows.groupby(cluster)["right"].agg(["min", "size"]).query("size == 2")  # a limit may have left out one
        right = pd.DataFrame({"image": both.index, "both": (both["min"] == 1).astype(float)})
        tables += [told("winoground, text score", right, "both")] if len(right) else []
    return as_figures("choices", tables)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study choices`."""
    command.add_table(parser)
    parser.add_argument("--data", required=True, help="sugar-crepe:DATA@IMAGES, winoground:FOLDER, aro:FOLDER, ...")
    parser.add_argument("--limit", type=int, help="no more choices than this, spread over the data set")
    parser.add_argument("--folder", type=Path, help="keeps what is done, so that the same command goes on there")


def run_command(options: argparse.Namespace) -> None:
    """Ask, and print the figures or add them to a table."""
    command.check_table(options.out)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    rows = choice_rows(clip, options.data, options.limit, folder=options.folder)
    origin = {"model": clip.name, "weights": weights_digest(clip.model)}
    command.say(choice_figures(rows, options.data), origin, options)
