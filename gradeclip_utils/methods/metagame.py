"""METAGAME: how each word of a prompt changes an explanation, as Shapley values over its words.

    prompt without some of its words -> embedding -> any method's map --here--> a map, or a score, for each word

Baniecki, Fumagalli and Biecek, "METAGAME", arXiv 2605.06295. Take any first-order attribution phi_i of region i, and
let the words play for it: v(S) = phi_i(prompt with the words S only). Word j's part in it is its Shapley value

    sum over S without j of |S|! (n - |S| - 1)! / n! * (v(S + j) - v(S))

so that the words' maps add up to the map of the caption less that of the empty prompt, and with the similarity itself
for v they are scores of words. Two words j, k have a Shapley interaction index, how much they do together beyond what
each does: word x word x region (Grabisch and Roubens, "An Axiomatic Approach to the Concept of Interaction among
Players in Cooperative Games", International Journal of Game Theory 1999).

All 2^n prompts are embedded together, their common beginnings once (`Tower.embed_prompts`), and one pass of the image
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

from ..errors import InvalidValue
from ..towers import Tower, Trace
from .interactions import Group, named_things
from .perturbation import blank_maps, without_tokens, word_numbers

EXACT = 8  # up to so many players all coalitions are tried
ORDERS = 32  # random orders beyond that
_AT_ONCE = 256  # prompts in one forward pass


def shapley_weights(players: int, order: int = 1) -> tuple[Tensor, Tensor]:
    """All coalitions of n players, and what makes of the game's values on them its Shapley values.

    >>> coalitions, weights = shapley_weights(2)
    >>> coalitions.int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    >>> (weights @ torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)).tolist()
    [2.0, 3.0]

    Args:
        players: n.
        order: 1 for Shapley values, 2 for the interaction index of pairs, and so on.

    Returns:
        Coalitions (2^n, n) bool, and weights (G, 2^n) in float64 of the G groups of `order` players, in the order of
        `itertools.combinations`.
    """
    coalitions = np.arange(2**players)[:, None] >> np.arange(players) & 1
    rows = []
    for group in combinations(range(players), order):
        inside = coalitions[:, group].sum(1)
        others = coalitions.sum(1) - inside
        rows.append((-1.0) ** (order - inside) / ((players - order + 1) * comb(players - order, others)))
    return torch.from_numpy(coalitions).bool(), torch.from_numpy(np.reshape(rows, (-1, 2**players)))


def sampled_weights(players: int, orders: int = ORDERS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Some coalitions of n players, along random orders of them, and the weights of the estimated Shapley values.

    Args:
        players: n.
        orders: how many; at most `orders` * (n - 1) + 2 coalitions come of them.
        seed: of the orders.

    Returns:
        Coalitions (C, n) bool, of which none is twice there and the last is all of them, and weights (n, C) in float64.
    """
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
    """Coalitions (C, n) and weights (n, C): of all of them up to `EXACT` players, else of some.

    Args:
        players: n.
        seed: as for `sampled_weights`.
    """
    return shapley_weights(players) if players <= EXACT else sampled_weights(players, seed=seed)


def embed_coalitions(tower: Tower, ids: Tensor, players: Tensor, coalitions: Tensor) -> Tensor:
    """Embeddings (C, E) of one prompt with some of its words only.

    Tokens of absent players are taken out of the ids and the rest closes up; tokens of no player stay in every prompt.

    Args:
        tower: the text encoder.
        ids: (context_length,), the prompt's.
        players: (n, N) bool, which tokens are whose.
        coalitions: (C, n) bool, who is there.
    """
    gone = (~coalitions.to(players.device)).double() @ players.double() > 0  # (C, N)
    shorter = torch.stack([without_tokens(ids, one) for one in gone])
    return torch.cat([tower.embed_prompts(some) for some in shorter.split(_AT_ONCE)])


def metagame(tower: Tower, trace: Trace, directions: Tensor, *, words: Tensor | None = None, seed: int = 0) -> Tensor:
    """METAGAME of the similarity: the Shapley value of each word in S -> S(prompt of these words only).

    Explains the model's own similarity; scores stand at the words' first tokens and add up to S(prompt) - S(empty
    prompt). The paper and the sampling: see the module. Linear in the direction. Cost: 2^n forward passes for n words,
    in batches and for all targets together; beyond 8 words at most 32 for each word.

    Args:
        tower: the text encoder.
        trace: B prompts, traced by it.
        directions: (B, T, E).
        words: (B, N) numbers the word of every token, -1 where there is none; by default every token is a word.
        seed: of the sampling.
    """
    return score_players(tower, trace, directions, partial(weights_of, seed=seed), words)


def score_players(
    tower: Tower, trace: Trace, directions: Tensor, weigh: Callable[[int], tuple[Tensor, Tensor]],
    words: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Values of the words of prompts in the game S -> S(prompt of these words only), at the words' first tokens.

    Args:
        tower: the text encoder.
        trace: B prompts, traced by it.
        directions: (B, T, E).
        weigh: a number of players -> coalitions (C, n) and weights (n, C), as `weights_of` gives them.
        words: as for `metagame`.
    """
    words = word_numbers(trace) if words is None else words
    maps = blank_maps(trace, directions)
    for i, row in enumerate(words):
        players = torch.stack([row == word for word in row.unique().tolist() if word >= 0])  # (n, N)
        coalitions, weights = weigh(len(players))
        embeddings = embed_coalitions(tower, trace.inputs[i], players, coalitions)
        maps[i, :, players.int().argmax(-1)] = directions[i] @ (weights.to(embeddings) @ embeddings).T
    return maps


def noun_players(caption: str, spans: Sequence[tuple[int, int]]) -> tuple[Group, ...]:
    """The words of a caption shared out among its nouns: each noun with what stands between it and the noun before.

    >>> noun_players("a red car on grass", [(0, 1), (2, 5), (6, 9), (10, 12), (13, 18)])
    ((0, 1, 2), (3, 4))

    What follows the last noun belongs to it, so that the prompt without any player is the empty one.

    Args:
        caption: in English.
        spans: where each word stands, (start, end).

    Raises:
        ValueError: the caption names nothing.
    """
    ends = [group[-1] + 1 for group in named_things(caption, spans)]
    if not ends:
        msg = f"{caption!r} has no noun to share its words out among: give the words in over="
        raise InvalidValue(msg, "metagame-over")
    ends[-1] = len(spans)
    return tuple(tuple(range(start, end)) for start, end in zip([0, *ends], ends, strict=False))
