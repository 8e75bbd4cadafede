"""Devices: methods and towers explain on another device what they explain on the CPU, by the same lines.

The stand-in is a device of torch's own (PrivateUse1) whose tensors live in the CPU's memory. To
everything that runs on it, it is another device: its tensors do not mix with those of the CPU and
cannot become numpy arrays. It shows that no line here takes the device for granted. It has none of
a GPU's kernels: a CUDA device, where there is one, has.
"""

import copy
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from gradeclip_utils import METHODS, Explainer
from gradeclip_utils.methods import Method
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.towers import open_image_tower, open_text_tower
from tests.conftest import build, wrap
from tests.forked import FORKED
from tests.shrinking import small
from tests.towers.test_architectures import inputs_of

PYTHON_DEVICES = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
DEVICES = [
    pytest.param(
        "stand-in",
        marks=pytest.mark.skipif(not PYTHON_DEVICES, reason="this torch has no Python devices"),
    ),
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ),
]
RIVALS = (
    "cci",
    "fixlip",
    "integrated-attention",
    "metagame",
)  # of studies, registered once they are imported
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
    "mt5-base-ViT-B-32",
]
CASES = [*(name for name in METHODS if name not in RIVALS), "bfloat16", *FAMILIES]
FEWER = {
    "rise": {"masks": 20},
    "m2ib": {"samples": 2, "steps": 2},
    "integrated-gradients": {"steps": 4},
}  # passes
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

pytestmark = pytest.mark.slow


class Away(torch.Tensor):
    """A tensor on the stand-in; `here` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here):
        layout = {
            "strides": here.stride(),
            "storage_offset": here.storage_offset(),
            "dtype": here.dtype,
        }
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, device=torch.device("standin", 0), **layout
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})

    def tolist(self):
        return self.here.tolist()


def computed(func, args, kwargs):
    """What an operation gives, refused where its tensors lie on two devices."""
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Away)]
    if (
        away
        and func not in _COPIES
        and any(tensor.ndim for tensor in tensors if not isinstance(tensor, Away))
    ):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    asked = kwargs.get("device")
    outside = bool(away) if asked is None else torch.device(asked).type == "standin"
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if (
        func is torch.ops.aten._efficientzerotensor.default
    ):  # has no values, which only the real devices' kernels know
        func = torch.ops.aten.zeros.default
    found = func(*tree_map(_values, args), **tree_map(_values, kwargs))
    changed = {id(tensor.here): tensor for tensor in away}  # by an operation in place
    if func is torch.ops.aten.copy_.default:
        return args[0]
    return tree_map(lambda leaf: _wrapped(leaf, changed) if outside else leaf, found)


def _values(leaf):
    return leaf.here if isinstance(leaf, Away) else leaf


def _wrapped(leaf, changed):
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return changed[id(leaf)] if id(leaf) in changed else Away(leaf)


class _Dispatched(TorchDispatchMode):
    """Also what is made out of nothing, on the device that was asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """What torch makes of lists below the level at which a device written in Python is asked."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            tensor, index, *rest = args
            index = index if isinstance(index, tuple) else (index,)
            lists = [
                torch.tensor(i).to(tensor.device) if isinstance(i, (list, np.ndarray)) else i
                for i in index
            ]
            args = (tensor, tuple(lists), *rest)
        return func(*args, **kwargs)


class _Backend(getattr(backend_registration, "_DummyBackendModule", object)):  # of newer torch
    """What torch asks a device for when it forks random numbers or turns autocast off."""

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        pass

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]


@contextmanager
def on(name: str):
    """The device of this name; within it, the stand-in is a device like others."""
    if name != "stand-in":
        yield torch.device(name)
    else:
        with _Made(), _Dispatched():
            yield torch.device("standin", 0)


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy on the device; `Module.to` does not know tensors that are a class of their own."""
    if device.type != "standin":
        return copy.deepcopy(model).to(device)
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = nn.Parameter(
                    parameter.detach().to(device), requires_grad=parameter.requires_grad
                )
                module._parameters[name] = there
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return model


def quick(name: str) -> Method:
    """A method that runs the same lines in fewer passes: each takes seconds on a device that is written in Python."""
    sides = {side: one for side in ("image", "text") if (one := getattr(METHODS[name], side))}
    return replace(
        METHODS[name], **{side: partial(one, **FEWER.get(name, {})) for side, one in sides.items()}
    )


def explained(model: nn.Module, method: str) -> list[np.ndarray]:
    """What a method gives of an image and two prompts; with Grad-ECLIP also interactions and embeddings."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    explainer, prompts = (
        Explainer(wrap(model), method=quick(method)),
        ["a red car and a ball", "unbelievable!"],
    )
    found = explainer.explain(noise, prompts)
    values = [
        found.similarity,
        [word.score for words in found.words for word in words],
        found.image_maps,
    ]
    if method == "grad-eclip":
        embeddings = explainer.embed_images([noise, noise[::-1]]), explainer.embed_texts(prompts)
        maps = [explainer.maps(noise, directions) for directions in (embeddings[1], np.eye(48)[:2])]
        values += [
            explainer.interactions(noise, prompts[0]).image_maps,
            *(one.float().cpu() for one in (*embeddings, *maps)),
        ]
    return [np.asarray(value, dtype=float) for value in values]


def traced(model: nn.Module) -> list[np.ndarray]:
    """Embeddings, maps and dense features of both towers."""
    values = []
    for door in (open_image_tower, open_text_tower):
        tower = door(model)
        with torch.no_grad():
            trace = tower.trace(inputs_of(tower).to(tower.device))
            directions = torch.eye(tower.width, device=tower.device)[None, :3].expand(2, -1, -1)
            values += [trace.embedding, grad_eclip(tower, trace, directions)]
            values += [tower.dense(trace)] if door is open_image_tower else []
    return [value.float().cpu().numpy() for value in values]


def values_of(case: str, device: torch.device) -> list[np.ndarray]:
    if case in FAMILIES:
        return traced(moved(small(case), device))
    model = build({"layers": 2}, {"layers": 2})
    model = model.bfloat16() if case == "bfloat16" else model
    return explained(moved(model, device), case if case in METHODS else "grad-eclip")


def differences(name: str) -> dict[str, float | str]:
    """Of each case the largest difference between the devices, as a share of the largest value; or what went wrong."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if name == "stand-in":  # before autograd starts a thread a device
        backend_registration._setup_privateuseone_for_python_backend("standin", _Backend())
    expected, found = {case: values_of(case, torch.device("cpu")) for case in CASES}, {}
    with on(name) as device:
        for case, values in expected.items():
            try:
                pairs = zip(values, values_of(case, device), strict=True)
                found[case] = max(
                    float(np.abs(a - b).max(initial=0) / np.abs(a).max(initial=1e-9))
                    for a, b in pairs
                )
            except Exception as error:  # the report says which case, and the others are still run
                found[case] = f"{type(error).__name__}: {error}"
    return found


@cache
def apart(device: str) -> dict:
    """In a process of its own: a device, once registered, is there for everything that follows."""
    with ProcessPoolExecutor(1, FORKED) as process:
        return process.submit(differences, device).result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_another_device_gives_the_same_explanation(case, device):
    gap = apart(device)[case]
    assert not isinstance(gap, str), gap
    # sums are as exact as their order; CUDA may use another one than the CPU does
    assert gap < (
        torch.finfo(torch.bfloat16).eps * 4
        if case == "bfloat16"
        else 1e-4
        if device == "stand-in"
        else 1e-3
    )
