"""Architectures: each config of open_clip is opened or refused by name, and each combination of parts is executed."""

import copy
import os
import re
from collections import defaultdict
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.towers import (
    UnsupportedModel,
    open_feature_map,
    open_image_tower,
    open_text_tower,
)
from tests.shrinking import IDS, NAMES, config_of, fingerprint, small, text_side, without_memory
from tests.test_explainer import state_of

TABLE = Path(__file__).parents[2] / "docs" / "architectures.md"
BEGIN, END = (
    "<!-- architectures: written by tests/towers/test_architectures.py -->",
    "<!-- /architectures -->",
)
HUB = "; its files come from a hub"

# One config of every combination of parts that is supported; a test below checks that none is
# missing.
EXECUTED = [
    "ViT-B-16",
    "ViT-B-16-quickgelu",
    "ViT-M-16-alt",
    "ViT-L-14-CLIPA",
    "coca_base",
    "coca_ViT-B-32",
    "RN50",
    "RN50-quickgelu",
    "ViT-B-16-SigLIP",
    "ViT-B-16-SigLIP2",
    "ViT-B-32-SigLIP2-256",
    "ViT-SO400M-16-SigLIP-i18n-256",
    "PE-Core-T-16-384",
    "PE-Core-bigG-14-448",
    "EVA01-g-14",
    "EVA02-B-16",
    "EVA02-E-14",
    "MobileCLIP-B",
    "MobileCLIP2-L-14",
    "ViTamin-S",
    "ViTamin-XL-256",
    "vit_medium_patch16_gap_256",
    "ViT-H-14-worldwide",
    "ViT-H-14-worldwide-quickgelu",
    "roberta-ViT-B-32",
    "xlm-roberta-base-ViT-B-32",
    "mt5-base-ViT-B-32",
    "nllb-clip-base",
    "coca_roberta-ViT-B-32",
]
WITHOUT_ATTENTION = [
    "convnext_tiny",
    "convnext_large_d",
    "MobileCLIP-S1",
    "MobileCLIP2-S3",
    "swin_base_patch4_window7_224",
    "vit_relpos_medium_patch16_cls_224",
]


@pytest.fixture(scope="module")
def registry() -> dict[str, dict]:
    """Both encoders of every config in words, and their parts; models are built without memory."""
    found = {}
    for name in NAMES:
        model = without_memory(name)
        image, text = describe(open_image_tower, model), describe(open_text_tower, model)
        if "hf_model_name" in config_of(name)["text_cfg"]:
            text += HUB
        prints = fingerprint(model.visual), fingerprint(text_side(model))
        found[name] = {"image": image, "text": text, "prints": prints}
    return found


def describe(door, model) -> str:
    try:
        tower = door(model)
    except UnsupportedModel as refusal:
        return "refused: " + re.sub(r"^the (image|text) tower is a ", "", str(refusal))
    order = "" if door is open_image_tower else "causal, " if tower.causal else "not causal, "
    return f"{tower.kind}: {order}{tower.query_token}"


def table(registry) -> str:
    rows = defaultdict(list)
    for name, found in registry.items():
        rows[found["image"], found["text"]].append(name)
    lines = ["| image encoder | text encoder | configs of open_clip |", "| --- | --- | --- |"]
    for (image, text), names in sorted(
        rows.items(), key=lambda row: ("refused" in row[0][0], -len(row[1]), row[0])
    ):
        every = f"<details><summary>{len(names)}, such as {names[0]}</summary>{', '.join(names)}</details>"
        lines.append(f"| {image} | {text} | {every if len(names) > 1 else names[0]} |")
    explained = sum("refused" not in f["image"] for f in registry.values())
    texts = sum("refused" not in f["text"] for f in registry.values())
    sides = f"The image encoder of {explained} can be explained, and the text encoder of {texts}."
    count = f"open_clip {open_clip.__version__} registers {len(registry)} configs. {sides}"
    return "\n".join([count, "", *lines])


