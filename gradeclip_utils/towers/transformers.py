"""transformers' CLIP, SigLIP, SigLIP 2 (NaFlex), MetaCLIP 2, Chinese CLIP, AltCLIP and BLIP; BERTs inside open_clip.

The layers below the explained ones are the model's own encoder without the others, with its own
masks and attention (eager, sdpa, flash). The explained layers are known by their parts, not by
their classes: norms before attention and MLP (CLIP, SigLIP, MetaCLIP 2, M2M-100), norms behind them
(BERT and its copies), T5's with a bias for the distance of two tokens, and SigLIP's pool.
transformers is optional and not imported here.

BLIP (Li, Li, Xiong and Hoi, arXiv 2201.12086) is explained for images, by its contrastive head
`vision_proj`. Prompts are passed as embeddings: `text_proj` of its text encoder's CLS, as in its
forward pass with `use_itm_head=False`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnsupportedModel
from .base import Entry, Tower
from .blocks import Block, apply, packed, separate, upcast, width_of, with_parts
from .open_clip import end_of_text

_BLIP = "BlipForImageTextRetrieval"
KINDS = (
    "CLIPModel",
    "SiglipModel",
    "Siglip2Model",
    "MetaClip2Model",
    "ChineseCLIPModel",
    "AltCLIPModel",
    _BLIP,
)
_ANY_SIZE = {
    "interpolate_pos_encoding": True
}  # positions for the model's own size stay as they are


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


def kind_of(model: nn.Module) -> str | None:
    """The name among `KINDS` of the model's class or of one of its base classes; None if there is none."""
    return next(
        (kind.__name__ for kind in type(unwrapped(model)).__mro__ if kind.__name__ in KINDS), None
    )


class _TransformersImageTower(Tower):
    """The image encoder of one of `KINDS`."""

    name, any_size = "image", True

    def __init__(self, model: nn.Module, layers: int | None):
        vision = self.vision = getattr(model.vision_model, "vision_model", model.vision_model)
        config = vision.config
        self.kind, self.own_grid = kind_of(model) or "", hasattr(config, "num_patches")
        side = (
            config.image_size
            if not self.own_grid
            else config.patch_size * int(config.num_patches**0.5)
        )
        self.image_size, self.patch_size = (side, side), (config.patch_size,) * 2
        blocks = [_block_of(layer, self.name) for layer in _layers_of(vision)]
        self.after: tuple[nn.Module, ...] = ()  # what the query token goes through at the end
        projection = getattr(model, "visual_projection", getattr(model, "vision_proj", None))
        if projection is not None:
            self.query_token, self.after = "CLS reads", (vision.post_layernorm, projection)
        elif getattr(vision, "head", None) is not None:
            blocks.append(_probe_pool(vision.head, vision.post_layernorm))
            self.query_token = "a latent query reads"
        else:
            why = "without an attention pool (vision_use_head=False): nothing reads its end"
            raise UnsupportedModel(f"the image tower is a {self.kind} {why}")
        self.width = width_of(self.after, config.hidden_size)
        super().__init__(model, vision, blocks, layers, self._own_features)

    def _own_features(self, pixels: Tensor) -> Tensor:
        if not hasattr(self.model, "get_image_features"):  # BLIP's norm is in it
            return self.model.vision_proj(self.vision(pixels, **_ANY_SIZE).last_hidden_state[:, 0])
        if not self.own_grid:
            return _features(self.model.get_image_features(pixel_values=pixels, **_ANY_SIZE))
        patches, mask, shapes = self._naflex(pixels)
        missing = max(0, self.vision.config.num_patches - patches.shape[1])
        padded = F.pad(patches, (0, 0, 0, missing)), F.pad(mask, (0, missing))
        return _features(self.model.get_image_features(*padded, shapes))

    def _enter(self, pixels: Tensor) -> Entry:
        below = _below(self.vision, self.first)
        below.use_head = False
        x = below(*self._naflex(pixels))[0] if self.own_grid else below(pixels, **_ANY_SIZE)[0]
        return self.image_entry(
            pixels, x, () if self.blocks[-1].latent else [0], self._grid(pixels)
        )

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        return apply(self.after, x)[:, 0]

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        return pixels.shape[-2] // self.patch_size[0], pixels.shape[-1] // self.patch_size[1]

    def _naflex(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, 3, H, W) as NaFlex takes them: patches (B, h*w, patch * patch * 3), their mask and grids."""
        step = self.patch_size[0]
        patches = (
            pixels.unfold(2, step, step)
            .unfold(3, step, step)
            .permute(0, 2, 3, 4, 5, 1)
            .flatten(3)
            .flatten(1, 2)
        )
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device)
        return patches, mask, torch.tensor([self._grid(pixels)] * len(pixels), device=pixels.device)


@dataclass(frozen=True)
class _Text:
    """A text encoder, which of its tokens reads, what this token goes through at the end, and the padding's id."""

    part: nn.Module
    reads: str
    after: tuple[nn.Module, ...]
    before: tuple[nn.Module, ...] = ()  # before a mean is taken
    padding: int | None = None  # None if padding is not hidden


