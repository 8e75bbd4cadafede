"""Summaries: the main figures of each study for one model, one row a figure, so that any two models compare.

    clip -> tables of a study -> study, figure, value, low, high (95 % interval), n

Another model is measured by the same call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from ..evaluation.attributes import draw_pairs, judge
from ..evaluation.causal import REFERENCES, causal, causal_agreement
from ..evaluation.faithfulness import PUBLISHED, areas, colours_of, image_curves, image_score
from ..evaluation.localisation import localisation
from ..evaluation.maps import available, method_maps, possible
from ..evaluation.statistics import interval, paired, summarise
from ..explain import Explainer
from ..images import model_view, onto_image
from ..methods import METHODS
from ..methods.grad_eclip import grad_eclip
from ..models import Clip
from ..notices import warn
from ..scenes import CANVAS, arrange, draw_scene
from ..towers import UnsupportedModel
from ..training.card import recognised
from .architectures import BASELINES, MEASURES, compare_models, two_thing_examples
from .binding.binding_index import ROLES, answers_by_map, binding_index, study_pairs
from .binding.cached_explainer import CachedExplainer
from .command import COLUMNS
from .concreteness.correlations import correlate
from .concreteness.word_study import study_questions, word_study
from .matching.adjectives import adjective_shift, colour_pairs
from .matching.composition import caption_changes, noun_pairs, span_fractions, two_colour_scenes
from .matching.map_sums import map_sums
from .matching.wording import leave_one_out_agreement, own_region_hits, word_fractions

# Of all questions about words those that end like this: what the lesson concludes from.
_MAIN = ("content words", "studied words", "associations only", ": informativeness", "beyond all controls")

_OTHERS = (
    "grad-eclip-no-spatial", "grad-eclip-single-head", "attention", "rollout", "grad-cam", "game", "maskclip",
    "clip-surgery", "legrad", "input-x-gradient", "cci",
)  # fmt: skip

Figures = dict[str, "np.ndarray | pd.Series"]  # by name, what each is the mean of
COSTLY = ("m2ib", "rise", "integrated-gradients", "fixlip")  # each a part of its own of the study of effects


def matching_summary(clip: Clip, n: int = 40, *, part: str | None = None) -> pd.DataFrame:
    """The main figures of the study of matching.

    Args:
        clip: the model.
        n: images or pairs of each measurement, about; "spans" needs no images, and takes 3 n.
        part: the figures of one measurement, if not of all: adjective, spans, sums, changes, words, own region.

    Returns:
        `COLUMNS`, one row a figure.
    """
    explainer, values = Explainer(clip), {}
    for name, measured in _MATCHING.items():
        if part in (None, name):
            values |= measured(explainer, n)
    rows = [("matching", name, np.mean(one), *interval(np.asarray(one)), len(one)) for name, one in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _adjectives(explainer: Explainer, n: int) -> Figures:
    table = adjective_shift(explainer, colour_pairs(2 * n))
    tinted, plain = (table[table["second"] == one] for one in ("another colour", "its own colours"))
    return {
        "moved by the adjective": _picked(tinted, "moved", prompt="its colour"),
        "moved by the adjective of the other": _picked(tinted, "moved", prompt="the other's colour"),
        "moved by a colour of neither": _picked(tinted, "moved", prompt="a colour of neither"),
        "moved by a colour of neither, other untinted": _picked(plain, "moved", prompt="a colour of neither"),
    }


def _spans(explainer: Explainer, n: int) -> Figures:
    table = span_fractions(explainer, noun_pairs(3 * n))
    removed = table[table["mean_prompt"] == "removed"]
    return {
        "A and B in the span of its parts": _picked(removed, "fraction", case="and", parts="own"),
        "A and B in the span of foreign parts": _picked(removed, "fraction", case="and", parts="foreign"),
        "weight of B in A and no B": _picked(removed, "second", case="and no", parts="own"),
    }


def _sums(explainer: Explainer, n: int) -> Figures:
    table = map_sums(explainer, noun_pairs(3 * n)[:n])
    gap = table[table["case"] == "A and B"].pivot(index=["image", "display"], columns="parts", values="alike")
    gap = (gap["own"] - gap["foreign"]).unstack("display")
    return {f"map sum, own minus foreign: {display}": gap[display] for display in ("signed", "relu, normalised")}


def _changes(explainer: Explainer, n: int) -> Figures:
    table = caption_changes(explainer, two_colour_scenes(2 * n))
    return {"relation preferred to its opposite": _picked(table, "wins", change="relation turned round")}


def _words(explainer: Explainer, n: int) -> Figures:
    table = word_fractions(explainer, [draw_scene([73, i], split="development") for i in range(2 * n)])
    return {"word score and leave-one-out effect, rank correlation": leave_one_out_agreement(table)}


def _own_regions(explainer: Explainer, n: int) -> Figures:
    table = own_region_hits(explainer, two_colour_scenes(n))
    hit = table[~table["centred"]].groupby(["image", "kind"])["hit"].mean().unstack()
    return {"colour word answers to its own thing": hit["colour"]}


_MATCHING: dict[str, Callable[[Explainer, int], Figures]] = {  # by part
    "adjective": _adjectives, "spans": _spans, "sums": _sums, "changes": _changes, "words": _words,
    "own region": _own_regions,
}  # fmt: skip


def _picked(rows: pd.DataFrame, column: str, **where: str) -> np.ndarray:
    """A column of the rows in which other columns have these values."""
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return rows[column].to_numpy()


def binding_summary(clip: Clip, n: int = 30, *, part: str | None = None) -> pd.DataFrame:
    """The main figures of the study of binding.

    Accuracy of every kind (seen compositions, as few objects as the kind has), and of swapped colours in withheld
    compositions; the index of word x region for two swapped colours: of the right caption, of the wrong one, and of
    absent colours; and how often the model is right on pairs of three and four swapped colours, and how often the maps
    of the words are (`answers_by_map`). Intervals are bootstrap intervals over pairs.

    Args:
        clip: the model.
        n: pairs of every kind (`study_pairs`).
        part: "answers" (accuracies), "two objects" (indices) or "more objects", if not all.

    Returns:
        `COLUMNS`, one row a figure; n counts pairs.
    """
    cached, parts = CachedExplainer(clip), {}
    if part in (None, "answers"):
        rows = judge(clip, study_pairs(n))
        fewest = rows["objects"] == rows.groupby("kind")["objects"].transform("min")
        seen, swapped = rows["composition"] == "seen", rows["kind"] == "swapped colours"
        parts |= {f"accuracy, {kind}": (one, "right") for kind, one in rows[seen & fewest].groupby("kind", sort=False)}
        parts["accuracy, swapped colours, withheld"] = rows[swapped & fewest & ~seen], "right"
    if part in (None, "two objects"):
        two = binding_index(cached, draw_pairs("swapped colours", n)).query("method == 'word x region'")
        parts |= {f"index, swapped colours, {role}": (two[two["role"] == role], "index") for role in ROLES}
    if part in (None, "more objects"):
        more = [pair for objects in (3, 4) for pair in draw_pairs("swapped colours", max(1, n // 2), objects=objects)]
        parts["accuracy, swapped colours, 3 and 4"] = judge(clip, more), "right"
        parts["the same by the words' maps"] = answers_by_map(binding_index(cached, more, absent=False)), "right"
    told = [one.assign(figure=name, value=one[column]) for name, (one, column) in parts.items()]
    return _as_figures("binding", [summarise(one, "value", "figure", unit="pair") for one in told])


def concreteness_summary(clip: Clip, *, draws: int = 300, **options) -> pd.DataFrame:
    """The main figures of the study of concreteness: correlations over words.

    Args:
        clip: the model.
        draws: bootstrap samples of an interval.
        **options: as for `word_study`.

    Returns:
        `COLUMNS`, one row a figure; n counts words.
    """
    found = word_study(clip, **options)
    main = [question for question in study_questions(found) if question.figure.endswith(_MAIN)]
    return _as_figures("concreteness", [correlate(main, found.rows, found.values, found.table, draws=draws)])


def architecture_summary(
    clip: Clip, n: int = 60, things: int = 60, *, rows: pd.DataFrame | None = None, known: pd.DataFrame | None = None,
    than: pd.DataFrame | None = None, part: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Grad-ECLIP on scenes of two things beside its reference baselines, and zero-shot recognition.

    Args:
        clip: the model.
        n: development scenes of two things.
        things: concepts to be recognised.
        rows: of `compare_models`, when they are at hand.
        known: of `training.card.recognised`, when it is at hand.
        than: `rows` of another model, for how far the average precision is ahead of that one's.
        part: "recognised" or "maps", if not both.

    Returns:
        `COLUMNS`, one row a figure. Intervals resample concepts.
    """
    tables = []
    if part in (None, "recognised"):
        known = recognised(clip, things) if known is None else known
        right = known.assign(
            figure="recognised, one thing", right=known["right"].astype(float), image=range(len(known))
        )
        tables.append(summarise(right, "right", "figure", cluster="noun"))
    if part in (None, "maps"):
        rows = compare_models({"model": clip}, two_thing_examples(n)) if rows is None else rows
        for measure in MEASURES:
            names = list(BASELINES if measure == "average_precision" else BASELINES[:2])
            table = summarise(rows[rows["method"].isin(names)], measure, cluster="concept").set_index("method")
            figures = [f"{measure.replace('_', ' ')}, {name}" for name in names]
            tables.append(table.loc[names].assign(figure=figures))
        others = [] if than is None else [than[than["method"] == BASELINES[0]].assign(method="the first model")]
        for other in [rows[rows["method"] == "wrong word"], *others]:
            both, name = pd.concat([rows[rows["method"] == BASELINES[0]], other]), other["method"].iloc[0]
            ahead = paired(both, "average_precision", baseline=name, cluster="concept")
            tables.append(ahead.assign(figure=f"average precision, ahead of {name}"))
    return _as_figures("architectures", tables)


