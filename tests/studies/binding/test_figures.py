"""Figures of binding: whose pairs they are of."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer, load_clip
from studies.binding import figures
from studies.binding.figures import known_pairs, map_pairs
from studies.pairs import KINDS, draw_pairs
from studies.relevance import recognised_alone


@pytest.fixture(scope="module")
def explainer(bundled):
    return Explainer(bundled)


def test_both_models_recognise_the_things_of_every_pair_and_those_before_the_last_that_were_left_out_they_do_not(
    explainer,
):
    both = explainer, Explainer(load_clip("emoji-bag"))
    pairs, known = known_pairs("swapped colours", 3, *both)
    drawn = draw_pairs("swapped colours", 15)[: len(known)]
    recognised = [all(recognised_alone(one, pair.scenes).all() for one in both) for pair in drawn]
    assert known.tolist() == recognised and pairs == [p for p, ok in zip(drawn, known, strict=True) if ok]
    assert len(pairs) == 3 and pairs[-1] == drawn[-1] and not known.all()


def test_where_colours_are_asked_maps_are_of_recognised_things_and_else_of_all(explainer):
    pairs, known = map_pairs(2, explainer)
    assert [pair.kind for pair in pairs] == list(np.repeat(list(KINDS), 2))
    for kind, said in KINDS.items():
        mine = [pair for pair in pairs if pair.kind == kind]
        expected = known_pairs(kind, 2, explainer)[0] if said == "colour" else draw_pairs(kind, 2)
        assert mine == expected and (kind in known) == (said == "colour")
        if kind in known:
            assert all(recognised_alone(explainer, pair.scenes).all() for pair in mine) and known[kind].sum() == 2


def test_a_model_that_recognises_nothing_is_asked_the_first_pairs_and_the_table_says_so(bundled_shape):
    table = pd.concat(figures.PARTS["maps"](bundled_shape, 3)).set_index("figure")
    assert map_pairs(2, Explainer(bundled_shape))[0][2:4] == draw_pairs("colour", 2)
    recognised = table.loc["the things of a pair are recognised alone, swapped colours"]
    assert recognised["value"] < 0.2 and recognised["n"] == 10
    assert table.loc["A colour word points at its own object, in the right caption", "n"] == 2


class Enough(Exception):
    """What a test was after is known."""


@pytest.mark.parametrize(("model", "other"), [("emoji", "emoji-bag"), ("emoji-bag", "emoji")])
def test_models_are_told_apart_on_pairs_that_both_recognise(monkeypatch, model, other):
    def asked(kind, n, *explainers):
        raise Enough(kind, *(one.clip.name for one in explainers))

    monkeypatch.setattr(figures, "known_pairs", asked)
    with pytest.raises(Enough) as found:
        figures.PARTS["told apart"](load_clip(model), 2)
    assert found.value.args == ("swapped colours", model, other)
