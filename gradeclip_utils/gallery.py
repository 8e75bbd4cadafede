"""Gallery: the map of one prompt by every method, side by side. A pure function, for a page and for a panel.

architecture -> trace -> method -> explanation -> session -> drawing, plots -> gallery -> panels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .drawing import Picture
from .explain import Picture as Given
from .plots import plot_maps
from .session import Session, State, as_source


def method_gallery(
    session: Session,
    methods: Sequence[str],
    picture: Given,
    prompt: str,
    against: str = "",
    *,
    columns: int = 5,
    report: Callable[[float], None] | None = None,
) -> Picture:
    """One picture and one prompt by several methods, each map divided by its own largest value.

    The methods measure in different units (changes of a similarity, cosines, shares of attention, nats), so strengths
    cannot be compared, and are taken out; where the ink lies can. Ready for a panel:

        some = ["grad-eclip", "maskclip", "grad-cam"]
        panel(partial(method_gallery, Session(clip), some, picture), prompt="a cat", against="")

    Args:
        session: of the model; it keeps what the picture's trunk gave, for all methods and for the next prompt.
        methods: names in `rivals.METHODS`.
        picture: as for `Explainer.explain`.
        prompt: what is asked for.
        against: another prompt; then maps are signed, for the lead over it. "" asks for the prompt itself.
        columns: panels in a row.
        report: told, before every method and every pass of the model, the share of the methods that are done. What it
            raises ends the work, with nothing left half done.

    Raises:
        ValueError: no methods, one that does not exist, or a prompt that `Session.view` refuses.
    """
    if not methods:
        raise ValueError("a gallery needs one method or more, got none")
    source, signed, maps, titles = as_source(picture), bool(against.strip()), [], []

    def tell(*_passes) -> None:
        if report is not None:
            report(len(maps) / len(methods))

    for name in methods:
        tell()
        state = State(source, prompt, against if signed else "", method=name)
        shown = session.view(state, tell).panels[0].explanation
        heat = shown.heatmap(0, signed=signed)
        maps.append(heat / max(float(np.abs(heat).max()), np.finfo(np.float32).tiny))
        titles.append(shown.provenance["method"])
    pairs = list(zip(titles, maps, strict=True))
    figure = plot_maps(source.image, pairs, signed=signed, columns=columns, label="share of the own maximum")
    asked = f"“{prompt}”" + (f" rather than “{against}”" if signed else "")
    figure.alt = f"The map of {asked} by {len(maps)} methods: {', '.join(titles)}"
    return figure
