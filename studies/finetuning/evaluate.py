"""How fine does a model see? Regions, pointing, binding and whole images, on scenes with known ground truth.

Fine-tuning is meant to improve the regions. The other figures show what else changes. All models
are asked about the same scenes, so that two models can be compared figure by figure.
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
from gradeclip_utils.explainer import Explainer
from gradeclip_utils.images import model_view, pool
from gradeclip_utils.models import Clip
from gradeclip_utils.runtime import isolated_torch_state
from gradeclip_utils.scenes import Scene, concepts, draw_scene, phrase

from ..pairs import KINDS, draw_pairs, embed_scenes, images_of, judge, right_interval
from ..pointing_game import games, play

_AT_ONCE = 32  # images in one batch


@dataclass(frozen=True)
class Amount:
    """How many scenes are measured, and of which split; the default takes about a minute of one quiet core."""

    regions: int = 300  # scenes of one to four objects
    pointing: int = 30  # scenes of four, shown with 1, 2, 3 and 4 objects
    pairs: int = 40  # pairs of images for each kind of attribute
    whole: int = 256  # images of one object, and as many scenes to retrieve
    split: str = "test"


AMOUNT, PILOT = Amount(), Amount(regions=150, whole=128, split="development")


def measure(clip: Clip, amount: Amount = AMOUNT, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model: figure, estimate, low, high (95 %), n, chance."""
    return summary(measured(clip, amount, only=only))


