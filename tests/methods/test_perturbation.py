"""Perturbation: masks, missing words, noise and small changes, each confirmed by plain passes of a copied model."""

import copy

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.methods import Options, gradients, perturbation
from gradeclip_utils.towers import open_image_tower, open_text_tower
from tests import plain
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions

PROMPT = "a red car and a bluish baaaall"


def patches(values):
    """Sums over the patches of 8 x 8 pixels, (32, 32) -> (16,)."""
    return values.reshape(4, 8, 4, 8).sum((1, 3)).flatten()


def test_input_x_gradient_of_pixels_is_what_backward_gives(tiny, pixels):
    tower, target = open_image_tower(tiny.model), directions(1, 2)
    found = gradients.input_x_gradient(tower, tower.trace(pixels[:1]), target)[0]
    x = pixels[:1].clone().requires_grad_()
    for t in range(2):
        (slope,) = torch.autograd.grad(plain.embed(tiny.model, "image", x)[0] @ target[0, t], x)
        close(found[t, 1:], patches((slope * x)[0].sum(0).detach()))
    assert found[:, 0].eq(0).all()


def test_input_x_gradient_of_tokens_is_what_backward_gives(tiny):
    model, ids, target = copy.deepcopy(tiny.model), tiny.tokenizer([PROMPT]), directions(1, 1)
    tower, entering = open_text_tower(tiny.model, 3), []
    model.transformer.resblocks[0].register_forward_pre_hook(
        lambda _, tokens: entering.append(tokens[0])
    )
    (slope,) = torch.autograd.grad(plain.embed(model, "text", ids)[0] @ target[0, 0], entering)
    found = gradients.input_x_gradient(tower, tower.trace(ids), target)[0, 0]
    close(found, (slope * entering[0])[0].sum(-1)[: len(found)].detach())


def test_integrated_gradients_are_captums(tiny, pixels):
    attr, steps = (
        pytest.importorskip("captum.attr"),
        20,
    )  # more points of two images than one batch holds
    tower, directions = (
        Explainer(tiny).image_tower,
        torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(0)),
    )
    found = gradients.integrated_gradients(tower, tower.trace(pixels), directions, steps=steps)
    for target, direction in enumerate(directions.unbind(1)):
        theirs = attr.IntegratedGradients(
            lambda some, one: (tower.embed_pixels(some) * one).sum(-1)
        )
        values = (
            theirs.attribute(pixels, additional_forward_args=(direction,), n_steps=steps)
            .detach()
            .float()
            .sum(1)
        )
        expected = values.unflatten(-1, (4, 8)).unflatten(1, (4, 8)).sum((2, 4)).flatten(1)
        torch.testing.assert_close(found[:, target, 1:], expected, rtol=1e-5, atol=1e-6)


def test_integrated_gradients_of_tokens_sum_to_what_the_words_add_and_fall_on_words_alone(tiny):
    ids, target = tiny.tokenizer([PROMPT, "a dog"]), directions(2, 2)
    tower = open_text_tower(tiny.model, 3)
    trace = tower.trace(ids)
    maps = gradients.integrated_gradients(tower, trace, target, steps=64)
    model, ends = copy.deepcopy(tiny.model), ids.argmax(-1)

    def without_words(_, entering):
        tokens = entering[0].clone()
        for row, end in zip(tokens, ends, strict=True):
            row[1:end] = 0
        return (tokens, *entering[1:])

    model.transformer.resblocks[0].register_forward_pre_hook(without_words)
    with torch.no_grad():
        gain = plain.embed(tiny.model, "text", ids) - plain.embed(model, "text", ids)
    close(maps.sum(-1), torch.einsum("be,bte->bt", gain, target), 1e-2)
    for row, end in zip(maps, ends, strict=True):
        assert row[:, 1:end].ne(0).all() and row[:, 0].eq(0).all() and row[:, end:].eq(0).all()


@pytest.mark.parametrize("method", ["input-x-gradient", "integrated-gradients"])
def test_gradients_of_pixels_at_another_size_are_refused(method, tiny, picture):
    with pytest.raises(
        ValueError, match=r"reads \(32, 32\) pixels only, got \(48, 80\); use resolution='model'"
    ):
        Explainer(tiny, method=method, resolution="native").explain(picture, "a dog")


def test_rise_is_the_covariance_of_light_and_score(tiny, pixels):
    tower, target, count = open_image_tower(tiny.model), directions(1, 2), 30
    found = perturbation.rise(tower, tower.trace(pixels[:1]), target, Options(seed=3), masks=count)[
        0
    ]
    light = perturbation.mask_maker(count, (32, 32), seed=3)(torch.arange(count))
    with torch.no_grad():
        scores = (
            torch.stack([plain.embed(tiny.model, "image", pixels[:1] * mask)[0] for mask in light])
            @ target[0].T
        )
    for t in range(2):
        expected = torch.zeros(16)
        for score, mask in zip(scores[:, t] - scores[:, t].mean(), light, strict=True):
            expected += score * patches(mask) / 64 / (count * 0.5)
        close(found[t, 1:], expected, 1e-3)


