"""The loop of every training here: updates of a model, a log, and a state that a run that was killed goes on from.

    batches -> losses --here--> weights; state.pt, state.jsonl

A run is its recipe: the same recipe gives the same weights, bit by bit, however often it was killed on the way. What
a training adds of its own is its batches, its losses and its optimiser.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ..checks import first_line, short, whole
from ..errors import GradeclipError
from ..files import locked, version, write_whole
from ..measures.table import weights_digest

MAX_LOGIT_SCALE = math.log(100)  # as CLIP bounds its temperature (Radford et al. 2021, section 2.5)
_AHEAD = 4  # batches that each worker makes ahead
_MISSING = "none"


@dataclass
class Loop:
    """A run of training, of which the state is kept whole or not at all.

    Attributes:
        model: what learns. If it has a `logit_scale`, that is bounded as CLIP's is.
        optimiser: of its weights.
        recipe: everything that decides the weights: a dataclass with `steps`, and whatever the schedule asks for.
        schedule: recipe, number of a step from 0 -> learning rate of every group.
        origin: what decides the weights beside it, by name. A state of another recipe or origin is refused.
        file: where the state is kept; the log lies beside it, with the ending .jsonl. None keeps nothing.
        save_every: steps between two states.
        grad_accum_steps: batches in a step, whose gradients are averaged.
        averaged: an average of the weights, which is updated after every step.
        extra: tensors that the state has beside, for whoever reads it.
        writes: whether this process writes and shows; of several one does.
        progress: whether it shows a bar.
        name: what the bar is called.
        sync: whether a batch is the last one of its step -> what its pass runs in (several processes need it).
        log: one row a step: step, loss, what the losses gave, learning_rate; seconds and cpu_seconds since the start.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    recipe: Any
    schedule: Callable[[Any, int], float]
    origin: Mapping[str, Any]
    file: Path | None = None
    save_every: int = 50
    grad_accum_steps: int = 1
    averaged: AveragedModel | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    writes: bool = True
    progress: bool = True
    name: str | None = None
    sync: Callable[[bool], AbstractContextManager] = lambda last: nullcontext()
    log: list[dict[str, float]] = field(default_factory=list)

    def run(
        self, data: Any, losses: Callable[[int, Any], tuple[Tensor, dict[str, float]]], workers: int = 0
    ) -> pd.DataFrame:
        """Train until `steps` are done, from where the state that is kept left off; the log, one row a step."""
        whole("save_every", self.save_every, 1)
        whole("workers", workers)
        alone: AbstractContextManager = nullcontext()
        log_file, steps = Path(os.devnull), self.recipe.steps
        if self.file is not None and self.writes:
            log_file, alone = self.file.with_suffix(".jsonl"), locked(self.file.parent, f"{self.file.stem}.running")
        with alone, torch.random.fork_rng(devices=[]):
            first, random = self._resume()
            order = range(first * self.grad_accum_steps, steps * self.grad_accum_steps)
            ahead = {"num_workers": workers, "prefetch_factor": _AHEAD if workers else None}
            batches = iter(torch.utils.data.DataLoader(data, batch_size=None, sampler=order, **ahead))
            if random is not None:  # last, because making the iterator draws a number as well
                torch.set_rng_state(random)
            last = self.log[-1] if self.log else {"seconds": 0.0, "cpu_seconds": 0.0}
            began, cpu_began = time.time() - last["seconds"], time.process_time() - last["cpu_seconds"]
            shown = self.writes and self.progress
            bar = tqdm(total=steps, initial=first, unit="step", desc=self.name, disable=not shown)
            with bar, log_file.open("w", buffering=1) as stream:  # line by line, for those who look on
                stream.writelines(map(_line, self.log))
                for step in range(first, steps):
                    row = {"step": step, **self._step(step, batches, losses)}
                    took = {"seconds": time.time() - began, "cpu_seconds": time.process_time() - cpu_began}
                    self.log.append(row | took)
                    stream.write(_line(self.log[-1]))
                    bar.update()
                    bar.set_postfix(loss=f"{self.log[-1]['loss']:.3f}", refresh=False)
                    if (step + 1) % self.save_every == 0 or step + 1 == steps:
                        self._save(step + 1)
        return pd.DataFrame(self.log)

    def _step(self, step: int, batches: Iterator, losses: Callable) -> dict[str, float]:
        """One update of the weights: the means over its batches of the loss and its parts, and the learning rate."""
        learning_rate, rows = self.schedule(self.recipe, step), []
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        for number in range(1, self.grad_accum_steps + 1):
            with self.sync(number == self.grad_accum_steps):
                loss, parts = losses(step, next(batches))
                rows.append({"loss": loss.item(), **parts})
                if not math.isfinite(rows[-1]["loss"]):
                    kept = self.file is not None and self.file.exists()
                    said = f"the last good state is in {self.file}" if kept else "no state was kept"
                    then = "lower the learning rate" + ", in another folder" * kept
                    msg = f"the loss became {rows[-1]['loss']} at step {step}: {said}; {then}"
                    raise GradeclipError(msg)
                (loss / self.grad_accum_steps).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        if hasattr(self.model, "logit_scale"):
            self.model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} | {"learning_rate": learning_rate}

    def _resume(self) -> tuple[int, Tensor | None]:
        """Put the state that was kept in place: the step to go on with, and the random state; (0, None) without one."""
        if self.file is None or not self.file.exists():
            return 0, None
        with state_of(self.file) as state:
            kept, asked = state["recipe"], self._identity
            different = ", ".join(
                f"{name} is {kept.get(name, _MISSING)!r} there and {asked.get(name, _MISSING)!r} here"
                for name in sorted({*kept, *asked})
                if kept.get(name, _MISSING) != asked.get(name, _MISSING)
            )
            if not different:
                self.model.load_state_dict(state["model"])
                self.optimiser.load_state_dict(state["optimiser"])
                if self.averaged is not None:
                    self.averaged.load_state_dict(state["average"])
                self.log[:] = state.get("log", [])
                return whole("step", state["step"], 0, self.recipe.steps), state["random"].byte()
        msg = f"{self.file} holds a run of another recipe ({different}): choose another folder, or delete it"
        raise GradeclipError(msg)

    def _save(self, step: int) -> None:
        """Write the state after so many steps; of several processes the first writes for all."""
        if self.file is None or not self.writes:
            return
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), **self.extra}
        state |= {"step": step, "recipe": self._identity, "log": self.log, "random": torch.get_rng_state()}
        if self.averaged is not None:
            state["average"] = self.averaged.state_dict()
        write_whole(self.file, partial(torch.save, state))

    @property
    def _identity(self) -> dict[str, Any]:
        """What a state must have been made by to be gone on with."""
        return asdict(self.recipe) | dict(self.origin)


