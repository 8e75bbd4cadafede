"""`evaluate` and `fine_tune`: what makes no sense is refused before it begins, and nothing stale is served."""

import io
import pickle
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import locked
from gradeclip_utils.finetune.pairs import Pair
from gradeclip_utils.finetune.run import STATE, Tuning, fine_tune
from gradeclip_utils.measures.evaluation import evaluate
from gradeclip_utils.measures.results import Results, read_settings, read_whole
from gradeclip_utils.measures.shards import merge
from studies.choices import choice_figures
from tests.refusals.cases import named

PAIR_IMAGE = Image.effect_noise((32, 32), 60).convert("RGB")
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
    ("a million scenes", {"data": "scenes:development:1000000"}, "number of scenes must be at most 100000, got 1"),
    ("one scene without a wrong word", {"data": "scenes:development:1"}, "or without references .--no-references."),
    ("an unknown kind", {"data": "scene:9"}, "names no data set"),
    ("resolution", {"resolution": 5}, "resolution must be 'model' or 'native'"),
    ("references in words", {"references": "no"}, "references must be False or True, got 'no'"),
    ("faithfulness", {"faithfulness": ["full"]}, "faithfulness must be one of"),
    ("out is empty", {"out": ""}, "an empty one was given"),
    ("threads that would end the process", {"threads": 10**9}, "threads must be at most 1024, got 1000000000"),
    ("scenes by a raised number", {"data": "scenes:development:²"}, "say how many scenes"),
    ("scenes by 5,000 digits", {"data": "scenes:development:" + "9" * 5000}, "say how many scenes"),
    ("a shard that is not there", {"shard": (2, 2), "out": "x"}, "i of a shard .* must be at most 1, got 2"),
    ("a shard below zero", {"shard": (-1, 2), "out": "x"}, "i of a shard .* must be at least 0, got -1"),
    ("a shard of none", {"shard": (0, 0), "out": "x"}, "n of a shard .* must be at least 1, got 0"),
    ("a shard in words", {"shard": "0/2", "out": "x"}, "a shard is .i, n., .*got '0/2'"),
]


@pytest.mark.parametrize(("options", "message"), named(EVALUATED))
def test_an_evaluation_that_makes_no_sense_is_refused(tiny, options, message):
    given = {"clip": tiny, "data": "scenes:development:2", **options}
    with pytest.raises(GradeclipError, match=message):
        evaluate(given.pop("clip"), given.pop("data"), progress=False, **given)


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


def test_no_more_processes_are_begun_than_there_are_chunks_and_one_takes_the_threads_it_is_told(tiny, monkeypatch):
    begun, seen, measure = [], [], run.measured

    def config(backend, n_jobs):
        begun.append(n_jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "parallel_config", config)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, "scenes:development:4", "grad-eclip", chunk=2, jobs=24, references=False, progress=False)
    assert begun == [2]
    monkeypatch.setattr(run, "measured", lambda *given: seen.append(torch.get_num_threads()) or measure(*given))
    for threads in (3, 2):
        evaluate(tiny, "scenes:development:2", "grad-eclip", threads=threads, references=False, progress=False)
    assert seen == [3, 2]


def test_of_one_image_the_report_says_that_there_are_no_means(tiny):
    rows = evaluate(tiny, "scenes:development:1", "grad-eclip", references=False, progress=False)
    assert run.report(rows).startswith("No means: no measure is known of two images or more.")


EXAMPLE = {"key": "k", "prompt": "a dog", "concept": "dog", "caption": "", "present": ("dog",), "image": len}
EXAMPLES = [
    ("a name that is a number", {"key": 5}, "key of an example must be a text, got 5"),
    ("no prompt", {"prompt": None}, "prompt of an example must be a text, got None"),
    ("no concept", {"concept": None}, "concept of an example must be a text"),
    (
        "an image in place of what reads it",
        {"image": PAIR_IMAGE},
        "image of an example must be a function",
    ),
]


@pytest.mark.parametrize(("changed", "message"), named(EXAMPLES))
def test_an_example_that_is_none_is_refused_when_it_is_made(changed, message):
    with pytest.raises(GradeclipError, match=message):
        Example(**{**EXAMPLE, **changed})


MADE = [
    ("nothing", {"image": lambda: None}, "this is builtins.NoneType"),
    ("floats", {"image": lambda: np.zeros((32, 32, 3))}, "An array must be uint8"),
    ("a mask of another size", {"load_mask": lambda: np.eye(8) > 0}, r"one shape, got \(32, 32\) and \(8, 8\)"),
    ("a mask of grey", {"load_mask": lambda: np.full((32, 32), 0.5)}, "a mask must be of True and False"),
    ("a mask of words", {"load_mask": lambda: "dog"}, "a mask must be an array of numbers, got"),
]


@pytest.mark.parametrize(("changed", "message"), named(MADE))
def test_what_an_example_reads_is_refused_if_it_is_no_image_or_mask(tiny, tmp_path, changed, message):
    example = Example(**{**EXAMPLE, "image": lambda: PAIR_IMAGE, "load_mask": lambda: np.eye(32) > 0, **changed})
    with pytest.raises(GradeclipError, match=message):
        evaluate(tiny, [example], references=False, progress=False, out=tmp_path / "run")


def test_an_example_may_read_its_image_as_an_array(tiny, tmp_path):
    example = Example(**{**EXAMPLE, "image": lambda: np.asarray(PAIR_IMAGE), "load_mask": lambda: np.eye(32) > 0})
    assert len(evaluate(tiny, [example], references=False, progress=False, out=tmp_path / "run")) == 1


