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
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from gradeclip_utils.checks import columns, whole
from gradeclip_utils.datasets import load_choices, spread
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.results import Results
from gradeclip_utils.measures.evaluation import run_settings, weights_digest
from gradeclip_utils.measures.shards import Shard, merge, part_of, read_shard, shard_folder
from gradeclip_utils.measures.worker import contents
from gradeclip_utils.models import Clip, load_clip

from . import command
from .pairs import judge_choices
from .tables import as_figures, told

CHUNK = 64  # choices whose images are in memory at once, and that are computed again after a kill
SAMPLE = 64  # images whose mean is asked where captions alone are asked


def choice_rows(
    clip: Clip, data: str, limit: int | None = None, *, folder: str | Path | None = None, shard: Shard | None = None,
    chunk: int = CHUNK, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Ask every image of a data set of choices which of its two captions is right."""
    choices = load_choices(data, limit)
    if shard is not None and folder is None:
        raise GradeclipError("a shard needs a folder in which all shards meet (--folder)")
    chunk = whole("chunk", chunk, 1)
    starts = part_of(range(0, len(choices), chunk), shard)
    asked = [(choice.key, choice.kind, choice.caption, choice.negative, choice.image_key) for choice in choices]
    settings = {} if folder is None else run_settings(clip, asked, data=data, chunk=chunk)
    kept = nullcontext() if folder is None else closing(Results(shard_folder(folder, shard), settings))
    sampled = "" if folder is None else contents(spread(list(choices), SAMPLE))
    found, typical = [], None
    with kept as results, tqdm(total=len(choices), unit="choice", disable=not progress) as bar:
        for start in starts:
            part = choices[start : start + chunk]
            expected, inputs = [(one.key, "choices") for one in part], partial(contents, part, sampled)
            rows = None if results is None else results.read(start // chunk, expected, inputs)
            if rows is None:
                if typical is None:  # the mean of some images, spread over the data set: the same for every shard
                    some = spread(list(choices), SAMPLE)
                    typical = Explainer(clip).embed_images(choice.image() for choice in some).mean(0)
                rows = judge_choices(clip, part, mean_image=typical).rename(columns={"key": "image"})
                rows.insert(1, "method", "choices")
                rows["image_key"] = [choice.image_key or choice.key for choice in part]
                if results is not None:
                    results.write(start // chunk, rows, inputs())
            found.append(rows)
            bar.update(len(part))
        table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
        if results is not None:
            results.write_table(table)
    return table


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
    parser.add_argument("--data", help="sugar-crepe:DATA@IMAGES, winoground:FOLDER or aro:FOLDER")
    parser.add_argument("--limit", type=int, help="no more choices than this, spread over the data set")
    parser.add_argument("--folder", type=Path, help="keeps what is done, so that the same command goes on there")
    parser.add_argument("--shard", metavar="i/n", help="only every n-th chunk; by default as Slurm or torchrun say it")
    parser.add_argument("--merge", action="store_true", help="put the shards of --folder together, compute nothing")


def run_command(options: argparse.Namespace) -> None:
    """Ask, and print the figures or add them to a table; of a shard, say where its rows are."""
    command.check_table(options.out)
    if options.merge:
        if options.folder is None:
            raise GradeclipError("--merge needs the --folder in which the shards are")
        rows, origin = merge(options.folder)
        options.data = origin["data"]
        command.say(choice_figures(rows, options.data), {key: origin[key] for key in ("model", "weights")}, options)
        return
    if options.data is None:
        raise GradeclipError("study choices needs --data, such as winoground:FOLDER")
    shard = read_shard(options.shard)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    rows = choice_rows(clip, options.data, options.limit, folder=options.folder, shard=shard)
    if shard is not None:
        print(f"shard {shard[0]} of {shard[1]}: {len(rows)} choices in {shard_folder(options.folder, shard)}")
        print(f"when all are done: python -m gradeclip_utils study choices --folder {options.folder} --merge")
        return
    origin = {"model": clip.name, "weights": weights_digest(clip.model)}
    command.say(choice_figures(rows, options.data), origin, options)