def _line(row: Mapping[str, float]) -> str:
    """A step in the log, its numbers with six digits."""
    short = {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in row.items()}
    return f"{json.dumps(short)}\n"


def origin(model: nn.Module) -> dict[str, Any]:
    """What decides the weights beside a recipe: those of the model that a training begins from, and the libraries."""
    return {"weights": weights_digest(model), "versions": {name: version(name) for name in ("torch", "open_clip_torch")}}


@contextmanager
def state_of(file: Path) -> Iterator[dict[str, Any]]:
    """The state of a training; an error while it is used is reported as a fault of the file."""
    try:
        yield torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch says in a dozen ways that a file is none of its own
        said = short(first_line(error))
        msg = f"{file} is damaged, or holds no state of a training ({said}): delete it to begin again"
        raise GradeclipError(msg) from error


def linear_decay(recipe: Any, step: int) -> float:
    """The learning rate at a step: up to its highest over `warmup`, and along a line to zero at `steps`."""
    return recipe.learning_rate * min((step + 1) / max(1, recipe.warmup), 1 - step / recipe.steps)


def cosine_decay(recipe: Any, step: int) -> float:
    """The learning rate at a step: up to its highest over `warmup`, times a cosine that is zero at `steps`."""
    rising = min(1.0, (step + 1) / max(1, recipe.warmup))
    return recipe.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; to emulate it takes more than twice as long as float32."""
    if device.type == "cpu":
        known = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 does not tell
        return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


@contextmanager
def quick_arithmetic(device: torch.device, bfloat16: bool = True) -> Iterator[None]:
    """Within it a forward pass, and going back through it, is as quick as the device of weights and batch allows."""
    # going back through the fused kernel takes half as long again on a CPU, at the size of these models
    kernel = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and has_bfloat16(device)), kernel:
        yield
