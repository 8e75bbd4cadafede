"""Loading: every form of weights gives an ordinary model of open_clip, and what cannot be loaded is refused."""

import json
import os
import pickle
import time

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from gradeclip_utils import Clip, Explainer, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.models import loading
from gradeclip_utils.models import open_clip as weights_of
from gradeclip_utils.models.open_clip import said_in_files
from tests.refusals.cases import named
from tests.shrinking import small

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """Small architectures, as if open_clip had them, one with a twin of quick GELU, and a hub out of reach."""
    for name, config in (("ViT-tiny", CONFIG), ("ViT-two", CONFIG), ("ViT-two-quickgelu", CONFIG)):
        config = {**config, "quick_gelu": True} if name.endswith("quickgelu") else config
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    monkeypatch.setattr(weights_of.hub, "HF_HUB_OFFLINE", True)
    for variable in ("MODEL", "PRETRAINED", "DEVICE"):
        monkeypatch.delenv(f"GRADECLIP_{variable}", raising=False)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG).eval()


def embeddings(model, prompt="a red car and a car"):
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    tokens = open_clip.SimpleTokenizer(context_length=20)([prompt])
    with torch.no_grad():
        return torch.cat([model.encode_image(pixels), model.encode_text(tokens)]).float()


def saved(state, path, **options):
    save_file({key: value.clone() for key, value in state.items()}, path, **options)
    return path


def quick(model):
    copy = open_clip.CLIP(**CONFIG, quick_gelu=True).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def as_openai(model):
    """The model with the three numbers that OpenAI's archives hold among the weights."""
    archived = quick(model)
    for name, value in (("input_resolution", 32), ("context_length", 20), ("vocab_size", 49408)):
        if hasattr(archived, name):
            delattr(archived, name)
        archived.register_buffer(name, torch.tensor(value))
    del archived.attn_mask  # a buffer in open_clip, but not in the archives
    return archived


def in_folder(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    saved(model.state_dict(), folder / "open_clip_model.safetensors")
    images = {"mean": [0.3] * 3, "std": [0.2] * 3, "size": 32}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": images})
    )
    return folder


def in_cache(model, cache):
    """The folder as the repository somebody/model of a hub's cache."""
    repository = cache / "models--somebody--model"
    in_folder(model, repository / "snapshots/abc")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")


@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "model."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt", "in hand"])
def test_a_checkpoint_gives_the_model_that_was_saved(model, tmp_path, suffix, prefix):
    path, state = (
        tmp_path / f"weights{suffix}",
        {prefix + key: value for key, value in model.state_dict().items()},
    )
    if suffix == ".safetensors":
        saved(state, path)
    else:
        state = {"epoch": 3, "state_dict": state} if prefix else state
        torch.save(state, path)
    clip = load_clip("ViT-tiny", state if suffix == "in hand" else path)
    assert torch.equal(embeddings(clip.model), embeddings(model)) and not clip.model.training
    assert (clip.name, clip.pretrained) == (
        "ViT-tiny",
        "a state dict in hand" if suffix == "in hand" else str(path),
    )
    assert all(parameter.requires_grad for parameter in clip.model.parameters())
    assert clip.preprocess(Image.new("RGB", (40, 50))).shape == (3, 32, 32) and clip.tokenizer(
        ["a"]
    ).shape == (1, 20)


