"""Gallery: the map of one prompt by every method, side by side, as a figure and as a page for a panel.

architecture -> trace -> method -> explanation -> session -> plots -> gallery -> lesson
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..explain import InlineFigure as Given
from ..explanation import Explanation
from ..plots import InlineFigure, plot_maps
from ..plots.colours import range_in_words
from ..plots.html import Page, map_html, note_html, picture_html, row_html
from .session import Session, as_source

_LABEL = "share of the own maximum"


def method_gallery(
    session: Session,
    methods: Sequence[str],
    picture: Given,
    prompt: str,
    against: str = "",
    *,
    columns: int = 5,
) -> InlineFigure:
    """One picture and one prompt by several methods, each map divided by its own largest value.

    The methods measure in different units (changes of a similarity, cosines, shares of attention, nats), so strengths
    cannot be compared, and are taken out; where the ink lies can.

    Args:
        session: of the model; it keeps what the picture's trunk gave, for all methods and for the next prompt.
        methods: names in `methods.METHODS`.
        picture: as for `Explainer.explain`.
        prompt: what is asked for.
        against: another prompt; then maps are signed, for the lead over it. "" asks for the prompt itself.
        columns: panels in a row.

    Raises:
        ValueError: no methods, one that does not exist, or a prompt that `Session.view` refuses.
    """
    shown = _explained(session, methods, picture, prompt, against)
    signed, titles = shown[0].against is not None, [one.provenance["method"] for one in shown]
    heats = [one.heatmap(0, signed=signed) for one in shown]
    maps = [heat / max(float(np.abs(heat).max()), np.finfo(np.float32).tiny) for heat in heats]
    pairs = list(zip(titles, maps, strict=True))
    figure = plot_maps(shown[0].image, pairs, signed=signed, columns=columns, label=_LABEL)
    figure.alt = _told(shown)
    return figure


def method_page(
    session: Session,
    methods: Sequence[str],
    picture: Given,
    prompt: str,
    against: str = "",
    *,
    report: Callable[[float], None] | None = None,
) -> Page:
    """`method_gallery` for a panel. Arguments and errors as there.

        some = ["grad-eclip", "maskclip", "grad-cam"]
        panel(partial(method_page, Session(clip), some, picture), prompt="a cat", against="")

    ``report`` is told, before every method and every pass of the model, the share of the methods that are done. What it
    raises ends the work, with nothing left half done.
    """
    shown = _explained(session, methods, picture, prompt, against, report)
    maps = [map_html(one, one.provenance["method"], own=True, beside=not i) for i, one in enumerate(shown)]
    sentence = range_in_words(_LABEL, shown[0].against is not None, 1.0, "the most in each map")
    return Page(row_html(picture_html(shown[0].image), *maps) + note_html(sentence), _told(shown))


def _explained(session: Session, methods: Sequence[str], picture, prompt: str, against: str, report=None) -> list:
    """One explanation a method."""
    if not methods:
        raise ValueError("a gallery needs one method or more, got none")
    source, done = as_source(picture), []

    def tell(*_passes) -> None:
        if report is not None:
            report(len(done) / len(methods))

    for name in methods:
        tell()
        done.append(session.explain(source, prompt, against if against.strip() else "", method=name, on_pass=tell))
    return done


def _told(shown: Sequence[Explanation]) -> str:
    asked = f"“{shown[0].prompts[0]}”"
    if shown[0].against is not None:
        asked += f" rather than “{shown[0].against[0]}”"
    methods = ", ".join(one.provenance["method"] for one in shown)
    return f"The map of {asked} by {len(shown)} methods: {methods}"
