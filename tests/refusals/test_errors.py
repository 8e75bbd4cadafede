"""Errors: one exception for invalid input, in plain sentences."""

import ast
import builtins
import pickle
from pathlib import Path

import pytest

import gradeclip_utils
from gradeclip_utils.errors import GradeclipError, UnsupportedModel

PACKAGE = Path(gradeclip_utils.__file__).parent
# Errors of Python's protocols (`IndexError` ends an iteration), and of faults of the package itself.
OTHERS = {"AttributeError", "IndexError", "KeyError", "StopIteration", "AssertionError", "NotImplementedError",
          "RuntimeError"}  # fmt: skip
CAUGHT = {"explanation.py"}  # `load` says the reason in a `GradeclipError`


def modules():
    return {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("kind", [GradeclipError, UnsupportedModel])
def test_a_refusal_is_a_value_error_and_keeps_its_sentence_on_the_way_from_another_process(kind):
    found = pickle.loads(pickle.dumps(kind("this is none")))
    assert (type(found), str(found)) == (kind, "this is none") and isinstance(found, (ValueError, GradeclipError))


def test_invalid_input_is_refused_by_the_one_exception():
    plain = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    found = {
        name
        for name, module in modules().items()
        for node in ast.walk(module)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") in plain - OTHERS
    }  # fmt: skip
    assert sorted(found - CAUGHT) == []
