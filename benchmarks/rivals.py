"""The same methods by other packages and by this one: time of a map, and whether maps agree.

    python -m benchmarks.rivals --threads 1

Every round times open_clip's ``encode_image``, the package and ours, one after the other, on the
same image and text embedding, from pixels to map; trace included. A ratio is the median over rounds
of the ratio to ``encode_image`` within a round. Agreement is the correlation of the two maps on the
token grid, with negative relevance cut off as the packages do. legrad changes the model, so it gets
a copy: the last column is the cosine between the embedding after the package was set up and the
model's own.

Prints a table in Markdown. Needs what ``make bench`` installs.
"""

import contextlib
import copy
import io
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import captum.attr
import legrad
import numpy as np
import pytorch_grad_cam
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import MODEL, parse_options, random_clip, timed
from gradeclip_utils import METHODS
from gradeclip_utils.methods import Options, layers_to_explain
from gradeclip_utils.towers import open_image_tower


class Rival(NamedTuple):
    """One row: a method in METHODS, and a package's way to the same map (H, W)."""

    package: str
    name: str
    explain: Callable[[], Tensor]
    model: nn.Module  # as the package left it


class Similarity(nn.Module):
    """Image in, similarity with one text out, (B, 1): what the packages take for a classifier."""

    def __init__(self, model: nn.Module, text: Tensor):
        super().__init__()
        self.model = model
        self.text = text

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels, normalize=True) @ self.text.T


def on_grid(x: Tensor, side: int) -> Tensor:
    """Tokens (B, 1 + side * side, D) of a ViT as a feature map (B, D, side, side)."""
    return x[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def rivals(model: nn.Module, pixels: Tensor, text: Tensor) -> list[Rival]:
    """grad-cam, captum and legrad, each set up as its documentation says."""
    similarity = Similarity(model, text)
    side = model.visual.grid_size[0]

    def grad_cam() -> Tensor:
        layers = [model.visual.transformer.resblocks[-2]]  # its output enters the last block
        with pytorch_grad_cam.GradCAM(similarity, layers, lambda x: on_grid(x, side)) as cam:
            return torch.from_numpy(cam(pixels, targets=[lambda output: output[0]])[0])

    def input_x_gradient() -> Tensor:
        method = captum.attr.InputXGradient(similarity)
        products = method.attribute(pixels.clone().requires_grad_(), target=0)
        return products.sum(dim=1)[0]

    with contextlib.redirect_stdout(io.StringIO()):  # legrad announces itself
        wrapped = legrad.LeWrapper(copy.deepcopy(model))
    for block in wrapped.visual.transformer.resblocks[: wrapped.starting_depth]:
        give_batch_first(block)

    def legrad_map() -> Tensor:
        return wrapped.compute_legrad(text, pixels)[0, 0]

    return [
        Rival("grad-cam", "grad-cam", grad_cam, model),
        Rival("captum", "input-x-gradient", input_x_gradient, model),
        Rival("legrad-torch", "legrad", legrad_map, wrapped),
    ]


def give_batch_first(block: nn.Module) -> None:
    """Turn the tokens (N, B, D) that legrad gives to a layer into the (B, N, D) that it takes.

    legrad-torch 1.1 is written for an older open_clip. In today's, its N tokens are N images of one
    token: each attends to itself alone, which costs less and gives other embeddings. The layers
    that legrad replaces by its own take (N, B, D).
    """
    block.register_forward_pre_hook(lambda _, inputs: (inputs[0].transpose(0, 1), *inputs[1:]))
    block.register_forward_hook(lambda _, inputs, output: output.transpose(0, 1))


def our_method(name: str, model: nn.Module, pixels: Tensor, text: Tensor) -> Callable[[], Tensor]:
    """The same method by this package, on the token grid (h, w); set up here, as the others are."""
    method = METHODS[name]
    depth = len(model.visual.transformer.resblocks)
    tower = open_image_tower(model, layers_to_explain(None, None, method, depth))

    @torch.no_grad()
    def explain() -> Tensor:
        trace = tower.trace(pixels, method.graph)
        maps = method.image(tower, trace, text[None], Options())
        return maps[0, 0, 1:].unflatten(0, trace.grid)

    return explain


def agreement(map_: Tensor, other: Tensor) -> float:
    """Correlation of the positive parts of two maps, on the grid of the second."""
    pooled = F.adaptive_avg_pool2d(map_.detach()[None], other.shape)[0]
    return float(np.corrcoef(pooled.relu().flatten(), other.relu().flatten())[0, 1])


@torch.no_grad()
def embed(model: nn.Module, pixels: Tensor) -> Tensor:
    """The model's own embedding, unit length."""
    return F.normalize(model.encode_image(pixels), dim=-1)


def main() -> int:
    """Print the table."""
    options = parse_options()
    model = random_clip().model
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(1, 3, 7, 7, generator=generator)
    pixels = F.interpolate(smooth, model.visual.image_size, mode="bicubic")
    text = F.normalize(torch.randn(1, model.visual.output_dim, generator=generator), dim=-1)
    embedding = embed(model, pixels)

    print(
        f"\n{MODEL}, one image and one text, {options.threads} thread(s), "
        f"median of {options.rounds}\n"
    )
    print(
        "| method | package | package's ratio | our ratio | agreement | cosine to the model's own |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for rival in rivals(model, pixels, text):
        explain = our_method(rival.name, model, pixels, text)
        times = timed([partial(embed, model, pixels), rival.explain, explain], options.rounds)
        package_ratio, our_ratio = np.median(times[:, 1:] / times[:, :1], axis=0)

        correlation = agreement(rival.explain(), explain())
        cosine = float((embed(rival.model, pixels) * embedding).sum())
        print(
            f"| {METHODS[rival.name].title} | {rival.package} | {package_ratio:.2f} "
            f"| {our_ratio:.2f} | {correlation:.3f} | {cosine:.3f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
