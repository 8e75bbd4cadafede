"""What lessons share.

Scenes that may be shown, the gallery, claims, their tables, and the command.
"""

import re
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

import studies.runs
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import interpret_interval, mean_interval
from gradeclip_utils.scenes import CANVAS
from studies.__main__ import main as run_lessons
from studies.lesson import (
    COLUMNS,
    COMMITTED,
    Claims,
    gallery,
    prompts_of,
    result_rows,
    shown_scenes,
)
from studies.runs import run_lesson

TABLES = sorted(COMMITTED.glob("*/*.csv"))


# ------------------------------------------------------------------------------------------- scenes


@pytest.mark.parametrize("n_objects", [2, 3])
def test_things_of_shown_scenes_are_whole_different_and_large_enough(n_objects):
    scenes = shown_scenes(4, n_objects)
    assert shown_scenes(2, n_objects) == scenes[:2]
    for scene in scenes:
        nouns = {thing.noun for thing in scene.objects}
        assert len(nouns) == len(scene.objects) == n_objects
        for thing in scene.objects:
            low = min(thing.x, thing.y)
            high = max(thing.x, thing.y)
            assert thing.size >= CANVAS / 8
            assert thing.size <= 2 * min(low, CANVAS - high)


def test_the_gallery_names_every_prompt_for_those_who_cannot_see_it():
    scenes = shown_scenes(2)
    figure = gallery(Explainer(load_clip()), scenes)
    for scene in scenes:
        for prompt in prompts_of(scene):
            assert prompt in figure.alt


# ------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, "higher than"),
        (-0.2, -0.1, "lower than"),
        (-0.04, 0.04, "about equal to"),
        (-0.1, 0.2, "undecided against"),
    ],
)
def test_a_claim_reads_as_a_sentence(low, high, verdict):
    line = Claims("10").add("it is there", estimate=0, bounds=(low, high), margin=0.05, n=2)
    assert line.endswith(f"], {verdict} 0.00")


@pytest.mark.parametrize(("words", "line_count"), [(4, 1), (12, 2), (18, 2), (30, 3)])
def test_a_long_claim_is_printed_on_several_lines_and_its_numbers_on_one(words, line_count):
    claims = Claims("10")
    printed = claims.add("word " * words, estimate=0.5, bounds=(0.4, 0.6), than=0.5, n=9)
    lines = printed.splitlines()
    assert len(lines) == line_count
    assert max(map(len, lines)) <= 100
    assert lines[-1].endswith("0.50 [0.40, 0.60], undecided against 0.50")


@pytest.mark.parametrize("wrong", [0, 1, 7])
def test_answers_have_wilsons_interval_with_a_cluster_counted_once(wrong):
    """All right is no wider than one wrong."""
    claims = Claims("10")
    right = np.arange(40) >= wrong
    claims.add("it is right", right, clusters=np.arange(40) // 2, than=0.5)
    low = claims.table["low"].item()
    error = np.sqrt(low * (1 - low) / 20)
    assert right.mean() - low == pytest.approx(1.959964 * error)


def test_differences_of_answers_are_no_proportion():
    claims = Claims("10")
    differences = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    claims.add("more often right", differences)
    row = claims.table.iloc[0]
    expected = mean_interval(differences)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))


def test_a_claim_that_is_right_every_time_is_not_certain():
    always = Claims("10").add("it is right", np.ones(50), than=0.5)
    assert always.endswith("1.00 [0.93, 1.00], higher than 0.50")
    never = Claims("10").add("it is right", np.zeros(3), than=0.5)
    assert never.endswith("0.00 [0.00, 0.56], undecided against 0.50")


@pytest.mark.parametrize(
    ("values", "clusters"),
    [([], None), ([0.7], None), ([np.nan, 0.7], None), ([0.7, 0.9, np.nan], ["a", "a", "b"])],
)
def test_a_number_that_cannot_be_had_is_undecided(values, clusters):
    claims = Claims("10")
    claims.add("too few", values, clusters=clusters, than=0.5)
    row = claims.table.iloc[0]
    assert row["answer"] == "undecided"
    assert np.isnan([row["low"], row["high"]]).all()
    assert row["n"] == np.isfinite(values).sum()


def test_values_that_are_missing_are_left_out_with_their_clusters():
    with_gap = Claims("10")
    without = Claims("10")
    with_gap.add("x", [1, np.nan, 3, 5], clusters=["a", "b", "b", "c"])
    without.add("x", [1, 3, 5], clusters=["a", "b", "c"])
    assert with_gap.rows == without.rows


