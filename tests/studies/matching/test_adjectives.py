"""Matching: twins, decomposition, sums of maps, and the figures of the study."""

from dataclasses import replace

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.evaluation.statistics import summarise
from gradeclip_utils.scenes import arrange, is_trained
from gradeclip_utils.studies.matching import adjectives as matching
from gradeclip_utils.studies.matching.composition import noun_pairs
from gradeclip_utils.studies.matching.directions import embed, maps_of
from gradeclip_utils.studies.matching.adjectives import (
    DISPLAYS,
    SUMS,
    adjective_shift,
    coloured_pairs,
    decomposition,
    explained,
    figures,
    map_sums,
    measure,
    pair_scene,
    path_between,
    shown,
    twins,
)
from gradeclip_utils.studies.matching.plots import draw_path, draw_word_regions, plot_groups
from gradeclip_utils.studies.matching.wording import scene_regions
from tests.conftest import build, wrap

CARS = arrange(["red car", "blue car"])


@pytest.fixture(scope="module")
def explainer():
    return Explainer(wrap(build(text={"context_length": 77})))


@pytest.fixture(scope="module")
def tables(explainer):
    return measure(explainer.clip, 3)


def bag(explainer, texts):
    """Embeddings (T, 48) that are sums of words; articles and "and" are nothing."""
    empty = ("a", "an", "and")
    return np.stack([
        sum((np.random.default_rng(list(word.encode())).normal(size=48) for word in text.split() if word not in empty),
            np.zeros(48)) for text in texts
    ])  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the adjective


def test_twins_differ_in_colour_and_place_and_in_nothing_else():
    pairs = twins(30)
    assert len({one.noun for one in pairs}) == 30 and twins(30)[7] == pairs[7]
    for one in pairs:
        first, second = one.scene.objects
        assert replace(first, colour=None, x=0, y=0) == replace(second, colour=None, x=0, y=0)
        assert (first.colour, second.colour) == (one.colour, one.other) and is_trained(one.scene)
        assert one.plain.objects == (first, replace(second, colour=None))
        assert len({one.colour, one.other, one.absent}) == 3
        alone, whole = [arrange([thing]).masks(96).sum() for thing in (first, second)], one.scene.masks(96)
        assert [mask.sum() for mask in whole] == alone  # neither hides the other or leaves the picture


def test_there_are_as_many_twins_as_nouns():
    with pytest.raises(ValueError, match="got n=1000"):
        twins(1000)


def test_naming_the_other_twin_mirrors_every_share(explainer):
    pairs = twins(3)
    mirrored = [
        replace(one, colour=one.other, other=one.colour,
                scene=arrange(one.scene.objects[::-1], background=one.scene.background)) for one in pairs
    ]  # fmt: skip
    table, mirror = (
        adjective_shift(explainer, some).set_index(["second", "image", "prompt"]) for some in (pairs, mirrored)
    )
    table, mirror = table.loc["another colour"]["share"], mirror.loc["another colour"]["share"]
    for here, there in (("no adjective",) * 2, ("its colour", "the other's colour"), ("a colour of neither",) * 2):
        assert np.allclose(table.xs(here, level="prompt"), 1 - mirror.xs(there, level="prompt"), atol=1e-6)


def test_what_moved_is_counted_from_the_prompt_without_an_adjective(tables):
    table = tables["adjective"]
    base = table[table["prompt"] == "no adjective"]
    assert np.allclose(base["moved"], 0)
    wide = table.pivot(index=["image", "second"], columns="prompt", values=["share", "moved"])
    assert np.allclose(wide["moved", "its colour"], wide["share", "its colour"] - wide["share", "no adjective"])
    assert table["share"].between(0, 1).all() and table["on_things"].between(0, 1).all()
    one = twins(1)[0]
    assert table[table["image"] == one.noun]["area"].iloc[0] == pytest.approx(one.scene.masks(96).sum(0).mean())
    assert set(table[table["prompt"] == "the other's colour"]["second"]) == {"another colour"}


