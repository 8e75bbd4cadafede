"""How fine a model sees, and the experiment that asks: known regions, arms, and a table that resumes."""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.__main__ import main
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.finetune.pairs import spoken
from gradeclip_utils.finetune.run import Tuned, Tuning
from gradeclip_utils.measures.table import weights_digest
from gradeclip_utils.panels.session import Session
from gradeclip_utils.plots import InlineFigure, draw_heatmap
from gradeclip_utils.plots.colours import number
from gradeclip_utils.scenes import arrange, concepts, draw_scene, is_withheld_colour, phrase
from studies.finetuning import evaluate as finegrained
from studies.finetuning import experiment
from studies.finetuning.arms import (
    ARMS,
    BEFORE,
    GLOBAL,
    KEPT,
    OURS,
    PILOT,
    PILOT_AMOUNT,
    TUNED_FOR,
    ScenePairs,
    allowed,
    chosen,
    pilots_of,
    plan,
    read,
    tidy,
)
from studies.finetuning.evaluate import (
    AMOUNT,
    Amount,
    boxed,
    dense_features,
    measure,
    region_rows,
    region_scenes,
    summary,
)
from studies.finetuning.plots import (
    compare,
    draw_arms,
    draw_before_after,
    missing,
    named_regions,
)
from tests.legible import headline
from tests.scenes import is_trained

FIGURES = ["figure", "estimate", "low", "high", "n", "chance"]  # the columns of `measure`
FEW = Amount(regions=6, pointing=2, pairs=2, whole=8)


def test_the_box_of_a_mask_is_the_smallest_around_it():
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = mask[4, 6] = True
    expected = np.zeros_like(mask)
    expected[2:5, 3:7] = True
    assert (boxed(mask) == expected).all() and not boxed(np.zeros((3, 3), bool)).any()


def test_scenes_of_regions_are_development_scenes_of_one_to_four_different_things():
    scenes = region_scenes(8)
    assert [len(scene.objects) for scene in scenes] == [1, 2, 3, 4] * 2
    assert all(
        is_trained(scene.objects) and len({t.noun for t in scene.objects}) == len(scene.objects) for scene in scenes
    )


def test_dense_features_are_those_of_the_tower(bundled):
    (scene, dense, size, box), *_ = dense_features(bundled, [arrange(["cat", "car"])])
    assert dense.shape == (12, 12, 192) and size == 96 and box == (0, 0, 96, 96)
    assert torch.allclose(dense.norm(dim=-1), torch.ones(12, 12), atol=1e-5) and scene.caption == "a cat and a car"


def test_regions_whose_features_are_the_right_prompts_are_all_right(bundled, monkeypatch):
    """Dense features made from the truth: every cell says what covers it most."""
    nouns = list(concepts().index)
    prompts = Explainer(bundled).embed_texts([phrase(noun) for noun in nouns]).cpu()
    scenes = tuple(arrange(nouns[start : start + count]) for start, count in ((0, 1), (5, 2), (9, 3), (20, 4)))
    monkeypatch.setattr(finegrained, "region_scenes", lambda n, skip: scenes)
    real = list(dense_features(bundled, scenes))

    def perfect(clip, scenes):
        for scene, dense, *seen in real:
            truth = torch.zeros_like(dense)
            for thing, mask in zip(scene.objects, scene.masks(96), strict=True):
                share = torch.from_numpy(mask.reshape(12, 8, 12, 8).mean((1, 3))).float()
                truth += share[..., None] * prompts[nouns.index(thing.noun)]
            yield scene, truth, *seen

    monkeypatch.setattr(finegrained, "dense_features", perfect)
    figures = summary(region_rows(bundled, Amount(regions=4))).set_index("figure")["estimate"]
    assert (figures == 1).all() and list(figures.index) == [f"{s}, top-{k}" for s in ("boxes", "masks") for k in (1, 5)]


