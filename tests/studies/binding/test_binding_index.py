"""Binding: the index means what it says, and no figure comes out better than it is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from gradeclip_utils import Explainer
from gradeclip_utils.evaluation.attributes import SWAPPED, draw_pairs, judge, images_of
from gradeclip_utils.evaluation.localisation import pool
from gradeclip_utils.images import onto_image
from gradeclip_utils.panels.jobs import Interrupted
from gradeclip_utils.panels.lesson import panel
from gradeclip_utils.plots import InlineFigure, draw_heatmap
from gradeclip_utils.scenes import Object, arrange, describe
from gradeclip_utils.studies.binding import binding_index as binding
from gradeclip_utils.studies.binding import mistakes
from gradeclip_utils.studies.binding.binding_index import METHODS, Reader, binding_index, figures, margin_maps
from gradeclip_utils.studies.binding.mistakes import KNOWN, added_auc, appearance, trials
from gradeclip_utils.studies.binding.playground import playground, playground_scene
from gradeclip_utils.studies.binding.plots import plot_by_kind, plot_gallery, plot_pair

FEW = 16  # concepts: what these tests draw


def drawn(kind, n=3, **options):
    return draw_pairs(kind, n, nouns=FEW, **options)


# --------------------------------------------------------------------------------------------------------------- index


def test_the_index_is_re_derived_from_explanations_that_everybody_can_make(bundled_shape):
    """From `Explainer.explain` and `Explainer.interactions`, masks and a loop over patches."""
    (pair,) = drawn("colour", 1, objects=3)
    index = binding_index(bundled_shape, [pair]).set_index(["side", "role", "method"])["index"]
    explainer, scene, other = Explainer(bundled_shape), *pair.scenes
    picture, (span,) = images_of(bundled_shape, [scene])[0], pair.words(0)
    word = next(i for i, s in enumerate(explainer.interactions(picture, scene.caption).words) if s.start == span.start)
    maps = explainer.interactions(picture, scene.caption).maps
    expected = {
        "caption": explainer.explain(picture, scene.caption).image_maps[0],
        "word x region": maps[word],
        "word x region, centred": maps[word] - maps.mean(0),
        "contrast": explainer.explain(picture, scene.caption, against=other.caption).image_maps[0],
    }
    cover = np.stack([pool(mask, maps.shape[1:]) for mask in scene.masks(96)])
    for method, map_ in expected.items():
        density = [sum(max(m, 0) * c for m, c in zip(map_.flat, part.flat, strict=True)) / part.sum() for part in cover]
        theirs = [k for k in range(3) if k not in pair.asked]
        spread = sum(density[k] * cover[k].sum() for k in theirs) / sum(cover[k].sum() for k in theirs)
        mine = density[pair.asked[0]]
        wanted = mine / (mine + spread) if mine + spread else 0.5
        assert index[0, "right", method] == pytest.approx(wanted, abs=1e-4), method


def test_the_index_knows_a_map_that_lies_on_its_object_on_the_other_and_on_neither():
    own, others = np.eye(2)[:1].repeat(2, 0), np.eye(2)[1:].repeat(2, 0)
    assert binding._index(own, own, others)["index"] == 1
    assert binding._index(own, others, own)["index"] == 0
    assert binding._index(np.ones((2, 2)), own, others)["index"] == 0.5
    nothing = binding._index(-np.ones((2, 2)), own, others)
    assert nothing["index"] == 0.5 and nothing["silent"]


def test_the_index_is_per_area_so_that_an_even_map_prefers_no_object():
    own, others = np.zeros((4, 4)), np.zeros((4, 4))
    own[0, 0], others[1:] = 1, 1
    assert binding._index(np.ones((4, 4)), own, others)["index"] == 0.5


@pytest.mark.parametrize("kind", SWAPPED)
def test_one_map_for_both_swapped_words_can_only_be_at_one_half_on_average(bundled_shape, kind):
    index = binding_index(bundled_shape, drawn(kind, 2), absent=False)
    own = index[index["method"] == "caption"]
    assert own.groupby(["pair", "side", "role"])["index"].mean().to_numpy() == pytest.approx(0.5)


def test_the_contrast_of_a_wrong_caption_is_the_contrast_of_the_right_one_with_its_sign_turned(bundled_shape):
    (pair,) = drawn("colour", 1)
    reader = Reader(bundled_shape)
    right, wrong = binding._questions(reader, pair, 0, None)
    contrast = METHODS.index("contrast")
    assert torch.allclose(right.directions[contrast], -wrong.directions[contrast])


def test_absent_colours_are_in_no_picture_and_articles_agree():
    for pair in drawn("swapped colours", 8):
        scene = pair.scenes[0]
        for span in pair.words(0):
            for word in ("orange", "green"):
                caption, (start, end) = binding._exchanged(scene.caption, span, word)
                assert caption[start:end] == word
                changed = replace(scene.objects[span.objects[0]], colour=word)
                things = [changed if k == span.objects[0] else t for k, t in enumerate(scene.objects)]
                assert caption == describe(things)[0]


def test_an_absent_colour_is_asked_only_where_it_is_absent(bundled_shape):
    pairs = drawn("swapped colours", 2)
    index = binding_index(bundled_shape, pairs)
    for pair in pairs:
        shown = {thing.colour for thing in pair.scenes[0].objects}
        mine = index[(index["pair"] == pair.name) & (index["role"] == "absent")]
        assert len(mine) == 2 * 2 * len(METHODS) and not shown & set(mine["word"])


def test_a_reader_gives_the_same_index_as_a_model_and_reads_captions_once(bundled_shape):
    pairs, reader = drawn("colour", 1), Reader(bundled_shape)
    once = binding_index(reader, pairs)
    words = reader.words(pairs[0].scenes[0].caption)
    pd.testing.assert_frame_equal(once, binding_index(bundled_shape, pairs))
    assert reader.words(pairs[0].scenes[0].caption) is words


def test_the_map_answers_for_the_caption_whose_words_have_the_higher_index():
    about = {"kind": "colour", "objects": 2, "method": "word x region"}
    told = [("a", "right", 0.9), ("a", "right", 0.5), ("a", "wrong", 0.6), ("b", "right", 0.2), ("b", "wrong", 0.3),
            ("c", "right", 0.5), ("c", "wrong", 0.5), ("c", "absent", 0.9)]  # fmt: skip
    index = pd.DataFrame(
        [{**about, "pair": pair, "side": 0, "role": role, "index": value} for pair, role, value in told]
    )
    assert list(binding.by_the_map(index)["right"]) == [1, 0, 0.5]
    assert binding.by_the_map(index[:0]).empty


def test_margin_maps_put_all_relevance_into_the_parts(bundled_shape):
    (pair,) = drawn("swapped colours", 1, objects=4)
    rows = margin_maps(bundled_shape, [pair])
    explanation = Explainer(bundled_shape).explain(
        images_of(bundled_shape, pair.scenes[:1])[0], pair.scenes[0].caption, against=pair.scenes[1].caption
    )
    map_ = explanation.image_maps[0]
    cover = np.stack([pool(mask, map_.shape) for mask in pair.scenes[0].masks(96)])
    asked = list(pair.asked)
    area = {"asked": cover[asked].sum(), "background": (1 - cover.sum(0)).sum()}
    area["others"] = map_.size - sum(area.values())
    mine = rows[rows["side"] == 0].set_index("part")
    for sign, column in ((1, "for_right"), (-1, "for_wrong")):
        total = sum(mine.loc[part, column] * size for part, size in area.items()) * np.abs(map_).mean()
        assert total == pytest.approx(np.maximum(sign * map_, 0).sum(), rel=1e-3)


# ------------------------------------------------------------------------------------------------------------ mistakes


def made_up(n=200, signal=0.0, seed=0):
    """Rows as `trials` gives them: `similarity lower` tells errors a little, `chosen: contrast` by `signal`."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(2 * n) < 0.3
    table = pd.DataFrame({name: rng.normal(size=2 * n) for name in KNOWN})
    table["similarity lower"] += wrong
    return table.assign(
        pair=np.repeat(np.arange(n), 2).astype(str), cell=rng.choice(["a", "b"], 2 * n), wrong=wrong,
        **{"chosen: contrast": rng.normal(size=2 * n) - signal * wrong},
    )  # fmt: skip


