"""Every method of the registry keeps the rules that hold for all."""

import numpy as np
import pytest
import torch

from gradeclip_utils import METHODS, Explainer, UnsupportedModel
from gradeclip_utils.methods import Method, Options, layers_to_explain, register_method
from gradeclip_utils.plots.drawing import of_explanation
from gradeclip_utils.towers.blocks import Block
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions, prompt_options, run, tower_of
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
        (expected,) = run_on(
            name,
            side,
            tiny,
            pixels[part],
            prompts[part],
            target[part],
        )
        length = expected.shape[-1]  # a shorter prompt alone has fewer tokens
        assert maps[i, :, length:].eq(0).all()
        close(maps[i, :, :length], expected)


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


@pytest.mark.parametrize(
    ("clip", "name", "side", "graph"),
    [
        ("tiny", "grad-eclip", "image", "query_graph"),
        ("averaging", "grad-eclip", "image", "query_graph"),
        ("tiny", "grad-eclip", "text", "query_graph"),
        ("tiny", "rollout", "image", "layer_graph"),
        ("tiny", "legrad", "image", "layer_graph"),
        ("tiny", "game", "text", "layer_graph"),
        ("tiny", "input-x-gradient", "image", "pixel_graph"),
    ],
)
def test_a_trace_with_a_graph_gives_the_same_maps_without_a_further_pass(
    clip, name, side, graph, request, pixels, ids, monkeypatch
):
    tower = tower_of(request.getfixturevalue(clip).model, side, 3)
    inputs = {"image": pixels, "text": ids}[side]
    method = getattr(METHODS[name], side)
    target = directions(2, 3)
    plain_trace = tower.trace(inputs)
    expected = method(tower, plain_trace, target, Options())

    trace = tower.trace(inputs, graph)
    close(trace.embedding, plain_trace.embedding)
    for layer, plain_layer in zip(trace.layers, plain_trace.layers, strict=True):
        for part_name, part in vars(layer).items():
            close(part, getattr(plain_layer, part_name))
            assert not part.requires_grad

    monkeypatch.setattr(Block, "project", None)  # no layer runs again
    tower._encode = None  # nor does the model
    for _ in range(2):  # the graph is kept
        maps = method(tower, trace, target, Options())
        close(maps, expected, 1e-5)


# ------------------------------------------------------------------------------- the explainer


@pytest.mark.parametrize("name", METHODS)
def test_the_explainer_runs_every_method_and_says_which(name, tiny, picture):
    method = METHODS[name]
    explanation = Explainer(tiny, method=name).explain(picture, SHORT)
    provenance = explanation.provenance
    assert provenance.method == name
    assert method.title in explanation.origin
    similarity = Explainer(tiny).explain(picture, SHORT).similarity
    np.testing.assert_allclose(explanation.similarity, similarity, atol=1e-6)

    (panel,) = of_explanation(explanation).panels
    if method.image is None:
        assert explanation.image_maps is panel.map is provenance.image_layers is None
    else:
        assert explanation.image_maps.shape == (1, 4, 4)
        assert explanation.image_maps.any()
        assert provenance.words == "leave-one-out"
        assert explanation.origin.endswith("; words: leave one word out")


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
    expected = maps[0, 0, 1:3]
    scores = [word.score for word in words]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_prompts_that_are_read_elsewhere_than_at_eot_are_explained_by_every_method(name, picture):
    clip = wrap(build(text={"embed_cls": True}, custom_text=True))
    explainer = Explainer(clip, words=name, null_captions=[SHORT, LONG])
    words = explainer.explain(picture, SHORT).words[0]
    scores = [word.score for word in words]
    assert len(scores) == 2
    assert np.isfinite(scores).all()
    assert any(scores)

    words = explainer.explain(picture, [SHORT, LONG]).words[0]
    scores_in_batch = [word.score for word in words]
    np.testing.assert_allclose(scores_in_batch, scores, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("grad-eclip", 1), ("rollout", 3), ("clip-surgery", 2), ("m2ib", 1), ("input-x-gradient", 1)],
)
def test_a_method_goes_through_the_layers_that_it_asks_for_unless_the_user_chooses(
    name, layers, tiny
):
    assert Explainer(tiny, method=name).image_tower.layers == layers
    assert Explainer(tiny, method=name, image_layers=2).image_tower.layers == 2


@pytest.mark.parametrize(
    ("name", "layers"), [("grad-eclip", 2), ("input-x-gradient", 3), ("leave-one-out", 1)]
)
def test_words_go_through_the_layers_that_their_method_asks_for(name, layers, tiny):
    assert Explainer(tiny, words=name).text_tower.layers == layers
    assert Explainer(tiny, words=name, text_layers=1).text_tower.layers == 1


@pytest.mark.parametrize(
    ("name", "model_default", "layers"),
    [("clip-surgery", None, 6), ("m2ib", None, 2), ("grad-eclip", 3, 3), ("maskclip", 3, 1)],
)
def test_of_twelve_layers_a_method_explains_its_share_or_what_the_model_says(
    name, model_default, layers
):
    assert layers_to_explain(None, model_default, METHODS[name], 12) == layers


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
        explainer = Explainer(
            wrap(model),
            method=name,
            words=name if METHODS[name].text else None,
            null_captions=[SHORT, LONG],
        )
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
    explainer = Explainer(tiny, method=method, words=None)
    explanation = explainer.explain(picture, [SHORT, LONG])
    expected = Explainer(tiny, method="maskclip").explain(picture, [SHORT, LONG])
    np.testing.assert_array_equal(explanation.image_maps, expected.image_maps)
    assert explanation.words == ((), ())
    assert "mine" not in METHODS
    assert explanation.origin.endswith("Mine: explains a number of mine, last layer")
    assert of_explanation(explanation).panels[0].map.any()


def test_a_method_is_given_the_seed(tiny, picture):
    method = Method(name="mine", title="Mine", image=random_map, text=random_map)

    def explain(seed):
        explainer = Explainer(tiny, method=method, words=method, seed=seed)
        return explainer.explain(picture, SHORT)

    first = explain(seed=1)
    again = explain(seed=1)
    second = explain(seed=2)
    np.testing.assert_array_equal(first.image_maps, again.image_maps)
    assert (first.image_maps != second.image_maps).any()
    assert first.words == again.words != second.words


def test_a_registered_method_has_a_name_like_all_others_until_it_is_taken_out(tiny):
    register_method("mine", title="Mine", sides="both", target=False)(feature_map)
    try:
        method = METHODS["mine"]
        assert Explainer(tiny, method="mine").method is method
        assert method.image is method.text is feature_map
        assert method.explains == "the same for any text or image"
        with pytest.raises(ValueError, match="there is a method 'mine': choose another .*pop"):
            register_method("mine", title="Mine again")
    finally:
        del METHODS["mine"]


def test_a_method_that_explains_nothing_is_refused():
    with pytest.raises(ValueError, match="'mine' explains neither images nor prompts"):
        Method(name="mine", title="Mine")
    with pytest.raises(ValueError, match="one of last, all, half, sixth, none, got 'third'"):
        Method(name="mine", title="Mine", image=feature_map, layers="third")
