"""Run: is this map better than that one? One row an image and method, kept as they come, in parallel if you like.

    data set + model -> Explainer -> maps -> measures -> rows -> table with intervals

    python -m gradeclip_utils evaluate --data scenes:development:200 --methods grad-eclip,maskclip --jobs 2
    python -m gradeclip_utils evaluate --data coco:/data/coco --limit 1000 --model ViT-B-16 --pretrained openai
    python -m gradeclip_utils evaluate --data coco:/data/coco --out runs/coco --shard 2/8  # see `shards`

The rows lie in `--out` (see `results`): the same command goes on where it was stopped, and refuses a folder that holds
another evaluation. Beside the methods stand reference baselines: what chance gets ("random", "centre", and "area", the
same everywhere); the mean of other examples' masks, for one who has not looked ("mean mask"); what the first method
gets from a model that knows nothing ("random weights"), when asked for something that is not there ("wrong word"), and
for something else that is ("other thing", where the data have a prompt of it); what a map gets that never heard the
prompt ("text-blind", the attention of the last layer); and the best that the token grid allows ("oracle", the true
mask).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from tqdm.auto import tqdm

from ..checks import chosen, columns, first_line, listed, whole, writable
from ..checks import seed as checked_seed
from ..datasets import Example, load, optional_library, spread
from ..datasets.registry import DATASETS
from ..errors import GradeclipError
from ..methods import METHODS
from ..models import Clip, load_clip
from .faithfulness import Protocol
from .identity import identity, surroundings
from .localisation import MEASURES
from .maps import method_names, possible
from .results import Results
from .shards import Shard, merge, part_of, read_shard, shard_folder
from .statistics import holm, paired, summarise
from .worker import PROTOCOLS, Chunk, Plan, at_worker, measured, open_explainers, references_of

MOST_THREADS = 1024  # of one process: beyond some hundred thousand, OpenMP ends the process
CHUNK = 8  # examples: a method traces them in one batch, and a kill loses no more than the chunks under way


def evaluate(
    clip: Clip, data: str | Sequence[Example], methods: str | Sequence[str] = "grad-eclip", *,
    out: str | Path | None = None, limit: int | None = None, references: bool = True,
    faithfulness: str | Protocol = "", resolution: str = "model", seed: int = 0, jobs: int = 1, dask: str | None = None,
    threads: int | None = None, chunk: int = CHUNK, shard: Shard | None = None, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Measure the maps of several methods on a data set.

        rows = evaluate(load_clip(), "scenes:development:100", ["grad-eclip", "maskclip"])
        print(report(rows))  # not every image shows another thing: `summarise` wants such rows left out

    Args:
        clip: the model.
        data: what `datasets.load` takes, or examples.
        methods: names of `methods.METHODS`, or "all" that this model can have; a warning names the others.
        out: a folder that keeps the rows, and from which a run that was stopped goes on; None keeps nothing.
        limit: no more examples than this, spread evenly over the data.
        references: add the rows of reference baselines (see the module).
        faithfulness: "published" (half range), "mean-colour" (the same, with the image's mean colour for paint), "full"
            or a `Protocol` adds deletion and insertion, several forward passes a row.
        resolution: as for `Explainer`; "native" goes without faithfulness, which asks the unmodified model.
        seed: of random maps and weights, wrong words, and methods that draw.
        jobs: processes on this machine.
        dask: the address of a Dask scheduler whose workers see the same files, in place of `jobs`.
        threads: of torch in each process; by default the processors shared out, and 1 for Dask.
        chunk: how many examples are measured together.
        shard: (i, n) measures every n-th chunk from the i-th on, in a folder of its own inside `out`; see `shards`.
        progress: show a bar.

    Returns:
        One row an example and method: image (the example's key), concept, prompt (the one that was asked), method, the
        measures of `localisation` (NaN without ground truth), with `faithfulness` also the areas under deletion and
        insertion, and seconds (of an explanation, with its image prepared and words scored).

    Raises:
        ValueError, TypeError: an unknown method, options that do not go together, no ground truth or second concept, a
            folder of another evaluation, or one that another process is at work on.
        FileNotFoundError, ImportError: as `datasets.load`.
    """
    limit, jobs, threads, chunk = _counts(limit=(limit, 1), jobs=(jobs, -1), threads=(threads, 1), chunk=(chunk, 1))
    chosen("resolution", resolution, ("model", "native"))
    chosen("references", references, (False, True))
    protocol, seed, _ = _protocol(faithfulness, resolution), checked_seed(seed), method_names(methods)
    examples = asked_examples("evaluate", clip, data, limit)
    if shard is not None and out is None:
        raise GradeclipError("a shard needs out=, the folder in which all shards meet")
    names = method_names(methods, clip, resolution)
    plan = Plan(names, (), protocol, resolution, seed)
    if references:
        plan = replace(plan, references=references_of(clip, plan.baseline, seed))
    chunks = {part.number: part for part in part_of(_chunks(examples, plan, chunk), shard)}
    if out is None:
        return _all_rows(clip, plan, chunks, None, progress, (jobs, dask, threads))
    asked = [(one.key, one.prompt, one.concept, one.present, one.others) for one in examples]
    named = {"data": data if isinstance(data, str) else "examples in hand", **asdict(plan), "chunk": chunk}
    named["computed_by"] = identity([METHODS[name] for name in (*names, "attention")])
    with closing(Results(shard_folder(out, shard), run_settings(clip, asked, **named))) as results:
        return _all_rows(clip, plan, chunks, results, progress, (jobs, dask, threads))


