"""Every method of the registry keeps the rules that hold for all."""

import numpy as np
import pytest
import torch

from gradeclip_utils import METHODS, Explainer, UnsupportedModel
from gradeclip_utils.methods import Method, layers_to_explain, register_method
from gradeclip_utils.plots.drawing import of_explanation
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions, prompt_options, run
from tests.test_explainer import state_of

# with the methods of studies.rivals
IMAGE_METHODS = [name for name, method in METHODS.items() if method.image]
TEXT_METHODS = [name for name, method in METHODS.items() if method.text]
PAIRS = [(name, "image") for name in IMAGE_METHODS]
PAIRS += [(name, "text") for name in TEXT_METHODS]
SHORT = "a dog"
LONG = "a red car and a blue ball"
LINEAR = (
    "grad-eclip",
    "grad-eclip-no-spatial",
    "grad-eclip-softmax",
    "grad-eclip-single-head",
    "grad-cam",
    "maskclip",
    "rise",
    "input-x-gradient",
    "integrated-gradients",
    "leave-one-out",
    "replace",
    "metagame",
    "integrated-attention",
    "fixlip",
)


def run_on(name, side, clip, pixels, prompts, target):
    """Maps by a method, of images or of prompts."""
    if side == "image":
        return run(name, side, clip.model, pixels, target)
    ids = clip.tokenizer(prompts)
    options = prompt_options(clip, prompts)
    return run(name, side, clip.model, ids, target, options)


# ------------------------------------------------------------------------------------- all maps


@pytest.mark.parametrize(("name", "side"), PAIRS)
def test_a_batch_of_two_is_explained_as_each_alone(name, side, tiny, pixels):
    prompts = [LONG, SHORT]
    target = directions(2, 2)
    maps = run_on(name, side, tiny, pixels, prompts, target)
    assert maps.isfinite().all()
    for i in range(2):
        part = slice(i, i + 1)
        single = run_on(
            name,
            side,
            tiny,
            pixels[part],
            prompts[part],
            target[part],
        )[0]
        length = single.shape[-1]  # a shorter prompt alone has fewer tokens
        assert maps[i, :, length:].eq(0).all()
        close(maps[i, :, :length], single)


@pytest.mark.parametrize("name", LINEAR)
def test_maps_are_linear_in_the_direction(name, tiny, pixels):
    side = "image" if METHODS[name].image else "text"
    first, second = directions(1, 2)[0]
    target = torch.stack([first, second, first - second])
    maps = run_on(name, side, tiny, pixels[:1], [LONG], target[None])
    of_first, of_second, of_difference = maps[0]
    close(of_difference, of_first - of_second)


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_a_tower_that_averages_its_patches_is_explained_by_every_method(name, averaging, pixels):
    maps = run(name, "image", averaging.model, pixels[:1], directions(1, 2))
    assert maps.shape == (1, 2, 17)
    assert maps.isfinite().all()
    assert maps[..., 0].eq(0).all()
    assert maps[..., 1:].abs().max() > 0


# ------------------------------------------------------------------------------- the explainer


@pytest.mark.parametrize("name", METHODS)
def test_the_explainer_runs_every_method_and_says_which(name, tiny, picture):
    method = METHODS[name]
    explanation = Explainer(tiny, method=name).explain(picture, SHORT)
    assert explanation.provenance.method == name
    assert method.title in explanation.origin
    if method.image is not None:
        assert explanation.provenance.words == "leave-one-out"
        assert explanation.origin.endswith("; words: leave one word out")
    similarity = Explainer(tiny).explain(picture, SHORT).similarity
    np.testing.assert_allclose(explanation.similarity, similarity, atol=1e-6)

    if method.image is None:
        assert explanation.image_maps is None
    else:
        assert explanation.image_maps.shape == (1, 4, 4)
        assert explanation.image_maps.any()


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_the_explainers_word_scores_are_those_of_the_method(name, tiny, picture):
    explanation = Explainer(tiny, words=name).explain(picture, SHORT)
    (words,) = explanation.words
    assert explanation.provenance.words == name
    assert explanation.provenance.method == "grad-eclip"
    assert [word.text for word in words] == SHORT.split()

    pixels = tiny.preprocess(picture)[None]
    with torch.no_grad():
        image = tiny.model.encode_image(pixels, normalize=True)
    maps = run_on(name, "text", tiny, None, [SHORT], image[:, None])
    scores = [word.score for word in words]
    np.testing.assert_allclose(scores, maps[0, 0, 1:3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_prompts_that_are_read_elsewhere_than_at_eot_are_explained_by_every_method(name, picture):
    clip = wrap(build(text={"embed_cls": True}, custom_text=True))
    explainer = Explainer(clip, words=name, null_captions=[SHORT, LONG])
    scores = [word.score for word in explainer.explain(picture, SHORT).words[0]]
    assert len(scores) == 2
    assert np.isfinite(scores).all()
    assert any(scores)

    batch = explainer.explain(picture, [SHORT, LONG]).words[0]
    scores_in_batch = [word.score for word in batch]
    np.testing.assert_allclose(scores_in_batch, scores, rtol=1e-3, atol=1e-6)


def test_a_method_goes_through_the_layers_that_it_asks_for_unless_the_user_chooses(tiny):
    by_method = {"grad-eclip": 1, "rollout": 3, "clip-surgery": 2, "m2ib": 1}
    for name, layers in by_method.items():
        assert Explainer(tiny, method=name).image_tower.layers == layers
        assert Explainer(tiny, method=name, image_layers=2).image_tower.layers == 2
    assert layers_to_explain(None, None, METHODS["clip-surgery"], 12) == 6
    assert layers_to_explain(None, None, METHODS["m2ib"], 12) == 2
    assert layers_to_explain(None, 3, METHODS["grad-eclip"], 12) == 3  # the model's own choice
    assert layers_to_explain(None, 3, METHODS["maskclip"], 12) == 1
    assert Explainer(tiny, method="input-x-gradient").image_tower.layers == 1
    for words, layers in (("input-x-gradient", 3), ("grad-eclip", 2), ("leave-one-out", 1)):
        assert Explainer(tiny, words=words).text_tower.layers == layers
    assert Explainer(tiny, words="grad-eclip", text_layers=1).text_tower.layers == 1


def test_a_tower_that_ends_in_an_attention_pool_is_explained_there_or_refused(picture):
    pool = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3}
    clip = wrap(build(pool))
    maps = {}
    for name in ("attention", "rollout", "game", "legrad", "maskclip", "m2ib"):
        explainer = Explainer(clip, method=name, image_layers=1)
        maps[name] = explainer.explain(picture, SHORT).image_maps
        assert np.isfinite(maps[name]).all()
        assert maps[name].any()
    # one layer without a residual stream
    np.testing.assert_allclose(maps["rollout"], maps["attention"], rtol=1e-5)

    with pytest.raises(UnsupportedModel, match="GAME explains 4 layers, and the image tower ends"):
        Explainer(clip, method="game")
    explainer = Explainer(clip, method="clip-surgery", image_layers=1)
    with pytest.raises(UnsupportedModel, match="CLIP Surgery needs transformer blocks"):
        explainer.explain(picture, SHORT)


# ---------------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_left_behind_on_a_model_in_training_or_frozen(name, picture):
    explanations = []
    for training in (True, False):
        model = build({"patch_dropout": 0.5})
        model.train(training).requires_grad_(training)
        before = state_of(model)
        words = name if METHODS[name].text else None
        explainer = Explainer(wrap(model), method=name, words=words, null_captions=[SHORT, LONG])
        with torch.inference_mode():
            explanation = explainer.explain(picture, SHORT, against="a cow")
        assert state_of(model) == before
        explanations.append(explanation)
    if METHODS[name].image:
        trained, frozen = (explanation.image_maps for explanation in explanations)
        tolerance = 1e-4 * np.abs(trained).max() + 1e-9
        np.testing.assert_allclose(trained, frozen, atol=tolerance)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.target])
