"""Loading: by open_clip, with the activation and the images that the weights were trained with."""

import json

import huggingface_hub
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gradeclip_utils import Clip, Explainer, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.models import loading
from tests.shrinking import small

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
QUICK = {**CONFIG, "quick_gelu": True}
MEAN = (0.3, 0.3, 0.3)
STD = (0.2, 0.2, 0.2)


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch, tmp_path):
    """Small architectures, one with a twin of QuickGELU; a hub that is out of reach."""
    for name, config in (("ViT-tiny", CONFIG), ("ViT-two", CONFIG), ("ViT-two-quickgelu", QUICK)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for variable in ("MODEL", "PRETRAINED", "DEVICE"):
        monkeypatch.delenv(f"GRADECLIP_{variable}", raising=False)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture
def file(model, tmp_path):
    return save(model, tmp_path / "weights.safetensors")


@pytest.fixture
def cached(model, tmp_path):
    """The repository somebody/model in the hub's cache."""
    repository = tmp_path / "cache/models--somebody--model"
    write_folder(model, repository / "snapshots/abc")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")


def save(model, path):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(state, path)
    return path


def write_folder(model, folder):
    """A folder as open_clip pushes it to a hub."""
    folder.mkdir(parents=True)
    save(model, folder / "open_clip_model.safetensors")
    preprocess = {"mean": MEAN, "std": STD, "size": 32}
    config = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(config)
    return folder


def publish(monkeypatch, name, tags):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)


def with_quick_gelu(model):
    copy = open_clip.CLIP(**QUICK).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def embeddings(model):
    shades = torch.linspace(-1, 1, 3 * 32 * 32)
    pixels = shades.reshape(1, 3, 32, 32)
    tokenizer = open_clip.SimpleTokenizer(context_length=20)
    tokens = tokenizer(["a red car and a car"])
    with torch.no_grad():
        return torch.cat([model.encode_image(pixels), model.encode_text(tokens)])


def assert_same(model, expected):
    assert embeddings(model).equal(embeddings(expected))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_gives_the_model_that_was_saved(model, file, tmp_path, suffix):
    if suffix == ".pt":
        file = tmp_path / "weights.pt"
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, file)
    clip = load_clip("ViT-tiny", file)
    assert_same(clip.model, model)
    assert (clip.name, clip.pretrained) == ("ViT-tiny", str(file))
    assert not clip.model.training
    image = Image.new("RGB", (40, 50))
    assert clip.preprocess(image).shape == (3, 32, 32)
    assert clip.tokenizer(["a"]).shape == (1, 20)


def write_torchscript(model, path):
    """A TorchScript archive with the names of OpenAI's: the weights, and three numbers."""
    archive = torch.nn.Module()
    for name in ("input_resolution", "context_length", "vocab_size"):
        archive.register_buffer(name, torch.tensor(7))
    for name, value in model.state_dict().items():
        *parents, last = name.split(".")
        place = archive
        for parent in parents:
            if parent not in dict(place.named_children()):
                place.add_module(parent, torch.nn.Module())
            place = place.get_submodule(parent)
        place.register_parameter(last, torch.nn.Parameter(value))
    torch.jit.script(archive).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_as_openai_published_it_gives_the_model_that_was_saved(model, tmp_path, recwarn):
    """As `~/.cache/clip` holds it."""
    file = write_torchscript(model, tmp_path / "ViT-tiny.pt")
    recwarn.clear()
    assert_same(load_clip("ViT-tiny", file).model, model)
    assert not [warning for warning in recwarn if "zip file" in str(warning.message)]


