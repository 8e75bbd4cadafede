"""The gallery of methods: which maps it shows, and that it turns."""

from functools import partial

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils import gallery as gallery_module
from gradeclip_utils.gallery import method_gallery
from gradeclip_utils.panels import panel

NAMES = ("grad-eclip", "maskclip", "attention")


@pytest.fixture
def explainers(tiny):
    return [Explainer(tiny, method=name) for name in NAMES]


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the plot."""
    seen = []
    plot = gallery_module.plot_maps

    def recorded(picture, maps, **options):
        seen.append((dict(maps), options))
        return plot(picture, maps, **options)

    monkeypatch.setattr(gallery_module, "plot_maps", recorded)
    return seen


def test_every_map_is_the_methods_own_brought_to_one_scale(explainers, picture, drawn):
    method_gallery(explainers, picture, "a dog")
    ((maps, options),) = drawn
    assert list(maps) == ["Grad-ECLIP", "MaskCLIP", "Raw attention"] and not options["signed"]
    for heat, explainer in zip(maps.values(), explainers, strict=True):
        own = explainer.explain(picture, "a dog").heatmap(0)
        assert heat.max() == pytest.approx(1) or not own.any()
        np.testing.assert_allclose(heat * own.max(), own, atol=1e-6 * own.max())


def test_against_another_prompt_maps_are_signed_and_turn_round_with_the_order(explainers, picture, drawn):
    method_gallery(explainers[:1], picture, "a dog", "a cat")
    method_gallery(explainers[:1], picture, "a cat", "a dog")
    (one, options), (other, _) = drawn
    assert options["signed"]
    np.testing.assert_allclose(one["Grad-ECLIP"], -other["Grad-ECLIP"], atol=1e-4)


def test_the_description_names_the_question_and_the_methods(explainers, picture):
    figure = method_gallery(explainers, picture, "a dog", "a cat")
    assert figure.alt == "The map of “a dog” rather than “a cat” by 3 methods: Grad-ECLIP, MaskCLIP, Raw attention"


def test_it_turns_in_a_panel_and_answers_an_empty_prompt(explainers, picture):
    shown = panel(partial(method_gallery, explainers, picture), prompt="a dog", against="")
    shown.change(prompt="a cat")
    assert "“a cat” by 3 methods" in shown.figure.alt
    shown.change(prompt=" ")
    assert "needs at least one word" in shown.message and "“a cat”" in shown.figure.alt


def test_without_a_method_there_is_no_gallery(picture):
    with pytest.raises(ValueError, match="one explainer or more, got none"):
        method_gallery([], picture, "a dog")
