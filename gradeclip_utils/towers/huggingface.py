"""transformers' CLIP, SigLIP, SigLIP 2 (NaFlex), MetaCLIP 2, Chinese CLIP, AltCLIP and BLIP; BERTs inside open_clip.

The layers below the explained ones run as they are, with the model's own attention (eager, sdpa, flash). The explained
layers are known by their parts, not by their classes: norms before attention and MLP (CLIP, SigLIP, MetaCLIP 2,
M2M-100), norms behind them (BERT and its copies), T5's with a bias for the distance of two tokens, and SigLIP's pool.
A model that PEFT has wrapped is explained with its LoRA adapters. transformers is optional and not imported here.

BLIP (Li, Li, Xiong and Hoi, arXiv 2201.12086) is explained for images, by its contrastive head `vision_proj`. Prompts
are passed as embeddings: `text_proj` of its text encoder's CLS, as in its forward pass with `use_itm_head=False`.
"""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnsupportedModel
from .base import Entry, Tower, places
from .blocks import Block, apply, check_linear, check_norm, in_proj, linear, separate, upcast
from .open_clip import end_of_text

MODELS = (  # both encoders
    "CLIPModel", "SiglipModel", "Siglip2Model", "MetaClip2Model", "ChineseCLIPModel", "AltCLIPModel",
)  # fmt: skip
IMAGES = (*MODELS, "BlipForImageTextRetrieval")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of PEFT (with its adapters), of torch.compile and of data parallelism."""
    inside = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    if type(model).__module__.startswith("torch.") and isinstance(inside, nn.Module):
        return unwrapped(inside)
    if not type(model).__module__.startswith("peft."):
        return model
    config = getattr(model, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise UnsupportedModel(
            f"the model has learned prompts ({type(config).__name__}); only LoRA adapters can be opened"
        )
    return model.get_base_model()


def kind_of(model: nn.Module, among: tuple[str, ...] = MODELS) -> str | None:
    """The name among `among` of the model's class or of one of its base classes; None if there is none."""
    return next((kind.__name__ for kind in type(unwrapped(model)).__mro__ if kind.__name__ in among), None)


