"""Figures: what is drawn is what was found, nothing is cut off, and no prompt can break the drawing."""

import base64
import html
import io
import warnings
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import rgb_to_hsv
from PIL import Image

from gradeclip_utils.explanation import Explanation, Interactions
from gradeclip_utils.plots import (
    InlineFigure,
    draw_heatmap,
    draw_words,
    paint,
    plot_explanation,
    plot_interactions,
    plot_intervals,
    plot_maps,
    plot_method,
)
from gradeclip_utils.plots.colours import COLOURS, SIGNED, UNSIGNED, range_in_words
from gradeclip_utils.plots.finding import finding, sharpest
from gradeclip_utils.words import Word

from ..legible import headline, unreadable

pytestmark = pytest.mark.usefixtures("legible")
SIZES = [(384, 384), (384, 100), (80, 384), (1, 1), (2400, 1600)]
ODD = [
    "\N{GRINNING FACE}",
    "\u732b",
    "$x_1$",
    "<script>alert(1)</script>",
    "a&b",
    "\\frac{1}",
    "$",
    "\N{ARABIC LETTER BEH}",
]


PROVENANCE = {"model": "tiny", "pretrained": "", "method": "Grad-ECLIP", "attention": "model"}


def words(*texts, scores=None):
    scores = np.linspace(-0.01, 0.02, len(texts)) if scores is None else scores
    return tuple(Word(text, float(score), 0, len(text)) for text, score in zip(texts, scores, strict=True))


def explanation(*prompts, size=(120, 90), against=None, scale=0.004):
    random = np.random.default_rng(0)
    maps = (scale * random.normal(size=(len(prompts), 6, 8))).astype(np.float32)
    plain = Explanation(
        prompts, np.linspace(0.3, -0.1, len(prompts)), maps, tuple(words(*prompt.split()) for prompt in prompts),
        Image.effect_noise(size, 60).convert("RGB"), (0, 0, *size), PROVENANCE,
    )  # fmt: skip
    if against is None:
        return plain
    others = tuple(words(*against.split()) for _ in prompts)
    return replace(plain, against=(against,) * len(prompts), against_similarity=plain.similarity, against_words=others)


def texts_of(figure):
    """What is written, but for the numbers at colour bars."""
    return [text for axes in figure.axes for text in axes.texts if text.get_text() and text.get_gid() != "scale"]


def assert_nothing_is_cut_off(figure):
    renderer = figure.canvas.get_renderer()
    whole = figure.bbox
    figure.draw(renderer)
    for axes in figure.axes:
        labels = axes.get_yticklabels() if axes.axison else []
        for item in [*axes.texts, *axes.patches, *axes.collections, axes.title, axes._left_title, *labels]:
            box = item.get_window_extent(renderer)
            if box.width:
                assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1, item
                assert box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1, item


@pytest.fixture
def panel():
    figure = InlineFigure(4, 3)
    return figure.add_axes((0.1, 0.2, 0.6, 0.7))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("against", [None, "a blue car"])
def test_nothing_is_cut_off_whatever_the_shape_of_the_picture(size, against):
    assert_nothing_is_cut_off(explanation("a red car", "a dog", size=size, against=against).plot())


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("shared_scale", [True, False])
def test_nothing_is_cut_off_with_many_prompts(count, shared_scale):
    figure = plot_explanation(explanation(*["a red car and a ball"] * count), shared_scale=shared_scale)
    assert_nothing_is_cut_off(figure)


def word_boxes(axes):
    """Of each shaded word, in pixels."""
    (shades,) = axes.collections
    return [path.get_extents(axes.transAxes) for path in shades.get_paths()]


def test_the_longest_prompt_keeps_to_its_place():
    long = " ".join(["an extraordinarily unbelievable counterrevolutionary car"] * 18)
    figure = explanation(long, "a dog").plot()
    assert_nothing_is_cut_off(figure)
    prompts = [axes for axes in figure.axes if axes.collections and not axes.images]
    by_place = sorted(prompts, key=lambda axes: -axes.bbox.y0)
    assert min(box.y0 for box in word_boxes(by_place[0])) >= by_place[1].bbox.y1


