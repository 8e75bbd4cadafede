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
    assert table.loc["apple", "concreteness"] == 5.0 and table["concreteness"]["idea"] < 2
    assert np.isnan(table.loc["xyzzy", "concreteness"]) and table.loc["xyzzy", "frequency"] == 0
    assert table["frequency"]["apple"] > table["frequency"]["apples"]


def world(words=120, each=8, slope=1.0, noise=0.5, seed=0):
    """Words with a rating x and a nuisance z, each in some images; the value y follows x."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"x": rng.normal(size=words), "z": rng.normal(size=words)})
    table.index = pd.Index([f"w{i:03d}" for i in range(words)], name="word")
    images = words * each // 6
    pairs = [
        (image, word)
        for word in table.index
        for image in rng.choice(
            images,
            each,
            replace=False,
        )
    ]
    rows = pd.DataFrame(pairs, columns=["image", "word"]).assign(caption=lambda one: one["image"])
    values = slope * table["x"].to_numpy() + rng.normal(size=words) * noise
    return rows.assign(
        y=values[table.index.get_indexer(rows["word"])] + 0.3 * rng.normal(size=len(rows))
    ), table


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
    found = study.correlate(rows, table, "y", "x", draws=50)
    means = rows.groupby("word")["y"].mean()
    assert found.value == pytest.approx(spearmanr(table["x"], means[table.index])[0])
    assert found.low < found.value < found.high and found.n == len(table)


def test_the_interval_shrinks_with_words_and_covers_zero_when_there_is_nothing():
    narrow, wide = (
        study.correlate(
            *world(words, slope=0.3),
            "y",
            "x",
            draws=100,
        )
        for words in (640, 40)
    )
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)
    found = [
        study.correlate(
            *world(40, slope=0, seed=seed),
            "y",
            "x",
            draws=60,
        )
        for seed in range(30)
    ]
    assert sum(not one.low <= 0 <= one.high for one in found) <= 6


def test_words_without_a_rating_or_in_few_images_are_left_out():
    rows, table = world()
    table.loc[table.index[:5], "x"] = np.nan
    rare = rows.index[rows["word"] == table.index[10]]
    assert (
        study.correlate(
            rows.drop(rare[2:]),
            table,
            "y",
            "x",
            draws=5,
        ).n
        == len(table) - 6
    )


def test_holding_a_confounder_constant_takes_its_part_away():
    rng = np.random.default_rng(1)
    rows, table = world(slope=1.0)
    table["x"], table["z"] = table["x"] + 0.7 * rng.normal(size=len(table)), table["x"]
    plain, left, taken = study.hold_constant(
        rows,
        table,
        "y",
        ["z"],
        "x",
        draws=100,
    )
    assert plain == study.correlate(rows, table, "y", "x", draws=100)
    assert plain.value > 0.5 and abs(left.value) < 0.2 and taken.low > 0.3
    assert taken.value == pytest.approx(plain.value - left.value)


def test_the_partial_correlation_is_that_of_the_formula():
    x, y, z = np.random.default_rng(2).normal(size=(3, 200))
    x, y = x + z, y + z
    xy, xz, yz = (spearmanr(a, b)[0] for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert study.partial_spearman(x, y, z[:, None]) == pytest.approx(expected)


def test_means_without_noise_are_reliable_and_noise_is_not():
    rows, table = world(noise=0)
    exact = rows.assign(y=rows["word"].map(table["x"]))
    random = rows.assign(y=np.random.default_rng(0).normal(size=len(rows)))
    assert study.reliability(exact, table, "y") == pytest.approx(1)
    assert (
        abs(
            study.reliability(
                random,
                table,
                "y",
            )
        )
        < 0.3
        < study.reliability(rows, table, "y")
    )


def test_agreement_is_spearmans_correlation_within_captions(rows):
    found = study.agreement_in_captions(rows, study.GRAD_ECLIP, study.LEFT_OUT)
    for image, some in rows.groupby("image"):
        each = [
            spearmanr(one[study.GRAD_ECLIP], one[study.LEFT_OUT])[0]
            for _, one in some.groupby("caption")
        ]
        assert found[image] == pytest.approx(np.mean(each))


def test_an_image_is_embedded_once_and_scores_are_those_of_the_explainer(
    tiny, coco, rows, monkeypatch
):
    read = []
    embed = Explainer.embed_images
    monkeypatch.setattr(
        Explainer, "embed_images", lambda self, images: embed(self, read.extend(images) or read)
    )
    examples = study.read_examples(coco, 5, [tiny])
    study.word_rows(tiny, examples)
    assert len(examples) == 2 * len(read) == 10 and set(rows["image"]) == set(range(5))
    words = (
        Explainer(tiny, method="leave-one-out")
        .explain(examples[0].image(), examples[0].caption)
        .words[0]
    )
    scores = rows.loc[rows["caption"] == 0, study.LEFT_OUT]
    assert scores.tolist() == pytest.approx(
        [word.score for word in words if word.text.isalpha()], abs=1e-4
    )


def test_captions_that_were_scored_are_kept_and_a_killed_run_goes_on(
    tiny, coco, rows, tmp_path, monkeypatch, capsys
):
    examples = study.read_examples(coco, 5, [tiny])
    monkeypatch.setattr(study, "_IMAGES", 2)
    whole, scored = study._scored, []

    def killed(clip, methods, some):
        if len(scored) == 1:
            raise KeyboardInterrupt
        return scored.append(len(some)) or whole(clip, methods, some)

    monkeypatch.setattr(study, "_scored", killed)
    with pytest.raises(KeyboardInterrupt):
        study.word_rows(tiny, examples, folder=tmp_path)
    monkeypatch.setattr(
        study, "_scored", lambda *given: scored.append(len(given[2])) or whole(*given)
    )
    with joblib.parallel_config("threading", n_jobs=2):
        again = study.word_rows(tiny, examples, folder=tmp_path)
    assert scored == [4, 4, 2]
    pd.testing.assert_frame_equal(again, rows, atol=1e-5)
    other = [replace(examples[0], caption="a cat"), *examples[1:]]
    with pytest.raises(
        GradeclipError, match=f"caption of '{examples[0].key}' was replaced since it was measured"
    ):
        study.word_rows(tiny, other, folder=tmp_path)
    assert "captions: 100%" in capsys.readouterr().err
    with pytest.raises(GradeclipError, match="methods was"):
        study.word_rows(tiny, examples, ["grad-eclip"], tmp_path)


def test_relevance_is_one_on_average_and_marks_are_no_words(rows):
    means = rows.groupby("caption")["leave-one-out"].mean().dropna().tolist()
    assert means == pytest.approx([1] * len(means))
    first = rows[rows["caption"] == 0]
    assert (
        first["word"].tolist() == ["a", "man", "riding", "a", "wave"]
        and (first["length"] == 5).all()
    )
    assert first["place"].tolist() == [0, 0.25, 0.5, 0.75, 1] and first["part"].iloc[1] == "noun"


def test_the_study_runs_on_captions_of_coco(rows):
    many = pd.concat(
        [
            rows.assign(image=rows["image"] + 5 * k, caption=rows["caption"] + 10 * k)
            for k in range(3)
        ]
    )
    table = study.word_table(study.two_parts(many.reset_index(drop=True)), drawn=False)
    assert table["group"]["bus"] == table["group"]["idea"] == "noun" and "." not in table.index
    assert (
        table["concreteness"]["bus"] > 4.5 > 2 > table["concreteness"]["idea"]
        and "on" not in table.index
    )
    assert study.controls(table) == ["group", "frequency", "place", "length"]
    plain, left, _ = study.hold_constant(
        many, table, "grad-eclip", ["frequency", "place"], draws=10
    )
    assert plain.n >= 8 and np.isfinite([*plain, *left]).all()
    assert "idea" in [
        text.get_text() for text in study.plot_words(table, "grad-eclip").axes[0].texts
    ]


def test_scores_are_split_into_whether_and_how_much(rows):
    split = study.two_parts(rows)
    assert (split["positive"] == (rows[study.LEFT_OUT] > 0)).all()
    there = split["size"].notna()
    assert (split.loc[there, "positive"] == 1).all()
    assert np.exp(split.loc[there, "size"]).to_numpy() == pytest.approx(
        rows.loc[there, "leave-one-out"].to_numpy()
    )


def test_drawn_captions_are_true_and_say_hints_of_a_thing_equally_often():
    examples, keywords = study.captioned_scenes(60, captions_per_image=3), concepts()["keywords"]
    said = Counter()
    for one in examples:
        hints = one.caption.replace(",", "").split("tagged ")[1:]
        said.update(hint.split()[0] for hint in hints)
        assert all(any(hint.split()[0] in keywords[noun] for noun in one.present) for hint in hints)
    assert len(examples) == 180 and len(set(study.image_numbers(examples))) == 60
    by_name = [replace(one, image=partial(int, x=i)) for i, one in enumerate(examples[:3])]
    assert study.image_numbers(by_name) == [0, 1, 2]
    assert [one.caption for one in study.captioned_scenes(60, captions_per_image=3)] == [
        one.caption for one in examples
    ]
    assert said.most_common(1)[0][1] < 12


def test_words_of_the_drawn_world_name_or_hint():
    table = study.drawn_words()
    assert (
        table["role"]["dove"] == study.NAME
        and table["role"]["peace"] == study.HINT
        and table.index.is_unique
    )
    assert table["exposure"]["dove"] > table["exposure"]["peace"]


@pytest.mark.slow
def test_exposure_is_how_often_captions_of_training_say_a_word():
    scenes = [draw_scene([9, i], n_objects=1) for i in range(600)]
    counts = Counter(word for scene in scenes for word, _ in scene.words_of("keyword"))
    table = study.drawn_words()
    hints = table.index[table["role"] == study.HINT]
    expected = np.exp(table.loc[hints, "exposure"]).sum() * len(scenes)
    assert sum(counts[word] for word in hints) == pytest.approx(expected, rel=0.25)
