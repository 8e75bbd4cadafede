"""Evaluation: is this map better than that one? One row an image and method, on any data set.

    data set + model -> Explainer -> maps -> measures -> rows -> means with intervals -> which map is better

    gradeclip evaluate --data scenes:development:200 --methods grad-eclip,maskclip --jobs 2
    gradeclip evaluate --data coco:/data/coco --limit 1000 --model ViT-B-16 --pretrained openai

The rows lie in `--out` (see `table`): the same command goes on where it was stopped. Beside the methods stand reference
baselines: maps that anybody can draw ("random", "centre", "area", which is the same everywhere), the first method with
random weights ("random weights") or asked for something that is not there ("wrong word"), and the true mask on the
token grid ("oracle").
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..checks import chosen, columns, first_line, hint, listed, whole, writable
from ..checks import seed as checked_seed
from ..datasets import Example, load, optional_library, spread
from ..datasets.registry import DATASETS
from ..errors import GradeclipError, heard_by, warn
from ..explain import Explainer
from ..explanation import Explanation
from ..files import write_whole
from ..images import model_view
from ..methods import METHODS
from ..models import Clip, load_clip
from ..towers import Tower
from .faithfulness import FULL, PUBLISHED, Protocol, areas, colours_of, image_curves, image_score
from .localisation import MEASURES, localisation, pool, reference_baselines
from .sanity import randomised
from .statistics import answer, holm, paired, summarise
from .table import Table, content_digest, describe_model

REFERENCES = ("random", "centre", "area", "random weights", "wrong word", "oracle")
PROTOCOLS = {"published": PUBLISHED, "full": FULL, "mean-colour": Protocol(fill="mean", canvas="mean")}
SUMMARY = "summary.csv"
_TOGETHER = 8  # examples that a method traces in one batch; a kill loses no more than the batches under way
_TRIED = (160, 96)  # pixels of an image that is no model's own size
_PROMPTLESS = ("random", "centre", "area", "random weights")
_MOST_JOBS = 1024


@dataclass(frozen=True)
class _Plan:
    """What is measured of every example."""

    methods: tuple[str, ...]
    references: tuple[str, ...] = ()
    faithfulness: str | Protocol = ""
    resolution: str = "model"
    seed: int = 0

    @property
    def baseline(self) -> str:
        return "grad-eclip" if "grad-eclip" in self.methods else self.methods[0]

    @property
    def rows(self) -> tuple[str, ...]:
        return self.methods + self.references


_Asked = tuple[Example, str]  # an example, and a prompt that its image does not show


def evaluate(
    clip: Clip, data: str | Sequence[Example], methods: str | Sequence[str] = "grad-eclip", *,
    out: str | Path | None = None, limit: int | None = None, references: bool = True,
    faithfulness: str | Protocol = "", resolution: str = "model", seed: int = 0, jobs: int = 1, dask: str | None = None,
    progress: bool = True, overwrite: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Measure the maps of several methods on a data set.

        rows = evaluate(load_clip(), "scenes:development:100", ["grad-eclip", "maskclip"])
        summarise(rows.dropna(subset=["average_precision"]), "average_precision", cluster="concept")

    Args:
        clip: the model.
        data: a data set as `datasets.load` takes it, or a list of `Example`.
        methods: names of `methods.METHODS`, or "all" that this model can have; a warning names the others.
        out: a folder that keeps the rows (`rows.jsonl`), and from which a run that was stopped goes on.
        limit: at most this many examples, spread evenly over the data.
        references: add the rows of reference baselines.
        faithfulness: "published" (half range), "mean-colour" (the same, filled with the image's mean colour), "full" or
            a `Protocol` adds deletion and insertion, several forward passes a row.
        resolution: as for `Explainer`; "native" goes without faithfulness, which needs the unmodified model.
        seed: of random maps and weights, wrong words, and methods that draw.
        jobs: processes on this machine; -1 for one a processor.
        dask: the address of a Dask scheduler, whose workers do the work (see joblib's Dask backend).
        progress: show a bar.
        overwrite: begin anew in a folder that holds another run.

    Returns:
        One row an example and method: image (the example's key), concept, prompt, method, content (a checksum of image
        and mask), the measures of `localisation` (NaN without a mask), with `faithfulness` also deletion and insertion
        (areas), and seconds of an explanation.

    Raises:
        GradeclipError: an unknown method or data set, options that do not go together, no mask or second concept, a
            folder of another run or one that another process works on, an image that was replaced since.
    """
    jobs, seed = whole("jobs", jobs, -1, _MOST_JOBS), checked_seed(seed)
    if jobs == 0:
        raise GradeclipError("jobs must be 1 or more, or -1 for as many as there are processors, got 0")
    chosen("resolution", resolution, ("model", "native"))
    chosen("references", references, (False, True))
    _check_protocol(faithfulness, resolution)
    method_names(methods)
    examples = asked_examples("evaluate", clip, data, limit)
    if not faithfulness and not any(example.has_mask for example in examples):
        raise GradeclipError("no example has a mask, so only faithfulness can be measured: ask for it (--faithfulness)")
    plan = _Plan(method_names(methods, clip, resolution), (), faithfulness, resolution, seed)
    if references:
        plan = _Plan(plan.methods, _references(clip, plan.baseline, seed), faithfulness, resolution, seed)
    with _table(out, clip, data, examples, plan, overwrite) as table:
        found = {} if table is None else table.rows
        for rows in _measured(clip, plan, examples, found, jobs, dask, progress):
            if table is None:
                found |= {(row["image"], row["method"]): row for row in rows}
            else:
                table.add(rows)
        return _in_order(found, [(example.key, name) for example in examples for name in plan.rows])