def measured(clip: Clip, amount: Amount = AMOUNT, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """The answers that the figures are about: figure, right, cluster (their scene), chance; a row each."""
    parts = {"regions": region_rows, "pointing": _pointing_rows, "binding": _binding_rows}
    parts |= {"whole": _whole_rows, "retrieval": _retrieval_rows}
    only = all_chosen("only", only or list(parts), parts)
    return pd.concat([part(clip, amount) for name, part in parts.items() if name in only])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means with intervals over scenes, one row per figure: figure, estimate, low, high (95 %), n, chance."""
    found = []
    for figure, part in rows.groupby("figure", sort=False):
        mean, chance = part[["right", "chance"]].mean()
        bounds = right_interval(part["right"], part["cluster"].array)
        found.append((figure, mean, *bounds, len(part), chance))
    return pd.DataFrame(found, columns=["figure", "estimate", "low", "high", "n", "chance"])


def region_rows(clip: Clip, amount: Amount = AMOUNT) -> pd.DataFrame:
    """Whether dense features of a region name its object: one row per object and figure (boxes, masks; top-1, 5)."""
    nouns, prompts, rows = list(concepts().index), _concept_prompts(clip), []
    scenes = region_scenes(amount.regions, amount.split)
    for number, (scene, dense, size, box) in enumerate(dense_features(clip, scenes)):
        for thing, mask in zip(scene.objects, scene.masks(size), strict=True):
            for shape, covered in (("boxes", boxed(mask)), ("masks", mask)):
                scores = prompts @ region_embedding(dense, covered, box)  # (concepts,)
                better = (scores >= scores[nouns.index(thing.noun)]).sum() - 1  # a tie is no answer
                rows += [
                    (f"{shape}, top-{k}", float(better < k), number, k / len(nouns)) for k in (1, 5)
                ]
    table = pd.DataFrame(rows, columns=["figure", "right", "cluster", "chance"])
    return table.sort_values("figure", kind="stable", ignore_index=True)


def region_embedding(dense: Tensor, mask: np.ndarray, box: tuple) -> Tensor:
    """The unit embedding (E,) of the pixels of a mask, from dense features (h, w, E)."""
    fraction = torch.from_numpy(pool(mask.astype(float), dense.shape[:2], box)).to(dense)
    return torch.nn.functional.normalize(torch.einsum("hw,hwe->e", fraction, dense), dim=-1)


def dense_features(
    clip: Clip, scenes: Sequence[Scene]
) -> Iterator[tuple[Scene, Tensor, int, tuple]]:
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
        yield from zip(
            some,
            dense,
            [image.width for image in images],
            [view.box for view in views],
            strict=True,
        )


def region_scenes(n: int, split: str = "test") -> list[Scene]:
    """Scenes of one, two, three and four different, untinted objects, in turn."""
    found, seed = [], 0
    while len(found) < n:
        scene = draw_scene(
            [80, seed], split=split, n_objects=1 + len(found) % 4, tint=0, plain=True
        )
        seed += 1
        if len({thing.noun for thing in scene.objects}) == len(scene.objects):
            found.append(scene)
    return found


def boxed(mask: np.ndarray) -> np.ndarray:
    """The smallest upright box around a mask: (H, W) bool."""
    box = np.zeros(mask.shape, bool)
    for place in find_objects(mask.astype(np.uint8)):
        box[place] = True
    return box


def named_regions(clip: Clip, scene: Scene) -> pd.Series:
    """The nearest name of the dense features of each object, by its noun."""
    nouns, prompts = list(concepts().index), _concept_prompts(clip)
    (_, dense, size, box), *_ = dense_features(clip, [scene])
    found = {}
    for thing, mask in zip(scene.objects, scene.masks(size), strict=True):
        found[thing.noun] = nouns[int((prompts @ region_embedding(dense, mask, box)).argmax())]
    return pd.Series(found)


def _pointing_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """The pointing game with one to four objects, by Grad-ECLIP: whether the maximum lies on the object."""
    played = games(amount.pointing, split=amount.split)
    rows = play(clip, played, ("prompt", "word x region, centred"))
    name = "pointing, " + rows["question"] + ", objects: " + rows["objects"].astype(str)
    rows = rows.assign(figure=name, right=rows["hit"], cluster=rows["image"], chance=rows["area"])
    return rows.sort_values(["question", "objects"], kind="stable")[
        ["figure", "right", "cluster", "chance"]
    ]


def _binding_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """Whether right captions are told from wrong ones, by the kind of attribute that is wrong."""
    pairs = [pair for kind in KINDS for pair in draw_pairs(kind, amount.pairs, split=amount.split)]
    withheld = draw_pairs(
        "swapped colours", amount.pairs, composition="withheld", split=amount.split
    )
    rows = judge(clip, pairs + withheld)
    name = (
        "binding, "
        + rows["kind"]
        + rows["composition"].map({"seen": "", "withheld": " (withheld)"})
    )
    return rows.assign(figure=name, cluster=rows["pair"], chance=1 / 2)[
        ["figure", "right", "cluster", "chance"]
    ]


def _whole_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """Zero-shot classification of images of one object."""
    nouns = list(concepts().index)
    scenes = [
        draw_scene([81, i], split=amount.split, n_objects=1, tint=0) for i in range(amount.whole)
    ]
    found = (embed_scenes(Explainer(clip), scenes) @ _concept_prompts(clip).T).argmax(-1).tolist()
    right = [
        float(nouns[i] == scene.objects[0].noun) for i, scene in zip(found, scenes, strict=True)
    ]
    about = {
        "figure": "zero-shot, one object",
        "cluster": np.arange(len(right)),
        "chance": 1 / len(nouns),
    }
    return pd.DataFrame({"right": right, **about})


def _retrieval_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """Retrieval of whole scenes and of their captions (recall at 1)."""
    explainer, tables = Explainer(clip), []
    scenes = [draw_scene([82, i], split=amount.split) for i in range(amount.whole)]
    captions = [scene.caption for scene in scenes]
    scores = (
        embed_scenes(explainer, scenes) @ explainer.embed_texts(captions).cpu().T
    )  # (images, captions)
    for figure, best in (
        ("caption of a scene", scores.argmax(1)),
        ("scene of a caption", scores.argmax(0)),
    ):
        right = [float(captions[i] == captions[j]) for i, j in enumerate(best.tolist())]
        about = {
            "figure": f"retrieval, {figure}",
            "cluster": np.arange(len(right)),
            "chance": 1 / len(scenes),
        }
        tables.append(pd.DataFrame({"right": right, **about}))
    return pd.concat(tables)


def _concept_prompts(clip: Clip) -> Tensor:
    return Explainer(clip).embed_texts([phrase(noun) for noun in concepts().index]).cpu()
