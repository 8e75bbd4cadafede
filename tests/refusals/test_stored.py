"""Stored explanations: what was damaged or is something else, and what stays when saving fails."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from gradeclip_utils import Explainer, Explanation, Interactions
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import bomb, full, named


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


def resummed(folder, name, content):
    """A file in place of another, with a checksum that fits: only what it holds is wrong."""
    (folder / name).write_bytes(content)
    rewritten(folder, lambda record: record["sha256"].update({name: hashlib.sha256(content).hexdigest()}))


def arrays(**changed):
    whole = {"similarity": np.ones(2), "image_maps": np.ones((2, 4, 4)), "against_similarity": np.ones(2)}
    return save({name: array for name, array in {**whole, **changed}.items() if array is not None})


NPZ, JSON, PNG = "explanation.safetensors", "explanation.json", "image.png"
DAMAGED = [
    ("no JSON", lambda f: (f / JSON).unlink(), "There is no .*explanation.json"),
    ("no arrays", lambda f: (f / NPZ).unlink(), "There is no .*explanation.safetensors"),
    ("no image", lambda f: (f / PNG).unlink(), "There is no .*image.png"),
    ("JSON cut off", lambda f: (f / JSON).write_text((f / JSON).read_text()[:99]), "explanation.json is damaged"),
    ("random JSON", lambda f: (f / JSON).write_bytes(os.urandom(99)), "explanation.json is damaged"),
    ("a list", lambda f: (f / JSON).write_text("[]"), "explanation.json is damaged"),
    ("null", lambda f: (f / JSON).write_text("null"), "explanation.json is damaged"),
    ("deep JSON", lambda f: (f / JSON).write_text("[" * 100_000), "explanation.json is damaged"),
    ("arrays cut off", lambda f: (f / NPZ).write_bytes((f / NPZ).read_bytes()[:-9]), "safetensors is damaged"),
    ("arrays of noise", lambda f: resummed(f, NPZ, os.urandom(99)), "safetensors is damaged"),
    ("a swapped image", lambda f: Image.new("RGB", (9, 9)).save(f / PNG), "image.png is damaged, or not the file that"),
    ("no image", lambda f: resummed(f, PNG, b"dear"), "image.png is not an image"),
    ("a bomb", lambda f: resummed(f, PNG, bomb(f.parent).read_bytes()), "image.png has too many pixels"),
    ("a key is missing", lambda f: rewritten(f, lambda r: r.pop("prompts")), "it lacks 'prompts'"),
    ("a key too many", lambda f: rewritten(f, lambda r: r.update(x=1)), "explanation.json is damaged"),
    ("no provenance", lambda f: rewritten(f, lambda r: r.update(provenance={})), "provenance lacks model, pretrained"),
    ("half a box", lambda f: rewritten(f, lambda r: r.update(box=[0, 0, 1])), "is no box"),
    ("a box inside out", lambda f: rewritten(f, lambda r: r.update(box=[9, 0, 1, 9])), "is no box"),
    ("words of one prompt", lambda f: rewritten(f, lambda r: r["words"].pop()), "words are not those of 2 prompts"),
    ("a word without score", lambda f: rewritten(f, lambda r: r["words"][0][0].pop("score")), "json is damaged"),
    ("prompts of another run", lambda f: rewritten(f, lambda r: r["prompts"].pop()), "are not those of 1"),
    ("NaN maps", lambda f: resummed(f, NPZ, arrays(image_maps=np.full((2, 4, 4), np.nan))), "hold NaN"),
    ("flat maps", lambda f: resummed(f, NPZ, arrays(image_maps=np.ones(2))), "maps .* are not those of 2"),
    ("no other similarity", lambda f: resummed(f, NPZ, arrays(against_similarity=None)), "lacks its against"),
    ("an array too many", lambda f: resummed(f, NPZ, arrays(more=np.ones(1))), "explanation.json is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), named(DAMAGED))
def test_an_explanation_that_was_damaged_is_refused_with_the_file_and_what_is_wrong(stored, damage, message):
    damage(stored)
    with pytest.raises((GradeclipError), match=message):
        Explanation.load(stored)


def test_folders_of_something_else_are_refused(stored, tmp_path):
    for reads, place, message in (
        (Explanation, tmp_path / "words", "There is no file of a saved explanation .*explanation.json"),
        (Interactions, stored, "interactions.json"),
        (Explanation, tmp_path / "nowhere", "nowhere"),
        (Explanation, stored / JSON, "explanation.json"),
    ):
        with pytest.raises(GradeclipError, match=message):
            reads.load(place)
    for name, damage in (("interactions.json", b"[]"), ("interactions.safetensors", b"cut"), ("image.png", b"dear")):
        file = stored.parent / "words" / name
        before = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(GradeclipError, match=f"{name} is damaged"):
            Interactions.load(file.parent)
        file.write_bytes(before)


def test_interactions_do_not_replace_the_image_of_an_explanation_of_another_one(stored, tiny, picture):
    found = Explainer(tiny).interactions(picture.transpose(Image.Transpose.ROTATE_180), "a dog")
    with pytest.raises(GradeclipError, match="holds the explanation of another image, which would be lost"):
        found.save(stored)
    assert not (stored / "interactions.json").exists()
    Explanation.load(stored)
    Explainer(tiny).interactions(picture, "a dog").save(stored)


def test_an_explanation_that_cannot_be_saved_leaves_the_one_that_was_there(stored, tiny, picture, monkeypatch):
    before = {file.name: file.read_bytes() for file in stored.iterdir()}
    other, write, written = Explainer(tiny).explain(picture, "a bus"), Path.write_bytes, []

    def fails(path, content):
        written.append(path)
        return full(path.open("wb")) if len(written) == 2 else write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(GradeclipError, match="No space left.*kept as (.*)") as refused:
        other.save(stored)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in stored.iterdir()} == before
    kept = Explanation.load(str(refused.value).rsplit("kept as ", 1)[1])
    assert kept.prompts == ("a bus",)
    with pytest.raises(GradeclipError, match="must be a folder, and .* is a file"):
        other.save(stored / JSON)


@pytest.mark.parametrize(
    ("place", "message"),
    [("a\0b", "cannot be used"), ("", "an empty one"), (5, "path"), ("/proc/x", "cannot be written")],
)
def test_a_place_that_cannot_be_saved_to_is_refused(tiny, picture, tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny).explain(picture, "a dog").save(place)
    assert list(tmp_path.iterdir()) == []
