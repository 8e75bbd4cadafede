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


def test_the_package_imports_what_it_declares_and_declares_what_it_imports():
    names = set()
    for path in (ROOT / "gradeclip_utils").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
            if isinstance(node, ast.Attribute) and node.attr == "to_parquet":
                names.add("pyarrow")  # pandas imports it for us
    owners = packages_distributions()
    outside = names - sys.stdlib_module_names - {"gradeclip_utils"}
    assert {normal(owners[name][0]) for name in outside} == set(parsed(PROJECT["dependencies"]))


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


def test_make_finds_notebooks_by_glob_and_leaves_them_alone():
    makefile = (ROOT / "Makefile").read_text()
    run = subprocess.run(["make", "--dry-run", "--always-make"], cwd=ROOT, capture_output=True, text=True).stdout
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert notebook.name not in makefile
        assert re.search(rf"--to notebook --output-dir build/executed notebooks/{notebook.name}", run)
        assert re.search(rf"docs/site/build.py build .*build/executed/{notebook.name}", run)
    assert "--inplace" not in run


def test_jupyterlab_serves_all_that_notebooks_link_to():
    lab = subprocess.run(["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "--ServerApp.root_dir=. " in lab and "/lab/tree/notebooks" in lab
    whose = subprocess.run(["id", "-u"], capture_output=True, text=True).stdout.strip()
    assert ("--allow-root" in lab) == (whose == "0")  # in a container one is root, and JupyterLab would not begin


def test_ci_runs_the_notebooks_the_tests_style_types_and_the_search_for_security_faults():
    script = (ROOT / ".ci/run").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert re.search(r"^make NOTEBOOKS=", script, re.M)
    assert re.search(r"^make lint$", script, re.M)
    assert re.search(r"^make test$", script, re.M)
    assert re.search(r"^make test-transformers48$", script, re.M)
    assert re.search(r"^make test-extras$", script, re.M)
    assert re.search(r"^make site\b.*\n(.*\n)*make test$", script, re.M), "the tests look at the pages of the site"
    lint = subprocess.run(["make", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(command in lint for command in ("ruff check .", "ruff format --check .", "bin/mypy", "bin/bandit"))
    audit = subprocess.run(["make", "--dry-run", "audit"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "bin/bandit" in audit and "bin/pip-audit --strict" in audit  # asks PyPI: not in .ci/run
    for name in ("tests", "weekly"):
        assert "make audit" in (ROOT / f".github/workflows/{name}.yml").read_text()


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


def test_the_licence_and_the_citation_are_those_of_the_project():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert PROJECT["license"] == "MIT"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    papers = [citation["preferred-citation"], *citation["references"]]
    assert [paper["year"] for paper in papers] == [2025, 2024]
    assert all(author["family-names"] for paper in papers for author in paper["authors"])
