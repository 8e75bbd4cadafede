"""Lesson: turn a function that draws a figure with sliders, menus and text fields.

draw(**values) -> Figure -> Panel
"""

import html
import inspect
from collections.abc import Callable

import ipywidgets as widgets
from matplotlib.figure import Figure

from ..errors import GradeclipError, heard_by, short
from ..plots.figures import alternative, figure_tag

_MESSAGE = (
    '<div class="gradeclip-message" role="{role}" style="padding:5px 9px;overflow-wrap:anywhere;'
    "background:var(--jp-layout-color2,#eee);color:var(--jp-ui-font-color1,#000);"
    'border-left:4px solid var({colour})">{text}</div>'
)
_WRONG = {"role": "alert", "colour": "--jp-warn-color1,#f57c00"}
_NOTE = {"role": "status", "colour": "--jp-info-color1,#0288d1"}


class Panel(widgets.VBox):
    """The widget that `panel` gives: ``draw(**values)``, drawn again when a control is turned.

    If `draw` raises a `ValueError`, the panel shows its message and keeps the last figure.

    Attributes:
        controls: the widgets, by the argument that they turn.
        figure: the last figure.
        message: an error or a warning; "" if there is none.
    """

    def __init__(self, draw: Callable[..., Figure], **controls):
        self._draw = draw
        self.controls = {name: _control(name, values) for name, values in controls.items()}
        self.figure: Figure | None = None
        self.message = ""
        self._answer = widgets.HTML()
        self._image = widgets.HTML()
        try:
            inspect.signature(draw).bind(**self.controls)
        except TypeError as error:
            names = ", ".join(controls) or "none"
            msg = f"the controls ({names}) are not the arguments of draw: {error}"
            raise GradeclipError(msg) from error

        layout = widgets.Layout(flex_flow="row wrap", grid_gap="0 12px")
        row = widgets.Box(tuple(self.controls.values()), layout=layout)
        super().__init__(children=(row, self._answer, self._image))
        self._show()
        for control in self.controls.values():
            control.observe(lambda _: self._turned(), "value")

    def __repr__(self) -> str:
        return f"a panel (turn {', '.join(self.controls)}) that shows: {alternative(self.figure)}"

    def _repr_mimebundle_(self, **options):
        """The widget and, for a page without a kernel, its figure."""
        # In ipywidgets 7 a widget displays itself, and this method is not called.
        widget = getattr(super(), "_repr_mimebundle_", lambda **_: {})
        return widget(**options) | {"text/html": self._image.value}

    def _turned(self) -> None:
        """Draw again. A wrong value is answered in words."""
        self._say("Working ...", _NOTE)
        try:
            self._show()
        except ValueError as error:
            self._say(f"{str(error).rstrip('.')}. The panel still shows the last figure.", _WRONG)
        except Exception as error:  # a fault of draw, which a lesson's author wants to see
            self._say(f"{type(error).__name__}: {error}", _WRONG)
            raise

    def _show(self) -> None:
        """Draw the figure of the controls' values."""
        notes: list[str] = []
        values = {name: control.value for name, control in self.controls.items()}
        with heard_by(notes.append):
            figure = self._draw(**values)
        if not isinstance(figure, Figure):
            kind = type(figure).__name__
            raise GradeclipError(f"draw must return a matplotlib figure, got {kind}")
        self.figure = figure
        self._image.value = figure_tag(figure)
        self._say(" ".join(f"{note.rstrip('.')}." for note in dict.fromkeys(notes)), _NOTE)

    def _say(self, text: str, look: dict[str, str]) -> None:
        """Show a message above the figure."""
        self.message = text
        self._answer.value = _MESSAGE.format(text=html.escape(text), **look) if text else ""


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


def _control(name: str, values) -> widgets.Widget:
    """The widget of an argument, which redraws when it is released."""
    control = widgets.interactive.widget_from_abbrev(values)
    if control is None:
        msg = (
            f"{name}={short(values)} makes no control: "
            "give a widget, (low, high), a list, a text or a number"
        )
        raise GradeclipError(msg)
    if control is not values and hasattr(control, "continuous_update"):
        control.continuous_update = False  # a model runs behind it
    if hasattr(control, "description"):
        control.description = control.description or name.replace("_", " ")
        # Without a tooltip the browser says "null". ipywidgets 7 has `description_tooltip`.
        tooltip = "tooltip" if hasattr(control, "tooltip") else "description_tooltip"
        setattr(control, tooltip, control.description)
    return control