# ------------------------------------------------------------------------------------------------- what is to be done


def asked_examples(caller: str, clip: Clip, data: str | Sequence[Example], limit: int | None) -> list[Example]:
    """The examples that a function is asked about."""
    if not isinstance(clip, Clip):
        msg = f"{caller} needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}"
        raise GradeclipError(msg)
    examples = load(data, limit) if isinstance(data, str) else spread(listed("data", data), limit)
    if wrong := [one for one in examples if not isinstance(one, Example)]:
        msg = f"data must be a data set's name or a list of Example, and holds a {type(wrong[0]).__name__}"
        raise GradeclipError(msg)
    if not examples:
        raise GradeclipError(f"{caller} needs examples, and there are none")
    twice = [key for key, times in Counter(example.key for example in examples).items() if times > 1]
    if twice:
        msg = f"rows are told apart by the examples' keys, and {twice[0]!r} is there more than once"
        raise GradeclipError(msg)
    return examples


def _counts(**counts: tuple[int | None, int]) -> list[Any]:
    """The counts as Python's integers, none of them below its least; None is whatever is the default."""
    if counts["jobs"][0] == 0:
        raise GradeclipError("jobs must be 1 or more, or -1 for as many as there are processors, got 0")
    most = {"threads": MOST_THREADS}
    return [
        None if value is None else whole(name, value, least, most.get(name)) for name, (value, least) in counts.items()
    ]


def _protocol(faithfulness: str | Protocol, resolution: str) -> str | Protocol:
    """The protocol or its name, if there is one and it can be measured at this resolution."""
    named = not isinstance(faithfulness, Protocol)
    if faithfulness and named and (not isinstance(faithfulness, str) or faithfulness not in PROTOCOLS):
        msg = f"faithfulness must be one of {', '.join(PROTOCOLS)}, or empty, got {faithfulness!r}"
        raise GradeclipError(msg)
    if faithfulness and resolution != "model":
        message = "faithfulness asks the unmodified model, which reads images of its own size only"
        raise GradeclipError(f"{message}: it needs resolution='model', got {resolution!r}")
    return faithfulness


def _chunks(examples: list[Example], plan: Plan, size: int) -> list[Chunk]:
    if not plan.faithfulness and not any(example.has_mask for example in examples):
        msg = "not one example has a mask: nothing but faithfulness can be measured, so ask for it (--faithfulness)"
        raise GradeclipError(msg)
    return Chunk.of(examples, plan, size)


def run_settings(clip: Clip, asked: Sequence[tuple], **own) -> dict:
    """Everything that the rows of a run depend on, and how many processes make them not."""
    texts = (text for one in asked for text in one[1:] if isinstance(text, str))
    return own | {
        "examples": len(asked),
        "asked": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16],
        "model": clip.name,
        "pretrained": clip.pretrained,
        "weights": weights_digest(clip.model),
        "image_layers": clip.image_layers,  # through which the default method goes
        **surroundings(clip, texts),
    }