@pytest.mark.parametrize("values", [True, False])
def test_words_do_not_overlap_and_stay_in_order(values):
    figure = InlineFigure(3, 2)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    draw_words(axes, words(*"a photo of a very large red umbrella and two small dogs".split()), values=values)
    boxes = word_boxes(axes)
    assert len(boxes) == 12
    for before, after in pairwise(boxes):
        assert after.x0 >= before.x1 or after.y1 <= before.y0


def test_every_word_is_written_with_its_score():
    written = [text.get_text() for text in texts_of(explanation("a red car").plot())]
    assert [text for text in written if text in ("a", "red", "car")] == ["a", "red", "car"]
    assert [text for text in written if text[-1:].isdigit() and " " not in text] == [
        "\N{MINUS SIGN}0.0100",
        "0.0050",
        "0.0200",
    ]


@pytest.mark.parametrize("text", ODD)
def test_any_text_is_drawn_without_a_warning_and_without_formulas(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = explanation(f"a {text} here", against=f"{text} {text}").plot()
        figure._repr_png_()
        plot_maps(figure_picture(), {text: np.ones((2, 2))})._repr_png_()
    assert not any(item.get_parse_math() for item in texts_of(figure) if text in item.get_text())


def figure_picture():
    return Image.effect_noise((60, 60), 60).convert("RGB")


def ink_at(axes, x, y):
    return axes.images[0].get_array()[y, x]


def test_a_map_has_ink_where_it_is_positive_and_paper_elsewhere(panel):
    heat = np.zeros((8, 8))
    heat[2, 6] = 1
    draw_heatmap(panel, Image.new("RGB", (8, 8), "white"), heat)
    printed = panel.images[0].get_array()
    assert np.allclose(printed[heat == 0], 1)
    assert np.allclose(ink_at(panel, 6, 2), UNSIGNED(1.0)[:3], atol=1e-3)


def test_negative_relevance_is_paper_unless_the_map_is_signed(panel):
    heat = np.array([[-1.0, 0.5]])
    picture = Image.new("RGB", (2, 1), "white")
    draw_heatmap(panel, picture, heat)
    assert np.allclose(ink_at(panel, 0, 0), 1)
    panel.clear()
    draw_heatmap(panel, picture, heat, signed=True)
    assert np.allclose(ink_at(panel, 0, 0), SIGNED(0.0)[:3], atol=1e-3)
    assert np.allclose(ink_at(panel, 1, 0), SIGNED(0.75)[:3], atol=0.02)


def test_a_grey_print_of_the_picture_stays_visible_under_the_map(panel):
    picture = Image.new("RGB", (40, 40), "white")
    picture.paste((0, 90, 0), (0, 0, 20, 40))
    draw_heatmap(panel, picture, np.ones((2, 2)))
    printed = panel.images[0].get_array()
    assert printed[20, 5].sum() < 0.7 * printed[20, 35].sum()
    panel.clear()
    draw_heatmap(panel, picture, np.zeros((2, 2)))
    assert np.allclose(np.ptp(panel.images[0].get_array(), axis=-1), 0), "no colour but that of the map"


def test_colours_darken_evenly_so_that_the_eye_reads_them_without_colour():
    for colours in (UNSIGNED(np.linspace(0, 1, 64)), SIGNED(np.linspace(0.5, 1, 64)), SIGNED(np.linspace(0.5, 0, 64))):
        luminance = colours[:, :3] @ (0.2126, 0.7152, 0.0722)
        assert luminance[0] > 0.9
        assert (np.diff(luminance) < 0.003).all()
    assert abs(SIGNED(0.0)[0] - SIGNED(1.0)[0]) > 0.2
    assert rgb_to_hsv(SIGNED(0.0)[:3])[0] > 0.6 > 0.2 > rgb_to_hsv(SIGNED(1.0)[:3])[0], "purple and orange"


def test_nearest_shows_the_tokens_and_bilinear_does_not_leave_their_range(panel):
    heat = np.random.default_rng(0).random((3, 3))
    picture = Image.new("RGB", (300, 300), "white")
    draw_heatmap(panel, picture, heat, upsample="nearest")
    assert len(np.unique(panel.images[0].get_array().reshape(-1, 3), axis=0)) == 9
    panel.clear()
    draw_heatmap(panel, picture, heat)
    assert len(np.unique(panel.images[0].get_array().reshape(-1, 3), axis=0)) > 50


def test_another_way_to_upsample_is_refused(panel):
    with pytest.raises(ValueError, match="'bilinear' or 'nearest', got 'bicubic'"):
        draw_heatmap(panel, figure_picture(), np.ones((2, 2)), upsample="bicubic")


def test_an_all_zero_explanation_is_drawn_and_said():
    empty = explanation("nothing here", scale=0.0)
    empty = replace(empty, words=(words("nothing", "here", scores=(0, 0)),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = empty.plot()
        figure._repr_png_()
    written = [text.get_text() for text in texts_of(figure)]
    assert "relevance: nowhere above zero" in written
    assert "words: nowhere above zero" in written


def test_the_range_is_said_in_words():
    assert range_in_words("relevance", False, 0.0041) == "relevance: pale 0 to dark 0.00410"
    signed = range_in_words("relevance", True, 2.5, "the largest in this map")
    assert signed == "relevance: purple \N{MINUS SIGN}2.50 (against) to orange +2.50 (for), the largest in this map"


def scales(figure):
    """Top labels of all colour bars."""
    labels = [[text.get_text() for text in axes.texts if text.get_gid() == "scale"] for axes in figure.axes]
    return [each[-1] for each in labels if each]


def test_panels_share_one_scale_unless_each_has_its_own():
    several = explanation("a red car", "a dog")
    several = replace(several, image_maps=several.image_maps * np.array([1, 3], np.float32)[:, None, None])
    assert len(scales(plot_explanation(several))) == 1
    assert len(set(scales(plot_explanation(several, shared_scale=False)))) == 2
    maps = {"one": np.ones((2, 2)), "two": 2 * np.ones((2, 2))}
    assert scales(plot_maps(figure_picture(), maps)) == ["2.00"]
    assert scales(plot_maps(figure_picture(), maps, shared_scale=False)) == ["1.00", "2.00"]


@pytest.mark.parametrize("size", [(300, 12), (300, 60), (96, 96)])
def test_labels_of_a_colour_bar_do_not_lie_on_each_other(size):
    figure = plot_maps(Image.new("RGB", size), {"one": np.ones((2, 2))})
    figure.draw(figure.canvas.get_renderer())
    labels = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_gid() == "scale"]
    assert len(labels) > 1 and all(below.y1 <= above.y0 for below, above in pairwise(labels))


def test_no_room_is_left_for_a_colour_bar_that_an_image_does_not_have():
    maps = {"one": np.ones((2, 2)), "two": 2 * np.ones((2, 2))}
    image, first, second = (one.bbox for one in plot_maps(figure_picture(), maps, shared_scale=False).axes)
    assert first.x0 - image.x1 < 0.3 * 110 < 0.7 * 110 < second.x0 - first.x1


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("shared_scale", [True, False])
def test_what_is_seen_stands_above_all_maps_and_is_read_aloud(columns, shared_scale):
    maps = {"one": np.ones((2, 2)), "two": 2 * np.ones((2, 2))}
    title = "the second map has twice as much; " * 3
    figure = plot_maps(figure_picture(), maps, shared_scale=shared_scale, columns=columns, title=title)
    assert figure.alt.startswith(title) and len(scales(figure)) == (1 if shared_scale else 2)
    (over,) = [text for text in figure.texts if "twice" in text.get_text()]
    figure.draw(figure.canvas.get_renderer())
    highest = max(axes.get_tightbbox().y1 for axes in figure.axes)
    assert over.get_window_extent().y0 >= highest - 1
    assert_nothing_is_cut_off(figure)


def test_maps_of_one_title_are_all_drawn():
    figure = plot_maps(figure_picture(), [("a", np.ones((2, 2))), ("a", np.zeros((2, 2)))])
    assert [axes.get_title("left") for axes in figure.axes][:3] == ["image", "a", "a"]


def test_interactions_are_one_signed_panel_a_word():
    maps = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    picture = figure_picture()
    found = Interactions("a red car", words("a", "red", "car"), maps, 0.3, picture, (0, 0, *picture.size), PROVENANCE)
    figure = plot_interactions(found)
    assert [axes.get_title("left") for axes in figure.axes][:4] == ["image", "a", "red", "car"]
    assert scales(figure)[0] == f"{np.abs(np.array([found.heatmap(i, signed=True) for i in range(3)])).max():.2f}"
    assert_nothing_is_cut_off(figure)


def test_a_prompt_given_as_an_embedding_is_drawn_without_words():
    figure = replace(explanation("embedding 0"), words=((),)).plot()
    assert any("embedding 0" in axes.get_title("left") for axes in figure.axes)


def test_a_trifle_stays_pale_where_every_other_word_speaks_against(panel):
    draw_words(panel, words("a", "cat", scores=[0.0003, -0.0261]))
    pale = panel.collections[0].get_facecolor()[0]
    assert min(pale[:3]) > 0.9


def test_a_figure_shows_itself_and_leaves_pyplot_alone():
    before = plt.get_fignums()
    assert explanation("a dog").plot()._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == before


def test_a_figure_says_which_model_made_it_and_which_number_it_explains():
    figure = explanation("a dog").plot()
    assert figure.texts[-1].get_text() == "tiny (own weights), Grad-ECLIP with the model's own heads"
    scores = {"image": [0.1], "text": [0.2]}
    single = replace(explanation("a dog"), provenance={**PROVENANCE, "single_head_similarity": scores}).plot()
    assert single.texts[-1].get_text().endswith("explains 0.100 (image) and 0.200 (words), not 0.300")


def told(maps, scores=((0.1,),), similarity=(0.3,), **options):
    """What is said of prompts "dog", "cat", ... with these maps, and these scores of their words."""
    prompts = ("dog", "cat", "cow")[: len(maps)]
    said = tuple(words(*"abc"[: len(one)], scores=one) for one in scores)
    picture = Image.new("RGB", (8, 8))
    return finding(
        Explanation(prompts, np.array(similarity), np.array(maps), said, picture, (0, 0, 8, 8), {}, **options)
    )


def test_a_finding_counts_the_patches_that_hold_half_of_a_map_and_names_the_word_of_the_highest_score():
    assert told([[[4, 3], [2, -9]]]) == "half of what speaks for it lies on 2 of 4 patches; “a” speaks most for it"
    assert told([[[5, 3], [2, -9]]], [(0.1, 0.3, -0.9)]) == (
        "half of what speaks for it lies on 1 of 4 patches; “b” speaks most for it"
    )
    assert told([[[-1, 0]]], [(-0.1,)]) == "no patch speaks for it; no word speaks for it"
    assert told([[[0, 0]]]) == "“a” speaks most for it"  # of a method that has no maps
    assert told([[[1.0]]], [()]) == "half of what speaks for it lies on 1 of 1 patch"  # of an embedding


def test_a_finding_is_about_the_prompt_that_is_most_similar_or_leads_most():
    maps, scores = [[[1, 0]], [[1, 1]]], ((0.1,), (0.2,))
    both = told([maps[0], [[3, 4]]], scores, (-0.2, -0.1))
    assert both.startswith("most similar is “cat”, −0.100; half of what speaks for it lies on 1 of 2 patches")
    against = {"against": ("cow", "hen"), "against_words": ((), ())}
    leads = told(maps, scores, (0.3, 0.4), **against, against_similarity=np.array([0.1, 0.3]))
    assert leads.startswith("“dog” leads “cow” by 0.200; half")
    behind = told(maps, scores, (0.3, 0.4), **against, against_similarity=np.array([0.4, 0.45]))
    assert behind.startswith("“cat” is behind “hen” by 0.050; half")


def test_the_sharpest_word_is_that_of_the_fewest_patches():
    assert sharpest("ab", np.array([[[1, 1, 1]], [[-5, 3, 1]]])) == (
        "“b” answers to the fewest patches: half of what speaks for it lies on 1 of 3 patches"
    )
    assert sharpest("a", np.array([[[-1, 0]]])) == "nothing answers to any patch"


def test_what_an_explanation_comes_to_stands_above_its_figure():
    for shown in (explanation("a dog"), explanation("a dog", "a cat"), explanation("a dog", against="a cat")):
        figure = shown.plot()
        over = figure.texts[0]
        assert over.get_text().replace("\n", " ") == finding(shown)
        figure.draw(figure.canvas.get_renderer())
        assert over.get_window_extent().y0 >= max(axes.get_tightbbox().y1 for axes in figure.axes) - 1


@pytest.mark.parametrize("against", [None, "a cat"])
def test_of_a_hundred_prompts_those_that_come_first_are_drawn_and_the_figure_says_so(against):
    hundred = explanation(*(f"prompt {i}" for i in range(100)), against=against)
    order = np.random.default_rng(0).permutation(100)
    similarity = np.linspace(0.4, -0.4, 100)[order]  # the first of all are nowhere near each other
    hundred = replace(hundred, similarity=similarity)
    if against:  # those that lead are not the most similar ones
        hundred = replace(hundred, similarity=-similarity, against_similarity=-2 * similarity)
    scores = {"image": similarity.tolist(), "text": None}
    told = PROVENANCE | {"explains": "", "single_head_similarity": scores}
    figure = replace(hundred, provenance=told).plot(most=3)
    drawn = [f"prompt {i}" for i in range(100) if order[i] < 3]
    assert figure.alt.split("words for ")[1].split("; ") == drawn
    assert figure.texts[0].get_text().replace("\n", " ").startswith("of 100 prompts the 3 most ")
    assert hundred.plot().get_figheight() < 35
    last = replace(hundred, provenance=told).plot(most=30)
    assert last.texts[-1].get_text().count("0.") < 30
    last.draw(last.canvas.get_renderer())
    assert last.texts[-1].get_window_extent().y1 < min(axes.get_window_extent().y0 for axes in last.axes)
    with pytest.raises(ValueError, match="most must be"):
        hundred.plot(most=0)


def test_a_figure_says_what_it_shows_to_those_who_cannot_see_it():
    shown = explanation("a dog", "a cat")
    alt = f"{finding(shown)}: image, heat map and shaded words for a dog; a cat"
    data, metadata = shown.plot()._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == alt
    # JupyterLab shows the HTML: the same pixels, with the text that it gives no PNG
    assert f'alt="{html.escape(alt)}"' in data["text/html"]
    files = data["text/html"].partition("base64,")[2].partition('"')[0], data["image/png"]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB")) for file in files]
    np.testing.assert_array_equal(*pixels)
    evil = InlineFigure(1, 1, '"><script>x</script>')._repr_mimebundle_()[0]["text/html"]
    assert "<script" not in evil and evil.count('"') == 8
    untold = InlineFigure(3, 2, layout="constrained")
    untold.subplots().set(title="a title", xlabel="across", ylabel="up")
    data, metadata = untold._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == data["text/plain"] == "a title; up over across"


def painted(picture, heat, **options):
    return np.asarray(paint(picture, heat, **options)).astype(float) / 255


def test_a_painting_is_the_print_of_draw_heatmap(panel):
    picture, heat = Image.effect_noise((400, 400), 60).convert("RGB"), np.random.default_rng(0).normal(size=(4, 4))
    for signed in (False, True):
        panel.clear()
        draw_heatmap(panel, picture, heat, signed=signed)
        printed = panel.images[0].get_array()
        middle = slice(60, 340)  # at the rim the two ways to enlarge differ
        assert np.abs(painted(picture, heat, signed=signed) - printed)[middle, middle].max() < 0.06


def test_a_painting_without_opacity_is_the_picture_and_a_small_one_keeps_its_pixels():
    picture = Image.effect_noise((64, 40), 60).convert("RGB")
    large = painted(picture, np.ones((2, 2)), opacity=0.0)
    assert large.shape == (200, 320, 3)
    assert np.allclose(large[2::5, 2::5], np.asarray(picture) / 255, atol=0.01)


def test_a_threshold_leaves_out_what_is_small_of_either_sign():
    heat = np.array([[1.0, 0.2], [-1.0, -0.2]])
    white = Image.new("RGB", (400, 400), "white")
    cut = painted(white, heat, signed=True, threshold=0.5)
    assert cut[40, 40].min() < 0.7 and cut[360, 40].min() < 0.7
    assert np.allclose(cut[40, 360], 1) and np.allclose(cut[360, 360], 1)


def test_there_is_no_ink_beyond_what_the_model_saw():
    white = Image.new("RGB", (600, 400), "white")
    for colours in COLOURS:
        seen = painted(white, np.ones((3, 3)), box=(100, 0, 500, 400), colours=colours)
        assert np.allclose(seen[:, :100], 1) and np.allclose(seen[:, 500:], 1)
        assert np.allclose(seen[200, 300], COLOURS[colours](1.0)[:3], atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 2}, "from 0 to 1, got 2"),
        ({"opacity": -1}, "from 0 to 1, got -1"),
        ({"colours": "jet"}, "one of white, .*got 'jet'"),
    ],
)
def test_a_painting_with_another_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        paint(figure_picture(), np.ones((2, 2)), **options)


