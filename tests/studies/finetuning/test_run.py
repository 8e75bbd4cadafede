"""Fine-tuning on image-caption pairs: gradients, losses, resuming, several processes, and what is refused."""

import copy
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from gradeclip_utils import Explainer, UnsupportedModel, load_clip
from gradeclip_utils.towers import open_image_tower, open_text_tower
from studies.finetuning.__main__ import main
from studies.finetuning.losses import Features, Learner, _detached, global_loss, region_loss
from studies.finetuning.pairs import Pair, PairBatches, spoken
from studies.finetuning.run import Tuning, fine_tune
from tests.conftest import build, wrap
from tests.studies.folders import write_open_clip

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
    noise = np.random.default_rng(3).integers(0, 256, (len(CAPTIONS), 4, 4, 3), dtype=np.uint8)
    images = [Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC) for one in noise]
    return [Pair(image, caption) for image, caption in zip(images, CAPTIONS, strict=True)]


def tune(clip, pairs, tuning=SHORT, **options):
    return fine_tune(clip, pairs, tuning, progress=False, **options)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b, tolerance=0.0):
    """Equal weights; but for biases of attention where rounding differs: that of the keys has no gradient but noise."""
    assert a.keys() == b.keys()
    for name in a:
        if tolerance and name.endswith("in_proj_bias"):
            continue
        torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=0, msg=name)


@pytest.mark.parametrize("door", [open_image_tower, open_text_tower])
def test_a_tower_that_learns_has_the_gradients_of_the_model_itself(door, pixels, ids):
    model = build()
    inputs = pixels if door is open_image_tower else ids
    encode = model.encode_image if door is open_image_tower else model.encode_text
    direction = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
    found = door(model, 1).trace_with_grad(inputs).embedding
    parameters = [p for p in model.parameters() if p.requires_grad]
    mine = torch.autograd.grad((found * direction).sum(), parameters, allow_unused=True)
    own = torch.autograd.grad(
        (encode(inputs, normalize=True) * direction).sum(), parameters, allow_unused=True
    )
    assert sum(gradient is not None for gradient in own) > 10
    for a, b in zip(mine, own, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-5)


