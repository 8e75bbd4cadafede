"""Train the bundled CLIP on emoji scenes, from nothing or from a checkpoint: one command trains one round.

    python -m gradeclip_utils train                                    # seeded, goes on where it was interrupted
    python -m gradeclip_utils train --export data/emoji.safetensors    # what load_clip() loads
    python -m gradeclip_utils card                                     # what it recognises, on scenes never trained on

    python -m gradeclip_utils train --folder runs/second --start runs/first.safetensors --hard-negatives --seed 1

`rounds.ROUNDS` says what every round of the bundled model was given, `BAG_ROUND` the one that makes `emoji-bag` of it.

The model is open_clip's ordinary CLIP (a ViT with a CLS token, a causal text transformer, CLIP's own tokenizer), and
the training is CLIP's: the symmetric contrastive loss over a batch, nothing that tells it which object has which name.
Three things make it quick enough for two CPU cores: scenes begin with one object and grow to four, most patches are
dropped until the last few steps (Li et al. 2023, FLIP), and the matrices are updated by Muon (Jordan et al. 2024).

A transformer keeps what it knows of the whole image in patches that show nothing (Darcet et al. 2024), and an
explanation that looks at patches then points there. So a later round shows more of the patches with things, and asks
that few patches have values (`value_density`). CLIP was not asked: maps of the bundled model are the clearer for it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from gradeclip_utils.checks import as_path, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.finetune.loop import Loop, linear_decay, muon_of, origin, quick_arithmetic, state_of
from gradeclip_utils.finetune.options import add_fields, checked, read_fields
from gradeclip_utils.models import load_clip, save_compact
from gradeclip_utils.scenes import CANVAS, vocabulary

from .rounds import PATCH, Recipe, SceneBatches

CONFIG: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": CANVAS, "patch_size": PATCH, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 3},
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
IMAGE_LAYERS = 4  # that explain these models best, on development scenes; the published method has one
STATE = "state.pt"
_STATE_SIZE = 100_000_000  # bytes: weights and moments of a state, and of the next one beside it
_BOUNDS = {
    "patches_dropped": (0, 1), "on_things": (0, 1), "whole_images": (0, 1), "tint": (0, 1), "sparse_values": (0, 1e6),
    "logit_scale": (0, 100),
}  # fmt: skip


class PatchDropout(nn.Module):
    """Lets the image encoder see a part of the patches of each image, at random or more of those that show things."""

    def __init__(self, on_things: float = 0.0) -> None:
        super().__init__()
        self.fraction, self.kept = on_things, 1.0  # the fraction of all patches that is seen
        self.on_things = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of the patches that are seen: (B, 1 + K, D)."""
        if not self.training or self.kept == 1:
            return x
        mine = self.on_things
        weight = torch.ones(mine.shape)
        if self.fraction:
            weight = torch.where(mine, self.fraction / mine.sum(1, True), (1 - self.fraction) / (~mine).sum(1, True))
        arrival = torch.empty(weight.shape).exponential_() / weight  # the first of a race (Efraimidis & Spirakis 2006)
        first = 1 + arrival.topk(max(1, int(self.kept * weight.shape[1])), largest=False).indices
        return torch.cat([x[:, :1], x.gather(1, first[..., None].expand(-1, -1, x.shape[-1]))], dim=1)


@contextmanager
def noted_values(model: nn.Module, layers: int) -> Iterator[list[Tensor]]:
    """Within it each pass of a ViT notes the values (B, N, D) of the patches in its last layers, lowest first."""
    noted: list[Tensor] = []

    def _note(attention: nn.MultiheadAttention, _: nn.Module, __: tuple, x: Tensor) -> None:
        """Append the values of the patches, from what the norm before the attention gives, (B, 1 + N, D)."""
        weight, bias = (part.chunk(3)[2] for part in (attention.in_proj_weight, attention.in_proj_bias))
        noted.append(nn.functional.linear(x[:, 1:], weight, bias))

    blocks = model.visual.transformer.resblocks
    blocks = blocks[len(blocks) - layers :]  # none of them for 0
    handles = [block.ln_1.register_forward_hook(partial(_note, block.attn)) for block in blocks]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def value_density(values: Tensor) -> Tensor:
    """How evenly the patches of an image share its values: mean norm over root mean square norm, at most 1."""
    squares = values.float().square().sum(-1) + 1e-6  # the root of zero has no gradient
    return (squares.sqrt().mean(1) / squares.mean(1).sqrt()).mean()


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) float as the model's preprocessing makes it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def vocabulary_ids(tokenizer: open_clip.SimpleTokenizer) -> Tensor:
    """The token ids that captions can hold, ascending, padding, start and end of text among them: (V,) long."""
    found = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    return torch.tensor(sorted(found.union(*(tokenizer.encode(text) for text in [*vocabulary(), ","]))))


def rows_of(ids: Tensor) -> Tensor:
    """Where the embedding of each of CLIP's tokens is among those of some: (49408,) long, 0 for the rest."""
    empty = torch.zeros(CONFIG["text_cfg"]["vocab_size"], dtype=torch.long)
    return empty.index_copy(0, ids, torch.arange(len(ids)))


