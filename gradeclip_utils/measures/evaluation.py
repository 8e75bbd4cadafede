"""Evaluation: is this map better than that one? One row per image and method, on any data set.

    data set + model -> Explainer -> maps -> measures -> rows -> means with intervals -> which map
    is better

Reference baselines are measured as well: maps that need no model ("random", "centre", and "area",
which is the same everywhere), the first method with random weights ("random weights") or with a
prompt for something that is not there ("wrong word"), and the true mask on the token grid
("oracle").
"""

from __future__ import annotations

import argparse
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..checks import (
    chosen,
    columns,
    flag,
    hint,
    instance,
    listed,
    optional_library,
    short,
    text,
    whole,
    writable,
)
from ..checks import seed as checked_seed
from ..datasets import Example, load
from ..datasets.registry import DATASETS
from ..errors import GradeclipError, first_line, heard_by, warn
from ..explainer import Explainer
from ..explanation import Explanation
from ..files import digest, write_whole
from ..images import model_view, pool
from ..methods import METHODS, Method
from ..models import Clip, load_clip
from ..prompts import as_prompts
from .faithfulness import GAMES, PROTOCOLS, Protocol, colours_of, curve_auc, image_curves
from .localisation import MEASURES, localisation_scores, reference_baselines
from .sanity import randomised
from .statistics import group_means, interpret_interval, paired_differences
from .table import Table, content_digest, describe_model

_PROMPTLESS = ("random", "centre", "area", "random weights")  # references that no prompt changes
_REFERENCES = (*_PROMPTLESS, "wrong word", "oracle")
_TOGETHER = (
    8  # examples that a method traces in one batch; a kill loses no more than the batches under way
)


@dataclass(frozen=True)
class _Plan:
    """What is measured of every example."""

    methods: tuple[str, ...]
    references: tuple[str, ...]
    faithfulness: str | Protocol
    seed: int

    @property
    def baseline(self) -> str:
        return "grad-eclip" if "grad-eclip" in self.methods else self.methods[0]

    @property
    def rows(self) -> tuple[str, ...]:
        return self.methods + self.references


_Asked = tuple[Example, str]  # an example, and a prompt that its image does not show


