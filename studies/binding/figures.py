"""Figures: all that lesson 05 shows and judges, part by part; a judged figure has the name of its claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd

from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.scenes import Scene

from ..pairs import CHANCE, KINDS, Pair, draw_pairs, judge, margins_after
from ..relevance import as_array, choose_recognised
from ..tables import gained, told
from .binding_index import METHODS, ROLES, answers_by_map, binding_index, gap_relevance, study_pairs
from .cached_explainer import CachedExplainer
from .embeddings import PROBED, portraits, probe, yardstick
from .exposure import attribute_exposure
from .mistakes import added_auc, beside_shuffled, mistake_table

Tables = list[pd.DataFrame]

_KEYS = ["pair", "side"]
_BY_IMAGE = {"unit": _KEYS, "cluster": "pair"}
_INDICES = (*(f"chosen: {method}" for method in METHODS), "right: word x region", "right: contrast")
FAMILIES = {"sizes and counts": ("size", "count", "bigger / smaller", "swapped sizes"),
            "places": ("left / right", "above / below")}  # fmt: skip
_OTHER = {"emoji": "emoji-bag"}  # what a model is told apart from, on pairs that both recognise; else from emoji
_CARES = "The word's map is more on its own object in the true caption"
_MORE = "The words' maps are right more often than the caption's map"


def known_pairs(kind: str, n: int, *explainers: Explainer) -> tuple[list[Pair], np.ndarray]:
    """Of 5 n pairs the first n whose things are recognised alone, in all their tints; see `choose_recognised`."""
    return choose_recognised(draw_pairs(kind, 5 * n), lambda pair: pair.scenes, n, *explainers)


def map_pairs(n: int, explainer: Explainer) -> tuple[list[Pair], dict[str, np.ndarray]]:
    """Pairs of every kind whose maps are drawn, and for the kinds of colour which pairs were recognised."""
    coloured = {kind: known_pairs(kind, n, explainer) for kind, said in KINDS.items() if said == "colour"}
    pairs = (coloured[kind][0] if kind in coloured else draw_pairs(kind, n) for kind in KINDS)
    return [*chain.from_iterable(pairs)], {kind: known for kind, (_, known) in coloured.items()}


def hard_pairs(n: int = 30) -> list[Pair]:
    """Pairs with swapped colours of three and of four things, seen and withheld ones."""
    return [pair for objects in (3, 4) for composition in ("seen", "withheld")
            for pair in draw_pairs("swapped colours", n, objects=objects, composition=composition)]  # fmt: skip


def _without_colours(scene: Scene, asked: tuple[int, ...], of_asked: bool) -> Scene:
    things = [replace(t, colour=None) if (k in asked) == of_asked else t for k, t in enumerate(scene.objects)]
    return replace(scene, objects=tuple(things))


CHANGES: dict[str, Callable[[Scene, tuple[int, ...]], Scene]] = {  # of a scene, the captions stay
    "another background": lambda scene, asked: replace(scene, background=scene.background + 1),
    "others without colours": partial(_without_colours, of_asked=False),
    "asked without colours": partial(_without_colours, of_asked=True),
}


def alike_words(cached: CachedExplainer, pairs: list[Pair]) -> np.ndarray:
    """Correlation of each attribute word's directions in the two captions of swapped pairs; NaN where one is zero."""
    found = []
    for pair in pairs:
        both = [{scene.caption[s.start : s.end]: cached.direction(scene.caption, s) for s in pair.words(side)}
                for side, scene in enumerate(pair.scenes)]  # fmt: skip
        for word, one in both[0].items():
            one, other = as_array(one), as_array(both[1][word])
            found.append(np.corrcoef(one, other)[0, 1] if one.any() and other.any() else np.nan)
    return np.array(found)


