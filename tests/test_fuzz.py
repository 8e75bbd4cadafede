"""Fuzz: any argument of a public function gives a right result or a `GradeclipError`, and the model stays as it was.

Arguments are drawn for twenty seconds; `make fuzz` draws them for 600 (`GRADECLIP_FUZZ` is the
number of seconds).
"""

import inspect
import io
import os
import re
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from gradeclip_utils import Clip, Explainer, Explanation, load_clip, measures, read_image
from gradeclip_utils.__main__ import _COMMANDS, main
from gradeclip_utils.datasets import (
    Example,
    captioned_images,
    from_huggingface,
    load,
    read_captions,
)
from gradeclip_utils.errors import GradeclipError, heard_by
from gradeclip_utils.images import pool
from gradeclip_utils.measures.table import Table
from gradeclip_utils.methods import Method
from gradeclip_utils.panels.session import State
from gradeclip_utils.plots import paint, plot_explanation, plot_intervals, plot_maps
from gradeclip_utils.scenes import Object, Scene, arrange, draw_scene, recoloured, without
from gradeclip_utils.scenes.emoji import concept
from gradeclip_utils.words import Word
from studies.choices import load_choices

SECONDS = float(os.environ.get("GRADECLIP_FUZZ", "20"))  # of all tests here together
DRAWN = settings(
    max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
TESTS = []


def fuzzed(*strategies):
    """A test that draws arguments, other ones in each round, until its share of the seconds is over."""

    def decorate(test):
        drawn = DRAWN(given(*strategies)(test))
        TESTS.append(drawn)

        def repeated(**fixtures):
            until, rounds = time.monotonic() + SECONDS / len(TESTS), 0
            while rounds == 0 or time.monotonic() < until:
                seed(rounds)(drawn)(**fixtures)
                rounds += 1

        repeated.__name__, repeated.__signature__ = test.__name__, inspect.signature(drawn)
        return repeated

    return decorate


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
MODES = st.sampled_from(
    [
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "LA",
        "La",
        "RGBa",
        "I;16",
    ]
)
ARRAYS = arrays(
    st.sampled_from([np.uint8, np.float32, np.int64, np.bool_]),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
)


@st.composite
def pil_images(draw):
    size = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    image = Image.new(draw(MODES), size)
    return (
        image.rotate(draw(st.integers(0, 360)), expand=True)
        if 0 not in size and image.mode == "RGB"
        else image
    )


@st.composite
def files(draw):
    """A picture's file, whole, cut short, or with some bytes changed."""
    stream = io.BytesIO()
    form = draw(st.sampled_from(["png", "jpeg", "gif", "webp", "bmp", "tiff"]))
    shape = draw(st.integers(1, 30)), draw(st.integers(1, 30)), 3
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(
        stream, form
    )
    content = bytearray(stream.getvalue())
    for place, value in draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
    ):
        content[place] = value
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


IMAGES = pil_images() | ARRAYS | ANYTHING
WORDS = st.sampled_from(
    [
        "a",
        "dog",
        "red",
        "cat",
        "don't",
        "&amp;",
        "🍕",
        "日本",
        "...",
        "\u200d",
        "\0",
        "é",
        "e\u0301",
    ]
)
TEXTS = st.text(max_size=60) | st.lists(WORDS, max_size=40).map(" ".join)
EMBEDDINGS = arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from([(48,), (1, 48), (2, 48), (2, 47), (0, 48)]),
    elements=st.floats(width=16) | st.sampled_from([1e-5, 6e4, 0.0]),
)
NOUNS = st.sampled_from(["dog", "cat", "car", "apple", "xyzzy", ""])
COLOUR_WORDS = st.sampled_from(["red", "blue", "mauve"])
RELATION_WORDS = st.sampled_from(["above", "below", "to the left of", "bigger than", "", "beside"])
NUMBERS = st.floats(-10, 110) | st.integers(-10, 110) | st.floats()


@st.composite
def objects(draw):
    """A thing of a scene, as words or in place; what is in place may be refused when it is made."""
    noun = draw(NOUNS)
    if draw(st.booleans()):
        return f"{draw(COLOUR_WORDS)} {noun}" if draw(st.booleans()) else noun
    fields = {
        "artist": st.sampled_from(["openmoji", "noto", "picasso"]),
        "colour": st.none() | COLOUR_WORDS,
    }
    fields |= dict.fromkeys(("x", "y", "size", "tilt", "hue", "lightness"), NUMBERS)
    chosen = draw(st.lists(st.sampled_from([*fields]), unique=True, max_size=3))
    given = {
        name: draw(fields[name] | ANYTHING if draw(st.booleans()) else fields[name])
        for name in chosen
    }
    return refused_or(lambda: Object(noun, **given))


