"""The loop that every training shares: its state, a kill, its learning rate, and its optimiser."""

import copy
import math
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from functools import partial

import pytest
import timm.optim.muon
import torch
from torch import nn

from gradeclip_utils.errors import GradeclipError
from studies.finetuning import Tuning
from studies.finetuning.run import cosine_decay
from training.loop import linear_decay, train
from training.optimiser import muon_of


@dataclass(frozen=True)
class Recipe:
    steps: int = 6
    learning_rate: float = 0.01
    warmup: int = 2
    seed: int = 0


class Batches:
    """Numbers of which no two batches are the same."""

    def __getitem__(self, number):
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(number))


class LethalBatches(Batches):
    """Kills its process as the machine does, in the place of batch 3."""

    def __getitem__(self, number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


class BrokenBatches(Batches):
    """Batch 2 is not a number."""

    def __getitem__(self, number):
        return super().__getitem__(number) * (torch.nan if number == 2 else 1)


def is_matrix(name, weight):
    return weight.ndim == 2


def run(file, batches=None, recipe=Recipe(), **options):
    """Train a small model, whose losses draw from torch's own generator, as dropped patches do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    def losses(step, batch):
        loss = (model(batch + torch.randn(4, 3)) ** 2).mean()
        return loss, {"half": loss.item() / 2}

    optimiser = muon_of(model, is_matrix, recipe.learning_rate, 0.1)
    log = train(model, optimiser, recipe, batches or Batches(), losses, file, **options)
    return model, log


def test_a_run_that_is_killed_goes_on_to_the_same_weights_and_the_same_log(tmp_path):
    model, log = run(tmp_path / "whole.pt")
    process = multiprocessing.get_context("forkserver").Process(
        target=run,
        args=(tmp_path / "cut.pt", LethalBatches()),
        kwargs={"save_every": 2},
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    state = torch.load(tmp_path / "cut.pt", weights_only=True)
    assert len(state["log"]) == 2

    torch.randn(5)  # what others draw in between does not matter
    resumed_model, resumed_log = run(tmp_path / "cut.pt", save_every=2)
    assert resumed_log == log
    assert [row["step"] for row in log] == list(range(6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed_model.state_dict()[name])


def test_the_state_of_another_recipe_is_refused_by_the_fields_that_differ(tmp_path):
    file = tmp_path / "state.pt"
    run(file)
    with pytest.raises(GradeclipError, match=r"\(steps is 6 there and 7 here\)"):
        run(file, recipe=replace(Recipe(), steps=7))
    with pytest.raises(GradeclipError, match=r"\(teacher is None there and 'x' here\)"):
        run(file, extra={"teacher": "x"})


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    with pytest.raises(GradeclipError, match="became nan at step 2: the last good state is in"):
        run(tmp_path / "state.pt", BrokenBatches(), save_every=1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert len(state["log"]) == 2
    for weight in state["model"].values():
        assert torch.isfinite(weight).all()


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(steps=10, learning_rate=0.5, warmup=4)
    rates = [linear_decay(recipe, step) for step in range(10)]
    first, *_, last = rates
    after_warmup = rates[3:]
    assert first == pytest.approx(0.125)
    assert last == pytest.approx(0.05)
    assert max(rates) <= 0.5
    assert after_warmup == sorted(after_warmup, reverse=True)

    tuning = Tuning(steps=10, learning_rate=0.5, warmup=4)
    assert cosine_decay(tuning, 0) == pytest.approx(0.125)
    expected = 0.25 * (1 + math.cos(0.9 * math.pi))
    assert cosine_decay(tuning, 9) == pytest.approx(expected)


def test_muon_steps_as_timms_does_but_with_its_iteration_in_float32(monkeypatch):
    iterate = partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float32)
    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", iterate)
    ours = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4))
    theirs = copy.deepcopy(ours)

    biases = [layer.bias for layer in theirs]
    groups = [
        {"params": [layer.weight for layer in theirs], "weight_decay": 0.1},
        {"params": biases, "use_fallback": True, "weight_decay": 0.0},
    ]
    our_muon = muon_of(ours, is_matrix, 0.01, 0.1)
    their_muon = timm.optim.muon.Muon(groups, lr=0.01, nesterov=True, fallback_lr_scale=0.5)
    for _ in range(3):
        x = torch.randn(5, 6)
        for model, optimiser in ((ours, our_muon), (theirs, their_muon)):
            optimiser.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimiser.step()
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, expected)
