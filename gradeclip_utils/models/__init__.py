"""Models: `load_clip` gives a `Clip`, a model with its preprocessing and tokenizer.

    weights of open_clip or transformers -> Clip -> towers -> trace -> method -> explanation

`clip` holds what an explainer needs to know of a model; `loading` reads and writes weights.
"""

from .clip import Clip
from .loading import BUNDLED, BUNDLED_MODELS, load_clip, save_clip, save_compact

__all__ = ["BUNDLED", "BUNDLED_MODELS", "Clip", "load_clip", "save_clip", "save_compact"]
