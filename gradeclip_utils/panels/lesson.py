"""Lesson: turn a function that draws a figure with sliders, menus and text fields.

draw(**values) -> Figure -> panel
"""

import html
import inspect
from collections.abc import Callable

import ipywidgets as w
from matplotlib.figure import Figure
from traitlets import TraitError

from ..errors import GradeclipError, heard_by, short
from ..plots.figures import alternative, figure_tag

_BOX = (
    "padding:5px 9px;overflow-wrap:anywhere;background:var(--jp-layout-color2,#eee);"
    "color:var(--jp-ui-font-color1,#000);border-left:4px solid var({colour})"
)
_WRONG, _NOTE = "--jp-warn-color1,#f57c00", "--jp-info-color1,#0288d1"


class Panel(w.VBox):
    """The widget that `panel` gives: ``draw(**values)``, drawn again when a control is turned.

    If `draw` raises a `ValueError`, the panel shows its message and keeps the last figure.

    Args:
        draw: a function that returns a matplotlib figure. **controls: for each argument of draw a
        widget, (low, high), a list, a text or a number, as in `interact`.

    Attributes:
        controls: the widgets, by the argument that they turn.
        figure: the last figure.
        message: what is wrong, or to be noted; "" where there is nothing to say.

    Raises:
        GradeclipError: the controls are not the arguments of draw, or draw returns no figure.
    """

    def __init__(self, draw: Callable[..., Figure], **controls):
        self._draw, self.controls = (
            draw,
            {name: _control(name, given) for name, given in controls.items()},
        )
        self.figure, self.message, self._answer, self._image = None, "", w.HTML(), w.HTML()
        try:
            inspect.signature(draw).bind(**self.controls)
        except TypeError as error:
            msg = f"the controls ({', '.join(controls) or 'none'}) are not the arguments of draw: {error}"
            raise GradeclipError(msg) from error
        row = w.Box(
            tuple(self.controls.values()), layout=w.Layout(flex_flow="row wrap", grid_gap="0 12px")
        )
        super().__init__(children=(row, self._answer, self._image))
        self._show()
        for control in self.controls.values():
            control.observe(lambda _: self._turned(), "value")

    def __repr__(self) -> str:
        return f"a panel (turn {', '.join(self.controls)}) that shows: {alternative(self.figure)}"

    def _repr_mimebundle_(self, **options):
        """The widget and, for a page without a kernel, its figure."""
        return super()._repr_mimebundle_(**options) | {"text/html": self._image.value}

    def _turned(self) -> None:
        self._say("Working ...", _NOTE)
        try:
            self._show()
        except ValueError as error:
            self._say(f"{str(error).rstrip('.')}. The panel still shows the last figure.", _WRONG)
        except Exception as error:  # a fault of draw
            self._say(f"{type(error).__name__}: {error}", _WRONG)
            raise

    def _show(self) -> None:
        notes: list[str] = []
        with heard_by(notes.append):
            figure = self._draw(**{name: control.value for name, control in self.controls.items()})
        if not isinstance(figure, Figure):
            raise GradeclipError(
                f"draw must return a matplotlib figure, got {type(figure).__name__}"
            )
        self.figure, self._image.value = figure, figure_tag(figure)
        self._say(" ".join(f"{note.rstrip('.')}." for note in dict.fromkeys(notes)), _NOTE)

    def _say(self, text: str, colour: str) -> None:
        role, style = ("alert" if colour == _WRONG else "status"), _BOX.format(colour=colour)
        answer = f'<div class="gradeclip-message" role="{role}" style="{style}">{html.escape(text)}</div>'
        self.message, self._answer.value = text, answer if text else ""


def panel(draw: Callable[..., Figure], **controls) -> Panel:
    """Show ``draw(**values)``, and draw again when a control is turned.

        panel(draw, noun=["dog", "cat"], layers=(1, 12))

    Args:
        draw: a function that returns a matplotlib figure.
        **controls: for each argument of `draw` a widget, (low, high), a list, a text or a number,
            as in `ipywidgets.interact`.

    Returns:
        The panel. A notebook shows it as the last line of a cell.

    Raises:
        GradeclipError: the controls are not the arguments of draw, or draw returns no figure.
    """
    return Panel(draw, **controls)


def _control(name: str, given) -> w.Widget:
    try:
        made = w.interactive.widget_from_abbrev(given)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        TraitError,
    ):  # a range upside down or without end, a sparse tensor
        made = None
    if made is None:
        msg = f"{name}={short(given)} makes no control: give a widget, (low, high), a list, a text or a number"
        raise GradeclipError(msg)
    if made is not given and hasattr(made, "continuous_update"):
        made.continuous_update = False  # a model runs behind it
    if hasattr(made, "description"):
        made.description = made.description or name.replace("_", " ")
        made.tooltip = made.tooltip or made.description  # without one the browser says "null"
    return made
