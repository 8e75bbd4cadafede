"""Train CLIPs on emoji scenes, from nothing or from the weights of another one.

    python -m training emoji           # three rounds, into data/emoji.safetensors; goes on where it
    was stopped python -m training emoji-plain     # trained by CLIP's loss alone, with nothing that
    helps explanations

The model is open_clip's ordinary CLIP (a ViT with a CLS token, a causal text transformer, CLIP's
own tokenizer), and the loss is CLIP's, over a batch of images and captions: no step knows where in
an image a thing is. Three things make training quick enough for two CPU cores: scenes begin with
one object and grow to four, most patches are dropped at random until the last steps (Li et al.
2023, FLIP), and matrices are updated by Muon (Jordan et al. 2024).

A transformer keeps what it knows of the whole image in patches that show nothing (Darcet et al.
2024), and an explanation that looks at patches then points there. So the last round of `emoji` adds
a penalty (`value_density`) on how evenly the patches of an image share its values. CLIP had no such
penalty; `emoji-plain` has none either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from gradeclip_utils.checks import writable
from gradeclip_utils.models import load_clip, save_compact
from gradeclip_utils.scenes import CANVAS, vocabulary
from training.loop import Loop, origin, quick_arithmetic, state_of

from .optimiser import muon_of
from .rounds import PATCH, Recipe, SceneBatches

CONFIG: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {
        "image_size": CANVAS,
        "patch_size": PATCH,
        "width": 192,
        "layers": 6,
        "head_width": 64,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 3},
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
IMAGE_LAYERS = 4  # the last layers that a model is explained through, unless `python -m training layers` finds fewer
SPARSE_LAYERS = 4  # the last layers whose values are penalised
STATE = "state.pt"
_STATE_SIZE = 100_000_000  # bytes: weights and moments of a state, and of the next one beside it


class PatchDropout(nn.Module):
    """Lets the image encoder see a random part of the patches of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 1.0  # the fraction of the patches that is seen

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of CLS and the patches that are seen: (B, 1 + K, D)."""
        if not self.training or self.kept == 1:
            return x
        patches = x.shape[1] - 1
        arrival = torch.empty(len(x), patches).exponential_()
        first = 1 + arrival.topk(max(1, int(self.kept * patches)), largest=False).indices
        return torch.cat(
            [x[:, :1], x.gather(1, first[..., None].expand(-1, -1, x.shape[-1]))], dim=1
        )


@contextmanager
def noted_values(model: nn.Module, layers: int) -> Iterator[list[Tensor]]:
    """Within it each pass of a ViT notes the values (B, N, D) of the patches in its last layers, lowest first."""
    noted: list[Tensor] = []

    def _note(attention: nn.MultiheadAttention, _: nn.Module, __: tuple, x: Tensor) -> None:
        """Append the values of the patches, from what the norm before the attention gives, (B, 1 + N, D)."""
        weight, bias = (
            part.chunk(3)[2] for part in (attention.in_proj_weight, attention.in_proj_bias)
        )
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


def linear_decay(recipe: Any, step: int) -> float:
    """The learning rate at a step: up to its highest over `warmup`, and along a line to zero at `steps`."""
    return recipe.learning_rate * min((step + 1) / max(1, recipe.warmup), 1 - step / recipe.steps)


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) float as the model's preprocessing makes it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def vocabulary_ids(tokenizer: open_clip.SimpleTokenizer) -> Tensor:
    """The token ids that captions can hold, ascending, padding, start and end of text among them: (V,) long."""
    found = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    return torch.tensor(
        sorted(found.union(*(tokenizer.encode(text) for text in [*vocabulary(), ","])))
    )


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
def train(
    folder: str | Path, recipe: Recipe, *, save_every: int = 50, workers: int = 1
) -> nn.Module:
    """Train a model by `recipe`."""
    folder = writable(folder, "the folder of the state", folder=True, size=_STATE_SIZE)
    torch.manual_seed(
        recipe.seed
    )  # open_clip draws initial weights and dropped patches from the global generator
    data = SceneBatches(recipe)
    ids = vocabulary_ids(data.tokenizer)
    model, rows = new_model(recipe, ids).train(), rows_of(ids)
    if recipe.logit_scale:
        model.logit_scale.data.fill_(math.log(recipe.logit_scale))
        model.logit_scale.requires_grad_(False)
    optimiser = muon_of(model, _is_matrix, recipe.learning_rate, recipe.weight_decay)
    drop = model.visual.patch_dropout = PatchDropout()
    whole_from, loss_of = (1 - recipe.whole_images) * recipe.steps, ClipLoss()

    def losses(step: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images, tokens = batch
        drop.kept = 1 - recipe.patches_dropped if step < whole_from else 1.0
        penalised = SPARSE_LAYERS if recipe.sparse_values else 0
        with quick_arithmetic(torch.device("cpu")), noted_values(model, penalised) as values:
            image = model.encode_image(normalise(images), normalize=True)
            text = nn.functional.normalize(encode_text_by_length(model, rows[tokens]), dim=-1)
        loss = loss_of(image.float(), text.float(), model.logit_scale.exp())
        if not penalised:
            return loss, {}
        density = torch.stack([value_density(layer) for layer in values]).mean()
        return loss + recipe.sparse_values * density, {
            "contrastive": loss.item(),
            "density": density.item(),
        }

    loop = Loop(
        model,
        optimiser,
        recipe,
        linear_decay,
        origin(model),
        folder / STATE,
        save_every=save_every,
        extra={"ids": ids},
    )
    loop.run(data, losses, workers)
    return model.eval()


def export(folder: Path, path: Path, image_layers: int = IMAGE_LAYERS) -> None:
    """Write a trained model as a compact checkpoint with its config: `load_clip` loads it."""
    model = open_clip.CLIP(**CONFIG)
    with state_of(folder / STATE) as state:
        table = full_table(state["model"]["token_embedding.weight"], state["ids"])
        model.load_state_dict({**state["model"], "token_embedding.weight": table})
        metadata = {name: str(value) for name, value in state["recipe"].items()} | {
            "step": str(state["step"])
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    config = config_of(CONFIG, CANVAS) | {"image_layers": image_layers}
    save_compact(model, path, words=vocabulary(), metadata=metadata, config=config)


def config_of(config: dict, size: int) -> dict:
    """The config of a compact checkpoint, with its preprocessing."""
    images = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "size": size,
    }
    return {**config, "preprocess": images}


def train_rounds(
    rounds: Sequence[Recipe],
    folder: Path,
    out: Path,
    *,
    start: str = "",
    image_layers: int = IMAGE_LAYERS,
    workers: int = 1,
) -> None:
    """Train one round after the other, each from the weights of the one before, and export the last one."""
    writable(out, "--out", suffixes=(".safetensors",), size=_STATE_SIZE)
    for number, recipe in enumerate(rounds, 1):
        place = folder / f"round-{number}"
        print(
            f"{place}: {recipe.steps} steps, seed {recipe.seed}, from {start or 'random weights'}",
            flush=True,
        )
        train(place, replace(recipe, start=start), workers=workers)
        export(place, place.with_suffix(".safetensors"), image_layers)
        start = str(place.with_suffix(".safetensors"))
    export(place, out, image_layers)
