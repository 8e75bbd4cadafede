"""A report: the worst pairs come first, whoever is stopped goes on, and the page holds nothing but what it says."""

import html
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.images import onto_image
from gradeclip_utils.measures import dataset_report as module
from gradeclip_utils.measures.dataset_report import GIVEN, report
from gradeclip_utils.measures.report_page import ordered
from tests.measures.test_run import write_folder

QUICK = {"nulls": 3, "chunk": 2, "progress": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four examples of three images, with masks."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    write_folder(folder, 3)
    text = (folder / "captions.csv").read_text().replace("a dog", "<script>alert(1)</script> & a dog")
    (folder / "captions.csv").write_text(text)
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def maps(data, tmp_path_factory):
    """Maps that somebody else made of the first image, by its name, and of the second example, by its key."""
    folder, examples = tmp_path_factory.mktemp("maps"), load(data)
    np.save(folder / "0.npy", examples[0].mask().astype(np.float64))
    np.save(folder / f"{examples[1].key}.npy", np.ones((5, 7), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def written(tiny, data, maps, tmp_path_factory):
    """A report, its rows and its folder."""
    out = tmp_path_factory.mktemp("reports") / "report"
    return report(tiny, data, out, maps=maps, **QUICK), out


def test_a_row_says_how_well_the_caption_fits_and_how_far_the_map_hangs_on_it(written, tiny, data):
    rows, _ = written
    explainer, examples = Explainer(tiny), load(data)
    for example, row in zip(examples, rows[rows["method"] == "grad-eclip"].itertuples(), strict=True):
        explanation = explainer.explain(example.image(), example.prompt)
        own = explanation.similarity[0]
        others = {one.key: explainer.explain(one.image(), example.prompt).similarity[0] for one in examples
                  if np.asarray(one.image()).tobytes() != np.asarray(example.image()).tobytes()}  # fmt: skip
        assert row.image == example.key and row.similarity == pytest.approx(own, abs=1e-6)
        assert row.fit == pytest.approx(np.mean([own > other for other in others.values()]))
        nulls = explainer.null_maps(example.image(), example.prompt, 3)
        assert (row.dependence, row.low, row.high) == pytest.approx(explanation.prompt_dependence(nulls), abs=1e-5)
        assert row.largest == pytest.approx(explanation.heatmap(0, signed=True).max(), abs=1e-6)


def test_an_image_is_none_of_its_own_others_however_its_embedding_hangs_on_the_batch(tiny, data, tmp_path, monkeypatch):
    whole = Explainer.embed_images

    def rounded(self, images, batch_size=32):  # as half precision does
        found = whole(self, images, batch_size)
        return found if len(found) == 1 else torch.nn.functional.normalize(found + 1e-2, dim=-1)

    monkeypatch.setattr(Explainer, "embed_images", rounded)
    (first,) = load(data, 1)
    twice = [first, replace(first, key="again", prompt="a cat")]
    assert report(tiny, twice, tmp_path / "twice", **QUICK)["fit"].isna().all()  # there is no other image
    fit = report(tiny, [*twice, load(data)[1]], tmp_path / "three", **QUICK)["fit"]
    assert fit.isin([0, 1]).all()  # one other image


def test_a_map_that_somebody_else_made_is_measured_by_the_same_lines(written, tiny, data):
    rows, _ = written
    given = rows[rows["method"] == GIVEN].set_index("image")
    first, second = (example.key for example in load(data)[:2])
    assert list(given.index) == [first, second]
    assert given.loc[first, "average_precision"] == 1 and given.loc[first, "iou_best"] == 1  # it is the mask
    assert given.loc[second, "average_precision"] == pytest.approx(load(data)[1].mask().mean(), abs=0.01)
    both = rows[rows["image"].isin([first, second])]
    assert both[["deletion", "insertion"]].notna().all(axis=None)
    assert np.isnan(given.loc[second, "agreement"]) and -1 <= given.loc[first, "agreement"] <= 1  # one is constant


def test_the_worst_of_each_question_come_first_and_what_is_not_known_last():
    rows = pd.DataFrame({"image": list("abcdef"), "similarity": [0.2, 0.21, 0.2, 0.19, 0.9, 0.2],
                         "fit": [0.9, 0.1, 0.8, 0.7, 0.95, np.nan], "dependence": [0.5, 0.6, 0.02, 0.7, 0.9, np.nan],
                         "method": "grad-eclip"})  # fmt: skip
    table = ordered(rows)
    assert set(table["image"][:3]) == {"b", "c", "e"} and table["image"].iloc[-1] == "f"
    worst = table.set_index("image")["worst"]
    assert (worst["b"], worst["c"], worst["e"]) == ("fit", "dependence", "deviation")
    assert table.set_index("image").loc["e", "deviation"] > 3.5


def test_the_page_shows_every_pair_escapes_what_people_wrote_and_fetches_nothing(written):
    rows, out = written
    page = (out / "index.html").read_text()
    assert page.count("<tr>") == 1 + len(rows)
    for prompt in rows["prompt"]:
        assert f"<td>{html.escape(prompt)}</td>" in page
    assert "<script>alert" not in page and page.count("<script>") == 1
    assert not re.search(r"https?:|//\w|@import|url\(", page)
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert sorted(shown) == sorted(set(rows["thumbnail"])) and all((out / name).is_file() for name in shown)
    with Image.open(out / shown[0]) as thumbnail:
        assert thumbnail.height == 160


def test_a_report_that_was_stopped_goes_on_and_explains_nothing_twice(written, tiny, data, maps, tmp_path, monkeypatch):
    rows, done = written
    out = shutil.copytree(done, tmp_path / "report")
    (out / "index.html").unlink()
    monkeypatch.setattr(module, "Explainer", None)  # nothing is explained
    pd.testing.assert_frame_equal(report(tiny, data, out, maps=maps, **QUICK), rows)
    assert (out / "index.html").read_bytes() == (done / "index.html").read_bytes()
    (out / rows["thumbnail"].iloc[-1]).unlink()
    monkeypatch.undo()
    pd.testing.assert_frame_equal(report(tiny, data, out, maps=maps, **QUICK), rows)
    assert (out / rows["thumbnail"].iloc[-1]).is_file()
    assert {file.name for file in out.iterdir()} == {file.name for file in done.iterdir()}
    with pytest.raises(GradeclipError, match="holds another run: .*maps was 2, and is 0 now"):
        report(tiny, data, out, **QUICK)


def test_rows_are_computed_again_when_an_image_beside_theirs_was_replaced(tiny, data, tmp_path):
    copy = shutil.copytree(data.removeprefix("folder:"), tmp_path / "mine")
    report(tiny, f"folder:{copy}", tmp_path / "report", **QUICK)
    (copy / "images" / "2.png").write_bytes((copy / "images" / "0.png").read_bytes())
    with pytest.warns(UserWarning, match="chunk 0 of .* is about images or masks that were replaced"):
        after = report(tiny, f"folder:{copy}", tmp_path / "report", **QUICK)
    pd.testing.assert_frame_equal(after, report(tiny, f"folder:{copy}", tmp_path / "fresh", **QUICK))


def test_a_report_through_other_layers_is_another_report(written, tiny, data, maps):
    with pytest.raises(GradeclipError, match="image_layers was None, and is 2 now"):
        report(replace(tiny, image_layers=2), data, written[1], maps=maps, **QUICK)


def test_no_more_images_are_in_memory_than_a_chunk_and_the_sample(tiny, data, tmp_path, monkeypatch):
    sizes = []
    embed = Explainer.embed_images

    def watched(self, images, batch_size=32):
        sizes.append(len(images) if isinstance(images, list) else batch_size)
        return embed(self, images, batch_size)

    monkeypatch.setattr(Explainer, "embed_images", watched)
    monkeypatch.setattr(module, "SAMPLE", 3)
    monkeypatch.setattr(module, "CHUNK", 2)
    report(tiny, data, tmp_path / "report", **QUICK)
    assert sorted(sizes) == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full((4, 4), np.nan), "must hold a map .* of finite numbers"),
        (np.zeros((3, 4, 4)), r"holds float64 of shape \(3, 4, 4\)"),
        (np.array([["x"]]), "must hold a map"),
        (b"\x93NUMPY", "is no array of numpy, or is cut short"),
    ],
)
def test_a_map_that_is_none_is_refused_and_no_page_is_written(tiny, data, tmp_path, content, message):
    (tmp_path / "maps").mkdir()
    if isinstance(content, bytes):
        (tmp_path / "maps" / "0.npy").write_bytes(content)
    else:
        np.save(tmp_path / "maps" / "0.npy", content)
    with pytest.raises(GradeclipError, match=message):
        report(tiny, data, tmp_path / "report", maps=tmp_path / "maps", **QUICK)
    assert not (tmp_path / "report" / "index.html").exists()


