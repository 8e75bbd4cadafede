"""Fine-tuning on image-caption pairs: gradients, losses, maps, a kill, the command."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from gradeclip_utils import Explainer, UnsupportedModel, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.towers import open_image_tower, open_text_tower
from studies.finetuning import Pair, Tuning, fine_tune
from studies.finetuning.__main__ import main
from studies.finetuning.losses import Features, Learner, detach, global_loss, region_loss
from studies.finetuning.pairs import PairBatches, noun_phrases
from tests.conftest import build, wrap

CAPTIONS = [
    "a red car and a blue ball",
    "a dog",
    "two green apples",
    "a small cat above a big tree",
    "a yellow bus",
    "something",
    "a photo of a black bird",
    "an old boat on a quiet lake",
]
SHORT = Tuning(steps=4, batch=4, learning_rate=1e-3, warmup=1, precision="fp32")


@pytest.fixture(scope="module")
def pairs():
    random = np.random.default_rng(3)
    examples = []
    for caption in CAPTIONS:
        noise = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC)
        examples.append(Pair(image, caption))
    return examples


def tune(clip, pairs, tuning=SHORT, **options):
    return fine_tune(clip, pairs, tuning, progress=False, **options)


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    for name, weight in a.items():
        assert torch.equal(weight, b[name]), name


# ------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("open_tower", [open_image_tower, open_text_tower])
def test_a_tower_that_learns_has_the_gradients_of_the_model_itself(open_tower, pixels, ids):
    model = build()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(2, 48, generator=generator)
    if open_tower is open_image_tower:
        inputs = pixels
        expected = model.encode_image(inputs, normalize=True)
    else:
        inputs = ids
        expected = model.encode_text(inputs, normalize=True)
    embedding = open_tower(model, 1).trace_with_grad(inputs).embedding

    parameters = [p for p in model.parameters() if p.requires_grad]
    tower_gradients, model_gradients = [
        torch.autograd.grad((e * direction).sum(), parameters, materialize_grads=True)
        for e in (embedding, expected)
    ]
    assert sum(gradient.any() for gradient in model_gradients) > 10
    for gradient, expected_gradient in zip(tower_gradients, model_gradients, strict=True):
        assert torch.allclose(gradient, expected_gradient, atol=1e-5)


def test_dense_features_have_the_gradient_that_finite_differences_find(precise, pixels):
    model = copy.deepcopy(precise.model)
    tower = open_image_tower(model)
    weight = model.visual.transformer.resblocks[-1].attn.out_proj.weight
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(48, dtype=torch.float64, generator=generator)

    def score():
        trace = tower.trace_with_grad(pixels.double())
        return (tower.dense(trace) @ direction).sum()

    (slope,) = torch.autograd.grad(score(), weight)
    step = 1e-6
    place = (5, 7)
    with torch.no_grad():
        weight[place] += step
        above = score()
        weight[place] -= 2 * step
        below = score()
    difference = (above - below) / (2 * step)
    assert slope[place].item() == pytest.approx(difference.item(), rel=1e-5)


# --------------------------------------------------------------------------------- batches


def test_phrases_keep_their_article_and_leave_out_the_picture_itself():
    caption = "a photo of a red car and two small dogs"
    phrases = noun_phrases(caption)
    assert [phrase.text for phrase in phrases] == ["a red car", "two small dogs"]
    for phrase in phrases:
        assert caption[phrase.start : phrase.end] == phrase.text
    assert noun_phrases("something") == ()


def test_a_batch_is_the_same_whatever_came_before_and_an_epoch_has_every_pair_once(tiny, pairs):
    batches = PairBatches(tiny.preprocess, pairs, 4, seed=1)
    batch = batches[3]
    for i in (0, 1):
        batches[i]
    again = batches[3]
    assert again.texts == batch.texts
    assert torch.equal(again.pixels, batch.pixels)

    first_epoch = batches.rows(0) + batches.rows(1)
    second_epoch = batches.rows(2) + batches.rows(3)
    assert sorted(first_epoch) == sorted(second_epoch) == list(range(8))
    assert first_epoch != second_epoch


# ---------------------------------------------------------------------------------- losses


def random_features(rows=5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        values = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
        return F.normalize(values, dim=-1)

    weights = torch.rand(rows, 2, generator=generator, dtype=torch.float64)
    weights[1, 1] = 0
    return Features(
        images=unit(rows),
        captions=unit(rows),
        scale=torch.tensor(3.0, dtype=torch.float64),
        regions=unit(rows, 2),
        phrases=unit(rows, 2),
        weights=weights,
        text_ids=torch.arange(2 * rows).reshape(rows, 2),
    )


def test_the_global_loss_is_open_clips():
    features = random_features()
    expected = open_clip.loss.ClipLoss()(features.images, features.captions, features.scale)
    assert global_loss(features).item() == pytest.approx(expected.item())


def test_the_region_loss_is_the_formula_written_out_with_loops():
    features = random_features()
    features.text_ids[3, 0] = features.text_ids[0, 0]  # the same text in two images
    places = [place for place in np.ndindex(5, 2) if features.weights[place] > 0]

    def exponential(region, phrase):
        product = features.regions[region] @ features.phrases[phrase]
        return torch.exp(3 * product).item()

    total = 0.0
    for place in places:
        text_id = features.text_ids[place]
        candidates = [place]
        candidates += [other for other in places if features.text_ids[other] != text_id]
        over_phrases = sum(exponential(place, other) for other in candidates)
        over_regions = sum(exponential(other, place) for other in candidates)

        weight = features.weights[place].item()
        for denominator in (over_phrases, over_regions):
            p = exponential(place, place) / denominator
            focal = (1 - p) ** 2
            total -= weight * focal * np.log(p) / 2

    loss, count = region_loss(features)
    assert count == len(places) == 9
    expected = total / features.weights.sum().item()
    assert loss.item() == pytest.approx(expected)


def test_only_ratios_of_weights_count_and_equal_ones_are_no_weights():
    features = random_features()
    weights = features.weights
    sevens = 7 * (weights > 0).double()
    weighted, _ = region_loss(features)
    unweighted, _ = region_loss(features, weighted=False)
    doubled, _ = region_loss(replace(features, weights=2 * weights))
    equal, _ = region_loss(replace(features, weights=sevens))
    torch.testing.assert_close(doubled, weighted)
    torch.testing.assert_close(equal, unweighted)
    assert not torch.allclose(weighted, unweighted)


def test_without_any_region_the_loss_is_zero_and_not_nan():
    features = replace(random_features(), weights=torch.zeros(5, 2))
    features.regions.requires_grad_()
    loss, count = region_loss(features)
    assert (loss.item(), count) == (0, 0)
    assert loss.requires_grad

    single = torch.zeros(5, 2, dtype=torch.float64)
    single[0, 0] = 1  # its only candidate, found with p = 1
    loss, _ = region_loss(replace(features, weights=single))
    (slope,) = torch.autograd.grad(loss, features.regions)
    assert slope.isfinite().all()


# ------------------------------------------------------------------------------------ maps


def test_maps_are_those_of_the_explainer_and_weigh_the_dense_features(tiny, pairs):
    batches = PairBatches(tiny.preprocess, pairs, 4, seed=0)
    batch = batches[0]
    features = Learner(tiny)(batch)
    weights = features["weights"]  # (4, phrases)
    regions = features["regions"]  # (4, phrases, E)
    explainer = Explainer(tiny)
    tower = explainer.image_tower
    dense = tower.dense(tower.trace(batch.pixels))

    rows = batches.rows(0)
    for b, p in batch.phrase_mask.nonzero().tolist():
        pair = pairs[rows[b]]
        phrase = batch.spans[b][p].text
        explanation = explainer.explain(pair.image, phrase)
        heat = torch.tensor(explanation.image_maps[0]).relu()
        region = F.normalize(heat.flatten() @ dense[b, 1:], dim=-1)
        torch.testing.assert_close(regions[b, p], region, atol=1e-4, rtol=0)
        torch.testing.assert_close(weights[b, p], heat.max(), atol=0, rtol=1e-3)
    assert not weights[~batch.phrase_mask].any()
    assert regions.requires_grad


@pytest.fixture(scope="module")
def mapped(tiny, pairs):
    """A function from the name of maps to the maps of one batch of all pairs, and that batch."""
    batches = PairBatches(tiny.preprocess, pairs, 8, seed=0)
    batch = batches[0]
    trace = detach(open_image_tower(tiny.model).trace(batch.pixels))

    def draw(maps):
        learner = Learner(tiny, maps)
        phrases = learner(batch)["phrases"].detach()
        return learner.phrase_maps(trace, phrases, batch)

    return draw, batch, batches.rows(0)


def assert_close_map(map_, expected):
    expected = torch.tensor(expected).flatten()
    torch.testing.assert_close(map_, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["grad-cam", "maskclip"])
def test_maps_of_another_method_are_those_of_its_explainer(method, mapped, tiny, pairs):
    draw, _, rows = mapped
    maps = draw(method)
    assert maps.shape == (8, 4, 16)
    assert not maps.requires_grad
    explainer = Explainer(tiny, method=method)
    explanation = explainer.explain(pairs[0].image, "a red car")
    of_first_phrase = maps[rows.index(0), 0]
    assert_close_map(of_first_phrase, explanation.image_maps[0])


def test_a_phrase_in_its_caption_has_the_sum_of_the_maps_of_its_words(mapped, tiny, pairs):
    draw, _, rows = mapped
    interactions = Explainer(tiny).interactions(pairs[0].image, CAPTIONS[0])
    red_car = interactions.image_maps[:3].sum(0)  # "a", "red", "car"
    of_first_phrase = draw("word x region")[rows.index(0), 0]
    assert_close_map(of_first_phrase, red_car)


def test_reference_maps_are_uniform_or_of_the_next_image(mapped, tiny, pairs):
    draw, batch, rows = mapped
    assert (draw("uniform") == 1).all()

    has_phrase = batch.phrase_mask[:, 0]
    next_has_phrase = has_phrase.roll(-1)
    b, *_ = (has_phrase & next_has_phrase).nonzero().flatten().tolist()
    neighbour = (b + 1) % 8
    phrase = batch.spans[neighbour][0].text
    pair = pairs[rows[neighbour]]
    explanation = Explainer(tiny).explain(pair.image, phrase)
    maps = draw("other image")
    assert_close_map(maps[b, 0], explanation.image_maps[0])


# ------------------------------------------------------------------------------------ runs


def test_tuning_changes_a_copy_and_leaves_the_model_as_it_was(tiny, pairs):
    weights = copy.deepcopy(tiny.model.state_dict())
    tuned = tune(tiny, pairs).clip.model
    assert_equal_weights(weights, tiny.model.state_dict())
    assert not any(module.training for module in tiny.model.modules())
    for parameter in tiny.model.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad

    assert not tuned.training
    for parameter in tuned.parameters():
        assert not parameter.requires_grad
    for name in ("visual.proj", "text_projection", "visual.conv1.weight", "logit_scale"):
        assert not torch.equal(tuned.state_dict()[name], weights[name])


def test_both_losses_fall_on_pairs_that_are_seen_again_and_again(tiny, pairs):
    log = tune(tiny, pairs, replace(SHORT, steps=30, batch=8)).log
    losses = log[["contrast", "regions"]]
    first = losses[:3].mean()
    last = losses[-3:].mean()
    assert (last < 0.5 * first).all()


class Killed(Exception):
    """A run that dies while an image is read."""


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tiny, pairs, tmp_path):
    expected = tune(tiny, pairs)
    checkpoint = tmp_path / "state.pt"

    images_read = []

    def lethal(image):
        images_read.append(image)
        if len(images_read) > 13:  # four in a batch: in the fourth step
            raise Killed
        return image

    lethal_pairs = [replace(pair, image=partial(lethal, pair.image)) for pair in pairs]
    with pytest.raises(Killed):
        tune(tiny, lethal_pairs, checkpoint=checkpoint, save_every=2)
    again = tune(tiny, pairs, checkpoint=checkpoint, save_every=2)
    assert again.log["step"].tolist() == [0, 1, 2, 3]
    assert again.log["loss"].equals(expected.log["loss"])
    assert_equal_weights(again.clip.model.state_dict(), expected.clip.model.state_dict())

    with pytest.raises(GradeclipError, match=r"a different recipe \(seed is 0 there and 1 here\)"):
        tune(tiny, pairs, replace(SHORT, seed=1), checkpoint=checkpoint)


def test_with_accelerate_one_process_takes_the_same_steps(tiny, pairs):
    accelerate = pytest.importorskip("accelerate")
    expected = tune(tiny, pairs)
    tuned = tune(tiny, pairs, accelerator=accelerate.Accelerator(cpu=True))
    np.testing.assert_allclose(tuned.log["loss"], expected.log["loss"], rtol=1e-6)


TOWERS = {
    "all patches read": {
        "vision": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    },
    "a convolutional tower": {
        "vision": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64},
    },
    "text that is not causal": {
        "text": {"no_causal_mask": True, "pool_type": "last"},
        "custom_text": True,
    },
}


@pytest.mark.parametrize("name", TOWERS)
def test_every_tower_with_dense_features_can_be_tuned(name, pairs):
    size = TOWERS[name].get("vision", {}).get("image_size", 32)
    clip = wrap(build(**TOWERS[name]), size)
    log = tune(clip, pairs, replace(SHORT, steps=12, batch=8)).log
    assert log["phrases"].min() > 5
    first, *_, last = log["regions"]
    assert last < first


def test_a_tower_without_dense_features_is_refused_by_name(pairs):
    model = open_clip.CustomTextCLIP(
        48,
        {"timm_model_name": "convnext_atto", "timm_model_pretrained": False, "image_size": 32},
        {"layers": 1},
    )
    with pytest.raises(UnsupportedModel, match="ConvNeXt"):
        tune(wrap(model), pairs)


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"batch": 9}, "batch must be at most the number of pairs, 8, got 9"),
        ({"maps": "gradcam"}, "maps must be one of grad-eclip, .*; got 'gradcam'"),
        ({"learning_rate": 1e30}, "the loss became nan at step 1"),
    ],
)
def test_a_tuning_that_makes_no_sense_is_refused(tiny, pairs, tuning, message):
    with pytest.raises(GradeclipError, match=message):
        tune(tiny, pairs, replace(SHORT, **tuning))


# --------------------------------------------------------------------------------- command


@pytest.fixture
def command(tmp_path, pairs):
    """The arguments of a short run on three pictures in a folder."""
    for i in range(3):
        image = pairs[i].image.resize((96, 96))
        image.save(tmp_path / f"{i}.png")
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n0.png,a red car\n1.png,a dog\n2.png,something\n")
    arguments = ["--captions", str(table), "--images", str(tmp_path)]
    return [*arguments, "--model", "emoji", "--steps", "2", "--batch", "3"]


def test_the_command_tunes_a_folder_of_pictures_into_a_model_that_loads(tmp_path, command, capsys):
    out = tmp_path / "mine.safetensors"
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 captions without a phrase counted as a whole alone" in printed
    assert f"load_clip('emoji', {str(out)!r})" in printed
    assert not (tmp_path / "mine.checkpoint").exists()
    assert out.stat().st_mode == (tmp_path / "captions.csv").stat().st_mode  # others may read it

    emoji = load_clip("emoji")
    tuned = load_clip("emoji", out)
    weights = tuned.model.state_dict()
    stored = load_file(out)
    for name, value in weights.items():
        assert torch.equal(value, stored[name].float()), name
    assert tuned.vocabulary == emoji.vocabulary
    assert not torch.equal(weights["visual.proj"], emoji.model.visual.proj)

    assert main([*command, "--out", str(out)]) == 2
    assert "mine.safetensors exists" in capsys.readouterr().err


def test_images_that_are_missing_are_refused_by_name(tmp_path, command, capsys):
    (tmp_path / "1.png").unlink()
    assert main([*command, "--out", str(tmp_path / "mine.safetensors")]) == 2
    assert "1 of 3 images are missing, such as" in capsys.readouterr().err
