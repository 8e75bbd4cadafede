"""How much the settings of published code change our maps.

    python -m benchmarks.published            # a minute; prints a table in Markdown

Each row computes a method twice for 10 test scenes of two things and their captions: with our
setting, and with that of the authors where it differs. It prints the correlation of the two
maps, over patches (or over the tokens of the caption): the median, and the lowest of the scenes.
The model is `emoji`, which the package brings: trained, with 6 image and 3 text layers. Where both
settings have the same definition, maps are equal, as `tests/methods/test_published.py` shows.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional as F

from gradeclip_utils import load_clip
from gradeclip_utils.methods import METHODS, Options
from gradeclip_utils.methods.grad_eclip import (
    attention_gradient,
    channel_weights,
    grad_eclip,
    spatial_weights,
)
from gradeclip_utils.methods.gradients import target_gradients
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import draw_scene
from gradeclip_utils.towers import Tower, Trace, open_image_tower, open_text_tower

SCENES = 10
MODEL = "emoji"
LONG = " ".join(["word"] * 75)  # fills the context: a batch with it holds all 77 positions


@dataclass(frozen=True)
class Case:
    """A scene as pixels (1, 3, H, W), its caption as token ids, and batch embeddings (1, 1, E)."""

    clip: Clip
    pixels: Tensor
    wide_pixels: Tensor
    ids: Tensor
    image: Tensor
    text: Tensor

    def image_map(self, name: str, layers: int, scale: float = 1, **options) -> Tensor:
        """The map (N,) by a method of the package, of `scale` times the similarity."""
        tower = open_image_tower(self.clip.model, layers)
        method = METHODS[name].image
        return method(tower, tower.trace(self.pixels), scale * self.text, Options(**options))[0, 0]


class Row(NamedTuple):
    """One difference, and a function that gives our map and the authors' of a case."""

    method: str
    authors: str
    package: str
    compare: Callable[[Case], tuple[Tensor, Tensor]]


def layer_maps(tower: Tower, trace: Trace, direction: Tensor) -> list[Tensor]:
    """Grad-ECLIP's map (N,) of every explained layer."""
    weights = channel_weights(tower, trace, direction)
    maps = []
    for position, layer in enumerate(trace.layers):
        lam = spatial_weights(layer, trace.valid_mask)
        relevance = lam * attention_gradient(weights[:, 0, position], layer.v)
        maps.append(relevance.sum(dim=(1, 2))[0])
    return maps


def one_head(case: Case) -> tuple[Tensor, Tensor]:
    return case.image_map("grad-eclip", 1), case.image_map("grad-eclip-single-head", 1)


def positive_layers(case: Case) -> tuple[Tensor, Tensor]:
    tower = open_image_tower(case.clip.model, 3)
    maps = layer_maps(tower, tower.trace(case.pixels, graph="query_graph"), case.text)
    return sum(maps).relu(), sum(layer_map.relu() for layer_map in maps)


def projected_keys(case: Case) -> tuple[Tensor, Tensor]:
    """q and k go through out_proj before they are compared."""
    tower = open_image_tower(case.clip.model, 1)
    trace = tower.with_one_head(tower.trace(case.pixels))
    project = case.clip.model.visual.transformer.resblocks[-1].attn.out_proj
    (layer,) = trace.layers
    projected = replace(layer, q=project(layer.q), k=project(layer.k))
    (package,) = layer_maps(tower, trace, case.text)
    (authors,) = layer_maps(tower, replace(trace, layers=(projected,)), case.text)
    return package, authors


