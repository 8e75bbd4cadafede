"""Devices: every method and every tower explains on another device what it explains on the CPU, by the same lines."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache

import pytest
import torch

from tests import elsewhere
from tests.elsewhere import CASES, HALVES
from tests.forked import FORKED

PYTHON_DEVICES = hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
DEVICES = [
    pytest.param("stand-in", marks=pytest.mark.skipif(not PYTHON_DEVICES, reason="this torch has no Python devices")),
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]

pytestmark = pytest.mark.slow  # every tower and method, on a device made of Python


@cache
def differences(device: str) -> dict:
    """In a process of its own: a device, once registered, is there for everything that follows."""
    with ProcessPoolExecutor(1, FORKED) as apart:
        return apart.submit(elsewhere.alone, device).result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_another_device_gives_the_same_explanation(case, device):
    gap = differences(device)[case]
    assert not isinstance(gap, str), gap
    # RN50's and half precision's sums are as exact as their order; CUDA may use another one than the CPU does
    assert gap < (torch.finfo(HALVES[case]).eps * 4 if case in HALVES else 1e-5 if device == "stand-in" else 1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_tensor_that_was_left_on_the_cpu_would_be_noticed(device):
    assert "expected all tensors to be on the same device" in differences(device)["mixing"].lower()