def test_a_model_that_sees_colours_is_seen_to_follow_the_adjective(explainer, monkeypatch):
    """Maps that lie on whatever has the prompt's colour, drawn from the truth in place of a model's."""
    pairs = twins(4)
    colours = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"]
    monkeypatch.setattr(
        matching, "embed", lambda explainer, texts: np.array([[c in t.split() for c in colours] for t in texts], float)
    )
    scenes = iter([one.scene for one in pairs] + [one.plain for one in pairs])

    def seeing(explainer, pictures, directions):
        found = []
        for wanted, scene in zip(directions, (next(scenes) for _ in pictures), strict=True):
            has = np.array([[thing.colour == colour for colour in colours] for thing in scene.objects], float)
            found.append(np.einsum("tc,oc,ohw->thw", wanted, has, scene.masks(96).astype(float)))
        return np.stack(found)

    monkeypatch.setattr(matching, "maps_of", seeing)
    share = adjective_shift(explainer, pairs).groupby(["second", "prompt"])["share"]
    assert (
        share.min()["another colour", "its colour"] > 0.99 > 0.01 > share.max()["another colour", "the other's colour"]
    )
    assert (share.mean().xs("a colour of neither", level="prompt") == 0.5).all()


# ------------------------------------------------------------------------------------------- wholes, parts and sums


def test_where_sentences_are_bags_of_words_their_maps_are_those_of_their_words(explainer, monkeypatch):
    monkeypatch.setattr(matching, "embed", bag)
    table = decomposition(explainer, coloured_pairs(4)).groupby(["whole", "part"])["agreement"]
    assert table.min()["sentence", "its phrases, added"] > 0.999
    assert table.min()["sentence", "its words as prompts, added"] > 0.999
    assert table.mean()["sentence", "another's phrases, added"] < 0.9


def test_every_whole_has_a_control_and_no_map_agrees_by_more_than_one(tables):
    table = tables["decomposition"]
    assert table["agreement"].between(-1, 1).all() and table.groupby("whole")["part"].nunique().sum() == 9
    assert table[table["part"].str.startswith("another's")]["whole"].nunique() == 2


def test_scenes_of_two_things_lie_as_they_are_said_to():
    for seed in range(4):
        apart, ordered, hidden, twice = (
            pair_scene("car", "owl", one, seed=seed) for one in ("apart", "in this order", "occluded", "twice")
        )
        whole = [arrange([thing]).masks(96).sum() for thing in hidden.objects]
        first, second = hidden.masks(96).sum((1, 2))
        assert 0 < first < whole[0] and second == whole[1]
        assert ordered.objects[0].x < ordered.objects[1].x and {thing.noun for thing in twice.objects} == {"car"}
        assert apart.masks(96).sum() == sum(whole) and apart.caption == "a car and an owl"
    sides = {pair_scene("car", "owl", "apart", seed=seed).objects[0].x < 48 for seed in range(20)}
    assert sides == {True, False}
    with pytest.raises(ValueError, match="got 'upside down'"):
        pair_scene("car", "owl", "upside down")


def test_sums_of_maps_are_exact_where_embeddings_are_sums_until_they_are_displayed(explainer, monkeypatch):
    monkeypatch.setattr(matching, "embed", bag)
    table = map_sums(explainer, noun_pairs(4), ["A and B"])
    alike = table.groupby(["display", "parts"])["alike"]
    assert alike.min()["signed", "own"] == pytest.approx(1) and alike.min()[
        "signed, mean removed", "own"
    ] == pytest.approx(1)
    assert alike.max()["relu", "own"] < 0.9999 and alike.mean()["signed", "foreign"] < 0.9


def test_every_case_is_shown_every_way(tables):
    table = tables["sums"]
    assert len(table) == 3 * len(SUMS) * len(DISPLAYS) * 2 and table["alike"].between(0, 1 + 1e-9).all()
    assert (table[table["case"] == "two As"]["seen_first"].between(0.4, 0.6)).all()


def test_what_is_explained_does_not_depend_on_length_but_on_sign():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 4))
    assert explained(a, 7 * a) == pytest.approx(1) and explained(a, -a) == 0 and explained(a, 0 * a) == 0
    weight = max((a * b).sum() / (b * b).sum(), 0)
    assert explained(a, b) == pytest.approx(1 - ((a - weight * b) ** 2).sum() / (a * a).sum())


