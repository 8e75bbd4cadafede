"""The command `fine-tune`: where its pairs come from."""

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.__main__ import main
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.finetune import run


@pytest.fixture
def tuned(monkeypatch):
    """The pairs that would be tuned on."""
    seen = []

    def stop(clip, pairs, *given, **named):
        seen.extend(pairs)
        raise GradeclipError("enough was seen")

    monkeypatch.setattr(run, "fine_tune", stop)
    return seen


def test_a_data_set_takes_the_place_of_a_table_and_a_folder(tmp_path, tuned, capsys):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    image.save(tmp_path / "x.png")
    (tmp_path / "pairs.csv").write_text("filepath\ttitle\nx.png\ta red car\n")
    given = ["fine-tune", "--model", "emoji", "--out", str(tmp_path / "mine.safetensors")]
    assert main([*given, "--data", f"csv:{tmp_path / 'pairs.csv'}"]) == 2
    assert "enough was seen" in capsys.readouterr().err
    (pair,) = tuned
    assert pair.caption == "a red car" and (np.asarray(pair.image()) == np.asarray(image)).all()


@pytest.mark.parametrize(
    "arguments", [[], ["--images", "x"], ["--data", "csv:x", "--images", "x"], ["--captions", "x", "--data", "csv:x"]]
)
def test_half_of_what_is_needed_or_too_much_is_refused(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(["fine-tune", "--out", "x.safetensors", *arguments]) == 2
    assert "needs --captions and --images, or --data in place of both" in capsys.readouterr().err
