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

from .blocks import Block, UnsupportedModel, apply, check_linear, check_norm, in_proj, linear, separate, upcast


def _norm_first(block: nn.Module, inside: str) -> Block:
    """CLIPEncoderLayer, its copies, M2M100EncoderLayer and BlipEncoderLayer: norm, attention, norm, MLP."""
    attn, mlp = block.self_attn, getattr(block, "mlp", block)
    norm1 = getattr(block, "layer_norm1", None) or block.self_attn_layer_norm
    norm2 = getattr(block, "layer_norm2", None) or block.final_layer_norm
    blip = hasattr(attn, "qkv")
    layers = [attn.qkv] if blip else [attn.q_proj, attn.k_proj, attn.v_proj]
    out = attn.projection if blip else attn.out_proj
    check_linear(inside, *layers, out, mlp.fc1, mlp.fc2)
    check_norm(inside, norm1, norm2)
    qkv = (lambda x, part, _: linear(attn.qkv, x).chunk(3, dim=-1)[part]) if blip else separate(*layers)
    return Block(
        block, attn.num_heads, qkv, lambda o: linear(out, o),
        lambda x: apply((norm2, mlp.fc1, mlp.activation_fn, mlp.fc2), x), before=norm1, like_clip=True,
    )  # fmt: skip


def _norm_last(block: nn.Module, inside: str) -> Block:
    """BertLayer and its copies: attention and MLP, each with a residual and a norm behind it."""
    attn, out, wide, narrow = block.attention.self, block.attention.output, block.intermediate, block.output
    qkv = attn.query, attn.key, attn.value
    check_linear(inside, *qkv, out.dense, wide.dense, narrow.dense)
    check_norm(inside, out.LayerNorm, narrow.LayerNorm)
    if getattr(attn, "position_embedding_type", None) not in (None, "absolute"):
        raise UnsupportedModel(f"{inside} whose attention has {attn.position_embedding_type} positions")
    return Block(
        block, attn.num_attention_heads, separate(*qkv), lambda o: linear(out.dense, o),
        lambda x: apply((wide.dense, wide.intermediate_act_fn, narrow.dense), x),
        behind=(out.LayerNorm, narrow.LayerNorm),
    )  # fmt: skip


def _t5(block: nn.Module, inside: str) -> Block:
    """T5Block of an encoder: norms without mean, logits that are not scaled, and a bias that the tower adds to them."""
    attn, mlp = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
    qkv = separate(attn.q, attn.k, attn.v)
    check_linear(inside, attn.q, attn.k, attn.v, attn.o, *(m for m in mlp.children() if hasattr(m, "weight")))

    def _unscaled(x: Tensor, part: int, positions: Tensor | None) -> Tensor:
        """As the others, but that queries undo the scale that attention has elsewhere."""
        return qkv(x, part, None) * (attn.key_value_proj_dim**0.5 if part == 0 else 1)

    def gated(x: Tensor) -> Tensor:
        """A plain or a gated MLP."""
        x = apply([block.layer[-1].layer_norm], x)
        if hasattr(mlp, "wi"):
            return apply((mlp.wi, mlp.act, mlp.wo), x)
        return linear(mlp.wo, mlp.act(linear(mlp.wi_0, x)) * linear(mlp.wi_1, x))

    return Block(block, attn.n_heads, _unscaled, lambda o: linear(attn.o, o), gated, before=block.layer[0].layer_norm)


def probe_pool(pool: nn.Module, before: nn.Module, inside: str) -> Block:
    """SigLIP's MultiheadAttentionPoolingHead (MAP): a latent query reads all tokens; then an MLP with its residual."""
    attn, mlp = pool.attention, pool.mlp
    check_linear(inside, attn.out_proj, mlp.fc1, mlp.fc2)
    check_norm(inside, before, pool.layernorm)
    return Block(
        pool, attn.num_heads, in_proj(attn),
        lambda o: linear(attn.out_proj, o),
        lambda x: apply((pool.layernorm, mlp.fc1, mlp.activation_fn, mlp.fc2), x), before=before,
        pools=True, latent=lambda: upcast(pool.probe),
    )  # fmt: skip


_PARTS = (("self_attn", _norm_first), ("attention", _norm_last), ("layer", _t5))
_PLAIN = (nn.LayerNorm, nn.Identity, nn.GELU, nn.Tanh)


def blocks_of(layers: Iterable[nn.Module], name: str) -> list[Block]:
    """A block for each layer of an encoder, by its parts."""
    found: list[Block] = []
    for layer in layers:
        inside = f"the {name} tower has a {type(layer).__name__}"
        opens = next((opens for part, opens in _PARTS if hasattr(layer, part)), None)
        if opens is None:
            raise UnsupportedModel(f"{inside}, which has none of {', '.join(part for part, _ in _PARTS)} to open")
        try:
            found.append(opens(layer, inside))
        except AttributeError as error:
            raise UnsupportedModel(f"{inside} that cannot be opened: {error}") from error
    return found


def through_own(
    blocks: Sequence[Block], x: Tensor, mask: Tensor | None = None, seen: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Tokens (B, N, D) through the model's own layers, whatever they want their mask called and whatever they return."""
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


def check_plain(inside: str, *modules: nn.Module) -> None:
    """Refuse, by name, what `apply` cannot compute."""
    for module in modules:
        if isinstance(module, nn.Sequential):
            check_plain(inside, *module)
        elif not (hasattr(module, "variance_epsilon") or isinstance(module, _PLAIN)):
            check_linear(inside, module)
