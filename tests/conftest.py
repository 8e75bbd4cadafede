"""Models that the tests share. All have random weights from a fixed seed; nothing is downloaded."""

import importlib.util
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from gradeclip_utils import Clip, load_clip
from tests.browser import browser_context_args, browser_type_launch_args, lab

__all__ = ["browser_context_args", "browser_type_launch_args", "lab"]  # fixtures
ROOT = Path(__file__).parent.parent

torch.set_num_threads(int(os.environ.get("GRADECLIP_TEST_THREADS", "1")))


# `make quick` does not even import these files, nor those of browsers, studies and training
SLOW_FILES = "assignments installs live notebooks readme real_clip recipes rivals scenes".split()
SLOW_FILES += "security site slides".split()
FIRST = "notebooks assignments real_clip replication installs release".split()  # take longest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker runs whole files, but notebooks one by one: each is more work than most files."""
    from xdist.scheduler import LoadFileScheduling

    class LoadFileOrNotebook(LoadFileScheduling):
        def _split_scope(self, nodeid):
            if "/test_notebooks.py::" in nodeid:
                return nodeid.rpartition("[")[2]
            return super()._split_scope(nodeid)

    if config.getvalue("dist") == "loadfile":
        return LoadFileOrNotebook(config, log)
    return None


def pytest_ignore_collect(collection_path, config):
    """`make quick` leaves out what takes longest."""
    if not config.option.markexpr.startswith("not slow"):
        return None
    name = collection_path.stem
    if name in ("studies", "training") or name.endswith("_browser"):
        return True
    if name.removeprefix("test_") in SLOW_FILES:
        return True
    return None


def pytest_collection_modifyitems(items):
    """Long files start first, those with browsers come late, and methods and towers last.

    Playwright leaves an event loop running in its worker, inside which panels behave differently;
    methods and towers do not mind. Of the files with browsers the longest comes first: a JupyterLab
    with its kernel, or exporting the explorer, is like forty tests.
    """
    weights = Counter()
    for item in items:
        fixtures = set(item.fixturenames)
        takes_long = {"executed", "registry", "by_number"} & fixtures
        if takes_long or item.get_closest_marker("weekly"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("browser"):
            weights[item.path] += 1
    for item in items:
        if {"lab", "address"} & set(item.fixturenames):
            weights[item.path] = 40

    def turn(item):
        if item.path.parent.name in ("methods", "towers"):
            return 3
        if item.path in weights:
            return 2
        return 0 if item.path.stem.removeprefix("test_") in FIRST else 1

    items.sort(key=lambda item: (turn(item), -weights[item.path]))


def load_script(file):
    """The module of a file of this repository that belongs to no package."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, ROOT / file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TINY_VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16}
TINY_TEXT = {"width": 64, "heads": 4, "layers": 3, "context_length": 24}


def build(
    vision: dict | None = None,
    text: dict | None = None,
    embed_dim=48,
    custom_text=False,
    seed=0,
    **options,
):
    """An open_clip model in evaluation mode; `vision` and `text` change the tiny configuration."""
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    vision_config = {**TINY_VISION, **(vision or {})}
    text_config = {**TINY_TEXT, **(text or {})}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(embed_dim, vision_config, text_config, **options)
        # no bias, gamma or norm may be a no-op in a test
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "gamma")) or ".ln_" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def wrap(model, size=32, name="tiny", resize_mode=None) -> Clip:
    preprocess = open_clip.image_transform(size, is_train=False, resize_mode=resize_mode)
    context_length = getattr(model, "text", model).context_length
    return Clip(model, preprocess, open_clip.SimpleTokenizer(context_length=context_length), name)


@pytest.fixture(scope="session")
def tiny() -> Clip:
    return wrap(build())


@pytest.fixture(scope="session")
def averaging() -> Clip:
    """A tiny image tower like CLIPA's: all patches read, and the norm comes after the pooling."""
    return wrap(build({"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}))


@pytest.fixture(scope="session")
def precise() -> Clip:
    """The tiny model in float64, where finite differences mean something."""
    return wrap(build().double())


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A wide picture (80 x 50) with something different everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((80, 50), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def pixels(picture) -> torch.Tensor:
    """Two different inputs of the tiny models, (2, 3, 32, 32)."""
    preprocess = open_clip.image_transform(32, is_train=False)
    return torch.stack([preprocess(picture), preprocess(picture.rotate(180))])


@pytest.fixture(scope="session")
def ids(tiny) -> torch.Tensor:
    """Two prompts of different length, (2, context_length)."""
    return tiny.tokenizer(["a red car and a blue ball", "a dog"])


@pytest.fixture
def knowing(tiny) -> Clip:
    """The tiny model, told that it knows very few words."""
    return replace(tiny, vocabulary=frozenset({"a", "dog", "red", "don't"}))


@pytest.fixture(scope="session")
def bundled() -> Clip:
    """The model that the project ships; read only."""
    return load_clip("emoji")
