"""Hugging Face encoders inside open_clip (BiomedCLIP, multilingual CLIPs)."""

import copy
from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from torch.nn import functional as F

from gradeclip_utils import Clip, Explainer, UnsupportedModel
from gradeclip_utils.towers import open_text_tower
from tests.conftest import TINY_VISION
from tests.shrinking import stir
from tests.tiny_transformers import LAYERS, tokenizer_of, transformers
from tests.towers.test_architectures import close, close_to_one

CAPTION = "a red car, a naïve café"
SIZES = {**LAYERS, "max_position_embeddings": 40}
# the class of the config, the tokenizer, the pooler, the projection
ENCODERS = {
    "BERT, CLS through its own pooler": ("Bert", "word-piece", "cls_pooler", "mlp"),
    "BERT, CLS as it is": ("Bert", "word-piece", "cls_last_hidden_state_pooler", None),
    "BERT, mean": ("Bert", "word-piece", "mean_pooler", "linear"),
    "RoBERTa": ("Roberta", "byte-pair", "mean_pooler", "mlp"),
    "XLM-RoBERTa": ("XLMRoberta", "sentence-piece", "mean_pooler", "mlp"),
}


@pytest.fixture(scope="module")
def clip_of(tmp_path_factory):
    """An open_clip model with the encoder of a name, and the tokenizer that open_clip wraps."""
    folder = tmp_path_factory.mktemp("encoders")

    @cache
    def make(name: str, other_pooler: str | None = None) -> Clip:
        kind, tokens, pooler, projection = ENCODERS[name]
        place = str(Path(folder, name.replace(" ", "-")))
        tokenizer = tokenizer_of(tokens, 16)
        tokenizer.save_pretrained(place)
        config = getattr(transformers, f"{kind}Config")(
            **SIZES,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
        config.save_pretrained(place)

        text = {
            "hf_model_name": place,
            "hf_model_pretrained": False,
            "hf_pooler_type": other_pooler or pooler,
            "hf_proj_type": projection,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            width = 64 if projection is None else 48
            model = stir(open_clip.CustomTextCLIP(width, TINY_VISION, text))
        preprocess = open_clip.image_transform(32, is_train=False)
        return Clip(model, preprocess, HFTokenizer(place, context_length=16), name)

    return make


def scores_of(words):
    return [word.score for word in words]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_trace_is_what_encode_text_gives_and_padding_is_in_no_part_of_it(name, clip_of):
    clip = clip_of(name)
    ids = clip.tokenizer([CAPTION, "一只猫"])
    with torch.no_grad():
        expected = F.normalize(clip.model.encode_text(ids), dim=-1)
    tower = open_text_tower(clip.model, 3)
    trace = tower.trace(ids)
    close(trace.embedding, expected)
    close(tower.trace(ids[1:]).embedding, expected[1:])

    is_padding = ~trace.valid_mask
    padding = ids[:, : is_padding.shape[1]][is_padding]
    assert is_padding[1].any()
    assert (padding == clip.tokenizer.tokenizer.pad_token_id).all()
    for layer in trace.layers:
        attention_to_padding = layer.attention.masked_select(is_padding[:, None, None])
        assert attention_to_padding.abs().max() < 1e-6
        close_to_one(layer.attention.sum(dim=-1))


@pytest.mark.parametrize("name", ENCODERS)
def test_words_and_interactions_are_given_in_the_prompt_as_it_was_written(name, clip_of, picture):
    explainer = Explainer(clip_of(name), words="grad-eclip")
    # open_clip cleans white space, and the places must survive it
    caption = f"  {CAPTION.replace(' ', '  ')}"
    words, chinese = explainer.explain(picture, [caption, "一只猫"]).words
    written = ["a", "red", "car", ",", "a", "naïve", "café"]
    assert len(words) >= 5
    assert [word.text for word in words] == written[: len(words)]
    for word in words:
        assert caption[word.start : word.end] == word.text
    assert "".join(word.text for word in chinese) == "一只猫"

    interactions = explainer.interactions(picture, caption)
    scores = scores_of(words)
    assert any(scores)
    assert scores_of(interactions.words[0]) == pytest.approx(scores, abs=1e-5)
    assert interactions.image_maps.shape == (len(words), 4, 4)


@pytest.mark.parametrize("method", ["attention", "rollout", "game", "m2ib"])
def test_scores_of_words_do_not_depend_on_the_padding_that_a_longer_prompt_brings(
    method, clip_of, picture
):
    explainer = Explainer(clip_of("BERT, mean"), method=method)
    alone = explainer.explain(picture, "一只猫")
    padded = explainer.explain(picture, ["一只猫", CAPTION])
    expected = scores_of(alone.words[0])
    assert scores_of(padded.words[0]) == pytest.approx(expected, rel=1e-3)


def test_other_poolers_and_encoders_are_refused_by_name(clip_of):
    model = clip_of("BERT, mean", other_pooler="max_pooler").model
    with pytest.raises(UnsupportedModel, match="a BertModel with a MaxPooler: only CLS or a mean"):
        open_text_tower(model)

    model = copy.deepcopy(clip_of("BERT, mean").model)
    config = transformers.DistilBertConfig(dim=64, n_heads=4, n_layers=1)
    model.text.transformer = transformers.DistilBertModel(config)
    with pytest.raises(UnsupportedModel, match="a DistilBertModel; of Hugging Face encoders only"):
        open_text_tower(model)
