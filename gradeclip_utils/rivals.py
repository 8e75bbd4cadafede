"""Rivals: every method that Grad-ECLIP is compared with, by attention and gradients, and the list of all of them.

    architecture --trace--> Trace --method--> map --Explanation--> picture

``METHODS`` names them; ``Explainer(clip, method="maskclip")`` runs one. All work on the unmodified model, through what
a tower offers; methods that change the model's attention change it in a computation of their own, and say what number
they then explain. Each goes through the trace's explained layers: which part of the tower that is belongs to the method
(``Method.layers``) unless the user says otherwise.

Every function here gets a tower, a trace and the targets' ``directions`` (B, T, E), and returns signed maps (B, T, N)
over the trace's tokens, zero where a token is not ``real``. The target of a direction d is S = embedding . d: with d =
e_T a similarity, with d = e_A - e_B the difference of two. Costs are in forward passes of the tower, on top of the
trace, which is one. Shapes: B inputs, T targets, L explained layers, R reading tokens, N tokens of width D, H heads of
C channels, E the width of the embedding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps

import torch
from torch import Tensor

from . import perturbation
from .methods import grad_eclip, gradients
from .towers import Tower, Trace
from .towers.blocks import Block, OpenClipBlock, UnsupportedModel, attend, attend_fused, linear, scaled

_SHARES = {"all": 1, "half": 1 / 2, "sixth": 1 / 6}


@dataclass(frozen=True)
class Method:
    """One way to explain. ``image`` and ``text`` are None where the method is not defined for that side.

    They are called as ``method.image(tower, trace, directions, *, seed=0, progress=False, words=None, empty=None)`` and
    take what concerns them: ``words`` (B, N) numbers the word of every token, -1 for none; ``empty`` (E,) is the
    embedding of a prompt without words, given where ``wants_empty``.
    """

    name: str  # "grad-eclip", the key in METHODS
    title: str  # "Grad-ECLIP"
    paper: str  # authors, title, venue
    explains: str  # which number: "the model's own similarity", or what is not that
    cost: str  # in forward passes, in words
    image: Callable[..., Tensor] | None
    text: Callable[..., Tensor] | None
    layers: str = "last"  # "last": as many as Grad-ECLIP explains; "all", "half", "sixth": that part, from the top
    text_layers: str | None = None  # the same for prompts, where it is another part
    wants_empty: bool = False
    wants_attention: bool = True  # if not, it also explains a tower that has none (``towers.SpatialTower``)

    def explained(self, depth: int, side: str = "image") -> int | None:
        """How many of ``depth`` layers the method goes through; None leaves it to the tower, as Grad-ECLIP does."""
        part = (self.text_layers if side == "text" else None) or self.layers
        return None if part == "last" else max(1, round(depth * _SHARES[part]))


def attention(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Raw attention: map_i = alpha_i of the last layer, averaged over heads and over reading tokens.

    Explains where the tower looks, whatever the target is: the directions are not used and all T maps are the same.
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017; as an explanation, Jain and Wallace, "Attention is not
    Explanation", NAACL 2019. Cost: the trace.
    """
    return _same_for_all(trace, trace.layers[-1].attention.mean(dim=(1, 2)), directions)


