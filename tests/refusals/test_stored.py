"""Stored explanations: what was damaged or is something else, and what stays when saving fails."""

import json
from pathlib import Path

import pytest
from PIL import Image

from gradeclip_utils import Explainer, Explanation, Interactions
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import full, named


@pytest.fixture
def stored(tiny, picture, tmp_path):
    explainer = Explainer(tiny)
    explainer.explain(picture, ["a dog", "a cat"], "a cow").save(tmp_path / "found")
    explainer.interactions(picture, "a dog").save(tmp_path / "words")
    return tmp_path / "found"


def rewritten(folder, change):
    file = folder / "explanation.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


NPZ, JSON, PNG = "explanation.safetensors", "explanation.json", "explanation.png"
DAMAGED = [
    ("no JSON", lambda f: (f / JSON).unlink(), "There is no .*explanation.json"),
    ("no arrays", lambda f: (f / NPZ).unlink(), "There is no .*explanation.safetensors"),
    ("no image", lambda f: (f / PNG).unlink(), "There is no .*explanation.png"),
    (
        "JSON cut off",
        lambda f: (f / JSON).write_text((f / JSON).read_text()[:99]),
        "explanation.json is not as",
    ),
    ("a list", lambda f: (f / JSON).write_text("[]"), "explanation.json is not as"),
    ("deep JSON", lambda f: (f / JSON).write_text("[" * 100_000), "explanation.json is not as"),
    (
        "arrays cut off",
        lambda f: (f / NPZ).write_bytes((f / NPZ).read_bytes()[:-9]),
        "safetensors is not as `save`",
    ),
    (
        "a swapped image",
        lambda f: Image.new("RGB", (9, 9)).save(f / PNG),
        "explanation.png is not as `save`",
    ),
    (
        "a key is missing",
        lambda f: rewritten(f, lambda r: r.pop("prompts")),
        "json is not as .*its checksum",
    ),
    (
        "prompts of another run",
        lambda f: rewritten(f, lambda r: r["prompts"].pop()),
        "json is not as .*its checksum",
    ),
]


@pytest.mark.parametrize(("damage", "message"), named(DAMAGED))
def test_an_explanation_that_was_damaged_is_refused_with_the_file_and_what_is_wrong(
    stored, damage, message
):
    damage(stored)
    with pytest.raises((GradeclipError), match=message):
        Explanation.load(stored)


def test_folders_of_something_else_are_refused(stored, tmp_path):
    for reads, place, message in (
        (
            Explanation,
            tmp_path / "words",
            "There is no file of a saved explanation .*explanation.json",
        ),
        (Interactions, stored, "interactions.json"),
        (Explanation, tmp_path / "nowhere", "nowhere"),
        (Explanation, stored / JSON, "explanation.json"),
    ):
        with pytest.raises(GradeclipError, match=message):
            reads.load(place)
    for name, damage in (("json", b"[]"), ("safetensors", b"cut"), ("png", b"dear")):
        file = stored.parent / "words" / f"interactions.{name}"
        before = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(GradeclipError, match=f"{name} is not as `save`"):
            Interactions.load(file.parent)
        file.write_bytes(before)


def test_an_explanation_that_cannot_be_saved_leaves_the_one_that_was_there(
    stored, tiny, picture, monkeypatch
):
    before = {file.name: file.read_bytes() for file in stored.iterdir()}
    other, write, written = Explainer(tiny).explain(picture, "a bus"), Path.write_bytes, []

    def fails(path, content):
        written.append(path)
        return full(path) if len(written) == 2 else write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(GradeclipError, match="could not be written: .*No space left"):
        other.save(stored)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in stored.iterdir()} == before
    with pytest.raises(GradeclipError, match="must be a folder, and .* is a file"):
        other.save(stored / JSON)
