"""Loading: every way in gives an ordinary, unmodified open_clip model, and every wrong way says what was wrong."""

import json
import os
import pickle
import time
import warnings

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gradeclip_utils import Clip, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.models import checkpoints, load_compact, loading, save_compact
from tests.shrinking import small

torch.set_num_threads(1)
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 32}
WORDS = ["a", "red", "car", "and", "unbelievable"]
PICTURE = Image.effect_noise((40, 50), 60).convert("RGB")


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """Two small architectures, as if open_clip shipped them, and a hub that nobody can reach."""
    quick = {**CONFIG, "quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", CONFIG)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-quickgelu", quick)
    monkeypatch.setattr(checkpoints.hub, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("GRADECLIP_MODEL", raising=False)
    monkeypatch.delenv("GRADECLIP_PRETRAINED", raising=False)
    monkeypatch.delenv("GRADECLIP_DEVICE", raising=False)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG).eval()


def embeddings(model, prompt="a red car and a car"):
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    tokens = open_clip.SimpleTokenizer(context_length=20)([prompt])
    with torch.no_grad():
        return torch.cat([model.encode_image(pixels), model.encode_text(tokens)]).float()


def saved(state, path):
    save_file({key: value.clone() for key, value in state.items()}, path)
    return path


def test_a_safetensors_checkpoint_gives_the_model_that_was_saved(model, tmp_path):
    clip = load_clip("ViT-tiny", saved(model.state_dict(), tmp_path / "weights.safetensors"))
    assert torch.equal(embeddings(clip.model), embeddings(model))
    assert not clip.model.training
    assert all(parameter.requires_grad for parameter in clip.model.parameters())


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_training_checkpoint_of_several_gpus_gives_the_model_that_was_saved(model, tmp_path, suffix):
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / f"weights{suffix}")
    clip = load_clip("ViT-tiny", tmp_path / f"weights{suffix}")
    assert torch.equal(embeddings(clip.model), embeddings(model))


def with_weights(model, **options):
    copy = open_clip.CLIP(**CONFIG, **options).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def test_an_archive_in_the_form_of_openai_runs_with_its_own_activation(model, tmp_path):
    archived = with_weights(model, quick_gelu=True)
    for name, value in (("input_resolution", 32), ("context_length", 20), ("vocab_size", 49408)):
        if hasattr(archived, name):
            delattr(archived, name)
        archived.register_buffer(name, torch.tensor(value))
    del archived.attn_mask  # a buffer in open_clip, but not in the archives
    archive = torch.jit.trace_module(archived, {"encode_image": torch.zeros(1, 3, 32, 32)}, check_trace=False)
    torch.jit.save(archive, tmp_path / "ViT.pt")
    clip = load_clip("ViT-tiny", tmp_path / "ViT.pt")
    assert torch.equal(embeddings(clip.model), embeddings(with_weights(model, quick_gelu=True)))
    assert not torch.allclose(embeddings(clip.model), embeddings(model), atol=1e-3), "GELU is another model"


