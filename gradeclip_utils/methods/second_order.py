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

from ..checks import between, whole
from ..towers import Tower, Trace, open_text_tower
from .grad_eclip import grad_eclip
from .input_gradients import integrated_gradients, path_points
from .interactions import word_directions
from .metagame import embed_coalitions, score_players
from .perturbation import bar, on_patches, seen_through, word_numbers

_PROMPTS = 256  # coalitions of words, where they are sampled


# ------------------------------------------------------------------------------------------------------------- exCLIP


def integrated_word_directions(tower: Tower, trace: Trace, word_mask: Tensor, steps: int = 50) -> Tensor:
    """ExCLIP's directions (W, E): t_j = mean_a J(start + a (x - start)) (x - start)_j, with a from 0 to 1.

    J is the Jacobian of the embedding by the tokens that enter the first block, x are the prompt's tokens, and in
    `start` every word's token is zero while SOT and EOT stay. The Jacobian is never written down: one forward-mode
    derivative a word and step is its product with the word's change. The directions of all words add up to
    e(prompt) - e(start). With integrated gradients of the image they are second-order attributions (W, N) of S to pairs
    of a word and a patch,

        A_ji = (y - y0)_j' [mean_a J_T]' [mean_a J_I] (x - x0)_i

    Moeller, Tilli, Vu and Pado, "Explaining Caption-Image Interactions in CLIP Models with Second-Order Attributions",
    TMLR 2025, arXiv 2408.14153. Explains the model's own similarity: over all words and patches the entries add up to
    S(x, y) - S(x, y0) - S(x0, y) + S(x0, y0), with x0 an image of the mean colour and y0 the prompt with zero in place
    of every word. Cost: `steps` forward passes and as many backward passes a word of the image encoder, and a
    forward-mode derivative a word and step of the text encoder; the authors' Jacobians take one backward pass for each
    of the E channels and steps instead.

    Where we deviate: the model's own unit embeddings are attributed, theirs are shifted by the references' embeddings
    and scaled afterwards; the baseline of a prompt is zero at the words, theirs holds padding tokens and an EOT of its
    own; Gauss-Legendre's rule instead of evenly spaced points (100 in their code). They attribute to what enters a
    block of one's choice; which one their published figures come from is not known to us, and ours is the input: since
    patches enter linearly, summing over a patch's pixels is attributing to its token.

    Args:
        tower: the text encoder; all of its layers are run, however many are explained.
        trace: one prompt, traced by it.
        word_mask: (W, N) bool, which tokens belong to which word.
        steps: points of Gauss-Legendre's rule on the path.
    """
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
    """Coalitions (C, n) bool of n players, and float64 weights (n, C) that give p-weighted Banzhaf values of a game.

    A player's value is the mean of what it adds to a coalition in which each other player is with probability p; the
    values are also the coefficients of the additive game that is nearest, in the mean square over such coalitions.

    >>> coalitions, weights = banzhaf_weights(2)
    >>> coalitions.int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    >>> (weights @ torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)).round(decimals=6).tolist()
    [2.0, 3.0]

    Args:
        players: n.
        p: how likely a player is there.
        samples: how many coalitions are drawn, if there are more than that; their values are then fitted by least
            squares. With fewer than n + 2 of them the fit is the smallest one.
        seed: of what is drawn.
    """
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
    """FIxLIP's half for an image: map_i is the p-weighted Banzhaf value of patch i in the game of all patches.

    Explains the model's own similarity: what the patch adds to S, on average over the images in which every other patch
    is there with probability p and of the mean colour (zero after preprocessing) otherwise. Baniecki, Muschalik,
    Fumagalli, Hammer, Huellermeier and Biecek, "Explaining Similarity in Vision-Language Encoders with Weighted Banzhaf
    Interactions", NeurIPS 2025, arXiv 2508.05430. With a word's Banzhaf direction it is the paper's word x region
    interaction, see `interactions`; with a prompt's embedding the first order of the same game, the prompt
    whole.

    Where we deviate: beyond 2^P <= `masks` coalitions are sampled, as theirs, and n is 500 by default; p is their
    default, and which p and n their tables were made with is not known to us. Linear in the direction. Cost: `masks`
    forward passes, for all targets together.

    Args:
        tower: the image encoder.
        trace: B images, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
        p: how likely a patch is there.
        masks: how many coalitions, where there are more.
        seed: of the coalitions.
        progress: as for `perturbation.bar`.
    """
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
    """FIxLIP's half for a prompt: the p-weighted Banzhaf value of each word in S -> S(prompt of these words only).

    As `fixlip`; scores stand at the words' first tokens. Linear in the direction. Where we deviate: players are words,
    not their tokens, and who is absent is taken out, where the authors put another token in its place. Cost: 2^n
    forward passes for n words, in batches and for all targets together; beyond 8 words 256.

    Args:
        tower: the text encoder.
        trace: B prompts, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
        p: how likely a word is there.
        words: (B, N) numbers the word of every token, -1 where there is none; by default every token is a word.
        seed: of the coalitions that are drawn, beyond 8 words.
    """
    return score_players(tower, trace, directions, partial(banzhaf_weights, p=p, samples=_PROMPTS, seed=seed), words)


def _banzhaf_word_directions(tower: Tower, trace: Trace, word_mask: Tensor, p: float = 0.5, seed: int = 0) -> Tensor:
    """FIxLIP's directions (W, E): the weighted Banzhaf values of a prompt's words in the game of its embedding.

    With `fixlip` of the image they are the weighted Banzhaf interaction of each word with each patch. It is the mean,
    over coalitions in which each other word and patch is there with probability p, of what word j and patch i add
    together beyond what each adds alone, and the coefficient of the pair in the game of second order that is nearest to
    S (a test solves that least-squares problem over all coalitions). Since S is a product, it is the product of the two
    halves: t_j . b_i. Papers, deviations and costs: `fixlip` and `fixlip_of_words`. Entries do not add up to S.

    Args:
        tower: the text encoder.
        trace: one prompt, traced by it.
        word_mask: (W, N) bool, which tokens belong to which word; other tokens are there in every coalition.
        p: how likely a word is there.
        seed: of the coalitions that are drawn, beyond 8 words.
    """
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
    """The names of the options that `interactions` takes.

    Args:
        by: a name in `INTERACTIONS`.
    """
    return list(dict.fromkeys(name for half in INTERACTIONS[by][1:] for name in [*signature(half).parameters][3:]))


def interactions(
    by: str, image_tower: Tower, image_trace: Trace, text_tower: Tower, text_trace: Trace, word_mask: Tensor, **options
) -> tuple[Tensor, Tensor]:
    """Word x region: signed maps (W, N) of one image, one a word, and the words' directions (W, E).

    Args:
        by: a name in `INTERACTIONS`.
        image_tower: the image encoder.
        image_trace: one image, traced by it; for exCLIP of the model's own size.
        text_tower: the text encoder.
        text_trace: one prompt, traced by it.
        word_mask: (W, N) bool, which tokens belong to which word.
        **options: some of `options_of(by)`.
    """
    _, of_words, of_image = INTERACTIONS[by]
    for_words, for_image = ({k: v for k, v in options.items() if k in signature(half).parameters} for half in
                            (of_words, of_image))  # fmt: skip
    directions = of_words(text_tower, text_trace, word_mask, **for_words)
    return of_image(image_tower, image_trace, directions[None], **for_image)[0], directions
