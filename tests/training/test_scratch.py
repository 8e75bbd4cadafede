"""The bundled model's training: what it sees, what it cannot know, and CLIP's own arithmetic."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest

from gradeclip_utils import load_clip
from gradeclip_utils.scenes import arrange, draw_scene
from gradeclip_utils.towers import open_image_tower
from tests.scenes import is_trained
from training import scratch
from training.__main__ import main
from training.rounds import (
    Recipe,
    SceneBatches,
    hard_negative,
    leave_out_colours,
    shuffle_colours,
)

SHORT = Recipe(steps=3, batch=4, warmup=2)


def run(folder, recipe=SHORT, **options):
    return scratch.train_round(folder, recipe, workers=0, **options)


def load_state(folder):
    return torch.load(folder / scratch.STATE, weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short training, and its model."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(folder)


# ----------------------------------------------------------------------------------- batches


def mean_count(recipe, step):
    scenes = SceneBatches(recipe).scenes(step)
    return np.mean([len(scene.objects) for scene in scenes])


def test_scenes_begin_with_one_object_and_grow_and_a_later_round_begins_with_full_ones():
    first = Recipe(steps=100, batch=60)
    later = replace(first, start="x")
    assert mean_count(first, 0) < 1.5 < mean_count(first, 60)
    assert mean_count(later, 0) > 1.5


def bag_of_words(caption):
    """The words of a caption but articles, which follow the next word, in alphabetical order."""
    words = caption.replace(",", " ,").split()
    return sorted(word for word in words if word not in ("a", "an"))


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
    captions = {shuffle_colours(three, rng).caption for _ in range(100)}
    assert len(captions) == 6
    half = arrange(["red car", "owl"])  # what is said of one thing may be said of the other
    captions = {shuffle_colours(half, rng).caption for _ in range(30)}
    assert captions == {"a red car and an owl", "a car and a red owl"}


def test_each_colour_is_left_out_of_a_caption_with_the_given_probability_and_nothing_else():
    scene = arrange(["orange car", "red dog"], prefix="here is", size=["", "small"])
    rng = np.random.default_rng(0)
    captions = Counter(leave_out_colours(scene, 0.7, rng).caption for _ in range(600))
    expected = {
        "here is an orange car and a small red dog": 0.09,
        "here is an orange car and a small dog": 0.21,
        "here is a car and a small red dog": 0.21,
        "here is a car and a small dog": 0.49,
    }
    assert set(captions) == set(expected)
    for caption, probability in expected.items():
        assert binomtest(captions[caption], 600, probability).pvalue > 0.001


def test_shuffling_colours_leaves_the_image_and_the_bag_of_words_and_what_other_words_describe():
    plain = Recipe(steps=2, batch=40, tint=0.7, start="x")
    batches = SceneBatches(plain)
    shuffled_batches = SceneBatches(replace(plain, shuffled_colours=True))
    changed = 0
    for step in range(2):
        scenes = zip(batches.scenes(step), shuffled_batches.scenes(step), strict=True)
        for before, after in scenes:
            assert after.objects == before.objects
            assert after.background == before.background
            for kind in {span.kind for span in before.spans} - {"colour"}:
                assert after.words_of(kind) == before.words_of(kind)

            bag = bag_of_words(after.caption)
            if len(before.words_of("noun")) == 1:  # a single named thing loses its colour
                bag += [word for word, _ in before.words_of("colour")]
            assert sorted(bag) == bag_of_words(before.caption)
            changed += after.caption != before.caption
    assert changed > 7
    assert shuffled_batches.scenes(1) == shuffled_batches.scenes(1)


def test_a_hard_negative_shows_the_same_things_with_their_colours_passed_on():
    count = 0
    for i in range(80):
        scene = draw_scene([77, i], split="development", tint=0.5)
        negative = hard_negative(scene, [78, i])
        if negative is None:
            continue
        count += 1
        things = Counter((thing.noun, thing.colour) for thing in scene.objects)
        new_things = Counter((thing.noun, thing.colour) for thing in negative.objects)
        assert new_things != things
        assert sorted(noun for noun, _ in new_things) == sorted(noun for noun, _ in things)
        assert {colour for _, colour in new_things} == {colour for _, colour in things}
        assert is_trained(negative.objects)
        assert not negative.unnamed
    assert count > 20
    assert hard_negative(arrange(["car", "ball"]), [0]) is None


def test_training_knows_nothing_of_where_things_are():
    """A batch holds images and tokens, and nothing else."""
    images, tokens = SceneBatches(SHORT)[0]
    assert images.shape == (SHORT.batch, 96, 96, 3)
    assert images.dtype == torch.uint8
    assert tokens.shape == (SHORT.batch, 77)


# -------------------------------------------------------------------------------- arithmetic


def test_dropout_keeps_as_many_patches_as_it_was_told_and_all_of_them_equally_often():
    numbers = torch.arange(145)  # of the class token and the patches
    tokens = numbers[:, None].expand(3200, -1, -1)
    dropout = scratch.PatchDropout().train()
    dropout.visible = 0.25
    visible = dropout(tokens)[..., 0]
    assert visible.shape == (3200, 37)
    assert (visible[:, 0] == 0).all()
    for row in visible[:100].tolist():
        assert len(set(row)) == 37

    counts = torch.bincount(visible[:, 1:].flatten())[1:]
    deviation = (3200 * 0.25 * 0.75) ** 0.5
    assert len(counts) == 144
    assert (counts - 800).abs().max() < 5 * deviation
    assert dropout.eval()(tokens) is tokens


def test_text_encoded_by_length_is_the_models_own_text(bundled):
    tokens = bundled.tokenizer([draw_scene(i).caption for i in range(30)])
    with torch.no_grad():
        expected = bundled.model.encode_text(tokens)
        embeddings = scratch.encode_text_by_length(bundled.model, tokens)
    assert torch.allclose(embeddings, expected, atol=1e-5)


def test_training_sees_what_the_models_preprocessing_makes_of_an_image(bundled):
    image = draw_scene(3).image(96)
    array = torch.tensor(np.array(image))
    (pixels,) = scratch.normalise(array[None])
    assert torch.allclose(pixels, bundled.preprocess(image), atol=1e-5)


def test_the_density_of_values_counts_the_patches_that_have_them_whatever_their_scale():
    values = torch.zeros(2, 16, 5)
    values[0, :4] = 1  # a quarter of the patches, whose root is a half
    values[1] = 3  # all of them
    for scale in (1, 100):
        density = scratch.value_density(scale * values)
        assert density.item() == pytest.approx((0.5 + 1) / 2, abs=1e-2)

    values.requires_grad_()
    scratch.value_density(values).backward()
    assert torch.isfinite(values.grad).all()


def test_the_values_that_are_noted_are_those_that_the_explanation_sees(bundled):
    pixels = torch.randn(2, 3, 96, 96)
    with scratch.noted_values(bundled.model, 3) as noted:
        bundled.model.encode_image(pixels)
    trace = open_image_tower(bundled.model, 3).trace(pixels)
    expected = [layer.v[:, 1:].flatten(2) for layer in trace.layers]
    torch.testing.assert_close(noted, expected, rtol=1e-4, atol=1e-4)
    bundled.model.encode_image(pixels)
    assert len(noted) == 3  # nothing is noted afterwards


def test_a_round_with_sparse_values_and_a_fixed_scale_logs_both_losses(tmp_path):
    recipe = replace(SHORT, sparse_values=0.5, logit_scale=50.0)
    model = run(tmp_path, recipe)
    log = pd.DataFrame(load_state(tmp_path)["log"])
    total = log["contrastive"] + 0.5 * log["density"]
    np.testing.assert_allclose(log["loss"], total, atol=1e-4)
    assert log["density"].between(0.3, 1).all()
    assert model.logit_scale.exp().item() == pytest.approx(50)


# ------------------------------------------------------------------------- rounds and weights


def test_an_exported_model_is_the_trained_one(trained, tmp_path):
    folder, model = trained
    scratch.export(folder, tmp_path / "mine.safetensors", image_layers=2)
    clip = load_clip("emoji", tmp_path / "mine.safetensors")
    assert clip.image_layers == 2
    assert "car" in clip.vocabulary
    assert clip.model.vocab_size == 49408

    scene = draw_scene(1)
    pixels = clip.preprocess(scene.image(96))[None]
    tokens = clip.tokenizer([scene.caption])
    ids = scratch.vocabulary_ids(clip.tokenizer)
    rows = scratch.rows_of(ids)[tokens]
    with torch.no_grad():
        image = model.encode_image(pixels, normalize=True)
        text = scratch.encode_text_by_length(model, rows)
        text = torch.nn.functional.normalize(text, dim=-1)
        exported_image = clip.model.encode_image(pixels, normalize=True)
        exported_text = clip.model.encode_text(tokens, normalize=True)
    assert torch.allclose(exported_image, image, atol=3e-3)
    assert torch.allclose(exported_text, text, atol=3e-3)


def test_a_round_begins_from_the_weights_of_a_checkpoint(trained, tmp_path, bundled):
    folder, model = trained
    start = tmp_path / "first.safetensors"
    scratch.export(folder, start)
    recipe = replace(SHORT, start=str(start), hard_negatives=True)
    ids = scratch.vocabulary_ids(bundled.tokenizer)
    beginning = scratch.new_model(recipe, ids).state_dict()
    is_stored = torch.isin(ids, load_file(start)["token_ids"])
    assert is_stored.sum() == len(ids) - 1  # all but padding, which nothing reads
    for name, weight in model.state_dict().items():
        rows = is_stored if name == "token_embedding.weight" else ...
        # half precision has rounded
        expected = beginning[name][rows]
        assert torch.allclose(weight[rows], expected, atol=2e-3, rtol=1e-3), name

    second = run(tmp_path / "second", recipe)
    state = load_state(tmp_path / "second")
    assert state["settings"]["start"] == str(start)
    assert not torch.equal(second.visual.proj, beginning["visual.proj"])


def test_one_command_trains_all_rounds_and_goes_on_in_the_round_that_was_killed(
    tmp_path, monkeypatch
):
    rounds = [replace(SHORT, steps=2), replace(SHORT, steps=2, seed=1)]
    whole = tmp_path / "whole.safetensors"
    cut = tmp_path / "cut.safetensors"
    options = {"start": "", "image_layers": 2, "workers": 0}
    scratch.train_rounds(rounds, tmp_path / "whole", whole, **options)

    draw = SceneBatches.__getitem__

    def killed(self, step):
        if self.recipe.seed == 1 and step == 1:
            raise KeyboardInterrupt
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(SceneBatches, "__getitem__", killed)
        patch.setattr(scratch, "train_round", partial(scratch.train_round, save_every=1))
        with pytest.raises(KeyboardInterrupt):
            scratch.train_rounds(rounds, tmp_path / "cut", cut, **options)
    assert (tmp_path / "cut/round-1.safetensors").exists()
    assert not cut.exists()
    state = load_state(tmp_path / "cut/round-2")
    assert len(state["log"]) == 1

    scratch.train_rounds(rounds, tmp_path / "cut", cut, **options)
    weights = load_file(cut)
    for name, value in load_file(whole).items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["card", "--parts", "poetry"], "there is no part 'poetry': choose from recognition"),
        (["students", "emoji-large"], "there is no student 'emoji-large'"),
        (["emoji-bag", "--start", "missing.safetensors", "--folder", "x"], "missing.safetensors"),
    ],
)
def test_a_wrong_command_is_refused_in_one_sentence(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