def test_a_model_that_tells_no_noun_from_another_names_no_region(bundled, monkeypatch):
    monkeypatch.setattr(Explainer, "embed_texts", lambda self, texts: torch.ones(len(texts), 192))
    assert not region_rows(bundled, Amount(regions=2))["right"].any()


def test_a_model_is_measured_in_every_part_with_intervals_and_chance(bundled):
    figures = measure(bundled, FEW)
    assert figures["figure"].is_unique and (figures["low"] <= figures["estimate"]).all()
    assert (figures["estimate"] <= figures["high"]).all() and figures["chance"].between(0, 0.5).all()
    known = figures.set_index("figure")
    assert known.loc["zero-shot, one object", "n"] == 8 and known.loc["binding, swapped colours", "n"] == 4
    again = measure(bundled, FEW, only=["regions"])
    pd.testing.assert_frame_equal(again, figures[figures["figure"].isin(again["figure"])].reset_index(drop=True))
    with pytest.raises(ValueError, match="each of only must be one of regions, pointing, binding, whole, got 'colour'"):
        measure(bundled, FEW, only="colour")


def test_pairs_are_training_scenes_that_know_what_a_phrase_speaks_of():
    pairs = ScenePairs(40)
    assert len(pairs) == 40 and pairs[3].caption == pairs[3].caption
    with pytest.raises(IndexError, match="there are 40 pairs"):
        pairs[40]
    for i in range(40):
        scene = draw_scene([70, i], split="train")
        assert pairs[i].caption == scene.caption and pairs[i].image().size == (96, 96)
        for part in spoken(scene.caption):
            mask = pairs[i].where(part.start, part.end)
            words = [s for s in scene.spans if part.start <= s.start and s.end <= part.end]
            if words:
                objects = sorted({k for span in words for k in span.objects})
                assert (mask == scene.masks(96)[objects].any(0)).all()


def test_no_hard_negative_says_a_withheld_colour():
    nouns = [noun for noun in concepts().index if is_withheld_colour(noun, "blue")]
    assert nouns and not any(allowed(f"a blue {noun}") for noun in nouns)
    plural = next(row.plural for row in concepts().itertuples() if row.noun in nouns and row.plural)
    assert not allowed(f"two blue {plural}")
    assert allowed("a small cat") and all(allowed(f"a {noun}") for noun in nouns)


def test_arms_are_compared_seed_by_seed_the_two_that_the_conclusion_rests_on_with_five_and_the_others_with_three():
    (first, seed), *order = plan()
    assert (first, seed) == ("before", 0) and order[:2] == [(GLOBAL, 0), (OURS, 0)]
    assert [seed for _, seed in order] == sorted(seed for _, seed in order)
    assert Counter(arm for arm, _ in order) == {arm: 5 if arm in (GLOBAL, OURS) else 3 for arm in ARMS if arm != first}


@pytest.fixture
def asked(monkeypatch):
    """What was asked of training, which takes no time here, and neither does measuring."""
    found = []

    def quick(clip, pairs, tuning, **options):
        found.append((tuning.maps, tuning.regions, tuning.seed))
        return Tuned(clip, pd.DataFrame({"seconds": [60.0], "cpu_seconds": [30.0]}))

    values = pd.DataFrame([("boxes, top-1", 0.5, 0.4, 0.6, 10, 0.1)], columns=FIGURES)
    monkeypatch.setattr(experiment, "fine_tune", quick)
    monkeypatch.setattr(experiment, "measure", lambda clip, amount, only=(): values)
    return found


