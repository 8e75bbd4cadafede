"""The house: rooms import from floors below their own, refuse by one exception, and read no foreign code."""

import ast
import builtins
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = (  # the highest first; a room may use what lies on a lower floor
    ("studies", "training"),
    ("__main__",),
    ("panels",),
    ("measures",),
    ("explainer",),
    ("explanation",),
    ("datasets",),
    ("methods", "models", "scenes", "prompts"),
    ("plots",),
    ("images", "runtime"),
    ("towers",),
    ("words", "language", "files"),
    ("checks",),
    ("errors",),
)
HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}


# Errors of Python's protocols (`IndexError` ends an iteration), of faults of the package itself, and
# of a library that is missing.
OTHERS = {
    "AttributeError",
    "IndexError",
    "KeyError",
    "StopIteration",
    "AssertionError",
    "NotImplementedError",
    "RuntimeError",
    "ModuleNotFoundError",
}


def nodes_of(*rooms):
    """(file, node) of all that is written in the modules of these rooms."""
    for file in (file for room in rooms for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield file.relative_to(ROOT), node


def test_every_import_runs_to_a_lower_floor():
    wrong = set()
    for file, node in nodes_of("gradeclip_utils", "studies", "training"):
        if isinstance(node, ast.ImportFrom):
            parts = file.with_suffix("").parts
            parts = parts[1:] if parts[0] == "gradeclip_utils" else parts
            package = ("gradeclip_utils", *parts[:-1])
            base = package[: len(package) - node.level + 1] if node.level else ()
            path = (*base, *(node.module or "").split("."), *(a.name for a in node.names[:1]))
            path = tuple(part for part in path if part)
            room = path[1] if path[0] == "gradeclip_utils" and len(path) > 1 else path[0]
            if parts[0] != room and HEIGHT.get(parts[0], 9) <= HEIGHT.get(room, -99):
                wrong.add((parts[0], room))
    assert wrong - {("studies", "training"), ("training", "studies")} == set()


def test_invalid_input_is_refused_by_the_one_exception():
    plain = {
        name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    found = {
        file.name
        for file, node in nodes_of("gradeclip_utils")
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") in plain - OTHERS
    }
    assert found <= {"explanation.py"}  # whose `load` says the reason in a `GradeclipError`


def test_no_pickle_is_read():
    """`torch.load` reads weights alone."""
    for file, node in nodes_of("gradeclip_utils"):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = getattr(node.func.value, "id", ""), node.func.attr
            keywords = {one.arg: one.value for one in node.keywords}
            if (owner, name) == ("torch", "load"):
                assert getattr(keywords.get("weights_only"), "value", False) is True, (
                    f"{file}:{node.lineno}"
                )
            if (owner, name) == ("np", "load"):
                assert getattr(keywords.get("allow_pickle"), "value", True) is False, (
                    f"{file}:{node.lineno}"
                )
            assert owner not in ("pickle", "joblib", "dill", "marshal") or name not in (
                "load",
                "loads",
            ), file
            assert (owner, name) != ("pd", "read_pickle"), file
