"""Evaluation: is this map better than that one? One row per image and method, on any data set.

    data set + model -> Explainer -> maps -> measures -> rows -> means with intervals -> which map
    is better

Reference baselines are measured as well: maps that need no model ("random", "centre", and "area",
which is the same everywhere), the first method with random weights ("random weights") or with a
prompt for something that is not there ("wrong word"), and the true mask on the token grid
("oracle").
"""

import argparse
import json
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..datasets import Example, load
from ..datasets.registry import DATASETS
from ..errors import GradeclipError, hint
from ..explainer import Explainer
from ..explanation import Explanation
from ..images import model_view, pool
from ..methods import METHODS
from ..models import Clip, load_clip, model_title
from .faithfulness import (
    GAMES,
    PROTOCOLS,
    Protocol,
    as_protocol,
    colours_of,
    curve_auc,
    image_curves,
)
from .localisation import MEASURES, localisation_scores, reference_baselines
from .sanity import randomised
from .statistics import group_means, interpret_interval, paired_differences
from .table import Table, describe_model

PROMPTLESS = ("random", "centre", "area", "random weights")  # references that no prompt changes
REFERENCES = (*PROMPTLESS, "wrong word", "oracle")
BATCH_SIZE = 8  # examples that a method traces in one batch


@dataclass(frozen=True)
class Plan:
    """The rows that every example gets."""

    methods: tuple[str, ...]
    references: tuple[str, ...]
    faithfulness: Protocol | None
    seed: int

    @property
    def baseline(self) -> str:
        """The method whose references are measured."""
        return "grad-eclip" if "grad-eclip" in self.methods else self.methods[0]

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows of an example."""
        return self.methods + self.references


def evaluate(
    clip: Clip,
    data: str | Sequence[Example],
    methods: str | Sequence[str] = "grad-eclip",
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    references: bool = True,
    faithfulness: str | Protocol | None = None,
    seed: int = 0,
    jobs: int | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Measure the maps of several methods on a data set.

        rows = evaluate(load_clip(), "scenes:development:100", ["grad-eclip", "maskclip"])
        print(report_best(summary(rows)))

    On a cluster: `with dask.distributed.Client(ADDRESS), joblib.parallel_config("dask"): ...`.

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
        jobs: processes, as joblib's `n_jobs`: -1 for one a processor; by default one, or as
            `joblib.parallel_config` says.
        overwrite: start again in a folder that holds another run.

    Returns:
        One row per example and method: image (the example's key), concept, prompt, method, the
        measures of `localisation_scores` (NaN without a mask), with `faithfulness` also deletion
        and insertion (areas), and seconds of an explanation. An example whose image or mask cannot
        be read has no rows, and a warning says so.

    Raises:
        GradeclipError: an unknown method or data set, no mask or second concept, a folder of
            another run.
    """
    names = method_names(methods)
    examples = load(data, limit)
    protocol = None if faithfulness is None else as_protocol(faithfulness)
    if protocol is None and not any(example.has_mask for example in examples):
        msg = "no example has a mask, so only faithfulness can be measured"
        raise GradeclipError(f"{msg}: ask for it (--faithfulness)")

    wrong_prompts = [""] * len(examples)
    if references:
        wrong_prompts = _wrong_prompts(examples, seed)
    if methods == "all":  # now, because to try them takes longer than to refuse the data
        names = _working_methods(clip)
    plan = Plan(names, REFERENCES if references else (), protocol, seed)

    with TemporaryDirectory() as scratch:
        settings = {**describe_run(clip, data, examples), **asdict(plan)}
        table = Table(out or scratch, settings, ("image", "method"), overwrite=overwrite)
        waiting = []
        for example, wrong_prompt in zip(examples, wrong_prompts, strict=True):
            if any((example.key, name) not in table.rows for name in plan.rows):
                waiting.append((example, wrong_prompt))
        unreadable = _fill(table, clip, plan, waiting, jobs) if waiting else {}

    if unreadable:
        reason = next(iter(unreadable.values()))
        message = f"{len(unreadable)} of {len(examples)} examples are not measured: {reason}"
        if len(unreadable) == len(examples):
            raise GradeclipError(message)
        warnings.warn(f"{message}; mend them, and the same call measures them", stacklevel=2)
    readable = [example for example in examples if example.key not in unreadable]
    rows = [table.rows[example.key, name] for example in readable for name in plan.rows]
    measured = [*MEASURES, *(GAMES if protocol else ()), "seconds"]
    frame = pd.DataFrame(rows)[["image", "concept", "prompt", "method", *measured]]
    return frame.astype(dict.fromkeys(measured, float))


