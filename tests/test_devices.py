"""Devices: on a CUDA device, methods and towers explain what they explain on the CPU."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from gradeclip_utils import METHODS, Explainer
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.towers import open_image_tower, open_text_tower
from tests.conftest import build, wrap
from tests.shrinking import small
from tests.towers.test_architectures import inputs_of

FAMILIES = [
    "ViT-L-14-CLIPA",
    "coca_ViT-B-32",
    "RN50",
    "ViT-B-16-SigLIP",
    "PE-Core-T-16-384",
    "EVA02-B-16",
    "EVA02-E-14",
    "MobileCLIP-B",
    "ViTamin-S",
    "roberta-ViT-B-32",
]
FEWER_PASSES = {
    "rise": {"masks": 20},
    "m2ib": {"samples": 2, "steps": 2},
    "integrated-gradients": {"steps": 4},
}
PROMPTS = ["a red car and a ball", "unbelievable!"]
TOLERANCE = 1e-3  # of the largest value; CUDA may sum in another order than the CPU

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def assert_close(values, expected, tolerance=TOLERANCE):
    for value, expected_value in zip(values, expected, strict=True):
        value, expected_value = np.asarray(value), np.asarray(expected_value)
        largest = np.abs(expected_value).max(initial=1e-9)
        assert np.abs(value - expected_value).max(initial=0) <= tolerance * largest


def with_fewer_passes(name):
    """A method that runs the same lines in fewer passes."""
    method = METHODS[name]
    sides = {}
    for side in ("image", "text"):
        if getattr(method, side) is not None:
            sides[side] = partial(getattr(method, side), **FEWER_PASSES.get(name, {}))
    return replace(method, **sides)


def explained(model, method):
    """Numbers of an explanation of an image and two prompts."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    explanation = Explainer(wrap(model), method=method).explain(noise, PROMPTS)
    scores = [word.score for words in explanation.words for word in words]
    numbers = [explanation.similarity, scores]
    if explanation.image_maps is not None:
        numbers.append(explanation.image_maps)
    return numbers


@pytest.mark.parametrize("name", METHODS)
def test_a_method_explains_the_same_on_cuda(name):
    model = build({"layers": 2}, {"layers": 2})
    method = with_fewer_passes(name)
    expected = explained(model, method)
    assert_close(explained(copy.deepcopy(model).to("cuda"), method), expected)


def test_half_precision_on_cuda_is_nearly_the_same():
    model = build({"layers": 2}, {"layers": 2}).bfloat16()
    method = METHODS["grad-eclip"]
    expected = explained(model, method)
    tolerance = 4 * torch.finfo(torch.bfloat16).eps
    assert_close(explained(copy.deepcopy(model).to("cuda"), method), expected, tolerance)


def test_interactions_embeddings_and_maps_are_the_same_on_cuda(picture):
    model = build()
    numbers = []
    for device in ("cpu", "cuda"):
        explainer = Explainer(wrap(copy.deepcopy(model)), device=device)
        images = explainer.embed_images([picture, picture.rotate(90)])
        maps = explainer.maps(picture, explainer.embed_texts(PROMPTS))
        assert images.device.type == maps.device.type == explainer.device.type == device
        interactions = explainer.interactions(picture, PROMPTS[0])
        numbers.append([images.cpu(), maps.cpu(), interactions.image_maps])
    assert_close(*reversed(numbers))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("open_tower", [open_image_tower, open_text_tower])
def test_a_tower_traces_the_same_on_cuda(family, open_tower):
    numbers = []
    for device in ("cpu", "cuda"):
        tower = open_tower(copy.deepcopy(small(family)).to(device))
        with torch.no_grad():
            trace = tower.trace(inputs_of(tower).to(device))
            three_channels = torch.eye(tower.width, device=device)[:3]
            directions = three_channels.expand(2, -1, -1)
            maps = grad_eclip(tower, trace, directions)
        embedding = trace.embedding.float().cpu()
        numbers.append([embedding, maps.float().cpu()])
    assert_close(*reversed(numbers))