def test_an_index_that_knows_adds_and_one_that_does_not_adds_nothing():
    knows, blind = (added_auc(made_up(signal=s), "chosen: contrast", repeats=1, draws=500) for s in (2.0, 0.0))
    assert knows["low"] > 0.05 and knows["full"] > knows["base"]
    assert blind["low"] < 0 < blind["high"] + 0.01 and abs(blind["added"]) < 0.03


def test_the_same_column_twice_adds_nothing():
    table = made_up().assign(again=lambda rows: rows["similarity lower"])
    told = added_auc(table, "again", base=["similarity lower"], repeats=1, draws=100)
    assert abs(told["added"]) < 0.01


def test_the_areas_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    scores, wrong = rng.integers(0, 5, (1, 60)).astype(float), rng.random((1, 60)) < 0.4
    assert mistakes._auc(scores, wrong)[0] == pytest.approx(roc_auc_score(wrong[0], scores[0]))


def test_too_few_mistakes_are_refused():
    with pytest.raises(ValueError, match="ten right and ten wrong"):
        added_auc(made_up(4), "chosen: contrast")


def test_trials_show_what_whoever_does_not_know_the_answer_can_see(bundled_shape):
    pairs = drawn("colour", 2)
    answers = judge(bundled_shape, pairs)
    index = binding_index(bundled_shape, pairs)
    table = trials(answers, index, pairs)
    means = index.groupby(["pair", "side", "role", "method"])["index"].mean()
    for row in table.to_dict("records"):
        own = answers[(answers["pair"] == row["pair"]) & (answers["side"] == row["side"])].iloc[0]
        assert row["similarity higher"] >= row["similarity lower"]
        assert row["wrong"] == (own["margin"] <= 0)
        role = "wrong" if row["wrong"] else "right"
        assert row["chosen: contrast"] == means[row["pair"], row["side"], role, "contrast"]


