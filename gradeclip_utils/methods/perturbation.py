"""Methods that change the input and watch the output; they need no look inside the model.

Masked images (RISE), a prompt without one of its words (leave-one-out), and noisy tokens (M2IB).

Shapes: B inputs, T targets, N tokens of width D, E the width of the embedding, P = h * w patches,
    the last tokens.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from multiprocessing import current_process
from threading import Timer

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..towers import Tower, Trace

_AT_ONCE = 64  # images or prompts in one forward pass
_SECONDS = 1.0  # after which a bar is shown
_CELLS, _LIT = 7, 0.5  # of RISE's masks: cells down and across, and how likely one is lit


class bar(tqdm):
    """A bar that appears after a second, in the middle of a pass too; workers of a pool show none."""

    def __init__(self, what: str, things: Iterable | None = None, total: int | None = None) -> None:
        self._timer = Timer(_SECONDS, self._appear)
        self._timer.daemon, hidden = True, current_process().name != "MainProcess"
        super().__init__(
            things, what, total, disable=hidden, delay=_SECONDS, mininterval=0.5, leave=False
        )
        if not hidden:
            self._timer.start()

    def _appear(self) -> None:
        if not self.disable:
            self.delay = 0  # it is there, and goes when it is closed
            self.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self._timer.cancel()
        super().close()


def rise(
    tower: Tower, trace: Trace, directions: Tensor, *, masks: int = 500, seed: int = 0
) -> Tensor:
    """RISE: how much more the target is when a patch is seen, over random masks M of the image."""
    light_of = _mask_maker(masks, tuple(trace.inputs.shape[-2:]), seed)
    scores, seen = [], []
    for _, light, embeddings in seen_through(tower, trace, masks, light_of, "RISE"):
        scores.append(torch.einsum("bte,bne->btn", directions, embeddings))
        seen.append(means_over_patches(tower, trace, light))  # (n, P)
    scores = torch.cat(scores, dim=-1)  # (B, T, masks)
    centred = scores - scores.mean(-1, keepdim=True)
    return on_patches(trace, centred @ torch.cat(seen).to(centred) / (masks * _LIT))


def m2ib(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    *,
    beta: float = 0.1,
    samples: int = 10,
    steps: int = 10,
    seed: int = 0,
) -> Tensor:
    """M2IB: how much each token must say, in nats, for the target to survive an information bottleneck."""
    batch, count, width = trace.tokens.shape
    generator = torch.Generator().manual_seed(seed)
    # tokens first: a longer batch of prompts draws the same for the same token
    noise = torch.randn(count, steps, samples, width, generator=generator, dtype=torch.float32)
    noise = noise.to(trace.tokens).permute(1, 2, 0, 3)  # (steps, samples, N, D)
    maps = blank_maps(trace, directions)
    pairs = [(i, target) for i in range(batch) for target in range(directions.shape[1])]
    for i, target in bar("M2IB", pairs):
        maps[i, target] = _squeezed(
            tower, repeated(trace, i, samples), directions[i, target], noise, beta
        )
    return maps * trace.valid_mask[:, None]


def leave_one_out(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    *,
    words: Tensor | None = None,
    fill: int | None = None,
) -> Tensor:
    """Leave one word out: S(prompt) - S(prompt without the word), at the word's first token."""
    words = word_numbers(trace) if words is None else words
    maps = blank_maps(trace, directions)
    places = [
        (i, word) for i, row in enumerate(words) for word in row.unique().tolist() if word >= 0
    ]
    for start in range(0, len(places), _AT_ONCE):
        some = places[start : start + _AT_ONCE]
        shorter = torch.stack(
            [without_tokens(trace.inputs[i], words[i] == word, fill) for i, word in some]
        )
        for (i, word), embedding in zip(some, tower.trace(shorter).embedding, strict=True):
            first = int((words[i] == word).int().argmax())
            maps[i, :, first] = directions[i] @ (trace.embedding[i] - embedding)
    return maps


def on_patches(trace: Trace, values: Tensor) -> Tensor:
    """Maps over tokens, (B, T, N): the patches are the last tokens, and the others have no pixels."""
    return F.pad(values, (trace.valid_mask.shape[1] - values.shape[-1], 0))


