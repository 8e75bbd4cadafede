"""Perturbation and gradients of the input, confirmed by plain passes of a copied model."""

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


def patch_sums(values):
    """Sums over the patches of 8 x 8 pixels, (32, 32) -> (16,)."""
    return values.reshape(4, 8, 4, 8).sum(dim=(1, 3)).flatten()


# ---------------------------------------------------------------------- gradients of the input


def test_input_x_gradient_of_pixels_is_what_backward_gives(tiny, pixels):
    tower = open_image_tower(tiny.model)
    target = directions(1, 2)
    image = pixels[:1]
    maps = gradients.input_x_gradient(tower, tower.trace(image), target)[0]

    image = image.clone().requires_grad_()
    for t in range(2):
        (embedding,) = plain.embed(tiny.model, "image", image)
        score = embedding @ target[0, t]
        (slope,) = torch.autograd.grad(score, image)
        products = (slope * image)[0].detach()
        close(maps[t, 1:], patch_sums(products.sum(dim=0)))
    assert maps[:, 0].eq(0).all()


def test_input_x_gradient_of_a_trace_with_a_pixel_graph_costs_no_further_pass(tiny, pixels):
    tower = open_image_tower(tiny.model)
    target = directions(len(pixels), 2)
    expected = gradients.input_x_gradient(tower, tower.trace(pixels), target)

    trace = tower.trace(pixels, pixel_graph=True)
    close(trace.embedding, tower.trace(pixels).embedding)
    for part in (trace.tokens, trace.embedding, *vars(trace.layers[0]).values()):
        assert not part.requires_grad
    tower._encode = None  # the model's own pass is not there
    close(gradients.input_x_gradient(tower, trace, target), expected)
    close(gradients.input_x_gradient(tower, trace, target), expected)  # the graph is kept


def test_input_x_gradient_of_tokens_is_what_backward_gives(tiny):
    ids = tiny.tokenizer([PROMPT])
    target = directions(1, 1)
    recording = plain.Recording(tiny.model, "text", ids)
    tokens = recording.entering[0]
    score = recording.embedding[0] @ target[0, 0]
    (slope,) = torch.autograd.grad(score, tokens)
    products = (slope * tokens)[0].detach()
    expected = products.sum(dim=-1)

    tower = open_text_tower(tiny.model, 3)
    maps = gradients.input_x_gradient(tower, tower.trace(ids), target)
    row = maps[0, 0]
    close(row, expected[: len(row)])


def test_integrated_gradients_are_captums(tiny, pixels):
    attr = pytest.importorskip("captum.attr")
    steps = 20  # more points of two images than one batch holds
    tower = open_image_tower(tiny.model)
    target = directions(2, 3)
    maps = gradients.integrated_gradients(
        tower,
        tower.trace(pixels),
        target,
        steps=steps,
    )

    def score(images, direction):
        return (tower.embed_pixels(images) * direction).sum(dim=-1)

    reference = attr.IntegratedGradients(score)
    for t, direction in enumerate(target.unbind(dim=1)):
        attributions = reference.attribute(
            pixels,
            additional_forward_args=(direction,),
            n_steps=steps,
        )
        of_pixels = attributions.sum(dim=1).float().detach()
        expected = torch.stack([patch_sums(values) for values in of_pixels])
        close(maps[:, t, 1:], expected)


def test_integrated_gradients_of_tokens_add_up_to_what_the_words_bring(tiny):
    ids = tiny.tokenizer([PROMPT, "a dog"])
    target = directions(2, 2)
    tower = open_text_tower(tiny.model, 3)
    maps = gradients.integrated_gradients(tower, tower.trace(ids), target, steps=64)
    ends = ids.argmax(dim=-1)

    def without_words(_, inputs):
        tokens = inputs[0].clone()
        for row, end in zip(tokens, ends, strict=True):
            row[1:end] = 0
        return (tokens, *inputs[1:])

    model = copy.deepcopy(tiny.model)
    model.transformer.resblocks[0].register_forward_pre_hook(without_words)
    with torch.no_grad():
        with_words = plain.embed(tiny.model, "text", ids)
        without = plain.embed(model, "text", ids)
    expected = torch.einsum("be,bte->bt", with_words - without, target)
    close(maps.sum(dim=-1), expected, 1e-2)
    for row, end in zip(maps, ends, strict=True):
        assert row[:, 1:end].ne(0).all()
        assert row[:, 0].eq(0).all()
        assert row[:, end:].eq(0).all()


@pytest.mark.parametrize("method", ["input-x-gradient", "integrated-gradients"])
def test_gradients_of_pixels_at_another_size_are_refused(method, tiny, picture):
    message = r"reads \(32, 32\) pixels only, got \(48, 80\); use resolution='model'"
    with pytest.raises(ValueError, match=message):
        Explainer(tiny, method=method, resolution="native").explain(picture, "a dog")


# ------------------------------------------------------------------------------ RISE and M2IB


def test_rise_is_the_covariance_of_light_and_score(tiny, pixels):
    masks = 30
    tower = open_image_tower(tiny.model)
    target = directions(1, 2)
    trace = tower.trace(pixels[:1])
    maps = perturbation.rise(tower, trace, target, Options(seed=3), masks=masks)[0]

    light = perturbation.mask_maker(masks, (32, 32), seed=3)(torch.arange(masks))
    with torch.no_grad():
        images = pixels[:1] * light[:, None]
        embeddings = plain.embed(tiny.model, "image", images)
    scores = embeddings @ target[0].T  # (masks, T)
    changes = scores - scores.mean(dim=0)
    for t in range(2):
        expected = torch.zeros(16)
        for change, mask in zip(changes[:, t], light, strict=True):
            mean_light = patch_sums(mask) / 64
            expected += change * mean_light
        close(maps[t, 1:], expected / (masks * 0.5), 1e-3)


