"""Identity: what a function, a preprocessing, a tokenizer is, so that no row or weight is served to another one.

model, methods --here--> settings of a run, origin of a training
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from ..files import version
from ..models import Clip

LIBRARIES = ("gradeclip", "torch", "open_clip_torch", "timm", "numpy", "pillow")  # rows of other versions may differ
_ADDRESS = " at 0x[0-9a-fA-F]+"
_PROBE = "A photo of 2 dogs, naïve cafés & Größe: 犬 🐕"  # read by a tokenizer, whatever else it is asked


def identity(thing: object) -> str:
    """Tells what computes from what computes otherwise, in whichever process it is asked."""
    return hashlib.sha256("\n".join(_parts(thing, {})).encode(errors="surrogatepass")).hexdigest()[:16]


def _parts(thing: Any, seen: dict[int, Any]) -> Iterator[str]:
    """What tells a thing from others, as texts; `seen` has those that were told, because things hold each other."""
    if (held := _held(thing)) is None:
        yield re.sub(_ADDRESS, "", repr(thing))
        return
    yield f"{type(thing).__qualname__} {len(held)} {id(thing) in seen}"
    if id(thing) not in seen:
        if not isinstance(thing, (tuple, frozenset)):  # of which equal ones may be one
            seen[id(thing)] = thing
        for part in held:
            yield from _parts(part, seen)


def _held(thing: Any) -> list | None:
    """What a thing is made of; None if its text tells it."""
    match thing:
        case torch.Tensor():
            return [str(thing.dtype), thing.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()]
        case np.ndarray():
            return [thing.dtype.str, thing.shape, hashlib.sha256(thing.tobytes()).hexdigest()]
        case Mapping():
            return [*thing.items()]
        case set() | frozenset() | list() | tuple():
            return sorted(thing, key=repr) if isinstance(thing, (set, frozenset)) else [*thing]
        case partial():
            return [thing.func, thing.args, thing.keywords]
        case MethodType() | staticmethod() | classmethod():
            return [thing.__func__, getattr(thing, "__self__", None)]
        case property():
            return [thing.fget]
        case ModuleType():
            return [thing.__name__]
        case CodeType():
            return [thing.co_code, thing.co_names, thing.co_varnames, thing.co_consts]
        case FunctionType():
            named = sorted(_names(thing.__code__) & thing.__globals__.keys()) if _is_own(thing.__module__) else ()
            cells = [cell.cell_contents for cell in thing.__closure__ or ()]
            return [thing.__module__, thing.__qualname__, thing.__code__, thing.__defaults__, thing.__kwdefaults__,
                    *cells, *(thing.__globals__[name] for name in named)]  # fmt: skip
        case type() if _is_own(thing.__module__):
            own = [one for one in vars(thing).items() if one[0][:2] != "__" or isinstance(one[1], FunctionType)]
            return [thing.__module__, thing.__qualname__, *thing.__bases__, own]
        case type():
            return [thing.__module__, thing.__qualname__, version(thing.__module__.partition(".")[0])]
    if not hasattr(thing, "__dict__"):
        return None
    return [type(thing), {name: part for name, part in vars(thing).items() if "cache" not in name}]


def _names(code: CodeType) -> set[str]:
    return {*code.co_names}.union(*(_names(one) for one in code.co_consts if isinstance(one, CodeType)))


def _is_own(module: str | None) -> bool:
    """Whether the version of no package tells a module."""
    name, file = (module or "").partition(".")[0], getattr(sys.modules.get(module or ""), "__file__", None) or ""
    packages = not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    return not (packages or name in sys.stdlib_module_names or name == __name__.partition(".")[0])


def versions_of(model: torch.nn.Module) -> dict[str, str]:
    """The versions of the libraries that compute with a model."""
    theirs = any(type(module).__module__.startswith("transformers.") for module in model.modules())
    return {name: version(name) for name in (*LIBRARIES, *["transformers"] * theirs)}


def surroundings(clip: Clip, texts: Iterable[str]) -> dict[str, Any]:
    """What decides the numbers of a model beside its weights: preprocessing, tokenizer, versions."""
    steps = re.sub(_ADDRESS, "", str(getattr(clip.preprocess, "transforms", clip.preprocess)))
    read = [_PROBE, *sorted({*texts})] if clip.tokenizer is not None else []
    tokens = [identity(clip.tokenizer(read[start : start + 1000])) for start in range(0, len(read), 1000)]
    return {
        "preprocess": f"{steps} {identity(clip.preprocess)}",
        "tokenizer": f"{type(clip.tokenizer).__name__} {identity(tokens)}",
        "versions": versions_of(clip.model),
    }
