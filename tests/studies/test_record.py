"""Claims: a number, its interval, the answer that follows, and the same in other trainings."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import load_clip
from studies import record as module
from studies.record import claim, read_claims, record, results_name


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))
    return tmp_path


def test_a_claim_is_the_mean_of_values_and_the_answer_of_its_interval():
    found = claim("it is higher", [0.2, 0.3, np.nan, 0.25, 0.22, 0.31], than=0.1)
    assert found["estimate"] == pytest.approx(0.256)
    assert (found["n"], found["answer"]) == (5, "higher")
    assert found["low"] < found["estimate"] < found["high"]


def test_answers_that_are_compared_with_a_guess_have_an_interval_even_when_all_are_right():
    found = claim("all right", [1.0] * 8, than=0.5)
    assert (found["high"], found["answer"]) == (1, "higher")
    assert 0.6 < found["low"] < 0.7


def test_values_of_one_cluster_or_without_an_interval_leave_a_claim_undecided():
    one_image = claim("one image", [0.2, 0.3], clusters=["a", "a"])
    assert (one_image["estimate"], one_image["answer"]) == (0.25, "undecided")
    assert claim("no bounds", estimate=0.4, n=3)["answer"] == "undecided"


def test_whole_clusters_make_an_interval_wider():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=10), 20)
    alone = claim("alone", values)
    together = claim("together", values, clusters=np.repeat(np.arange(10), 20))
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_a_record_is_written_and_read_again(clip, folder):
    record("04", clip, [claim("a | b", [0.1, 0.2, 0.3]), claim("c", [1.0, 0, 1], than=0.5)])
    table = read_claims(folder / "emoji" / "04.csv")
    assert list(table["lesson"]) == ["04", "04"]
    assert list(table["claim"]) == ["a | b", "c"]
    assert table["estimate"].tolist() == pytest.approx([0.2, 0.6667])


def test_a_claim_that_most_other_trainings_contradict_differs_between_trainings(
    clip, tmp_path, monkeypatch
):
    answers = ["lower", "lower", "higher"]
    others = pd.DataFrame({"seed": [1, 2, 3], "lesson": "04", "claim": "c", "answer": answers})
    others.assign(estimate=0.1).to_csv(tmp_path / "seeds.csv", index=False)
    monkeypatch.setattr(module, "data_path", lambda name: tmp_path / name)
    shown = record("04", clip, [claim("c", [0.1, 0.2, 0.3]), claim("d", [0.1, 0.2, 0.3])])
    assert shown["answer"].tolist() == ["differs between trainings", "higher"]


@pytest.mark.parametrize(
    ("model", "pretrained", "name"),
    [
        ("emoji", "bundled", "emoji"),
        ("ViT-B-32", "openai", "ViT-B-32-openai"),
        ("ViT-B-32", "/somewhere/mine.safetensors", "ViT-B-32-mine"),
        ("/somewhere/My CLIP", "", "My_CLIP"),
    ],
)
def test_results_are_named_after_model_and_weights(model, pretrained, name):
    assert results_name(model, pretrained) == name