def test_what_cannot_be_reported_is_refused_before_anything_is_explained(tiny, data, tmp_path):
    examples = load(data)
    for given, options, message in (
        ([], {}, "there are none"),
        ([examples[0], examples[0]], {}, "'2-0.png' is there more than once"),
        (examples, {"method": "grad-eclipse"}, "did you mean grad-eclip"),
        (examples, {"chunk": 0}, "chunk must be at least 1"),
    ):
        with pytest.raises(GradeclipError, match=message):
            report(tiny, given, tmp_path / "report", **{**QUICK, **options})
    assert not (tmp_path / "report").exists()


def test_maps_of_nothing_that_is_there_are_refused(tiny, data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder of maps"):
        report(tiny, data, tmp_path / "report", maps=tmp_path / "maps", **QUICK)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "other.npy", np.ones((2, 2)))
    with pytest.raises(FileNotFoundError, match=r"not one map in .* is called after an example, as 2-0.png.npy would"):
        report(tiny, data, tmp_path / "report", maps=tmp_path / "maps", **QUICK)


def test_the_command_takes_a_folder_and_a_table_or_a_data_set(bundled, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "load_clip", lambda *given, **named: bundled)
    folder = data_path("photos")
    given = ["report", "--out", str(tmp_path / "report"), "--limit", "2"]
    table = ["--data", str(folder), "--captions", str(folder / "captions.csv")]
    assert main([*given, *table]) == 0
    captured = capsys.readouterr()
    assert "2 pairs: " in captured.out and "trained on drawn scenes alone" in captured.err
    for arguments, message in (
        (["--data", str(folder)], "a folder of images needs --captions"),
        (["--data", "nowhere", "--captions", "x.csv"], "there is no folder nowhere"),
        (["--data", "nothing:x"], "names no data set"),
    ):
        assert main([*given, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_given_map_lies_where_its_image_is(data):
    mask = load(data)[0].mask()
    assert (onto_image(mask.astype(float), (0, 0, *mask.shape[::-1]), mask.shape[::-1]) == mask).all()
