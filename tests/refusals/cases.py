"""What the tests of refusals share."""

import zlib

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.errors import heard_by


def named(cases):
    """Cases (name, ...) as parameters that are called by their names."""
    return [pytest.param(*values, id=name) for name, *values in cases]


def bomb(folder):
    """A PNG of 200 megapixels that says so in its first bytes, and has nothing behind them."""
    Image.new("1", (8, 8)).save(folder / "bomb.png")
    content = bytearray((folder / "bomb.png").read_bytes())
    content[16:24] = (20000).to_bytes(4, "big") + (10000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(content)
    return folder / "bomb.png"


def full(stream):
    stream.write(b"half")
    raise OSError(28, "No space left on device")


def said(explainer, image, prompt):
    notes = []
    with heard_by(notes.append):
        explainer.explain(image, prompt)
    return notes


def write_example(folder, i, rng, mode="L"):
    mask = np.zeros((32, 32), np.uint8)
    top, left = rng.integers(0, 16, 2)
    mask[top : top + 12, left : left + 12] = 255
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"images/{i}.png")
    Image.fromarray(mask).convert(mode).save(folder / f"masks/{i}.png")
