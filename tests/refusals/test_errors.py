"""Errors: what they are, and the table of their codes."""

import ast
import builtins
import pickle
import re
import runpy
import traceback
from pathlib import Path

import pytest

import gradeclip_utils
from gradeclip_utils import errors
from gradeclip_utils.errors import GradeclipError

PACKAGE = Path(gradeclip_utils.__file__).parent
PAGE = runpy.run_path(str(PACKAGE.parent / "docs" / "site" / "refusals.py"))
CODES, WARNINGS = PAGE["CODES"], PAGE["WARNINGS"]

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GradeclipError)]


def test_a_refusal_is_also_what_pythons_habit_is():
    assert issubclass(GradeclipError, ValueError) and issubclass(GradeclipError, TypeError)
    assert issubclass(GradeclipError, OSError) and issubclass(GradeclipError, FileNotFoundError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_keeps_its_sentence_and_its_code_on_the_way_from_another_process(kind):
    found = pickle.loads(pickle.dumps(kind("this is none", "image-dtype")))
    assert (type(found), str(found), found.code) == (kind, "this is none", "E-image-dtype")
    assert found.__notes__ == ["[E-image-dtype]"]


# Modules whose owners raise plain errors where Python's protocols want them: `IndexError` ends an iteration, and so on.
PROTOCOL = {"AttributeError", "IndexError", "KeyError", "StopIteration"}
FAULTS = {"AssertionError", "NotImplementedError", "RuntimeError"}  # of ours, or of who writes a tower
CAUGHT = {"explanation.py"}  # what is wrong with a stored result, which its reader says as an `GradeclipError`


def codes(names: set[str]) -> dict[str, list[str]]:
    """Code -> where the package calls one of the names with it, or gives it to a class; "" where a call gives none."""
    refuses, found = "GradeclipError" in names, {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            given: list = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                given = [""] if len(node.args) < 2 else list(ast.walk(node.args[1]))  # one code, or one of two
            elif refuses and isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
                given = [node.value]
            for one in given:
                code = one if isinstance(one, str) else getattr(one, "value", None)
                if isinstance(code, str):
                    found.setdefault(code.removeprefix("E-"), []).append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    return found


@pytest.mark.parametrize(
    ("names", "table"), [({kind.__name__ for kind in KINDS}, CODES), ({"warn"}, WARNINGS)], ids=["refusals", "warnings"]
)
def test_every_refusal_and_warning_has_a_code_that_says_what_it_means_and_every_code_is_used(names, table):
    found = codes(names)
    assert found.pop("", []) == []
    assert sorted(found) == sorted(table)
    assert [code for code in found if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)] == []
    assert [code for code, said in table.items() if not all(said) or any(text.endswith(".") for text in said)] == []
    assert list(table) == sorted(table)


def test_whatever_warns_does_so_with_a_code():
    """`notices.warn` alone calls Python's."""
    found = [
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("warn", "warn_explicit")
    ]
    assert found == ["notices.py"]


def test_a_traceback_ends_with_the_code():
    with pytest.raises(GradeclipError, match="this is none") as refused:
        raise GradeclipError("this is none")
    assert "".join(traceback.format_exception(refused.value)).endswith("this is none\n[E-image-dtype]\n")


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


def test_the_page_of_refusals_and_warnings_has_every_code_once_and_can_be_pointed_to():
    rows = [line.split(" | ") for line in PAGE["refusals_page"]().splitlines() if line.startswith("| <span")]
    every = [*(f"E-{code}" for code in CODES), *(f"W-{code}" for code in WARNINGS)]
    assert [row[0] for row in rows] == [f'| <span id="{code}"></span>`{code}`' for code in every]
    assert all(len(row) == 3 for row in rows)
