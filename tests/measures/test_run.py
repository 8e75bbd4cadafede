"""Evaluations: one row a picture and method, whatever is killed, resumed, damaged or done by several processes."""

import os
import signal
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image

from gradeclip_utils import Explainer, methods
from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import load
from gradeclip_utils.measures import evaluation as door
from gradeclip_utils.measures import identity, results
from gradeclip_utils.measures.evaluation import evaluate, report
from gradeclip_utils.measures.faithfulness import PUBLISHED
from gradeclip_utils.measures.localisation import MEASURES, localisation
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.measures.worker import REFERENCES
from gradeclip_utils.methods import Method, register_method
from gradeclip_utils.models import load_clip, save_compact
from tests.conftest import TINY_TEXT, TINY_VISION, build, wrap
from tests.forked import begin
from tests.runs import read_run

METHODS = ["grad-eclip", "maskclip", "game"]
CONCEPTS = ["car", "dog", "sofa"]
N = 7


def write_folder(folder, n):
    """Noise with a bright box in it, which is the object; every second picture shows two things."""
    noise, lines = np.random.default_rng(0), ["image,caption,mask,concept"]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(n):
        pixels, mask = noise.integers(0, 120, (36, 40, 3), dtype=np.uint8), np.zeros((36, 40), dtype=np.uint8)
        top, left = noise.integers(0, 20, 2)
        mask[top : top + 14, left : left + 12] = 255
        pixels[mask > 0] += 120
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
        Image.fromarray(mask).save(folder / f"masks/{i}.png")
        lines.append(f"{i}.png,a {CONCEPTS[i % 3]},,{CONCEPTS[i % 3]}")
    lines.append(f"{n - 1}.png,a tree,,tree")
    (folder / "captions.csv").write_text("\n".join(lines[:-1] if n < 2 else lines) + "\n")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """N + 1 examples of N pictures."""
    return write_folder(tmp_path_factory.mktemp("data") / "mine", N)


@pytest.fixture(scope="module")
def rows(tiny, data):
    """The rows of an evaluation that nothing disturbs."""
    return evaluate(tiny, data, METHODS, chunk=3, progress=False)


def same(found, expected):
    columns = [column for column in expected if column != "seconds"]
    pixel = 1 / (36 * 40)  # rounding may put one on the other side of a threshold
    pd.testing.assert_frame_equal(found[columns], expected[columns], rtol=1e-3, atol=1.1 * pixel)


# --------------------------------------------------------------------------------------------------------------- rows


def test_there_is_one_row_for_every_image_and_method_and_reference_baseline(rows, data):
    keys = [example.key for example in load(data)]
    assert list(zip(rows["image"], rows["method"], strict=True)) == [
        (k, m) for k in keys for m in (*METHODS, *REFERENCES)
    ]
    several = [example.key for example in load(data) if len(example.present) > 1]
    unknown = (rows["method"] == "other thing") & ~rows["image"].isin(several)  # of an image of one thing
    assert several and (rows[list(MEASURES)].notna().all(axis=1) == ~unknown).all()
    drawn = rows["method"].isin(["random", "centre", "area", "mean mask", "oracle"])
    assert (rows["seconds"] > 0).equals(~drawn & ~unknown)


def test_a_row_holds_the_measures_of_the_map_that_the_explainer_gives(rows, tiny, data):
    for example in load(data)[1:3]:
        for method in ("maskclip", "game"):
            map_ = Explainer(tiny, method=method).explain(example.image(), example.prompt).heatmap(0, signed=True)
            row = rows[(rows["image"] == example.key) & (rows["method"] == method)].iloc[0]
            assert row[list(MEASURES)].to_dict() == pytest.approx(localisation(map_, example.mask()), abs=1e-4)


