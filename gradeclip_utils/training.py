"""Train the bundled CLIP on emoji scenes, from nothing; fine-tune any CLIP.

    python -m gradeclip_utils.training train    # seeded, shows progress, goes on where it was interrupted
    python -m gradeclip_utils.training export --out data/emoji.safetensors    # what load_clip() loads
    python -m gradeclip_utils.card              # what it recognises, on scenes that training never drew

And fine-tune any CLIP on pairs of your own (see `finetuning`):

    python -m gradeclip_utils.training fine-tune --captions captions.csv --images folder --out tuned.safetensors

The model is open_clip's ordinary CLIP (a ViT with a CLS token, a causal text transformer, CLIP's own tokenizer), and
the training is CLIP's: the symmetric contrastive loss over a batch, nothing that tells it where an object is. Three
things make it quick enough for two CPU cores: scenes begin with one object and grow to four, most patches are dropped
until the last tenth (Li et al. 2023, FLIP), and the matrices are updated by Muon (Jordan et al. 2024).

Batches of the first round are random, as CLIP's are, and leave a bag of words: hardly ever does such a batch hold two
pictures that only binding tells apart (Yuksekgonul et al. 2023). From the second round on, a scene of several things is
followed by its companion, in which the colours have changed places; position, size and number get no such help.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from timm.optim import Muon, muon
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from .files import write_whole
from .models import save_compact
from .scenes import CANVAS, Scene, draw_scene, hard_negative, render, vocabulary

__all__ = ["CONFIG", "MEAN", "STD", "Recipe", "SceneBatches", "encode_text_by_length", "export", "normalise", "train", "vocabulary_ids"]

CONFIG = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": CANVAS, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 3},
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
FIRST_SCENES = (0.8, 0.2, 0.0, 0.0)  # shares of scenes with 1, 2, 3 and 4 objects when training begins,
FULL_SCENES = (0.3, 0.3, 0.2, 0.2)  # and once it is under way
WITH_HARD_NEGATIVE = 0.7  # the fraction of scenes that are followed by a hard negative, where there is one


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of one round; `seed` decides both the initial weights and the scenes."""

    steps: int = 2200
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 150
    patches_dropped: float = 0.75
    whole_images: float = 0.03  # the fraction of the steps, at the end, that see every patch
    tint: float = 0.45  # the fraction of objects with a colour
    hard_negatives: bool = False
    start: str = ""  # a checkpoint to begin from, instead of from nothing
    seed: int = 0


class SceneBatches(torch.utils.data.Dataset):
    """Batch number i: (pictures (B, 96, 96, 3) uint8, tokens (B, L) long), the same whatever was asked for before."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.tokenizer = recipe, open_clip.SimpleTokenizer()

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step`; early batches hold fewer objects."""
        scenes = self.scenes(step)
        pictures = np.stack([render(s.objects, s.background, CANVAS) for s in scenes])
        return torch.from_numpy(pictures), self.tokenizer([s.caption for s in scenes])

    def scenes(self, step: int) -> list[Scene]:
        """The scenes of batch `step`."""
        recipe = self.recipe
        grown = 1.0 if recipe.start else min(1.0, step / (0.3 * recipe.steps))
        shares = (1 - grown) * np.array(FIRST_SCENES) + grown * np.array(FULL_SCENES)
        counts = 1 + np.random.default_rng([recipe.seed, step]).choice(4, recipe.batch, p=shares)
        scenes = []
        for i, n in enumerate(counts):
            seed = [recipe.seed, step, i]
            like = hard_negative(scenes[-1], seed) if recipe.hard_negatives and i % 2 and not scenes[-1].unnamed else None
            scenes.append(like or draw_scene(seed, n_objects=int(n), tint=recipe.tint))
        return scenes


def normalise(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float as the model's preprocessing makes it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std


def vocabulary_ids(tokenizer) -> Tensor:
    """The token ids that captions can hold, ascending, start and end of text among them: (V,) long."""
    texts = [*vocabulary(), ","]
    return torch.unique(torch.cat([torch.tensor(tokenizer.encode(t)) for t in texts] + [
        torch.tensor([0, tokenizer.sot_token_id, tokenizer.eot_token_id])
    ]))  # fmt: skip


def encode_text_by_length(model: nn.Module, tokens: Tensor, chunks: int = 4) -> Tensor:
    """`encode_text`, computed in chunks of like length and cropped to it: causal text needs nothing after EOT."""
    lengths = tokens.argmax(dim=-1) + 1
    order = lengths.argsort()
    positions, mask = model.positional_embedding, model.attn_mask
    pieces = []
    for rows in order.chunk(chunks):
        n = int(lengths[rows].max())
        x = model.token_embedding(tokens[rows, :n]) + positions[:n]
        x = model.ln_final(model.transformer(x, attn_mask=mask[:n, :n].to(x.dtype)))
        pieces.append(x[torch.arange(len(rows)), lengths[rows] - 1] @ model.text_projection)
    return torch.cat(pieces)[order.argsort()]


# timm orthogonalises in bfloat16, which most processors of this size emulate: three times as slow
muon.zeropower_via_newtonschulz = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)


def _optimiser(model: nn.Module, recipe: Recipe) -> Muon:
    matrices, rest = [], []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and "resblocks" in name else rest).append(p)
    return Muon(
        [{"params": matrices}, {"params": rest, "use_fallback": True, "weight_decay": 0.0}],
        lr=recipe.learning_rate, weight_decay=recipe.weight_decay, nesterov=True, fallback_lr_scale=0.5,
    )  # fmt: skip


def _rate(step: int, recipe: Recipe) -> float:
    return recipe.learning_rate * min((step + 1) / recipe.warmup, 1 - step / recipe.steps)


