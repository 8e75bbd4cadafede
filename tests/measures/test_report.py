"""A report: the worst pair comes first, a pair that cannot be explained is a row, and nothing is computed twice."""

import html
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures import dataset_report as module
from gradeclip_utils.measures.dataset_report import _worst_first, report
from gradeclip_utils.measures.localisation import localisation_scores
from gradeclip_utils.scenes import arrange
from tests.measures.test_evaluation import write_folder

QUICK = {"nulls": 3, "progress": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four examples of three images, with masks."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    write_folder(folder, 3)
    text = (
        (folder / "captions.csv").read_text().replace("a dog", "<script>alert(1)</script> & a dog")
    )
    (folder / "captions.csv").write_text(text)
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def written(tiny, data, tmp_path_factory):
    """A report, its rows and its folder."""
    out = tmp_path_factory.mktemp("reports") / "report"
    return report(tiny, data, out, **QUICK), out


def test_a_row_says_how_well_the_caption_fits_and_how_much_the_map_depends_on_it(
    written, tiny, data
):
    rows, _ = written
    explainer, examples = Explainer(tiny), load(data)
    found = {row.image: row for row in rows.itertuples()}
    for example in examples:
        row = found[example.key]
        explanation = explainer.explain(example.image(), example.prompt)
        own = explanation.similarity[0]
        others = {
            one.key: explainer.explain(one.image(), example.prompt).similarity[0]
            for one in examples
            if np.asarray(one.image()).tobytes() != np.asarray(example.image()).tobytes()
        }
        assert row.similarity == pytest.approx(own, abs=1e-6)
        assert row.fit == pytest.approx(np.mean([own > other for other in others.values()]))
        nulls = explainer.null_maps(example.image(), example.prompt, 3)
        assert (row.dependence, row.low, row.high) == pytest.approx(
            explanation.prompt_dependence(nulls), abs=1e-5
        )
        assert row.largest == pytest.approx(explanation.heatmap(0, signed=True).max(), abs=1e-6)
        measures = localisation_scores(explanation.heatmap(0, signed=True), example.mask())
        assert row.average_precision == pytest.approx(measures["average_precision"], abs=1e-4)


def test_the_pair_that_is_wrong_among_five_comes_first(bundled, tmp_path):
    names = ["dog", "piano", "umbrella", "rocket", "snake"]
    said = ["a dog", "a piano", "an umbrella", "a rocket", "a bus"]
    examples = [
        Example(name, prompt, name, prompt, (name,), arrange([name], seed=i).image)
        for i, (name, prompt) in enumerate(zip(names, said, strict=True))
    ]
    table = report(bundled, examples, tmp_path / "report", progress=False)
    assert table["image"].iloc[0] == "snake" and "fit" in table["warnings"].iloc[0]
    page = (tmp_path / "report" / "index.html").read_text()
    assert (
        "Report of 5 pairs" in page
        and "captions that fit other images as well as their own: 1;" in page
    )
    assert "similarities far" not in page  # whose deviation is not known of so few


def test_each_image_is_traced_once_with_its_gradient(tiny, data, tmp_path, monkeypatch):
    traced, tower = [], type(Explainer(tiny).image_tower)
    trace = tower.trace

    def counted(self, inputs, graph=False):
        traced.extend([graph] * len(inputs) if inputs.ndim == 4 else [])
        return trace(self, inputs, graph)

    monkeypatch.setattr(tower, "trace", counted)
    report(tiny, data, tmp_path / "report", **QUICK)
    assert (
        traced.count(True) == traced.count(False) == 3
    )  # without, to compare it with other captions


def test_a_bad_file_and_a_caption_that_is_too_long_are_rows_that_say_so(tiny, data, tmp_path):
    good = load(data)[:2]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    bad = [
        Example("2-broken.png", "a dog", "dog", "", (), lambda: tmp_path / "broken.png"),
        replace(good[0], key="long", prompt="dog " * 20_000),
        Example("gone", "a cat", "cat", "", (), lambda: Image.open(tmp_path / "gone.png")),
    ]
    rows = report(tiny, [*bad, *good], tmp_path / "report", **QUICK).set_index("image")
    assert list(rows.index[:3]) == ["2-broken.png", "long", "gone"] and set(rows.index[3:]) == {
        x.key for x in good
    }
    assert (
        "gone.png" in rows.loc["gone", "error"]
        and rows["error"].ne("").tolist() == [True] * 3 + [False] * 2
    )
    assert rows.loc[good[0].key, "fit"] in (0.0, 1.0) and np.isnan(rows.loc["gone", "similarity"])
    page = (tmp_path / "report" / "index.html").read_text()
    assert (
        "pairs that could not be explained: 3;" in page
        and html.escape(rows.loc["gone", "error"]) in page
    )
    assert re.findall(r"<td>([\w.-]+)</td>\s*<td></td>", page) == ["2-broken.png", "long", "gone"]
    Image.new("RGB", (9, 9)).save(tmp_path / "gone.png")  # mended, it is explained by the next call
    again = report(tiny, [*bad, *good], tmp_path / "report", **QUICK).set_index("image")
    assert again.loc["gone", "error"] == "" and again.loc["long", "error"] != ""


def test_the_order_is_by_warnings_then_by_fit_then_by_dependence():
    rows = pd.DataFrame(
        {
            "image": [*"abcdefgh", "i"],
            "similarity": [0.2, 0.21, 0.2, 0.19, 0.9, 0.2, 0.2, 0.21, np.nan],
            "fit": [0.9, 0.1, 0.8, 0.7, 0.95, 0.2, 1, 1, np.nan],
            "dependence": [0.5, 0.6, 0.02, 0.7, 0.9, 0.03, 0.7, 0.8, np.nan],
            "high": [0.6, 0.7, 0.05, 0.8, 1, 0.05, 0.8, 0.9, np.nan],
            "error": ["", "", "", "", "", "", "", "", "no image"],
        }
    )
    table = _worst_first(rows.to_dict("records"))
    assert table["image"].tolist() == ["i", "f", "b", "c", "e", "d", "a", "g", "h"]
    warnings = table.set_index("image")["warnings"]
    assert warnings[["i", "f", "b", "c", "e", "a"]].tolist() == [
        "not explained",
        "fit, dependence",
        "fit",
        "dependence",
        "deviation",
        "",
    ]
    assert (
        _worst_first(rows[:2].to_dict("records"))["deviation"].isna().all()
    )  # of two pairs both are as far


def test_the_page_shows_every_pair_escapes_what_people_wrote_and_fetches_nothing(written):
    rows, out = written
    page = (out / "index.html").read_text()
    assert page.count("<tr") == 1 + len(rows)
    for prompt in rows["prompt"]:
        assert f"<td>{html.escape(prompt)}</td>" in page
    assert "<script>alert" not in page and page.count("<script>") == 1
    assert not re.search(r"https?:|//\w|@import|url\(", page)
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert sorted(shown) == sorted(set(rows["thumbnail"])) and all(
        (out / name).is_file() for name in shown
    )
    with Image.open(out / shown[0]) as thumbnail:
        assert thumbnail.height == 160


def test_a_report_goes_on_and_explains_nothing_twice(written, tiny, data, tmp_path, monkeypatch):
    rows, done = written
    out = shutil.copytree(done, tmp_path / "report")
    (out / "index.html").unlink()
    monkeypatch.setattr(module, "_row", None)  # nothing is explained
    pd.testing.assert_frame_equal(report(tiny, data, out, **QUICK), rows)
    assert (out / "index.html").read_bytes() == (done / "index.html").read_bytes()
    assert {file.name for file in out.iterdir()} == {
        "index.html",
        "rows.jsonl",
        "settings.json",
        "thumbnails",
    }
    with pytest.raises(GradeclipError, match="holds another run: seed was 0 and is 1 now"):
        report(tiny, data, out, seed=1, **QUICK)


def test_a_report_of_an_image_that_was_replaced_is_another_report(tiny, data, tmp_path):
    copy = shutil.copytree(data.removeprefix("folder:"), tmp_path / "mine")
    report(tiny, f"folder:{copy}", tmp_path / "report", **QUICK)
    (copy / "images" / "2.png").write_bytes((copy / "images" / "0.png").read_bytes())
    with pytest.raises(
        GradeclipError, match="image or mask of '2.png .line 4.' was replaced since: choose another"
    ):
        report(tiny, f"folder:{copy}", tmp_path / "report", **QUICK)
    with pytest.raises(GradeclipError, match="image_layers was None and is 2 now"):
        report(replace(tiny, image_layers=2), f"folder:{copy}", tmp_path / "report", **QUICK)


def test_what_cannot_be_reported_is_refused_before_anything_is_explained(tiny, data, tmp_path):
    examples = load(data)
    for given, options, message in (
        ([], {}, "there are none"),
        ([examples[0], examples[0]], {}, "'0.png .line 2.' is there more than once"),
        (examples, {"method": "grad-eclipse"}, "did you mean grad-eclip"),
        (examples, {"nulls": 10**6}, "nulls must be at most 1000"),
    ):
        with pytest.raises(GradeclipError, match=message):
            report(tiny, given, tmp_path / "report", **{**QUICK, **options})
    assert not (tmp_path / "report").exists()


def test_the_command_takes_a_folder_and_a_table_or_a_data_set(
    tiny, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(module, "load_clip", lambda *given, **named: tiny)
    monkeypatch.chdir(tmp_path)
    folder, images = data.removeprefix("folder:"), f"{data.removeprefix('folder:')}/images"
    (tmp_path / "table.csv").write_text("image,caption\n0.png,a dog\nno.png,a cat\n1.png,a bus\n")
    given = ["report", "--out", "report"]
    assert main([*given, "--data", images, "--captions", "table.csv"]) == 0
    said = "3 pairs: report/index.html; 1 could not be explained, the first because 'no.png (line 3)' cannot be read: "
    assert said in capsys.readouterr().out
    assert len((tmp_path / "report" / "rows.jsonl").read_text().splitlines()) == 2
    for arguments, message in (
        (["--data", folder], "a folder of images needs --captions"),
        (
            ["--data", folder, "--captions", ""],
            "--captions must be a path, and an empty one was given",
        ),
        (["--data", "nothing:x"], "names no data set"),
        (
            ["--data", ".", "--captions", "table.csv", "--out", "no"],
            "no/index.html; 3 could not be explained, the",
        ),
        (
            ["--data", images, "--captions", "table.csv", "--out", images],
            "holds other files, such as 0.png",
        ),
    ):
        assert main([*given, *arguments]) == 2
        assert message in capsys.readouterr().err
