"""The gallery of methods: which maps it shows, and that it turns."""

from functools import partial

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.panels.jobs import Interrupted
from gradeclip_utils.panels.lesson import panel
from gradeclip_utils.panels.session import Session
from studies import methods_compared
from studies.methods_compared import method_gallery

from ..legible import headline

NAMES = ("grad-eclip", "maskclip", "attention")


@pytest.fixture
def session(tiny):
    return Session(tiny)


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the plot."""
    seen = []
    plot = methods_compared.plot_maps

    def recorded(picture, maps, **options):
        seen.append((dict(maps), options))
        return plot(picture, maps, **options)

    monkeypatch.setattr(methods_compared, "plot_maps", recorded)
    return seen


def test_every_map_is_the_methods_own_brought_to_one_scale(tiny, session, picture, drawn):
    method_gallery(session, NAMES, picture, "a dog")
    ((maps, options),) = drawn
    assert list(maps) == ["Grad-ECLIP", "MaskCLIP", "Raw attention"] and not options["signed"]
    for heat, name in zip(maps.values(), NAMES, strict=True):
        own = Explainer(tiny, method=name).explain(picture, "a dog").heatmap(0)
        assert heat.max() == pytest.approx(1) or not own.any()
        np.testing.assert_allclose(heat * own.max(), own, atol=1e-6 * own.max())


def test_against_another_prompt_maps_are_signed_and_turn_round_with_the_order(session, picture, drawn):
    method_gallery(session, NAMES[:1], picture, "a dog", "a cat")
    method_gallery(session, NAMES[:1], picture, "a cat", "a dog")
    (one, options), (other, _) = drawn
    assert options["signed"]
    np.testing.assert_allclose(one["Grad-ECLIP"], -other["Grad-ECLIP"], atol=1e-4)


def test_the_description_names_the_question_and_the_methods(session, picture):
    figure = method_gallery(session, NAMES, picture, "a dog", "a cat")
    assert figure.alt.startswith(headline(figure)) and "patches" in headline(figure)
    asked, known = "“a dog” rather than “a cat”", "Grad-ECLIP, MaskCLIP, Raw attention"
    assert figure.alt.endswith(f"The map of {asked} by 3 methods: {known}")


def test_another_prompt_does_not_look_at_the_picture_again(tiny, session, picture):
    looks = []
    hook = tiny.model.visual.conv1.register_forward_hook(lambda *_: looks.append(1))
    try:
        method_gallery(session, NAMES, picture, "a dog")
        first = len(looks)  # one for methods that go through as many layers
        method_gallery(session, NAMES, picture, "a cat", "a dog")
        assert 0 < first < len(NAMES) and len(looks) == first
    finally:
        hook.remove()


def test_it_reports_how_far_it_is_and_ends_when_nobody_waits(session, picture):
    told = []
    method_gallery(session, NAMES, picture, "a dog", report=told.append)
    assert told == sorted(told) and set(told) == {0, 1 / 3, 2 / 3}

    def stop(share):
        if share:
            raise Interrupted

    with pytest.raises(Interrupted):
        method_gallery(session, NAMES, picture, "a cat", report=stop)
    assert "“a cat”" in method_gallery(session, NAMES, picture, "a cat").alt


def test_it_turns_in_a_panel_and_answers_an_empty_prompt(session, picture):
    shown = panel(partial(method_gallery, session, NAMES, picture), prompt="a dog", against="")
    shown.change(prompt="a cat")
    assert "“a cat” by 3 methods" in shown.figure.alt
    shown.change(prompt=" ")
    assert "is empty" in shown.message and "“a cat”" in shown.figure.alt


def test_without_a_method_there_is_no_gallery(session, picture):
    with pytest.raises(ValueError, match="one method or more, got none"):
        method_gallery(session, [], picture, "a dog")