def test_a_tag_runs_with_the_activation_that_it_was_trained_with(model, tmp_path, monkeypatch):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    tag = {"hf_hub": "somebody/model/", "quick_gelu": True, "mean": (0.1,) * 3, "std": (0.2,) * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", {"published": tag})
    monkeypatch.setattr(checkpoints, "try_to_load_from_cache", lambda repository, file: str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = load_clip("ViT-tiny", "published")
    assert torch.equal(embeddings(clip.model), embeddings(with_weights(model, quick_gelu=True)))
    assert clip.preprocess.transforms[-1].mean == (0.1,) * 3


def test_a_file_takes_the_normalisation_that_the_published_weights_share(model, tmp_path, monkeypatch):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    tags = {"one": {"mean": (0.3,) * 3, "std": (0.2,) * 3}, "two": {"mean": (0.3,) * 3, "std": (0.1,) * 3}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", tags)
    normalize = load_clip("ViT-tiny", path).preprocess.transforms[-1]
    assert normalize.mean == (0.3,) * 3
    assert normalize.std == open_clip.OPENAI_DATASET_STD


def test_a_file_whose_activation_is_open_is_loaded_with_a_warning(model, tmp_path, monkeypatch):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", {"openai": {"quick_gelu": True}, "other": {}})
    with pytest.warns(UserWarning, match=r"weights openai, pass 'ViT-tiny-quickgelu'"):
        load_clip("ViT-tiny", path)


def test_the_environment_decides_when_no_name_is_given(model, tmp_path, monkeypatch):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setenv("GRADECLIP_MODEL", "ViT-tiny")
    monkeypatch.setenv("GRADECLIP_PRETRAINED", str(path))
    clip = load_clip()
    assert (clip.name, clip.pretrained) == ("ViT-tiny", str(path))


def test_a_name_that_is_given_does_not_take_the_weights_of_the_environment(monkeypatch):
    monkeypatch.setenv("GRADECLIP_PRETRAINED", "openai")
    with pytest.raises(ValueError, match="ViT-B-32 needs weights: pretrained='openai' or"):
        load_clip("ViT-B-32")


@pytest.mark.parametrize(
    ("said", "gpus", "name", "given", "goes_to"),
    [
        ("", 0, None, None, "cpu"),
        ("", 1, None, None, "cuda"),  # a notebook's `load_clip()`
        ("", 1, "emoji", None, "cpu"),  # a name that is given is a program's, which says where things go
        ("cpu", 1, None, None, "cpu"),
        ("cuda:0", 1, "emoji", None, "cuda:0"),
        ("cuda", 1, None, "cpu", "cpu"),
    ],
)
def test_where_a_model_goes_is_said_by_the_caller_the_environment_or_the_machine(
    monkeypatch, said, gpus, name, given, goes_to
):
    monkeypatch.setenv("GRADECLIP_DEVICE", said)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(loading, "load_compact", lambda path, *, device, **named: device)
    assert load_clip(name, device=given) == goes_to


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("toaster", r"must be one that torch knows \(cpu.*got GRADECLIP_DEVICE=toaster"),
        ("cuda:99", "GRADECLIP_DEVICE=cuda:99 was asked for, and torch sees .* such GPU here"),
    ],
)
def test_a_device_of_the_environment_that_is_none_is_refused_by_the_variables_name(monkeypatch, said, message):
    monkeypatch.setenv("GRADECLIP_DEVICE", said)
    with pytest.raises(GradeclipError, match=message) as refused:
        load_clip()
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize(
    ("precision", "inner", "norm"),
    [("bf16", torch.bfloat16, torch.float32), ("pure_fp16", torch.float16, torch.float16)],
)
def test_precision_means_what_it_means_to_open_clip(model, tmp_path, precision, inner, norm):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    block = load_clip("ViT-tiny", path, precision=precision).model.visual.transformer.resblocks[0]
    assert (block.mlp.c_fc.weight.dtype, block.ln_1.weight.dtype) == (inner, norm)


def test_a_compact_file_gives_the_same_embeddings_for_prompts_of_its_words(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_compact(model, path, words=WORDS, metadata={"steps": "7"}, config={**CONFIG, "preprocess": PREPROCESS})
    clip = load_compact(path)
    half = open_clip.CLIP(**CONFIG).eval()
    half.load_state_dict({key: value.half() for key, value in model.state_dict().items()})
    for prompt in ("a red car, and a car.", "Unbelievable"):
        assert torch.allclose(embeddings(clip.model, prompt), embeddings(half, prompt), atol=1e-6)
    assert clip.vocabulary == set(WORDS)
    assert clip.preprocess(PICTURE).shape == (3, 32, 32)
    assert clip.tokenizer(["a car"]).shape == (1, 20)


def test_a_compact_file_is_small_and_its_model_has_the_full_vocabulary(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_compact(model, path, words=WORDS, metadata={}, config={**CONFIG, "preprocess": PREPROCESS})
    rows = load_compact(path).model.token_embedding.weight
    assert path.stat().st_size < 0.1 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert len(rows) == 49408
    known = {token for word in [*WORDS, ",", "."] for token in open_clip.SimpleTokenizer().encode(word)} | {
        49406,
        49407,
    }
    mean = model.token_embedding.weight[sorted(known)].half().float().mean(0)
    assert torch.allclose(rows[12345], mean, atol=1e-6)


def test_a_compact_file_in_other_precisions_is_what_open_clip_would_make_of_it(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_compact(model, path, words=WORDS, metadata={}, config={**CONFIG, "preprocess": PREPROCESS})
    mixed, pure = (load_compact(path, precision=precision).model for precision in ("bf16", "pure_bf16"))
    ordinary = open_clip.create_model("ViT-tiny", precision="bf16")
    kinds = {name: (type(module), module.weight.dtype) for name, module in ordinary.named_modules() if "ln_" in name}
    assert kinds == {
        name: (type(module), module.weight.dtype) for name, module in mixed.named_modules() if "ln_" in name
    }
    assert {parameter.dtype for parameter in pure.parameters()} == {torch.bfloat16}


def test_a_model_that_half_precision_cannot_hold_is_not_saved(model, tmp_path):
    model.logit_scale.data.fill_(1e6)
    with pytest.raises(ValueError, match="Not finite in half precision: logit_scale"):
        save_compact(model, tmp_path / "small.safetensors", words=WORDS, metadata={})


def test_a_checkpoint_that_is_not_compact_is_refused_as_the_bundled_model(model, tmp_path):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    path.with_suffix(".json").write_text(json.dumps({**CONFIG, "preprocess": PREPROCESS}))
    with pytest.raises(ValueError, match="not a compact checkpoint"):
        load_clip("emoji", path)


def test_a_file_of_weights_for_a_name_is_told_where_it_belongs(model, tmp_path):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="weights.safetensors holds weights: give their architecture as the name"):
        load_clip(path)


@pytest.mark.parametrize(("name", "nearest"), [("ViT-B-17", "ViT-B-16"), ("vit-b-32", "ViT-B-32"), ("emojy", "emoji")])
def test_an_unknown_name_suggests_the_nearest_ones(name, nearest):
    with pytest.raises(ValueError, match=rf"no model '{name}'. Nearest: .*{nearest}"):
        load_clip(name)


def test_an_unknown_tag_lists_those_that_exist():
    with pytest.raises(FileNotFoundError, match="'openaj' is neither a file nor a tag of ViT-B-16.*openai, laion400m"):
        load_clip("ViT-B-16", "openaj")


@pytest.mark.parametrize("option", [{"precision": "int8"}, {"device": "toaster"}])
def test_an_unknown_precision_or_device_is_named(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be .*{next(iter(option.values()))}"):
        load_clip(**option)


def test_weights_that_cannot_be_downloaded_name_their_size_and_both_ways_without_network():
    with pytest.raises(FileNotFoundError) as caught:
        load_clip("ViT-B-16", "openai")
    text = str(caught.value)
    assert "about 0.6 GB" in text
    assert "hf download timm/vit_base_patch16_clip_224.openai open_clip_model.safetensors" in text
    assert '1. copy the file here and pass its path: load_clip("ViT-B-16-quickgelu", pretrained=' in text
    assert "models--timm--vit_base_patch16_clip_224.openai" in text
    assert "HF_HOME" in text


def test_a_hub_out_of_reach_is_noticed_at_once(monkeypatch):
    monkeypatch.setattr(checkpoints.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(checkpoints.hub, "ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"127.0.0.1:9 cannot be reached: .*refused"):
        load_clip("ViT-B-32", "openai")
    with pytest.raises(FileNotFoundError, match="hf-hub:somebody/model is not in the cache"):
        load_clip("hf-hub:somebody/model")
    assert time.monotonic() - begin < 5


def test_weights_in_the_cache_are_found_without_network(tmp_path, monkeypatch):
    folder = tmp_path / "models--timm--vit_base_patch16_clip_224.openai"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/open_clip_model.safetensors").write_bytes(b"weights")
    find = checkpoints.try_to_load_from_cache
    monkeypatch.setattr(checkpoints, "try_to_load_from_cache", lambda *names: find(*names, cache_dir=tmp_path))
    assert checkpoints.find_weights("ViT-B-16", "openai").read_bytes() == b"weights"


def test_weights_from_an_address_are_found_at_home_before_anybody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(checkpoints.hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", {"own": {"url": "http://127.0.0.1:9/my.pt"}})
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        checkpoints.find_weights("ViT-tiny", "own")
    (tmp_path / ".cache/clip").mkdir(parents=True)
    (tmp_path / ".cache/clip/my.pt").write_bytes(b"weights")
    assert checkpoints.find_weights("ViT-tiny", "own").read_bytes() == b"weights"


def test_why_weights_do_not_fit_does_not_hang_on_the_words_of_torchs_error(model, tmp_path, monkeypatch):
    path = saved(model.state_dict() | {"head.weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    load = torch.nn.Module.load_state_dict

    def terse(module, *arguments, **options):
        try:
            return load(module, *arguments, **options)
        except RuntimeError:
            raise RuntimeError("no") from None

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", terse)
    with pytest.raises(ValueError, match=r"another architecture than ViT-tiny: it has besides head.weight\.\n"):
        load_clip("ViT-tiny", path)


def test_a_name_on_a_hub_is_loaded_from_the_cache_without_network(model, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--somebody--model/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--somebody--model/refs").mkdir()
    (tmp_path / "models--somebody--model/refs/main").write_text("abc")
    saved(model.state_dict(), snapshot / "open_clip_model.safetensors")
    picture = {"mean": [0.3] * 3, "std": [0.2] * 3, "size": 32}
    (snapshot / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": picture}))
    monkeypatch.setattr(checkpoints.hub, "HF_HUB_CACHE", str(tmp_path))
    clip = load_clip("hf-hub:somebody/model")
    assert torch.equal(embeddings(clip.model), embeddings(model))
    assert clip.name == "hf-hub:somebody/model" and list(clip.preprocess.transforms[-1].mean) == [0.3] * 3


def test_a_folder_that_open_clip_wrote_is_loaded(model, tmp_path):
    saved(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"size": 32}}))
    assert torch.equal(embeddings(load_clip(f"local-dir:{tmp_path}").model), embeddings(model))


def test_a_folder_is_its_own_name(model, tmp_path, monkeypatch):
    saved(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"size": 32}}))
    monkeypatch.chdir(tmp_path.parent)
    for name in (tmp_path, str(tmp_path), tmp_path.name):  # the last has no slash, as people type it
        assert torch.equal(embeddings(load_clip(name).model), embeddings(model))
    with pytest.raises(ValueError, match=r"has its weights beside its config .* no pretrained, got 'epoch_3\.pt'"):
        load_clip(tmp_path, pretrained="epoch_3.pt")  # would not be what is explained


@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "model."])
def test_a_state_dict_in_hand_gives_the_model_that_was_tuned(model, prefix):
    state = {prefix + key: value for key, value in model.state_dict().items()}
    clip = load_clip("ViT-tiny", {"epoch": 3, "state_dict": state} if prefix else state)
    assert torch.equal(embeddings(clip.model), embeddings(model))
    assert clip.pretrained == "a state dict in hand"


def test_weights_of_another_width_are_refused_in_one_sentence(model, tmp_path):
    path = saved(model.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(
        ValueError, match=r"weights\.safetensors is a checkpoint of another architecture than ViT-B-32: .*width"
    ):
        load_clip("ViT-B-32", path)


def test_a_state_dict_that_does_not_fit_says_what_is_missing_left_over_or_of_another_shape(model):
    state = model.state_dict() | {"head.weight": torch.zeros(2)}
    del state["visual.proj"]
    with pytest.raises(ValueError, match=r"^the state dict is .* it lacks visual.proj; it has besides head.weight"):
        load_clip("ViT-tiny", state)
    with pytest.raises(ValueError, match=r"visual.conv1.weight is \[9, 3, 8, 8\] in the file and \[64, 3, 8, 8\] in"):
        load_clip("ViT-tiny", model.state_dict() | {"visual.conv1.weight": torch.zeros(9, 3, 8, 8)})
    with pytest.raises(ValueError, match="a state dict holds names and tensors"):
        load_clip("ViT-tiny", {"visual.proj": "a string"})


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded: .*config file missing"):
        load_clip(f"local-dir:{tmp_path}")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-was-done",)


def broken_files(folder):
    """Files that look like checkpoints and are not, with what is said about each."""
    torch.save({"weight": torch.zeros(999)}, folder / "good.pt")
    whole = (folder / "good.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "page.pt").write_text("<html>404</html>")
    (folder / "text.pth").write_text("hello\n")
    (folder / "empty.pt").touch()
    (folder / "harmful.bin").write_bytes(pickle.dumps({"weight": Harmful()}, protocol=2))
    torch.save(torch.nn.Linear(2, 2), folder / "object.pt")
    torch.save({"epoch": 3, "model": {"weight": torch.zeros(2)}}, folder / "nested.pt")
    torch.save([torch.zeros(2)], folder / "list.pt")
    save_file({"weight": torch.zeros(999)}, folder / "good.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:999])
    (folder / "weights.zip").touch()
    return {
        "cut.pt": "damaged", "page.pt": "damaged", "text.pth": "damaged", "empty.pt": "damaged",
        "cut.safetensors": "damaged", "harmful.bin": "pickled Python objects|damaged",
        "object.pt": "pickled Python objects", "nested.pt": "the keys epoch, model", "list.pt": "no state dict",
        "weights.zip": "does not end like a checkpoint", ".": "is a folder",
    }  # fmt: skip


def test_a_file_that_is_no_checkpoint_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, message in broken_files(tmp_path).items():
        with pytest.raises(ValueError, match=message) as caught:
            load_clip("ViT-tiny", tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm-was-done").exists()


def test_a_checkpoint_of_another_architecture_says_which_shapes_do_not_fit(tmp_path):
    wider = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "width": 96}}
    path = saved(open_clip.CLIP(**wider).state_dict(), tmp_path / "wide.safetensors")
    message = (
        r"another architecture than ViT-tiny: .*visual.conv1.weight is \[96, 3, 8, 8\] in the file and \[64, 3, 8, 8\]"
    )
    with pytest.raises(ValueError, match=message):
        load_clip("ViT-tiny", path)


def test_a_checkpoint_with_other_layers_says_which_are_missing(model, tmp_path):
    state = {key: value for key, value in model.state_dict().items() if "visual.transformer.resblocks.1" not in key}
    state["something.else"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"it lacks visual.transformer.resblocks.1.*it has besides something.else"):
        load_clip("ViT-tiny", saved(state, tmp_path / "short.safetensors"))


def test_weights_that_are_not_finite_are_refused_by_name(model, tmp_path):
    model.visual.proj.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite \(NaN\): visual.proj"):
        load_clip("ViT-tiny", saved(model.state_dict(), tmp_path / "nan.safetensors"))


def test_a_model_in_hand_is_described_with_what_can_be_explained(model):
    text = Clip(model, None, open_clip.SimpleTokenizer(), vocabulary=frozenset(WORDS)).describe()
    assert "map of 4 x 4 patches (32 x 32 pixels); 2 layers of 2 heads, CLS reads" in text
    assert "up to 18 pieces" in text
    assert "only 5" in text
    assert "CLS reads; the last 1 by default" in text
    two = Clip(model, None, open_clip.SimpleTokenizer(), image_layers=2).describe()
    assert "CLS reads; the last 2 by default" in two


def test_a_model_whose_tokenizer_makes_no_words_is_described_so(model):
    text = Clip(model, None, lambda prompts: None).describe()
    assert "read as a whole (20 tokens; its tokenizer does not say which pieces make up a word)" in text


@pytest.mark.parametrize(
    ("name", "picture", "prompt"),
    [
        ("RN50", "ModifiedResNet, explained as a map of 2 x 2 patches (64 x 64 pixels); an attention pool of 8 heads, "
         "the mean of the patches reads", "causal, explained word by word"),
        ("ViT-B-16-SigLIP", "timm VisionTransformer, explained as a map of 3 x 3 patches (48 x 48 pixels); 2 layers of "
         "4 heads and an attention pool of 4 heads, a latent query reads", "not causal, explained word by word"),
        ("ViT-L-14-CLIPA", "2 layers of 4 heads, all patches read and are averaged", "the last token reads"),
        ("coca_ViT-B-32", "a latent query reads; the pool alone can be explained", "an appended CLS reads"),
    ],
)  # fmt: skip
def test_every_family_is_described(name, picture, prompt):
    text = Clip(small(name), None, open_clip.SimpleTokenizer(context_length=12)).describe()
    assert picture in text and prompt in text


def test_what_cannot_be_explained_is_described_with_the_reason():
    vision = {"timm_model_name": "convnext_atto", "timm_pool": "", "image_size": 64}
    model = open_clip.CLIP(**{**CONFIG, "vision_cfg": vision})
    text = Clip(model, None, open_clip.SimpleTokenizer(context_length=20)).describe()
    assert "image    cannot be explained by attention: the image tower is a timm ConvNeXt" in text
    assert "Grad-CAM, RISE and input gradients apply, on a map of 2 x 2 patches (64 x 64 pixels)" in text
    assert "explained word by word" in text
