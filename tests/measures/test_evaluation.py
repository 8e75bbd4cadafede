"""Evaluations: one row an image and method, whoever computes them, and an answer to which map is better."""

import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils import Explainer, methods
from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures import evaluation as door
from gradeclip_utils.measures.evaluation import _REFERENCES, evaluate, report_best, summary
from gradeclip_utils.measures.faithfulness import Protocol
from gradeclip_utils.measures.localisation import MEASURES, localisation_scores
from gradeclip_utils.measures.sanity import randomised
from tests.conftest import build, wrap
from tests.refusals.cases import named
from tests.studies.folders import write_noise

METHODS = ["grad-eclip", "maskclip", "game"]
CONCEPTS = ["car", "dog", "sofa"]
N = 7


def write_folder(folder, n):
    """Examples of n images of noise, of which the last shows two things."""
    write_noise(folder, [f"a {CONCEPTS[i % 3]}" for i in range(n)])
    with (folder / "captions.csv").open("a") as table:
        table.write(f"\n{n - 1}.png,a tree")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """N + 1 examples of N images."""
    return write_folder(tmp_path_factory.mktemp("data") / "mine", N)


@pytest.fixture(scope="module")
def rows(tiny, data):
    """The rows of an evaluation that nothing disturbs."""
    return evaluate(tiny, data, METHODS, progress=False)


def by_hand(row):
    return row[list(MEASURES)].astype(float).to_dict()


def same(found, expected):
    columns = [column for column in expected if column != "seconds"]
    thresholded = [column for column in columns if column in ("pixel_accuracy", "iou_fixed")]
    exact = [column for column in columns if column not in thresholded]
    pd.testing.assert_frame_equal(found[exact], expected[exact], rtol=1e-3, atol=1e-3)
    # rounding may put four pixels of an edge, which have one value, on the other side of the
    # threshold
    assert ((found[thresholded] - expected[thresholded]).abs() <= [4.1 / 32**2, 4.1 / 144]).all(
        axis=None
    )


def test_there_is_one_row_for_every_image_and_method_and_reference_baseline(rows, data):
    keys = [example.key for example in load(data)]
    assert list(zip(rows["image"], rows["method"], strict=True)) == [
        (k, m) for k in keys for m in (*METHODS, *_REFERENCES)
    ]
    assert rows[list(MEASURES)].notna().all(axis=None)
    assert (rows["seconds"] > 0).equals(
        ~rows["method"].isin(["random", "centre", "area", "oracle"])
    )
    means = rows.groupby("method")["average_precision"].mean()
    assert means.drop("oracle").max() < means["oracle"]


def test_a_row_holds_the_measures_of_the_map_that_the_explainer_gives(rows, tiny, data):
    explainers = {name: Explainer(tiny, method=name) for name in METHODS}
    explainers |= {
        "wrong word": Explainer(tiny),
        "random weights": Explainer(randomised(tiny, seed=0)),
    }
    for example in load(data)[:2]:
        for method, explainer in explainers.items():
            row = rows[(rows["image"] == example.key) & (rows["method"] == method)].iloc[0]
            assert (method == "wrong word") == (row["prompt"] not in example.present)
            heat = explainer.explain(example.image(), row["prompt"]).heatmap(0, signed=True)
            assert by_hand(row) == pytest.approx(
                localisation_scores(heat, example.mask()), abs=1e-4
            )


def test_the_area_scores_the_fraction_of_the_image_that_the_object_is_in_every_measure(rows, data):
    area = rows[rows["method"] == "area"].set_index("image")
    for example in load(data):
        assert by_hand(area.loc[example.key]) == pytest.approx(
            dict.fromkeys(MEASURES, example.mask().mean())
        )


