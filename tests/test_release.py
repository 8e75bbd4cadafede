"""What a tag releases works where nothing of this checkout is, and the files around it say the same as the project."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import check_jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
EXTRAS = """IPython accelerate anywidget dask datasets ipywidgets joblib nltk pycocotools seaborn sklearn statsmodels
transformers""".split()
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text())
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}


def run(*arguments, **options):
    """What a command of this Python prints."""
    found = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that was built from the sdist, as `make dist` builds both."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


def version_of(wheel):
    return wheel.name.split("-")[1]


@pytest.mark.slow
def test_the_sdist_carries_what_the_tests_read(wheel):
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip("this is no checkout, so what belongs to the project is not known")
    assert set(tracked) <= names


@pytest.mark.slow
def test_the_wheel_carries_the_package_one_model_and_the_drawings_in_fifteen_megabytes(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "gradeclip_utils",
        f"gradeclip-{version_of(wheel)}.dist-info",
    }
    kept = {"py.typed", "data/emoji.safetensors", "data/art.zip", "data/concepts.csv"}
    assert {f"gradeclip_utils/{name}" for name in kept} <= set(names)
    assert [name for name in names if name.endswith(".safetensors")] == [
        "gradeclip_utils/data/emoji.safetensors"
    ]
    assert wheel.stat().st_size <= 15_000_000


@pytest.mark.slow
def test_the_wheel_explains_a_drawn_scene_without_the_checkout_and_without_any_extra(
    wheel, tmp_path
):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # cannot be imported
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
    home = tmp_path / "home"
    run(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(home),
        str(wheel),
    )
    clean = {name: value for name, value in os.environ.items() if name != "GRADECLIP_MODEL"}
    place = {"cwd": tmp_path, "env": {**clean, "MPLBACKEND": "agg", "PYTHONPATH": str(home)}}
    said = run("-c", code, **place)
    assert "emoji-bag" in said and "data" in said
    assert Path(said.split()[-2]).is_relative_to(home) and said.split()[-1] == version_of(wheel)
    assert (tmp_path / "explained.png").stat().st_size > 10_000
    assert "usage: gradeclip" in run(str(home / "bin" / "gradeclip"), "explain", "--help", **place)


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_a_file_is_as_its_published_schema_wants_it(schema, pattern, capsys):
    files = [str(path) for path in ROOT.glob(pattern)]
    with pytest.raises(SystemExit) as ended:
        check_jsonschema.main(["--builtin-schema", f"vendor.{schema}", *files])
    assert files and not ended.value.code, capsys.readouterr().out


def test_workflows_call_targets_and_files_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    jobs = [(name, job) for name, flow in WORKFLOWS.items() for job in flow["jobs"].values()]
    called = 0
    for name, step in ((name, step) for name, job in jobs for step in job["steps"]):
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.M):
            called += 1
            assert re.search(rf"^{target}:", makefile, re.M), (name, target)
        for file in re.findall(r"(?:^| )(\.ci/\w+|tests)(?: |$)", step.get("run", ""), re.M):
            assert (ROOT / file).exists(), (name, file)
    assert called > 3