def test_the_table_gains_a_row_a_run_and_none_twice(bundled, tmp_path, asked, monkeypatch):
    table, tuning = tmp_path / "table.csv", Tuning(steps=3, batch=2)
    todo = [("before", 0), (GLOBAL, 1), (OURS, 1), ("uniform map", 0)]
    experiment.run(table, tmp_path / "runs", tuning, todo=todo[:2])
    experiment.run(table, tmp_path / "runs", tuning, todo=todo)
    rows = read(table)
    assert list(zip(rows["arm"], rows["seed"], strict=True)) == todo
    assert asked == [("grad-eclip", 0.0, 1), ("grad-eclip", 1.0, 1), ("uniform", 1.0, 0)]
    assert rows["steps"].tolist() == [0, 3, 3, 3] and rows["minutes"].tolist() == [0, 1, 1, 1]
    assert rows["commit"].notna().all() and rows["command"].str.contains("--arms").all()
    figures = tidy(rows)
    assert len(figures) == 4 and figures.iloc[2][["estimate", "low", "high", "n"]].tolist() == [0.5, 0.4, 0.6, 10]
    with pytest.raises(ValueError, match="holds runs of 'global loss only' with steps=3, not 4"):
        experiment.run(table, tmp_path / "runs", replace(tuning, steps=4), todo=todo)
    experiment.run(tmp_path / "longer.csv", tmp_path / "runs", replace(tuning, steps=4), todo=todo)
    assert len(asked) == 6, "a training of another length is no training of this one"
    with torch.no_grad():
        other = replace(bundled, model=copy.deepcopy(bundled.model))
        other.model.logit_scale += 1
    monkeypatch.setattr(experiment, "load_clip", lambda name, file=None: other)
    experiment.run(tmp_path / "trained anew.csv", tmp_path / "runs", tuning, todo=todo)
    assert len(asked) == 9, "nor is one that began from other weights"


@pytest.fixture
def best_of(monkeypatch):
    """Training that takes no time, and is the better the nearer its recipe is to what each kind of map likes best."""
    likes, last, tried = {"grad-eclip": (1e-3, 1.0), "uniform": (1e-4, 0.1)}, [], []

    def quick(clip, pairs, tuning, **options):
        last[:] = [tuning]
        tried.append((tuning.maps, tuning.learning_rate, tuning.regions))
        return Tuned(clip, pd.DataFrame({"seconds": [60.0], "cpu_seconds": [30.0]}))

    def score(clip, amount, only=()):
        far = [abs(np.log(getattr(last[0], name) / best)) for name, best in
               zip(("learning_rate", "regions"), likes[last[0].maps], strict=True)] if last else [9]  # fmt: skip
        rows = [(TUNED_FOR, 1 - sum(far) / 100), (KEPT, 0.5)]
        return pd.DataFrame([(*row, 0.0, 1.0, 9, 0.1) for row in rows], columns=FIGURES)

    monkeypatch.setattr(experiment, "fine_tune", quick)
    monkeypatch.setattr(experiment, "measure", score)
    return likes, tried


def test_every_arm_has_the_same_search_and_the_recipe_that_is_best_for_it(bundled, tmp_path, best_of):
    likes, tried = best_of
    table, runs = tmp_path / "rows.csv", tmp_path / "runs"
    for _ in range(2):  # the second time there is nothing left to do
        experiment.run_pilots(pilots_of(table), runs, arms=[OURS, "uniform map"])
    pilots = read(pilots_of(table))
    assert pilots.groupby("arm").size().to_dict() == {OURS: 5, "uniform map": 5} and len(tried) == 10
    assert pilots["command"].str.contains("--pilots").all()
    for arm, maps in ((OURS, "grad-eclip"), ("uniform map", "uniform")):
        found = chosen(pilots, arm)
        assert (found.learning_rate, found.regions) == likes[maps], arm
        assert found.maps == maps and chosen(pilots, arm, replace(PILOT, learning_rate=0.5)).learning_rate == 0.5
    assert chosen(pilots, "grad-cam") == replace(PILOT, maps="grad-cam"), "an arm without pilots begins as all do"
    experiment.run(table, runs, todo=[("uniform map", 0)])
    row = read(table).iloc[0]
    assert (row["learning_rate"], row["regions"]) == likes["uniform"] and len(tried) == 10, "its training is a pilot's"