def _table(out, clip: Clip, data, examples: list[Example], plan: _Plan, overwrite: bool):
    """Return the table that keeps the rows, or a context of None."""
    if out is None:
        return nullcontext()
    about = [(one.key, one.prompt, one.concept, one.present) for one in examples]
    settings = {
        "data": data if isinstance(data, str) else "examples in hand", "examples": len(examples),
        "asked": hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16], **asdict(plan),
        **describe_model(clip, (one.prompt for one in examples)),
    }  # fmt: skip
    return Table(out, settings, ("image", "method"), also=[SUMMARY], overwrite=overwrite)


# --------------------------------------------------------------------------------------------------- what is measured


def asked_examples(caller: str, clip: Clip, data: str | Sequence[Example], limit: int | None) -> list[Example]:
    """Return the examples of a data set, or the examples in hand, checked."""
    if not isinstance(clip, Clip):
        raise GradeclipError(f"{caller} needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}")
    examples = load(data, limit) if isinstance(data, str) else spread(listed("data", data), limit)
    if wrong := [one for one in examples if not isinstance(one, Example)]:
        msg = f"data must be a data set's name or a list of Example, and holds a {type(wrong[0]).__name__}"
        raise GradeclipError(msg)
    if not examples:
        raise GradeclipError(f"{caller} needs examples, and there are none")
    twice = [key for key, times in Counter(example.key for example in examples).items() if times > 1]
    if twice:
        raise GradeclipError(f"every example needs a key of its own, and {twice[0]!r} is there more than once")
    return examples


def possible() -> list[str]:
    """Return the names of the methods that have maps of images."""
    return [name for name, method in METHODS.items() if method.image is not None]


def method_names(methods: str | Sequence[str], clip: Clip | None = None, resolution: str = "model") -> tuple[str, ...]:
    """Return the names that were asked for; "all" leaves out those that the model cannot have."""
    known, every = possible(), isinstance(methods, str) and methods == "all"
    asked = known if every else listed("methods", methods, (str,))
    names = tuple(dict.fromkeys(name if isinstance(name, str) else repr(name) for name in asked))
    for name in names:
        if name not in known:
            raise GradeclipError(f"{name!r} is no method that explains images: {hint(name, known)}")
    if not names:
        raise GradeclipError(f"no method was given: choose from {', '.join(known)}")
    return available(clip, names, resolution) if every and clip is not None else names


