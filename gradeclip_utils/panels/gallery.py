"""Gallery: the map of one prompt by every method, side by side.

architecture -> trace -> method -> explanation -> session -> plots -> gallery -> lesson
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..errors import InvalidValue
from ..images import ImageLike
from ..plots import InlineFigure, plot_maps
from .session import Session, explain_each
from .state import as_source


def method_gallery(
    session: Session,
    methods: Sequence[str],
    image: ImageLike,
    prompt: str,
    against: str = "",
    *,
    columns: int = 5,
    report: Callable[[float], None] | None = None,
) -> InlineFigure:
    """One image and one prompt by several methods, each map divided by its own largest value.

    Methods measure in different units (changes of a similarity, cosines, fractions of attention, nats), so strengths
    cannot be compared, and are taken out; where the colour lies can.

        some = ["grad-eclip", "maskclip", "grad-cam"]
        panel(partial(method_gallery, Session(clip), some, image), prompt="a cat", against="")

    Args:
        session: of the model; it keeps what the image's trunk gave, for all methods and for the next prompt.
        methods: names in `methods.METHODS`.
        image: as for `Explainer.explain`.
        prompt: what is asked for.
        against: another prompt; then maps are signed, for the similarity gap. "" asks for the prompt itself.
        columns: panels in a row.
        report: told how far it is, see `session.explain_each`.

    Returns:
        The image and a map for each method.

    Raises:
        ValueError: no methods, one that does not exist, or a prompt that `Session.view` refuses.
    """
    if not methods:
        raise InvalidValue("a gallery needs one method or more, got none", "method-none")
    source, against = as_source(image), against if against.strip() else ""
    shown = explain_each({name: partial(session.explain, source, prompt, against, method=name) for name in methods},
                         report)  # fmt: skip
    titles = [one.provenance["method"] for one in shown.values()]
    heats = [one.heatmap(0, signed=bool(against)) for one in shown.values()]
    maps = [heat / max(float(np.abs(heat).max()), np.finfo(np.float32).tiny) for heat in heats]
    figure = plot_maps(
        next(iter(shown.values())).image, list(zip(titles, maps, strict=True)), signed=bool(against), columns=columns,
        label="fraction of the own maximum",
    )  # fmt: skip
    asked = f"“{prompt}” rather than “{against}”" if against else f"“{prompt}”"
    figure.alt = f"The map of {asked} by {len(shown)} methods: {', '.join(titles)}"
    return figure
