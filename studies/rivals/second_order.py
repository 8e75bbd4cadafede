"""Second order: which patch answers to which word, by exCLIP and by FIxLIP, beside Grad-ECLIP's own interactions.

    traces of a prompt and an image --here--> a region for each word, and the word's direction

Both say for every word j and patch i how they bring about S = e_I . e_T together. S is a product of what the image
alone and what the prompt alone decide, and so is their answer: with b_i (E,) what patch i does to e_I, and t_j (E,)
what word j does to e_T, it is t_j . b_i. A word has a direction, as in `interactions`, and its map is that of a
first-order method for the direction t_j. No pair is ever asked about by itself:

| | b_i and t_j | the map of a direction | paper |
| --- | --- | --- | --- |
| exCLIP | integrated Jacobians times the input's change | integrated gradients | arXiv 2408.14153 |
| FIxLIP | Banzhaf values | `fixlip` | arXiv 2508.05430 |

Shapes: B inputs, T targets, N tokens, P patches, W words, E the width of the embedding, C coalitions.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradeclip_utils.checks import between, whole
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.methods.input_gradients import integrated_gradients, path_points
from gradeclip_utils.methods.interactions import word_directions
from gradeclip_utils.methods.perturbation import bar, on_patches, seen_through, word_numbers
from gradeclip_utils.towers import Tower, Trace, open_text_tower

from .metagame import embed_coalitions, score_players

_PROMPTS = 256  # coalitions of words, where they are sampled


# ------------------------------------------------------------------------------------------------------------- exCLIP


def integrated_word_directions(tower: Tower, trace: Trace, word_mask: Tensor, steps: int = 50) -> Tensor:
    """ExCLIP's directions (W, E): t_j = mean_a J(start + a (x - start)) (x - start)_j, with a from 0 to 1."""
    assert len(trace.tokens) == 1
    if tower.layers < tower.depth:
        tower = open_text_tower(tower.model, tower.depth)
        trace = tower.trace(trace.inputs)
    change = trace.tokens * (word_numbers(trace) >= 0)[..., None]  # (1, N, D)
    by_word = change * word_mask[:, None, :, None].to(change)  # (W, 1, N, D)
    found = torch.zeros(len(word_mask), tower.width).to(change)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode on the CPU
        for place, weight in path_points(steps):
            at = trace.tokens - change + place * change

            def push(tangent: Tensor, at: Tensor = at) -> Tensor:
                """Where a change of the tokens pushes the embedding."""
                return torch.func.jvp(lambda x: tower.resume(trace, 0, x), (at,), (tangent,))[1]

            found += weight * torch.vmap(push)(by_word)[:, 0]
    return found


# ------------------------------------------------------------------------------------------------------------- FIxLIP


def banzhaf_weights(players: int, p: float = 0.5, samples: int = 500, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coalitions (C, n) bool of n players, and float64 weights (n, C) that give p-weighted Banzhaf values of a game."""
    p = between("p", p)
    if 2**players <= whole("masks", samples, 1):
        coalitions = np.arange(2**players)[:, None] >> np.arange(players) & 1
        sizes = coalitions.sum(1)
        root = np.sqrt(p**sizes * (1 - p) ** (players - sizes))[:, None]
    else:
        coalitions = (np.random.default_rng(seed).random((samples, players)) < p).astype(int)
        root = np.ones((samples, 1))
    design = np.column_stack([np.ones(len(coalitions)), coalitions])
    weights = np.linalg.pinv(root * design) * root.T
    return torch.from_numpy(coalitions).bool(), torch.from_numpy(weights[1:])


def fixlip(
    tower: Tower, trace: Trace, directions: Tensor, *, p: float = 0.5, masks: int = 500, seed: int = 0,
    progress: bool | None = False,
) -> Tensor:  # fmt: skip
    """FIxLIP's half for an image: map_i is the p-weighted Banzhaf value of patch i in the game of all patches."""
    pixels, grid = trace.inputs, trace.grid
    assert grid is not None
    coalitions, weights = banzhaf_weights(grid[0] * grid[1], p, masks, seed)
    values = torch.zeros(len(pixels), len(weights), trace.embedding.shape[-1]).to(trace.embedding)  # (B, P, E)

    def light_of(some: Tensor) -> Tensor:
        """Coalitions as masks (n, H, W)."""
        lit = torch.kron(coalitions[some].unflatten(1, grid).to(pixels), pixels.new_ones(1, *tower.patch_size))
        return F.pad(lit, (0, pixels.shape[-1] - lit.shape[-1], 0, pixels.shape[-2] - lit.shape[-2]))

    shown = bar("FIxLIP", progress, total=len(coalitions))
    for some, _, embeddings in seen_through(tower, trace, len(coalitions), light_of, shown):
        values += torch.einsum("pn,bne->bpe", weights[:, some].to(embeddings), embeddings)
    return on_patches(trace, torch.einsum("bpe,bte->btp", values, directions))


def fixlip_of_words(
    tower: Tower, trace: Trace, directions: Tensor, *, p: float = 0.5, words: Tensor | None = None, seed: int = 0
) -> Tensor:
    """FIxLIP's half for a prompt: the p-weighted Banzhaf value of each word in S -> S(prompt of these words only)."""
    return score_players(tower, trace, directions, partial(banzhaf_weights, p=p, samples=_PROMPTS, seed=seed), words)


def _banzhaf_word_directions(tower: Tower, trace: Trace, word_mask: Tensor, p: float = 0.5, seed: int = 0) -> Tensor:
    """FIxLIP's directions (W, E): the weighted Banzhaf values of a prompt's words in the game of its embedding."""
    coalitions, weights = banzhaf_weights(len(word_mask), p, _PROMPTS, seed)
    embeddings = embed_coalitions(tower, trace.inputs[0], word_mask, coalitions)
    return weights.to(embeddings) @ embeddings


# Word x region by name, as `Explainer.interactions(by=...)` takes it: title, words' directions, and maps of directions.
INTERACTIONS: dict[str, tuple[str, Callable[..., Tensor], Callable[..., Tensor]]] = {
    "grad-eclip": ("Grad-ECLIP", word_directions, grad_eclip),
    "exclip": ("exCLIP", integrated_word_directions, integrated_gradients),
    "fixlip": ("FIxLIP", _banzhaf_word_directions, fixlip),
}


def options_of(by: str) -> list[str]:
    """The names of the options that `interactions` takes."""
    return list(dict.fromkeys(name for half in INTERACTIONS[by][1:] for name in [*signature(half).parameters][3:]))


def interactions(
    by: str, image_tower: Tower, image_trace: Trace, text_tower: Tower, text_trace: Trace, word_mask: Tensor, **options
) -> tuple[Tensor, Tensor]:
    """Word x region: signed maps (W, N) of one image, one a word, and the words' directions (W, E)."""
    _, of_words, of_image = INTERACTIONS[by]
    for_words, for_image = ({k: v for k, v in options.items() if k in signature(half).parameters} for half in
                            (of_words, of_image))  # fmt: skip
    directions = of_words(text_tower, text_trace, word_mask, **for_words)
    return of_image(image_tower, image_trace, directions[None], **for_image)[0], directions
