"""Lesson: turn a pure function ``state -> figure`` with sliders, menus and text fields.

    draw(**values) -> Figure -> panel

The same ``draw`` makes the static figure that stands beside the panel. A panel shows the figure with its alternative
text, and answers what cannot be drawn with a sentence, while the last good figure stays.
"""

import html
import inspect
import sys
from collections.abc import Callable, Sequence

import ipywidgets as w
from matplotlib.figure import Figure
from traitlets import TraitError

from ..checks import first_line, short
from ..errors import GradeclipError, heard_by
from ..models import Clip
from ..plots.figures import alternative, rendered
from ..plots.page import image_tag
from .explorer import Explorer
from .jobs import ANSWERS, sentence

_BOX = (
    "padding:5px 9px;overflow-wrap:anywhere;background:var(--jp-layout-color2,#eee);"
    "color:var(--jp-ui-font-color1,#000);border-left:4px solid var({colour})"
)
_WRONG, _NOTE = "--jp-warn-color1,#f57c00", "--jp-info-color1,#0288d1"


class FigurePanel(w.VBox):
    """A panel that shows ``draw(**values)`` and draws again when a control is turned.

        panel(draw, noun=["dog", "cat"], layers=(1, 12))

    Args:
        draw: a pure function that returns a matplotlib figure.
        **controls: for each argument of draw a widget, (low, high), a list, a text or a number, as in `interact`.

    Attributes:
        controls: the widgets, by the argument that they turn.
        figure: the last good figure.
        message: what is wrong, or to be noted; "" where there is nothing to say.

    Raises:
        GradeclipError: the controls are not the arguments of draw, or draw returns no figure.
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
        self.figure, self.message, self._muted = None, "", False
        self.answer, self.image = w.HTML(), w.HTML()
        flow = w.Layout(flex_flow="row wrap", grid_gap="0 12px")
        super().__init__(children=(w.Box(tuple(self.controls.values()), layout=flow), self.answer, self.image))
        self.add_class("gradeclip-panel")
        self._draw_values()
        for control in self.controls.values():
            control.observe(lambda _: self._turned(), "value")

    @property
    def values(self) -> dict:
        """Return what the controls say now; what is shown may be the last good values before."""
        return {name: control.value for name, control in self._given.items()}

    def change(self, **values) -> None:
        """Turn controls, and draw once."""
        if unknown := values.keys() - self.controls.keys():
            msg = f"there is no control {', '.join(sorted(unknown))}; there are {', '.join(self.controls)}"
            raise GradeclipError(msg)
        before, self._muted = self.values, True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        except (TraitError, TypeError, ValueError) as error:  # of the widget: all controls stay as they were
            for done in values:
                self.controls[done].value = before[done]
            return self._say(f"{name} cannot be {short(value)}: {first_line(error)}.", _WRONG)
        finally:
            self._muted = False
        return self._turned()

    def __repr__(self) -> str:
        return f"a panel (turn {', '.join(self.controls)}) that shows: {alternative(self.figure)}"

    def _turned(self) -> None:
        """Draw what the controls say; what cannot be drawn is answered, and the last figure stays."""
        if self._muted:
            return
        self._say("Working ...", _NOTE)
        try:
            self._draw_values()
        except ANSWERS as error:
            self._say(f"{sentence(error)}. The panel still shows the last figure.", _WRONG)
        except BaseException as error:  # a fault of the lesson
            self._say(f"{sentence(error)}.", _WRONG)
            raise

    def _draw_values(self) -> None:
        notes: list[str] = []
        with heard_by(lambda warning: notes.append(f"{warning.rstrip('.')}.")):
            figure = self._draw(**self.values)
        if not isinstance(figure, Figure):
            raise GradeclipError(f"draw must return a matplotlib figure, got {type(figure).__name__}")
        image = rendered(figure)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(figure)
        self.figure, self.image.value = figure, image_tag(image, alternative(figure))
        self._say(" ".join(dict.fromkeys(notes)), _NOTE)

    def _say(self, text: str, colour: str) -> None:
        role, style = ("alert" if colour == _WRONG else "status"), _BOX.format(colour=colour)
        answer = f'<div class="gradeclip-message" role="{role}" style="{style}">{html.escape(text)}</div>'
        self.message, self.answer.value = text, answer if text else ""


panel = FigurePanel  # as a lesson calls it


def opening(image, captions: Sequence[str], clip: Clip | None = None) -> Explorer:
    """Return `explore` with captions to press."""
    return Explorer(image, None, clip, captions=captions)


def _control(name: str, given) -> w.Widget:
    """Return the widget that turns one argument."""
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
