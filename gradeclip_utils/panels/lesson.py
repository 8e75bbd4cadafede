"""Lesson: turn a pure function ``state -> figure`` with sliders, menus and text fields. For the lessons.

    session, lessons -> draw(**values) -> Figure -> panel

The same ``draw`` makes the static figure that stands beside the panel. A panel adds nothing to what is drawn but what
`InlineFigure.points` say under the mouse: it hands over values, shows the figure with its alternative text, says which
values are shown, and answers what cannot be drawn with a sentence, while the last good figure stays.
"""

import html
import inspect
import io
import sys
import threading
import time
from asyncio import TimerHandle
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import ipywidgets as w
from matplotlib.figure import Figure
from PIL import Image
from traitlets import TraitError

from ..checks import first_line, short
from ..errors import GradeclipError
from ..models import Clip
from ..notices import heard_by
from ..plots.figures import alternative, small_png
from ..plots.page import image_tag
from .explorer import Explorer
from .jobs import Work, running_loop, sentence

_PAUSE = 0.03  # seconds without another change before a panel redraws, so that a burst of changes costs one figure
_BOX = (
    "padding:5px 9px;line-height:1.4;overflow-wrap:anywhere;background:var(--jp-layout-color2,#eee);"
    "color:var(--jp-ui-font-color1,#000);border-left:4px solid var({colour})"
)
_WRONG, _NOTE = "--jp-warn-color1,#f57c00", "--jp-info-color1,#0288d1"


class FigurePanel(w.VBox):
    """A panel that shows ``draw(**values)`` and draws again when a control is turned.

    Attributes:
        controls: the widgets, by the argument that they turn.
        figure: the last good figure, or whatever ``draw`` gave.
        seconds: how long drawing took, down to what is sent to the browser.
        message: what is wrong, or to be noted; "" where there is nothing to say.
        answer, image, status: the widgets that say the message, show the figure, and say what is shown, or how far a
            long drawing is.
    """

    def __init__(self, draw: Callable[..., Figure], **controls):
        self._draw, self._given = draw, {name: _control(name, given) for name, given in controls.items()}
        self.controls = {name: made for name, made in self._given.items() if not isinstance(made, w.fixed)}
        try:
            inspect.signature(draw).bind(**self.values)
        except TypeError as error:
            msg = f"the controls ({', '.join(controls) or 'none'}) are not the arguments of draw: {error}"
            raise GradeclipError(msg) from error
        if not self.controls:
            raise GradeclipError("a panel needs at least one control to turn")
        self.figure, self.seconds, self.message = None, 0.0, ""
        self._work, self._drawing, self._muted = Work(), threading.RLock(), False  # one figure at a time
        self._soon: TimerHandle | None = None  # of the next redraw
        self._slow = "report" in inspect.signature(draw).parameters and "report" not in controls
        self.answer, self.image, self.status = w.HTML(), w.HTML(), w.HTML()
        super().__init__(children=(_rows(self.controls), self.answer, self.image, self.status))
        self.add_class("gradeclip-panel")
        self._take(self._made())
        for control in self.controls.values():
            control.observe(lambda _: self._turned(), "value")

    @property
    def values(self) -> dict:
        """What the controls say now; what is shown may be the last good values before."""
        return {name: control.value for name, control in self._given.items()}

    def change(self, **values) -> None:
        """Turn controls, and wait for the figure."""
        if unknown := values.keys() - self.controls.keys():
            msg = f"there is no control {', '.join(sorted(unknown))}; there are {', '.join(self.controls)}"
            raise GradeclipError(msg)
        with self._work.turn:
            before, self._muted = self.values, True
            try:
                for name, value in values.items():
                    self.controls[name].value = value
            except (TraitError, TypeError, ValueError) as error:  # of the widget: all controls stay as they were
                for done in values:
                    self.controls[done].value = before[done]
                return self._refused(GradeclipError(f"{name} cannot be {short(value)}: {first_line(error)}"))
            finally:
                self._muted = False
            self._work.stop()
        self._redraw()

    def __repr__(self) -> str:
        turned = ", ".join(map(_name, self.controls.values()))
        return f"a panel (turn {turned}) that shows: {alternative(self.figure)}"

    def _turned(self) -> None:
        """A control has another value. Draw soon, and once for a burst of changes."""
        with self._work.turn:
            if self._muted:
                return
            self._work.stop()  # what it draws is not what the controls say
            if (loop := running_loop()) is not None:
                if self._soon is not None:
                    self._soon.cancel()
                self.status.value = _small("drawing …")
                self._soon = loop.call_later(_PAUSE, partial(self._redraw, quick=not self._slow))
                return
        self._redraw()  # nobody would call us back

    def _redraw(self, quick: bool = True) -> None:
        """Draw what the controls say, and show it whole or not at all, unless a newer change is heard meanwhile."""
        with self._drawing:
            self._work.start(self._made, self._take, self._refused, quick=quick)

    def _made(self, report: Callable[[float], None] | None = None) -> tuple[Figure, str, list[str], float]:
        """What the controls say: what draw gives, the same as HTML, notes, and seconds."""
        values, notes, begun = self.values, [], time.perf_counter()
        with heard_by(lambda warning: notes.append(f"{warning.rstrip('.')}.")):
            figure = self._draw(**values, **({"report": report} if self._slow and report else {}))
        if not isinstance(figure, Figure):
            raise GradeclipError(f"draw must return a matplotlib figure, got {type(figure).__name__}")
        return figure, _html(figure), notes, time.perf_counter() - begun

    def _take(self, made: tuple[Figure, str, list[str], float]) -> None:
        self.figure, self.image.value, notes, self.seconds = made
        pairs = ", ".join(f"{_name(control)} {_told(control)}" for control in self.controls.values())
        self.status.value = self._shown = _small(f"shown: {pairs}")
        self._say(" ".join(dict.fromkeys(notes)), _NOTE)

    def _refused(self, error: BaseException) -> None:
        self._say(f"{sentence(error)}. The figure is still the last one that could be drawn.", _WRONG)
        self.status.value = self._shown

    def _say(self, text: str, colour: str) -> None:
        role, style = ("alert" if colour == _WRONG else "status"), _BOX.format(colour=colour)
        answer = f'<div class="gradeclip-message" role="{role}" style="{style}">{html.escape(text)}</div>'
        self.message, self.answer.value = text, answer if text else ""


