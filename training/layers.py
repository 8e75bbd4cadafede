"""How many image layers should explain a model? As few as point about as well as the best number.

    python -m training layers                          # the bundled model, development scenes
    python -m training layers --weights FILE --write   # and put the number into FILE's config

The paper explains one layer. More layers put more relevance on the things that a prompt names, up
to a point. The number is the smallest that comes within .05 of the best, both in the relevance of
"a dog" that lies on the dog and in how often the maximum does, in scenes of two and three things.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.measures.statistics import group_means
from gradeclip_utils.models import Clip
from studies.pointing_game import games, play

LAYERS = (1, 2, 4)
_MARGIN = 0.05
_OTHERS = "relevance on other things"
_MEASURES = {
    "relevance on X": "on_thing",
    _OTHERS: "on_others",
    "relevance on nothing": "on_nothing",
    "maximum on X": "hit",
}


def located_means(found: pd.DataFrame) -> pd.DataFrame:
    """Means of a table of `play`: a row per question, number of things and measure, with interval and chance."""
    by, area = ["question", "objects"], found["area"]
    others = area.groupby([found[name] for name in (*by, "image")]).transform("sum") - area
    chances = {"on_others": others, "on_nothing": 1 - others - area}
    tables = []
    for measure, column in _MEASURES.items():
        chance = (
            chances.get(column, area)
            .groupby([found[name] for name in by])
            .mean()
            .rename("chance")
            .reset_index()
        )
        tables.append(group_means(found, column, by=by).merge(chance).assign(measure=measure))
    return pd.concat(tables).sort_values(by, kind="stable", ignore_index=True)


def measure(clip: Clip, split: str = "development", n: int = 150) -> pd.DataFrame:
    """The three measures by number of layers and of things: layers, objects, measure, mean, low, high, n, chance."""
    played, depth = games(n, split=split, counts=(2, 3)), Explainer(clip).image_tower.depth
    tables = [
        located_means(play(clip, played, ("prompt",), image_layers=layers)).assign(layers=layers)
        for layers in LAYERS
        if layers <= depth
    ]
    return pd.concat(tables).query("measure != @_OTHERS").drop(columns="question")


def fewest(table: pd.DataFrame) -> int:
    """The smallest number of layers within .05 of the best in relevance and maximum on X, on average over scenes."""
    wide = table.pivot_table(index="layers", columns="measure", values="mean")[
        ["relevance on X", "maximum on X"]
    ]
    near = (wide >= wide.max() - _MARGIN).all(axis=1)
    return int(near.idxmax() if near.any() else wide.sum(axis=1).idxmax())


def write(layers: int, weights: Path) -> None:
    """Put the number into the config beside the weights."""
    config = weights.with_suffix(".json")
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"image_layers": layers}, indent=2) + "\n"
    )
