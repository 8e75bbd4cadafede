"""One list of dependencies: environment.yml and the imports agree with pyproject.toml."""

import ast
import json
import subprocess
import sys
from importlib.metadata import entry_points, packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gradeclip_utils
from tests.environments import PROJECT, ROOT, declared

CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # name there -> name on PyPI


def names_of(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def imported(source: str) -> set[str]:
    """The packages outside of the standard library and of this repository that a source imports."""
    packages = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages.add(node.module.partition(".")[0])
    return packages - sys.stdlib_module_names - {"gradeclip_utils", "studies", "training"}


def distributions_of(packages: set[str]) -> set[str]:
    owners = packages_distributions()
    return {canonicalize_name(owners[package][0]) for package in packages}


def imported_by(*folders: str) -> set[str]:
    """The distributions that the modules of these folders import."""
    packages = set()
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            packages |= imported(file.read_text(encoding="utf-8"))
    return distributions_of(packages)


def test_conda_takes_a_python_that_ci_tries_and_the_bounds_of_the_project():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, *conda, by_pip = content["dependencies"]
    *named, project = by_pip["pip"]
    bounds = {(canonicalize_name(line.name), str(line.specifier)) for line in declared("notebooks")}

    # repo2docker, which Binder runs, reads a version from "python=" alone, and copies the whole
    # repository for "-e ."
    version = python.removeprefix("python=")
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    assert project == "-e .[notebooks]"

    for line in [*conda, *named]:
        requirement = Requirement(line)
        name = canonicalize_name(CONDA_NAMES.get(requirement.name, requirement.name))
        assert name == "pip" or (name, str(requirement.specifier)) in bounds, line


def test_dependencies_are_ranges_that_any_index_can_serve():
    for extra in ["", *PROJECT["optional-dependencies"]]:
        for requirement in declared(*filter(None, [extra])):
            assert not requirement.url, requirement
            assert {"==", "==="}.isdisjoint(part.operator for part in requirement.specifier)


def test_the_package_without_an_extra_declares_what_it_imports_and_nothing_else():
    extras = PROJECT["optional-dependencies"]
    optional = names_of(declared(*extras)) - names_of(declared())
    assert imported_by("gradeclip_utils") - optional == names_of(declared())


def test_the_extra_for_lessons_brings_what_their_modules_and_cells_import():
    cells = []
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and cell["id"] != "setup":  # which has a magic of pip
                cells.append("".join(cell["source"]))
    in_cells = distributions_of(set().union(*map(imported, cells)))

    lessons = names_of(declared("lessons"))
    assert in_cells <= lessons
    # `python -m studies` executes notebooks; fine-tuning may run on several GPUs
    assert imported_by("studies") <= lessons | names_of(declared("notebooks", "accelerate"))


def test_make_lab_is_the_jupyterlab_that_is_required():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (lab,) = entry_points(group="console_scripts", name="jupyter-lab")
    assert "\t$(BIN)/jupyter-lab " in makefile
    assert lab.dist.name == "jupyterlab"
    assert "jupyterlab" in names_of(declared("notebooks"))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import gradeclip_utils", ["torch", "pandas", "matplotlib", "PIL", "numpy"]),
        ("import gradeclip_utils.scenes, gradeclip_utils.files", ["torch"]),
        (
            "from gradeclip_utils.__main__ import main\n"
            "try: main(['explain', '--help'])\n"
            "except SystemExit: pass",
            ["torch", "pandas", "matplotlib"],
        ),
    ],
    ids=["package", "scenes", "help"],
)
def test_what_needs_no_torch_imports_none(code, absent):
    question = f"{code}\nimport sys\nprint(sorted(sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    loaded = ast.literal_eval(result.stderr)
    assert set(absent).isdisjoint(loaded)


def test_every_public_name_can_be_imported():
    assert all(getattr(gradeclip_utils, name) for name in gradeclip_utils.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = gradeclip_utils.nonsense
