"""Readers: the same question to models that read a picture in different ways, and how far their maps agree.

    models --architecture--> Trace --method--> map --here--> what changes from reader to reader, and what does not

CLS reads, all patches read, a latent query reads, or the mean of a feature map reads: every tower gives the same kind
of trace, so one method serves all of them. Here is what one wants to know of such models side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ..datasets import Example, emoji_scenes
from ..evaluation.run import evaluate
from ..evaluation.sanity import agreement
from ..evaluation.statistics import interval, summarise
from ..explain import Explainer
from ..explanation import Explanation
from ..methods.grad_eclip import attention_gradient, channel_weights, spatial_weights
from ..models import Clip
from ..panels.session import Session, as_source
from ..plots import InlineFigure, draw_heatmap
from ..plots.axes import NOTE, blank, drawable, entitle
from ..plots.html import Page, map_html, note_html, picture_html, row_html
from ..towers import ImageTower, Tower, Trace
from ..training.card import recognised

MEASURES = ("pointing_game", "energy_pointing_game", "average_precision")
FRAMES = ("grad-eclip", "wrong word", "text-blind", "random", "oracle")
_OWN = "each map divided by its own maximum: pale 0 to dark 1"
_STEP = 1e-4  # by which an attention weight is changed to see what the similarity does


def what_reads(clips: Mapping[str, Clip]) -> pd.DataFrame:
    """One column a model: its towers, who reads, and the shape of its trace, taken from a trace of a grey picture."""
    columns = {}
    for name, clip in clips.items():
        explainer = Explainer(clip)
        image, text = explainer.image_tower, explainer.text_tower
        trace = image.trace(_pixels(clip, Image.new("RGB", (96, 96), (128, 128, 128))))
        layer = trace.layers[-1]
        last = "an attention pool" if image.blocks[-1].pools else f"layer {image.depth} of {image.depth}"
        columns[name] = {
            "image tower": image.kind,
            "who reads": image.reader,
            "what is explained": last,
            "readers": layer.q.shape[1],
            "tokens that are read": layer.k.shape[1],
            "heads x channels": f"{layer.q.shape[2]} x {layer.q.shape[3]}",
            "map": f"{trace.grid[0]} x {trace.grid[1]}",
            "text tower": "needs a hub" if text is None else "causal" if text.causal else "not causal",
            "who reads the prompt": "-" if text is None else text.reader,
        }
    return pd.DataFrame(columns)


def promises(clip: Clip, picture: Image.Image, prompt: str, tokens: int = 6, seed: int = 0) -> dict[str, float]:
    """How far three promises are kept, as the largest deviation: each should be zero but for rounding.

    - "trace": the embedding of the trace is the one of the model's own forward pass (float32).
    - "collects": the attention output is the values, weighted by attention: o = sum_i alpha_i v_i (float64).
    - "identity": w . v_i = dS/d alpha_i. The slope is measured without a gradient, by raising and lowering alpha_i of
      one reader in all heads (float64), for some ``tokens`` drawn by ``seed``; relative to the largest slope.
    """
    explainer = Explainer(clip)
    pixels = _pixels(clip, picture)
    plain = explainer.image_tower.forward(pixels)
    apart = float((explainer.image_tower.trace(pixels).embedding - plain).abs().max())
    tower = ImageTower(copy.deepcopy(clip.model).double())
    trace = tower.trace(pixels.double())
    layer = trace.layers[-1]
    ids = clip.tokenizer([prompt]).to(pixels.device)
    direction = explainer.text_tower.forward(ids)[0].double()  # (E,)
    collected = torch.einsum("bhrn,bnhc->brhc", layer.attention, layer.v).flatten(2)
    weights = channel_weights(tower, trace, direction[None, None])[:, 0, 0]  # (1, R, D)
    predicted = attention_gradient(weights, layer.v).sum(1)[0]  # (R, N), heads added
    generator = torch.Generator().manual_seed(seed)
    reader = int(torch.randint(layer.q.shape[1], (), generator=generator))
    some = torch.randperm(layer.v.shape[1], generator=generator)[:tokens]
    slopes = torch.stack([_slope(tower, trace, reader, int(token), direction) for token in some])
    largest = float(predicted[reader].abs().max())
    return {
        "trace": apart,
        "collects": float((collected - layer.o).abs().max()),
        "identity": float((slopes - predicted[reader, some]).abs().max()) / largest,
    }


@torch.no_grad()
def _slope(tower: Tower, trace: Trace, reader: int, token: int, direction: Tensor) -> Tensor:
    """The slope of S when one reader pays a little more, or less, attention to one token, in all heads."""
    layer = trace.layers[-1]
    nudge = torch.zeros_like(layer.o)[None]  # (1, B, R, D)
    nudge[0, 0, reader] = _STEP * layer.v[0, token].flatten()
    more, less = (tower.readout(trace, sign * nudge)[0] @ direction for sign in (1, -1))
    return (more - less) / (2 * _STEP)


def _pixels(clip: Clip, picture: Image.Image) -> Tensor:
    return clip.preprocess(picture)[None].to(next(clip.model.parameters()).device)


def compare(clips: Mapping[str, Clip], examples: Sequence[Example]) -> pd.DataFrame:
    """Grad-ECLIP of every model on the same examples, with its frames: rows as `evaluate` gives them, with a `model`.

    Frames are a model's own: the oracle is the true mask on *its* grid, the wrong word is read by *its* towers.
    """
    rows = [evaluate(clip, examples, "grad-eclip", progress=False).assign(model=name) for name, clip in clips.items()]
    return pd.concat(rows, ignore_index=True)


def common_maps(clip: Clip, examples: Sequence[Example], prompts: Sequence[str], grid: int = 6) -> np.ndarray:
    """Signed maps (P, grid, grid) of one prompt for each picture, averaged over the cells of a grid that all share.

    The map is laid over the picture as it is drawn, and averaged over equal cells, so that models with finer and with
    coarser patches can be compared.
    """
    pictures = [example.image() for example in examples]
    cells = []
    for explanation in Explainer(clip).explain_batch(pictures, list(prompts)):
        heat = explanation.heatmap(0, signed=True)
        tall, wide = (side // grid for side in heat.shape)
        cells.append(heat[: tall * grid, : wide * grid].reshape(grid, tall, grid, wide).mean(axis=(1, 3)))
    return np.stack(cells)


def alike(maps: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Mean rank correlation between the maps (P, h, w) of every two models, with its interval over pictures."""
    names, rows = list(maps), []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            values = agreement(maps[one], maps[other])
            low, high = interval(values)
            rows.append({"one": one, "other": other, "mean": values.mean(), "low": low, "high": high, "n": len(values)})
    return pd.DataFrame(rows)


