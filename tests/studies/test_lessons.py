"""What lessons show: every number that they judge is a figure of a command, in data/lessons.csv."""

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import arrange, draw_scene
from studies import STUDIES
from studies.matching import figures as matching
from studies.matching.composition import CASES, noun_pairs
from studies.relevance import as_array, recognised_alone
from studies.tables import gained, told
from studies.verdicts import Takeaways

LESSONS = {
    "matching": "04_image_text_matching", "binding": "05_attribute_binding", "concreteness": "06_word_concreteness",
    "architectures": "08_other_models",
}  # fmt: skip
MORE = [("matching", "01_start_here")]
OF_METHODS = {  # a claim of lesson 02 or 03 -> its figure; "-" where that is the other way round
    r"(?:The|In emoji-bag too, the) loosened weight is ahead of (.*) in (.*)": r"\2 of both things, ahead of \1",
    r"After a second training, the loosened weight is ahead of (.*) in (.*)": r"\2, ahead of \1",
    r"The model's own heads are ahead of one head in (.*)": r"\1 of both things, ahead of Grad-ECLIP with one head",
    r"The last (\d) layers are ahead of the last alone in (.*)":
        r"-\2 of both things, ahead of Grad-ECLIP, image layers: \1",
    "Raw attention lies on objects more than chance": "energy pointing game of both things, Raw attention beyond area",
    "Maps of this model prefer the named object to the other": "selectivity of both things, Grad-ECLIP as published",
    "This model's maps prefer the named object more than those of random models do":
        "selectivity of both things, ahead of random weights",
    "Maps of random models prefer the named object to the other": "selectivity of both things, random weights",
    "Maps of random models lie on the named object more than chance":
        "energy pointing game of both things, random weights beyond area",
    "Attention is sparse: .*": "attention on a tenth of the patches",
    "With random weights attention is sparse as well": "attention on a tenth of the patches, random weights",
    r"Word scores of the last (.*) text layers lie more on a caption's nouns beside its own image than beside another":
        r"word scores on nouns, \1 layers beyond another image",
    r"Word scores of the last (\d) text layers lie more on the nouns than those of the last alone":
        r"word scores on nouns, \1 of 3 layers beyond 1 of 3 layers",
    "The loosened weight is larger on things than where nothing is":
        "loosened weight on things beyond where nothing is",
    "With random weights, the loosened weight is larger on things than where nothing is":
        "loosened weight on things beyond where nothing is, random weights",
    "A true prompt is first more often with the model's own heads than with one":
        "a true prompt is first beyond with one head",
    r"Grad-ECLIP as published is ahead of (.*) in (.*)": r"\2, ahead of \1",
    r"CCI is ahead of Grad-ECLIP as published in (.*)": r"-\1, ahead of CCI",
    r"(.*) ranks words as leaving them out does, better than random scores": r"as leave-one-out, beyond Random: \1",
    r"(.*) ranks words better than (.*), as leaving them out does": r"as leave-one-out, beyond \2: \1",
    r"By (.*), nouns that are there score above those that are not, .*": r"shown above absent, \1",
    r"The error of (.*) scores grows with saturation": r"error and saturation, \1",
    r"Integrating along the attention mends (.*) scores": r"error, beyond integrated: \1",
    r"Grad-ECLIP, image layers: \d ranks objects by their true effect better than their area does":
        "rank correlation beyond area, Grad-ECLIP",
    r"((?!Grad-ECLIP, image).*) ranks objects by their true effect better than their area does":
        r"rank correlation beyond area, \1",
    r"(.*) ranks objects by their true effect better than Grad-ECLIP, image layers: \d":
        r"rank correlation beyond Grad-ECLIP, \1",
    r"With (\d) things, (.*) points at the own thing more often than word x region":
        r"-own thing, \1 things, word x region beyond \2",
    r"With (\d) things, (.*) points at the own thing more often than ((?!word x region$).*)":
        r"own thing, \1 things, \2 beyond \3",
    r"With (\d) things, words point better through \d image layers than through the last alone":
        r"-own thing, \1 things, word x region, centred, last layer beyond word x region, centred",
    r"The maps of (.*) survive random weights": r"agreement with random weights, \1",
    r"The ranking of methods by (deletion|insertion) with noise is .*": r"ranking by \1, noise and mean colour",
    r"The ranking of methods by average precision is .*": "ranking by average precision, this model and emoji",
    r"The ranking of methods by (deletion of .*) is that of (.*) \(.*": r"ranking by \1 and of \2",
    "control: asked for the wrong word, it finds the object better than the mean mask":
        "average precision, wrong word ahead of mean mask",
    "A map on its own crop .*":
        "average precision of wide images, Grad-ECLIP, image layers: 4, on the crop beyond stretched",
    "control: a random map on the crop .*": "average precision of wide images, random, on the crop beyond stretched",
    r"((?!control).*) finds more when prompts are without the part that they share":
        r"average precision without the shared part beyond whole prompts, \1",
    r"control: (.*) finds more when prompts are less a random direction of that length":
        r"average precision less a random direction beyond whole prompts, \1",
}  # fmt: skip
MINUS = {
    "attention on a tenth of the patches": 0.5,
    "shown above absent": 0.5,
    "ranking": 0.8,
}  # what lessons take away
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CLAIM = re.compile(r"- (.*): \*\*[^*]+\*\*.*?, ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\], n = (\d+)")


