"""Trainings from other seeds: half as long, not made twice, and a row per seed and claim."""

from dataclasses import replace

import pandas as pd
import pytest

from gradeclip_utils import load_clip
from studies import lesson
from training import seeds
from training.rounds import MODELS, Recipe

SHORT = Recipe(steps=2, batch=4, warmup=1)


def test_a_seed_has_the_plain_recipe_in_half_the_steps_with_seeds_that_nobody_else_has():
    plain_rounds = MODELS[seeds.MODEL]
    taken = set()
    for rounds in MODELS.values():
        taken |= {recipe.seed for recipe in rounds}
    for seed in seeds.SEEDS:
        rounds = seeds.half_length(plain_rounds, seed)
        for recipe, plain in zip(rounds, plain_rounds, strict=True):
            assert recipe.steps == plain.steps // 2
            assert replace(recipe, steps=plain.steps, seed=plain.seed) == plain
            assert recipe.seed not in taken
            taken.add(recipe.seed)


def test_one_command_trains_from_each_seed_and_writes_the_claims_of_the_lessons(
    tmp_path, monkeypatch
):
    measured = []

    def run_lesson(number, weights, results):
        """As a lesson does, claim something of its model and of the one beside it."""
        monkeypatch.setattr(lesson, "RESULTS", results)
        measured.append((number, weights))
        clip = load_clip(seeds.MODEL, weights)
        claims = lesson.Claims(number, seeds.MODEL, str(weights))
        scale = clip.model.logit_scale.item()
        claims.add("scale", estimate=scale, bounds=(scale - 1, scale + 1))
        claims.add("scale", estimate=0.0, bounds=(-1, 1), model="emoji-aided")
        claims.write()

    monkeypatch.setattr(seeds, "run_lesson", run_lesson)
    options = {"rounds": [SHORT], "seeds": (31, 32), "lessons": ("02", "06")}
    seeds.make(tmp_path / "runs", tmp_path / "seeds.csv", **options)
    table = pd.read_csv(tmp_path / "seeds.csv", dtype={"lesson": str})
    assert table["claim"].tolist() == ["scale"] * 4
    assert table["seed"].tolist() == [31, 31, 32, 32]
    assert table["lesson"].tolist() == ["02", "06", "02", "06"]
    clip = load_clip("emoji", tmp_path / "runs" / "seed-31.safetensors")
    scale = clip.model.logit_scale.item()
    assert table["estimate"][0] == pytest.approx(scale, abs=1e-3)

    seeds.make(tmp_path / "runs", tmp_path / "seeds.csv", **options)
    assert len(measured) == 4, "nothing is measured twice"