def test_dense_features_have_the_gradient_that_finite_differences_find(precise, pixels):
    model = copy.deepcopy(precise.model)
    tower, weight = (
        open_image_tower(model),
        model.visual.transformer.resblocks[-1].attn.out_proj.weight,
    )
    direction = torch.randn(48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def score():
        return (tower.dense(tower.trace_with_grad(pixels.double())) @ direction).sum()

    (slope,) = torch.autograd.grad(score(), weight)
    step, place = 1e-6, (5, 7)
    with torch.no_grad():
        weight[place] += step
        above = score()
        weight[place] -= 2 * step
        below = score()
    assert slope[place].item() == pytest.approx((above - below).item() / (2 * step), rel=1e-5)


def test_phrases_keep_their_article_and_leave_out_the_picture_itself():
    found = [phrase.text for phrase in spoken("a photo of a red car and two small dogs")]
    assert found == ["a red car", "two small dogs"]
    for caption in CAPTIONS:
        for phrase in spoken(caption):
            assert caption[phrase.start : phrase.end] == phrase.text
    assert spoken("something") == ()


def test_a_batch_is_the_same_whatever_was_asked_for_before_and_every_pair_comes_once_a_turn(
    tiny, pairs
):
    batches = PairBatches(tiny.preprocess, pairs, 4, 6, seed=1)
    again = PairBatches(tiny.preprocess, pairs, 4, 6, seed=1)
    first = [batches[i] for i in (3, 0, 1)]
    assert again[3].texts == first[0].texts and torch.equal(again[3].pixels, first[0].pixels)
    assert sorted(np.concatenate([batches.rows(0), batches.rows(1)])) == list(range(8))
    halves = [
        PairBatches(tiny.preprocess, pairs, 4, 6, seed=1, place=(i, 2)).rows(1).tolist()
        for i in (0, 1)
    ]
    assert [*halves[0], *halves[1]] == batches.rows(1).tolist()


def features(rows=5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return F.normalize(torch.randn(*shape, 6, generator=generator, dtype=torch.float64), dim=-1)

    weights = torch.rand(rows, 2, generator=generator, dtype=torch.float64)
    weights[1, 1] = 0
    return Features(
        unit(rows),
        unit(rows),
        torch.tensor(3.0, dtype=torch.float64),
        unit(rows, 2),
        unit(rows, 2),
        weights,
        torch.arange(2 * rows).reshape(rows, 2),
    )


def test_the_global_loss_is_open_clips():
    some = features()
    expected = open_clip.loss.ClipLoss()(some.images, some.captions, some.scale)
    assert global_loss(some).item() == pytest.approx(expected.item())


def test_the_region_loss_is_the_formula_written_out_with_loops():
    some = features()
    some.same[3, 0] = some.same[0, 0]  # the same text in two images
    places = [(b, p) for b in range(5) for p in range(2) if some.weights[b, p] > 0]
    total, sizes = 0.0, 0.0
    for t in places:
        others = [s for s in places if s == t or some.same[s] != some.same[t]]
        w, logit = (
            some.weights[t].item(),
            {s: (3 * some.regions[t] @ some.phrases[s]).exp().item() for s in others},
        )
        back = {s: (3 * some.regions[s] @ some.phrases[t]).exp().item() for s in others}
        p, q = logit[t] / sum(logit.values()), back[t] / sum(back.values())
        total -= w * ((1 - p) ** 2 * np.log(p) + (1 - q) ** 2 * np.log(q)) / 2
        sizes += w
    loss, count = region_loss(some)
    assert count == len(places) == 9 and loss.item() == pytest.approx(total / sizes)


def test_only_ratios_of_weights_count_and_equal_ones_are_no_weights():
    some = features()
    doubled = replace(some, weights=2 * some.weights)
    equal = replace(some, weights=(some.weights > 0).double() * 7)
    assert region_loss(some)[0].item() == pytest.approx(region_loss(doubled)[0].item())
    assert region_loss(equal)[0].item() == pytest.approx(
        region_loss(some, weighted=False)[0].item()
    )
    assert region_loss(some)[0].item() != pytest.approx(region_loss(some, weighted=False)[0].item())


def test_without_any_region_the_loss_is_zero_and_not_nan():
    some = replace(features(), weights=torch.zeros(5, 2))
    some.regions.requires_grad_()
    loss, count = region_loss(some)
    assert (loss.item(), count) == (0, 0) and loss.requires_grad
    some = replace(
        some, weights=torch.eye(5, 2).double() * torch.eye(5)[:, :1]
    )  # a single one, found with p = 1
    (slope,) = torch.autograd.grad(region_loss(some, focal_gamma=0.5)[0], some.regions)
    assert slope.isfinite().all()


def test_maps_are_those_of_the_explainer_and_weigh_the_dense_features(tiny, pairs):
    learner = Learner(tiny)
    batch = PairBatches(tiny.preprocess, pairs, 4, 1, seed=0)[0]
    found = learner(batch)
    explainer = Explainer(tiny)
    trace = explainer.image_tower.trace(batch.pixels)
    dense = explainer.image_tower.dense(trace)[:, 1:]
    rows = PairBatches(tiny.preprocess, pairs, 4, 1, seed=0).rows(0)
    for b, p in batch.there.nonzero().tolist():
        explanation = explainer.explain(pairs[rows[b]].image, batch.spans[b][p].text)
        heat = torch.tensor(explanation.image_maps[0]).relu().flatten()
        assert found["weights"][b, p].item() == pytest.approx(heat.max().item(), rel=1e-3)
        torch.testing.assert_close(
            found["regions"][b, p], F.normalize(heat @ dense[b], dim=-1), atol=1e-4, rtol=0
        )
    assert (found["weights"][~batch.there] == 0).all() and found["regions"].requires_grad


@pytest.mark.parametrize(
    "maps", ["grad-cam", "maskclip", "word x region", "uniform", "other image"]
)
def test_every_choice_of_maps_gives_one_map_a_phrase(maps, tiny, pairs):
    batches = PairBatches(tiny.preprocess, pairs, 8, 1, seed=0)
    learner, batch, rows = Learner(tiny, maps), batches[0], batches.rows(0).tolist()
    found = learner(batch)
    trace = _detached(open_image_tower(tiny.model).trace(batch.pixels))
    drawn = learner.phrase_maps(trace, found["phrases"].detach(), batch)
    assert (
        drawn.shape == (*batch.there.shape, 16)
        and torch.isfinite(drawn).all()
        and not drawn.requires_grad
    )
    if maps == "uniform":
        assert (drawn == 1).all()
    if maps in ("grad-cam", "maskclip"):
        own = Explainer(tiny, method=maps).explain(pairs[0].image, "a red car").image_maps[0]
        torch.testing.assert_close(
            drawn[rows.index(0), 0], torch.tensor(own).flatten(), atol=1e-4, rtol=1e-3
        )
    if maps == "word x region":  # "a red car" is the sum of its words
        own = Explainer(tiny).interactions(pairs[0].image, CAPTIONS[0]).maps[:3].sum(0)
        torch.testing.assert_close(
            drawn[rows.index(0), 0], torch.tensor(own).flatten(), atol=1e-4, rtol=1e-3
        )
    if maps == "other image":
        b = next(b for b in range(8) if batch.there[b, 0] and batch.there[(b + 1) % 8, 0])
        other = batch.spans[(b + 1) % 8][0].text
        own = Explainer(tiny).explain(pairs[rows[(b + 1) % 8]].image, other).image_maps[0]
        torch.testing.assert_close(drawn[b, 0], torch.tensor(own).flatten(), atol=1e-4, rtol=1e-3)


def test_tuning_changes_a_copy_and_leaves_the_model_as_it_was(tiny, pairs):
    before, modes = weights(tiny.model), [module.training for module in tiny.model.modules()]
    tuned = tune(tiny, pairs)
    same(before, weights(tiny.model))
    assert modes == [module.training for module in tiny.model.modules()]
    assert all(p.grad is None and p.requires_grad for p in tiny.model.parameters())
    assert not tuned.clip.model.training and not any(
        p.requires_grad for p in tuned.clip.model.parameters()
    )
    changed = [
        name
        for name, value in weights(tuned.clip.model).items()
        if not torch.equal(value, before[name])
    ]
    assert {"visual.proj", "text_projection", "visual.conv1.weight", "logit_scale"} <= set(changed)


def test_both_losses_fall_on_pairs_that_are_seen_again_and_again(tiny, pairs):
    log = tune(tiny, pairs, replace(SHORT, steps=30, batch=8)).log
    first, last = log.iloc[:3].mean(), log.iloc[-3:].mean()
    assert last["contrast"] < 0.5 * first["contrast"] and last["regions"] < 0.5 * first["regions"]


def _tuned_in_a_process(clip, pairs, folder):
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # else accelerate takes more, and a pool of threads does not survive a fork
    )
    torch.set_num_threads(1)
    tuned = fine_tune(clip, pairs, SHORT, folder=folder, progress=False)
    if os.environ["RANK"] == "0":
        tuned.log.to_csv(folder / "log.csv", index=False)
        torch.save(tuned.clip.model.state_dict(), folder / "weights.pt")


def test_two_processes_have_the_loss_and_the_weights_of_one(tiny, pairs, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    one = tune(tiny, pairs, SHORT)
    accelerate.debug_launcher(_tuned_in_a_process, (tiny, pairs, tmp_path), num_processes=2)
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    for name in ("loss", "contrast", "regions", "phrases", "wordless"):
        assert log[name].tolist() == pytest.approx(one.log[name].tolist(), abs=1e-4), name
    same(weights(one.clip.model), torch.load(tmp_path / "weights.pt", weights_only=True), 1e-4)


TOWERS = {
    "all patches read": ({"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}, {}),
    "a convolutional tower": (
        {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64},
        {},
    ),
    "text that is not causal": ({}, {"no_causal_mask": True, "pool_type": "last"}),
}


@pytest.mark.parametrize("name", TOWERS)
def test_every_tower_with_dense_features_can_be_tuned(name, pairs):
    vision, text = TOWERS[name]
    clip = wrap(build(vision, text, custom_text=bool(text)), vision.get("image_size", 32))
    log = tune(clip, pairs, replace(SHORT, steps=12, batch=8)).log
    assert (log["phrases"] > 5).all() and log["regions"].iloc[-1] < log["regions"].iloc[0]


def test_a_tower_without_dense_features_is_refused_by_name(tiny, pairs):
    model = open_clip.CustomTextCLIP(
        48,
        {"timm_model_name": "convnext_atto", "timm_model_pretrained": False, "image_size": 32},
        {"layers": 1},
    )
    with pytest.raises(UnsupportedModel, match="ConvNeXt"):
        tune(wrap(model), pairs)


def test_the_command_tunes_a_folder_of_pictures_into_a_model_that_loads(tmp_path, pairs, capsys):
    lines = ["image,caption"]
    for i, caption in enumerate(("a red car", "a dog", "two cats", "something")):
        pairs[i].image.resize((96, 96)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{caption}")
    (tmp_path / "captions.csv").write_text("\n".join([*lines, "gone.png,a bird"]) + "\n")
    given = [
        "--captions",
        str(tmp_path / "captions.csv"),
        "--images",
        str(tmp_path),
        "--model",
        "emoji",
    ]
    out = tmp_path / "mine.safetensors"
    given += ["--out", str(out), "--steps", "2", "--batch", "2"]
    assert main(given) == 2
    assert "1 of 5 images are missing" in capsys.readouterr().err
    out.with_suffix(".json").write_text("precious")
    assert main([*given, "--skip-missing"]) == 2
    assert "mine.json exists: choose another file, or add --overwrite" in capsys.readouterr().err
    assert out.with_suffix(".json").read_text() == "precious"
    assert main([*given, "--skip-missing", "--overwrite"]) == 0
    printed = capsys.readouterr()
    assert "captions without a phrase, which counted as a whole alone: 1" in printed.out
    assert f"load_clip('emoji', {str(out)!r})" in printed.out
    assert not list(tmp_path.glob("*.state*")), "the state goes when the model is there"
    clip = load_clip("emoji-siglip", tmp_path / "mine.safetensors")
    assert clip.name == "emoji"  # the file says of which model it was tuned
    assert Explainer(clip).explain(pairs[0].image, "a red car").image_maps.shape == (1, 12, 12)
    before = out.read_bytes()
    again = [*given, "--skip-missing", "--pretrained", str(out), "--overwrite"]
    assert main(again) == 2 and "is an input of this command" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_tuned_model_of_a_folder_loads_by_the_line_that_is_printed(
    tmp_path, monkeypatch, pairs, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    write_open_clip(Path("clip"))
    for i in range(2):
        pairs[i].image.save(f"{i}.png")
    Path("captions.csv").write_text("image,caption\n0.png,a dog\n1.png,a cat\n")
    given = [
        "--captions",
        "captions.csv",
        "--images",
        ".",
        "--model",
        "clip",
        "--out",
        "mine.safetensors",
    ]
    assert main([*given, "--steps", "1", "--batch", "2"]) == 0
    line = re.search(r"load_clip\(.*?\)", capsys.readouterr().out)[0]
    tuned = load_file("mine.safetensors")
    assert all(
        torch.equal(value, tuned[name]) for name, value in eval(line).model.state_dict().items()
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--images", "x"],
        ["--data", "csv:x", "--images", "x"],
        ["--captions", "x", "--data", "csv:x"],
    ],
)
def test_half_of_the_input_or_too_much_is_refused(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(["--out", "x.safetensors", *arguments]) == 2
    assert "needs --captions and --images, or --data in place of both" in capsys.readouterr().err
