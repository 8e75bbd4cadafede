"""Explorer view: a view's numbers and controls for the browser, as Python and as a figure. Functions without a widget.

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

Whatever is shown says what it is: the title comes from the view itself, never from a control that may have moved on.
What is seen is linear in the value, and the numbers stand in the labels of the words and in the tables.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Container, Iterable
from functools import partial
from typing import Any

import open_clip
from IPython import get_ipython
from PIL import Image

from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip
from ..plots import InlineFigure, axes_at, draw_words, paint
from ..plots.axes import HEADLINE, NOTE, drawable, show_image
from ..plots.colours import largest, number, range_in_words
from ..plots.page import side, word_rows
from ..plots.page import view as page_view
from . import verdict
from .session import Session
from .state import CHOICES, DISPLAY, GRAD_ECLIP, NULLS, Panel, State, View, settings

CONTROLS = {  # field of a state -> where it stands ("method" and "drawing" are folded), its name, what it does
    "model": ("head", "Model", "Which CLIP is explained. Image, caption and selection stay."),
    "caption": ("caption", "Caption", "The prompt whose similarity to the image is explained. Enter applies it."),
    "against": ("ask", "other caption", "What is explained is then by how much the caption is ahead of this one."),
    "beside": ("ask", "second method", "The same question by another method, beside the first."),
    "opacity": ("look", "opacity", "How much of the image is hidden where there is no relevance; 0 shows it as it is."),
    "method": ("method", "method", "How relevance is computed. A slow one says how long it takes."),
    "layers": ("method", "explained layers", "How many of the image encoder's last layers are explained, and added."),
    "spatial": ("method", "spatial weight",
                "What each patch counts: Grad-ECLIP's loosened attention, its softmax, or all the same."),
    "attention": ("method", "attention heads",
                  "The model's own heads, or one head as published, which explains another number."),
    "resolution": ("method", "input resolution",
                   "What the model's preprocessing makes of the image, or the whole image at its own size."),
    "centred": ("method", "nouns told apart", "The region of each noun less what the caption's nouns have in common."),
    "colours": ("drawing", "colours",
                "The image keeps its own, and relevance is how much of it is seen; or a heat map is laid over it."),
    "threshold": ("drawing", "threshold", "What is below this fraction of the largest value counts as nothing."),
    "shared": ("drawing", "one scale",
               "One scale for all words and both methods, where their units agree; else each its own."),
}  # fmt: skip
UNSEEN = (
    "This is not one of the project's scenes. The bundled model was trained on drawn scenes only and has never seen a "
    "photograph: what it says here is a guess."
)


def specs(
    names: Collection[str], state: State, session: Session, models: Iterable[str], refused: Container[str]
) -> list[dict]:
    """The controls as `front/view.js` takes them.

    Args:
        names: which, of `CONTROLS`.
        state: what is wanted.
        session: of the model that is shown.
        models: the names there are.
        refused: those in which a value stands that cannot be shown.
    """
    titles, own = {}, state.method == GRAD_ECLIP
    for key, method in METHODS.items():
        if method.image:
            seconds = session.expected(key, state.resolution)
            titles[key] = f"{method.title} (about {seconds:.0f} s here)" if seconds >= 1 else method.title
    choices = {**CHOICES, "model": {name: name for name in models}, "method": titles, "beside": {"": "none", **titles}}
    useful = {"layers": state.method.startswith(GRAD_ECLIP), "attention": own, "centred": own}
    useful["spatial"] = own and state.attention == "model"  # one head is the published variant, with its own weight
    return [
        {
            "name": name, "label": label, "help": text, "value": getattr(state, name), "refused": name in refused,
            "place": place if "caption" in names else "plain", "disabled": not useful.get(name, True),
            "options": [(said, value) for value, said in choices.get(name, {}).items()],
            "kind": "choice" if name in choices else type(getattr(state, name)).__name__,
            **({"min": 1, "max": session.depth, "step": 1} if name == "layers" else {}),
        }
        for name, (place, label, text) in CONTROLS.items()
        if name in names
    ]  # fmt: skip


def painted(state: State, panel: Panel) -> Image.Image:
    """The map on the image.

    Args:
        state: says how it is drawn.
        panel: has the map.
    """
    return paint(panel.explanation.image, panel.map, box=panel.explanation.box, **_drawn(state, panel))


def _drawn(state: State, panel: Panel) -> dict[str, Any]:
    """The arguments of `paint` that a state asks for."""
    display = {name: getattr(state, name) for name in DISPLAY}
    return {"signed": panel.signed, "vmax": float(panel.scale), **display}


def subtitle(state: State, panel: Panel) -> str:
    """Which image, number, method, settings and model made a panel, in one line.

    Args:
        state: that was asked for.
        panel: one of those that answer it.
    """
    explanation, provenance = panel.explanation, panel.explanation.provenance
    parts = [f"image: {state.source.name}", f"similarity {explanation.similarity[0]:.3f}"]
    if explanation.against_similarity is not None:
        parts[-1] += f", gap {explanation.similarity[0] - explanation.against_similarity[0]:+.3f}"
    layers = provenance.get("image_layers") or state.layers
    parts += [explanation.origin, "last layer" if layers == 1 else f"last {layers} layers"]
    if provenance.get("centred"):
        parts.append("less what the nouns share")
    if state.resolution == "native":
        parts.append("the image's own resolution")
    return " · ".join(parts).replace("-0.", "\N{MINUS SIGN}0.")


def summary(view: View) -> str:
    """What each panel shows, in one line.

    Args:
        view: has one panel or two.
    """
    return "; ".join(f"{panel.subject}: {subtitle(view.state, panel)}" for panel in view.panels)


def _scale_in_words(state: State, panel: Panel) -> str:
    """The range of the colours, and what the threshold leaves out."""
    sentence = range_in_words("relevance", panel.signed, panel.scale, panel.note, state.colours)
    if state.threshold and panel.scale:
        least = number(state.threshold * panel.scale, panel.scale)
        sentence += f"; no colour below {least} ({state.threshold:.0%} of it)"
    return sentence


def dependence(view: View) -> str:
    """Whether the maps depend on the caption, one sentence a method.

    Args:
        view: of a state with `dependence`; else there is nothing to say.
    """
    asked = f"the map of “{view.state.caption}” differs from those of {NULLS} other prompts"
    told = [
        f"By {METHODS[panel.method].title} {asked} by {{:.2f}} [{{:.2f}}, {{:.2f}}].".format(*panel.dependence)
        for panel in view.panels
        if panel.dependence is not None
    ]
    if told:
        told.append(
            "0 would be the same map whatever is asked, 1 maps that have nothing in common. (The other prompts have "
            "other nouns, and one is empty; 1 less the mean correlation over patches, 95 % interval.)"
        )
    return " ".join(told)


def payload(view: View) -> dict:
    """Everything that `front/view.js` shows of a view: image, maps, words, match and verdict, as JSON has them.

    Args:
        view: what was found.
    """
    state, first = view.state, view.panels[0]
    whole, sides = first.whole, [_side(state, panel, len(view.panels) > 1) for panel in view.panels]
    match: list[dict[str, Any]] = [{"name": "similarity", "value": float(whole.similarity[0])}]
    more: dict[str, Any] = {}
    if view.before is not None:
        match[0]["name"] += f", {state.source.change}"
        match.append({"name": "as it was before", "value": float(view.before.similarity[0])})
    if whole.against_similarity is not None:
        match.append({"name": "to the other one", "value": float(whole.against_similarity[0])})
        more["axis"] = ["for the other caption", "for this caption"]
        more["others"] = word_rows(whole.against_words[0] if whole.against_words else ())
    words = whole.words[0] or first.words
    return page_view(
        sides, words, whole.image, whole.box, match=match, verdict=verdicts(view),
        words_of="relevance of each word" if whole.words[0] else first.words_of, phrase=state.phrase,
        patch=state.patch, alt=state.source.name, dependence=dependence(view), **more,
        **{name: getattr(state, name) for name in DISPLAY},
    )  # fmt: skip


def _side(state: State, panel: Panel, named: bool) -> dict:
    """One map of a view, with the map of each word where the method has it."""
    alone = bool(state.phrase) and panel.regions is None  # the method read the phrase by itself
    shown = panel.explanation if alone else panel.whole
    signed = panel.signed if alone else bool(panel.whole.against)
    subject = panel.subject if alone else f"“{state.caption}”" + (" rather than the other" if signed else "")
    by = f"{METHODS[panel.method].title}, " if named or panel.method != GRAD_ECLIP else ""
    most = {"scale": panel.scale} if not state.phrase else {}
    each = largest([panel.regions]) if state.shared and panel.regions is not None else 0.0
    return side(
        shown.image_maps[0], by + subject, signed, by=by, origin=subtitle(state, panel), note=panel.note,
        regions=panel.regions, columns=panel.columns, region_scale=each, **most,
    )  # fmt: skip


def verdicts(view: View) -> dict:
    """Sentences about the map of the whole caption ("all"), of each word ("words"), and of the chosen "phrase".

    Args:
        view: its first panel is told of.
    """
    state, panel = view.state, view.panels[0]
    said, spans = partial(verdict.sentence, state.source.scene), [(word.start, word.end) for word in panel.words]
    caption, whole, regions = state.caption, panel.whole, () if panel.regions is None else panel.regions
    found: dict[str, Any] = {"all": said(whole.image_maps[0], caption), "phrase": ""}
    found["words"] = [said(region, caption, *span) for region, span in zip(regions, spans, strict=False)]
    if state.phrase:
        found["phrase"] = said(panel.map, caption, spans[state.phrase[0]][0], spans[state.phrase[1]][1])
    if whole.against_similarity is not None:
        gap = float(whole.similarity[0] - whole.against_similarity[0])
        which = "this caption" if gap > 0 else "the other caption"
        found["all"] = f"The model prefers {which}, by {abs(gap):.3f}. What speaks for this one: {found['all']}"
    return found


def variables() -> dict[str, Clip]:
    """The models that a notebook's variables hold, by their names."""
    held = dict(getattr(get_ipython(), "user_ns", {}))
    return {name: value for name, value in held.items() if isinstance(value, Clip) and not name.startswith("_")}