def test_no_figure_is_wider_than_the_column_of_a_notebook():
    shown, square = explanation("a red car " * 6), figure_picture()
    maps = {f"map {i}": np.ones((4, 4)) for i in range(6)}
    made = [shown.plot()] + [
        plot_maps(square, maps, columns=columns, shared_scale=shared)
        for columns in range(2, 7)
        for shared in (True, False)
    ]
    assert max(figure.get_figwidth() * figure.dpi for figure in made) <= 900


def written_everywhere():
    """Every kind of figure that is made here, by a name."""
    maps = {f"a map of a long name, {i}": np.random.default_rng(i).normal(size=(6, 6)) * 1e-2 for i in range(5)}
    one, long = explanation("a red car and a blue ball"), " ".join(["an unbelievable counterrevolutionary car"] * 18)
    picture = figure_picture()
    three = words("a", "red", "car")
    heats = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    found = Interactions("a red car", three, heats, 0.3, picture, (0, 0, 60, 60), PROVENANCE)
    return {
        "one prompt": one.plot(),
        "a long prompt": explanation(long, "a dog").plot(),
        "a contrast": explanation("a red car and a blue ball", against=long).plot(),
        "scales of their own": plot_explanation(explanation("a red car", "a dog"), shared_scale=False),
        "maps": plot_maps(picture, maps),
        "an image without maps": plot_maps(picture, {}, title="two things stand in it"),
        "maps, each with its scale": plot_maps(picture, maps, signed=True, shared_scale=False),
        "interactions": plot_interactions(found),
        "intervals": plot_intervals(table(), chance=0.25, label="pointing game"),
        "for a telephone": explanation("a red car", "a dog", "a cat").plot(width=4),
        "the method": plot_method(),
    }