def claims(lesson):
    """What the last list of verdicts of a lesson says: claim, estimate, low, high, n."""
    cells = json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = ("".join(out.get("data", {}).get("text/markdown", "")) for cell in cells for out in cell.get("outputs", []))
    found = CLAIM.findall([text for text in shown if " claims: " in text][-1])
    return pd.DataFrame(found, columns=["figure", "value", "low", "high", "n"]).astype(
        dict.fromkeys(("value", "low", "high"), float) | {"n": int}
    )


def as_near_as_draws(apart, claim):
    """Whether value, low and high are the claim's; bounds of few values hang a little on the order of the rows."""
    return (apart["value"] < 2e-3) & (apart.max(axis=1) < 4e-3 + 0.03 * (claim.high - claim.low))


@pytest.mark.parametrize(("study", "lesson"), [*LESSONS.items(), *MORE])
def test_every_claim_of_a_lesson_is_a_figure_that_its_command_writes(study, lesson):
    kept = pd.read_csv(data_path("lessons.csv")).query("study == @study")
    judged = claims(lesson)
    judged = judged[~judged["figure"].str.startswith("After a second training")]  # of data/two_models.csv
    assert len(judged) > (3 if lesson.startswith("01") else 15)
    for claim in judged.itertuples():
        named = kept[kept["figure"] == claim.figure]
        named = kept if named.empty and study == "concreteness" else named  # a correlation has the name of its question
        apart = (named[["value", "low", "high"]] - [claim.value, claim.low, claim.high]).abs()
        assert (named["n"][as_near_as_draws(apart, claim)] == claim.n).any(), claim.figure


@pytest.mark.parametrize("lesson", ["02_inside_grad_eclip", "03_methods_compared"])
def test_every_claim_of_the_lessons_on_methods_is_a_figure_of_methods_causal_or_a_second_training(lesson):
    tables = [pd.read_csv(data_path(f"{name}.csv")) for name in ("methods", "causal", "two_models")]
    kept = pd.concat([*tables[:2], tables[2].query("model == 'second seed'")])
    kept["figure"] = kept["figure"].str.lower()
    for claim in claims(lesson).itertuples():
        said = claim.figure.replace("the gradient alone", "Grad-ECLIP without spatial weight")
        model = "second seed" if said.startswith("After") else "emoji-bag" if "emoji-bag" in said else "emoji"
        said = re.sub(r" \(emoji(-bag)?\)$|[“”]", "", said)
        (figure,) = {re.sub(pattern, name, said) for pattern, name in OF_METHODS.items() if re.fullmatch(pattern, said)}
        sign, minus = (-1 if figure.startswith("-") else 1), MINUS.get(figure.split(", ")[0].split(" by ")[0], 0)
        named = kept[(kept["figure"] == figure.removeprefix("-").lower()) & (kept["model"] == model)]
        numbers = sign * (named[["value", *("low", "high")[::sign]]] - minus)
        apart = (numbers - [claim.value, claim.low, claim.high]).abs()
        assert (named["n"][as_near_as_draws(apart, claim)] == claim.n).any(), claim.figure


