"""The house: modules import from floors below their own, no two import each other, and nothing lies flat at the root
that has a room.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
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
    ("explanation", "encoders"),
    ("plots", "datasets"),
    ("methods", "images", "models", "scenes", "prompts"),
    ("towers",),
    ("words", "language", "notices", "files"),
    ("checks",),
    ("errors",),
)
FLAT = {
    "__init__", "__main__", "encoders", "errors", "explain", "explanation", "files", "images", "language",
    "notices", "prompts", "words",
}  # fmt: skip


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


# --- the command line ---------------------------------------------------------------------------------------------


def runs_by_itself(source: str) -> bool:
    """Whether a module is a command: it asks whether it is `__main__`, or makes a parser of arguments."""
    nodes = list(ast.walk(ast.parse(source)))
    asks = any(isinstance(n, ast.Compare) and getattr(n.left, "id", "") == "__name__" for n in nodes)
    return asks or any(isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "ArgumentParser" for n in nodes)


def test_there_is_one_command_line():
    assert [module for module, source in sources(PACKAGE).items() if runs_by_itself(source)] == ["__main__"]


# --- the field's words --------------------------------------------------------------------------------------------

# The field's word for each private one: never a part of a name,
PARTS = {
    "ceiling": "oracle", "companion": "hard negative", "companions": "hard negatives", "hottest": "pointing game",
    "ink": "colour", "likeness": "distillation weight", "nudge": "delta", "picture": "image", "pictures": "images",
    "pupil": "student", "pupils": "students", "reader": "query token", "readers": "query tokens", "rival": "method",
    "rivals": "methods", "share": "fraction", "shares": "fractions", "truth": "ground truth", "twin": "pair",
    "twins": "colour pairs", "undisturbed": "isolated_torch_state",
}  # fmt: skip
# and never a name on their own.
WHOLE = {
    "accumulate": "grad_accum_steps", "average": "ema_decay", "course": "distillation config", "decay": "weight_decay",
    "energy": "energy pointing game", "evaluating": "eval_mode", "fall": "leave-one-out effect", "focus": "focal_gamma",
    "frames": "reference baselines", "lead": "selectivity", "learning": "with_grad", "marks": "punctuation",
    "owners": "word_ids", "paper": "background", "pieces": "tokens", "rate": "learning_rate", "real": "valid_mask",
    "settled": "detached", "visible": "attention_mask",
}  # fmt: skip
# What the field itself calls so: the paper of a method.
CITED = {("methods.registry", "paper")}


def names_of(source: str) -> set[str]:
    """The names that a module gives: to functions, classes, arguments, variables and attributes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def private_words(name: str) -> list[str]:
    """The private words in a name, each with the field's own."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    parts = [part for before, part in pairwise(["", *parts]) if (before, part) != ("ground", "truth")]
    whole = name.strip("_").lower()
    return [f"{part}: {PARTS[part]}" for part in parts if part in PARTS] + (
        [f"{whole}: {WHOLE[whole]}"] if whole in WHOLE else []
    )


def lessons() -> dict[str, str]:
    """What the cells of each notebook compute."""
    notebooks = {
        path.stem: json.loads(path.read_text())["cells"] for path in PACKAGE.parent.glob("notebooks/**/*.ipynb")
    }
    return {
        name: "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for name, cells in notebooks.items()
    }


def test_names_are_the_fields_own_words():
    found = {
        f"{module}: {name}"
        for module, source in {**sources(PACKAGE), **lessons()}.items()
        for name in names_of(source)
        if private_words(name) and (module, name) not in CITED
    }
    assert sorted(found) == []


def test_a_private_word_is_found_wherever_it_stands_in_a_name():
    source = (
        "class PictureSide:\n    rate: float\n"
        "def ground_truth(onto_picture, *, learning_rate): self._reader = truth = 1"
    )
    found = {name: words for name in names_of(source) if (words := private_words(name))}
    assert set(found) == {"PictureSide", "rate", "onto_picture", "_reader", "truth"}
    assert found["rate"] == ["rate: learning_rate"]


# --- private names ------------------------------------------------------------------------------------------------


def poked(source: str) -> set[str]:
    """The private names of modules of the package that a test imports, uses or replaces."""
    tree, found = ast.parse(source), set()
    imported = [
        (alias.name, alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name
        for alias in node.names
    ]
    ours = {called: name for name, called in imported}
    found |= {name for name in ours.values() if _is_private(name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[0], ast.Name):
            owner, name = node.args[0].id, getattr(node.args[1], "value", "")  # setattr(module, "_name", ...)
        else:
            continue
        if owner in ours and isinstance(name, str) and _is_private(name):
            found.add(f"{ours[owner]}.{name}")
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith(("__", "_repr_"))


def test_tests_leave_the_private_names_of_the_package_alone():
    tests = Path(__file__).parent
    found = {
        f"{file.relative_to(tests).as_posix()}: {name}"
        for file in tests.rglob("*.py")
        for name in poked(file.read_text(encoding="utf-8"))
    }
    assert sorted(found) == []


def test_a_private_name_is_found_wherever_a_test_takes_hold_of_it():
    source = (
        "from gradeclip_utils import explain\nfrom gradeclip_utils.plots import axes as drawn, _hidden\n"
        "explain._as_images([]); figure.axes._left_title; drawn.__name__; drawn._repr_png_()\n"
        "monkeypatch.setattr(drawn, '_box', None)"
    )
    assert poked(source) == {"_hidden", "explain._as_images", "axes._box"}


# --- docstrings and sizes -----------------------------------------------------------------------------------------


def functions(source: str) -> Iterator[tuple[tuple[ast.AST, ...], ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a module, each with the classes and functions that it stands in."""
    waiting: list[tuple[tuple[ast.AST, ...], ast.AST]] = [((), ast.parse(source))]
    while waiting:
        inside, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield inside, child
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            waiting.append(((*inside, child) if named else inside, child))