def full_table(rows: Tensor, ids: Tensor) -> Tensor:
    """The embeddings (49408, D) of all of CLIP's tokens from those of some; the others get their mean."""
    return rows.mean(0).repeat(CONFIG["text_cfg"]["vocab_size"], 1).index_copy(0, ids, rows)


def encode_text_by_length(model: nn.Module, tokens: Tensor) -> Tensor:
    """`encode_text` (B, E), computed in four chunks of like length and cropped to it."""
    lengths = tokens.argmax(dim=-1) + 1
    order = lengths.argsort()
    positions, mask = model.positional_embedding, model.attn_mask
    found = []
    for rows in order.chunk(4):
        n = int(lengths[rows].max())
        x = model.token_embedding(tokens[rows, :n]) + positions[:n]
        x = model.ln_final(model.transformer(x, attn_mask=mask[:n, :n].to(x.dtype)))
        found.append(x[torch.arange(len(rows)), lengths[rows] - 1] @ model.text_projection)
    return torch.cat(found)[order.argsort()]


def new_model(recipe: Recipe, ids: Tensor) -> nn.Module:
    """The model that a round begins with: a `CLIP` that has only the embeddings of some tokens."""
    text = {**CONFIG["text_cfg"], "vocab_size": len(ids)}
    model = open_clip.CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], text)
    if recipe.start:
        state = load_clip("emoji", recipe.start).model.state_dict()
        state["token_embedding.weight"] = state["token_embedding.weight"][ids]
        model.load_state_dict(state)
    return model


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and "resblocks" in name


@torch.random.fork_rng(devices=[])
def train(folder: str | Path, recipe: Recipe, *, save_every: int = 50, workers: int = 1) -> nn.Module:
    """Train a model by `recipe`."""
    recipe = checked(recipe, _BOUNDS)
    folder = writable(folder, "the folder of the state", folder=True, size=_STATE_SIZE)
    torch.manual_seed(recipe.seed)  # open_clip draws initial weights and dropped patches from the global generator
    data = SceneBatches(recipe)
    ids = vocabulary_ids(data.tokenizer)
    model, rows = new_model(recipe, ids).train(), rows_of(ids)
    if recipe.logit_scale:
        model.logit_scale.data.fill_(math.log(recipe.logit_scale))
        model.logit_scale.requires_grad_(False)
    optimiser = muon_of(model, _is_matrix, recipe.learning_rate, recipe.weight_decay)
    drop = model.visual.patch_dropout = PatchDropout(recipe.on_things)
    whole_from, loss_of = (1 - recipe.whole_images) * recipe.steps, ClipLoss()

    def losses(step: int, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its parts where it has more than one."""
        images, tokens, drop.on_things = batch
        drop.kept = 1 - recipe.patches_dropped if step < whole_from else 1.0
        explained = IMAGE_LAYERS if recipe.sparse_values else 0
        with quick_arithmetic(torch.device("cpu")), noted_values(model, explained) as values:
            image = model.encode_image(normalise(images), normalize=True)
            text = nn.functional.normalize(encode_text_by_length(model, rows[tokens]), dim=-1)
        loss = loss_of(image.float(), text.float(), model.logit_scale.exp())
        if not explained:
            return loss, {}
        density = torch.stack([value_density(layer) for layer in values]).mean()
        return loss + recipe.sparse_values * density, {"contrastive": loss.item(), "density": density.item()}

    loop = Loop(
        model, optimiser, recipe, linear_decay, origin(model), folder / STATE, save_every=save_every, extra={"ids": ids}
    )
    loop.run(data, losses, workers)
    return model.eval()


def export(folder: str | Path, path: str | Path) -> None:
    """Write a trained model as a compact checkpoint with its config: `models.load_clip` loads it."""
    path = writable(path, "--export", suffixes=(".safetensors",), size=_STATE_SIZE)
    state_file = as_path(folder, "the folder of the state") / STATE
    if not state_file.exists():
        raise GradeclipError(f"{state_file} is missing: train first, with --folder {folder}")
    model = open_clip.CLIP(**CONFIG)
    with state_of(state_file) as state:
        table = full_table(state["model"]["token_embedding.weight"], state["ids"])
        model.load_state_dict({**state["model"], "token_embedding.weight": table})
        metadata = {name: str(value) for name, value in state["recipe"].items()} | {"step": str(state["step"])}
    path.parent.mkdir(parents=True, exist_ok=True)
    config = config_of(CONFIG, CANVAS) | {"image_layers": IMAGE_LAYERS}
    save_compact(model, path, words=vocabulary(), metadata=metadata, config=config)


def config_of(config: dict, size: int) -> dict:
    """The config of a compact checkpoint, with what its preprocessing is."""
    images = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest", "size": size}
    return {**config, "preprocess": images}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `train`."""
    parser.add_argument("--folder", default="runs/emoji", help="where the state is kept; %(default)s")
    parser.add_argument("--export", metavar="FILE", help="train nothing: write what --folder holds, for load_clip")
    add_fields(parser, Recipe())


def run_command(options: argparse.Namespace) -> None:
    """The command `train`: train the bundled model, or export what was trained."""
    if options.export is not None:
        return export(options.folder, options.export)
    train(options.folder, read_fields(options, Recipe()))
