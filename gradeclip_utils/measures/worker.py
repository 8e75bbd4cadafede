"""Worker: from a few examples to their rows, one an image and method. What a worker process of an evaluation does.

    chunk of examples -> Explainer -> maps -> measures -> rows

It is a module of its own because workers import it: what a command defines in its main module would be sent to them by
value with every task, and the model that they keep would be lost each time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..datasets import Choice, Example, spread
from ..errors import GradeclipError
from ..explain import Explainer
from ..explanation import Explanation
from ..images import model_view, read_image
from ..models import Clip
from ..notices import warn
from .faithfulness import FULL, PUBLISHED, Protocol, areas, colours_of, image_curves, image_score
from .localisation import MEASURES, localisation, pool, reference_baselines
from .sanity import randomised

REFERENCES = (
    "random", "centre", "area", "mean mask", "random weights", "text-blind", "wrong word", "other thing", "oracle",
)  # fmt: skip
PROTOCOLS = {"published": PUBLISHED, "full": FULL, "mean-colour": replace(PUBLISHED, fill="mean", canvas="mean")}
GUESS, SAMPLE = (32, 32), 256  # cells of a mean mask, and how many masks are read for it: their mean is smooth


@dataclass(frozen=True)
class Plan:
    """What is measured of every example."""

    methods: tuple[str, ...]
    references: tuple[str, ...] = REFERENCES
    faithfulness: str | Protocol = ""
    resolution: str = "model"
    seed: int = 0

    @property
    def baseline(self) -> str:
        """The method that others are compared with, and that is asked for the wrong word and for the other thing."""
        return "grad-eclip" if "grad-eclip" in self.methods else self.methods[0]

    @property
    def rows(self) -> tuple[str, ...]:
        """What each example has a row for."""
        return self.methods + self.references


@dataclass(frozen=True, eq=False)
class Chunk:
    """A few examples that are measured together, with what their reference baselines know of all examples.

    Attributes:
        number: of the chunk.
        examples: which.
        wrong: a prompt for each that its image does not show.
        others: a prompt for each of something else that its image shows; None where the data have none.
        guesses: the mean mask (`GUESS`) of other examples for each; None where no other has a mask.
    """

    number: int
    examples: tuple[Example, ...]
    wrong: tuple[str | None, ...]
    others: tuple[str | None, ...]
    guesses: tuple[np.ndarray | None, ...]

    @classmethod
    def of(cls, examples: list[Example], plan: Plan, size: int) -> list[Chunk]:
        """All examples, in chunks."""
        parts: list[list] = [[None] * len(examples)] * 3
        if plan.references:
            parts = [of(examples, plan.seed) for of in (_wrong_prompts, _other_prompts, _mean_masks)]
        starts = enumerate(range(0, len(examples), size))
        return [cls(k, *(tuple(part[i : i + size]) for part in (examples, *parts))) for k, i in starts]

    def contents(self) -> str:
        """A checksum of all images and masks that the rows depend on."""
        digest = hashlib.sha256()
        for guess in self.guesses:
            digest.update(b"" if guess is None else guess.tobytes())
        return contents(self.examples, digest.hexdigest())


def references_of(clip: Clip, baseline: str, seed: int) -> tuple[str, ...]:
    """The reference baselines, of which one needs attention that can be read, one weights that can be drawn anew."""
    left_out, noise, drawn = [], Image.effect_noise((96, 96), 64), randomised(clip, seed=seed)
    tried = {"text-blind": lambda: Explainer(clip, method="attention"),
             "random weights": lambda: Explainer(drawn, method=baseline).embed_images(noise)}  # fmt: skip
    for name, attempt in tried.items():
        try:
            attempt()
        except GradeclipError as refusal:  # in half precision, what random weights give may not be finite
            warn(f"the rows {name!r} are left out: {refusal}")
            left_out.append(name)
    return tuple(name for name in REFERENCES if name not in left_out)


def _wrong_prompts(examples: list[Example], seed: int) -> list[str]:
    """For each example the prompt of another, whose concept is not in the image."""
    prompts = {example.concept: example.prompt for example in examples}
    wrong = []
    for example in examples:
        absent = [concept for concept in prompts if concept not in example.present]
        if not absent:
            msg = f"no other example asks for something that {example.key!r} does not show, so there is no wrong word"
            raise GradeclipError(f"{msg}: evaluate more examples, or without references (--no-references)")
        wrong.append(prompts[absent[generator(example, seed).integers(len(absent))]])
    return wrong


def _other_prompts(examples: list[Example], seed: int) -> list[str | None]:
    """For each example a prompt of something else that its image shows, as the example has it or as another asks."""
    prompts, others = {example.concept: example.prompt for example in examples}, []
    for example in examples:
        also = (concept for concept in example.present if concept != example.concept)
        known = example.others or [prompts[concept] for concept in also if concept in prompts]
        others.append(known[generator(example, seed).integers(len(known))] if known else None)
    return others


def _mean_masks(examples: list[Example], seed: int) -> list[np.ndarray | None]:
    """For each example the mean mask of others: of `SAMPLE` that are spread over the data, but for its own."""
    sampled = spread([example for example in examples if example.has_mask], SAMPLE)
    masks = ((example.key, example.mask()) for example in sampled)
    own = {key: pool(mask, GUESS) for key, mask in masks if mask is not None and mask.any()}
    total, nothing = sum(own.values(), np.zeros(GUESS)), np.zeros(GUESS)
    counts = [len(own) - (example.key in own) for example in examples]
    return [(total - own.get(one.key, nothing)) / k if k else None for one, k in zip(examples, counts, strict=True)]


def at_worker(source: Clip | str, plan: Plan, part: Chunk, threads: int, parent: int) -> tuple[int, pd.DataFrame, str]:
    """The number of a chunk, its rows, and what they are about."""
    torch.set_num_threads(threads)  # else every process takes all processors, and they wait for one another
    if isinstance(source, str):
        _follow(parent, source)
    return part.number, measured(_kept(source, plan), plan, part), part.contents()


@cache
def _follow(parent: int, source: str) -> None:
    """End this process as soon as its parent is gone, however it went, and take the model's file along."""

    def watch() -> None:
        """Until the parent is gone."""
        while os.getppid() == parent:
            time.sleep(0.5)
        shutil.rmtree(Path(source).parent, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def contents(examples: Iterable[Example | Choice], before: str = "") -> str:
    """A checksum of images and masks."""
    digest = hashlib.sha256(before.encode())
    for example in examples:
        image = read_image(example.image())
        mask = example.mask() if isinstance(example, Example) else None
        digest.update(f"{image.mode} {image.size} {None if mask is None else mask.shape}".encode())
        digest.update(image.tobytes())
        digest.update(b"" if mask is None else np.packbits(mask).tobytes())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _kept(source: Clip | str, plan: Plan) -> dict[str, Explainer]:
    if isinstance(source, Clip):
        return open_explainers(source, plan)
    written = Path(source).read_bytes()
    return open_explainers(pickle.loads(written), plan)  # nosec B301 # this evaluation wrote it for its workers


def open_explainers(clip: Clip, plan: Plan) -> dict[str, Explainer]:
    """One explainer a method, one for the map that hears no prompt, and one of a model that knows nothing, by name."""
    names = dict.fromkeys((*plan.methods, *["attention"] * ("text-blind" in plan.references)))
    opened = partial(Explainer, seed=plan.seed, resolution=plan.resolution, progress=False)  # one bar is enough
    explainers = {name: opened(clip, method=name) for name in names}
    if "random weights" in plan.references:
        explainers["random weights"] = opened(randomised(clip, seed=plan.seed), method=plan.baseline)
    return explainers


def measured(explainers: dict[str, Explainer], plan: Plan, part: Chunk) -> pd.DataFrame:
    """The rows of one chunk: the trunk of the image tower runs once a method, for all its images."""
    images = [example.image() for example in part.examples]
    prompts = [example.prompt for example in part.examples]
    asked: dict[str, tuple[str, Sequence[str | None]]] = {name: (name, prompts) for name in plan.methods}
    others: dict[str, tuple[str, Sequence[str | None]]]
    others = {"wrong word": (plan.baseline, part.wrong), "other thing": (plan.baseline, part.others)}
    others |= {"text-blind": ("attention", prompts), "random weights": ("random weights", prompts)}
    asked |= {name: other for name, other in others.items() if name in plan.references}
    explained, seconds = {}, {}
    for name, (method, texts) in asked.items():
        known = {i: text for i, text in enumerate(texts) if text is not None}
        begin = time.perf_counter()
        found = explainers[method].explain_batch([images[i] for i in known], [*known.values()]) if known else []
        seconds[name] = (time.perf_counter() - begin) / max(1, len(known))
        explained[name] = dict(zip(known, found, strict=True))
    rows = []
    for i, example in enumerate(part.examples):
        mine = {name: explanations[i] for name, explanations in explained.items() if i in explanations}
        measures = _measures(explainers[plan.baseline], plan, example, mine, part.guesses[i])
        for name in plan.rows:
            prompt = mine[name].prompts[0] if name in mine else example.prompt
            row = {"image": example.key, "concept": example.concept, "prompt": prompt, "method": name}
            taken = {"seconds": seconds[name] if name in mine else np.nan}
            rows.append({**row, **measures.get(name, dict.fromkeys(MEASURES, np.nan)), **taken})
    return pd.DataFrame(rows)


def _measures(
    explainer: Explainer, plan: Plan, example: Example, explained: dict, guess: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """For each row of one example that there is a map for, its measures."""
    baseline, mask = explained[plan.baseline], example.mask()
    if mask is not None and not mask.any():
        mask = None  # it says as little as none: there is no oracle to measure
    heats = {name: explanation.heatmap(0, signed=True) for name, explanation in explained.items()}
    references = {}
    if plan.references:
        whole = np.ones(baseline.image.size[::-1], dtype=bool) if mask is None else mask
        grid, rng = baseline.image_maps.shape[1:], generator(example, plan.seed)
        references = reference_baselines(grid, whole, rng, box=baseline.box, guess=guess)
    unknown = dict.fromkeys(MEASURES, np.nan)
    measures = {
        name: dict(unknown) if mask is None else localisation(heat, mask)
        for name, heat in {**heats, **references}.items()
    }
    if mask is None:
        references.pop("oracle", None)
    if plan.faithfulness:
        maps = {name: explanation.image_maps[0] for name, explanation in explained.items()}
        protocol = PROTOCOLS[plan.faithfulness] if isinstance(plan.faithfulness, str) else plan.faithfulness
        for row in game_areas(explainer, example.prompt, baseline, maps, references, protocol).itertuples():
            measures[row.method][row.game] = row.auc
    return measures


def game_areas(
    explainer: Explainer, prompt: str, explanation: Explanation, maps: dict, heats: dict, protocol: Protocol
) -> pd.DataFrame:
    """Areas under deletion and insertion of the model's own similarity with a prompt."""
    clip, tower = explainer.clip, explainer.image_tower
    view = model_view(clip.preprocess, explanation.image)  # no other size has curves
    maps = maps | {name: pool(heat, tuple(view.pixels.shape[1:]), view.box) for name, heat in heats.items()}
    score = image_score(tower.forward, explainer.embed_texts([prompt])[0])
    return areas(image_curves(score, view.pixels.to(tower.device), maps, protocol, colours=colours_of(clip.preprocess)))


def generator(example: Example, seed: int) -> np.random.Generator:
    """A generator of random numbers that is the same for an example wherever it stands, in whichever process."""
    return np.random.default_rng([seed, zlib.crc32(example.key.encode())])
