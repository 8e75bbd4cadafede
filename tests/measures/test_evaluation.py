"""Evaluations: one row an image and method in any process, and which map is better."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing import forkserver

import joblib
import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer, methods
from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures import evaluation
from gradeclip_utils.measures.evaluation import (
    REFERENCES,
    evaluate,
    method_names,
    report_best,
    summary,
)
from gradeclip_utils.measures.faithfulness import Protocol
from gradeclip_utils.measures.localisation import MEASURES, localisation_scores
from gradeclip_utils.measures.sanity import randomised
from tests.conftest import build, wrap
from tests.studies.folders import write_noise

METHODS = ["grad-eclip", "maskclip", "game"]
CONCEPTS = ["car", "dog", "sofa"]
N = 7


def write_folder(folder, n):
    """Examples of n images of noise, of which the last shows two things."""
    captions = [f"a {CONCEPTS[i % 3]}" for i in range(n)]
    write_noise(folder, captions)
    last = f"{n - 1}.png"
    with (folder / "captions.csv").open("a") as table:
        table.write(f"\n{last},a tree,{last}")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """N + 1 examples of N images."""
    return write_folder(tmp_path_factory.mktemp("data") / "mine", N)


@pytest.fixture(scope="module")
def rows(tiny, data):
    """The rows of an evaluation without disturbance."""
    return evaluate(tiny, data, METHODS)


def assert_same(rows, expected):
    """The same rows but for seconds; rounding may move a few pixels across a threshold."""
    for column in expected.columns.drop("seconds"):
        tolerance = 0.03 if column in ("pixel_accuracy", "iou_fixed") else 1e-3
        pd.testing.assert_series_equal(
            rows[column],
            expected[column],
            rtol=1e-3,
            atol=tolerance,
        )


def test_there_is_one_row_for_every_image_and_method_and_reference_baseline(rows, data):
    images = [example.key for example in load(data)]
    keys = zip(rows["image"], rows["method"], strict=True)
    assert list(keys) == list(product(images, (*METHODS, *REFERENCES)))
    assert rows[list(MEASURES)].notna().all(axis=None)
    is_computed = ~rows["method"].isin(["random", "centre", "area", "oracle"])
    assert (rows["seconds"] > 0).equals(is_computed)
    means = rows.groupby("method")["average_precision"].mean()
    assert means.drop("oracle").max() < means["oracle"]


def test_a_row_holds_the_measures_of_the_map_that_the_explainer_gives(rows, tiny, data):
    explainers = {name: Explainer(tiny, method=name) for name in METHODS}
    explainers["wrong word"] = Explainer(tiny)
    explainers["random weights"] = Explainer(randomised(tiny, seed=0))
    by_key = rows.set_index(["image", "method"])
    for example in load(data)[:2]:
        for method, explainer in explainers.items():
            row = by_key.loc[(example.key, method)]
            is_absent = row["prompt"] not in example.present
            assert is_absent == (method == "wrong word")

            explanation = explainer.explain(example.image(), row["prompt"])
            heat = explanation.heatmap(0, signed=True)
            scores = localisation_scores(heat, example.mask())
            assert row[list(MEASURES)].to_dict() == pytest.approx(scores, abs=1e-4)


def test_faithfulness_adds_deletion_and_insertion_by_a_protocol_or_its_name(tiny, data):
    by_name = evaluate(tiny, data, references=False, limit=3, faithfulness="mean-colour")
    protocol = Protocol(fill="mean", canvas="mean")
    by_hand = evaluate(tiny, load(data, 3), references=False, faithfulness=protocol)
    assert_same(by_hand, by_name)

    noise = evaluate(tiny, data, limit=3, faithfulness="published")
    assert noise[["deletion", "insertion"]].notna().all(axis=None)
    assert set(noise["method"]) == {"grad-eclip", *REFERENCES}
    is_grad_eclip = noise["method"] == "grad-eclip"
    filled_with_noise = noise.loc[is_grad_eclip, "deletion"]
    assert (by_name["deletion"].to_numpy() != filled_with_noise.to_numpy()).all()


def test_the_seed_decides_random_maps_and_no_others(tiny, data):
    first = evaluate(tiny, data, seed=1, limit=3)
    again = evaluate(tiny, data, seed=1, limit=3)
    second = evaluate(tiny, data, seed=2, limit=3)
    assert_same(again, first)
    is_random = first["method"] == "random"
    differs = first["average_precision"] != second["average_precision"]
    assert differs[is_random].all()
    is_plain = first["method"] == "grad-eclip"
    assert_same(first[is_plain], second[is_plain])


def test_images_without_a_mask_have_no_localisation_and_need_faithfulness(tiny, data):
    examples = [replace(example, load_mask=None) for example in load(data)]
    with pytest.raises(GradeclipError, match="no example has a mask"):
        evaluate(tiny, examples)
    rows = evaluate(tiny, examples[-3:], faithfulness="full")
    assert rows[list(MEASURES)].isna().all(axis=None)
    is_oracle = rows["method"] == "oracle"  # of which the truth is not known
    assert rows["insertion"].isna().equals(is_oracle)

    first_without_mask = [examples[0], *load(data)[1:]]
    mixed = evaluate(tiny, first_without_mask)
    scores_per_image = mixed.groupby("image")["iou_best"].count()
    assert (scores_per_image == 0).sum() == 1
    assert summary(mixed)["n"].max() == 7


def test_an_evaluation_that_was_interrupted_goes_on_and_computes_nothing_twice(
    rows, tiny, data, tmp_path, monkeypatch
):
    keys = []
    measure_batch = evaluation._measure_batch

    def interrupted(explainers, plan, batch):
        if len(keys) == 4:
            keys.append("the interruption")
            raise KeyboardInterrupt
        keys.extend(example.key for example, _ in batch)
        return measure_batch(explainers, plan, batch)

    monkeypatch.setattr(evaluation, "BATCH_SIZE", 2)
    monkeypatch.setattr(evaluation, "_measure_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, data, METHODS, out=tmp_path / "run")
    stored = pd.read_json(tmp_path / "run" / "rows.jsonl", lines=True)
    assert stored["image"].nunique() == 4

    resumed = evaluate(tiny, data, METHODS, out=tmp_path / "run")
    assert_same(resumed, rows)
    keys.remove("the interruption")
    assert keys == [example.key for example in load(data)]
    again = evaluate(tiny, data, METHODS, out=tmp_path / "run")
    pd.testing.assert_frame_equal(again, resumed)  # seconds and all
    assert len(keys) == N + 1


def test_a_folder_that_holds_another_evaluation_is_refused_with_the_difference(
    tiny, data, tmp_path
):
    run = tmp_path / "run"
    options = {
        "clip": tiny,
        "data": data,
        "methods": "maskclip",
        "limit": 3,
        "references": False,
        "out": run,
    }
    evaluate(**options)
    stored = (run / "rows.jsonl").read_bytes()
    prompts = [replace(example, prompt="a cow") for example in load(data, 3)]
    changes = [
        ({"methods": "attention"}, r"methods was \['maskclip'\], is \['attention'\]"),
        ({"clip": replace(tiny, image_layers=2)}, "image_layers was None, is 2"),
        ({"data": prompts}, "prompts was .*, is "),
    ]
    for change, message in changes:
        with pytest.raises(GradeclipError, match=f"holds another run: .*{message}"):
            evaluate(**options | change)
    assert (run / "rows.jsonl").read_bytes() == stored


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"image": partial(open, "gone.png")},
            "cannot be read: .*'gone.png'",
        ),
        (
            {"load_mask": partial(np.ones, (2, 3))},
            r"mask of \(2, 3\) and an image of \(32, 32\)",
        ),
    ],
)
def test_an_unreadable_example_is_left_out_by_name_and_measured_when_it_is_mended(
    tiny, data, tmp_path, fault, message
):
    first, second, third = load(data, 3)
    wrong = replace(second, **fault)
    run = tmp_path / "run"
    with pytest.warns(UserWarning, match=f"1 of 3 examples are not measured: .*{message}"):
        rows = evaluate(tiny, [first, wrong, third], out=run)
    assert rows["image"].unique().tolist() == [first.key, third.key]
    with pytest.raises(GradeclipError, match=f"1 of 1 .*{message}"):
        evaluate(tiny, [wrong], references=False)

    mended = evaluate(tiny, [first, second, third], out=run)
    assert mended["image"].unique().tolist() == [first.key, second.key, third.key]
    is_mended = mended["image"] == second.key
    measured_before = mended[~is_mended].reset_index(drop=True)
    pd.testing.assert_frame_equal(measured_before, rows)  # seconds and all


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one_also_of_a_method_that_a_project_registered(
    rows, tiny, data, monkeypatch
):
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
    in_two_processes = evaluate(tiny, data, METHODS, jobs=2)
    assert_same(in_two_processes, rows)

    method = replace(methods.METHODS["maskclip"], name="mine")
    monkeypatch.setitem(methods.METHODS, "mine", method)
    in_one_process = evaluate(tiny, data, "mine", references=False)
    in_two_processes = evaluate(tiny, data, "mine", references=False, jobs=2)
    assert_same(in_two_processes, in_one_process)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_rows_of_one_process(rows, tiny, data, monkeypatch):
    dask = pytest.importorskip("dask", reason="the extra 'cluster' is missing")
    distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is missing")
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
    forkserver.ensure_running()  # with our imports: Dask would ask for its own
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0")
    try:
        with distributed.Client(cluster), joblib.parallel_config("dask"):
            rows_of_cluster = evaluate(tiny, data, METHODS)
        assert_same(rows_of_cluster, rows)
    finally:
        with suppress(TimeoutError):  # workers on a busy machine end later than Dask waits
            cluster.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "grad-clip"}, "'grad-clip' is not a method .*: did you mean grad-"),
        ({"methods": ["leave-one-out"]}, "'leave-one-out' is not a method that explains images"),
        ({"data": "scenes:development:1"}, "or leave references out .--no-references."),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(tiny, options, message):
    with pytest.raises(GradeclipError, match=message):
        evaluate(tiny, **{"data": "scenes:development:2"} | options)


def test_data_that_are_missing_are_refused_before_all_methods_are_tried(tiny, monkeypatch):
    monkeypatch.setattr(evaluation, "_working_methods", pytest.fail)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(tiny, "folder:nowhere", "all")


def test_all_methods_are_those_that_work_with_the_model_and_a_note_names_the_others(
    tiny, monkeypatch
):
    assert method_names("all")[0] == "grad-eclip"
    assert "leave-one-out" not in method_names("all")
    assert method_names(["rise", "maskclip", "rise"]) == ("rise", "maskclip")
    for name in set(method_names("all")) - {"grad-eclip", "maskclip", "rollout"}:
        monkeypatch.delitem(methods.METHODS, name)
    rows = evaluate(tiny, "scenes:development:2", "all", references=False)
    assert set(rows["method"]) == {"grad-eclip", "maskclip", "rollout"}

    vision = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3}
    pooling = wrap(build(vision))
    with pytest.warns(UserWarning, match="these methods do not work with 'tiny' .*rollout"):
        rows = evaluate(pooling, "scenes:development:2", "all", references=False)
    names = set(rows["method"])
    assert "grad-eclip" in names
    assert "rollout" not in names


def rows_of(**values):
    """Rows with an average precision for each image of each method."""
    tables = []
    for name, precisions in values.items():
        rows = pd.DataFrame({"average_precision": precisions})
        rows["image"] = rows.index.astype(str)
        rows["method"] = name.replace("_", "-")
        tables.append(rows)
    return pd.concat(tables).assign(concept="dog")


def test_three_lines_say_which_map_is_better_by_how_much_and_how_sure_that_is():
    noise = np.random.default_rng(0).normal(0, 0.01, 30)
    high = 0.6 + noise
    low = 0.4 - noise
    rows = rows_of(grad_eclip=high, maskclip=low, area=low / 2)
    best, difference, certainty = report_best(summary(rows)).splitlines()

    assert best.startswith("Which map: grad-eclip is better than the map maskclip, by average")
    assert f"({high.mean():.3f} and {low.mean():.3f})" in best
    mean_difference = (high - low).mean()
    assert difference.startswith(f"By how much: {mean_difference:+.3f} [+0.1")
    assert certainty.startswith("How sure: higher; p = 0.000")


@pytest.mark.parametrize(
    ("count", "values", "expected"),
    [
        (30, {"grad_eclip": 0.6, "maskclip": 0.6}, "How sure: undecided"),
        (2, {"grad_eclip": 0.6, "maskclip": 0.4}, "How sure: undecided; p = 0.5"),
        (30, {"grad_eclip": 0.6, "area": 0.4}, "better than the best reference, area"),
        (30, {"grad_eclip": 0.6}, "has a mean average precision of 0.599"),
        (1, {"grad_eclip": 0.6}, "Nothing can be compared"),
    ],
)
def test_the_answer_says_what_few_or_equal_numbers_allow(count, values, expected):
    rng = np.random.default_rng(0)
    precisions = {name: rng.normal(mean, 0.01, count) for name, mean in values.items()}
    rows = rows_of(**precisions)
    assert expected in report_best(summary(rows))


def test_a_summary_has_means_intervals_and_differences_from_the_best_method(rows):
    means = rows.groupby("method")["energy_pointing_game"].mean()
    best = means[METHODS].idxmax()
    differences = (means - means[best]).drop(best)

    table = summary(rows)
    is_energy = table["measure"] == "energy_pointing_game"
    part = table[is_energy].set_index("method")
    assert part["mean"].to_dict() == pytest.approx(means.to_dict())
    assert set(part["than"]) == {best}
    assert np.isnan(part.loc[best, "difference"])
    of_other_methods = part["difference"].drop(best)
    assert of_other_methods.to_dict() == pytest.approx(differences.to_dict())
    has_p = part["p"].notna()
    assert (part.loc[has_p, "p_holm"] >= part.loc[has_p, "p"]).all()


def test_the_command_answers_in_three_lines_and_the_tables_are_in_its_folder(
    tiny, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evaluation, "load_clip", lambda *_, **__: tiny)
    out = tmp_path / "run"
    arguments = ["evaluate", "--data", data, "--out", str(out), "--methods"]
    assert main([*arguments, "grad-eclip,maskclip"]) == 0
    heads = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert heads[1:] == ["Which map", "By how much", "How sure"]
    methods_in_summary = set(pd.read_csv(out / "summary.csv")["method"])
    assert methods_in_summary == {"grad-eclip", "maskclip", *REFERENCES}

    assert main([*arguments, "maskclip"]) == 2
    assert "holds another run: methods was" in capsys.readouterr().err
    assert main([*arguments, "maskclip", "--overwrite"]) == 0
    assert set(pd.read_csv(out / "summary.csv")["method"]) == {"maskclip", *REFERENCES}
