"""Explorer view: what a session found, and all that is shown of it: as a drawing, for the browser, as Python.

architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import open_clip
from IPython import get_ipython

from ..explanation import Explanation
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip
from ..plots.colours import largest, shown
from ..plots.drawing import Drawing, Panel, Shade, of_explanation, title_of
from ..plots.page import payload
from . import verdict
from .state import GRAD_ECLIP, State, settings

_IMPORTS = {
    "": ("Explainer", "load_clip", "read_image"),
    ".methods.interactions": ("centred",),
    ".plots": ("paint",),
    ".scenes": ("Object", "Scene", "Span", "arrange", "draw_scene", "first_scenes", "recoloured", "without"),
}  # of a script, by the module of the package


@dataclass(frozen=True, eq=False)
class View:
    """The answer to a state: numbers, nothing drawn."""

    state: State
    explanation: Explanation | None  # of the whole caption; None if there is no caption
    map: np.ndarray  # (h, w), signed, on the token grid: of the caption, or of a phrase in it
    regions: np.ndarray | None  # (W, h, w), of each word; None where the method does not tell words apart
    columns: np.ndarray | None  # (W, h, w), the same before the nouns are told apart: the words of each patch
    signed: bool  # whether what is negative is shown
    scale: float  # the value of the darkest colour
    groups: tuple = ()  # words that are told apart, where the map depends on it

    @property
    def subject(self) -> str:
        """Return what the map is of."""
        if self.state.phrase:
            return f"“{self.said}” in “{self.state.caption}”"
        return f"“{self.state.caption}”" + (f" rather than “{self.state.against}”" if self.state.against else "")

    @property
    def said(self) -> str:
        """Return the phrase that is chosen, or the caption."""
        if not self.state.phrase:
            return self.state.caption
        assert self.explanation is not None  # a phrase belongs to a caption
        words = self.explanation.words[0]
        return self.state.caption[words[self.state.phrase[0]].start : words[self.state.phrase[1]].end]

    def __repr__(self) -> str:
        if self.explanation is None:
            return "an image without a caption"
        return f"{self.subject}, similarity {self.explanation.similarity[0]:.2f}, {self.explanation.origin}"

    def drawing(self, patch: bool = True) -> Drawing:
        """Return the description of what is shown; with a patch chosen, its words have the scores of the patch."""
        if self.explanation is None:
            return Drawing(self.state.source.image, None, ())
        made = of_explanation(self.explanation)
        panel = replace(made.panels[0], map=shown(self.map, self.signed), scale=self.scale)
        if patch and self.state.patch and self.columns is not None:
            row, column = self.state.patch
            words = zip(self.explanation.words[0], self.columns[:, row, column], strict=True)
            panel = replace(panel, cells=title_of([replace(word, score=float(score)) for word, score in words], ""))
            made = replace(made, word_scale=largest([self.columns]))
        return replace(made, panels=(panel,), signed=self.signed)

    @property
    def sentences(self) -> dict[str, Any]:
        """Return a sentence about the map of the whole caption ("all"), of each word ("words"), of a "phrase"."""
        scene, caption = self.state.source.scene, self.state.caption
        if self.explanation is None:
            return {}
        spans = [(word.start, word.end) for word in self.explanation.words[0]]
        regions = () if self.regions is None else self.regions
        found: dict[str, Any] = {"all": verdict.sentence(scene, self.explanation.image_maps[0], caption), "phrase": ""}
        pairs = zip(regions, spans, strict=False)
        found["words"] = [verdict.sentence(scene, one, caption, *span) for one, span in pairs]
        if self.state.phrase:
            first, last = self.state.phrase
            found["phrase"] = verdict.sentence(scene, self.map, caption, spans[first][0], spans[last][1])
        return found

    def payload(self, pinned: "View | None" = None) -> dict:
        """Return everything that `front/view.js` shows, as JSON has it; a pinned view stands beside this one."""
        if self.explanation is None:
            return payload(self.drawing(), sentences={})
        whole = replace(self, map=self.explanation.image_maps[0], signed=bool(self.state.against), scale=0.0)
        whole = replace(whole, scale=largest([shown(whole.map, whole.signed)]))
        drawn = whole.drawing(patch=False) if pinned is None else compared(whole, pinned)
        more = {"phrase": self.state.phrase, "patch": self.state.patch, "sentences": self.sentences}
        return payload(drawn, self.regions, self.columns, **more)

    def python(self, model: str) -> str:
        """Return a script that computes the map again and paints it: `map_` (h, w) and `painting`, an image."""
        state = self.state
        options = {name: repr(value) for name, value in settings(state, state.method).items()}
        words = f"explainer.maps(image, explainer.word_directions({state.caption!r})[0][1])[0].float().cpu().numpy()"
        maps = "explanation.image_maps[0]"
        if state.phrase and state.method == GRAD_ECLIP:
            regions = f"centred({words}, {list(self.groups)})" if self.groups else words
            maps = f"{regions}[{state.phrase[0]}:{state.phrase[1] + 1}].sum(0)"
        against = f", against={state.against!r}" if state.against else ""
        lines = [
            state.source.code,
            model,
            f"explainer = Explainer(clip, {', '.join(f'{name}={value}' for name, value in options.items())})",
            f"explanation = explainer.explain(image, {state.caption!r}{against})",
            f"map_ = {maps}  # signed relevance of each patch",
        ]
        if state.patch:
            lines.append(f"scores = {words}[:, {state.patch[0]}, {state.patch[1]}]  # of the words at one patch")
        drawn = f"signed={self.signed}, vmax={float(self.scale)!r}"
        lines.append(f"painting = paint(explanation.image, map_, box=explanation.box, {drawn})")
        imports = []
        for module, names in _IMPORTS.items():
            if called := [name for name in names if any(f"{name}(" in line for line in lines)]:
                imports.append(f"from gradeclip_utils{module} import {', '.join(called)}")
        return "\n".join([*imports, "", *lines, "painting"]) + "\n"


def compared(view: View, pinned: View) -> Drawing:
    """Return a view, a pinned one beside it, and the difference of their maps, each divided by its largest value."""
    drawings = [one.drawing(patch=False) for one in (view, pinned)]
    panels = [_named(drawings[0].panels[0], view, pinned), _named(drawings[1].panels[0], pinned, view)]
    alike = all(getattr(view.state, name) == getattr(pinned.state, name) for name in ("model", "method"))
    if alike:  # the same units
        top = max(panel.scale for panel in panels)
        panels = [replace(panel, scale=top) for panel in panels]
    if view.map.shape == pinned.map.shape:
        one, other = (np.asarray(panel.map) / (panel.scale or 1) for panel in panels)
        cells = tuple((Shade(word), None) for word in ("first", "map", "minus", "second"))
        panels.append(Panel("the first map minus the second", cells, one - other, largest([one - other])))
    words = max(one.word_scale for one in drawings)
    return replace(drawings[0], panels=tuple(panels), word_scale=words, signed=True, shared=False)


def _named(panel: Panel, view: View, other: View) -> Panel:
    """Return a panel whose title also tells the model and the method, where they differ from those of another view."""
    state, more = view.state, []
    if state.model != other.state.model:
        more.append(state.model)
    if state.method != other.state.method:
        more.append(METHODS[state.method].title)
    return replace(panel, cells=panel.cells + tuple((Shade(f"· {name}", None, True), None) for name in more))


def variables() -> dict[str, Clip]:
    """Return the models that a notebook's variables hold, by their names."""
    held = dict(getattr(get_ipython(), "user_ns", {}))
    return {name: value for name, value in held.items() if isinstance(value, Clip) and not name.startswith("_")}


def model_line(clip: Clip) -> str:
    """Return the line of Python that gives a model."""
    if clip.name in BUNDLED_MODELS and clip.pretrained == "bundled":
        return f"clip = load_clip({clip.name!r})"
    for name, value in variables().items():
        if value is clip:
            return f"clip = {name}  # the model that this notebook has under that name"
    if clip.name in open_clip.list_models() and clip.pretrained:
        return f"clip = load_clip({clip.name!r}, pretrained={clip.pretrained!r})"
    return f"clip = ...  # the model {clip.name!r} that you gave to explore()"
