"""Students: what they take over, what learns, and that what is exported is what was taught."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from gradeclip_utils import load_clip
from training import distil
from training.scratch import normalise


def short(name, **options):
    recipe = replace(distil.DISTILLATIONS[name], steps=3, different=2, batch=4, warmup=1)
    return replace(recipe, **options)


@pytest.fixture(scope="module", params=distil.CONFIGS)
def taught(request, bundled, tmp_path_factory):
    """A student's name, its recipe, and the student after a few steps."""
    recipe = short(request.param)
    folder = tmp_path_factory.mktemp("state")
    return request.param, recipe, distil.teach(request.param, bundled.model, folder, recipe)


def test_only_what_the_recipe_names_learns(taught, bundled):
    name, recipe, student = taught
    untaught = distil.Student(name, bundled.model, recipe.seed)
    before = untaught.state_dict()
    after = student.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    learning = {key for key in before if key.startswith(recipe.learns)}
    weights = {key for key in learning if before[key].is_floating_point()}
    assert changed <= learning
    assert len(changed) > 0.9 * len(weights)


def test_an_averaging_student_sees_patches_exactly_as_its_teacher_does(bundled):
    student = distil.Student("emoji-average", bundled.model, 0)
    images, _ = distil.DistillationBatches(short("emoji-average"), 96)[0]
    inputs = []
    for visual in (student.visual.eval(), bundled.model.visual):
        block = visual.transformer.resblocks[5]
        hook = block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        with torch.no_grad():
            visual(normalise(images))
        hook.remove()
    assert torch.equal(*inputs)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_its_embeddings(bundled):
    teacher = bundled.model

    class Twin(torch.nn.Module):
        visual = teacher.visual
        text = None

    recipe = short("emoji-average")
    images, tokens = distil.DistillationBatches(recipe, 96)[0]
    targets = distil.Targets(teacher, recipe, {})(0)
    pixels = normalise(images)
    right = distil.losses(Twin(), pixels, tokens, *targets)
    wrong = distil.losses(Twin(), pixels.flip(0), tokens, *targets)
    assert right["image"].abs() < 1e-3
    assert wrong["image"] > 0.1
    assert wrong["contrast"] > right["contrast"]


def assert_close(values, expected):
    assert torch.allclose(values, expected, atol=0.02 * expected.abs().max())


def test_an_exported_student_is_the_taught_one(taught, bundled, tmp_path):
    teacher = bundled.model
    name, recipe, student = taught
    path = tmp_path / f"{name}.safetensors"
    distil.export(name, student, teacher, recipe, path)
    model = load_clip(name, path).model
    images, tokens = distil.DistillationBatches(recipe, student.size)[0]
    with torch.no_grad():
        pixels = normalise(images)
        assert_close(model.encode_image(pixels), student.visual(pixels))
        if student.text is None:
            assert_close(model.encode_text(tokens), teacher.encode_text(tokens))
        else:
            assert_close(model.encode_text(tokens[:, :32]), student.encode_text(tokens))
    torch.testing.assert_close(model.logit_scale, teacher.logit_scale, atol=1e-3, rtol=0)

    weights = load_file(path)
    assert not any(key.startswith("transformer.") for key in weights), "the text is shared"
