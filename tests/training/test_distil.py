"""Students: what they take over, what learns, and that a run goes on where it was interrupted."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models import BUNDLED_MODELS
from training import distil
from training.scratch import normalise

torch.set_num_threads(1)


def short(name, **options):
    return replace(
        distil.DISTILLATIONS[name],
        **{"steps": 3, "different": 2, "batch": 4, "warmup": 1, **options},
    )


@pytest.fixture(scope="module", params=distil.CONFIGS)
def taught(request, bundled, tmp_path_factory):
    """A student's name, its recipe, and the student after a few steps."""
    config = short(request.param)
    return (
        request.param,
        config,
        distil.teach(request.param, bundled.model, tmp_path_factory.mktemp("state"), config),
    )


def test_only_what_the_config_names_learns(taught, bundled):
    name, config, student = taught
    before, after = (
        distil.Student(name, bundled.model, config.seed).state_dict(),
        student.state_dict(),
    )
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(key.startswith(config.learns) for key in changed)
    weights = {
        key
        for key, value in before.items()
        if value.is_floating_point() and key.startswith(config.learns)
    }
    assert len(changed) > 0.9 * len(weights)


def test_an_averaging_student_sees_patches_exactly_as_its_teacher_does(bundled):
    student = distil.Student("emoji-average", bundled.model, 0)
    pixels = normalise(distil.DistillationBatches(short("emoji-average"), 96)[0][0])
    seen = {}
    for side, visual in (("student", student.visual.eval()), ("teacher", bundled.model.visual)):
        hook = visual.transformer.resblocks[5].register_forward_pre_hook(
            lambda module, args, side=side: seen.update({side: args[0]})
        )
        with torch.no_grad():
            visual(pixels)
        hook.remove()
    assert torch.equal(seen["student"], seen["teacher"])


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_its_embeddings(bundled):
    teacher = bundled.model

    class Twin(torch.nn.Module):
        visual, text = teacher.visual, None

    config = short("emoji-average")
    batches = distil.DistillationBatches(config, 96)
    images, tokens = batches[0]
    found = distil.losses(
        Twin(), normalise(images), tokens, *distil.Targets(teacher, config, {})(0)
    )
    assert found["image"].abs() < 1e-3
    wrong = distil.losses(
        Twin(), normalise(images).flip(0), tokens, *distil.Targets(teacher, config, {})(0)
    )
    assert wrong["image"] > 0.1 and wrong["contrast"] > found["contrast"]


def test_an_exported_student_is_the_taught_one(taught, bundled, tmp_path):
    teacher = bundled.model
    name, config, student = taught
    path = tmp_path / f"{name}.safetensors"
    distil.export(name, student, teacher, config, path)
    clip = load_clip(name, path)
    images, tokens = distil.DistillationBatches(config, student.size)[0]
    with torch.no_grad():
        found, expected = (
            clip.model.encode_image(normalise(images)),
            student.visual(normalise(images)),
        )
        assert torch.allclose(found, expected, atol=0.02 * expected.abs().max())
        text = (
            student.encode_text(tokens) if student.text is not None else teacher.encode_text(tokens)
        )
        own = clip.model.encode_text(tokens[:, : 32 if student.text is not None else 77])
        assert torch.allclose(own, text, atol=0.02 * text.abs().max())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["steps"] == "3" and file.metadata()["teacher"] == "emoji"
        shares_text = not any(key.startswith("transformer.") for key in file.keys())  # noqa: SIM118, it is no dict
    scales = [model.logit_scale.exp().item() for model in (clip.model, teacher)]
    assert shares_text and scales[0] == pytest.approx(scales[1], rel=1e-3)


def test_a_teacher_of_another_training_leaves_the_bundled_students_alone(tmp_path, monkeypatch):
    other = tmp_path / "other.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy(data_path(f"emoji-bag{suffix}"), other.with_suffix(suffix))
    monkeypatch.setitem(distil.DISTILLATIONS, "emoji-average", short("emoji-average", steps=1))
    with pytest.raises(
        GradeclipError, match="would replace the bundled ones .* give another --out"
    ):
        distil.make(["emoji-average"], tmp_path / "states", data_path(), str(other))
    distil.make(["emoji-average"], tmp_path / "states", tmp_path, str(other))
    taught = load_clip(
        "emoji-average", tmp_path / BUNDLED_MODELS["emoji-average"]
    ).model.state_dict()
    theirs, bundled = (load_clip("emoji", file).model.state_dict() for file in (other, None))
    for key in ("token_embedding.weight", "visual.transformer.resblocks.0.mlp.c_fc.weight"):
        assert torch.equal(taught[key], theirs[key]) and not torch.equal(taught[key], bundled[key])
