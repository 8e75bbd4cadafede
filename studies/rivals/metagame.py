"""METAGAME: how each word of a prompt changes an explanation, as Shapley values over its words.

    prompt without some of its words -> embedding -> any method's map --here--> a map, or a score, for each word

Baniecki, Fumagalli and Biecek, "METAGAME", arXiv 2605.06295. Take any first-order attribution phi_i of region i, and
let the words play for it: v(S) = phi_i(prompt with the words S only). Word j's part in it is its Shapley value

    sum over S without j of |S|! (n - |S| - 1)! / n! * (v(S + j) - v(S))

so that the words' maps add up to the map of the caption less that of the empty prompt, and with the similarity itself
for v they are scores of words. Two words j, k have a Shapley interaction index, how much they do together beyond what
each does: word x word x region (Grabisch and Roubens, "An Axiomatic Approach to the Concept of Interaction among
Players in Cooperative Games", International Journal of Game Theory 1999).

All 2^n prompts are embedded together, their common beginnings once, and one pass of the image
serves all of them, so for the nouns of a caption the values are exact. Players are words, or groups of them. Beyond
`EXACT` players v is asked along random orders of them (Castro, Gomez and Tejada, "Polynomial Calculation of the Shapley
Value Based on Sampling", Computers & Operations Research 2009); the parts still add up, and have an error of sampling.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import torch
from scipy.special import comb
from torch import Tensor

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods.interactions import Group, named_things
from gradeclip_utils.methods.perturbation import blank_maps, without_tokens, word_numbers
from gradeclip_utils.towers import Tower, Trace

EXACT = 8  # up to so many players all coalitions are tried
ORDERS = 32  # random orders beyond that
_AT_ONCE = 256  # prompts in one forward pass


def shapley_weights(players: int, order: int = 1) -> tuple[Tensor, Tensor]:
    """All coalitions of n players, and what makes of the game's values on them its Shapley values."""
    coalitions = np.arange(2**players)[:, None] >> np.arange(players) & 1
    rows = []
    for group in combinations(range(players), order):
        inside = coalitions[:, group].sum(1)
        others = coalitions.sum(1) - inside
        rows.append((-1.0) ** (order - inside) / ((players - order + 1) * comb(players - order, others)))
    return torch.from_numpy(coalitions).bool(), torch.from_numpy(np.reshape(rows, (-1, 2**players)))


def sampled_weights(players: int, orders: int = ORDERS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Some coalitions of n players, along random orders of them, and the weights of the estimated Shapley values."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(players) for _ in range(orders)])  # who joins, one after the other
    places = drawn.argsort(1)
    grown = places[:, None] < np.arange(players + 1)[None, :, None]  # (orders, n + 1, n)
    coalitions, which = np.unique(grown.reshape(-1, players), axis=0, return_inverse=True)
    which = which.reshape(orders, players + 1)
    weights = np.zeros((players, len(coalitions)))
    for sign, seen in ((1, which[:, 1:]), (-1, which[:, :-1])):  # with the player who joins, and just before
        np.add.at(weights, (drawn, seen), sign / orders)
    return torch.from_numpy(coalitions), torch.from_numpy(weights)


def weights_of(players: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coalitions (C, n) and weights (n, C): of all of them up to `EXACT` players, else of some."""
    return shapley_weights(players) if players <= EXACT else sampled_weights(players, seed=seed)


def embed_coalitions(tower: Tower, ids: Tensor, players: Tensor, coalitions: Tensor) -> Tensor:
    """Embeddings (C, E) of one prompt with some of its words only."""
    gone = (~coalitions.to(players.device)).double() @ players.double() > 0  # (C, N)
    shorter = torch.stack([without_tokens(ids, one) for one in gone])
    return torch.cat([tower.trace(some).embedding for some in shorter.split(_AT_ONCE)])


def metagame(tower: Tower, trace: Trace, directions: Tensor, *, words: Tensor | None = None, seed: int = 0) -> Tensor:
    """METAGAME of the similarity: the Shapley value of each word in S -> S(prompt of these words only)."""
    return score_players(tower, trace, directions, partial(weights_of, seed=seed), words)


def score_players(
    tower: Tower, trace: Trace, directions: Tensor, weigh: Callable[[int], tuple[Tensor, Tensor]],
    words: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Values of the words of prompts in the game S -> S(prompt of these words only), at the words' first tokens."""
    words = word_numbers(trace) if words is None else words
    maps = blank_maps(trace, directions)
    for i, row in enumerate(words):
        players = torch.stack([row == word for word in row.unique().tolist() if word >= 0])  # (n, N)
        coalitions, weights = weigh(len(players))
        embeddings = embed_coalitions(tower, trace.inputs[i], players, coalitions)
        maps[i, :, players.int().argmax(-1)] = directions[i] @ (weights.to(embeddings) @ embeddings).T
    return maps


def noun_players(caption: str, spans: Sequence[tuple[int, int]]) -> tuple[Group, ...]:
    """The words of a caption shared out among its nouns: each noun with what stands between it and the noun before."""
    ends = [group[-1] + 1 for group in named_things(caption, spans)]
    if not ends:
        msg = f"{caption!r} has no noun to share its words out among: give the words in over="
        raise GradeclipError(msg)
    ends[-1] = len(spans)
    return tuple(tuple(range(start, end)) for start, end in zip([0, *ends], ends, strict=False))
