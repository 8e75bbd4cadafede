"""The studies: what the lessons measure, each on top of the explainer and of scenes whose ground truth is known.

    matching/          lesson 04: how a caption meets an image
    binding/           lesson 05: does the model know which object is red?
    concreteness/      lesson 06: are concrete words the ones that count?
    architectures      lesson 08: the same question to other architectures
    choices            of two captions, which is this image's? Published data sets, with any model
    two_models         which of their figures hold for another model? Bundled ones and a second training side by side
    summaries          the main figures of each, in one tidy table
    relevance          which part of a map lies on which object

`STUDIES` maps the name of a study to the function that measures a model: `STUDIES["binding"](clip)` gives a table with
the columns study, figure, value, low, high (95 % interval), n. A project of its own adds a study by adding a function
of that kind. On the command line it is `python -m gradeclip_utils study binding`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STUDIES"]


def _when_called(name: str) -> Callable[..., pd.DataFrame]:
    """The function `name` of `summaries`, imported when it is called: importing a study loads half of the package."""

    def summary(clip, **options) -> pd.DataFrame:
        """The main figures of a model."""
        return getattr(import_module(f"{__name__}.summaries"), name)(clip, **options)

    summary.__name__ = summary.__qualname__ = name
    return summary


STUDIES: dict[str, Callable[..., pd.DataFrame]] = {
    "matching": _when_called("matching_summary"),
    "binding": _when_called("binding_summary"),
    "concreteness": _when_called("concreteness_summary"),
    "architectures": _when_called("architecture_summary"),
    "methods": _when_called("method_summary"),
}