class TransformersImageTower(Tower):
    """The image encoder of one of `IMAGES`."""

    name, any_size = "image", True

    def __init__(self, model: nn.Module, layers: int):
        vision = self.vision = getattr(model.vision_model, "vision_model", model.vision_model)
        config = vision.config
        self.kind, self.own_grid = kind_of(model, IMAGES) or "", hasattr(config, "num_patches")
        side = config.image_size if not self.own_grid else config.patch_size * int(config.num_patches**0.5)
        self.image_size, self.patch_size = (side, side), (config.patch_size,) * 2
        blocks, inside = _blocks_of(vision.encoder.layers, self.name), f"the image tower is a {self.kind}"
        self.after: tuple[nn.Module, ...] = ()
        projection = getattr(model, "visual_projection", getattr(model, "vision_proj", None))
        if projection is not None:
            self.query_token, self.after = "CLS reads", (vision.post_layernorm, projection)
            self.width = projection.out_features
        elif getattr(vision, "head", None) is not None:
            blocks.append(_probe_pool(vision.head, vision.post_layernorm, inside))
            self.query_token, self.width = "a latent query reads", config.hidden_size
        else:
            raise UnsupportedModel(f"{inside} without an attention pool (vision_use_head=False): nothing reads its end")
        _check_plain(inside, *self.after)
        super().__init__(model, vision, blocks, layers, lambda pixels: _features(self._own_features(pixels)))

    def _own_features(self, pixels: Tensor):
        pixels = pixels.to(self.vision.embeddings.patch_embedding.weight.dtype)
        if not hasattr(self.model, "get_image_features"):  # BLIP's norm is in it
            return self.model.vision_proj(self.vision(pixels, **self._interpolation(pixels)).last_hidden_state[:, 0])
        if not self.own_grid:
            return self.model.get_image_features(pixel_values=pixels, **self._interpolation(pixels))
        patches, shapes = self._patches(pixels), self._shapes(pixels)
        missing = max(0, self.vision.config.num_patches - patches.shape[1])
        mask = F.pad(torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device), (0, missing))
        return self.model.get_image_features(F.pad(patches, (0, 0, 0, missing)), mask, shapes)

    def _enter(self, pixels: Tensor) -> Entry:
        embeddings = self.vision.embeddings
        own = pixels.to(embeddings.patch_embedding.weight.dtype)
        if self.own_grid:
            x = embeddings(self._patches(own), self._shapes(own))
        else:
            x = embeddings(own, **self._interpolation(own))  # (B, 1 + h*w, D), without CLS where a pool reads
        x = getattr(self.vision, "pre_layrnorm", nn.Identity())(x)  # that is its name
        x = upcast(_through_own([block for block in self.below if not block.latent], x))
        latent, grid = self.blocks[-1].latent, self._grid(pixels)
        where = places(x, () if latent else [0], x.shape[1] - grid[0] * grid[1])
        return Entry(pixels, x, *where, self.heads, grid)

    def _embed(self, x: Tensor) -> Tensor:
        return apply(self.after, x)[:, 0]

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        return pixels.shape[-2] // self.patch_size[0], pixels.shape[-1] // self.patch_size[1]

    def _interpolation(self, pixels: Tensor) -> dict[str, bool]:
        return {} if tuple(pixels.shape[-2:]) == self.image_size else {"interpolate_pos_encoding": True}

    def _patches(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) as NaFlex takes them (B, h*w, patch * patch * 3)."""
        step = self.patch_size[0]
        return pixels.unfold(2, step, step).unfold(3, step, step).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)

    def _shapes(self, pixels: Tensor) -> Tensor:
        return torch.tensor([self._grid(pixels)] * len(pixels), device=pixels.device)


@dataclass(frozen=True)
class _Text:
    """The parts of a text encoder, which token reads, and which tokens are hidden."""

    part: nn.Module
    layers: nn.ModuleList
    reads: str
    before: tuple[nn.Module, ...]
    after: tuple[nn.Module, ...]
    width: int
    causal: bool = False
    padding: int | None = None


_READS = {"eos": "EOT reads", "first": "CLS reads", "last": "the last token reads",
          "mean": "all tokens read and are averaged"}  # fmt: skip


class TransformersTextTower(Tower):
    """The text encoder of one of `MODELS`, or a Hugging Face encoder inside open_clip (`HFTextEncoder`)."""

    name = "text"

    def __init__(self, model: nn.Module, layers: int | None):
        hub = kind_of(model)
        text = self.text = _text_of(model) if hub else _text_in_open_clip(model.text)
        self.kind = hub or type(text.part).__name__
        self.query_token, self.causal, self.width = _READS[text.reads], text.causal, text.width
        blocks, inside = _blocks_of(text.layers, self.name), f"the text tower is a {self.kind}"
        _check_plain(inside, *text.before, *text.after)
        config = text.part.config
        self.context_length = getattr(config, "max_position_embeddings", None) or 512  # T5 has no limit
        if hasattr(text.part, "embeddings") and hasattr(text.part.embeddings, "padding_idx"):  # RoBERTa counts from it
            self.context_length -= text.part.embeddings.padding_idx + 1
        super().__init__(model, text.part, blocks, layers, self._own_features if hub else model.encode_text)

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of EOT, or of the last token, in token ids (B, context_length)."""
        if self.text.reads != "eos":
            return end_of_text(ids, self.text.padding)
        eos = self.text.part.config.eos_token_id
        if eos == 2 and self.kind != "MetaClip2Model":  # as transformers: old configs have this wrong id
            return ids.argmax(dim=-1)
        return (ids == eos).int().argmax(dim=-1)

    def _own_features(self, ids: Tensor) -> Tensor:
        mask = {} if self.text.padding is None else {"attention_mask": (ids != self.text.padding).long()}
        return _features(self.model.get_text_features(input_ids=ids, **mask))

    def _enter(self, ids: Tensor) -> Entry:
        text, ends, inputs = self.text, self.ends(ids), ids
        if text.reads != "last":
            ids = ids[:, : int(ends.max()) + 1]  # later tokens are never read
        length = ids.shape[1]
        place = torch.arange(length, device=ids.device)
        valid_mask, seen = place <= ends[:, None], None
        if text.padding is not None:
            seen = ids != text.padding
            valid_mask = valid_mask & seen
        query_index = {"eos": ends[:, None], "first": torch.zeros_like(ends)[:, None],
                       "last": torch.full_like(ends, length - 1)[:, None],
                       "mean": place.expand(len(ids), -1)}[text.reads]  # fmt: skip
        x = self._embedded(ids)
        mask = seen[:, None, :].expand(-1, length, -1) if seen is not None else None
        if text.causal:
            mask = (place <= place[:, None]).expand(len(ids), -1, -1)
        bias = self._bias(length, mask)
        x = upcast(_through_own(self.below, x, mask, seen, bias))
        attention_mask = None if text.causal else mask if bias is None else upcast(bias)
        return Entry(inputs, x, query_index, valid_mask, self.heads, None, attention_mask)

    def _embedded(self, ids: Tensor) -> Tensor:
        part = self.text.part
        if hasattr(part, "embeddings"):
            return part.embeddings(input_ids=ids)
        x = part.embed_tokens(ids)
        return x + part.embed_positions(ids, x).to(x) if hasattr(part, "embed_positions") else x

    def _bias(self, length: int, mask: Tensor | None) -> Tensor | None:
        """The bias (B or 1, H, N, N) that T5 adds to its logits, with the mask; the first layer holds it for all."""
        first = self.text.layers[0]
        if not hasattr(first, "layer"):
            return None
        bias = first.layer[0].SelfAttention.compute_bias(length, length)
        return bias if mask is None else bias.masked_fill(~mask[:, None], torch.finfo(bias.dtype).min)

    def _pool(self, x: Tensor, entry: Entry) -> Tensor:
        x = apply(self.text.before, x)
        if self.text.reads != "mean":
            return x
        counts = entry.valid_mask.to(x)[..., None]  # padding is no part of the mean
        return (x * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True)

    def _embed(self, x: Tensor) -> Tensor:
        return apply(self.text.after, x)[:, 0]