def rollout(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Attention rollout: the reading tokens' row of prod_l (A_l + I) / 2, from the lowest layer to the highest.

    A_l is the attention of layer l averaged over heads; the identity stands for the residual stream. Explains how
    attention could mix the input, whatever the target is, as raw attention. Abnar and Zuidema, "Quantifying Attention
    Flow in Transformers", ACL 2020, arXiv 2005.00928. Only the row that is read is multiplied, from the top down. An
    attention pool has no residual stream, and so no identity. Cost: 1 forward pass.
    """
    layers = [(block, weights.mean(1)) for block, weights, _ in _passes(tower, trace)]  # (B, N, N)
    row = _reading_row(tower, trace)
    for block, weights in reversed(layers):
        row = _times(row, weights) if block.pools else 0.5 * (row + _times(row, weights))
    return _same_for_all(trace, row, directions)


def grad_cam(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-CAM: map_i = sum_c w_c x_ic, with x the tokens that enter the last block, w_c = mean_i dS/dx_ic.

    The mean goes over patches. Explains the model's own similarity, by channels that are taken to mean the same
    everywhere in the picture. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, arXiv 1610.02391. It was made for the last convolution of a CNN, where all positions feed
    the output; in a ViT the last place where patches still do is the *input* of the last block. With more explained
    layers x enters the first of them. Cost: the last block forward, and backward for each target.
    """
    maps = []
    for slope in gradients(lambda x: tower.resume(trace, tower.depth - tower.layers, x), trace.tokens, directions):
        patches = slope * trace.real[..., None]
        weights = patches.sum(1) / trace.real.sum(1, keepdim=True)  # (B, D)
        maps.append(torch.einsum("bd,bnd->bn", weights, trace.tokens))
    return torch.stack(maps, dim=1) * trace.real[:, None]


def game(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """GAME (Chefer): the reading tokens' row of R, where R = I, and R <- R + mean_h relu(dS/dA_l * A_l) R upwards.

    Explains the model's own similarity, by attention that pulls it up in any layer. Chefer, Gur and Wolf, "Generic
    Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021, arXiv
    2103.15679 (the rule for self-attention, each tower by itself). All layers take part; the authors' notebook for CLIP
    takes only the last unless it is told otherwise. Not linear in the direction, because of the relu.

    Where we deviate, in arithmetic only: one call of autograd for the gradients of all layers; only the row that is
    read is multiplied, from the top down; the 1 that the identity gives a reading token itself is left out. An
    attention pool has no residual stream, and so no identity. Cost: 1 forward pass with a graph, and a backward pass
    (as long again) a target.
    """
    with torch.enable_grad():
        blocks, attentions, outputs = zip(*_passes(tower, trace), strict=True)
        embedding = tower.resume(trace, tower.depth, outputs[-1])
    maps = []
    for direction in directions.unbind(1):
        slopes = torch.autograd.grad(embedding, attentions, direction, retain_graph=True)
        row = start = _reading_row(tower, trace)
        for block, weights, slope in zip(reversed(blocks), reversed(attentions), reversed(slopes), strict=True):
            pulled = _times(row, (slope * weights.detach()).relu().mean(1))
            row = pulled if block.pools else row + pulled
        maps.append(row if blocks[-1].pools else row - start)
    return torch.stack(maps, dim=1) * trace.real[:, None]


def legrad(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """LeGrad: map_i = mean over layers, heads and queries j of relu(dS_l / dA_l,ji).

    S_l is the target as it would be if the tower ended after layer l: the layer's tokens, averaged, through the final
    norm and projection. Explains these S_l, of which not even the last is the model's similarity, since the model reads
    CLS alone. Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation
    Sensitivity", ICCV 2025, arXiv 2404.03214. The last sixth of the layers, two of twelve, as the authors' code has it
    by default; an attention pool is read as it is. Where we deviate: their code changes the model's forward pass on
    current open_clip, ours does not; a mean over layers instead of a sum. Not linear in the direction. Cost: the
    explained layers forward with a graph, and each of them backward for each target.
    """
    maps = torch.zeros(*directions.shape[:2], trace.real.shape[1], dtype=directions.dtype, device=directions.device)
    with torch.enable_grad():
        for block, weights, output in _passes(tower, trace):
            read = output if block.pools else output.mean(1, keepdim=True).expand_as(output)
            embedding = tower.resume(trace, tower.depth, read)
            for target, direction in enumerate(directions.unbind(1)):
                (slope,) = torch.autograd.grad(embedding, weights, direction, retain_graph=True)  # (B, H, N, N)
                maps[:, target] += slope.relu().mean(dim=(1, 2)) / tower.layers
    return maps * trace.real[:, None]


def maskclip(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """MaskCLIP: map_i = f_i . d, with f_i the unit embedding of token i when it attends to itself alone.

    In the last block every token's own value takes the place of what attention would have collected (o_i = v_i); the
    rest of the block, norm and projection stay. Explains no number of the model's: it is the cosine of the text with
    features that the model computes but never reads. Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV
    2022, arXiv 2112.01071; the residual stream and MLP take part, as in the authors' code; their key smoothing and
    prompt denoising, which clean up a segmentation, do not. Linear in the direction. Cost: the last block.
    """
    return torch.einsum("bne,bte->btn", tower.dense(trace), directions) * trace.real[:, None]


def clip_surgery(tower: Tower, trace: Trace, directions: Tensor, *, empty: Tensor | None = None) -> Tensor:
    """CLIP Surgery: map_i = f_i . d less what all targets share, with f from a second path of v-v attention.

    Architecture surgery: beside the model's own path x, from the middle of the tower on,

        y <- y + out_proj(softmax(v v' / sqrt(C)) v),    v from x;    f_i = unit embedding of y_i

    without MLPs, so that tokens gather from tokens like themselves. Feature surgery, over the T targets of one call:

        map_ti = w_t f_i . d_t - mean_s w_s f_i . d_s,    w = T softmax_t(2 S_t),  S_t the model's own similarity

    so **a map depends on the other prompts of its call**. With one target there is nothing to share; the authors then
    subtract the embedding of an ``empty`` prompt, map_i = f_i . (d - empty). The Explainer does this too, except for a
    contrast e_A - e_B, from which it would cancel. Explains no number of the model's: another network's features, and
    a sum that no longer is a cosine. Li et al., "CLIP Surgery for Better Explainability with Enhancement in
    Open-Vocabulary Tasks", arXiv 2304.05653; later in Pattern Recognition (2025). Where we deviate: features have unit
    length token by token (the demonstration divides by a norm over tokens), and prompts are as the user wrote them, no
    ensemble of templates. Linear in the direction with one target, and not with several. Cost: half a forward pass.

    Raises:
        UnsupportedModel: the tower is not made of open_clip's own transformer blocks.
    """
    x = y = trace.tokens
    for position, block in enumerate(tower.explained, start=tower.depth - tower.layers):
        if not isinstance(block, OpenClipBlock):
            kind = type(block.module).__name__
            raise UnsupportedModel(f"CLIP Surgery needs open_clip's own transformer blocks, the tower has a {kind}")
        v = block.project(block.enter(x), 2, trace.heads)
        o = attend_fused(v, v, v, None, tower.causal)
        y = y + scaled(block.module.ls_1, linear(block.module.attn.out_proj, o))
        if position < tower.depth - 1:  # of the model's own path only what feeds the other is needed
            x = tower.run_block(trace, position, x)
    if directions.shape[1] == 1 and empty is not None:
        directions = directions - empty
    maps = torch.einsum("bne,bte->btn", _embedded(tower, trace, y), directions)
    if directions.shape[1] > 1:
        weights = torch.einsum("be,bte->bt", trace.embedding, 2 * directions).softmax(-1) * directions.shape[1]
        maps = maps * weights[..., None]
        maps = maps - maps.mean(1, keepdim=True)
    return maps * trace.real[:, None]


def grad_eclip_with_one_head(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-ECLIP as published: the explained layers run again with ONE head over the full width.

    Explains the similarity of that other network, a number that the model never gave. Cost: the explained layers once
    more, and a readout.
    """
    return grad_eclip(tower, trace if trace.heads == 1 else tower.with_one_head(trace), directions)


def _passes(tower: Tower, trace: Trace) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each explained layer, its attention (B, H, N, N) and its output (B, N, D) for every token, in the caller's graph.

    Of a pool with latent queries, which are no tokens, (B, H, R, N) and (B, R, D).
    """
    x = trace.tokens.detach().requires_grad_()  # so that a graph is kept where the caller wants one
    visible = None if trace.visible is None else trace.visible[:, None]
    if tower.causal and visible is None:
        visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    for block in tower.explained:
        normed = block.enter(x, trace.positions)
        q, k, v = (block.project(normed, part, trace.heads, trace.positions) for part in range(3))
        weights, o = attend(q, k, v, visible)
        x = block.finish(x, o)
        yield block, weights, x


def _embedded(tower: Tower, trace: Trace, tokens: Tensor) -> Tensor:
    """Unit embeddings (B, N, E) of tokens (B, N, D) that leave the last block, each read alone."""
    alone = tokens.flatten(0, 1)[:, None]  # (B*N, 1, D)
    reading = torch.zeros(len(alone), 1, dtype=torch.long, device=tokens.device)
    return tower.resume(replace(trace, reading=reading), tower.depth, alone).unflatten(0, tokens.shape[:2])


def _reading_row(tower: Tower, trace: Trace) -> Tensor:
    """(B, N), one shared out over the reading tokens; (B, R) where latent queries read."""
    if tower.explained[-1].latent:
        readers = trace.layers[-1].o.shape[1]
        return torch.full_like(trace.layers[-1].o[..., 0], 1 / readers)
    row = torch.zeros_like(trace.real, dtype=trace.embedding.dtype)
    return row.scatter(1, trace.reading, 1 / trace.reading.shape[1])


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("bj,bji->bi", row, matrix)


def _same_for_all(trace: Trace, rows: Tensor, directions: Tensor) -> Tensor:
    """(B, N) -> (B, T, N)."""
    return (rows * trace.real)[:, None].repeat(1, directions.shape[1], 1)


def _uniform(function: Callable[..., Tensor], *wanted: str, **fixed) -> Callable[..., Tensor]:
    """The function, called as every method is called; it gets those keywords that it wants."""

    @wraps(function)
    def method(
        tower: Tower,
        trace: Trace,
        directions: Tensor,
        *,
        seed: int = 0,
        progress: bool = False,
        words: Tensor | None = None,
        empty: Tensor | None = None,
    ) -> Tensor:
        given = {"seed": seed, "progress": progress, "words": words, "empty": empty}
        return function(tower, trace, directions, **{name: given[name] for name in wanted}, **fixed)

    return method


def _both(*arguments, **keywords) -> dict[str, Callable[..., Tensor]]:
    method = _uniform(*arguments, **keywords)
    return {"image": method, "text": method}


_OWN = "the model's own similarity"
_GRAD_ECLIP = (
    "Zhao, Wang, Hsiao and Chan, Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024, "
    "arXiv 2502.18816"
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("grad-eclip", "Grad-ECLIP", _GRAD_ECLIP, _OWN, "a readout and its gradient", **_both(grad_eclip)),
        Method(
            "grad-eclip-no-spatial", "Grad-ECLIP without spatial weight", f"{_GRAD_ECLIP} (ablation)", _OWN,
            "a readout and its gradient", **_both(grad_eclip, spatial="none"),
        ),
        Method(
            "grad-eclip-single-head", "Grad-ECLIP with one head", f"{_GRAD_ECLIP} (as published)",
            "the similarity of another network, with one attention head",
            "the explained layers again, a readout and its gradient", **_both(grad_eclip_with_one_head),
        ),
        Method(
            "attention", "Raw attention",
            "Vaswani et al., Attention Is All You Need, NeurIPS 2017; Jain and Wallace, Attention is not Explanation, "
            "NAACL 2019",
            "where the tower looks, whatever the other side is", "nothing beyond the trace", **_both(attention),
        ),
        Method(
            "rollout", "Attention rollout",
            "Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv 2005.00928",
            "how attention mixes the input, whatever the other side is", "1 forward pass", **_both(rollout),
            layers="all",
        ),
        Method(
            "grad-cam", "Grad-CAM",
            "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, "
            "ICCV 2017, arXiv 1610.02391",
            _OWN, "the last block, and its gradient for each target", _uniform(grad_cam), None, wants_attention=False,
        ),
        Method(
            "game", "GAME",
            "Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and "
            "Encoder-Decoder Transformers, ICCV 2021, arXiv 2103.15679",
            _OWN, "1 forward pass, and a backward pass for each target", **_both(game), layers="all",
        ),
        Method(
            "maskclip", "MaskCLIP",
            "Zhou, Loy and Dai, Extract Free Dense Labels from CLIP, ECCV 2022, arXiv 2112.01071",
            "cosines of each patch's own feature, which the model never reads", "the last block",
            _uniform(maskclip), None,
        ),
        Method(
            "clip-surgery", "CLIP Surgery",
            "Li et al., CLIP Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks, "
            "arXiv 2304.05653",
            "features of another attention, less what the prompts of one call share", "half a forward pass",
            _uniform(clip_surgery, "empty"), None, layers="half", wants_empty=True,
        ),
        Method(
            "m2ib", "M2IB",
            "Wang, Rudner and Wilson, Visual Explanations of Image-Text Representations via Multi-Modal Information "
            "Bottleneck Attribution, NeurIPS 2023, arXiv 2312.17174",
            "what each token must say to keep the similarity up", "about 35 forward passes for each target",
            **_both(perturbation.m2ib, "seed", "progress"), layers="sixth",
        ),
        Method(
            "rise", "RISE",
            "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018, "
            "arXiv 1806.07421",
            _OWN, "500 forward passes, for all targets together",
            _uniform(perturbation.rise, "seed", "progress"), None, wants_attention=False,
        ),
        Method(
            "legrad", "LeGrad",
            "Bousselham et al., LeGrad: An Explainability Method for Vision Transformers via Feature Formation "
            "Sensitivity, ICCV 2025, arXiv 2404.03214",
            "the similarity of averaged tokens, as if the tower ended earlier",
            "a sixth of a forward pass, and its gradient for each target", _uniform(legrad), None, layers="sixth",
        ),
        Method(
            "input-x-gradient", "Input x gradient",
            "Shrikumar et al., Not Just a Black Box: Learning Important Features Through Propagating Activation "
            "Differences, arXiv 1605.01713",
            _OWN, "1 forward pass, and a backward pass for each target", _uniform(perturbation.pixels_x_gradient),
            _uniform(perturbation.tokens_x_gradient), text_layers="all", wants_attention=False,
        ),
        Method(
            "integrated-gradients", "Integrated gradients",
            "Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017, arXiv 1703.01365",
            _OWN, "50 forward and backward passes for each target",
            _uniform(perturbation.integrated_gradients, "progress"), None, wants_attention=False,
        ),
        Method(
            "leave-one-out", "Leave one word out",
            "Li, Monroe and Jurafsky, Understanding Neural Networks through Representation Erasure, arXiv 1612.08220",
            _OWN, "a forward pass for each word", None, _uniform(perturbation.leave_one_out, "words"),
            wants_attention=False,
        ),
    )
}  # fmt: skip
