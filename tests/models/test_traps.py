"""Traps of real checkpoints, on random weights in the published forms: each is explained as expected, or refused."""

import open_clip
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer, ExplanationWarning, load_clip
from tests.conftest import TINY_TEXT, TINY_VISION

NAME = "ViT-trap"  # as a small ViT-B-16, with CLIP's own context and vocabulary
CONFIG = {"embed_dim": 48, "vision_cfg": TINY_VISION, "text_cfg": {**TINY_TEXT, "context_length": 77}}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, NAME, {**CONFIG, "text_cfg": {**CONFIG["text_cfg"]}})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(open_clip.CLIP(**CONFIG).state_dict(), path)
    return path


def test_the_default_of_a_real_clip_is_the_papers_one_layer_and_is_printed(weights):
    clip = load_clip(NAME, weights)
    assert Explainer(clip).image_tower.layers == 1
    assert "explained by default: the last 1 image layer" in str(clip)
    bundled = load_clip("emoji")
    assert Explainer(bundled).image_tower.layers == (bundled.image_layers or 1)


def test_text_beyond_77_tokens_is_cut_off_with_a_warning(weights, picture):
    explainer = Explainer(load_clip(NAME, weights))
    with pytest.warns(ExplanationWarning, match="stops reading|cut|not read"):
        found = explainer.explain(picture, "a red car and a dog " * 20)
    assert len(found.words[0]) < 100 and found.image_maps.any()


def test_a_caption_in_another_language_is_explained_word_by_word(weights, picture):
    found = Explainer(load_clip(NAME, weights)).explain(picture, "ein schöner Hund, 一只猫")
    words = [word.text for word in found.words[0]]
    assert words[:4] == ["ein", "schöner", "Hund", ","] and "".join(words[4:]) == "一只猫"


@pytest.mark.parametrize("precision", ["fp16", "bf16", "pure_bf16"])
def test_half_precision_is_explained_as_full_precision(weights, picture, precision):
    full, half = (Explainer(load_clip(NAME, weights, precision=one)) for one in ("fp32", precision))
    full, half = (one.explain(picture, "a red car") for one in (full, half))
    assert half.similarity == pytest.approx(full.similarity, abs=0.02)
    maps = [torch.from_numpy(one.image_maps).flatten() for one in (full, half)]
    assert F.cosine_similarity(*maps, dim=0) > 0.98
