"""Drawing: one description of what is shown, and one law of colour."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.colours import colormap, to_rgb
from gradeclip_utils.plots.drawing import Panel, of_explanation, of_interactions, of_maps, scaled

from .cases import explanation, interactions

GREY = Image.new("RGB", (320, 320), (128, 128, 128))


def test_nothing_is_nothing_for_is_warm_and_against_is_blue():
    assert colormap()[256, 3] == 0 and (to_rgb(0.0) == 1).all()
    for_, against = to_rgb(np.linspace(0.05, 1, 50)), to_rgb(-np.linspace(0.05, 1, 50))
    assert (for_[:, 0] > for_[:, 2]).all() and (against[:, 2] > against[:, 0]).all()


def test_opacity_and_darkness_rise_with_relevance_on_both_sides():
    for side in (colormap()[256:], colormap()[256::-1]):
        assert (np.diff(side[:, 3]) > 0).all()
        over = side[:, :3] * side[:, 3:] + 1 - side[:, 3:]
        assert (np.diff(over @ (0.2126, 0.7152, 0.0722)) < 0).all()


def test_the_image_below_is_light_grey_and_its_luminance_survives():
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (320, 320, 3), dtype=np.uint8)
    )
    pixels = np.asarray(paint(image, np.zeros((4, 4))), dtype=float)
    assert (pixels.max(-1) - pixels.min(-1)).max() <= 1 and pixels.min() >= 0.61 * 255
    luminance = np.asarray(image, dtype=float) @ (0.2126, 0.7152, 0.0722)
    np.testing.assert_allclose(pixels[..., 0], 0.62 * 255 + 0.38 * luminance, atol=1.5)


def test_a_map_has_the_colours_of_the_law_and_shows_what_is_against_only_if_signed():
    heat = np.array([[1.0, 0.0], [0.5, -1.0]], dtype=np.float32)
    corners = [10, 10, 310, 310], [10, 310, 10, 310]
    base = 0.62 + 0.38 * 128 / 255
    seen = np.asarray(paint(GREY, heat, signed=True))[corners] / 255
    np.testing.assert_allclose(seen, to_rgb(np.array([1, 0, 0.5, -1]), base), atol=0.01)
    plain = np.asarray(paint(GREY, heat))[corners] / 255
    np.testing.assert_allclose(plain[3], base, atol=0.01)


def test_a_map_ends_at_the_frame_of_what_the_model_saw():
    painted = np.asarray(paint(GREY, np.ones((4, 4)), box=(80, 0, 240, 320)), dtype=int)
    assert np.ptp(painted[:, :70], axis=-1).max() == 0  # no colour outside
    assert (np.abs(painted[20:300] - 90).max(-1) < 25).any(0)[80:84].any()  # dashes at its edge
    whole = np.asarray(paint(GREY, np.zeros((4, 4))), dtype=int)
    assert len(np.unique(whole)) == 1


def test_a_panel_has_the_prompt_as_title_its_words_with_scores_its_map_and_its_similarity():
    found = explanation("a red car", "a dog")
    made = of_explanation(found)
    assert [[cell[0].text for cell in panel.cells] for panel in made.panels] == [
        ["a", "red", "car"],
        ["a", "dog"],
    ]
    assert [cell[0].score for cell in made.panels[0].cells] == [
        word.score for word in found.words[0]
    ]
    assert [panel.value for panel in made.panels] == pytest.approx(found.similarity.tolist())
    assert [cell[0].small for cell in made.panels[0].cells] == [True, False, False]
    np.testing.assert_allclose(made.panels[0].map, np.maximum(found.image_maps[0], 0))


def test_prompts_that_are_compared_share_one_scale_and_the_most_similar_are_kept_in_their_order():
    found = explanation("a dog", "a cat")
    assert len({panel.scale for panel in of_explanation(found).panels}) == 1
    own = of_explanation(found, shared=False)
    assert (
        len({panel.scale for panel in own.panels}) == 2
        and own.legend[0] == "each map has its own scale"
    )
    made = of_explanation(explanation("a dog", "a cat", "a car"), most=2)
    assert [panel.name for panel in made.panels] == ["a dog", "a cat"]


def test_the_similarity_has_a_tick_and_its_place_among_other_captions():
    more = {"percentile": np.array([99.7, 33.3]), "null_median": 0.34, "null_count": 243}
    made = of_explanation(explanation("a dog", "a piano", **more))
    assert made.panels[0].labels[0] == "similarity 0.40, above 99 % of captions"
    assert made.panels[1].labels[0] == "similarity 0.30, above 33 % of captions"
    assert [panel.median for panel in made.panels] == [
        0.34,
        0.34,
    ] and "tick: half of 243 other captions" in made.legend
    bare = of_explanation(explanation("a dog"))
    assert bare.panels[0].labels[0] == "similarity 0.40" and bare.panels[0].median is None
    assert (
        Panel("", (), None, value=0.5, above=100.0).labels[0].endswith("above all other captions")
    )


def test_a_contrast_stacks_the_words_that_differ_without_losing_one_and_shows_the_lead():
    found = explanation("a red car", against="a blue car")
    made = of_explanation(found)
    cells = [(upper.text, lower and lower.text) for upper, lower in made.panels[0].cells]
    assert cells == [("a", None), ("red", "blue"), ("car", None)]
    assert made.panels[0].cells[0][0].score == pytest.approx(2 * found.words[0][0].score)
    assert made.signed and made.panels[0].value == pytest.approx(0.1)
    assert made.panels[0].labels[0].startswith("leads by 0.10")
    for gap, said in (
        (0, "no difference"),
        (0.003, "leads by less than 0.01"),
        (-0.2, "is behind by 0.20"),
    ):
        made = of_explanation(replace(found, against_similarity=found.similarity - gap))
        assert (
            made.panels[0].labels[0].startswith(f"{said} (0.40, other")
            and made.panels[0].median is None
        )
    assert made.bars[0] == -made.bars[1]
    (panel,) = of_explanation(explanation("a red car", against="two cars and a boat")).panels
    texts = [part.text for cell in panel.cells for part in cell if part and part.text]
    assert sorted(texts) == sorted("a red car two cars and boat".split())


def test_word_x_region_draws_nouns_and_adjectives_and_function_words_on_request():
    found = interactions("a red car and a ball")
    assert [panel.name for panel in of_interactions(found).panels] == ["red", "car", "ball"]
    assert len(of_interactions(found, "all").panels) == 6
    assert of_interactions(interactions("the of")).panels  # of function words alone, all


def test_maps_of_several_images_share_a_scale_whose_end_has_two_digits():
    one, other = (of_maps(GREY, [("a", size * np.eye(4))]) for size in (1, 0.0923))
    assert [drawing.panels[0].scale for drawing in scaled([one, other])] == [1, 1]
    assert other.legend == ["relevance: darkest 0.092"]


def test_the_legend_says_what_is_zero_and_that_the_model_saw_a_part():
    empty = explanation("a dog", box=(15, 0, 105, 90))
    empty = replace(empty, image_maps=empty.image_maps * 0)
    legend = of_explanation(empty).legend
    assert "nowhere above zero" in legend[0] and "frame: what the model saw" in legend


def test_an_embedding_has_a_name_and_no_shades(tiny, picture):
    made = of_explanation(Explainer(tiny).explain(picture, np.eye(48, dtype="float32")[:1]))
    assert all(cell[0].score is None for cell in made.panels[0].cells)