def evaluate(
    clip: Clip,
    data: str | Sequence[Example],
    methods: str | Sequence[str] = "grad-eclip",
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    references: bool = True,
    faithfulness: str | Protocol = "",
    seed: int = 0,
    jobs: int = 1,
    dask: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Measure the maps of several methods on a data set.

        rows = evaluate(load_clip(), "scenes:development:100", ["grad-eclip", "maskclip"])
        print(report_best(summary(rows)))

    Args:
        clip: the model.
        data: a data set as `datasets.load` takes it, or a list of `Example`.
        methods: names of `methods.METHODS`, or "all" that work with this model; a warning names the
            others.
        out: a folder that keeps the rows (`rows.jsonl`), and from which a stopped run continues.
        limit: at most this many examples, spread evenly over the data.
        references: add the rows of reference baselines.
        faithfulness: "published" (half range), "mean-colour" (the same, filled with the image's
            mean colour), "full" or a `Protocol` adds deletion and insertion, several forward passes
            a row.
        seed: of random maps and weights, wrong words, and methods that draw.
        jobs: processes on this machine; -1 for one a processor.
        dask: the address of a Dask scheduler, whose workers do the work (see joblib's Dask
            backend).
        progress: show a bar.
        overwrite: start again in a folder that holds another run.

    Returns:
        One row per example and method: image (the example's key), concept, prompt, method, content
        (a checksum of image and mask), the measures of `localisation_scores` (NaN without a mask), with
        `faithfulness` also deletion and insertion (areas), and seconds of an explanation. An
        example whose image or mask cannot be read has no rows, and a warning says so.

    Raises:
        GradeclipError: an unknown method or data set, options that do not go together, no mask or
            second concept, a folder of another run or one that another process works on, an image
            that was replaced since.
    """
    instance("clip", clip, Clip, "a Clip(model, preprocess, tokenizer)")
    jobs, seed = whole("jobs", jobs, -1, 1024), checked_seed(seed)
    if jobs == 0:
        raise GradeclipError(
            "jobs must be 1 or more, or -1 for as many as there are processors, got 0"
        )
    for name, value in (
        ("references", references),
        ("progress", progress),
        ("overwrite", overwrite),
    ):
        flag(name, value)
    if not isinstance(faithfulness, Protocol) and text("faithfulness", faithfulness):
        chosen("faithfulness", faithfulness, PROTOCOLS)
    names = method_names(methods)
    examples = load(data, limit)
    if not faithfulness and not any(example.has_mask for example in examples):
        raise GradeclipError(
            "no example has a mask, so only faithfulness can be measured: ask for it (--faithfulness)"
        )
    if empty := [one.key for one in examples if not as_prompts(one.prompt)[0].strip()]:
        raise GradeclipError(
            f"the prompt of {empty[0]!r} has no word: leave the example out, or write one"
        )
    if isinstance(methods, str) and methods == "all":
        names = _available(clip, names, progress)
    plan = _Plan(names, _REFERENCES if references else (), faithfulness, seed)
    settings = {"data": data if isinstance(data, str) else "examples in hand", **asdict(plan)}
    unread: dict[str, str] = {}
    with TemporaryDirectory() as scratch:
        folder = scratch if out is None else out
        with run_table(folder, clip, examples, settings, ("image", "method"), overwrite) as table:
            for rows in _measured(clip, plan, examples, table.rows, jobs, dask, progress):
                table.add(row for row in rows if "error" not in row)
                unread |= {row["image"]: row["error"] for row in rows if "error" in row}
        if unread:
            said = f"{len(unread)} of {len(examples)} examples are not measured: {next(iter(unread.values()))}"
            if len(unread) == len(examples):
                raise GradeclipError(said)
            warn(f"{said}; mend what they read, and the same call goes on with them", UserWarning)
        measured = [one.key for one in examples if one.key not in unread]
        found = pd.DataFrame([table.rows[key, name] for key in measured for name in plan.rows])
    numbers = [name for name in (*MEASURES, *GAMES, "seconds") if name in found]
    return found.astype(dict.fromkeys(numbers, float))[
        ["image", "concept", "prompt", "method", "content", *numbers]
    ]


def run_table(
    out: str | Path, clip: Clip, examples: list[Example], settings: dict, keys, overwrite: bool
) -> Table:
    """Return the table that keeps the rows of a run on a model and examples."""
    about = [(one.key, one.prompt, one.concept, one.present) for one in examples]
    asked, model = (
        digest([json.dumps(about).encode()]),
        describe_model(clip, (one.prompt for one in examples)),
    )
    settings = {**settings, "examples": len(examples), "images and captions": asked, **model}
    return Table(out, settings, keys, overwrite=overwrite)


def method_names(methods: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of methods that have maps of images, each once; "all" for all of them."""
    known = [name for name, method in METHODS.items() if method.image is not None]
    asked = (
        known
        if isinstance(methods, str) and methods == "all"
        else listed("methods", methods, (str,))
    )
    for name in asked:
        if text("each of methods", name) not in known:
            raise GradeclipError(
                f"{short(name)} is not a method that explains images: {hint(name, known)}"
            )
    if not asked:
        raise GradeclipError(f"no method was given: choose from {', '.join(known)}")
    return tuple(dict.fromkeys(asked))


def _available(clip: Clip, names: Sequence[str], progress: bool) -> tuple[str, ...]:
    """Return the methods that can explain a model, tried on one image; a warning names the others, and why."""
    refused: dict[str, GradeclipError] = {}
    for name in tqdm(
        names,
        unit="method",
        desc="methods that the model can have",
        disable=not progress,
        leave=False,
    ):
        try:
            with heard_by(lambda note: None):
                Explainer(clip, method=name).explain(Image.effect_noise((160, 96), 64), "a")
        except GradeclipError as refusal:
            refused[name] = refusal
    if len(refused) == len(names):
        raise refused[names[0]]
    if refused:
        others = "; ".join(
            f"{name} ({first_line(why.__cause__ or why)})" for name, why in refused.items()
        )
        warn(f"these methods do not work with the model {clip.name!r} and are left out: {others}")
    return tuple(name for name in names if name not in refused)


def _wrong_prompts(examples: list[Example], seed: int) -> list[str]:
    """Return for each example the prompt of another one, whose concept is not in the image."""
    prompts = {example.concept: example.prompt for example in examples}
    concepts, found = list(prompts), []
    for example in examples:
        start, present = _generator(example, seed).integers(len(concepts)), set(example.present)
        others = (concepts[(start + k) % len(concepts)] for k in range(len(concepts)))
        wrong = next((concept for concept in others if concept not in present), None)
        if wrong is None:
            msg = f"no other example asks for something that {example.key!r} does not show, so there is no wrong word"
            raise GradeclipError(
                f"{msg}: evaluate more examples, or without references (--no-references)"
            )
        found.append(prompts[wrong])
    return found


def _generator(example: Example, seed: int) -> np.random.Generator:
    """Return a generator that is the same for an example wherever it stands, in whichever process."""
    return np.random.default_rng([seed, zlib.crc32(example.key.encode(errors="surrogatepass"))])


def _measured(
    clip,
    plan: _Plan,
    examples: list[Example],
    kept: dict,
    jobs: int,
    dask: str | None,
    progress: bool,
) -> Iterator[list]:
    """Yield the rows of the examples that have none, a few examples at a time."""
    with tqdm(total=len(examples), unit="image", disable=not progress) as bar:
        wrong = _wrong_prompts(examples, plan.seed) if plan.references else [""] * len(examples)
        todo: list[_Asked] = []
        for one, other in zip(examples, wrong, strict=True):
            there = [kept[one.key, name] for name in plan.rows if (one.key, name) in kept]
            if there and there[0]["content"] != content_digest(*one.read()):
                said = f"image or mask of {one.key!r} was replaced since it was measured"
                raise GradeclipError(f"{said}: choose another folder, or add --overwrite")
            if len(there) < len(plan.rows):
                todo.append((one, other))
            else:
                bar.update()
        parts = [todo[start : start + _TOGETHER] for start in range(0, len(todo), _TOGETHER)]
        with closing(_computed(clip, plan, parts, jobs, dask)) as computed:
            for rows in computed:
                bar.update(len({row["image"] for row in rows}))
                yield rows


def _computed(clip, plan: _Plan, parts: list[list[_Asked]], jobs: int, dask: str | None):
    """Yield the rows of one part after the other, in the order in which they are done."""
    if dask is None and (jobs == 1 or len(parts) < 2):
        explainers = _explainers(clip, plan) if parts else {}
        for part in parts:
            yield _rows_of(explainers, plan, part)
        return
    joblib = optional_library("joblib", "the work is shared out by joblib", "cluster")
    if dask is None:
        client, jobs = nullcontext(), jobs if jobs < 0 else min(jobs, len(parts))
        workers = joblib.parallel_config(
            "loky", n_jobs=jobs, initializer=_receive, initargs=(clip, os.getpid(), time.time_ns())
        )
    else:
        distributed = optional_library(
            "distributed", "--dask hands the work to a Dask cluster", "cluster"
        )
        try:
            client = distributed.Client(dask)
        except (OSError, ValueError, TypeError) as error:
            raise GradeclipError(
                f"no Dask scheduler answers at {short(dask)} ({first_line(error)})"
            ) from error
        workers = joblib.parallel_config(
            "dask", client=client, scatter=[clip], n_jobs=-1
        )  # which sends it once
    with client, workers:
        methods = {name: METHODS[name] for name in plan.methods}
        calls = (
            joblib.delayed(_rows_at_worker)(clip if dask else None, methods, plan, part)
            for part in parts
        )
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)


_received: list[Clip] = []  # the model of this worker process, which gets it once


def _receive(clip: Clip, parent: int, call: int) -> None:
    """Keep the model in a worker process, and end the process as soon as its parent is gone.

    joblib keeps processes whose arguments are equal, and with them the weights of an earlier call:
    `call` differs.
    """

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    _received[:] = [clip]
    threading.Thread(target=end_with_parent, daemon=True).start()


def _rows_at_worker(
    clip: Clip | None, methods: dict[str, Method], plan: _Plan, part: list[_Asked]
) -> list[dict]:
    METHODS.update(methods)  # with those that a project registered in its own process
    return _rows_of(_opened_once(clip or _received[0], plan), plan, part)


def _explainers(clip: Clip, plan: _Plan) -> dict[str, Explainer]:
    explainers = {name: Explainer(clip, method=name, seed=plan.seed) for name in plan.methods}
    if plan.references:
        random = randomised(clip, seed=plan.seed)
        explainers["random weights"] = Explainer(random, method=plan.baseline, seed=plan.seed)
    return explainers


_opened_once = lru_cache(maxsize=1)(_explainers)


def _rows_of(explainers: dict[str, Explainer], plan: _Plan, part: list[_Asked]) -> list[dict]:
    """Return the rows of a few examples, which every method traces in one batch; an unreadable one says why."""
    read: list[tuple] = []
    rows: list[dict] = []
    for one, wrong in part:
        try:
            read.append((one, wrong, *one.read()))
        except GradeclipError as refusal:
            rows.append({"image": one.key, "error": str(refusal)})
    if not read:
        return rows
    kept, wrongs, images, masks = zip(*read, strict=True)
    prompts = [one.prompt for one in kept]
    asked = {name: (name, prompts) for name in plan.methods}
    if plan.references:
        asked["wrong word"] = plan.baseline, list(wrongs)
        asked["random weights"] = "random weights", prompts
    explained, seconds = {}, {}
    for name, (method, texts) in asked.items():
        begin = time.perf_counter()
        explained[name] = explainers[method].explain_batch(images, texts)
        seconds[name] = (time.perf_counter() - begin) / len(kept)
    for i, (one, mask) in enumerate(zip(kept, masks, strict=True)):
        mine = {name: found[i] for name, found in explained.items()}
        measures = _measures(explainers[plan.baseline], plan, one, mask, mine)
        content = content_digest(images[i], mask)
        for name in plan.rows:
            prompt = mine[name].prompts[0] if name in mine else one.prompt
            row = {
                "image": one.key,
                "concept": one.concept,
                "prompt": prompt,
                "method": name,
                "content": content,
            }
            rows.append({**row, **measures[name], "seconds": seconds.get(name, np.nan)})
    return rows


def _measures(
    explainer: Explainer,
    plan: _Plan,
    one: Example,
    mask: np.ndarray | None,
    explained: dict[str, Explanation],
) -> dict[str, dict[str, float]]:
    baseline, references = explained[plan.baseline], {}
    heats = {name: explanation.heatmap(0, signed=True) for name, explanation in explained.items()}
    if plan.references:
        known = np.ones(baseline.image.size[::-1], dtype=bool) if mask is None else mask
        grid = baseline.image_maps.shape[1:]
        references = reference_baselines(grid, known, _generator(one, plan.seed), box=baseline.box)
    measures = {
        name: dict.fromkeys(MEASURES, np.nan) if mask is None else localisation_scores(heat, mask)
        for name, heat in (heats | references).items()
    }
    if plan.faithfulness:
        if mask is None:
            references.pop("oracle", None)
        clip, tower = explainer.clip, explainer.image_tower
        view, prompt = (
            model_view(clip.preprocess, baseline.image),
            explainer.embed_texts([one.prompt])[0],
        )
        maps = {name: explanation.image_maps[0] for name, explanation in explained.items()}
        maps |= {
            name: pool(heat, tuple(view.pixels.shape[1:]), view.box)
            for name, heat in references.items()
        }
        protocol = (
            PROTOCOLS[plan.faithfulness]
            if isinstance(plan.faithfulness, str)
            else plan.faithfulness
        )
        colours = (
            None if protocol.fill == protocol.canvas == "mean" else colours_of(clip.preprocess)
        )
        curves = image_curves(
            lambda pixels: tower.forward(pixels) @ prompt,
            view.pixels.to(tower.device),
            maps,
            protocol,
            colours=colours,
        )
        for row in curve_auc(curves).itertuples():
            measures[row.method][row.game] = row.auc
    return measures


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return every measure's mean of every method, and its difference from the best method, with 95 % intervals.

    Args:
        rows: as `evaluate` gives them. A measure is averaged over the images that have it, for the
            methods that have it on all these images.

    Returns:
        One row per measure and method: the columns of `group_means` and, with `than`, the best
        method, those of `paired_differences`.
    """
    columns(rows, ("image", "concept", "method"))
    tables = []
    for value in tqdm((*MEASURES, *GAMES), "means and intervals", delay=1, leave=False):
        some = rows.dropna(subset=[value]) if value in rows else rows[:0]
        some = some[some.groupby("method")["image"].transform("nunique") == some["image"].nunique()]
        if some["image"].nunique() < 2:
            continue
        cluster = "concept" if some["concept"].nunique() > 1 else None
        table = group_means(some, value, cluster=cluster)
        own = (
            table[~table["method"].isin(_REFERENCES)]
            if (~table["method"].isin(_REFERENCES)).any()
            else table
        )
        best = own.loc[
            own["mean"].idxmin() if value == "deletion" else own["mean"].idxmax(), "method"
        ]
        if len(table) > 1:
            against = paired_differences(some, value, baseline=best, cluster=cluster).drop(
                columns="n"
            )
            table = table.merge(against, on="method", how="left", suffixes=("", "_difference"))
        tables.append(table.assign(measure=value, than=best))
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame({"measure": [], "method": []})
    )


def report_best(table: pd.DataFrame) -> str:
    """Return three lines: which map is better, by how much, and how sure that is; `table` is that of `summary`."""
    columns(table, ("measure", "method"))
    value = next(
        (one for one in ("average_precision", "insertion") if one in set(table["measure"])), None
    )
    if value is None:
        return "Nothing can be compared: no measure is known of two images or more."
    part = table[table["measure"] == value].set_index("method")
    best, title = part["than"].iloc[0], value.replace("_", " ")
    rivals = part.drop(index=best)
    own = rivals[~rivals.index.isin(_REFERENCES)]
    rivals = own if len(own) else rivals[rivals.index.isin(_PROMPTLESS)]
    if rivals.empty:
        return f"{best} has a mean {title} of {part.loc[best, 'mean']:.3f} on {part.loc[best, 'n']} images."
    other = rivals["mean"].idxmax()
    first, second = part.loc[best], part.loc[other]
    found = interpret_interval(-second["high_difference"], -second["low_difference"])
    if (
        found in ("higher", "lower") and second["p_holm"] > 0.05
    ):  # intervals of few images are too narrow
        found = "undecided"
    verb = {"higher": "is better than", "lower": "is worse than", "about equal": "is as good as"}
    said = verb.get(found, "is not clearly better than")
    kind = "the map" if len(own) else "the best reference,"
    return (
        f"Which map: {best} {said} {kind} {other}, by {title} on {second['n']:.0f} images "
        f"({first['mean']:.3f} and {second['mean']:.3f}).\n"
        f"By how much: {-second['difference']:+.3f} [{-second['high_difference']:+.3f}, "
        f"{-second['low_difference']:+.3f}], 95 % interval of this pair alone, without the correction below.\n"
        f"How sure: {found}; p = {second['p_holm']:.4f} of a sign-flip test, corrected for {len(part) - 1} comparisons."
    )


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str | None]:
    """Add the arguments of the command, and return the function that runs it."""
    kinds = ", ".join(f"{kind}:{one.form}" for kind, one in DATASETS.items())
    names = ",".join(method_names("all"))
    parser.add_argument(
        "--data", default="scenes:development:200", help=f"one of {kinds}; default: %(default)s"
    )
    parser.add_argument(
        "--limit", type=int, help="at most this many examples, spread over the data set"
    )
    parser.add_argument(
        "--methods", default="all", help=f"'all' that the model can have, or {names}"
    )
    parser.add_argument(
        "--out",
        default="runs/evaluation",
        help="the folder that keeps the rows; default: %(default)s",
    )
    parser.add_argument(
        "--no-references", dest="references", action="store_false", help="no reference baselines"
    )
    parser.add_argument(
        "--faithfulness",
        default="",
        choices=["", *PROTOCOLS],
        help="deletion and insertion as well",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of random maps, wrong words and methods that draw"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes on this machine")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="a Dask scheduler, whose workers do the work instead"
    )
    parser.add_argument(
        "--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; %(default)s"
    )
    return _run_command


def _run_command(options: argparse.Namespace) -> str:
    methods = options.methods if options.methods == "all" else re.split(r"\s*,\s*", options.methods)
    method_names(methods)  # before a model is loaded, which may take minutes
    out = writable(options.out, "--out", folder=True)
    clip = load_clip(
        options.model, options.pretrained, device=options.device, precision=options.precision
    )
    names = "limit references faithfulness seed jobs dask overwrite".split()
    rows = evaluate(
        clip, options.data, methods, out=out, **{name: getattr(options, name) for name in names}
    )
    table = summary(rows)
    write_whole({out / "summary.csv": table.to_csv(index=False).encode()})
    about = f"{clip.name} ({clip.pretrained or 'weights not named'}) on {options.data}"
    return f"{about}; rows and means of every measure are in {out}\n{report_best(table)}"
