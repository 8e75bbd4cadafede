"""Perturbation and gradients of the input, confirmed by plain passes of a copied model."""

import copy

import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.methods import Options, gradients, perturbation
from gradeclip_utils.towers import open_image_tower, open_text_tower
from tests import plain
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions, tower_of

PROMPT = "a red car and a bluish baaaall"


def patch_sums(values):
    """Sums over the patches of 8 x 8 pixels, (32, 32) -> (16,)."""
    blocks = values.reshape(4, 8, 4, 8)
    return blocks.sum(dim=(1, 3)).flatten()


# ---------------------------------------------------------------------- gradients of the input


def test_input_x_gradient_of_pixels_is_what_backward_gives(tiny, pixels):
    tower = open_image_tower(tiny.model)
    target = directions(1, 2)
    image = pixels[:1]
    trace = tower.trace(image)
    maps = gradients.input_x_gradient(tower, trace, target)[0]

    image = image.clone().requires_grad_()
    for t in range(2):
        (embedding,) = plain.embed(tiny.model, "image", image)
        score = embedding @ target[0, t]
        (slope,) = torch.autograd.grad(score, image)
        products = (slope * image).detach()
        of_pixels = products[0].sum(dim=0)  # (32, 32)
        close(maps[t, 1:], patch_sums(of_pixels))
    assert maps[:, 0].eq(0).all()


def test_input_x_gradient_of_tokens_is_what_backward_gives(tiny):
    ids = tiny.tokenizer([PROMPT])
    target = directions(1, 1)
    recording = plain.Recording(tiny.model, "text", ids)
    tokens = recording.entering[0]
    score = recording.embedding[0] @ target[0, 0]
    (slope,) = torch.autograd.grad(score, tokens)
    products = (slope * tokens).detach()
    expected = products[0].sum(dim=-1)

    tower = open_text_tower(tiny.model, 3)
    trace = tower.trace(ids)
    maps = gradients.input_x_gradient(tower, trace, target)
    row = maps[0, 0]
    close(row, expected[: len(row)])


def test_integrated_gradients_are_captums(tiny, pixels):
    attr = pytest.importorskip("captum.attr")
    steps = 20  # more points of two images than one batch holds
    tower = open_image_tower(tiny.model)
    target = directions(2, 3)
    trace = tower.trace(pixels)
    maps = gradients.integrated_gradients(tower, trace, target, steps=steps)

    def score(images, direction):
        embeddings = tower.embed_pixels(images)
        return (embeddings * direction).sum(dim=-1)

    reference = attr.IntegratedGradients(score)
    for t, direction in enumerate(target.unbind(dim=1)):
        attributions = reference.attribute(
            pixels,
            additional_forward_args=(direction,),
            n_steps=steps,
        )
        of_pixels = attributions.sum(dim=1).float().detach()  # (B, 32, 32)
        expected = torch.stack([patch_sums(values) for values in of_pixels])
        close(maps[:, t, 1:], expected)


def test_integrated_gradients_of_tokens_add_up_to_what_the_words_bring(tiny):
    ids = tiny.tokenizer([PROMPT, "a dog"])
    target = directions(2, 2)
    tower = open_text_tower(tiny.model, 3)
    trace = tower.trace(ids)
    maps = gradients.integrated_gradients(tower, trace, target, steps=64)
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
    places = torch.arange(maps.shape[-1])
    is_word = (places > 0) & (places < ends[:, None])  # (B, N)
    has_score = maps.ne(0)  # (B, T, N)
    assert has_score.equal(is_word[:, None].expand_as(maps))


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

    draw_masks = perturbation.mask_maker(masks, (32, 32), seed=3)
    light = draw_masks(torch.arange(masks))  # (masks, 32, 32)
    with torch.no_grad():
        images = pixels[:1] * light[:, None]
        embeddings = plain.embed(tiny.model, "image", images)
    scores = embeddings @ target[0].T  # (masks, T)
    changes = scores - scores.mean(dim=0)
    light_of_patches = torch.stack([patch_sums(mask) / 64 for mask in light])  # (masks, N)
    covariance = changes.T @ light_of_patches / masks
    close(maps[:, 1:], covariance / 0.5, 1e-3)