SCENES = st.lists(objects(), max_size=5) | ANYTHING
PHRASES = st.fixed_dictionaries(
    {},
    optional={
        "relation": RELATION_WORDS,
        "size": st.lists(st.sampled_from(["", "big", "small"]), max_size=3) | ANYTHING,
        "colour": st.lists(st.booleans(), max_size=3) | ANYTHING,
        "background": st.integers(-1, 3000) | ANYTHING,
        "seed": st.integers(-1, 9) | ANYTHING,
    },
)
PROMPTS = TEXTS | st.lists(TEXTS, min_size=1, max_size=3) | EMBEDDINGS | ANYTHING


@pytest.fixture(scope="module")
def explainer(tiny):
    return Explainer(tiny)


@pytest.fixture(scope="module")
def before(tiny):
    return {name: value.clone() for name, value in tiny.model.state_dict().items()}


def refused_or(answer):
    """What was answered; None where it was refused. Anything else is raised."""
    try:
        with heard_by(lambda warning: None):
            return answer()
    except GradeclipError as refusal:
        assert str(refusal) and len(str(refusal)) < 2000
        return None


@fuzzed(IMAGES)
def test_an_image_is_read_or_refused(image):
    found = refused_or(lambda: read_image(image))
    assert found is None or (found.mode == "RGB" and 0 not in found.size)


@fuzzed(files())
def test_a_file_is_read_or_refused(content):
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(content)
        found = refused_or(lambda: read_image(file))
        assert found is None or found.mode == "RGB"


@fuzzed(pil_images(), PROMPTS, st.none() | PROMPTS)
def test_an_explanation_is_whole_or_refused_and_leaves_the_model(
    explainer, tiny, before, image, prompts, other
):
    rng, threads, training = torch.get_rng_state(), torch.get_num_threads(), tiny.model.training
    found = refused_or(lambda: explainer.explain(image, prompts, other))
    if found is not None:
        assert np.isfinite(found.image_maps).all() and np.isfinite(found.similarity).all()
        assert (np.abs(found.similarity) <= 1 + 1e-5).all() and len(found.words) == len(
            found.prompts
        )
    assert torch.equal(rng, torch.get_rng_state())
    assert (threads, training) == (torch.get_num_threads(), tiny.model.training)
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())
    assert all(weight.grad is None for weight in tiny.model.parameters())


@fuzzed(ARRAYS | ANYTHING, ARRAYS | ANYTHING, st.data())
def test_a_map_is_measured_by_a_mask_or_refused(heat, mask, data):
    if isinstance(heat, np.ndarray) and data.draw(st.booleans()):
        mask = data.draw(arrays(np.bool_, heat.shape))
    found = refused_or(lambda: measures.localisation_scores(heat, mask))
    assert found is None or all(0 <= value <= 1 + 1e-9 for value in found.values())
    cells = refused_or(
        lambda: pool(heat, (2, 3), data.draw(st.none() | st.tuples(*[st.integers(-9, 9)] * 4)))
    )
    assert cells is None or (cells.shape == (2, 3) and np.isfinite(cells).all())


VALUES = (
    st.lists(st.floats(-1, 1) | st.floats() | st.sampled_from([0, 1, True]), max_size=12)
    | ARRAYS
    | ANYTHING
)
LABELS = st.none() | st.lists(st.sampled_from("abc"), max_size=12) | ANYTHING
KINDS = st.sampled_from(["mean", "proportion"]) | ANYTHING


@fuzzed(VALUES, LABELS, KINDS)
def test_an_interval_holds_its_mean_or_is_refused(values, clusters, kind):
    bounds = refused_or(lambda: measures.mean_interval(values, clusters, kind=kind))
    if bounds is not None:
        low, high = bounds
        assert np.isfinite(bounds).all() and low <= high
        assert (
            clusters is not None or low - 1e-9 <= np.mean(np.asarray(values, float)) <= high + 1e-9
        )


@fuzzed(*[NUMBERS | ANYTHING] * 4)
def test_an_answer_is_one_of_four_or_refused(low, high, than, margin):
    found = refused_or(lambda: measures.interpret_interval(low, high, than=than, margin=margin))
    assert found in (None, "higher", "lower", "about equal", "undecided")
    if found in ("higher", "lower"):
        assert low > than if found == "higher" else high < than


