"""The layers of transformers' encoders, computed part by part, and the same layers run as they are.

    blocks --here--> huggingface --trace--> Trace

Libraries' classes are many and copied from each other, so that a layer is known by its parts, not by its class: the
norms before attention and MLP (CLIP, SigLIP, MetaCLIP 2, M2M-100), norms behind them (BERT and all that it bore), T5's
with a bias for the distance of two tokens, and SigLIP's attention pool. transformers is an optional library: it is not
imported here. Whoever has one of its models has it.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Block, UnsupportedModel, base_layer, check_linear, check_norm, linear, norm, packed, upcast


class _Separate(Block):
    """A layer whose queries, keys and values are three linear layers, `self.qkv`."""

    qkv: tuple[nn.Module, nn.Module, nn.Module]

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """One of three linear layers."""
        return linear(self.qkv[part], normed).unflatten(-1, (heads, -1))


class NormFirstBlock(_Separate):
    """CLIPEncoderLayer, its copies, M2M100EncoderLayer and BlipEncoderLayer: norm, attention, norm, MLP."""

    def __init__(self, block: nn.Module, inside: str):
        attn, self.mlp = block.self_attn, getattr(block, "mlp", block)
        self.norm1 = getattr(block, "layer_norm1", None) or block.self_attn_layer_norm
        self.norm2 = getattr(block, "layer_norm2", None) or block.final_layer_norm
        self.packed = getattr(attn, "qkv", None)  # BLIP's
        self.qkv = (self.packed,) * 3 if self.packed is not None else (attn.q_proj, attn.k_proj, attn.v_proj)
        self.out = attn.projection if self.packed is not None else attn.out_proj
        check_linear(inside, *self.qkv, self.out, self.mlp.fc1, self.mlp.fc2)
        check_norm(inside, self.norm1, self.norm2)
        super().__init__(block, attn.num_heads)

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The norm before attention."""
        return norm(self.norm1, x)

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """One of three linear layers, or a third of one."""
        if self.packed is None:
            return super().project(normed, part, heads)
        return linear(self.packed, normed).chunk(3, dim=-1)[part].unflatten(-1, (heads, -1))

    def added(self, o: Tensor) -> Tensor:
        """What attention adds to the tokens (B, R, D), for what it collected (B, R, D)."""
        return linear(self.out, o)

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """Output projection and MLP, each with its residual."""
        x = x + self.added(o)
        return x + _mlp(self.mlp, norm(self.norm2, x))


class NormLastBlock(_Separate):
    """BertLayer and its copies: attention and MLP, each with a residual and a norm behind it."""

    def __init__(self, block: nn.Module, inside: str):
        attn, out = block.attention.self, block.attention.output
        self.qkv = (attn.query, attn.key, attn.value)
        check_linear(inside, *self.qkv, out.dense, block.intermediate.dense, block.output.dense)
        check_norm(inside, out.LayerNorm, block.output.LayerNorm)
        if getattr(attn, "position_embedding_type", None) not in (None, "absolute"):
            raise UnsupportedModel(f"{inside} whose attention has {attn.position_embedding_type} positions")
        super().__init__(block, attn.num_attention_heads)

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The tokens as they are."""
        return x

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """Output projection, residual, norm; MLP, residual, norm."""
        out, block = self.module.attention.output, self.module
        x = norm(out.LayerNorm, x + linear(out.dense, o))
        hidden = block.intermediate.intermediate_act_fn(linear(block.intermediate.dense, x))
        return norm(block.output.LayerNorm, x + linear(block.output.dense, hidden))


class T5EncoderBlock(_Separate):
    """T5Block of an encoder: norms without mean, logits that are not scaled, and a bias that the tower adds to them."""

    def __init__(self, block: nn.Module, inside: str):
        attn, self.mlp = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
        self.qkv = (attn.q, attn.k, attn.v)
        check_linear(inside, *self.qkv, attn.o, *(m for m in self.mlp.children() if hasattr(m, "weight")))
        super().__init__(block, attn.n_heads)

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The norm before attention."""
        return root_mean_square(self.module.layer[0].layer_norm, x)

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """As the others, but that queries undo the scale that attention has elsewhere."""
        found = super().project(normed, part, heads)
        return found * found.shape[-1] ** 0.5 if part == 0 else found

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """Output projection and a plain or a gated MLP, each with its residual."""
        x, mlp = x + linear(self.module.layer[0].SelfAttention.o, o), self.mlp
        hidden = root_mean_square(self.module.layer[-1].layer_norm, x)
        if hasattr(mlp, "wi"):
            return x + linear(mlp.wo, mlp.act(linear(mlp.wi, hidden)))
        return x + linear(mlp.wo, mlp.act(linear(mlp.wi_0, hidden)) * linear(mlp.wi_1, hidden))