def test_displays_cut_and_scale():
    map_ = np.array([[-2.0, 4.0]])
    assert [shown(map_, one).tolist() for one in ("signed", "relu", "relu, normalised")] == [
        [[-2, 4]],
        [[0, 4]],
        [[0, 1]],
    ]
    assert not shown(-np.ones((2, 2)), "relu, normalised").any()
    with pytest.raises(ValueError, match="got 'rainbow'"):
        shown(map_, "rainbow")


# ---------------------------------------------------------------------------------------------- the way of an adjective


def test_every_map_on_the_way_is_the_map_of_its_direction(explainer):
    path = path_between(explainer, CARS, "a car", "a red car")
    before, after = embed(explainer, ["a car", "a red car"])
    for weight in (0.0, 0.3, 1.0):
        expected = maps_of(explainer, [CARS.image()], (before + weight * (after - before))[None, None])[0, 0]
        assert np.allclose(path.at(weight), expected, atol=1e-6)
    assert np.allclose(path.at(1), explainer.explain(CARS.image(), "a red car").image_maps[0], atol=1e-6)


def test_a_way_needs_two_things(explainer):
    with pytest.raises(ValueError, match="two things, and the scene has 1"):
        path_between(explainer, arrange(["red car"]), "a car", "a red car")


def test_the_figure_of_a_way_says_where_it_stands(explainer):
    path = path_between(explainer, CARS, "a car", "a red car")
    figure = draw_path(path, 0.25)
    assert f"at 0.25: {path.share(0.25):.0%}" in figure.alt
    assert "weight of the adjective 0.25" in [axes.get_title(loc="left") for axes in figure.axes]
    (dot,) = [line for line in figure.axes[-1].lines if line.get_marker() == "o"]
    assert dot.get_xydata() == pytest.approx(np.array([[0.25, path.share(0.25)]]))
    with pytest.raises(ValueError, match=r"from 0 \(absent\) to 1 .* got 1.5"):
        draw_path(path, 1.5)


# ---------------------------------------------------------------------------------------------------------- figures


def test_figures_come_with_intervals_and_other_models_are_one_call_away(explainer, tables):
    table = figures(explainer.clip, tables=tables)
    assert list(table.columns) == ["figure", "estimate", "low", "high", "n"] and table["figure"].is_unique
    assert 5 <= len(table) <= 12 and (table["n"] >= 2).all()
    assert ((table["low"] <= table["estimate"] + 1e-9) & (table["estimate"] <= table["high"] + 1e-9)).all()
    spans = tables["spans"]
    own = spans[(spans["case"] == "and") & (spans["mean_prompt"] == "removed") & (spans["parts"] == "own")]
    assert table.set_index("figure").loc["A and B in the span of its parts", "estimate"] == pytest.approx(
        own["share"].mean()
    )


def test_the_matrix_is_drawn_with_all_its_words_and_numbers(explainer):
    matrix = scene_regions(explainer, CARS)
    figure = draw_word_regions(matrix)
    assert [text.get_text() for text in figure.axes[-1].get_yticklabels()] == list(matrix.words)
    assert len(figure.axes[-1].texts) == matrix.values.size and len(figure.axes) == 1 + len(matrix.regions)
    assert all(word in figure.alt for word in matrix.words)


def test_groups_are_drawn_at_their_means(tables):
    table = summarise(tables["adjective"], "moved", by=["prompt", "second"])
    figure = plot_groups(table, "prompt", "second", label="moved", reference=0, reference_label="nothing")
    drawn = sorted(x for line in figure.axes[0].lines if line.get_marker() in "os" for x in line.get_xdata())
    assert np.allclose(drawn, sorted(table["mean"]))
    with pytest.raises(ValueError, match="the table needs the columns prompt, third"):
        plot_groups(table, "prompt", "third", label="moved")
    with pytest.raises(ValueError, match="nobody"):
        plot_groups(table, "prompt", "second", label="moved", order=["nobody"])


def test_nothing_is_left_behind_on_the_model(explainer, tables):
    model = explainer.clip.model
    assert not model.training and all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
