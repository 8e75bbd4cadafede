"""Measures: is this map better than that one?

    map + ground truth -> measure -> one row an image and method -> mean with its interval, comparison, answer

| file | holds |
| --- | --- |
| `localisation` | does a map lie on the object? |
| `faithfulness` | deletion and insertion: does the score fall when the marked pixels or words go? |
| `sanity` | a model with random weights, agreement of maps, cost |
| `statistics` | intervals, paired comparisons, answers |
| `evaluation` | methods measured on a data set |
| `dataset_report` | a page about one's own images and captions, the worst pairs first |
| `table` | rows that survive a kill |
"""

from importlib import import_module

from .localisation import localisation  # before anything imports the file of this name, which would hide the function

_NAMES = {  # file -> public names
    "dataset_report": ("report",),
    "evaluation": ("evaluate",),
    "faithfulness": ("areas", "image_curves", "word_curves"),
    "localisation": ("reference_baselines",),
    "sanity": ("agreement", "cost", "randomised"),
    "statistics": ("answer", "difference_interval", "interval", "paired", "spearman", "summarise"),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
__all__ = ["localisation", *_HOMES]


def __getattr__(name: str):
    """Import a public name when it is first used: pandas, scipy and joblib take a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
