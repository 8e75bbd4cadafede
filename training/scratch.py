"""Train CLIPs on emoji scenes, from nothing or from the weights of another one.

    python -m training emoji     # all rounds, into data/emoji.safetensors

The model is open_clip's ordinary CLIP (a ViT with a CLS token, a causal text transformer, CLIP's
own tokenizer), and the loss is CLIP's, over a batch of images and captions: no step knows where in
an image a thing is. Three things make training quick enough for two CPU cores: scenes begin with
one object and grow to four, most patches are dropped at random until the last steps (Li et al.
2023, FLIP), and matrices are updated by Muon (Jordan et al. 2024).

A transformer keeps what it knows of the whole image in patches that show nothing (Darcet et al.
2024), and an explanation that looks at patches then points there. So the last rounds of the aided
model add a penalty (`value_density`) on how evenly the patches of an image share its values. CLIP
had no such penalty, and the plain model has none either.
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

from gradeclip_utils.models import load_clip
from gradeclip_utils.scenes import CANVAS, vocabulary
from studies.finetuning.arithmetic import quick_arithmetic

from .compact import describe_training, save_compact
from .loop import train
from .optimiser import muon_of
from .rounds import PATCH, Recipe, SceneBatches
from .vectors import token_vectors

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
IMAGE_LAYERS = 4  # explained by default, unless `python -m training layers` finds fewer
SPARSE_LAYERS = 4  # the last layers whose values are penalised
STATE = "state.pt"
TEXT_CHUNKS = 4  # texts are encoded in groups of like length, so that short ones cost little


class PatchDropout(nn.Module):
    """Lets the image encoder see a random part of the patches of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.visible = 1.0  # the fraction of the patches that is seen

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of CLS and the patches that are seen: (B, 1 + K, D)."""
        if not self.training or self.visible == 1:
            return x
        patches = x.shape[1] - 1
        arrival = torch.empty(len(x), patches).exponential_()
        first = arrival.topk(max(1, int(self.visible * patches)), largest=False).indices  # (B, K)
        index = (1 + first)[..., None].expand(-1, -1, x.shape[-1])
        return torch.cat([x[:, :1], x.gather(1, index)], dim=1)


@contextmanager
def noted_values(model: nn.Module, layers: int) -> Iterator[list[Tensor]]:
    """Within it a ViT notes the patches' values (B, N, D) in its last layers, lowest first."""
    noted: list[Tensor] = []

    def note(attention: nn.MultiheadAttention, _: nn.Module, __: tuple, x: Tensor) -> None:
        """Append the values of the patches, from the normed input of attention (B, 1 + N, D)."""
        weight = attention.in_proj_weight.chunk(3)[2]
        bias = attention.in_proj_bias.chunk(3)[2]
        noted.append(nn.functional.linear(x[:, 1:], weight, bias))

    blocks = model.visual.transformer.resblocks
    blocks = blocks[len(blocks) - layers :]  # none of them for 0
    handles = [block.ln_1.register_forward_hook(partial(note, block.attn)) for block in blocks]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def value_density(values: Tensor) -> Tensor:
    """How evenly the patches of an image share its values: mean norm over root mean square norm."""
    squares = values.float().square().sum(-1) + 1e-6  # the root of zero has no gradient
    return (squares.sqrt().mean(1) / squares.mean(1).sqrt()).mean()


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) float as the model's preprocessing makes it."""
    mean = torch.tensor(MEAN).view(3, 1, 1)
    std = torch.tensor(STD).view(3, 1, 1)
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


# ----------------------------------------------------------------- the tokens that captions use


def vocabulary_ids(tokenizer: open_clip.SimpleTokenizer) -> Tensor:
    """The token ids (V,) that captions can hold, ascending, with padding, start and end of text."""
    ids = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    for word in [*vocabulary(), ","]:
        ids.update(tokenizer.encode(word))
    return torch.tensor(sorted(ids))


def rows_of(ids: Tensor) -> Tensor:
    """The row of each of CLIP's tokens in a table of some: (49408,) long, 0 for all others."""
    rows = torch.zeros(CONFIG["text_cfg"]["vocab_size"], dtype=torch.long)
    return rows.index_copy(0, ids, torch.arange(len(ids)))


def full_table(rows: Tensor, ids: Tensor) -> Tensor:
    """Embeddings (49408, D) of all of CLIP's tokens from those of some; others get their mean."""
    table = rows.mean(0).repeat(CONFIG["text_cfg"]["vocab_size"], 1)
    return table.index_copy(0, ids, rows)


