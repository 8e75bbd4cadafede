"""The house: rooms import from floors below their own, and the package never imports the workshop beside it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = (  # the highest first; a room may use what lies on a lower floor
    ("studies", "training"),
    ("__main__",),
    ("panels", "finetune"),
    ("measures",),
    ("explain",),
    ("explanation",),
    ("datasets",),
    ("methods", "models", "scenes", "prompts"),
    ("plots",),
    ("images",),
    ("towers",),
    ("words", "language", "files"),
    ("checks",),
    ("errors",),
)
HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(file):
    """(own room, imported room) of every import, also those inside functions."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "gradeclip_utils" else parts
    package = ("gradeclip_utils", *parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            path = (*base, *(node.module or "").split("."), *(a.name for a in node.names[:1]))
            path = tuple(part for part in path if part)
            room = path[1] if path[0] == "gradeclip_utils" and len(path) > 1 else path[0]
            if room in HEIGHT and parts[0] in HEIGHT and room != parts[0]:
                yield parts[0], room


def test_every_import_runs_to_a_lower_floor():
    files = [file for room in ("gradeclip_utils", "studies", "training") for file in (ROOT / room).rglob("*.py")]
    wrong = {(own, used) for file in files for own, used in imports(file) if HEIGHT[own] <= HEIGHT[used]}
    assert wrong - {("studies", "training"), ("training", "studies")} == set()
