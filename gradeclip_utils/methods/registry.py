"""Registry: all methods, with their papers, the number that each explains, and their costs.

    tower --trace--> Trace --method--> map --Explanation--> figure

`Explainer(clip, method="maskclip")` runs a method of `METHODS`, and `register_method` adds one of your own. All work
on the unmodified model, through a tower; methods that change the model's attention do so in a computation of their
own, and `Method.explains` names the number that they then explain. A method goes through the trace's explained layers:
`Method.layers`, unless the user chooses others.

Every method gets a tower, a trace and the targets' `directions` (B, T, E), and returns signed maps (B, T, N) over the
trace's tokens, zero for a token that is not valid (`trace.valid_mask`). The target of a direction d is
S = embedding . d: with d = e_T a similarity, with d = e_A - e_B the difference of two. Costs are in forward passes of
the tower, beyond the one of the trace. Shapes: B inputs, T targets, R query tokens, N tokens of width D, P = h * w
patches (the last tokens), H heads of C channels, E the width of the embedding.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial, wraps
from multiprocessing import current_process

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..checks import chosen, instance, text
from ..errors import GradeclipError, UnsupportedModel
from ..towers import Tower, Trace
from ..towers.blocks import Block, attend, attend_fused, through
from .grad_eclip import grad_eclip

_FRACTIONS = {"all": 1, "half": 1 / 2, "sixth": 1 / 6}
_AT_ONCE = 64  # images or prompts in one forward pass
_CELLS, _LIT = 7, 0.5  # of RISE's masks: cells down and across, and how likely one is lit
_WITH_GRAPH = 16  # images in one forward pass with a graph


@dataclass(frozen=True)
class Method:
    """One way to explain.

        Method("mine", "Mine", "A. Author, 2030", "the model's own similarity", "nothing beyond the trace", image=maps)

    Attributes:
        name: what `Explainer(method=...)` and tables call it, such as "grad-eclip".
        title: what figures call it, such as "Grad-ECLIP".
        paper: authors, title, venue.
        explains: which number: "the model's own similarity", or what is not that.
        cost: in forward passes beyond the trace, in words.
        image: a function `(tower, trace, directions) -> maps`, as the module says; None if the method is not defined
            for images. It may have keywords `seed`, `words` and `empty`, and gets those that it has:
            `words` (B, N) numbers the word of every token, -1 for none; `empty` (E,) is the embedding of a prompt
            without words, if `wants_empty`.
        text: the same for prompts.
        layers: the explained layers: "last" as many as Grad-ECLIP; "all", "half", "sixth" that part, from the top.
        text_layers: the same for prompts, if it is another part.
        wants_empty: whether `empty` is computed for it; such a method compares the targets of a call.
        wants_attention: if not, it also explains an encoder without attention (`towers.open_feature_map`).

    Raises:
        GradeclipError: it explains neither images nor prompts, one of them is no function, or `layers` is none of the
            four.
    """

    name: str
    title: str
    paper: str
    explains: str
    cost: str
    image: Callable[..., Tensor] | None = None
    text: Callable[..., Tensor] | None = None
    layers: str = "last"
    text_layers: str | None = None
    wants_empty: bool = False
    wants_attention: bool = True

    def __post_init__(self):
        if self.image is None and self.text is None:
            msg = f"the method {self.name!r} explains neither images nor prompts: give image= or text="
            raise GradeclipError(msg)
        for name in ("name", "title", "paper", "explains", "cost"):
            text(f"the {name} of a method", getattr(self, name))
        for layers in (self.layers, self.text_layers or "last"):
            chosen("layers", layers, ("last", *_FRACTIONS))
        for side in ("image", "text"):
            if (function := getattr(self, side)) is not None:
                instance(f"{side} of the method {self.name!r}", function, Callable, "a function")
                object.__setattr__(self, side, _given_what_it_names(function))

    def explained(self, depth: int, side: str = "image") -> int | None:
        """The number of layers that the method explains of `depth`; None leaves it to the tower."""
        part = (self.text_layers if side == "text" else None) or self.layers
        return None if part == "last" else max(1, round(depth * _FRACTIONS[part]))


def _given_what_it_names(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function with the keywords of every method; it gets those that it has."""
    named = inspect.signature(function).parameters

    @wraps(function)
    def _method(tower, trace, directions, *, seed=0, words=None, empty=None) -> Tensor:
        given = {"seed": seed, "words": words, "empty": empty}
        return function(tower, trace, directions, **{name: value for name, value in given.items() if name in named})

    return _method


