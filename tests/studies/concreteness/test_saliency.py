"""Word saliency: what each word of a caption gets, measured and joined with what is known of the word."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.datasets import Example, coco_captions
from gradeclip_utils.language import phrases
from gradeclip_utils.scenes import draw_scene
from studies.concreteness.correlations import Question, correlate
from studies.concreteness.informativeness import caption_words
from studies.concreteness.saliency import (
    EVEN,
    METHODS,
    OTHER,
    gather_scenes,
    saliency,
    scene_examples,
    unrelated_images,
    word_scores,
    word_table,
)
from studies.concreteness.word_study import (
    CONTROLS,
    ONE_LAYER,
    RANDOM,
    WordStudy,
    study_questions,
    word_study,
)
from tests.conftest import build, wrap
from tests.scenes import is_trained

WORDS = "apple dog car fruit bird food drink pet music game celebration vegetable flower".split()


@pytest.fixture(scope="module")
def scenes():
    return gather_scenes(WORDS, each=2, draw=2500)


@pytest.fixture(scope="module")
def examples():
    return scene_examples([draw_scene([97, i], split="development", n_objects=1 + i % 3) for i in range(12)])


@pytest.fixture(scope="module")
def rows(bundled, examples):
    return word_scores(bundled, examples)


@pytest.fixture(scope="module")
def small(bundled):
    return word_study(bundled, WORDS, each=3, draw=2500)


def test_every_word_is_gathered_as_often_as_asked_and_captions_are_the_worlds_own(scenes):
    held = Counter(word for scene in scenes for word in set(caption_words(scene.caption)))
    assert all(held[word] >= 2 for word in WORDS)
    assert len(scenes) <= 2 * len(WORDS) and is_trained(scenes[0].objects)


def test_gathering_words_that_no_caption_holds_is_refused():
    with pytest.raises(ValueError, match="none of 5 captions holds any of the words: xyzzy"):
        gather_scenes(["xyzzy"], draw=5)


def test_examples_say_what_is_in_the_picture_at_the_size_asked_for(scenes):
    one = scene_examples(scenes, 192)[0]
    assert one.image().size == (192, 192) and one.caption == scenes[0].caption
    assert set(one.present) == {thing.noun for thing in scenes[0].objects}


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_an_explanation(bundled, examples, rows, method):
    other = unrelated_images(examples)
    explainer = Explainer(bundled, method=method)
    for i in (0, 5):
        for column, picture in ((method, examples[i]), (method + OTHER, examples[other[i]])):
            explained = explainer.explain(picture.image(), examples[i].caption).words[0]
            words = [word for word in explained if word.text != ","]
            mine = rows[rows["caption"] == i]
            assert [word.text for word in words] == mine["word"].tolist()
            assert [word.start for word in words] == mine["start"].tolist()
            np.testing.assert_allclose([word.score for word in words], mine[column], atol=2e-5)


def test_attention_does_not_hear_the_picture_and_the_others_do(rows):
    np.testing.assert_array_equal(rows["attention"], rows["attention" + OTHER])
    for method in ("grad-eclip", "leave-one-out"):
        assert (rows[method] - rows[method + OTHER]).abs().max() > 1e-3


def test_rows_know_place_tokens_and_part_of_speech(bundled):
    caption = "A dog, a teapot and a red carrot!"
    picture = Image.new("RGB", (96, 96), "white")
    texts = (caption, "two yellow ducks")
    pair = [Example(str(i), text, text, text, (text,), lambda: picture) for i, text in enumerate(texts)]
    one = word_scores(bundled, pair, methods=["attention"]).query("caption == 0")
    assert one["word"].tolist() == "a dog a teapot and a red carrot".split()
    assert one["place"].tolist() == pytest.approx(np.linspace(0, 1, 8))
    parts = one.drop_duplicates("word").set_index("word")["part"]
    assert parts[["dog", "teapot", "red", "and"]].tolist() == ["noun", "noun", "adjective", "function"]
    tokens = [len(bundled.tokenizer.encode(word)) for word in one["word"]]
    assert one["tokens"].tolist() == tokens


def test_a_model_of_another_kind_is_measured_in_the_same_way(tiny, examples):
    table = word_scores(tiny, examples[:4])
    assert np.isfinite(table[list(METHODS)]).all(axis=None) and table["caption"].nunique() == 4


def test_embeddings_may_be_handed_over(bundled, examples, rows):
    again = word_scores(
        bundled, examples, Explainer(bundled).embed_images([one.image() for one in examples]), methods=["grad-eclip"]
    )
    np.testing.assert_allclose(again["grad-eclip"], rows["grad-eclip"], atol=1e-6)


def test_nothing_is_left_behind_on_the_model(examples):
    clip = wrap(build())
    before = {name: weight.clone() for name, weight in clip.model.state_dict().items()}
    word_scores(clip, examples[:3])
    assert all((weight == before[name]).all() for name, weight in clip.model.state_dict().items())
    assert not any(len(module._forward_hooks) for module in clip.model.modules()) and not clip.model.training


def test_methods_without_word_scores_are_refused_by_name(bundled, examples):
    with pytest.raises(ValueError, match="each of methods must be one of grad-eclip, .*got 'rise'"):
        word_scores(bundled, examples, methods=["rise"])


def test_a_tokenizer_without_words_is_refused(tiny, examples):
    with pytest.raises(TypeError, match="SimpleTokenizer"):
        word_scores(replace(tiny, tokenizer=lambda texts: None), examples)


def test_the_other_picture_shows_nothing_alike(examples):
    other = unrelated_images(examples)
    assert (other == unrelated_images(examples)).all()
    for i, j in enumerate(other):
        assert i != j and not set(examples[i].present) & set(examples[j].present)
        heads = [{phrase.head for phrase in phrases(examples[k].caption)} for k in (i, j)]
        assert not heads[0] & heads[1]


def test_where_all_examples_are_alike_there_is_no_other_picture():
    alike = [Example(str(i), "a dog", "dog", "a dog", ("dog",), lambda: None) for i in range(3)]
    with pytest.raises(ValueError, match="every other example shares something with 'a dog'"):
        unrelated_images(alike)


def hand_made(*captions):
    rows = [(i, f"w{k}", score) for i, scores in enumerate(captions) for k, score in enumerate(scores)]
    return pd.DataFrame(rows, columns=["caption", "word", "grad-eclip"])


def test_equal_importance_is_zero_saliency_and_the_scale_of_scores_does_not_matter():
    found = saliency(hand_made([0.2, 0.2, 0.2], [50.0, 50.0]), "grad-eclip")
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_saliency_is_the_log_of_share_over_uniform_share_with_a_twentieth_spread_evenly():
    found = saliency(hand_made([3.0, 1.0, 0.0, -2.0]), "grad-eclip")
    shares = EVEN / 4 + (1 - EVEN) * np.array([0.75, 0.25, 0, 0])
    np.testing.assert_allclose(found, np.log(shares / 0.25))
    assert found.iloc[-1] == pytest.approx(np.log(EVEN))


def test_magnitude_counts_words_that_speak_against():
    found = saliency(hand_made([1.0, -1.0]), "grad-eclip", magnitude=True)
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_a_caption_in_which_no_word_speaks_for_the_picture_has_no_saliency():
    found = saliency(hand_made([-1.0, -2.0], [1.0, 1.0]), "grad-eclip")
    assert found.isna().tolist() == [True, True, False, False]


def test_a_method_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="method must be .*grad-eclip.*, got 'attention'"):
        saliency(hand_made([1.0, 2.0]), "attention")


def test_the_table_of_words_joins_what_is_known_of_them(rows):
    table = word_table(rows)
    held = set(rows["word"])
    assert set(table.index) == held and table.index.is_unique
    assert table["captions"]["a"] == rows[rows["word"] == "a"]["caption"].nunique()
    word = next(word for word in rows["word"] if table["studied"][word])
    assert table["role"][word] in ("noun", "association") and table["studied"][word] and table["exposure"][word] > 4
    assert not table["studied"]["a"] and table["all"]["a"] and not table["content"]["a"]
    assert table.loc["a", ["mutual_information"]].isna().all()


def test_elsewhere_the_table_has_only_what_is_known_elsewhere(rows):
    table = word_table(rows, own_world=False)
    assert not {"role", "exposure", "mutual_information", "studied"} & set(table)
    assert {"concreteness", "visual", "frequency", "all", "content"} <= set(table)


def test_a_study_measures_the_model_another_picture_and_a_tower_without_knowledge(small):
    assert isinstance(small, WordStudy) and len(small.values) == len(small.rows)
    expected = {*METHODS, *(name + OTHER for name in METHODS), "grad-eclip" + RANDOM, "leave-one-out" + RANDOM}
    expected |= {"grad-eclip" + ONE_LAYER}
    assert set(small.values) == expected
    assert (small.values["leave-one-out"] - small.values["leave-one-out" + RANDOM]).abs().mean() > 0.1


def test_one_text_layer_is_measured_beside_the_default(small):
    number = small.rows["caption"] == 0
    scene = small.scenes[0]
    words = Explainer(small.clip, text_layers=1).explain(scene.image(96), scene.caption).words[0]
    scores = np.maximum([word.score for word in words if word.text != ","], 0)
    expected = np.log(EVEN + (1 - EVEN) * scores / scores.sum() * len(scores))
    np.testing.assert_allclose(small.values["grad-eclip" + ONE_LAYER][number], expected, atol=1e-3)
    assert (small.values["grad-eclip" + ONE_LAYER] - small.values["grad-eclip"]).abs().mean() > 0.05


def test_leaving_out_a_noun_costs_more_than_leaving_out_a_little_word(small):
    """The world's own truth, which any measure of importance has to find: "a" tells nothing, a noun much."""
    means = small.values["leave-one-out"].groupby(small.table["role"].reindex(small.rows["word"]).to_numpy()).mean()
    assert means["noun"] > means["association"] > small.values["leave-one-out"][small.rows["word"] == "a"].mean()


