"""Each extra by itself brings all that it is for; `make test-extras` installs beside .venv what .venv lacks of them."""

import json
import re
import shutil
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.alone import ROOT, build_wheel, install_alone, run_in

NEEDED = ("nbgrader", "pytorch_grad_cam", "sphinx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in map(find_spec, NEEDED), reason="make test-extras brings what is not in .venv"),
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def alone(wheel, request, tmp_path):
    """The Python of an environment with the wheel and the extra of the test's name, of which all can be imported."""
    return import_alone(wheel, tmp_path, request.node.name.split("_")[1])


def import_alone(wheel, tmp_path, extra):
    python = install_alone(wheel, tmp_path / "environment", extra)
    asked = {canonicalize_name(Requirement(line).name) for line in EXTRAS[extra]} - {"gradeclip"}
    owners = {module: {canonicalize_name(one) for one in names} for module, names in packages_distributions().items()}
    # one is called "sentencepiece/__init__" there
    modules = sorted({module.split("/")[0] for module, names in owners.items() if names & asked})
    assert len(modules) >= len(asked)
    run_in(tmp_path, python, "-c", f"from importlib import import_module\nfor name in {modules}: import_module(name)")
    return python


def test_notebooks_alone_execute_one(alone, tmp_path):
    cells = [nbformat.v4.new_code_cell("from gradeclip_utils import load_clip\nload_clip().name")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "one.ipynb")
    run_in(tmp_path, alone, "-m", "jupyter", "nbconvert", "--execute", "--to", "html", "one.ipynb")
    assert "'emoji'" in re.sub("&#39;", "'", (tmp_path / "one.html").read_text())


def test_site_alone_builds_a_page_of_ours(alone, tmp_path):
    ours = shutil.ignore_patterns("*.md", "howto", "build.py", "refusals.py")  # but settings, templates, bibliography
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "pages", ignore=ours)
    (tmp_path / "pages" / "index.md").write_text(
        """# One

$a^2$ {cite}`zhao2024gradeclip`

```{bibliography}
```

:::{card} Card
:::

```{toctree}
lesson
```

```{eval-rst}
.. automodule:: gradeclip_utils.files
   :members:
```
"""
    )
    cells = [nbformat.v4.new_markdown_cell("# Lesson"), nbformat.v4.new_code_cell("6 * 7")]
    lesson = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(lesson, tmp_path / "pages" / "lesson.ipynb")
    run_in(tmp_path, alone, "-m", "sphinx", "-W", "-q", "pages", "built")
    page = (tmp_path / "built" / "index.html").read_text()
    assert all(part in page for part in ("mathjax", "Zhao", "write_whole", "sd-card", "copybutton"))
    assert "cell_input" in (tmp_path / "built" / "lesson.html").read_text()


def test_data_alone_reads_published_masks(alone, tmp_path):
    code = """
import h5py, json
from PIL import Image
from gradeclip_utils.datasets import load
Image.new("RGB", (8, 8)).save("val2017/1.jpg")
shown = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 4, 0, 4]], "iscrowd": 0}
image, kind = {"id": 1, "width": 8, "height": 8, "file_name": "1.jpg"}, {"id": 1, "name": "dog"}
with open("annotations/instances_val2017.json", "w") as file:
    json.dump({"images": [image], "annotations": [shown], "categories": [kind]}, file)
(example,) = load("coco:.")
assert example.mask().sum() == 32
h5py.File("other.mat", "w").close()
try:
    load("imagenet-segmentation:other.mat")
except ValueError as refused:
    print(refused)
"""
    for folder in ("annotations", "val2017"):
        (tmp_path / folder).mkdir()
    assert "is not ImageNet-Segmentation" in run_in(tmp_path, alone, "-c", code)


def test_dask_alone_measures_on_a_cluster(alone, tmp_path):
    code = """
from distributed import LocalCluster
from gradeclip_utils import load_clip
from gradeclip_utils.measures.evaluation import evaluate
with LocalCluster(1, processes=False, dashboard_address=None) as cluster:
    where = {"dask": cluster.scheduler_address, "progress": False}
    print(len(evaluate(load_clip(), "scenes:development:2", ["grad-eclip"], **where)))
"""
    assert int(run_in(tmp_path, alone, "-c", code).split()[-1]) >= 2


def test_accelerate_alone_fine_tunes_in_two_processes(alone, tmp_path):
    code = """
from gradeclip_utils.scenes import arrange
for i in range(8):
    arrange(["dog"], seed=i).image().save(f"{i}.png")
"""
    run_in(tmp_path, alone, "-c", code)
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(f"{i}.png,a dog\n" for i in range(8)))
    launch = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 -m gradeclip_utils fine-tune"
    asked = "--captions captions.csv --images . --steps 1 --batch 4 --out tuned.safetensors"
    run_in(tmp_path, alone, *launch.split(), *asked.split())
    assert (tmp_path / "tuned.safetensors").stat().st_size > 1_000_000


def test_assignments_alone_make_what_students_get(alone, tmp_path):
    assignments = ROOT / "notebooks" / "assignments"
    (tmp_path / "nbgrader_config.py").write_text((assignments / "nbgrader_config.py").read_text())
    (tmp_path / "source" / "one").mkdir(parents=True)
    (tmp_path / "source" / "one" / "one.ipynb").write_text((assignments / "03_methods_compared.ipynb").read_text())
    run_in(tmp_path, alone, "-m", "nbgrader", "generate_assignment", "--force", "one")
    assert "BEGIN SOLUTION" not in json.dumps(nbformat.read(tmp_path / "release" / "one" / "one.ipynb", 4))


@pytest.mark.parametrize("extra", ["live", "test", "transformers"])
def test_each_alone_can_be_imported(extra, wheel, tmp_path):
    import_alone(wheel, tmp_path, extra)


def test_bench_alone_brings_the_packages_that_are_measured_beside_ours(alone, tmp_path):
    run_in(tmp_path, alone, "-c", "from pytorch_grad_cam import GradCAM; GradCAM.forward")