def _fill(
    table: Table,
    clip: Clip,
    plan: Plan,
    waiting: Sequence[tuple[Example, str]],
    jobs: int | None,
) -> dict[str, str]:
    """Measure examples with their wrong prompts; errors of unreadable ones by key."""
    explainers = _open_explainers(clip, plan)
    tasks = (
        joblib.delayed(_measure_batch)(explainers, plan, waiting[start : start + BATCH_SIZE])
        for start in range(0, len(waiting), BATCH_SIZE)
    )
    unreadable: dict[str, str] = {}
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    with tqdm(total=len(waiting), unit="image", delay=1) as progress:
        for rows, errors in parallel(tasks):
            table.add(rows)
            unreadable |= errors
            progress.update(len({row["image"] for row in rows}) + len(errors))
    return unreadable


def describe_run(
    clip: Clip,
    data: str | Sequence[Example],
    examples: Sequence[Example],
) -> dict:
    """The settings of a run: the model, the data, and a checksum of the prompts."""
    prompts = [(example.key, example.prompt, example.concept) for example in examples]
    return {
        **describe_model(clip),
        "data": data if isinstance(data, str) else "examples in hand",
        "examples": len(examples),
        "prompts": f"{zlib.crc32(json.dumps(prompts).encode()):08x}",
    }


def method_names(methods: str | Sequence[str]) -> tuple[str, ...]:
    """The names of methods that have maps of images, each once; "all" for all of them."""
    known = [name for name, method in METHODS.items() if method.image is not None]
    if methods == "all":
        return tuple(known)
    names = [methods] if isinstance(methods, str) else methods
    for name in names:
        if name not in known:
            msg = f"{name!r} is not a method that explains images"
            raise GradeclipError(f"{msg}: {hint(name, known)}")
    return tuple(dict.fromkeys(names))


def _working_methods(clip: Clip) -> tuple[str, ...]:
    """The methods that can explain a model, tried on one image; a warning names the others."""
    working: list[str] = []
    refusals: dict[str, GradeclipError] = {}
    image = Image.effect_noise((160, 96), 64)
    for name in tqdm(method_names("all"), unit="method", delay=1, leave=False):
        try:
            with warnings.catch_warnings(action="ignore"):
                Explainer(clip, method=name, words=None).explain(image, "a")
        except GradeclipError as refusal:
            refusals[name] = refusal
        else:
            working.append(name)

    if not working:
        raise next(iter(refusals.values()))
    if refusals:
        reasons = "; ".join(f"{name} ({refusal})" for name, refusal in refusals.items())
        message = f"these methods do not work with {clip.name!r} and are left out: {reasons}"
        warnings.warn(message, stacklevel=3)
    return tuple(working)


def _wrong_prompts(examples: Sequence[Example], seed: int) -> list[str]:
    """For each example the prompt of another one, whose concept is not in the image."""
    prompts = {example.concept: example.prompt for example in examples}
    concepts = list(prompts)

    wrong_prompts = []
    for example in examples:
        start = int(_generator(example, seed).integers(len(concepts)))
        from_start = concepts[start:] + concepts[:start]
        absent = [concept for concept in from_start if concept not in example.present]
        if not absent:
            msg = f"every prompt names something that {example.key!r} shows: there is no wrong word"
            raise GradeclipError(f"{msg}; add examples, or leave references out (--no-references)")
        wrong_prompts.append(prompts[absent[0]])
    return wrong_prompts


def _generator(example: Example, seed: int) -> np.random.Generator:
    """A generator that is the same for an example wherever it stands, in any process."""
    return np.random.default_rng([seed, zlib.crc32(example.key.encode())])


def _open_explainers(clip: Clip, plan: Plan) -> dict[str, Explainer]:
    """An explainer for every row that a model computes."""
    baseline = Explainer(clip, method=plan.baseline, words=None, seed=plan.seed)
    explainers = {name: baseline.with_method(name) for name in plan.methods}
    if plan.references:
        random = randomised(clip, seed=plan.seed)
        explainers["random weights"] = Explainer(
            random,
            method=plan.baseline,
            words=None,
            seed=plan.seed,
        )
        explainers["wrong word"] = baseline
    return explainers


