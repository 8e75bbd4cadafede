"""Controls: the few controls that ipywidgets lacks, in JavaScript of our own (`front/panes.js`).

    session -> explorer_view -> controls -> explorer

A pane gets `data` and `images` from Python and sends messages back, `{"kind": ..., ...}`. It keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w
import traitlets
from anywidget import AnyWidget

from . import explorer_view
from .state import State

_FRONT = Path(__file__).parent / "front"
_HINT = "Press a patch, and the words light up by how they match it."


class Pane(AnyWidget):
    """One of "gallery" (images to choose), "canvas" (an image with patches), "words" (buttons), "script" (to copy).

    Args:
        kind: which.
        heard: called with every message.
    """

    _esm = (_FRONT / "panes.js").read_text(encoding="utf-8")  # text, not a path: a path would be watched for changes
    _css = (_FRONT / "panes.css").read_text(encoding="utf-8")
    kind = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    images = traitlets.List(traitlets.Bytes()).tag(sync=True)  # PNG files

    def __init__(self, kind: str, heard: Callable[[dict], None] | None = None, **traits):
        super().__init__(kind=kind, **traits)
        self.add_class("gradeclip-pane")
        if heard is not None:
            self.on_msg(lambda _, message, buffers: heard(message))


class Side:
    """One method's part of the panel: title, image with patches, colour bar."""

    def __init__(self, heard):
        self.title, self.canvas, self.legend = w.HTML(), Pane("canvas", heard), w.HTML()
        self.box = w.VBox([self.title, self.canvas, self.legend], layout=w.Layout(flex="1 1 240px", max_width="440px"))

    def show(self, state: State, panel) -> None:
        """Show a panel; without one, be gone."""
        self.box.layout.display = "" if panel else "none"
        if panel is None:
            self.title.value, self.legend.value, self.canvas.images = "", "", []
            return
        self.title.value = explorer_view.title_html(state, panel)
        self.legend.value = explorer_view.legend_html(state, panel)
        self.canvas.data = {**explorer_view.canvas(state, panel), "hint": _HINT}
        self.canvas.images = [explorer_view.png(explorer_view.painted(state, panel))]