def bottleneck_by_hand(tokens, noise, score, counted, beta, steps):
    """Adam, KL divergence and all, one number at a time. ``score`` (samples, N, D) -> (samples,)."""
    openness = torch.full_like(tokens, 5.0)
    first, second = torch.zeros_like(openness), torch.zeros_like(openness)
    normal = torch.distributions.Normal

    def nats(a):
        lam = torch.sigmoid(a)
        return torch.distributions.kl_divergence(normal(lam * tokens, 1 - lam), normal(0.0, 1.0))

    for step in range(steps):
        a = openness.clone().requires_grad_()
        lam = torch.sigmoid(a)
        loss = (
            beta * nats(a)[counted].mean()
            - score(lam * tokens + (1 - lam) * noise[:, step].transpose(0, 1)).mean()
        )
        (slope,) = torch.autograd.grad(loss, a)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        corrected = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        openness = openness - first / (1 - 0.9 ** (step + 1)) / corrected
    return nats(openness).sum(-1)


@pytest.mark.parametrize("side", ["image", "text"])
def test_m2ib_is_the_information_that_is_left_after_squeezing(side, precise, pixels):
    inputs = pixels[:1].double() if side == "image" else precise.tokenizer([PROMPT])
    tower = (open_image_tower if side == "image" else open_text_tower)(precise.model, 1)
    target = directions(1, 1).double()
    found = perturbation.m2ib(
        tower, tower.trace(inputs), target, Options(seed=1), samples=2, steps=3
    )[0, 0]
    model, entering = copy.deepcopy(precise.model), []
    last = plain.blocks_of(model, side)[-1]
    last.register_forward_pre_hook(lambda _, tokens: entering.append(tokens[0]))
    plain.embed(model, side, inputs)
    whole, count = entering[0].detach()[0], len(found)
    noise = torch.randn(
        count, 3, 2, whole.shape[-1], generator=torch.Generator().manual_seed(1)
    ).double()
    replaced = []
    last.register_forward_pre_hook(lambda _, tokens: (replaced[-1],))

    def score(tokens):
        rest = whole[count:].expand(len(tokens), -1, -1)  # behind EOT, where nobody looks
        replaced.append(torch.cat([tokens, rest], dim=1))
        return (
            plain.embed(model, side, inputs.expand(len(tokens), *inputs.shape[1:])) @ target[0, 0]
        )

    expected = bottleneck_by_hand(whole[:count], noise, score, torch.arange(count), 0.1, 3)
    expected[0] = 0 if side == "image" else expected[0]  # CLS is squeezed too, but is no patch
    close(found, expected, 1e-6)


@pytest.mark.parametrize("full", [False, True])
def test_leaving_one_word_out_is_the_prompt_written_without_it(full, tiny, picture):
    if full:  # a prompt without padding, for an encoder whose padding is hidden by its id
        text = {
            "embed_cls": True,
            "pad_id": 0,
            "context_length": len(tiny.tokenizer.encode(PROMPT)) + 2,
        }
        tiny = wrap(build(text=text, custom_text=True))
    words = Explainer(tiny, method="leave-one-out").explain(picture, PROMPT).words[0]
    assert [word.text for word in words] == PROMPT.split()
    with torch.no_grad():
        image = tiny.model.encode_image(tiny.preprocess(picture)[None], normalize=True)[0]
        similarity = [
            float(plain.embed(tiny.model, "text", tiny.tokenizer([prompt]))[0] @ image)
            for prompt in (
                PROMPT,
                *(
                    " ".join(PROMPT.split()[:i] + PROMPT.split()[i + 1 :])
                    for i in range(len(words))
                ),
            )
        ]
    np.testing.assert_allclose(
        [word.score for word in words], similarity[0] - np.array(similarity[1:]), atol=1e-6
    )


@pytest.mark.parametrize("method", ["rise", "m2ib"])
def test_a_seed_gives_the_same_map_again_and_another_seed_another(method, tiny, picture):
    maps = [
        Explainer(tiny, method=method, seed=seed).explain(picture, "a dog").image_maps
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2], rtol=1e-3)


def test_costs_are_as_many_passes_of_the_model_as_is_said(pixels):
    clip = wrap(build())
    model, target = clip.model, directions(1, 2)
    image, text = open_image_tower(model), open_text_tower(model)
    picture, prompt = image.trace(pixels[:1]), text.trace(clip.tokenizer([PROMPT]))
    seen = []  # how many inputs entered the first block since
    for side in ("image", "text"):
        plain.blocks_of(model, side)[0].register_forward_pre_hook(
            lambda _, entering: seen.append(len(entering[0]))
        )
    perturbation.rise(image, picture, target, masks=50)
    assert sum(seen) == 50
    seen.clear()
    gradients.integrated_gradients(image, picture, target, steps=10)
    assert sum(seen) == 10  # whatever the number of targets
    seen.clear()
    gradients.input_x_gradient(image, picture, target)
    assert sum(seen) == 1
    seen.clear()
    perturbation.leave_one_out(text, prompt, target)
    assert sum(seen) == len(prompt.valid_mask[0]) - 2
