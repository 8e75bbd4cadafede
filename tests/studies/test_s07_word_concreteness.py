"""Words of captions.

How much each counts, and correlations whose intervals know of words and images.
"""

from collections import Counter
from dataclasses import replace

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


def world(words=120, slope=1.0, noise=0.5, seed=0):
    """Words with a rating x and a nuisance z, each in some images; the value y follows x."""
    rng = np.random.default_rng(seed)
    names = [f"w{i:03d}" for i in range(words)]
    table = pd.DataFrame(index=pd.Index(names, name="word"))
    table["x"] = rng.normal(size=words)
    table["z"] = rng.normal(size=words)

    image_count = words * 8 // 6
    pairs = []
    for word in names:
        for image in rng.choice(image_count, 8, replace=False):
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
def examples(tiny, coco):
    return study.read_examples(coco, 5, [tiny])


@pytest.fixture(scope="module")
def rows(tiny, examples):
    return study.word_rows(tiny, examples)


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
        rows, table = world(40, slope=0, seed=seed)
        correlation = study.correlate(rows, table, "y", "x", draws=60)
        missed += not correlation.low <= 0 <= correlation.high
    assert missed <= 6


def test_words_without_a_rating_or_in_few_images_are_left_out():
    rows, table = world()
    unrated = table.index[:5]
    table.loc[unrated, "x"] = np.nan
    rows_of_rare = rows.index[rows["word"] == table.index[10]]
    rows = rows.drop(rows_of_rare[2:])
    correlation = study.correlate(rows, table, "y", "x", draws=5)
    assert correlation.n == len(table) - 6


def test_holding_a_confounder_constant_takes_its_part_away():
    rows, table = world(slope=1.0)
    rng = np.random.default_rng(1)
    table["z"] = table["x"]
    table["x"] = table["z"] + 0.7 * rng.normal(size=len(table))
    correlations = study.hold_constant(rows, table, "y", ["z"], "x", draws=100)
    plain, controlled, difference = correlations
    assert plain == study.correlate(rows, table, "y", "x", draws=100)
    assert plain.value > 0.5
    assert abs(controlled.value) < 0.2
    assert difference.low > 0.3
    assert difference.value == pytest.approx(plain.value - controlled.value)


def test_the_partial_correlation_is_that_of_the_formula():
    rng = np.random.default_rng(2)
    x, y, z = rng.normal(size=(3, 200))
    x = x + z
    y = y + z
    xy = spearmanr(x, y).statistic
    xz = spearmanr(x, z).statistic
    yz = spearmanr(y, z).statistic
    unexplained = (1 - xz**2) * (1 - yz**2)
    expected = (xy - xz * yz) / np.sqrt(unexplained)
    correlation = study.partial_spearman(x, y, z[:, None])
    assert correlation == pytest.approx(expected)


def test_means_without_noise_are_reliable_and_noise_is_not():
    rows, table = world(noise=0)
    rng = np.random.default_rng(0)
    exact = rows.assign(y=rows["word"].map(table["x"]))
    random = rows.assign(y=rng.normal(size=len(rows)))
    assert study.reliability(exact, table, "y") == pytest.approx(1)
    assert study.reliability(rows, table, "y") > 0.3
    reliability = study.reliability(random, table, "y")
    assert abs(reliability) < 0.3


def test_agreement_is_spearmans_correlation_within_captions(rows):
    agreement = study.agreement_in_captions(rows, study.GRAD_ECLIP)
    for image, of_image in rows.groupby("image"):
        correlations = []
        for _, words in of_image.groupby("caption"):
            correlation = spearmanr(words[study.GRAD_ECLIP], words[study.LEFT_OUT])
            correlations.append(correlation.statistic)
        assert agreement[image] == pytest.approx(np.mean(correlations))


def test_an_image_is_embedded_once_and_scores_are_those_of_the_explainer(
    tiny, examples, rows, monkeypatch
):
    embedded = []
    embed_images = Explainer.embed_images

    def counted(explainer, images):
        images = list(images)
        embedded.extend(images)
        return embed_images(explainer, images)

    monkeypatch.setattr(Explainer, "embed_images", counted)
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
    tiny, examples, rows, tmp_path, monkeypatch, capsys
):
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


def test_rows_of_other_captions_or_methods_are_refused(tiny, examples, tmp_path):
    first, *_ = examples
    study.word_rows(tiny, [first], folder=tmp_path)
    replaced = replace(first, caption="a cat")
    with pytest.raises(GradeclipError, match=f"caption of '{first.key}' was replaced"):
        study.word_rows(tiny, [replaced], folder=tmp_path)
    with pytest.raises(GradeclipError, match="methods was"):
        study.word_rows(tiny, [first], ["grad-eclip"], tmp_path)