def test_appearance_measures_the_objects_that_are_asked():
    small, big = Object("dog", "openmoji", "red", 24, 48, 26), Object("cat", "openmoji", "red", 72, 48, 46)
    scene = arrange([small, big])
    assert appearance(scene, [0])[0] < appearance(scene, [0, 1])[0] < appearance(scene, [1])[0]
    assert 0 < appearance(scene, [0])[1] < 3**0.5


# ------------------------------------------------------------------------------------------------------------- figures


def test_the_figures_of_a_model_are_one_tidy_table(bundled_shape):
    swapped = {n: drawn("swapped colours", 2, objects=n) for n in (2, 4)}
    index = binding_index(bundled_shape, [*swapped[2], *swapped[4]])
    pairs = [*swapped[2], *swapped[4], *drawn("colour", 2), *drawn("swapped colours", 2, composition="withheld")]
    table = figures(bundled_shape, rows=judge(bundled_shape, pairs), index=index)
    assert list(table.columns) == ["figure", "estimate", "low", "high", "n"]
    assert table["figure"].is_unique and len(table) == 8
    assert ((table["low"] <= table["estimate"]) & (table["estimate"] <= table["high"])).all()


def test_the_bundled_model_binds_colours_and_not_places(bundled):
    """Few pairs, far from the border: the lesson has the figures."""
    rows = judge(bundled, [*drawn("swapped colours", 12), *drawn("left / right", 12)])
    right, change = (rows.groupby("kind")[column].mean() for column in ("right", "text_change"))
    assert right["swapped colours"] > 0.8 > 0.7 > right["left / right"]
    assert change["swapped colours"] > 5 * change["left / right"]


def test_figures_are_drawn_from_tables_and_name_what_they_lack():
    numbers = {"mean": [0.4, 0.6], "low": [0.3, 0.5], "high": [0.5, 0.7]}
    table = pd.DataFrame({"kind": ["a", "b"], **numbers, "who": ["x", "y"]})
    figure = plot_by_kind({"one": table, "two": table}, lines={"one": 0.5}, series="who")
    assert len(figure.axes) == 2 and [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="lacking.*high"):
        plot_by_kind({"one": table.drop(columns="high")})


def test_a_pair_is_drawn_with_both_pictures_and_all_four_similarities():
    figure = plot_pair(drawn("colour", 1)[0], np.array([[0.5, 0.4], [0.3, 0.6]]))
    text = " ".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert all(f"{value:.3f}" in text for value in (0.5, 0.4, 0.3, 0.6)) and text.count("(true)") == 2


