"""How fine does a model see? Regions, pointing, binding and whole images, on scenes of known truth.

Fine-tuning is meant to improve the regions. The other figures show what else changes. All models
are asked about the same scenes, so that two models can be compared figure by figure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import find_objects
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.images import model_view, pool
from gradeclip_utils.models import Clip
from gradeclip_utils.runtime import isolated_torch_state
from gradeclip_utils.scenes import Scene, concepts, draw_scene, phrase

from ..lesson import are_different
from ..pairs import KINDS, draw_pairs, embed_scenes, images_of, judge, right_interval
from ..pointing_game import games, play

BATCH_SIZE = 32  # images


@dataclass(frozen=True)
class Amount:
    """How many scenes are measured, and of which split; the default takes a minute of one core."""

    regions: int = 300  # scenes of one to four objects
    pointing: int = 30  # scenes of four, shown with 1, 2, 3 and 4 objects
    pairs: int = 40  # pairs of images for each kind of attribute
    whole: int = 256  # images of one object, and as many scenes to retrieve
    split: str = "test"


AMOUNT = Amount()
PILOT = Amount(regions=150, whole=128, split="development")


def measure(clip: Clip, amount: Amount = AMOUNT, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """All figures of a model: figure, estimate, low, high (95 %), n, chance."""
    return summary(measured(clip, amount, only=only))


def measured(clip: Clip, amount: Amount = AMOUNT, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """The answers that the figures are about: figure, right, cluster (their scene), chance."""
    parts = {
        "regions": region_rows,
        "pointing": pointing_rows,
        "binding": binding_rows,
        "whole": whole_rows,
        "retrieval": retrieval_rows,
    }
    names = only or parts
    return pd.concat([rows(clip, amount) for name, rows in parts.items() if name in names])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means with intervals over scenes: figure, estimate, low, high (95 %), n, chance."""
    figures = []
    for figure, answers in rows.groupby("figure", sort=False):
        low, high = right_interval(answers["right"], answers["cluster"].array)
        figures.append(
            {
                "figure": figure,
                "estimate": answers["right"].mean(),
                "low": low,
                "high": high,
                "n": len(answers),
                "chance": answers["chance"].mean(),
            }
        )
    return pd.DataFrame(figures)


# --------------------------------------------------------------------------------- regions


def region_rows(clip: Clip, amount: Amount = AMOUNT) -> pd.DataFrame:
    """Whether dense features of a region name its object: a row per object and figure.

    Regions are boxes or masks; the object's name is to be the first, or among the first five.
    """
    nouns = concepts().index
    prompts = concept_prompts(clip)  # (concepts, E)
    scenes = region_scenes(amount.regions, amount.split)

    rows: list[dict] = []
    for number, (scene, dense, size, box) in enumerate(dense_features(clip, scenes)):
        for thing, mask in zip(scene.objects, scene.masks(size), strict=True):
            noun = nouns.get_loc(thing.noun)
            regions = {"boxes": bounding_box(mask), "masks": mask}
            for shape, region in regions.items():
                scores = prompts @ region_embedding(dense, region, box)  # (concepts,)
                better = (scores >= scores[noun]).sum() - 1  # a tie is no answer
                for k in (1, 5):
                    rows.append(
                        {
                            "figure": f"{shape}, top-{k}",
                            "right": float(better < k),
                            "cluster": number,
                            "chance": k / len(nouns),
                        }
                    )
    return pd.DataFrame(rows).sort_values("figure", kind="stable", ignore_index=True)


def region_embedding(dense: Tensor, mask: np.ndarray, box: tuple) -> Tensor:
    """The unit embedding (E,) of the pixels of a mask, from dense features (h, w, E)."""
    fractions = torch.from_numpy(pool(mask, dense.shape[:2], box)).to(dense)  # (h, w)
    embedding = torch.einsum("hw,hwe->e", fractions, dense)
    return torch.nn.functional.normalize(embedding, dim=-1)


