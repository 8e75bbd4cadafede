"""METAGAME: how each word of a prompt changes an explanation, as Shapley values over its words.

    prompt without some words -> embedding -> any method's map -> a map or a score for each word

Baniecki, Biecek and Fumagalli, "Attributions All the Way Down? The Metagame of Interpretability",
arXiv 2605.06295. Take any first-order attribution phi_i of region i, and let the words play for it:
v(S) = phi_i(prompt with the words S only). The part of word j is its Shapley value

    sum over S without j of |S|! (n - |S| - 1)! / n! * (v(S + j) - v(S))

so that the words' maps add up to the map of the caption less that of the empty prompt. With the
similarity for v they are scores of words. Two words have a Shapley interaction index, how much they
do together beyond what each does (Grabisch and Roubens, International Journal of Game Theory 1999):
word x word x region. Players are words, or groups of words. Up to `EXACT` players all coalitions
are tried; beyond that, random orders of the players (Castro, Gomez and Tejada, Computers &
Operations Research 2009).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations

import numpy as np
import torch
from scipy.special import comb
from torch import Tensor

from gradeclip_utils import Explainer, Interactions, Word
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods.common import one_word_per_token, zero_maps
from gradeclip_utils.methods.interactions import named_things
from gradeclip_utils.methods.options import DEFAULTS, Options
from gradeclip_utils.methods.perturbation import without_tokens
from gradeclip_utils.towers import Tower, Trace
from gradeclip_utils.words import split_read

EXACT = 8  # up to so many players all coalitions are tried
ORDERS = 32  # random orders beyond that
_AT_ONCE = 256  # prompts in one forward pass


@dataclass(frozen=True, eq=False)
class Metagame(Interactions):
    """Maps and Shapley values of the G players, in place of words.

    `pairs` (G, G, h, w) holds their interactions.
    """

    pairs: np.ndarray | None = None


def metagame(
    explainer: Explainer,
    image,
    caption: str,
    over: Sequence[Sequence[int]] | None = None,
) -> Metagame:
    """How each noun of a caption changes the map.

    Word x region and word x word x region, by any method for images.

    Args:
        explainer: its method gives the maps.
        image: as for `Explainer.explain`.
        caption: one prompt.
        over: the players, each a group of words by index, such as `[(i,) for i in range(W)]` for
            every word. The other words stay in every prompt. By default each noun with the words
            before it.

    Returns:
        Maps (G, h, w) and scores of the players; `pairs` is None beyond `EXACT` players.

    Raises:
        GradeclipError: the caption has no noun, or `over` holds a word twice or one that is not
            there.
    """
    tower = explainer.text_tower
    tokenizer = explainer.clip.tokenizer
    base = explainer.explain(image, caption)
    split = split_read(caption, tokenizer, tower)
    over = over or noun_players(caption, split.spans)
    groups = _checked_groups(over, len(split.spans))

    # embeddings of the prompt with some of its words, and the maps of these
    word_ids = torch.tensor([-1] * split.first + list(split.word_ids))
    players = [torch.isin(word_ids, torch.tensor(group)) for group in groups]
    coalitions, weights = weights_of(len(groups), explainer.seed)
    ids = tokenizer([caption]).to(tower.device)[0]
    padding = int(tokenizer([""])[0, -1])
    embeddings = embed_coalitions(
        tower,
        ids,
        torch.stack(players).to(tower.device),
        coalitions,
        padding,
    )  # (C, E)

    batches = [embeddings]
    if explainer.method.compares_targets:  # of one call
        batches = list(embeddings.split(1))
    maps = torch.cat([explainer.maps(image, batch)[0] for batch in batches])  # (C, h, w)
    word_maps = torch.tensordot(weights.to(maps), maps, 1)  # (G, h, w)
    pairs = None
    if len(groups) <= EXACT:
        pairs = _interaction_maps(maps, len(groups))

    image_embedding = explainer.embed_images(image)[0]
    scores = (weights.to(embeddings) @ embeddings @ image_embedding).tolist()
    words = []
    for group, score in zip(groups, scores, strict=True):
        start = split.spans[min(group)][0]
        end = split.spans[max(group)][1]
        words.append(Word(caption[start:end], score, start, end))

    return Metagame(
        prompts=base.prompts,
        similarity=base.similarity,
        image_maps=word_maps.float().cpu().numpy(),
        words=(tuple(words),),
        image=base.image,
        box=base.box,
        provenance=replace(
            base.provenance,
            method="metagame",
            title=f"METAGAME of {explainer.method.title}",
            words="metagame",
            word_change="",
        ),
        pairs=pairs,
    )


def _checked_groups(over: Sequence[Sequence[int]], count: int) -> list[tuple[int, ...]]:
    """The players as groups of words; each of the `count` words is in one of them at most."""
    groups = [tuple(group) for group in over]
    words = list(chain(*groups))
    are_known = set(words) <= set(range(count))
    are_distinct = len(set(words)) == len(words)
    if not (all(groups) and are_known and are_distinct):
        raise GradeclipError(
            f"over must hold words 0 to {count - 1}, each at most once, got {groups!r}"
        )
    return groups


def _interaction_maps(maps: Tensor, players: int) -> np.ndarray:
    """Shapley interactions (G, G, h, w) of players from the maps (C, h, w) of all coalitions."""
    _, index = shapley_weights(players, order=2)
    of_pairs = torch.tensordot(index.to(maps), maps, 1).cpu().float().numpy()
    interactions = np.zeros((players, players, *maps.shape[1:]), np.float32)
    first, second = np.triu_indices(players, 1)
    interactions[first, second] = of_pairs
    interactions[second, first] = of_pairs
    return interactions


# ------------------------------------------------------------------------------------------ weights


def shapley_weights(players: int, order: int = 1) -> tuple[Tensor, Tensor]:
    """All coalitions of n players, and the weights that make Shapley values of their values."""
    coalitions = all_coalitions(players)
    sizes = coalitions.sum(1)
    not_in_group = players - order
    rows = []
    for group in combinations(range(players), order):
        inside = coalitions[:, group].sum(1)
        orders = (not_in_group + 1) * comb(not_in_group, sizes - inside)
        signs = (-1.0) ** (order - inside)
        rows.append(signs / orders)
    weights = np.reshape(rows, (-1, len(coalitions)))
    return torch.from_numpy(coalitions).bool(), torch.from_numpy(weights)


def all_coalitions(players: int) -> np.ndarray:
    """Which of n players are in each coalition: (2^n, n) of 0 and 1."""
    return np.arange(2**players)[:, None] >> np.arange(players) & 1


def sampled_weights(players: int, orders: int = ORDERS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coalitions of n players along random orders, and weights of estimated Shapley values."""
    rng = np.random.default_rng(seed)
    joining = np.stack([rng.permutation(players) for _ in range(orders)])  # who joins, in order
    places = joining.argsort(1)
    sizes = np.arange(players + 1)[:, None]  # (n + 1, 1)
    grown = places[:, None] < sizes  # (orders, n + 1, n)
    coalitions, numbers = np.unique(
        grown.reshape(-1, players),
        axis=0,
        return_inverse=True,
    )
    numbers = numbers.reshape(orders, players + 1)

    weights = np.zeros((players, len(coalitions)))
    before = numbers[:, :-1]
    after = numbers[:, 1:]  # the player has joined
    np.add.at(weights, (joining, after), 1 / orders)
    np.add.at(weights, (joining, before), -1 / orders)
    return torch.from_numpy(coalitions), torch.from_numpy(weights)