@fuzzed(ARRAYS | ANYTHING, ARRAYS | ANYTHING)
def test_agreement_lies_between_minus_one_and_one_or_is_refused(maps, others):
    for other in (others, maps):
        found = refused_or(partial(measures.rank_correlation, maps, other))
        assert found is None or (np.abs(found) <= 1 + 1e-9).all()


@fuzzed(
    st.tuples(st.integers(-1, 9), st.integers(-1, 9)) | ANYTHING, ARRAYS | arrays(np.bool_, (6, 7))
)
def test_reference_baselines_are_heat_maps_or_refused(grid, mask):
    found = refused_or(lambda: measures.reference_baselines(grid, mask, np.random.default_rng(0)))
    assert found is None or all(
        heat.shape == mask.shape and np.isfinite(heat).all() for heat in found.values()
    )


SPOKEN = st.builds(Word, WORDS, st.floats(), st.integers(-1, 9), st.integers(-1, 9))


@fuzzed(TEXTS | ANYTHING, st.lists(SPOKEN, max_size=4) | ANYTHING)
def test_curves_of_words_begin_with_the_caption_or_are_refused(caption, words):
    asked = []
    found = refused_or(
        lambda: measures.word_curves(
            lambda texts: asked.append(texts) or np.ones(len(texts)), caption, {"a": words}
        )
    )
    assert found is None or (
        asked[0][0].split() == caption.split() and (found["fraction"].between(0, 1)).all()
    )


FIELDS = st.text(max_size=6) | st.sampled_from(
    ["a.png", "a dog", 'a "dog"', "a, b", "", "\n", "\0", "é", "../a.png"]
)


@fuzzed(
    st.binary(max_size=60)
    | st.lists(st.lists(FIELDS, max_size=4).map(",".join), max_size=4).map(
        lambda lines: "\n".join(["image,caption", *lines]).encode(errors="replace")
    )
)
def test_a_table_of_captions_is_read_whole_or_refused(content):
    with TemporaryDirectory() as folder:
        table = Path(folder) / "captions.csv"
        table.write_bytes(content)
        rows = refused_or(lambda: read_captions(table))
        assert rows is None or (
            len(rows) and rows["image"].str.len().all() and rows["caption"].str.len().all()
        )
        found = refused_or(lambda: captioned_images(folder, table, check=False))
        assert (found is None) == (rows is None) and (found is None or len(found) == len(rows))


@fuzzed(
    st.lists(
        ANYTHING | st.fixed_dictionaries({"image": IMAGES, "caption": TEXTS | ANYTHING}), max_size=3
    )
    | ANYTHING
)
def test_records_become_examples_or_are_refused(records):
    found = refused_or(lambda: from_huggingface(records))
    assert found is None or all(isinstance(one, Example) and one.prompt for one in found)


@fuzzed(
    TEXTS
    | st.sampled_from(["scenes:", "coco:", "colorswap:", "folder:", "aro:x@y", "scenes:test:0"])
    | ANYTHING
)
def test_a_data_set_is_found_or_refused(what):
    for read in (load, load_choices):
        found = refused_or(lambda read=read: read(what))
        assert found is None or isinstance(found, list)


@fuzzed(
    st.binary(max_size=60), st.sampled_from(["rows.jsonl", "settings.json"]), st.integers(0, 200)
)
def test_a_damaged_run_serves_rows_that_were_written_or_is_refused(content, name, place):
    with TemporaryDirectory() as folder:
        rows = [{"image": f"{i}", "value": i / 3} for i in range(3)]
        with Table(folder, {"seed": 0}, ("image",)) as table:
            table.add(rows)
        file = Path(folder) / name
        whole = file.read_bytes()
        file.write_bytes(whole[:place] + content)
        table = refused_or(lambda: Table(folder, {"seed": 0}, ("image",)))
        if table is not None:
            with table:
                served = [row for row in table.rows.values() if row in rows]
                assert (
                    len(served) == len(table.rows) or name == "rows.jsonl"
                )  # what was written into the rows is a row


@fuzzed(SCENES, PHRASES)
def test_a_scene_is_what_its_caption_says_or_refused(things, phrases):
    scene = refused_or(lambda: arrange(things, **phrases))
    if scene is None:
        return
    masks, count = scene.masks(96), len(scene.objects)
    assert masks.shape == (count, 96, 96) and masks.sum(0).max(initial=0) <= 1
    assert scene.image(96).size == (96, 96) and "gradeclip: drawn" in scene.image(96).info
    for span in scene.spans:
        assert 0 <= span.start < span.end <= len(scene.caption) and set(span.objects) <= set(
            range(count)
        )
        if span.kind == "noun":
            said = scene.caption[span.start : span.end]
            assert {said} <= {
                word
                for i in span.objects
                for word in concept(scene.objects[i].noun).values()
                if isinstance(word, str)
            }


