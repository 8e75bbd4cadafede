"""How many image layers should explain a model? As few as point about as well as the best number.

    python -m training layers                          # the bundled model, development scenes
    python -m training layers --weights FILE --write   # and put the number into FILE's config

The paper explains one layer. More layers put more relevance on the things that a prompt names, up
to a point. The number is the smallest that comes within .02 of the best, both in the relevance of
"a dog" that lies on the dog and in how often the maximum does, in scenes of two and three things.
"""

import json
from pathlib import Path

import pandas as pd

from gradeclip_utils import Explainer
from gradeclip_utils.measures.statistics import group_means
from gradeclip_utils.models import Clip
from studies.pointing_game import games, play

LAYERS = (1, 2, 4)
_MARGIN = 0.02
# of `located_means`, and the columns of `play`
_MEASURES = {
    "relevance on X": "on_thing",
    "relevance on other things": "on_others",
    "relevance on nothing": "on_nothing",
    "maximum on X": "hit",
}


def located_means(answers: pd.DataFrame) -> pd.DataFrame:
    """Means of a table of `play` by question and number of things, a row per measure.

    Columns question, objects, mean, low, high, n, chance, measure. Chance is the area.
    """
    by = ["question", "objects"]
    of_all_things = answers.groupby([*by, "image"])["area"].transform("sum")
    chances = {
        "relevance on X": answers["area"],
        "relevance on other things": of_all_things - answers["area"],
        "relevance on nothing": 1 - of_all_things,
        "maximum on X": answers["area"],
    }
    tables = []
    for measure, column in _MEASURES.items():
        chance = answers.assign(chance=chances[measure]).groupby(by)["chance"].mean().reset_index()
        means = group_means(answers, column, by=by)
        tables.append(means.merge(chance).assign(measure=measure))
    return pd.concat(tables).sort_values(by, kind="stable", ignore_index=True)


def measure(clip: Clip, split: str = "development", n: int = 150) -> pd.DataFrame:
    """Where maps of "a dog" lie by number of layers and of things.

    Columns layers, objects, measure, mean, low, high, n, chance.
    """
    scenes = games(n, split=split, counts=(2, 3))
    depth = Explainer(clip).image_tower.depth
    tables = []
    for layers in LAYERS:
        if layers <= depth:
            answers = play(clip, scenes, ("prompt",), image_layers=layers)
            tables.append(located_means(answers).assign(layers=layers))
    table = pd.concat(tables).drop(columns="question")
    return table[table["measure"] != "relevance on other things"]


def fewest(table: pd.DataFrame) -> int:
    """The smallest number of layers within .02 of the best in relevance and maximum on X."""
    means = table.pivot_table(index="layers", columns="measure", values="mean")
    means = means[["relevance on X", "maximum on X"]]
    is_near = (means >= means.max() - _MARGIN).all(axis=1)
    if is_near.any():
        return int(is_near.idxmax())
    return int(means.sum(axis=1).idxmax())


def write(layers: int, weights: Path) -> None:
    """Put the number into the config beside the weights."""
    file = weights.with_suffix(".json")
    config = json.loads(file.read_text()) | {"image_layers": layers}
    file.write_text(json.dumps(config, indent=2) + "\n")
