"""The rivals of `studies`, against their definitions by masked images and changed attention."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from gradeclip_utils.methods import Options
from gradeclip_utils.towers import open_image_tower, open_text_tower
from studies.rivals.attention import cci, integrated_attention
from studies.rivals.fixlip import banzhaf_weights, fixlip
from tests import plain
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions

CAPTION = "a red car"


@pytest.fixture(scope="module")
def small():
    """A model with four patches in float64: all coalitions and full Jacobians are cheap."""
    return wrap(build({"patch_size": 16}).double())


def test_drawn_coalitions_find_an_additive_game_exactly():
    generator = torch.Generator().manual_seed(1)
    parts = torch.randn(12, generator=generator).double()
    coalitions, weights = banzhaf_weights(12, samples=200, seed=2)
    game = coalitions.double() @ parts + 3
    np.testing.assert_allclose(weights @ game, parts, atol=1e-9)


def test_fixlip_is_what_a_patch_brings_in_the_mean_over_all_coalitions_of_the_others(small):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(1, 3, 32, 32, generator=generator).double()
    tower = open_image_tower(small.model)
    target = directions(1, 1).double()
    coalitions = torch.tensor(list(product([0.0, 1.0], repeat=4)))
    grids = coalitions.double().reshape(-1, 1, 2, 2)
    visible = F.interpolate(grids, (32, 32))
    with torch.no_grad():
        maps = fixlip(tower, tower.trace(pixels), target)
        images = plain.embed(small.model, "image", pixels * visible)
    similarities = images @ target[0, 0]

    differences = []
    for is_visible in coalitions.bool().T:
        with_patch = similarities[is_visible].mean()
        without_patch = similarities[~is_visible].mean()
        differences.append(with_patch - without_patch)
    close(maps[0, 0, 1:], torch.stack(differences), 1e-6)


def test_cci_is_the_fall_without_a_cluster_over_the_sum_of_all_falls(tiny, pixels):
    image = pixels[:1]
    tower = open_image_tower(tiny.model, 3)
    target = directions(1, 2)
    trace = tower.trace(image)
    maps = cci(tower, trace, target, Options(seed=3), clusters=4)[0]

    recording = plain.Recording(tiny.model, "image", image)
    patches = recording.leaving[-1][0, 1:]
    clusters = KMeans(4, random_state=3)
    labels = clusters.fit_predict(patches.detach().numpy())

    def embed_without(cluster):
        hidden_tokens = torch.tensor(1 + np.flatnonzero(labels == cluster))

        def hide(_, alpha):
            alpha = alpha.index_fill(-1, hidden_tokens, 0)
            return alpha / alpha.sum(dim=-1, keepdim=True)

        return plain.Recording(tiny.model, "image", image, hide).embedding[0]

    without = torch.stack([embed_without(cluster) for cluster in range(4)])
    changes = recording.embedding - without  # (K, E)
    falls = target[0] @ changes.detach().T  # (T, K)
    parts = falls / falls.abs().sum(dim=1, keepdim=True)
    on_patches = maps[:, 1:]
    close(on_patches, parts[:, labels])
    assert maps[:, 0].eq(0).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_integrated_attention_adds_up_to_what_words_bring(small, layers):
    tower = open_text_tower(small.model, layers)
    trace = tower.trace(small.tokenizer([CAPTION]))
    target = directions(1, 1).double()
    changes = []
    for layer in trace.layers:
        alpha = layer.attention[..., 1:-1]  # of the words
        values = layer.v[:, 1:-1]
        o = torch.einsum("bhrn,bnhc->brhc", alpha, values)
        changes.append(-o.flatten(2))  # (B, R, D)

    with torch.no_grad():
        scores = integrated_attention(tower, trace, target, steps=24)
        without_words = tower.embed_from_attention(trace, torch.stack(changes))
    (change,) = trace.embedding - without_words
    expected = change @ target[0, 0]
    close(scores.sum(), expected, 1e-5)
