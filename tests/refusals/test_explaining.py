"""What an `Explainer` cannot take is refused in a sentence that says what it takes."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from gradeclip_utils import Explainer, Explanation
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import read_image
from gradeclip_utils.methods import Method
from tests.conftest import wrap

NOT_IMAGES = [
    pytest.param(None, "PIL image, a path, or a uint8 array", id="nothing"),
    pytest.param("nowhere.png", "nowhere.png", id="a missing file"),
    pytest.param(__file__, "save it as JPEG or PNG", id="a file of text"),
    pytest.param(np.zeros((4, 4, 3)), r"uint8 .*float64.*array \* 255", id="floats"),
    pytest.param(np.zeros((3, 4, 4), np.uint8), r"transpose\(1, 2, 0\)", id="channels first"),
    pytest.param(np.zeros((4, 4), np.uint8), r"Image.fromarray\(array\)", id="greys"),
    pytest.param(np.zeros((0, 4, 3), np.uint8), "must have pixels", id="an array without pixels"),
    pytest.param(torch.zeros(3, 0, 4), "must have pixels", id="a tensor without pixels"),
    pytest.param(torch.full((3, 4, 4), torch.nan), "from nan to nan", id="a tensor of NaN"),
    pytest.param(Image.new("F", (4, 4)), "8 bits", id="an image of floats"),
]


@pytest.mark.parametrize(("image", "message"), NOT_IMAGES)
def test_an_image_that_cannot_be_read_is_refused(image, message):
    with pytest.raises(GradeclipError, match=message):
        read_image(image)


def test_an_image_that_ends_too_early_is_refused_by_its_name(tmp_path):
    Image.effect_noise((90, 90), 60).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:2000])
    with pytest.raises(GradeclipError, match="cut.png"):
        read_image(tmp_path / "cut.png")


NOT_PROMPTS = [
    pytest.param([], "there are no prompts", id="none"),
    pytest.param(["a dog", 2], "got 2", id="a number"),
    pytest.param("", "word", id="an empty one"),
    pytest.param(torch.ones(1, 3), "48", id="embeddings of another width"),
]


@pytest.mark.parametrize(("prompt", "message"), NOT_PROMPTS)
def test_what_is_no_prompt_is_refused_on_both_sides_of_a_contrast(tiny, picture, prompt, message):
    explainer = Explainer(tiny)
    with pytest.raises(GradeclipError, match=message):
        explainer.explain(picture, prompt)
    with pytest.raises(GradeclipError, match=message):
        explainer.explain(picture, "a dog", against=prompt)


OPTIONS = [
    pytest.param({"method": "gradcam"}, "did you mean grad-cam", id="a method, misspelt"),
    pytest.param({"resolution": 224}, "'model' or 'native'", id="a resolution in pixels"),
    pytest.param({"words": "rise"}, "RISE explains images only", id="words by a method of images"),
    pytest.param({"device": "gpu"}, "device='gpu'", id="a device that torch does not name"),
    pytest.param({"null_captions": []}, "two captions or more, got \\[\\]", id="no null captions"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_an_option_that_does_not_exist_is_refused(tiny, options, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny, **options)


CALLS = [
    pytest.param(
        lambda explainer, image: explainer.explain_batch([image], ["a dog", "a cat"]),
        "1 and 2",
        id="fewer images than prompts",
    ),
    pytest.param(
        lambda explainer, image: explainer.explain(image, ["a", "b", "c"], against=["d", "e"]),
        "3, got 2",
        id="two contrasts for three prompts",
    ),
    pytest.param(
        lambda explainer, image: Explainer(replace(explainer.clip, tokenizer=None)).explain(
            image, torch.ones(1, 48), against="others"
        ),
        "embeds no captions, so there are no others",
        id="a lead over others of a model without captions",
    ),
    pytest.param(
        lambda explainer, image: explainer.maps(image, torch.ones(1, 3)),
        "48",
        id="a direction of another width",
    ),
    pytest.param(
        lambda explainer, image: Explainer(explainer.clip, method="rise").interactions(image, "a"),
        "'rise'",
        id="interactions of another method",
    ),
    pytest.param(
        lambda explainer, image: explainer.interactions(image, ["a dog", "a cat"]),
        "takes one prompt, got 2",
        id="interactions of two prompts",
    ),
    pytest.param(
        lambda explainer, image: explainer.null_maps(image, "a dog", count=1),
        "2 or more, got 1",
        id="one null map",
    ),
    pytest.param(
        lambda explainer, image: explainer.null_maps(image, ["a dog", "a cat"]),
        "takes one prompt, got 2",
        id="null maps of two prompts",
    ),
    pytest.param(
        lambda explainer, image: Explainer(explainer.clip, method="leave-one-out").maps(image, []),
        "prompts only",
        id="maps of a method of words",
    ),
    pytest.param(
        lambda explainer, image: explainer.explain(image, "a").prompt_dependence(np.ones((3, 5))),
        "null maps",
        id="null maps on another grid",
    ),
    pytest.param(
        lambda explainer, image: explainer.explain(image, "a").regions(quantile=90),
        "between 0 and 1, got 90",
        id="a quantile in percent",
    ),
    pytest.param(
        lambda explainer, image: explainer.explain(image, "a", methods="game"),
        "a list of names, got 'game'",
        id="one method where several are named",
    ),
    pytest.param(
        lambda explainer, image: explainer.explain(image, "a", method="game", methods=["game"]),
        "method= for one",
        id="one method and several",
    ),
    pytest.param(
        lambda explainer, image: explainer.to("gpu"),
        "device='gpu'",
        id="a move to a device that is not there",
    ),
]


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_a_call_that_does_not_fit_together_is_refused(tiny, picture, call, message):
    with pytest.raises(GradeclipError, match=message):
        call(Explainer(tiny), picture)


CLIPS = [
    pytest.param(lambda clip: clip.model, r"Clip\(model, preprocess", id="a bare model"),
    pytest.param(
        lambda clip: replace(clip, preprocess=np.asarray),
        "tensor",
        id="a preprocessing without tensors",
    ),
    pytest.param(lambda clip: wrap(clip.model, 48), "48 x 48", id="images of another size"),
    pytest.param(
        lambda clip: replace(clip, tokenizer=None),
        "tokenizer",
        id="no tokenizer",
    ),
    pytest.param(
        lambda clip: replace(clip, tokenizer=open_clip.SimpleTokenizer(context_length=48)),
        "24",
        id="a tokenizer of another context",
    ),
]


@pytest.mark.parametrize(("change", "message"), CLIPS)
def test_a_model_whose_parts_do_not_fit_is_refused_by_the_part(tiny, picture, change, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(change(tiny)).explain(picture, "a dog")


def test_a_method_that_gives_maps_of_another_shape_is_refused_by_its_name(tiny, picture):
    def ones_of_three(tower, trace, directions, options):
        return torch.ones(3)

    method = Method(name="mine", title="Mine", image=ones_of_three)
    with pytest.raises(GradeclipError, match=r"'mine'.*\(1, 1, 17\)"):
        Explainer(tiny, method=method).explain(picture, "a dog")


def test_a_file_that_is_no_saved_explanation_is_refused_by_its_name(tmp_path):
    file = tmp_path / "dear.npz"
    file.write_bytes(b"dear")
    with pytest.raises(GradeclipError, match="dear"):
        Explanation.load(file)
