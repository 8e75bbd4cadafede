"""Second order: word x region by exCLIP and by FIxLIP, beside Grad-ECLIP's own interactions.

Both give for every word j and patch i their joint effect on S = e_I . e_T. S is a product of a part
of the image alone and a part of the prompt alone, and so is this effect: with b_i (E,) what patch i
does to e_I, and t_j (E,) what word j does to e_T, it is t_j . b_i. So a word has a direction, and
its map is that of a first-order method for t_j.

| | b_i and t_j | the map of a direction | paper |
| --- | --- | --- | --- |
| exCLIP | integrated Jacobians times the input's change | integrated gradients | arXiv 2408.14153 |
| FIxLIP | Banzhaf values | `fixlip_of_patches` | arXiv 2508.05430 |

Shapes: B inputs, T targets, N tokens, P patches, W words, E the width of the embedding, C
    coalitions.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradeclip_utils import METHODS, Explainer, Interactions, Word
from gradeclip_utils.methods import Method
from gradeclip_utils.methods.common import on_patches, one_word_per_token
from gradeclip_utils.methods.gradients import integrated_gradients, path_points
from gradeclip_utils.methods.interactions import word_masks
from gradeclip_utils.methods.options import DEFAULTS, Options
from gradeclip_utils.methods.perturbation import embed_through_masks
from gradeclip_utils.towers import Tower, Trace, open_text_tower

from .metagame import all_coalitions, embed_coalitions, score_players

_PROMPTS = 256  # coalitions of words, if they are sampled


def exclip(explainer: Explainer, image, caption: str, *, steps: int = 50) -> Interactions:
    """Word x region by exCLIP, with `steps` points on each path; as `Explainer.interactions`."""
    method = replace(
        METHODS["integrated-gradients"],
        name="exclip",
        title="exCLIP",
        image=partial(integrated_gradients, steps=steps),
    )
    of_words = partial(integrated_word_directions, steps=steps)
    return _interactions(explainer, image, caption, of_words, method)


def fixlip(explainer: Explainer, image, caption: str, *, p: float = 0.5) -> Interactions:
    """Word x region by FIxLIP, from masked images with each patch shown with probability p.

    As `Explainer.interactions`.
    """
    method = replace(METHODS["fixlip"], image=partial(fixlip_of_patches, p=p))
    padding = int(explainer.clip.tokenizer([""])[0, -1])
    of_words = partial(banzhaf_word_directions, p=p, seed=explainer.seed, fill=padding)
    return _interactions(explainer, image, caption, of_words, method)


def _interactions(
    explainer: Explainer, image, caption: str, of_words: Callable[..., Tensor], method: Method
) -> Interactions:
    """Grad-ECLIP's interactions with other directions of words and other maps of them."""
    clip = explainer.clip
    base = explainer.interactions(image, caption)
    ((split, _),) = explainer.word_directions(caption)
    tower = open_text_tower(clip.model, explainer.text_tower.depth)
    trace = tower.trace(clip.tokenizer([caption]).to(tower.device))
    with torch.no_grad():
        directions = of_words(tower, trace, word_masks([split], trace)[:, 0])  # (W, E)

    rival = Explainer(
        clip,
        method=method,
        words=None,
        seed=explainer.seed,
        resolution=explainer.resolution,
    )
    maps = rival.maps(image, directions)[0]
    scores = (directions @ explainer.embed_images(image)[0]).tolist()
    words = [
        Word(word.text, score, word.start, word.end)
        for word, score in zip(base.words[0], scores, strict=True)
    ]
    provenance = replace(
        base.provenance,
        method=method.name,
        title=method.title,
        words=method.name,
        image_layers=None,
        text_layers=None,
    )
    return replace(
        base,
        words=(tuple(words),),
        image_maps=maps.float().cpu().numpy(),
        provenance=provenance,
    )


