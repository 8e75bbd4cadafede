"""The state of a run, from which it goes on after a stop; `training` keeps its own in this way."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole

MAX_LOGIT_SCALE = math.log(100)  # CLIP bounds its temperature (Radford et al. 2021, section 2.5)


def save_state(
    file: Path,
    settings: Mapping[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    log: list[dict[str, float]],
) -> None:
    """Write the state after a step, whole or not at all."""
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "log": log,
    }
    write_whole({file: partial(torch.save, state)})


def load_state(
    file: Path,
    settings: Mapping[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
) -> list[dict[str, float]]:
    """Load a state into model and optimiser, and return the log of the steps until then.

    Without a file, the run begins, and its log is empty.
    """
    if not file.is_file():
        return []
    state = torch.load(file, weights_only=True, map_location="cpu")
    stored = state["settings"]
    differences = [
        f"{name} is {stored.get(name)!r} there and {value!r} here"
        for name, value in settings.items()
        if stored.get(name) != value
    ]
    if differences:
        raise GradeclipError(
            f"{file} holds a run with a different recipe ({', '.join(differences)}): "
            "choose another place, or delete it"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["log"]
