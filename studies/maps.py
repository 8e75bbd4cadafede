"""Maps of many methods, and maps in the pixels of a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.images import ImageLike, onto_image
from gradeclip_utils.methods import Method
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS


def method_maps(
    clip: Clip, names: Sequence[str | Method], images: Sequence[ImageLike], directions: Tensor
) -> dict[str | Method, np.ndarray]:
    """Return signed maps (B, T, h, w) of every image by every method."""
    return {name: Explainer(clip, method=name).maps(images, directions).float().cpu().numpy() for name in names}


def on_canvas(map_: np.ndarray, box: tuple[float, ...], image: Image.Image) -> np.ndarray:
    """Return a map (h, w) of what the model saw in `box` of the image of a scene, as a heat map (96, 96)."""
    left, top, right, bottom = (side * CANVAS / image.width for side in box)
    return onto_image(map_, (left, top, right, bottom), (CANVAS, CANVAS))
