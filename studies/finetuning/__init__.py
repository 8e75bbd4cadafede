"""Fine-tuning: a model's own maps as region labels (lesson 07).

    pairs -> losses -> run

The lesson's experiment: arms, experiment, evaluate, figures.
"""

from .pairs import Pair
from .run import Tuned, Tuning, fine_tune

__all__ = ["Pair", "Tuned", "Tuning", "fine_tune"]