def available(clip: Clip, names: Sequence[str], resolution: str = "model") -> tuple[str, ...]:
    """Return the methods that a model can have; a warning names the others, and why it cannot have them."""
    refused: dict[str, GradeclipError] = {}
    for name in names:
        try:
            with heard_by(lambda note: None):
                explainer = Explainer(clip, method=name, resolution=resolution)
                explainer.image_tower = cast(Tower, _Trial(explainer.image_tower))
                explainer.explain(Image.effect_noise(_TRIED, 64), "a")
        except _Begun:
            pass
        except GradeclipError as refusal:
            refused[name] = refusal
    if len(refused) == len(names):
        raise refused[names[0]]
    if refused:
        others = "; ".join(f"{name} ({first_line(why.__cause__ or why)})" for name, why in refused.items())
        warn(f"left out are methods that the model {clip.name!r} cannot have: {others}")
    return tuple(name for name in names if name not in refused)


class _Begun(Exception):
    """A method has accepted a model, and begins the passes that it costs."""


class _Trial:
    """A tower with which no method gets further than to its first pass beyond the trace."""

    def __init__(self, tower: Tower):
        self._tower, self._traced = tower, False

    def __getattr__(self, name: str):
        if name in ("forward", "embed_pixels", "resume"):
            raise _Begun
        return getattr(self._tower, name)

    def trace(self, *given, **options):
        if self._traced:
            raise _Begun
        self._traced = True
        return self._tower.trace(*given, **options)


def _check_protocol(faithfulness: str | Protocol, resolution: str) -> None:
    named = not isinstance(faithfulness, Protocol)
    if faithfulness and named and (not isinstance(faithfulness, str) or faithfulness not in PROTOCOLS):
        raise GradeclipError(f"faithfulness must be one of {', '.join(PROTOCOLS)}, or empty, got {faithfulness!r}")
    if faithfulness and resolution != "model":
        message = "faithfulness needs the unmodified model, which reads images of its own size only"
        raise GradeclipError(f"{message}: set resolution='model', got {resolution!r}")


def _references(clip: Clip, baseline: str, seed: int) -> tuple[str, ...]:
    """Return the reference baselines that this model can have."""
    try:
        Explainer(randomised(clip, seed=seed), method=baseline).embed_images(Image.effect_noise((96, 96), 64))
    except GradeclipError as refusal:  # in half precision, random weights may give infinite numbers
        warn(f"the rows 'random weights' are left out: {refusal}")
        return tuple(name for name in REFERENCES if name != "random weights")
    return REFERENCES


def _wrong_prompts(examples: list[Example], seed: int) -> list[str]:
    """Return for each example the prompt of another one, whose concept is not in the image."""
    prompts = {example.concept: example.prompt for example in examples}
    concepts, found = list(prompts), []
    for example in examples:
        draw, present = _generator(example, seed), set(example.present)
        wrong = next((one for i in draw.integers(len(concepts), size=64) if (one := concepts[i]) not in present), None)
        if wrong is None:  # nearly all concepts are in the image
            absent = [concept for concept in concepts if concept not in present]
            if not absent:
                msg = f"no other example asks for something that {example.key!r} does not show, so no word is wrong"
                raise GradeclipError(f"{msg}: evaluate more examples, or without references (--no-references)")
            wrong = absent[draw.integers(len(absent))]
        found.append(prompts[wrong])
    return found


def _generator(example: Example, seed: int) -> np.random.Generator:
    """Return a generator that is the same for an example wherever it stands, in whichever process."""
    return np.random.default_rng([seed, zlib.crc32(example.key.encode(errors="surrogatepass"))])


# ---------------------------------------------------------------------------------------------------------- measuring


