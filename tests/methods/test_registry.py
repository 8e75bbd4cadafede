"""Every method of the registry keeps the rules that hold for all."""

import numpy as np
import pytest
import torch

from gradeclip_utils import METHODS, Explainer, UnsupportedModel
from gradeclip_utils.methods import Method, layers_to_explain, register_method
from gradeclip_utils.plots.drawing import of_explanation
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions, run
from tests.test_explainer import state_of

PICTURES = [
    name for name, method in METHODS.items() if method.image
]  # with those of studies.rivals
PROMPTS = [name for name, method in METHODS.items() if method.text]
SEVERAL = ["a dog", "a red car and a blue ball."]
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
    "metagame",
    "integrated-attention",
    "fixlip",
)


@pytest.mark.parametrize(
    ("name", "side"), [(name, "image") for name in PICTURES] + [(name, "text") for name in PROMPTS]
)
def test_a_batch_of_two_is_explained_as_each_alone(name, side, tiny, pixels, ids):
    inputs, target = pixels if side == "image" else ids, directions(2, 2)
    together = run(name, side, tiny.model, inputs, target)
    assert together.isfinite().all()
    for i in range(2):
        alone = run(name, side, tiny.model, inputs[i : i + 1], target[i : i + 1])[0]
        count = alone.shape[-1]  # a shorter prompt alone has fewer tokens
        assert together[i, :, count:].eq(0).all()
        close(together[i, :, :count], alone)


@pytest.mark.parametrize("name", LINEAR)
def test_maps_are_linear_in_the_direction_where_it_is_said(name, tiny, pixels, ids):
    side = "image" if METHODS[name].image else "text"
    a, b = directions(1, 2)[0]
    inputs = pixels[:1] if side == "image" else ids[:1]
    maps = run(name, side, tiny.model, inputs, torch.stack([a, b, a - b])[None])[0]
    close(maps[2], maps[0] - maps[1])


@pytest.mark.parametrize("name", PICTURES)
def test_a_tower_that_averages_its_patches_is_explained_by_every_method(name, averaging, pixels):
    maps = run(name, "image", averaging.model, pixels[:1], directions(1, 2))
    assert maps.shape == (1, 2, 17) and maps.isfinite().all()
    assert maps[..., 0].eq(0).all() and maps[..., 1:].abs().max() > 0


@pytest.mark.parametrize("name", METHODS)
def test_the_explainer_runs_every_method_and_says_which(name, tiny, picture):
    explanation = Explainer(tiny, method=name).explain(picture, SEVERAL[0])
    method = METHODS[name]
    assert explanation.provenance.method == name and method.title in explanation.origin
    if method.image is None:
        assert explanation.image_maps is None
    else:
        assert explanation.image_maps.shape == (1, 4, 4)
        assert explanation.image_maps.any()
    assert [word.text for word in explanation.words[0]] == (["a", "dog"] if method.text else [])
    plainly = Explainer(tiny).explain(picture, SEVERAL[0])
    np.testing.assert_allclose(explanation.similarity, plainly.similarity, atol=1e-6)
    if method.text:
        with torch.no_grad():
            target = tiny.model.encode_image(tiny.preprocess(picture)[None], normalize=True)[
                :, None
            ]
        row = run(name, "text", tiny.model, tiny.tokenizer(SEVERAL[:1]), target)[0, 0]
        np.testing.assert_allclose(
            [word.score for word in explanation.words[0]], row[1:3], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_left_behind_on_a_model_in_training_or_frozen(name, picture):
    maps = []
    for training in (True, False):
        model = build({"patch_dropout": 0.5}).train(training).requires_grad_(training)
        before = state_of(model)
        explainer = Explainer(wrap(model), method=name, null_captions=SEVERAL)
        with torch.inference_mode():
            explanation = explainer.explain(picture, SEVERAL[:1], against="a cow")
        assert state_of(model) == before
        if explanation.image_maps is not None:
            maps.append(explanation.image_maps)
    if maps:
        np.testing.assert_allclose(maps[0], maps[1], atol=1e-4 * np.abs(maps[0]).max() + 1e-9)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"attention", "rollout"}))
def test_nothing_is_left_behind_after_an_exception_inside_the_method(name, pixels, ids):
    model = build().train()
    before, side = state_of(model), "image" if METHODS[name].image else "text"
    with pytest.raises(RuntimeError):  # the direction is one channel too long
        run(name, side, model, pixels if side == "image" else ids, torch.ones(2, 1, 49))
    assert state_of(model) == before


