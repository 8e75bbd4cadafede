"""A folder of images that the tests of refusals share."""

import numpy as np
import pytest

from tests.refusals.cases import write_example


@pytest.fixture
def folder(tmp_path):
    """Four images of noise, each with a box that is the object."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    lines, rng = ["image,caption"], np.random.default_rng(0)
    for i, caption in enumerate(["a dog", "a cat", "a bus", "a cow"]):
        write_example(tmp_path, i, rng)
        lines.append(f"{i}.png,{caption}")
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return tmp_path
