"""Fine-tuning: a CLIP that sees finer, from image-caption pairs alone. Grad-ECLIP maps are the region labels.

    pairs -> regions, losses --here--> steps -> checkpoint -> Clip

    tuned = fine_tune(load_clip(), pairs, Tuning(steps=500))        # pairs: Pair(image, caption)
    Explainer(tuned.clip).explain(image, "a red car")

    python -m gradeclip_utils fine-tune --captions captions.csv --images folder --out tuned.safetensors
    accelerate launch -m gradeclip_utils fine-tune ...     # the same on several processes or GPUs

The loss of a step is CLIP's contrastive loss over whole images and captions, plus `regions` times the region-phrase
loss (`losses.region_loss`), plus, if asked for, that of hard negatives. The maps are drawn by the model as it is at
that step. Towers are in evaluation mode: no dropout, and a batch norm keeps its statistics.

A run is its seed: the same pairs, recipe and number of pairs in a step give the same steps, and a run that was killed
goes on from its last state to the same weights (`training.loop`).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checks import chosen, listed, whole, writable
from ..datasets import load, optional_library
from ..errors import GradeclipError
from ..files import output, write_path_whole
from ..measures.identity import identity, surroundings
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip, load_clip, save_compact
from ..models.open_clip import said_in_files
from ..towers.base import isolated_torch_state
from .loop import Loop, cosine_decay, origin, quick_arithmetic
from .losses import GROUND_TRUTH, HARD, Features, Learner, global_loss, map_choices, region_loss
from .options import add_fields, checked, read_fields
from .pairs import Batch, Pair, PairBatches, as_pair, present_pairs, read_pairs

STATE = "state.pt"
_BOUNDS = {
    "grad_accum_steps": (1,), "phrases": (1,), "regions": (0, 1e6), "focal_gamma": (0, 100), "ema_decay": (0, 0.99999),
}  # fmt: skip


@dataclass(frozen=True)
class Tuning:
    """Everything that decides the tuned weights, beside the model and the pairs.

    Attributes:
        steps: updates of the weights.
        batch: pairs in one pass, of all processes together.
        grad_accum_steps: passes in one step, whose gradients are averaged; each pass is a batch of its own in the
            contrastive loss.
        learning_rate: of AdamW, at its highest; it rises over `warmup` steps and falls to zero along a cosine.
        warmup: steps.
        weight_decay: of weights with two dimensions or more.
        regions: how much the region-phrase loss counts beside the global one; 0 trains with whole captions alone.
        maps: what gathers the dense features: a method of `methods.METHODS`, "word x region" (the phrase inside its
            caption), or a reference baseline: "uniform", "other image", "ground truth" (needs `Pair.where`).
        weighted: weigh each phrase by w = max(map).
        focal_gamma: exponent of the focal loss.
        phrases: the most phrases of a caption that are used.
        negatives: hard negatives for each.
        ema_decay: of an average of the weights, such as 0.99, which is then the result; 0 for none.
        precision: "fp32", or "bf16" for autocast where the processor has bfloat16; maps are always drawn in float32.
        seed: of the order of the pairs and the hard negatives.
    """

    steps: int = 500
    batch: int = 64
    grad_accum_steps: int = 1
    learning_rate: float = 1e-4
    warmup: int = 20
    weight_decay: float = 0.0
    regions: float = 1.0
    maps: str = "grad-eclip"
    weighted: bool = True
    focal_gamma: float = 2.0
    phrases: int = 4
    negatives: int = 0
    ema_decay: float = 0.0
    precision: str = "bf16"
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, and what the log of its run says.

    Attributes:
        clip: the model.
        log: one row a step: step, loss, `contrast` (the global loss), regions, negatives; `phrases` (that had a region)
            and `wordless` (captions without a phrase, which are used as a whole alone); learning_rate; seconds and
            cpu_seconds since the start.
    """

    clip: Clip
    log: pd.DataFrame