def model_line(clip: Clip) -> str:
    """The line of Python that gives a model.

    Args:
        clip: it; one that is neither bundled, nor open_clip's, nor a variable of the notebook, is left to be filled in.
    """
    if clip.name in BUNDLED_MODELS and clip.pretrained == "bundled":
        return f"clip = load_clip({clip.name!r})"
    for name, value in variables().items():
        if value is clip:
            return f"clip = {name}  # the model that this notebook has under that name"
    if clip.name in open_clip.list_models() and clip.pretrained:
        return f"clip = load_clip({clip.name!r}, pretrained={clip.pretrained!r})"
    return f"clip = ...  # the model {clip.name!r} that you gave to explore()"


def python_lines(view: View, model: str) -> str:
    """A script that computes the first panel again and paints it: `map_` (h, w) and `painting`, an image.

    Args:
        view: what it shows.
        model: the line that gives the model, as `model_line` says it.
    """
    state, panel = view.state, view.panels[0]
    explanation, options = panel.explanation, settings(state, panel.method)
    options |= {name: repr(value) for name, value in options.items()}
    if options["method"] != repr(panel.method):
        options["method"] = f"with_spatial_weight({state.spatial!r})"
    words = f"explainer.maps(image, explainer.word_directions({state.caption!r})[1])[0].float().cpu().numpy()"
    maps = "explanation.image_maps[0]"
    if state.phrase and panel.method == GRAD_ECLIP:
        groups = list(explanation.provenance.get("centred", ()))
        regions = f"centred({words}, {groups})" if groups else words
        maps = f"{regions}[{state.phrase[0]}:{state.phrase[1] + 1}].sum(0)"
    against = f", against={state.against!r}" if explanation.against is not None else ""
    lines = [
        state.source.code,
        model,
        f"explainer = Explainer(clip, {_named(options)})",
        f"explanation = explainer.explain(image, {explanation.prompts[0]!r}{against})",
        f"map_ = {maps}  # signed relevance of each patch",
    ]
    if state.patch and panel.method == GRAD_ECLIP:
        lines.append(f"scores = {words}[:, {state.patch[0]}, {state.patch[1]}]  # of the words at one patch")
    if state.dependence:
        asked = f"(image, {state.caption!r})"
        lines.append(f"dependence = explainer.explain{asked}.prompt_dependence(explainer.null_maps{asked})")
    drawn = {name: repr(value) for name, value in _drawn(state, panel).items()}
    lines.append(f"painting = paint(explanation.image, map_, box=explanation.box, {_named(drawn)})")
    imports = []
    for module, names in _IMPORTS.items():
        if called := [name for name in names if any(f"{name}(" in line for line in lines)]:
            imports.append(f"from gradeclip_utils{module} import {', '.join(called)}")
    return "\n".join([*imports, "", *lines, "painting"]) + "\n"


