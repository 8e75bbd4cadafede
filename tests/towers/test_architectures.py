"""Each config of open_clip is opened or refused by name, and each kind of tower is executed."""

import copy
import os
import re
from collections import defaultdict

import open_clip
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.towers import UnsupportedModel, open_image_tower, open_text_tower
from tests.conftest import ROOT
from tests.shrinking import (
    IDS,
    NAMES,
    config_of,
    fingerprint,
    shrink,
    small,
    text_side,
    without_memory,
)
from tests.test_explainer import state_of

TABLE = ROOT / "docs" / "architectures.md"
BEGIN = "<!-- architectures: written by tests/towers/test_architectures.py -->"
END = "<!-- /architectures -->"
WRITE = "GRADECLIP_WRITE_TABLE"
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
    "coca_roberta-ViT-B-32",
]
REFUSED_IMAGES = [
    "convnext_tiny",
    "convnext_large_d",
    "MobileCLIP-S1",
    "MobileCLIP2-S3",
    "swin_base_patch4_window7_224",
    "vit_relpos_medium_patch16_cls_224",
]
REFUSED_TEXTS = ["mt5-base-ViT-B-32", "nllb-clip-base"]


@pytest.fixture(scope="module")
def registry() -> dict[str, dict]:
    """Both encoders of every config in words, and their parts; models are built without memory."""
    encoders = {}
    read = {}  # many configs differ in their sizes alone
    for name in NAMES:
        kind = str(shrink(config_of(name)))
        if kind not in read:
            read[kind] = read_config(name)
        encoders[name] = read[kind]
    return encoders


def read_config(name: str) -> dict:
    model = without_memory(name)
    image = describe(open_image_tower, model)
    text = describe(open_text_tower, model)
    if "hf_model_name" in config_of(name)["text_cfg"]:
        text += HUB
    return {
        "image": image,
        "text": text,
        "image_parts": fingerprint(model.visual),
        "text_parts": fingerprint(text_side(model)),
    }


def describe(opens, model) -> str:
    try:
        tower = opens(model)
    except UnsupportedModel as refusal:
        return "refused: " + re.sub(r"^the (image|text) tower is a ", "", str(refusal))
    if opens is open_image_tower:
        return f"{tower.kind}: {tower.query_token}"
    order = "causal" if tower.causal else "not causal"
    return f"{tower.kind}: {order}, {tower.query_token}"


def table(registry) -> str:
    names_of = defaultdict(list)
    for name, encoders in registry.items():
        names_of[encoders["image"], encoders["text"]].append(name)

    def refused_last_common_first(row):
        (image, text), names = row
        return "refused" in image, "refused" in text, -len(names), image

    lines = ["| image encoder | text encoder | configs of open_clip |", "| --- | --- | --- |"]
    for (image, text), names in sorted(names_of.items(), key=refused_last_common_first):
        cell = names[0]
        if len(names) > 1:
            summary = f"<summary>{len(names)}, such as {names[0]}</summary>"
            cell = f"<details>{summary}{', '.join(names)}</details>"
        lines.append(f"| {image} | {text} | {cell} |")

    opened = {
        side: sum("refused" not in encoders[side] for encoders in registry.values())
        for side in ("image", "text")
    }
    count = (
        f"open_clip {open_clip.__version__} registers {len(registry)} configs. The image encoder "
        f"of {opened['image']} can be explained, and the text encoder of {opened['text']}."
    )
    return "\n".join([count, "", *lines])


@pytest.mark.parametrize(
    ("side", "refused"),
    [
        ("image", REFUSED_IMAGES),
        ("text", REFUSED_TEXTS),
    ],
)
def test_every_registered_config_is_opened_or_of_a_kind_that_is_refused(registry, side, refused):
    assert len(registry) > 140
    refused_parts = {registry[name][f"{side}_parts"] for name in refused}
    for name, encoders in registry.items():
        is_refused = encoders[side].startswith("refused")
        assert is_refused == (encoders[f"{side}_parts"] in refused_parts), name


def test_the_committed_table_is_what_the_code_says(registry):
    """GRADECLIP_WRITE_TABLE=1 rewrites it."""
    before, _, section = TABLE.read_text().partition(BEGIN)
    written, _, after = section.partition(END)
    if WRITE in os.environ:
        new_table = f"{BEGIN}\n{table(registry)}\n{END}"
        TABLE.write_text(f"{before}{new_table}{after}")
    elif f"open_clip {open_clip.__version__} " not in written:
        pytest.skip(f"the table is of another open_clip than {open_clip.__version__}")
    else:
        assert written.strip() == table(registry), f"run with {WRITE}=1"


def image_side(model):
    return model.visual


@pytest.mark.parametrize(
    ("side", "part_of"),
    [
        ("image", image_side),
        ("text", text_side),
    ],
)
def test_no_combination_of_parts_is_missing_from_those_that_are_executed(registry, side, part_of):
    executed_parts = [part_of(small(name)) for name in EXECUTED]
    executed = set(map(fingerprint, executed_parts))
    for name, encoders in registry.items():
        if not encoders[side].startswith("refused"):
            parts = encoders[f"{side}_parts"]
            assert parts in executed, f"no {side} tower like that of {name}"


def inputs_of(tower):
    """Two inputs of a small model."""
    if tower.name == "text":
        end = tower.text_end if getattr(tower, "pool", "") == "eos" else 59
        return IDS.where(IDS != 59, end)
    return torch.randn(2, 3, *tower.image_size, generator=torch.Generator().manual_seed(1))


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def close_to_one(values):
    close(values, torch.ones_like(values))


