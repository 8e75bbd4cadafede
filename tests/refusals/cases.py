"""What the tests of refusals share."""

import zlib

import pytest
from PIL import Image

from gradeclip_utils.errors import GradeclipError


def named(cases):
    """Cases (name, ...) as parameters that are called by their names."""
    return [pytest.param(*values, id=name) for name, *values in cases]


def refused(cases):
    """A test that asks the question of each case (name, ask, message) and is refused with that message."""

    @pytest.mark.parametrize(("ask", "message"), named(cases))
    def test(ask, message):
        with pytest.raises(GradeclipError, match=message):
            ask()

    return test


def bomb(folder):
    """A PNG of 200 megapixels that says so in its first bytes, and has nothing behind them."""
    Image.new("1", (8, 8)).save(folder / "bomb.png")
    content = bytearray((folder / "bomb.png").read_bytes())
    content[16:24] = (20000).to_bytes(4, "big") + (10000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(content)
    return folder / "bomb.png"


def full(file):
    file.write_bytes(b"half")
    raise OSError(28, "No space left on device")
