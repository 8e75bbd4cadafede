"""Fine-tuning: a model's own maps as region labels (lesson 08).

    pairs -> losses -> run

`python -m studies.finetuning` tunes a model on pairs of your own. The lesson's experiment is `arms`
(what is compared), `experiment` (trains and measures), `evaluate` (the measures) and `figures`.
"""

from .pairs import Pair
from .run import Tuned, Tuning, fine_tune

__all__ = ["Pair", "Tuned", "Tuning", "fine_tune"]
