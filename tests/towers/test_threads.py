"""Threads: a small model takes one, unless somebody said how many; several that ask one model are not in their way."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.scenes import arrange
from gradeclip_utils.towers import threads
from gradeclip_utils.towers.modes import eval_mode


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


def test_two_threads_that_explain_with_a_model_in_training_mode_get_what_one_gets_and_leave_it_as_it_was():
    clip, drawn = load_clip("emoji-resnet"), arrange(["dog"]).image()  # its batch norms would learn from every image
    expected = Explainer(clip).explain(drawn, "a dog")
    clip = replace(clip, model=clip.model.train())
    before = copy.deepcopy(clip.model.state_dict())

    def ask(_):
        return [Explainer(clip).explain(drawn, "a dog") for _ in range(8)]

    with ThreadPoolExecutor(2) as pool:
        found = [one for mine in pool.map(ask, range(2)) for one in mine]
    assert all((one.image_maps == expected.image_maps).all() for one in found)
    assert all(module.training for module in clip.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())


def test_a_model_is_in_evaluation_mode_until_the_last_thread_is_done():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Dropout().eval())
    first, second = eval_mode(model), eval_mode(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(module.training for module in model.modules())
    second.__exit__(None, None, None)
    assert [module.training for module in model.modules()] == [True, True, False]