def _main(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with as few things as their kind can have, and of these the seen compositions."""
    fewest = rows[rows["objects"] == rows.groupby("kind")["objects"].transform("min")]
    return fewest, fewest[fewest["composition"] == "seen"]


def _kinds(clip: Clip, n: int) -> Tables:
    rows = judge(clip, study_pairs(n, 2 * n // 5))
    fewest, main = _main(rows)
    seen = rows[(rows["composition"] == "seen") & (rows["kind"] != "count")]
    crowded = seen[seen["kind"].isin(seen[seen["objects"] > 2]["kind"])]
    said = main.assign(said=main["word"].where(main["kind"] != "object identity", "(a noun)"))
    said = said[said.groupby("said")["pair"].transform("nunique") > 1]
    told_of = told("right answers, {kind}, {composition}", fewest, "right", **_BY_IMAGE)
    numbers = told("right answers, {kind}, {objects} objects", crowded, "right", **_BY_IMAGE)
    gap, crowd = (table.pivot(index="kind", columns=name, values="mean")
                  for table, name in ((told_of, "composition"), (numbers, "objects")))  # fmt: skip
    one = {kind: part.loc[part["side"] == 0, "right"].to_numpy() for kind, part in main.groupby("kind")}
    guessed = [gained(f"Right more often than by guessing: {kind}", part["right"], CHANCE, part["pair"].array)
               for kind, part in main.groupby("kind", sort=False)]  # fmt: skip
    more = "told more often than"
    return [
        told_of, numbers, told("right answers without the image, {kind}", main, "text_only", **_BY_IMAGE),
        told("{measure}, the caption says {said}", said, ["right", "text_only"], **_BY_IMAGE),
        told("{measure}, {kind}", main, ["image_change", "text_change", "agreement"], unit="pair"), *guessed,
        gained(f"One colour is {more} two colours swapped", one["colour"], one["swapped colours"]),
        gained(f"Which object it is is {more} left and right", one["object identity"], one["left / right"]),
        gained(f"Seen compositions are {more} withheld ones", gap["seen"] - gap["withheld"]),
        gained(f"Two objects are {more} four", crowd[2] - crowd[4]),
    ]  # fmt: skip


def _embeddings(clip: Clip, n: int) -> Tables:
    cached = CachedExplainer(clip)
    places = [pair for pair in study_pairs(n, 2 * n // 5) if pair.kind == "left / right"]
    far = yardstick(cached.explainer, places)
    kinds = ("left / right", "above / below", "swapped colours")
    rows = judge(clip, [pair for kind in kinds for pair in draw_pairs(kind, n)])
    moved = rows.assign(text=rows["text_change"] / far["text"], image=rows["image_change"] / far["image"])
    sides = moved[moved["kind"] == kinds[0]].drop_duplicates("pair")
    right = {kind: probe(*portraits(cached.explainer, 200, kind)) for kind in PROBED}
    reads = "A linear probe reads {} in more than three of four images"
    return [
        told("the {measure} moves by so many synonyms or backgrounds, {kind}", moved, ["text", "image"], unit="pair"),
        *(gained(f"a linear probe of images is right, {kind}", values) for kind, values in right.items()),
        gained("Left for right moves the text by more than two synonyms", sides["text"], 2),
        gained(reads.format("left or right"), right["place"], 0.75),
        gained(reads.format("who is red"), right["colour"], 0.75),
        gained("Left for right: image and text move in one direction", sides["agreement"]),
    ]


def _right_by(cached: CachedExplainer, pairs: list[Pair]) -> dict[str, pd.Series]:
    """Right answers by pair and side, of the model and of the maps by each method."""
    index = binding_index(cached, pairs, absent=False)
    found = {"the model": judge(cached.explainer.clip, pairs)}
    found |= {f"map: {method}": answers_by_map(index, method) for method in METHODS}
    return {who: rows.set_index(_KEYS)["right"] for who, rows in found.items()}


def _told_apart(clip: Clip, n: int) -> Tables:
    cached, other = (CachedExplainer(one) for one in (clip, load_clip(_OTHER.get(clip.name, "emoji"))))
    pairs, _ = known_pairs("swapped colours", n, cached.explainer, other.explainer)
    mine = _right_by(cached, pairs)
    rows = pd.concat([right.reset_index().assign(who=who) for who, right in mine.items()])
    tables = [told("swapped colours, right answers by {who}", rows, "right", **_BY_IMAGE)]
    if clip.name in _OTHER:
        return tables
    for who, right in _right_by(other, pairs).items():
        if who != "map: caption":  # at one half by construction
            one, two = right.align(mine[who])
            claim = f"Swapped colours: {who} is right more often in emoji than in {clip.name}"
            tables.append(gained(claim, one, two, one.index.get_level_values("pair").to_numpy()))
    return tables


def _maps(clip: Clip, n: int) -> Tables:
    cached = CachedExplainer(clip)
    looked, known = map_pairs(2 * n // 3, cached.explainer)
    rows, index = judge(clip, looked), binding_index(cached, looked)
    means = index[index["method"] == "word x region"].groupby(["kind", "role", "pair"])["index"].mean()
    swapped = [pair for pair in looked if pair.kind == "swapped colours"]
    of, points = means["swapped colours"], "A colour word points at its own object, "
    claims = {role: points + ("the colour being absent" if role == "absent" else f"in the {role} caption")
              for role in ROLES}  # fmt: skip
    asked = {"model": rows, "words' maps": answers_by_map(index), "caption's map": answers_by_map(index, "caption")}
    answers = pd.concat([one.assign(who=who) for who, one in asked.items()])
    by_map = [asked[who].set_index(["kind", *_KEYS])["right"] for who in ("words' maps", "caption's map")]
    own, whole = by_map[0].align(by_map[1])
    alike = alike_words(cached, swapped)
    return [
        told("binding index, {method}, {kind}, {role}", index, "index", unit="pair"),
        *(gained(claim, of[role], CHANCE) for role, claim in claims.items()),
        *(gained(f"the things of a pair are recognised alone, {kind}", one) for kind, one in known.items()),
        gained("A true colour word points at its object more than an absent one", of["right"] - of["absent"]),
        gained("correlation of a colour word's directions in two captions", alike[np.isfinite(alike)]),
        *(gained(f"{_CARES}: {kind}", means[kind, "right"] - means[kind, "wrong"]) for kind in KINDS),
        told("on the pairs of maps, right answers by the {who}, {kind}", answers, "right", **_BY_IMAGE),
        *(gained(f"{_MORE}: {kind}", own.loc[kind], whole.loc[kind], own.loc[kind].index.get_level_values("pair").array)
          for kind in KINDS),
    ]  # fmt: skip


def _mistakes(clip: Clip, n: int) -> Tables:
    cached, hard, few = CachedExplainer(clip), hard_pairs(n), 2 * n // 3
    asked = {"swapped colours": hard}
    asked |= {name: [pair for kind in kinds for pair in draw_pairs(kind, few)] for name, kinds in FAMILIES.items()}
    tables: Tables = []
    for name, pairs in asked.items():
        rows, index = judge(clip, pairs), binding_index(cached, pairs, absent=False)
        table = mistake_table(rows, index, pairs)
        tables.append(gained(f"wrong answers, {name}", table["wrong"], clusters=table["pair"].array))
        if name == "swapped colours":
            right = [one.set_index(_KEYS)["right"] for one in (rows, answers_by_map(index))]
            own, maps = right[0].align(right[1])
            tables += [gained(f"hard pairs, right answers by the {who}", one) for who, one in
                       (("model", own), ("words' maps", maps))]  # fmt: skip
            tables.append(gained("On hard pairs, the words' maps are right more often than the model", maps, own,
                                 own.index.get_level_values("pair").to_numpy()))  # fmt: skip
        if min(table["wrong"].sum(), (~table["wrong"]).sum()) >= 10:
            for which in _INDICES:
                added = {key: [value] for key, value in added_auc(table, which, repeats=3).items()}
                claim = f"Mistakes about {name} are found by the index “{which}”"
                tables.append(pd.DataFrame(added).assign(figure=claim, value=added["added"]))
            own, chance = beside_shuffled(table, "chosen: word x region")
            tables.append(gained(f"a shuffled index adds to what is known of mistakes about {name}", chance))
            tables.append(gained(f"shuffled indices that add as much as the index, {name}", chance >= own))
            claim = f"The index adds more than 19 of 20 shuffled ones to what is known of mistakes about {name}"
            tables.append(gained(claim, chance < own, 0.95))
    return tables


def _causes(clip: Clip, n: int) -> Tables:
    hard = hard_pairs(n)
    rows = judge(clip, hard).set_index(_KEYS)
    was = rows["right"].map({1.0: "right", 0.5: "right", 0.0: "wrong"}).rename("was")
    parts = gap_relevance(clip, hard).join(was, on=_KEYS)
    on_asked = parts[parts["part"] == "asked"].assign(ahead=lambda t: t["for_right"] - t["for_wrong"])
    split = on_asked.pivot_table("ahead", "pair", "was").dropna()
    tables = [told("relevance per area {measure}, on {part}, model {was}", parts, ["for_right", "for_wrong"],
                   **_BY_IMAGE)]  # fmt: skip
    if len(split) > 1:
        claim = "The slope on what is asked is larger where the model is right"
        tables.append(gained(claim, split["right"] - split["wrong"]))
    before, after = (rows["margin"] > 0).map({True: "right", False: "wrong"}).to_numpy(), {}
    for name, change in CHANGES.items():
        after[name] = margins_after(clip, hard, change).assign(right=lambda t: (t["margin"] > 0) * 1.0, before=before)
        tables.append(told(f"right with {name}, {{before}} before", after[name], "right", **_BY_IMAGE))
    for one in ("wrong", "right"):
        part, plain = (after[name][before == one] for name in ("others without colours", "another background"))
        if part["pair"].nunique() > 1:
            claim, clusters = f"Answers that were {one} are right more often", part["pair"].array
            tables.append(gained(f"{claim} without the other colours than on another ground", part["right"],
                                 plain["right"], clusters))  # fmt: skip
            tables.append(gained(f"{claim} than a coin without the other colours", part["right"], CHANCE, clusters))
    return tables


def _random_weights(clip: Clip, n: int) -> Tables:
    some, _ = known_pairs("swapped colours", 2 * n // 5, Explainer(clip))
    guessed, cares = [], []
    for seed in range(5):
        ignorant = randomised(clip, seed=seed)
        guessed += judge(ignorant, some)["right"].tolist()
        index = binding_index(ignorant, some[: n // 5], absent=False, methods=["word x region"])
        means = index.groupby("role")["index"].mean()
        cares.append(means["right"] - means["wrong"])
    return [gained("Random weights tell swapped colours more often than by guessing", guessed, CHANCE),
            gained(f"Random weights: {_CARES[0].lower()}{_CARES[1:]}", cares)]  # fmt: skip


def _training(clip: Clip, n: int) -> Tables:
    if clip.vocabulary is None:  # it was trained on something else
        return []
    said, negatives = (table.rename(columns={"fraction": "value"}) for table in attribute_exposure(steps=16))
    negatives = negatives.assign(word="a hard negative, " + negatives["kind"])
    return [one.assign(figure="captions of training with " + one["word"], n=16) for one in (said, negatives)]


PARTS: dict[str, Callable[[Clip, int], Tables]] = {
    "kinds": _kinds, "embeddings": _embeddings, "told apart": _told_apart, "maps": _maps, "mistakes": _mistakes,
    "causes": _causes, "random weights": _random_weights, "training": _training,
}  # fmt: skip