def test_a_claim_without_numbers_is_refused():
    with pytest.raises(GradeclipError, match="'nothing' has neither"):
        Claims("10").add("nothing")


# ------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize(
    ("model", "pretrained", "name"),
    [
        ("emoji", None, "emoji"),
        ("ViT-B-32", "openai", "ViT-B-32-openai"),
        ("ViT-B-32", "FOLDER/mine.pt", "ViT-B-32-mine"),
        ("hf-hub:my/model", None, "hf-hub_my_model"),
    ],
)
def test_results_are_named_by_model_and_weights(model, pretrained, name, results, tmp_path):
    (tmp_path / "mine.pt").write_bytes(b"weights")
    if pretrained:
        pretrained = pretrained.replace("FOLDER", str(tmp_path))
    claims = Claims("10", model, pretrained)
    values = 0.6 + np.arange(20) / 100
    line = claims.add("it is larger", values, than=0.5, model=model)
    assert line.startswith(f"it is larger ({name}): 0.69")
    assert line.endswith("higher than 0.50")

    claims.write()
    table = pd.read_csv(results / name / "10.csv")
    assert table["model"].tolist() == [name]
    assert table["n"].tolist() == [20]


def test_results_of_other_weights_of_the_same_name_are_not_replaced(results, tmp_path):
    weights = tmp_path / "mine.pt"
    weights.write_bytes(b"P")
    Claims("06", "ViT-B-32", str(weights)).write()
    Claims("07", "ViT-B-32", str(weights)).write()

    weights.write_bytes(b"Q")
    with pytest.raises(GradeclipError, match="has results of other weights"):
        Claims("06", "ViT-B-32", str(weights))
    Claims("06", "ViT-B-32", "openai").write()
    folders = [folder.name for folder in sorted(results.iterdir())]
    assert folders == ["ViT-B-32-mine", "ViT-B-32-openai"]


def test_rows_of_each_model_and_data_set_have_a_folder_of_their_own(results):
    claims = Claims("07", "ViT-B-32", "openai")
    assert claims.rows_folder("") is None
    folders = {claims.rows_folder(data) for data in ("coco:a", "coco:b", "coco/a")}
    folders.add(claims.rows_folder("coco:a", "emoji-aided"))
    assert len(folders) == 4
    assert {folder.parts[-3] for folder in folders} == {"ViT-B-32-openai", "emoji-aided"}


def test_a_claim_of_the_default_model_stands_beside_those_of_trainings_from_other_seeds(
    tmp_path, monkeypatch
):
    seeds = {"lesson": "99", "claim": "red", "seed": [21, 22, 23], "estimate": [0.5, 0.25, 0.75]}
    pd.DataFrame(seeds).to_csv(tmp_path / "seeds.csv", index=False)
    monkeypatch.setattr(studies.lesson, "data_path", tmp_path.joinpath)
    claims = Claims("99")
    for claim, model in (("red", ""), ("red", "emoji-aided"), ("blue", "")):
        claims.add(claim, estimate=0.6, bounds=(0.5, 0.7), model=model)
    assert claims.write()["other seeds"].tolist() == ["0.25 to 0.75", "", ""]
    assert "other seeds" not in Claims("98").write(), "no other training measured lesson 98"


def test_of_a_claim_that_was_measured_twice_the_larger_run_counts(results):
    for name, n in (("", 40), ("06-photographs", 80)):
        claims = Claims("06", "ViT-B-16", "openai")
        claims.add("it is right", estimate=n / 100, bounds=(0.3, 0.9), n=n)
        claims.add("it is blue", estimate=0.5, bounds=(0.3, 0.9), n=n, model="other")
        claims.write(name)

    rows = result_rows(results)
    assert rows["claim"].tolist() == ["it is right", "it is blue"]
    assert rows["model"].tolist() == ["ViT-B-16-openai", "other"]
    assert rows["estimate"].tolist() == [0.8, 0.5]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(GradeclipError, match="has no results: run a lesson first"):
        result_rows(tmp_path)