def test_rows_that_were_damaged_are_left_out_and_foreign_ones_are_no_rows(tmp_path):
    with closing(Results(tmp_path / "run", {"seed": 0})) as results:
        for number in range(2):
            results.write(number, pd.DataFrame({"image": [f"{number}"], "method": ["rise"]}))
    (tmp_path / "run" / "chunks" / "0.json").write_text("[]")
    assert [*read_whole(tmp_path / "run")] == [1]
    content = b'[{"rows": "dear"}]'
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "1.json").write_bytes(sha256(content).hexdigest().encode() + b"\n" + content)
    (tmp_path / "chunks" / "notes.json").write_text("dear")
    assert read_whole(tmp_path) == {}
    (tmp_path / "folder" / "settings.json").mkdir(parents=True)
    with pytest.raises(GradeclipError, match="settings.json does not say what made its rows"):
        Results(tmp_path / "folder", {})


def test_shards_of_something_else_are_not_merged(tmp_path, capsys):
    for i in range(2):
        Results(tmp_path / f"shard-{i}-of-2", {"seed": 0}).close()
    with pytest.raises(GradeclipError, match="is no shard of an evaluation: it does not say its examples and chunk"):
        merge(tmp_path)
    with pytest.raises(GradeclipError, match="the table has no column 'concept'"):
        run.report(pd.DataFrame({"image": ["1"], "method": ["choices"], "right": [1.0]}))
    with pytest.raises(GradeclipError, match="the table has no column 'kind'"):
        choice_figures(pd.DataFrame({"image": ["1"], "method": ["rise"]}), "winoground:x")


def test_settings_that_were_damaged_are_named(tmp_path):
    Results(tmp_path / "run", {"seed": 0}).close()
    for damaged in ("null]", "null", "7", '["dear"]', "\0"):
        (tmp_path / "run" / "settings.json").write_text(damaged)
        with pytest.raises(GradeclipError, match="settings.json does not say what made its rows"):
            Results(tmp_path / "run", {"seed": 0})
        with pytest.raises(GradeclipError, match="settings.json does not say what made its rows"):
            read_settings(tmp_path / "run")


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
    ("a path too long", {"pairs": [Pair("x" * 5000, "a dog")] * 2}, "image of a pair is no path .*name too long"),
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


def test_numbers_of_numpy_are_kept_in_a_state_as_pythons_own(tiny, tmp_path):
    given = {"steps": np.int64(2), "batch": np.int16(2), "regions": np.float32(0.5), "learning_rate": np.float64(1e-3)}
    given |= {"maps": np.str_("grad-eclip"), "weighted": np.True_, "seed": np.uint8(0)}
    tuned = fine_tune(tiny, PAIRS[:3], replace(SHORT, **given), folder=tmp_path, progress=False)
    kept = torch.load(tmp_path / STATE, weights_only=True)["recipe"]
    assert {name: kept[name] for name in given} == given
    again = fine_tune(tiny, PAIRS[:3], replace(SHORT, regions=0.5), folder=tmp_path, progress=False)
    assert again.log.equals(tuned.log)  # it was done, and not begun again


CHANGES = [
    ("captions", lambda pairs: [replace(pairs[0], caption="a cow"), *pairs[1:]]),
    ("images", lambda pairs: [replace(pairs[0], image=Image.new("RGB", (32, 32))), *pairs[1:]]),
    ("their order", lambda pairs: pairs[::-1]),
]


def as_files(folder, pairs):
    folder.mkdir(exist_ok=True)
    for i, pair in enumerate(pairs):
        pair.image.save(folder / f"{i}.bmp")
    return [replace(pair, image=folder / f"{i}.bmp") for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("kept", ["files", "drawn when they are needed"])
def test_a_state_of_pairs_of_which_one_pixel_was_changed_is_refused(tiny, tmp_path, kept):
    def pairs(first):
        given = [replace(PAIRS[0], image=first), *PAIRS[1:3]]
        if kept == "files":
            return as_files(tmp_path / "images", given)
        return [replace(pair, image=pair.image.copy) for pair in given]

    fine_tune(tiny, pairs(PAIRS[0].image), SHORT, folder=tmp_path, progress=False)
    changed = PAIRS[0].image.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    with pytest.raises(GradeclipError, match="holds a run of another recipe .content is"):
        fine_tune(tiny, pairs(changed), SHORT, folder=tmp_path, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("change",), named(CHANGES))
def test_a_state_of_other_pairs_of_the_same_number_is_refused(tiny, tmp_path, change):
    fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)
    with pytest.raises(GradeclipError, match="holds a run of another recipe .content is"):
        fine_tune(tiny, change(PAIRS[:3]), SHORT, folder=tmp_path, progress=False)


def test_two_tunings_in_one_folder_are_told_apart(tiny, tmp_path):
    with locked(tmp_path, "state.running"), pytest.raises(GradeclipError, match="another process is at work on"):
        fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)


def test_two_studies_of_fine_tuning_in_one_folder_are_told_apart(tmp_path, capsys):
    table = tmp_path / "table.csv"
    with locked(tmp_path, "study.running"):
        assert main(["study", "fine-tuning", "--table", str(table), "--runs", str(tmp_path)]) == 2
    assert "another process is at work on" in capsys.readouterr().err and not table.exists()