def _measured(
    clip, plan: _Plan, examples: list[Example], kept: dict, jobs: int, dask, progress: bool
) -> Iterator[list]:
    """Yield the rows of the examples that have none, a few examples at a time."""
    with tqdm(total=len(examples), unit="image", disable=not progress) as bar:
        wrong = _wrong_prompts(examples, plan.seed) if plan.references else [""] * len(examples)
        todo: list[_Asked] = []
        for one, other in zip(examples, wrong, strict=True):
            key = one.key
            there = [kept[key, name] for name in plan.rows if (key, name) in kept]
            if there and there[0]["content"] != _content(one):
                msg = f"image or mask of {key!r} was replaced since it was measured: choose another folder"
                raise GradeclipError(msg)
            if len(there) < len(plan.rows):
                todo.append((one, other))
            else:
                bar.update()
        parts = [todo[start : start + _TOGETHER] for start in range(0, len(todo), _TOGETHER)]
        with closing(_computed(clip, plan, parts, jobs, dask)) as computed:
            for rows in computed:
                bar.update(len(rows) // len(plan.rows))
                yield rows


def _computed(clip, plan: _Plan, parts: list[list[_Asked]], jobs: int, dask: str | None):
    """Yield the rows of one part after the other, in the order in which they are done."""
    jobs = min((os.cpu_count() or 1) if jobs < 0 else jobs, len(parts))
    if not parts:
        return
    if dask is None and jobs == 1:
        explainers = _open_explainers(clip, plan)
        for part in parts:
            yield _rows_of(explainers, plan, part)
        return
    joblib = optional_library("joblib", "several processes are started by joblib", "cluster")
    processes = joblib.parallel_config("loky", n_jobs=jobs, initializer=_receive, initargs=(clip, os.getpid()))
    with _dask_workers(clip, dask) if dask else processes:
        calls = (joblib.delayed(_rows_at_worker)(clip if dask else None, plan, part) for part in parts)
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)


@contextmanager
def _dask_workers(clip: Clip, address: str):
    """Let joblib hand its tasks to a Dask cluster, which gets the model once."""
    joblib = optional_library("joblib", "--dask hands the work to a Dask cluster by joblib", "cluster")
    distributed = optional_library("distributed", "--dask hands the work to a Dask cluster", "cluster")
    try:
        client = distributed.Client(address)
    except (OSError, ValueError, TypeError) as error:
        raise GradeclipError(f"no Dask scheduler answers at {address!r} ({first_line(error)})") from error
    with client, joblib.parallel_config("dask", client=client, scatter=[clip], n_jobs=-1):
        yield


_received: list[Clip] = []  # the model of this worker process, which gets it once


def _receive(clip: Clip, parent: int) -> None:
    """Keep the model in a worker process, and end the process as soon as its parent is gone."""
    _received[:] = [clip]
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _rows_at_worker(clip: Clip | None, plan: _Plan, part: list[_Asked]) -> list[dict]:
    return _rows_of(_opened_once(clip or _received[0], plan), plan, part)


@lru_cache(maxsize=1)
def _opened_once(clip: Clip, plan: _Plan) -> dict[str, Explainer]:
    return _open_explainers(clip, plan)


def _open_explainers(clip: Clip, plan: _Plan) -> dict[str, Explainer]:
    """Return one explainer a method, and one with random weights, by name."""
    opened = partial(Explainer, seed=plan.seed, resolution=plan.resolution)
    explainers = {name: opened(clip, method=name) for name in plan.methods}
    if "random weights" in plan.references:
        explainers["random weights"] = opened(randomised(clip, seed=plan.seed), method=plan.baseline)
    return explainers


def _rows_of(explainers: dict[str, Explainer], plan: _Plan, part: list[_Asked]) -> list[dict]:
    """Return the rows of a few examples, which every method traces in one batch."""
    images, prompts = [one.image() for one, _ in part], [one.prompt for one, _ in part]
    asked: dict[str, tuple[str, list[str]]] = {name: (name, prompts) for name in plan.methods}
    others: dict[str, tuple[str, list[str]]] = {
        "wrong word": (plan.baseline, [wrong for _, wrong in part]),
        "random weights": ("random weights", prompts),
    }
    asked |= {name: others[name] for name in others if name in plan.references}
    explained, seconds = {}, {}
    for name, (method, texts) in asked.items():
        begin = time.perf_counter()
        explained[name] = explainers[method].explain_batch(images, texts)
        seconds[name] = (time.perf_counter() - begin) / len(part)
    rows = []
    for i, (one, _) in enumerate(part):
        mine = {name: found[i] for name, found in explained.items()}
        measures, content = _measures(explainers[plan.baseline], plan, one, mine), _content(one)
        for name in plan.rows:
            prompt = mine[name].prompts[0] if name in mine else one.prompt
            row: dict = {"image": one.key, "concept": one.concept, "prompt": prompt, "method": name, "content": content}
            rows.append({**row, **measures[name], "seconds": seconds.get(name, np.nan)})
    return rows