def test_the_wrong_word_is_asked_of_the_baseline_and_is_not_in_the_picture(rows, tiny, data):
    present = {example.key: example.present for example in load(data)}
    wrong = rows[rows["method"] == "wrong word"]
    assert all(row.prompt.split()[-1] not in present[row.image] for row in wrong.itertuples())
    example, row = load(data)[0], wrong.iloc[0]
    map_ = Explainer(tiny).explain(example.image(), row["prompt"]).heatmap(0, signed=True)
    assert row[list(MEASURES)].to_dict() == pytest.approx(localisation(map_, example.mask()), abs=1e-4)


def test_the_map_that_never_heard_the_prompt_is_the_attention_and_the_oracle_is_high(rows, tiny, data):
    example = load(data)[0]
    map_ = Explainer(tiny, method="attention").explain(example.image(), "whatever").heatmap(0, signed=True)
    row = rows[rows["method"] == "text-blind"].iloc[0]
    assert row[list(MEASURES)].to_dict() == pytest.approx(localisation(map_, example.mask()), abs=1e-4)
    means = rows.groupby("method")["average_precision"].mean()
    assert means.drop("oracle").max() < means["oracle"]


def by_hand(row):
    return row[list(MEASURES)].astype(float).to_dict()


def test_the_other_thing_is_in_the_image_and_asked_of_the_baseline(rows, tiny, data):
    other = rows[(rows["method"] == "other thing") & rows["pointing_game"].notna()]
    assert len(other) == 2  # one image of two things, asked for one and for the other
    examples = {example.key: example for example in load(data)}
    for _, row in other.iterrows():
        example, noun = examples[row["image"]], row["prompt"].split()[-1]
        assert noun in example.present and noun != example.concept
        map_ = Explainer(tiny).explain(example.image(), row["prompt"]).heatmap(0, signed=True)
        assert by_hand(row) == pytest.approx(localisation(map_, example.mask()), abs=1e-4)


def test_an_example_may_know_prompts_of_other_things(tiny, data):
    examples = [replace(one, others=("a tree",)) for one in load(data)[:3]]
    found = evaluate(tiny, examples, progress=False).set_index("method").loc["other thing"]
    assert (found["prompt"] == "a tree").all() and found[list(MEASURES)].notna().all(axis=None)


def test_random_weights_are_those_of_the_baseline_of_a_model_that_knows_nothing(rows, tiny, data):
    example, row = load(data)[1], rows[rows["method"] == "random weights"].iloc[1]
    map_ = Explainer(randomised(tiny, seed=0)).explain(example.image(), example.prompt).heatmap(0, signed=True)
    assert by_hand(row) == pytest.approx(localisation(map_, example.mask()), abs=1e-4)


def test_the_area_scores_the_fraction_of_the_image_that_the_object_is_in_every_measure(rows, data):
    area = rows[rows["method"] == "area"].set_index("image")
    for example in load(data):
        assert by_hand(area.loc[example.key]) == pytest.approx(dict.fromkeys(MEASURES, example.mask().mean()))


def mask_of(columns):
    return np.tile(np.arange(32) < columns, (32, 1))


def test_the_mean_mask_is_that_of_the_other_examples(tiny, data):
    masks, image = [mask_of(columns) for columns in (8, 16, 24)], Image.new("RGB", (32, 32))
    examples = [
        replace(one, load_mask=partial(np.array, mask), image=lambda: image)
        for one, mask in zip(load(data), masks, strict=False)
    ]
    examples.append(replace(load(data)[4], load_mask=None, image=lambda: image))
    found = evaluate(tiny, examples, progress=False, chunk=2).query("method == 'mean mask'").set_index("image")
    for i, one in enumerate(examples[:3]):
        guess = np.mean([mask for k, mask in enumerate(masks) if k != i], axis=0)
        assert by_hand(found.loc[one.key]) == pytest.approx(localisation(guess, masks[i]))
    assert found.loc[examples[3].key, list(MEASURES)].isna().all()
    alone = evaluate(tiny, [examples[0], examples[3]], progress=False).set_index("method").loc["mean mask"]
    assert alone[list(MEASURES)].isna().all(axis=None)  # nobody else's mask is known


