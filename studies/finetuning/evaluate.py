"""How fine does a model see? Regions, pointing, binding and whole scenes, on scenes whose ground truth is known.

    Clip --here--> one row a figure, with its interval --> experiment, notebook

What fine-tuning is for is measured first (does the dense feature of a region know what stands there?), what it might
break last (zero-shot and retrieval of whole images). A model is asked the same questions about the same scenes
whenever it is measured, so two models can be compared figure by figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import find_objects
from torch import Tensor

from gradeclip_utils.checks import all_chosen
from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.measures.statistics import summarise
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import Scene, concepts, draw_scene, phrase
from gradeclip_utils.towers.base import isolated_torch_state

from ..pairs import KINDS, draw_pairs, images_of, judge
from ..pointing_game import games, play
from ..recognition import embed_scenes

TOP = (1, 5)
ASKED = ("prompt", "word x region, centred")  # questions of the pointing game
_AT_ONCE = 32  # images in one batch


@dataclass(frozen=True)
class Amount:
    """How much is measured: the default takes about a minute on one quiet core with the bundled model."""

    regions: int = 150  # scenes of one to four objects
    pointing: int = 30  # scenes of four, shown with 1, 2, 3 and 4 objects
    pairs: int = 40  # pairs of images for each kind of attribute
    whole: int = 256  # scenes that captions are retrieved for, and as many of one object
    skip: int = 0  # of the scenes of "regions" and "whole", this many first ones are left to others


AMOUNT = Amount()


def measure(clip: Clip, amount: Amount = AMOUNT, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """Every figure of a model on development scenes: columns figure, estimate, low, high (95 %), n, chance."""
    parts = {"regions": region_rows, "pointing": _pointing_rows, "binding": _binding_rows, "whole": _whole_rows}
    only = all_chosen("only", only or list(parts), parts)
    rows = pd.concat([part(clip, amount) for name, part in parts.items() if name in only])
    return summary(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means and intervals, one row a figure: figure, estimate, low, high (95 %), n, chance."""
    table = summarise(rows.assign(image=range(len(rows))), "right", "figure", cluster="cluster")
    chance = rows.groupby("figure", sort=False)["chance"].mean().to_numpy()
    return table.rename(columns={"mean": "estimate"}).assign(chance=chance)


def region_rows(clip: Clip, amount: Amount = AMOUNT) -> pd.DataFrame:
    """Which of all concepts is in this region? One row an object and figure: boxes and masks, top-1 and top-5."""
    nouns, prompts, rows = list(concepts().index), _concept_prompts(clip), []
    scenes = region_scenes(amount.regions, amount.skip)
    for number, (scene, dense, size, box) in enumerate(dense_features(clip, scenes)):
        for thing, mask in zip(scene.objects, scene.masks(size), strict=True):
            for shape, covered in (("boxes", boxed(mask)), ("masks", mask)):
                fraction = torch.from_numpy(pool(covered.astype(float), dense.shape[:2], box)).to(dense)
                embedding = torch.nn.functional.normalize(torch.einsum("hw,hwe->e", fraction, dense), dim=-1)
                scores = prompts @ embedding  # (concepts,)
                better = (scores >= scores[nouns.index(thing.noun)]).sum() - 1  # a tie is no answer
                for top in TOP:
                    figure = f"{shape}, top-{top}"
                    rows.append((figure, float(better < top), number, top / len(nouns)))
    table = pd.DataFrame(rows, columns=["figure", "right", "cluster", "chance"])
    return table.sort_values("figure", kind="stable", ignore_index=True)


def dense_features(clip: Clip, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Tensor, int, tuple]]:
    """Each scene, its dense features (h, w, E), its image's side in pixels, and the box in it that the model saw."""
    tower = Explainer(clip).image_tower
    for start in range(0, len(scenes), _AT_ONCE):
        some = scenes[start : start + _AT_ONCE]
        images = images_of(clip, some)
        views = [model_view(clip.preprocess, image) for image in images]
        with isolated_torch_state(tower.device):
            trace = tower.trace(torch.stack([view.pixels for view in views]).to(tower.device))
            height, width = trace.grid
            dense = tower.dense(trace)[:, -height * width :].unflatten(1, trace.grid).float().cpu()
        yield from zip(some, dense, [image.width for image in images], [view.box for view in views], strict=True)


