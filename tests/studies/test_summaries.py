"""Summaries: the main figures of every study in one form, with their intervals."""

import pandas as pd
import pytest

from gradeclip_utils import Explainer
from studies import STUDIES
from studies.command import COLUMNS
from studies.matching.composition import noun_pairs, span_fractions
from studies.summaries import (
    matching_summary,
)
from tests.conftest import build, wrap


def check(table, study, count):
    """One row a figure, in order, with its interval."""
    assert list(table) == COLUMNS and set(table["study"]) == {study}
    assert table["figure"].is_unique and len(table) == count and (table["n"] >= 2).all()
    assert ((table["low"] <= table["value"] + 1e-9) & (table["value"] <= table["high"] + 1e-9)).all()


@pytest.fixture(scope="module")
def explainer():
    return Explainer(wrap(build(text={"context_length": 77})))


@pytest.fixture(scope="module")
def matching(explainer):
    return matching_summary(explainer.clip, 3)


def test_matching_is_summed_up_from_its_measurements(explainer, matching):
    check(matching, "matching", 12)
    spans = span_fractions(explainer, noun_pairs(9))
    own = spans[(spans["case"] == "and") & (spans["mean_prompt"] == "removed") & (spans["parts"] == "own")]
    value = matching.set_index("figure")["value"]
    assert value["A and B in the span of its parts"] == pytest.approx(own["fraction"].mean())


def test_nothing_is_left_behind_on_the_model(explainer, matching):
    model = explainer.clip.model
    assert not model.training and all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def together(study, clip, **given):
    """The figures of all parts of a study, in the order of their names."""
    tables = [STUDIES[study](clip, part=part, **given) for part in STUDIES[study].parts]
    return pd.concat(tables).set_index("figure").sort_index()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no interval for")  # a single pair of a kind
def test_parts_of_a_study_have_its_figures_between_them(explainer, matching):
    whole = matching.set_index("figure").sort_index()
    pd.testing.assert_frame_equal(together("matching", explainer.clip, n=3), whole, atol=1e-5)


def test_a_study_is_called_by_its_name_and_another_one_can_be_added(tiny, monkeypatch):
    asked = pd.DataFrame([{"study": "matching", "figure": "moved", "value": 0.1}])
    monkeypatch.setattr("studies.summaries.matching_summary", lambda clip, n: asked.assign(n=n))
    assert STUDIES["matching"](tiny, n=7)["n"].tolist() == [7]
