"""Hugging Face encoders inside open_clip (BiomedCLIP, multilingual CLIPs): words and interactions, or a refusal."""

import copy
from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from torch.nn import functional as F

from gradeclip_utils import Clip, Explainer, UnsupportedModel
from gradeclip_utils.towers import open_text_tower
from tests.conftest import TINY_VISION
from tests.huggingface import LAYERS, tokenizer_of, transformers
from tests.shrinking import stir

CAPTION = "a red car, a naïve café"
BERT = {**LAYERS, "max_position_embeddings": 40}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4, "num_layers": 3}
M2M = {
    "d_model": 64,
    "encoder_ffn_dim": 96,
    "encoder_attention_heads": 4,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 40,
}
ENCODERS = {  # the class of the config, its sizes, the tokenizer, the pooler, the projection
    "BERT, CLS through its own pooler": ("BertConfig", BERT, "word-piece", "cls_pooler", "mlp"),
    "BERT, CLS as it is": ("BertConfig", BERT, "word-piece", "cls_last_hidden_state_pooler", None),
    "BERT, mean": ("BertConfig", BERT, "word-piece", "mean_pooler", "linear"),
    "RoBERTa": ("RobertaConfig", BERT, "byte-pair", "mean_pooler", "mlp"),
    "XLM-RoBERTa": ("XLMRobertaConfig", BERT, "sentence-piece", "mean_pooler", "mlp"),
    "mT5": ("MT5Config", T5, "sentence-piece", "mean_pooler", "mlp"),
    "mT5, not gated": (
        "MT5Config",
        {**T5, "feed_forward_proj": "relu"},
        "sentence-piece",
        "mean_pooler",
        "mlp",
    ),
    "M2M-100": ("M2M100Config", M2M, "sentence-piece", "cls_pooler", "mlp"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def clip_of(folder):
    """An open_clip model with the encoder of a name, and the tokenizer that open_clip wraps."""

    @cache
    def made(name: str, pooler: str | None = None) -> Clip:
        kind, sizes, tokens, own_pooler, proj = ENCODERS[name]
        place, tokenizer = str(folder / name.replace(" ", "-")), tokenizer_of(tokens, 16)
        tokenizer.save_pretrained(place)
        getattr(transformers, kind)(
            **sizes,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=0,
            bos_token_id=tokenizer.bos_token_id,
        ).save_pretrained(place)
        text = {
            "hf_model_name": place,
            "hf_model_pretrained": False,
            "hf_pooler_type": pooler or own_pooler,
            "hf_proj_type": proj,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = stir(open_clip.CustomTextCLIP(64 if proj is None else 48, TINY_VISION, text))
        assert isinstance(model.text, HFTextEncoder)
        preprocess = open_clip.image_transform(32, is_train=False)
        return Clip(model, preprocess, HFTokenizer(place, context_length=16), name)

    return made


@pytest.mark.parametrize("name", ENCODERS)
def test_the_trace_is_what_encode_text_gives_and_padding_is_in_no_part_of_it(name, clip_of):
    clip = clip_of(name)
    ids = clip.tokenizer([CAPTION, "一只猫"])
    with torch.no_grad():
        own = F.normalize(clip.model.encode_text(ids), dim=-1)
    tower = open_text_tower(clip.model, 3)
    trace = tower.trace(ids)
    torch.testing.assert_close(trace.embedding, own, atol=1e-5, rtol=0)
    torch.testing.assert_close(tower.trace(ids[1:]).embedding, own[1:], atol=1e-5, rtol=0)
    padding = ~trace.valid_mask
    assert (
        padding[1].any()
        and (ids[:, : padding.shape[1]][padding] == clip.tokenizer.tokenizer.pad_token_id).all()
    )
    for layer in trace.layers:
        seen = layer.attention.masked_select(padding[:, None, None])
        assert seen.abs().max() < 1e-6 and torch.allclose(layer.attention.sum(-1), torch.ones(()))


@pytest.mark.parametrize("name", ENCODERS)
def test_words_and_interactions_are_given_in_the_prompt_as_it_was_written(name, clip_of, picture):
    explainer = Explainer(clip_of(name))
    caption = f"  {CAPTION.replace(' ', '  ')}"  # open_clip cleans white space, and the places must survive it
    found = explainer.explain(picture, [caption, "一只猫"])
    words = found.words[0]
    assert [word.text for word in words] == ["a", "red", "car", ",", "a", "naïve", "café"][
        : len(words)
    ]
    assert len(words) >= 5 and all(caption[word.start : word.end] == word.text for word in words)
    assert "".join(word.text for word in found.words[1]) == "一只猫"
    apart = explainer.interactions(picture, caption)
    scores = [[word.score for word in each] for each in (words, apart.words)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5) and any(scores[0])
    assert apart.maps.shape == (len(words), 4, 4)


@pytest.mark.parametrize("method", ["attention", "rollout", "game", "m2ib"])
def test_scores_of_words_do_not_depend_on_the_padding_that_other_prompts_of_the_call_bring(
    method, clip_of, picture
):
    explainer = Explainer(clip_of("BERT, mean"), method=method)
    alone, beside = (
        explainer.explain(picture, ["一只猫", *others]).words[0] for others in ([], [CAPTION])
    )
    assert [word.score for word in beside] == pytest.approx(
        [word.score for word in alone], rel=1e-3
    )


def test_other_poolers_and_encoders_are_refused_by_name(clip_of):
    model = clip_of("BERT, mean", pooler="max_pooler").model
    with pytest.raises(
        UnsupportedModel, match="the text tower is a BertModel with a MaxPooler: only CLS or a mean"
    ):
        open_text_tower(model)
    model = copy.deepcopy(clip_of("BERT, mean").model)
    model.text.transformer = transformers.DistilBertModel(
        transformers.DistilBertConfig(dim=64, n_heads=4, n_layers=1)
    )
    with pytest.raises(
        UnsupportedModel, match="the text tower is a DistilBertModel; of Hugging Face"
    ):
        open_text_tower(model)


def test_one_head_for_a_model_whose_heads_have_a_bias_each_is_refused_by_name(clip_of, picture):
    with pytest.raises(UnsupportedModel, match="adds a bias to the logits of each head"):
        Explainer(clip_of("mT5"), method="grad-eclip-single-head").explain(picture, CAPTION)
    found = Explainer(clip_of("BERT, mean"), method="grad-eclip-single-head").explain(
        picture, CAPTION
    )
    assert found.words[0]