def test_every_registered_config_is_opened_or_refused_by_name(registry):
    assert len(registry) > 140
    refused = {registry[other]["prints"][0] for other in WITHOUT_ATTENTION}
    for name, found in registry.items():
        assert not found["text"].startswith("refused"), name
        assert not found["image"].startswith("refused") or found["prints"][0] in refused, name


def test_the_committed_table_is_what_the_code_says(registry):
    """GRADECLIP_WRITE_TABLE=1 rewrites it."""
    before, rest = TABLE.read_text().split(BEGIN)
    written, after = rest.split(END)
    if (
        "GRADECLIP_WRITE_TABLE" not in os.environ
        and f"open_clip {open_clip.__version__} " not in written
    ):
        pytest.skip(f"the table is of another open_clip than {open_clip.__version__}")
    if os.environ.get("GRADECLIP_WRITE_TABLE"):
        TABLE.write_text(f"{before}{BEGIN}\n{table(registry)}\n{END}{after}")
    else:
        message = "run GRADECLIP_WRITE_TABLE=1 pytest tests/towers/test_architectures.py -k committed_table"
        assert written.strip() == table(registry), message


def test_no_combination_of_parts_is_missing_from_those_that_are_executed_in_small(registry):
    models = [small(name) for name in EXECUTED + WITHOUT_ATTENTION]
    images, texts = (
        {fingerprint(model.visual) for model in models},
        {fingerprint(text_side(model)) for model in models},
    )
    for name, found in registry.items():
        assert found["prints"][0] in images, f"no image tower like that of {name} is executed"
        assert found["prints"][1] in texts, f"no text tower like that of {name} is executed"


def inputs_of(tower):
    if tower.name == "text":
        ends = tower.text_end if getattr(tower, "pool", "") == "eos" else 59
        return IDS.where(IDS != 59, ends)
    return torch.randn(2, 3, *tower.image_size, generator=torch.Generator().manual_seed(1))


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def coherent(tower, trace):
    """Attention collects what it gives, and what it gives leads to the embedding."""
    nothing = torch.zeros_like(torch.stack([layer.o for layer in trace.layers]))
    close(tower.embed_from_attention(trace, nothing), trace.embedding)
    close(tower.forward_from(trace, tower.first, trace.tokens), trace.embedding)
    for layer in trace.layers:
        close(layer.attention.sum(-1), torch.ones_like(layer.attention[..., 0]))
        close(torch.einsum("bhrn,bnhc->brhc", layer.attention, layer.v).flatten(2), layer.o)


def lowest_tokens(tower, model, inputs):
    """What enters block 0, recorded in the model's own pass."""
    seen, first = [], tower.blocks[0].module
    if first is getattr(model.visual, "attnpool", None):
        return tower.trace(inputs).tokens
    hook = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        tower.forward(inputs)
    finally:
        hook.remove()
    return seen[0]


