"""Fine-tuning: a CLIP that sees finer, from image-caption pairs alone. Grad-ECLIP maps are the region labels.

    pairs -> regions, losses --here--> steps -> checkpoint -> Clip

    tuned = fine_tune(load_clip(), pairs, Tuning(steps=500))        # pairs: Pair(picture, caption)
    Explainer(tuned.clip).explain(picture, "a red car")

    python -m gradeclip_utils fine-tune --captions captions.csv --images folder --out tuned.safetensors
    accelerate launch -m gradeclip_utils fine-tune ...     # the same on several processes or GPUs

The loss of a step is CLIP's contrastive loss over whole pictures and captions, plus `regions` times the region-phrase
loss (`losses.region_loss`), plus, if asked for, that of hard negatives. The maps are drawn by the model as it is at
that step. Towers are in evaluation mode: no dropout, and a batch norm keeps its statistics.

A run is its seed: the same pairs, recipe and number of pairs in a step give the same steps. The state is written to the
folder whole or not at all, so a run that is killed at any moment goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from ...datasets import optional_library
from ...explain import isolated_torch_state
from ...files import write_whole
from ...models import Clip
from .losses import HARD, TRUTH, Features, Learner, global_loss, region_loss
from .pairs import Batch, Pair, PairBatches, identity, present_pairs

STATE = "state.pt"
_FLOORED = math.log(100)  # as CLIP bounds its temperature


@dataclass(frozen=True)
class Tuning:
    """Everything that decides the tuned weights, beside the model and the pairs.

    Attributes:
        steps: updates of the weights.
        batch: pairs in one pass, of all processes together. `accumulate`: passes in one step, whose gradients are
            averaged; each pass is a batch of its own in the contrastive loss.
        rate, warmup, decay: of AdamW; the rate rises over `warmup` steps and falls to zero along a cosine.
        regions: how much the region-phrase loss counts beside the global one; 0 trains with whole captions alone.
        maps: what gathers the dense features: a method of `methods.METHODS`, "word x region" (the phrase inside its
            caption), or a frame of comparison: "uniform", "other picture", "truth" (needs `Pair.where`).
        weighted: weigh each phrase by w = max(map). `focus`: exponent of the focal loss.
        phrases: the most phrases of a caption that are used. `negatives`: hard negatives for each.
        average: momentum of an average of the weights, such as 0.99, which is then the result; 0 for none.
        precision: "fp32", or "bf16" for autocast; maps are always drawn in float32.
        seed: of the order of the pairs and the hard negatives.
    """

    steps: int = 500
    batch: int = 64
    accumulate: int = 1
    rate: float = 1e-4
    warmup: int = 20
    decay: float = 0.0
    regions: float = 1.0
    maps: str = "grad-eclip"
    weighted: bool = True
    focus: float = 2.0
    phrases: int = 4
    negatives: int = 0
    average: float = 0.0
    precision: str = "bf16"
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, and one row a step.

    Columns: step, loss, `contrast` (the global loss), regions, negatives, rate; `phrases` (that had a region) and
    `wordless` (captions without a phrase, which are used as a whole alone); seconds and cpu_seconds since the start.
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
    skip_missing: bool = False,
    allowed: Callable[[str], bool] = lambda text: True,
    workers: int = 0,
    progress: bool = True,
) -> Tuned:
    """Fine-tune a copy of the model on pairs of a picture and a caption; the model itself stays as it is.

    Args:
        clip: any model whose towers can be opened.
        pairs: `Pair`s or (picture, caption) tuples; a list, or any sequence that makes a pair when it is asked for one.
        folder: where the state is kept, every `save_every` steps; a run that was cut short there is gone on with.
            None: it is not kept.
        skip_missing: leave out pairs whose picture is a file that does not exist, with a warning that lists them.
        allowed: which texts may serve as hard negatives.
        workers: processes that read pictures ahead; 0 reads them between the steps.
        progress: show a bar with the losses.

    Raises:
        UnsupportedModel: a tower cannot be opened, or has no dense features; says which and why.
        FileNotFoundError: pictures are missing (all that are, are counted).
        ValueError: the recipe does not hold together, there are no pairs, a picture is damaged, or `folder` holds
            another run.
        FloatingPointError: the loss is not finite; the last good state stays in the folder.
    """
    _check(tuning)
    pairs = [_as_pair(pair) for pair in pairs] if isinstance(pairs, (list, tuple)) else pairs
    pairs = present_pairs(pairs, skip_missing)
    run = _Run(clip, tuning)
    batches = PairBatches(
        clip, pairs, tuning.batch, tuning.steps * tuning.accumulate, tuning.seed, share=run.share,
        places=tuning.phrases, negatives=tuning.negatives, allowed=allowed, truth=run.grid,
    )  # fmt: skip
    about = asdict(tuning) | {"pairs": len(pairs), "first": identity(pairs[0].caption), "model": clip.name}
    state_file = None if folder is None else Path(folder) / STATE
    if state_file is not None:
        state_file.parent.mkdir(parents=True, exist_ok=True)
        run.take_up(state_file, about)
    first, clocks = len(run.log), _Clocks(run.log)
    ahead = {"num_workers": workers, "prefetch_factor": 4 if workers else None}
    order = range(first * tuning.accumulate, len(batches))
    loader = iter(torch.utils.data.DataLoader(batches, batch_size=None, sampler=order, **ahead))
    bar = tqdm(total=tuning.steps, initial=first, unit="step", disable=not progress or run.share[0] > 0)
    with bar:
        for step in range(first, tuning.steps):
            row = run.step(step, [next(loader) for _ in range(tuning.accumulate)])
            if not math.isfinite(row["loss"]):
                kept = (
                    f"the last good state is in {state_file}" if state_file else "no folder was given to keep a state"
                )
                raise FloatingPointError(f"the loss became {row['loss']} at step {step}: {kept}; lower the rate")
            run.log.append({"step": step, **row, **clocks.read()})
            bar.update()
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "contrast", "regions")})
            if state_file is not None and ((step + 1) % save_every == 0 or step + 1 == tuning.steps):
                run.keep(state_file, about)
    return Tuned(replace(clip, model=run.result(), pretrained=f"{clip.pretrained}, fine-tuned"), pd.DataFrame(run.log))


class _Clocks:
    """Seconds that a run has taken, of the wall's clock and of the processor, goes on where its log ends."""

    def __init__(self, log: list[dict]) -> None:
        last = log[-1] if log else {"seconds": 0.0, "cpu_seconds": 0.0}
        self.start = time.time() - last["seconds"], time.process_time() - last["cpu_seconds"]

    def read(self) -> dict[str, float]:
        return {"seconds": time.time() - self.start[0], "cpu_seconds": time.process_time() - self.start[1]}


