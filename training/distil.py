"""Teach small CLIPs that read their images in other ways: the bundled model is the teacher, scenes are its world.

    python -m training students                 # all three, one after another, into data/; goes on
    after a stop python -m training students emoji-resnet    # one of them python -m training
    students --card          # their figures, into data/students.md

A student sees training scenes and learns two things at once: to give an image the embedding that
the teacher gives it (feature distillation; Yang et al., "CLIP-KD", CVPR 2024), and to tell its
caption from the others of the batch, by CLIP's own loss against the teacher's text embeddings,
which stay fixed (the reverse of Zhai et al., "LiT", CVPR 2022). The student with a text encoder of
its own learns that in the same two ways.

Students that are transformers begin with the teacher's layers, and the lower ones stay as they are.
A ResNet begins from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn import functional as F

from gradeclip_utils.checks import all_chosen, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explainer import Explainer
from gradeclip_utils.files import data_path, weights_digest
from gradeclip_utils.measures.statistics import mean_interval
from gradeclip_utils.models import BUNDLED, BUNDLED_MODELS, load_clip
from gradeclip_utils.models.bundled import build_model
from gradeclip_utils.scenes import CANVAS, draw_scene, vocabulary
from studies.finetuning.arithmetic import quick_arithmetic
from studies.pairs import embed_scenes

from .compact import save_compact
from .loop import train
from .optimiser import muon_of
from .recognition import recognised
from .rounds import Recipe, SceneBatches
from .scratch import (
    CONFIG,
    config_of,
    encode_text_by_length,
    full_table,
    normalise,
    rows_of,
    vocabulary_ids,
)
from .tables import by_model, markdown_table, write_figures

TABLE, CARD = "students.csv", "students.md"
_TEXT = {"width": 192, "heads": 3, "layers": 3, "vocab_size": 49408}
_IN_TIMM = {  # what timm calls the parts of an open_clip image encoder
    "visual.conv1.": "visual.trunk.patch_embed.proj.",
    "visual.ln_pre.": "visual.trunk.norm_pre.",
    "visual.ln_post.": "visual.trunk.norm.",
    "visual.transformer.resblocks.": "visual.trunk.blocks.",
    ".attn.in_proj_": ".attn.qkv.",
    ".attn.out_proj.": ".attn.proj.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "emoji-average": {
        **CONFIG,
        "vision_cfg": {**CONFIG["vision_cfg"], "pool_type": "avg", "final_ln_after_pool": True},
    },
    "emoji-siglip": {
        "embed_dim": 192,
        "custom_text": True,
        "vision_cfg": {
            "image_size": CANVAS,
            "timm_model_name": "emoji_vit_map",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **_TEXT,
            "context_length": 32,
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
        },
    },
    "emoji-resnet": {
        **CONFIG,
        "vision_cfg": {
            "image_size": 2 * CANVAS,
            "layers": [2, 2, 2, 2],
            "width": 16,
            "head_width": 64,
        },
    },
}


@dataclass(frozen=True)
class Distillation:
    """Everything that decides the weights of a student, beside its teacher.

    Attributes:
        steps: updates of the weights.
        different: batches; then the first one comes again, and the teacher's embeddings of it are
            reused.
        batch: scenes in a batch.
        learning_rate: of Muon, at its highest; it rises over `warmup` steps and falls to zero along
            a line.
        weight_decay: of the matrices.
        distillation_weight: of (1 - cosine to the teacher's embedding), beside the contrastive
            loss.
        learns: how the names of the weights begin that learn; the others stay the teacher's.
        seed: of the weights and the scenes; the teacher's own scenes have other ones.
    """

    steps: int
    different: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 20
    distillation_weight: float = 10.0
    learns: tuple[str, ...] = ("",)
    seed: int = 100


DISTILLATIONS = {
    "emoji-average": Distillation(
        steps=200,
        different=100,
        batch=64,
        learning_rate=2e-3,
        learns=(
            "visual.transformer.resblocks.4.",
            "visual.transformer.resblocks.5.",
            "visual.ln_post.",
            "visual.proj",
        ),
    ),
    "emoji-siglip": Distillation(
        steps=200,
        different=100,
        batch=64,
        learns=(
            "visual.trunk.blocks.4.",
            "visual.trunk.blocks.5.",
            "visual.trunk.norm.",
            "visual.trunk.attn_pool.",
            "text.",
        ),
    ),
    "emoji-resnet": Distillation(steps=400, different=100, batch=64, learning_rate=3e-3),
}


class DistillationBatches:
    """Batch number i: images (B, S, S, 3) uint8, S pixels a side, and tokens (B, 77) long."""

    def __init__(self, distillation: Distillation, size: int) -> None:
        self.different, self.size = distillation.different, size
        self.half = -(-self.different // 2)
        first = Recipe(steps=self.half, batch=distillation.batch, seed=distillation.seed)
        self.halves = SceneBatches(first), SceneBatches(replace(first, hard_negatives=True))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step`."""
        number = step % self.different
        return self.halves[number >= self.half].drawn(number, self.size)


class Student(nn.Module):
    """What is taught: the image encoder, and a text encoder where the model has its own (`text` is None otherwise)."""

    def __init__(self, name: str, teacher: nn.Module, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(CONFIGS[name])
        self.visual, self.text = model.visual, getattr(model, "text", None)
        ids = vocabulary_ids(open_clip.SimpleTokenizer())
        self.register_buffer("ids", ids, persistent=False)
        if self.text is not None:  # embeddings are taught for the tokens that captions can hold
            self.text.token_embedding = nn.Embedding(len(ids), CONFIGS[name]["text_cfg"]["width"])
        self.load_state_dict(_inherited(self.state_dict(), teacher, ids))

    @property
    def size(self) -> int:
        """Pixels along a side of its images."""
        size = self.visual.image_size
        return size if isinstance(size, int) else size[0]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (B, E)."""
        assert self.text is not None
        return self.text(rows_of(self.ids)[tokens[:, : self.text.context_length]])


def _inherited(own: dict[str, Tensor], teacher: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """A student's weights `own`, with the teacher's in place of those that have the same part to play."""
    theirs = {}
    for name, value in teacher.state_dict().items():
        theirs[name if name.startswith("visual.") else f"text.{name}"] = value
    theirs["text.token_embedding.weight"] = theirs["text.token_embedding.weight"][ids]
    for name, value in list(theirs.items()):
        for part, in_timm in _IN_TIMM.items():
            name = name.replace(part, in_timm)
        theirs[name] = value
    theirs["visual.trunk.pos_embed"] = theirs["visual.positional_embedding"][
        None, 1:
    ]  # there is no CLS
    if (place := "text.positional_embedding") in own:
        theirs[place] = theirs[place][: len(own[place])]
    fits = {
        name: value
        for name, value in theirs.items()
        if name in own and value.shape == own[name].shape
    }
    if (
        "visual.layer1.0.conv1.weight" in own
    ):  # a ResNet has nothing in common, whatever some shapes say
        fits = {}
    return {**own, **fits}


def teach(
    name: str,
    teacher: nn.Module,
    folder: Path,
    distillation: Distillation,
    *,
    save_every: int = 50,
    seen: dict | None = None,
) -> Student:
    """Teach a student. Nothing in a step is random but its scenes, which its number decides."""
    student = (
        Student(name, teacher, distillation.seed).to(memory_format=torch.channels_last).train()
    )
    for key, parameter in student.named_parameters():
        parameter.requires_grad = key.startswith(distillation.learns)
    batches = DistillationBatches(distillation, student.size)
    targets = Targets(teacher, distillation, {} if seen is None else seen)

    def weighted(step: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images, tokens = batch
        parts = losses(student, normalise(images), tokens, *targets(step))
        loss = parts["contrast"] + distillation.distillation_weight * (
            parts["image"] + parts.get("text", 0.0)
        )
        return loss, {key: value.item() for key, value in parts.items()}

    optimiser = muon_of(student, _is_matrix, distillation.learning_rate, distillation.weight_decay)
    train(
        student,
        optimiser,
        distillation,
        batches,
        weighted,
        folder / f"{name}.pt",
        extra={"teacher": weights_digest(teacher)},
        save_every=save_every,
        name=name,
    )
    return student.eval()


class Targets:
    """The teacher's unit embeddings of a batch, image and text, (B, E) each; looked up where it saw the batch."""

    def __init__(
        self, teacher: nn.Module, distillation: Distillation, seen: dict[tuple[int, ...], Any]
    ) -> None:
        self.teacher, self.seen, self.batches = (
            teacher,
            seen,
            DistillationBatches(distillation, CANVAS),
        )
        self.key = (distillation.seed, distillation.batch, distillation.different)
        self.scale = teacher.logit_scale.exp().item()

    @torch.no_grad()
    def __call__(self, step: int) -> tuple[Tensor, Tensor, float]:
        """Embeddings of the images and captions of a batch, and the scale of the teacher's logits."""
        key = (*self.key, step % self.batches.different)
        if key not in self.seen:
            images, tokens = self.batches[step]
            with quick_arithmetic(torch.device("cpu")):
                image = self.teacher.encode_image(normalise(images))
                text = encode_text_by_length(self.teacher, tokens)
            self.seen[key] = tuple(F.normalize(part.float(), dim=-1) for part in (image, text))
        return *self.seen[key], self.scale


def losses(
    student: Student,
    pixels: Tensor,
    tokens: Tensor,
    their_image: Tensor,
    their_text: Tensor,
    scale: float,
) -> dict[str, Tensor]:
    """How far a student's embeddings are from the teacher's (1 - cosine), and CLIP's loss; means over the batch."""
    with quick_arithmetic(torch.device("cpu")):
        image = student.visual(pixels.contiguous(memory_format=torch.channels_last))
        text = None if student.text is None else student.encode_text(tokens)
    image = F.normalize(image.float(), dim=-1)
    parts = {"image": 1 - (image * their_image).sum(-1).mean()}
    if text is None:
        return parts | {"contrast": ClipLoss()(image, their_text, scale)}
    text = F.normalize(text.float(), dim=-1)
    return parts | {
        "text": 1 - (text * their_text).sum(-1).mean(),
        "contrast": ClipLoss()(image, text, scale),
    }


def _is_matrix(name: str, weight: Tensor) -> bool:
    inner = "blocks." in name or "layer" in name or "attn_pool" in name or "attnpool" in name
    return weight.ndim >= 2 and inner and not name.endswith(("latent", "positional_embedding"))


def export(
    name: str,
    student: Student,
    teacher: nn.Module,
    distillation: Distillation,
    path: Path,
    *,
    bundled: bool = True,
) -> None:
    """Write the whole model as a compact checkpoint with its config: `models.load_clip` loads it."""
    model = build_model(CONFIGS[name])
    state = (
        dict(teacher.state_dict()) if student.text is None else {"logit_scale": teacher.logit_scale}
    )
    state = {
        key: value for key, value in state.items() if not key.startswith("visual.")
    } | student.state_dict()
    if student.text is not None:
        state["text.token_embedding.weight"] = full_table(
            state["text.token_embedding.weight"], student.ids
        )
    model.load_state_dict(state)
    metadata = {key: str(value) for key, value in asdict(distillation).items()}
    metadata["teacher"] = BUNDLED if bundled else "another"
    shared, config = (
        data_path(BUNDLED_MODELS[BUNDLED]) if bundled else None,
        config_of(CONFIGS[name], student.size),
    )
    config["training"] = (
        f"to give the embeddings of {metadata['teacher']!r}, its teacher (distilled)"
    )
    save_compact(model, path, words=vocabulary(), metadata=metadata, config=config, shared=shared)


def card() -> pd.DataFrame:
    """What teacher and students know, on development scenes."""
    scenes = [draw_scene([60, i], split="development", n_objects=2) for i in range(256)]
    captions, rows, teacher = [scene.caption for scene in scenes], [], None
    for name in (BUNDLED, *CONFIGS):
        clip = load_clip(name)
        explainer = Explainer(clip)
        image, text = embed_scenes(explainer, scenes), explainer.embed_texts(captions)
        teacher = teacher or (image, text)
        best = (image @ text.T).argmax(-1).tolist()
        known = recognised(clip)
        measured = {
            "cosine with the teacher, images": ((image * teacher[0]).sum(-1).numpy(), None),
            "cosine with the teacher, captions": ((text * teacher[1]).sum(-1).numpy(), None),
            "right caption among 256, two things": (
                [captions[i] == captions[j] for i, j in enumerate(best)],
                None,
            ),
            "recognised, one thing among all": (known["right"].to_numpy(float), known["noun"]),
        }
        for figure, (values, clusters) in measured.items():
            kind = "mean" if figure.startswith("cosine") else "proportion"
            low, high = mean_interval(np.asarray(values, float), clusters, kind=kind)
            rows.append((name, figure, np.mean(values), low, high, len(values)))
    return pd.DataFrame(rows, columns=["model", "figure", "estimate", "low", "high", "n"])


def write_card(table: pd.DataFrame, folder: Path) -> None:
    """Put the figures into students.csv, and as a table into students.md, between its two markers."""
    table.to_csv(folder / TABLE, index=False)
    wide = by_model(table.rename(columns={"estimate": "value"}), 2)
    write_figures(
        folder / CARD,
        "students --card",
        markdown_table(("figure", *wide.columns), wide.itertuples()),
    )


def make(names: Sequence[str], folder: Path, out: Path, teacher: str | None = None) -> None:
    """Teach students and write their weights; with another teacher than the bundled model, into another folder."""
    folder, out = (
        writable(one, "a folder", folder=True, size=100_000_000) for one in (folder, out)
    )
    if teacher and out.resolve() == data_path().resolve():
        raise GradeclipError(
            f"students of another teacher would replace the bundled ones in {out}: give another --out"
        )
    names = all_chosen("names", list(names) or list(CONFIGS), CONFIGS)
    out.mkdir(parents=True, exist_ok=True)
    model, seen = load_clip(BUNDLED, teacher).model, {}
    for name in names:
        recipe = DISTILLATIONS[name]
        student = teach(name, model, folder, recipe, seen=seen)
        export(name, student, model, recipe, out / BUNDLED_MODELS[name], bundled=teacher is None)
