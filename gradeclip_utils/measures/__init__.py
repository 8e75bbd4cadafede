"""Measures: is this map better than that one?

map + ground truth -> measure -> one row per image and method -> mean with its interval, comparison,
answer
"""

from .dataset_report import report
from .evaluation import evaluate, report_best, summary
from .faithfulness import curve_auc, image_curves
from .localisation import localisation_scores, reference_baselines
from .sanity import randomised, rank_correlation, time_methods
from .statistics import group_means, interpret_interval, mean_interval, paired_differences

__all__ = [
    "curve_auc",
    "evaluate",
    "group_means",
    "image_curves",
    "interpret_interval",
    "localisation_scores",
    "mean_interval",
    "paired_differences",
    "randomised",
    "rank_correlation",
    "reference_baselines",
    "report",
    "report_best",
    "summary",
    "time_methods",
]
