"""How much do results differ between trainings? Three of emoji's recipe, from other seeds.

    python -m training seeds

Each takes half of the recipe's steps, and has a seed of its own for weights and scenes. Their
weights and executed lessons stay in --folder. The lessons measure each, and `data/seeds.csv` gets
their claims: a row per seed and claim.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gradeclip_utils.files import write_whole
from studies.lesson import read_claims, results_name

from .rounds import MODELS, Recipe
from .scratch import train_rounds

SEEDS = (21, 22, 23)
LESSONS = ("02", "04", "05", "06")
MODEL = "emoji"  # the architecture, and the name that the lessons measure the weights under
TABLE = "seeds.csv"


def half_length(rounds: Sequence[Recipe], seed: int) -> list[Recipe]:
    """The same rounds in half the steps, each with seeds of its own."""
    return [
        replace(recipe, steps=recipe.steps // 2, seed=100 * seed + number)
        for number, recipe in enumerate(rounds)
    ]


def make(
    folder: Path,
    table: Path,
    *,
    rounds: Sequence[Recipe] = MODELS[MODEL],
    seeds: Sequence[int] = SEEDS,
    lessons: Sequence[str] = LESSONS,
) -> None:
    """Train a model from each seed, measure the lessons' claims on it, and write the table.

    What is in `folder` is not made again: the same command goes on after a stop.
    """
    tables = []
    for seed in seeds:
        weights = folder / f"seed-{seed}.safetensors"
        if not weights.is_file():
            train_rounds(half_length(rounds, seed), folder / f"seed-{seed}", weights)
        for lesson in lessons:
            claims = lesson_claims(lesson, weights, folder / "results")
            tables.append(claims.assign(seed=seed))

    claims = pd.concat(tables)
    columns = ["seed", *claims.columns.drop("seed")]
    write_whole({table: claims[columns].to_csv(index=False).encode()})


def lesson_claims(lesson: str, weights: Path, results: Path) -> pd.DataFrame:
    """What a lesson claims about weights: its table, without the rows of other models."""
    name = results_name(MODEL, str(weights))
    file = results / name / f"{lesson}.csv"
    if not file.is_file():
        print(f"lesson {lesson} measures {weights}", flush=True)
        run_lesson(lesson, weights, results)
    claims = read_claims(file)
    return claims[claims["model"] == name].drop(columns="model")


def run_lesson(lesson: str, weights: Path, results: Path) -> None:
    """Execute a lesson on weights, in a process whose lessons write their claims to `results`."""
    command = [sys.executable, "-m", "studies", lesson, "--model", MODEL]
    subprocess.run(
        [*command, "--pretrained", str(weights.resolve())],
        env={**os.environ, "GRADECLIP_RESULTS": str(results.resolve())},
        check=True,
    )
