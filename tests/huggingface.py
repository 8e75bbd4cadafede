"""Tiny models of transformers with random weights, and tokenizers of every kind; nothing comes from a hub."""

import io
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.shrinking import stir

transformers = pytest.importorskip("transformers")

LAYERS = {
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 64,
}
VISION = {**LAYERS, "image_size": 32, "patch_size": 8}
VOCABULARY = 120
IDS = torch.tensor(
    [[1, 9, 14, 7, 30, 2, 0, 0, 0, 0, 0, 0], [1, 17, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0]]
)  # CLS ... SEP pad
_TEXT = {
    "CLIP": {"max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2},
    "Siglip": {"max_position_embeddings": 12, "projection_size": 64},
    "Siglip2": {"max_position_embeddings": 12, "projection_size": 64},
    "MetaClip2": {"max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2},
    "ChineseCLIP": {"max_position_embeddings": 40, "pad_token_id": 0},
    "AltCLIP": {"max_position_embeddings": 40, "pad_token_id": 0, "project_dim": 56},
}
NAMES = [
    name for name in _TEXT if hasattr(transformers, f"{name}Model")
]  # transformers 4.48 has four of them


def ids_of(name: str) -> torch.Tensor:
    """Two prompts as a model of this name reads them."""
    if name == "CLIP":  # an old config, whose EOT is the largest id
        return torch.where(IDS == 2, VOCABULARY - 1, IDS)
    return IDS


def build_hub(
    name: str, attention: str = "sdpa", seed: int = 0, vision=None, text=None, **options
) -> nn.Module:
    """A tiny `CLIPModel`, `SiglipModel`, ..., in evaluation mode."""
    texts = {**LAYERS, "vocab_size": VOCABULARY, **_TEXT[name], **(text or {})}
    visions = {**VISION, **(vision or {})}
    if name == "Siglip2":
        visions = {**LAYERS, "patch_size": 8, "num_patches": 16, **(vision or {})}
    kind = getattr(transformers, f"{name}Config")
    common = {} if name.startswith("Siglip") else {"projection_dim": 48}
    config = kind(text_config=texts, vision_config=visions, **common, **options)
    if name in ("ChineseCLIP", "AltCLIP") and transformers.__version__ < "5":
        attention = "eager"  # these had no other
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return stir(
            getattr(transformers, f"{name}Model")._from_config(
                config, attn_implementation=attention
            )
        )


def processor_of(image_processor=None, tokenizer=None):
    """What every processor has: the two parts."""
    return SimpleNamespace(image_processor=image_processor, tokenizer=tokenizer)


CAPTIONS = [
    "a red car and a blue ball on the grass.",
    "the small dog's owner is naïve",
    "two big pictures of a café",
    "a photo of one cat, unlike others",
    "一只红色的猫",
    "一只小狗",
] * 8
SPECIAL = {  # of each kind of tokenizer: what stands before the words, behind them, and where nothing is
    "byte-pair": ("<start>", "<end>", "<end>"),
    "word-piece": ("[CLS]", "[SEP]", "[PAD]"),
    "sentence-piece": ("<s>", "</s>", "<pad>"),
}


def tokenizer_of(kind: str, context_length: int = 16):
    """A fast tokenizer, trained on `CAPTIONS`, or ("slow") SigLIP's own, which is slow in every version."""
    from tokenizers import (
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    if kind == "slow":
        import sentencepiece

        model, path = io.BytesIO(), Path(tempfile.mkdtemp()) / "spiece.model"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CAPTIONS),
            model_writer=model,
            vocab_size=90,
            hard_vocab_limit=False,
            pad_id=-1,
            bos_id=-1,
            eos_id=1,
            unk_id=2,
            minloglevel=2,
        )
        path.write_bytes(model.getvalue())
        return transformers.SiglipTokenizer(str(path), model_max_length=context_length)
    start, end, pad = SPECIAL[kind]
    special, size = (
        list(dict.fromkeys([start, end, pad])),
        {"vocab_size": 90, "show_progress": False},
    )
    if kind == "byte-pair":
        tokenizer = Tokenizer(models.BPE(unk_token=end, end_of_word_suffix="</w>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        words = pre_tokenizers.Split(
            Regex(r"'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        trainer = trainers.BpeTrainer(special_tokens=special, end_of_word_suffix="</w>", **size)
    elif kind == "word-piece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = (
            normalizers.BertNormalizer(),
            pre_tokenizers.BertPreTokenizer(),
        )
        trainer = trainers.WordPieceTrainer(special_tokens=[pad, start, end, "[UNK]"], **size)
    else:  # by hand: this trainer's result is another one in every process
        letters = sorted({letter for caption in CAPTIONS for letter in caption if letter != " "})
        pieces = [*special, "<unk>", "▁", *letters, "▁a", "▁red", "▁the", "▁c", "og", "一只"]
        tokenizer = Tokenizer(
            models.Unigram([(piece, -3.0 * (piece in letters)) for piece in pieces], unk_id=3)
        )
        tokenizer.normalizer, tokenizer.pre_tokenizer = (
            normalizers.NFKC(),
            pre_tokenizers.Metaspace(),
        )
        tokenizer.add_special_tokens([*special, "<unk>"])
    if kind != "sentence-piece":
        tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=pad,
        model_max_length=context_length,
    )


def images_of(name: str, size: int = 32):
    """The image processor of a model of this name."""
    square = {"height": size, "width": size}
    if name == "Siglip2":
        return transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=size * size // 64)
    if name in ("Siglip", "ChineseCLIP"):
        return getattr(transformers, f"{name}ImageProcessor")(
            size=square, crop_size=square, do_center_crop=False
        )
    return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)


READS_WITH = {
    "CLIP": "byte-pair",
    "Siglip": "slow",
    "Siglip2": "sentence-piece",
    "MetaClip2": "sentence-piece",
    "ChineseCLIP": "word-piece",
    "AltCLIP": "sentence-piece",
}


def with_processor(name: str, **options) -> tuple[nn.Module, SimpleNamespace]:
    """A tiny model, and a processor that is its own."""
    tokenizer = tokenizer_of(READS_WITH[name])
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16 if _TEXT[name]["max_position_embeddings"] < 40 else 40,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return build_hub(name, text=text, **options), processor_of(images_of(name), tokenizer)
