"""Explorer view: what a session found, and all that is shown of it: for the browser, as Python, as a figure.

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

Whatever is shown says what it is: the title comes from the view itself, never from a control that may have moved on.
What is seen is linear in the value, and the numbers stand in the labels of the words and in the tables.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import open_clip
from IPython import get_ipython

from ..explanation import Explanation
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip
from ..plots import InlineFigure
from ..plots.colours import largest, shown
from ..plots.drawing import Drawing, of_explanation, title_of
from ..plots.figures import draw
from ..plots.page import side, word_rows
from ..plots.page import view as page_view
from ..words import Word
from . import verdict
from .state import DISPLAY, GRAD_ECLIP, NULLS, State, settings

_IMPORTS = {
    "": ("Explainer", "load_clip", "read_image"),
    ".methods.interactions": ("centred",),
    ".methods.registry": ("with_spatial_weight",),
    ".plots": ("paint",),
    ".scenes": ("Object", "Scene", "Span", "arrange", "draw_scene", "recoloured", "without"),
}  # of a script, by the module of the package
_DEPENDENCE = (
    "0 would be the same map whatever is asked, 1 maps that have nothing in common. (The other prompts have other "
    "nouns, and one is empty; 1 less the mean correlation over patches, 95 % interval.)"
)


@dataclass(frozen=True, eq=False)
class Panel:
    """What one method found: numbers, nothing drawn."""

    method: str  # key in METHODS
    explanation: Explanation  # of the caption, of a phrase in it, or of the phrase read alone: the map that is shown
    whole: Explanation  # of the caption
    regions: np.ndarray | None  # (W, h, w), of each word; None where the method does not tell words apart
    columns: np.ndarray | None  # (W, h, w), what each patch says of each word, by Grad-ECLIP; None without words
    subject: str  # what the map is of
    words: tuple[Word, ...]  # of the caption, with the scores that shade them
    words_of: str  # what these scores, which are signed, are
    words_scale: float  # the value of the darkest colour
    signed: bool  # whether what is negative is shown
    scale: float  # the value of the darkest colour of the map
    note: str  # what that is
    dependence: tuple[float, float, float] | None = None  # of the caption's map on it, where asked: `prompt_dependence`

    @property
    def map(self) -> np.ndarray:
        """(h, w), signed, on the token grid."""
        return self.explanation.image_maps[0]


@dataclass(frozen=True, eq=False)
class View:
    """The answer to a state: one panel, or two with a method beside; and what it was before something was changed."""

    state: State
    panels: tuple[Panel, ...]
    before: Explanation | None = None  # of the same caption on `Source.before`

    def _subtitle(self, panel: Panel) -> str:
        """Which image, number, method, settings and model made a panel, in one line."""
        explanation, provenance = panel.explanation, panel.explanation.provenance
        parts = [f"image: {self.state.source.name}", f"similarity {explanation.similarity[0]:.3f}"]
        if explanation.against_similarity is not None:
            parts[-1] += f", gap {explanation.similarity[0] - explanation.against_similarity[0]:+.3f}"
        layers = provenance.get("image_layers") or self.state.layers
        parts += [explanation.origin, "last layer" if layers == 1 else f"last {layers} layers"]
        if provenance.get("centred"):
            parts.append("less what the nouns share")
        if self.state.resolution == "native":
            parts.append("the image's own resolution")
        return " · ".join(parts).replace("-0.", "\N{MINUS SIGN}0.")

    def __repr__(self) -> str:
        return "; ".join(f"{panel.subject}: {self._subtitle(panel)}" for panel in self.panels)

    @property
    def dependence(self) -> str:
        """Whether the maps depend on the caption, one sentence a method; "" if that was not asked."""
        asked, told = f"the map of “{self.state.caption}” differs from those of {NULLS} other prompts", ""
        for panel in self.panels:
            if panel.dependence:
                mean, low, high = panel.dependence
                told += f"By {METHODS[panel.method].title} {asked} by {mean:.2f} [{low:.2f}, {high:.2f}]. "
        return told and told + _DEPENDENCE

    @property
    def verdicts(self) -> dict[str, Any]:
        """Sentences about the first map of the whole caption ("all"), of each word ("words"), of a chosen "phrase"."""
        state, panel = self.state, self.panels[0]
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

    def payload(self) -> dict:
        """Everything that `front/view.js` shows: image, maps, words, match and verdict, as JSON has them."""
        state, whole = self.state, self.panels[0].whole
        match: list[dict[str, Any]] = [{"name": "similarity", "value": float(whole.similarity[0])}]
        more: dict[str, Any] = {name: getattr(state, name) for name in (*DISPLAY, "phrase", "patch")}
        if self.before is not None:
            match[0]["name"] += f", {state.source.change}"
            match.append({"name": "as it was before", "value": float(self.before.similarity[0])})
        if whole.against_similarity is not None:
            match.append({"name": "to the other one", "value": float(whole.against_similarity[0])})
            more["axis"] = ["for the other caption", "for this caption"]
            more["others"] = word_rows(whole.against_words[0] if whole.against_words else ())
        if not whole.words[0]:
            more["words_of"] = self.panels[0].words_of
        return page_view(
            [self._side(panel) for panel in self.panels], whole.words[0] or self.panels[0].words, whole.image,
            whole.box, match=match, verdict=self.verdicts, alt=state.source.name, dependence=self.dependence, **more,
        )  # fmt: skip

    def _side(self, panel: Panel) -> dict:
        """One map, with the map of each word where the method has it."""
        state, alone = self.state, bool(self.state.phrase) and panel.regions is None  # it read the phrase by itself
        shown = panel.explanation if alone else panel.whole
        signed = panel.signed if alone else bool(panel.whole.against)
        subject = panel.subject if alone else f"“{state.caption}”" + (" rather than the other" if signed else "")
        named = len(self.panels) > 1 or panel.method != GRAD_ECLIP
        by = f"{METHODS[panel.method].title}, " if named else ""
        most = {"scale": panel.scale} if not state.phrase else {}
        each = largest([panel.regions]) if state.shared and panel.regions is not None else 0.0
        return side(
            shown.image_maps[0], by + subject, signed, by=by, origin=self._subtitle(panel), note=panel.note,
            regions=panel.regions, columns=panel.columns, region_scale=each, **most,
        )  # fmt: skip

    def python(self, model: str) -> str:
        """A script that computes the first panel again and paints it: `map_` (h, w) and `painting`, an image."""
        state, panel = self.state, self.panels[0]
        explanation = panel.explanation
        options = {name: repr(value) for name, value in settings(state, panel.method).items()}
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
        drawn = {"signed": repr(panel.signed), "vmax": repr(float(panel.scale))}
        lines.append(f"painting = paint(explanation.image, map_, box=explanation.box, {_named(drawn)})")
        imports = []
        for module, names in _IMPORTS.items():
            if called := [name for name in names if any(f"{name}(" in line for line in lines)]:
                imports.append(f"from gradeclip_utils{module} import {', '.join(called)}")
        return "\n".join([*imports, "", *lines, "painting"]) + "\n"

    def figure(self) -> InlineFigure:
        """Return what is shown as a static figure."""
        return draw([self.drawing])

    @property
    def drawing(self) -> Drawing:
        """Return the description of what is shown: a panel a method."""
        panels = []
        for one in self.panels:
            first = of_explanation(one.whole)
            subject = one.subject if self.state.phrase or self.state.patch else METHODS[one.method].title
            cells = first.panels[0].cells if len(self.panels) == 1 else title_of((), subject)
            panels.append(replace(first.panels[0], cells=cells, map=shown(one.map, one.signed), scale=one.scale))
        return replace(first, panels=tuple(panels), signed=self.panels[0].signed, origin=self._subtitle(self.panels[0]))


def variables() -> dict[str, Clip]:
    """The models that a notebook's variables hold, by their names."""
    held = dict(getattr(get_ipython(), "user_ns", {}))
    return {name: value for name, value in held.items() if isinstance(value, Clip) and not name.startswith("_")}


def model_line(clip: Clip) -> str:
    """The line of Python that gives a model."""
    if clip.name in BUNDLED_MODELS and clip.pretrained == "bundled":
        return f"clip = load_clip({clip.name!r})"
    for name, value in variables().items():
        if value is clip:
            return f"clip = {name}  # the model that this notebook has under that name"
    if clip.name in open_clip.list_models() and clip.pretrained:
        return f"clip = load_clip({clip.name!r}, pretrained={clip.pretrained!r})"
    return f"clip = ...  # the model {clip.name!r} that you gave to explore()"


def _named(options: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
