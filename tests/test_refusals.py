"""What is refused: every door, what was tried there, and what it must say: one sentence with a code.

A case is a name, a call, and a part of the sentence; each was seen to fail in another way.
"""

import ast
import hashlib
import io
import json
import os
import pickle
import re
import socket
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save

import gradeclip_utils
from gradeclip_utils import Explainer, Explanation, ExplanationWarning, Interactions, errors, load_clip, read_image
from gradeclip_utils.__main__ import main
from gradeclip_utils.checks import readable, writable
from gradeclip_utils.datasets import load
from gradeclip_utils.errors import GradeclipError, InvalidFile, InvalidType, InvalidValue, MissingFile
from gradeclip_utils.evaluation.results import Results, read_run
from gradeclip_utils.evaluation.run import evaluate
from gradeclip_utils.files import locked, write_whole
from gradeclip_utils.notices import heard_by
from gradeclip_utils.scenes import arrange
from gradeclip_utils.training.finetune.pairs import Pair
from gradeclip_utils.training.finetune.run import STATE, Tuning, fine_tune
from tests.conftest import wrap

PACKAGE = Path(gradeclip_utils.__file__).parent


def named(cases):
    """Cases (name, ...) as parameters that are called by their names."""
    return [pytest.param(*values, id=name) for name, *values in cases]


# ------------------------------------------------------------------------------------------------------------- errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GradeclipError)]