def test_a_mask_that_was_replaced_changes_the_mean_of_all_others(tiny, tmp_path):
    data, options = write_folder(tmp_path / "mine", 4), {"out": tmp_path / "run", "chunk": 1, "progress": False}
    evaluate(tiny, data, **options)
    masks = tmp_path / "mine/masks"
    (masks / "0.png").write_bytes((masks / "1.png").read_bytes())
    with pytest.warns(UserWarning, match="is about images or masks that were replaced") as told:
        same(evaluate(tiny, data, **options), evaluate(tiny, data, progress=False))
    assert len(told) == 5  # of 5 examples


def test_a_protocol_may_be_given_by_itself(tiny, data):
    options = {"references": False, "limit": 2, "progress": False}
    named = evaluate(tiny, data, faithfulness="mean-colour", **options)
    same(evaluate(tiny, data, faithfulness=replace(PUBLISHED, fill="mean", canvas="mean"), **options), named)
    noise = evaluate(tiny, data, faithfulness="published", **options)
    assert (named["deletion"] != noise["deletion"]).all() and (named["insertion"] != noise["insertion"]).all()


def test_how_many_are_measured_together_changes_no_row(rows, tiny, data):
    same(evaluate(tiny, data, METHODS, chunk=1, progress=False), rows)


def test_examples_in_hand_and_no_references_will_do(rows, tiny, data):
    found = evaluate(tiny, load(data)[:2], "maskclip", references=False, progress=False)
    expected = rows[(rows["method"] == "maskclip")].iloc[:2].reset_index(drop=True)
    same(found, expected)


def test_a_limit_is_spread_over_examples_in_hand_as_over_a_data_set(rows, tiny, data):
    options = {"references": False, "progress": False}
    found, expected = (evaluate(tiny, given, limit=3, **options) for given in (load(data), data))
    assert list(found["image"]) == list(expected["image"]) == [load(data)[i].key for i in (0, 4, 7)]
    for limit in (0, -2):
        with pytest.raises(ValueError, match=f"limit must be at least 1, got {limit}"):
            evaluate(tiny, load(data), limit=limit, **options)


def test_the_seed_decides_what_is_random_and_nothing_else_does(tiny, data):
    first, again, other = (evaluate(tiny, data, seed=seed, limit=3, progress=False) for seed in (1, 1, 2))
    same(again, first)
    drawn = first["method"] == "random"
    assert (first[drawn]["average_precision"] != other[drawn]["average_precision"]).all()
    plain = first["method"] == "grad-eclip"
    same(first[plain], other[plain])


def test_faithfulness_adds_deletion_and_insertion_of_the_examples_own_prompt(tiny, data):
    found = evaluate(tiny, data, ["grad-eclip"], faithfulness="published", limit=3, progress=False)
    known = found[found["method"] != "other thing"]
    assert known[["deletion", "insertion"]].notna().all(axis=None)
    assert set(found["method"]) == {"grad-eclip", *REFERENCES}
    assert known["deletion"].between(-1, 1).all()


def test_pictures_without_a_mask_have_no_localisation_and_need_faithfulness(tiny, data, tmp_path):
    examples = [replace(example, load_mask=None) for example in load(data)]
    with pytest.raises(ValueError, match="not one example has a mask"):
        evaluate(tiny, examples, progress=False)
    found = evaluate(tiny, examples[-3:], faithfulness="full", progress=False)
    assert found[list(MEASURES)].isna().all(axis=None)
    known = found[found["method"] != "other thing"]
    masked = known["method"].isin(["oracle", "mean mask"])
    assert known["insertion"].isna().equals(masked)  # nobody knows the ground truth
    mixed = evaluate(tiny, [*examples[:1], *load(data)[1:]], progress=False)
    assert mixed.groupby("image")["energy_pointing_game"].count().tolist().count(0) == 1
    assert "(7 images)" in report(mixed)


