"""First steps: what a dozen steps of fine-tuning by a model's own maps teach it about regions. Lesson 07.

    pairs --twelve steps, by its own maps or by another image's--> models --regions named--> figures

What a hundred steps teach, arm by arm and seed by seed, is measured by `study fine-tuning`, in a table of its own; what
the lesson claims of these arms is read from it (`arm_claims`).
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from gradeclip_utils.finetune.losses import Learner
from gradeclip_utils.finetune.pairs import PairBatches
from gradeclip_utils.finetune.run import fine_tune
from gradeclip_utils.models import Clip, load_clip

from .finetuning.arms import BEFORE, GLOBAL, OURS, PILOT, TUNED_FOR, ScenePairs, read
from .finetuning.evaluate import AMOUNT, Amount, region_rows
from .finetuning.plots import compare
from .relevance import as_array
from .tables import as_figures, gained

STEPS, BATCH = 12, 16
HARD = "grad-eclip, hard negatives"


def arm_claims(rows: pd.DataFrame) -> pd.DataFrame:
    """What lesson 07 claims of the arms of the experiment: a row a claim, as `compare` gives it."""
    controls = [arm for arm in rows["arm"].unique() if arm not in (BEFORE, GLOBAL, OURS)]
    regions = f"Grad-ECLIP maps teach regions more than the arm “{{than}}” ({TUNED_FOR}, over {{over}})"
    asked = [  # an arm, another, how the figures begin that are compared, and what is claimed
        (OURS, GLOBAL, "", "Grad-ECLIP maps raise “{figure}” more than the global loss alone (over {over})"),
        *((OURS, arm, TUNED_FOR, regions) for arm in controls),
        (OURS, BEFORE, "(?!boxes|masks)",
         "Fine-tuning by Grad-ECLIP maps raises “{figure}” above what it was before (over {over})"),
        (HARD, OURS, "binding", "Hard negatives raise “{figure}” (over {over})"),
    ]  # fmt: skip
    tables = []
    for arm, than, begins, claim in asked:
        table = compare(rows, arm, than).assign(arm=arm, than=than)
        table = table[table["figure"].str.match(begins)]
        tables.append(table.assign(claim=[claim.format(**row) for row in table.to_dict("records")]))
    return pd.concat(tables, ignore_index=True)


def first_steps_summary(clip: Clip, scenes: int = 48, *, part: str | None = None) -> pd.DataFrame:
    """What the lesson's own training teaches: judged figures have the name of their claim."""
    if part == "arms":
        claims = arm_claims(read() if clip.name == "emoji" else read().head(0))
        return as_figures("first-steps", [claims.assign(figure=claims["claim"])])
    recipe = replace(PILOT, steps=STEPS, batch=BATCH, precision="fp32")
    pairs, few = ScenePairs(STEPS * BATCH), Amount(regions=scenes, whole=scenes)
    features = Learner(clip)(PairBatches(clip.preprocess, pairs, BATCH, 1, seed=0)[0])  # of `losses.Features`
    taken = features["weights"] > 0
    alike = as_array((features["regions"][taken] @ features["phrases"][taken].T).detach())
    own, others = alike.diagonal(), (alike.sum(1) - alike.diagonal()) / (len(alike) - 1)
    claim = "Before tuning, a region's cosine is higher with its own phrase than with the batch's others"
    tables = [gained(claim, own, others)]
    models = {"before": clip}
    for name, maps in (("own maps", recipe.maps), ("other maps", "other image")):
        models[name] = fine_tune(clip, pairs, replace(recipe, maps=maps), progress=False).clip
    named = {name: region_rows(model, few).query("figure == 'masks, top-5'") for name, model in models.items()}
    clusters = named["before"]["cluster"].to_numpy()
    right = {name: rows["right"].to_numpy() for name, rows in named.items()}
    tables += [
        gained(f"right name among the first five, {name}", one, clusters=clusters) for name, one in right.items()
    ]
    tables += [
        gained("After twelve steps with own maps, regions are named better than before", right["own maps"],
               right["before"], clusters),
        gained("Twelve steps with own maps teach regions more than those with another image's maps", right["own maps"],
               right["other maps"], clusters),
    ]  # fmt: skip
    if clip.name == "emoji":
        both = [region_rows(model, AMOUNT) for model in (load_clip("emoji-fine"), clip)]
        for figure in ("boxes, top-1", "masks, top-1"):
            after, before = (rows[rows["figure"] == figure] for rows in both)
            claim = f"emoji-fine names more regions than emoji ({figure})"
            tables.append(gained(claim, after["right"], before["right"].to_numpy(), after["cluster"].to_numpy()))
    return as_figures("first-steps", tables)
