"""Adjectives: colour pairs, where the adjective moves the map, and the way from one prompt to another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from studies.matching.adjectives import adjective_shift, colour_pairs, prompt_path
from studies.matching.plots import draw_path
from studies.relevance import as_array
from tests.conftest import build, wrap
from tests.scenes import is_trained

pytestmark = pytest.mark.usefixtures("legible")

CARS = arrange(["red car", "blue car"])


@pytest.fixture(scope="module")
def explainer():
    return Explainer(wrap(build(text={"context_length": 77})))


@pytest.fixture(scope="module")
def table(explainer):
    return adjective_shift(explainer, colour_pairs(6))


# ------------------------------------------------------------------------------------------------------ the adjective


def test_colour_pairs_differ_in_colour_and_place_and_in_nothing_else():
    pairs = colour_pairs(12)
    assert len({one.noun for one in pairs}) == 12 and colour_pairs(8)[7] == pairs[7]
    for one in pairs:
        first, second = one.scene.objects
        assert replace(first, colour=None, x=0, y=0) == replace(second, colour=None, x=0, y=0)
        assert (first.colour, second.colour) == (one.colour, one.other) and is_trained(one.scene.objects)
        assert one.plain.objects == (first, replace(second, colour=None))
        assert len({one.colour, one.other, one.absent}) == 3
        assert not one.scene.unnamed and one.scene.words_of("colour") == [(one.colour, (0,)), (one.other, (1,))]
        larger = np.pad(one.scene.masks(96), ((0, 0), (1, 1), (1, 1)))  # the border is of no object
        alone = [arrange([thing]).masks(96).sum() for thing in (first, second)]
        assert [mask.sum() for mask in larger] == alone and not (larger[:, [1, -2]].any() or larger[..., [1, -2]].any())
    places = {(x, y) for one in pairs for x, y in ((thing.x, thing.y) for thing in one.scene.objects)}
    assert len(places) == 24  # free, and not one of a few


def test_there_are_as_many_colour_pairs_as_nouns():
    with pytest.raises(ValueError, match="got 1000"):
        colour_pairs(1000)


def test_naming_the_other_colour_mirrors_every_fraction(explainer):
    pairs = colour_pairs(3)
    mirrored = [
        replace(one, colour=one.other, other=one.colour,
                scene=arrange(one.scene.objects[::-1], background=one.scene.background)) for one in pairs
    ]  # fmt: skip
    table, mirror = (
        adjective_shift(explainer, some).set_index(["second", "image", "prompt"]) for some in (pairs, mirrored)
    )
    table, mirror = table.loc["another colour"]["fraction"], mirror.loc["another colour"]["fraction"]
    for here, there in (("no adjective",) * 2, ("its colour", "the other's colour"), ("a colour of neither",) * 2):
        assert np.allclose(table.xs(here, level="prompt"), 1 - mirror.xs(there, level="prompt"), atol=1e-6)


def test_what_moved_is_counted_from_the_prompt_without_an_adjective(table):
    base = table[table["prompt"] == "no adjective"]
    assert np.allclose(base["moved"], 0)
    wide = table.pivot(index=["image", "second"], columns="prompt", values=["fraction", "moved"])
    assert np.allclose(wide["moved", "its colour"], wide["fraction", "its colour"] - wide["fraction", "no adjective"])
    assert table["fraction"].between(0, 1).all() and table["on_things"].between(0, 1).all()
    one = colour_pairs(1)[0]
    assert table[table["image"] == one.noun]["area"].iloc[0] == pytest.approx(one.scene.masks(96).sum(0).mean())
    assert set(table[table["prompt"] == "the other's colour"]["second"]) == {"another colour"}


def test_a_model_that_sees_colours_is_seen_to_follow_the_adjective(explainer, monkeypatch):
    """Maps that lie on whatever has the prompt's colour, drawn from the truth in place of a model's."""
    pairs = colour_pairs(4)
    colours = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"]
    monkeypatch.setattr(
        Explainer,
        "embed_texts",
        lambda explainer, texts: torch.tensor([[float(c in t.split()) for c in colours] for t in texts]),
    )
    scenes = iter([one.scene for one in pairs] + [one.plain for one in pairs])

    def seeing(explainer, images, directions):
        found = []
        for wanted, scene in zip(directions, (next(scenes) for _ in images), strict=True):
            has = np.array([[thing.colour == colour for colour in colours] for thing in scene.objects], float)
            found.append(np.einsum("tc,oc,ohw->thw", wanted, has, scene.masks(96).astype(float)))
        return torch.from_numpy(np.stack(found))

    monkeypatch.setattr(Explainer, "maps", seeing)
    fraction = adjective_shift(explainer, pairs).groupby(["second", "prompt"])["fraction"]
    assert (
        fraction.min()["another colour", "its colour"]
        > 0.99
        > 0.01
        > fraction.max()["another colour", "the other's colour"]
    )
    assert (fraction.mean().xs("a colour of neither", level="prompt") == 0.5).all()


# ---------------------------------------------------------------------------------------------- the way of an adjective


def test_every_map_on_the_way_is_the_map_of_its_direction(explainer):
    path = prompt_path(explainer, CARS, "a car", "a red car")
    before, after = as_array(explainer.embed_texts(["a car", "a red car"]))
    for weight in (0.0, 0.3, 1.0):
        expected = explainer.maps([CARS.image()], (before + weight * (after - before))[None])[0, 0]
        assert np.allclose(path.at(weight), expected, atol=1e-6)
    assert np.allclose(path.at(1), explainer.explain(CARS.image(), "a red car").image_maps[0], atol=1e-6)


def test_a_way_needs_two_things(explainer):
    with pytest.raises(ValueError, match="two things, and the scene has 1"):
        prompt_path(explainer, arrange(["red car"]), "a car", "a red car")


def test_the_figure_of_a_way_says_where_it_stands(explainer):
    path = prompt_path(explainer, CARS, "a car", "a red car")
    figure = draw_path(path, 0.25)
    assert f"at 0.25: {path.fraction(0.25):.0%}" in figure.alt
    assert "weight of the adjective 0.25" in [axes.get_title(loc="left") for axes in figure.axes]
    (dot,) = [line for line in figure.axes[-1].lines if line.get_marker() == "o"]
    assert dot.get_xydata() == pytest.approx(np.array([[0.25, path.fraction(0.25)]]))
    with pytest.raises(ValueError, match="weight must be from 0 to 1, got 1.5"):
        draw_path(path, 1.5)