def test_a_mask_of_nothing_says_as_little_as_none(tiny, data):
    nothing = replace(load(data)[0], load_mask=partial(np.zeros, (36, 40), bool))
    examples = [nothing, *load(data)[1:4]]
    found = evaluate(tiny, examples, faithfulness="full", progress=False).set_index("image")
    own = found.loc[nothing.key].set_index("method")
    assert own[list(MEASURES)].isna().all(axis=None)
    assert np.isfinite(own.loc["grad-eclip", "deletion"]) and np.isnan(own.loc["oracle", "deletion"])
    assert found.drop(nothing.key)["average_precision"].notna().any()


def test_means_over_images_of_one_concept_resample_images(rows):
    some = rows.copy()
    some.loc[some["concept"] != "car", list(MEASURES)] = np.nan  # who knows no mask of the others
    assert "(3 images)" in report(some)


def test_nothing_is_left_behind_on_the_model_or_in_torch(tiny, data):
    threads, state = torch.get_num_threads(), {name: value.clone() for name, value in tiny.model.state_dict().items()}
    evaluate(tiny, data, METHODS, limit=3, threads=3, progress=False)
    assert torch.get_num_threads() == threads
    assert all((tiny.model.state_dict()[name] == value).all() for name, value in state.items())


# ------------------------------------------------------------------------------------------------- killed and resumed


def test_an_evaluation_that_was_interrupted_goes_on_and_computes_nothing_twice(rows, tiny, data, tmp_path, monkeypatch):
    measured, measure = [], door.measured

    def interrupted(explainers, plan, part):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(part.number)
        return measure(explainers, plan, part)

    monkeypatch.setattr(door, "measured", interrupted)
    options = {"out": tmp_path / "run", "chunk": 3, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, data, METHODS, **options)
    assert read_run(tmp_path / "run")["image"].nunique() == 6
    monkeypatch.setattr(door, "measured", lambda *given: measured.append(given[2].number) or measure(*given))
    same(evaluate(tiny, data, METHODS, **options), rows)
    assert measured == [0, 1, 2]
    same(evaluate(tiny, data, METHODS, **options), rows)
    assert measured == [0, 1, 2]
    same(read_run(tmp_path / "run"), rows)


def test_half_a_table_or_chunk_that_a_killed_process_left_goes_with_the_next_run(rows, tiny, data, tmp_path):
    run, options = tmp_path / "run", {"out": tmp_path / "run", "chunk": 3, "progress": False}
    evaluate(tiny, data, METHODS, **options)
    (run / "rows.parquet.4321.new").write_bytes(b"PAR1 and no end")
    (run / "chunks" / "1.json.4321.new").write_bytes(b"no end")
    same(evaluate(tiny, data, METHODS, **options), rows)
    assert {file.name for file in run.iterdir()} == OF_A_RUN
    assert {file.name for file in (run / "chunks").iterdir()} == {"0.json", "1.json", "2.json"}


OF_A_RUN = {"settings.json", "chunks", "rows.parquet", "running.sqlite"}
CONFIG = {"embed_dim": 48, "vision_cfg": TINY_VISION, "text_cfg": {**TINY_TEXT, "vocab_size": 49408}}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 32}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file that the command can load."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**CONFIG)
    save_compact(model, path, words=["a", *CONCEPTS, "tree"], metadata={}, config={**CONFIG, "preprocess": PREPROCESS})
    return path


