"""The studies: what the lessons measure, each on top of the explainer and of scenes whose ground truth is known.

    ablations          lesson 02: what is each part of Grad-ECLIP good for?
    methods_compared   lesson 03: which map should you believe?
    protocols          and what in its tables is due to how one asked, measured and drew
    matching/          lesson 04: how a caption meets an image
    pairs, binding     lesson 05: does the model know which object is red?
    concreteness       lesson 06: are concrete words the ones that count?
    finetuning/        lesson 07: can maps teach the model where things are?
    architectures      lesson 08: the same question to other architectures
    summaries          the main figures of the others, each in one tidy table; what a lesson shows besides is in the
                       `figures` of its room, and in data/lessons.csv
    tables             how rows become figures, and which methods are compared
    relevance          which part of a map lies on which object

`STUDIES` maps the name of a study to the function that measures a model: `STUDIES["matching"](clip)` gives a table with
the columns study, figure, value, low, high (95 % interval), n. A project of its own adds a study by adding a function
of that kind. On the command line it is `python -m gradeclip_utils study matching`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from gradeclip_utils.models import Clip

__all__ = ["STUDIES", "Study"]


@dataclass(frozen=True)
class Study:
    """A study of this package: the function that measures it, imported when it is called.

    Attributes:
        function: its name in `summaries`, or with its module. Importing a study loads half of the package.
        parts: what it measures one after the other, each by itself with `part=`, so that the command line can go on
            where it was stopped and deal parts out; none where all figures come of one measurement.
        more: parts that are measured only by name, and by the command line: all else that the lesson shows.
    """

    function: str
    parts: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    def __call__(self, clip: Clip, **options) -> pd.DataFrame:
        """The main figures of a model."""
        module, _, name = self.function.rpartition(".")
        return getattr(import_module(f"{__name__}.{module or 'summaries'}"), name)(clip, **options)


_ONE_BY_ONE = ("quick", "m2ib", "rise", "integrated-gradients", "fixlip")  # methods of few passes, then the others
_OF_METHODS = (
    *_ONE_BY_ONE, "references", "paints", "random weights", "spatial weights", "last layer", "text layers",
    "both prompts", "both prompts, costly", "shared part", "questions", "stretched", "full range", "cost", "ranking",
)  # fmt: skip

_MATCHING = ("first lesson", "two of a kind", "wholes", "planes", "sentences", "displays", "kinds of words",
             "templates", "regions")  # fmt: skip

STUDIES: dict[str, Callable[..., pd.DataFrame]] = {
    "matching": Study(
        "matching_summary", ("adjective", "spans", "sums", "changes", "words", "own region"), more=_MATCHING
    ),
    "methods": Study("methods_compared.method_summary", _OF_METHODS),
    "causal": Study("methods_compared.causal_summary", _ONE_BY_ONE),
    "words": Study("methods_compared.word_summary"),
}