class ProbePool(Block):
    """SigLIP's MultiheadAttentionPoolingHead (MAP): a latent query reads all tokens; then an MLP with its residual."""

    pools = latent = True

    def __init__(self, pool: nn.Module, before: nn.Module, inside: str):
        check_linear(inside, pool.attention.out_proj, pool.mlp.fc1, pool.mlp.fc2)
        check_norm(inside, before, pool.layernorm)
        super().__init__(pool, pool.attention.num_heads)
        self.before = before

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The norm of the whole transformer."""
        return norm(self.before, x)

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """The latent query, or keys and values of the tokens."""
        attn, width = self.module.attention, normed.shape[-1]
        source = upcast(self.module.probe).expand(len(normed), -1, -1) if part == 0 else normed
        return packed(attn.in_proj_weight, attn.in_proj_bias, source, part * width, width).unflatten(-1, (heads, -1))

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """Output projection, and an MLP with its residual."""
        x = linear(self.module.attention.out_proj, o)
        return x + _mlp(self.module.mlp, norm(self.module.layernorm, x))


_PARTS = (("self_attn", NormFirstBlock), ("attention", NormLastBlock), ("layer", T5EncoderBlock))


def blocks_of(layers: Iterable[nn.Module], name: str) -> list[Block]:
    """A block for each layer of an encoder, by its parts.

    Raises:
        UnsupportedModel: a layer has other parts; the message says which layer and what is missing.
    """
    found: list[Block] = []
    for layer in layers:
        inside = f"the {name} tower has a {type(layer).__name__}"
        kind = next((kind for part, kind in _PARTS if hasattr(layer, part)), None)
        if kind is None:
            raise UnsupportedModel(f"{inside}, which has none of {', '.join(part for part, _ in _PARTS)} to open")
        try:
            found.append(kind(layer, inside))
        except AttributeError as error:
            raise UnsupportedModel(f"{inside} that cannot be opened: {error}") from error
    return found


def through_own(
    blocks: Sequence[Block], x: Tensor, mask: Tensor | None = None, seen: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Tokens through the model's own layers, whatever they want their mask called and whatever they return.

    Args:
        blocks: the layers, as blocks.
        x: (B, N, D).
        mask: who sees whom, (B, N, N) bool, or None where everyone sees everyone.
        seen: the tokens that are no padding (B, N), for attentions that take nothing else (flash).
        bias: what a layer adds to its logits (B or 1, H, N, N), with the mask in it; then `mask` is not used.

    Returns:
        (B, N, D).
    """
    for block in blocks:
        layer = block.module
        known = inspect.signature(layer.forward).parameters
        config = next((part.config for part in layer.modules() if hasattr(part, "config")), None)  # its attention's
        wanted: dict[str, Any] = {"attention_mask": None}
        if mask is not None:  # as what is added to the logits, (B, 1, N, N)
            added = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
            wanted = {"attention_mask": added[:, None]}
        if bias is not None:
            wanted = {"attention_mask": None, "position_bias": bias.to(x)}
        elif "flash" in str(getattr(config, "_attn_implementation", "")):
            wanted = {"attention_mask": seen, "is_causal": mask is not None and seen is None}
        elif mask is not None and "causal_attention_mask" in known:  # transformers 4, CLIP
            wanted = {"attention_mask": None, "causal_attention_mask": wanted["attention_mask"]}
        others = (name for name, one in list(known.items())[1:] if one.default is one.empty and one.kind < 2)
        extra = any(one.kind is one.VAR_KEYWORD for one in known.values())
        options = {name: value for name, value in wanted.items() if name in known or extra}
        found = layer(x, **{**dict.fromkeys(others), **options})
        x = found[0] if isinstance(found, tuple) else found
    return x


def root_mean_square(module: nn.Module, x: Tensor) -> Tensor:
    """T5LayerNorm: scaled to a mean square of one, no mean taken away, in float32 at least."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon) * upcast(module.weight)


def apply(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Norms, linear layers and activations, one after the other, in float32 at least."""
    for module in modules:
        if isinstance(module, nn.Sequential):
            x = apply(module, x)
        elif hasattr(module, "variance_epsilon"):
            x = root_mean_square(module, x)
        elif isinstance(module, (nn.LayerNorm, nn.Identity)):
            x = norm(module, x)
        else:
            x = linear(module, x) if hasattr(base_layer(module), "weight") else module(x)
    return x


def check_plain(inside: str, *modules: nn.Module) -> None:
    """Refuse, by name, what `apply` cannot compute."""
    for module in modules:
        if isinstance(module, nn.Sequential):
            check_plain(inside, *module)
        elif not isinstance(module, (nn.LayerNorm, nn.Identity, nn.GELU, nn.Tanh)) and not hasattr(
            module, "variance_epsilon"
        ):
            check_linear(inside, module)


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    return linear(mlp.fc2, mlp.activation_fn(linear(mlp.fc1, x)))