def test_the_gallery_shows_contrasts_only(tiny, picture):
    contrast = Explainer(tiny).explain(picture, "a red dog", against="a blue dog")
    assert len(plot_gallery([("one", contrast), ("two", contrast)]).axes) >= 4
    with pytest.raises(ValueError, match="contrastive"):
        plot_gallery([("one", Explainer(tiny).explain(picture, "a red dog"))])


# ---------------------------------------------------------------------------------------------------------- playground


def test_the_playground_shows_the_models_own_similarities(bundled_shape):
    answers = playground(Reader(bundled_shape))
    scene, false = playground_scene("car", "red", "upper left", "cat", "blue", "lower right", "colours exchanged")
    assert (scene.caption, false) == ("a red car and a blue cat", "a blue car and a red cat")
    plain = Explainer(bundled_shape).explain(scene.image(), [scene.caption, false]).similarity
    text = " ".join(t.get_text() for axes in answers.figure().axes for t in axes.texts)
    assert all(f"{value:.3f}" in text.replace("\N{MINUS SIGN}", "-") for value in plain)


def test_the_maps_of_the_playground_are_the_explainers_own(bundled_shape):
    answers = playground(Reader(bundled_shape))
    explainer, (true, false) = Explainer(bundled_shape), answers.captions
    own = explainer.explain(answers.picture, [true, false]).image_maps
    lead = explainer.explain(answers.picture, true, against=false).image_maps[0]
    for found, expected in zip(answers.maps.values(), [*np.maximum(own, 0), lead], strict=False):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert list(answers.maps)[3:] == ["the word 'red'", "the word 'blue'"]


def test_autocast_around_the_playground_changes_nothing(bundled_shape):
    plain, reader = playground(Reader(bundled_shape)), Reader(bundled_shape)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            around = playground(reader)
        assert around.similarity == plain.similarity


def test_the_playground_tells_how_far_it_is_and_ends_when_nobody_waits(bundled_shape):
    reader, told = Reader(bundled_shape), []
    playground(reader, report=told.append)
    assert told == [0, 0.5]

    def stop(share):
        if share:
            raise Interrupted

    with pytest.raises(Interrupted):
        playground(reader, second="dog", report=stop)
    assert playground(reader, second="dog").captions[0] == "a red car and a blue dog"


def test_the_figure_of_the_playground_has_every_map_on_its_scale(bundled_shape):
    answers = playground(Reader(bundled_shape))
    drawn = {axes.get_title(loc="left"): axes.images[0].get_array() for axes in answers.figure().axes if axes.images}
    assert list(drawn) == ["picture", *answers.maps]
    for (name, map_), (signed, vmax) in zip(answers.maps.items(), answers.scales(), strict=True):
        axes, heat = InlineFigure(2, 2).add_axes((0, 0, 1, 1)), onto_image(map_, answers.box, answers.picture.size)
        draw_heatmap(axes, answers.picture, heat, signed=signed, vmax=vmax)
        assert np.array_equal(drawn[name], axes.images[0].get_array())


def test_exchanged_places_are_asked_by_a_relation():
    scene, false = playground_scene("car", "no colour", "upper left", "cat", "red", "lower left", "places exchanged")
    assert (scene.caption, false) == ("a car above a red cat", "a car below a red cat")


def test_the_playground_refuses_what_cannot_be_asked(bundled_shape):
    reader = Reader(bundled_shape)
    for change, message in (
        ({"second": "car"}, "both are a car"),
        ({"second_place": "upper left"}, "both are upper left"),
        ({"second_colour": "red"}, "nothing to exchange between 'red' and 'red'"),
        ({"first": "zebra crossing"}, "'zebra crossing' is no noun"),
        ({"first_colour": "teal"}, "no car can be 'teal'"),
        ({"question": "why"}, "the question must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            playground(reader, **change)


def test_the_playground_is_a_panel_that_keeps_the_last_good_view(bundled_shape):
    choices = {"first_colour": ["red", "green", "blue"], "first_place": ["upper left", "upper right"]}
    reader = Reader(bundled_shape)
    shown = panel(lambda **asked: playground(reader, **asked).figure(), **choices)
    before = shown.figure
    shown.change(first_colour="blue")
    assert "nothing to exchange" in shown.message and shown.figure is before
    shown.change(first_colour="green")
    assert not shown.message and shown.figure is not before