def bottleneck_by_hand(tokens, noise, score, beta, steps):
    """Adam, KL divergence and all, one number at a time; ``score`` gives (samples,)."""
    openness = torch.full_like(tokens, 5.0)
    first = torch.zeros_like(openness)
    second = torch.zeros_like(openness)
    normal = torch.distributions.Normal

    def nats(a):
        lam = torch.sigmoid(a)
        mixed = normal(lam * tokens, 1 - lam)
        standard = normal(0.0, 1.0)
        return torch.distributions.kl_divergence(mixed, standard)

    for step in range(1, steps + 1):
        a = openness.clone().requires_grad_()
        lam = torch.sigmoid(a)
        drawn = noise[:, step - 1].transpose(0, 1)  # (samples, N, D)
        mixed = lam * tokens + (1 - lam) * drawn
        information = nats(a).mean()
        loss = beta * information - score(mixed).mean()
        (slope,) = torch.autograd.grad(loss, a)

        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        mean = first / (1 - 0.9**step)
        variance = second / (1 - 0.999**step)
        deviation = variance.sqrt()
        openness = openness - mean / (deviation + 1e-8)
    return nats(openness).sum(dim=-1)


@pytest.mark.parametrize("side", ["image", "text"])
def test_m2ib_is_the_information_that_is_left_after_squeezing(side, precise, pixels):
    if side == "image":
        inputs = pixels[:1].double()
    else:
        inputs = precise.tokenizer([PROMPT])
    tower = tower_of(precise.model, side, 1)
    target = directions(1, 1).double()
    trace = tower.trace(inputs)
    maps = perturbation.m2ib(tower, trace, target, Options(seed=1), samples=2, steps=3)
    nats = maps[0, 0]

    model = copy.deepcopy(precise.model)
    recording = plain.Recording(model, side, inputs)
    entering = recording.entering[-1][0].detach()
    count = len(nats)
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, 2, entering.shape[-1])
    noise = torch.randn(shape, generator=generator).double()
    replaced = []
    *_, last_block = plain.blocks_of(model, side)
    last_block.register_forward_pre_hook(lambda _, tokens: (replaced[-1],))

    def score(tokens):
        behind_eot = entering[count:].expand(len(tokens), -1, -1)  # no token reads these
        replaced.append(torch.cat([tokens, behind_eot], dim=1))
        repeated = inputs.expand(len(tokens), *inputs.shape[1:])
        embeddings = plain.embed(model, side, repeated)
        return embeddings @ target[0, 0]

    expected = bottleneck_by_hand(entering[:count], noise, score, beta=0.1, steps=3)
    if side == "image":
        expected[0] = 0  # CLS is squeezed too, but is no patch
    close(nats, expected, 1e-6)


# ------------------------------------------------------------------------------ leave-one-out


@pytest.mark.parametrize("full", [False, True])
def test_leaving_one_word_out_is_the_prompt_written_without_it(full, tiny, picture):
    if full:  # a prompt without padding, for an encoder whose padding is hidden by its id
        length = len(tiny.tokenizer.encode(PROMPT)) + 2
        text = {"embed_cls": True, "pad_id": 0, "context_length": length}
        tiny = wrap(build(text=text, custom_text=True))
    explanation = Explainer(tiny, method="leave-one-out").explain(picture, PROMPT)
    texts = PROMPT.split()
    prompts = [PROMPT]
    for i in range(len(texts)):
        shorter = [*texts[:i], *texts[i + 1 :]]
        prompts.append(" ".join(shorter))
    whole, *without = plain.similarities(tiny, picture, prompts)

    words = explanation.words[0]
    for word, text, similarity in zip(words, texts, without, strict=True):
        fall = float(whole - similarity)
        assert word.text == text
        assert word.score == pytest.approx(fall, abs=1e-6)


def test_costs_are_as_many_passes_of_the_model_as_the_registry_says(pixels):
    clip = wrap(build())
    target = directions(1, 2)
    image = open_image_tower(clip.model)
    text = open_text_tower(clip.model)
    image_trace = image.trace(pixels[:1])
    text_trace = text.trace(clip.tokenizer([PROMPT]))
    tokens_of_words = text_trace.tokens.shape[1] - 2
    inputs_read = []
    for side in ("image", "text"):
        first_block, *_ = plain.blocks_of(clip.model, side)
        first_block.register_forward_pre_hook(
            lambda _, inputs: inputs_read.append(len(inputs[0])),
        )

    def cost(method, tower, trace, **options):
        inputs_read.clear()
        method(tower, trace, target, **options)
        return sum(inputs_read)

    assert cost(perturbation.rise, image, image_trace, masks=50) == 50
    # for all targets together
    assert cost(gradients.integrated_gradients, image, image_trace, steps=10) == 10
    assert cost(gradients.input_x_gradient, image, image_trace) == 1
    assert cost(perturbation.leave_one_out, text, text_trace) == tokens_of_words