def test_a_method_goes_through_the_layers_that_it_asks_for_unless_told_otherwise(tiny):
    for name, layers in (("grad-eclip", 1), ("rollout", 3), ("clip-surgery", 2), ("m2ib", 1)):
        assert Explainer(tiny, method=name).image_tower.layers == layers
        assert Explainer(tiny, method=name, image_layers=2).image_tower.layers == 2
    assert layers_to_explain(None, None, METHODS["clip-surgery"], 12) == 6
    assert layers_to_explain(None, None, METHODS["m2ib"], 12) == 2
    assert layers_to_explain(None, 3, METHODS["grad-eclip"], 12) == 3  # the model's own choice
    assert layers_to_explain(None, 3, METHODS["maskclip"], 12) == 1
    assert Explainer(tiny, method="input-x-gradient").image_tower.layers == 1
    assert Explainer(tiny, method="input-x-gradient").text_tower.layers == 3
    assert (
        Explainer(tiny, method="game").text_tower.layers == 3
        and Explainer(tiny).text_tower.layers == 2
    )


def test_a_tower_that_ends_in_an_attention_pool_is_explained_there_or_refused_by_name(picture):
    clip = wrap(build({"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3}))
    maps = {
        name: Explainer(clip, method=name, image_layers=1).explain(picture, SEVERAL[0]).image_maps
        for name in ("attention", "rollout", "game", "legrad", "maskclip", "m2ib")
    }
    assert all(np.isfinite(found).all() and found.any() for found in maps.values())
    np.testing.assert_allclose(
        maps["rollout"], maps["attention"], rtol=1e-5
    )  # one layer without a residual stream
    with pytest.raises(
        UnsupportedModel, match="GAME explains 4 layers, and the image tower ends in an attention"
    ):
        Explainer(clip, method="game")
    with pytest.raises(
        UnsupportedModel, match="CLIP Surgery needs transformer blocks as CLIP's own are, the tower"
    ):
        Explainer(clip, method="clip-surgery", image_layers=1).explain(picture, SEVERAL[0])


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_that_are_read_elsewhere_than_at_eot_are_explained_by_every_method(name, picture):
    clip = wrap(build(text={"embed_cls": True}, custom_text=True))
    explainer = Explainer(clip, method=name, null_captions=SEVERAL)
    together, alone = (
        explainer.explain(picture, prompts).words[0] for prompts in (["a dog", SEVERAL[1]], "a dog")
    )
    scores = [word.score for word in together]
    np.testing.assert_allclose(scores, [word.score for word in alone], rtol=1e-3, atol=1e-6)
    assert len(scores) == 2 and np.isfinite(scores).all() and any(scores)


def values_along(tower, trace, directions, options):
    """A method that somebody else wrote: how much each token's last feature points along the target."""
    return torch.einsum("bne,bte->btn", tower.dense(trace), directions) * trace.valid_mask[:, None]


def noise(tower, trace, directions, options):
    generator = torch.Generator().manual_seed(options.seed)
    return (
        torch.rand(*directions.shape[:2], trace.valid_mask.shape[1], generator=generator)
        * trace.valid_mask[:, None]
    )


def mine(name="mine", **attributes):
    return Method(name=name, title="Mine", explains="a number of mine", **attributes)


def test_an_explainer_takes_a_method_that_is_not_registered(tiny, picture):
    found = Explainer(tiny, method=mine(image=values_along)).explain(picture, SEVERAL)
    expected = Explainer(tiny, method="maskclip").explain(picture, SEVERAL)
    np.testing.assert_array_equal(found.image_maps, expected.image_maps)
    assert found.words == ((), ()) and found.provenance.method == "mine" and "mine" not in METHODS
    assert (
        found.origin.endswith("Mine: explains a number of mine")
        and of_explanation(found).panels[0].map is not None
    )
    for method in (mine(text=noise), "leave-one-out"):  # of prompts alone
        found = Explainer(tiny, method=method).explain(picture, "a dog")
        assert found.provenance.image_layers is None and of_explanation(found).panels[0].map is None


def test_a_method_is_given_the_seed(tiny, picture):
    method = mine(image=noise, text=noise)
    drawn = [
        Explainer(tiny, method=method, seed=seed).explain(picture, "a dog") for seed in (1, 1, 2)
    ]
    assert (drawn[0].image_maps == drawn[1].image_maps).all() and (
        drawn[0].image_maps != drawn[2].image_maps
    ).any()
    assert drawn[0].words == drawn[1].words != drawn[2].words


def test_a_registered_method_has_a_name_like_all_others_until_it_is_taken_out(tiny, picture):
    register_method("mine", title="Mine", sides="both", target=False)(values_along)
    try:
        method = METHODS["mine"]
        assert Explainer(tiny, method="mine").method is method
        assert method.image is method.text is values_along
        assert method.explains == "the same for any text or image"
        with pytest.raises(ValueError, match="there is a method 'mine': choose another name"):
            register_method("mine", title="Mine again")
    finally:
        del METHODS["mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'mine' explains neither images nor prompts"),
        ({"image": noise, "layers": "third"}, "last, all, half, sixth.*'third'"),
    ],
    ids=["of nothing", "thirds"],
)
def test_a_method_that_cannot_work_is_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        mine(**arguments)