def _named(options: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


_IMPORTS = {
    "": ("Explainer", "load_clip", "read_image"),
    ".methods.interactions": ("centred",),
    ".methods.registry": ("with_spatial_weight",),
    ".plots": ("paint",),
    ".scenes": ("Object", "Scene", "Span", "arrange", "draw_scene", "recoloured", "without"),
}  # of a script, by the module of the package


def figure(view: View) -> InlineFigure:
    """The view as a static figure: verdict, image, and each panel with its title, shaded words, and what both are.

    Args:
        view: what was found.
    """
    state, image = view.state, view.state.source.image
    side, room = (3.0, 4.0) if len(view.panels) == 1 else (2.3, 2.6)  # inches
    width, height = (side * pixels / max(image.size) for pixels in image.size)
    across, told = 0.2 + width + len(view.panels) * room, verdicts(view)
    over = _folded(told["phrase"] or told["all"], HEADLINE, 5)
    made = InlineFigure(across, height + 1.5, f"{' '.join(over.split())}: {summary(view)}")
    made.text(0.1 / across, 1, over, va="bottom", fontsize=10, parse_math=False)
    show_image(axes_at(made, 0.1, 0.4, width, height), image, "image")
    for i, panel in enumerate(view.panels):
        x, most = 0.3 + width + i * room, panel.words_scale
        title = _folded(panel.subject, int(room * 12.5), 2)
        show_image(axes_at(made, x, 0.4, width, height), painted(state, panel), title)
        said = range_in_words(panel.words_of, True, most) if most else panel.words_of
        notes = (said, _scale_in_words(state, panel), subtitle(state, panel))
        note = "\n".join(_folded(text, int(room * 15), 6) for text in notes)
        below = axes_at(made, x, height + 0.5, room - 0.2, 0.9)
        draw_words(below, panel.words, signed=True, vmax=most, values=bool(most), sentence=note)
        if not panel.words:  # whose sentence stands below them
            below.text(0, 1, note, va="top", parse_math=False, **NOTE)
    return made


def _folded(text: str, width: int, lines: int) -> str:
    """The text in a few lines, with an ellipsis where it had to be cut."""
    return textwrap.fill(drawable(text), width, max_lines=lines, placeholder=" …")