def _measure_batch(
    explainers: dict[str, Explainer],
    plan: Plan,
    batch: Sequence[tuple[Example, str]],
) -> tuple[list[dict], dict[str, str]]:
    """The rows of a few examples with their wrong prompts, and errors of unreadable ones by key."""
    readable = []
    errors: dict[str, str] = {}
    for example, wrong_prompt in batch:
        try:
            image, mask = example.read()
        except GradeclipError as error:
            errors[example.key] = str(error)
        else:
            readable.append((example, wrong_prompt, image, mask))
    if not readable:
        return [], errors
    examples, wrong_prompts, images, masks = zip(*readable, strict=True)

    explanations: dict[str, list[Explanation]] = {}
    seconds: dict[str, float] = {}
    for name, explainer in explainers.items():
        prompts = [example.prompt for example in examples]
        if name == "wrong word":
            prompts = wrong_prompts
        begin = time.perf_counter()
        explanations[name] = explainer.explain_batch(images, prompts)
        seconds[name] = (time.perf_counter() - begin) / len(examples)

    rows = []
    for i, example in enumerate(examples):
        of_example = {name: of_batch[i] for name, of_batch in explanations.items()}
        explainer = explainers[plan.baseline]
        measures = _measure_example(explainer, plan, example, masks[i], of_example)
        for name in plan.rows:
            row = {
                "image": example.key,
                "concept": example.concept,
                "prompt": wrong_prompts[i] if name == "wrong word" else example.prompt,
                "method": name,
                **measures[name],
                "seconds": seconds.get(name, np.nan),
            }
            rows.append(row)
    return rows, errors


def _measure_example(
    explainer: Explainer,
    plan: Plan,
    example: Example,
    mask: np.ndarray | None,
    explanations: dict[str, Explanation],
) -> dict[str, dict[str, float]]:
    """The measures of each row of an example."""
    baseline = explanations[plan.baseline]
    # A method has a map on its token grid; a reference is drawn in the image's pixels.
    maps: dict[str, np.ndarray] = {}
    heats: dict[str, np.ndarray] = {}
    for name, explanation in explanations.items():
        assert explanation.image_maps is not None  # `method_names` has methods of images alone
        maps[name] = explanation.image_maps[0]  # (h, w)
        heats[name] = explanation.heatmap(0, signed=True)  # (H, W)

    references: dict[str, np.ndarray] = {}
    if plan.references:
        whole = np.ones(baseline.image.size[::-1], dtype=bool)
        references = reference_baselines(
            maps[plan.baseline].shape,
            whole if mask is None else mask,
            _generator(example, plan.seed),
            box=baseline.box,
        )

    measures: dict[str, dict[str, float]] = {}
    for name, heat in {**heats, **references}.items():
        if mask is None:
            measures[name] = dict.fromkeys(MEASURES, np.nan)
        else:
            measures[name] = localisation_scores(heat, mask)

    if plan.faithfulness is not None:
        if mask is None:
            references.pop("oracle", None)
        view = model_view(explainer.clip.preprocess, baseline.image)
        for name, heat in references.items():
            maps[name] = pool(heat, view.pixels.shape[1:], view.box)
        text = explainer.embed_texts([example.prompt])[0]
        tower = explainer.image_tower
        curves = image_curves(
            lambda pixels: tower.forward(pixels) @ text,
            view.pixels.to(tower.device),
            maps,
            plan.faithfulness,
            colours=colours_of(explainer.clip.preprocess),
        )
        for area in curve_auc(curves).itertuples():
            measures[area.method][area.game] = area.auc
    return measures