panel = FigurePanel  # as a lesson calls it


def opening(image, captions: Sequence[str], clip: Clip | None = None) -> Explorer:
    """What a lesson opens with: one image, one caption to type, and some that are ready to press."""
    return Explorer(image, captions[0], clip, controls=("caption",), captions=captions)


def _rows(controls: dict[str, w.Widget]) -> w.Box:
    """The controls in a line that wraps; those of one thing (`first`, `first_colour`) in a row of their own."""
    flow = w.Layout(flex_flow="row wrap", grid_gap="0 12px")
    things = [list(group) for _, group in groupby(controls, key=lambda name: name.split("_")[0])]
    if all(len(names) == 1 for names in things):
        return w.Box(tuple(controls.values()), layout=flow)
    for control in controls.values():  # three of them fit beside JupyterLab's own side bar
        control.layout.flex, control.layout.max_width = "1 1 220px", "300px"
    return w.VBox([w.Box([controls[name] for name in names], layout=flow) for names in things])


def _control(name: str, given) -> w.Widget:
    """The widget that turns one argument."""
    made = w.interactive.widget_from_abbrev(given)
    if made is None:
        msg = f"{name}={short(given)} makes no control: give a widget, (low, high), a list, a text or a number"
        raise GradeclipError(msg)
    if isinstance(made, w.fixed):
        return made
    if made is not given and hasattr(made, "continuous_update"):
        made.continuous_update = False  # a model runs behind it
    if hasattr(made, "description"):
        made.description = made.description or name.replace("_", " ")
        made.tooltip = made.tooltip or made.description  # without one the browser says "null"
        made.style.description_width = "110px"
    made.add_class(f"gradeclip-{name}")
    return made


def _name(control: w.Widget) -> str:
    return getattr(control, "description", "") or type(control).__name__


def _told(control: w.Widget) -> str:
    """The value of a control in words: the label where one is chosen from a list."""
    value = getattr(control, "label", control.value)
    return f"{value:.4g}" if isinstance(value, float) else f"“{value}”" if isinstance(control, w.Text) else str(value)


def _html(figure: Figure) -> str:
    """Return a figure as an image of a page."""
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return image_tag(Image.open(io.BytesIO(small_png(figure))).convert("RGB"), alternative(figure))


def _small(text: str) -> str:
    style = "color:var(--jp-ui-font-color2,#555);font:12px/1.45 var(--jp-ui-font-family,sans-serif)"
    return f'<small class="gradeclip-shown" style="{style}">{html.escape(text)}</small>'