def encode_text_by_length(model: nn.Module, tokens: Tensor) -> Tensor:
    """`encode_text` (B, E), computed in chunks of like length and cropped to it."""
    lengths = tokens.argmax(dim=-1) + 1
    order = lengths.argsort()

    chunks = []
    for rows in order.chunk(TEXT_CHUNKS):
        length = int(lengths[rows].max())
        x = model.token_embedding(tokens[rows, :length]) + model.positional_embedding[:length]
        mask = model.attn_mask[:length, :length].to(x.dtype)
        x = model.ln_final(model.transformer(x, attn_mask=mask))
        end_of_text = x[torch.arange(len(rows)), lengths[rows] - 1]
        chunks.append(end_of_text @ model.text_projection)
    return torch.cat(chunks)[order.argsort()]


# ---------------------------------------------------------------------------------- training


def new_model(recipe: Recipe, ids: Tensor) -> nn.Module:
    """The model that a round begins with: a `CLIP` that has only the embeddings of some tokens."""
    text = {**CONFIG["text_cfg"], "vocab_size": len(ids)}
    model = open_clip.CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], text)
    if recipe.start:
        state = load_clip("emoji", recipe.start).model.state_dict()
        state["token_embedding.weight"] = state["token_embedding.weight"][ids]
        model.load_state_dict(state)
    elif recipe.word_vectors:
        table = model.token_embedding.weight.data
        table.copy_(token_vectors(ids, table, permuted=recipe.word_vectors == "permuted"))
    return model


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon updates a weight."""
    return weight.ndim == 2 and "resblocks" in name


@torch.random.fork_rng(devices=[])
def train_round(
    folder: Path, recipe: Recipe, *, save_every: int = 50, workers: int = 1
) -> nn.Module:
    """Train a model by `recipe`; its state lies in `folder`."""
    torch.manual_seed(recipe.seed)  # open_clip draws initial weights from the global generator
    batches = SceneBatches(recipe)
    ids = vocabulary_ids(batches.tokenizer)
    rows = rows_of(ids)
    model = new_model(recipe, ids).train()
    if recipe.logit_scale:
        model.logit_scale.data.fill_(math.log(recipe.logit_scale))
        model.logit_scale.requires_grad_(False)

    dropout = model.visual.patch_dropout = PatchDropout()
    all_patches_from = (1 - recipe.whole_images) * recipe.steps
    penalised = SPARSE_LAYERS if recipe.sparse_values else 0
    clip_loss = ClipLoss()

    def losses(step: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images, tokens = batch
        dropout.visible = 1 - recipe.patches_dropped if step < all_patches_from else 1.0
        with quick_arithmetic(torch.device("cpu")), noted_values(model, penalised) as values:
            image = model.encode_image(normalise(images), normalize=True)
            text = nn.functional.normalize(encode_text_by_length(model, rows[tokens]), dim=-1)
        loss = clip_loss(image.float(), text.float(), model.logit_scale.exp())
        if not penalised:
            return loss, {}
        density = torch.stack([value_density(layer) for layer in values]).mean()
        parts = {"contrastive": loss.item(), "density": density.item()}
        return loss + recipe.sparse_values * density, parts

    optimiser = muon_of(model, is_matrix, recipe.learning_rate, recipe.weight_decay)
    train(
        model,
        optimiser,
        recipe,
        batches,
        losses,
        folder / STATE,
        save_every=save_every,
        workers=workers,
        name=folder.name,
    )
    return model.eval()


def export(folder: Path, path: Path, image_layers: int = IMAGE_LAYERS) -> None:
    """Write a trained model as a compact checkpoint with its config: `load_clip` loads it."""
    state = torch.load(folder / STATE, weights_only=True)
    weights = state["model"]
    ids = vocabulary_ids(open_clip.SimpleTokenizer())
    table = full_table(weights["token_embedding.weight"], ids)
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict({**weights, "token_embedding.weight": table})

    settings = state["settings"]
    config = {
        **config_of(CONFIG, CANVAS),
        "image_layers": image_layers,
        "training": describe_training(settings),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_compact(model, path, words=vocabulary(), metadata=settings, config=config)


def config_of(config: dict, size: int) -> dict:
    """The config of a compact checkpoint, with its preprocessing."""
    preprocess = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "size": size,
    }
    return {**config, "preprocess": preprocess, "trained_on_drawn_scenes": True}


def train_rounds(
    rounds: Sequence[Recipe],
    folder: Path,
    out: Path,
    *,
    start: str = "",
    image_layers: int = IMAGE_LAYERS,
    workers: int = 1,
) -> None:
    """Train one round after the other, each from the weights of the one before; export the last."""
    for number, recipe in enumerate(rounds, 1):
        place = folder / f"round-{number}"
        weights = place.with_suffix(".safetensors")
        print(
            f"{place}: {recipe.steps} steps, seed {recipe.seed}, from {start or 'random weights'}",
            flush=True,
        )
        train_round(place, replace(recipe, start=start), workers=workers)
        export(place, weights, image_layers)
        start = str(weights)
    export(place, out, image_layers)
