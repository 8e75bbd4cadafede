"""Convert: what open_clip and transformers make of the same weights is the same explanation."""

import dataclasses

import numpy as np
import open_clip
import pytest
import torch

from gradeclip_utils import Clip, Explainer, UnsupportedModel, load_clip
from gradeclip_utils.__main__ import main
from gradeclip_utils.models.convert import to_open_clip, to_transformers
from gradeclip_utils.scenes import draw_scene
from tests.conftest import build, wrap
from tests.huggingface import transformers, with_processor


def assert_same(found, expected, tolerance=1e-6):
    assert found.similarity == pytest.approx(expected.similarity, abs=tolerance)
    np.testing.assert_allclose(found.image_maps, expected.image_maps, atol=tolerance)
    for words, others in zip(found.words, expected.words, strict=True):
        assert [(word.text, word.start) for word in words] == [(word.text, word.start) for word in others]
        assert [w.score for w in words] == pytest.approx([w.score for w in others], abs=tolerance)


def test_the_bundled_model_gives_the_same_explanation_as_a_clipmodel_and_back(bundled, tmp_path, capsys):
    scene = draw_scene(seed=4)
    image, prompts = scene.image(), [scene.caption, "a red car, and a dog's ball."]
    hub, back = tmp_path / "hub", tmp_path / "back"
    assert main(["convert", "emoji", "--out", str(hub)]) == 0
    assert main(["convert", f"transformers:{hub}", "--out", str(back)]) == 0
    said = capsys.readouterr().out
    assert f"load_clip('transformers:{hub}')" in said and f"load_clip('{back}')" in said
    expected = Explainer(bundled).explain(image, prompts)
    converted, again = load_clip(f"transformers:{hub}"), load_clip(back)
    assert type(converted.model).__name__ == "CLIPModel" and isinstance(again.model, open_clip.CLIP)
    layers = {"image_layers": bundled.image_layers}  # which a config of transformers or open_clip does not say
    assert_same(Explainer(converted, **layers).explain(image, prompts), expected)
    assert_same(Explainer(again, **layers).explain(image, prompts), expected)
    surgery = [Explainer(clip, method="clip-surgery").explain(image, prompts) for clip in (bundled, converted)]
    assert_same(*surgery)  # the one method that asks what attention adds to the tokens
    own = bundled.model.state_dict()
    assert all(torch.equal(value, own[key].float()) for key, value in again.model.state_dict().items())


@pytest.mark.parametrize(("quick", "mode"), [(False, "squash"), (True, "shortest")])
def test_activation_and_preprocessing_go_along(quick, mode, tmp_path):
    model = build(quick_gelu=quick)
    cfg = open_clip.transform.PreprocessCfg(size=32, resize_mode=mode, mean=(0.5,) * 3, std=(0.25,) * 3)
    preprocess = open_clip.transform.image_transform_v2(cfg, is_train=False)
    to_transformers(dataclasses.replace(wrap(model), preprocess=preprocess), tmp_path / "hub")
    found = load_clip(f"transformers:{tmp_path}/hub")
    assert found.model.config.vision_config.hidden_act == ("quick_gelu" if quick else "gelu")
    to_open_clip(found, tmp_path / "back")
    again = load_clip(tmp_path / "back").model
    said = open_clip.get_model_preprocess_cfg(again)
    assert (said["resize_mode"], *said["size"], *said["mean"]) == (mode, 32, 32, 0.5, 0.5, 0.5)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


def test_a_model_that_has_no_place_in_the_other_library_is_refused(tmp_path):
    averaging = wrap(build({"pool_type": "avg", "final_ln_after_pool": True}))
    with pytest.raises(UnsupportedModel, match=r"the converted CLIPModel differs from the CLIP by \d"):
        to_transformers(averaging, tmp_path / "out")
    scaled = wrap(build({"ls_init_value": 0.5}))
    with pytest.raises(UnsupportedModel, match="a CLIPModel has no place for a part of tiny"):
        to_transformers(scaled, tmp_path / "out")
    with pytest.raises(UnsupportedModel, match="can be converted, and this one is made of ResizeKeepRatio, CenterCrop"):
        to_transformers(wrap(build(), resize_mode="longest"), tmp_path / "out")
    with pytest.raises(UnsupportedModel, match="can be converted, and this one is made of function"):
        to_transformers(dataclasses.replace(wrap(build()), preprocess=lambda image: None), tmp_path / "out")
    with pytest.raises(UnsupportedModel, match="and this is a CustomTextCLIP with a SimpleTokenizer"):
        to_transformers(wrap(build(custom_text=True)), tmp_path / "out")
    with pytest.raises(UnsupportedModel, match="this is a ChineseCLIPModel\n"):
        to_open_clip(Clip.from_transformers(*with_processor("ChineseCLIP")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    assert main(["convert", "emoji", "--out", str(tmp_path)]) == 2
    assert "is there already: --out takes a new folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch, tiny):
    def fails(*given):
        raise OSError("no space left")

    monkeypatch.setattr(transformers.CLIPModel, "save_pretrained", fails)
    with pytest.raises(OSError, match="no space left"):
        to_transformers(tiny, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