def test_nothing_is_left_behind_after_an_exception_inside_the_method(name, pixels):
    clip = wrap(build().train())
    before = state_of(clip.model)
    side = "image" if METHODS[name].image else "text"
    with pytest.raises(RuntimeError):  # the direction is one channel too long
        run_on(name, side, clip, pixels, [LONG, SHORT], torch.ones(2, 1, 49))
    assert state_of(clip.model) == before


# ----------------------------------------------------------------------------- other methods


def feature_map(tower, trace, directions, options):
    """A method of somebody else: how much each token's last feature points along the target."""
    features = tower.dense(trace)
    maps = torch.einsum("bne,bte->btn", features, directions)
    return maps * trace.valid_mask[:, None]


def random_map(tower, trace, directions, options):
    generator = torch.Generator().manual_seed(options.seed)
    shape = (*directions.shape[:2], trace.valid_mask.shape[1])
    maps = torch.rand(shape, generator=generator)
    return maps * trace.valid_mask[:, None]


def test_an_explainer_takes_a_method_that_is_not_registered(tiny, picture):
    method = Method(name="mine", title="Mine", explains="a number of mine", image=feature_map)
    explanation = Explainer(tiny, method=method, words=None).explain(picture, [SHORT, LONG])
    expected = Explainer(tiny, method="maskclip").explain(picture, [SHORT, LONG])
    np.testing.assert_array_equal(explanation.image_maps, expected.image_maps)
    assert explanation.words == ((), ())
    assert "mine" not in METHODS
    assert explanation.origin.endswith("Mine: explains a number of mine, last layer")
    assert of_explanation(explanation).panels[0].map is not None


def test_a_method_of_prompts_alone_has_no_maps_and_no_image_layers(tiny, picture):
    explanation = Explainer(tiny, method="leave-one-out").explain(picture, SHORT)
    assert explanation.image_maps is None
    assert explanation.provenance.image_layers is None
    assert of_explanation(explanation).panels[0].map is None


def test_a_method_is_given_the_seed(tiny, picture):
    method = Method(name="mine", title="Mine", image=random_map, text=random_map)
    first, again, other = (
        Explainer(tiny, method=method, words=method, seed=seed).explain(picture, SHORT)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.image_maps, again.image_maps)
    assert (first.image_maps != other.image_maps).any()
    assert first.words == again.words != other.words


def test_a_registered_method_has_a_name_like_all_others_until_it_is_taken_out(tiny):
    register_method("mine", title="Mine", sides="both", target=False)(feature_map)
    try:
        method = METHODS["mine"]
        assert Explainer(tiny, method="mine").method is method
        assert method.image is method.text is feature_map
        assert method.explains == "the same for any text or image"
        with pytest.raises(ValueError, match="there is a method 'mine': choose another name"):
            register_method("mine", title="Mine again")
    finally:
        del METHODS["mine"]


def test_a_method_that_explains_nothing_is_refused():
    with pytest.raises(ValueError, match="'mine' explains neither images nor prompts"):
        Method(name="mine", title="Mine")
    with pytest.raises(ValueError, match="one of last, all, half, sixth, none, got 'third'"):
        Method(name="mine", title="Mine", image=feature_map, layers="third")
