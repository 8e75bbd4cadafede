"""Each way to install that a page names runs all that the page shows, and its lessons.

The packages of an environment are those that its extras declare (`environments`). The bundled model
or random weights stand in for those that would be downloaded.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from PIL import Image

from gradeclip_utils.files import data_path
from tests.conftest import load_script
from tests.environments import (
    ROOT,
    closure,
    declared,
    empty_environment,
    link_packages,
    make_environment,
)
from tests.studies.folders import write_coco, write_noise, write_transformers

pytestmark = pytest.mark.slow

INSTALL = re.compile(r"pip install (?P<editable>--editable )?'?\.(?:\[(?P<extras>[\w,]+)\])?'?")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BUILD_SYSTEM = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
COLAB = ["ipython==7.34.0", "ipykernel==6.17.1", "ipywidgets==7.7.1"]  # of August 2026
OLDER = ["backcall", "decorator", "ipython-genutils", "pickleshare"]  # which only these need
ADDRESS = "https://example.org/gradeclip"
OPENAI = '"ViT-B-16", pretrained="openai"'


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def installs(page):
    """The extras of every `pip install` of a page, and whether it was editable."""
    matches = INSTALL.finditer(read(page))
    return [(match["extras"] or "", bool(match["editable"])) for match in matches]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of some extras, made once; the package is that of the checkout."""
    environments = {}

    def of(*extras):
        if extras not in environments:
            environments[extras] = make_environment(tmp_path_factory.mktemp("installed"), *extras)
        return environments[extras]

    return of


@pytest.mark.parametrize("page", ["README.md", "notebooks/README.md", "docs/site/howto/data.md"])
def test_a_page_with_lessons_installs_them_editable(page):
    """`studies` is not in the wheel."""
    for extras, editable in installs(page):
        assert editable or not {"lessons", "notebooks"} & set(extras.split(",")), extras


def test_a_lesson_runs_as_make_lesson_runs_it(environment, tmp_path):
    notebooks = environment("notebooks")
    notebooks.run("-m", "studies", "01", "--n", "20", GRADECLIP_RESULTS=str(tmp_path))
    (page,) = tmp_path.rglob("01_start_here.html")
    assert page.stat().st_size > 100_000


def test_every_call_of_the_page_of_problems_runs(environment):
    page = "docs/site/howto/problems.md"
    assert installs(page)[:2] == [("", True), ("", False)]
    calls = blocks(read(page), "python")
    assert len(calls) > 15
    plain = [call for call in calls if "panels" not in call]
    environment().run("-c", "\n".join(plain))

    extras = [extras for extras, _ in installs(page)]
    assert "lessons" in extras
    environment("lessons").run("-c", "\n".join(calls))


def test_your_own_clip_is_explained_as_its_page_says(environment, tmp_path):
    plain, transformers = [extras for extras, _ in installs("docs/start.md")]
    assert (plain, transformers) == ("", "transformers")
    text = read("docs/start.md")
    (code,) = blocks(text, "python")
    random_weights = (
        "import open_clip\n"
        "def create(name, pretrained):\n"
        "    return open_clip.create_model_and_transforms(name)[::2]\n"
        "open_clip.create_model_from_pretrained = create\n"
    )
    environment().run("-c", random_weights + code)

    loading = "import sys; from gradeclip_utils import load_clip; print(load_clip(sys.argv[1]))"
    folder = write_transformers(tmp_path)
    assert "CLIP" in environment("transformers").run("-c", loading, folder)


def test_every_line_of_use_it_runs(environment):
    table = read("docs/start.md").partition("## Use it")[2]
    lines = []
    for row in re.findall(r"^\|.*\|$", table, re.M)[2:]:
        lines += re.findall(r"`([^`]+)`", row)
    setting = (
        "from gradeclip_utils import Explainer, Explanation, load_clip\n"
        "from gradeclip_utils.scenes import arrange\n"
        "clip = load_clip()\n"
        "explainer = Explainer(clip)\n"
        "image = arrange(['dog', 'umbrella'], seed=3).image()\n"
        "images, prompts = [image, image], ['a dog', 'an umbrella']\n"
        "explanation = explainer.explain(image, prompts)\n"
        "i, file, folder = 1, 'dog.npz', 'dog'\n"
    )
    code = "\n".join(line.replace("[...]", "prompts") for line in lines)
    assert len(lines) > 10
    environment().run("-c", setting + code)


