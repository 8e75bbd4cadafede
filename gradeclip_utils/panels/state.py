"""State: what a panel is asked to show. Frozen values, which compute nothing.

image, caption, controls -> State -> session -> View -> explorer
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from ..checks import chosen, short, text, whole
from ..errors import GradeclipError
from ..images import is_drawn, read_image
from ..methods import METHODS
from ..plots.page import image_url
from ..scenes import Scene, as_python

GRAD_ECLIP = "grad-eclip"  # the method that has word x region maps and a spatial weight to choose
# Grad-ECLIP by its spatial weight
WEIGHTED = {"loosened": GRAD_ECLIP, "softmax": "grad-eclip-softmax", "none": "grad-eclip-no-spatial"}
LONGEST = 1024  # pixels: a larger image is reduced first, so that every redraw costs the same


@dataclass(frozen=True, eq=False)
class Source:
    """An image, and what is known of it. Equal images are looked at once, whatever they are called."""

    name: str
    image: Image.Image
    given: str = ""  # the Python lines that make it (`image = ...`), where they are known; see `code`
    drawn: bool = False  # a scene of the project, or a part of one
    scene: Scene | None = None  # whose ground truth is known
    before: "Source | None" = None  # the image that it was before something was changed in it

    @property
    def caption(self) -> str:
        """Return the scene's own caption, or ""."""
        return self.scene.caption if self.scene else ""

    @cached_property
    def code(self) -> str:
        """Return the Python lines that make the image."""
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
        """Return the address under which a browser has it."""
        return image_url(self.image)

    @cached_property
    def thumbnail(self) -> str:
        """Return the address of a small copy."""
        return image_url(self.image, 88)


CHOICES = {  # field -> its values, with what people call them
    "attention": {"model": "the model's own heads", "single-head": "one head"},
    "resolution": {"model": "the model's own", "native": "the image's own"},
    "spatial": {kind: kind for kind in WEIGHTED},
}


@dataclass(frozen=True)
class State:
    """What is wanted: every control of a panel."""

    source: Source  # or an image of any form
    caption: str  # "" shows the image alone
    model: str = ""  # of those that the panel can choose from
    against: str = ""  # another caption: then the lead over it is explained
    phrase: tuple[int, int] | None = None  # first and last word of the caption whose region is wanted
    patch: tuple[int, int] | None = None  # row and column, counted from 0, of the patch whose words are wanted
    method: str = GRAD_ECLIP
    attention: str = "model"
    resolution: str = "model"
    layers: int = 1
    spatial: str = "loosened"  # Grad-ECLIP's spatial weight, one of `WEIGHTED`
    centred: bool = True  # regions of nouns without what the caption's nouns share, where it has two or more

    def __post_init__(self) -> None:
        methods = [name for name, method in METHODS.items() if method.image is not None]
        known: dict[str, Any] = {**CHOICES, "method": methods, "centred": (True, False)}
        clean: dict[str, Any] = {name: chosen(name, getattr(self, name), some) for name, some in known.items()}
        clean |= {name: text(name, getattr(self, name)) for name in ("caption", "against")}
        for name in ("phrase", "patch"):
            place = getattr(self, name)
            if place is not None and (not isinstance(place, (tuple, list)) or len(place) != 2):
                raise GradeclipError(f"{name} must be two whole numbers or None, got {short(place)}")
            clean[name] = None if place is None else tuple(whole(name, one) for one in place)
        clean |= {"layers": whole("layers", self.layers, 1), "source": as_source(self.source)}
        for name, value in clean.items():
            object.__setattr__(self, name, value)


def as_source(image, name: str = "", code: str = "") -> Source:
    """Return a scene, a PIL image, a path or a uint8 array as an image with a name; errors as in `read_image`."""
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
    """Return the arguments of the `Explainer` that a state asks for."""
    if method == GRAD_ECLIP:
        method = "grad-eclip-single-head" if state.attention == "single-head" else WEIGHTED[state.spatial]
    layers = state.layers if method.startswith(GRAD_ECLIP) else None
    return {"method": method, "resolution": state.resolution, "image_layers": layers}