def test_a_refusal_is_also_what_pythons_habit_is():
    assert issubclass(InvalidValue, ValueError) and issubclass(InvalidType, TypeError)
    assert issubclass(InvalidFile, OSError) and issubclass(MissingFile, FileNotFoundError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_keeps_its_sentence_and_its_code_on_the_way_from_another_process(kind):
    found = pickle.loads(pickle.dumps(kind("this is none", "image-dtype")))
    assert (type(found), str(found), found.code) == (kind, "this is none", "E-image-dtype")


def codes() -> dict[str, list[str]]:
    """Code -> the modules that refuse with it; "" where none is given."""
    names, found = {kind.__name__ for kind in KINDS}, {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                code = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
                found.setdefault(code, []).append(f"{file.relative_to(PACKAGE).as_posix()}:{node.lineno}")
    return found


def test_every_refusal_has_a_short_code():
    found = codes()
    computed = [place for place in found.pop("", []) if not place.startswith("checks.py")]  # "path-is-" + what it is
    assert computed == []
    assert len(found) > 40
    assert [code for code in found if not re.fullmatch(r"[a-z]+(-[a-z]+)+", code)] == []


# -------------------------------------------------------------------------------------------------------------- paths

PATHS = [
    ("none", None, "must be a path, got None"),
    ("a number", 5, "must be a path, got 5"),
    ("bytes", b"x.png", "must be a path"),
    ("empty", "", "an empty one was given"),
    ("NUL", "a\0b", "no path that can be used"),
    ("5,000 letters", "x" * 5000, "File name too long"),
    ("nobody's home", "~nobody-at-all/x", "no path that can be used"),
]


@pytest.mark.parametrize(("path", "message"), named(PATHS))
def test_what_is_no_path_is_refused_wherever_a_path_is_taken(path, message):
    for take in (
        lambda: readable(path, "a picture"),
        lambda: writable(path, "--out"),
        lambda: Explanation.load(path),
        lambda: read_run(path),
    ):
        with pytest.raises(GradeclipError, match=message):
            take()


WRITTEN = [
    ("a folder", ".", {}, "must be a file, and .* is a folder"),
    ("a file", "there.txt", {"folder": True}, "must be a folder, and .* is a file"),
    ("below a file", "there.txt/x", {}, "cannot be written"),
    ("another ending", "x.pt", {"suffixes": (".safetensors",)}, "must end in .safetensors; got"),
    ("a full disk", "x", {"size": 10**18}, "needs about 1,000,000,000,000 MB, and .* has"),
    ("a pipe", "pipe", {}, "is a pipe or a device"),
]


@pytest.mark.parametrize(("path", "options", "message"), named(WRITTEN))
def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_made(tmp_path, path, options, message):
    (tmp_path / "there.txt").write_text("dear")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidFile, match=message):
        writable(tmp_path / path, "--out", **options)
    assert sorted(tmp_path.iterdir()) == before
    assert writable(tmp_path / "new" / "folders" / "x.png", "--out") == tmp_path / "new" / "folders" / "x.png"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that nobody may write to is needed")
def test_a_place_that_is_read_only_is_refused():
    with pytest.raises(InvalidFile, match="cannot be written to /proc/x.png: /proc does not let it"):
        writable("/proc/x.png", "--out")


def full(stream):
    stream.write(b"half")
    raise OSError(28, "No space left on device")


def test_what_cannot_be_written_in_the_end_is_kept_elsewhere_and_what_was_there_stays(tmp_path):
    (tmp_path / "model").write_bytes(b"old")
    times = []

    def full_once(stream):
        times.append(1)
        full(stream) if len(times) == 1 else stream.write(b"whole")

    with pytest.raises(InvalidFile, match="No space left.*is kept as .*gradeclip-kept-") as refused:
        write_whole(tmp_path / "model", full_once)
    kept = Path(str(refused.value).rsplit("kept as ", 1)[1])
    assert kept.read_bytes() == b"whole"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model", b"old")]
    with pytest.raises(InvalidFile, match="and no temporary folder takes it either"):
        write_whole(tmp_path / "model", full)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_two_processes_on_one_folder_are_told_apart_until_the_first_is_gone(tmp_path):
    code = (
        "import sys, time, pathlib\nfrom gradeclip_utils.files import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r}), 'x.running'):\n print('in', flush=True)\n time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    with pytest.raises(InvalidValue, match="another process is at work on"), locked(tmp_path, "x.running"):
        pass
    other.kill()
    other.wait()
    with locked(tmp_path, "x.running"):
        pass


# ------------------------------------------------------------------------------------------------------------- images


def bomb(folder):
    """A PNG of 200 megapixels that says so in its first bytes, and has nothing behind them."""
    Image.new("1", (8, 8)).save(folder / "bomb.png")
    content = bytearray((folder / "bomb.png").read_bytes())
    content[16:24] = (20000).to_bytes(4, "big") + (10000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(content)
    return folder / "bomb.png"


def closed(folder):
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    with Image.open(folder / "x.png") as image:
        pass
    return image


def truncated(folder):
    Image.effect_noise((90, 90), 60).save(folder / "x.png")
    (folder / "cut.png").write_bytes((folder / "x.png").read_bytes()[:2000])
    return Image.open(folder / "cut.png")


def pipe(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


IMAGES = [
    ("a file that was closed", closed, "damaged"),
    ("a file that ends too early, opened lazily", truncated, "damaged"),
    ("200 megapixels", bomb, "more than 80 megapixels"),
    ("an array of 81 megapixels", lambda _: np.zeros((9000, 9001, 3), np.uint8), "9001 x 9000 pixels, more than 80"),
    ("a named pipe", pipe, "is a pipe or a device"),
    ("integers beyond 16 bits", lambda _: Image.fromarray(np.full((2, 2), 70000, np.int32)), "beyond 16 bits"),
    ("nothing", lambda _: None, "this is builtins.NoneType"),
    ("NUL in the name", lambda _: "a\0.png", "no path that can be used"),
    ("a folder", lambda folder: folder, "is a folder"),
]


@pytest.mark.parametrize(("make", "message"), named(IMAGES))
def test_what_is_no_image_is_refused(tmp_path, make, message):
    with pytest.raises(GradeclipError, match=message):
        read_image(make(tmp_path))


@pytest.mark.parametrize("mode", ["La", "RGBa", "LAB", "YCbCr", "I;16", "RGBX"])
def test_an_image_of_a_rare_mode_is_read_or_refused(mode):
    try:
        assert read_image(Image.new(mode, (3, 3))).mode == "RGB"
    except GradeclipError as refusal:
        assert refusal.code == "E-image-damaged"


# ------------------------------------------------------------------------------------------ prompts and models in hand

PROMPTS = [
    ("none", None, "prompts must be strings"),
    ("a number", 5, "prompts must be strings"),
    ("a path", Path("dog"), "prompts must be strings"),
    ("true", True, "prompts must be strings"),
    ("bytes", b"dog", "prompts must be strings"),
    ("a dict", {"a": 1}, "prompts must be strings"),
    ("no prompts", [], "prompts must be strings"),
    ("a list of numbers", [1, 2], "prompts must be strings"),
    ("whole numbers", np.zeros((1, 48), int), "prompts must be strings"),
    ("a number of numpy", np.array(5), "prompts must be strings"),
    ("empty", "", "at least one word"),
    ("10,000 words", "dog " * 10_000, "a prompt can have 5000 characters, and .* has 40000"),
    ("half a character", "a \ud800 dog", "lone surrogate"),
    ("embeddings of another width", torch.ones(1, 3), r"must be \(T, 48\)"),
    ("an embedding of zeros", torch.zeros(1, 48), "finite and not zero"),
    ("an embedding with NaN", torch.full((48,), torch.nan), "finite and not zero"),
]


@pytest.mark.parametrize(("prompt", "message"), named(PROMPTS))
def test_what_is_no_prompt_is_refused_also_as_the_other_one(tiny, picture, prompt, message):
    explainer = Explainer(tiny)
    for ask in (lambda: explainer.explain(picture, prompt), lambda: explainer.explain(picture, "a dog", [prompt])):
        with pytest.raises((GradeclipError, ValueError), match=f"{message}|prompts must be strings"):
            ask()


@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e38, 1e-40])
def test_the_length_of_an_embedding_changes_nothing_however_large_or_small(tiny, picture, factor):
    direction = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    direction = direction / direction.abs().max()
    plain, long = (Explainer(tiny).explain(picture, direction * one) for one in (1, factor))
    np.testing.assert_allclose(long.similarity, plain.similarity, atol=1e-3 if factor < 1e-38 else 1e-6)


BATCHES = [
    ("one image", lambda image: image, "as many pictures as prompts, got 1 and 2"),
    ("a dict", lambda image: {"a": image}, "images must be a list"),
    ("a number", lambda image: 5, "images must be a list"),
]


@pytest.mark.parametrize(("make", "message"), named(BATCHES))
def test_what_is_no_list_of_images_is_refused(tiny, picture, make, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny).explain_batch(make(picture), ["a dog", "a cat"])


def test_images_may_come_one_by_one(tiny, picture):
    found = Explainer(tiny).explain_batch((picture for _ in range(2)), ["a dog", "a cat"])
    assert len(found) == 2
    assert Explainer(tiny).embed_images(picture for _ in range(2)).shape == (2, 48)


class Tokenizer:
    """CLIP's own, whose ids are changed on the way."""

    def __init__(self, tokenizer, change):
        self.tokenizer, self.change = tokenizer, change

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, texts):
        return self.change(self.tokenizer(texts))


MODELS = [
    ("no preprocessing", lambda clip: replace(clip, preprocess=None), "a Clip needs a preprocessing"),
    ("numpy", lambda clip: replace(clip, preprocess=np.asarray), "this one gives ndarray"),
    ("a batch", lambda clip: replace(clip, preprocess=lambda i: clip.preprocess(i)[None]), r"gives .*\(1, 3, 32, 32\)"),
    ("NaN", lambda clip: replace(clip, preprocess=lambda i: clip.preprocess(i) * torch.nan), "gives NaN"),
    ("of another size", lambda clip: wrap(clip.model, 48), "gives 48 x 48 pixels, and the model takes 32 x 32"),
    ("no tokenizer", lambda clip: replace(clip, tokenizer=None), "strings need the model's tokenizer"),
    ("tokens in a list", lambda clip: retold(clip, lambda ids: ids.tolist()), "this one gives list"),
    ("another context", lambda clip: retold(clip, lambda ids: torch.cat([ids] * 2, 1)), r"\(1, 24\), .*\(1, 48"),
    ("foreign ids", lambda clip: retold(clip, lambda ids: ids + 10**6), "it is not its own"),
    ("a bare model", lambda clip: clip.model, "needs a Clip"),
]  # fmt: skip


def retold(clip, change):
    return replace(clip, tokenizer=Tokenizer(clip.tokenizer, change))


@pytest.mark.parametrize(("change", "message"), named(MODELS))
def test_a_model_whose_parts_do_not_fit_is_refused_by_the_part(tiny, picture, change, message):
    state = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    with pytest.raises(GradeclipError, match=message):
        Explainer(change(tiny)).explain(picture, "a dog")
    assert all(torch.equal(value, state[name]) for name, value in tiny.model.state_dict().items())


OPTIONS = [
    ("half a seed", {"seed": 1.5}, "seed must be a whole number, got 1.5"),
    ("a seed in words", {"seed": "x"}, "seed must be a whole number"),
    ("no seed", {"seed": None}, "seed must be a whole number"),
    ("a seed below zero", {"seed": -1}, "seed must be at least 0"),
    ("methods", {"method": ["rise"]}, "method must be one of"),
    ("no method", {"method": None}, "method must be one of"),
    ("attention", {"attention": None}, "attention must be 'model' or 'single-head', got None"),
]


@pytest.mark.parametrize(("options", "message"), named(OPTIONS))
def test_an_option_that_is_no_choice_is_refused(tiny, options, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny, **options)


@pytest.mark.parametrize("index", [99, "x", 1.5, None, -3])
def test_a_map_that_is_not_there_is_refused(tiny, picture, index):
    with pytest.raises(GradeclipError, match="index must be"):
        Explainer(tiny).explain(picture, ["a dog", "a cat"]).heatmap(index)


@pytest.mark.parametrize("over", [1.5, "dog", [1.5], [0, 0], [[0], [99]]])
def test_words_that_cannot_be_told_apart_are_refused(tiny, picture, over):
    with pytest.raises((GradeclipError, ValueError, TypeError)):
        Explainer(tiny).interactions(picture, "a dog and a cat").centred(over)


# ----------------------------------------------------------------------------------------------------- stored folders


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
    ("no picture", lambda f: resummed(f, PNG, b"dear"), "image.png is not a picture"),
    ("a bomb", lambda f: resummed(f, PNG, bomb(f.parent).read_bytes()), "image.png has more than 80 megapixels"),
    ("a key is missing", lambda f: rewritten(f, lambda r: r.pop("prompts")), "it lacks 'prompts'"),
    ("a key too many", lambda f: rewritten(f, lambda r: r.update(x=1)), "explanation.json is damaged"),
    ("no provenance", lambda f: rewritten(f, lambda r: r.update(provenance={})), "provenance lacks model, pretrained"),
    ("half a box", lambda f: rewritten(f, lambda r: r.update(box=[0, 0, 1])), "is no box"),
    ("a box inside out", lambda f: rewritten(f, lambda r: r.update(box=[9, 0, 1, 9])), "is no box"),
    ("words of one prompt", lambda f: rewritten(f, lambda r: r["words"].pop()), "words are not those of 2 prompts"),
    ("a word without score", lambda f: rewritten(f, lambda r: r["words"][0][0].pop("score")), "json is damaged"),
    ("prompts of another run", lambda f: rewritten(f, lambda r: r["prompts"].pop()), "maps .* are not those of 1"),
    ("NaN maps", lambda f: resummed(f, NPZ, arrays(image_maps=np.full((2, 4, 4), np.nan))), "hold NaN"),
    ("flat maps", lambda f: resummed(f, NPZ, arrays(image_maps=np.ones(2))), "maps .* are not those of 2"),
    ("no other similarity", lambda f: resummed(f, NPZ, arrays(against_similarity=None)), "lacks its against"),
    ("an array too many", lambda f: resummed(f, NPZ, arrays(more=np.ones(1))), "explanation.json is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), named(DAMAGED))
def test_an_explanation_that_was_damaged_is_refused_with_the_file_and_what_is_wrong(stored, damage, message):
    damage(stored)
    with pytest.raises((InvalidFile, MissingFile), match=message):
        Explanation.load(stored)


def test_folders_of_something_else_are_refused(stored, tmp_path):
    with pytest.raises(MissingFile, match="There is no file of a saved explanation .*explanation.json"):
        Explanation.load(tmp_path / "words")
    with pytest.raises(MissingFile, match="interactions.json"):
        Interactions.load(stored)
    with pytest.raises(GradeclipError):
        Explanation.load(tmp_path / "nowhere")
    with pytest.raises(GradeclipError):
        Explanation.load(stored / JSON)


def test_interactions_are_read_back_as_they_were_saved(tiny, picture, tmp_path):
    found = Explainer(tiny).interactions(picture, "a dog and a cat").centred()
    again = Interactions.load(found.save(tmp_path / "x"))
    assert np.array_equal(found.maps, again.maps) and found.words == again.words
    assert (found.caption, found.similarity, found.box) == (again.caption, again.similarity, again.box)
    assert found.origin == again.origin and found.image.tobytes() == again.image.tobytes()


def test_an_explanation_that_cannot_be_saved_leaves_the_one_that_was_there(stored, tiny, picture, monkeypatch):
    before = {file.name: file.read_bytes() for file in stored.iterdir()}
    other, write, written = Explainer(tiny).explain(picture, "a bus"), Path.write_bytes, []

    def fails(path, content):
        written.append(path)
        return full(path.open("wb")) if len(written) == 2 else write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(InvalidFile, match="No space left.*kept as (.*)") as refused:
        other.save(stored)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in stored.iterdir()} == before
    kept = Explanation.load(str(refused.value).rsplit("kept as ", 1)[1])
    assert kept.prompts == ("a bus",)
    with pytest.raises(InvalidFile, match="must be a folder, and .* is a file"):
        other.save(stored / JSON)


# --------------------------------------------------------------------------------------------- evaluate and fine-tune

EVALUATED = [
    ("no model", {"clip": None}, "needs a Clip"),
    ("no chunk", {"chunk": 0}, "chunk must be at least 1, got 0"),
    ("threads below one", {"threads": -1}, "threads must be at least 1, got -1"),
    ("no jobs", {"jobs": 0}, "jobs must be 1 or more"),
    ("half a job", {"jobs": 1.5}, "jobs must be a whole number"),
    ("a seed below zero", {"seed": -1}, "seed must be at least 0"),
    ("methods that are numbers", {"methods": [5]}, "'5' is no method"),
    ("no methods", {"methods": None}, "methods must be a list"),
    ("data that is a number", {"data": 5}, "data must be a list"),
    ("data that is images", {"data": [1]}, "holds a int"),
    ("an unknown kind", {"data": "scene:9"}, "names no data set"),
    ("resolution", {"resolution": 5}, "resolution must be 'model' or 'native'"),
    ("faithfulness", {"faithfulness": ["full"]}, "faithfulness must be one of"),
    ("out is empty", {"out": ""}, "an empty one was given"),
]


@pytest.mark.parametrize(("options", "message"), named(EVALUATED))
def test_an_evaluation_that_makes_no_sense_is_refused(tiny, options, message):
    given = {"clip": tiny, "data": "scenes:development:2", **options}
    with pytest.raises(GradeclipError, match=message):
        evaluate(given.pop("clip"), given.pop("data"), progress=False, **given)


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


def write_example(folder, i, rng, mode="L"):
    mask = np.zeros((32, 32), np.uint8)
    top, left = rng.integers(0, 16, 2)
    mask[top : top + 12, left : left + 12] = 255
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"images/{i}.png")
    Image.fromarray(mask).convert(mode).save(folder / f"masks/{i}.png")


