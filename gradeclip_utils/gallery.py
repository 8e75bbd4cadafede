"""Gallery: the map of one prompt by every method, side by side. A pure function, for a page and for a panel.

architecture -> trace -> method -> explanation -> drawing, plots -> gallery -> panels
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .drawing import Picture
from .explain import Explainer
from .explain import Picture as Given
from .plots import plot_maps


def method_gallery(
    explainers: Sequence[Explainer], picture: Given, prompt: str, against: str = "", *, columns: int = 5
) -> Picture:
    """One picture and one prompt by several methods, each map divided by its own largest value.

    The methods measure in different units (changes of a similarity, cosines, shares of attention, nats), so strengths
    cannot be compared, and are taken out; where the ink lies can. Ready for a panel:

        some = [Explainer(clip, method=name) for name in ("grad-eclip", "maskclip", "grad-cam")]
        panel(partial(method_gallery, some, picture), prompt="a cat", against="")

    Args:
        explainers: opened once by the caller, so that a panel need not open them again for each figure.
        picture: as for `Explainer.explain`.
        prompt: what is asked for.
        against: another prompt; then maps are signed, for the lead over it. "" asks for the prompt itself.
        columns: panels in a row.

    Raises:
        ValueError: no explainers, or a prompt that `Explainer.explain` refuses.
    """
    if not explainers:
        raise ValueError("a gallery needs one explainer or more, got none")
    signed, maps, shown = bool(against.strip()), [], None
    for explainer in explainers:
        shown = explainer.explain(picture, prompt, against=against if signed else None)
        heat = shown.heatmap(0, signed=signed)
        maps.append((explainer.method.title, heat / max(float(np.abs(heat).max()), np.finfo(np.float32).tiny)))
    figure = plot_maps(shown.image, maps, signed=signed, columns=columns, label="share of the own maximum")
    asked = f"“{prompt}”" + (f" rather than “{against}”" if signed else "")
    figure.alt = f"The map of {asked} by {len(maps)} methods: {', '.join(title for title, _ in maps)}"
    return figure
