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
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..datasets import Choice, Example
from ..explain import Explainer
from ..explanation import Explanation
from ..images import model_view, read_image
from ..models import Clip
from .faithfulness import FULL, PUBLISHED, Protocol, areas, colours_of, image_curves, image_score
from .localisation import MEASURES, localisation, pool, reference_baselines

REFERENCES = ("random", "centre", "wrong word", "text-blind", "oracle")
PROTOCOLS = {"published": PUBLISHED, "full": FULL}


@dataclass(frozen=True)
class Plan:
    """What is measured of every example."""

    methods: tuple[str, ...]
    references: tuple[str, ...] = REFERENCES
    faithfulness: str = ""
    resolution: str = "model"
    seed: int = 0

    @property
    def baseline(self) -> str:
        """The method that others are compared with, and that is asked for the wrong word."""
        return "grad-eclip" if "grad-eclip" in self.methods else self.methods[0]

    @property
    def rows(self) -> tuple[str, ...]:
        """What each example has a row for."""
        return self.methods + self.references


@dataclass(frozen=True)
class Chunk:
    """A few examples that are measured together, and a prompt for each that its image does not show."""

    number: int
    examples: tuple[Example, ...]
    wrong: tuple[str, ...]


def at_worker(source: Clip | str, plan: Plan, part: Chunk, threads: int, parent: int) -> tuple[int, pd.DataFrame, str]:
    """The number of a chunk, its rows, and what they are about.

    In a process that keeps the model between calls, and ends with the one that began it.

    Args:
        source: the model, or the file that it was pickled to.
        plan: what is measured.
        part: the chunk.
        threads: of torch in this process.
        parent: number of the process that began this one.
    """
    torch.set_num_threads(threads)  # else every process takes all processors, and they wait for one another
    if isinstance(source, str):
        _follow(parent, source)
    return part.number, measured(_kept(source, plan), plan, part), contents(part.examples)


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
    """A checksum of images and masks, which are read for it, and of what is known from `before`."""
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
    """One explainer a method, and one for the map that does not hear the prompt."""
    names = dict.fromkeys((*plan.methods, *["attention"] * ("text-blind" in plan.references)))
    opened = partial(Explainer, clip, seed=plan.seed, resolution=plan.resolution, progress=False)  # one bar is enough
    return {name: opened(method=name) for name in names}


def measured(explainers: dict[str, Explainer], plan: Plan, part: Chunk) -> pd.DataFrame:
    """The rows of one chunk: the trunk of the image tower runs once a method, for all its images.

    Args:
        explainers: as `open_explainers` gives them.
        plan: what is measured.
        part: the chunk.
    """
    images = [example.image() for example in part.examples]
    prompts = [example.prompt for example in part.examples]
    asked = {name: (name, prompts) for name in plan.methods}
    others = {"wrong word": (plan.baseline, list(part.wrong)), "text-blind": ("attention", prompts)}
    asked |= {name: other for name, other in others.items() if name in plan.references}
    explained, seconds = {}, {}
    for name, (method, texts) in asked.items():
        begin = time.perf_counter()
        explained[name] = explainers[method].explain_batch(images, texts)
        seconds[name] = (time.perf_counter() - begin) / len(images)
    rows = []
    for i, example in enumerate(part.examples):
        mine = {name: explanations[i] for name, explanations in explained.items()}
        measures = _measures(explainers[plan.baseline], plan, example, mine)
        for name in plan.rows:
            prompt = mine[name].prompts[0] if name in mine else example.prompt
            row = {"image": example.key, "concept": example.concept, "prompt": prompt, "method": name}
            rows.append({**row, **measures[name], "seconds": seconds.get(name, np.nan)})
    return pd.DataFrame(rows)


def _measures(explainer: Explainer, plan: Plan, example: Example, explained: dict) -> dict[str, dict[str, float]]:
    """For each row of one example, its measures."""
    baseline, mask = explained[plan.baseline], example.mask()  # without a mask there is no oracle to measure
    heats = {name: explanation.heatmap(0, signed=True) for name, explanation in explained.items()}
    references = {}
    if plan.references:
        whole = np.ones(baseline.image.size[::-1], dtype=bool) if mask is None else mask
        grid, rng = baseline.image_maps.shape[1:], generator(example, plan.seed)
        references = reference_baselines(grid, whole, rng, box=baseline.box)
    unknown = dict.fromkeys(MEASURES, np.nan)
    measures = {
        name: dict(unknown) if mask is None or not mask.any() else localisation(heat, mask)
        for name, heat in {**heats, **references}.items()
    }
    if mask is None:
        references.pop("oracle", None)
    if plan.faithfulness:
        maps = {name: explanation.image_maps[0] for name, explanation in explained.items()}
        protocol = PROTOCOLS[plan.faithfulness]
        for row in game_areas(explainer, example.prompt, baseline, maps, references, protocol).itertuples():
            measures[row.method][row.game] = row.auc
    return measures


def game_areas(
    explainer: Explainer, prompt: str, explanation: Explanation, maps: dict, heats: dict, protocol: Protocol
) -> pd.DataFrame:
    """Areas under deletion and insertion of the model's own similarity with a prompt.

    Args:
        explainer: of the model that is asked.
        prompt: what the image is compared with.
        explanation: has the image, and the box that the model saw of it.
        maps: name -> (h, w) on the token grid.
        heats: name -> (H, W) in the image's pixels.
        protocol: of the games.

    Returns:
        Rows as `faithfulness.areas`.
    """
    clip, tower = explainer.clip, explainer.image_tower
    pixels = model_view(clip.preprocess, explanation.image).pixels.to(tower.device)  # no other size has curves
    maps = maps | {name: pool(heat, tuple(pixels.shape[1:]), explanation.box) for name, heat in heats.items()}
    score = image_score(tower.forward, explainer.embed_texts([prompt])[0])
    return areas(image_curves(score, pixels, maps, protocol, colours=colours_of(clip.preprocess)))


def generator(example: Example, seed: int) -> np.random.Generator:
    """The same for an example wherever it stands, in whichever process."""
    return np.random.default_rng([seed, zlib.crc32(example.key.encode())])
