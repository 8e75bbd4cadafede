"""Explorer view: a view's numbers as an image, as HTML, as Python and as a figure. Pure functions without a widget.

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

Whatever is shown says what it is: the title comes from the view itself, never from a control that may have moved on.
Text of the user is escaped wherever it becomes HTML. Colour is linear in the value and never the only carrier: the
numbers stand in the labels of the words, in the reading under the cursor, and in the tables.
"""

from __future__ import annotations

import html
import io
import textwrap

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..methods import Method
from ..plots import InlineFigure, axes_at, draw_words, paint
from ..plots.axes import NOTE, blank, drawable
from ..plots.colours import number, range_in_words, scale, shown, text_colour
from .state import GRAD_ECLIP, Panel, State, View, settings

UNSEEN = (
    "This is not one of the project's scenes. The bundled model was trained on drawn scenes only and has never seen a "
    "photograph: what it says here is a guess."
)


def painted(state: State, panel: Panel) -> Image.Image:
    """The map on the image, as the state wants it drawn."""
    return paint(
        panel.explanation.image, panel.map, box=panel.explanation.box, signed=panel.signed, vmax=panel.scale,
        threshold=state.threshold, opacity=state.opacity, colours=state.colours,
    )  # fmt: skip


def png(image: Image.Image, title: str = "") -> bytes:
    """The image as a PNG file, which carries ``title`` as its description. Quick rather than small."""
    buffer, information = io.BytesIO(), PngInfo()
    information.add_itxt("Description", title)
    image.save(buffer, "PNG", compress_level=1, pnginfo=information)
    return buffer.getvalue()


def subtitle(state: State, panel: Panel) -> str:
    """Which image, number, method, settings and model made a panel, in one line."""
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


def title_html(state: State, panel: Panel) -> str:
    """What is shown, and in small what made it."""
    return (
        f'<div class="gradeclip-title"><b>{html.escape(panel.subject)}</b>'
        f"<small>{html.escape(subtitle(state, panel))}</small></div>"
    )


def scale_in_words(state: State, panel: Panel) -> str:
    """The range of the colours, and what the threshold leaves out."""
    sentence = range_in_words("relevance", panel.signed, panel.scale, panel.note, state.colours)
    if state.threshold and panel.scale:
        least = number(state.threshold * panel.scale, panel.scale)
        sentence += f"; no colour below {least} ({state.threshold:.0%} of it)"
    return sentence


def legend_html(state: State, panel: Panel) -> str:
    """A colour bar with its ends, and the same in words."""
    norm, colours = scale(panel.signed, panel.scale, state.colours)
    ticks = [norm.vmin, 0, norm.vmax] if panel.signed else [0, norm.vmax / 2, norm.vmax]
    labels = "".join(f"<span>{number(tick, panel.scale) if panel.scale else ''}</span>" for tick in ticks)
    stops = ",".join(map(to_hex, colours(norm(np.linspace(norm.vmin, norm.vmax, 17)))))
    return (
        '<div class="gradeclip-legend"><div class="gradeclip-bar" '
        f'style="background:linear-gradient(90deg,{stops})">'
        f'</div><div class="gradeclip-ticks">{labels}</div><small>{scale_in_words(state, panel)}</small></div>'
    )


def word_marks(state: State, panel: Panel) -> list[dict]:
    """One dict a word: text, colours, its value, whether it is chosen, and a label for those who cannot see it."""
    first, last = state.phrase or (1, 0)
    marks = []
    for i, word in enumerate(panel.words):
        background, colour = _word_colours(word.score, panel.words_signed, panel.words_scale)
        value = number(word.score, panel.words_scale) if panel.words_scale else ""
        label = f"{word.text}: {value}, {panel.words_of}" if value else f"{word.text}: {panel.words_of}"
        marks.append({"text": word.text, "background": background, "colour": colour, "value": value,
                      "label": label, "chosen": first <= i <= last})  # fmt: skip
    return marks


def _word_colours(score: float, signed: bool, vmax: float) -> tuple[str, str]:
    """The background of a word, and the colour of its letters."""
    norm, colours = scale(signed, vmax)
    background = colours(norm(shown(score, signed)))
    return to_hex(background), text_colour(background)


