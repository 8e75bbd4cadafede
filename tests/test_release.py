"""What a tag releases works where nothing of this checkout is, and the files around it say the same as the project."""

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

from tests.alone import ROOT, build_wheel, install_alone, run_in

PROJECT_FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PROJECT_FILE["project"]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


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
def test_the_wheel_carries_the_package_one_model_and_the_drawings_in_fifteen_megabytes(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"gradeclip_utils", f"gradeclip-{version_of(wheel)}.dist-info"}
    kept = {"py.typed", "data/emoji.safetensors", "data/art.zip", "data/concepts.csv"}
    assert {f"gradeclip_utils/{name}" for name in kept} <= set(names)
    assert [name for name in names if name.endswith(".safetensors")] == ["gradeclip_utils/data/emoji.safetensors"]
    assert wheel.stat().st_size <= 15_000_000


@pytest.mark.slow
def test_the_wheel_alone_explains_a_drawn_scene_and_says_where_the_other_models_are(wheel, bare, tmp_path):
    code = """
import gradeclip_utils
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.scenes import arrange
scene = arrange(["dog", "umbrella"], seed=3)
Explainer(load_clip()).explain(scene.image(), ["a dog", "a piano"]).plot().savefig("explained.png")
try:
    load_clip("emoji-bag")
except gradeclip_utils.errors.GradeclipError as error:
    print(error)
print(gradeclip_utils.__file__, gradeclip_utils.__version__)
"""
    said = run_in(tmp_path, bare, "-c", code)
    assert "emoji-bag" in said and "data" in said
    assert Path(said.split()[-2]).is_relative_to(bare.parent.parent) and said.split()[-1] == version_of(wheel)
    assert (tmp_path / "explained.png").stat().st_size > 10_000
    for command in ("explain", "report", "evaluate", "fine-tune"):
        assert "usage: gradeclip" in run_in(tmp_path, bare.parent / "gradeclip", command, "--help")


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
