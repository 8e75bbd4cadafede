"""Controls: what can be turned on the explorer, each with a name of the field and a help text.

state -> here -> explorer -> front/view.js
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from typing import NamedTuple

from ..methods import METHODS
from .session import Session
from .state import CHOICES, GRAD_ECLIP, State


class Control(NamedTuple):
    """One control: its name for people, what it does, its kind, and where it stands (two of the places are folded)."""

    label: str
    help: str
    kind: str
    place: str


_CONTROLS = {
    "model": Control("Model", "Which CLIP is explained. Image, caption and selection stay.", "choice", "head"),
    "caption": Control(
        "Caption", "The prompt whose similarity to the image is explained. Enter applies it.", "text", "caption"
    ),
    "against": Control(
        "other caption", "What is explained is then by how much the caption is ahead of this one.", "text", "ask"
    ),
    "beside": Control("second method", "The same question by another method, beside the first.", "choice", "ask"),
    "opacity": Control(
        "opacity", "How much of the image is hidden where there is no relevance; 0 shows it as it is.", "range", "look"
    ),
    "method": Control("method", "How relevance is computed. A slow one says how long it takes.", "choice", "method"),
    "layers": Control(
        "explained layers", "How many of the last layers of the image encoder are explained, and added.", "range",
        "method",
    ),
    "spatial": Control(
        "spatial weight", "What each patch counts: Grad-ECLIP's loosened attention, its softmax, or all the same.",
        "choice", "method",
    ),
    "attention": Control(
        "attention heads", "The model's own heads, or one head as published, which explains another number.", "choice",
        "method",
    ),
    "resolution": Control(
        "input resolution", "What the model's preprocessing makes of the image, or the whole image at its own size.",
        "choice", "method",
    ),
    "centred": Control(
        "nouns told apart", "The region of each noun less what the caption's nouns have in common.", "check", "method"
    ),
    "colours": Control(
        "colours", "The image keeps its own, and relevance is how much of it is seen; or a heat map is laid over it.",
        "choice", "drawing",
    ),
    "threshold": Control(
        "threshold", "What is below this fraction of the largest value counts as nothing.", "range", "drawing"
    ),
    "shared": Control(
        "one scale", "One scale for all words and both methods, where their units agree; else each its own.", "check",
        "drawing",
    ),
}  # fmt: skip
CONTROLS = tuple(_CONTROLS)


def specs(
    names: Collection[str], state: State, session: Session, models: Iterable[str], refused: Container[str]
) -> list[dict]:
    """The controls as `front/view.js` takes them.

    Args:
        names: which, of `CONTROLS`.
        state: what is wanted.
        session: of the model that is shown.
        models: the names there are.
        refused: those in which a value stands that cannot be shown.
    """
    own, found = state.method == GRAD_ECLIP, []
    useful = {"layers": state.method.startswith(GRAD_ECLIP), "attention": own, "centred": own}
    useful["spatial"] = own and state.attention == "model"  # one head is the published variant, with its own weight
    for name in names:
        label, text, kind, place = _CONTROLS[name]
        one = {"name": name, "label": label, "help": text, "kind": kind, "value": getattr(state, name)}
        one |= {"place": place if "caption" in names else "plain", "disabled": not useful.get(name, True)}
        one["refused"] = name in refused
        if kind == "choice":
            one["options"] = [list(pair) for pair in _options(name, session, models)]
        if kind == "range":
            high = session.depth if name == "layers" else 1
            one |= {"min": int(name == "layers"), "max": high, "step": 1 if name == "layers" else 0.05}
        found.append(one)
    return found


def _options(name: str, session: Session, models: Iterable[str]) -> list[tuple[str, str]]:
    if name == "model":
        return [(one, one) for one in models]
    if name in CHOICES:
        return [(label, value) for value, label in CHOICES[name].items()]
    titles = []
    for key, method in METHODS.items():
        if method.image:
            seconds = session.expected(key)
            titles.append((f"{method.title} (about {seconds:.0f} s here)" if seconds >= 1 else method.title, key))
    return titles if name == "method" else [("none", ""), *titles]
