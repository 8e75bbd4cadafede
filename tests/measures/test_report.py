"""A report: the worst pair comes first, a failure is a row, and nothing is computed twice."""

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
from gradeclip_utils.measures import dataset_report
from gradeclip_utils.measures.dataset_report import report
from gradeclip_utils.measures.localisation import localisation_scores
from gradeclip_utils.scenes import arrange
from tests.measures.test_evaluation import write_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four examples of three images, with masks; one caption has HTML."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    write_folder(folder, 3)
    text = (folder / "captions.csv").read_text()
    text = text.replace("a dog", "<script>alert(1)</script> & a dog")
    (folder / "captions.csv").write_text(text)
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def written(tiny, data, tmp_path_factory):
    """A report, its rows and its folder."""
    out = tmp_path_factory.mktemp("reports") / "report"
    return report(tiny, data, out, nulls=3), out


def test_a_row_says_how_well_the_caption_fits_and_how_much_the_map_depends_on_it(
    written, tiny, data
):
    rows = written[0].set_index("image")
    explainer = Explainer(tiny)
    examples = load(data)
    images = {example.image().tobytes(): example.image() for example in examples}
    for example in examples:
        row = rows.loc[example.key]
        image = example.image()
        explanation = explainer.explain(image, example.prompt)
        (similarity,) = explanation.similarity
        assert row["similarity"] == pytest.approx(similarity, abs=1e-6)

        other_images = [images[content] for content in images if content != image.tobytes()]
        (text_embedding,) = explainer.embed_texts(example.prompt)
        other_similarities = explainer.embed_images(other_images) @ text_embedding
        fit = (similarity > other_similarities.numpy()).mean()
        assert row["fit"] == pytest.approx(fit)

        nulls = explainer.null_maps(image, example.prompt, 3)
        dependence = explanation.prompt_dependence(nulls)
        assert row[["dependence", "low", "high"]].tolist() == pytest.approx(dependence, abs=1e-5)

        heat = explanation.heatmap(0, signed=True)
        scores = localisation_scores(heat, example.mask())
        assert row["largest"] == pytest.approx(heat.max(), abs=1e-6)
        assert row["average_precision"] == pytest.approx(scores["average_precision"], abs=1e-4)


def test_words_of_captions_are_shaded_by_their_scores_and_unknown_ones_struck_out(
    tiny, picture, tmp_path
):
    clip = replace(tiny, vocabulary=frozenset({"a", "dog"}), trained_on_drawn_scenes=True)
    example = Example("photo", "a <b> dog", "dog", "", (), lambda: picture)
    for words, expected in (
        ("leave-one-out", ["a", "&lt;", "b", "&gt;", "dog"]),
        ("grad-eclip", ["b", "dog"]),
        (None, []),
    ):
        out = tmp_path / str(words)
        rows = report(clip, [example], out, words=words, nulls=3)
        explanation = Explainer(clip, words=words).explain(picture, "a <b> dog")
        scores = [word["score"] for word in rows["words"][0]]
        assert scores == pytest.approx([word.score for word in explanation.words[0]], abs=1e-6)

        page = (out / "index.html").read_text(encoding="utf-8")
        assert "trained on drawn scenes alone" in page
        assert "a <b>" not in page
        shaded = re.findall(r'<span style="background: #[^>]*>(?:<s>)?([^<]+)', page)
        assert shaded == expected
        assert ("<s>b</s>" in page) == (words is not None)
        assert ("without this word the similarity is" in page) == (words == "leave-one-out")


def test_the_pair_that_is_wrong_among_five_comes_first(bundled, tmp_path):
    captions = {
        "dog": "a dog",
        "piano": "a piano",
        "umbrella": "an umbrella",
        "rocket": "a rocket",
        "snake": "a bus",
    }
    examples = []
    for seed, (name, caption) in enumerate(captions.items()):
        image = arrange([name], seed=seed).image
        examples.append(Example(name, caption, name, caption, (name,), image))
    table = report(bundled, examples, tmp_path / "report")
    assert table["image"].iloc[0] == "snake"
    assert "fit" in table["warnings"].iloc[0]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Report of 5 pairs" in page
    assert "captions that fit other images as well as their own: 1;" in page
    assert "similarities far" not in page  # whose deviation is not known of so few