def _text_of(whole: nn.Module) -> _Text:
    """The text encoder of one of `MODELS`."""
    text, kind, before = whole.text_model, kind_of(whole), ()  # type: nn.Module, str | None, tuple[nn.Module, ...]
    part = getattr(text, "text_model", getattr(text, "roberta", text))  # wrapped once more in some versions
    if kind in ("SiglipModel", "Siglip2Model"):
        before, width = (part.final_layer_norm, part.head), part.head.out_features
        return _Text(part, part.encoder.layers, "last", before, (), width)
    projection = whole.text_projection
    if kind in ("CLIPModel", "MetaClip2Model"):
        before = (part.final_layer_norm,)
        return _Text(part, part.encoder.layers, "eos", before, (projection,), projection.out_features, causal=True)
    if kind == "AltCLIPModel":
        before = (text.pre_LN, text.transformation)
    layers = part.encoder.layers if hasattr(part.encoder, "layers") else part.encoder.layer
    padding = part.config.pad_token_id
    return _Text(part, layers, "first", before, (projection,), projection.out_features, padding=padding)


def _text_in_open_clip(text: nn.Module) -> _Text:
    """The encoder in open_clip's `HFTextEncoder`."""
    part, pooler = text.transformer, type(text.pooler).__name__
    if pooler not in ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler"):
        raise UnsupportedModel(f"the text tower is a {type(part).__name__} with a {pooler}: only CLS or a mean is read")
    after, before = (text.proj,), ()  # type: tuple[nn.Module, ...], tuple[nn.Module, ...]
    own = getattr(part, "pooler", None)
    if pooler == "ClsPooler" and text.pooler.use_pooler_output and own is not None:
        after = (own.dense, own.activation, text.proj)
    if hasattr(part, "block"):
        layers, before = part.block, (part.final_layer_norm,)
    elif hasattr(part, "embed_positions"):
        layers, before = part.layers, (part.layer_norm,)
    elif hasattr(part, "embeddings") and hasattr(getattr(part, "encoder", None), "layer"):
        layers = part.encoder.layer
    else:
        raise UnsupportedModel(f"the text tower is a {type(part).__name__}; of Hugging Face encoders only BERT, "
                               "RoBERTa, XLM-RoBERTa, T5 and M2M-100 are known")  # fmt: skip
    reads = "mean" if pooler == "MeanPooler" else "first"
    return _Text(part, layers, reads, before, after, text.output_dim, padding=text.config.pad_token_id)


def _features(found) -> Tensor:
    """The features: transformers 4 returns them, transformers 5 an output that holds them."""
    return found if isinstance(found, Tensor) else found.pooler_output


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
    """T5Block of an encoder: norms without mean, logits without scale, and a bias that the tower adds to them."""
    attn, mlp = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
    qkv = separate(attn.q, attn.k, attn.v)
    check_linear(inside, attn.q, attn.k, attn.v, attn.o, *(m for m in mlp.children() if hasattr(m, "weight")))

    def _unscaled(x: Tensor, part: int, positions: Tensor | None) -> Tensor:
        """Queries undo the scale that `attend` has."""
        return qkv(x, part, None) * (attn.key_value_proj_dim**0.5 if part == 0 else 1)

    def gated(x: Tensor) -> Tensor:
        """A plain or a gated MLP."""
        x = apply([block.layer[-1].layer_norm], x)
        if hasattr(mlp, "wi"):
            return apply((mlp.wi, mlp.act, mlp.wo), x)
        return linear(mlp.wo, mlp.act(linear(mlp.wi_0, x)) * linear(mlp.wi_1, x))

    return Block(block, attn.n_heads, _unscaled, lambda o: linear(attn.o, o), gated, before=block.layer[0].layer_norm)


def _probe_pool(pool: nn.Module, before: nn.Module, inside: str) -> Block:
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


def _blocks_of(layers: Iterable[nn.Module], name: str) -> list[Block]:
    """One block for each layer of an encoder."""
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


def _through_own(
    blocks: Sequence[Block], x: Tensor, mask: Tensor | None = None, seen: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Tokens (B, N, D) through the model's own layers, whose names for the mask and whose results differ."""
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


def _check_plain(inside: str, *modules: nn.Module) -> None:
    """Refuse modules that `apply` cannot compute."""
    for module in modules:
        if isinstance(module, nn.Sequential):
            _check_plain(inside, *module)
        elif not (hasattr(module, "variance_epsilon") or isinstance(module, _PLAIN)):
            check_linear(inside, module)
