"""Teach small CLIPs that read their images in other ways: the bundled model is the teacher.

    # all three, one after another, into data/; goes on after a stop
    python -m training students
    # one of them
    python -m training students emoji-resnet
    # their figures, into data/students.md
    python -m training students --card

A student sees training scenes and learns two things at once: to give an image the embedding that
the teacher gives it (feature distillation; Yang et al., "CLIP-KD", CVPR 2024), and to tell its
caption from the others of the batch, by CLIP's own loss against the teacher's text embeddings,
which stay fixed (the reverse of Zhai et al., "LiT", CVPR 2022). The student with a text encoder of
its own learns that in the same two ways.

Students that are transformers begin with the teacher's layers, and the lower ones stay as they are.
A ResNet begins from nothing.
"""

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

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, weights_digest
from gradeclip_utils.models import BUNDLED, BUNDLED_MODELS, load_clip
from gradeclip_utils.models.bundled import build_model
from gradeclip_utils.scenes import CANVAS, draw_scene, vocabulary
from studies.finetuning.arithmetic import quick_arithmetic
from studies.pairs import embed_scenes, right_interval

from .compact import save_compact
from .loop import train
from .optimiser import muon_of
from .recognition import caption_hits, recognition_sample
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

TABLE = "students.csv"
CARD = "students.md"
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
        self.different = distillation.different
        self.size = size
        self.half = -(-self.different // 2)  # rounded up; the others have hard negatives
        recipe = Recipe(steps=self.half, batch=distillation.batch, seed=distillation.seed)
        self.random_batches = SceneBatches(recipe)
        self.hard_batches = SceneBatches(replace(recipe, hard_negatives=True))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step`."""
        number = step % self.different
        batches = self.random_batches if number < self.half else self.hard_batches
        return batches.draw(number, self.size)


class Student(nn.Module):
    """What is taught: the image encoder, and a text encoder where the model has its own.

    `text` is None otherwise.
    """

    def __init__(self, name: str, teacher: nn.Module, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(CONFIGS[name])
        self.visual = model.visual
        self.text = getattr(model, "text", None)
        ids = vocabulary_ids(open_clip.SimpleTokenizer())
        self.register_buffer("ids", ids, persistent=False)
        if self.text is not None:  # embeddings are taught for the tokens that captions can hold
            self.text.token_embedding = nn.Embedding(len(ids), CONFIGS[name]["text_cfg"]["width"])
        self.load_state_dict(inherit(self.state_dict(), teacher, ids))

    @property
    def size(self) -> int:
        """Pixels along a side of its images."""
        size = self.visual.image_size
        return size if isinstance(size, int) else size[0]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (B, E)."""
        assert self.text is not None
        return self.text(rows_of(self.ids)[tokens[:, : self.text.context_length]])


def inherit(weights: dict[str, Tensor], teacher: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """A student's weights, with the teacher's in place of those that play the same part."""
    if "visual.layer1.0.conv1.weight" in weights:  # a ResNet, although some shapes fit
        return weights

    teacher_weights = {}
    for name, value in teacher.state_dict().items():
        if not name.startswith("visual."):
            name = f"text.{name}"
        teacher_weights[name] = value
        for part, timm_part in _IN_TIMM.items():
            name = name.replace(part, timm_part)
        teacher_weights[name] = value

    table = "text.token_embedding.weight"
    teacher_weights[table] = teacher_weights[table][ids]
    # patches alone: timm's student has no CLS
    positions = teacher_weights["visual.positional_embedding"]
    teacher_weights["visual.trunk.pos_embed"] = positions[None, 1:]
    positions = "text.positional_embedding"
    if positions in weights:
        teacher_weights[positions] = teacher_weights[positions][: len(weights[positions])]

    inherited = {}
    for name, value in weights.items():
        candidate = teacher_weights.get(name)
        fits = candidate is not None and candidate.shape == value.shape
        inherited[name] = candidate if fits else value
    return inherited


def teach(
    name: str,
    teacher: nn.Module,
    folder: Path,
    distillation: Distillation,
    seen: dict | None = None,
) -> Student:
    """Teach a student. Nothing in a step is random but its scenes, which its number decides."""
    student = Student(name, teacher, distillation.seed)
    student = student.to(memory_format=torch.channels_last).train()
    for key, parameter in student.named_parameters():
        parameter.requires_grad = key.startswith(distillation.learns)
    targets = Targets(teacher, distillation, {} if seen is None else seen)

    def weighted_loss(step: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images, tokens = batch
        parts = losses(student, normalise(images), tokens, *targets(step))
        distance = parts["image"] + parts.get("text", 0.0)
        loss = parts["contrast"] + distillation.distillation_weight * distance
        return loss, {part: value.item() for part, value in parts.items()}

    train(
        student,
        muon_of(student, is_matrix, distillation.learning_rate, distillation.weight_decay),
        distillation,
        DistillationBatches(distillation, student.size),
        weighted_loss,
        folder / f"{name}.pt",
        extra={"teacher": weights_digest(teacher)},
        name=name,
    )
    return student.eval()


class Targets:
    """The teacher's unit embeddings of a batch, image and text, (B, E) each.

    They are looked up in `seen` where the teacher saw the batch before.
    """

    def __init__(
        self,
        teacher: nn.Module,
        distillation: Distillation,
        seen: dict[tuple[int, ...], Any],
    ) -> None:
        self.teacher = teacher
        self.seen = seen
        self.batches = DistillationBatches(distillation, CANVAS)
        self.key = (distillation.seed, distillation.batch, distillation.different)
        self.scale = teacher.logit_scale.exp().item()

    @torch.no_grad()
    def __call__(self, step: int) -> tuple[Tensor, Tensor, float]:
        """Embeddings of images and captions of a batch, and the scale of the teacher's logits."""
        key = (*self.key, step % self.batches.different)
        if key not in self.seen:
            images, tokens = self.batches[step]
            with quick_arithmetic(torch.device("cpu")):
                image = self.teacher.encode_image(normalise(images))
                text = encode_text_by_length(self.teacher, tokens)
            self.seen[key] = (
                F.normalize(image.float(), dim=-1),
                F.normalize(text.float(), dim=-1),
            )
        image, text = self.seen[key]
        return image, text, self.scale


def losses(
    student: Student,
    pixels: Tensor,
    tokens: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    scale: float,
) -> dict[str, Tensor]:
    """How far embeddings are from the teacher's (1 - cosine), and CLIP's loss; batch means."""
    with quick_arithmetic(torch.device("cpu")):
        image = student.visual(pixels.contiguous(memory_format=torch.channels_last))
        text = None if student.text is None else student.encode_text(tokens)

    image = F.normalize(image.float(), dim=-1)
    parts = {"image": 1 - (image * teacher_image).sum(-1).mean()}
    if text is None:
        text = teacher_text
    else:
        text = F.normalize(text.float(), dim=-1)
        parts["text"] = 1 - (text * teacher_text).sum(-1).mean()
    return parts | {"contrast": ClipLoss()(image, text, scale)}


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon updates a weight."""
    inner = any(part in name for part in ("blocks.", "layer", "attn_pool", "attnpool"))
    return weight.ndim >= 2 and inner and not name.endswith(("latent", "positional_embedding"))


def export(
    name: str, student: Student, teacher: nn.Module, distillation: Distillation, path: Path
) -> None:
    """Write the whole model as a compact checkpoint with its config: `load_clip` loads it."""
    state = student.state_dict()
    if student.text is None:  # the teacher's text encoder
        for key, value in teacher.state_dict().items():
            if not key.startswith("visual."):
                state[key] = value
    else:
        table = "text.token_embedding.weight"
        state[table] = full_table(state[table], student.ids)
        state["logit_scale"] = teacher.logit_scale
    model = build_model(CONFIGS[name])
    model.load_state_dict(state)

    training = f"to give the embeddings of {BUNDLED!r}, its teacher (distilled)"
    save_compact(
        model,
        path,
        words=vocabulary(),
        metadata={**asdict(distillation), "teacher": BUNDLED},
        config={**config_of(CONFIGS[name], student.size), "training": training},
        shared=data_path(BUNDLED_MODELS[BUNDLED]),
    )


def make(names: Sequence[str], folder: Path, out: Path) -> None:
    """Teach students, all of them by default, and write their weights."""
    for name in names:
        if name not in CONFIGS:
            known = ", ".join(CONFIGS)
            raise GradeclipError(f"there is no student {name!r}: choose from {known}")
    model = load_clip(BUNDLED).model
    seen: dict[tuple[int, ...], Any] = {}
    for name in names or CONFIGS:
        recipe = DISTILLATIONS[name]
        print(f"{name}: {recipe.steps} steps, seed {recipe.seed}", flush=True)
        student = teach(name, model, folder, recipe, seen)
        export(name, student, model, recipe, out / BUNDLED_MODELS[name])


# ---------------------------------------------------------------------------------- the card


def card() -> pd.DataFrame:
    """What teacher and students know: model, figure, estimate, low, high, n; development scenes."""
    scenes = [draw_scene([60, i], split="development", n_objects=2) for i in range(256)]
    captions = [scene.caption for scene in scenes]
    teacher = Explainer(load_clip(BUNDLED))
    teacher_images = embed_scenes(teacher, scenes)
    teacher_texts = teacher.embed_texts(captions)

    rows: list[dict] = []
    for name in (BUNDLED, *CONFIGS):
        clip = load_clip(name)
        explainer = Explainer(clip)
        images = embed_scenes(explainer, scenes)
        texts = explainer.embed_texts(captions)
        right = caption_hits(explainer, images, captions)
        recognised = recognition_sample(clip)

        image_cosines = (images * teacher_images).sum(-1).numpy()
        text_cosines = (texts * teacher_texts).sum(-1).numpy()
        for figure, values, clusters in (
            ("cosine with the teacher, images", image_cosines, None),
            ("cosine with the teacher, captions", text_cosines, None),
            ("right caption among 256, two things", right, None),
            ("recognised, one thing among all", recognised["right"], recognised["noun"]),
        ):
            values = np.asarray(values, float)
            low, high = right_interval(values, clusters)
            rows.append(
                {
                    "model": name,
                    "figure": figure,
                    "estimate": values.mean(),
                    "low": low,
                    "high": high,
                    "n": len(values),
                }
            )
    return pd.DataFrame(rows)


def write_card(table: pd.DataFrame, folder: Path) -> None:
    """Put the figures into students.csv and students.md."""
    table.to_csv(folder / TABLE, index=False)
    wide = by_model(table.rename(columns={"estimate": "value"}), 2)
    text = markdown_table(("figure", *wide.columns), wide.itertuples())
    write_figures(folder / CARD, "students --card", text)
