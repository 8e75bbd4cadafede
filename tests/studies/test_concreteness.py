"""Words of captions.

How much each counts, and correlations whose intervals know of words and images.
"""

from collections import Counter
from dataclasses import replace
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import concepts, draw_scene
from studies import concreteness as study
from tests.studies.folders import write_coco_captions

SAID = [
    "A man riding a wave.",
    "Two dogs on green grass",
    "a red bus, parked",
    "An idea of freedom",
    "tasty food, art",
]


def test_norms_are_the_published_ratings_of_the_word_as_it_is_written():
    table = study.norms(["apple", "idea", "apples", "xyzzy"])
    assert list(table.index) == ["apple", "idea", "apples", "xyzzy"]
    assert table.loc["apple", "concreteness"] == 5.0
    assert table.loc["idea", "concreteness"] < 2
    unknown = table.loc["xyzzy"]
    assert np.isnan(unknown["concreteness"])
    assert unknown["frequency"] == 0
    assert table["frequency"]["apple"] > table["frequency"]["apples"]


def world(words=120, images_per_word=8, slope=1.0, noise=0.5, seed=0):
    """Words with a rating x and a nuisance z, each in some images; the value y follows x."""
    rng = np.random.default_rng(seed)
    names = [f"w{i:03d}" for i in range(words)]
    table = pd.DataFrame(index=pd.Index(names, name="word"))
    table["x"] = rng.normal(size=words)
    table["z"] = rng.normal(size=words)

    images = words * images_per_word // 6
    pairs = []
    for word in table.index:
        for image in rng.choice(images, images_per_word, replace=False):
            pairs.append((image, word))
    rows = pd.DataFrame(pairs, columns=["image", "word"])
    rows["caption"] = rows["image"]

    values = slope * table["x"] + noise * rng.normal(size=words)
    deviations = 0.3 * rng.normal(size=len(rows))
    rows["y"] = rows["word"].map(values) + deviations
    return rows, table


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Five images with two captions each, in the form of COCO."""
    captions = [[text, text] for text in SAID]
    return f"coco:{write_coco_captions(tmp_path_factory.mktemp('coco'), captions)}"


@pytest.fixture(scope="module")
def rows(tiny, coco):
    return study.word_rows(tiny, study.read_examples(coco, 5, [tiny]))


def test_the_estimate_is_spearmans_correlation_over_word_means():
    rows, table = world()
    correlation = study.correlate(rows, table, "y", "x", draws=50)
    means = rows.groupby("word")["y"].mean()
    expected = spearmanr(table["x"], means[table.index])
    assert correlation.value == pytest.approx(expected.statistic)
    assert correlation.low < correlation.value < correlation.high
    assert correlation.n == len(table)


def test_the_interval_covers_zero_when_there_is_nothing():
    missed = 0
    for seed in range(30):
        correlation = study.correlate(
            *world(40, slope=0, seed=seed),
            "y",
            "x",
            draws=60,
        )
        missed += not correlation.low <= 0 <= correlation.high
    assert missed <= 6


def test_words_without_a_rating_or_in_few_images_are_left_out():
    rows, table = world()
    table.loc[table.index[:5], "x"] = np.nan
    rare = rows.index[rows["word"] == table.index[10]]
    correlation = study.correlate(rows.drop(rare[2:]), table, "y", "x", draws=5)
    assert correlation.n == len(table) - 6


def test_holding_a_confounder_constant_takes_its_part_away():
    rows, table = world(slope=1.0)
    table["z"] = table["x"]
    noise = np.random.default_rng(1).normal(size=len(table))
    table["x"] = table["z"] + 0.7 * noise
    plain, controlled, difference = study.hold_constant(
        rows,
        table,
        "y",
        ["z"],
        "x",
        draws=100,
    )
    assert plain == study.correlate(rows, table, "y", "x", draws=100)
    assert plain.value > 0.5
    assert abs(controlled.value) < 0.2
    assert difference.low > 0.3
    assert difference.value == pytest.approx(plain.value - controlled.value)


def test_the_partial_correlation_is_that_of_the_formula():
    x, y, z = np.random.default_rng(2).normal(size=(3, 200))
    x = x + z
    y = y + z
    xy = spearmanr(x, y).statistic
    xz = spearmanr(x, z).statistic
    yz = spearmanr(y, z).statistic
    unexplained = (1 - xz**2) * (1 - yz**2)
    expected = (xy - xz * yz) / np.sqrt(unexplained)
    assert study.partial_spearman(x, y, z[:, None]) == pytest.approx(expected)


def test_means_without_noise_are_reliable_and_noise_is_not():
    rows, table = world(noise=0)
    exact = rows.assign(y=rows["word"].map(table["x"]))
    random = rows.assign(y=np.random.default_rng(0).normal(size=len(rows)))
    assert study.reliability(exact, table, "y") == pytest.approx(1)
    assert study.reliability(rows, table, "y") > 0.3
    assert abs(study.reliability(random, table, "y")) < 0.3


def test_agreement_is_spearmans_correlation_within_captions(rows):
    agreement = study.agreement_in_captions(rows, study.GRAD_ECLIP, study.LEFT_OUT)
    for image, of_image in rows.groupby("image"):
        correlations = [
            spearmanr(words[study.GRAD_ECLIP], words[study.LEFT_OUT]).statistic
            for _, words in of_image.groupby("caption")
        ]
        assert agreement[image] == pytest.approx(np.mean(correlations))


def test_an_image_is_embedded_once_and_scores_are_those_of_the_explainer(
    tiny, coco, rows, monkeypatch
):
    embedded = []
    embed_images = Explainer.embed_images

    def counted(explainer, images):
        images = list(images)
        embedded.extend(images)
        return embed_images(explainer, images)

    monkeypatch.setattr(Explainer, "embed_images", counted)
    examples = study.read_examples(coco, 5, [tiny])
    study.word_rows(tiny, examples)
    assert len(examples) == 10
    assert len(embedded) == 5
    assert set(rows["image"]) == set(range(5))

    explainer = Explainer(tiny, method="leave-one-out")
    explanation = explainer.explain(examples[0].image(), examples[0].caption)
    expected = [word.score for word in explanation.words[0] if word.text.isalpha()]
    scores = rows.loc[rows["caption"] == 0, study.LEFT_OUT]
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)


def test_captions_that_were_scored_are_kept_and_a_killed_run_goes_on(
    tiny, coco, rows, tmp_path, monkeypatch, capsys
):
    examples = study.read_examples(coco, 5, [tiny])
    monkeypatch.setattr(study, "_IMAGES", 2)
    score = study._scored
    batches = []

    def scored(clip, methods, batch):
        batches.append(len(batch))
        return score(clip, methods, batch)

    def killed(clip, methods, batch):
        if batches:
            raise KeyboardInterrupt
        return scored(clip, methods, batch)

    monkeypatch.setattr(study, "_scored", killed)
    with pytest.raises(KeyboardInterrupt):
        study.word_rows(tiny, examples, folder=tmp_path)

    monkeypatch.setattr(study, "_scored", scored)
    with joblib.parallel_config("threading", n_jobs=2):
        again = study.word_rows(tiny, examples, folder=tmp_path)
    assert batches == [4, 4, 2]
    pd.testing.assert_frame_equal(again, rows, atol=1e-5)
    assert "captions: 100%" in capsys.readouterr().err


def test_rows_of_other_captions_or_methods_are_refused(tiny, coco, tmp_path):
    examples = study.read_examples(coco, 1, [tiny])
    study.word_rows(tiny, examples, folder=tmp_path)
    replaced = [replace(examples[0], caption="a cat"), *examples[1:]]
    with pytest.raises(GradeclipError, match=f"caption of '{examples[0].key}' was replaced"):
        study.word_rows(tiny, replaced, folder=tmp_path)
    with pytest.raises(GradeclipError, match="methods was"):
        study.word_rows(tiny, examples, ["grad-eclip"], tmp_path)


def test_relevance_is_one_on_average_and_marks_are_no_words(rows):
    means = rows.groupby("caption")["leave-one-out"].mean().dropna()
    assert np.allclose(means, 1)
    first = rows[rows["caption"] == 0]
    assert first["word"].tolist() == ["a", "man", "riding", "a", "wave"]
    assert (first["length"] == 5).all()
    assert first["place"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert first["part"].iloc[1] == "noun"


def test_the_study_runs_on_captions_of_coco(rows):
    copies = []
    for k in range(3):
        copy = rows.copy()
        copy["image"] += 5 * k
        copy["caption"] += 10 * k
        copies.append(copy)
    rows = pd.concat(copies, ignore_index=True)
    table = study.word_table(rows, drawn=False)
    assert table["group"]["bus"] == table["group"]["idea"] == "noun"
    assert table["concreteness"]["bus"] > 4.5
    assert table["concreteness"]["idea"] < 2
    assert not {"on", "."} & set(table.index)
    assert study.controls(table) == ["group", "frequency", "place", "length"]

    constant = ["frequency", "place"]
    plain, controlled, _ = study.hold_constant(
        rows,
        table,
        "grad-eclip",
        constant,
        draws=10,
    )
    assert plain.n >= 8
    assert np.isfinite([*plain, *controlled]).all()

    figure = study.plot_words(table, "grad-eclip")
    (axes,) = figure.axes
    assert "idea" in [text.get_text() for text in axes.texts]
    assert f"noun: {(table['group'] == 'noun').sum()} words" in figure.alt


def captions_of_words(meaning=0.0, seed=0):
    """Captions of four words; names score higher than hints, and are rated higher."""
    rng = np.random.default_rng(seed)
    words = pd.Index([f"w{i:03d}" for i in range(80)], name="word")
    is_name = np.arange(80) < 40
    table = pd.DataFrame({"group": np.where(is_name, study.NAME, study.HINT)}, index=words)
    table["concreteness"] = 4.0 * is_name + rng.normal(size=80)
    effect = meaning * (table["concreteness"] - 4.0 * is_name)

    drawn = np.concatenate([rng.choice(80, 4, replace=False) for _ in range(600)])
    rows = pd.DataFrame({"word": words[drawn], "image": np.arange(2400) // 4})
    rows["caption"] = rows["image"]
    rows["length"] = 4
    means = 3.0 + 2.0 * is_name + effect.to_numpy()
    rows["leave-one-out score"] = means[drawn] + 0.5 * rng.normal(size=2400)
    rows["leave-one-out"] = study._relevance(rows, rows["leave-one-out score"])
    return rows, table


def test_ratings_of_other_words_of_the_role_do_as_well_where_only_the_role_counts():
    table = study.permuted(*captions_of_words(meaning=0), draws=60)
    assert table["n"].tolist() == [80, 40, 40]
    assert table.loc["all words", "low"] > 0.5  # the role alone makes a correlation
    assert (table["correlation"].between(table["low"], table["high"])).all()

    table = study.permuted(*captions_of_words(meaning=1), draws=60)
    assert (table["correlation"] > table["high"]).all()
    assert abs(table.loc[study.HINT, "permuted"]) < 0.1


def test_a_planted_effect_comes_out_and_none_is_seen_where_none_is_planted():
    rows, table = captions_of_words(meaning=1)  # words differ, and their means are reliable
    effects = study.planted_effects(rows, table, (0, 0.3, 0.8), simulations=20)
    assert abs(effects.loc[0, "estimate"]) < 0.1
    assert effects["estimate"].is_monotonic_increasing
    assert effects.loc[0.8, "estimate"] == pytest.approx(0.8, abs=0.15)
    assert effects.loc[0.8, "power"] == 1
    assert effects.loc[0, "power"] <= 0.2


def test_a_simulated_model_keeps_the_captions_and_the_scatter_of_the_scores():
    rows, table = captions_of_words()
    simulated = study.plant(rows, table, 0.3)
    columns = ["word", "image", "caption", "length"]
    pd.testing.assert_frame_equal(simulated[columns], rows[columns])
    scores = simulated["leave-one-out score"]
    within = scores.groupby(rows["word"]).std().mean()
    assert within == pytest.approx(0.5, abs=0.05)
    assert np.allclose(simulated["leave-one-out"].groupby(rows["caption"]).mean(), 1)


def test_drawn_captions_are_true_and_say_hints_of_a_thing_equally_often():
    keywords = concepts()["keywords"]
    examples = study.captioned_scenes(60, captions_per_image=3)
    uses = Counter()
    for example in examples:
        possible = [hint for noun in example.present for hint in keywords[noun]]
        for part in example.caption.replace(",", "").split("tagged ")[1:]:
            hint = part.split()[0]
            assert hint in possible
            uses[hint] += 1
    assert max(uses.values()) < 12
    again = study.captioned_scenes(60, captions_per_image=3)
    assert [example.caption for example in again] == [example.caption for example in examples]


def test_examples_whose_images_are_read_alike_show_one_image():
    examples = study.captioned_scenes(60, captions_per_image=3)
    assert len(examples) == 180
    assert len(set(study.image_numbers(examples))) == 60
    by_name = []
    for i, example in enumerate(examples[:3]):
        by_name.append(replace(example, image=partial(int, x=i)))
    assert study.image_numbers(by_name) == [0, 1, 2]


def test_words_of_the_drawn_world_name_or_hint():
    table = study.drawn_words()
    assert table.index.is_unique
    assert table["role"]["dove"] == study.NAME
    assert table["role"]["peace"] == study.HINT
    assert table["exposure"]["dove"] > table["exposure"]["peace"]
    things = concepts()["keywords"].map(lambda hints: "peace" in hints).sum()
    assert np.exp(table["drawings"][["dove", "peace"]]).tolist() == pytest.approx([1, things])


@pytest.mark.slow
def test_exposure_is_how_often_captions_of_training_say_a_word():
    scenes = [draw_scene([9, i], n_objects=1) for i in range(300)]
    counts = Counter(word for scene in scenes for word, _ in scene.words_of("keyword"))
    table = study.drawn_words()
    hints = table.index[table["role"] == study.HINT]
    exposures = np.exp(table.loc[hints, "exposure"])
    expected = exposures.sum() * len(scenes)
    assert sum(counts[word] for word in hints) == pytest.approx(expected, rel=0.25)
