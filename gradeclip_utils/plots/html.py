"""HTML: pictures, maps with their scales, bars and words as HTML, for panels that must be quick.

    Explanation -> colours -> html -> panels

A map drawn by matplotlib costs ten times as long as the same map in HTML, and a word a hundred times. So what a panel
draws again and again may be a page; the figure of the same numbers is for what stays: static notebooks and papers. All
text is escaped here, values stand beside their colours, and text takes the colours of JupyterLab's theme.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator
from PIL import Image

from .colours import largest, number, paint, scale, shown, text_colour

_TEXT = "color:var(--jp-ui-font-color1,#000);font:13px/1.35 var(--jp-ui-font-family,sans-serif)"
_NOTE = "color:var(--jp-ui-font-color2,#555);font:12px/1.45 var(--jp-ui-font-family,sans-serif)"
_PRINT = "flex:none;align-self:flex-start;width:{}px;height:auto"  # else its neighbours would stretch it
_TRUE, _OTHER = "background:#5b3a86;outline:1px solid var(--jp-ui-font-color1,#000)", "background:#bfbfbf"  # bars


@dataclass(frozen=True)
class Page:
    """A part of a panel as HTML; ``alt`` says in a line what it shows."""

    html: str
    alt: str

    def _repr_html_(self) -> str:
        return f'<div role="group" aria-label="{html.escape(self.alt, quote=True)}">{self.html}</div>'

    def __repr__(self) -> str:
        return self.alt


def webp(image: Image.Image) -> bytes:
    """The image as a WebP file without loss: smaller than a PNG file, and written in half the time."""
    buffer = io.BytesIO()
    image.save(buffer, "webp", lossless=True, quality=0, method=0)
    return buffer.getvalue()


def image_html(file: bytes, alt: str, style: str, css_class: str = "gradeclip-print") -> str:
    """A WebP file as an image of a page."""
    source = base64.b64encode(file).decode("ascii")
    return (
        f'<img class="{css_class}" src="data:image/webp;base64,{source}" style="{style}" '
        f'alt="{html.escape(alt, quote=True)}">'
    )


def print_html(
    image: Image.Image, title: str, *, signed: bool = False, vmax: float | None = None, width: int = 150, alt: str = ""
) -> str:
    """A picture, or a map as `plots.paint` prints it, under its title; with ``vmax`` beside the scale of its inks.

    Args:
        title: above it, on as many lines as it needs.
        signed, vmax: as in `plots.paint`.
        width: pixels.
        alt: what it shows, for those who cannot see it; the title by default.
    """
    beside, room = ("", 0) if vmax is None else (_scale_html(signed, vmax), 68)
    return (
        f'<div class="gradeclip-printed" style="width:{width + room}px;{_TEXT}">{html.escape(title)}'
        f'<div style="display:flex;gap:5px;margin-top:3px">'
        f"{image_html(webp(image), alt or title, _PRINT.format(width))}{beside}</div></div>"
    )


def map_html(explanation, title: str, *, own: bool = False, beside: bool = True) -> str:
    """The map of an explanation's one prompt, signed in a contrast, as its figures show it.

    Args:
        own: the scale runs to 1, the map's own maximum.
        beside: the scale stands beside it; if not, then only the words for a map that is zero.
    """
    signed = explanation.against is not None
    vmax = largest([explanation.heatmap(0, signed=signed)])
    image = paint(explanation.image, explanation.image_maps[0], box=explanation.box, signed=signed, vmax=vmax)
    top = (1.0 if own else vmax) if vmax else 0.0
    told = f"map of {explanation.prompts[0]}: {title}"
    return print_html(image, title, signed=signed, vmax=top if beside or not top else None, alt=told)


def picture_html(picture: Image.Image, title: str = "picture", width: int = 150) -> str:
    """The picture as it is, in the size of the prints beside it."""
    return print_html(paint(picture, np.zeros((1, 1)), opacity=0.0), title, width=width, alt="picture")


def gradient(signed: bool, colours: str = "paper", degrees: int = 90) -> str:
    """The inks of a scale as a CSS gradient, from its low end."""
    norm, palette = scale(signed, 1.0, colours)
    stops = ",".join(map(to_hex, palette(norm(np.linspace(norm.vmin, norm.vmax, 17)))))
    return f"linear-gradient({degrees}deg,{stops})"


def _scale_html(signed: bool, vmax: float) -> str:
    if not vmax:
        return f'<div style="font-size:11px">{"zero everywhere" if signed else "nowhere above zero"}</div>'
    norm, _ = scale(signed, vmax)
    marks = [norm.vmax, *([0.0] if signed else []), norm.vmin]
    labels = "".join(f"<span>{number(mark, vmax)}</span>" for mark in marks)
    return (
        f'<div style="flex:none;width:7px;border:1px solid #999;background:{gradient(signed, degrees=0)}"></div>'
        f'<div style="display:flex;flex-direction:column;justify-content:space-between;font-size:11px">{labels}</div>'
    )


def bars_html(bars: Sequence[tuple[str, float]], title: str = "", width: int = 300) -> str:
    """Named values as bars from zero, the largest one in colour, each with its number; ``width`` is in pixels."""
    low, high = min(0.0, *(value for _, value in bars)), max(1e-9, *(value for _, value in bars))
    most, unit, rows = max(value for _, value in bars), width / (high - low), []
    for name, value in bars:
        left, colour = (min(value, 0.0) - low) * unit, _TRUE if value == most else _OTHER
        written = f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
        rows.append(
            f'<div style="margin-top:9px">{html.escape(name)}<div style="display:flex;align-items:center;gap:5px">'
            f'<div style="margin-left:{left:.0f}px;width:{abs(value) * unit:.0f}px;height:14px;{colour}">'
            f"</div>{written}</div></div>"
        )
    return f'<div class="gradeclip-bars" style="{_TEXT}"><b>{html.escape(title)}</b>{"".join(rows)}</div>'


def words_html(words: Sequence, *, signed: bool = False, vmax: float | None = None, values: bool = False) -> str:
    """The shaded words as one line; the score stands in the tooltip, and with ``values`` under the word."""
    vmax, spans = largest([[word.score for word in words]]) if vmax is None else vmax, []
    norm, colours = scale(signed, vmax)
    for word in words:
        colour, value = colours(norm(shown(word.score, signed))), number(word.score, vmax)
        style = f"background:{to_hex(colour)};color:{text_colour(colour)};padding:1px 4px;border-radius:3px"
        below = ""
        if values:
            style += ";display:inline-block;text-align:center;line-height:1.25;margin:1px 0;border:1px solid #ccc"
            below = f'<br><span style="font-size:10px">{value}</span>'
        spans.append(f'<span style="{style}" title="{value}">{html.escape(word.text)}{below}</span>')
    return f'<div class="gradeclip-line" style="line-height:1.9">{" ".join(spans)}</div>'


def note_html(text: str) -> str:
    """A sentence in small type."""
    return f'<div style="{_NOTE};margin-top:4px">{html.escape(text)}</div>'


def row_html(*parts: str, align: str = "flex-end") -> str:
    """Parts side by side, on further lines where the window is narrow."""
    style = f"display:flex;flex-wrap:wrap;gap:10px 14px;align-items:{align};margin-bottom:10px;{_TEXT}"
    return f'<div style="{style}">{"".join(parts)}</div>'


def scatter_html(
    groups: Mapping[str, tuple[str, Mapping[str, tuple[float, float]]]],
    across: str,
    up: str,
    title: str = "",
    *,
    ylim: tuple[float, float] | None = None,
    mark: str = "",
    size: tuple[int, int] = (520, 440),
) -> str:
    """Named points in a plane, each of which says its name and its values under the mouse; the line is at height zero.

    Args:
        groups: name -> colour, and name -> (x, y) of its points.
        across, up: what the axes are.
        ylim: the heights at the bottom and the top; those of the points by default.
        mark: the name of a point that gets a ring and its name beside it.
        size: pixels.
    """
    points = [(name, *place) for _, some in groups.values() for name, place in some.items()]
    (left, right), (low, high) = _limits([x for _, x, _ in points]), ylim or _limits([y for *_, y in points])
    width, height = size
    wide, tall = width - 64, height - 84
    place = (lambda x: 52 + (x - left) / (right - left) * wide), (lambda y: 40 + (high - y) / (high - low) * tall)
    parts = [_text(8, 16, title, "font-size:13px"), *_axes(place, (left, right), (low, high), size, across, up)]
    key = 56
    for label, (colour, some) in groups.items():
        parts.append(f'<circle cx="{key}" cy="30" r="4" fill="{colour}"/>{_text(key + 8, 34, label)}')
        key += 26 + 6.2 * len(label)
        parts.append(f'<g fill="{colour}" fill-opacity="0.6">')
        for name, (x, y) in some.items():
            told = html.escape(f"{name}: {_number(x)} across, {_number(y)} up; {label}")
            parts.append(f'<circle cx="{place[0](x):.1f}" cy="{place[1](y):.1f}" r="3"><title>{told}</title></circle>')
        parts.append("</g>")
    for name, x, y in points:
        if name == mark:
            x, y, late = place[0](x), place[1](y), place[0](x) > 52 + wide / 2
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="none" stroke="#000" stroke-width="1.5"/>')
            shift, anchor = (-11, "end") if late else (11, "start")
            style = (
                f"font-size:15px;font-weight:bold;text-anchor:{anchor};stroke:#fff;stroke-width:3;paint-order:stroke"
            )
            parts.append(_text(x + shift, y - 5, name, style))
    style = f"max-width:100%;height:auto;background:#fff;color:#000;font:12px sans-serif;fill:#000;flex:0 1 {width}px"
    alt = html.escape(f"{title}: {up} against {across}", quote=True)
    shape = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return (
        f'<svg class="gradeclip-scatter" role="img" aria-label="{alt}" {shape} style="{style}">{"".join(parts)}</svg>'
    )


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, and a little more."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _axes(place, across: tuple[float, float], up: tuple[float, float], size: tuple[int, int], xlabel: str, ylabel: str):
    """Frame, ticks, zero line and names of a scatter."""
    (width, height), (x_of, y_of), ticks = size, place, MaxNLocator(6, steps=[1, 2, 5, 10])
    bottom, parts = height - 44, []
    for x in ticks.tick_values(*across):
        if across[0] <= x <= across[1]:
            text = _text(x_of(x), bottom + 18, _number(x), "text-anchor:middle")
            parts.append(f'<path d="M{x_of(x):.1f} {bottom}v4" stroke="#000"/>{text}')
    for y in ticks.tick_values(*up):
        if up[0] <= y <= up[1]:
            text = _text(44, y_of(y) + 4, _number(y), "text-anchor:end")
            parts.append(f'<path d="M52 {y_of(y):.1f}h-4" stroke="#000"/>{text}')
    if up[0] < 0 < up[1]:
        parts.append(f'<path d="M52 {y_of(0):.1f}H{width - 12}" stroke="#999"/>')
    turned = f"text-anchor:middle;transform:translate(13px,{40 + (bottom - 40) / 2:.0f}px) rotate(-90deg)"
    parts += [f'<path d="M52 40V{bottom}H{width - 12}" fill="none" stroke="#000"/>', _text(0, 0, ylabel, turned)]
    return [*parts, _text(52 + (width - 64) / 2, height - 8, xlabel, "text-anchor:middle")]


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{html.escape(text)}</text>'