def test_whatever_is_written_in_a_figure_can_be_read():
    assert not {name: faults for name, figure in written_everywhere().items() if (faults := unreadable(figure))}


def test_a_schematic_is_shown_as_the_same_svg_each_time_and_says_where_everything_comes_from():
    (first, _), (again, _) = (plot_method()._repr_mimebundle_() for _ in range(2))
    assert first == again and "data:image/svg+xml" in first["text/html"] and ". Two towers." in first["text/html"]
    drawn = " ".join(text.get_text() for text in plot_method().axes[0].texts)
    for prime in ("", "'"):
        assert all(f"{name}{prime}" in drawn for name in ("q", "k", "v", "o", "w", r"\lambda", r"\alpha"))


def test_a_short_prompt_makes_a_narrow_figure():
    narrow, wide = explanation("a dog").plot(), explanation("a red car " * 6).plot()
    assert narrow.get_figwidth() < wide.get_figwidth()
    assert_nothing_is_cut_off(narrow)


def test_words_say_that_they_have_a_scale_of_their_own():
    figure = plot_explanation(explanation("a red car", "a dog"), shared_scale=False)
    said = [" ".join(text.get_text().split()) for text in texts_of(figure) if text.get_text().startswith("words:")]
    assert len(said) == 2 and all(sentence.endswith("a scale of its own") for sentence in said)