def test_a_folder_and_a_hub_hold_config_and_weights(model, cached, tmp_path, monkeypatch):
    folder = write_folder(model, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for name in (folder, str(folder), "mine", f"local-dir:{folder}", "hf-hub:somebody/model"):
        clip = load_clip(name)
        assert_same(clip.model, model)
        assert tuple(clip.preprocess.transforms[-1].mean) == MEAN
    assert clip.name == "hf-hub:somebody/model"


def test_a_file_replaces_the_weights_of_a_folder(model, tmp_path):
    folder = write_folder(model, tmp_path / "mine")
    tuned = open_clip.CLIP(**CONFIG).eval()  # other random weights
    file = save(tuned, tmp_path / "tuned.safetensors")
    clip = load_clip(folder, file)
    assert_same(clip.model, tuned)
    assert clip.pretrained == str(file)


@pytest.mark.parametrize(
    ("precision", "inner", "norm"),
    [("bf16", torch.bfloat16, torch.float32), ("pure_fp16", torch.float16, torch.float16)],
)
def test_precision_means_what_it_means_to_open_clip(file, precision, inner, norm):
    model = load_clip("ViT-tiny", file, precision=precision).model
    block = model.visual.transformer.resblocks[0]
    assert (block.mlp.c_fc.weight.dtype, block.ln_1.weight.dtype) == (inner, norm)


def test_a_tag_runs_with_the_activation_and_images_that_it_was_trained_with(
    model, cached, monkeypatch, recwarn
):
    laion = {"hf_hub": "somebody/model/"}
    openai = {**laion, "quick_gelu": True, "mean": MEAN, "std": STD}
    publish(monkeypatch, "ViT-two", {"openai": openai, "laion": laion})
    clip = load_clip("ViT-two", "openai")
    assert_same(clip.model, with_quick_gelu(model))
    assert not list(recwarn)
    assert clip.preprocess.transforms[-1].mean == MEAN
    assert_same(load_clip("ViT-two", "laion").model, model)


def test_a_file_that_does_not_say_its_activation_is_refused_with_both_names(model, file):
    with pytest.raises(GradeclipError, match="'ViT-two-quickgelu' if .*'ViT-two-gelu' if not"):
        load_clip("ViT-two", file)
    assert_same(load_clip("ViT-two-quickgelu", file).model, with_quick_gelu(model))
    assert_same(load_clip("ViT-two-gelu", file).model, model)


def test_a_file_takes_the_normalisation_of_the_first_published_weights(file, monkeypatch):
    publish(monkeypatch, "ViT-tiny", {"first": {"mean": MEAN, "std": STD}, "second": {}})
    normalize = load_clip("ViT-tiny", file).preprocess.transforms[-1]
    assert (normalize.mean, normalize.std) == (MEAN, STD)


def test_weights_that_cannot_be_downloaded_say_how_they_come_to_a_machine_without_network():
    message = (
        r"(?s)open_clip cannot load ViT-B-16: .*`hf download timm/vit_base_patch16_clip_224.openai`"
        r".*load_clip\('ViT-B-16-quickgelu', pretrained=PATH\)"
    )
    with pytest.raises(GradeclipError, match=message):
        load_clip("ViT-B-16", "openai")


def test_the_environment_decides_when_no_name_is_given(file, monkeypatch):
    monkeypatch.setenv("GRADECLIP_MODEL", "ViT-tiny")
    monkeypatch.setenv("GRADECLIP_PRETRAINED", str(file))
    clip = load_clip()
    assert (clip.name, clip.pretrained) == ("ViT-tiny", str(file))
    assert load_clip("emoji").pretrained == "bundled"


@pytest.mark.parametrize(
    ("variable", "has_gpu", "name", "argument", "device"),
    [
        ("", True, None, None, "cuda"),  # a notebook's `load_clip()`
        ("", True, "emoji", None, "cpu"),  # a program, which names its device
        ("cuda:0", True, "emoji", None, "cuda:0"),
        ("cuda", True, None, "cpu", "cpu"),
    ],
)
def test_the_caller_the_environment_or_the_machine_decides_the_device(
    monkeypatch, variable, has_gpu, name, argument, device
):
    monkeypatch.setenv("GRADECLIP_DEVICE", variable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(loading, "load_bundled", lambda name, pretrained, device, precision: device)
    assert load_clip(name, device=argument) == device


def test_what_open_clip_returns_is_refused_in_the_wrong_order_with_lines_that_are_right(model):
    train = open_clip.image_transform(32, is_train=True)
    evaluation = open_clip.image_transform(32, is_train=False)
    clip = Clip(model, evaluation, open_clip.get_tokenizer("ViT-tiny"))
    image = Image.new("RGB", (40, 50))
    assert Explainer(clip).explain(image, "a red car").words

    right = r"create_model_from_pretrained\(.*Clip\(model, preprocess, open_clip.get_tokenizer\("
    with pytest.raises(GradeclipError, match=f"random step RandomResizedCrop.*{right}"):
        Clip(model, train, evaluation)  # the three that create_model_and_transforms returns
    with pytest.raises(GradeclipError, match=f"got a transform of images: .*{right}"):
        Clip(model, evaluation, train)


def test_a_clip_is_printed_with_what_is_explained(model):
    preprocess = open_clip.image_transform(32, is_train=False)
    tokenizer = open_clip.SimpleTokenizer()
    clip = Clip(model, preprocess, tokenizer, vocabulary=frozenset("abc"), image_layers=2)
    text = str(clip)
    assert "3 words" in text
    assert "VisionTransformer, 2 of 2 layers" in text
    assert "TextTransformer, 1 of 2 layers" in text

    clip = Clip(small("convnext_tiny"), preprocess, tokenizer)
    assert "cannot be explained: the image tower is a timm ConvNeXt" in str(clip)