def positions_without_antialias(case: Case) -> tuple[Tensor, Tensor]:
    """A wide image; position embeddings are resized without antialias."""
    tower = open_image_tower(case.clip.model, 1)
    package = grad_eclip(tower, tower.trace(case.wide_pixels), case.text)[0, 0]

    model = copy.deepcopy(case.clip.model)
    visual = model.visual
    size = tuple(case.wide_pixels.shape[-2:])
    grid = (size[0] // visual.patch_size[0], size[1] // visual.patch_size[1])
    cls, square = visual.positional_embedding.data.split([1, len(visual.positional_embedding) - 1])
    square = square.unflatten(0, visual.grid_size).permute(2, 0, 1)[None]
    square = F.interpolate(square, grid, mode="bicubic")[0].flatten(1).T
    visual.positional_embedding = torch.nn.Parameter(torch.cat([cls, square]))
    visual.grid_size = grid
    visual.image_size = size
    tower = open_image_tower(model, 1)
    return package, grad_eclip(tower, tower.trace(case.wide_pixels), case.text)[0, 0]


def padded_text(case: Case) -> tuple[Tensor, Tensor]:
    """lam is scaled over all 77 positions."""
    tower = open_text_tower(case.clip.model, 2)
    count = int(tower.ends(case.ids)[0])
    package = grad_eclip(tower, tower.trace(case.ids), case.image)[0, 0]

    batch = torch.cat([case.ids, case.clip.tokenizer([LONG])])
    trace = tower.trace(batch)
    trace = replace(trace, valid_mask=torch.ones_like(trace.valid_mask))
    authors = grad_eclip(tower, trace, case.image.expand(2, -1, -1))[0, 0]
    return package[1:count], authors[1:count]


def game_on_logits(case: Case) -> tuple[Tensor, Tensor]:
    return case.image_map("game", 6), case.image_map("game", 6, scale=100)


def game_of_last_layer(case: Case) -> tuple[Tensor, Tensor]:
    return case.image_map("game", 6), case.image_map("game", 1)


def rollout_of_last_layer(case: Case) -> tuple[Tensor, Tensor]:
    return case.image_map("rollout", 6), case.image_map("rollout", 1)


def grad_cam_with_cls(case: Case) -> tuple[Tensor, Tensor]:
    """The gradient is averaged over CLS as well."""
    tower = open_image_tower(case.clip.model, 1)
    trace = tower.trace(case.pixels)
    (slope,) = target_gradients(
        lambda tokens: tower.forward_from(trace, tower.depth - 1, tokens), trace.tokens, case.text
    )
    authors = (trace.tokens * slope.mean(dim=1, keepdim=True)).sum(dim=-1)[0]
    return case.image_map("grad-cam", 1), authors


def empty_templates(case: Case) -> tuple[Tensor, Tensor]:
    """One prompt less the mean of many templates of "", in place of "" alone."""
    empty = embed_texts(case.clip, [""])
    templates = embed_texts(case.clip, [template("") for template in OPENAI_IMAGENET_TEMPLATES])
    authors = F.normalize(templates.mean(dim=0), dim=-1)
    package_map = case.image_map("clip-surgery", 3, empty=empty[0])
    return package_map, case.image_map("clip-surgery", 3, empty=authors)


def surgery_layers(case: Case) -> tuple[Tensor, Tensor]:
    empty = embed_texts(case.clip, [""])[0]
    package = case.image_map("clip-surgery", 3, empty=empty)
    return package, case.image_map("clip-surgery", 6, empty=empty)


def legrad_layers(case: Case) -> tuple[Tensor, Tensor]:
    return case.image_map("legrad", 1), case.image_map("legrad", 2)


ROWS = [
    Row("Grad-ECLIP", "one head", "the model's heads", one_head),
    Row("Grad-ECLIP, 3 layers", "sum of positive parts", "signed sum", positive_layers),
    Row("Grad-ECLIP, one head", "q, k through `out_proj`", "raw q, k", projected_keys),
    Row(
        "Grad-ECLIP, wide image",
        "positions resized without antialias",
        "with antialias",
        positions_without_antialias,
    ),
    Row("Grad-ECLIP, text", "lam over 77 positions", "lam over the prompt", padded_text),
    Row("GAME", "logits x 100", "similarity", game_on_logits),
    Row("GAME", "the last layer", "all 6 layers", game_of_last_layer),
    Row("Rollout", "the last layer", "all 6 layers", rollout_of_last_layer),
    Row("Grad-CAM", "mean gradient with CLS", "over patches", grad_cam_with_cls),
    Row("CLIP Surgery, 1 prompt", 'less 80 templates of ""', 'less ""', empty_templates),
    Row("CLIP Surgery", "6 layers", "half: 3 of 6", surgery_layers),
    Row("LeGrad", "2 layers", "a sixth: 1 of 6", legrad_layers),
]


def embed_texts(clip: Clip, prompts: list[str]) -> Tensor:
    return clip.model.encode_text(clip.tokenizer(prompts), normalize=True)


def make_case(clip: Clip, seed: int) -> Case:
    """A test scene of two things, as the model reads it."""
    scene = draw_scene([seed], split="test", n_objects=2)
    pixels = clip.preprocess(scene.image())[None]
    return Case(
        clip=clip,
        pixels=pixels,
        wide_pixels=torch.cat([pixels, pixels[..., : pixels.shape[-1] // 2]], dim=-1),
        ids=clip.tokenizer([scene.caption]),
        image=clip.model.encode_image(pixels, normalize=True)[None],
        text=embed_texts(clip, [scene.caption])[None],
    )


def correlation(package: Tensor, authors: Tensor) -> float:
    """Correlation of two maps where one of them is not zero: CLS has no relevance in either."""
    covered = package != 0
    return float(np.corrcoef(package[covered], authors[covered])[0, 1])


@torch.no_grad()
def main() -> int:
    """Print the table."""
    torch.set_num_threads(1)
    clip = load_clip(MODEL)
    cases = [make_case(clip, seed) for seed in range(SCENES)]
    print(f"`{MODEL}`, {SCENES} test scenes of two things\n")
    print("| method | authors' code | ours | correlation, median | lowest |")
    print("| --- | --- | --- | --: | --: |")
    for row in ROWS:
        values = [correlation(*row.compare(case)) for case in cases]
        numbers = f"{np.median(values):.3f} | {min(values):.3f}"
        print(f"| {row.method} | {row.authors} | {row.package} | {numbers} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