def _content(example: Example) -> str:
    return content_digest(example.image(), example.mask())


def _measures(explainer: Explainer, plan: _Plan, one: Example, explained: dict) -> dict[str, dict[str, float]]:
    """Return the measures of each row of one example."""
    baseline, mask = explained[plan.baseline], one.mask()
    heats = {name: explanation.heatmap(0, signed=True) for name, explanation in explained.items()}
    if broken := [name for name, heat in heats.items() if not np.isfinite(heat).all()]:
        raise GradeclipError(f"the map of {one.key!r} by {broken[0]!r} holds NaN or infinite values")
    references = {}
    if plan.references:
        known = np.ones(baseline.image.size[::-1], dtype=bool) if mask is None else mask
        references = reference_baselines(
            baseline.image_maps.shape[1:], known, _generator(one, plan.seed), box=baseline.box
        )
    heats |= references
    unknown = dict.fromkeys(MEASURES, np.nan)
    measures = {name: unknown.copy() if mask is None else localisation(heat, mask) for name, heat in heats.items()}
    if plan.faithfulness:
        if mask is None:
            references.pop("oracle", None)
        maps = {name: explanation.image_maps[0] for name, explanation in explained.items()}
        protocol = PROTOCOLS[plan.faithfulness] if isinstance(plan.faithfulness, str) else plan.faithfulness
        for row in game_areas(explainer, one.prompt, baseline, maps, references, protocol).itertuples():
            measures[row.method][row.game] = row.auc
    return measures


def game_areas(
    explainer: Explainer, prompt: str, explanation: Explanation, maps: dict, heats: dict, protocol: Protocol
) -> pd.DataFrame:
    """Return areas under deletion and insertion of the model's own similarity with a prompt."""
    clip, tower = explainer.clip, explainer.image_tower
    view = model_view(clip.preprocess, explanation.image)  # no other size has curves
    maps = maps | {name: pool(heat, tuple(view.pixels.shape[1:]), view.box) for name, heat in heats.items()}
    score = image_score(tower.forward, explainer.embed_texts([prompt])[0])
    return areas(image_curves(score, view.pixels.to(tower.device), maps, protocol, colours=colours_of(clip.preprocess)))


def _in_order(rows: dict[tuple, dict], keys: list[tuple]) -> pd.DataFrame:
    """Return the rows as a table, in the order of examples and methods."""
    table = pd.DataFrame([rows[key] for key in keys])
    texts = ["image", "concept", "prompt", "method", "content"]
    numbers = [name for name in (*MEASURES, "deletion", "insertion") if name in table]
    return table.astype(dict.fromkeys([*numbers, "seconds"], float))[[*texts, *numbers, "seconds"]]


# --------------------------------------------------------------------------------------------------------- the answer


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a measure's mean of every method, and its difference from the best method, with 95 % intervals."""
    columns(rows, ("image", "concept", "method", "seconds"))
    tables = []
    for value in (*MEASURES, "deletion", "insertion"):
        some = rows.dropna(subset=[value]) if value in rows else rows[:0]
        cluster = "concept" if some["concept"].nunique() > 1 else None
        groups = some.groupby("method")
        some = some[(groups["image"].transform("nunique") > 1) & (groups[cluster or "image"].transform("nunique") > 1)]
        if some.empty:
            continue
        means = summarise(some, value, cluster=cluster)
        own = means[~means["method"].isin(REFERENCES)] if (~means["method"].isin(REFERENCES)).any() else means
        best = own.loc[own["mean"].idxmin() if value == "deletion" else own["mean"].idxmax(), "method"]
        against = _against(some, value, best, cluster) if len(means) > 1 else pd.DataFrame({"method": []})
        table = means.merge(against, on="method", how="left", suffixes=("", "_difference"))
        table.insert(0, "measure", value)
        tables.append(table.assign(than=best))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"measure": [], "method": []})