def fine_tune(
    clip: Clip,
    pairs: Sequence[Pair] | Sequence[tuple],
    tuning: Tuning = Tuning(),
    *,
    folder: str | Path | None = None,
    save_every: int = 50,
    allowed: Callable[[str], bool] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Tuned:
    """Fine-tune a copy of the model on pairs of an image and a caption; the model itself stays as it is. With its log.

    Args:
        clip: any model whose towers can be opened.
        pairs: `Pair`s or (image, caption) tuples; a list, or any sequence that makes a pair when it is asked for one.
        tuning: what to do.
        folder: where the state is kept; a run that was cut short there is gone on with. None: it is not kept.
        save_every: steps between two states.
        allowed: which texts may serve as hard negatives; by default all.
        workers: processes that read images ahead; 0 reads them between the steps.
        progress: show a bar.

    Raises:
        UnsupportedModel: a tower cannot be opened, or has no dense features; says which and why.
        FileNotFoundError: images are missing (all that are, are counted).
        ValueError: the recipe does not hold together, there are no pairs, an image is damaged, or `folder` holds
            another run.
        FloatingPointError: the loss is not finite; the last good state stays in the folder.
    """
    tuning = check(tuning)
    if not isinstance(clip, Clip):
        msg = f"fine-tuning needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}"
        raise GradeclipError(msg)
    weights = sum(parameter.numel() for parameter in clip.model.parameters())
    if folder is not None:  # the state before and the next one: weights, two moments, and an average
        folder = writable(folder, "the folder of the state", folder=True, size=2 * 4 * weights * 4)
    if not hasattr(pairs, "__getitem__") or isinstance(pairs, (list, tuple, str, dict)):
        pairs = [as_pair(pair) for pair in listed("pairs", pairs)]
    pairs = present_pairs(cast(Sequence[Pair], pairs))
    run = _Run(clip, tuning)
    batches = PairBatches(
        clip.preprocess, pairs, tuning.batch, tuning.steps * tuning.grad_accum_steps, tuning.seed, place=run.place,
        places=tuning.phrases, negatives=tuning.negatives, allowed=allowed, grid=run.grid,
    )  # fmt: skip
    about = {"pairs": len(pairs), "content": _content(pairs), "model": clip.name} | origin(clip.model)
    about |= surroundings(clip, ()) | {"computed_by": identity([METHODS.get(tuning.maps), allowed])}
    loop = Loop(
        run.model, run.optimiser, tuning, cosine_decay, about,
        file=None if folder is None else Path(folder) / STATE, save_every=save_every, writes=run.place[0] == 0,
        grad_accum_steps=tuning.grad_accum_steps, averaged=run.averaged, progress=progress, sync=run.sync,
    )  # fmt: skip
    log = loop.run(batches, run.losses, workers)
    model = (run.model if run.averaged is None else run.averaged.module).requires_grad_(False).eval()
    return Tuned(replace(clip, model=model, pretrained=f"{clip.pretrained}, fine-tuned"), log)


class _Run:
    """What fine-tuning gives to the loop: model, optimiser, average and losses, in one process or one of several."""

    def __init__(self, clip: Clip, tuning: Tuning) -> None:
        self.tuning, self.traced = tuning, False
        self.accelerator: Any = None  # one process needs none
        self.place = (0, 1)  # number of this process, number of processes
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            library = optional_library("accelerate", "fine-tuning runs in several processes here", "accelerate")
            handler = library.DistributedDataParallelKwargs(find_unused_parameters=True)
            self.accelerator = library.Accelerator(kwargs_handlers=[handler])
            self.place = (self.accelerator.process_index, self.accelerator.num_processes)
        if tuning.batch % self.place[1]:
            msg = f"batch must be a multiple of {self.place[1]} processes, got {tuning.batch}"
            raise GradeclipError(msg)
        self.model = copy.deepcopy(clip.model).eval().requires_grad_(True)
        if self.accelerator is not None:
            self.model.to(self.accelerator.device)
        self.learner = Learner(replace(clip, model=self.model), tuning.maps, tuning.regions > 0 or tuning.negatives > 0)
        tower = self.learner.image_tower
        self.device, self.grid = tower.device, None
        if tuning.maps == GROUND_TRUTH:
            (height, width), (down, across) = tower.image_size, tower.patch_size
            self.grid = height // down, width // across
        kept = [p for p in self.model.parameters() if p.ndim > 1]
        free = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": kept, "weight_decay": tuning.weight_decay}, {"params": free, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=tuning.learning_rate, betas=(0.9, 0.98))
        self.averaged = None
        if tuning.ema_decay:
            self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(tuning.ema_decay))
        self.wrapped = self.learner if self.accelerator is None else self.accelerator.prepare(self.learner)

    def sync(self, last: bool) -> Any:
        """What a pass runs in: several processes exchange their gradients with the last one of a step."""
        return nullcontext() if self.accelerator is None or last else self.accelerator.no_sync(self.wrapped)

    def losses(self, step: int, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of one pass, over the pairs of all processes, and its parts."""
        moved = {name: part.to(self.device) for name, part in vars(batch).items() if isinstance(part, Tensor)}
        tuning, batch = self.tuning, replace(batch, **moved)
        if not self.traced:  # a first trace is compared with the model's own forward pass, on its own terms
            with isolated_torch_state(self.device):
                self.learner.image_tower.trace(batch.pixels[:1])
                self.learner.text_tower.trace(self.learner.tokenizer(list(batch.texts[:1])).to(self.device))
            self.traced = True
        with quick_arithmetic(self.device, tuning.precision == "bf16"):
            found = self.wrapped(batch)
        features = Features(**self._gathered(found))
        loss = contrast = global_loss(features)
        regions = negatives = torch.zeros(())
        count = 0
        if features.regions is not None:
            regions, negatives, count = region_loss(features, tuning.focal_gamma, tuning.weighted)
            loss = contrast + tuning.regions * regions + HARD * negatives
        wordless = (~batch.there.any(1)).sum()
        wordless = int(wordless if self.place[1] == 1 else self.accelerator.reduce(wordless))
        parts = {"contrast": contrast.item(), "regions": regions.item(), "negatives": negatives.item()}
        return loss, parts | {"phrases": count, "wordless": wordless}

    def _gathered(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features of all processes, in their order; each then computes the loss of them all."""
        if self.place[1] == 1:
            return found
        gather = torch.distributed.nn.functional.all_gather
        return {
            name: part if part.ndim == 0
            else torch.cat(gather(part)) if part.is_floating_point() else self.accelerator.gather(part)
            for name, part in found.items()
        }  # fmt: skip


def check(tuning: Tuning) -> Tuning:
    """A recipe that holds together, in Python's own numbers."""
    tuning = checked(tuning, _BOUNDS)
    chosen("maps", tuning.maps, map_choices())
    chosen("precision", tuning.precision, ("fp32", "bf16"))
    return tuning


_MOST_HASHED = 1000  # pairs of a sequence that makes them when they are asked for
_MOST_DRAWN = 32  # images of pairs that make theirs when it is asked for


def _content(pairs: Sequence[Pair]) -> str:
    """A checksum of captions and images, so that a state of other pairs is not gone on with."""
    digest = hashlib.sha256()
    numbers = range(len(pairs)) if isinstance(pairs, list) else range(min(len(pairs), _MOST_HASHED))
    for i in numbers:
        pair = pairs[i]
        digest.update(f"{pair.caption}\0".encode())
        if isinstance(pair.image, (str, Path)):
            with Path(pair.image).expanduser().open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        elif not callable(pair.image):
            digest.update(pair.image.tobytes())
        elif i % -(-len(numbers) // _MOST_DRAWN) == 0:
            digest.update(pair.image().tobytes())
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------------ command


def save_tuned(clip: Clip, path: str | Path, metadata: dict[str, str], words: Sequence[str] = ()) -> None:
    """Write a tuned model for `load_clip(name, path)`: compact for a bundled model, else its state as safetensors."""
    if clip.name in BUNDLED_MODELS:
        known = {*(clip.vocabulary or ()), *words}
        write_path_whole(Path(path), lambda new: save_compact(clip.model, new, words=known, metadata=metadata))
        return
    state = {key: value.detach().cpu().contiguous().clone() for key, value in clip.model.state_dict().items()}
    metadata = {**metadata, **said_in_files(clip.model)}
    write_path_whole(Path(path), lambda new: save_file(state, new, metadata=metadata))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `fine-tune`."""
    parser.add_argument("--captions", type=Path, help="a table with the columns image and caption")
    parser.add_argument("--images", type=Path, help="the folder of the images")
    parser.add_argument("--data", metavar="KIND:WHERE", help="instead of the two: a data set, as evaluate takes it")
    parser.add_argument("--out", type=Path, required=True, help="the tuned model, a file ending in .safetensors")
    where = "beside --out by default, and gone when the model is written"
    parser.add_argument("--folder", help=f"where the state is kept; a run that was cut short goes on there; {where}")
    parser.add_argument("--skip-missing", action="store_true", help="leave out pairs whose image is missing")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images ahead")
    parser.add_argument("--save-every", type=int, default=50, help="steps between two checkpoints")
    add_fields(parser, Tuning())


def _pairs(options: argparse.Namespace) -> Sequence[Pair]:
    """The pairs of a table and a folder, or of a data set."""
    table, folder = options.captions, options.images
    if (options.data is None) != (table is not None and folder is not None) or (options.data and (table or folder)):
        raise GradeclipError("fine-tune needs --captions and --images, or --data in place of both")
    if options.data is None:
        return present_pairs(read_pairs(table, folder), options.skip_missing)
    return [Pair(example.image, example.caption or example.prompt) for example in load(options.data)]


def run_command(options: argparse.Namespace) -> str | None:
    """Read the pairs, tune, save, and return what was used and how to load the result."""
    tuning = check(read_fields(options, Tuning()))
    for name, least in (("save_every", 1), ("workers", 0)):
        whole(f"--{name.replace('_', '-')}", getattr(options, name), least)
    inputs = [options.captions, options.images, options.pretrained]
    out = output(options.out, "--out", inputs=inputs, overwrite=options.overwrite, suffixes=(".safetensors",))
    folder = out.with_suffix(".state") if options.folder is None else options.folder
    folder = writable(folder, "--folder", folder=True)
    pairs = _pairs(options)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    writable(out, "--out", size=4 * sum(parameter.numel() for parameter in clip.model.parameters()))
    kept = {"folder": folder, "save_every": options.save_every, "workers": options.workers}
    tuned = fine_tune(clip, pairs, tuning, **kept)
    if int(os.environ.get("RANK", "0")) == 0:
        words = {word.strip(".,").lower() for pair in pairs for word in pair.caption.split()}
        save_tuned(tuned.clip, out, {name: str(value) for name, value in asdict(tuning).items()}, sorted(words))
        if options.folder is None:
            for file in folder.glob("state.*"):
                file.unlink()
            with suppress(OSError):  # somebody else's files lie there too
                folder.rmdir()
    used = tuned.log[["phrases", "wordless"]].sum() * tuning.grad_accum_steps
    name = tuned.clip.name if tuned.clip.name in BUNDLED_MODELS or not options.model else options.model
    steps = f"{len(tuned.log)} step{'s' * (len(tuned.log) != 1)}"
    return (
        f"{out}: {steps}; {used['phrases']:.0f} phrases had a region, {used['wordless']:.0f} captions had no phrase and "
        f'were used as a whole\nload it: load_clip({name!r}, {str(out)!r}), or --model {name} --pretrained "{out}"'
    )