def method_summary(clip: Clip, n: int = 60) -> pd.DataFrame:
    """How far Grad-ECLIP as published, through one layer, is ahead of each method of eight forward passes at most.

    Among them is Grad-ECLIP with the softmax in place of the loosened weight. The measures are three of `localisation`,
    and the areas of deletion and insertion of `faithfulness.PUBLISHED`, read at three points.

    Args:
        clip: the model. Methods that it cannot have are left out, with a warning.
        n: development scenes of two things, of which one is asked for by its name.

    Returns:
        `COLUMNS`, one row a measure and method: the mean difference over scenes, more being better for Grad-ECLIP as
        published in each; its interval resamples concepts.
    """
    explainer, published = Explainer(clip), replace(METHODS["grad-eclip"], name="one layer", title="as published")
    softmax, title = partial(grad_eclip, spatial="softmax"), "Softmax x gradient"
    weighted = replace(published, name="softmax", title=title, image=softmax)
    layers = replace(METHODS["grad-eclip"], title=f"Grad-ECLIP, image layers: {clip.image_layers or 1}")
    drawn = [one for one in two_thing_examples(2 * n) if one.prompt == arrange([one.concept]).caption][:n]
    images, texts = [one.image() for one in drawn], explainer.embed_texts([one.prompt for one in drawn])
    methods = [published, weighted, layers, *(METHODS[name] for name in available(clip, _OTHERS))]
    maps = method_maps(clip, methods, images, texts[:, None])
    rows, protocol = [], replace(PUBLISHED, points=3)
    for i, (one, image) in enumerate(zip(drawn, images, strict=True)):
        view, found = model_view(clip.preprocess, image), {method.title: maps[method][i, 0] for method in methods}
        score = image_score(explainer.image_tower.forward, texts[i])
        pixels = view.pixels.to(explainer.image_tower.device)
        curves = image_curves(score, pixels, found, protocol, colours=colours_of(clip.preprocess))
        area = areas(curves).pivot(index="method", columns="game", values="auc")
        for title, values in found.items():
            heat, mask = onto_image(values, view.box, image.size), np.asarray(one.mask())
            parts = localisation(heat[::4, ::4].copy(), mask[::4, ::4]) | area.loc[title].to_dict()  # maps are smooth
            rows.append({"image": one.key, "concept": one.concept, "method": title, **parts})
    measures = [*MEASURES, "deletion", "insertion"]
    table = paired(pd.DataFrame(rows), measures, baseline=published.title, cluster="concept")
    ahead = -table[["difference", "high", "low"]].to_numpy()
    ahead[table["measure"] == "deletion"] *= -1  # there, low is good
    ahead[:, 1:].sort()
    figure = table["measure"].str.replace("_", " ") + ", ahead of " + table["method"]
    return table.assign(figure=figure, study="methods", value=ahead[:, 0], low=ahead[:, 1], high=ahead[:, 2])[COLUMNS]


