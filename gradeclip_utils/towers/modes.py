"""Modes: a model that is explained while it trains is in evaluation mode meanwhile, whoever else explains with it.

model -> towers --here--> Trace -> method -> map -> Explanation
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from weakref import WeakKeyDictionary

from torch import nn

_LOCK = Lock()
_evaluated: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()  # threads, who trained


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; when the last thread is done, every module gets its own mode back, whatever happens."""
    with _LOCK:
        within, training = _evaluated.get(model) or (0, [module for module in model.modules() if module.training])
        for module in training:
            module.training = False
        _evaluated[model] = within + 1, training
    try:
        yield
    finally:
        with _LOCK:
            within, training = _evaluated.pop(model)
            if within > 1:
                _evaluated[model] = within - 1, training
            else:
                for module in training:
                    module.training = True