def weights_digest(model: torch.nn.Module) -> str:
    """Tells one set of weights from another, whatever their file is called."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _done(results: Results, plan: Plan, chunks: dict[int, Chunk]) -> dict[int, pd.DataFrame]:
    """The rows that were computed before, chunk by chunk."""
    found = {}
    for number, part in chunks.items():
        expected = [(one.key, name) for one in part.examples for name in plan.rows]
        if (rows := results.read(number, expected, part.contents)) is not None:
            found[number] = rows
    return found


# ----------------------------------------------------------------------------------------------------------- doing it


def _all_rows(clip: Clip, plan: Plan, chunks: dict[int, Chunk], results: Results | None, progress: bool, how: tuple):
    """The rows of all chunks: those that were kept before, and those that are computed now, which are kept."""
    total = sum(len(part.examples) for part in chunks.values())
    with tqdm(total=total, unit="image", disable=not progress) as bar:
        done = {} if results is None else _done(results, plan, chunks)
        bar.update(sum(len(chunks[number].examples) for number in done))
        todo = [part for part in chunks.values() if part.number not in done]
        with closing(_computed(clip, plan, todo, *how)) as computed:  # workers stop when this stops
            for number, rows, inputs in computed:
                if results is not None:
                    results.write(number, rows, inputs)
                done[number] = rows
                bar.update(len(chunks[number].examples))
    rows = pd.concat([done[number] for number in chunks], ignore_index=True) if chunks else pd.DataFrame()
    if results is not None:
        results.write_table(rows)
    return rows


def _computed(clip, plan, todo: list[Chunk], jobs: int, dask, threads) -> Generator[tuple[int, pd.DataFrame, str]]:
    """Numbers of chunks, their rows and what these are about, in the order in which they are done."""
    jobs = min(effective_n_jobs(jobs), max(1, len(todo)))
    if dask is None and jobs == 1:
        explainers = open_explainers(clip, plan) if todo else {}
        for part in todo:
            with _threads(threads):
                rows = measured(explainers, plan, part)
            yield part.number, rows, part.contents()
    elif todo:
        with _workers(clip, jobs, dask) as source:
            each = threads or (1 if dask else max(1, (os.cpu_count() or 1) // jobs))
            calls = (delayed(at_worker)(source, plan, part, each, os.getpid()) for part in todo)
            yield from Parallel(return_as="generator_unordered", batch_size=1)(calls)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Within it torch computes in so many threads; None leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _workers(clip: Clip, jobs: int, dask: str | None) -> Iterator[Clip | str]:
    """Processes to come, and what they shall know the model by: it travels once, not with every chunk."""
    if dask is not None:
        distributed = optional_library("distributed", "--dask hands the work to a Dask cluster", "dask")
        try:
            client = distributed.Client(dask)
        except (OSError, ValueError, TypeError) as error:
            msg = f"no Dask scheduler answers at {dask!r} ({first_line(error)})"
            raise GradeclipError(msg) from error
        with client, parallel_config("dask", client=client, scatter=[clip], n_jobs=-1):
            yield clip
        return
    with TemporaryDirectory(prefix="gradeclip-") as folder:
        path = Path(folder) / "clip.pickle"
        try:
            path.write_bytes(pickle.dumps(clip))
        except (pickle.PicklingError, AttributeError, TypeError) as error:  # a lambda or an open file in preprocess
            msg = f"the model cannot go to other processes ({error}): give jobs=1"
            raise GradeclipError(msg) from error
        with parallel_config("loky", n_jobs=jobs):
            yield str(path)


def report(rows: pd.DataFrame) -> str:
    """The table of a run for people: a measure's means, and differences from the baseline, with 95 % intervals.

    Whole concepts are resampled, since images of one concept are alike. p is Holm's, over the rows of one measure.

    Args:
        rows: as `evaluate` gives them.
    """
    columns(rows, ("image", "concept", "method", "seconds"))
    names = list(dict.fromkeys(rows["method"]))
    baseline = "grad-eclip" if "grad-eclip" in names else names[0]
    blocks = []
    for value in (*MEASURES, "deletion", "insertion"):
        some = rows.dropna(subset=[value]) if value in rows else rows[:0]
        cluster = "concept" if some["concept"].nunique() > 1 else None
        groups = some.groupby("method")  # not every image shows another thing, whose baseline then has no interval
        some = some[(groups["image"].transform("nunique") > 1) & (groups[cluster or "image"].transform("nunique") > 1)]
        if some.empty:
            continue
        means = summarise(some, value, cluster=cluster).set_index("method")
        table = pd.DataFrame({"method": means.index, value: [_cell(r.mean, r.low, r.high) for r in means.itertuples()]})
        if len(means) > 1:
            against = _against(some, value, baseline, cluster).set_index("method")
            cells = {r.Index: _cell(r.difference, r.low, r.high, "+") for r in against.itertuples()}
            table[f"minus {baseline}"] = table["method"].map(cells).fillna("")
            table["p"] = table["method"].map(against["p_holm"]).map("{:.4f}".format).replace("nan", "")
        fewer = "".join(f" ({name}: {n})" for name, n in means["n"].items() if n < means["n"].max())
        blocks.append(f"{table.to_string(index=False)}\n({means['n'].max()} images){fewer}")
    if not blocks:
        blocks.append("No means: no measure is known of two images or more.")
    seconds = rows.groupby("method", sort=False)["seconds"].median().dropna().round(4).reset_index()
    blocks.append(f"{seconds.to_string(index=False)}\n(of an explanation; median over images)")
    return "\n\n".join(blocks)


def _against(rows: pd.DataFrame, value: str, baseline: str, cluster: str | None) -> pd.DataFrame:
    """Every method minus the baseline, on the images that it has a value of."""
    tables = []
    for name, part in rows.groupby("method", sort=False):
        both = rows[rows["method"].isin([name, baseline]) & rows["image"].isin(part["image"])]
        tables += [paired(both, value, baseline=baseline, cluster=cluster)] if name != baseline else []
    table = pd.concat(tables)
    return table.assign(p_holm=holm(table["p"]))


def _cell(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `python -m gradeclip_utils evaluate`."""
    kinds = ", ".join(f"{kind}:{one.form}" for kind, one in DATASETS.items())
    parser.add_argument("--data", default="scenes:development:200", help=f"one of {kinds}; default: %(default)s")
    parser.add_argument("--limit", type=int, help="no more examples than this, spread over the data set")
    parser.add_argument(
        "--methods", default="all", help=f"'all' that the model can have, or some of {','.join(possible())}"
    )
    parser.add_argument("--out", default="runs/evaluation", help="the folder that keeps the rows; %(default)s")
    parser.add_argument("--no-references", dest="references", action="store_false", help="only the methods themselves")
    parser.add_argument("--faithfulness", default="", choices=["", *PROTOCOLS], help="deletion and insertion as well")
    parser.add_argument("--resolution", default="model", choices=["model", "native"], help="what the model is shown")
    parser.add_argument("--seed", type=int, default=0, help="of random maps, wrong words and methods that draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes on this machine")
    parser.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler, whose workers do the work instead")
    parser.add_argument("--threads", type=int, help="of torch in each process; the processors shared out by default")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="examples measured together; %(default)s")
    parser.add_argument("--shard", metavar="i/n", help="only every n-th chunk; by default as Slurm or torchrun say it")
    parser.add_argument("--merge", action="store_true", help="put the shards of --out together, and compute nothing")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; %(default)s")


def run_command(options: argparse.Namespace) -> None:
    """Evaluate as the options say, and print the table."""
    if options.merge:
        rows, settings = merge(options.out)
        model, pretrained, data = (settings[name] for name in ("model", "pretrained", "data"))
        print(f"{model} ({pretrained or 'own weights'}) on {data}\n\n{report(rows)}")
        return
    shard = read_shard(options.shard)
    methods = options.methods if options.methods == "all" else re.split(r"\s*,\s*", options.methods)
    method_names(methods)  # before a model is loaded, which may take minutes
    writable(options.out, "--out", folder=True)
    clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
    names = "out limit references faithfulness resolution seed jobs dask threads chunk".split()
    rows = evaluate(clip, options.data, methods, shard=shard, **{name: getattr(options, name) for name in names})
    if shard is None:
        print(f"{clip.name} ({clip.pretrained or 'own weights'}) on {options.data}\n\n{report(rows)}")
    else:
        print(f"shard {shard[0]} of {shard[1]}: {len(rows)} rows in {shard_folder(options.out, shard)}")
        print(f"when all are done: python -m gradeclip_utils evaluate --out {options.out} --merge")