def test_relevance_is_one_on_average_and_marks_are_no_words(rows):
    means = rows.groupby("caption")["leave-one-out"].mean()
    assert np.allclose(means.dropna(), 1)

    first = rows[rows["caption"] == 0]
    assert " ".join(first["word"]) == "a man riding a wave"
    assert set(first["length"]) == {5}
    assert first["place"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    _, part, *_ = first["part"]
    assert part == "noun"


def test_the_study_runs_on_captions_of_coco(rows):
    copies = []
    for k in range(3):
        copy = rows.copy()
        copy["image"] += 5 * k
        copy["caption"] += 10 * k
        copies.append(copy)
    rows = pd.concat(copies, ignore_index=True)
    table = study.word_table(rows, drawn=False)
    bus = table.loc["bus"]
    idea = table.loc["idea"]
    assert bus["group"] == idea["group"] == "noun"
    assert bus["concreteness"] > 4.5
    assert idea["concreteness"] < 2
    assert not {"on", "."} & set(table.index)
    assert study.controls(table) == ["group", "frequency", "place", "length"]

    constant = ["frequency", "place"]
    plain, controlled, _ = study.hold_constant(rows, table, "grad-eclip", constant, draws=10)
    assert plain.n >= 8
    assert np.isfinite([*plain, *controlled]).all()

    figure = study.plot_words(table.assign(**{study.RELEVANCE: table["grad-eclip"]}))
    (axes,) = figure.axes
    assert "idea" in [text.get_text() for text in axes.texts]
    noun_count = (table["group"] == "noun").sum()
    assert f"noun: {noun_count} words" in figure.alt


def captions_of_words(meaning=0.0, seed=0):
    """Captions of four words; names score higher than hints, and are rated higher."""
    rng = np.random.default_rng(seed)
    names = [f"w{i:03d}" for i in range(80)]
    is_name = np.arange(80) < 40
    rating_of_role = 4.0 * is_name
    words = pd.Index(names, name="word")
    table = pd.DataFrame(index=words)
    table["group"] = np.where(is_name, study.NAME, study.HINT)
    table["concreteness"] = rating_of_role + rng.normal(size=80)
    effect = meaning * (table["concreteness"] - rating_of_role)

    captions = [rng.choice(80, 4, replace=False) for _ in range(600)]
    word_numbers = np.concatenate(captions)
    rows = pd.DataFrame({"word": words[word_numbers]})
    rows["image"] = np.arange(2400) // 4
    rows["caption"] = rows["image"]
    rows["length"] = 4

    means = 3.0 + 2.0 * is_name + effect.to_numpy()
    scores = means[word_numbers] + 0.5 * rng.normal(size=2400)
    rows["leave-one-out score"] = scores
    rows["leave-one-out"] = study._relevance(rows, rows["leave-one-out score"])
    return rows, table


def test_ratings_of_other_words_of_the_role_do_as_well_where_only_the_role_counts():
    of_role_alone = captions_of_words(meaning=0)
    table = study.permuted(*of_role_alone, draws=60)
    assert table["n"].tolist() == [80, 40, 40]
    assert table.loc["all words", "low"] > 0.5  # the role alone makes a correlation
    assert table["correlation"].between(table["low"], table["high"]).all()

    with_meaning = captions_of_words(meaning=1)
    table = study.permuted(*with_meaning, draws=60)
    assert (table["correlation"] > table["high"]).all()
    permuted_hints = table.loc[study.HINT, "permuted"]
    assert abs(permuted_hints) < 0.1


def test_a_planted_effect_comes_out_and_none_is_seen_where_none_is_planted():
    rows, table = captions_of_words(meaning=1)  # words differ, and their means are reliable
    effects = study.planted_effects(rows, table, (0, 0.3, 0.8), simulations=20)
    assert effects["estimate"].is_monotonic_increasing
    nothing = effects.loc[0]
    assert abs(nothing["estimate"]) < 0.1
    assert nothing["power"] <= 0.2
    large = effects.loc[0.8]
    assert large["estimate"] == pytest.approx(0.8, abs=0.15)
    assert large["power"] == 1


def test_where_coins_assign_roles_their_part_and_that_of_meaning_are_told_apart():
    rng = np.random.default_rng(4)
    ratings = rng.uniform(1, 5, size=120)
    names_first = np.repeat(rng.permutation(60) < 30, 2) ^ (np.arange(120) % 2 == 1)
    tables = []
    for training in ("english", "permuted"):
        is_name = names_first if training == "english" else ~names_first
        meaning = 2 + 0.4 * (ratings - 3) if training == "english" else 0.0
        table = {
            "training": training,
            "word": [f"word {i}" for i in range(120)],
            "pair": np.arange(120) // 2,
            "role": np.where(is_name, study.NAME, study.HINT),
            "concreteness": ratings,
            "relevance": 1 + 1.5 * is_name + meaning + rng.normal(scale=0.3, size=120),
        }
        tables.append(pd.DataFrame(table))

    measures = study.by_assigned_role(pd.concat(tables), draws=200)
    role = measures.loc["names rather than hints"]
    assert role["low"] < 1.5 < role["high"], "all words count more in the first, and it cancels"
    assert role["high"] - role["low"] < 0.3
    assert abs(measures.loc["permuted", "value"]) < 0.2
    assert measures.loc["english", "value"] > 0.7
    assert measures.loc["english less permuted", "low"] > 0.4
    assert set(measures["n"]) == {120}

    figure = study.plot_assigned_roles(pd.concat(tables))
    points = figure.axes[0].collections[0].get_offsets()
    assert len(points) == 120
    assert (points[:, 1] - points[:, 0]).mean() == pytest.approx(role["value"])


def test_a_simulated_model_keeps_the_captions_and_the_scatter_of_the_scores():
    rows, table = captions_of_words()
    simulated = study.plant(rows, table, 0.3)
    columns = ["word", "image", "caption", "length"]
    pd.testing.assert_frame_equal(simulated[columns], rows[columns])
    scores = simulated["leave-one-out score"]
    within = scores.groupby(rows["word"]).std().mean()
    assert within == pytest.approx(0.5, abs=0.05)
    means = simulated.groupby("caption")["leave-one-out"].mean()
    assert np.allclose(means, 1)


def test_drawn_captions_are_true_and_say_hints_of_a_thing_equally_often():
    keywords = concepts()["keywords"]
    examples = study.captioned_scenes(60, captions_per_image=3)
    uses = Counter()
    for example in examples:
        possible = set().union(*keywords[list(example.present)])
        words = example.caption.replace(",", "")
        _, *tags = words.split("tagged ")
        for tag in tags:
            hint, *_ = tag.split()
            assert hint in possible
            uses[hint] += 1
    assert max(uses.values()) < 12

    image_numbers = study.image_numbers(examples)
    assert (len(image_numbers), len(set(image_numbers))) == (180, 60)
    again = study.captioned_scenes(60, captions_per_image=3)
    assert [example.caption for example in again] == [example.caption for example in examples]


def test_words_of_the_drawn_world_name_or_hint():
    table = study.drawn_words()
    assert table.index.is_unique
    dove = table.loc["dove"]
    peace = table.loc["peace"]
    assert dove["role"] == study.NAME
    assert peace["role"] == study.HINT
    assert dove["exposure"] > peace["exposure"]
    things_of_peace = sum("peace" in hints for hints in concepts()["keywords"])
    assert dove["drawings"] == 0
    assert peace["drawings"] == pytest.approx(np.log(things_of_peace))


@pytest.mark.slow
def test_exposure_is_how_often_captions_of_training_say_a_word():
    table = study.drawn_words()
    exposures = table.loc[table["role"] == study.HINT, "exposure"]
    uses = 0
    for i in range(300):
        scene = draw_scene([9, i], n_objects=1)
        uses += sum(word in exposures for word, _ in scene.words_of("keyword"))
    expected = 300 * np.exp(exposures).sum()
    assert uses == pytest.approx(expected, rel=0.25)


def test_the_figure_of_words_is_the_same_whenever_it_is_drawn():
    words = pd.DataFrame(
        {
            "concreteness": np.linspace(1, 5, 12),
            study.RELEVANCE: np.linspace(0, 1, 12) ** 2,
            "group": ["noun", "verb"] * 6,
        },
        index=pd.Index([f"w{i}" for i in range(12)], name="word"),
    )
    state = np.random.get_state()[1].tolist()
    places = []
    for _ in range(2):
        (axes,) = study.plot_words(words).axes
        points = [strip.get_offsets().tolist() for strip in axes.collections]
        places.append(points)
    assert places[0] == places[1]
    assert np.random.get_state()[1].tolist() == state