@pytest.mark.parametrize("changed", ["images", "masks"])
def test_rows_of_an_image_or_mask_that_was_replaced_are_computed_again(tiny, folder, tmp_path, changed):
    options = {"references": False, "chunk": 1, "progress": False, "out": tmp_path / "run"}
    before = evaluate(tiny, f"folder:{folder}", **options)
    other = folder / f"{changed}/3.png"
    (folder / f"{changed}/1.png").write_bytes(other.read_bytes())
    with pytest.warns(UserWarning, match="chunk 1 of .* is about images or masks that were replaced"):
        after = evaluate(tiny, f"folder:{folder}", **options)
    fresh = evaluate(tiny, f"folder:{folder}", **{**options, "out": None})
    measured = [column for column in fresh if column != "seconds"]
    assert after[measured].equals(fresh[measured]) and not after[measured].equals(before[measured])
    assert after["seconds"].eq(before["seconds"]).tolist() == [True, False, True, True]  # the others were kept


def test_a_cut_out_is_a_mask_of_what_is_not_transparent(folder):
    mask = load(f"folder:{folder}")[0].mask()
    pixels = np.dstack([np.full((32, 32, 3), 200, np.uint8), mask.astype(np.uint8) * 255])
    Image.fromarray(pixels, "RGBA").save(folder / "masks/0.png")
    assert np.array_equal(load(f"folder:{folder}")[0].mask(), mask) and 0 < mask.sum() < mask.size