def test_faithfulness_adds_deletion_and_insertion_by_a_protocol_or_its_name(tiny, data):
    options = {"references": False, "limit": 3, "progress": False}
    plain = replace(
        tiny, preprocess=lambda image: tiny.preprocess(image)
    )  # its colours are not known, nor needed
    named = evaluate(plain, data, faithfulness="mean-colour", **options)
    in_hand = load(data, limit=3)
    same(
        evaluate(tiny, in_hand, faithfulness=Protocol(fill="mean", canvas="mean"), **options), named
    )
    noise = evaluate(tiny, data, faithfulness="published", **{**options, "references": True})
    assert noise[["deletion", "insertion"]].notna().all(axis=None)
    assert set(noise["method"]) == {METHODS[0], *_REFERENCES}
    own = noise[noise["method"] == METHODS[0]].reset_index(drop=True)
    assert (named["deletion"] != own["deletion"]).all() and (
        named["insertion"] != own["insertion"]
    ).all()


def test_the_seed_decides_what_is_random_and_nothing_else_does(tiny, data):
    first, again, other = (
        evaluate(tiny, data, seed=seed, limit=3, progress=False) for seed in (1, 1, 2)
    )
    same(again, first)
    drawn = first["method"] == "random"
    assert (first[drawn]["average_precision"] != other[drawn]["average_precision"]).all()
    plain = first["method"] == "grad-eclip"
    same(first[plain], other[plain])


def test_images_without_a_mask_have_no_localisation_and_need_faithfulness(tiny, data, tmp_path):
    examples = [replace(example, load_mask=None) for example in load(data)]
    with pytest.raises(ValueError, match="no example has a mask"):
        evaluate(tiny, examples, progress=False)
    found = evaluate(tiny, examples[-3:], faithfulness="full", progress=False)
    assert found[list(MEASURES)].isna().all(axis=None)
    assert (
        found["insertion"].isna().equals(found["method"] == "oracle")
    )  # nobody knows the ground truth
    mixed = evaluate(tiny, [*examples[:1], *load(data)[1:]], progress=False)
    assert mixed.groupby("image")["energy_pointing_game"].count().tolist().count(0) == 1
    assert summary(mixed)["n"].max() == 7


def test_wrong_words_of_many_examples_are_found_in_time_that_grows_with_their_number(data):
    examples = load(data)
    many = [
        replace(examples[0], key=str(i), concept=str(i), prompt=f"a {i}", present=(str(i),))
        for i in range(20_000)
    ]
    start = time.process_time()
    wrong = door._wrong_prompts(many, 0)
    assert time.process_time() - start < 20
    assert (
        all(prompt != one.prompt for prompt, one in zip(wrong, many, strict=True))
        and len(set(wrong)) > 10_000
    )


def test_an_evaluation_that_was_interrupted_goes_on_and_computes_nothing_twice(
    rows, tiny, data, tmp_path, monkeypatch
):
    measured, measure = [], door._rows_of

    def interrupted(explainers, plan, part):
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.extend(one.key for one, _ in part)
        return measure(explainers, plan, part)

    monkeypatch.setattr(door, "_TOGETHER", 2)
    monkeypatch.setattr(door, "_rows_of", interrupted)
    options = {"out": tmp_path / "run", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, data, METHODS, **options)
    assert pd.read_json(tmp_path / "run" / "rows.jsonl", lines=True)["image"].nunique() == 4
    monkeypatch.setattr(
        door,
        "_rows_of",
        lambda *given: measured.extend(one.key for one, _ in given[2]) or measure(*given),
    )
    found = evaluate(tiny, data, METHODS, **options)
    same(found, rows)
    assert measured == [example.key for example in load(data)]
    pd.testing.assert_frame_equal(
        evaluate(tiny, data, METHODS, **options), found
    )  # seconds and all
    assert len(measured) == N + 1
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"rows.jsonl", "settings.json"}