class _Run:
    """The state of a run: model, optimiser, average and log, in one process or one of several."""

    def __init__(self, clip: Clip, tuning: Tuning) -> None:
        self.tuning, self.log = tuning, []
        self.accelerator = _accelerator()
        self.share = (0, 1) if self.accelerator is None else (
            self.accelerator.process_index, self.accelerator.num_processes,
        )  # fmt: skip
        if tuning.batch % self.share[1]:
            raise ValueError(f"batch must be a multiple of {self.share[1]} processes, got {tuning.batch}")
        self.model = copy.deepcopy(clip.model).eval().requires_grad_(True)
        if self.accelerator is not None:
            self.model.to(self.accelerator.device)
        self.learner = Learner(replace(clip, model=self.model), tuning.maps, tuning.regions > 0 or tuning.negatives > 0)
        tower = self.learner.image_tower
        self.device, self.grid = tower.device, _grid(tower) if tuning.maps == TRUTH else None
        kept = [p for p in self.model.parameters() if p.ndim > 1]
        free = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": kept, "weight_decay": tuning.decay}, {"params": free, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=tuning.rate, betas=(0.9, 0.98))
        self.average = _average(self.model, tuning.average)
        self.wrapped = self.learner if self.accelerator is None else self.accelerator.prepare(self.learner)

    def step(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """One update; a loss that is not finite is returned before it can do harm."""
        tuning, rows = self.tuning, []
        if step == 0:
            with isolated_torch_state(self.device):  # the first trace of a tower is compared with the model's own forward pass
                self.learner.image_tower.trace(batches[0].pixels[:1].to(self.device))
                self.learner.text_tower.trace(self.learner.tokenizer(list(batches[0].texts[:1])).to(self.device))
        rate = _rate(step, tuning)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches, start=1):
            waits = self.accelerator is not None and number < len(batches)
            with self.accelerator.no_sync(self.wrapped) if waits else nullcontext():
                losses, row = self._losses(_on(self.device, batch))
                rows.append(row)
                if not math.isfinite(row["loss"]):
                    return row | {"rate": rate}
                (losses / len(batches)).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.model.logit_scale.data.clamp_(max=_FLOORED)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return pd.DataFrame(rows).mean().to_dict() | {"rate": rate}

    def _losses(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of one pass, over the pairs of all processes, and its parts."""
        tuning, kernel = self.tuning, nullcontext()
        if self.device.type == "cpu":  # going back through the fused kernel takes half as long again
            kernel = sdpa_kernel(SDPBackend.MATH)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=tuning.precision == "bf16"), kernel:
            found = self.wrapped(batch)
        features = Features(**self._gathered(found))
        loss = contrast = global_loss(features)
        regions = negatives = torch.zeros(())
        count = 0
        if features.regions is not None:
            regions, negatives, count = region_loss(features, tuning.focus, tuning.weighted)
            loss = contrast + tuning.regions * regions + HARD * negatives
        wordless = (~batch.there.any(1)).sum()
        wordless = int(wordless if self.share[1] == 1 else self.accelerator.reduce(wordless))
        parts = {"loss": loss, "contrast": contrast, "regions": regions, "negatives": negatives}
        return loss, {name: part.item() for name, part in parts.items()} | {"phrases": count, "wordless": wordless}

    def _gathered(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features of all processes, in their order; each then computes the loss of them all.

        Through the gathering every process hands its share of the gradient back to the others, as often as there are
        processes, and the mean over processes that follows undoes just that: the gradient is that of one process.
        """
        if self.share[1] == 1:
            return found
        gather = torch.distributed.nn.functional.all_gather
        return {
            name: part if part.ndim == 0
            else torch.cat(gather(part)) if part.is_floating_point() else self.accelerator.gather(part)
            for name, part in found.items()
        }  # fmt: skip

    def take_up(self, file: Path, about: dict) -> None:
        """Go on from what the file holds, if there is one. Raises ValueError if it is another run's."""
        if not file.exists():
            return
        state = torch.load(file, weights_only=True, map_location=self.device)
        other = {key: value for key, value in state["about"].items() if about.get(key) != value}
        if other:
            raise ValueError(f"{file} holds another run, with {other}: choose another folder, or delete it")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.log = state["log"]

    def keep(self, file: Path, about: dict) -> None:
        """Write the state, whole or not at all; the first process writes for all."""
        if self.share[0] == 0:
            average = None if self.average is None else self.average.state_dict()
            state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "average": average}
            write_whole(file, lambda stream: torch.save({**state, "log": self.log, "about": about}, stream))

    def result(self) -> nn.Module:
        """The tuned model, or the average of its weights, on its own and in evaluation mode."""
        model = self.model if self.average is None else self.average.module
        return model.requires_grad_(False).eval()


