"""Teach small CLIPs that read their pictures in other ways: the bundled model is the teacher, the scenes are its world.

    python -m gradeclip_utils distil                  # all three, one after another, into data/
    python -m gradeclip_utils distil emoji-resnet     # one of them; goes on where it was interrupted
    python -m gradeclip_utils distil --card           # what they know: the figures of data/pupils.md

A pupil sees training scenes and learns two things at once: to give the picture the embedding that the teacher gives it
(feature distillation; Yang et al., "CLIP-KD", CVPR 2024), and to tell its caption from the others of the batch, by
CLIP's own loss against the teacher's text embeddings, which stay as they are ("locked-image tuning" the other way
round; Zhai et al., "LiT", CVPR 2022). The pupil with a text tower of its own learns that in the same two ways.

Pupils that are transformers take over the teacher's layers. The lower ones stay as they are, so that such a pupil sees
what the teacher sees, and what reads it is learnt. A ResNet begins from nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
from open_clip.loss import ClipLoss
from timm.optim import Muon
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ..evaluation.attributes import embed_captions
from ..evaluation.statistics import interval
from ..files import data_path, write_whole
from ..models import BUNDLED, BUNDLED_MODELS, load_clip, save_compact
from ..models.compact import build
from ..scenes import CANVAS, draw_scene, render, vocabulary
from .card import embed_scenes, recognised
from .scratch import CONFIG, MEAN, STD, Recipe, SceneBatches, encode_text_by_length, normalise, vocabulary_ids

START, END = "<!-- figures: written by python -m gradeclip_utils distil --card -->", "<!-- end of figures -->"
_TEXT = {"width": 192, "heads": 3, "layers": 3, "vocab_size": 49408}
_IN_TIMM = {
    "visual.conv1.": "visual.trunk.patch_embed.proj.", "visual.ln_pre.": "visual.trunk.norm_pre.",
    "visual.ln_post.": "visual.trunk.norm.", "visual.transformer.resblocks.": "visual.trunk.blocks.",
    ".attn.in_proj_": ".attn.qkv.", ".attn.out_proj.": ".attn.proj.", ".ln_1.": ".norm1.", ".ln_2.": ".norm2.",
    ".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2.",
}  # fmt: skip
CONFIGS = {
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
        "text_cfg": {**_TEXT, "context_length": 32, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "emoji-resnet": {
        **CONFIG,
        "vision_cfg": {"image_size": 2 * CANVAS, "layers": [2, 2, 2, 2], "width": 16, "head_width": 64},
    },
}


@dataclass(frozen=True)
class Course:
    """Everything that decides what a pupil becomes, beside its teacher; `seed` is of its weights and its scenes."""

    steps: int
    different: int  # batches; then the first one comes again, and the teacher need not look at it a second time
    batch: int
    rate: float = 1e-3
    decay: float = 0.05
    warmup: int = 20
    likeness: float = 10.0  # weight of (1 - cosine to the teacher's embedding), beside the contrastive loss
    learns: tuple[str, ...] = ("",)  # how the names of the weights begin that learn; the others stay the teacher's
    seed: int = 100  # the teacher's own scenes have seed 0


COURSES = {
    "emoji-average": Course(
        steps=100, different=100, batch=64,
        learns=("visual.transformer.resblocks.5.", "visual.ln_post.", "visual.proj"),
    ),
    "emoji-siglip": Course(
        steps=200, different=100, batch=64,
        learns=("visual.trunk.blocks.4.", "visual.trunk.blocks.5.", "visual.trunk.norm.", "visual.trunk.attn_pool.",
                "text."),
    ),
    "emoji-resnet": Course(steps=400, different=100, batch=64, rate=3e-3),
}  # fmt: skip


class Lessons:
    """Batch number i: pictures (B, S, S, 3) uint8, S pixels a side, and tokens (B, 77) long.

    Scenes are those of the teacher's training with another seed: few objects first, and companions in the second half
    of the batches that are `different`.
    """

    def __init__(self, course: Course, size: int) -> None:
        recipe = Recipe(rounds=2, steps=-(-course.different // 2), batch=course.batch, seed=course.seed)
        self.different, self.size, self.batches = course.different, size, SceneBatches(recipe)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step`, as large as the pupil sees it."""
        return self.of(step, self.size)

    def of(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step`, `size` pixels a side."""
        scenes = self.batches.scenes(step % self.different)
        pictures = np.stack([render(scene.objects, scene.background, size) for scene in scenes])
        return torch.from_numpy(pictures), self.batches.tokenizer([scene.caption for scene in scenes])


class Pupil(nn.Module):
    """What is taught: the image tower, and a text tower where the model has its own (`text` is None otherwise)."""

    def __init__(self, name: str, teacher: nn.Module, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(CONFIGS[name])
        self.visual, self.text = model.visual, getattr(model, "text", None)
        ids = vocabulary_ids(open_clip.SimpleTokenizer())
        self.register_buffer("ids", ids, persistent=False)
        if self.text is not None:  # embeddings are taught for the tokens that captions can hold
            self.text.token_embedding = nn.Embedding(len(ids), CONFIGS[name]["text_cfg"]["width"])
        self.load_state_dict(_inherited(self.state_dict(), teacher, ids))

    @property
    def size(self) -> int:
        """Pixels along a side of its pictures."""
        size = self.visual.image_size
        return size if isinstance(size, int) else size[0]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (B, E) of CLIP's token ids (B, 77)."""
        place = torch.zeros(_TEXT["vocab_size"], dtype=torch.long).index_copy(0, self.ids, torch.arange(len(self.ids)))
        return self.text(place[tokens[:, : self.text.context_length]])


def _inherited(own: dict[str, Tensor], teacher: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """A pupil's weights ``own``, with the teacher's in place of those that have the same part to play."""
    theirs = {}
    for name, value in teacher.state_dict().items():
        theirs[name if name.startswith("visual.") else f"text.{name}"] = value
    theirs["text.token_embedding.weight"] = theirs["text.token_embedding.weight"][ids]
    theirs |= {_name_in_timm(name): value for name, value in theirs.items()}
    theirs["visual.trunk.pos_embed"] = theirs["visual.positional_embedding"][None, 1:]  # there is no CLS
    if "text.positional_embedding" in own:
        theirs["text.positional_embedding"] = theirs["text.positional_embedding"][
            : len(own["text.positional_embedding"])
        ]
    fits = {name: value for name, value in theirs.items() if name in own and value.shape == own[name].shape}
    if "visual.layer1.0.conv1.weight" in own:  # a ResNet has nothing in common, whatever some shapes say
        fits = {}
    return {**own, **fits}


def _name_in_timm(name: str) -> str:
    """What timm calls the part of an open_clip image tower."""
    for ours, theirs in _IN_TIMM.items():
        name = name.replace(ours, theirs)
    return name


def teach(
    name: str, teacher: nn.Module, folder: Path, course: Course, *, save_every: int = 50, seen: dict | None = None
) -> Pupil:
    """Teach the pupil ``name`` by ``course``. State is kept in ``folder``, and taken up again from there.

    Nothing in a step is random but its scenes, which its number decides, so that a run that was killed goes on to the
    same weights. ``seen`` remembers what the teacher says of the scenes, for another pupil that sees the same.

    Raises:
        ValueError: the folder holds the state of another course.
        FloatingPointError: the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pupil, state_file = Pupil(name, teacher, course.seed), folder / f"{name}.pt"
    for key, parameter in pupil.named_parameters():
        parameter.requires_grad = key.startswith(course.learns)
    optimiser = _optimiser(pupil, course)
    first = _resumed(state_file, course, pupil, optimiser)
    lessons = Lessons(course, pupil.size)
    targets, began = Targets(teacher, course, {} if seen is None else seen), time.time()
    pupil = pupil.to(memory_format=torch.channels_last).train()
    with (folder / f"{name}.jsonl").open("a") as log:
        progress = tqdm(range(first, course.steps), initial=first, total=course.steps, desc=name, mininterval=5)
        for step in progress:
            pictures, tokens = lessons[step]
            for group in optimiser.param_groups:
                group["lr"] = course.rate * min((step + 1) / course.warmup, 1 - step / course.steps)
            parts = losses(pupil, normalise(pictures), tokens, *targets(lessons, step))
            loss = parts["contrast"] + course.likeness * (parts["picture"] + parts.get("text", 0.0))
            if not math.isfinite(loss.item()):
                msg = f"the loss became {loss.item()} at step {step}: the last good state is in {state_file}"
                raise FloatingPointError(msg)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
            optimiser.step()
            if (step + 1) % 10 == 0:
                said = {key: round(value.item(), 4) for key, value in parts.items()}
                progress.set_postfix(said)
                line = {"step": step + 1, **said, "seconds": round(time.time() - began, 1)}
                print(json.dumps(line), file=log, flush=True)
            if (step + 1) % save_every == 0 or step + 1 == course.steps:
                state = {"pupil": pupil.state_dict(), "optimiser": optimiser.state_dict()}
                state |= {"step": step + 1, "course": asdict(course)}
                write_whole(state_file, lambda stream, state=state: torch.save(state, stream))
    return pupil.eval()


def _resumed(state_file: Path, course: Course, pupil: Pupil, optimiser: Muon) -> int:
    """Put the state that was kept into pupil and optimiser: the step to go on with, 0 if there is none."""
    if not state_file.exists():
        return 0
    state = torch.load(state_file, weights_only=True)
    if state["course"] != asdict(course):
        msg = f"{state_file} holds a run of another course ({state['course']}): choose another folder, or delete it"
        raise ValueError(msg)
    pupil.load_state_dict(state["pupil"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]


class Targets:
    """The teacher's unit embeddings of a batch, picture and text, (B, E) each; looked up where it saw the batch."""

    def __init__(self, teacher: nn.Module, course: Course, seen: dict[tuple[int, ...], tuple[Tensor, Tensor]]):
        self.teacher, self.course, self.seen = teacher.eval().requires_grad_(False), course, seen
        self.scale = teacher.logit_scale.exp().item()

    @torch.no_grad()
    def __call__(self, lessons: Lessons, step: int) -> tuple[Tensor, Tensor, float]:
        """Embeddings of the pictures and captions of a batch, and the scale of the teacher's logits."""
        key = (self.course.seed, self.course.batch, self.course.different, step % self.course.different)
        if key not in self.seen:
            pictures, tokens = lessons.of(step, CANVAS)
            with torch.autocast("cpu", torch.bfloat16):
                image = self.teacher.encode_image(normalise(pictures))
                text = encode_text_by_length(self.teacher, tokens)
            self.seen[key] = tuple(F.normalize(part.float(), dim=-1) for part in (image, text))
        return *self.seen[key], self.scale


def losses(
    pupil: Pupil, pixels: Tensor, tokens: Tensor, their_image: Tensor, their_text: Tensor, scale: float
) -> dict[str, Tensor]:
    """How far the embeddings are from the teacher's, (1 - cosine), and CLIP's loss; means over the batch."""
    # the unfused kernel: on CPU it is half as slow again to go back through the fused one at this size
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        image = pupil.visual(pixels.contiguous(memory_format=torch.channels_last))
        text = None if pupil.text is None else pupil.encode_text(tokens)
    image = F.normalize(image.float(), dim=-1)
    parts = {"picture": 1 - (image * their_image).sum(-1).mean()}
    if text is None:
        return parts | {"contrast": ClipLoss()(image, their_text, scale)}
    text = F.normalize(text.float(), dim=-1)
    return parts | {"text": 1 - (text * their_text).sum(-1).mean(), "contrast": ClipLoss()(image, text, scale)}


def _optimiser(pupil: Pupil, course: Course) -> Muon:
    matrices, rest = [], []
    for name, p in pupil.named_parameters():
        if not p.requires_grad:
            continue
        inner = p.ndim >= 2 and ("blocks." in name or "layer" in name or "attn_pool" in name or "attnpool" in name)
        (matrices if inner and not name.endswith(("latent", "positional_embedding")) else rest).append(p)
    return Muon(
        [{"params": matrices}, {"params": rest, "use_fallback": True, "weight_decay": 0.0}],
        lr=course.rate, weight_decay=course.decay, nesterov=True, fallback_lr_scale=0.5,
    )  # fmt: skip


def export(name: str, pupil: Pupil, teacher: nn.Module, course: Course, path: Path) -> None:
    """Write the whole model as a compact checkpoint with its config: `models.load_clip` loads it.

    What it has from the teacher unchanged is left out, and read from the bundled model's file.
    """
    model = build(CONFIGS[name])
    state = dict(teacher.state_dict()) if pupil.text is None else {"logit_scale": teacher.logit_scale}
    state = {key: value for key, value in state.items() if not key.startswith("visual.")} | pupil.state_dict()
    if pupil.text is not None:
        rows = state["text.token_embedding.weight"]
        table = rows.mean(0).repeat(_TEXT["vocab_size"], 1).index_copy(0, pupil.ids, rows)
        state["text.token_embedding.weight"] = table
    model.load_state_dict(state)
    metadata = {key: str(value) for key, value in asdict(course).items()} | {"teacher": BUNDLED}
    picture = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest", "size": pupil.size}
    config = {**CONFIGS[name], "preprocess": picture}
    shared = data_path(BUNDLED_MODELS[BUNDLED])
    save_compact(model, path, words=vocabulary(), metadata=metadata, config=config, shared=shared)


def card(names: Sequence[str] = (BUNDLED, *CONFIGS), n: int = 256, things: int = 60) -> pd.DataFrame:
    """What pupils and teacher know, on development scenes: model, figure, estimate, low, high (95 % intervals), n.

    "likeness" is the mean cosine to the teacher's embedding, of ``n`` pictures and of their captions; "right caption"
    is the share of these pictures whose own caption (or one that reads the same) is the best of all ``n``;
    "recognised" the share of single untinted things, of ``things`` concepts, whose prompt is the best of all concepts'.
    """
    scenes = [draw_scene([60, i], split="development", n_objects=2) for i in range(n)]
    captions, rows, teacher = [scene.caption for scene in scenes], [], None
    for name in names:
        clip = load_clip(name)
        image, text = embed_scenes(clip, scenes), embed_captions(clip, captions)
        teacher = (image, text) if teacher is None else teacher
        best = (image @ text.T).argmax(-1).tolist()
        known = recognised(clip, things)
        measured = {
            "likeness, pictures": ((image * teacher[0]).sum(-1).numpy(), None),
            "likeness, captions": ((text * teacher[1]).sum(-1).numpy(), None),
            f"right caption among {n}, two things": ([captions[i] == captions[j] for i, j in enumerate(best)], None),
            "recognised, one thing among all": (known["right"].to_numpy(float), known["noun"]),
        }
        for figure, (values, clusters) in measured.items():
            low, high = interval(np.asarray(values, float), clusters)
            row = {"model": name, "figure": figure, "estimate": np.mean(values), "low": low, "high": high}
            rows.append(row | {"n": len(values)})
    return pd.DataFrame(rows)


def write_card(table: pd.DataFrame, folder: Path) -> None:
    """Put the figures into pupils.csv, and as a table into pupils.md, between its two markers."""
    table.to_csv(folder / "pupils.csv", index=False)
    cells = table.assign(
        cell=[f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in table.itertuples()]
    ).pivot(index="figure", columns="model", values="cell")
    cells = cells.loc[table["figure"].drop_duplicates(), table["model"].drop_duplicates()]
    lines = [f"| figure | {' | '.join(cells)} |", f"| --- |{' --- |' * len(cells.columns)}"]
    lines += [f"| {figure} | {' | '.join(row)} |" for figure, row in zip(cells.index, cells.to_numpy(), strict=True)]
    text = (folder / "pupils.md").read_text()
    before, rest = text.split(START)
    body = "\n".join(lines)
    (folder / "pupils.md").write_text(f"{before}{START}\n\n{body}\n\n{END}{rest.split(END)[1]}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `distil`."""
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(CONFIGS)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/pupils"), help="where the state is kept")
    parser.add_argument("--out", type=Path, default=data_path(), help="the folder for the models that load_clip loads")
    parser.add_argument("--steps", type=int, help="in place of each course's own number")
    parser.add_argument("--seed", type=int, help="in place of each course's own")
    parser.add_argument("--card", action="store_true", help="only measure what is in --out, and write its card there")


def run_command(options: argparse.Namespace) -> None:
    """The command `distil`: teach and export, or write the card.

    Raises:
        ValueError: a name that is none of `CONFIGS`.
    """
    if options.card:
        return write_card(card(), options.out)
    unknown = [name for name in options.names if name not in CONFIGS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(CONFIGS)}")
    teacher, seen = load_clip(BUNDLED).model, {}
    for name in options.names or CONFIGS:
        given = {key: getattr(options, key) for key in ("steps", "seed") if getattr(options, key) is not None}
        course = replace(COURSES[name], **given)
        pupil = teach(name, teacher, options.folder, course, seen=seen)
        export(name, pupil, teacher, course, options.out / BUNDLED_MODELS[name])
