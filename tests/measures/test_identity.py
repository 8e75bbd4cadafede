"""Identity: what computes the same has one, in whichever process; what computes otherwise has another."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms

import gradeclip_utils
from gradeclip_utils import load_clip
from gradeclip_utils.measures.identity import identity, surroundings, versions_of
from gradeclip_utils.methods import METHODS

OWN = """
SCALE = 2
class Base:
    def scaled(self, x): return x * SCALE
class Step(Base):
    offset = 1
    def __init__(self, by): self.by = by
    def __call__(self, x): return self.scaled(x) + self.by + self.offset
    @property
    def half(self): return self.by / 2
    @staticmethod
    def third(x): return x / 3
def helper(x): return x + 1
def function(x, y=1): return [helper(one) for one in x]
def outer(): return lambda x: x in {"a", "b", "c"}
found = {name: identity(one) for name, one in (("object", Step(3)), ("function", function), ("inner", outer()))}
"""


def identities(source=OWN):
    """Those of functions and objects of a user's own module."""
    here = {"identity": identity, "__name__": "own"}
    exec(compile(source, "own.py", "exec"), here)
    return here["found"]


@pytest.mark.parametrize(
    ("was", "becomes", "changed"),
    [
        ("SCALE = 2", "SCALE = 3", {"object"}),
        ("x * SCALE", "x / SCALE", {"object"}),
        ("offset = 1", "offset = 2", {"object"}),
        ("Step(3)", "Step(4)", {"object"}),
        ("self.by / 2", "self.by / 3", {"object"}),
        ("x / 3", "x / 4", {"object"}),
        ("y=1", "y=2", {"function"}),
        ("return x + 1", "return x + 2", {"function"}),
        ('"c"', '"d"', {"inner"}),
        ("\n", "\n\n# a remark\n", set()),
    ],
)
def test_whatever_decides_what_a_function_computes_is_in_its_identity(was, becomes, changed):
    before, after = identities(), identities(OWN.replace(was, becomes))
    assert was in OWN and {name for name in before if before[name] != after[name]} == changed


def test_things_that_hold_each_other_and_arrays_have_an_identity():
    ring: list = [1]
    ring.append(ring)
    arrays = [np.zeros(3), np.zeros(3, np.float32), np.ones(3), torch.zeros(3), torch.zeros(3, dtype=torch.bfloat16)]
    found = [ring, *arrays, partial(max, 1), partial(max, 2), partial(min, 1), None, {}, [], (1, 2), (2, 1), {"a": 1}]
    assert len({identity(one) for one in found}) == len(found)
    resize = partial(transforms.Resize, interpolation=transforms.InterpolationMode.BICUBIC)
    assert identity(resize(32)) == identity(resize(32)) != identity(resize(48)) != identity(transforms.Resize(48))


ASK = """
from gradeclip_utils import load_clip
from gradeclip_utils.measures.identity import identity, surroundings
from gradeclip_utils.methods import METHODS
clip = load_clip()
print(surroundings(clip, ["a dog"]), identity(METHODS), identity(lambda image: clip.preprocess(image)))
"""


def test_it_is_the_same_in_another_process_and_after_use(capfd):
    clip = load_clip()
    clip.tokenizer(["a word that its cache keeps"])
    here = f"{surroundings(clip, ['a dog'])} {identity(METHODS)}"
    surroundings_of_others = {"PYTHONPATH": str(Path(gradeclip_utils.__file__).parent.parent)}
    told = [
        subprocess.run(
            [sys.executable, "-c", ASK], env={**surroundings_of_others, "PYTHONHASHSEED": str(seed)}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed in (1, 2)
    ]  # fmt: skip
    assert told[0] == told[1] and told[0].startswith(here)


def test_transformers_version_belongs_to_models_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    assert versions_of(transformers.CLIPTextModel(config))["transformers"] == transformers.__version__
    assert "transformers" not in versions_of(load_clip().model)