def test_a_folder_that_holds_another_evaluation_is_refused_with_what_differs(tiny, data, tmp_path):
    options = {"out": tmp_path / "run", "limit": 3, "references": False, "progress": False}
    evaluate(tiny, data, "maskclip", **options)
    kept = (tmp_path / "run" / "rows.jsonl").read_bytes()
    for change, message in (
        ({"methods": "attention"}, r"methods was \['maskclip'\] and is \['attention'\] now"),
        ({"seed": 5}, "seed was 0 and is 5 now"),
        ({"limit": 5}, "examples was 3 and is 5 now"),
        ({"clip": wrap(build(seed=1))}, "weights was .* now"),
        ({"clip": replace(tiny, image_layers=2)}, "image_layers was None and is 2 now"),
        ({"clip": wrap(tiny.model, resize_mode="squash")}, "preprocess was .* now"),
        (
            {
                "clip": replace(
                    tiny, tokenizer=lambda texts: tiny.tokenizer([text[::-1] for text in texts])
                )
            },
            "tokenizer was .* now",
        ),
    ):
        given = {"clip": tiny, "methods": "maskclip", **options, **change}
        with pytest.raises(GradeclipError, match=f"holds another run: .*{message}.*delete it"):
            evaluate(given.pop("clip"), data, **given)
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() == kept


def test_examples_that_cannot_be_read_are_left_out_by_name_and_measured_when_they_are_mended(
    tiny, data, tmp_path
):
    examples, options = load(data, 3), {"out": tmp_path / "run", "progress": False}
    for fault, message in (
        ({"image": partial(open, "gone.png")}, "No such file or directory: 'gone.png'"),
        (
            {"load_mask": partial(np.ones, (2, 3))},
            r"its mask is \(2, 3\), and its image \(32, 32\)",
        ),
    ):
        wrong = replace(examples[1], **fault)
        said = f"1 of 3 examples are not measured: '{wrong.key[:5]}.* cannot be read: .*{message}"
        with pytest.warns(UserWarning, match=said):
            found = evaluate(tiny, [examples[0], wrong, examples[2]], **options)
        assert found["image"].unique().tolist() == [examples[0].key, examples[2].key]
        with pytest.raises(GradeclipError, match=said.replace("1 of 3", "1 of 1")):
            evaluate(tiny, [wrong], references=False, progress=False)
    whole = evaluate(tiny, examples, **options)
    assert whole["image"].unique().tolist() == [one.key for one in examples]
    pd.testing.assert_frame_equal(
        whole[whole["image"] != wrong.key].reset_index(drop=True), found
    )  # seconds and all