def weights_of(players: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coalitions (C, n) and weights (n, C): all of them up to `EXACT` players, else some."""
    if players <= EXACT:
        return shapley_weights(players)
    return sampled_weights(players, seed=seed)


# --------------------------------------------------------------------------------------- coalitions


@torch.no_grad()
def embed_coalitions(
    tower: Tower,
    ids: Tensor,
    players: Tensor,
    coalitions: Tensor,
    fill: int | None = None,
) -> Tensor:
    """Embeddings (C, E) of one prompt with some of its words only."""
    absent = (~coalitions.to(players.device)).double()  # (C, n)
    removed = absent @ players.double() > 0  # (C, N)
    shorter = torch.stack([without_tokens(ids, tokens, fill) for tokens in removed])
    return torch.cat([tower.trace(batch).embedding for batch in shorter.split(_AT_ONCE)])


def word_values(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """METAGAME of the similarity.

    The Shapley value of each word in S -> S(prompt of these words only).
    """
    weigh = partial(weights_of, seed=options.seed)
    return score_players(tower, trace, directions, weigh, options)


def score_players(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    weigh: Callable[[int], tuple[Tensor, Tensor]],
    options: Options,
) -> Tensor:
    """Values of words in the game S -> S(prompt of these words only), at their first tokens."""
    word_ids = options.word_ids
    if word_ids is None:
        word_ids = one_word_per_token(trace)
    maps = zero_maps(trace, directions)
    for i, row in enumerate(word_ids):
        words = row[row >= 0].unique()
        players = row == words[:, None]  # (n, N)
        coalitions, weights = weigh(len(players))
        embeddings = embed_coalitions(
            tower,
            trace.inputs[i],
            players,
            coalitions,
            options.fill,
        )
        values = weights.to(embeddings) @ embeddings  # (n, E)

        first_tokens = players.int().argmax(-1)
        maps[i, :, first_tokens] = directions[i] @ values.T
    return maps


def noun_players(caption: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The words of a caption divided among its nouns.

    Each noun with the words between it and the noun before.
    """
    ends = [group[-1] + 1 for group in named_things(caption, spans)]
    if not ends:
        raise GradeclipError(f"{caption!r} has no noun: give the words in over=")
    ends[-1] = len(spans)
    starts = [0, *ends[:-1]]
    return [tuple(range(start, end)) for start, end in zip(starts, ends, strict=True)]
