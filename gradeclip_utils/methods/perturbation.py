"""Methods that change the input and watch the output; they need no look inside the model.

Masked images (RISE), a prompt without one of its words (leave-one-out), and noisy tokens (M2IB).

Shapes: B inputs, T targets, N tokens of width D, E the width of the embedding, P = h * w patches,
which are the last tokens.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..towers import Tower, Trace
from .common import (
    BAR_DELAY,
    mean_over_patches,
    on_patches,
    one_word_per_token,
    repeat_input,
    zero_maps,
)
from .options import DEFAULTS, Options

BATCH_SIZE = 64  # images or prompts in one forward pass
RISE_CELLS = 7  # of a mask, down and across
RISE_LIT = 0.5  # how likely a cell of a mask is lit


# ------------------------------------------------------------------------------------ RISE


def rise(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    masks: int = 500,
) -> Tensor:
    """RISE: how much more the target is when a patch is seen, over random masks of the image."""
    image_size = tuple(trace.inputs.shape[-2:])
    draw_masks = mask_maker(masks, image_size, options.seed)

    scores = []
    visible = []
    for _, light, embeddings in embed_through_masks(tower, trace, masks, draw_masks, "RISE"):
        scores.append(torch.einsum("bte,bne->btn", directions, embeddings))
        visible.append(mean_over_patches(tower, trace, light))  # (n, P)

    scores = torch.cat(scores, dim=-1)  # (B, T, masks)
    visible = torch.cat(visible).to(scores)  # (masks, P)
    centred = scores - scores.mean(dim=-1, keepdim=True)
    return on_patches(trace, centred @ visible / (masks * RISE_LIT))


def embed_through_masks(
    tower: Tower,
    trace: Trace,
    count: int,
    draw_masks: Callable[[Tensor], Tensor],
    title: str,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield numbers (n,) of masks, these masks (n, H, W), and embeddings (B, n, E) behind them."""
    pixels = trace.inputs  # (B, 3, H, W)
    masks_per_batch = max(1, BATCH_SIZE // len(pixels))

    with tqdm(total=count, desc=title, delay=BAR_DELAY, leave=False) as progress:
        for numbers in torch.arange(count).split(masks_per_batch):
            light = draw_masks(numbers).to(pixels)
            masked = pixels[:, None] * light[None, :, None]  # (B, n, 3, H, W)
            embeddings = embed(tower, masked.flatten(0, 1))  # (B * n, E)
            yield numbers, light, embeddings.unflatten(0, (len(pixels), -1))
            progress.update(len(numbers))


def embed(tower: Tower, pixels: Tensor) -> Tensor:
    """Embeddings of images; by a trace where the model itself cannot read images of this size."""
    if tower.reads(pixels):
        return tower.forward(pixels)
    return tower.trace(pixels).embedding


def mask_maker(count: int, size: tuple[int, int], seed: int = 0) -> Callable[[Tensor], Tensor]:
    """RISE's masks in [0, 1]: a function from the numbers (n,) of masks to masks (n, H, W)."""
    height, width = size
    cell_height = -(-height // RISE_CELLS)  # rounded up: a shifted mask still covers the image
    cell_width = -(-width // RISE_CELLS)

    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(count, 1, RISE_CELLS, RISE_CELLS, generator=generator, dtype=torch.float32)
    lit = (cells < RISE_LIT).float()
    parts = torch.rand(count, 2, generator=generator, dtype=torch.float32)  # of a cell
    shifts = (parts * torch.tensor([cell_height, cell_width])).long()
    # a cell more than the image has, in which a mask is shifted
    larger = ((RISE_CELLS + 1) * cell_height, (RISE_CELLS + 1) * cell_width)

    def draw_masks(numbers: Tensor) -> Tensor:
        smooth = F.interpolate(lit[numbers], larger, mode="bilinear", align_corners=False)

        masks = []
        for mask, (down, across) in zip(smooth[:, 0], shifts[numbers].tolist(), strict=True):
            masks.append(mask[down : down + height, across : across + width])
        return torch.stack(masks)

    return draw_masks


# --------------------------------------------------------------------------- leave-one-out


def leave_one_out(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Leave one word out: S(prompt) - S(prompt without the word), at the word's first token."""
    word_ids = options.word_ids
    if word_ids is None:
        word_ids = one_word_per_token(trace)
    scores = zero_maps(trace, directions)  # (B, T, N)

    tasks = []
    for prompt, ids in enumerate(word_ids):
        tasks += [(prompt, word) for word in ids.unique().tolist() if word >= 0]

    for start in range(0, len(tasks), BATCH_SIZE):
        batch = tasks[start : start + BATCH_SIZE]
        shorter = [
            without_tokens(trace.inputs[prompt], word_ids[prompt] == word, options.fill)
            for prompt, word in batch
        ]
        embeddings = tower.trace(torch.stack(shorter)).embedding  # (n, E)

        for (prompt, word), embedding in zip(batch, embeddings, strict=True):
            lost = trace.embedding[prompt] - embedding
            first_token = int((word_ids[prompt] == word).int().argmax())
            scores[prompt, :, first_token] = directions[prompt] @ lost
    return scores


def without_tokens(ids: Tensor, removed: Tensor, fill: int | None = None) -> Tensor:
    """Token ids (context_length,) of a shorter prompt, padded with `fill` or with its last id."""
    if fill is None:
        fill = int(ids[-1])
    removed = removed[: len(ids)]  # an appended CLS has no id

    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[: len(removed)] = ~removed
    return F.pad(ids[keep], (0, int(removed.sum())), value=fill)


# ------------------------------------------------------------------------------------ M2IB


def m2ib(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    beta: float = 0.1,
    samples: int = 10,
    steps: int = 10,
) -> Tensor:
    """M2IB: how much each token must say, in nats, for the target to survive a bottleneck."""
    _, token_count, width = trace.tokens.shape
    generator = torch.Generator().manual_seed(options.seed)
    # tokens first: a longer batch of prompts draws the same for the same token
    noise = torch.randn(
        token_count, steps, samples, width, generator=generator, dtype=torch.float32
    )
    noise = noise.to(trace.tokens).permute(1, 2, 0, 3)  # (steps, samples, N, D)

    maps = zero_maps(trace, directions)
    inputs, targets = directions.shape[:2]
    with tqdm(total=inputs * targets, desc="M2IB", delay=BAR_DELAY, leave=False) as progress:
        for i in range(inputs):
            copies = repeat_input(trace, i, samples)
            for target in range(targets):
                direction = directions[i, target]
                maps[i, target] = fit_bottleneck(tower, copies, direction, noise, beta)
                progress.update()
    return maps * trace.valid_mask[:, None]


def fit_bottleneck(
    tower: Tower,
    trace: Trace,
    direction: Tensor,
    noise: Tensor,
    beta: float,
) -> Tensor:
    """Nats (N,) that each token of one input, repeated in `trace`, keeps after optimisation."""
    tokens = trace.tokens[0]  # (N, D)
    counted = (trace.valid_mask | trace.readers)[0]

    openness = torch.full_like(tokens, 5.0).requires_grad_()
    optimizer = torch.optim.Adam([openness], lr=1.0)
    for sample in noise:  # (samples, N, D)
        with torch.enable_grad():
            lam = openness.sigmoid()
            mixed = lam * tokens + (1 - lam) * sample
            embedding = tower.forward_from(trace, tower.first, mixed)
            nats = information(openness, tokens)[counted].mean()
            loss = beta * nats - (embedding @ direction).mean()
            (openness.grad,) = torch.autograd.grad(loss, openness)
        optimizer.step()
    return information(openness.detach(), tokens).sum(dim=-1)


def information(openness: Tensor, tokens: Tensor) -> Tensor:
    """KL divergence (N, D) of N(lam x, (1 - lam)^2) from N(0, 1), with lam = sigmoid(openness)."""
    lam = openness.sigmoid()
    log_one_minus_lam = F.logsigmoid(-openness)
    return 0.5 * ((lam * tokens) ** 2 + (1 - lam) ** 2 - 1) - log_one_minus_lam