def test_pilots_are_measured_on_scenes_that_the_table_does_not_measure():
    told = {(scene.objects, scene.background) for scene in region_scenes(AMOUNT.regions)}
    amount = PILOT_AMOUNT
    assert amount.skip >= max(AMOUNT.regions, AMOUNT.whole)
    assert not told & {(scene.objects, scene.background) for scene in region_scenes(amount.regions, amount.skip)}


def test_shards_try_each_arm_once_and_an_unfinished_search_is_not_merged(bundled, tmp_path, best_of, capsys):
    command = ["study", "fine-tuning", "--pilots", "--arms", OURS, "uniform map", "--runs", str(tmp_path / "runs")]
    command += ["--table", str(tmp_path / "rows.csv")]
    assert main([*command, "--shard", "0/2"]) == 0 and main([*command, "--merge"]) == 2
    assert "0 of 5 pilots of 'uniform map'" in capsys.readouterr().err
    assert main([*command, "--shard", "1/2"]) == main([*command, "--merge"]) == 0
    assert read(tmp_path / "rows_pilots.csv")["arm"].tolist() == [OURS] * 5 + ["uniform map"] * 5


def test_shards_run_each_arm_once_and_merge_to_the_table_of_one_process(bundled, tmp_path, asked, capsys):
    command = ["study", "fine-tuning", "--arms", "before", OURS, "uniform map", "--seeds", "1"]
    runs = ["--runs", str(tmp_path / "runs")]
    assert main([*command, *runs, "--table", str(tmp_path / "one.csv"), "--shard", "0/1"]) == 0
    alone = asked[:]
    asked.clear()
    dealt = [*command, "--runs", str(tmp_path / "dealt"), "--table", str(tmp_path / "dealt.csv")]
    assert main([*dealt, "--shard", "0/2"]) == 0
    assert main([*dealt, "--merge"]) == 2 and not (tmp_path / "dealt.csv").exists()
    assert "has run 'grad-eclip' with seed 0, which makes 1 missing" in capsys.readouterr().err
    assert main([*dealt, "--shard", "1/2"]) == main([*dealt, "--merge"]) == 0 and sorted(asked) == sorted(alone)
    one, two = (read(tmp_path / name) for name in ("one.csv", "dealt.csv"))
    pd.testing.assert_frame_equal(one, two)
    assert main([*dealt, "--shard", "9/10"]) == 0, "a shard without a run has nothing to do"


def test_a_table_that_is_not_there_yet_is_empty(tmp_path):
    assert read(tmp_path / "none.csv").empty and tidy(read(tmp_path / "none.csv")).empty


# --- tables and figures of the lesson -----------------------------------------------------------------------------


def table_of(values):
    """A table as the experiment writes it, from (arm, seed) -> estimate of one figure."""
    parts = {"estimate": 0.0, "low": -0.1, "high": 0.1}
    return pd.DataFrame([
        {"arm": arm, "seed": seed, "steps": 1, "boxes, top-1 | n": 9, "boxes, top-1 | chance": 0.1}
        | {f"boxes, top-1 | {part}": estimate + shift for part, shift in parts.items()}
        for (arm, seed), estimate in values.items()
    ])  # fmt: skip


def test_arms_are_compared_over_the_seeds_that_both_have():
    values = {(OURS, 0): 0.5, (OURS, 1): 0.6, (OURS, 2): 0.55, (GLOBAL, 0): 0.2, (GLOBAL, 1): 0.25, (GLOBAL, 7): 0.9}
    (row,) = compare(table_of(values)).to_dict("records")
    differences = np.array([0.3, 0.35])
    half = 12.7062 * differences.std(ddof=1) / np.sqrt(2)  # Student's, one degree of freedom
    assert (row["n"], row["over"]) == (2, "seeds") and row["difference"] == pytest.approx(0.325)
    assert (row["low"], row["high"]) == pytest.approx((0.325 - half, 0.325 + half), rel=1e-4)


