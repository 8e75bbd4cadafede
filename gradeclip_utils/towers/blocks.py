"""Blocks: one layer of a tower, computed from the model's parameters part by part.

    blocks -> tower --trace--> Trace --method--> map

A transformer block is `x + out_proj(o)`, then `x + mlp(norm(x))`, where o is the attention output. Libraries differ in
where the norms stand and in names, and an attention pool has no residual. Each layer answers three questions, and
`attend` is the same for all:

    enter(x)               the normed tokens, from which queries, keys and values are made
    project(normed, part)  queries, keys or values, head by head
    finish(x, o)           the tokens after the layer, given its attention output o

All arithmetic is float32 at least. Shapes: B inputs, N tokens, R query tokens, H heads of C channels, D = H * C.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..errors import UnsupportedModel

_WITH_GRAD = ContextVar("with_grad", default=False)
_IDENTITY = nn.Identity()


@dataclass(eq=False)
class Block:
    """One layer as functions of its parts, whatever a library calls them."""

    module: nn.Module
    heads: int
    qkv: Callable[[Tensor, int, Tensor | None], Tensor]  # as `project`, but for all heads in one: (B, N, D)
    added: Callable[[Tensor], Tensor]  # o (B, R, D) -> what attention adds to the tokens
    mlp: Callable[[Tensor], Tensor] | None = None  # tokens -> what the MLP adds to them
    before: nn.Module = _IDENTITY  # the norm before attention
    behind: tuple[nn.Module, nn.Module] = (_IDENTITY, _IDENTITY)  # the norms behind both residuals
    pools: bool = False  # whether it is an attention pool, which has no residual around its attention
    latent: Callable[[], Tensor] | None = None  # queries (R, D) that are parameters of the layer, not made from tokens
    like_clip: bool = False  # CLIP's own block: norm, attention, norm, MLP, and nothing else

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The tokens (B, N, D) after the norm before attention."""
        return norm(self.before, x)

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """Queries (part 0), keys (1) or values (2), (B, N, H, C); latent queries are (B, R, H, C)."""
        if part == 0 and self.latent:
            normed = self.latent().expand(len(normed), -1, -1)
        return self.qkv(normed, part, positions).unflatten(-1, (heads, -1))

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """The rest of the layer (B, R, D): output projection and MLP, with residuals and the norms behind them."""
        x = norm(self.behind[0], self.added(o) if self.pools else x + self.added(o))
        return x if self.mlp is None else norm(self.behind[1], x + self.mlp(x))


def open_clip_block(block: nn.Module, tower: str) -> Block:
    """open_clip's ResidualAttentionBlock, known by its structure, not by its class: norm, attention, norm, MLP."""
    _check_open_clip_block(block, tower)
    attn, mlp = block.attn, block.mlp
    return Block(
        block, attn.num_heads, in_proj(attn),
        lambda o: apply((attn.out_proj, block.ls_1), o),
        lambda x: apply((block.ln_2, mlp.c_fc, mlp.gelu, mlp.c_proj, block.ls_2), x), before=block.ln_1, like_clip=True,
    )  # fmt: skip


def _check_open_clip_block(block: nn.Module, tower: str) -> None:
    """Refuse a block with parts that are not computed here."""
    inside = f"the {tower} tower has a {type(block).__name__}"
    missing = [name for name in ("ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2") if not hasattr(block, name)]
    if missing:
        raise UnsupportedModel(f"{inside} without {missing[0]}, which cannot be opened")
    affine = ("weight", "bias")
    known = {f"attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")}
    known |= {f"{layer}.{name}" for layer in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for name in affine}
    known |= {"ls_1.gamma", "ls_2.gamma"}
    more = [name for name, _ in block.named_parameters() if name not in known]
    attn = block.attn
    if more or getattr(attn, "add_zero_attn", False):
        raise UnsupportedModel(f"{inside} with {more[0] if more else 'a zero key'}, which is not computed here")
    if getattr(attn, "in_proj_weight", None) is None or not isinstance(getattr(attn, "num_heads", None), int):
        raise UnsupportedModel(f"{inside} whose {type(attn).__name__} has no in_proj_weight and num_heads")
    check_linear(inside, attn.out_proj, block.mlp.c_fc, block.mlp.c_proj)
    check_norm(inside, block.ln_1, block.ln_2)


_QUANTISING = ("torchao", "bitsandbytes", "optimum", "quanto")  # libraries with tensor classes of their own


def check_linear(inside: str, *modules: nn.Module) -> None:
    """Refuse layers that are not plain linear ones: quantised layers, and adapters other than LoRA."""
    for module in modules:
        base = _base_layer(module)
        kind = type(base).__name__
        kind += f" of {type(base).__module__.split('.')[0]}" if kind == "Linear" else ""
        if type(base) not in (nn.Linear, NonDynamicallyQuantizableLinear):
            raise UnsupportedModel(f"{inside} with a {kind} where only a Linear can be opened")
        library = type(base.weight).__module__.split(".")[0]
        if library in _QUANTISING or not base.weight.is_floating_point():
            kind = type(base.weight).__name__
            raise UnsupportedModel(f"{inside} whose weights are quantised ({kind}, {base.weight.dtype})")
        if variants := [name for adapter in _adapters(module) if (name := _variant(module, adapter))]:
            raise UnsupportedModel(f"{inside} with a {variants[0]} adapter; of adapters only LoRA can be opened")


