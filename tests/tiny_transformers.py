"""Tiny models of transformers with random weights, and tokenizers of every kind, without a hub."""

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
# two prompts: CLS, words, SEP, padding
IDS = torch.tensor(
    [
        [1, 9, 14, 7, 30, 2, 0, 0, 0, 0, 0, 0],
        [1, 17, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
)
TEXTS = {
    "CLIP": {"max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2},
    "Siglip": {"max_position_embeddings": 12, "projection_size": 64},
    "MetaClip2": {"max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2},
    "ChineseCLIP": {"max_position_embeddings": 40, "pad_token_id": 0},
    "AltCLIP": {"max_position_embeddings": 40, "pad_token_id": 0, "project_dim": 56},
}
# transformers 4.48 has fewer
NAMES = [name for name in TEXTS if hasattr(transformers, f"{name}Model")]
TOKENIZERS = {
    "CLIP": "byte-pair",
    "Siglip": "slow",
    "MetaClip2": "sentence-piece",
    "ChineseCLIP": "word-piece",
    "AltCLIP": "sentence-piece",
}


def ids_of(name: str) -> torch.Tensor:
    """Two prompts as a model of this name reads them."""
    if name == "CLIP":  # an old config, whose EOT is the largest id
        return torch.where(IDS == 2, VOCABULARY - 1, IDS)
    return IDS


def build_tiny(
    name: str,
    attention: str = "sdpa",
    text: dict | None = None,
    **options,
) -> nn.Module:
    """A tiny `CLIPModel`, `SiglipModel`, ..., in evaluation mode."""
    if name != "Siglip":
        options["projection_dim"] = 48
    config = getattr(transformers, f"{name}Config")(
        text_config={**LAYERS, "vocab_size": VOCABULARY, **TEXTS[name], **(text or {})},
        vision_config=VISION,
        **options,
    )
    if name in ("ChineseCLIP", "AltCLIP") and transformers.__version__ < "5":
        attention = "eager"  # these had no other
    kind = getattr(transformers, f"{name}Model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stir(kind._from_config(config, attn_implementation=attention))


def images_of(name: str, size: int = 32):
    """The image processor of a model of this name."""
    square = {"height": size, "width": size}
    if name in ("Siglip", "ChineseCLIP"):
        kind = getattr(transformers, f"{name}ImageProcessor")
        return kind(size=square, crop_size=square, do_center_crop=False)
    return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)


def processor_of(image_processor=None, tokenizer=None) -> SimpleNamespace:
    """A processor is its two parts."""
    return SimpleNamespace(image_processor=image_processor, tokenizer=tokenizer)


def with_processor(name: str) -> tuple[nn.Module, SimpleNamespace]:
    """A tiny model with a processor that belongs to it."""
    tokenizer = tokenizer_of(TOKENIZERS[name])
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 40 if name in ("ChineseCLIP", "AltCLIP") else 16,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return build_tiny(name, text=text), processor_of(images_of(name), tokenizer)


# ---------------------------------------------------------------------------------- tokenizers

CAPTIONS = [
    "a red car and a blue ball on the grass.",
    "the small dog's owner is naïve",
    "two big pictures of a café",
    "a photo of one cat, unlike others",
    "一只红色的猫",
    "一只小狗",
] * 8


def tokenizer_of(kind: str, context_length: int = 16):
    """A tokenizer that knows the words of `CAPTIONS`; the kind "slow" is SigLIP's own."""
    if kind == "slow":
        return slow_tokenizer(context_length)
    make = {"byte-pair": byte_pair, "word-piece": word_piece, "sentence-piece": sentence_piece}
    tokenizer, start, end, pad = make[kind]()

    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(
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


def byte_pair():
    """CLIP's kind, padded with its end token."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    start, end = "<start>", "<end>"
    tokenizer = Tokenizer(models.BPE(unk_token=end, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = Regex(r"'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=90,
        special_tokens=[start, end],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    return tokenizer, start, end, end


def word_piece():
    """BERT's kind."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    start, end, pad = "[CLS]", "[SEP]", "[PAD]"
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [pad, start, end, "[UNK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    return tokenizer, start, end, pad


def sentence_piece():
    """XLM-RoBERTa's kind, by hand: a trained one differs in every process."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    start, end, pad = "<s>", "</s>", "<pad>"
    letters = sorted(set("".join(CAPTIONS)) - {" "})
    special = [start, end, pad, "<unk>"]
    pieces = [(piece, 0.0) for piece in [*special, "▁"]]
    pieces += [(letter, -3.0) for letter in letters]
    pieces += [(piece, 0.0) for piece in ("▁a", "▁red", "▁the", "▁c", "og", "一只")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(special)
    return tokenizer, start, end, pad


def slow_tokenizer(context_length: int):
    """SigLIP's own, which has no offsets in any version."""
    import sentencepiece

    model = io.BytesIO()
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
    path = Path(tempfile.mkdtemp()) / "spiece.model"
    path.write_bytes(model.getvalue())
    return transformers.SiglipTokenizer(str(path), model_max_length=context_length)
