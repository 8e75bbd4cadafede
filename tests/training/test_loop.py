"""The loop that every training shares: its state, its log, its arithmetic, and its optimiser."""

import json
import signal
from dataclasses import dataclass, replace
from functools import partial

import pytest
import timm.optim.muon
import torch
from torch import nn

from gradeclip_utils.errors import GradeclipError
from studies.finetuning.run import _cosine_decay
from training.loop import Loop, quick_arithmetic
from training.optimiser import muon_of
from training.scratch import linear_decay
from training.tables import markdown_table, write_figures


@dataclass(frozen=True)
class Recipe:
    steps: int = 6
    learning_rate: float = 0.01
    warmup: int = 2
    name: str = ""
    wide: bool = False


class Batches:
    """Numbers of which no two are the same; the one numbered `killed` is a kill, or what `by` says."""

    def __init__(self, killed=None, by=SystemExit):
        self.killed, self.by = killed, by

    def __getitem__(self, number):
        if number == self.killed:
            raise self.by
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(number))


def looped(recipe=Recipe(), file=None, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimiser = muon_of(model, lambda name, weight: weight.ndim == 2, recipe.learning_rate, 0.1)
    return Loop(model, optimiser, recipe, linear_decay, {}, file=file, progress=False, **options)


def train(loop, data=None, stop=None):
    """Losses that draw from torch's own generator, as dropped patches do; Ctrl-C is pressed twice in step `stop`."""

    def losses(step, batch):
        for _ in range(2 * (step == stop)):
            signal.raise_signal(signal.SIGINT)
        loss = (loop.model(batch + torch.randn(4, 3)) ** 2).mean()
        return loss, {"half": loss.item() / 2}

    return loop.run(Batches() if data is None else data, losses)


def same(one, other):
    assert all(
        torch.equal(value, other.model.state_dict()[name])
        for name, value in one.model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("by", "stop", "kept"), [(SystemExit, 9, 2), (KeyboardInterrupt, 9, 3), (None, 2, 3)]
)
def test_a_run_that_is_killed_goes_on_to_the_same_weights_and_the_same_log(
    tmp_path, by, stop, kept
):
    whole, cut, resumed = (
        looped(file=tmp_path / f"{name}.pt", save_every=2) for name in ("whole", "cut", "cut")
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as behind `&` in a script
    log = train(whole, stop=2)
    signal.signal(signal.SIGINT, before)
    with pytest.raises(by or KeyboardInterrupt):
        train(cut, Batches(3, by), stop)
    assert torch.load(tmp_path / "cut.pt", weights_only=True)["step"] == kept
    torch.randn(5)  # what others draw in between does not matter
    again = train(resumed)
    same(whole, resumed)
    assert again["loss"].tolist() == log["loss"].tolist() and again["step"].tolist() == list(
        range(6)
    )
    assert again["seconds"].is_monotonic_increasing and again["cpu_seconds"].is_monotonic_increasing
    lines = [json.loads(line) for line in (tmp_path / "cut.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(
        range(6)
    )  # a step that was taken twice is there once
    assert lines[4]["loss"] == pytest.approx(log["loss"][4], rel=1e-5)


def test_a_kill_while_the_state_is_written_leaves_the_state_before(tmp_path, monkeypatch):
    with pytest.raises(SystemExit):
        train(looped(file=tmp_path / "state.pt", save_every=1), Batches(killed=2))
    kept = (tmp_path / "state.pt").read_bytes()

    def killed(state, file):
        file.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(looped(file=tmp_path / "state.pt", save_every=1))
    assert (tmp_path / "state.pt").read_bytes() == kept


def test_the_state_of_another_recipe_is_refused_by_the_fields_that_differ(tmp_path):
    train(looped(file=tmp_path / "state.pt"))
    other = looped(replace(Recipe(), steps=7, wide=True), tmp_path / "state.pt")
    with pytest.raises(
        ValueError, match=r"\(steps is 6 there and 7 here, wide is False there and True here\)"
    ):
        train(other)
    more = looped(file=tmp_path / "state.pt")
    more.origin = {"new": 1}
    with pytest.raises(ValueError, match=r"\(new is None there and 1 here\)"):
        train(more)


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    class Broken(Batches):
        def __getitem__(self, number):
            return super().__getitem__(number) * (torch.nan if number == 2 else 1)

    loop = looped(file=tmp_path / "state.pt", save_every=1)
    with pytest.raises(
        GradeclipError, match="became nan at step 2: the last good state is in .*state.pt"
    ):
        train(loop, Broken())
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    assert kept["step"] == 2 and all(
        torch.isfinite(value).all() for value in loop.model.state_dict().values()
    )
    with pytest.raises(GradeclipError, match="no state was stored; lower the learning rate"):
        train(looped(), Broken())


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(steps=10, learning_rate=0.5, warmup=4)
    linear, cosine = (
        [decay(recipe, step) for step in range(10)] for decay in (linear_decay, _cosine_decay)
    )
    assert linear[0] == cosine[0] == pytest.approx(0.125) and linear[9] == pytest.approx(0.05)
    assert max(linear) <= 0.5 and linear[3:] == sorted(linear[3:], reverse=True)
    assert cosine[9] == pytest.approx(0.25 * (1 + torch.tensor(0.9 * torch.pi).cos().item()))


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True}, True),
        ({"avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_used_only_where_the_processor_has_it(capabilities, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    for wanted in (True, False):
        with quick_arithmetic(torch.device("cpu"), wanted):
            found = torch.ones(2, 2) @ torch.ones(2, 2)
        assert found.dtype == (torch.bfloat16 if native and wanted else torch.float32)


def test_muon_steps_as_timms_does_but_with_its_iteration_in_float32(monkeypatch):
    iterate = partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float32)
    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", iterate)
    models = [nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    matrices, others = (
        [w for w in models[1].parameters() if (w.ndim == 2) == wanted] for wanted in (True, False)
    )
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": others, "use_fallback": True, "weight_decay": 0.0},
    ]
    own = muon_of(models[0], lambda name, weight: weight.ndim == 2, 0.01, 0.1)
    theirs = timm.optim.muon.Muon(groups, lr=0.01, nesterov=True, fallback_lr_scale=0.5)
    for step in range(3):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        for model, optimiser in zip(models, (own, theirs), strict=True):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    for a, b in zip(*(one.parameters() for one in models), strict=True):
        assert torch.equal(a, b)


def test_a_table_is_written_between_its_markers_and_nothing_else_changes(tmp_path):
    card = tmp_path / "card.md"
    begin, end = "<!-- figures: written by python -m training art -->", "<!-- end of figures -->"
    card.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    write_figures(card, "art", markdown_table(("x", "y"), [("1", "2")]))
    assert (
        card.read_text()
        == f"before\n{begin}\n\n| x | y |\n| --- | --- |\n| 1 | 2 |\n\n{end}\nafter\n"
    )
    with pytest.raises(GradeclipError, match="card.md needs the lines"):
        write_figures(card, "cards", "new")