def causal_summary(
    clip: Clip, n: int = 200, methods: str | Sequence[str] = "all", *, part: str | None = None
) -> pd.DataFrame:
    """How each method ranks the objects of a scene beside what taking them out does to the similarity.

    By default every method takes part that the model can have, those of hundreds of forward passes too.

    Args:
        clip: the model.
        n: development scenes of four objects, each with its own caption.
        methods: as for `evaluation.causal.causal`.
        part: "quick", the methods of few passes, or the name of another one, in place of `methods`.

    Returns:
        `COLUMNS`, one row a figure: of each method, the rank correlation of its sums with the falls of the similarity,
        how often the object of the largest sum is that of the largest fall, and how far the correlation is beyond that
        of the objects' area. With `part` no other: the mean falls, for objects that the caption names and for others,
        and the references "area" and "random" are in the part "quick". Intervals resample scenes.
    """
    if part is not None:
        try:
            methods = available(clip, [part] if part in COSTLY else [one for one in possible() if one not in COSTLY])
        except UnsupportedModel as refusal:
            warn(f"there is no part {part!r} of this model: {refusal}", "method-left-out")
            return pd.DataFrame(columns=COLUMNS)
    side = -(-Explainer(clip, method="rise").image_tower.image_size[0] // CANVAS) * CANVAS  # as large as the model sees
    scenes = [draw_scene([52, i], split="development", n_objects=4) for i in range(n)]
    effects = causal(clip, scenes, methods, size=side)
    titles = {name: method.title for name, method in METHODS.items()}
    ranked = causal_agreement(effects).assign(title=lambda table: table["method"].replace(titles))
    ahead, tables = paired(ranked, "correlation", baseline="area", by="title"), []
    if part in (None, "quick"):
        falls = effects[effects["method"] == "area"]
        named = falls["named"].map({True: "named", False: "not named"})
        falls = falls.assign(figure="fall of the similarity, " + named)
        tables.append(summarise(falls, "effect", "figure", unit=["image", "object"], cluster="image"))
    else:
        ranked, ahead = (table[~table["title"].isin(REFERENCES)] for table in (ranked, ahead))
    for measure, what in (("correlation", "rank correlation"), ("first", "largest first")):
        tables.append(summarise(ranked.assign(figure=what + ", " + ranked["title"]), measure, "figure"))
    tables.append(ahead.assign(figure="rank correlation beyond area, " + ahead["title"]))
    return _as_figures("causal", tables)


def _as_figures(study: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `summarise` or `correlate` by figure, one below the other."""
    table = pd.concat(
        [table.rename(columns={"mean": "value", "difference": "value"}) for table in tables], ignore_index=True
    )
    return table.assign(study=study)[COLUMNS]
