"""Tables, folders, scenes and figures: a missing column, file, name or shape is named."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils.datasets import coco, load, read_captions
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures import evaluate, localisation_scores, paired_differences
from gradeclip_utils.plots import paint, plot_intervals, plot_maps
from gradeclip_utils.scenes import Object, arrange, draw_scene
from studies.choices import load_choices
from tests.studies.folders import write_noise

IMAGE = Image.new("RGB", (32, 32), "grey")
HEAT = np.eye(4, dtype=np.float32)
NUMBERS = pd.DataFrame({"method": ["a", "b"], "score": [0.5, 0.6]})

DOORS = [
    pytest.param(lambda: load("scens:test:2"), "scenes", id="a data set, misspelt"),
    pytest.param(lambda: coco("nowhere"), "nowhere.*cocodataset", id="COCO that is not there"),
    pytest.param(lambda: load_choices("aro:nowhere"), "github", id="choices that are not there"),
    pytest.param(
        lambda: localisation_scores(HEAT, HEAT[:2] > 0), "shape|4", id="a mask of another shape"
    ),
    pytest.param(lambda: localisation_scores(HEAT[0], HEAT[0] > 0), "H, W", id="a map of one row"),
    pytest.param(
        lambda: paired_differences(NUMBERS.assign(image=0), "score", baseline="c"),
        "'c'|column",
        id="a baseline that has no rows",
    ),
    pytest.param(
        lambda: plot_intervals(NUMBERS),
        "no column '(mean|low)'",
        id="intervals without bounds",
    ),
    pytest.param(
        lambda: plot_maps(IMAGE, {"a": HEAT}, upsample="cubic"),
        "'bilinear' or 'nearest'|bilinear",
        id="an unknown interpolation",
    ),
    pytest.param(lambda: paint(IMAGE, HEAT[0]), "H, W", id="a heat map of one row"),
    pytest.param(lambda: Object("dgo"), "did you mean .*dog", id="a noun, misspelt"),
    pytest.param(lambda: Object("dog", colour="mauve"), "red", id="an unknown colour"),
    pytest.param(lambda: arrange(["mauve car"]), "mauve car", id="words of no scene"),
    pytest.param(lambda: draw_scene(1, split="val"), "development", id="an unknown split"),
    pytest.param(lambda: arrange(["dog"]).masks(150), "multiple of 96", id="pixels between"),
]


@pytest.mark.parametrize(("ask", "message"), DOORS)
def test_what_a_door_cannot_take_is_refused_with_what_it_takes(ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask()


def test_a_method_that_is_nearly_one_is_not_evaluated(tiny):
    with pytest.raises(GradeclipError, match="did you mean grad-eclip"):
        evaluate(tiny, "scenes:test:2", methods="grad-clip")


def test_a_table_of_captions_needs_its_columns(tmp_path):
    file = tmp_path / "captions.csv"
    file.write_text("image,text\n0.png,a dog\n")
    with pytest.raises(GradeclipError, match="caption"):
        read_captions(file)


def test_a_mask_has_the_size_of_its_image(tmp_path):
    folder = write_noise(tmp_path / "mine", ["a dog"])
    Image.new("L", (9, 9)).save(folder / "masks" / "0.png")
    (example,) = load(f"folder:{folder}")
    with pytest.raises(GradeclipError, match="9, 9"):
        example.read()