def coherent(tower, trace):
    """Attention collects o, and o leads to the embedding."""
    outputs = torch.stack([layer.o for layer in trace.layers])
    nothing = torch.zeros_like(outputs)
    close(tower.embed_from_attention(trace, nothing), trace.embedding)
    close(tower.forward_from(trace, tower.first, trace.tokens), trace.embedding)
    for layer in trace.layers:
        close_to_one(layer.attention.sum(dim=-1))
        collected = torch.einsum("bhrn,bnhc->brhc", layer.attention, layer.v)
        close(collected.flatten(2), layer.o)


def lowest_tokens(tower, model, inputs):
    """The tokens that enter block 0, recorded in the model's own pass."""
    first = tower.blocks[0].module
    if first is getattr(model.visual, "attnpool", None):
        return tower.trace(inputs).tokens
    recorded = []
    hook = first.register_forward_pre_hook(lambda module, args: recorded.append(args[0]))
    try:
        tower.forward(inputs)
    finally:
        hook.remove()
    return recorded[0]


def three_directions(tower):
    first_channels = torch.eye(tower.width)[:3]
    return first_channels.expand(2, -1, -1)


@pytest.mark.parametrize("opens", [open_image_tower, open_text_tower])
@pytest.mark.parametrize("name", EXECUTED)
def test_an_architecture_is_traced_as_it_computes(name, opens):
    model = small(name)
    tower = opens(model)
    inputs = inputs_of(tower)
    expected = tower.forward(inputs)
    difference = expected[0] - expected[1]
    assert difference.abs().max() > 1e-3, "the inputs must matter"

    trace = tower.trace(inputs)
    close(trace.embedding, expected)
    for single, embedding in zip(inputs.split(1), trace.embedding.split(1), strict=True):
        close(tower.trace(single).embedding, embedding)
    coherent(tower, trace)

    # no tower goes beyond the last EOT
    tokens_read = trace.tokens.shape[1]
    tokens = lowest_tokens(tower, model, inputs)[:, :tokens_read]
    close(tower.forward_from(trace, 0, tokens), trace.embedding)

    maps = grad_eclip(tower, trace, three_directions(tower))
    assert maps.shape == (2, 3, trace.tokens.shape[1])
    assert maps.isfinite().all()
    assert (maps != 0).any()
    assert (maps.masked_select(~trace.valid_mask[:, None]) == 0).all()


@pytest.mark.parametrize("name", EXECUTED)
def test_an_image_encoder_has_dense_features_and_deeper_layers_unless_it_ends_in_a_pool(name):
    model = small(name)
    tower = open_image_tower(model)
    inputs = inputs_of(tower)
    trace = tower.trace(inputs)
    rows, columns = trace.grid
    assert trace.valid_mask[0].sum() == rows * columns

    dense = tower.dense(trace)
    assert dense.shape == (*trace.valid_mask.shape, tower.width)
    close_to_one(dense.norm(dim=-1))

    if tower.blocks[-1].latent:
        message = r"attention pool .*the one layer where .*got image_layers=2"
        with pytest.raises(UnsupportedModel, match=message):
            open_image_tower(model, 2)
    elif tower.depth > 1:
        deeper = open_image_tower(model, 2).trace(inputs)
        close(deeper.embedding, trace.embedding)
        assert len(deeper.layers) == 2


@pytest.mark.parametrize("opens", [open_image_tower, open_text_tower])
@pytest.mark.parametrize("name", EXECUTED)
def test_half_precision_is_traced_to_it_and_explained_in_float32(name, opens):
    tower = opens(copy.deepcopy(small(name)).bfloat16())
    inputs = inputs_of(tower)
    trace = tower.trace(inputs)
    assert trace.embedding.dtype == trace.layers[0].o.dtype == torch.float32
    close(trace.embedding, tower.forward(inputs), torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("opens", [open_image_tower, open_text_tower])
@pytest.mark.parametrize("name", EXECUTED[::3])
def test_nothing_is_left_behind_and_training_mode_does_not_matter(name, opens):
    model = copy.deepcopy(small(name))
    tower = opens(model)
    inputs = inputs_of(tower)
    expected = tower.forward(inputs)

    model.train()
    model.logit_scale.requires_grad = False
    with torch.no_grad():
        before = state_of(model)
        tower.forward(inputs)
        trace = tower.trace(inputs)
        grad_eclip(tower, trace, three_directions(tower))
        tower.with_one_head(trace)
        assert state_of(model) == before
    close(trace.embedding, expected)


RESIZED = ["ViT-B-16-SigLIP", "PE-Core-T-16-384", "EVA02-B-16", "EVA02-E-14", "ViTamin-S"]


@pytest.mark.parametrize("name", [*RESIZED, "MobileCLIP-B"])
def test_another_grid_gets_the_positions_that_timm_would_give_it(name):
    model = small(name)
    tower = open_image_tower(model)
    patch_height, patch_width = tower.patch_size
    size = (4 * patch_height, 6 * patch_width)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, *size, generator=generator)
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

    resized = copy.deepcopy(model)
    positions = resized.visual.attnpool.positional_embedding
    of_mean, of_patches = positions.data.split([1, 4])  # (1, D), (4, D)
    square = of_patches.T.reshape(1, -1, 2, 2)
    square = F.interpolate(square, (3, 5), mode="bicubic", antialias=True)
    of_patches = square[0].flatten(1).T
    positions.data = torch.cat([of_mean, of_patches])
    expected = F.normalize(resized.encode_image(pixels), dim=-1)
    close(trace.embedding, expected.detach())
