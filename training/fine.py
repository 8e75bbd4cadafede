"""Ship `emoji-fine`: the first seed of Grad-ECLIP's arm in the experiment, and its card.

# trains and measures it
python -m studies.finetuning.experiment --arms before grad-eclip --seeds 1
# into data/
python -m training emoji-fine
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.models import load_clip
from gradeclip_utils.scenes import vocabulary
from studies.finetuning.arms import BEFORE, OURS, RECIPE, START, read
from studies.finetuning.experiment import MODEL, RECIPE_COLUMNS, folder_of

from .compact import save_compact
from .tables import by_model, markdown_table, write_figures

CARD = "emoji-fine.md"
NAMES = {BEFORE: f"`{START}`", OURS: "`emoji-fine`"}


def ship(runs: Path, out: Path) -> None:
    """Write the tuned weights, and the figures of both models into the card."""
    rows = read()
    rows = rows[(rows["seed"] == 0) & rows["arm"].isin(NAMES)]
    tuned_rows = rows[rows["arm"] == OURS]
    first = tuned_rows.iloc[0]
    recipe = replace(RECIPE, **{name: first[name].item() for name in RECIPE_COLUMNS})
    weights = folder_of(OURS, recipe, runs, load_clip(START)) / MODEL
    if not weights.is_file():
        raise GradeclipError(f"there is no model tuned from the present {START}: no {weights}")

    save_compact(
        load_clip(START, weights).model,
        out / "emoji-fine.safetensors",
        words=vocabulary(),
        metadata=asdict(recipe),
        config=json.loads(weights.with_suffix(".json").read_text()),
    )
    wide = by_model(rows.assign(model=rows["arm"].map(NAMES), value=rows["estimate"]), 3)
    lines = []
    for cells, row in zip(wide.itertuples(), tuned_rows.itertuples(), strict=True):
        lines.append((*cells, f"{row.n:.0f}", f"{row.chance:.3f}"))
    figures = markdown_table(("figure", *wide, "n", "chance"), lines)
    training = (
        f"Made in {recipe.steps} steps of {recipe.batch} training scenes, learning rate "
        f"{recipe.learning_rate:g}, region-phrase loss times\n{recipe.regions:g}, seed 0; "
        f"{first['cpu_minutes']} minutes of one processor."
    )
    write_figures(out / CARD, "emoji-fine", f"{figures}\n\n{training}")
