"""A view for HTML: the image keeps its colours, numbers are those of the explanation, and text stays text."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.colours import AGAINST, CONTRARY, VEIL
from gradeclip_utils.plots.page import numbers, word_rows
from gradeclip_utils.words import Word

EVIL = "a red car </script><script>alert(1)</script>"


def inside(data):
    """What the script of a page is given."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', data["text/html"], re.DOTALL)[1])


def test_what_is_relevant_keeps_its_colours_and_the_rest_is_hidden():
    image = Image.new("RGB", (320, 320), (200, 30, 40))
    heat = np.array([[1.0, 0.0], [0.5, -1.0]], dtype=np.float32)
    seen = np.asarray(paint(image, heat, signed=True, opacity=0.8, colours="image"))[
        [10, 10, 310, 310], [10, 310, 10, 310]
    ]
    own, veil, purple = (np.array(colour, dtype=float) for colour in ((200, 30, 40), VEIL, AGAINST))
    hidden = 0.2 * own + 0.8 * veil
    expected = [own, hidden, 0.6 * own + 0.4 * veil, (1 - CONTRARY) * hidden + CONTRARY * purple]
    np.testing.assert_allclose(seen, expected, atol=1)
    np.testing.assert_array_equal(
        np.asarray(paint(image, heat, signed=True, opacity=0, colours="image")), np.asarray(image)
    )
    thresholded = np.asarray(paint(image, heat, opacity=0.8, threshold=0.6, colours="image"))
    np.testing.assert_allclose(thresholded[310, 10], hidden, atol=1)


def test_numbers_are_rounded_to_four_digits_of_the_largest():
    assert numbers(np.array([0.0123456, -0.00001234])) == [0.01235, -1e-05]
    assert numbers(np.zeros(2)) == [0, 0]


def test_articles_and_marks_are_muted_and_scores_keep_their_sign():
    rows = word_rows([Word("The", 0.5, 0, 3), Word(",", 0.1, 3, 4), Word("dog", -0.25, 5, 8)])
    assert [(row["muted"], row["score"]) for row in rows] == [(True, 0.5), (True, 0.1), (False, -0.25)]


def test_the_page_of_interactions_has_the_map_of_every_word_inside(tiny, picture):
    found = Explainer(tiny).interactions(picture, EVIL)
    data, metadata = found._repr_mimebundle_()
    (view,) = inside(data)["views"]
    top = np.abs(found.maps).max()
    np.testing.assert_allclose(view["sides"][0]["regions"], found.maps.reshape(len(found.words), -1), atol=1e-3 * top)
    assert view["sides"][0]["region_scale"] == pytest.approx(top)
    assert [word["text"] for word in view["words"]] == [word.text for word in found.words]
    left, top, right, bottom = found.box
    assert view["box"] == pytest.approx([left / 80, top / 50, (right - left) / 80, (bottom - top) / 50])
    assert EVIL not in data["text/html"] and metadata["image/png"]["alt"] in data["text/plain"]
    assert 'src="http' not in data["text/html"] and "import(" not in data["text/html"]


def test_the_page_of_an_explanation_has_a_view_for_each_prompt(tiny, picture):
    found = Explainer(tiny).explain(picture, ["a red car", "a dog"], against="a ball")
    views = inside(found._repr_mimebundle_()[0])["views"]
    assert [view["match"][0]["value"] for view in views] == pytest.approx(found.similarity.tolist())
    assert views[1]["axis"] == ["for “a ball”", "for “a dog”"] and views[1]["sides"][0]["signed"]
    assert [word["score"] for word in views[1]["others"]] == [word.score for word in found.against_words[1]]
    plain = inside(Explainer(tiny).explain(picture, np.eye(48, dtype="float32")[:1])._repr_mimebundle_()[0])["views"][0]
    assert plain["words"] == [] and plain["sides"][0]["regions"] is None  # an embedding has no words
