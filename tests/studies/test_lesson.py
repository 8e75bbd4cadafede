"""Parts that lessons share: scenes that may be shown, the gallery, claims, and the one form of their tables."""

import numpy as np
import pandas as pd
import pytest

import studies.__main__
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import interpret_interval
from gradeclip_utils.scenes import CANVAS
from studies.__main__ import main as run_lessons
from studies.lesson import COLUMNS, RESULTS, Claims, gallery, prompts_of, shown_scenes
from studies.photographs import side_by_side


@pytest.mark.parametrize("n_objects", [2, 3])
def test_things_of_shown_scenes_are_whole_different_and_large_enough(n_objects):
    for scene in shown_scenes(4, n_objects):
        assert len({one.noun for one in scene.objects}) == len(scene.objects) == n_objects
        for one in scene.objects:
            assert one.size >= CANVAS / 8
            assert one.size / 2 <= min(one.x, one.y, CANVAS - one.x, CANVAS - one.y)


def test_the_first_scenes_are_the_same_however_many_are_drawn():
    assert shown_scenes(5)[:2] == shown_scenes(2)


def test_the_gallery_names_every_prompt_for_those_who_cannot_see_it():
    scenes = shown_scenes(2)
    figure = gallery(Explainer(load_clip()), scenes)
    assert all(prompt in figure.alt for scene in scenes for prompt in prompts_of(scene))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.2, "higher than"), (-0.04, 0.04, "about equal to"), (-0.1, 0.2, "undecided against")],
)
def test_a_claim_reads_as_a_sentence(low, high, said):
    line = Claims("09").add("it is there", estimate=0, bounds=(low, high), margin=0.05, than=0, n=2)
    assert line.endswith(f"], {said} 0.00")


def test_a_claim_that_is_right_every_time_is_not_certain():
    assert (
        Claims("09")
        .add("it is right", np.ones(50), than=0.5)
        .endswith("1.00 [0.93, 1.00], higher than 0.50")
    )
    assert (
        Claims("09")
        .add("it is right", np.zeros(3), than=0.5)
        .endswith("0.00 [0.00, 0.56], undecided against 0.50")
    )


def test_claims_are_written_to_a_folder_of_the_model(tmp_path):
    claims = Claims("09", "my/model")
    line = claims.add("it is larger", np.full(20, 0.6) + np.arange(20) / 100, than=0.5)
    shown = claims.write(tmp_path)
    kept = pd.read_csv(tmp_path / "my_model" / "09.csv")
    assert line.startswith("it is larger (my/model): 0.69") and line.endswith("higher than 0.50")
    assert kept.loc[0, "answer"] == "higher" and kept.loc[0, "n"] == 20 and len(shown) == 1


def test_a_claim_without_numbers_is_refused():
    with pytest.raises(GradeclipError, match="'nothing' has neither"):
        Claims("09").add("nothing")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["5x"], "there is no lesson '5x'"),
        (["../05"], "there is no lesson '../05'"),
        (["01", "--data", "coco:photos"], "takes no DATA"),
        (["09", "--n", "50"], "takes no N"),
        (["06", "--n", "3"], "n must be at least 20, got 3"),
        (["03", "--model", "nix"], "failed on nix: GradeclipError: open_clip has no model 'nix'"),
    ],
)
def test_a_lesson_that_cannot_run_is_refused_and_leaves_nothing(
    arguments, said, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(studies.__main__, "RESULTS", tmp_path)
    assert run_lessons(arguments) == 2 and not list(tmp_path.iterdir())
    refusal = capsys.readouterr().err
    assert refusal.startswith("gradeclip: ") and said in refusal and refusal.count("\n") == 1


@pytest.mark.parametrize(
    "file", sorted(RESULTS.glob("*/*.csv")), ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_a_table_of_claims_has_the_columns_of_the_lessons_and_answers_that_follow_from_its_intervals(
    file,
):
    table = pd.read_csv(file, dtype={"lesson": str})
    assert list(table.columns) == COLUMNS and len(table)
    assert set(table["lesson"]) == {file.stem}
    assert (table["low"] <= table["estimate"] + 1e-4).all() and (
        table["estimate"] <= table["high"] + 1e-4
    ).all()
    clear = table[table["answer"].isin(["higher", "lower"])]
    assert [
        interpret_interval(row.low, row.high, than=row.than) for row in clear.itertuples()
    ] == list(clear["answer"])


def test_all_models_stand_side_by_side_with_published_numbers_last(tmp_path):
    claims = Claims("05", "my/model")
    claims.add("photographs: colorswap: all four right", estimate=0.5, bounds=(0.4, 0.6), n=40)
    claims.write(tmp_path)
    table = side_by_side(tmp_path)
    assert list(table.columns) == ["my/model", "published"]
    assert table.loc[("05", claims.rows[0][1])].tolist()[0] == "0.50 [0.40, 0.60]"
    assert table["published"].iloc[0].startswith("CLIP 0.12, SigLIP 0.30")
    with pytest.raises(GradeclipError, match="has no results: run a lesson first"):
        side_by_side(tmp_path / "empty")