@pytest.mark.slow
def test_a_command_that_is_killed_loses_and_repeats_no_row_and_while_it_runs_another_is_refused(saved, tmp_path):
    data, run = write_folder(tmp_path / "mine", 60), tmp_path / "run"
    arguments = ["evaluate", "--data", data, "--out", str(run), "--chunk", "1", "--methods", "grad-eclip"]
    process = begin([*arguments, "--model", "emoji", "--pretrained", str(saved)], tmp_path)
    until = time.monotonic() + 120
    while images_done(run) < 3 and process.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGSTOP)  # so that it cannot be done before the other one comes
    with pytest.raises(ValueError, match=f"another process is at work on {run}: wait until it is done, or choose"):
        evaluate(load_clip("emoji", saved), data, out=run, chunk=1, progress=False)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    survived = read_run(run)
    assert 3 <= survived["image"].nunique() < 61
    assert not survived.duplicated(["image", "method"]).any()
    found = evaluate(load_clip("emoji", saved), data, out=run, chunk=1, progress=False)
    pd.testing.assert_frame_equal(found[: len(survived)], survived)  # seconds and all: nothing was computed twice
    same(found, evaluate(load_clip("emoji", saved), data, chunk=8, progress=False))
    pd.testing.assert_frame_equal(read_run(run), found)
    pd.testing.assert_frame_equal(pd.read_parquet(run / "rows.parquet"), found)
    assert {file.name for file in run.iterdir()} == OF_A_RUN


def images_done(run):
    return read_run(run)["image"].nunique()


def test_a_run_that_somebody_works_on_is_left_as_it_is(tmp_path):
    with closing(results.Results(tmp_path / "run", {"seed": 0})) as first:
        with pytest.raises(ValueError, match="another process is at work"):
            results.Results(tmp_path / "run", {"seed": 0})
        table = pd.DataFrame({"image": ["a"], "method": ["rise"], "energy": [np.nan], "auc": [0.1 + 0.2]})
        first.write(0, table)
        pd.testing.assert_frame_equal(read_run(tmp_path / "run"), table)  # who only reads may do so at any time
    with closing(results.Results(tmp_path / "run", {"seed": 0})) as next_one:
        pd.testing.assert_frame_equal(next_one.read(0, [("a", "rise")]), table)


