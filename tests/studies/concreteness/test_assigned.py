"""Assigned: the two captions of a drawing differ in their tag alone, and each tag has the saliency of its caption."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.language import norms
from gradeclip_utils.scenes import arrange, concepts
from gradeclip_utils.studies.concreteness.assigned import tag_effects, tag_pairs
from gradeclip_utils.studies.concreteness.saliency import EVEN, METHODS


@pytest.fixture(scope="module")
def pairs():
    return tag_pairs()


def test_pairs_are_the_most_and_the_least_concrete_association_of_a_concept(pairs):
    assert len(pairs) >= 10 and (pairs["gap"] >= 1.5).all()
    for noun, pair in pairs.iloc[:5].iterrows():
        rated = norms(concepts().loc[noun, "keywords"])["concreteness"].dropna()
        assert (rated[pair["concrete"]], rated[pair["abstract"]]) == (rated.max(), rated.min())
        assert np.isclose(pair["gap"], rated.max() - rated.min())
        for kind in ("concrete", "abstract"):
            assert pair[f"{kind}_concepts"] == sum(pair[kind] in tags for tags in concepts()["keywords"])


def test_the_two_captions_of_a_drawing_differ_in_their_tag_alone(pairs):
    noun = pairs.index[0]
    one, other = (arrange([noun], seed=3, tag=[pairs.loc[noun, kind]]) for kind in ("concrete", "abstract"))
    assert one.objects == other.objects and one.background == other.background
    assert one.caption.split()[:-1] == other.caption.split()[:-1] and one.caption != other.caption


def test_each_tag_has_the_saliency_of_its_own_caption(bundled, pairs):
    found = tag_effects(bundled, pairs.iloc[:4], seeds=[0, 1])
    assert len(found) == 8 * len(METHODS) and set(found["method"]) == {*METHODS}
    row = found[found["method"] == "leave-one-out"].iloc[5]
    scene = arrange([row["noun"]], seed=row["seed"], tag=[pairs.loc[row["noun"], "abstract"]])
    words = Explainer(bundled, method="leave-one-out").explain(scene.image(96), scene.caption).words[0]
    positive = np.maximum([word.score for word in words], 0)
    expected = np.log(EVEN + (1 - EVEN) * positive[-1] / positive.sum() * len(positive))
    assert row["abstract"] == pytest.approx(expected, abs=1e-3)
