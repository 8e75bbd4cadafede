"""Methods compared: what is measured of every method beside Grad-ECLIP, and what of scores of words. Lesson 03.

    clip, scenes whose ground truth is known --evaluation--> rows --statistics--> study, figure, value, low, high, n

Every figure is a mean, a difference of means, or a correlation, with its 95 % interval, and beside the methods stand
reference baselines that should lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import ImageLike
from gradeclip_utils.measures.evaluation import evaluate, method_names
from gradeclip_utils.measures.faithfulness import GAMES, PUBLISHED
from gradeclip_utils.measures.sanity import agreement, randomised
from gradeclip_utils.methods import METHODS
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.panels.session import Session, explain_each
from gradeclip_utils.panels.state import as_source
from gradeclip_utils.plots import InlineFigure, plot_maps
from gradeclip_utils.plots.finding import sharpest
from gradeclip_utils.scenes import CANVAS, draw_scene
from gradeclip_utils.towers import open_text_tower

from .ablations import last_layer_figures, spatial_weight_figures, text_layer_figures
from .causal import REFERENCES, causal, causal_agreement
from .command import COLUMNS
from .maps import method_maps
from .pointing_game import games, play, play_second_order
from .protocols import both_prompts_figures, cost_figures, full_range_figures, shared_part_figures, stretched_figures
from .tables import (
    AS_PUBLISHED,
    COSTLY,
    ahead_of,
    as_figures,
    beyond,
    compared,
    named_examples,
    names_of,
    same_ranking,
    through,
    title_of,
    told,
)
from .word_scores import captioned_scenes, error_by_saturation, saturation, word_rows

MEASURES = ("pointing_game", "energy_pointing_game", "average_precision")
_FEW = replace(PUBLISHED, points=3)  # points of a curve: its area is read of nothing, a quarter and half of the image
PAINTS = {"noise": _FEW, "mean colour": replace(_FEW, fill="mean", canvas="mean")}  # noise, and black to insert on
CENTRED = "word x region, centred"
SHORT = {"steps": 8, "masks": 200}  # of exCLIP and FIxLIP, which take hundreds of passes an image by default


def method_summary(
    clip: Clip, n: int = 100, methods: str | Sequence[str] | None = None, *, part: str | None = None
) -> pd.DataFrame:
    """What `evaluate` measures of Grad-ECLIP as published, through one layer, beside other methods."""
    if methods is not None:
        return as_figures("methods", _beside(_rows_of_methods(clip, n, methods)))
    tables = []
    for name, measured in PARTS.items():
        if part in (None, name):
            tables += measured(clip, n)
    return as_figures("methods", tables)


def _rows(clip: Clip, n: int, methods: str | Sequence[str], paint: str, references: bool = False) -> pd.DataFrame:
    protocol = PAINTS.get(paint, "")
    return evaluate(clip, named_examples(n), methods, references=references, faithfulness=protocol, progress=False)


def _rows_of_methods(
    clip: Clip, n: int, methods: str | Sequence[str], paint: str = "noise", references: bool = False
) -> pd.DataFrame:
    """Rows of `evaluate` through one layer, with titles for names."""
    rows = _rows(replace(clip, image_layers=1), n, methods, paint, references)
    return rows.assign(method=rows["method"].replace({name: title_of(name) for name in METHODS}))


def _quick_rows(clip: Clip, n: int, paint: str = "noise") -> pd.DataFrame:
    """Rows of all quick methods, and of Grad-ECLIP through as many layers as the package takes for this model."""
    deep = _rows(clip, n, "grad-eclip", paint).assign(method=through(clip.image_layers))
    return pd.concat([_rows_of_methods(clip, n, names_of(clip, "quick"), paint), deep], ignore_index=True)


def _beside(rows: pd.DataFrame, own: bool = True) -> list[pd.DataFrame]:
    """Means of all measures, those of Grad-ECLIP as published too if `own`, and how far it is ahead of the others."""
    tables = []
    for measure in (*MEASURES, *GAMES):
        some, what = rows.dropna(subset=[measure]), measure.replace("_", " ")
        means = told(what + ", {method}", some, measure, cluster="concept")
        tables.append(means if own else means[means["method"] != AS_PUBLISHED])
        if some["method"].nunique() > 1:
            less = measure == "deletion"  # there, low is good
            tables.append(ahead_of(what + ", ahead of {method}", some, measure, less=less, cluster="concept"))
    return tables


def _costly(name: str, clip: Clip, n: int) -> list[pd.DataFrame]:
    return _beside(_rows_of_methods(clip, n, ["grad-eclip", name]), own=False) if names_of(clip, name) else []


def _references(clip: Clip, n: int) -> list[pd.DataFrame]:
    rows = _rows_of_methods(clip, n, "grad-eclip", references=True)
    control = "wrong word", "mean mask", "average precision, wrong word ahead of mean mask"
    return [*_beside(rows, own=False), beyond(rows, *control, "average_precision", "concept")]


def _paints(clip: Clip, n: int) -> list[pd.DataFrame]:
    by_paint, tables = {paint: _quick_rows(clip, n, paint) for paint in PAINTS}, []
    for game in GAMES:
        tables.append(told(game + " with the mean colour, {method}", by_paint["mean colour"], game, cluster="concept"))
        tables.append(same_ranking(f"ranking by {game}, noise and mean colour", game, *by_paint.values()))
    return tables


def _ranking(clip: Clip, n: int) -> list[pd.DataFrame]:
    if clip.name == "emoji":
        return []
    both = [_quick_rows(one, n // 2, paint="") for one in (clip, load_clip("emoji"))]
    alike = set(both[0]["method"]) & set(both[1]["method"])
    both = [rows[rows["method"].isin(alike)] for rows in both]
    return [same_ranking("ranking by average precision, this model and emoji", "average_precision", *both)]


def _random_weights(clip: Clip, n: int) -> list[pd.DataFrame]:
    names, examples = names_of(clip, "quick"), named_examples(max(2, n // 4))
    images, prompts = [one.image() for one in examples], [one.prompt for one in examples]

    def maps_of(model: Clip) -> np.ndarray:
        """The maps of these images by all quick methods, one method after the other."""
        texts = Explainer(model).embed_texts(prompts)[:, None]
        found = list(method_maps(replace(model, image_layers=1), names, images, texts).values())
        found.append(method_maps(model, ["grad-eclip"], images, texts)["grad-eclip"])
        return np.concatenate(found)[:, 0]

    own, parts = maps_of(clip), []
    for seed in range(2):
        found = agreement(own, maps_of(randomised(clip, seed=seed)))
        parts.append(pd.DataFrame({"image": range(len(own)), "seed": seed, "agreement": found}))
    checks = pd.concat(parts, ignore_index=True)
    titles = [*map(title_of, names), through(clip.image_layers)]
    checks["method"] = [titles[i // len(images)] for i in checks["image"]]
    checks["image"] %= len(images)
    return [told("agreement with random weights, {method}", checks, "agreement")]


def _questions(clip: Clip, n: int) -> list[pd.DataFrame]:
    """How often the maximum of a noun's map lies on its own thing, by what was asked and the number of things."""
    played = games(min(n, 24), tint=0)
    fewer = [one for one in played[: max(8, len(played) // 4)] if len(one.scene.objects) in (2, 4)]
    last = play(clip, played, questions=[CENTRED], image_layers=1).assign(question=f"{CENTRED}, last layer")
    rows = [play(clip, played), last, play_second_order(clip, played, ["METAGAME"])]
    rows = pd.concat([*rows, play_second_order(clip, fewer, ["exCLIP", "FIxLIP"], **SHORT)], ignore_index=True)
    counted = rows.assign(things=rows["objects"].map(lambda k: f"{k} thing{'s' * (k > 1)}"))
    tables = [told("own thing, {things}, {question}", counted, "hit")]
    for things, question, than in product((2, 4), rows["question"].unique(), ("caption", CENTRED)):
        pair = rows[(rows["objects"] == things) & rows["question"].isin([question, than])]
        if question != than:
            pair = pair[pair["image"].isin(pair.loc[pair["question"] == question, "image"])]
            figure = f"own thing, {things} things, {question} beyond {than}"
            tables.append(compared(figure, pair, "hit", baseline=than, by="question"))
    return tables


PARTS: dict[str, Callable[[Clip, int], list[pd.DataFrame]]] = {  # by part
    "quick": lambda clip, n: _beside(_quick_rows(clip, n)), **{name: partial(_costly, name) for name in COSTLY},
    "references": _references, "paints": _paints, "random weights": _random_weights,
    "spatial weights": spatial_weight_figures, "last layer": last_layer_figures, "text layers": text_layer_figures,
    "both prompts": both_prompts_figures, "both prompts, costly": partial(both_prompts_figures, parts=COSTLY),
    "shared part": shared_part_figures, "questions": _questions,
    "stretched": stretched_figures, "full range": full_range_figures, "cost": cost_figures, "ranking": _ranking,
}  # fmt: skip


def causal_summary(
    clip: Clip, n: int = 200, methods: str | Sequence[str] = "all", *, part: str | None = None
) -> pd.DataFrame:
    """How each method ranks the objects of a scene beside what taking them out does to the similarity."""
    if part is not None and not (methods := names_of(clip, part)):
        return pd.DataFrame(columns=COLUMNS)
    side = -(-Explainer(clip, method="rise").image_tower.image_size[0] // CANVAS) * CANVAS  # as large as the model sees
    scenes = [draw_scene([52, i], split="development", n_objects=4) for i in range(n)]
    names = [*dict.fromkeys([*method_names(methods, clip), "grad-eclip"])]
    quick = part in (None, "quick")
    last = replace(METHODS["grad-eclip"], name=AS_PUBLISHED)  # through one layer, as methods of other names
    effects, tables = causal(clip, scenes, names, size=side, more=[last] if quick else []), []
    titles = {name: method.title for name, method in METHODS.items()}
    ranked = causal_agreement(effects).assign(title=lambda table: table["method"].replace(titles))
    own = titles["grad-eclip"]
    ahead = [compared(f"rank correlation beyond {one}, {{title}}", ranked, "correlation", baseline=one, by="title")
             for one in ("area", own)]  # fmt: skip
    effects = effects.assign(
        title=effects["method"].replace(titles), said=effects["named"].map({True: "named", False: "not named"}),
        right=((effects["sum"] < 0) == (effects["effect"] < 0)).astype(float),
    )  # fmt: skip
    by_object = {"unit": ["image", "object"], "cluster": "image"}
    if quick:
        falls = effects[effects["title"] == "area"]
        tables.append(told("fall of the similarity, {said}", falls, "effect", **by_object))
    else:
        ranked = ranked[~ranked["title"].isin([*REFERENCES, own])]
    for measure, what in (("correlation", "rank correlation"), ("first", "largest first")):
        tables.append(told(what + ", {title}", ranked, measure))
    shown = effects[effects["title"].isin(ranked["title"])]
    tables.append(told("sign of the fall, {said}, {title}", shown, "right", **by_object))
    return as_figures("causal", [*tables, *(table[table["title"].isin(ranked["title"])] for table in ahead)])


def word_summary(clip: Clip, n: int = 200) -> pd.DataFrame:
    """How far scores of words can be trusted: the measures of `evaluation.words`."""
    rows = word_rows(clip, captioned_scenes(n))
    tables = [told("{measure}, {method}", rows, "value")]
    alike = rows[rows["measure"] == "as leave-one-out"]
    alike = alike.groupby("image").filter(lambda part: part["method"].nunique() == alike["method"].nunique())
    title, tower = METHODS["grad-eclip"].title, open_text_tower(clip.model)
    last, default = (f"{title}, {one} of {tower.depth} layers" for one in (1, clip.text_layers or tower.layers))
    for baseline in sorted({"Random", last, default} & set(alike["method"]), key=["Random", last, default].index):
        new = alike if baseline in ("Random", last) else alike[alike["method"] != last]  # that pair is there already
        tables.append(compared(f"as leave-one-out, beyond {baseline}: {{method}}", new, "value", baseline=baseline))
    levelled = saturation(clip, captioned_scenes(n)[::2])
    grows = error_by_saturation(levelled)
    tables.append(grows.assign(figure="error and saturation, " + grows["scores"]))
    errors = levelled.melt("image", grows["scores"], "method", "error")
    tables.append(told("error, {method}", errors, "error"))
    tables.append(compared("error, beyond integrated: {method}", errors, "error", baseline="integrated"))
    return as_figures("words", tables)


def method_gallery(
    session: Session,
    methods: Sequence[str],
    image: ImageLike,
    prompt: str,
    against: str = "",
    *,
    columns: int = 5,
    report: Callable[[float], None] | None = None,
) -> InlineFigure:
    """One image and one prompt by several methods, each map divided by its own largest value."""
    if not methods:
        raise GradeclipError("a gallery needs one method or more, got none")
    source, against = as_source(image), against if against.strip() else ""
    shown = explain_each({name: partial(session.explain, source, prompt, against, method=name) for name in methods},
                         report)  # fmt: skip
    titles = [one.provenance["method"] for one in shown.values()]
    heats = [one.heatmap(0, signed=bool(against)) for one in shown.values()]
    maps = [heat / max(float(np.abs(heat).max()), np.finfo(np.float32).tiny) for heat in heats]
    title = sharpest(titles, [one.image_maps[0] for one in shown.values()])
    figure = plot_maps(
        next(iter(shown.values())).image, list(zip(titles, maps, strict=True)), signed=bool(against), columns=columns,
        label="fraction of the own maximum", title=title,
    )  # fmt: skip
    asked = f"“{prompt}” rather than “{against}”" if against else f"“{prompt}”"
    figure.alt = f"{title}. The map of {asked} by {len(shown)} methods: {', '.join(titles)}"
    return figure
