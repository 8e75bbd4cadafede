"""The house: modules import from floors below their own, no two import each other, and nothing lies flat at the root
that has a room.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gradeclip_utils

PACKAGE = Path(gradeclip_utils.__file__).parent
# The highest first. A room or module may use what lies on a floor below it, and not its neighbours on its own floor.
FLOORS = (
    ("__main__",),
    ("studies",),
    ("training",),
    ("panels", "evaluation"),
    ("explain",),
    ("explanation",),
    ("plots", "datasets"),
    ("methods", "images", "models", "scenes"),
    ("towers",),
    ("words", "language", "notices", "files", "checks"),
)
FLAT = {"__init__", "__main__", "checks", "explain", "explanation", "files", "images", "language", "notices", "words"}


def sources(package: Path) -> dict[str, str]:
    """Module -> its source; `towers` is `towers/__init__.py`, and the package itself is "__init__"."""
    found = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = file.read_text(encoding="utf-8")
    return found


def imports(name: str, source: str, modules: dict[str, str], is_package: bool) -> Iterator[str]:
    """The modules of the package that one of them imports: at its head, inside a function, or for types alone."""
    here = [] if name == "__init__" else name.split(".")[: None if is_package else -1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
            yield from (_module(path[1:], modules) for path in paths if path[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = here[: len(here) - node.level + 1] + base
            elif base[:1] == [PACKAGE.name]:
                base = base[1:]
            else:
                continue
            yield from (_module([*base, alias.name], modules) for alias in node.names)


def _module(path: list[str], modules: dict[str, str]) -> str:
    """The module that `path` names, or that has what it names."""
    whole, holder = ".".join(path), ".".join(path[:-1])
    return whole if whole in modules else holder or "__init__"


def arrows_of(modules: dict[str, str], packages: set[str]) -> dict[str, set[str]]:
    """Module -> the modules that it imports; `packages` are those that are a folder."""
    return {
        name: set(imports(name, source, modules, name in packages)) - {name, "__init__"}
        for name, source in modules.items()
    }


def wrong_arrows(arrows: dict[str, set[str]]) -> list[str]:
    """The arrows that run upwards, or to another room on the same floor."""
    height = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for name, used in arrows.items():
        room = name.split(".")[0]
        for other in used:
            below = other.split(".")[0]
            if room not in ("__init__", below) and height[below] >= height[room]:
                found.append(f"{name} -> {other}")
    return sorted(found)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, one after the other; empty if there are none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    packages = {".".join(file.parent.relative_to(PACKAGE).parts) for file in PACKAGE.rglob("__init__.py")}
    return arrows_of(sources(PACKAGE), packages)


def test_every_arrow_runs_to_a_lower_floor(arrows):
    assert wrong_arrows(arrows) == []


def test_no_modules_import_each_other(arrows):
    assert circle(arrows) == []


def test_every_module_is_in_a_room_of_the_plan():
    flat = {file.stem for file in PACKAGE.glob("*.py")}
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert flat == FLAT
    assert flat | rooms == {name for floor in FLOORS for name in floor} | {"__init__"}


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("files", "from .plots import paint", ["files -> plots"]),
        ("files", "def later():\n    from .plots.colours import paint", ["files -> plots.colours"]),
        ("towers.base", "from ..methods import METHODS", ["towers.base -> methods"]),
        ("models", "from .. import images", ["models -> images"]),
        ("models", "import gradeclip_utils.scenes.art", ["models -> scenes.art"]),
        ("models", "from gradeclip_utils import explain, words", ["models -> explain"]),
        ("plots.colours", "from ..images import onto_image\nfrom .. import __version__", []),
        ("training.scratch", "from .finetune.run import Tuning\nfrom . import card", []),
    ],
)
def test_an_arrow_that_runs_upwards_is_found(name, source, wrong):
    house = "explain files images methods models plots plots.colours scenes scenes.art training.card words".split()
    house += ["towers.base", "training.scratch", "training.finetune.run", "__init__"]
    assert (
        wrong_arrows(arrows_of({**dict.fromkeys(house, ""), name: source}, {"methods", "models", "plots", "scenes"}))
        == wrong
    )


def test_a_circle_is_found_however_long_it_is():
    house = {"a": "from .b import x", "b": "def later():\n    from .c import y", "c": "import gradeclip_utils.a"}
    assert set(circle(arrows_of(house, set()))) == {"a", "b", "c"}
    assert circle(arrows_of({**house, "c": ""}, set())) == []