@pytest.mark.parametrize("side", [open_image_tower, open_text_tower])
@pytest.mark.parametrize("name", EXECUTED)
def test_an_architecture_is_traced_as_it_computes(name, side):
    model = small(name)
    tower = side(model)
    inputs = inputs_of(tower)
    expected = tower.forward(inputs)
    assert (expected[0] - expected[1]).abs().max() > 1e-3, "the inputs must matter"
    trace = tower.trace(inputs)
    close(trace.embedding, expected)
    one_by_one = torch.cat([tower.trace(inputs[i : i + 1]).embedding for i in range(2)])
    close(trace.embedding, one_by_one)
    coherent(tower, trace)
    tokens = lowest_tokens(tower, model, inputs)[
        :, : trace.tokens.shape[1]
    ]  # no tower goes beyond the last EOT
    close(tower.forward_from(trace, 0, tokens), trace.embedding)
    maps = grad_eclip(tower, trace, torch.eye(tower.width)[None, :3].expand(2, -1, -1))
    assert (
        maps.shape == (2, 3, trace.tokens.shape[1]) and maps.isfinite().all() and (maps != 0).any()
    )
    assert (maps.masked_select(~trace.valid_mask[:, None]) == 0).all()
    if side is open_image_tower:
        assert int(trace.valid_mask[0].sum()) == trace.grid[0] * trace.grid[1]
        dense = tower.dense(trace)
        assert dense.shape == (*trace.valid_mask.shape, tower.width)
        close(dense.norm(dim=-1), torch.ones_like(dense[..., 0]))
        if tower.blocks[-1].latent:
            with pytest.raises(
                UnsupportedModel, match=r"attention pool .*the one layer where .*got image_layers=2"
            ):
                side(model, 2)
        elif tower.depth > 1:
            deeper = side(model, 2).trace(inputs)
            close(deeper.embedding, expected)
            assert len(deeper.layers) == 2
    half = side(copy.deepcopy(model).bfloat16())
    trace = half.trace(inputs)
    assert trace.embedding.dtype == trace.layers[0].o.dtype == torch.float32
    close(trace.embedding, half.forward(inputs), torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("side", [open_image_tower, open_text_tower])
@pytest.mark.parametrize("name", EXECUTED[::3])
def test_nothing_is_left_behind_and_training_mode_does_not_matter(name, side):
    model = copy.deepcopy(small(name))
    tower = side(model)
    inputs = inputs_of(tower)
    expected = tower.forward(inputs)
    model.train()
    model.logit_scale.requires_grad = False
    with torch.no_grad():
        before = state_of(model)
        tower.forward(inputs)
        trace = tower.trace(inputs)
        grad_eclip(tower, trace, torch.eye(tower.width)[None, :1].expand(2, -1, -1))
        if (
            trace.attention_mask is None or trace.attention_mask.shape[1] == 1
        ):  # T5's heads have a bias each
            tower.with_one_head(trace)
        assert state_of(model) == before
    close(trace.embedding, expected)


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-16-SigLIP",
        "PE-Core-T-16-384",
        "EVA02-B-16",
        "EVA02-E-14",
        "ViTamin-S",
        "MobileCLIP-B",
    ],
)
def test_another_grid_gets_the_positions_that_timm_would_give_it(name):
    model = small(name)
    tower = open_image_tower(model)
    down, across = tower.patch_size
    size = (4 * down, 6 * across)
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    trace = tower.trace(pixels)
    assert trace.grid == (4, 6)
    resized = copy.deepcopy(model)
    resized.visual.trunk.set_input_size(size)
    close(trace.embedding, open_image_tower(resized).forward(pixels))


def test_another_grid_gets_resized_positions_in_the_pool_of_a_resnet():
    model = small("RN50")
    pixels = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    trace = open_image_tower(model).trace(pixels)
    assert trace.grid == (3, 5)
    resized, positions = copy.deepcopy(model), model.visual.attnpool.positional_embedding.data
    square = positions[1:].T.reshape(1, -1, 2, 2)
    square = F.interpolate(square, (3, 5), mode="bicubic", antialias=True)[0].flatten(1).T
    resized.visual.attnpool.positional_embedding.data = torch.cat([positions[:1], square])
    close(trace.embedding, F.normalize(resized.encode_image(pixels), dim=-1).detach())


@pytest.mark.parametrize("name", WITHOUT_ATTENTION)
def test_where_there_is_no_attention_the_last_feature_map_can_still_be_had(name):
    model = small(name)
    with pytest.raises(UnsupportedModel, match="the image tower is a timm"):
        open_image_tower(model)
    tower = open_feature_map(model)
    pixels = inputs_of(tower).requires_grad_()
    trace = tower.trace(pixels)
    assert trace.layers == () and int(trace.valid_mask[0].sum()) == trace.grid[0] * trace.grid[1]
    close(trace.embedding, tower.forward(pixels))
    tokens = trace.tokens.clone().requires_grad_()
    embedding = tower.forward_from(trace, tower.depth, tokens)
    close(embedding.detach(), trace.embedding)
    assert torch.autograd.grad(embedding[0, 0], tokens)[0][0].abs().max() > 0
    assert torch.autograd.grad(tower.embed_pixels(pixels)[0, 0], pixels)[0][0].abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