@fuzzed(
    st.one_of(st.integers(), st.lists(st.integers(), max_size=3), ANYTHING),
    ANYTHING | st.integers(0, 5),
)
def test_a_random_scene_is_drawn_or_refused(seed, n_objects):
    scene = refused_or(lambda: draw_scene(seed, n_objects=n_objects))
    if scene is not None:
        assert n_objects is None or len(scene.objects) == n_objects
        assert scene == draw_scene(seed, n_objects=n_objects)


@fuzzed(
    st.dictionaries(
        st.sampled_from([*State.__dataclass_fields__]), ANYTHING, min_size=1, max_size=3
    )
)
def test_a_state_changes_as_a_whole_or_not_at_all(picture, values):
    state = State(picture, "a dog")
    with suppress(GradeclipError):
        found = replace(state, **values)
        assert replace(found) == found
    assert state == replace(state)


MASK = np.eye(50, 80, dtype=bool)
CURVE = pd.DataFrame({"method": "a", "fraction": [0.0, 1.0], "score": [1.0, 0.0]})
TABLE = pd.DataFrame(
    {"method": ["a", "b"] * 3, "image": [0, 0, 1, 1, 2, 2], "mean": 0.5, "low": 0.1, "high": 0.9}
)


@pytest.fixture(scope="module")
def doors(explainer, picture, tmp_path_factory):
    """Public functions, each with arguments that it takes."""
    clip, found, scene = (
        explainer.clip,
        explainer.explain(picture, "a dog"),
        arrange(["dog", "cat"]),
    )
    some = [
        Example(key, f"a {key}", key, "", (key,), lambda: picture, lambda: MASK)
        for key in ("dog", "cat")
    ]
    out = tmp_path_factory.mktemp("report")
    ones, texts = (
        torch.ones(1, 48),
        {"name": "mine", "title": "Mine", "paper": "", "explains": "", "cost": ""},
    )
    return [
        (
            Explainer,
            {"clip": clip, "method": "rise", "seed": 0, "image_layers": 1, "resolution": "model"},
        ),
        (
            Clip,
            {
                "model": clip.model,
                "preprocess": len,
                "tokenizer": len,
                "vocabulary": ["a"],
                "text_layers": 1,
            },
        ),
        (
            Method,
            {**texts, "image": len, "text": None, "layers": "last", "compares_targets": False},
        ),
        (explainer.explain_batch, {"images": [picture], "texts": ["a dog"], "against": "a cat"}),
        (explainer.interactions, {"image": picture, "caption": "a dog"}),
        (explainer.null_maps, {"image": picture, "prompt": "a dog", "count": 2}),
        (explainer.maps, {"images": picture, "directions": ones}),
        (explainer.score_words, {"captions": ["a dog"], "directions": ones}),
        (found.heatmap, {"index": 0, "signed": True}),
        (found.prompt_dependence, {"nulls": np.ones((2, 4, 4)), "index": 0}),
        (plot_explanation, {"explanation": found, "shared_scale": True, "width": 6, "most": 3}),
        (
            plot_maps,
            {"image": picture, "maps": {"a": np.eye(4)}, "signed": True, "columns": 2, "width": 6},
        ),
        (
            plot_intervals,
            {
                "table": TABLE,
                "names": None,
                "group": "method",
                "control": (),
                "chance": 0,
                "title": "",
            },
        ),
        (
            paint,
            {
                "image": picture,
                "heat": np.eye(4),
                "box": None,
                "signed": True,
                "vmax": 1,
                "upsample": "nearest",
            },
        ),
        (
            measures.group_means,
            {"rows": TABLE, "value": "mean", "by": "method", "unit": "image", "cluster": None},
        ),
        (
            measures.paired_differences,
            {"rows": TABLE, "value": "mean", "baseline": "a", "by": "method", "cluster": None},
        ),
        (measures.curve_auc, {"curves": CURVE}),
        (
            Example,
            {
                "key": "k",
                "prompt": "p",
                "concept": "c",
                "caption": "",
                "present": ("c",),
                "image": len,
            },
        ),
        (load_clip, {"name": "emoji", "pretrained": None, "device": "cpu", "precision": "fp32"}),
        (
            partial(measures.evaluate, clip, references=False),
            {"data": some, "methods": "rollout", "faithfulness": ""},
        ),
        (
            partial(measures.evaluate, data=some, methods="rollout"),
            {"clip": clip, "seed": 0, "progress": False},
        ),
        (
            partial(measures.report, clip, out=out, overwrite=True),
            {"data": some, "method": "rollout", "limit": 1, "nulls": 2},
        ),
        (draw_scene, {"seed": 0, "tint": 0.5, "plain": True, "groups": [("dog", "red", 2)]}),
        (Scene, {"objects": scene.objects, "caption": "a dog", "spans": (), "background": 0}),
        (recoloured, {"scene": scene, "colours": ["red", None]}),
        (without, {"scene": scene, "index": 0}),
    ]