def bottleneck_by_hand(tokens, noise, score, beta, steps):
    """Adam, KL divergence and all, one number at a time; ``score`` gives (samples,)."""
    openness = torch.full_like(tokens, 5.0)
    first = torch.zeros_like(openness)
    second = torch.zeros_like(openness)
    normal = torch.distributions.Normal

    def nats(a):
        lam = torch.sigmoid(a)
        mixed = normal(lam * tokens, 1 - lam)
        return torch.distributions.kl_divergence(mixed, normal(0.0, 1.0))

    for step in range(steps):
        a = openness.clone().requires_grad_()
        lam = torch.sigmoid(a)
        drawn = noise[:, step].transpose(0, 1)
        mixed = lam * tokens + (1 - lam) * drawn
        information = nats(a).mean()
        loss = beta * information - score(mixed).mean()
        (slope,) = torch.autograd.grad(loss, a)

        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        mean = first / (1 - 0.9 ** (step + 1))
        variance = second / (1 - 0.999 ** (step + 1))
        openness = openness - mean / (variance.sqrt() + 1e-8)
    return nats(openness).sum(dim=-1)


@pytest.mark.parametrize("side", ["image", "text"])
def test_m2ib_is_the_information_that_is_left_after_squeezing(side, precise, pixels):
    if side == "image":
        inputs = pixels[:1].double()
        tower = open_image_tower(precise.model, 1)
    else:
        inputs = precise.tokenizer([PROMPT])
        tower = open_text_tower(precise.model, 1)
    target = directions(1, 1).double()
    trace = tower.trace(inputs)
    options = Options(seed=1)
    nats = perturbation.m2ib(tower, trace, target, options, samples=2, steps=3)
    nats = nats[0, 0]

    model = copy.deepcopy(precise.model)
    recording = plain.Recording(model, side, inputs)
    entering = recording.entering[-1][0].detach()
    count = len(nats)
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, 2, entering.shape[-1])
    noise = torch.randn(shape, generator=generator).double()
    replaced = []
    last_block = plain.blocks_of(model, side)[-1]
    last_block.register_forward_pre_hook(lambda _, tokens: (replaced[-1],))

    def score(tokens):
        behind_eot = entering[count:].expand(len(tokens), -1, -1)  # no token reads these
        replaced.append(torch.cat([tokens, behind_eot], dim=1))
        repeated = inputs.expand(len(tokens), *inputs.shape[1:])
        return plain.embed(model, side, repeated) @ target[0, 0]

    expected = bottleneck_by_hand(entering[:count], noise, score, beta=0.1, steps=3)
    if side == "image":
        expected[0] = 0  # CLS is squeezed too, but is no patch
    close(nats, expected, 1e-6)


@pytest.mark.parametrize("method", ["rise", "m2ib"])
def test_a_seed_gives_the_same_map_again_and_another_seed_another(method, tiny, picture):
    maps = []
    for seed in (0, 0, 1):
        explainer = Explainer(tiny, method=method, seed=seed)
        maps.append(explainer.explain(picture, "a dog").image_maps)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2], rtol=1e-3)


# ------------------------------------------------------------------------------ leave-one-out


@pytest.mark.parametrize("full", [False, True])
def test_leaving_one_word_out_is_the_prompt_written_without_it(full, tiny, picture):
    if full:  # a prompt without padding, for an encoder whose padding is hidden by its id
        length = len(tiny.tokenizer.encode(PROMPT)) + 2
        text = {"embed_cls": True, "pad_id": 0, "context_length": length}
        tiny = wrap(build(text=text, custom_text=True))
    explainer = Explainer(tiny, method="leave-one-out")
    words = explainer.explain(picture, PROMPT).words[0]
    texts = PROMPT.split()
    assert [word.text for word in words] == texts

    prompts = [PROMPT]
    for i in range(len(texts)):
        shorter = texts.copy()
        del shorter[i]
        prompts.append(" ".join(shorter))
    whole, *without = plain.similarities(tiny, picture, prompts)
    for word, similarity in zip(words, without, strict=True):
        assert word.score == pytest.approx(float(whole - similarity), abs=1e-6)


def test_costs_are_as_many_passes_of_the_model_as_the_registry_says(pixels):
    clip = wrap(build())
    target = directions(1, 2)
    image = open_image_tower(clip.model)
    text = open_text_tower(clip.model)
    image_trace = image.trace(pixels[:1])
    text_trace = text.trace(clip.tokenizer([PROMPT]))
    inputs_read = []
    for side in ("image", "text"):
        first_block, *_ = plain.blocks_of(clip.model, side)
        first_block.register_forward_pre_hook(
            lambda _, inputs: inputs_read.append(len(inputs[0])),
        )

    perturbation.rise(image, image_trace, target, masks=50)
    assert sum(inputs_read) == 50
    inputs_read.clear()
    gradients.integrated_gradients(image, image_trace, target, steps=10)
    assert sum(inputs_read) == 10  # for all targets together
    inputs_read.clear()
    gradients.input_x_gradient(image, image_trace, target)
    assert sum(inputs_read) == 1
    inputs_read.clear()
    perturbation.leave_one_out(text, text_trace, target)
    assert sum(inputs_read) == len(text_trace.valid_mask[0]) - 2