@pytest.mark.parametrize("study", LESSONS)
def test_the_table_has_all_parts_of_each_lesson_with_intervals_and_the_command_that_makes_them(study):
    kept = pd.read_csv(data_path("lessons.csv")).query("study == @study and model == 'emoji'")
    assert (kept["low"] <= kept["value"] + 1e-9).all() and (kept["value"] <= kept["high"] + 1e-9).all()
    parts = {STUDIES[study].more[0], *STUDIES[study].more}
    assert set(kept["command"].str.extract("--part (.*?)(?: --model .*)?$")[0].str.strip("'")) == parts
    assert kept["figure"].is_unique and (kept["n"] > 1).all()
    assert ("forward passes of an explanation" in set(kept["figure"])) == (study == "architectures")


@pytest.mark.parametrize("study", ["matching", "binding", "concreteness"])
def test_parts_that_are_asked_by_name_are_those_of_the_room(study):
    room = import_module(f"studies.{study}.figures")
    assert STUDIES[study].more == tuple(room.PARTS)


def test_a_mean_is_named_by_its_group_and_a_claim_is_what_takeaways_judge():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"image": range(12), "kind": ["one", "two"] * 6, "right": rng.random(12), "far": rng.random(12)}
    )
    table = told("{measure} of {kind}", rows, ["right", "far"]).set_index("figure")
    assert list(table.index) == ["right of one", "right of two", "far of one", "far of two"]
    assert table.loc["far of two", "mean"] == rows.loc[rows["kind"] == "two", "far"].mean()
    assert told("all", rows, "far")["mean"].tolist() == [pytest.approx(rows["far"].mean())]
    for than, clusters in ((0.5, None), (rows["far"], None), (rows["far"], list("aabbccddeeff"))):
        (one,) = gained("it is higher", rows["right"], than, clusters).itertuples()
        said = Takeaways(0.1, because="a test").judge("it is higher", rows["right"], than, clusters=clusters)
        assert (one.value, one.low, one.high, one.n) == (said.estimate, said.low, said.high, said.n)


def test_a_scene_is_recognised_if_each_of_its_things_is_alone(bundled):
    explainer = Explainer(bundled)
    scenes = [draw_scene([5, seed], split="development", n_objects=1 + seed % 3, tint=1) for seed in range(12)]
    alone = [[arrange([thing], background=scene.background) for thing in scene.objects] for scene in scenes]
    found = recognised_alone(explainer, scenes)
    assert found.tolist() == [recognised_alone(explainer, things).all() for things in alone]
    assert 0 < found.sum() < len(found)


def test_sentences_of_one_form_lie_as_far_from_those_of_another_as_their_means(tiny):
    explainer, pairs = Explainer(tiny), noun_pairs(6)
    rows = pd.concat(matching.PARTS["planes"](explainer, 2)).set_index("figure")
    forms = [
        as_array(explainer.embed_texts([CASES[one](*pair) for pair in pairs])).mean(0) for one in ("and no", "and")
    ]
    told_of = rows.loc["the mean of “and no” lies from that of “and”"]
    value = told_of["value"]
    assert value == pytest.approx(np.linalg.norm(forms[0] - forms[1]), abs=1e-5)
    assert told_of["low"] < value < told_of["high"] and told_of["n"] == 6
