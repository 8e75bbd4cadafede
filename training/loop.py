"""The training loop: updates, a log, and a state from which a run that was killed goes on.

    batches -> losses --here--> weights

Every step seeds torch's generator by its own number, so a run that goes on draws what an
undisturbed one draws, and ends with the same weights.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import weights_digest
from studies.finetuning.state import MAX_LOGIT_SCALE, load_state, save_state

PREFETCH = 4  # batches that each worker makes ahead


def train(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Any,
    batches: torch.utils.data.Dataset,
    losses: Callable[[int, Any], tuple[Tensor, dict[str, float]]],
    file: Path,
    *,
    extra: Mapping[str, Any] | None = None,
    save_every: int = 50,
    workers: int = 0,
    name: str = "",
) -> list[dict[str, float]]:
    """Train a model until `recipe.steps` are done, and return the log, one row per step.

    Args:
        model: learns; a `logit_scale` is bounded as CLIP's is.
        optimiser: of its weights.
        recipe: a dataclass with steps, learning_rate, warmup and seed; stored with the state, and a
            state of another recipe is refused.
        batches: gives batch number i.
        losses: from the number of a step and its batch to the loss and its parts for the log.
        file: for the state. The run goes on from the state that it holds.
        extra: what else decides the weights; stored and compared like the recipe.
        save_every: steps between two states.
        workers: processes that make batches ahead.
        name: of the progress bar.

    Raises:
        GradeclipError: the state is of another recipe, or the loss is not finite.
    """
    settings = {**asdict(recipe), **(extra or {}), "begun from": weights_digest(model)}
    log = load_state(file, settings, model, optimiser)

    steps = range(len(log), recipe.steps)
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
    )
    bar = tqdm(loader, desc=name, total=recipe.steps, initial=len(log), unit="step")
    with torch.random.fork_rng(devices=[]):
        for step, batch in zip(steps, bar, strict=True):
            torch.manual_seed(1_000_000 * recipe.seed + step)
            learning_rate = linear_decay(recipe, step)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate

            loss, parts = losses(step, batch)
            if not math.isfinite(loss.item()):
                raise GradeclipError(
                    f"the loss became {loss.item()} at step {step}: the last good state is in "
                    f"{file}; lower the learning rate, in another folder"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if hasattr(model, "logit_scale"):
                model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

            log.append({"step": step, "loss": loss.item(), **parts})
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            if len(log) % save_every == 0 or len(log) == recipe.steps:
                save_state(file, settings, model, optimiser, log)
    return log


def linear_decay(recipe: Any, step: int) -> float:
    """The learning rate at a step: up over `warmup`, and along a line to zero at `steps`."""
    warmup = (step + 1) / max(1, recipe.warmup)
    return recipe.learning_rate * min(warmup, 1 - step / recipe.steps)