def test_each_image_is_traced_once_with_its_gradient(tiny, data, tmp_path, monkeypatch):
    graphs = []
    tower = type(Explainer(tiny).image_tower)
    trace = tower.trace

    def counted(self, inputs, graph=None):
        if inputs.ndim == 4:
            graphs.extend([graph] * len(inputs))
        return trace(self, inputs, graph)

    monkeypatch.setattr(tower, "trace", counted)
    report(tiny, data, tmp_path / "report", nulls=3)
    assert graphs.count("query_graph") == 3
    assert graphs.count(None) == 3  # to compare it with other captions


def test_a_bad_file_and_an_empty_caption_are_rows_with_the_reason_and_are_tried_again(
    tiny, data, tmp_path
):
    good = load(data)[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG and no more")
    gone = tmp_path / "gone.png"
    examples = [
        Example("2-broken.png", "a dog", "dog", "", (), lambda: broken),
        replace(good[0], key="empty", prompt=" "),
        Example("gone", "a cat", "cat", "", (), lambda: Image.open(gone)),
        *good,
    ]
    out = tmp_path / "report"
    rows = report(tiny, examples, out, nulls=3).set_index("image")
    assert list(rows.index[:3]) == ["2-broken.png", "empty", "gone"]
    has_error = rows["error"] != ""
    assert has_error.tolist() == [True, True, True, False, False]

    row = rows.loc["gone"]
    assert "gone.png" in row["error"]
    assert np.isnan(row["similarity"])
    page = (out / "index.html").read_text()
    assert "pairs that could not be explained: 3;" in page
    assert html.escape(row["error"]) in page

    Image.new("RGB", (9, 9)).save(gone)
    errors = report(tiny, examples, out, nulls=3).set_index("image")["error"]
    assert errors["gone"] == ""
    assert errors["empty"] != ""


def test_the_page_shows_every_pair_escapes_captions_and_fetches_nothing(written):
    rows, out = written
    page = (out / "index.html").read_text()
    assert page.count("<tr") == 1 + len(rows)
    text = re.sub(r"</?(?:span|s)\b[^>]*>", "", page)  # the shades of words
    for prompt in rows["prompt"]:
        assert f"<td>{html.escape(prompt)}</td>" in text
    for link in rows["page"]:
        assert f'<a href="{link}">' in page
        assert (out / link).is_file()
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert not re.search(r"https?:|//\w|@import|url\(", page)
    thumbnails = re.findall(r'<img src="([^"]+)"', page)
    assert sorted(thumbnails) == sorted(rows["thumbnail"])
    for name in thumbnails:
        with Image.open(out / name) as thumbnail:
            assert thumbnail.height == 160


def test_a_report_goes_on_and_explains_nothing_twice(written, tiny, data, tmp_path, monkeypatch):
    rows, done = written
    out = shutil.copytree(done, tmp_path / "report")
    page = out / "index.html"
    page.unlink()
    monkeypatch.setattr(dataset_report, "_explain_pair", None)
    resumed = report(tiny, data, out, nulls=3)
    pd.testing.assert_frame_equal(resumed, rows)
    assert page.read_bytes() == (done / "index.html").read_bytes()
    names = {file.name for file in out.iterdir()}
    assert names == {"index.html", "pages", "rows.jsonl", "settings.json", "thumbnails"}
    with pytest.raises(GradeclipError, match="holds another run: seed was 0, is 1"):
        report(tiny, data, out, seed=1, nulls=3)


def test_the_command_takes_a_folder_and_a_table_or_a_data_set(
    tiny, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(dataset_report, "load_clip", lambda *_, **__: tiny)
    monkeypatch.chdir(tmp_path)
    images = f"{data.removeprefix('folder:')}/images"
    table = "image,caption\n0.png,a dog\nno.png,a cat\n1.png,a bus\n"
    (tmp_path / "table.csv").write_text(table)
    assert main(["report", "--data", images, "--captions", "table.csv", "--out", "report"]) == 0
    assert "3 pairs: report/index.html; 1 could not be explained" in capsys.readouterr().out
    assert main(["report", "--data", data, "--limit", "2", "--out", "other"]) == 0

    for arguments, message in (
        (["--data", images], "a folder of images needs --captions"),
        (["--data", "nothing:x"], "names no data set"),
        (["--data", ".", "--captions", "table.csv"], "3 could not be explained"),
    ):
        assert main(["report", "--out", "third", *arguments]) == 2
        assert message in capsys.readouterr().err
