"""gradeclip: what CLIP matched in an image and in a sentence, by Grad-ECLIP and other methods.

from gradeclip_utils import load_clip, Explainer

explainer = Explainer(load_clip())
explainer.explain("image.png", ["a dog", "a red car"]).plot()
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

_HOMES = {
    "Clip": "models",
    "load_clip": "models",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "ExplanationWarning": "errors",
    "Interactions": "explanation",
    "METHODS": "methods",
    "GradeclipError": "errors",
    "UnsupportedModel": "errors",
    "Word": "words",
    "read_image": "images",
}
__all__ = list(_HOMES)

try:
    __version__ = version("gradeclip")
except PackageNotFoundError:  # the folder was put on the path instead of installed
    __version__ = "unknown"


def __getattr__(name: str):
    """Load a public name when it is first asked for: torch takes seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
