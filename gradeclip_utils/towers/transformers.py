"""transformers' CLIP, SigLIP, MetaCLIP 2, Chinese CLIP and AltCLIP; BERTs inside open_clip.

The layers below the explained ones are the model's own encoder without the others, with its own
masks and attention (eager, sdpa, flash). The explained layers are known by their parts, not by
their classes: norms before attention and MLP (CLIP, SigLIP, MetaCLIP 2), norms behind them (BERT
and its copies), and SigLIP's pool. transformers is optional and not imported here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .base import Entry, Tower
from .blocks import Block, apply, packed, separate, upcast, width_of, with_parts
from .open_clip import end_of_text

KINDS = ("CLIPModel", "SiglipModel", "MetaClip2Model", "ChineseCLIPModel", "AltCLIPModel")
# Positions for the model's own size stay as they are.
ANY_SIZE = {"interpolate_pos_encoding": True}
QUERY_TOKENS = {
    "eos": "EOT reads",
    "first": "CLS reads",
    "last": "the last token reads",
    "mean": "all tokens read and are averaged",
}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of PEFT (with adapters), torch.compile and data parallelism."""
    inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    if type(model).__module__.startswith("torch.") and isinstance(inner, nn.Module):
        return unwrapped(inner)
    if not type(model).__module__.startswith("peft."):
        return model

    config = getattr(model, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise UnsupportedModel(
            f"the model has learned prompts ({type(config).__name__}); "
            "only LoRA adapters can be opened"
        )
    return model.get_base_model()


def kind_of(model: nn.Module) -> str | None:
    """The name among `KINDS` of the model's class or of one of its base classes."""
    for kind in type(unwrapped(model)).__mro__:
        if kind.__name__ in KINDS:
            return kind.__name__
    return None


class _TransformersImageTower(Tower):
    """The image encoder of one of `KINDS`."""

    name = "image"
    any_size = True

    def __init__(self, model: nn.Module, layers: int | None):
        # wrapped once more in some versions
        vision = getattr(model.vision_model, "vision_model", model.vision_model)
        config = vision.config
        self.vision = vision
        self.kind = kind_of(model) or ""
        self.image_size = (config.image_size, config.image_size)
        self.patch_size = (config.patch_size, config.patch_size)

        blocks = [_block_of(layer) for layer in _layers_of(vision)]
        self.after: tuple[nn.Module, ...] = ()  # what the query token goes through at the end
        if hasattr(model, "visual_projection"):
            self.query_token = "CLS reads"
            self.after = (vision.post_layernorm, model.visual_projection)
        else:
            self.query_token = "a latent query reads"
            blocks.append(_probe_pool(vision.head, vision.post_layernorm))
        self.width = width_of(self.after, config.hidden_size)
        super().__init__(model, vision, blocks, layers, self._image_features)

    def _image_features(self, pixels: Tensor) -> Tensor:
        return _features(self.model.get_image_features(pixel_values=pixels, **ANY_SIZE))

    def _enter(self, pixels: Tensor) -> Entry:
        below = _below(self.vision, self.first)
        below.use_head = False
        x = below(pixels, **ANY_SIZE)[0]  # (B, N, D)

        height, width = pixels.shape[-2:]
        grid = (height // self.patch_size[0], width // self.patch_size[1])
        return self.image_entry(pixels, x, grid)

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        return apply(self.after, x)[:, 0]


@dataclass(frozen=True)
class _TextEncoder:
    """A text encoder as its parts."""

    part: nn.Module
    reads: str  # which token does: a key of `QUERY_TOKENS`
    after: tuple[nn.Module, ...]  # what this token goes through at the end
    padding: int | None = None  # its id; None if padding is not hidden


class _TransformersTextTower(Tower):
    """The text encoder of one of `KINDS`, or a Hugging Face encoder inside open_clip."""

    name = "text"

    def __init__(self, model: nn.Module, layers: int | None):
        kind = kind_of(model)
        if kind:
            text = _text_of(model, kind)
            encode = self._text_features
        else:
            text = _text_in_open_clip(model.text)
            encode = model.encode_text
        config = text.part.config
        self.text = text
        self.kind = kind or type(text.part).__name__
        self.query_token = QUERY_TOKENS[text.reads]
        self.causal = text.reads == "eos"
        self.width = width_of(text.after, config.hidden_size)

        self.context_length = config.max_position_embeddings
        embeddings = getattr(text.part, "embeddings", None)
        padding_index = getattr(embeddings, "padding_idx", None)
        if padding_index is not None:  # RoBERTa counts positions from it
            self.context_length -= padding_index + 1

        blocks = [_block_of(layer) for layer in _layers_of(text.part)]
        super().__init__(model, text.part, blocks, layers, encode)

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of EOT, or of the last token, in token ids (B, context_length)."""
        if self.text.reads != "eos":
            return end_of_text(ids, self.text.padding)
        eos = self.text.part.config.eos_token_id
        if eos == 2 and self.kind != "MetaClip2Model":
            return ids.argmax(dim=-1)  # as transformers: old configs have this wrong id
        return (ids == eos).int().argmax(dim=-1)

    def _text_features(self, ids: Tensor) -> Tensor:
        return _features(self.model.get_text_features(input_ids=ids, **self._mask(ids)))

    def _mask(self, ids: Tensor) -> dict[str, Tensor]:
        """The mask that the model's own processor would send along."""
        if self.text.padding is None:
            return {}
        return {"attention_mask": (ids != self.text.padding).long()}

    def _enter(self, ids: Tensor) -> Entry:
        reads = self.text.reads
        inputs = ids
        ends = self.ends(ids)  # (B,)
        if reads != "last":  # later tokens are never read
            ids = ids[:, : int(ends.max()) + 1]
        below = _below(self.text.part, self.first)
        x = below(input_ids=ids, **self._mask(ids))[0]  # (B, N, D)

        place = torch.arange(ids.shape[1], device=ids.device)
        valid_mask = place <= ends[:, None]  # (B, N)
        attention_mask = None
        if self.causal:
            attention_mask = (place <= place[:, None])[None, None]  # (1, 1, N, N)
        if self.text.padding is not None:
            is_token = ids != self.text.padding  # (B, N)
            valid_mask = valid_mask & is_token
            attention_mask = is_token[:, None, None].expand(-1, -1, len(place), -1)

        places = place.expand(len(ids), -1)  # (B, N)
        query_index = {
            "mean": places,
            "first": places[:, :1],
            "last": places[:, -1:],
            "eos": ends[:, None],
        }
        return Entry(
            inputs=inputs,
            tokens=upcast(x),
            query_index=query_index[reads],
            valid_mask=valid_mask,
            heads=self.heads,
            attention_mask=attention_mask,
        )

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        if self.text.reads == "mean":
            counts = entry.valid_mask.to(x)[..., None]  # padding is no part of the mean
            x = (x * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True)
        return apply(self.text.after, x)[:, 0]


def _text_of(model: nn.Module, kind: str) -> _TextEncoder:
    text = model.text_model
    # wrapped once more in some versions
    part = getattr(text, "text_model", getattr(text, "roberta", text))
    if kind == "SiglipModel":
        return _TextEncoder(part, "last", (part.final_layer_norm, part.head))
    if kind in ("CLIPModel", "MetaClip2Model"):
        return _TextEncoder(part, "eos", (part.final_layer_norm, model.text_projection))

    after: tuple[nn.Module, ...] = (model.text_projection,)
    if kind == "AltCLIPModel":
        after = (text.pre_LN, text.transformation, model.text_projection)
    return _TextEncoder(part, "first", after, part.config.pad_token_id)


def _text_in_open_clip(text: nn.Module) -> _TextEncoder:
    """The encoder in open_clip's `HFTextEncoder`."""
    part = text.transformer
    kind, pooler = type(part).__name__, type(text.pooler).__name__
    if not hasattr(getattr(part, "encoder", None), "layer"):
        raise UnsupportedModel(
            f"the text tower is a {kind}; of Hugging Face encoders only BERT, RoBERTa and "
            "XLM-RoBERTa are known"
        )
    if pooler not in ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler"):
        raise UnsupportedModel(
            f"the text tower is a {kind} with a {pooler}: only CLS or a mean is read"
        )

    after: tuple[nn.Module, ...] = (text.proj,)
    if pooler == "ClsPooler" and text.pooler.use_pooler_output and part.pooler is not None:
        after = (part.pooler.dense, part.pooler.activation, text.proj)
    reads = "mean" if pooler == "MeanPooler" else "first"
    return _TextEncoder(part, reads, after, text.config.pad_token_id)


def _features(output) -> Tensor:
    """The features: transformers 4 returns them, transformers 5 an output that holds them."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _layers_of(part: nn.Module) -> nn.ModuleList:
    return getattr(part.encoder, "layers", None) or part.encoder.layer


def _below(part: nn.Module, count: int) -> nn.Module:
    """The lowest layers of an encoder, with its embeddings, and without its last norm or pooler."""
    name = "layers" if hasattr(part.encoder, "layers") else "layer"
    encoder = with_parts(part.encoder, **{name: _layers_of(part)[:count]})
    return with_parts(
        part,
        encoder=encoder,
        post_layernorm=nn.Identity(),
        final_layer_norm=nn.Identity(),
        pooler=None,
    )


def _block_of(layer: nn.Module) -> Block:
    """A layer of an encoder, known by its parts."""
    if hasattr(layer, "self_attn"):
        return _norm_first(layer)
    return _norm_last(layer)


def _norm_first(layer: nn.Module) -> Block:
    """CLIPEncoderLayer and its copies: norm, attention, norm, MLP."""
    attn, mlp = layer.self_attn, layer.mlp

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        x = apply([layer.layer_norm1], x)
        return separate(x, attn.q_proj, attn.k_proj, attn.v_proj)

    return Block(
        layer,
        attn.num_heads,
        qkv,
        out=(attn.out_proj,),
        mlp=(layer.layer_norm2, mlp.fc1, mlp.activation_fn, mlp.fc2),
    )


def _norm_last(layer: nn.Module) -> Block:
    """BertLayer and its copies: attention and MLP, each with a residual and a norm behind it."""
    attn, attn_output, mlp_output = layer.attention.self, layer.attention.output, layer.output

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        return separate(x, attn.query, attn.key, attn.value)

    return Block(
        layer,
        attn.num_attention_heads,
        qkv,
        out=(attn_output.dense,),
        mlp=(layer.intermediate, mlp_output.dense),
        post_norms=(attn_output.LayerNorm, mlp_output.LayerNorm),
    )


def _probe_pool(pool: nn.Module, norm: nn.Module) -> Block:
    """SigLIP's pooling head (MAP): a latent query reads all tokens; then an MLP."""
    attn = pool.attention

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        return packed(attn, apply([norm], x), pool.probe)

    return Block(
        pool,
        attn.num_heads,
        qkv,
        out=(attn.out_proj,),
        mlp=(pool.layernorm, pool.mlp),
        pools=True,
        latent=True,
    )


def _has_text(model: nn.Module) -> bool:
    return bool(kind_of(model)) or type(getattr(model, "text", None)).__name__ == "HFTextEncoder"


FAMILIES = {
    "transformers": ("image", kind_of, _TransformersImageTower),
    "text of transformers": ("text", _has_text, _TransformersTextTower),
}
