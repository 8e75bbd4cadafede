"""Methods compared: every figure is what its name says, worked out another way."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from gradeclip_utils import METHODS, Explainer, load_clip
from gradeclip_utils.datasets import emoji_scenes
from gradeclip_utils.files import data_path
from gradeclip_utils.images import model_view
from gradeclip_utils.measures import worker
from gradeclip_utils.measures.faithfulness import areas, colours_of, image_curves, image_score
from gradeclip_utils.measures.localisation import localisation
from gradeclip_utils.measures.sanity import agreement, randomised
from gradeclip_utils.measures.table import weights_digest
from gradeclip_utils.scenes import arrange, draw_scene
from studies import STUDIES, methods_compared
from studies.causal import causal, causal_agreement
from studies.command import COLUMNS
from studies.methods_compared import (
    COSTLY,
    PAINTS,
    causal_summary,
    method_summary,
    named_examples,
    word_summary,
)
from studies.pointing_game import games, play, play_second_order
from studies.word_scores import captioned_scenes, saturation, word_rows
from tests.conftest import build, wrap

QUICK = [name for name, method in METHODS.items() if method.image and name not in COSTLY]


def check(table, study, count):
    """One row a figure, in order, with its interval."""
    assert list(table) == COLUMNS and set(table["study"]) == {study}
    assert table["figure"].is_unique and len(table) == count and (table["n"] >= 2).all()
    assert ((table["low"] <= table["value"] + 1e-9) & (table["value"] <= table["high"] + 1e-9)).all()


@pytest.fixture(scope="module")
def small():
    return wrap(build(text={"context_length": 77}))


def test_the_examples_ask_for_one_of_two_things_by_its_bare_name():
    drawn = [one for one in emoji_scenes("development", 40, n_objects=2) if len(one.present) == 2][:10]
    expected = [one for one in drawn if one.prompt == arrange([one.concept]).caption]
    assert [one.key for one in named_examples(5)] == [one.key for one in expected[:5]]
    assert all(len(one.present) == 2 and len(one.others) == 1 for one in expected)


def precision(explainer, examples):
    """Average precision of the maps of an explainer."""
    heats = [explainer.explain(one.image(), one.prompt).heatmap(0, signed=True) for one in examples]
    return [localisation(heat, one.mask())["average_precision"] for heat, one in zip(heats, examples, strict=True)]


def test_means_and_differences_are_those_of_the_maps_that_an_explainer_gives(bundled):
    table = method_summary(bundled, 4, ["grad-eclip", "maskclip"])
    check(table, "methods", 5 * 3)
    value = table.set_index("figure")["value"]
    ours, theirs = (
        precision(Explainer(bundled, method=name, image_layers=1), named_examples(4))
        for name in ("grad-eclip", "maskclip")
    )
    assert value["average precision, Grad-ECLIP as published"] == pytest.approx(np.mean(ours), abs=1e-4)
    ahead = np.mean(ours) - np.mean(theirs)
    assert value["average precision, ahead of MaskCLIP"] == pytest.approx(ahead, abs=1e-4)


def test_where_less_is_better_a_method_is_ahead_that_has_less(small, monkeypatch):
    def largest_of_ours(curves):
        return areas(curves).assign(auc=lambda rows: (rows["method"] == "grad-eclip") * 1.0)

    monkeypatch.setattr(worker, "areas", largest_of_ours)
    value = method_summary(small, 3, ["grad-eclip", "maskclip"]).set_index("figure")["value"]
    assert value["deletion, ahead of MaskCLIP"] == -1 and value["insertion, ahead of MaskCLIP"] == 1


@pytest.mark.slow
def test_all_quick_methods_are_measured_and_grad_eclip_through_more_layers(bundled):
    table = method_summary(bundled, 3, part="quick")
    check(table, "methods", 5 * (2 * (len(QUICK) + 1) - 1))
    value = table.set_index("figure")["value"]
    deep = precision(Explainer(bundled, image_layers=4), named_examples(3))
    assert value["average precision, Grad-ECLIP, image layers: 4"] == pytest.approx(np.mean(deep), abs=1e-4)


def test_a_costly_method_is_a_part_with_differences_and_without_means_of_another(small):
    table = method_summary(small, 2, part="m2ib")
    check(table, "methods", 5 * 2)
    assert table["figure"].str.endswith("M2IB").all()


def test_reference_baselines_have_a_control_among_them(small):
    table = method_summary(small, 3, part="references")
    check(table, "methods", 5 * 2 * len(worker.REFERENCES) + 1)
    value = table.set_index("figure")["value"]
    control = value["average precision, wrong word"] - value["average precision, mean mask"]
    assert value["average precision, wrong word ahead of mean mask"] == pytest.approx(control)
    masks = [one.mask().mean() for one in named_examples(3)]
    assert value["energy pointing game, area"] == pytest.approx(np.mean(masks))


@pytest.fixture
def few(monkeypatch):
    """A world of three methods, so that rankings can be worked out in a test."""
    three = {name: METHODS[name] for name in ("grad-eclip", "attention", "maskclip")}
    monkeypatch.setattr("gradeclip_utils.measures.maps.METHODS", three)
    return [*three]


def test_the_ranking_by_both_paints_is_that_of_their_mean_areas(small, few):
    table = method_summary(replace(small, image_layers=2), 3, part="paints")
    check(table, "methods", 2 * (len(few) + 2))
    explainers = {name: Explainer(small, method=name, image_layers=1) for name in few}
    explainers["two layers"], found = Explainer(small, image_layers=2), []
    for one in named_examples(3):
        maps = {name: each.explain(one.image(), one.prompt).image_maps[0] for name, each in explainers.items()}
        score = image_score(
            explainers["grad-eclip"].image_tower.forward, explainers["grad-eclip"].embed_texts(one.prompt)[0]
        )
        view, colours = model_view(small.preprocess, one.image()), colours_of(small.preprocess)
        for paint, protocol in PAINTS.items():
            found.append(areas(image_curves(score, view.pixels, maps, protocol, colours=colours)).assign(paint=paint))
    means = pd.concat(found).groupby(["game", "paint", "method"])["auc"].mean()
    value = table.set_index("figure")["value"]
    for game in ("deletion", "insertion"):
        mean = means[game, "mean colour"]["maskclip"]
        assert value[f"{game} with the mean colour, MaskCLIP"] == pytest.approx(mean, abs=1e-5)
        both = spearmanr(*(means[game, paint] for paint in PAINTS)).statistic
        assert value[f"ranking by {game}, noise and mean colour"] == pytest.approx(both)


def test_agreement_with_random_weights_is_that_of_the_same_maps_of_a_model_that_knows_nothing(small, few):
    table = method_summary(small, 8, part="random weights")
    check(table, "methods", len(few) + 1)
    found = []
    for model in (small, randomised(small, seed=0), randomised(small, seed=1)):
        maps = [Explainer(model, method="maskclip").explain(e.image(), e.prompt) for e in named_examples(2)]
        found.append(np.concatenate([one.image_maps for one in maps]))
    expected = np.mean([agreement(found[0], other) for other in found[1:]])
    value = table.set_index("figure")["value"]
    assert value["agreement with random weights, MaskCLIP"] == pytest.approx(expected, abs=1e-3)


def test_a_model_is_ranked_beside_the_bundled_one_which_has_no_such_figure(small, bundled, few):
    assert method_summary(bundled, 4, part="ranking").empty
    table = method_summary(small, 4, part="ranking")
    check(table, "methods", 1)
    mine, theirs = (method_summary(one, 2, few).set_index("figure")["value"] for one in (small, bundled))
    titles = ["Grad-ECLIP as published", *(METHODS[name].title for name in few[1:])]
    both = [[one[f"average precision, {title}"] for title in titles] for one in (mine, theirs)]
    assert table["value"].item() == pytest.approx(spearmanr(*both).statistic)


def test_questions_about_a_noun_are_compared_on_the_images_that_both_were_asked_of(small):
    table = method_summary(small, 2, part="questions")
    check(table, "methods", len(table))
    found, played = table.set_index("figure"), games(2, tint=0)
    own = pd.concat([play(small, played), play_second_order(small, played, ["METAGAME"])])
    own = own[own["objects"] == 4].groupby("question")["hit"].mean()
    assert "own thing, 1 thing, caption" in found.index
    assert found.loc["own thing, 4 things, caption", "value"] == pytest.approx(own["caption"])
    beyond = found.loc["own thing, 4 things, METAGAME beyond caption"]
    assert beyond["value"] == pytest.approx(own["METAGAME"] - own["caption"]) and beyond["n"] == 2
    last = play(small, played, questions=["word x region, centred"], image_layers=1)
    last = last.loc[last["objects"] == 2, "hit"].mean()
    assert found.loc["own thing, 2 things, word x region, centred, last layer", "value"] == pytest.approx(last)
    assert "own thing, 3 things, FIxLIP" not in found.index and found.loc["own thing, 2 things, FIxLIP", "n"] == 2


def test_word_scores_are_summed_up_by_means_and_by_what_they_have_beyond_random_ones(small):
    table = word_summary(small, 3)
    check(table, "words", len(table))
    rows = word_rows(small, captioned_scenes(3))
    value, own = table.set_index("figure")["value"], rows.groupby(["measure", "method"])["value"].mean()
    assert value["deletion, Attention rollout"] == pytest.approx(own["deletion", "Attention rollout"])
    agree = own["as leave-one-out"]
    for baseline in ("Random", "Grad-ECLIP, 1 of 3 layers", "Grad-ECLIP, 2 of 3 layers"):  # the last is the default
        beyond = value[f"as leave-one-out, beyond {baseline}: METAGAME"]
        assert beyond == pytest.approx(agree["METAGAME"] - agree[baseline])
    levelled = saturation(small, captioned_scenes(3)[::2])
    errors = levelled[["loosened", "integrated"]].mean()
    assert value["error, loosened"] == pytest.approx(errors["loosened"])
    assert value["error, beyond integrated: loosened"] == pytest.approx(errors["loosened"] - errors["integrated"])
    growing = spearmanr(levelled["saturation"], levelled["loosened"]).statistic
    assert value["error and saturation, loosened"] == pytest.approx(growing)


def test_effects_of_objects_are_summed_up_by_how_maps_rank_them(bundled):
    table = causal_summary(bundled, 8, ["grad-eclip", "attention"])
    check(table, "causal", 2 + 5 * 4 + 4 + 4)
    value = table.set_index("figure")["value"]
    scenes = [draw_scene([52, i], split="development", n_objects=4) for i in range(8)]
    effects = causal(bundled, scenes, "grad-eclip", size=96)
    by_scene = effects[effects["method"] == "grad-eclip"].groupby("image")[["sum", "effect"]]
    expected = by_scene.apply(lambda part: spearmanr(part["sum"], part["effect"]).statistic).mean()
    assert value["rank correlation, Grad-ECLIP"] == pytest.approx(expected)
    assert value["rank correlation beyond area, Grad-ECLIP"] == pytest.approx(
        expected - value["rank correlation, area"]
    )
    last = causal(replace(bundled, image_layers=1), scenes, "grad-eclip", size=96).query("method == 'grad-eclip'")
    last = causal_agreement(last)["correlation"].mean()
    assert value["rank correlation, Grad-ECLIP as published"] == pytest.approx(last)
    assert value["rank correlation beyond Grad-ECLIP, Grad-ECLIP as published"] == pytest.approx(last - expected)
    falls = effects[(effects["method"] == "area") & effects["named"]]["effect"]
    assert value["fall of the similarity, named"] == pytest.approx(falls.mean(), abs=1e-6)
    other = effects[~effects["named"]].pivot(index=["image", "object"], columns="method", values=["sum", "effect"])
    assert value["sign of the fall, not named, area"] == (other["effect", "area"] >= 0).mean() < 0.5
    agree = ((other["sum", "grad-eclip"] < 0) == (other["effect", "grad-eclip"] < 0)).mean()
    assert value["sign of the fall, not named, Grad-ECLIP"] == pytest.approx(agree)
    assert table.set_index("figure")["n"]["sign of the fall, not named, Grad-ECLIP"] == len(other) > 1


def test_all_methods_rank_effects_and_each_costly_one_is_a_part(small):
    names = [name for name, method in METHODS.items() if method.image]
    assert set(STUDIES["causal"].parts) == {"quick", *COSTLY} and set(COSTLY) < set(names)
    quick, one = (causal_summary(small, 4, part=part) for part in ("quick", "m2ib"))
    ranked = len(names) - len(COSTLY) + 3  # Grad-ECLIP as published and two references among them
    assert len(quick) == 2 + 4 * ranked + 2 * (ranked - 1) and len(one) == 6
    assert not set(quick["figure"]) & set(one["figure"]) and one["figure"].str.endswith(", M2IB").all()


def test_parts_of_the_study_of_methods_are_those_that_it_measures(monkeypatch, tiny):
    assert list(STUDIES["methods"].parts) == list(methods_compared.PARTS)
    asked = {name: lambda clip, n, name=name: [pd.DataFrame({"figure": [name]}).reindex(columns=COLUMNS)]
             for name in methods_compared.PARTS}  # fmt: skip
    monkeypatch.setattr(methods_compared, "PARTS", asked)
    assert STUDIES["methods"](tiny, part="paints")["figure"].tolist() == ["paints"]
    assert STUDIES["methods"](tiny)["figure"].tolist() == list(asked)


def test_the_shipped_table_has_every_method_and_reference_baseline_and_says_how_it_was_made():
    table = pd.read_csv(data_path("methods.csv"))
    assert not table.duplicated(["study", "figure", "model"]).any()
    assert not table["commit"].str.endswith("+").any()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    for name, clip in {name: load_clip(name) for name in ("emoji", "emoji-bag")}.items():
        assert set(table.loc[table["model"] == name, "weights"]) == {weights_digest(clip.model)}
    measured = table[(table["model"] == "emoji") & (table["study"] == "methods")].set_index("figure")
    asked = set(measured["command"].str.replace("'", "").str.partition(" --part ")[2])
    assert asked == set(STUDIES["methods"].parts) - {"ranking"}  # which compares other models with this one
    titles = [method.title for name, method in METHODS.items() if method.image and name != "grad-eclip"]
    for one in [*titles, "Grad-ECLIP, image layers: 4", *worker.REFERENCES]:
        for measure in ("pointing game", "energy pointing game", "average precision", "deletion", "insertion"):
            assert measured.loc[[f"{measure}, {one}", f"{measure}, ahead of {one}"], "n"].eq(100).all()
