"""Ship `emoji-fine`: the first seed of Grad-ECLIP's arm in the fine-tuning experiment, and its card.

python -m studies.finetuning.experiment --arms before grad-eclip --seeds 1    # trains and measures it
python -m training emoji-fine                                                 # into data/
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradeclip_utils.checks import readable
from gradeclip_utils.files import data_path, write_whole
from gradeclip_utils.models import load_clip
from studies.finetuning.arms import BEFORE, OURS, RECIPE, read
from studies.finetuning.experiment import MODEL, folder_of

from .tables import markdown_table, write_between

CARD = "emoji-fine.md"
START, END = "<!-- figures: written by python -m training emoji-fine -->", "<!-- end of figures -->"


def ship(table: Path, runs: Path, out: Path) -> None:
    """Copy the tuned weights and write the figures of both models into the card."""
    rows = read(table)
    rows = rows[rows["seed"] == 0]
    before, after = (rows[rows["arm"] == arm].set_index("figure") for arm in (BEFORE, OURS))
    made = after.iloc[0]
    recipe = replace(
        RECIPE, learning_rate=float(made["learning_rate"]), regions=float(made["regions"]), steps=int(made["steps"])
    )
    weights = readable(folder_of(OURS, recipe, runs, load_clip("emoji")) / MODEL, "model tuned from the present emoji")
    lines = [
        (figure, *(f"{one.loc[figure, 'estimate']:.3f} [{one.loc[figure, 'low']:.3f}, {one.loc[figure, 'high']:.3f}]"
                   for one in (before, after)), f"{row['n']:.0f}", f"{row['chance']:.3f}")
        for figure, row in after.iterrows()
    ]  # fmt: skip
    figures = markdown_table(("figure", "`emoji`", "`emoji-fine`", "n", "chance"), lines)
    about = (
        f"Made in {recipe.steps} steps of {recipe.batch} training scenes, learning rate {recipe.learning_rate:g}, "
        f"region-phrase loss times\n{recipe.regions:g}, seed 0; {made['cpu_minutes']} minutes of one processor."
    )
    write_between(out / CARD, START, END, f"{figures}\n\n{about}")
    for source, ending in ((weights, "safetensors"), (data_path("emoji.json"), "json")):
        write_whole({out / f"emoji-fine.{ending}": source.read_bytes()})
