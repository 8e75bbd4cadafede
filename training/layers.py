"""How many image layers should explain a model? As few as point about as well as the best number.

    python -m training layers                          # the bundled model, development scenes
    python -m training layers --weights FILE --write   # and put the number into FILE's config

The paper explains one layer. More layers put more relevance on the things that a prompt names, up to a point. The
number is the smallest that comes within .05 of the best, both in the relevance of "a dog" that lies on the dog and in
how often the maximum does, in scenes of two and three things.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.statistics import summarise
from gradeclip_utils.models import Clip
from studies.pointing_game import games, play

LAYERS = (1, 2, 4)
_MARGIN = 0.05
_MEASURES = {"relevance on X": "on_thing", "relevance on nothing": "on_nothing", "maximum on X": "hit"}


def measure(clip: Clip, split: str = "development", n: int = 150) -> pd.DataFrame:
    """The three measures by number of layers and of things: layers, objects, measure, mean, low, high, n, chance."""
    played, rows = games(n, split=split, counts=(2, 3)), []
    depth = Explainer(clip).image_tower.depth
    for layers in (n for n in LAYERS if n <= depth):
        found = play(clip, played, questions=("prompt",), image_layers=layers)
        others = found.groupby(["image"])["area"].transform("sum")
        found = found.assign(chance=found["area"], empty=1 - others)
        for objects, own in found.groupby("objects"):
            for name, column in _MEASURES.items():
                (row,) = summarise(own, column, by="objects").to_dict("records")
                chance = own["empty" if column == "on_nothing" else "chance"].mean()
                about = {"layers": layers, "objects": objects, "measure": name, "chance": chance}
                rows.append(about | {key: row[key] for key in ("mean", "low", "high", "n")})
    return pd.DataFrame(rows)


def fewest(table: pd.DataFrame) -> int:
    """The smallest number of layers within .05 of the best in relevance and maximum on X, on average over scenes."""
    wide = table.pivot_table(index="layers", columns="measure", values="mean")[["relevance on X", "maximum on X"]]
    near = (wide >= wide.max() - _MARGIN).all(axis=1)
    return int(near.idxmax() if near.any() else wide.sum(axis=1).idxmax())


def write(layers: int, weights: Path) -> None:
    """Put the number into the config beside the weights."""
    config = weights.with_suffix(".json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_layers": layers}, indent=2) + "\n")