def test_settings_that_were_damaged_are_named(tmp_path):
    Results(tmp_path / "run", {"seed": 0}).close()
    with closing(sqlite3.connect(tmp_path / "run" / "rows.sqlite")) as kept, kept:
        kept.execute("UPDATE settings SET value = 'null]'")
    with pytest.raises(InvalidFile, match="rows.sqlite does not say what made its rows"):
        Results(tmp_path / "run", {"seed": 0})


PAIRS = [
    Pair(Image.effect_noise((32, 32), 60).convert("RGB"), caption) for caption in ("a dog", "a red car", "a cat", "")
]
SHORT = Tuning(steps=2, batch=2, learning_rate=1e-3, warmup=1, precision="fp32")
TUNED = [
    ("a seed below zero", {"tuning": {"seed": -1}}, "seed must be at least 0"),
    ("workers below zero", {"workers": -1}, "workers must be at least 0"),
    ("saved never", {"save_every": 0}, "save_every must be at least 1"),
    ("no batch", {"tuning": {"batch": 0}}, "batch must be at least 2"),
    ("half a step", {"tuning": {"steps": 1.5}}, "steps must be a whole number"),
    ("a rate without bounds", {"tuning": {"learning_rate": 1e38}}, "learning_rate must be from 0 to 10"),
    ("no rate", {"tuning": {"learning_rate": None}}, "learning_rate must be a number"),
    ("no model", {"clip": None}, "needs a Clip"),
    ("an empty caption", {"pairs": PAIRS}, "the caption of a pair"),
    ("no pairs", {"pairs": []}, "there are none"),
    ("pairs of numbers", {"pairs": [1, 2]}, "a pair is an image"),
    ("a text", {"pairs": "dogs"}, "pairs must be a list"),
    ("the folder is a file", {"folder": __file__}, "must be a folder, and .* is a file"),
]


