"""Measures: is this map better than that one?

map + ground truth -> measure -> one row per image and method -> mean with its interval, comparison,
answer
"""

from .dataset_report import report
from .evaluation import conclusion, evaluate, summary
from .faithfulness import areas, image_curves, word_curves
from .localisation import localisation, reference_baselines
from .sanity import agreement, cost, randomised
from .statistics import answer, interval, paired, summarise

__all__ = [
    "agreement",
    "answer",
    "areas",
    "conclusion",
    "cost",
    "evaluate",
    "image_curves",
    "interval",
    "localisation",
    "paired",
    "randomised",
    "reference_baselines",
    "report",
    "summarise",
    "summary",
    "word_curves",
]
