"""Causal: an object is taken out of the scene and the scene is drawn again. Does the map rank objects by their effect?

    scene, scene without an object --model--> true fall of the similarity
    scene --method--> map --sum on each object--> what the map says     --here--> rank correlation, one a scene

Deletion puts grey or noise where an object was, and a model may react to the patch rather than to what is gone. In a
world that can draw the scene again there is no patch: what stands behind the object is what would have been there. So
the true effect of an object i is known, S(scene, caption) - S(scene without i, caption), for objects that the caption
names and for those that it does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.measures.evaluation import method_names
from gradeclip_utils.measures.statistics import spearman
from gradeclip_utils.methods import Method
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, IMAGE_SIZE, Scene, without

from .maps import method_maps, on_canvas

REFERENCES = ("area", "random")  # a map that is the same everywhere, and one that knows nothing


def causal(
    clip: Clip, scenes: Sequence[Scene], methods: str | Sequence[str] = "grad-eclip", *, size: int = IMAGE_SIZE,
    more: Sequence[Method] = (),
) -> pd.DataFrame:  # fmt: skip
    """The true effect of every object of every scene, and what the maps of methods say of it."""
    if not scenes or min(len(scene.objects) for scene in scenes) < 2:
        raise GradeclipError("objects are ranked: give scenes, each of two objects or more")
    asked: list[str | Method] = [*method_names(methods, clip), *more]
    asker, images = Explainer(clip, method=asked[0]), [scene.image(size) for scene in scenes]
    texts, own = asker.embed_texts([scene.caption for scene in scenes]), asker.embed_images(images)
    less = (without(scene, i).image(size) for scene in scenes for i in range(len(scene.objects)))
    remaining = iter(asker.embed_images(less))  # each scene without each of its objects, one after the other
    found = method_maps(clip, asked, images, texts[:, None])
    heats = {one.name if isinstance(one, Method) else one: maps[:, 0] for one, maps in found.items()}
    rng, grid = np.random.default_rng(0), found[asked[0]].shape[2:]
    heats |= {"area": np.ones((len(scenes), *grid)), "random": rng.normal(size=(len(scenes), *grid))}
    rows = []
    for k, scene in enumerate(scenes):
        masks, named = scene.masks(CANVAS), {i for span in scene.spans for i in span.objects}
        box = model_view(clip.preprocess, images[k]).box
        pixels = {name: on_canvas(maps[k], box, images[k]) for name, maps in heats.items()}
        for i, thing in enumerate(scene.objects):
            effect = float((own[k] - next(remaining)) @ texts[k])
            about = (k, i, thing.noun, i in named, effect)
            rows += [(*about, name, float(heat[masks[i]].sum() / heat.size)) for name, heat in pixels.items()]
    return pd.DataFrame(rows, columns=["image", "object", "noun", "named", "effect", "method", "sum"])


def causal_agreement(effects: pd.DataFrame) -> pd.DataFrame:
    """How far maps rank the objects of a scene as their true effects do."""
    rows = []
    for (image, method), part in effects.groupby(["image", "method"], sort=False):
        if len(part) > 1:
            true, sums = part["effect"].to_numpy(), part["sum"].to_numpy()
            correlation = float(np.nan_to_num(spearman(sums, true)))
            rows.append((image, method, len(part), correlation, (true == true.max())[sums == sums.max()].mean()))
    return pd.DataFrame(rows, columns=["image", "method", "objects", "correlation", "first"])
