"""Assigned: words of two kinds are matched, dealt out to the same drawings, taught equally often, and measured."""

from collections import Counter, defaultdict
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.finetune.loop import Loop
from gradeclip_utils.language import norms
from gradeclip_utils.measures.table import weights_digest
from gradeclip_utils.scenes import arrange, concepts
from studies.concreteness import assigned
from studies.concreteness.assigned import (
    ABSTRACT,
    CONCRETE,
    KINDS,
    TEACHING,
    assignments,
    tag_experiment,
    tag_pairs,
)
from studies.concreteness.figures import assigned_figures, crossed
from studies.concreteness.informativeness import training_exposure
from studies.concreteness.saliency import EVEN, METHODS


class Recording(Loop):
    """A loop that keeps what it was given."""

    batches: ClassVar[list] = []

    def run(self, data, losses, workers=0):
        Recording.batches.extend(data)
        return super().run(data, losses, workers)


@pytest.fixture(scope="module")
def square():
    return assignments(tag_pairs())


@pytest.fixture(scope="module")
def found(bundled, square):
    recipe, digest = replace(TEACHING, steps=32), weights_digest(bundled.model)
    with patch.object(assigned, "Loop", Recording):
        table = tag_experiment(bundled, square[square["assignment"] == 3], recipe)
    assert weights_digest(bundled.model) == digest
    return table


def test_the_words_of_a_pair_differ_in_kind_and_are_alike_in_what_was_said_of_them(bundled):
    pairs, tags = tag_pairs(), concepts()["keywords"].explode().value_counts()
    assert len(pairs) >= 12 and not set(pairs["concrete"]) & set(pairs["abstract"])
    exposure = np.log(training_exposure()["captions"])
    for kind, column in pairs.items():
        assert column.is_unique and (tags[column] == 1).all()
        assert {len(bundled.tokenizer.encode(word)) for word in column} == {1}
        rated = norms(column)["concreteness"]
        assert (rated > CONCRETE).all() if kind == "concrete" else (rated < ABSTRACT).all()
    own, other = (exposure[pairs[kind]].to_numpy() for kind in KINDS)
    shuffled = np.random.default_rng(0).permutation(other)
    assert abs(own - other).mean() < abs(own - shuffled).mean() / 2 and abs(own.mean() - other.mean()) < 0.1


def test_every_pair_meets_every_drawing_once_and_an_assignment_has_each_once(square):
    count = square["pair"].nunique()
    assert len(square) == count**2 and not square.duplicated(["pair", "noun"]).any()
    for _, who in square.groupby("assignment"):
        assert who["pair"].is_unique and who["noun"].is_unique and len(who) == count
    assert not any(concepts().loc[square["noun"].unique(), "keywords"])


def test_words_of_both_kinds_are_taught_equally_often_in_the_same_captions_of_the_same_scenes(square, found):
    who, shown = square[square["assignment"] == 3], defaultdict(Counter)
    for images, texts in Recording.batches:
        assert len(images) == len(texts) == len(who)
        for text, image in zip(texts, images, strict=True):
            shown[text][image.numpy().tobytes()] += 1
    assert len(Recording.batches) == 32 and len(shown) == 4 * len(who)
    for row in who.itertuples():
        for first in (arrange([row.noun]).caption, "something"):
            same = [shown[f"{first} tagged {getattr(row, kind)}"] for kind in KINDS]
            assert same[0] == same[1] and same[0].total() == 8


def test_tags_are_learnt(found):
    right = found[found["measure"] == "right"].groupby("taught")[[*KINDS]].mean()
    assert (right.loc[True] > right.loc[False] + 0.15).all() and (abs(right.loc[False] - 0.5) < 0.2).all()


def test_each_tag_has_the_saliency_of_its_own_caption(bundled, square, found):
    row = found.query("measure == 'leave-one-out' and not taught").iloc[5]
    who = square.query("assignment == 3").iloc[5]
    values = []
    for seed in range(4):
        scene = arrange([who["noun"]], seed=seed, tag=[who["abstract"]])
        words = Explainer(bundled, method="leave-one-out").explain(scene.image(96), scene.caption).words[0]
        positive = np.maximum([word.score for word in words], 0)
        values.append(np.log(EVEN + (1 - EVEN) * positive[-1] / positive.sum() * len(positive)))
    assert row["noun"] == who["noun"] and row["abstract"] == pytest.approx(np.mean(values), abs=1e-3)


def test_an_interval_covers_what_pairs_and_assignments_both_add():
    rng, size = np.random.default_rng(1), 17
    hit = []
    for _ in range(60):
        table = rng.normal(size=(size, 1)) + rng.normal(size=(1, size)) + rng.normal(size=(size, size)) + 0.4
        (one,) = crossed("", pd.DataFrame(table)).itertuples()
        hit.append(one.low <= 0.4 <= one.high)
        assert one.value == pytest.approx(table.mean()) and one.n == size
    assert np.mean(hit) > 0.85
    constant = pd.DataFrame(np.tile(rng.normal(size=(size, 1)), size))
    (one,) = crossed("", constant, permuted=True).itertuples()
    spread = np.sqrt((constant[0] ** 2).sum()) / size
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_figures_have_every_method_before_and_after(bundled, square):
    found = pd.concat(assigned_figures(bundled, square[square["assignment"] < 2], recipe=replace(TEACHING, steps=2)))
    assert found["figure"].is_unique and (found["low"] <= found["value"]).all() and (found["n"] == 17).all()
    assert found["figure"].str.contains("before they are taught").sum() == (len(found) - len(METHODS)) / 2