_LAYERS = ("layers", "layer", "block")  # what encoders call them
_READS = {
    "eos": "EOT reads",
    "first": "CLS reads",
    "last": "the last token reads",
    "mean": "all tokens read and are averaged",
}


class _TransformersTextTower(Tower):
    """The text encoder of one of `KINDS`, or a Hugging Face encoder inside open_clip (`HFTextEncoder`)."""

    name = "text"

    def __init__(self, model: nn.Module, layers: int | None):
        hub = kind_of(model)
        text = self.text = _text_of(model) if hub else _text_in_open_clip(model.text)
        self.kind = hub or type(text.part).__name__
        self.query_token, self.causal = _READS[text.reads], text.reads == "eos"
        config, self.own_layers = text.part.config, _layers_of(text.part)
        self.width = width_of((*text.before, *text.after), config.hidden_size)
        self.context_length = (
            getattr(config, "max_position_embeddings", None) or 512
        )  # T5 has no limit
        if hasattr(text.part, "embeddings") and hasattr(
            text.part.embeddings, "padding_idx"
        ):  # RoBERTa counts from it
            self.context_length -= text.part.embeddings.padding_idx + 1
        blocks = [_block_of(layer, self.name) for layer in self.own_layers]
        super().__init__(
            model, text.part, blocks, layers, self._own_features if hub else model.encode_text
        )

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of EOT, or of the last token, in token ids (B, context_length)."""
        if self.text.reads != "eos":
            return end_of_text(ids, self.text.padding)
        eos = self.text.part.config.eos_token_id
        if (
            eos == 2 and self.kind != "MetaClip2Model"
        ):  # as transformers: old configs have this wrong id
            return ids.argmax(dim=-1)
        return (ids == eos).int().argmax(dim=-1)

    def _own_features(self, ids: Tensor) -> Tensor:
        return _features(self.model.get_text_features(input_ids=ids, **self._mask(ids)))

    def _mask(self, ids: Tensor) -> dict[str, Tensor]:
        """The mask that the model's own processor would send along."""
        return (
            {}
            if self.text.padding is None
            else {"attention_mask": (ids != self.text.padding).long()}
        )

    def _enter(self, ids: Tensor) -> Entry:
        text, ends, inputs = self.text, self.ends(ids), ids
        if text.reads != "last":
            ids = ids[:, : int(ends.max()) + 1]  # later tokens are never read
        x = _below(text.part, self.first)(input_ids=ids, **self._mask(ids))[0]
        place = torch.arange(ids.shape[1], device=ids.device)
        valid_mask, mask = (
            place <= ends[:, None],
            (place <= place[:, None])[None, None] if self.causal else None,
        )
        if text.padding is not None:
            valid_mask, mask = (
                valid_mask & (ids != text.padding),
                (ids != text.padding)[:, None, None],
            )
            mask = mask.expand(-1, -1, len(place), -1)  # (B, 1, N, N)
        if hasattr(
            self.own_layers[0], "layer"
        ):  # T5 adds a bias to its logits, which its first layer holds for all
            bias = self.own_layers[0].layer[0].SelfAttention.compute_bias(len(place), len(place))
            mask = upcast(
                bias if mask is None else bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
            )
        query_index = {
            "eos": ends[:, None],
            "first": torch.zeros_like(ends)[:, None],
            "last": torch.full_like(ends, len(place) - 1)[:, None],
            "mean": place.expand(len(ids), -1),
        }[text.reads]
        return Entry(inputs, upcast(x), query_index, valid_mask, self.heads, attention_mask=mask)

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        x = apply(self.text.before, x)
        if self.text.reads == "mean":
            counts = entry.valid_mask.to(x)[..., None]  # padding is no part of the mean
            x = (x * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True)
        return apply(self.text.after, x)[:, 0]


def _text_of(model: nn.Module) -> _Text:
    text, kind = model.text_model, kind_of(model)
    part = getattr(
        text, "text_model", getattr(text, "roberta", text)
    )  # wrapped once more in some versions
    if kind in ("SiglipModel", "Siglip2Model"):
        return _Text(part, "last", (part.final_layer_norm, part.head))
    if kind in ("CLIPModel", "MetaClip2Model"):
        return _Text(part, "eos", (part.final_layer_norm, model.text_projection))
    first = (text.pre_LN, text.transformation) if kind == "AltCLIPModel" else ()
    return _Text(part, "first", (*first, model.text_projection), padding=part.config.pad_token_id)


