"""What a tag releases works where nothing of this checkout is, and is what a release says."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import check_jsonschema
import pytest
import yaml

from tests.conftest import load_script
from tests.environments import PROJECT, ROOT, make_environment

BUNDLED = {"emoji.safetensors", "emoji.json", "art.zip", "concepts.csv", "photos/cat.jpg"}
WEEKLY = pytest.mark.weekly


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that was built from the sdist, as `make dist` builds both."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def plain(wheel, tmp_path_factory):
    """`pip install gradeclip`: the wheel, its dependencies, and no extra."""
    return make_environment(tmp_path_factory.mktemp("plain"), wheel=wheel)


@WEEKLY
def test_the_sdist_carries_every_file_of_the_repository(wheel):
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no checkout, so what belongs to the project is not known")

    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(listing.stdout.split()) <= names


@WEEKLY
def test_the_wheel_carries_the_package_one_model_and_the_drawings_in_fifteen_megabytes(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    version = wheel.name.split("-")[1]
    folders = {name.partition("/")[0] for name in names}
    weights = {name for name in names if name.endswith(".safetensors")}

    assert folders == {"gradeclip_utils", f"gradeclip-{version}.dist-info"}
    assert {f"gradeclip_utils/data/{name}" for name in BUNDLED} <= names
    assert weights == {"gradeclip_utils/data/emoji.safetensors"}
    assert wheel.stat().st_size <= 15_000_000


@WEEKLY
def test_every_command_and_every_example_of_its_help_works_after_pip_install(plain):
    """The release runs the same script on its wheel."""
    output = plain.run(ROOT / ".ci" / "try_commands.py")
    for command in ("explain", "report", "evaluate"):
        assert f"gradeclip {command} --help" in output


@WEEKLY
def test_the_readmes_lines_of_python_run_after_pip_install(plain):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    draw_a_dog = (
        "from gradeclip_utils.scenes import arrange\n"
        "arrange(['dog', 'umbrella'], seed=3).image().convert('RGB').save('dog.jpg')\n"
    )
    # weights of OpenAI cannot be downloaded here
    code = code.replace('"ViT-B-16", pretrained="openai"', "")
    assert "load_clip()" in code
    report = "\nimport gradeclip_utils\nprint(explanation.prompts, gradeclip_utils.__file__)"

    output = plain.run("-c", draw_a_dog + code + report)

    assert "a dog on a sofa" in output
    assert str(plain.folder) in output  # and nothing came from the checkout


@WEEKLY
def test_what_needs_more_than_the_wheel_says_so_in_one_line(plain):
    code = (
        "import gradeclip_utils\n"
        "try: import gradeclip_utils.panels\n"
        "except ImportError as error: print(error)\n"
        "try: gradeclip_utils.load_clip('emoji-bag')\n"
        "except gradeclip_utils.GradeclipError as error: print(error)\n"
    )
    panels, model = plain.run("-c", code).splitlines()
    assert "pip install 'gradeclip[lessons]'" in panels
    assert "emoji-bag" in model


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
    assert files
    assert not ended.value.code, capsys.readouterr().out


def test_workflows_call_targets_and_files_that_exist():
    commands = []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            commands += [step.get("run", "") for step in job["steps"]]
    text = "\n".join(commands)

    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make ([\w-]+)", text, re.M)
    assert targets
    assert set(targets) <= set(re.findall(r"^([\w-]+):", makefile, re.M))
    files = re.findall(r"\.ci/[\w.]+", text)
    assert files
    assert all((ROOT / file).exists() for file in files)


def test_the_release_installs_its_wheel_with_each_extra_by_itself():
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    tried = set(release["jobs"]["install"]["strategy"]["matrix"]["extra"])
    assert tried == {"", *(f"[{extra}]" for extra in PROJECT["optional-dependencies"])}


# --------------------------------------------------------------------------------------- addresses

ADDRESS = "https://github.com/Some/gradeclip"


@pytest.fixture(scope="module")
def addresses():
    """The script that writes where the project is published."""
    return load_script(".ci/addresses.py")


@pytest.fixture
def checkout(tmp_path):
    """The files that have addresses."""
    for name in ("README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_committed_has_the_addresses_of_the_citation_and_every_notebook_its_setup(
    addresses, checkout
):
    before = contents(checkout)
    addresses.main(checkout)
    assert contents(checkout) == before


def test_before_a_release_nothing_leads_to_an_address(addresses):
    if addresses.published(ROOT)[0]:
        pytest.skip("the project is published")
    for file in (ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")):
        text = file.read_text(encoding="utf-8")
        assert "colab.research" not in text
        assert "Try it in your browser" not in text


def test_a_release_writes_its_address_and_its_tag_into_every_notebook_and_the_readme(
    addresses, checkout
):
    addresses.main(checkout, f"{ADDRESS}.git")
    _, tag = addresses.published(checkout)
    readme = (checkout / "README.md").read_text()
    assert f"repository-code: {ADDRESS}\n" in (checkout / "CITATION.cff").read_text()
    assert "**[Try it in your browser](https://some.github.io/gradeclip/live/)** · " in readme
    assert f"git clone --depth 1 {ADDRESS} gradeclip" in readme

    notebooks = sorted((checkout / "notebooks").glob("*.ipynb"))
    assert len(notebooks) >= 10
    for file in notebooks:
        badges, *cells = json.loads(file.read_text())["cells"]
        opened = f"Some/gradeclip/blob/{tag}/notebooks/{file.name}"
        for text in ("".join(badges["source"]), readme):
            assert f"(https://colab.research.google.com/github/{opened})" in text
            assert f"(https://kaggle.com/kernels/welcome?src=https://github.com/{opened})" in text
        (setup,) = [cell for cell in cells if cell["id"] == "setup"]
        source = "".join(setup["source"])
        assert f'"{ADDRESS}"' in source
        assert f"-b {tag} " in source

    written = contents(checkout)
    addresses.main(checkout, ADDRESS)
    assert contents(checkout) == written
