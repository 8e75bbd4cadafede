"""Threads: a small model takes one, unless somebody said how many."""

from dataclasses import replace

import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.towers import threads


@pytest.mark.parametrize(
    ("small", "told", "environment", "taken"),
    [(True, 2, None, 1), (True, 3, None, 3), (True, 2, "2", 2), (False, 2, None, 2)],
    ids=["a small model", "told by torch", "told by the environment", "a large model"],
)
def test_a_small_model_takes_one_thread_unless_told_otherwise(
    tiny, picture, monkeypatch, small, told, environment, taken
):
    before, seen = torch.get_num_threads(), []

    def noted(image):
        seen.append(torch.get_num_threads())
        return tiny.preprocess(image)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(threads, "CHOSEN", 2)
    monkeypatch.setattr(threads, "SMALL", 10**9 if small else 0)
    explainer = Explainer(replace(tiny, preprocess=noted))
    try:
        torch.set_num_threads(told)
        explainer.explain(picture, "a dog")
        explainer.embed_images([picture])
        assert seen == [taken, taken] and torch.get_num_threads() == told
    finally:
        torch.set_num_threads(before)
