"""A tower that remembers what it traced: whose traces it keeps, and of which passes it tells."""

import pytest
import torch

from gradeclip_utils.panels.remembering import REMEMBERED, RememberingTower
from gradeclip_utils.towers import open_image_tower, open_text_tower


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_last_batch_is_traced_once_and_again_where_a_gradient_needs_its_graph(tiny, pixels):
    tower = RememberingTower(open_image_tower(tiny.model))
    first = tower.trace(pixels)
    assert tower.trace(pixels.clone()) is first and first.graph is None and tower.seconds > 0
    with_graph = tower.trace(pixels, graph=True)
    assert with_graph.graph is not None and tower.trace(pixels) is with_graph
    tower.trace(pixels + 1)
    assert tower.trace(pixels) is not with_graph  # the last one only
    torch.testing.assert_close(tower.trace(pixels).embedding, first.embedding)


def test_towers_of_one_memory_share_what_goes_through_the_same_layers_of_the_same_encoder(tiny, pixels):
    memory, ids = [], tiny.tokenizer(["a dog"])
    one, same, deeper = (RememberingTower(open_image_tower(tiny.model, layers), memory) for layers in (1, 1, 2))
    text = RememberingTower(open_text_tower(tiny.model), memory)
    found = one.trace(pixels[:1])
    assert same.trace(pixels[:1]) is found and found.graph is not None and same.seconds == 0
    assert len(deeper.trace(pixels[:1]).layers) == 2 and text.trace(ids) is text.trace(ids)
    assert one.trace(pixels) is not one.trace(pixels) and len(memory) == 3  # variations, for which nobody asks again


def test_what_was_not_asked_for_the_longest_is_forgotten_first(tiny, pixels):
    memory = []
    tower = RememberingTower(open_image_tower(tiny.model), memory)
    kept = tower.trace(pixels[:1])
    for shift in range(1, REMEMBERED + 5):
        tower.trace(pixels[:1] + shift)
        assert tower.trace(pixels[:1]) is kept
    assert len(memory) == REMEMBERED and not any((trace.inputs == pixels[:1] + 1).all() for _, trace in memory)


def test_every_pass_of_the_model_is_told_before_it_runs_and_can_be_refused(tiny, pixels):
    passes = []

    def count():
        passes.append(1)
        if len(passes) == 4:
            raise InterruptedError

    tower = RememberingTower(open_image_tower(tiny.model), on_pass=count)
    trace = tower.trace(pixels[:1])
    tower.trace(pixels[:1])
    assert len(passes) == 1  # remembered
    tower.forward(pixels[:1])
    tower.readout(trace, torch.zeros(1, 1, 1, 64))
    assert len(passes) == 3 and tower.depth == 3
    with pytest.raises(InterruptedError):
        tower.trace(pixels[1:2])
    assert tower.trace(pixels[:1]) is trace  # what was refused has changed nothing
