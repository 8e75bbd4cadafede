"""Models: `load_clip` gives a `Clip`, a model with its preprocessing and tokenizer.

    weights of open_clip or transformers -> Clip -> towers -> trace -> method -> explanation

`loading` finds a model by its name and has open_clip load it, `transformers` does so with
transformers, and `bundled` has the models that the project ships.
"""

from .bundled import BUNDLED, BUNDLED_MODELS
from .clip import Clip, model_title
from .loading import load_clip

__all__ = ["BUNDLED", "BUNDLED_MODELS", "Clip", "load_clip", "model_title"]