@pytest.mark.parametrize(
    "file",
    TABLES,
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_a_committed_table_has_the_columns_of_lessons_and_answers_that_follow(file):
    table = pd.read_csv(file, dtype={"lesson": str})
    assert list(table.columns) == COLUMNS
    assert len(table)
    assert set(table["lesson"]) == {file.stem[:2]}
    for row in table.itertuples():
        assert row.low - 1e-4 <= row.estimate <= row.high + 1e-4
        if row.answer in ("higher", "lower"):
            expected = interpret_interval(row.low, row.high, than=row.than)
            assert row.answer == expected


# ------------------------------------------------------------------------------------------ command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["5x"], "there is no lesson '5x'"),
        (["01", "--data", "coco:photos"], "takes no DATA"),
        (["10", "--n", "50"], "takes no N"),
        (["07", "--n", "0"], "N=0 measures the photographs of lesson 05 or 06 alone"),
        (["06", "--n", "0", "--data", "coco:none"], "none"),
    ],
)
def test_a_lesson_that_cannot_run_is_refused_before_a_kernel_starts(
    arguments, message, capsys, monkeypatch, results
):
    monkeypatch.setattr("nbclient.NotebookClient.execute", None)
    assert run_lessons(arguments) == 2
    assert not results.exists()
    refusal = capsys.readouterr().err
    assert refusal.startswith("gradeclip: ")
    assert message in refusal
    assert refusal.count("\n") == 1


@pytest.mark.parametrize(
    ("lesson", "n", "message"),
    [
        ("07", "3", "--n must be at least 20, or 0; got 3"),
        ("all", "0", "--n 0 measures the photographs of one lesson, 05 or 06"),
    ],
)
def test_a_wrong_number_of_scenes_is_refused_before_torch_is_imported(lesson, n, message):
    script = (
        "import sys\nfrom studies.__main__ import main\n"
        f"try:\n    main(['{lesson}', '--n={n}'])\n"
        "except SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.stdout == "2 False\n"
    assert message in answer.stderr


def write_lesson(monkeypatch, folder, *cells):
    """A short lesson 01 in the place of the course's; its kernel imports nothing."""
    parameters = nbformat.v4.new_code_cell("MODEL = 'emoji'", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, *cells])
    nbformat.write(notebook, folder / "01_short.ipynb")
    monkeypatch.setattr(studies.runs, "NOTEBOOKS", folder)


@pytest.mark.slow
def test_a_run_that_fails_keeps_the_results_of_the_run_before(results, tmp_path, monkeypatch):
    write_lesson(monkeypatch, tmp_path, nbformat.v4.new_code_cell("raise ValueError(MODEL)"))
    notebook = results / "nix" / "01_short.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text("earlier")
    with pytest.raises(GradeclipError, match="01_short failed on nix: ValueError: nix"):
        run_lesson("01", "nix", None, "", None)
    assert [file.name for file in notebook.parent.iterdir()] == [notebook.name]
    assert notebook.read_text() == "earlier"


LESSON = """\
# What is it?

It is a dog in .62 of the images, as `emoji` says.

**Predict.** And here?

<details><summary>Answer</summary>

A cat.

</details>

## Method

See [the paper](https://arxiv.org/abs/2502.18816).
"""


@pytest.mark.slow
def test_a_lesson_on_another_model_begins_with_its_claims_and_folds_what_is_about_the_bundled_one(
    results, tmp_path, monkeypatch, capsys
):
    committed = pd.read_csv(COMMITTED / "emoji" / "01.csv").iloc[0]
    claims = Claims("01", "mine")
    claims.add(committed["claim"], estimate=0.25, bounds=(0.2, 0.3), n=9)
    claims.write()
    write_lesson(
        monkeypatch,
        tmp_path,
        nbformat.v4.new_markdown_cell(LESSON),
        nbformat.v4.new_code_cell("MODEL"),
        nbformat.v4.new_markdown_cell("The map lies on the dog.\n\nThe next cell is the last."),
    )

    executed = nbformat.read(run_lesson("01", "mine", None, "", None), as_version=4)

    first, _, _, text, _, reading = [cell.source for cell in executed.cells]
    assert "| claim | mine | emoji |" in first
    mine = f"| {committed['claim']} | 0.25 [0.20, 0.30], higher |"
    assert f"{mine} {committed['estimate']:.2f} [" in first

    prose = f"\n\n{text}\n\n{reading}"
    summary = r"<details>[^<]*<summary>[^/]*</code></summary>\n\n"
    for folded in ("It is a dog in .62 of", "The map lies on the dog."):
        assert re.search(summary + folded, prose)
    for shown in ("# What is it?", "**Predict.** And here?", "See [the paper]", "The next cell is"):
        assert f"\n\n{shown}" in prose
        assert f"</summary>\n\n{shown}" not in prose
    assert "01_short: What is it?" in capsys.readouterr().err
