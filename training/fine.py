"""Ship `emoji-fine`: the first seed of Grad-ECLIP's arm in the fine-tuning experiment, and its card.

python -m studies.finetuning.experiment --arms before grad-eclip --seeds 1    # trains and measures
it python -m training emoji-fine                                                 # into data/
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradeclip_utils.checks import readable
from gradeclip_utils.files import data_path, write_whole
from gradeclip_utils.models import load_clip
from studies.finetuning.arms import BEFORE, OURS, RECIPE, read
from studies.finetuning.experiment import MODEL, folder_of

from .tables import by_model, markdown_table, write_figures

CARD = "emoji-fine.md"


def ship(table: Path, runs: Path, out: Path) -> None:
    """Copy the tuned weights and write the figures of both models into the card."""
    rows = read(table)
    rows = rows[(rows["seed"] == 0) & rows["arm"].isin([BEFORE, OURS])].rename(
        columns={"estimate": "value"}
    )
    after = rows[rows["arm"] == OURS]
    made = after.iloc[0]
    recipe = replace(
        RECIPE, **{name: made[name].item() for name in ("learning_rate", "regions", "steps")}
    )
    weights = readable(
        folder_of(OURS, recipe, runs, load_clip("emoji")) / MODEL,
        "model tuned from the present emoji",
    )
    wide = by_model(
        rows.assign(model=rows["arm"].map({BEFORE: "`emoji`", OURS: "`emoji-fine`"})), 3
    )
    guesses = zip(after["n"], after["chance"], strict=True)
    lines = [
        (*row, f"{n:.0f}", f"{chance:.3f}")
        for row, (n, chance) in zip(wide.itertuples(), guesses, strict=True)
    ]
    figures = markdown_table(("figure", *wide, "n", "chance"), lines)
    about = (
        f"Made in {recipe.steps} steps of {recipe.batch} training scenes, learning rate {recipe.learning_rate:g}, "
        f"region-phrase loss times\n{recipe.regions:g}, seed 0; {made['cpu_minutes']} minutes of one processor."
    )
    write_figures(out / CARD, "emoji-fine", f"{figures}\n\n{about}")
    for source, ending in ((weights, "safetensors"), (data_path("emoji.json"), "json")):
        write_whole({out / f"emoji-fine.{ending}": source.read_bytes()})