def region_scenes(n: int, skip: int = 0) -> list[Scene]:
    """Development scenes of one to four different, untinted objects, in turn."""
    found, seed = [], 0
    while len(found) < skip + n:
        scene = draw_scene([80, seed], split="development", n_objects=1 + len(found) % 4, tint=0, plain=True)
        seed += 1
        if len({thing.noun for thing in scene.objects}) == len(scene.objects):
            found.append(scene)
    return found[skip:]


def boxed(mask: np.ndarray) -> np.ndarray:
    """The smallest upright box around a mask: (H, W) bool."""
    box = np.zeros(mask.shape, bool)
    for place in find_objects(mask.astype(np.uint8)):
        box[place] = True
    return box


def _pointing_rows(clip: Clip, amount: Amount = AMOUNT) -> pd.DataFrame:
    """The pointing game with one to four objects, by Grad-ECLIP: does the maximum lie on the object?"""
    rows = play(clip, games(amount.pointing), "grad-eclip", ASKED)
    rows = rows.assign(
        figure="pointing, " + rows["question"] + ", objects: " + rows["objects"].astype(str),
        right=rows["hit"], cluster=rows["image"], chance=rows["area"],
    )  # fmt: skip
    return rows.sort_values(["question", "objects"], kind="stable")[["figure", "right", "cluster", "chance"]]


def _binding_rows(clip: Clip, amount: Amount = AMOUNT) -> pd.DataFrame:
    """Two captions, one image: right captions told from wrong ones, by the kind of attribute that is wrong."""
    pairs = [pair for kind in KINDS for pair in draw_pairs(kind, amount.pairs)]
    rows = judge(clip, pairs + draw_pairs("swapped colours", amount.pairs, composition="withheld"))
    name = "binding, " + rows["kind"] + rows["composition"].map({"seen": "", "withheld": " (withheld)"})
    return rows.assign(figure=name, cluster=rows["pair"], chance=1 / 2)[["figure", "right", "cluster", "chance"]]


def _whole_rows(clip: Clip, amount: Amount = AMOUNT) -> pd.DataFrame:
    """Zero-shot classification of images of one object, and retrieval of whole scenes both ways (recall at 1)."""
    nouns, numbers = list(concepts().index), range(amount.skip, amount.skip + amount.whole)
    singles = [draw_scene([81, i], split="development", n_objects=1, tint=0) for i in numbers]
    found = (embed_scenes(Explainer(clip), singles) @ _concept_prompts(clip).T).argmax(-1).tolist()
    right = [nouns[i] == scene.objects[0].noun for i, scene in zip(found, singles, strict=True)]
    rows = [("zero-shot, one object", one, 1 / len(nouns)) for one in right]
    scenes = [draw_scene([82, i], split="development") for i in numbers]
    captions = [scene.caption for scene in scenes]
    explainer = Explainer(clip)
    scores = embed_scenes(explainer, scenes) @ explainer.embed_texts(captions).cpu().T  # (images, captions)
    for figure, best in (("caption of a scene", scores.argmax(1)), ("scene of a caption", scores.argmax(0))):
        right = [captions[i] == captions[j] for i, j in enumerate(best.tolist())]
        rows += [(f"retrieval, {figure}", one, 1 / len(scenes)) for one in right]
    table = pd.DataFrame(rows, columns=["figure", "right", "chance"]).astype({"right": float})
    return table.assign(cluster=np.arange(len(table)))


def _concept_prompts(clip: Clip) -> Tensor:
    return Explainer(clip).embed_texts([phrase(noun) for noun in concepts().index]).cpu()