# ------------------------------------------------------------------------------------ opened alone


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A repository with a release, whose notebooks have its address."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no checkout, so what belongs to the project is not known")
    folder = tmp_path_factory.mktemp("release")
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            copied = folder / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copied)

    addresses = load_script(".ci/addresses.py")
    addresses.main(folder, ADDRESS)
    _, tag = addresses.published(folder)

    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for call in (["init"], ["add", "--all"], [*author, "commit", "-m", "release"], ["tag", tag]):
        subprocess.run(["git", *call], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def colab(release, tmp_path_factory):
    """What Colab's kernel has, and what the extra brings; git finds the release at its address."""
    wheels = ROOT / "build" / "colab"  # kept, so that the network is needed once
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
    if not wheels.exists() and subprocess.run([*download, *COLAB, *OLDER]).returncode:
        pytest.skip("Colab's versions cannot be downloaded here")

    requirements = [Requirement(line) for line in ["ipykernel", "pip", *BUILD_SYSTEM["requires"]]]
    packages = []
    for package in closure([*declared("lessons"), *requirements]):
        if package.name not in ("ipython", "ipykernel") and "widgets" not in package.name:
            packages.append(package)
    environment = empty_environment(tmp_path_factory.mktemp("colab"))
    link_packages(environment, packages)
    offline = ["--no-deps", "--no-index", "--find-links", wheels]
    environment.install(*offline, *COLAB, *OLDER)

    elsewhere = f'[url "file://{release}"]\n    insteadOf = {ADDRESS}\n'
    (environment.home / ".gitconfig").write_text(elsewhere)
    return environment


def shows_figure(cell):
    """Whether a figure or a panel is among the outputs of a cell."""
    data = [output.get("data", {}) for output in cell.get("outputs", ())]
    return any("image/png" in kinds or "widget-view" in str(list(kinds)) for kinds in data)


@pytest.mark.weekly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_alone_in_an_empty_folder_sets_itself_up_and_shows_its_first_figure(
    path, release, colab, tmp_path, monkeypatch
):
    """By the kernel, IPython and ipywidgets of Colab, from the release alone."""
    notebook = nbformat.read(release / "notebooks" / path.name, as_version=4)
    first = next(number for number, cell in enumerate(notebook.cells) if shows_figure(cell))
    notebook.cells = notebook.cells[: first + 1]
    kernel = tmp_path / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(colab.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    argv += ["--log-level=ERROR"]
    spec = {"argv": argv, "display_name": "Colab", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    kernels = KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")])

    for name, value in {
        "HOME": str(colab.home),
        "PYTHONPATH": "",
        "PIP_NO_DEPS": "1",  # all that the extra brings is there
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which means without isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "MPLBACKEND": "",
    }.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "empty"
    folder.mkdir()
    manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=kernels)
    NotebookClient(
        notebook,
        km=manager,
        timeout=1200,
        resources={"metadata": {"path": str(folder)}},
    ).execute()

    assert shows_figure(notebook.cells[-1])
    assert (folder / "gradeclip" / "studies").is_dir()


# ------------------------------------------------------------------------------------------- data


def write_data(home):
    """The folders that the page about data names, small."""
    photographs = data_path("photos")
    shutil.copytree(photographs, home / "photos", dirs_exist_ok=True)
    shutil.copy(photographs / "captions.csv", home)
    write_noise(home / "mine", ["a dog", "a cat"])

    (home / "FOLDER").mkdir()
    write_coco(home / "FOLDER")

    for folder in ("DATA", "IMAGES"):
        (home / folder).mkdir()
    Image.effect_noise((32, 32), 60).convert("RGB").save(home / "IMAGES" / "1.jpg")
    entry = {"filename": "1.jpg", "caption": "a red dog", "negative_caption": "a blue dog"}
    (home / "DATA" / "swap_att.json").write_text(json.dumps({"0": entry}))


def test_every_block_of_the_page_about_data_runs(environment):
    (alone, _), (everything, _) = installs("docs/site/howto/data.md")
    assert (alone, everything) == ("data", "data,notebooks")
    data = environment(*everything.split(","))
    write_data(data.home)
    text = read("docs/site/howto/data.md")

    for block in blocks(text, "sh"):
        for line in block.splitlines():
            command, *arguments = shlex.split(line, comments=True)
            if command == "gradeclip":  # `make lesson` is tried above
                call = shlex.join(arguments).replace("--model ViT-B-16 --pretrained openai", "")
                data.run("-m", "gradeclip_utils", *shlex.split(call))

    lessons, hub = blocks(text, "python")
    data.run("-c", lessons.replace(OPENAI, ""))
    no_network = (
        "import datasets, PIL.Image\n"
        "rows = {'image': [PIL.Image.new('RGB', (9, 9))], 'caption': [['a dog', 'one dog']]}\n"
        "datasets.load_dataset = lambda name, split: datasets.Dataset.from_dict(rows)\n"
    )
    data.run("-c", f"{no_network}{hub}assert len(examples) == 2")


@pytest.mark.weekly
def test_a_scheduler_of_the_cluster_extra_takes_the_work(environment):
    assert ("cluster", False) in installs("docs/site/howto/problems.md")
    (code,) = blocks(read("docs/site/howto/problems.md"), "py")
    code = code.replace('"tcp://scheduler:8786"', "cluster.scheduler_address")
    code = code.replace("coco:coco", "scenes:test:2")
    script = (
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:\n"
    )
    environment("cluster").run("-c", script + textwrap.indent(code, 8 * " "))


def test_the_classroom_collects_what_builds_an_editable_package():
    """Without a network nothing else can bring the tools that `pip install --editable` runs."""
    tools = {Requirement(line).name for line in BUILD_SYSTEM["requires"]}
    (block,) = blocks(read("notebooks/README.md"), "sh")
    collecting, installing = block.splitlines()
    assert tools | {"editables"} <= set(shlex.split(collecting))
    assert INSTALL.search(installing.replace("--no-index --find-links wheels ", ""))["editable"]
