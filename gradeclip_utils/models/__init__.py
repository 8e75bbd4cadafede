"""Models: `load_clip` gives a `Clip`, everything an explainer needs to know about a model and nothing else.

    checkpoint, open_clip, transformers -> models -> towers -> trace -> method -> explanation

| file | holds |
| --- | --- |
| `loading` | `Clip`, `load_clip`, and what a model says of itself |
| `checkpoints` | weights on this machine or on a hub: found, checked, and refused with a reason |
| `huggingface` | models of transformers, with their processors |
| `convert` | a CLIP of open_clip as a folder of transformers, and back |
| `compact` | the bundled models, and the small form in which they are shipped |
"""

from .compact import BUNDLED, BUNDLED_MODELS, save_compact
from .loading import PRECISIONS, Clip, load_clip, load_compact

__all__ = [
    "BUNDLED", "BUNDLED_MODELS", "PRECISIONS", "Clip", "load_clip", "load_compact", "save_compact",
]  # fmt: skip
