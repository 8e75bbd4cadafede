"""Blocks: one transformer block of open_clip, computed from its parameters, part by part.

    blocks -> tower --trace--> Trace --method--> map

A block is ``x + out_proj(o)``, then ``x + mlp(norm(x))``, where o is what attention collected. Here every part can be
had alone: queries without keys, the softmax without the fused kernel that hides it, the rest of the block for one
token. All arithmetic is float32 at least, whatever the model's precision. Shapes: B inputs, N tokens, R reading tokens,
H heads of C channels, D = H * C.
"""

import torch
from open_clip.transformer import LayerScale, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


class UnsupportedModel(ValueError):
    """The model has a part that no tower can open; the message names it."""


def check_blocks(blocks: nn.ModuleList, tower: str) -> None:
    """Refuse, by name, a block whose parts are not those that are computed here."""
    for block in blocks:
        parts = [(block, ResidualAttentionBlock)]
        if type(block) is ResidualAttentionBlock:
            parts += [(block.attn, nn.MultiheadAttention), (block.mlp.c_fc, nn.Linear), (block.mlp.c_proj, nn.Linear)]
        for part, kind in parts:
            if type(part) is not kind:
                raise UnsupportedModel(
                    f"the {tower} tower has a {type(part).__name__} where only a {kind.__name__} can be opened"
                )


def wide(tensor: Tensor) -> Tensor:
    """Half precision widened to float32, float32 and float64 as they are, and no graph into the parameters."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """The module in float32 at least."""
    return F.linear(x, wide(module.weight), None if module.bias is None else wide(module.bias))


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """A LayerNorm in float32 at least; an Identity, where a model has none."""
    if isinstance(module, nn.Identity):
        return x
    weight, bias = (None if p is None else wide(p) for p in (module.weight, module.bias))
    return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)


def scaled(module: nn.Module, x: Tensor) -> Tensor:
    """LayerScale, where a model has it."""
    return x * wide(module.gamma) if isinstance(module, LayerScale) else x


def project(block: nn.Module, x: Tensor, part: int, heads: int) -> Tensor:
    """Queries (part 0), keys (1) or values (2) of normalised tokens (B, N, D)."""
    rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
    bias = block.attn.in_proj_bias
    projected = F.linear(x, wide(block.attn.in_proj_weight[rows]), None if bias is None else wide(bias[rows]))
    return projected.unflatten(-1, (heads, -1))  # (B, N, H, C)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention (B, H, R, N) and its output (B, R, D), the softmax written out: fused kernels have no forward mode."""
    logits = torch.einsum("brhc,bnhc->bhrn", q * q.shape[-1] ** -0.5, k)
    attention = (logits if visible is None else logits.masked_fill(~visible, -torch.inf)).softmax(dim=-1)
    return attention, torch.einsum("bhrn,bnhc->brhc", attention, v).flatten(2)  # (B, R, H*C)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The attention output (B, N, D) of all tokens, by the fast kernel, where nobody asks for the weights."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, N, C)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)  # (B, N, H*C)


def finish(block: nn.Module, x: Tensor, o: Tensor) -> Tensor:
    """The rest of a block, token by token: what attention collected joins the residual stream, then the MLP."""
    x = x + scaled(block.ls_1, linear(block.attn.out_proj, o))
    hidden = block.mlp.gelu(linear(block.mlp.c_fc, norm(block.ln_2, x)))
    return x + scaled(block.ls_2, linear(block.mlp.c_proj, hidden))


def whole_block(block: nn.Module, x: Tensor, heads: int, causal: bool) -> Tensor:
    """The block for every token, with any number of heads."""
    normed = norm(block.ln_1, x)
    q, k, v = (project(block, normed, part, heads) for part in range(3))
    return finish(block, x, attend_fused(q, k, v, causal))