def test_exposure_is_held_constant_only_where_it_is_known(small):
    assert small.controls == CONTROLS
    elsewhere = replace(small, clip=replace(small.clip, vocabulary=None))
    assert "exposure" not in elsewhere.controls
    partial = [question for question in study_questions(elsewhere) if question.given]
    assert len(partial) == 2 and "exposure" not in partial[0].given


@pytest.mark.filterwarnings("ignore:The covariance matrix is rank-deficient")
def test_captions_of_photographs_are_measured_in_the_same_way(tiny, tmp_path):
    """COCO's captions with a model of any kind: what is known of a word elsewhere is what can be asked."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    said = [
        "A man riding a wave.",
        "Two dogs on the grass",
        "a red bus, parked",
        "An idea of freedom",
        "some tasty food",
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in range(len(said))]
    for one in images:
        Image.new("RGB", (30, 20), (40 * one["id"], 90, 120)).save(tmp_path / "val2017" / one["file_name"])
    notes = [{"id": 10 + i, "image_id": i, "caption": text} for i, text in enumerate(said)]
    record = {"images": images, "annotations": notes}
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(record))
    rows = word_scores(tiny, coco_captions(tmp_path), methods=["grad-eclip", "leave-one-out"])
    values = pd.DataFrame({"leave-one-out": saliency(rows, "leave-one-out", magnitude=True)})
    table = word_table(rows, own_world=False)
    assert table["part"]["bus"] == table["part"]["idea"] == "noun" and "." not in table.index
    assert table["concreteness"]["bus"] > 4.5 > 2 > table["concreteness"]["idea"]
    repeated = pd.concat([rows.assign(caption=rows["caption"] + 100 * k) for k in range(3)], ignore_index=True)
    given = ("frequency", "place")
    asked = [Question("plain", "concreteness", "leave-one-out", "content"),
             Question("held", "concreteness", "leave-one-out", "content", given)]  # fmt: skip
    found = correlate(asked, repeated, pd.concat([values] * 3, ignore_index=True), table, draws=20)
    assert (found["n"] >= 10).all() and found["value"].notna().all()