def other_words_html(panel: Panel) -> str:
    """The words of the other caption of a contrast, shaded on the same scale; empty where there is none to show."""
    if not panel.others:
        return ""
    spans = []
    for word in panel.others:
        background, colour = _word_colours(word.score, True, panel.words_scale)
        style = f"background:{background};color:{colour};padding:1px 4px;border-radius:3px"
        value = number(word.score, panel.words_scale)
        spans.append(f'<span style="{style}" title="{value}">{html.escape(word.text)}</span>')
    words = f'<div class="gradeclip-line" style="line-height:1.9">{" ".join(spans)}</div>'
    return f'<div class="gradeclip-other"><small>rather than</small>{words}</div>'


def words_in_words(panel: Panel) -> str:
    """What the words' numbers are, and their range."""
    if not panel.words_scale:
        return panel.words_of
    return range_in_words(panel.words_of, panel.words_signed, panel.words_scale)


def canvas(state: State, panel: Panel) -> dict:
    """What the image's pane needs beside the image: where the patches lie, their values, and a description."""
    explanation, map_ = panel.explanation, panel.map
    width, height = explanation.image.size
    left, top, right, bottom = explanation.box
    row, column = np.unravel_index(int(np.argmax(np.abs(map_) if panel.signed else map_)), map_.shape)
    strongest = f"largest value {number(map_[row, column], panel.scale)} in row {row + 1}, column {column + 1}"
    return {
        "alt": f"{state.source.name}, with the map of {panel.subject}; {strongest}",
        "rows": map_.shape[0],
        "columns": map_.shape[1],
        "box": [left / width, top / height, (right - left) / width, (bottom - top) / height],
        "values": [number(value, panel.scale) for value in map_.ravel().tolist()],
        "patch": list(state.patch) if state.patch else None,
        "shape": width / height,
    }


def tables_html(view: View) -> str:
    """Every number that is shown in colour: the words of each panel, and its map, row by row."""
    parts = []
    for panel in view.panels:
        tables = [_word_table(panel.words, panel)]
        if panel.others:
            tables.append(_word_table(panel.others, panel))
        rows = "".join(
            f"<tr><th>{i + 1}</th>" + "".join(f"<td>{number(value, panel.scale)}</td>" for value in row) + "</tr>"
            for i, row in enumerate(panel.map.tolist())
        )
        columns = "".join(f"<th>{i + 1}</th>" for i in range(panel.map.shape[1]))
        parts.append(
            f'<div class="gradeclip-tables">{title_html(view.state, panel)}{"".join(tables)}'
            f"<table><caption>relevance of each patch, rows from the top, columns from the left</caption>"
            f"<tr><th></th>{columns}</tr>{rows}</table></div>"
        )
    return "".join(parts)


def _word_table(words, panel: Panel) -> str:
    names = "".join(f"<th>{html.escape(word.text)}</th>" for word in words)
    scores = "".join(f"<td>{number(word.score, panel.words_scale)}</td>" for word in words)
    caption = f"<caption>words: {html.escape(panel.words_of)}</caption>"
    return f"<table>{caption}<tr>{names}</tr><tr>{scores}</tr></table>"


