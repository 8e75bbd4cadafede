"""Evaluations: one row an image and method in any process, and which map is better."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
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
    write_noise(folder, [f"a {CONCEPTS[i % 3]}" for i in range(n)])
    with (folder / "captions.csv").open("a") as table:
        table.write(f"\n{n - 1}.png,a tree,{n - 1}.png")
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
        pd.testing.assert_series_equal(rows[column], expected[column], rtol=1e-3, atol=tolerance)


def test_there_is_one_row_for_every_image_and_method_and_reference_baseline(rows, data):
    names = (*METHODS, *REFERENCES)
    expected = [(example.key, name) for example in load(data) for name in names]
    assert list(zip(rows["image"], rows["method"], strict=True)) == expected
    assert rows[list(MEASURES)].notna().all(axis=None)
    is_computed = ~rows["method"].isin(["random", "centre", "area", "oracle"])
    assert (rows["seconds"] > 0).equals(is_computed)
    means = rows.groupby("method")["average_precision"].mean()
    assert means.drop("oracle").max() < means["oracle"]


def test_a_row_holds_the_measures_of_the_map_that_the_explainer_gives(rows, tiny, data):
    explainers = {name: Explainer(tiny, method=name) for name in METHODS}
    explainers["wrong word"] = Explainer(tiny)
    explainers["random weights"] = Explainer(randomised(tiny, seed=0))
    for example in load(data)[:2]:
        for method, explainer in explainers.items():
            row = rows[(rows["image"] == example.key) & (rows["method"] == method)].iloc[0]
            assert (row["prompt"] not in example.present) == (method == "wrong word")
            heat = explainer.explain(example.image(), row["prompt"]).heatmap(0, signed=True)
            scores = localisation_scores(heat, example.mask())
            assert row[list(MEASURES)].to_dict() == pytest.approx(scores, abs=1e-4)


def test_the_area_scores_the_objects_part_of_the_image_in_every_measure(rows, data):
    area = rows[rows["method"] == "area"].set_index("image")
    for example in load(data):
        expected = dict.fromkeys(MEASURES, example.mask().mean())
        assert area.loc[example.key, list(MEASURES)].to_dict() == pytest.approx(expected)


def test_faithfulness_adds_deletion_and_insertion_by_a_protocol_or_its_name(tiny, data):
    by_name = evaluate(tiny, data, references=False, limit=3, faithfulness="mean-colour")
    protocol = Protocol(fill="mean", canvas="mean")
    by_hand = evaluate(tiny, load(data, 3), references=False, faithfulness=protocol)
    assert_same(by_hand, by_name)

    noise = evaluate(tiny, data, limit=3, faithfulness="published")
    assert noise[["deletion", "insertion"]].notna().all(axis=None)
    assert set(noise["method"]) == {"grad-eclip", *REFERENCES}
    filled_with_noise = noise[noise["method"] == "grad-eclip"].reset_index(drop=True)
    assert (by_name["deletion"] != filled_with_noise["deletion"]).all()


def test_the_seed_decides_random_maps_and_no_others(tiny, data):
    first, again, other = (evaluate(tiny, data, seed=seed, limit=3) for seed in (1, 1, 2))
    assert_same(again, first)
    is_random = first["method"] == "random"
    precision = first[is_random]["average_precision"]
    assert (precision != other[is_random]["average_precision"]).all()
    is_plain = first["method"] == "grad-eclip"
    assert_same(first[is_plain], other[is_plain])


def test_images_without_a_mask_have_no_localisation_and_need_faithfulness(tiny, data):
    examples = [replace(example, load_mask=None) for example in load(data)]
    with pytest.raises(GradeclipError, match="no example has a mask"):
        evaluate(tiny, examples)
    rows = evaluate(tiny, examples[-3:], faithfulness="full")
    assert rows[list(MEASURES)].isna().all(axis=None)
    assert rows["insertion"].isna().equals(rows["method"] == "oracle")  # the truth is not known

    mixed = evaluate(tiny, [*examples[:1], *load(data)[1:]])
    assert mixed.groupby("image")["iou_best"].count().tolist().count(0) == 1
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
    options = {"data": data, "limit": 3, "references": False, "out": tmp_path / "run"}
    evaluate(tiny, methods="maskclip", **options)
    stored = (tmp_path / "run" / "rows.jsonl").read_bytes()
    prompts = [replace(example, prompt="a cow") for example in load(data, 3)]
    for change, message in (
        ({"methods": "attention"}, r"methods was \['maskclip'\], is \['attention'\]"),
        ({"seed": 5}, "seed was 0, is 5"),
        ({"limit": 5}, "examples was 3, is 5"),
        ({"clip": replace(tiny, image_layers=2)}, "image_layers was None, is 2"),
        ({"data": prompts}, "prompts was .*, is "),
    ):
        with pytest.raises(GradeclipError, match=f"holds another run: .*{message}"):
            evaluate(**{"clip": tiny, "methods": "maskclip", **options, **change})
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() == stored


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"image": partial(open, "gone.png")}, "cannot be read: .*'gone.png'"),
        ({"load_mask": partial(np.ones, (2, 3))}, r"mask of \(2, 3\) and an image of \(32, 32\)"),
        ({"load_mask": partial(np.zeros, (32, 32))}, "the mask of '.*' is empty"),
    ],
)
def test_an_unreadable_example_is_left_out_by_name_and_measured_when_it_is_mended(
    tiny, data, tmp_path, fault, message
):
    examples = load(data, 3)
    wrong = replace(examples[1], **fault)
    with pytest.warns(UserWarning, match=f"1 of 3 examples are not measured: .*{message}"):
        rows = evaluate(tiny, [examples[0], wrong, examples[2]], out=tmp_path / "run")
    assert rows["image"].unique().tolist() == [examples[0].key, examples[2].key]
    with pytest.raises(GradeclipError, match=f"1 of 1 .*{message}"):
        evaluate(tiny, [wrong], references=False)

    mended = evaluate(tiny, examples, out=tmp_path / "run")
    assert mended["image"].unique().tolist() == [example.key for example in examples]
    others = mended[mended["image"] != wrong.key].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, rows)  # seconds and all


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one_also_of_a_method_that_a_project_registered(
    rows, tiny, data, monkeypatch
):
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
    assert_same(evaluate(tiny, data, METHODS, jobs=2), rows)
    method = replace(methods.METHODS["maskclip"], name="mine")
    monkeypatch.setitem(methods.METHODS, "mine", method)
    one, two = (evaluate(tiny, data, "mine", references=False, jobs=jobs) for jobs in (1, 2))
    assert_same(two, one)


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
            assert_same(evaluate(tiny, data, METHODS), rows)
    finally:
        with suppress(TimeoutError):  # workers on a busy machine end later than Dask waits
            cluster.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "grad-clip"}, "'grad-clip' is not a method .*: did you mean grad-"),
        ({"methods": ["leave-one-out"]}, "'leave-one-out' is not a method that explains images"),
        ({"data": []}, "has no examples"),
        ({"data": "scenes:development:1"}, "or leave references out .--no-references."),
        ({"faithfulness": "half"}, "there is no protocol 'half'"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(tiny, options, message):
    with pytest.raises(GradeclipError, match=message):
        evaluate(tiny, **{"data": "scenes:development:2", **options})


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
    with pytest.warns(UserWarning, match="these methods do not work with 'tiny' .*rollout"):
        rows = evaluate(wrap(build(vision)), "scenes:development:2", "all", references=False)
    assert "grad-eclip" in set(rows["method"])
    assert "rollout" not in set(rows["method"])


def rows_of(**values):
    """Rows with an average precision for each image of each method."""
    tables = []
    for name, precisions in values.items():
        images = [str(i) for i in range(len(precisions))]
        method = name.replace("_", "-")
        table = {"image": images, "method": method, "average_precision": precisions}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables).assign(concept="dog")


def test_three_lines_say_which_map_is_better_by_how_much_and_how_sure_that_is():
    noise = np.random.default_rng(0).normal(0, 0.01, 30)
    high, low = np.full(30, 0.6) + noise, np.full(30, 0.4) - noise
    lines = report_best(summary(rows_of(grad_eclip=high, maskclip=low, area=low / 2))).splitlines()
    assert lines[0].startswith("Which map: grad-eclip is better than the map maskclip, by average")
    assert f"({high.mean():.3f} and {low.mean():.3f})" in lines[0]
    assert lines[1].startswith(f"By how much: {(high - low).mean():+.3f} [+0.1")
    assert lines[2].startswith("How sure: higher; p = 0.000")
    assert len(lines) == 3


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
    rows = rows_of(**{name: mean + rng.normal(0, 0.01, count) for name, mean in values.items()})
    assert expected in report_best(summary(rows))


def test_a_summary_has_means_intervals_and_differences_from_the_best_method(rows):
    table = summary(rows)
    part = table[table["measure"] == "energy_pointing_game"].set_index("method")
    means = rows.groupby("method")["energy_pointing_game"].mean()
    assert part["mean"].to_dict() == pytest.approx(means[part.index].to_dict())
    best = means[METHODS].idxmax()
    assert set(part["than"]) == {best}
    assert np.isnan(part.loc[best, "difference"])
    for name in set(METHODS) - {best}:
        assert part.loc[name, "difference"] == pytest.approx(means[name] - means[best])
    assert (part["p_holm"].dropna() >= part["p"].dropna()).all()


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
