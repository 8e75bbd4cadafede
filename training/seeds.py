"""How much do results differ between trainings? Three of emoji's recipe, from other seeds.

    python -m training seeds

Each takes half of the recipe's steps, and has a seed of its own for weights and scenes. Their
weights stay in --folder. The lessons then measure each, and `data/seeds.csv` gets their claims: a
row per seed and claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gradeclip_utils.files import write_whole
from studies.lesson import results_folder, results_name
from studies.runs import run_lesson

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
            claims = lesson_claims(lesson, weights)
            tables.append(claims.assign(seed=seed))

    claims = pd.concat(tables)
    columns = ["seed", *claims.columns.drop("seed")]
    write_whole({table: claims[columns].to_csv(index=False).encode()})


def lesson_claims(lesson: str, weights: Path) -> pd.DataFrame:
    """What a lesson claims about weights: its table, without the rows of other models."""
    file = results_folder(MODEL, str(weights)) / f"{lesson}.csv"
    if not file.is_file():
        print(f"lesson {lesson} measures {weights}", flush=True)
        run_lesson(lesson, MODEL, str(weights.resolve()), "", None)
    claims = pd.read_csv(file, dtype={"lesson": str})
    is_of_weights = claims["model"] == results_name(MODEL, str(weights))
    return claims[is_of_weights].drop(columns="model")