def _against(rows: pd.DataFrame, value: str, best: str, cluster: str | None) -> pd.DataFrame:
    """Return every method minus the best one, on the images that it has a value of."""
    tables = []
    for name, part in rows.groupby("method", sort=False):
        both = rows[rows["method"].isin([name, best]) & rows["image"].isin(part["image"])]
        tables += [paired(both, value, baseline=best, cluster=cluster)] if name != best else []
    table = pd.concat(tables)
    return table.assign(p_holm=holm(table["p"])).drop(columns="n")


def conclusion(table: pd.DataFrame) -> str:
    """Return three lines: which map is better, by how much, and how sure that is."""
    value = next((one for one in ("average_precision", "insertion") if one in set(table["measure"])), None)
    if value is None:
        return "Nothing can be compared: no measure is known of two images or more."
    part = table[table["measure"] == value].set_index("method")
    best, title = part["than"].iloc[0], value.replace("_", " ")
    rivals = part.drop(index=best)
    own = rivals[~rivals.index.isin(REFERENCES)]
    rivals = own if len(own) else rivals[rivals.index.isin(_PROMPTLESS)]
    if rivals.empty:
        return f"{best} has a mean {title} of {part.loc[best, 'mean']:.3f} on {part.loc[best, 'n']} images."
    other = rivals["mean"].idxmax()
    first, second = part.loc[best], part.loc[other]
    found = answer(-second["high_difference"], -second["low_difference"])
    verb = {"higher": "is better than", "lower": "is worse than", "about equal": "is as good as"}
    said = verb.get(found, "is not clearly better than")
    kind = "the map" if len(own) else "the best reference,"
    return (
        f"Which map: {best} {said} {kind} {other}, by {title} on {second['n']:.0f} images "
        f"({first['mean']:.3f} and {second['mean']:.3f}).\n"
        f"By how much: {-second['difference']:+.3f} [{-second['high_difference']:+.3f}, "
        f"{-second['low_difference']:+.3f}], 95 % interval of the mean difference.\n"
        f"How sure: {found}; p = {second['p_holm']:.4f} of a sign-flip test, corrected for {len(part) - 1} comparisons."
    )


# ------------------------------------------------------------------------------------------------------------ command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gradeclip evaluate`."""
    kinds = ", ".join(f"{kind}:{one.form}" for kind, one in DATASETS.items())
    parser.add_argument("--data", default="scenes:development:200", help=f"one of {kinds}; default: %(default)s")
    parser.add_argument("--limit", type=int, help="at most this many examples, spread over the data set")
    parser.add_argument("--methods", default="all", help=f"'all' that the model can have, or {','.join(possible())}")
    parser.add_argument("--out", default="runs/evaluation", help="the folder that keeps the rows; default: %(default)s")
    parser.add_argument("--no-references", dest="references", action="store_false", help="no reference baselines")
    parser.add_argument("--faithfulness", default="", choices=["", *PROTOCOLS], help="deletion and insertion as well")
    parser.add_argument("--resolution", default="model", choices=["model", "native"], help="what the model is shown")
    parser.add_argument("--seed", type=int, default=0, help="of random maps, wrong words and methods that draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes on this machine")
    parser.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler, whose workers do the work instead")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; %(default)s")


def run_command(options: argparse.Namespace) -> str:
    """Evaluate as the options say, and return three lines that say which map is better."""
    methods = options.methods if options.methods == "all" else re.split(r"\s*,\s*", options.methods)
    method_names(methods)  # before a model is loaded, which may take minutes
    out = writable(options.out, "--out", folder=True)
    clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
    names = "limit references faithfulness resolution seed jobs dask overwrite".split()
    rows = evaluate(clip, options.data, methods, out=out, **{name: getattr(options, name) for name in names})
    table = summary(rows)
    write_whole(out / SUMMARY, lambda stream: stream.write(table.to_csv(index=False).encode()))
    about = f"{clip.name} ({clip.pretrained or 'own weights'}) on {options.data}"
    return f"{about}; rows and means of every measure are in {out}\n{conclusion(table)}"