def figures(
    clip: Clip, n: int = 60, things: int = 60, *, rows: pd.DataFrame | None = None, known: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What the lesson measures of one model: figure, estimate, low, high (95 % intervals), n.

    Grad-ECLIP on ``n`` development scenes of two things, beside its frames, and zero-shot recognition of ``things``
    concepts. Intervals resample concepts. Where its ``rows`` (of `compare`) or what it has ``known`` (of `recognised`)
    are at hand, they are not measured again.
    """
    rows = compare({"model": clip}, two_things(n)) if rows is None else rows
    known = recognised(clip, things) if known is None else known
    low, high = interval(known["right"].astype(float), known["noun"])
    one = {"figure": "recognised, one thing", "estimate": known["right"].mean(), "low": low, "high": high}
    found = [one | {"n": len(known)}]
    for measure in MEASURES:
        table = summarise(rows[rows["method"].isin(FRAMES)], measure, cluster="concept").set_index("method")
        for name in FRAMES if measure == "average_precision" else FRAMES[:2]:
            one = table.loc[name, ["mean", "low", "high", "n"]].rename({"mean": "estimate"})
            found.append({"figure": f"{measure.replace('_', ' ')}, {name}", **one})
    return pd.DataFrame(found)


def two_things(n: int) -> list[Example]:
    """Development scenes of two different single things, of which one is asked for by its name."""
    drawn = emoji_scenes("development", 4 * n, n_objects=2)
    return [one for one in drawn if len(one.present) == 2][:n]


def gallery(sessions: Mapping[str, Session], picture: Image.Image, prompts: Sequence[str]) -> InlineFigure:
    """The maps of one picture: a row a prompt, a column a model, each divided by its own largest value.

    Models differ in the size of their gradients, so only where the ink lies can be compared, not how strong it is. The
    sessions keep what the picture's trunks gave, for the next prompt.
    """
    alt = f"Maps of {', '.join(prompts)}, by {', '.join(sessions)}"
    figure = InlineFigure(2.1 * (1 + len(sessions)) + 0.7, 2.35 * len(prompts) + 0.3, alt)
    grid = figure.subplots(len(prompts), 1 + len(sessions), squeeze=False)
    figure.subplots_adjust(left=0.01, right=1 - 0.6 / figure.get_figwidth(), bottom=0.09, top=0.93, wspace=0.06)
    for axes, prompt, shown in zip(grid, prompts, _explained(sessions, picture, prompts), strict=True):
        blank(axes[0]).imshow(next(iter(shown.values())).image)
        entitle(axes[0], drawable(prompt))
        for axis, (name, one) in zip(axes[1:], shown.items(), strict=True):
            heat = one.heatmap(0)
            heat = heat / max(float(heat.max()), 1e-12)
            draw_heatmap(axis, one.image, heat, vmax=1.0, colour_bar=axis is grid[0, -1], note="")
            entitle(axis, name)
    figure.text(0.01, 0.01, _OWN, va="bottom", **NOTE)
    return figure


def gallery_page(
    sessions: Mapping[str, Session],
    picture: Image.Image,
    prompts: Sequence[str],
    report: Callable[[float], None] | None = None,
) -> Page:
    """`gallery` for a panel. ``report`` is told, before every pass of a model, the share of the maps that are done."""
    rows = []
    for prompt, shown in zip(prompts, _explained(sessions, picture, prompts, report), strict=True):
        plain = picture_html(next(iter(shown.values())).image, prompt)
        maps = (map_html(one, name, own=True, beside=not i) for i, (name, one) in enumerate(shown.items()))
        rows.append(row_html(plain, *maps))
    return Page("".join(rows) + note_html(_OWN), f"Maps of {', '.join(prompts)}, by {', '.join(sessions)}")


def _explained(sessions, picture, prompts, report=None) -> list[dict[str, Explanation]]:
    """For each prompt: model -> explanation."""
    source, made = as_source(picture), [{} for _ in prompts]

    def tell(*_passes) -> None:
        if report is not None:
            report(sum(map(len, made)) / len(prompts) / len(sessions))

    for prompt, shown in zip(prompts, made, strict=True):
        for name, session in sessions.items():
            shown[name] = session.explain(source, prompt, on_pass=tell)
    return made


def reader_maps(tower: Tower, trace: Trace, direction: Tensor) -> Tensor:
    """Grad-ECLIP before the readers are added up: relevance (R, h * w) of every patch for every reader, heads added.

    Its sum over readers is the map. Of one picture, in the last layer; ``direction`` (E,) is the target's.
    """
    assert len(trace.tokens) == 1
    layer = trace.layers[-1]
    weights = channel_weights(tower, trace, direction[None, None])[:, 0, -1]
    relevance = spatial_weights(layer, trace.real) * attention_gradient(weights, layer.v)  # (1, H, R, N)
    return relevance.sum(1)[0][:, trace.real[0]]
