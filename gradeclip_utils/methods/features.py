"""Methods that read the tokens themselves: Grad-CAM, MaskCLIP and CLIP Surgery.

    model --tower--> Trace --here--> map --Explanation--> figure

`registry` says what they have in common. Shapes: B inputs, T targets, N tokens of width D, E the width of the
embedding.
"""

import torch
from torch import Tensor

from ..towers import Tower, Trace
from ..towers.blocks import UnsupportedModel, attend_fused
from .grad_eclip import gradients


def grad_cam(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-CAM: map_i = sum_c w_c x_ic, with x the tokens that enter the last block, w_c = mean_i dS/dx_ic.

    The mean goes over patches. Explains the model's own similarity, by channels that are taken to mean the same
    everywhere in the image. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, arXiv 1610.02391. It was made for the last convolution of a CNN, where all positions feed
    the output; in a ViT the last place where patches still do is the *input* of the last block. With more explained
    layers x enters the first of them. Cost: the last block forward, and backward for each target.

    Args:
        tower: the image encoder.
        trace: B images, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
    """
    maps = []
    for slope in gradients(lambda x: tower.resume(trace, tower.depth - tower.layers, x), trace.tokens, directions):
        patches = slope * trace.valid_mask[..., None]
        weights = patches.sum(1) / trace.valid_mask.sum(1, keepdim=True)  # (B, D)
        maps.append(torch.einsum("bd,bnd->bn", weights, trace.tokens))
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def maskclip(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """MaskCLIP: map_i = f_i . d, with f_i the unit embedding of token i when it attends to itself alone.

    In the last block every token's own value takes the place of what attention would have collected (o_i = v_i); the
    rest of the block, norm and projection stay. Explains no number of the model's: it is the cosine of the text with
    features that the model computes but never reads. Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV
    2022, arXiv 2112.01071; the residual stream and MLP take part, as in the authors' code; their key smoothing and
    prompt denoising, which clean up a segmentation, do not. Linear in the direction. Cost: the last block.

    Args:
        tower: the image encoder.
        trace: B images, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
    """
    return torch.einsum("bne,bte->btn", tower.dense(trace), directions) * trace.valid_mask[:, None]


def clip_surgery(tower: Tower, trace: Trace, directions: Tensor, *, empty: Tensor | None = None) -> Tensor:
    """CLIP Surgery: map_i = f_i . d less what all targets share, with f from a second path of v-v attention.

    Architecture surgery: beside the model's own path x, from the middle of the tower on,

        y <- y + out_proj(softmax(v v' / sqrt(C)) v),    v from x;    f_i = unit embedding of y_i

    without MLPs, so that tokens gather from tokens like themselves. Feature surgery, over the T targets of one call:

        map_ti = w_t f_i . d_t - mean_s w_s f_i . d_s,    w = T softmax_t(2 S_t),  S_t the model's own similarity

    so **a map depends on the other prompts of its call**. With one target there is nothing to share; the authors then
    subtract the embedding of an `empty` prompt, map_i = f_i . (d - empty). The Explainer does this too, except for a
    contrast e_A - e_B, from which it would cancel. Explains no number of the model's: another network's features, and
    a sum that no longer is a cosine. Li et al., "CLIP Surgery for Better Explainability with Enhancement in
    Open-Vocabulary Tasks", arXiv 2304.05653; later in Pattern Recognition (2025). Where we deviate: features have unit
    length token by token (the demonstration divides by a norm over tokens), and prompts are as the user wrote them, no
    ensemble of templates. Linear in the direction with one target, and not with several. Cost: half a forward pass.

    Args:
        tower: the image encoder.
        trace: B images, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
        empty: (E,) the embedding of a prompt without words; None subtracts nothing from a single target.

    Raises:
        UnsupportedModel: the tower is not made of CLIP's transformer blocks, open_clip's or those of transformers.
    """
    x = y = trace.tokens
    for position, block in enumerate(tower.explained, start=tower.depth - tower.layers):
        if not block.like_clip:
            kind = type(block.module).__name__
            raise UnsupportedModel(f"CLIP Surgery needs transformer blocks as CLIP's own are, the tower has a {kind}")
        v = block.project(block.enter(x), 2, trace.heads)
        o = attend_fused(v, v, v, None, tower.causal)
        y = y + block.added(o)
        if position < tower.depth - 1:  # of the model's own path only what feeds the other is needed
            x = tower.run_block(trace, position, x)
    if directions.shape[1] == 1 and empty is not None:
        directions = directions - empty
    maps = torch.einsum("bne,bte->btn", tower.embed_alone(y), directions)
    if directions.shape[1] > 1:
        weights = torch.einsum("be,bte->bt", trace.embedding, 2 * directions).softmax(-1) * directions.shape[1]
        maps = maps * weights[..., None]
        maps = maps - maps.mean(1, keepdim=True)
    return maps * trace.valid_mask[:, None]