def means_over_patches(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """Means (..., P) over patches; pixels beyond the last whole patch, which no model reads, are in none."""
    assert trace.grid is not None
    down, across = (count * side for count, side in zip(trace.grid, tower.patch_size, strict=True))
    whole = F.pad(values, (0, across - values.shape[-1], 0, down - values.shape[-2]))
    return F.avg_pool2d(whole, tower.patch_size).flatten(-2)


def seen_through(
    tower: Tower, trace: Trace, count: int, light_of: Callable[[Tensor], Tensor], what: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The images of a trace through many masks, a batch at a time."""
    pixels = trace.inputs
    look = tower.forward if tower.reads(pixels) else lambda some: tower.trace(some).embedding
    with bar(what, total=count) as shown:
        for some in torch.arange(count).split(max(1, _AT_ONCE // len(pixels))):
            light = light_of(some).to(pixels)
            masked = (pixels[:, None] * light[None, :, None]).flatten(0, 1)  # (B*n, 3, H, W)
            yield some, light, look(masked).unflatten(0, (len(pixels), -1))
            shown.update(len(some))


def blank_maps(trace: Trace, directions: Tensor) -> Tensor:
    """Zero in every map (B, T, N), in the precision of the directions."""
    return directions.new_zeros(*directions.shape[:2], trace.valid_mask.shape[1])


def _mask_maker(count: int, size: tuple[int, int], seed: int = 0) -> Callable[[Tensor], Tensor]:
    """RISE's masks in [0, 1], from the numbers (n,) of some of them to these (n, H, W)."""
    cell = [
        -(-side // _CELLS) for side in size
    ]  # rounded up: a shifted mask must still cover the image
    generator = torch.Generator().manual_seed(seed)
    lit = (
        torch.rand(count, 1, _CELLS, _CELLS, generator=generator, dtype=torch.float32) < _LIT
    ).float()
    shifts = (
        torch.rand(count, 2, generator=generator, dtype=torch.float32) * torch.tensor(cell)
    ).long()

    def light_of(some: Tensor) -> Tensor:
        """(n, H, W)."""
        larger = [(_CELLS + 1) * side for side in cell]
        smooth = F.interpolate(lit[some], larger, mode="bilinear", align_corners=False)[:, 0]
        return torch.stack(
            [
                mask[down : down + size[0], across : across + size[1]]
                for mask, (down, across) in zip(smooth, shifts[some].tolist(), strict=True)
            ]
        )

    return light_of


def repeated(trace: Trace, index: int, count: int) -> Trace:
    """One input of a trace, `count` times, as far as `Tower.forward_from` asks."""
    rows = {
        name: getattr(trace, name)[[index] * count]
        for name in ("inputs", "tokens", "query_index", "valid_mask")
    }
    mask = trace.attention_mask
    return replace(
        trace, **rows, attention_mask=mask if mask is None or len(mask) == 1 else mask[[index]]
    )


def _squeezed(tower: Tower, trace: Trace, direction: Tensor, noise: Tensor, beta: float) -> Tensor:
    """Nats (N,) that each token of one input (repeated in `trace`) keeps after the bottleneck is optimised."""
    tokens, counted = trace.tokens[0], (trace.valid_mask | trace.readers)[0]
    openness = torch.full_like(tokens, 5.0).requires_grad_()
    optimizer = torch.optim.Adam([openness], lr=1.0)
    for sample in noise:  # (samples, N, D)
        with torch.enable_grad():
            lam = openness.sigmoid()
            embedding = tower.forward_from(
                trace, tower.depth - tower.layers, lam * tokens + (1 - lam) * sample
            )
            loss = (
                beta * _information(openness, tokens)[counted].mean()
                - (embedding @ direction).mean()
            )
            (openness.grad,) = torch.autograd.grad(loss, openness)
        optimizer.step()
    return _information(openness.detach(), tokens).sum(-1)


def _information(openness: Tensor, tokens: Tensor) -> Tensor:
    """KL of N(lam x, (1 - lam)^2) from N(0, 1), (N, D)."""
    lam = openness.sigmoid()
    return 0.5 * ((lam * tokens) ** 2 + (1 - lam) ** 2 - 1) - F.logsigmoid(
        -openness
    )  # log(1 - lam) = logsigmoid(-a)


def word_numbers(trace: Trace) -> Tensor:
    """The word of every token (B, N) if each is a word of its own; -1 for SOT, EOT and padding."""
    inside = trace.valid_mask & (
        torch.arange(trace.valid_mask.shape[1], device=trace.valid_mask.device) > 0
    )
    inside[torch.arange(len(inside), device=inside.device), trace.valid_mask.sum(-1) - 1] = (
        False  # EOT
    )
    return torch.where(inside, inside.cumsum(-1), -1)


def without_tokens(ids: Tensor, gone: Tensor, fill: int | None = None) -> Tensor:
    """Token ids of a shorter prompt, (context_length,), filled up with padding; by default with its last id."""
    keep, gone = (
        torch.ones_like(ids, dtype=torch.bool),
        gone[: len(ids)],
    )  # an appended CLS has no id
    keep[: len(gone)] = ~gone
    return F.pad(ids[keep], (0, int(gone.sum())), value=int(ids[-1]) if fill is None else fill)
