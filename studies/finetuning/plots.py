"""What fine-tuning changed, as tables and figures: arms against each other, and one scene before and after.

    data/finetuning.csv, two Clips --here--> tables, figures of the lesson

Every figure is a pure function of its arguments, so that it can stand in a panel and be drawn again beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from statsmodels.stats.weightstats import DescrStatsW

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.finetune.pairs import spoken
from gradeclip_utils.measures.localisation import located, pool
from gradeclip_utils.models import Clip
from gradeclip_utils.panels.session import Session, explain_each
from gradeclip_utils.plots import plot_intervals, plot_maps
from gradeclip_utils.scenes import Scene, arrange

from .arms import ARMS, BEFORE, GLOBAL, OURS, tidy
from .evaluate import dense_features

MASKS = "true mask"  # the arm that is told where things are
REFERENCES = (BEFORE, GLOBAL, "uniform map", "map of another image", MASKS)  # bounds: know nothing of places, or all


def compare(rows: pd.DataFrame, arm: str = OURS, baseline: str = GLOBAL) -> pd.DataFrame:
    """Figure by figure, one arm minus another: figure, difference, low, high, n, over ("seeds" or "scenes")."""
    start, found = rows[rows["arm"] == BEFORE], []
    others = set(rows["seed"]) - set(start["seed"]) if len(start) else ()
    table = tidy(pd.concat([rows, *(start.assign(seed=seed) for seed in others)]))
    for figure, part in table.groupby("figure", sort=False):
        one, two = (part[part["arm"] == name].set_index("seed").sort_index() for name in (arm, baseline))
        if (differences := (one["estimate"] - two["estimate"]).dropna()).empty:
            continue
        if np.ptp(differences) > 1e-9:
            low, high = DescrStatsW(differences).tconfint_mean()
            found.append((figure, differences.mean(), low, high, len(differences), "seeds"))
        else:
            mine, theirs = (some.loc[differences.index[0]] for some in (one, two))
            low = differences.mean() - np.hypot(mine["estimate"] - mine["low"], theirs["high"] - theirs["estimate"])
            high = differences.mean() + np.hypot(mine["high"] - mine["estimate"], theirs["estimate"] - theirs["low"])
            found.append((figure, differences.mean(), low, high, int(mine["n"]), "scenes"))
    return pd.DataFrame(found, columns=["figure", "difference", "low", "high", "n", "over"])


def missing(rows: pd.DataFrame, seeds: Mapping[str, int]) -> list[str]:
    """Which arms lack how many of the seeds that they should have, in words; empty if the table is complete."""
    lack = {arm: want - rows.loc[rows["arm"] == arm, "seed"].nunique() for arm, want in seeds.items()}
    return [f"{arm} ({few} of {seeds[arm]} seeds)" for arm, few in lack.items() if few > 0]


def draw_arms(rows: pd.DataFrame, figure: str) -> Figure:
    """One figure of every arm that was run, with the interval over scenes, references last; of several seeds the first."""
    table = tidy(rows)
    table = table[(table["figure"] == figure)].sort_values("seed", kind="stable").groupby("arm", sort=False).head(1)
    if table.empty:
        raise GradeclipError(f"the table has no figure {figure!r}")
    order = sorted((arm for arm in ARMS if arm in set(table["arm"])), key=REFERENCES.__contains__)
    table = table.set_index("arm").loc[order].rename(columns={"estimate": "mean"})
    label = "fraction right, with its 95 % interval over scenes"
    ranked = table["mean"].sort_values(ascending=False).index
    best = ", then ".join(ranked[:2] if ranked[0] == MASKS else ranked[:1])  # that true masks are best says nothing
    title = f"{figure}: highest is {best}"
    given = {"chance": table["chance"].iloc[0], "references": sum(arm in REFERENCES for arm in order)}
    return plot_intervals(table[["mean", "low", "high"]], label=label, title=title, **given)


def draw_before_after(
    sessions: Mapping[str, Session],
    first: str = "cat",
    second: str = "guitar",
    asked: int = 0,
    report: Callable[[float], None] | None = None,
) -> Figure:
    """The map of one phrase of a scene of two things, by every model: the same image and words, another model."""
    if first == second:
        msg = f"both things are {first!r}: choose two different things, so that one can be asked for"
        raise GradeclipError(msg)
    scene = arrange([first, second], background=17)
    text = spoken(scene.caption)[asked].text
    questions = {name: partial(session.explain, scene, text) for name, session in sessions.items()}
    found = explain_each(questions, report)
    maps = {name: one.heatmap(0) for name, one in found.items()}
    image = next(iter(found.values())).image
    on_it = {name: located(heat, scene.masks(image.width))[asked].on_thing for name, heat in maps.items()}
    title = f"of what speaks for “{text}” lies on it: {', '.join(f'{part:.0%} {name}' for name, part in on_it.items())}"
    return plot_maps(image, maps, shared_scale=False, title=title)


def named_regions(clip: Clip, scene: Scene, prompts: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """What the dense features of each object's pixels are closest to: one row an object, its true noun and three names."""
    (_, dense, size, box), *_ = dense_features(clip, [scene])
    nouns, matrix = list(prompts), np.stack(list(prompts.values()))
    found = {}
    for thing, mask in zip(scene.objects, scene.masks(size), strict=True):
        fraction = pool(mask.astype(float), dense.shape[:2], box)
        embedding = np.einsum("hw,hwe->e", fraction, dense.numpy())
        found[thing.noun] = [nouns[i] for i in (matrix @ embedding).argsort()[::-1][:3]]
    return pd.DataFrame(found, index=["answer 1", "answer 2", "answer 3"]).T