def test_a_damaged_chunk_is_said_and_computed_again(rows, tiny, data, tmp_path):
    options = {"out": tmp_path, "chunk": 3, "progress": False}
    evaluate(tiny, data, METHODS, **options)
    file = tmp_path / "chunks" / "1.json"
    whole, other = file.read_bytes(), (tmp_path / "chunks" / "0.json").read_bytes()
    flipped = whole[:200] + bytes(255 - byte for byte in whole[200:240]) + whole[240:]
    for damaged in (whole[: len(whole) // 2], flipped, b"", b"\xff" + whole, b"dear\n" * 100, other):
        file.write_bytes(damaged)  # the last is whole, but has another chunk's rows
        with pytest.warns(UserWarning, match="chunk 1 of .* is damaged, and its rows are computed again"):
            same(evaluate(tiny, data, METHODS, **options), rows)
        same(read_run(tmp_path), rows)
        same(evaluate(tiny, data, METHODS, **options), rows)


def test_a_folder_that_holds_another_evaluation_is_refused_with_what_differs(tiny, data, tmp_path):
    options = {"out": tmp_path / "run", "limit": 3, "progress": False}
    evaluate(tiny, data, "maskclip", **options)
    bright = {**options, "clip": replace(tiny, preprocess=brightened(tiny, 1.5)), "out": tmp_path / "bright"}
    evaluate(data=data, methods="maskclip", **bright)
    evaluate(data=data, methods="maskclip", **bright | {"clip": replace(tiny, preprocess=brightened(tiny, 1.5))})
    for change, message in (
        ({"methods": "attention"}, r"methods was \['maskclip'\], and is \['attention'\] now"),
        ({"seed": 5}, "seed was 0, and is 5 now"),
        ({"limit": 5}, "examples was 3, and is 5 now"),
        ({"clip": wrap(build(seed=1))}, "weights was .* now"),
        ({"clip": replace(tiny, image_layers=2)}, "image_layers was None, and is 2 now"),
        ({"clip": wrap(tiny.model, resize_mode="squash")}, "preprocess was .* now"),
        ({"clip": replace(tiny, preprocess=brightened(tiny, 2)), "out": tmp_path / "bright"}, "preprocess was .* now"),
        ({"clip": replace(tiny, tokenizer=backwards(tiny))}, "tokenizer was .* now"),
    ):
        given = {"clip": tiny, "methods": "maskclip", **options, **change}
        with pytest.raises(ValueError, match=f"holds another run: .*{message}.*delete it"):
            evaluate(given.pop("clip"), data, **given)
    assert len(read_run(tmp_path / "run")) == 3 * (1 + len(REFERENCES))


def test_rows_of_a_method_of_ones_own_are_those_of_what_its_name_stands_for_now(tiny, data, tmp_path):
    options = {"limit": 3, "references": False, "out": tmp_path / "run", "progress": False}
    for way in (torch.ones_like, torch.ones_like, torch.zeros_like):
        register_method(Method("mine", "Mine", "-", "-", "-", image=everywhere(way)))
        try:
            if way is torch.ones_like:
                evaluate(tiny, data, "mine", **options)
                continue
            with pytest.raises(ValueError, match="holds another run: computed_by was '[0-9a-f]{16}', and is"):
                evaluate(tiny, data, "mine", **options)
        finally:
            del methods.METHODS["mine"]


def everywhere(way):
    """A method whose map is the same everywhere; which is seen in what it closes over alone."""
    return lambda tower, trace, directions: way(1.0 * trace.valid_mask)[:, None].expand(-1, directions.shape[1], -1)


def brightened(clip, times):
    """A preprocessing of one's own, of which `times` is seen in what it closes over alone."""
    return lambda image: clip.preprocess(image) * times


def backwards(clip):
    """A tokenizer that reads letters from the last to the first."""
    return lambda texts: clip.tokenizer([text[::-1] for text in texts])


def test_rows_of_other_versions_of_what_they_depend_on_are_not_mixed(tiny, data, tmp_path, monkeypatch):
    options, version = {"out": tmp_path / "run", "limit": 3, "progress": False}, identity.version
    evaluate(tiny, data, **options)
    for library in ("gradeclip", "timm"):
        other = {library: "0.0.0"}
        monkeypatch.setattr(identity, "version", lambda name, other=other: other.get(name) or version(name))
        with pytest.raises(ValueError, match="holds another run: versions was"):
            evaluate(tiny, data, **options)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ValueError, match="is not empty and holds no settings.json"):
        results.Results(tmp_path, {})
    with pytest.raises(ValueError, match="must be a folder, and .*thesis.tex is a file"):
        results.Results(tmp_path / "thesis.tex", {})
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    assert read_run(tmp_path / "run").empty
    results.Results(tmp_path / "run", {}).close()  # killed before its settings were whole
    results.Results(tmp_path / "run", {"seed": 1}).close()
    with pytest.raises(ValueError, match="seed was 1, and is 2 now"):
        results.Results(tmp_path / "run", {"seed": 2})
    assert read_run(tmp_path / "run").empty


# ------------------------------------------------------------------------------------------------------- many workers


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(rows, tiny, data, tmp_path):
    found = evaluate(tiny, data, METHODS, chunk=3, jobs=2, threads=1, out=tmp_path, progress=False)
    same(found, rows)
    same(read_run(tmp_path), rows)


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_gives_the_rows_of_one(rows, tiny, data):
    dask, distributed = (
        pytest.importorskip(name, reason="the extra 'dask' is missing") for name in ("dask", "distributed")
    )
    forkserver.ensure_running()  # with our imports: Dask would ask for its own
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0")
    try:
        same(evaluate(tiny, data, METHODS, chunk=3, dask=cluster.scheduler_address, progress=False), rows)
    finally:
        with suppress(TimeoutError):  # workers on a busy machine end later than Dask waits, which is not the question
            cluster.close()


# ------------------------------------------------------------------------------------------------- the door, the table


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("grad-clip", "'grad-clip' is no method that explains images: did you mean grad-eclip"),
        (["maskclip", "leave-one-out"], "'leave-one-out' is no method that explains images"),
        ("xyzzy", "'xyzzy' is no method .*: choose from grad-eclip, "),
        ([], "no method was given: choose from grad-eclip, "),
    ],
)
def test_a_method_that_does_not_exist_is_refused_with_the_nearest_names(tiny, data, methods, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tiny, data, methods)


