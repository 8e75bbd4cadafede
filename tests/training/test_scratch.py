"""The bundled model's training: seeded, resumable, and equal to CLIP's own arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.__main__ import main
from gradeclip_utils.scenes import draw_scene, is_trained
from gradeclip_utils.training import scratch
from gradeclip_utils.training.scratch import CONFIG, Recipe, SceneBatches, encode_text_by_length, normalise, train

SHORT = Recipe(rounds=1, steps=4, batch=6, warmup=2)


def run(folder, recipe=SHORT, **options):
    return train(folder, recipe, workers=0, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(folder)


def test_training_that_is_killed_goes_on_to_the_same_weights(trained, tmp_path, monkeypatch):
    whole = SceneBatches.__getitem__

    def killed_in_the_third_step(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return whole(self, step)

    monkeypatch.setattr(SceneBatches, "__getitem__", killed_in_the_third_step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, save_every=1)
    monkeypatch.undo()
    resumed = run(tmp_path)
    for name, weight in trained[1].state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_another_recipe_in_the_same_folder_is_refused(trained):
    with pytest.raises(ValueError, match="holds a run of another recipe.*'seed': 0"):
        run(trained[0], replace(SHORT, seed=1))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(tmp_path, monkeypatch):
    run(tmp_path, replace(SHORT, steps=1))
    kept = (tmp_path / "state.pt").read_bytes()
    monkeypatch.setattr(scratch, "normalise", lambda pictures: torch.full((len(pictures), 3, 96, 96), torch.nan))
    with pytest.raises(FloatingPointError, match="the loss became nan at step 0"):
        run(tmp_path / "other")
    assert (tmp_path / "state.pt").read_bytes() == kept


def test_a_batch_is_the_same_whatever_was_asked_for_before():
    batches, again = SceneBatches(SHORT), SceneBatches(SHORT)
    batches[0]
    pictures, tokens = batches[3]
    assert torch.equal(pictures, again[3][0]) and torch.equal(tokens, again[3][1])
    assert not torch.equal(pictures, SceneBatches(replace(SHORT, seed=1))[3][0])


def test_scenes_begin_with_one_object_and_grow():
    batches = SceneBatches(Recipe(steps=100, batch=40))
    counts = [[len(scene.objects) for scene in batches.scenes(step)] for step in (0, 15, 60)]
    assert np.mean(counts[0]) < np.mean(counts[1]) < np.mean(counts[2]) and max(counts[2]) == 4


def things(scene):
    """Nouns with their numbers, and colours, each in alphabetical order: all that a bag of words can know."""
    return sorted(t.noun for t in scene.objects), sorted(str(t.colour) for t in scene.objects)


def test_from_the_second_round_on_scenes_have_companions_that_only_binding_tells_apart():
    batches = SceneBatches(Recipe(rounds=3, steps=10, batch=60))
    for step in (0, 9):
        scenes = batches.scenes(step)
        assert not any(things(a) == things(b) for a, b in zip(scenes[::2], scenes[1::2], strict=True))
    for step in (10, 25):
        scenes = batches.scenes(step)
        pairs = [(a, b) for a, b in zip(scenes[::2], scenes[1::2], strict=True) if things(a)[0] == things(b)[0]]
        assert len(pairs) > 5
        assert all({(t.noun, t.colour) for t in a.objects} != {(t.noun, t.colour) for t in b.objects} for a, b in pairs)
        assert all(is_trained(scene) for scene in scenes)


def test_a_round_starts_anew_in_all_but_the_weights(tmp_path):
    """What went before may only reach a round through the weights, so that a round can be repeated from them alone."""
    two = replace(SHORT, rounds=2)
    whole = run(tmp_path / "whole", two)
    state = {**torch.load(tmp_path / "whole/state.pt", weights_only=True)}
    run(tmp_path / "first", SHORT)
    first = torch.load(tmp_path / "first/state.pt", weights_only=True)
    stale = {"recipe": state["recipe"], "optimiser": state["optimiser"], "random": torch.get_rng_state()}
    (tmp_path / "again").mkdir()
    torch.save({**first, **stale}, tmp_path / "again/state.pt")
    again = run(tmp_path / "again", two)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_text_encoded_by_length_is_the_models_own_text(bundled):
    captions = [draw_scene(i).caption for i in range(30)]
    tokens = bundled.tokenizer(captions)
    with torch.no_grad():
        expected = bundled.model.encode_text(tokens)
        assert torch.allclose(encode_text_by_length(bundled.model, tokens), expected, atol=1e-5)


def test_training_sees_what_the_models_preprocessing_makes_of_a_picture(bundled):
    scene = draw_scene(3)
    pictures = torch.from_numpy(np.array(scene.image(96)))[None]
    expected = bundled.preprocess(scene.image(96))
    assert torch.allclose(normalise(pictures)[0], expected, atol=1e-5)


def test_every_token_of_a_caption_is_trained(bundled):
    ids = set(scratch.vocabulary_ids(bundled.tokenizer).tolist())
    for i in range(200):
        assert set(bundled.tokenizer.encode(draw_scene(i).caption)) <= ids


def test_an_exported_model_is_the_trained_one(trained, tmp_path):
    folder, model = trained
    assert main(["train", "--folder", str(folder), "--export", str(tmp_path / "mine.safetensors")]) == 0
    clip = load_clip("emoji", tmp_path / "mine.safetensors")
    scene = draw_scene(1)
    pixels, tokens = clip.preprocess(scene.image(96))[None], clip.tokenizer([scene.caption])
    ids = scratch.vocabulary_ids(clip.tokenizer)
    compact = torch.zeros(CONFIG["text_cfg"]["vocab_size"], dtype=torch.long).index_copy(0, ids, torch.arange(len(ids)))
    with torch.no_grad():
        image = model.encode_image(pixels, normalize=True)
        text = torch.nn.functional.normalize(encode_text_by_length(model, compact[tokens]), dim=-1)
        assert torch.allclose(clip.model.encode_image(pixels, normalize=True), image, atol=3e-3)
        assert torch.allclose(clip.model.encode_text(tokens, normalize=True), text, atol=3e-3)
    assert "car" in clip.vocabulary and clip.model.vocab_size == 49408


def test_export_before_training_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        scratch.export(tmp_path, tmp_path / "a.safetensors")