def overridden(sources: Iterable[str]) -> set[tuple[str, str]]:
    """(class, method) of the methods that a base of the class has too: what the base says of them holds."""
    classes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    bases = {one.name: {getattr(base, "id", getattr(base, "attr", "")) for base in one.bases} for one in classes}
    methods = {one.name: {child.name for child in one.body if isinstance(child, ast.FunctionDef)} for one in classes}

    def above(name: str) -> set[str]:
        return {one for base in bases.get(name, set()) - {name} for one in methods.get(base, set()) | above(base)}

    return {(name, method) for name, own in methods.items() for method in own & above(name)}


def undocumented(module: str, source: str, exempt: set[tuple[str, str]]) -> list[str]:
    """Public functions that do not say what their arguments are or what they refuse, classes that do not say what they
    are made of, and functions inside public ones without a docstring.
    """
    found = []
    for inside, function in functions(source):
        said, names = ast.get_docstring(function) or "", [one.name for one in inside]
        if any(map(_is_private, names)):
            continue
        arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)} - {"self", "cls"}
        if inside and not isinstance(inside[-1], ast.ClassDef):
            wrong = not said
        elif function.name == "__init__":
            wrong = len(arguments) > 1 and "Args:" not in (ast.get_docstring(inside[-1]) or "")
        else:
            raises = any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(function))
            wrong = (bool(arguments) and "Args:" not in said) or (raises and "Raises:" not in said)
            wrong = wrong and ("".join(names[-1:]), function.name) not in exempt and not function.name.startswith("_")
        if wrong:
            found.append(".".join([module, *names, function.name]))
    return found


def test_public_functions_say_what_their_arguments_are_and_what_they_refuse():
    package = sources(PACKAGE)
    exempt = overridden(package.values())
    assert sorted(name for module, source in package.items() for name in undocumented(module, source, exempt)) == []


def test_a_function_that_says_too_little_is_found():
    source = (
        "class Base:\n def project(self, a): 'Args:'\n def finish(self): 'no'\n"
        "class Own(Base):\n def project(self, a): pass\n def other(self, a): 'no'\n"
        "class _Hidden:\n def other(self, a): 'no'\n def __init__(self, a, b): pass\n"
        "class Made(Base):\n 'no'\n def __init__(self, a, b): pass\n"
        "class Told:\n 'Args:'\n def __init__(self, a, b): pass\n"
        "def one(*a):\n 'no'\n def inside(): pass\n"
        "def refuses():\n 'no'\n raise ValueError\ndef passes_on():\n 'no'\n raise\n"
        "def _private(a):\n def inside(): pass\n"
    )
    found = ["m.Made.__init__", "m.Own.other", "m.one", "m.one.inside", "m.refuses"]
    assert sorted(undocumented("m", source, overridden([source]))) == found


def test_modules_and_functions_stay_short():
    package = sources(PACKAGE)
    modules = {name for name, source in package.items() if len(source.splitlines()) > 400}
    long = {
        ".".join([module, *(one.name for one in inside), function.name])
        for module, source in package.items()
        for inside, function in functions(source)
        if function.end_lineno - function.lineno >= 60
    }
    assert (modules, long) == (set(), set())
