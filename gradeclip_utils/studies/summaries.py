"""Summaries: the main figures of each study for one model, one row a figure, so that any two models compare.

    clip -> tables of a study -> study, figure, value, low, high (95 % interval), n

Another model is measured by the same call. What was measured before can be handed over, and is then not measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from ..evaluation.attributes import draw_pairs, judge
from ..evaluation.faithfulness import PUBLISHED, areas, colours_of, image_curves, image_score
from ..evaluation.localisation import localisation
from ..evaluation.maps import method_maps
from ..evaluation.statistics import interval, paired, summarise
from ..explain import Explainer
from ..images import model_view, onto_image
from ..methods import METHODS
from ..methods.grad_eclip import grad_eclip
from ..models import Clip
from ..scenes import arrange, draw_scene
from ..training.card import recognised
from .architectures import BASELINES, MEASURES, compare_models, two_thing_examples
from .binding.binding_index import METHODS as BY_WORD
from .binding.binding_index import ROLES, answers_by_map, binding_index, study_pairs
from .binding.cached_explainer import CachedExplainer
from .command import COLUMNS
from .concreteness.correlations import correlate
from .concreteness.word_study import study_questions, word_study
from .matching.adjectives import adjective_shift, colour_pairs
from .matching.composition import caption_changes, noun_pairs, span_fractions, two_colour_scenes
from .matching.map_sums import map_sums, part_agreement
from .matching.wording import leave_one_out_agreement, own_region_hits, template_effect, word_fractions

# Of all questions about words those that end like this: what the lesson concludes from.
_MAIN = ("content words", "studied words", "associations only", ": informativeness", "beyond all controls")

_OTHERS = (
    "grad-eclip-no-spatial", "grad-eclip-single-head", "attention", "rollout", "grad-cam", "game", "maskclip",
    "clip-surgery", "legrad", "input-x-gradient", "cci",
)  # fmt: skip


def matching_tables(clip: Clip, n: int = 40) -> dict[str, pd.DataFrame]:
    """Every table of the study of matching.

    Args:
        clip: the model.
        n: images or pairs of each table, about; "spans" needs no images, and takes 3 n.

    Returns:
        Tables by name: adjective, decomposition, spans, sums, words, templates, changes, own region.
    """
    explainer, pairs, coloured = Explainer(clip), noun_pairs(3 * n), two_colour_scenes(n)
    talkative = [draw_scene([73, i], split="development") for i in range(2 * n)]
    return {
        "adjective": adjective_shift(explainer, colour_pairs(2 * n)),
        "decomposition": part_agreement(explainer, coloured),
        "spans": span_fractions(explainer, pairs),
        "sums": map_sums(explainer, pairs[:n]),
        "words": word_fractions(explainer, talkative),
        "templates": template_effect(explainer, [noun for pair in pairs[:n] for noun in pair][:n]),
        "changes": caption_changes(explainer, two_colour_scenes(2 * n)),
        "own region": own_region_hits(explainer, coloured),
    }


def matching_summary(clip: Clip, n: int = 40, *, tables: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """The main figures of the study of matching.

    Args:
        clip: the model.
        n: images or pairs, as in `matching_tables`.
        tables: what `matching_tables` gave for this model, when it is at hand.

    Returns:
        `COLUMNS`, one row a figure.
    """
    tables = matching_tables(clip, n) if tables is None else tables
    adjective, span, sums, words = (tables[name] for name in ("adjective", "spans", "sums", "words"))
    tinted, plain = (adjective[adjective["second"] == one] for one in ("another colour", "its own colours"))
    removed = span[span["mean_prompt"] == "removed"]
    gap = sums[sums["case"] == "A and B"].pivot(index=["image", "display"], columns="parts", values="alike")
    gap = (gap["own"] - gap["foreign"]).unstack("display")
    change, hit = tables["changes"], tables["own region"]
    hit = hit[~hit["centred"]].groupby(["image", "kind"])["hit"].mean().unstack()
    values = {
        "moved by the adjective": _picked(tinted, "moved", prompt="its colour"),
        "moved by the adjective of the other": _picked(tinted, "moved", prompt="the other's colour"),
        "moved by a colour of neither": _picked(tinted, "moved", prompt="a colour of neither"),
        "moved by a colour of neither, other untinted": _picked(plain, "moved", prompt="a colour of neither"),
        "A and B in the span of its parts": _picked(removed, "fraction", case="and", parts="own"),
        "A and B in the span of foreign parts": _picked(removed, "fraction", case="and", parts="foreign"),
        "weight of B in A and no B": _picked(removed, "second", case="and no", parts="own"),
        "map sum, own minus foreign: signed": gap["signed"],
        "map sum, own minus foreign: relu, normalised": gap["relu, normalised"],
        "relation preferred to its opposite": _picked(change, "wins", change="relation turned round"),
        "word score and leave-one-out effect, rank correlation": leave_one_out_agreement(words),
        "colour word answers to its own thing": hit["colour"],
    }
    rows = [("matching", name, np.mean(one), *interval(np.asarray(one)), len(one)) for name, one in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _picked(rows: pd.DataFrame, column: str, **where: str) -> np.ndarray:
    """A column of the rows in which other columns have these values."""
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return rows[column].to_numpy()


def binding_summary(
    clip: Clip | CachedExplainer, n: int = 30, *, rows: pd.DataFrame | None = None, index: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The main figures of the study of binding.

    Accuracy of every kind (seen compositions, as few objects as the kind has), and of swapped colours in withheld
    compositions; the index of word x region for two swapped colours: of the right caption, of the wrong one, and of
    absent colours; and how often the model is right on pairs of three and four swapped colours, and how often the maps
    of the words are (`answers_by_map`). Intervals are bootstrap intervals over pairs.

    Args:
        clip: the model, or a `CachedExplainer` of it.
        n: pairs of every kind, where they have to be drawn (`study_pairs`).
        rows: of `judge`, when they are at hand.
        index: of `binding_index`, when it is at hand.

    Returns:
        `COLUMNS`, one row a figure; n counts pairs.
    """
    cached = clip if isinstance(clip, CachedExplainer) else CachedExplainer(clip)
    if rows is None:
        rows = judge(cached.explainer.clip, study_pairs(n))
    if index is None:
        more = [pair for objects in (3, 4) for pair in draw_pairs("swapped colours", max(1, n // 2), objects=objects)]
        two = binding_index(cached, draw_pairs("swapped colours", n))
        index = pd.concat([two, binding_index(cached, more, absent=False)], ignore_index=True)
    fewest = rows["objects"] == rows.groupby("kind")["objects"].transform("min")
    seen, swapped = rows["composition"] == "seen", rows["kind"] == "swapped colours"
    placed = index[index["kind"] == "swapped colours"]
    words = placed[(placed["objects"] == 2) & (placed["method"] == BY_WORD[1])]
    hard = answers_by_map(placed[placed["objects"] > 2])
    parts = {f"accuracy, {kind}": (part, "right") for kind, part in rows[seen & fewest].groupby("kind", sort=False)}
    parts["accuracy, swapped colours, withheld"] = rows[swapped & fewest & ~seen], "right"
    parts |= {f"index, swapped colours, {role}": (words[words["role"] == role], "index") for role in ROLES}
    parts["accuracy, swapped colours, 3 and 4"] = rows[rows["pair"].isin(hard["pair"])], "right"
    parts["the same by the words' maps"] = hard, "right"
    told = [part.assign(figure=name, value=part[column]) for name, (part, column) in parts.items() if len(part)]
    return _as_figures("binding", [summarise(part, "value", "figure", unit="pair") for part in told])


def concreteness_summary(clip: Clip, *, draws: int = 300, seed: int = 0, **options) -> pd.DataFrame:
    """The main figures of the study of concreteness: correlations over words.

    Args:
        clip: the model.
        draws: bootstrap samples of an interval.
        seed: of these.
        **options: as for `word_study`.

    Returns:
        `COLUMNS`, one row a figure; n counts words.
    """
    found = word_study(clip, **options)
    main = [question for question in study_questions(found) if question.figure.endswith(_MAIN)]
    return _as_figures("concreteness", [correlate(main, found.rows, found.values, found.table, draws=draws, seed=seed)])


def architecture_summary(
    clip: Clip, n: int = 60, things: int = 60, *, rows: pd.DataFrame | None = None, known: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Grad-ECLIP on scenes of two things beside its reference baselines, and zero-shot recognition.

    Args:
        clip: the model.
        n: development scenes of two things.
        things: concepts to be recognised.
        rows: of `compare_models`, when they are at hand.
        known: of `training.card.recognised`, when it is at hand.

    Returns:
        `COLUMNS`, one row a figure. Intervals resample concepts.
    """
    rows = compare_models({"model": clip}, two_thing_examples(n)) if rows is None else rows
    known = recognised(clip, things) if known is None else known
    right = known.assign(figure="recognised, one thing", right=known["right"].astype(float), image=range(len(known)))
    tables = [summarise(right, "right", "figure", cluster="noun")]
    for measure in MEASURES:
        names = BASELINES if measure == "average_precision" else BASELINES[:2]
        table = (
            summarise(rows[rows["method"].isin(names)], measure, cluster="concept").set_index("method").loc[list(names)]
        )
        tables.append(table.assign(figure=[f"{measure.replace('_', ' ')}, {name}" for name in names]))
    return _as_figures("architectures", tables)


def method_summary(clip: Clip, n: int = 60) -> pd.DataFrame:
    """How far Grad-ECLIP as published, through one layer, is ahead of each method of eight forward passes at most.

    Among them is Grad-ECLIP with the softmax in place of the loosened weight. The measures are three of `localisation`,
    and the areas of deletion and insertion of `faithfulness.PUBLISHED`, read at three points.

    Args:
        clip: the model, whose image encoder is a vision transformer.
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
    methods = [published, weighted, layers, *(METHODS[name] for name in _OTHERS)]
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


def _as_figures(study: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `summarise` or `correlate` by figure, one below the other."""
    table = pd.concat(tables, ignore_index=True).rename(columns={"mean": "value"})
    return table.assign(study=study)[COLUMNS]