def dense_features(
    clip: Clip,
    scenes: Sequence[Scene],
) -> Iterator[tuple[Scene, Tensor, int, tuple]]:
    """Each scene, its dense features (h, w, E), its image's side in pixels, and the model's box."""
    tower = Explainer(clip).image_tower
    for start in range(0, len(scenes), BATCH_SIZE):
        batch = scenes[start : start + BATCH_SIZE]
        images = images_of(clip, batch)
        views = [model_view(clip.preprocess, image) for image in images]
        pixels = torch.stack([view.pixels for view in views])

        with isolated_torch_state(tower.device):
            trace = tower.trace(pixels.to(tower.device))
            height, width = trace.grid
            dense = tower.dense(trace)[:, -height * width :]  # (B, h * w, E)
        dense = dense.unflatten(1, trace.grid).float().cpu()

        for i, scene in enumerate(batch):
            yield scene, dense[i], images[i].width, views[i].box


def region_scenes(n: int, split: str = "test") -> list[Scene]:
    """Scenes of one, two, three and four different, untinted objects, in turn."""
    scenes: list[Scene] = []
    seed = 0
    while len(scenes) < n:
        count = 1 + len(scenes) % 4
        scene = draw_scene([80, seed], split=split, n_objects=count, tint=0, plain=True)
        if are_different(scene.objects):
            scenes.append(scene)
        seed += 1
    return scenes


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """The smallest upright box around a mask: (H, W) bool."""
    box = np.zeros(mask.shape, bool)
    for place in find_objects(mask.astype(np.uint8)):
        box[place] = True
    return box


# ---------------------------------------------------------------------- what else may change


def pointing_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """The pointing game with one to four objects, by Grad-ECLIP: is the maximum on the object?"""
    scenes = games(amount.pointing, split=amount.split)
    rows = play(clip, scenes, ("prompt", "word x region, centred"))
    rows = rows.sort_values(["question", "objects"], kind="stable")
    figures = "pointing, " + rows["question"] + ", objects: " + rows["objects"].astype(str)
    return answer_table(figures, rows["hit"], rows["image"], rows["area"])


def binding_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """Whether right captions are told from wrong ones, by the kind of attribute that is wrong."""
    pairs = []
    for kind in KINDS:
        pairs += draw_pairs(kind, amount.pairs, split=amount.split)
    pairs += draw_pairs(
        "swapped colours",
        amount.pairs,
        composition="withheld",
        split=amount.split,
    )
    rows = judge(clip, pairs)
    suffixes = rows["composition"].map({"seen": "", "withheld": " (withheld)"})
    figures = "binding, " + rows["kind"] + suffixes
    return answer_table(figures, rows["right"], rows["pair"], 1 / 2)


def whole_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """Zero-shot classification of images of one object."""
    nouns = concepts().index
    scenes = [
        draw_scene([81, i], split=amount.split, n_objects=1, tint=0) for i in range(amount.whole)
    ]
    images = embed_scenes(Explainer(clip), scenes)  # (n, E)
    scores = images @ concept_prompts(clip).T  # (n, concepts)
    answers = scores.argmax(-1).tolist()

    right = []
    for scene, answer in zip(scenes, answers, strict=True):
        right.append(float(nouns[answer] == scene.objects[0].noun))
    return answer_table(
        "zero-shot, one object",
        right,
        cluster=range(len(right)),
        chance=1 / len(nouns),
    )


def retrieval_rows(clip: Clip, amount: Amount) -> pd.DataFrame:
    """Retrieval of whole scenes and of their captions (recall at 1)."""
    explainer = Explainer(clip)
    scenes = [draw_scene([82, i], split=amount.split) for i in range(amount.whole)]
    captions = [scene.caption for scene in scenes]
    texts = explainer.embed_texts(captions).cpu()
    scores = embed_scenes(explainer, scenes) @ texts.T  # (images, captions)

    queries = {
        "caption of a scene": scores.argmax(1),
        "scene of a caption": scores.argmax(0),
    }
    tables = []
    for query, best in queries.items():
        right = [float(captions[i] == captions[j]) for i, j in enumerate(best.tolist())]
        table = answer_table(
            f"retrieval, {query}",
            right,
            cluster=range(len(right)),
            chance=1 / len(scenes),
        )
        tables.append(table)
    return pd.concat(tables)


def answer_table(figure, right, cluster, chance) -> pd.DataFrame:
    """Answers as `measured` gives them; each column is a list, or one value for all rows."""
    columns = {"figure": figure, "right": right, "cluster": cluster, "chance": chance}
    return pd.DataFrame(columns)


def concept_prompts(clip: Clip) -> Tensor:
    """Unit embeddings (concepts, E) of the prompts "a dog", "an owl", ... of all concepts."""
    return Explainer(clip).embed_texts([phrase(noun) for noun in concepts().index]).cpu()
