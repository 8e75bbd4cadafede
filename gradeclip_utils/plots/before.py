"""Colours that the browser's view and studies still use; they go with the old view."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, Normalize

from .colours import number

# Dark ends are cut where colour would hide the image below it or the word above it; and the pale one begins at white,
# because magma's own is a yellow that would tint the whole image.
_WHITE = np.clip(1 - np.linspace(0, 1, 256) / 0.3, 0, 1)[:, None]
UNSIGNED = ListedColormap(_WHITE + (1 - _WHITE) * colormaps["magma_r"](np.linspace(0.0, 0.72, 256)), "unsigned")
SIGNED = ListedColormap(colormaps["PuOr_r"](np.linspace(0.1, 0.9, 257)), "signed")
# Perceptually uniform and safe for colour-blind eyes, all of them; "white" is the one that leaves the image readable.
COLOURS = {"white": UNSIGNED, **{name: colormaps[name] for name in ("viridis", "cividis", "magma")}}
OWN = "image"  # instead of a name in COLOURS: the image keeps its own colours, and relevance is how much of it is seen
VEIL, AGAINST, CONTRARY = (246, 246, 246), (94, 60, 153), 0.75  # what hides the rest; what is against, and how opaque


def scale(signed: bool, vmax: float, colours: str = "white") -> tuple[Normalize, Colormap]:
    """From values to colours; the darkest colour is `vmax`."""
    vmax = vmax or 1.0  # an all-zero map: everything is white
    return Normalize(-vmax if signed else 0, vmax), SIGNED if signed else COLOURS[colours]


def range_in_words(label: str, signed: bool, vmax: float, note: str = "", colours: str = "white") -> str:
    """What the two ends of the scale stand for."""
    if not vmax:
        return f"{label}: zero everywhere" if signed else f"{label}: nowhere above zero"
    top = number(vmax, vmax)
    note = f", {note}" if note else ""
    if colours == OWN:
        against = f"; purple \N{MINUS SIGN}{top}: against" if signed else ""
        return f"{label}: hidden 0 to clear {top}{against}{note}"
    if signed:
        return f"{label}: purple \N{MINUS SIGN}{top} (against) to orange +{top} (for){note}"
    low, high = ("pale", "dark") if colours == "white" else ("dark", "bright")  # as matplotlib's own maps run
    return f"{label}: {low} 0 to {high} {top}{note}"