def test_the_model_before_counts_for_every_seed():
    (row,) = compare(table_of({(BEFORE, 0): 0.2, (OURS, 0): 0.5, (OURS, 1): 0.6}), OURS, BEFORE).to_dict("records")
    assert (row["n"], row["over"]) == (2, "seeds") and row["difference"] == pytest.approx(0.35)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_seed_or_seeds_that_all_differ_by_the_same_are_compared_over_scenes(seeds):
    values = {(arm, seed): value for arm, value in ((OURS, 0.9), (GLOBAL, 0.1)) for seed in range(seeds)}
    (row,) = compare(table_of(values)).to_dict("records")
    half = 0.1 * np.sqrt(2)  # of independent intervals of 0.1 on both sides
    assert (row["low"], row["difference"], row["high"]) == pytest.approx((0.8 - half, 0.8, 0.8 + half))
    assert (row["n"], row["over"]) == (9, "scenes")


def test_of_two_intervals_those_ends_are_put_together_that_lie_towards_each_other():
    rows = table_of({(OURS, 0): 0.9, (GLOBAL, 0): 0.1})
    rows["boxes, top-1 | low"] -= [0.2, 0.0]  # 0.3 below in one, 0.1 in the other; 0.1 above in both
    (row,) = compare(rows).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((0.8 - np.hypot(0.3, 0.1), 0.8 + np.hypot(0.1, 0.1)))


def test_arms_without_a_common_seed_are_not_compared():
    assert compare(table_of({(OURS, 0): 0.9})).empty and compare(table_of({(OURS, 0): 0.9, (GLOBAL, 1): 0.1})).empty


def test_what_was_not_run_is_named():
    rows = table_of({(OURS, 0): 0.9, (GLOBAL, 0): 0.1, (GLOBAL, 1): 0.1})
    wanted = {OURS: 2, GLOBAL: 2, "uniform map": 1}
    assert missing(rows, wanted) == ["grad-eclip (1 of 2 seeds)", "uniform map (1 of 1 seeds)"]


def test_arms_are_drawn_in_their_order_with_the_first_seed_and_references_last(bundled):
    values = {("uniform map", 0): 0.3, (BEFORE, 0): 0.2, (OURS, 1): 0.8, (OURS, 0): 0.9, (GLOBAL, 0): 0.1}
    figure = draw_arms(table_of(values), "boxes, top-1")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [OURS, BEFORE, GLOBAL, "uniform map"]
    assert "0.900" in [text.get_text() for text in figure.axes[0].texts]
    told = draw_arms(table_of({**values, ("true mask", 0): 0.95}), "boxes, top-1")
    assert headline(told) == f"boxes, top-1: highest is true mask, then {OURS}"
    with pytest.raises(ValueError, match="the table has no figure 'colour'"):
        draw_arms(table_of({(OURS, 0): 0.9}), "colour")


def test_before_and_after_are_drawn_for_the_phrase_that_is_asked(bundled):
    session = Session(bundled)
    figure = draw_before_after({"before": session, "after": session}, "red car", "guitar", 0)
    titles = " ".join(axes.get_title(loc="left") or axes.get_title() for axes in figure.axes)
    told = []
    draw_before_after({"before": session, "after": session}, "red car", "guitar", 0, told.append)
    assert told == sorted(told) and set(told) <= {0, 0.5}
    own = Explainer(bundled).explain(arrange(["red car", "guitar"], background=17).image(), "a red car")
    positive = np.maximum(own.heatmap(0), 0)
    on_it = positive[arrange(["red car", "guitar"], background=17).masks(own.image.width)[0]].sum() / positive.sum()
    assert titles.split() == ["image", "before", "after"]
    said = f"of what speaks for “a red car” lies on it: {on_it:.0%} before, {on_it:.0%} after"
    assert said in headline(figure)
    axes = InlineFigure(2, 2).add_axes((0, 0, 1, 1))
    draw_heatmap(axes, own.image, own.heatmap(0))
    assert all(np.array_equal(one.images[0].get_array(), axes.images[0].get_array()) for one in figure.axes[1:])
    most = own.heatmap(0).max()
    assert number(most, most) in " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    with pytest.raises(ValueError, match="not in the world"):
        draw_before_after({"before": session}, "qwerty", "guitar", 0)
    with pytest.raises(ValueError, match="both things are 'guitar': choose two"):
        draw_before_after({"before": session}, "guitar", "guitar", 1)