def test_rows_of_a_mask_that_was_replaced_are_not_served(tiny, tmp_path):
    data = write_folder(tmp_path / "mine", 4)
    options = {"out": tmp_path / "run", "references": False, "progress": False}
    evaluate(tiny, data, **options)
    folder = tmp_path / "mine" / "masks"
    (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
    with pytest.raises(
        GradeclipError, match="image or mask of '0.png .line 2.' was replaced since it was measured"
    ):
        evaluate(tiny, data, **options)


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(rows, tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr(door, "_TOGETHER", 3)
    found = evaluate(
        own := deepcopy(tiny), data, METHODS, jobs=2, out=tmp_path / "run", progress=False
    )
    same(found, rows)
    monkeypatch.setitem(
        door.METHODS, "mine", replace(door.METHODS["maskclip"], name="mine")
    )  # as a project registers
    own.model.visual.positional_embedding.data *= (
        -1
    )  # processes of the call above are not asked with its weights
    same(
        *(
            evaluate(own, data, "mine", references=False, jobs=jobs, progress=False)
            for jobs in (2, 1)
        )
    )


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_of_which_one_is_killed_gives_the_rows_of_one(
    rows, tiny, data, monkeypatch
):
    dask, distributed = (
        pytest.importorskip(name, reason="the extra 'cluster' is missing")
        for name in ("dask", "distributed")
    )
    monkeypatch.setattr(door, "_TOGETHER", 1)
    forkserver.ensure_running()  # with our imports: Dask would ask for its own
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0")
    measured = door._measured

    def killing(*given):
        for number, row in enumerate(measured(*given)):
            if number == 0:
                next(iter(cluster.workers.values())).process.process._process.kill()
            yield row

    monkeypatch.setattr(door, "_measured", killing)
    try:
        same(evaluate(tiny, data, METHODS, dask=cluster.scheduler_address, progress=False), rows)
    finally:
        with suppress(TimeoutError):  # workers on a busy machine end later than Dask waits
            cluster.close()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


REFUSED = [
    ("no model", {"clip": None}, "clip must be a Clip"),
    ("no jobs", {"jobs": 0}, "jobs must be 1 or more"),
    ("a seed below zero", {"seed": -1}, "seed must be at least 0"),
    (
        "a misspelt method",
        {"methods": "grad-clip"},
        "'grad-clip' is not a method .*: did you mean grad-",
    ),
    (
        "a method of words",
        {"methods": ["maskclip", "leave-one-out"]},
        "'leave-one-out' is not a method that explains",
    ),
    ("no methods", {"methods": []}, "no method was given: choose from grad-eclip"),
    ("data that is a number", {"data": 5}, "data must be a list"),
    ("no data", {"data": []}, "must hold examples, and there are none"),
    (
        "one scene without a wrong word",
        {"data": "scenes:development:1"},
        "or without references .--no-references.",
    ),
    ("references in words", {"references": "no"}, "references must be False or True, got 'no'"),
    (
        "faithfulness by half",
        {"faithfulness": "half"},
        "faithfulness must be one of published, full, mean-colour",
    ),
    ("out is empty", {"out": ""}, "an empty one was given"),
    ("no scheduler", {"dask": "tcp://127.0.0.1:9"}, "no Dask scheduler answers|needs distributed"),
]


@pytest.mark.parametrize(("options", "message"), named(REFUSED))
def test_an_evaluation_that_makes_no_sense_is_refused(tiny, options, message, monkeypatch):
    if "dask" in options:
        pytest.importorskip("dask").config.set({"distributed.comm.timeouts.connect": 1})
    given = {"clip": tiny, "data": "scenes:development:2", "methods": "maskclip", **options}
    with pytest.raises(GradeclipError, match=message):
        evaluate(given.pop("clip"), given.pop("data"), progress=False, **given)


SHOWN = Image.effect_noise((32, 32), 60).convert("RGB")
MADE = [
    ("nothing", {"image": lambda: None}, "an image must be a PIL image, .* got None"),
    (
        "a mask of another size",
        {"load_mask": lambda: np.eye(8) > 0},
        r"its mask is \(8, 8\), and its image \(32, 32\)",
    ),
    (
        "a mask of words",
        {"load_mask": lambda: "dog"},
        "the mask of 'k' must be an array of numbers, got",
    ),
    (
        "a mask of nothing",
        {"load_mask": lambda: np.zeros((32, 32), bool)},
        "the mask of 'k' is empty",
    ),
]


@pytest.mark.parametrize(("changed", "message"), named(MADE))
def test_what_an_example_reads_is_refused_if_it_is_no_image_or_mask(
    tiny, tmp_path, changed, message
):
    own = {"key": "k", "prompt": "a dog", "concept": "dog", "caption": "", "present": ("dog",)}
    example = Example(
        **{**own, "image": lambda: SHOWN, "load_mask": lambda: np.eye(32) > 0, **changed}
    )
    with pytest.raises(GradeclipError, match=message):
        evaluate(tiny, [example], references=False, progress=False, out=tmp_path / "run")


def test_all_methods_are_those_that_the_model_can_have_and_one_note_names_the_others(
    tiny, monkeypatch
):
    names = door.method_names("all")
    assert names[0] == "grad-eclip" and "leave-one-out" not in names
    assert door.method_names(["rise", "maskclip", "rise"]) == ("rise", "maskclip")
    for name in set(names) - {"grad-eclip", "maskclip", "rollout"}:
        monkeypatch.delitem(methods.METHODS, name)
    options = {"limit": 2, "references": False, "progress": False}
    assert set(evaluate(tiny, "scenes:development:2", "all", **options)["method"]) == {
        *door.method_names("all")
    }
    pooling = wrap(
        build({"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3})
    )
    with pytest.warns(
        UserWarning,
        match="these methods do not work with the model 'tiny' and are left out: .*rollout",
    ):
        found = evaluate(pooling, "scenes:development:2", "all", **options)
    assert "grad-eclip" in set(found["method"]) and "rollout" not in set(found["method"])
    with pytest.raises(GradeclipError, match="attention pool"):
        evaluate(pooling, "scenes:development:2", "rollout", progress=False)


def rows_of(**values):
    rows = [
        (str(i), name.replace("_", "-"), value)
        for name, row in values.items()
        for i, value in enumerate(row)
    ]
    table = pd.DataFrame(rows, columns=["image", "method", "average_precision"])
    return table.assign(concept="dog", seconds=0.1)


def test_three_lines_say_which_map_is_better_by_how_much_and_how_sure_that_is():
    noise = np.random.default_rng(0).normal(0, 0.01, 30)
    far, near = np.full(30, 0.6) + noise, np.full(30, 0.4) - noise
    lines = report_best(summary(rows_of(grad_eclip=far, maskclip=near, area=near / 2))).splitlines()
    assert (
        lines[0]
        == "Which map: grad-eclip is better than the map maskclip, by average precision on 30 images "
        f"({far.mean():.3f} and {near.mean():.3f})."
    )
    assert (
        lines[1].startswith(f"By how much: {(far - near).mean():+.3f} [+0.1")
        and "95 % interval of this" in lines[1]
    )
    assert lines[2].startswith("How sure: higher; p = 0.000") and len(lines) == 3
    alike = report_best(summary(rows_of(grad_eclip=far, maskclip=far + 5 * noise[::-1])))
    assert "not clearly better than" in alike and "How sure: undecided" in alike
    few = report_best(summary(rows_of(grad_eclip=far[:2], maskclip=near[:2])))
    assert "not clearly better than" in few and "How sure: undecided; p = 0.5" in few
    alone = report_best(summary(rows_of(grad_eclip=far, area=near)))
    assert "better than the best reference, area" in alone
    nothing_beside = report_best(summary(rows_of(grad_eclip=far)))
    assert f"has a mean average precision of {far.mean():.3f} on 30 images" in nothing_beside
    assert report_best(summary(rows_of(grad_eclip=far[:1]))).startswith("Nothing can be compared")


def test_a_summary_has_means_intervals_and_differences_from_the_best_method(rows):
    table = summary(rows)
    part = table[table["measure"] == "energy_pointing_game"].set_index("method")
    means = rows.groupby("method")["energy_pointing_game"].mean()
    assert part["mean"].to_dict() == pytest.approx(means[part.index].to_dict())
    best = means[METHODS].idxmax()
    assert set(part["than"]) == {best} and np.isnan(part.loc[best, "difference"])
    other = next(name for name in METHODS if name != best)
    assert part.loc[other, "difference"] == pytest.approx(means[other] - means[best])
    assert (part["p_holm"].dropna() >= part["p"].dropna()).all()


def test_the_command_answers_in_three_lines_and_the_tables_are_in_its_folder(
    tiny, data, capsys, monkeypatch
):
    monkeypatch.setattr(door, "load_clip", lambda *given, **named: tiny)
    arguments = ["evaluate", "--data", data, "--out", "run", "--methods"]
    assert main([*arguments, "grad-eclip,maskclip"]) == 0
    printed = capsys.readouterr()
    assert [line.split(":")[0] for line in printed.out.splitlines()[1:]] == [
        "Which map",
        "By how much",
        "How sure",
    ]
    assert "8/8" in printed.err  # the bar, also without a terminal
    assert set(pd.read_csv("run/summary.csv")["method"]) == {"grad-eclip", "maskclip", *_REFERENCES}
    assert main([*arguments, "maskclip"]) == 2
    assert "holds another run: methods was" in capsys.readouterr().err
    assert main([*arguments, "maskclip", "--overwrite"]) == 0
    assert set(pd.read_csv("run/summary.csv")["method"]) == {"maskclip", *_REFERENCES}
