"""The house: a room imports from the rows below its own, and refuses by one exception.

The rows are those of the table in CONTRIBUTING.md.
"""

import ast
import builtins
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "gradeclip_utils"

# of Python's protocols (an IndexError ends an iteration), of faults of the package itself, and of a
# library that is missing
PROTOCOLS = {
    "AttributeError",
    "IndexError",
    "KeyError",
    "StopIteration",
    "AssertionError",
    "NotImplementedError",
    "RuntimeError",
    "ModuleNotFoundError",
}


def rows():
    """The rooms of each row of the table, the highest row first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| module | content |")[2].partition("\n\n")[0]
    first_cells = re.findall(r"^\| ([^|]+) \|", table, re.M)[1:]  # the first one is a rule
    return [re.findall(r"`(\w+)/?`", cell) for cell in first_cells]


def room_of(file):
    """The folder or module of the package, or the folder beside the package, that a file is of."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == PACKAGE else parts[0]


def source_files(*folders):
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def nodes_of(file):
    return ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def imported_rooms(file):
    """The rooms whose names a file imports."""
    folder = file.relative_to(ROOT).parent.parts
    rooms = set()
    for node in nodes_of(file):
        if not isinstance(node, ast.ImportFrom):
            continue
        start = folder[: len(folder) - node.level + 1] if node.level else ()
        module = [*start, *(node.module or "").split(".")]
        module = [part for part in module if part]
        if module[0] != PACKAGE:
            rooms.add(module[0])
        elif len(module) > 1:
            rooms.add(module[1])
        else:
            rooms |= {alias.name for alias in node.names}
    return rooms


def test_every_import_runs_to_a_lower_row():
    height = {room: -row for row, rooms in enumerate(rows()) for room in rooms}
    upward = set()
    for file in source_files(PACKAGE, "studies", "training"):
        room = room_of(file)
        if room == "__init__":  # the package's own names
            continue
        for imported in imported_rooms(file) & height.keys() - {room}:
            if height[imported] >= height[room]:
                upward.add((room, imported))
    assert upward == set()


def test_the_table_names_every_room_once():
    rooms = [room for row in rows() for room in row]
    existing = {"studies", "training"}
    for path in (ROOT / PACKAGE).iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            existing.add(path.stem)
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == existing - {"__init__"}


def test_invalid_input_is_refused_by_the_one_exception():
    exceptions = {
        name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    for file in source_files(PACKAGE):
        for node in nodes_of(file):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", "")
                assert name not in exceptions - PROTOCOLS, f"{file}:{node.lineno}"


def test_no_pickle_is_read():
    """Weights are read by `torch.load(weights_only=True)`, arrays without `allow_pickle`."""
    for file in source_files(PACKAGE):
        for node in nodes_of(file):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            place = f"{file}:{node.lineno}"
            if call == "torch.load":
                assert keywords.get("weights_only") == "True", place
            if call == "np.load":
                assert keywords.get("allow_pickle", "False") == "False", place
            assert not re.match(r"(pickle|joblib|dill|marshal)\.loads?$", call), place
            assert call != "pd.read_pickle", place