def test_regions_are_named_by_the_nearest_prompt(bundled):
    scene = arrange(["cat", "car"])
    (_, dense, *_), *_ = dense_features(bundled, [scene])
    shares = [torch.from_numpy(m.reshape(12, 8, 12, 8).mean((1, 3))).float() for m in scene.masks(96)]
    own = [torch.einsum("hw,hwe->e", share, dense).numpy() for share in shares]
    prompts = dict(zip(("right", "other", "none"), [*own, -own[0]], strict=True))
    prompts = {noun: value / np.linalg.norm(value) for noun, value in prompts.items()}
    assert named_regions(bundled, scene, prompts)["answer 1"].to_dict() == {"cat": "right", "car": "other"}


def test_only_a_model_that_is_measurably_better_is_shipped_with_its_card(bundled, tmp_path):
    def table(after):
        about = {
            "seed": 0,
            "steps": 1,
            "batch": 2,
            "learning_rate": 0.1,
            "regions": 1.0,
            "minutes": 2.0,
            "commit": "abc",
        }
        about |= {f"{TUNED_FOR} | n": 9, f"{TUNED_FOR} | chance": 0.1}
        shifts = {"estimate": 0.0, "low": -0.05, "high": 0.05}
        rows = [
            {"arm": arm} | about | {f"{TUNED_FOR} | {part}": value + shift for part, shift in shifts.items()}
            for arm, value in (("before", 0.2), (OURS, after))
        ]
        pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
        return tmp_path / "table.csv"

    with pytest.raises(GradeclipError, match="There is no model of that row that was tuned from emoji as it is now"):
        experiment.ship(table(0.5), tmp_path, tmp_path)
    # of the recipe that the card tells, and the weights that it began from
    folder = tmp_path / f"grad-eclip-0-0.1-1-1x2-{weights_digest(bundled.model)}"
    folder.mkdir()
    (folder / "tuned.safetensors").write_bytes(b"weights")
    with pytest.raises(ValueError, match="not measurably better than 'before' in 'masks, top-1'"):
        experiment.ship(table(0.28), tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no card"):
        experiment.ship(table(0.5), tmp_path, tmp_path)
    assert not (tmp_path / "emoji-fine.safetensors").exists()
    (tmp_path / "emoji-fine.md").write_text(f"# A card\n\n{experiment.START}\nold\n{experiment.END}\n")
    experiment.ship(table(0.5), tmp_path, tmp_path)
    assert (tmp_path / "emoji-fine.safetensors").read_bytes() == b"weights"
    card = (tmp_path / "emoji-fine.md").read_text()
    assert "| masks, top-1 | 20.0% (15.0% to 25.0%) | 50.0% (45.0% to 55.0%) | 9 | 10.0% |" in card and "abc" in card
    assert card.startswith("# A card") and "old" not in card


def test_the_card_that_is_shipped_is_what_the_command_writes_of_the_table_that_is_shipped(bundled, tmp_path):
    made = read().query("arm == @OURS and seed == 0").iloc[0]
    recipe = f"{made['learning_rate']:g}-{made['regions']:g}-{made['steps']}x{made['batch']}"
    folder = tmp_path / f"{OURS}-0-{recipe}-{weights_digest(bundled.model)}"
    folder.mkdir()
    (folder / "tuned.safetensors").write_bytes(b"weights")
    card = data_path("emoji-fine.md").read_text()
    before, _, rest = card.partition(experiment.START)
    (tmp_path / "emoji-fine.md").write_text(
        f"{before}{experiment.START}{experiment.END}{rest.partition(experiment.END)[2]}"
    )
    experiment.ship(data_path("finetuning.csv"), tmp_path, tmp_path)
    assert (tmp_path / "emoji-fine.md").read_text() == card