def test_half_precision_weights_of_another_grid_of_patches_are_resized(model):
    large = open_clip.CLIP(
        **{**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": 48}}
    ).half()
    clip = load_clip("ViT-tiny", large.state_dict())
    assert clip.model.visual.positional_embedding.shape == (17, 64)


def test_loading_draws_no_random_numbers(model):
    before = torch.get_rng_state()
    for clip in (load_clip(), load_clip("ViT-tiny", model.state_dict())):
        assert torch.equal(torch.get_rng_state(), before) and torch.isfinite(clip.model.logit_scale)


def test_a_folder_and_a_hub_hold_config_and_weights(model, tmp_path, monkeypatch):
    folder = in_folder(model, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (folder, str(folder), "mine", "~/mine", f"local-dir:{folder}", "local-dir:~/mine"):
        assert torch.equal(embeddings(load_clip(name).model), embeddings(model))
    tuned = {
        key: value + 0.01 if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    for weights in (tuned, saved(tuned, tmp_path / "tuned.safetensors")):
        assert torch.equal(load_clip(folder, weights).model.state_dict()[FIRST], tuned[FIRST])
    with pytest.raises(GradeclipError, match="There is no file of weights epoch_3.pt"):
        load_clip(folder, pretrained="epoch_3.pt")
    in_cache(model, tmp_path)
    monkeypatch.setattr(weights_of.hub, "HF_HUB_CACHE", str(tmp_path))
    clip = load_clip("hf-hub:somebody/model")
    assert torch.equal(embeddings(clip.model), embeddings(model))
    assert (
        clip.name == "hf-hub:somebody/model"
        and list(clip.preprocess.transforms[-1].mean) == [0.3] * 3
    )


@pytest.mark.parametrize(
    ("precision", "inner", "norm"),
    [("bf16", torch.bfloat16, torch.float32), ("pure_fp16", torch.float16, torch.float16)],
)
def test_precision_means_what_it_means_to_open_clip(model, precision, inner, norm):
    block = load_clip(
        "ViT-tiny", model.state_dict(), precision=precision
    ).model.visual.transformer.resblocks[0]
    assert (block.mlp.c_fc.weight.dtype, block.ln_1.weight.dtype) == (inner, norm)


@pytest.mark.parametrize("form", ["archive", "state dict", "state dict in hand"])
def test_weights_in_the_form_of_openai_run_with_their_own_activation(model, tmp_path, form):
    archived, path = as_openai(model), tmp_path / "ViT.pt"
    if form == "archive":
        pixels = torch.zeros(1, 3, 32, 32)
        torch.jit.save(
            torch.jit.trace_module(archived, {"encode_image": pixels}, check_trace=False), path
        )
    elif form == "state dict":
        torch.save(archived.state_dict(), path)
    clip = load_clip("ViT-two", archived.state_dict() if "hand" in form else path)
    assert torch.equal(embeddings(clip.model), embeddings(quick(model)))
    assert not torch.allclose(embeddings(clip.model), embeddings(model), atol=1e-3), (
        "GELU is another model"
    )


def test_a_tag_runs_with_the_activation_that_it_was_trained_with(
    model, tmp_path, monkeypatch, recwarn
):
    in_cache(model, tmp_path)
    tag = {"hf_hub": "somebody/model/", "quick_gelu": True, "mean": (0.1,) * 3, "std": (0.2,) * 3}
    tags = {"openai": tag, "laion": {**tag, "quick_gelu": False}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-two", tags)
    monkeypatch.setattr(weights_of.hub, "HF_HUB_CACHE", str(tmp_path))
    clip = load_clip("ViT-two", "openai")
    assert torch.equal(embeddings(clip.model), embeddings(quick(model))) and not list(recwarn)
    assert clip.preprocess.transforms[-1].mean == (0.1,) * 3
    assert torch.equal(embeddings(load_clip("ViT-two", "laion").model), embeddings(model))


@pytest.mark.parametrize("form", ["a file", "a state dict"])
def test_weights_that_do_not_say_their_activation_are_refused_with_both_names(
    model, tmp_path, monkeypatch, form
):
    tags = {"openai": {"quick_gelu": True}, "dfn2b": {"quick_gelu": True}, "laion": {}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-two", tags)
    state = model.state_dict()
    weights = saved(state, tmp_path / "weights.safetensors") if form == "a file" else state
    message = r"does not say its activation.*'ViT-two-quickgelu' .*\(openai, dfn2b\), or 'ViT-two-gelu' for ViT-two"
    with pytest.raises(GradeclipError, match=message):
        load_clip("ViT-two", weights)
    assert torch.equal(
        embeddings(load_clip("ViT-two-quickgelu", weights).model), embeddings(quick(model))
    )
    assert torch.equal(embeddings(load_clip("ViT-two-gelu", weights).model), embeddings(model))


def test_a_file_of_fine_tuning_says_its_activation(model, tmp_path):
    for one in (model, quick(model)):
        path = saved(one.state_dict(), tmp_path / "tuned.safetensors", metadata=said_in_files(one))
        assert torch.equal(embeddings(load_clip("ViT-two", path).model), embeddings(one))


def test_a_file_takes_the_normalisation_that_the_published_weights_share(model, monkeypatch):
    tags = {
        "one": {"mean": (0.3,) * 3, "std": (0.2,) * 3},
        "two": {"mean": (0.3,) * 3, "std": (0.1,) * 3},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", tags)
    normalize = load_clip("ViT-tiny", model.state_dict()).preprocess.transforms[-1]
    assert normalize.mean == (0.3,) * 3 and normalize.std == open_clip.OPENAI_DATASET_STD


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-was-done",)


def broken_files(folder):
    """Files that look like checkpoints and are not, and the reason that is given for each."""
    torch.save({"weight": torch.zeros(999)}, folder / "good.pt")
    whole = (folder / "good.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "page.pt").write_text("<html>404</html>")
    (folder / "four.pt").write_text("dear")
    (folder / "zeros.pt").write_bytes(bytes(4000))
    (folder / "empty.pt").touch()
    (folder / "harmful.bin").write_bytes(pickle.dumps({"weight": Harmful()}, protocol=2))
    torch.save(nn.Linear(2, 2), folder / "object.pt")
    torch.save({"epoch": 3, "model": {"weight": torch.zeros(2)}}, folder / "nested.pt")
    torch.save([torch.zeros(2)], folder / "list.pt")
    save_file({"weight": torch.zeros(999)}, folder / "good.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:999])
    (folder / "weights.zip").touch()
    os.mkfifo(folder / "pipe.pt")  # which waits for a writer when it is opened
    return {
        "cut.pt": "damaged",
        "page.pt": "damaged",
        "four.pt": "damaged",
        "zeros.pt": "damaged",
        "empty.pt": "damaged",
        "cut.safetensors": "damaged",
        "harmful.bin": "pickled Python objects|damaged",
        "object.pt": "pickled Python objects",
        "nested.pt": "expected names and tensors.*got epoch, model",
        "list.pt": "no state dict",
        "weights.zip": "does not end like a checkpoint",
        ".": "is a folder",
        "pipe.pt": "is a pipe or a device",
    }


def test_a_file_that_is_no_checkpoint_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, message in broken_files(tmp_path).items():
        with pytest.raises(GradeclipError, match=message) as caught:
            load_clip("ViT-tiny", tmp_path / name)
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value), name
    assert not (tmp_path / "harm-was-done").exists()


FIRST = "visual.conv1.weight"
STATES = [
    (
        "of int8, quantised",
        {FIRST: torch.zeros(64, 3, 8, 8, dtype=torch.int8)},
        "integers .*conv1.weight is int8",
    ),
    (
        "of complex numbers",
        {FIRST: torch.zeros(64, 3, 8, 8, dtype=torch.complex64)},
        "conv1.weight is complex64",
    ),
    (
        "without values",
        {FIRST: torch.zeros(64, 3, 8, 8, device="meta")},
        "conv1.weight is on the device 'meta'",
    ),
    ("sparse", {FIRST: torch.zeros(64, 3, 8, 8).to_sparse()}, "conv1.weight is sparse_coo"),
    ("of texts", {FIRST: "a string"}, "holds no state dict"),
    (
        "of another shape",
        {FIRST: torch.zeros(9, 3, 8, 8)},
        r"conv1.weight is \[9, 3, 8, 8\] in .* and \[64, 3",
    ),
    (
        "with a part too many",
        {"head.weight": torch.zeros(2)},
        "^the state dict is .* it has besides head.weight",
    ),
    (
        "without a part",
        {"visual.proj": None},
        "ViT-tiny, but of a different architecture: it lacks visual.proj",
    ),
    (
        "with NaN",
        {"visual.proj": torch.full((64, 32), torch.nan)},
        r"not finite \(NaN\): visual.proj",
    ),
    (
        "with positions that are no square",
        {"visual.positional_embedding": torch.zeros(12, 64)},
        "different arch",
    ),
]


@pytest.mark.parametrize(("change", "message"), named(STATES))
def test_a_state_dict_that_cannot_be_the_model_is_refused(model, change, message):
    state = {
        key: value for key, value in {**model.state_dict(), **change}.items() if value is not None
    }
    with pytest.raises(GradeclipError, match=message):
        load_clip("ViT-tiny", state)


def test_weights_of_another_width_are_refused_in_one_sentence(model, tmp_path):
    path = saved(
        model.state_dict(), tmp_path / "weights.safetensors", metadata={"quick_gelu": "False"}
    )
    with pytest.raises(
        GradeclipError, match=r"weights\.safetensors is not a checkpoint of ViT-B-32, but"
    ):
        load_clip("ViT-B-32", path)
    with pytest.raises(
        GradeclipError,
        match="weights.safetensors holds weights: give their architecture as the name",
    ):
        load_clip(path)
    with pytest.raises(GradeclipError, match="not the config of a model|not a compact checkpoint"):
        load_clip("emoji", path)


def test_a_damaged_folder_of_open_clip_is_refused_with_the_reason(model, tmp_path):
    place = in_folder(model, tmp_path)
    good = json.loads((place / "open_clip_config.json").read_text())

    def vision(**change):
        return json.dumps(
            {**good, "model_cfg": {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], **change}}}
        )

    def images(**change):
        return json.dumps({**good, "preprocess_cfg": {**good["preprocess_cfg"], **change}})

    for config, message in [
        ("{}", "lacks 'model_cfg'"),
        ("[]", ""),
        ('{"model_cfg": {}}', "lacks"),
        ("dear", ""),
        (vision(patch_size=0), ""),
        (vision(width=96), r"local-dir:.*different architecture.*conv1.weight is \[64"),
        (
            json.dumps(
                {
                    **good,
                    "model_cfg": {
                        **CONFIG,
                        "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "x/y"},
                    },
                }
            ),
            "the tokenizer of local-dir:.* belong beside the weights",
        ),
        (images(mean="x"), ""),
        (images(std=0), ""),
        (images(interpolation="x"), ""),
        (images(resize_mode="x"), ""),
    ]:
        (place / "open_clip_config.json").write_text(config)
        with pytest.raises(GradeclipError, match=message):
            load_clip(place)
    (place / "open_clip_config.json").write_text(json.dumps(good))
    (place / "open_clip_model.safetensors").unlink()
    with pytest.raises(
        GradeclipError, match=r"a config and no weights: put open_clip_model\.safetensors beside it"
    ):
        load_clip(place)
    (place / "epoch_3.bin").write_bytes(b"dear")
    with pytest.raises(GradeclipError, match=r"epoch_3\.bin \(4 bytes\) is damaged"):
        load_clip(place)
    for name in (place.parent, place / "none", f"local-dir:{place}/none"):
        with pytest.raises(
            GradeclipError,
            match=f"no model in {place.parent}.*: a folder with open_clip_config.json",
        ):
            load_clip(name)


def test_weights_that_cannot_be_downloaded_name_both_ways_without_network():
    with pytest.raises(GradeclipError) as caught:
        load_clip("ViT-B-16", "openai")
    text = str(caught.value)
    assert "hf download timm/vit_base_patch16_clip_224.openai open_clip_model.safetensors" in text
    assert (
        '1. copy the file here and pass its path: load_clip("ViT-B-16-quickgelu", pretrained='
        in text
    )
    assert "models--timm--vit_base_patch16_clip_224.openai" in text and "HF_HOME" in text


def test_a_hub_out_of_reach_is_noticed_at_once(monkeypatch, model, tmp_path):
    monkeypatch.setattr(weights_of.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights_of.hub, "ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(GradeclipError, match=r"127.0.0.1:9 cannot be reached: .*refused"):
        load_clip("ViT-B-32", "openai")
    with pytest.raises(GradeclipError, match="somebody/model is not in the cache"):
        load_clip("hf-hub:somebody/model")
    place = in_folder(model, tmp_path)
    text = {"hf_model_name": "somebody/bert", "hf_tokenizer_name": "somebody/bert"}
    config = {"model_cfg": {**CONFIG, "text_cfg": text}, "preprocess_cfg": {}}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(GradeclipError, match="somebody/bert is not in the cache"):
        load_clip(place)
    assert time.monotonic() - begin < 20


def test_the_environment_decides_when_no_name_is_given(model, tmp_path, monkeypatch):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setenv("GRADECLIP_PRETRAINED", str(path))
    with pytest.raises(GradeclipError, match="ViT-B-32 needs weights: pretrained='openai' or"):
        load_clip("ViT-B-32")
    monkeypatch.setenv("GRADECLIP_MODEL", "ViT-tiny")
    clip = load_clip()
    assert (clip.name, clip.pretrained) == ("ViT-tiny", str(path))


@pytest.mark.parametrize(
    ("said", "gpus", "name", "given", "goes_to"),
    [
        ("", 0, None, None, "cpu"),
        ("", 1, None, None, "cuda"),  # a notebook's `load_clip()`
        ("", 1, "emoji", None, "cpu"),  # a program, which names its device
        ("cpu", 1, None, None, "cpu"),
        ("cuda:0", 1, "emoji", None, "cuda:0"),
        ("cuda", 1, None, "cpu", "cpu"),
    ],
)
def test_the_caller_the_environment_or_the_machine_say_the_device(
    monkeypatch, said, gpus, name, given, goes_to
):
    monkeypatch.setenv("GRADECLIP_DEVICE", said)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(loading, "load_bundled", lambda name, pretrained, device, precision: device)
    assert load_clip(name, device=given) == goes_to


def test_what_open_clip_returns_is_refused_with_the_two_lines_that_are_right(model):
    train, evaluation = (open_clip.image_transform(32, is_train=train) for train in (True, False))
    tokenizer = open_clip.get_tokenizer("ViT-tiny")
    assert (
        Explainer(Clip(model, evaluation, tokenizer))
        .explain(Image.new("RGB", (40, 50)), "a red car")
        .words
    )
    lines = r"load_clip\(.*create_model_from_pretrained\(.*Clip\(model, preprocess, open_clip.get_tokenizer\("
    with pytest.raises(
        GradeclipError, match=rf"random step RandomResizedCrop: it is the transform for tr.*{lines}"
    ):
        Clip(
            model, train, evaluation
        )  # the three that open_clip.create_model_and_transforms returns
    with pytest.raises(
        GradeclipError, match=rf"needs a tokenizer.*got a transform of images: {lines}"
    ):
        Clip(model, evaluation, train)


CLIPS = [
    ("no model", {"model": None}, "needs a model, a torch module with weights, got None"),
    ("a name for a model", {"model": "ViT-B-32"}, r"got 'ViT-B-32': load_clip\("),
    ("a model without weights", {"model": nn.ReLU()}, r"got ReLU\(\)"),
    (
        "a model without values",
        {"model": nn.Linear(2, 2, device="meta")},
        "got one on the device 'meta'",
    ),
    (
        "no preprocessing",
        {"preprocess": None},
        "needs a preprocessing, a function of an image, got None",
    ),
    (
        "a name for a tokenizer",
        {"tokenizer": "bpe"},
        "needs a tokenizer, a function of a list of texts, got 'bpe'",
    ),
    (
        "the function that makes tokenizers",
        {"tokenizer": open_clip.get_tokenizer},
        "needs a tokenizer",
    ),
    (
        "one text for a vocabulary",
        {"vocabulary": "a dog"},
        "vocabulary must be a list, got 'a dog'",
    ),
    (
        "words that are numbers",
        {"vocabulary": [5]},
        "each word of vocabulary must be a text, got 5",
    ),
    ("a number for a name", {"name": 5}, "name must be a text, got 5"),
    ("half a layer", {"text_layers": 1.5}, "text_layers must be a whole number, got 1.5"),
]


@pytest.mark.parametrize(("change", "message"), named(CLIPS))
def test_a_clip_of_wrong_parts_is_refused(model, change, message):
    parts = {
        "model": model,
        "preprocess": open_clip.image_transform(32, False),
        "tokenizer": None,
        **change,
    }
    with pytest.raises(GradeclipError, match=message):
        Clip(**parts)


def made_of(model, **options):
    return Clip(model, open_clip.image_transform(32, False), open_clip.SimpleTokenizer(), **options)


def test_a_clip_is_printed_in_three_lines_with_what_is_explained(model):
    assert repr(made_of(model, vocabulary=frozenset("abc"), training="somehow")).splitlines() == [
        "custom (weights not named), knows 3 words, training: somehow",
        "  image: VisionTransformer, 1 of 2 layers explained, 4 x 4 patches, CLS reads",
        "  text: TextTransformer, 1 of 2 layers explained, up to 20 tokens, EOT reads",
    ]
    assert "image: VisionTransformer, 2 of 2 layers" in str(made_of(model, image_layers=2))


def test_every_family_is_printed():
    for name, line in (
        (
            "RN50",
            "image: ModifiedResNet, 1 of 1 layers explained, 2 x 2 patches, the mean of the patches",
        ),
        (
            "ViT-B-16-SigLIP",
            "image: timm VisionTransformer, 1 of 3 layers explained, 3 x 3 patches, a latent query",
        ),
        (
            "ViT-L-14-CLIPA",
            "image: VisionTransformer, 1 of 2 layers explained, 3 x 3 patches, all patches",
        ),
        (
            "convnext_tiny",
            "image: cannot be explained by attention: the image tower is a timm ConvNeXt: it is all",
        ),
    ):
        assert line in str(made_of(small(name)))
