"""Errors: what they are, and the table of their codes."""

import ast
import builtins
import pickle
import re
import runpy
from pathlib import Path

import pytest

import gradeclip_utils
from gradeclip_utils import errors
from gradeclip_utils.errors import CODES, GradeclipError, InvalidFile, InvalidType, InvalidValue, MissingFile

PACKAGE = Path(gradeclip_utils.__file__).parent

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GradeclipError)]


def test_a_refusal_is_also_what_pythons_habit_is():
    assert issubclass(InvalidValue, ValueError) and issubclass(InvalidType, TypeError)
    assert issubclass(InvalidFile, OSError) and issubclass(MissingFile, FileNotFoundError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_keeps_its_sentence_and_its_code_on_the_way_from_another_process(kind):
    found = pickle.loads(pickle.dumps(kind("this is none", "image-dtype")))
    assert (type(found), str(found), found.code) == (kind, "this is none", "E-image-dtype")


# Modules whose owners raise plain errors where Python's protocols want them: `IndexError` ends an iteration, and so on.
PROTOCOL = {"AttributeError", "IndexError", "KeyError", "StopIteration"}
FAULTS = {"AssertionError", "NotImplementedError", "RuntimeError"}  # of ours, or of who writes a tower
CAUGHT = {"explanation.py"}  # what is wrong with a stored result, which its reader says as an `InvalidFile`


def codes() -> dict[str, list[str]]:
    """Code -> where the package refuses with it, in calls and as the code of a class; "" where a call gives none."""
    names, found = {kind.__name__ for kind in KINDS}, {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            given: list = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                given = [""] if len(node.args) < 2 else list(ast.walk(node.args[1]))  # one code, or one of two
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
                given = [node.value]
            for one in given:
                code = one if isinstance(one, str) else getattr(one, "value", None)
                if isinstance(code, str):
                    found.setdefault(code.removeprefix("E-"), []).append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_every_refusal_has_a_code_that_says_what_it_means_and_every_code_is_used():
    found = codes()
    assert found.pop("", []) == []
    assert sorted(found) == sorted(CODES)
    assert [code for code in found if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)] == []
    assert [code for code, said in CODES.items() if not all(said) or any(text.endswith(".") for text in said)] == []
    assert list(CODES) == sorted(CODES)


def test_what_is_raised_is_a_refusal_a_fault_or_a_protocol_of_python():
    """A plain `ValueError` would be shown with a traceback, as a fault of ours."""
    plain = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") in plain - PROTOCOL - FAULTS
    }
    assert sorted(found - CAUGHT) == []


PAGE = runpy.run_path(str(PACKAGE.parent / "docs" / "site" / "refusals.py"))


def test_the_page_of_refusals_has_every_code_once_and_can_be_pointed_to():
    rows = [line.split(" | ") for line in PAGE["refusals_page"]().splitlines() if line.startswith("| <span")]
    assert [row[0] for row in rows] == [f'| <span id="E-{code}"></span>`E-{code}`' for code in CODES]
    assert all(len(row) == 3 for row in rows)


def test_the_page_of_refusals_has_every_warning():
    """As many as there are calls that warn (`notices.warn`'s own not counted), and each by words of its message."""
    calls, texts = 0, []
    for file in PACKAGE.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        found = [
            node for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "warn"
        ]  # fmt: skip
        calls += len(found)
        texts += [source] * bool(found)
    assert calls - 1 == len(PAGE["NOTES"])
    assert [words for words in PAGE["NOTES"] if sum(words in text for text in texts) != 1] == []
    assert all(f"| “{words}” | " in PAGE["refusals_page"]() for words in PAGE["NOTES"])