def _text_in_open_clip(text: nn.Module) -> _Text:
    """The encoder in open_clip's `HFTextEncoder`."""
    part, pooler = text.transformer, type(text.pooler).__name__
    if pooler not in ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler"):
        raise UnsupportedModel(
            f"the text tower is a {type(part).__name__} with a {pooler}: only CLS or a mean is read"
        )
    own = getattr(part, "pooler", None)
    after: tuple[nn.Module, ...] = (text.proj,)
    if pooler == "ClsPooler" and text.pooler.use_pooler_output and own is not None:
        after = (own.dense, own.activation, text.proj)
    before = tuple(
        getattr(part, name) for name in ("final_layer_norm", "layer_norm") if hasattr(part, name)
    )
    reads = "mean" if pooler == "MeanPooler" else "first"
    return _Text(part, reads, after, before, text.config.pad_token_id)


def _features(found) -> Tensor:
    """The features: transformers 4 returns them, transformers 5 an output that holds them."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _layers_of(part: nn.Module) -> nn.ModuleList:
    place = getattr(part, "encoder", part)
    if found := [getattr(place, name) for name in _LAYERS if hasattr(place, name)]:
        return found[0]
    raise UnsupportedModel(
        f"the text tower is a {type(part).__name__}; of Hugging Face encoders only BERT, RoBERTa, "
        "XLM-RoBERTa, T5 and M2M-100 are known"
    )


def _below(part: nn.Module, count: int) -> nn.Module:
    """The lowest layers of an encoder, with its embeddings before them and neither norm nor pooler behind them."""
    place = getattr(part, "encoder", part)
    lowest = with_parts(
        place, **{name: getattr(place, name)[:count] for name in _LAYERS if hasattr(place, name)}
    )
    ends = {
        name: nn.Identity() for name in ("post_layernorm", "final_layer_norm", "layer_norm")
    } | {"pooler": None}
    return with_parts(lowest, **ends) if place is part else with_parts(part, encoder=lowest, **ends)


def _norm_first(block: nn.Module) -> Block:
    """CLIPEncoderLayer, its copies, M2M100EncoderLayer and BlipEncoderLayer: norm, attention, norm, MLP."""
    attn, mlp = block.self_attn, getattr(block, "mlp", block)
    norm1 = getattr(block, "layer_norm1", None) or block.self_attn_layer_norm
    norm2 = getattr(block, "layer_norm2", None) or block.final_layer_norm

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        x = apply([norm1], x)
        if hasattr(attn, "qkv"):  # BLIP
            return apply([attn.qkv], x).chunk(3, dim=-1)
        return separate(x, attn.q_proj, attn.k_proj, attn.v_proj)

    out = attn.projection if hasattr(attn, "qkv") else attn.out_proj
    return Block(block, attn.num_heads, qkv, (out,), (norm2, mlp.fc1, mlp.activation_fn, mlp.fc2))


def _norm_last(block: nn.Module) -> Block:
    """BertLayer and its copies: attention and MLP, each with a residual and a norm behind it."""
    attn, out, narrow = block.attention.self, block.attention.output, block.output
    return Block(
        block,
        attn.num_attention_heads,
        lambda x, _: separate(x, attn.query, attn.key, attn.value),
        (out.dense,),
        (block.intermediate, narrow.dense),
        post_norms=(out.LayerNorm, narrow.LayerNorm),
    )


def _t5(block: nn.Module) -> Block:
    """T5Block of an encoder: logits without scale, and a bias that the tower adds to them."""
    attn, last = block.layer[0].SelfAttention, block.layer[-1]

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        q, k, v = separate(apply([block.layer[0].layer_norm], x), attn.q, attn.k, attn.v)
        return q * attn.key_value_proj_dim**0.5, k, v  # which undoes the scale that `attend` has

    return Block(block, attn.n_heads, qkv, (attn.o,), (last.layer_norm, last.DenseReluDense))


def _probe_pool(pool: nn.Module, before: nn.Module) -> Block:
    """SigLIP's MultiheadAttentionPoolingHead (MAP): a latent query reads all tokens; then an MLP with its residual."""
    attn = pool.attention
    return Block(
        pool,
        attn.num_heads,
        lambda x, _: packed(attn, apply([before], x), pool.probe),
        (attn.out_proj,),
        (pool.layernorm, pool.mlp),
        pools=True,
        latent=True,
    )


_PARTS = {"self_attn": _norm_first, "attention": _norm_last, "layer": _t5}


def _block_of(layer: nn.Module, name: str) -> Block:
    """A layer of an encoder, known by its parts."""
    for part, opens in _PARTS.items():
        if hasattr(layer, part):
            return opens(layer)
    known = ", ".join(_PARTS)
    raise UnsupportedModel(
        f"the {name} tower has a {type(layer).__name__}, which has none of {known} to open"
    )


def _has_text(model: nn.Module) -> bool:
    return (
        kind_of(model) not in (None, _BLIP)
        or type(getattr(model, "text", None)).__name__ == "HFTextEncoder"
    )


FAMILIES = {
    "transformers": ("image", kind_of, _TransformersImageTower),
    "text of transformers": ("text", _has_text, _TransformersTextTower),
}
