"""One list of dependencies: environment.yml, the Makefile and the imports all agree with pyproject.toml."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml

import gradeclip_utils

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def parsed(requirements):
    """Normal name -> bounds."""
    pairs = (re.fullmatch(r"([\w.-]+?)\s*((?:[<>=~!]=?|===).*)?", line.strip()).groups() for line in requirements)
    return {normal(name): bounds or "" for name, bounds in pairs}


def test_conda_installs_a_python_that_ci_tries_and_packages_with_the_bounds_of_the_project_and_pip_the_rest():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, *conda, last = content["dependencies"]
    assert content["channels"] == ["conda-forge"]
    # repo2docker, which Binder runs, looks for this pattern; it stages the whole repository for a line that begins so
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
    every = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
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
    outside = {normal(owners[name][0]) for name in names - sys.stdlib_module_names - {"gradeclip_utils"}}
    bare = set(parsed(PROJECT["dependencies"]))
    brought = {"torchvision", "timm", "huggingface-hub", "tqdm", "regex", "filelock"}  # by these
    extra = PROJECT["optional-dependencies"].values()
    extras = set(parsed(line for lines in extra for line in lines if not line.startswith("gradeclip[")))
    assert len(bare) <= 9 and bare <= outside
    assert outside <= bare | brought | extras | {"traitlets"}  # of ipywidgets


def test_importing_the_package_and_its_help_take_less_than_half_a_second():
    for code in ("import gradeclip_utils", "from gradeclip_utils.__main__ import main; main(['--help'])"):
        timed = (
            f"import time; t = time.process_time()\ntry:\n    {code}\nfinally:\n    print('|', time.process_time() - t)"
        )
        result = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True)
        assert float(result.stdout.rpartition("|")[2]) < 0.5


def test_every_public_name_can_be_imported():
    assert all(getattr(gradeclip_utils, name) for name in gradeclip_utils.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gradeclip_utils.nonsense


def test_scenes_and_data_need_no_torch():
    code = "import sys, gradeclip_utils.scenes, gradeclip_utils.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_old_python_is_told_which_one_is_needed(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.1; else exit 1; fi\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--directory", str(tmp_path), f"PYTHON={old}"]
    result = subprocess.run([*command, "lab"], capture_output=True, text=True, env=clean)
    assert result.returncode != 0
    assert "gradeclip needs Python 3.11 or newer, and" in result.stdout
    assert "is Python 3.9.1" in result.stdout
    assert not (tmp_path / ".venv").exists()


def hooks():
    """The hooks that run before a commit, by id."""
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    return {hook["id"]: hook for repo in content["repos"] for hook in repo["hooks"]}


def test_a_commit_is_checked_by_the_ruff_that_ci_runs():
    asked = parsed(PROJECT["optional-dependencies"]["test"][1:])
    for hook in hooks().values():
        for name, bounds in parsed(hook["additional_dependencies"]).items():
            assert asked.get(name, bounds) == bounds
    assert {"ruff", "ruff-format", "nbstripout", "end-of-file-fixer"} == set(hooks())


def test_a_commit_takes_widget_state_and_timing_out_of_a_notebook_and_nothing_else(tmp_path):
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    output = nbformat.v4.new_output("stream", text="0.31\n")
    notebook.cells = [nbformat.v4.new_code_cell("print(0.31)", outputs=[output], execution_count=7)]
    clean, full = tmp_path / "clean.ipynb", tmp_path / "full.ipynb"
    nbformat.write(notebook, clean)
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"a": 1}}}
    notebook.cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    nbformat.write(notebook, full)
    program, *options = shlex.split(hooks()["nbstripout"]["entry"])
    before = clean.read_bytes()
    assert full.read_bytes() != before
    for path in (clean, full):
        subprocess.run([sys.executable, "-m", program, *options, str(path)], check=True)
        assert path.read_bytes() == before