# -------------------------------------------------------------------- means, and which is best


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Every measure's mean of every method, and its difference from the best method.

    >>> methods = ["grad-eclip", "game"]
    >>> rows = evaluate(load_clip(), "scenes:test:40", methods)      # doctest: +SKIP
    >>> summary(rows)[["measure", "method", "mean", "low", "high"]]  # doctest: +SKIP

    Args:
        rows: as `evaluate` gives them. A measure is averaged over the images that have it, for the
            methods that have it on all these images.

    Returns:
        One row per measure and method: the columns of `group_means` and, with `than`, the best
        method, those of `paired_differences`; all intervals are 95 % intervals.
    """
    tables = []
    measures = [name for name in (*MEASURES, *GAMES) if name in rows]
    for measure in tqdm(measures, desc="means and intervals", delay=1, leave=False):
        part = rows.dropna(subset=[measure])
        images_of_method = part.groupby("method")["image"].transform("nunique")
        part = part[images_of_method == part["image"].nunique()]
        if part["image"].nunique() < 2:
            continue

        cluster = "concept" if part["concept"].nunique() > 1 else None
        table = group_means(part, measure, cluster=cluster)
        candidates = table[~table["method"].isin(REFERENCES)]
        if candidates.empty:
            candidates = table
        means = candidates.set_index("method")["mean"]
        best = means.idxmin() if measure == "deletion" else means.idxmax()

        if len(table) > 1:
            differences = paired_differences(part, measure, baseline=best, cluster=cluster)
            differences = differences.drop(columns="n")
            table = table.merge(differences, "left", on="method", suffixes=("", "_difference"))
        tables.append(table.assign(measure=measure, than=best))
    if not tables:
        return pd.DataFrame({"measure": [], "method": []})
    return pd.concat(tables, ignore_index=True)


def report_best(table: pd.DataFrame) -> str:
    """Three lines: which map is better, by how much, and how sure that is.

        print(report_best(summary(rows)))

    Args:
        table: a `summary`. Average precision decides, or insertion where there are no masks.
    """
    measure = "insertion"
    if "average_precision" in set(table["measure"]):
        measure = "average_precision"
    part = table[table["measure"] == measure].set_index("method")
    if part.empty:
        return "Nothing can be compared: no measure is known of two images or more."

    title = measure.replace("_", " ")
    best = part.loc[part["than"].iloc[0]]
    others = part.drop(index=best.name)
    rivals = others[~others.index.isin(REFERENCES)]
    kind = "the map"
    if rivals.empty:
        rivals = others[others.index.isin(PROMPTLESS)]
        kind = "the best reference,"
    if rivals.empty:
        return f"{best.name} has a mean {title} of {best['mean']:.3f} on {best['n']} images."

    # The table has a rival's difference from the best; here it is the best's from the rival.
    rival = rivals.loc[rivals["mean"].idxmax()]
    low = -rival["high_difference"]
    high = -rival["low_difference"]
    answer = interpret_interval(low, high)
    if answer in ("higher", "lower") and rival["p_holm"] > 0.05:
        answer = "undecided"  # intervals of few images are too narrow
    verb = {
        "higher": "is better than",
        "lower": "is worse than",
        "about equal": "is as good as",
        "undecided": "is not clearly better than",
    }[answer]
    return (
        f"Which map: {best.name} {verb} {kind} {rival.name}, by {title} on {rival['n']:.0f} images "
        f"({best['mean']:.3f} and {rival['mean']:.3f}).\n"
        f"By how much: {-rival['difference']:+.3f} [{low:+.3f}, {high:+.3f}], 95 % interval of "
        "this pair alone, without the correction below.\n"
        f"How sure: {answer}; p = {rival['p_holm']:.4f} of a sign-flip test, corrected for "
        f"{len(part) - 1} comparisons."
    )


# -------------------------------------------------------------------------------- the command


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str]:
    """Add the arguments of the command, and return the function that runs it."""
    kinds = ", ".join(f"{kind}:{dataset.form}" for kind, dataset in DATASETS.items())
    parser.add_argument(
        "--data", default="scenes:development:200", help=f"one of {kinds}; default: %(default)s"
    )
    parser.add_argument(
        "--limit", type=int, help="at most this many examples, spread over the data set"
    )
    parser.add_argument(
        "--methods",
        default="all",
        help=f"'all' that work with the model, or some of {','.join(method_names('all'))}",
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
        "--faithfulness", choices=list(PROTOCOLS), help="deletion and insertion as well"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of random maps, wrong words and methods that draw"
    )
    parser.add_argument("--jobs", type=int, help="processes on this machine; -1 for all processors")
    return _run_command


def _run_command(options: argparse.Namespace) -> str:
    methods = options.methods
    if methods != "all":
        methods = [name.strip() for name in methods.split(",")]
    method_names(methods)  # before a model is loaded, which may take minutes
    clip = load_clip(
        options.model,
        options.pretrained,
        device=options.device,
        precision=options.precision,
    )
    rows = evaluate(
        clip,
        options.data,
        methods,
        out=options.out,
        limit=options.limit,
        references=options.references,
        faithfulness=options.faithfulness,
        seed=options.seed,
        jobs=options.jobs,
        overwrite=options.overwrite,
    )
    table = summary(rows)
    table.to_csv(Path(options.out) / "summary.csv", index=False)
    title = model_title(clip.name, clip.pretrained)
    return (
        f"{title} on {options.data}; rows and means of every measure are in "
        f"{options.out}\n{report_best(table)}"
    )
