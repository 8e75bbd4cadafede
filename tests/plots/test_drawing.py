"""Drawing: one description of what is shown, and one law of colour."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.colours import colormap, to_rgb
from gradeclip_utils.plots.drawing import (
    Panel,
    of_caption,
    of_explanation,
    of_interactions,
    of_maps,
    scaled,
)

from .cases import (
    NULLS,
    OVER_OTHERS,
    PROVENANCE,
    by_leave_one_out,
    explanation,
    interactions,
)

GREY = Image.new("RGB", (320, 320), (128, 128, 128))
BASE = 0.62 + 0.38 * 128 / 255  # of the grey image below a map
LUMINANCE = (0.2126, 0.7152, 0.0722)


def upper_texts(panel):
    return [upper.text for upper, _ in panel.cells]


def scores_of(words):
    return [word.score for word in words]


def painted(image, heat, **options):
    """The pixels of a painted map as numbers."""
    return np.asarray(paint(image, heat, **options), dtype=float)


def first_label(panel):
    return panel.labels[0]


def test_zero_has_no_colour_for_is_warm_and_against_is_blue():
    assert colormap()[256, 3] == 0
    assert (to_rgb(0.0) == 1).all()
    values = np.linspace(0.05, 1, 50)
    red, _, blue = to_rgb(values).T
    assert (red > blue).all()
    red, _, blue = to_rgb(-values).T
    assert (blue > red).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_opacity_and_darkness_rise_with_relevance(sign):
    rgba = colormap()[256::sign]
    alpha = rgba[:, 3:]
    on_white = rgba[:, :3] * alpha + (1 - alpha)
    luminance = on_white @ LUMINANCE
    assert (np.diff(alpha, axis=0) > 0).all()
    assert (np.diff(luminance) < 0).all()


def test_the_image_below_is_light_grey_and_its_luminance_survives():
    random = np.random.default_rng(0)
    values = random.integers(0, 255, (320, 320, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    pixels = painted(image, np.zeros((4, 4)))
    assert np.ptp(pixels, axis=-1).max() <= 1
    luminance = values @ LUMINANCE
    expected = 0.62 * 255 + 0.38 * luminance
    np.testing.assert_allclose(pixels[..., 0], expected, atol=1.5)


def test_a_map_has_the_colours_of_the_law_and_shows_what_is_against_only_if_signed():
    heat = np.array([[1.0, 0.0], [0.5, -1.0]], dtype=np.float32)
    corners = [10, 10, 310, 310], [10, 310, 10, 310]
    signed = painted(GREY, heat, signed=True)[corners]
    expected = to_rgb(heat.ravel(), BASE)
    np.testing.assert_allclose(signed / 255, expected, atol=0.01)
    *_, against = painted(GREY, heat)[corners]
    np.testing.assert_allclose(against / 255, BASE, atol=0.01)


def test_a_map_ends_at_the_frame_of_what_the_model_saw():
    pixels = painted(GREY, np.ones((4, 4)), box=(80, 0, 240, 320))
    outside = pixels[:, :70]
    assert np.ptp(outside, axis=-1).max() == 0
    edge = pixels[20:300, 80:84]
    is_dark_grey = np.abs(edge - 90).max(axis=-1) < 25
    assert is_dark_grey.any()

    without_frame = painted(GREY, np.zeros((4, 4)))
    assert len(np.unique(without_frame)) == 1


def test_a_panel_has_the_words_of_its_prompt_with_scores_its_map_and_its_similarity():
    result = explanation("a red car", "a dog")
    first, second = of_explanation(result).panels
    assert upper_texts(first) == ["a", "red", "car"]
    assert upper_texts(second) == ["a", "dog"]
    assert scores_of(first.words) == scores_of(result.words[0])
    assert [word.small for word in first.words] == [True, False, False]
    similarities = [first.value, second.value]
    assert similarities == pytest.approx(result.similarity.tolist())
    positive = np.maximum(result.image_maps[0], 0)
    np.testing.assert_allclose(first.map, positive)


def test_function_words_have_a_number_and_no_colour_under_the_published_scores():
    result = explanation("a red car")
    published = replace(PROVENANCE, words="grad-eclip")
    drawing = of_explanation(replace(result, provenance=published))
    (panel,) = drawing.panels
    article, *content_words = panel.words
    assert article.shade == 0
    assert scores_of(panel.words) == scores_of(result.words[0])
    assert drawing.word_scale == max(map(abs, scores_of(content_words)))
    assert not drawing.strikes


def test_a_words_score_is_what_the_bar_loses_where_words_are_left_out():
    drawing = of_explanation(by_leave_one_out("a red car"))
    assert drawing.strikes
    assert drawing.legend[1] == "words: fall of the similarity without this word, darkest 0.020"
    article, _, car = drawing.panels[0].words
    assert article.shade == pytest.approx(-0.01)
    assert car.sentence == "without this word the similarity is 0.020 lower"


def test_prompts_share_one_scale_unless_each_has_its_own():
    result = explanation("a dog", "a cat")
    shared = of_explanation(result)
    assert len({panel.scale for panel in shared.panels}) == 1
    apart = of_explanation(result, shared=False)
    assert len({panel.scale for panel in apart.panels}) == 2
    assert apart.legend[0] == "each map has its own scale"


def test_the_similarity_has_a_tick_and_its_place_among_other_captions():
    drawing = of_explanation(explanation("a dog", "a piano", **NULLS))
    dog, piano = drawing.panels
    assert first_label(dog) == "similarity 0.40, above 98 % of captions"
    assert first_label(piano) == "similarity 0.30, above 33 % of captions"
    assert dog.tick == piano.tick == 0.34
    assert "tick: half of 243 other captions" in drawing.legend

    (bare,) = of_explanation(explanation("a dog")).panels
    assert first_label(bare) == "similarity 0.40"
    assert bare.tick is None
    best = Panel("", (), None, value=0.5, above=100.0)
    assert first_label(best).endswith("above all other captions")


def test_a_lead_over_other_captions_begins_at_the_tick_which_is_their_mean():
    drawing = of_explanation(explanation("a dog", "a piano", **OVER_OTHERS))
    dog, piano = drawing.panels
    assert first_label(dog) == "lead 0.05 over 243 other captions"
    assert first_label(piano) == "lead −0.05 over 243 other captions"
    assert dog.start == dog.tick == piano.start == 0.35
    assert (dog.value, piano.value) == (0.4, 0.3)  # the bars end at the similarities
    assert drawing.bars == (0.0, 1.45 * 0.41)
    assert "tick: mean of 243 other captions, coloured: the lead" in drawing.legend
    assert not drawing.lead


def test_unknown_words_are_struck_out_and_the_legend_says_that_the_model_guesses():
    result = explanation("an astronaut", "a dog")
    provenance = replace(result.provenance, unknown_words=("astronaut",), is_guess=True)
    drawing = of_explanation(replace(result, provenance=provenance))
    words = [word for panel in drawing.panels for word in panel.words]
    assert [word.text for word in words if word.struck] == ["astronaut"]
    assert drawing.legend[-2:] == [
        "the model does not know: astronaut",
        "trained on drawn scenes alone: a guess",
    ]
    assert of_explanation(result).notes == ()


def test_no_prompt_changes_the_axis_of_the_bars():
    nulls = {**NULLS, "percentile": np.array([98.0])}
    result = explanation("a dog", **nulls)
    for similarity in (-0.1, 0.05, 0.4, 0.9):
        changed = replace(result, similarity=np.array([similarity]))
        assert of_explanation(changed).bars == (0.0, 1.45 * 0.41)


def test_the_axis_goes_below_zero_where_half_of_the_other_captions_lie():
    nulls = {**NULLS, "null_median": -0.05}
    drawing = of_explanation(explanation("a dog", "a piano", **nulls))
    assert drawing.bars == (-1.45 * 0.41, 1.45 * 0.41)


def test_similarities_have_digits_until_they_differ():
    result = explanation("a dog", "a piano")
    close = replace(result, similarity=np.array([-0.0012, 0.0031]))
    labels = [first_label(panel) for panel in of_explanation(close).panels]
    assert labels == ["similarity −0.001", "similarity 0.003"]
    same = replace(result, similarity=np.array([0.3, 0.3]))
    first, _ = of_explanation(same).panels
    assert first_label(first) == "similarity 0.30"


def test_a_contrast_stacks_the_words_that_differ_and_shows_the_lead():
    result = explanation("a red car", against="a blue car")
    drawing = of_explanation(result)
    (panel,) = drawing.panels
    (article, below_article), (red, blue), (car, below_car) = panel.cells
    assert upper_texts(panel) == ["a", "red", "car"]
    assert blue.text == "blue"
    assert below_article is below_car is None

    score, *_ = scores_of(result.words[0])
    assert article.score == pytest.approx(2 * score)
    assert article.shade == car.shade == 0  # both captions have them
    assert red.shade == red.score
    assert blue.shade == blue.score
    assert drawing.signed
    assert panel.value == pytest.approx(0.1)
    assert drawing.bars[0] == -drawing.bars[1]


@pytest.mark.parametrize(
    ("lead", "label"),
    [
        (0.1, "leads by 0.10"),
        (0, "no difference"),
        (0.003, "leads by less than 0.01"),
        (-0.2, "is behind by 0.20"),
    ],
)
def test_the_lead_of_a_contrast_stands_at_its_bar(lead, label):
    result = explanation("a red car", against="a blue car")
    changed = replace(result, against_similarity=result.similarity - lead)
    (panel,) = of_explanation(changed).panels
    assert first_label(panel).startswith(f"{label} (0.40, other")
    assert panel.tick is None


def test_a_contrast_of_captions_of_different_lengths_loses_no_word():
    result = explanation("a red car", against="two cars and a boat")
    (panel,) = of_explanation(result).panels
    texts = [word.text for word in panel.words if word.text]
    assert sorted(texts) == sorted("a red car two cars and boat".split())


def test_word_x_region_draws_nouns_and_adjectives_and_function_words_on_request():
    result = interactions("a red car and a ball")

    def names(*words):
        drawing = of_interactions(result, *words)
        return [panel.name for panel in drawing.panels]

    assert names() == ["red", "car", "ball"]
    assert len(names("all")) == 6
    assert names(["ball"]) == ["ball"]
    function_words = interactions("the of")
    assert of_interactions(function_words).panels  # there is nothing else to draw


def test_a_caption_has_the_sum_of_its_words_maps():
    result = interactions()
    (panel,) = of_caption(result).panels
    np.testing.assert_allclose(panel.map, result.image_maps.sum(0))


def test_maps_share_a_scale_whose_end_has_two_digits():
    maps = [("small", 0.0123 * np.eye(4)), ("large", 0.0923 * np.eye(4))]
    drawing = scaled(of_maps(GREY, maps))
    assert [panel.scale for panel in drawing.panels] == pytest.approx([0.0923, 0.0923])
    assert drawing.legend == ["relevance: darkest 0.092"]


def test_the_legend_says_what_is_zero_and_that_the_model_saw_a_part():
    result = explanation("a dog", box=(15, 0, 105, 90))
    nothing = np.zeros_like(result.image_maps)
    drawing = of_explanation(replace(result, image_maps=nothing))
    assert "nowhere above zero" in drawing.legend[0]
    assert "frame: what the model saw" in drawing.legend


def test_an_embedding_has_a_name_and_no_shades(tiny, picture):
    embedding = np.eye(48, dtype="float32")[:1]
    result = Explainer(tiny).explain(picture, embedding)
    (panel,) = of_explanation(result).panels
    assert set(scores_of(panel.words)) == {None}
