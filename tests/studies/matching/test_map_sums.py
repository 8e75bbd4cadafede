"""Sums of maps: wholes and parts, scenes of two things, and what a display does to a sum."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from studies.matching.composition import noun_pairs, two_colour_scenes
from studies.matching.map_sums import (
    DISPLAYS,
    SUMS,
    displayed,
    energy_explained,
    map_sums,
    part_agreement,
    two_thing_scene,
)
from tests.conftest import build, wrap


@pytest.fixture(scope="module")
def explainer():
    return Explainer(wrap(build(text={"context_length": 77})))


def bag(explainer, texts):
    """Embeddings (T, 48) that are sums of words; articles and "and" are nothing."""
    empty = ("a", "an", "and")
    return torch.from_numpy(np.stack([
        sum((np.random.default_rng(list(word.encode())).normal(size=48) for word in text.split() if word not in empty),
            np.zeros(48)) for text in texts
    ]))  # fmt: skip


def test_where_sentences_are_bags_of_words_their_maps_are_those_of_their_words(explainer, monkeypatch):
    monkeypatch.setattr(Explainer, "embed_texts", bag)
    table = part_agreement(explainer, two_colour_scenes(4)).groupby(["whole", "part"])["agreement"]
    assert table.min()["sentence", "its phrases, added"] > 0.999
    assert table.min()["sentence", "its words as prompts, added"] > 0.999
    assert table.mean()["sentence", "another's phrases, added"] < 0.9


def test_every_whole_has_a_control_and_no_map_agrees_by_more_than_one(explainer):
    table = part_agreement(explainer, two_colour_scenes(3))
    assert table["agreement"].between(-1, 1).all() and table.groupby("whole")["part"].nunique().sum() == 9
    assert table[table["part"].str.startswith("another's")]["whole"].nunique() == 2


def test_scenes_of_two_things_lie_as_they_are_said_to():
    for seed in range(4):
        apart, ordered, hidden, twice = (
            two_thing_scene("car", "owl", one, seed=seed) for one in ("apart", "in this order", "occluded", "twice")
        )
        whole, alone = ([arrange([thing]).masks(96).sum() for thing in one.objects] for one in (hidden, apart))
        first, second = hidden.masks(96).sum((1, 2))
        assert 0 < first < whole[0] and second == whole[1]
        across, down = np.subtract(*([thing.x, thing.y] for thing in ordered.objects))
        assert -across >= abs(down) and {thing.noun for thing in twice.objects} == {"car"}
        assert apart.masks(96).sum() == sum(alone) and apart.caption == "a car and an owl"
        assert hidden.objects[0].size == hidden.objects[1].size and twice.caption == "two cars"
    sides = {two_thing_scene("car", "owl", "apart", seed=seed).objects[0].x < 48 for seed in range(12)}
    assert sides == {True, False}
    with pytest.raises(ValueError, match="got 'upside down'"):
        two_thing_scene("car", "owl", "upside down")


def test_sums_of_maps_are_exact_where_embeddings_are_sums_until_they_are_displayed(explainer, monkeypatch):
    monkeypatch.setattr(Explainer, "embed_texts", bag)
    table = map_sums(explainer, noun_pairs(4)).query("case == 'A and B'")
    alike = table.groupby(["display", "parts"])["alike"]
    assert alike.min()["signed", "own"] == pytest.approx(1) and alike.min()[
        "signed, mean removed", "own"
    ] == pytest.approx(1)
    assert alike.max()["relu", "own"] < 0.9999 and alike.mean()["signed", "foreign"] < 0.9


def test_every_case_is_shown_every_way(explainer):
    table = map_sums(explainer, noun_pairs(3))
    assert len(table) == 3 * len(SUMS) * len(DISPLAYS) * 2 and table["alike"].between(0, 1 + 1e-9).all()
    assert table["seen_first"].between(0, 1, inclusive="neither").all()
    occluded = table[table["case"] == "A and B, A half hidden"].groupby("image")["seen_first"].first()
    assert (occluded < table[table["case"] == "two As"].groupby("image")["seen_first"].first().max()).all()


def test_what_is_explained_does_not_depend_on_length_but_on_sign():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 4))
    assert (
        energy_explained(a, 7 * a) == pytest.approx(1)
        and energy_explained(a, -a) == 0
        and energy_explained(a, 0 * a) == 0
    )
    weight = max((a * b).sum() / (b * b).sum(), 0)
    assert energy_explained(a, b) == pytest.approx(1 - ((a - weight * b) ** 2).sum() / (a * a).sum())


def test_displays_cut_and_scale():
    map_ = np.array([[-2.0, 4.0]])
    assert [displayed(map_, one).tolist() for one in ("signed", "relu", "relu, normalised")] == [
        [[-2, 4]],
        [[0, 4]],
        [[0, 1]],
    ]
    assert not displayed(-np.ones((2, 2)), "relu, normalised").any()
    with pytest.raises(ValueError, match="got 'rainbow'"):
        displayed(map_, "rainbow")
