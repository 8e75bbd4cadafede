"""Notices: warnings about explanations that are valid but should be read with care.

A warning points at the line outside of this package that asked for the explanation. A panel shows the warnings of its
own explanations itself: it calls `heard_by`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:  # torch takes seconds to import, and plots and data sets do without
    from torch import Tensor

_listener: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)  # of `heard_by`


class ExplanationWarning(UserWarning):
    """The explanation is valid but should be read with care; the message says why."""


def warn_of_empty_maps(maps: Tensor, valid_mask: Tensor, what: str) -> None:
    """Warn if a map (B, T, N) is zero at every valid token (B, N)."""
    empty = int((maps.masked_fill(~valid_mask[:, None], 0.0) == 0).all(dim=-1).sum())
    if empty:
        reason = "all tokens answer the query equally, or the target does not depend on them"
        warn(f"{empty} of {maps.shape[0] * maps.shape[1]} {what} zero everywhere: {reason}")


_DRAWN = "gradeclip: drawn"  # in the `info` of an image, which its copies keep


def mark_drawn(image: Image.Image) -> Image.Image:
    """Mark an image as a scene like those that the bundled models were trained on, and return it."""
    image.info[_DRAWN] = "yes"
    return image


def is_drawn(image: Image.Image) -> bool:
    """Whether an image is a scene as it was drawn, or a part of one."""
    return bool(image.info.get(_DRAWN))


def png_note(image: Image.Image) -> PngInfo:
    """The text chunk that marks a PNG file as a drawn scene: `image.save(file, pnginfo=png_note(image))`."""
    note = PngInfo()
    if is_drawn(image):
        note.add_text(_DRAWN, "yes")
    return note


def warn_of_missing_glyphs(texts: Iterable[str]) -> None:
    """Warn if figures will show boxes, because matplotlib's font cannot draw a script."""
    beyond = sorted({letter for text in texts for letter in text if ord(letter) > 0x024F and not letter.isspace()})
    if beyond:  # else it is Latin, and matplotlib, which is slow to import, is not needed
        from matplotlib.font_manager import FontProperties, findfont, get_font

        font = get_font(findfont(FontProperties()))
        if missing := [letter for letter in beyond if not font.get_char_index(ord(letter))]:
            some = " ".join(missing[:10])
            choose = "choose another (matplotlib's font.family)"
            warn(f"the font of figures cannot draw {some}, and shows boxes: {choose}")


@contextmanager
def heard_by(listener: Callable[[str], object]) -> Iterator[None]:
    """Send the warnings of explanations in this thread to a function."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def warn(message: str, kind: type[UserWarning] = ExplanationWarning) -> None:
    """Warn at the line outside of this package that asked, or tell the function of `heard_by`."""
    if kind is ExplanationWarning and (listener := _listener.get()) is not None:
        listener(message)
        return
    depth, frame = 1, inspect.currentframe()
    while frame and (frame.f_globals.get("__package__") or "").partition(".")[0] == __package__:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=depth)