@fuzzed(st.data())
def test_any_argument_of_a_public_function_is_taken_or_refused(doors, data):
    function, valid = data.draw(st.sampled_from(doors))
    names = data.draw(st.lists(st.sampled_from(sorted(valid)), min_size=1, max_size=2, unique=True))
    wrong = {name: data.draw(ANYTHING | ARRAYS) for name in names}
    refused_or(lambda: function(**{**valid, **wrong}))


WRITTEN = (
    TEXTS
    | NUMBERS.map(str)
    | st.sampled_from(
        [
            "a.png",
            "captions.csv",
            ".",
            "new/x.pdf",
            "new/x.safetensors",
            "gone",
            "/dev/zero",
            "/proc/x",
            "http://a.png",
            "scenes:test:1",
            "scenes:test:0",
            "folder:.",
            "all",
            "grad-eclip,rise",
            "1" * 30,
            "\udcff",
            "~nobody/x",
            "@",
        ]
    )
)
CALLS = {
    "explain": ["--image", "a.png", "--caption", "a dog", "--out", "x.png"],
    "report": ["--data", ".", "--captions", "captions.csv", "--out", "report"],
    "evaluate": ["--data", "scenes:test:1", "--out", "rows"],
}


@pytest.fixture
def options(tmp_path, monkeypatch):
    """The options of each command, in a folder with its inputs; a model is never loaded."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    Path("captions.csv").write_text("image,caption\na.png,a dog\n")
    found = {}
    for name, command in _COMMANDS.items():
        with redirect_stdout(io.StringIO()) as said, suppress(SystemExit):
            main([name, "--help"])
        found[name] = sorted(
            set(re.findall(r"--[a-z][a-z-]+", said.getvalue().split("example:")[0])) - {"--help"}
        )
        for module in ("gradeclip_utils.models", f"gradeclip_utils{command.module}"):
            monkeypatch.setattr(f"{module}.load_clip", refused_model, raising=False)
    return found


def refused_model(*given, **named):
    raise GradeclipError("the arguments are fine")


@fuzzed(st.data())
def test_any_arguments_of_a_command_are_taken_or_refused_in_one_line_and_nothing_is_written(
    options, data
):
    name = data.draw(st.sampled_from(sorted(CALLS)))
    drawn = st.tuples(st.sampled_from(options[name]), st.lists(WRITTEN, max_size=2))
    wrong = [
        one
        for option, values in data.draw(st.lists(drawn, max_size=2))
        for one in (option, *values)
    ]
    before = {file: file.read_bytes() for file in Path().iterdir()}
    with (
        redirect_stderr(io.StringIO()) as said,
        redirect_stdout(io.StringIO()),
        suppress(SystemExit),
    ):
        assert main([name, *CALLS[name], *wrong]) == 2
        assert said.getvalue().splitlines()[-1].startswith("gradeclip: ")
    assert {file: file.read_bytes() for file in Path().iterdir()} == before


@fuzzed(st.data())
def test_a_stored_folder_is_read_as_it_was_saved_or_refused(explainer, picture, data):
    with TemporaryDirectory() as folder:
        found = explainer.explain(picture, ["a dog", "a cat"])
        found.save(folder)
        file = data.draw(st.sampled_from(sorted(Path(folder).iterdir())))
        content = bytearray(file.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
            content[place] ^= data.draw(st.integers(1, 255))
        file.write_bytes(
            content[: data.draw(st.integers(0, len(content)))]
            if data.draw(st.booleans())
            else content
        )
        again = refused_or(lambda: Explanation.load(folder))
        if again is not None:
            assert np.array_equal(again.image_maps, found.image_maps)
            assert again.image.tobytes() == found.image.tobytes()