def test_prompts_that_a_narrow_figure_has_no_room_for_stand_below_the_image():
    figure = explanation("a red car", "a dog").plot(width=4)
    image, *maps = [axes.bbox for axes in figure.axes if axes.images]
    assert figure.get_figwidth() <= 4 and all(one.y1 < image.y0 for one in maps)
    assert_nothing_is_cut_off(figure)
    with pytest.raises(ValueError, match=r"width must be 3\.5 or more, got 2"):
        explanation("a dog").plot(width=2)


def table(**columns):
    numbers = {"mean": [0.5, 0.2], "low": [0.4, 0.1], "high": [0.7, 0.3], "n": [10, 10]}
    return pd.DataFrame({"method": ["Grad-ECLIP", "$rollout_"], **numbers, **columns})


def test_intervals_are_drawn_where_they_are_and_written():
    figure = plot_intervals(table(), chance=0.25, label="pointing game")
    axes = figure.axes[0]
    points, *intervals = [
        line.get_xydata() for line in axes.lines if len(line.get_xdata()) and line.get_linestyle() != "--"
    ]
    np.testing.assert_allclose(points, [(0.5, 0), (0.2, 1)])
    np.testing.assert_allclose(intervals, [[(0.4, 0), (0.7, 0)], [(0.1, 1), (0.3, 1)]])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Grad-ECLIP", "$rollout_"]
    written = [text.get_text() for text in axes.texts]
    assert "0.500" in written and "0.200" in written and "chance" in written
    assert "Grad-ECLIP 0.500, 0.400 to 0.700" in figure.alt
    assert_nothing_is_cut_off(figure)


