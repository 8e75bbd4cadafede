"""One list of dependencies: environment.yml, the Makefile and the imports all agree with pyproject.toml."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import gradeclip_utils

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def parsed(requirements):
    """Normal name -> bounds."""
    pairs = (
        re.fullmatch(r"([\w.-]+?)\s*((?:[<>=~!]=?|===).*)?", line.strip()).groups()
        for line in requirements
    )
    return {normal(name): bounds or "" for name, bounds in pairs}


def test_conda_installs_a_python_that_ci_tries_and_packages_with_the_bounds_of_the_project_and_pip_the_rest():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, *conda, last = content["dependencies"]
    assert content["channels"] == ["conda-forge"]
    # repo2docker, which Binder runs, looks for this pattern; it stages the whole repository for a
    # line that begins so
    version = re.fullmatch(r"python\s*=+\s*([\d.]*)", python)[1]
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    wanted = parsed(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["notebooks"])
    wanted |= {"pip": "", "pytorch": wanted["torch"], "matplotlib-base": wanted["matplotlib"]}
    *named, project = last["pip"]
    bounds = parsed(conda) | parsed(named)
    assert bounds == {name: wanted[name] for name in bounds}
    assert {
        "jupyterlab",
        "pytorch",
        "open-clip-torch",
        "matplotlib-base",
        "seaborn",
        "pandas",
        "nltk",
        "ipywidgets",
    } < set(bounds)
    assert project == "-e .[notebooks]"
    assert not (ROOT / "postBuild").exists(), "environment.yml says that there is none"


def test_dependencies_are_ranges_that_any_index_can_serve():
    every = PROJECT["dependencies"] + [
        line for extra in PROJECT["optional-dependencies"].values() for line in extra
    ]
    assert not [line for line in every if "+" in line or "==" in line or "@" in line]


def test_the_bare_package_imports_each_of_its_few_dependencies_and_nothing_that_no_extra_brings():
    names = set()
    for path in (ROOT / "gradeclip_utils").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    owners = packages_distributions()
    outside = {
        normal(owners[name][0]) for name in names - sys.stdlib_module_names - {"gradeclip_utils"}
    }
    bare = set(parsed(PROJECT["dependencies"]))
    brought = {"torchvision", "timm", "huggingface-hub", "tqdm", "regex", "filelock"}  # by these
    extra = PROJECT["optional-dependencies"].values()
    extras = set(
        parsed(line for lines in extra for line in lines if not line.startswith("gradeclip["))
    )
    assert len(bare) <= 9 and bare <= outside
    assert outside <= bare | brought | extras | {"traitlets"}  # of ipywidgets


def test_what_needs_no_torch_imports_none_and_help_comes_at_once():
    heavy = "torch", "pandas", "matplotlib"
    codes = {
        "gradeclip_utils.scenes, gradeclip_utils.files": heavy[:1],
        "gradeclip_utils": (*heavy, "PIL", "numpy"),
    }
    for arguments in (["--help"], ["explain", "--help"]):
        codes[
            f"gradeclip_utils.__main__ as command\ntry: command.main({arguments})\nexcept SystemExit: pass"
        ] = heavy
    for code, absent in codes.items():
        found = f"import sys, {code}\nprint([name for name in {absent} if name in sys.modules], file=sys.stderr)"
        result = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True)
        assert result.stderr.strip() == "[]"


def test_every_public_name_can_be_imported():
    assert all(getattr(gradeclip_utils, name) for name in gradeclip_utils.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gradeclip_utils.nonsense
