"""What a lesson opens with: captions to press, and all their answers where there is no kernel."""

import json
import re

import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.panels.lesson import opening
from gradeclip_utils.scenes import arrange

CAPTIONS = ["a dog", "an umbrella", "a piano"]


@pytest.fixture(scope="module")
def shown(tiny):
    return opening(arrange(["dog", "umbrella"]), CAPTIONS, tiny)


def views(shown):
    """What its page shows without a kernel."""
    text = shown._repr_mimebundle_()[0]["text/html"]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])["views"]


def test_a_pressed_caption_is_explained(shown):
    shown.press({"kind": "surprise", "index": 2})
    assert shown.view.state.caption == "a piano"
    shown.press({"kind": "surprise", "index": 0})
    assert shown.view.panels[0].explanation.prompts == ("a dog",)


def test_the_caption_is_all_that_can_be_turned(shown):
    assert [one["name"] for one in shown.data["controls"]] == ["caption"]
    assert [one["text"] for one in shown.data["surprises"]] == CAPTIONS


def test_a_page_without_a_kernel_has_the_answer_to_every_caption(shown):
    found = views(shown)
    assert [one["sides"][0]["title"] for one in found] == [f"“{caption}”" for caption in CAPTIONS]
    assert len({tuple(one["sides"][0]["map"]) for one in found}) == len(CAPTIONS)
    for caption, one in zip(CAPTIONS, found, strict=True):
        shown.change(caption=caption)
        assert one["match"][0]["value"] == pytest.approx(float(shown.view.panels[0].explanation.similarity[0]))
    assert "a piano" in found[2]["verdict"]["all"]


def test_what_cannot_be_explained_is_refused_at_once(tiny):
    with pytest.raises(GradeclipError):
        opening(arrange(["dog"]), ["", "a dog"], tiny)
