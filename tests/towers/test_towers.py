"""Towers: the trace is the model, nothing is left behind, and what cannot be opened is refused by name."""

import copy

import open_clip
import pytest
import torch

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.towers import UnsupportedModel, open_image_tower, open_text_tower
from tests.conftest import BUNDLED_TEXT, BUNDLED_VISION, build


def plain(model, side, inputs):
    with torch.no_grad():
        return (model.encode_image if side == "image" else model.encode_text)(inputs, normalize=True)


def gap(model, side, inputs, **options):
    tower = (open_image_tower if side == "image" else open_text_tower)(model, **options)
    return (tower.trace(inputs).embedding - plain(model, side, inputs)).abs().max().item()


VARIANTS = {
    "CLS": {},
    "quick GELU": {"quick_gelu": True},
    "LayerScale": {"vision": {"ls_init_value": 0.5}, "text": {"ls_init_value": 0.5}},
    "no norm before the blocks": {"vision": {"no_ln_pre": True}},
    "average, norm before": {"vision": {"pool_type": "avg"}},
    "average, norm after": {"vision": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}},
    "sine positions": {"vision": {"pos_embed_type": "sin_cos_2d"}},
    "CustomTextCLIP": {"custom_text": True},
    "projection with bias": {"custom_text": True, "text": {"proj_bias": True}},
    "no text projection": {"text": {"proj_type": "none"}, "embed_dim": 64},
    "eos pooling": {"text": {"pool_type": "eos", "eos_id": 49407}},
    "the bundled model's shape": {"vision": {**BUNDLED_VISION, "image_size": 32}, "text": BUNDLED_TEXT},
}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_image_trace_equals_the_plain_forward_pass(variant, layers, pixels):
    assert gap(build(**VARIANTS[variant]), "image", pixels, layers=layers) < 1e-5


@pytest.mark.parametrize("layers", [None, 1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_text_trace_equals_the_plain_forward_pass(variant, layers):
    model = build(**VARIANTS[variant])
    tokenizer = open_clip.SimpleTokenizer(context_length=getattr(model, "text", model).context_length)
    prompts = ["a red car and a blue ball", "a dog", "", "a word more than the context can hold " * 20]
    assert gap(model, "text", tokenizer(prompts), layers=layers) < 1e-5


def test_traces_of_real_architectures_equal_the_plain_forward_pass(real_shape):
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert gap(real_shape.model, "image", pixels) < 1e-5
    assert gap(real_shape.model, "text", real_shape.tokenizer(["a red car and a blue ball", "a dog"])) < 1e-5


def test_traces_of_the_bundled_model_equal_the_plain_forward_pass(bundled, picture):
    assert gap(bundled.model, "image", bundled.preprocess(picture)[None]) < 1e-5
    assert gap(bundled.model, "text", bundled.tokenizer(["a red car and a blue ball", "a dog"])) < 1e-5


def test_image_trace_of_a_clipa_model_equals_the_plain_forward_pass():
    config = open_clip.get_model_config("ViT-L-14-CLIPA")
    config["vision_cfg"]["layers"] = 2  # 24 layers take a gigabyte; what is special here is not their number
    model = build(config["vision_cfg"], embed_dim=config["embed_dim"])
    assert model.visual.pool_type == "avg" and model.visual.final_ln_after_pool
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert gap(model, "image", pixels) < 1e-5


def test_blocks_that_want_the_batch_second_are_given_it(pixels, ids):
    model = build()
    for transformer in (model.visual.transformer, model.transformer):
        transformer.batch_first = False
        for block in transformer.resblocks:
            block.attn.batch_first = False
    assert gap(model, "image", pixels) < 1e-5 and gap(model, "text", ids) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("only_matrices", [True, False])
def test_half_precision_is_traced_to_its_own_precision_and_explained_in_float32(dtype, only_matrices, pixels, ids):
    model = build(cast_dtype=dtype if only_matrices else None)
    if only_matrices:
        open_clip.convert_weights_to_lp(model, dtype)
    else:
        model.to(dtype)
    for tower, inputs in ((open_image_tower(model), pixels), (open_text_tower(model), ids)):
        trace = tower.trace(inputs)
        assert trace.embedding.dtype == trace.layers[0].o.dtype == torch.float32
        expected = tower.forward(inputs)
        assert (trace.embedding - expected).abs().max() < torch.finfo(dtype).eps


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["tiny", "averaging"])
def test_readout_without_a_nudge_and_resume_from_any_layer_give_the_embedding(name, layers, pixels, ids, request):
    model = request.getfixturevalue(name).model
    for tower, inputs in ((open_image_tower(model, layers), pixels), (open_text_tower(model, layers), ids)):
        trace = tower.trace(inputs)
        nothing = torch.zeros_like(torch.stack([layer.o for layer in trace.layers]))
        torch.testing.assert_close(tower.readout(trace, nothing), trace.embedding)
        resumed = tower.resume(trace, len(tower.below), trace.tokens)
        torch.testing.assert_close(resumed, trace.embedding, atol=1e-6, rtol=1e-5)


def test_attention_rows_sum_to_one_and_collect_o(tiny, pixels, ids):
    for tower, inputs in ((open_image_tower(tiny.model, 2), pixels), (open_text_tower(tiny.model), ids)):
        trace = tower.trace(inputs)
        for layer in trace.layers:
            torch.testing.assert_close(layer.attention.sum(-1), torch.ones_like(layer.attention[..., 0]))
            collected = torch.einsum("bhrn,bnhc->brhc", layer.attention, layer.v).flatten(2)
            torch.testing.assert_close(collected, layer.o, atol=1e-6, rtol=1e-5)


def test_padding_behind_eot_is_neither_real_nor_attended(tiny, ids):
    trace = open_text_tower(tiny.model).trace(ids)
    assert trace.valid_mask.sum(-1).tolist() == [9, 4]  # SOT, pieces, EOT
    assert trace.tokens.shape[1] == 9  # cropped behind the last EOT of the batch
    for layer in trace.layers:
        assert (layer.attention.masked_select(~trace.valid_mask[:, None, None]) == 0).all()


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_head_is_the_model_with_its_explained_layers_set_to_one_head(side, tiny, pixels, ids):
    inputs = pixels if side == "image" else ids
    changed = copy.deepcopy(tiny.model)
    tower = open_image_tower(tiny.model, 2) if side == "image" else open_text_tower(tiny.model, 2)
    transformer = changed.visual.transformer if side == "image" else changed.transformer
    for block in transformer.resblocks[-2:]:
        block.attn.num_heads, block.attn.head_dim = 1, block.attn.embed_dim
    found = tower.with_one_head(tower.trace(inputs))
    assert (found.embedding - plain(changed, side, inputs)).abs().max() < 1e-5
    assert (found.embedding - plain(tiny.model, side, inputs)).abs().max() > 1e-3
    assert found.layers[0].q.shape[2] == found.heads == 1


def test_training_mode_is_treated_as_evaluation_and_stays(pixels):
    model = build({"patch_dropout": 0.5})
    expected = plain(model, "image", pixels)
    model.train()
    model.visual.transformer.resblocks[0].eval()
    modes = [module.training for module in model.modules()]
    assert (open_image_tower(model).trace(pixels).embedding - expected).abs().max() < 1e-5
    assert [module.training for module in model.modules()] == modes


def test_a_tower_that_does_not_reproduce_its_model_is_refused(pixels):
    model = build()
    model.visual.transformer.resblocks[-1].register_forward_hook(lambda module, inputs, output: output.abs())
    with pytest.raises(UnsupportedModel, match=r"something else .*a hook on visual.transformer.resblocks.2"):
        open_image_tower(model).trace(pixels)


def test_nan_weights_are_refused_by_their_name(pixels, ids):
    model = build()
    model.visual.transformer.resblocks[1].mlp.c_fc.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"its weight 'visual.transformer.resblocks.1.mlp.c_fc.weight' holds NaN"):
        open_image_tower(model).trace(pixels)
    assert open_text_tower(model).trace(ids).embedding.isfinite().all()


