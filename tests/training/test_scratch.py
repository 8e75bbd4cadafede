"""The bundled model's training: seeded, resumable, and equal to CLIP's own arithmetic."""

import inspect
from collections import Counter
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import arrange, draw_scene
from gradeclip_utils.towers import open_image_tower
from tests.scenes import is_trained
from training import scratch
from training.__main__ import main
from training.rounds import MODELS, Recipe, SceneBatches, hard_negative, shuffle_colours

SHORT = Recipe(steps=4, batch=6, warmup=2)


def run(folder, recipe=SHORT, **options):
    return scratch.train_round(folder, recipe, workers=0, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(folder)


def test_scenes_begin_with_one_object_and_grow_and_a_round_that_has_a_start_begins_with_full_ones():
    counts = [
        np.mean(
            [
                len(scene.objects)
                for scene in SceneBatches(Recipe(steps=100, batch=60, start=start)).scenes(0)
            ]
        )
        for start in ("", "x")
    ]
    grown = SceneBatches(Recipe(steps=100, batch=60)).scenes(60)
    assert counts[0] < 1.5 < min(counts[1], np.mean([len(scene.objects) for scene in grown]))


def bag(caption):
    """The words of a caption, in alphabetical order, but for the articles, which follow the next word's sound."""
    return sorted(word for word in caption.replace(",", " ,").split() if word not in ("a", "an"))


def test_the_true_and_the_swapped_caption_are_equally_frequent_where_colours_are_shuffled():
    scene = arrange(["orange car", "red dog"], prefix="here is", size=["", "small"])
    rng = np.random.default_rng(0)
    captions = Counter(shuffle_colours(scene, rng).caption for _ in range(600))
    assert set(captions) == {
        "here is an orange car and a small red dog",
        "here is a red car and a small orange dog",
    }
    assert binomtest(captions[scene.caption], 600).pvalue > 0.01
    three = arrange(["red car", "blue dog", "green cat"])
    assert len({shuffle_colours(three, rng).caption for _ in range(100)}) == 6
    half = arrange(["red car", "owl"])  # what is said of one thing may be said of the other
    assert {shuffle_colours(half, rng).caption for _ in range(30)} == {
        "a red car and an owl",
        "a car and a red owl",
    }


def test_training_knows_nothing_of_where_things_are():
    """A batch holds images and tokens, the recipes name no place, and the loss reads nothing else."""
    images, tokens = SceneBatches(SHORT)[0]
    assert (
        images.shape == (6, 96, 96, 3) and images.dtype == torch.uint8 and tokens.shape == (6, 77)
    )
    places = ("thing", "mask", "box", "square", "position", "place")
    assert not [one.name for one in fields(Recipe) if any(word in one.name for word in places)]
    inside = inspect.getsource(scratch.train_round) + inspect.getsource(scratch.PatchDropout)
    assert not any(word in inside for word in ("scenes(", "objects", "Scene)", *places))


def test_dropout_keeps_as_many_patches_as_it_was_told_and_all_of_them_equally_often():
    tokens = torch.cat([torch.full((1, 1), -1.0), torch.arange(144.0)[None]], 1)[..., None].expand(
        64, -1, -1
    )
    dropout = scratch.PatchDropout().train()
    dropout.visible = 0.25
    seen = torch.cat([dropout(tokens)[..., 0] for _ in range(50)])
    assert seen.shape == (3200, 37) and (seen[:, 0] == -1).all()
    assert all(len(set(row)) == 37 for row in seen[:100].tolist())
    counts = torch.bincount(seen[:, 1:].flatten().long(), minlength=144)
    assert (counts - 800).abs().max() < 5 * (3200 * 0.25 * 0.75) ** 0.5
    assert dropout.eval()(tokens) is tokens


def test_shuffling_colours_leaves_the_image_and_the_bag_of_words_and_what_the_other_words_speak_of():
    plain = Recipe(steps=4, batch=60, tint=0.7, start="x")
    shuffled = replace(plain, shuffled_colours=True)
    changed = 0
    for step in range(4):
        for before, after in zip(
            SceneBatches(plain).scenes(step), SceneBatches(shuffled).scenes(step), strict=True
        ):
            assert (after.objects, after.background) == (before.objects, before.background)
            alone = len(before.words_of("noun")) == 1
            said = [word for word, _ in before.words_of("colour")] * alone
            assert sorted([*bag(after.caption), *said]) == bag(before.caption)
            kinds = {s.kind for s in before.spans}
            assert all(after.words_of(kind) == before.words_of(kind) for kind in kinds - {"colour"})
            if not before.words_of("noun"):
                assert after == before
            changed += after.caption != before.caption
    assert changed > 20
    assert SceneBatches(shuffled).scenes(2) == SceneBatches(shuffled).scenes(2)


def test_a_hard_negative_shows_the_same_things_with_their_colours_passed_on():
    told_apart = 0
    for i, scene in enumerate(
        draw_scene([77, i], split="development", tint=0.5) for i in range(200)
    ):
        other = hard_negative(scene, [78, i])
        if other is None:
            continue
        told_apart += 1
        known = {(t.noun, t.colour) for t in scene.objects}
        assert sorted(t.noun for t in other.objects) == sorted(t.noun for t in scene.objects)
        assert {t.colour for t in other.objects} == {t.colour for t in scene.objects}
        assert {(t.noun, t.colour) for t in other.objects} != known
        assert is_trained(other.objects) and not other.unnamed
        assert {c for c, _ in other.words_of("colour")} <= {t.colour for t in other.objects}
    assert told_apart > 60
    assert hard_negative(arrange(["car", "ball"]), [0]) is None


def test_a_round_begins_from_the_weights_of_a_checkpoint(trained, tmp_path, bundled):
    start = tmp_path / "first.safetensors"
    scratch.export(trained[0], start)
    recipe, ids = (
        replace(SHORT, start=str(start), hard_negatives=True),
        scratch.vocabulary_ids(bundled.tokenizer),
    )
    begun = scratch.new_model(recipe, ids).state_dict()
    stored = torch.isin(
        ids, load_file(start)["token_ids"]
    )  # the padding token is not: nothing reads it
    assert stored.sum() == len(ids) - 1
    for name, weight in trained[1].state_dict().items():  # which half precision has rounded
        rows = stored if name == "token_embedding.weight" else slice(None)
        assert (
            torch.allclose(weight[rows], begun[name][rows], atol=2e-3, rtol=1e-3)
            if weight.ndim
            else True
        ), name
    second = run(tmp_path / "second", recipe)
    state = torch.load(tmp_path / "second/state.pt", weights_only=True)
    assert state["settings"]["start"] == str(start) and len(state["log"]) == SHORT.steps
    assert not torch.equal(second.state_dict()["visual.proj"], begun["visual.proj"])
    with pytest.raises(GradeclipError, match="missing.safetensors"):
        run(tmp_path / "third", replace(SHORT, start="missing.safetensors"))


def test_text_encoded_by_length_is_the_models_own_text(bundled):
    captions = [draw_scene(i).caption for i in range(30)]
    tokens = bundled.tokenizer(captions)
    with torch.no_grad():
        expected = bundled.model.encode_text(tokens)
        assert torch.allclose(
            scratch.encode_text_by_length(bundled.model, tokens), expected, atol=1e-5
        )


def test_training_sees_what_the_models_preprocessing_makes_of_an_image(bundled):
    scene = draw_scene(3)
    images = torch.from_numpy(np.array(scene.image(96)))[None]
    expected = bundled.preprocess(scene.image(96))
    assert torch.allclose(scratch.normalise(images)[0], expected, atol=1e-5)


def test_an_exported_model_is_the_trained_one(trained, tmp_path):
    folder, model = trained
    scratch.export(folder, tmp_path / "mine.safetensors", image_layers=2)
    clip = load_clip("emoji", tmp_path / "mine.safetensors")
    scene = draw_scene(1)
    pixels, tokens = clip.preprocess(scene.image(96))[None], clip.tokenizer([scene.caption])
    ids = scratch.vocabulary_ids(clip.tokenizer)
    compact = torch.zeros(clip.model.vocab_size, dtype=torch.long).index_copy(
        0, ids, torch.arange(len(ids))
    )
    with torch.no_grad():
        image = model.encode_image(pixels, normalize=True)
        text = torch.nn.functional.normalize(
            scratch.encode_text_by_length(model, compact[tokens]), dim=-1
        )
        assert torch.allclose(clip.model.encode_image(pixels, normalize=True), image, atol=3e-3)
        assert torch.allclose(clip.model.encode_text(tokens, normalize=True), text, atol=3e-3)
    assert "car" in clip.vocabulary and clip.model.vocab_size == 49408 and clip.image_layers == 2


def test_the_density_of_values_counts_the_patches_that_have_them_whatever_their_scale():
    values = torch.zeros(2, 16, 5)
    values[0, :4], values[1] = torch.ones(5), 3 * torch.ones(5)
    assert scratch.value_density(values).item() == pytest.approx(
        (np.sqrt(4 / 16) + 1) / 2, abs=1e-2
    )
    some = torch.randn(3, 16, 5)
    assert scratch.value_density(100 * some).item() == pytest.approx(
        scratch.value_density(some).item(), rel=1e-4
    )
    some.requires_grad_()
    scratch.value_density(some * torch.tensor([0.0] * 8 + [1.0] * 8)[:, None]).backward()
    assert torch.isfinite(some.grad).all()


def test_the_values_that_are_noted_are_those_that_the_explanation_sees(bundled):
    clip, pixels = bundled, torch.randn(2, 3, 96, 96)
    with scratch.noted_values(clip.model, 3) as noted:
        clip.model.encode_image(pixels)
    explained = open_image_tower(clip.model, 3).trace(pixels).layers
    for values, layer in zip(noted, explained, strict=True):
        torch.testing.assert_close(values, layer.v[:, 1:].flatten(2), rtol=1e-4, atol=1e-4)
    clip.model.encode_image(pixels)
    assert len(noted) == 3  # nothing is noted afterwards


def test_a_round_with_sparse_values_and_a_scale_that_is_held_says_both_losses(tmp_path):
    model = run(tmp_path, replace(SHORT, sparse_values=0.5, logit_scale=50.0))
    log = pd.DataFrame(torch.load(tmp_path / "state.pt", weights_only=True)["log"])
    assert np.allclose(log["loss"], log["contrastive"] + 0.5 * log["density"], atol=1e-4)
    assert log["density"].between(0.3, 1).all()
    assert model.logit_scale.exp().item() == pytest.approx(50)


def test_one_command_trains_all_rounds_and_goes_on_in_the_round_that_was_killed(
    tmp_path, monkeypatch
):
    rounds = replace(SHORT, steps=2), replace(SHORT, steps=2, seed=1)
    options = {"start": "", "image_layers": 2, "workers": 0}
    scratch.train_rounds(rounds, tmp_path / "whole", tmp_path / "whole.safetensors", **options)
    draw = SceneBatches.__getitem__

    def killed(self, step):
        if self.recipe.seed == 1 and step == 1:
            raise KeyboardInterrupt
        return draw(self, step)

    monkeypatch.setattr(SceneBatches, "__getitem__", killed)
    monkeypatch.setattr(scratch, "train_round", partial(scratch.train_round, save_every=1))
    with pytest.raises(KeyboardInterrupt):
        scratch.train_rounds(rounds, tmp_path / "cut", tmp_path / "cut.safetensors", **options)
    monkeypatch.undo()
    assert (tmp_path / "cut/round-1.safetensors").exists() and not (
        tmp_path / "cut.safetensors"
    ).exists()
    assert len(torch.load(tmp_path / "cut/round-2" / scratch.STATE, weights_only=True)["log"]) == 1
    scratch.train_rounds(rounds, tmp_path / "cut", tmp_path / "cut.safetensors", **options)
    whole, cut = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert load_clip("emoji", tmp_path / "cut.safetensors").image_layers == 2


def test_the_recipes_are_those_of_the_card():
    first, second, third, *later = MODELS["emoji"]
    assert not first.hard_negatives and second.hard_negatives and third.hard_negatives
    assert all(
        (one.sparse_values, one.logit_scale, one.hard_negatives) == (2, 100, True)
        for one in (third, *later)
    )
    for one in MODELS["emoji-plain"]:
        assert not (
            one.hard_negatives or one.sparse_values or one.logit_scale or one.shuffled_colours
        )
    assert not {one.seed for one in MODELS["emoji-plain"]} & {one.seed for one in MODELS["emoji"]}
    steps = {name: sum(one.steps for one in rounds) for name, rounds in MODELS.items()}
    assert 2 * steps["emoji-plain"] >= steps["emoji"]
    (bag,), (control,) = MODELS["emoji-bag"], MODELS["emoji-bag-control"]
    assert control == replace(bag, shuffled_colours=False) and bag.shuffled_colours


def test_a_wrong_command_is_refused_in_one_sentence(tmp_path, capsys):
    assert main(["card", "--parts", "poetry"]) == 2
    assert "poetry" in capsys.readouterr().err
    assert main(["card", "--write"]) == 2 and "--split test" in capsys.readouterr().err
    assert (
        main(
            [
                "emoji-bag",
                "--start",
                "missing.safetensors",
                "--folder",
                str(tmp_path),
                "--image-layers",
                "1",
                "--out",
                str(tmp_path / "x.safetensors"),
            ]
        )
        == 2
    )
    assert "missing.safetensors" in capsys.readouterr().err