@torch.random.fork_rng(devices=[])
def train(folder: Path, recipe: Recipe, *, save_every: int = 50, workers: int = 1) -> nn.Module:
    """Train a model by `recipe`; state is kept in `folder` every `save_every` steps, and taken up again from there.

    The vocabulary is the scenes' own: embeddings are trained for the token ids that captions can hold, others are left
    out (`models.save_compact` stores, and `load_clip` restores, the model with CLIP's full vocabulary).
    Raises ValueError if `folder` holds the state of another recipe, FloatingPointError if the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)  # open_clip draws initial weights and dropped patches from the global generator
    data = SceneBatches(recipe)
    ids = vocabulary_ids(data.tokenizer)
    model = open_clip.CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], {**CONFIG["text_cfg"], "vocab_size": len(ids)})
    optimiser, state_file = _optimiser(model, recipe), folder / "state.pt"
    state = _resumed(state_file, recipe, model, optimiser)
    first = state["step"] if state else 0
    remaining, ahead = range(first, len(data)), 4 if workers else None
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, sampler=remaining, num_workers=workers, prefetch_factor=ahead
    )
    batches = iter(loader)
    if state:  # last, because making the iterator draws a number as well
        torch.set_rng_state(state["random"])
    compact = torch.zeros(CONFIG["text_cfg"]["vocab_size"], dtype=torch.long).index_copy(0, ids, torch.arange(len(ids)))
    drop = model.visual.patch_dropout = open_clip.transformer.PatchDropout(recipe.patches_dropped)
    began, model = time.time(), model.train()
    with (folder / "log.jsonl").open("a") as log:
        progress = tqdm(batches, initial=first, total=len(data), mininterval=5)
        for step, (pictures, tokens) in enumerate(progress, start=first):
            drop.prob = recipe.patches_dropped if step < (1 - recipe.whole_images) * recipe.steps else 0.0
            for group in optimiser.param_groups:
                group["lr"] = _rate(step, recipe)
            loss = _step(model, optimiser, normalise(pictures), compact[tokens])
            if not math.isfinite(loss):
                msg = f"the loss became {loss} at step {step}: the last good state is in {state_file}; lower --rate"
                raise FloatingPointError(msg)
            if (step + 1) % 20 == 0:
                progress.set_postfix(loss=f"{loss:.3f}")
                line = {"step": step + 1, "loss": round(loss, 4), "seconds": round(time.time() - began, 1)}
                print(json.dumps(line), file=log, flush=True)
            if (step + 1) % save_every == 0 or step + 1 == len(data):
                state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
                state |= {"step": step + 1, "recipe": asdict(recipe), "ids": ids, "random": torch.get_rng_state()}
                write_whole(state_file, lambda stream, state=state: torch.save(state, stream))
    return model.eval()


def _resumed(state_file: Path, recipe: Recipe, model: nn.Module, optimiser: Muon) -> dict | None:
    """The state that was kept, put into model and optimiser; None if there is none."""
    if not state_file.exists():
        return None
    state = torch.load(state_file, weights_only=True)
    if state["recipe"] != asdict(recipe):
        msg = f"{state_file} holds a run of another recipe ({state['recipe']}): choose another folder, or delete it"
        raise ValueError(msg)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state


def _has_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported()


def _step(model: nn.Module, optimiser: Muon, pixels: Tensor, tokens: Tensor) -> float:
    """One step of contrastive training; a loss that is not finite is returned before it can do harm."""
    # the unfused kernel: on CPU it is half as slow again to go back through the fused one at this size
    # and bfloat16 only where the processor has it: emulated, a step takes more than twice as long
    with torch.autocast("cpu", torch.bfloat16, enabled=_has_bfloat16()), sdpa_kernel(SDPBackend.MATH):
        image = model.encode_image(pixels, normalize=True)
        text = nn.functional.normalize(encode_text_by_length(model, tokens), dim=-1)
    loss = ClipLoss()(image.float(), text.float(), model.logit_scale.exp())
    if math.isfinite(loss.item()):
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.logit_scale.data.clamp_(max=math.log(100))
    return loss.item()


def export(folder: Path, path: Path) -> None:
    """Write the model that `folder` holds as a compact checkpoint with its config: `models.load_clip` loads it.

    Raises FileNotFoundError if nothing was trained there.
    """
    state_file = folder / "state.pt"
    if not state_file.exists():
        raise FileNotFoundError(f"{state_file} is missing: train first, with --folder {folder}")
    state = torch.load(state_file, weights_only=True)
    model = open_clip.CLIP(**CONFIG)
    rows, ids = state["model"]["token_embedding.weight"], state["ids"]
    table = rows.mean(0).repeat(CONFIG["text_cfg"]["vocab_size"], 1).index_copy(0, ids, rows)
    model.load_state_dict({**state["model"], "token_embedding.weight": table})
    metadata = {name: str(value) for name, value in state["recipe"].items()} | {"step": str(state["step"])}
    picture = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest", "size": CANVAS}
    save_compact(model, path, words=vocabulary(), metadata=metadata, config={**CONFIG, "preprocess": picture})


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m gradeclip_utils.training", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train the bundled model")
    command.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where the state is kept")
    for name, value in asdict(Recipe()).items():
        command.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    command = commands.add_parser("export", help="write the trained model for load_clip")
    command.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where the state is kept")
    command.add_argument("--out", type=Path, required=True, help="a file ending in .safetensors")
    given = vars(parser.parse_args(arguments))
    if given["command"] == "export":
        return export(given["folder"], given["out"])
    recipe = Recipe(**{name: given[name] for name in asdict(Recipe())})
    train(given["folder"], recipe)


if __name__ == "__main__":
    main()
