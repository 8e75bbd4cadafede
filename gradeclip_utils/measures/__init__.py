"""Measures: is this map better than that one?

    map + ground truth -> measure -> one row per image and method -> mean with its interval, comparison, answer

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

from .dataset_report import report
from .evaluation import conclusion, evaluate, summary
from .faithfulness import areas, image_curves, word_curves
from .localisation import localisation, reference_baselines
from .sanity import agreement, cost, randomised
from .statistics import answer, interval, paired, summarise

__all__ = [
    "agreement", "answer", "areas", "conclusion", "cost", "evaluate", "image_curves", "interval", "localisation",
    "paired", "randomised", "reference_baselines", "report", "summarise", "summary", "word_curves",
]  # fmt: skip