def integrated_word_directions(
    tower: Tower,
    trace: Trace,
    word_mask: Tensor,
    steps: int = 50,
) -> Tensor:
    """ExCLIP's directions (W, E).

    T_j = mean_a J(start + a (x - start)) (x - start)_j, with a from 0 to 1.
    """
    is_word = one_word_per_token(trace) >= 0  # (1, N)
    change = trace.tokens * is_word[..., None]  # (1, N, D)
    by_word = change * word_mask[:, None, :, None].to(change)  # (W, 1, N, D)
    directions = torch.zeros(len(word_mask), tower.width).to(change)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode on the CPU
        for place, weight in path_points(steps):
            point = trace.tokens - change + place * change

            def push(tangent: Tensor, point: Tensor = point) -> Tensor:
                embed = partial(tower.forward_from, trace, 0)
                return torch.func.jvp(embed, (point,), (tangent,))[1]

            effects = torch.vmap(push)(by_word)  # (W, 1, E)
            directions += weight * effects[:, 0]
    return directions


def banzhaf_weights(
    players: int, p: float = 0.5, samples: int = 500, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Coalitions (C, n) of n players, and weights (n, C) that give p-weighted Banzhaf values."""
    if 2**players <= samples:
        coalitions = all_coalitions(players)
        sizes = coalitions.sum(1)
        probabilities = p**sizes * (1 - p) ** (players - sizes)
        root = np.sqrt(probabilities)[:, None]
    else:
        rng = np.random.default_rng(seed)
        draws = rng.random((samples, players))
        coalitions = (draws < p).astype(int)
        root = np.ones((samples, 1))

    design = np.column_stack([np.ones(len(coalitions)), coalitions])
    weights = np.linalg.pinv(root * design) * root.T
    return torch.from_numpy(coalitions).bool(), torch.from_numpy(weights[1:])


def banzhaf_word_directions(
    tower: Tower,
    trace: Trace,
    word_mask: Tensor,
    p: float = 0.5,
    seed: int = 0,
    fill: int | None = None,
) -> Tensor:
    """FIxLIP's directions (W, E).

    The weighted Banzhaf values of a prompt's words in the game of its embedding.
    """
    coalitions, weights = banzhaf_weights(len(word_mask), p, _PROMPTS, seed)
    embeddings = embed_coalitions(tower, trace.inputs[0], word_mask, coalitions, fill)
    return weights.to(embeddings) @ embeddings


def fixlip_of_patches(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    p: float = 0.5,
    masks: int = 500,
) -> Tensor:
    """FIxLIP's half for an image.

    Map_i is the p-weighted Banzhaf value of patch i in the game of all patches.
    """
    assert trace.grid is not None
    rows, columns = trace.grid
    pixels = trace.inputs  # (B, 3, H, W)
    coalitions, weights = banzhaf_weights(rows * columns, p, masks, options.seed)
    width = trace.embedding.shape[-1]
    values = trace.embedding.new_zeros(len(pixels), len(weights), width)  # (B, P, E)

    patch = pixels.new_ones(1, *tower.patch_size)
    right = pixels.shape[-1] - columns * patch.shape[-1]
    bottom = pixels.shape[-2] - rows * patch.shape[-2]

    def draw_masks(numbers: Tensor) -> Tensor:
        """Coalitions as masks (n, H, W); pixels beyond the last whole patch are dark."""
        visible = coalitions[numbers].unflatten(1, (rows, columns)).to(pixels)
        return F.pad(torch.kron(visible, patch), (0, right, 0, bottom))

    batches = embed_through_masks(tower, trace, len(coalitions), draw_masks, "FIxLIP")
    for numbers, _, embeddings in batches:
        weight = weights[:, numbers].to(embeddings)
        values += torch.einsum("pn,bne->bpe", weight, embeddings)
    maps = torch.einsum("bpe,bte->btp", values, directions)
    return on_patches(trace, maps)


def fixlip_of_words(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """FIxLIP's half for a prompt.

    The Banzhaf value of each word in S -> S(prompt of these words only).
    """
    weigh = partial(banzhaf_weights, samples=_PROMPTS, seed=options.seed)
    return score_players(tower, trace, directions, weigh, options)