def _grad_eclip_with_one_head(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-ECLIP as published: the explained layers run again with ONE head over the full width."""
    return grad_eclip(tower, trace if trace.heads == 1 else tower.with_one_head(trace), directions)


# ------------------------------------------------------------------------------------------ methods that read attention


def _attention(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Raw attention: map_i = alpha_i of the last layer, averaged over heads and over query tokens."""
    return _same_for_all(trace, trace.layers[-1].attention.mean(dim=(1, 2)), directions)


def _rollout(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Attention rollout: the query tokens' row of prod_l (A_l + I) / 2, from the lowest layer to the highest."""
    layers = [(block, weights.mean(1)) for block, weights, _ in _layer_passes(tower, trace)]  # (B, N, N)
    row = _query_row(tower, trace)
    for block, weights in reversed(layers):
        row = _times(row, weights) if block.pools else 0.5 * (row + _times(row, weights))
    return _same_for_all(trace, row, directions)


def _game(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """GAME (Chefer): the query tokens' row of R, where R = I, and R <- R + mean_h relu(dS/dA_l * A_l) R upwards."""
    with torch.enable_grad():
        blocks, attentions, outputs = zip(*_layer_passes(tower, trace), strict=True)
        embedding = tower.resume(trace, tower.depth, outputs[-1])
    maps = []
    for direction in directions.unbind(1):
        slopes = torch.autograd.grad(embedding, attentions, direction, retain_graph=True)
        row = start = _query_row(tower, trace)
        for block, weights, slope in zip(reversed(blocks), reversed(attentions), reversed(slopes), strict=True):
            pulled = _times(row, (slope * weights.detach()).relu().mean(1))
            row = pulled if block.pools else row + pulled
        maps.append(row if blocks[-1].pools else row - start)
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def _legrad(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """LeGrad: map_i = mean over layers, heads and queries j of relu(dS_l / dA_l,ji)."""
    maps = _blank_maps(trace, directions)
    with torch.enable_grad():
        for block, weights, output in _layer_passes(tower, trace):
            read = output if block.pools else output.mean(1, keepdim=True).expand_as(output)
            embedding = tower.resume(trace, tower.depth, read)
            for target, direction in enumerate(directions.unbind(1)):
                (slope,) = torch.autograd.grad(embedding, weights, direction, retain_graph=True)  # (B, H, N, N)
                maps[:, target] += slope.relu().mean(dim=(1, 2)) / tower.layers
    return maps * trace.valid_mask[:, None]


def _layer_passes(tower: Tower, trace: Trace) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each explained layer, its attention (B, H, N, N) and its output (B, N, D), in the caller's graph."""
    x = trace.tokens.detach().requires_grad_()  # for callers that want a graph
    for block in tower.explained:
        weights, o = attend(*block.project(x, trace.positions, trace.heads), trace.attention_mask)
        x = block.finish(x, o)
        yield block, weights, x


def _query_row(tower: Tower, trace: Trace) -> Tensor:
    """(B, N), one shared out over the query tokens; (B, R) where latent queries read."""
    if tower.explained[-1].latent:
        return torch.full_like(trace.layers[-1].o[..., 0], 1 / trace.layers[-1].o.shape[1])
    row = torch.zeros_like(trace.valid_mask, dtype=trace.embedding.dtype)
    return row.scatter(1, trace.query_index, 1 / trace.query_index.shape[1])


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("bj,bji->bi", row, matrix)


def _same_for_all(trace: Trace, rows: Tensor, directions: Tensor) -> Tensor:
    """(B, N) -> (B, T, N)."""
    return (rows * trace.valid_mask)[:, None].repeat(1, directions.shape[1], 1)


# ------------------------------------------------------------------------------ methods that read the tokens themselves


def _grad_cam(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-CAM: map_i = sum_c w_c x_ic, with x the tokens that enter the last block, w_c = mean_i dS/dx_ic."""
    maps = []
    for slope in _gradients(lambda x: tower.resume(trace, tower.depth - tower.layers, x), trace.tokens, directions):
        patches = slope * trace.valid_mask[..., None]
        weights = patches.sum(1) / trace.valid_mask.sum(1, keepdim=True)  # (B, D)
        maps.append(torch.einsum("bd,bnd->bn", weights, trace.tokens))
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def _maskclip(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """MaskCLIP: map_i = f_i . d, with f_i the unit embedding of token i when it attends to itself alone."""
    return torch.einsum("bne,bte->btn", tower.dense(trace), directions) * trace.valid_mask[:, None]


def _clip_surgery(tower: Tower, trace: Trace, directions: Tensor, *, empty: Tensor | None = None) -> Tensor:
    """CLIP Surgery: map_i = f_i . d less what all targets share, with f from a second path of v-v attention."""
    x = y = trace.tokens
    for position, block in enumerate(tower.explained, start=tower.depth - tower.layers):
        if block.pools or block.behind:
            kind = type(block.module).__name__
            raise UnsupportedModel(f"CLIP Surgery needs transformer blocks as CLIP's own are, the tower has a {kind}")
        v = block.project(x, trace.positions, trace.heads)[2]
        y = y + through(block.out, attend_fused(v, v, v, None))
        if position < tower.depth - 1:  # of the model's own path only what feeds the other is needed
            x = tower.run_block(trace, position, x)
    if directions.shape[1] == 1 and empty is not None:
        directions = directions - empty
    maps = torch.einsum("bne,bte->btn", tower.embed_alone(trace, y), directions)
    if directions.shape[1] > 1:
        weights = torch.einsum("be,bte->bt", trace.embedding, 2 * directions).softmax(-1) * directions.shape[1]
        maps = maps * weights[..., None]
        maps = maps - maps.mean(1, keepdim=True)
    return maps * trace.valid_mask[:, None]


# ----------------------------------------------------------------- gradients of the input: pixels, or a prompt's tokens


def _input_x_gradient(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Input x gradient: map_i = sum of x * dS/dx over the pixels and colours x of patch i, or over the token x_i."""
    if trace.grid is None:
        slopes = _gradients(lambda x: tower.resume(trace, tower.depth - tower.layers, x), trace.tokens, directions)
        return torch.stack([(slope * trace.tokens).sum(-1) for slope in slopes], dim=1) * trace.valid_mask[:, None]
    pixels = _own_pixels(tower, trace)
    slopes = _gradients(tower.embed_pixels, pixels, directions)
    products = [(slope * pixels).sum(1) for slope in slopes]  # T times (B, H, W)
    return _summed_over_patches(tower, trace, torch.stack(products, dim=1))


def integrated_gradients(tower: Tower, trace: Trace, directions: Tensor, *, steps: int = 50) -> Tensor:
    """Integrated gradients: map_i = sum over the pixels x of patch i of x * mean_a dS/dx at a * x, a from 0 to 1."""
    if trace.grid is None:
        return _integrated_over_tokens(tower, trace, directions, steps)
    pixels = _own_pixels(tower, trace)
    maps = torch.zeros(*directions.shape[:2], *pixels.shape[-2:]).to(pixels)  # (B, T, H, W)
    path = torch.tensor(list(path_points(steps)), dtype=torch.float64).to(pixels)
    places, weights = path.T[..., None, None, None, None]
    points = torch.arange(steps, device=pixels.device).split(max(1, _WITH_GRAPH // len(pixels)))
    for some in _bar("integrated gradients", points):  # points of the path, (n, B, 3, H, W) of all images
        dimmed = (places[some] * pixels).flatten(0, 1)
        along = _gradients(tower.embed_pixels, dimmed, directions.repeat(len(some), 1, 1))
        for target, slopes in enumerate(along):
            maps[:, target] += ((weights[some] * slopes.unflatten(0, (len(some), -1))).sum(0) * pixels).sum(1)
    return _summed_over_patches(tower, trace, maps)


def _integrated_over_tokens(tower: Tower, trace: Trace, directions: Tensor, steps: int) -> Tensor:
    change = trace.tokens * (word_numbers(trace) >= 0)[..., None]
    start, first = trace.tokens - change, tower.depth - tower.layers
    slopes = torch.zeros(*directions.shape[:2], *change.shape[1:]).to(change)  # (B, T, N, D)
    for place, weight in path_points(steps):
        along = _gradients(lambda x: tower.resume(trace, first, x), start + place * change, directions)
        slopes += weight * torch.stack(list(along), dim=1)
    return (slopes * change[:, None]).sum(-1)


def _own_pixels(tower: Tower, trace: Trace) -> Tensor:
    """The pixels, in the precision of the embedding."""
    if not tower.reads(trace.inputs):
        why, got = "gradients of pixels need the model's own pass", tuple(trace.inputs.shape[-2:])
        msg = f"{why}, which reads {tower.image_size} pixels only, got {got}; use resolution='model'"
        raise GradeclipError(msg)
    return trace.inputs.to(trace.embedding)


def _summed_over_patches(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """(B, T, H, W) -> (B, T, N)."""
    return _on_patches(trace, _means_over_patches(tower, trace, values) * (tower.patch_size[0] * tower.patch_size[1]))


def path_points(steps: int) -> Iterator[tuple[float, float]]:
    """Points between 0 and 1, and their weights in a mean along a path: Gauss-Legendre's rule."""
    for place, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        yield float(place + 1) / 2, float(weight) / 2


def _gradients(encode: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor) -> Iterator[Tensor]:
    """Gradients of the targets embedding . direction, one direction after the other."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        embedding = encode(at)
    for direction in directions.unbind(1):
        yield torch.autograd.grad(embedding, at, direction, retain_graph=True)[0]


# ------------------------------------------------------------------- methods that change the input and watch the output


def _bar(what: str, things: Iterable | None = None, total: int | None = None) -> tqdm:
    """A bar for a long computation, which a terminal shows after five seconds; the workers of a pool show none."""
    hidden = True if current_process().name != "MainProcess" else None
    return tqdm(things, what, total, disable=hidden, delay=5.0, leave=False)


def _rise(tower: Tower, trace: Trace, directions: Tensor, *, masks: int = 500, seed: int = 0) -> Tensor:
    """RISE: how much more the target is when a patch is seen, over random masks M of the image."""
    light_of = _mask_maker(masks, tuple(trace.inputs.shape[-2:]), seed)
    scores, seen = [], []
    for _, light, embeddings in seen_through(tower, trace, masks, light_of, "RISE"):
        scores.append(torch.einsum("bte,bne->btn", directions, embeddings))
        seen.append(_means_over_patches(tower, trace, light))  # (n, P)
    scores = torch.cat(scores, dim=-1)  # (B, T, masks)
    centred = scores - scores.mean(-1, keepdim=True)
    return _on_patches(trace, centred @ torch.cat(seen).to(centred) / (masks * _LIT))


def _m2ib(
    tower: Tower, trace: Trace, directions: Tensor, *, beta: float = 0.1, samples: int = 10, steps: int = 10,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """M2IB: how much each token must say, in nats, for the target to survive an information bottleneck."""
    batch, count, width = trace.tokens.shape
    generator = torch.Generator().manual_seed(seed)
    # tokens first: a longer batch of prompts draws the same for the same token
    noise = torch.randn(count, steps, samples, width, generator=generator, dtype=torch.float32)
    noise = noise.to(trace.tokens).permute(1, 2, 0, 3)  # (steps, samples, N, D)
    maps = torch.zeros(*directions.shape[:2], count, dtype=trace.tokens.dtype, device=trace.tokens.device)
    pairs = [(i, target) for i in range(batch) for target in range(directions.shape[1])]
    for i, target in _bar("M2IB", pairs):
        one = repeated(trace, i, samples)
        maps[i, target] = _squeezed(tower, one, directions[i, target], noise, beta)
    return maps * trace.valid_mask[:, None]


def _leave_one_out(tower: Tower, trace: Trace, directions: Tensor, *, words: Tensor | None = None) -> Tensor:
    """Leave one word out: S(prompt) - S(prompt without the word), at the word's first token."""
    words = word_numbers(trace) if words is None else words
    maps = _blank_maps(trace, directions)
    places = [(i, word) for i, row in enumerate(words) for word in row.unique().tolist() if word >= 0]
    for start in range(0, len(places), _AT_ONCE):
        some = places[start : start + _AT_ONCE]
        shorter = torch.stack([without_tokens(trace.inputs[i], words[i] == word) for i, word in some])
        for (i, word), embedding in zip(some, tower.trace(shorter).embedding, strict=True):
            first = int((words[i] == word).int().argmax())
            maps[i, :, first] = directions[i] @ (trace.embedding[i] - embedding)
    return maps


def _on_patches(trace: Trace, values: Tensor) -> Tensor:
    """Maps over tokens, (B, T, N): the patches are the last tokens, and the others have no pixels."""
    return F.pad(values, (trace.valid_mask.shape[1] - values.shape[-1], 0))


def _means_over_patches(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
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
    with _bar(what, total=count) as shown:
        for some in torch.arange(count).split(max(1, _AT_ONCE // len(pixels))):
            light = light_of(some).to(pixels)
            masked = (pixels[:, None] * light[None, :, None]).flatten(0, 1)  # (B*n, 3, H, W)
            yield some, light, look(masked).unflatten(0, (len(pixels), -1))
            shown.update(len(some))


def _blank_maps(trace: Trace, directions: Tensor) -> Tensor:
    """Zero in every map (B, T, N), in the precision of the directions."""
    return directions.new_zeros(*directions.shape[:2], trace.valid_mask.shape[1])


def _mask_maker(count: int, size: tuple[int, int], seed: int = 0) -> Callable[[Tensor], Tensor]:
    """RISE's masks in [0, 1], from the numbers (n,) of some of them to these (n, H, W)."""
    cell = [-(-side // _CELLS) for side in size]  # rounded up: a shifted mask must still cover the image
    generator = torch.Generator().manual_seed(seed)
    lit = (torch.rand(count, 1, _CELLS, _CELLS, generator=generator, dtype=torch.float32) < _LIT).float()
    shifts = (torch.rand(count, 2, generator=generator, dtype=torch.float32) * torch.tensor(cell)).long()

    def light_of(some: Tensor) -> Tensor:
        """(n, H, W)."""
        larger = [(_CELLS + 1) * side for side in cell]
        smooth = F.interpolate(lit[some], larger, mode="bilinear", align_corners=False)[:, 0]
        return torch.stack([
            mask[down : down + size[0], across : across + size[1]]
            for mask, (down, across) in zip(smooth, shifts[some].tolist(), strict=True)
        ])  # fmt: skip

    return light_of


def repeated(trace: Trace, index: int, count: int) -> Trace:
    """One input of a trace, `count` times, as far as `Tower.resume` asks."""
    rows = {name: getattr(trace, name)[[index] * count] for name in ("inputs", "tokens", "query_index", "valid_mask")}
    mask = trace.attention_mask
    return replace(trace, **rows, attention_mask=mask if mask is None or len(mask) == 1 else mask[[index]])


def _squeezed(tower: Tower, trace: Trace, direction: Tensor, noise: Tensor, beta: float) -> Tensor:
    """Nats (N,) that each token of one input (repeated in `trace`) keeps after the bottleneck is optimised."""
    tokens, reads = trace.tokens[0], torch.zeros_like(trace.valid_mask[0])
    reads[trace.query_index[0]] = True
    counted = trace.valid_mask[0] | reads
    openness = torch.full_like(tokens, 5.0).requires_grad_()
    optimizer = torch.optim.Adam([openness], lr=1.0)
    for sample in noise:  # (samples, N, D)
        with torch.enable_grad():
            lam = openness.sigmoid()
            embedding = tower.resume(trace, tower.depth - tower.layers, lam * tokens + (1 - lam) * sample)
            loss = beta * _information(openness, tokens)[counted].mean() - (embedding @ direction).mean()
            (openness.grad,) = torch.autograd.grad(loss, openness)
        optimizer.step()
    return _information(openness.detach(), tokens).sum(-1)


def _information(openness: Tensor, tokens: Tensor) -> Tensor:
    """KL of N(lam x, (1 - lam)^2) from N(0, 1), (N, D)."""
    lam = openness.sigmoid()
    return 0.5 * ((lam * tokens) ** 2 + (1 - lam) ** 2 - 1) - F.logsigmoid(-openness)  # log(1 - lam) = logsigmoid(-a)


def word_numbers(trace: Trace) -> Tensor:
    """The word of every token (B, N) if each is a word of its own; -1 for SOT, EOT and padding."""
    inside = trace.valid_mask & (torch.arange(trace.valid_mask.shape[1], device=trace.valid_mask.device) > 0)
    inside[torch.arange(len(inside), device=inside.device), trace.valid_mask.sum(-1) - 1] = False  # EOT
    return torch.where(inside, inside.cumsum(-1), -1)


def without_tokens(ids: Tensor, gone: Tensor) -> Tensor:
    """Token ids of a shorter prompt, (context_length,); its last id fills up behind the end, where nobody reads."""
    keep, gone = torch.ones_like(ids, dtype=torch.bool), gone[: len(ids)]  # an appended CLS has no id
    keep[: len(gone)] = ~gone
    return torch.cat([ids[keep], ids[-1:].expand(int(gone.sum()))])


# ---------------------------------------------------------------------------------------------------------- all of them


_OWN = "the model's own similarity"
_GRAD_ECLIP = (
    "Zhao, Wang, Zeng, Zhao and Chan, Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024; with "
    "the text side Zhao, Wang, Hsiao and Chan, arXiv 2502.18816"
)
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("grad-eclip", "Grad-ECLIP", _GRAD_ECLIP, _OWN, "a gradient through the explained layers", grad_eclip,
               grad_eclip),
        Method("grad-eclip-no-spatial", "Grad-ECLIP without spatial weight", f"{_GRAD_ECLIP} (ablation)", _OWN,
               "a gradient through the explained layers", partial(grad_eclip, spatial="none"),
               partial(grad_eclip, spatial="none")),
        Method("grad-eclip-softmax", "Softmax x gradient", f"{_GRAD_ECLIP} (ablation)", _OWN,
               "a gradient through the explained layers", partial(grad_eclip, spatial="softmax"),
               partial(grad_eclip, spatial="softmax")),
        Method("grad-eclip-single-head", "Grad-ECLIP with one head", f"{_GRAD_ECLIP} (as published)",
               "the similarity of another network, with one attention head",
               "the explained layers again, and a gradient through them", _grad_eclip_with_one_head,
               _grad_eclip_with_one_head),
        Method("attention", "Raw attention", "Vaswani et al., Attention Is All You Need, NeurIPS 2017; Jain and "
               "Wallace, Attention is not Explanation, NAACL 2019", "where the tower looks, for any text or image",
               "nothing beyond the trace", _attention, _attention),
        Method("rollout", "Attention rollout", "Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL "
               "2020, arXiv 2005.00928", "how attention mixes the input, for any text or image", "1 forward pass",
               _rollout, _rollout, layers="all"),
        Method("grad-cam", "Grad-CAM", "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via "
               "Gradient-based Localization, ICCV 2017, arXiv 1610.02391", _OWN,
               "the last block, and its gradient for each target", _grad_cam, None, wants_attention=False),
        Method("game", "GAME", "Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal "
               "and Encoder-Decoder Transformers, ICCV 2021, arXiv 2103.15679", _OWN,
               "1 forward pass, and a backward pass for each target", _game, _game, layers="all"),
        Method("maskclip", "MaskCLIP",
               "Zhou, Loy and Dai, Extract Free Dense Labels from CLIP, ECCV 2022, arXiv 2112.01071",
               "cosines of each patch's own feature, which the model never reads", "the last block", _maskclip, None),
        Method("clip-surgery", "CLIP Surgery", "Li et al., CLIP Surgery for Better Explainability with Enhancement in "
               "Open-Vocabulary Tasks, arXiv 2304.05653",
               "features of another attention, less what the prompts of one call share", "half a forward pass",
               _clip_surgery, None, layers="half", wants_empty=True),
        Method("m2ib", "M2IB", "Wang, Rudner and Wilson, Visual Explanations of Image-Text Representations via "
               "Multi-Modal Information Bottleneck Attribution, NeurIPS 2023, arXiv 2312.17174",
               "what each token must say to keep the similarity up", "about 35 forward passes for each target",
               _m2ib, _m2ib, layers="sixth"),
        Method("rise", "RISE", "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box "
               "Models, BMVC 2018, arXiv 1806.07421", _OWN, "500 forward passes, for all targets together",
               _rise, None, wants_attention=False),
        Method("legrad", "LeGrad", "Bousselham et al., LeGrad: An Explainability Method for Vision Transformers via "
               "Feature Formation Sensitivity, ICCV 2025, arXiv 2404.03214",
               "the similarity of averaged tokens, as if the tower ended earlier",
               "a sixth of a forward pass, and its gradient for each target", _legrad, None, layers="sixth"),
        Method("input-x-gradient", "Input x gradient", "Shrikumar et al., Not Just a Black Box: Learning Important "
               "Features Through Propagating Activation Differences, arXiv 1605.01713", _OWN,
               "1 forward pass, and a backward pass for each target", _input_x_gradient,
               _input_x_gradient, text_layers="all", wants_attention=False),
        Method("integrated-gradients", "Integrated gradients",
               "Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017, arXiv 1703.01365", _OWN,
               "50 forward and backward passes for each target", integrated_gradients,
               integrated_gradients, text_layers="all", wants_attention=False),
        Method("leave-one-out", "Leave one word out", "Li, Monroe and Jurafsky, Understanding Neural Networks through "
               "Representation Erasure, arXiv 1612.08220", _OWN, "a forward pass for each word", None,
               _leave_one_out, wants_attention=False),
    )
}  # fmt: skip


def register_method(method: Method) -> Method:
    """Add a method to `METHODS`, so that its name can be used like any other, and return it.

    `del METHODS[name]` removes it again.

    Args:
        method: with a new name; `Explainer(clip, method=method)` also takes one that is not registered.

    Raises:
        GradeclipError: there is a method of this name, or it is no `Method`.
    """
    instance("a method", method, Method, "a Method")
    if method.name in METHODS:
        raise GradeclipError(f"there is a method {method.name!r}: choose another name")
    METHODS[method.name] = method
    return method