def _base_layer(module: nn.Module) -> nn.Module:
    """The linear layer inside one that PEFT has wrapped to add LoRA (Hu et al., arXiv 2106.09685); else itself."""
    return module.base_layer if hasattr(module, "base_layer") and hasattr(module, "lora_A") else module


def _adapters(module: nn.Module) -> list[str]:
    """The names of the LoRA adapters that are in use and not merged into the weight."""
    if _base_layer(module) is module or module.disable_adapters or module.merged:
        return []
    return [name for name in module.active_adapters if name in module.lora_A]


def _variant(module: nn.Module, adapter: str) -> str | None:
    """The kind of an adapter that is not plain LoRA (DoRA, AdaLoRA, ...), or None."""
    if not isinstance(module.lora_A[adapter], nn.Linear):
        return type(module).__name__
    if getattr(module, "use_dora", {}).get(adapter):
        return "DoRA"
    variant = getattr(module, "lora_variant", {}).get(adapter)
    return None if variant is None else type(variant).__name__


def check_norm(inside: str, *modules: nn.Module) -> None:
    """Refuse norms other than LayerNorm."""
    for module in modules:
        if not isinstance(module, (nn.LayerNorm, nn.Identity)):
            raise UnsupportedModel(f"{inside} with a {type(module).__name__} where only a LayerNorm can be opened")


def in_precision(part: nn.Module, x: Tensor) -> Tensor:
    """Inputs in the precision of the encoder's first convolution, if it has one."""
    return x.to(next((module.weight.dtype for module in part.modules() if isinstance(module, nn.Conv2d)), x.dtype))


@contextmanager
def with_grad() -> Iterator[None]:
    """Within it, blocks and towers compute with a graph into the model's parameters, so that it can be trained."""
    token = _WITH_GRAD.set(True)
    try:
        yield
    finally:
        _WITH_GRAD.reset(token)


def upcast(tensor: Tensor) -> Tensor:
    """Half precision widened to float32, float32 and float64 as they are."""
    tensor = tensor if _WITH_GRAD.get() else tensor.detach()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer in float32 at least, (..., E)."""
    if isinstance(module, nn.Identity):
        return x
    base = _base_layer(module)
    found = F.linear(x, upcast(base.weight), None if base.bias is None else upcast(base.bias))
    for name in _adapters(module):
        down, up = module.lora_A[name], module.lora_B[name]
        bias = None if up.bias is None else upcast(up.bias)
        found = found + module.scaling[name] * F.linear(F.linear(x, upcast(down.weight)), upcast(up.weight), bias)
    return found


def project_to(weight: Tensor | nn.Linear | None, x: Tensor) -> Tensor:
    """A projection (..., E), by a layer or a matrix, in float32 at least."""
    if isinstance(weight, nn.Linear):
        return linear(weight, x)
    return x if weight is None else x @ upcast(weight)


def packed(weight: Tensor, bias: Tensor | None, x: Tensor, part: int, parts: int = 3) -> Tensor:
    """One of several linear layers of equal width whose weights are stacked in one matrix."""
    width = len(weight) // parts
    rows = slice(part * width, (part + 1) * width)
    return F.linear(x, upcast(weight[rows]), None if bias is None else upcast(bias[rows]))


def in_proj(attn: nn.Module) -> Callable[[Tensor, int, Tensor | None], Tensor]:
    """`Block.qkv` of torch's MultiheadAttention."""
    return lambda x, part, _: packed(attn.in_proj_weight, attn.in_proj_bias, x, part)


def separate(*layers: nn.Module) -> Callable[[Tensor, int, Tensor | None], Tensor]:
    """`Block.qkv` of three linear layers."""
    return lambda x, part, _: linear(layers[part], x)


def apply(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Apply modules one after the other, in float32 at least."""
    for module in modules:
        if isinstance(module, (nn.Sequential, Mlp)):
            x = apply(module.children(), x)
        elif isinstance(module, (nn.LayerNorm, nn.Identity)) or hasattr(module, "variance_epsilon"):
            x = norm(module, x)
        elif isinstance(_base_layer(module), nn.Linear):
            x = linear(module, x)
        elif hasattr(module, "gamma"):
            x = x * upcast(module.gamma)
        elif not isinstance(module, nn.Dropout):
            x = module(x)
    return x


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """A norm in float32 at least."""
    if isinstance(module, nn.Identity):
        return x
    if hasattr(module, "variance_epsilon"):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon) * upcast(module.weight)
    weight, bias = (None if p is None else upcast(p) for p in (module.weight, module.bias))
    return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)


def attend(q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention (B, H, R, N) and its output (B, R, D), the softmax written out: fused kernels have no forward mode."""
    logits = torch.einsum("brhc,bnhc->bhrn", q * q.shape[-1] ** -0.5, k)
    if attention_mask is not None:
        hidden = attention_mask.dtype == torch.bool
        logits = logits.masked_fill(~attention_mask, -torch.inf) if hidden else logits + attention_mask
    attention = logits.softmax(dim=-1)
    return attention, torch.einsum("bhrn,bnhc->brhc", attention, v).flatten(2)  # (B, R, H*C)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None, causal: bool) -> Tensor:
    """The attention output (B, R, D) alone, by the fused kernel."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, N, C)
    causal = causal and attention_mask is None
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, is_causal=causal)
    return o.transpose(1, 2).flatten(2)  # (B, R, H*C)