def test_what_cannot_be_measured_is_refused_before_anything_is_computed(tiny, data, tmp_path):
    with pytest.raises(ValueError, match="faithfulness must be one of published, full, mean-colour, or empty"):
        evaluate(tiny, data, faithfulness="half")
    with pytest.raises(ValueError, match="unmodified model.* needs resolution='model', got 'native'"):
        evaluate(tiny, data, faithfulness="full", resolution="native")
    with pytest.raises(ValueError, match="there is no wrong word: evaluate more examples, or without references"):
        evaluate(tiny, load(data)[:1])
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        evaluate(tiny, data, chunk=0)
    with pytest.raises(ValueError, match="'2-0.png' is there more than once"):
        evaluate(tiny, [*load(data), load(data)[0]])
    with pytest.raises(ValueError, match="needs examples, and there are none"):
        evaluate(tiny, [])


def test_all_methods_are_those_that_explain_pictures():
    names = door.method_names("all")
    assert names[0] == "grad-eclip"
    assert "leave-one-out" not in names
    assert door.method_names(["rise", "maskclip", "rise"]) == ("rise", "maskclip")


def test_the_report_has_means_intervals_and_differences_from_the_baseline(rows):
    text = report(rows)
    means = rows.groupby("method")["energy_pointing_game"].mean()
    block = next(part for part in text.split("\n\n") if "energy_pointing_game" in part)
    line = next(line for line in block.splitlines() if line.split()[0] == "maskclip")
    assert line.split()[1] == f"{means['maskclip']:.3f}"
    assert line.split("]")[1].split()[0] == f"{means['maskclip'] - means['grad-eclip']:+.3f}"
    assert len(block.splitlines()) == 1 + len(METHODS) + len(REFERENCES) + 1
    other = rows[(rows["method"] == "other thing") & rows["energy_pointing_game"].notna()].set_index("image")
    ours = rows[rows["method"] == "grad-eclip"].set_index("image").loc[other.index, "energy_pointing_game"]
    line = next(line for line in block.splitlines() if line.split()[0] == "other")  # on the images that it has
    assert line.split("]")[1].split()[0] == f"{(other['energy_pointing_game'] - ours).mean():+.3f}"
    assert block.endswith("(8 images) (other thing: 2)")
    timed = [line.split()[0] for line in text.split("\n\n")[-1].splitlines()[1:-1] if len(line.split()) == 2]
    assert set(METHODS) <= set(timed)


def test_the_command_prints_the_table_or_what_was_wrong_in_one_sentence(saved, data, tmp_path, capsys, monkeypatch):
    arguments = ["evaluate", "--data", data, "--out", str(tmp_path / "run")]
    arguments += ["--model", "emoji", "--pretrained", str(saved)]
    assert main([*arguments, "--methods", "grad-eclip,maskclip"]) == 0
    printed = capsys.readouterr()
    assert "minus grad-eclip" in printed.out
    assert "(8 images)" in printed.out
    assert "8/8" in printed.err  # the progress bar
    assert main([*arguments, "--methods", "maskclip"]) == 2
    assert "holds another run: methods was" in capsys.readouterr().err
    assert main([*arguments, "--data", "coco:nowhere"]) == 2
    assert "is missing: the annotations of COCO" in capsys.readouterr().err

    def interrupt(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "evaluate", interrupt)
    assert main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().err