@pytest.mark.parametrize(("options", "message"), named(TUNED))
def test_a_tuning_that_makes_no_sense_is_refused_before_it_begins(tiny, options, message):
    given = {"clip": tiny, "pairs": PAIRS[:3], "progress": False, **options}
    tuning = replace(SHORT, **given.pop("tuning", {}))
    with pytest.raises(GradeclipError, match=message):
        fine_tune(given.pop("clip"), given.pop("pairs"), tuning, **given)


STATES = [
    ("cut off", lambda content: content[: len(content) // 2]),
    ("empty", lambda content: b""),
    ("text", lambda content: b"dear diary"),
    ("a list", lambda content: saved([1, 2])),
    ("of nothing", lambda content: saved({"recipe": {}})),
    ("pickled objects", lambda content: pickle.dumps({"recipe": Path("x")})),
]


def saved(what):
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


@pytest.mark.parametrize(("damage",), named(STATES))
def test_a_state_that_was_damaged_is_named_and_left_as_it_is(tiny, tmp_path, damage):
    state = tmp_path / STATE
    state.write_bytes(damage(saved({"step": 1})))
    before = state.read_bytes()
    with pytest.raises(GradeclipError, match="state.pt (is damaged, or holds no state|holds a run of another recipe)"):
        fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)
    assert state.read_bytes() == before


CHANGES = [
    ("captions", lambda pairs: [replace(pairs[0], caption="a cow"), *pairs[1:]]),
    ("images", lambda pairs: [replace(pairs[0], image=Image.new("RGB", (32, 32))), *pairs[1:]]),
    ("their order", lambda pairs: pairs[::-1]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change",), named(CHANGES))
def test_a_state_of_other_pairs_of_the_same_number_is_refused(tiny, tmp_path, change):
    fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)
    with pytest.raises(InvalidValue, match="holds a run of another recipe .content is"):
        fine_tune(tiny, change(PAIRS[:3]), SHORT, folder=tmp_path, progress=False)


def test_two_tunings_in_one_folder_are_told_apart(tiny, tmp_path):
    with locked(tmp_path, "state.running"), pytest.raises(InvalidValue, match="another process is at work on"):
        fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)


# ------------------------------------------------------------------------------------------------------- command line

COMMANDS = [
    ("fine-tune into a folder", ["fine-tune", "--out", "."], "E-path-suffix"),
    ("fine-tune into nothing", ["fine-tune", "--out", ""], "E-path"),
    ("fine-tune into a .pt", ["fine-tune", "--out", "x.pt"], "--out must end in .safetensors"),
    ("fine-tune into /proc", ["fine-tune", "--out", "/proc/x.safetensors"], "E-path-read-only"),
    ("fine-tune saved never", ["fine-tune", "--out", "x.safetensors", "--save-every", "0"], "--save-every must be at"),
    ("fine-tune with workers below zero", ["fine-tune", "--out", "x.safetensors", "--workers", "-1"], "--workers must"),
    ("fine-tune with a seed below zero", ["fine-tune", "--out", "x.safetensors", "--seed", "-1"], "seed must be at"),
    ("explain into nothing", ["explain", "--out", ""], "E-path-empty"),
    ("explain a NUL", ["explain", "--out", "a\0.png"], "E-path-unusable"),
]


@pytest.mark.parametrize(("arguments", "message"), named(COMMANDS))
def test_a_command_that_would_fail_in_the_end_is_refused_at_the_start(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gradeclip_utils.models.load_clip", None)  # nothing is loaded before
    if arguments[0] == "fine-tune":
        arguments = [*arguments, "--captions", "no.csv", "--images", "no"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gradeclip: ") and error.count("\n") == 1 and message in error and "[E-" in error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(GradeclipError):
        main(["--debug", *arguments])


def test_a_mistake_inside_a_library_is_a_fault_of_ours_and_shown_as_one(monkeypatch):
    monkeypatch.setattr("gradeclip_utils.models.load_clip", lambda *_, **__: np.zeros(3).reshape(2, 2))
    with pytest.raises(ValueError, match="cannot reshape"):
        main(["explain"])


# ---------------------------------------------------------------------------------------------- what is said of itself


def test_a_photograph_shown_to_a_model_that_knows_drawn_scenes_alone_is_said(knowing, picture, tmp_path):
    with pytest.warns(ExplanationWarning, match="drawn scenes alone, and this image is not marked as one"):
        Explainer(knowing).explain(picture, "a dog")
    scene = arrange(["dog"]).image()
    for image in (scene, scene.resize((40, 40)), scene.crop((3, 3, 90, 90)).convert("L")):
        assert said(Explainer(knowing), image, "a dog") == []
    assert said(Explainer(replace(knowing, vocabulary=None)), picture, "a dog") == []


def said(explainer, image, prompt):
    notes = []
    with heard_by(notes.append):
        explainer.explain(image, prompt)
    return notes


@pytest.mark.parametrize(
    ("prompt", "shown"), [("一只狗", "一 只 狗"), ("a dog 🍕", "🍕"), ("ein Hündchen, собака", "")]
)
def test_a_script_that_figures_cannot_draw_is_said(tiny, picture, prompt, shown):
    notes = said(Explainer(tiny), picture, prompt)
    assert notes == ([f"the font of figures cannot draw {' '.join(sorted(shown.split()))}, and shows boxes: choose "
                      "another (matplotlib's font.family)"] if shown else [])  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- security


def test_nothing_asks_a_network_for_anything(knowing, folder, tmp_path, monkeypatch):
    def refused(*given, **named):
        raise AssertionError(f"a socket was asked for: {given} {named}")

    for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    clip = load_clip("emoji")
    found = Explainer(clip).explain(arrange(["dog"]).image(), "a dog")
    found.plot()
    Explanation.load(found.save(tmp_path / "found"))
    Explainer(clip).interactions(arrange(["dog", "cat"]).image(), "a dog and a cat").plot()
    evaluate(knowing, f"folder:{folder}", out=tmp_path / "run", progress=False)
    assert main(["explain", "--out", str(tmp_path / "x.png")]) == 0


def test_no_pickle_is_read_but_a_workers_own_model():
    """`torch.load` reads weights alone; the one `pickle.loads` reads what the same evaluation wrote for its workers."""
    reads = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner, name = getattr(node.func.value, "id", ""), node.func.attr
                keywords = {one.arg: one.value for one in node.keywords}
                if owner == "torch" and name == "load":
                    assert getattr(keywords.get("weights_only"), "value", False) is True, f"{file}:{node.lineno}"
                elif (owner in ("pickle", "joblib", "dill", "marshal") and name in ("load", "loads")) or (
                    (owner, name) in {("np", "load"), ("pd", "read_pickle")}
                ):
                    reads.append(file.relative_to(PACKAGE).as_posix())
    assert reads == ["evaluation/worker.py"]