def test_another_grid_gets_the_positions_that_open_clip_would_give_it(pixels):
    small, large = build(), build({"image_size": (32, 56)})
    state = small.state_dict()
    # open_clip's own function resizes square grids to any grid when a checkpoint is loaded
    open_clip.model.resize_pos_embed(state, large)
    large.load_state_dict(state)
    wide = torch.nn.functional.interpolate(pixels, (32, 56))
    tower = open_image_tower(small)
    trace = tower.trace(wide)
    assert trace.grid == (4, 7) and tower.verified
    assert (trace.embedding - plain(large, "image", wide)).abs().max() < 1e-5


@pytest.mark.parametrize("layers", [0, 4, -1, 1.5])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(GradeclipError, match="image_layers must be"):
        open_image_tower(build(), layers)
    with pytest.raises(GradeclipError, match="text_layers must be"):
        open_text_tower(build(), layers)


def test_two_thirds_of_the_text_layers_are_explained_by_default():
    assert open_text_tower(build()).layers == 2
    assert open_text_tower(build(text={"layers": 12})).layers == 8


@pytest.mark.parametrize(
    ("name", "vision"),
    [
        (
            "timm ConvNeXt: it is all convolutions",
            {"timm_model_name": "convnext_atto", "timm_pool": "", "image_size": 64},
        ),
        (r"two attention pools \(parallel\)", {"attentional_pool": "parallel"}),
        ("CustomResidualAttentionBlock with attn.ln_q.weight", {"qk_norm": True}),
        ("pools by 'none'", {"pool_type": "none"}),
    ],
)
def test_image_towers_that_cannot_be_opened_are_refused_by_name(name, vision):
    with pytest.raises(UnsupportedModel, match=name):
        open_image_tower(build(vision))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pools by 'none'", {"pool_type": "none"}),
        ("CustomResidualAttentionBlock with mlp.ln.weight", {"scale_fc": True}),
        ("CustomResidualAttentionBlock with attn.logit_scale", {"scaled_cosine_attn": True}),
    ],
)
def test_text_towers_that_cannot_be_opened_are_refused_by_name(name, text):
    with pytest.raises(UnsupportedModel, match=name):
        open_text_tower(build(text=text, custom_text=True))


def test_a_hugging_face_text_tower_is_refused_by_name():
    model = build(custom_text=True)
    model.text = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedModel, match="the text tower is a Linear"):
        open_text_tower(model)
