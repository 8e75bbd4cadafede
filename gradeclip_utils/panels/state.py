"""State: what a panel is asked to show. Frozen values, which compute nothing.

image, caption, controls -> State -> session -> View -> explorer
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from ..checks import chosen, number, short, text, whole
from ..errors import GradeclipError
from ..images import read_image
from ..methods import METHODS
from ..methods.grad_eclip import SPATIAL_WEIGHTS
from ..methods.registry import with_spatial_weight
from ..notices import is_drawn
from ..plots.before import COLOURS, OWN
from ..plots.page import image_url
from ..scenes import Scene, as_python

GRAD_ECLIP = "grad-eclip"  # the method that has word x region maps and a spatial weight to choose
NULLS = 16  # prompts about other things, with whose maps a map is compared
LONGEST = 1024  # pixels: a larger image is reduced first, so that every redraw costs the same
DISPLAY = ("threshold", "opacity", "colours")  # fields of a state that only say how to draw


@dataclass(frozen=True, eq=False)
class Source:
    """An image, and what is known of it. Equal images are looked at once, whatever they are called."""

    name: str  # what titles call it
    image: Image.Image
    given: str = ""  # the Python lines that make it (`image = ...`), where they are known; see `code`
    drawn: bool = False  # it is one of our scenes, or a part of one
    scene: Scene | None = None  # whose ground truth is known
    before: "Source | None" = None  # the image that it was, before something was changed in it,
    change: str = ""  # and what was

    @property
    def caption(self) -> str:
        """The scene's own, or ""."""
        return self.scene.caption if self.scene else ""

    @cached_property
    def code(self) -> str:
        """The Python lines that make it."""
        return self.given or (f"image = {as_python(self.scene)}.image()" if self.scene else "image = ...  # your own")

    @cached_property
    def _pixels(self) -> Hashable:
        return self.image.mode, self.image.size, blake2b(self.image.tobytes(), digest_size=16).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self._pixels == other._pixels

    def __hash__(self) -> int:
        return hash(self._pixels)

    @cached_property
    def url(self) -> str:
        """The address under which a browser has it."""
        return image_url(self.image)


CHOICES = {  # field -> its values, with what people call them
    "attention": {"model": "the model's own heads", "single-head": "one head"},
    "resolution": {"model": "the model's own", "native": "the image's own"},
    "spatial": {kind: kind for kind in SPATIAL_WEIGHTS},
    "colours": {OWN: "the image's own", **{name: f"heat map, {name}" for name in COLOURS}},
}


@dataclass(frozen=True)
class State:
    """What is wanted: every control of a panel. The last three only say how to draw."""

    source: Source  # or an image of any form
    caption: str
    model: str = ""  # of those that the panel can choose from
    against: str = ""  # another caption: then the similarity gap is explained
    phrase: tuple[int, int] | None = None  # first and last word of the caption whose region is wanted
    patch: tuple[int, int] | None = None  # row and column, counted from 0, of the patch whose words are wanted
    method: str = GRAD_ECLIP
    beside: str = ""  # a second method
    attention: str = "model"
    resolution: str = "model"
    layers: int = 1
    spatial: str = "loosened"  # Grad-ECLIP's spatial weight, one of `SPATIAL_WEIGHTS`
    centred: bool = True  # regions of nouns without what the caption's nouns share, where it has two or more
    shared: bool = True  # one scale for all words and both methods, where their units agree
    dependence: bool = False  # whether the map depends on the caption: asked for once, until something else is
    threshold: float = 0.0
    opacity: float = 0.85
    colours: str = OWN

    def __post_init__(self) -> None:
        possible = [name for name, method in METHODS.items() if method.image is not None]
        known: dict[str, Iterable] = {**CHOICES, "method": possible, "beside": ["", *possible]}
        known |= dict.fromkeys(("centred", "shared", "dependence"), (True, False))
        clean: dict[str, Any] = {name: chosen(name, getattr(self, name), some) for name, some in known.items()}
        clean |= {name: text(name, getattr(self, name)) for name in ("caption", "against")}
        clean |= {name: number(name, getattr(self, name), 0, 1) for name in ("opacity", "threshold")}
        for name in ("phrase", "patch"):
            place = getattr(self, name)
            if place is not None and (not isinstance(place, (tuple, list)) or len(place) != 2):
                raise GradeclipError(f"{name} must be two whole numbers or None, got {short(place)}")
            clean[name] = None if place is None else tuple(whole(name, one) for one in place)
        clean |= {"layers": whole("layers", self.layers, 1), "source": as_source(self.source)}
        for name, value in clean.items():
            object.__setattr__(self, name, value)


def as_source(image, name: str = "", code: str = "") -> Source:
    """A scene, a PIL image, a path or a uint8 array as an image with a name. Errors as in `read_image`."""
    if isinstance(image, Source):
        return image
    if isinstance(image, Scene):
        return Source(name or image.caption, image.image(), code, True, image)
    found = read_image(image)
    path = str(image) if isinstance(image, (str, Path)) else ""
    code = code or (f"image = read_image({path!r})" if path else "")
    if max(found.size) > LONGEST:
        found.thumbnail((LONGEST, LONGEST))  # on the copy that read_image made
        code = f"{code or 'image = ...  # your own'}\nimage.thumbnail(({LONGEST}, {LONGEST}))"
    return Source(name or Path(path).name or "your image", found, code, is_drawn(found))


def settings(state: State, method: str) -> dict[str, Any]:
    """The arguments of the `Explainer` that a state asks for."""
    attention = state.attention if method == GRAD_ECLIP else "model"
    weighted = method == GRAD_ECLIP and attention == "model" and state.spatial != "loosened"
    chosen = with_spatial_weight(state.spatial) if weighted else method
    layers = state.layers if method.startswith(GRAD_ECLIP) else None
    return {"method": chosen, "attention": attention, "resolution": state.resolution, "image_layers": layers}