def test_a_negative_number_has_a_minus_sign_and_a_word_keeps_its_hyphen():
    rows = table().assign(mean=[-0.5, 0.2], low=-0.6, method=["Grad-ECLIP", "top-1"])
    figure = plot_intervals(rows, title="ViT-B-16: -0.5 [-0.6, 0.7]")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["\N{MINUS SIGN}0.500", "0.200"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Grad-ECLIP", "top-1"]
    assert headline(figure) == "ViT-B-16: \N{MINUS SIGN}0.5 [\N{MINUS SIGN}0.6, 0.7]"


def test_reference_baselines_are_grey_below_a_rule():
    axes = plot_intervals(table(), references=1).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    drawn = {y: line.get_color() for line in points for x, y in line.get_xydata() if np.isfinite(x)}
    assert drawn[0] != drawn[1] == axes.get_yticklabels()[1].get_color()
    assert any(list(line.get_ydata()) == [0.5, 0.5] for line in axes.lines)
    with pytest.raises(ValueError, match="references must be at most 2, got 3"):
        plot_intervals(table(), references=3)


def test_intervals_with_long_names_and_many_rows_are_not_cut_off():
    rows = pd.DataFrame({"mean": np.linspace(0, 1, 30), "low": -0.1, "high": 1.1})
    assert_nothing_is_cut_off(plot_intervals(rows, chance=0.9, names=["a name that goes on and on " * 2] * 30))


def test_intervals_need_their_three_columns():
    with pytest.raises(ValueError, match="no column 'high'; it has 'method', 'mean', 'low', 'n'"):
        plot_intervals(table().drop(columns="high"))
