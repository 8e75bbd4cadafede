"""The training loop: updates, a log, and a state from which a killed run goes on to the same weights, bit by bit.

batches -> losses --here--> weights; state.pt, state.jsonl
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from gradeclip_utils.checks import short
from gradeclip_utils.errors import GradeclipError, first_line
from gradeclip_utils.files import locked, version, weights_digest, write_whole

_MAX_LOGIT_SCALE = math.log(
    100
)  # as CLIP bounds its temperature (Radford et al. 2021, section 2.5)
_AHEAD = 4  # batches that each worker makes ahead


@dataclass
class Loop:
    """A run of training."""

    model: nn.Module  # learns; a `logit_scale` is bounded as CLIP's is
    optimiser: torch.optim.Optimizer
    recipe: Any  # a dataclass with `steps` and everything else that decides the weights
    schedule: Callable[
        [Any, int], float
    ]  # recipe, number of a step from 0 -> learning rate of every group
    origin: Mapping[
        str, Any
    ]  # what else decides the weights; a state of another recipe or origin is refused
    file: Path | None = (
        None  # for the state; the log lies beside it, with the ending .jsonl; None keeps nothing
    )
    save_every: int = 50  # steps between two states
    extra: Mapping[str, Tensor] = field(default_factory=dict)  # stored with the state
    writes: bool = True  # whether this process writes and shows; one of several does
    progress: bool = True  # whether it shows a bar, called `name`
    name: str | None = None
    log: list[dict[str, float]] = field(
        default_factory=list
    )  # a row per step, with the time since the start

    def run(
        self,
        data: Any,
        losses: Callable[[int, Any], tuple[Tensor, dict[str, float]]],
        workers: int = 0,
    ) -> pd.DataFrame:
        """Train until `steps` are done, from the last state; the log, one row per step."""
        alone: AbstractContextManager = nullcontext()
        log_file, steps = Path(os.devnull), self.recipe.steps
        if self.file is not None and self.writes:
            log_file, alone = (
                self.file.with_suffix(".jsonl"),
                locked(self.file.parent, f"{self.file.stem}.running"),
            )
        with alone, torch.random.fork_rng(devices=[]):
            first, random = self._resume()
            ahead = {"num_workers": workers, "prefetch_factor": _AHEAD if workers else None}
            batches = iter(
                torch.utils.data.DataLoader(
                    data, batch_size=None, sampler=range(first, steps), **ahead
                )
            )
            random = (
                torch.get_rng_state() if random is None else random
            )  # now: making the iterator draws a number
            torch.set_rng_state(random)
            last = self.log[-1] if self.log else {"seconds": 0.0, "cpu_seconds": 0.0}
            began, cpu_began = (
                time.time() - last["seconds"],
                time.process_time() - last["cpu_seconds"],
            )
            bar = tqdm(
                total=steps,
                initial=first,
                unit="step",
                desc=self.name,
                disable=not (self.writes and self.progress),
            )
            with (
                bar,
                log_file.open("w", buffering=1) as stream,
            ):  # line by line, for those who look on
                stream.writelines(f"{json.dumps(row)}\n" for row in self.log)
                try:
                    for step in range(first, steps):
                        batch = next(
                            batches
                        )  # which an interruption stops at once: no weight has changed
                        with _whole(bar):
                            row = {"step": step, **self._step(step, batch, losses)}
                            took = {
                                "seconds": time.time() - began,
                                "cpu_seconds": time.process_time() - cpu_began,
                            }
                            self.log.append(row | took)
                            stream.write(f"{json.dumps(self.log[-1])}\n")
                            bar.update()
                            bar.set_postfix(loss=f"{self.log[-1]['loss']:.3f}", refresh=False)
                            random = torch.get_rng_state()
                        if (step + 1) % self.save_every == 0 or step + 1 == steps:
                            self._save(random)
                except KeyboardInterrupt:
                    self._save(random)
                    raise
        return pd.DataFrame(self.log)

    def _step(self, step: int, batch: Any, losses: Callable) -> dict[str, float]:
        learning_rate = self.schedule(self.recipe, step)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        loss, parts = losses(step, batch)
        if not math.isfinite(loss.item()):
            kept = self.file is not None and self.file.exists()
            where = f"the last good state is in {self.file}" if kept else "no state was stored"
            then = "lower the learning rate" + ", in another folder" * kept
            raise GradeclipError(f"the loss became {loss.item()} at step {step}: {where}; {then}")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        if hasattr(self.model, "logit_scale"):
            self.model.logit_scale.data.clamp_(max=_MAX_LOGIT_SCALE)
        return {"loss": loss.item(), **parts, "learning_rate": learning_rate}

    def _resume(self) -> tuple[int, Tensor | None]:
        """Load the last state: the step to go on with, and the random state; (0, None) without one."""
        if self.file is None or not self.file.exists():
            return 0, None
        with state_of(self.file) as state:
            kept, asked = state["recipe"], asdict(self.recipe) | dict(self.origin)
            different = [
                name for name in sorted({*kept, *asked}) if kept.get(name) != asked.get(name)
            ]
            if not different:
                self.model.load_state_dict(state["model"])
                self.optimiser.load_state_dict(state["optimiser"])
                self.log[:] = state["log"]
                return state["step"], state["random"].byte()
        how = ", ".join(
            f"{name} is {kept.get(name)!r} there and {asked.get(name)!r} here" for name in different
        )
        msg = f"{self.file} holds a run with a different recipe ({how}): choose another folder, or delete it"
        raise GradeclipError(msg)

    def _save(self, random: Tensor) -> None:
        """Write the state after the last whole step, and its random state, whole or not at all."""
        if self.file is None or not self.writes:
            return
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **self.extra,
        }
        state |= {
            "step": len(self.log),
            "recipe": asdict(self.recipe) | dict(self.origin),
            "log": self.log,
        }
        write_whole({self.file: partial(torch.save, state | {"random": random})})


@contextmanager
def _whole(bar: tqdm) -> Iterator[None]:
    """Within it an interruption (Ctrl-C) waits for the end."""
    before, heard = signal.getsignal(signal.SIGINT), list[tuple]()

    def hear(*given) -> None:
        heard.append(given)
        bar.set_description("stopping after this step")

    with suppress(ValueError):  # not in the main thread, which alone is interrupted
        if callable(before):  # not ignored, as it is behind `&` in a script
            signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGINT, before)
    if heard and callable(before):
        before(*heard[0])  # Python's own raises KeyboardInterrupt


def origin(model: nn.Module) -> dict[str, Any]:
    """Checksum of the weights that a training begins from, and the versions of the libraries."""
    versions = {name: version(name) for name in ("torch", "open_clip_torch")}
    return {"weights": weights_digest(model), "versions": versions}


@contextmanager
def state_of(file: Path) -> Iterator[dict[str, Any]]:
    """The state of a training; an error while it is used is reported as a fault of the file."""
    try:
        yield torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch has a dozen kinds
        said = short(first_line(error))
        msg = (
            f"{file} is damaged, or holds no state of a training ({said}): delete it to begin again"
        )
        raise GradeclipError(msg) from error


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; to emulate it takes more than twice as long as float32."""
    if device.type == "cpu":
        known = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 does not tell
        return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


@contextmanager
def quick_arithmetic(device: torch.device, bfloat16: bool = True) -> Iterator[None]:
    """Forward and backward passes within it are as quick as the device allows."""
    # going back through the fused kernel takes half as long again on a CPU, at the size of these
    # models
    kernel = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and _has_bfloat16(device)),
        kernel,
    ):
        yield