def _check(tuning: Tuning) -> None:
    whole = {"steps": 1, "batch": 2, "accumulate": 1, "phrases": 1, "negatives": 0, "warmup": 0}
    for name, least in whole.items():
        if getattr(tuning, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(tuning, name)}")
    for name in ("rate", "regions", "focus", "decay"):
        if not 0 <= getattr(tuning, name) < math.inf:
            raise ValueError(f"{name} must be zero or more, got {getattr(tuning, name)}")
    if not 0 <= tuning.average < 1:
        raise ValueError(f"average is a momentum, from 0 (none) to below 1, got {tuning.average}")
    if tuning.precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be 'fp32' or 'bf16', got {tuning.precision!r}")


def _as_pair(pair: Pair | tuple) -> Pair:
    return pair if isinstance(pair, Pair) else Pair(*pair)


def _accelerator():
    """accelerate's, if this process is one of several; one process needs none."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    library = optional_library("accelerate", "fine-tuning runs in several processes here", "accelerate")
    handler = library.DistributedDataParallelKwargs(find_unused_parameters=True)
    return library.Accelerator(kwargs_handlers=[handler])


def _average(model: nn.Module, momentum: float) -> AveragedModel | None:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(momentum)) if momentum else None


def _rate(step: int, tuning: Tuning) -> float:
    rise = min(1.0, (step + 1) / max(1, tuning.warmup))
    return tuning.rate * rise * 0.5 * (1 + math.cos(math.pi * step / tuning.steps))


def _grid(tower) -> tuple[int, int]:
    return tuple(side // patch for side, patch in zip(tower.image_size, tower.patch_size, strict=True))


def _on(device: torch.device, batch: Batch) -> Batch:
    moved = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{key: value.to(device) if isinstance(value, Tensor) else value for key, value in moved.items()})