def python_lines(view: View, model: str = "load_clip()") -> str:
    """A script that computes the first panel again and paints it: `map_` (h, w) and `painting`, an image.

    Args:
        view: what is shown.
        model: the expression that gives the model; a variable's name for a model in hand.
    """
    state, panel = view.state, view.panels[0]
    explanation = panel.explanation
    usual = settings(State(state.source, ""), panel.method) | {"method": GRAD_ECLIP}
    options = {name: value for name, value in settings(state, panel.method).items() if value != usual[name]}
    if isinstance(options.get("method"), Method):
        options["method"] = _Code(f"with_spatial_weight({state.spatial!r})")
    prompt, groups = explanation.prompts[0], list(explanation.provenance.get("centred", ()))
    words = f"explainer.interactions(image, {state.caption!r}).maps"
    if "method" in options:  # interactions are those of Grad-ECLIP's own weight
        words = f"explainer.maps(image, explainer.word_directions({state.caption!r})[1])[0].numpy()"
    maps = "explanation.image_maps[0]"
    if state.phrase and panel.method == GRAD_ECLIP:
        regions = f"centred({words}, {groups})" if groups else words
        maps = f"{regions}[{state.phrase[0]}:{state.phrase[1] + 1}].sum(0)"
    against = {"against": state.against} if explanation.against is not None else {}
    display = {
        "signed": (panel.signed, False), "vmax": (float(panel.scale), None), "threshold": (state.threshold, 0.0),
        "opacity": (state.opacity, 1.0), "colours": (state.colours, "white"),
    }  # fmt: skip
    shown: dict = {name: value for name, (value, usual) in display.items() if value != usual}
    lines = [
        state.source.code,
        f"explainer = Explainer({_arguments(_Code(model), **options)})",
        f"explanation = explainer.explain({_arguments(_Code('image'), prompt, **against)})",
        f"map_ = {maps}  # signed relevance of each patch",
    ]
    if state.patch and panel.method == GRAD_ECLIP:
        lines.append(f"scores = {words}[:, {state.patch[0]}, {state.patch[1]}]  # of the words at one patch")
    shown["box"] = _Code("explanation.box")
    lines.append(f"painting = paint({_arguments(_Code('explanation.image'), _Code('map_'), **shown)})")
    return "\n".join([*_imports("\n".join(lines)), "", *lines, "painting"]) + "\n"


class _Code(str):
    """Python that stands in a script as it is, where another value stands as its repr."""

    __repr__ = str.__str__


def _arguments(*given, **named) -> str:
    return ", ".join([*map(repr, given), *(f"{name}={value!r}" for name, value in named.items())])


_IMPORTS = {
    "": ("Explainer", "load_clip", "read_image"),
    ".methods.interactions": ("centred",),
    ".panels.state": ("with_spatial_weight",),
    ".plots": ("paint",),
    ".scenes": ("Object", "Scene", "Span", "arrange", "draw_scene"),
}  # of a script, by the module of the package


def _imports(script: str) -> list[str]:
    """The import lines for what a script calls."""
    called = {module: [name for name in names if f"{name}(" in script] for module, names in _IMPORTS.items()}
    return [f"from gradeclip_utils{module} import {', '.join(names)}" for module, names in called.items() if names]


def figure(view: View) -> InlineFigure:
    """The view as a static figure: the image, each panel with title, colour bar in words, and the shaded words."""
    state, count = view.state, len(view.panels)
    side, room = 3.0, 4.0
    wide, tall = state.source.image.size
    height = side * tall / max(wide, tall)
    width = side * wide / max(wide, tall)
    inches = max(0.3 + width + count * (room + 0.2), 8.4), height + 2.5
    made = InlineFigure(*inches, "; ".join(f"{panel.subject}: {subtitle(state, panel)}" for panel in view.panels))
    blank(axes_at(made, 0.1, 0.95, width, height)).imshow(state.source.image.convert("RGB"))
    made.text(0.1 / inches[0], 1 - 0.2 / inches[1], "image", fontsize=9, weight="bold")
    for i, panel in enumerate(view.panels):
        x = 0.3 + width + i * (room + 0.2)
        made.text(x / inches[0], 1 - 0.2 / inches[1], _folded(panel.subject, 52, 2), fontsize=9, weight="bold",
                  va="top" if len(panel.subject) > 52 else "baseline", parse_math=False)  # fmt: skip
        made.text(x / inches[0], 1 - 0.42 / inches[1], _folded(subtitle(state, panel), 78, 4), fontsize=6.5, va="top",
                  color="0.35", parse_math=False)  # fmt: skip
        blank(axes_at(made, x, 0.95, width, height)).imshow(painted(state, panel))
        made.text(x / inches[0], 1 - (1.0 + height) / inches[1], _folded(scale_in_words(state, panel), 62, 3),
                  va="top", **NOTE)  # fmt: skip
        draw_words(
            axes_at(made, x, 1.5 + height, room, 0.95), panel.words, signed=panel.words_signed, vmax=panel.words_scale,
            values=bool(panel.words_scale), sentence=_folded(words_in_words(panel), 62, 2),
        )  # fmt: skip
    return made


def _folded(text: str, width: int, lines: int) -> str:
    """The text in a few lines, with an ellipsis where it had to be cut."""
    return textwrap.fill(drawable(text), width, max_lines=lines, placeholder=" …")
