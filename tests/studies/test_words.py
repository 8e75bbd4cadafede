"""Scores of words: what is measured is what it says, on captions whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.__main__ import main
from gradeclip_utils.measures.statistics import spearman
from studies.word_scores import (
    ALONG_ATTENTION,
    MEASURES,
    Captioned,
    captioned_scenes,
    error_by_saturation,
    layer_methods,
    layers_chosen,
    saturation,
    text_methods,
    word_rows,
)


@pytest.fixture(scope="module")
def captions():
    return captioned_scenes(3)


@pytest.fixture(scope="module")
def rows(bundled, captions):
    return word_rows(bundled, captions)


def value(rows, one, measure, method):
    some = rows[(rows["caption"] == one.caption) & (rows["measure"] == measure) & (rows["method"] == method)]
    assert len(some) == 1
    return some["value"].iloc[0]


def test_a_scene_has_its_caption_and_one_with_a_single_noun_that_it_does_not_show():
    for true, false in zip(*[iter(captioned_scenes(20))] * 2, strict=True):
        assert true.true and true.key == false.key and sum(not shown for shown in false.shown) == 1
        told = [[one.caption[a:b] for a, b in one.nouns] for one in (true, false)]
        differs = [a != b for a, b in zip(*told, strict=True)]
        assert differs == [not shown for shown in false.shown] and len(told[0]) > 1
        place = differs.index(True)
        start = true.nouns[place][0]
        assert true.caption[:start] == false.caption[:start]
        assert true.caption[true.nouns[place][1] :] == false.caption[false.nouns[place][1] :]
        assert told[1][place] not in true.caption.split()
    again = [[one.caption for one in captioned_scenes(3, seed=seed)] for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_every_method_has_every_measure(bundled, rows, captions):
    names = [*text_methods(Explainer(bundled).text_tower.depth), "Random"]
    assert [name for name in names if "Grad-ECLIP" in name] == [f"Grad-ECLIP, {i} of 3 layers" for i in (1, 2, 3)]
    counts = rows.groupby(["method", "measure"]).size().unstack()
    assert sorted(counts.index) == sorted(names) and set(counts.columns) == set(MEASURES)
    assert counts[["deletion", "insertion", "shown above zero", "absent above zero"]].eq(3).all(axis=None)
    compared = rows[rows["measure"] == "as leave-one-out"]
    assert set(compared["method"]) == set(names) - {"Leave one word out"}  # which is the same as itself


def test_fractions_are_counted_over_the_nouns_of_the_caption(bundled, rows, captions):
    true, false = captions[:2]
    for one in (true, false):
        words = Explainer(bundled, text_layers=1).explain(one.image, one.caption).words[0]
        nouns = [sum(word.score for word in words if word.start < b and word.end > a) for a, b in one.nouns]
        name = "Grad-ECLIP, 1 of 3 layers"
        if one.true:
            assert value(rows, one, "shown above zero", name) == np.mean([score > 0 for score in nouns])
        else:
            absent = nouns[one.shown.index(False)]
            there = [score for score, shown in zip(nouns, one.shown, strict=True) if shown]
            assert value(rows, one, "absent above zero", name) == float(absent > 0)
            assert value(rows, one, "shown above absent", name) == np.mean([score > absent for score in there])


def test_deletion_takes_the_highest_word_out_first_and_correlation_is_spearmans(bundled, rows, captions):
    one, explainer = captions[0], Explainer(bundled)
    words = Explainer(bundled, method="attention").explain(one.image, one.caption).words[0]
    alone = Explainer(bundled, method="leave-one-out").explain(one.image, one.caption).words[0]
    order = sorted(words, key=lambda word: -word.score)
    texts = []
    for taken in range(len(words) + 1):
        kept = sorted((word for word in order[taken:]), key=lambda word: word.start)
        texts.append(" ".join(word.text for word in kept))
    heights = (explainer.embed_texts(texts) @ explainer.embed_images(one.image)[0]).tolist()
    area = np.trapezoid(heights) / (len(heights) - 1)
    assert value(rows, one, "deletion", "Raw attention") == pytest.approx(area, abs=1e-5)
    expected = spearman([word.score for word in words], [word.score for word in alone])
    assert value(rows, one, "as leave-one-out", "Raw attention") == pytest.approx(expected)


def test_scores_of_words_need_no_image_and_are_those_of_an_explanation(bundled, captions):
    explainer = Explainer(bundled)
    found = explainer.score_words(
        [one.caption for one in captions], explainer.embed_images([c.image for c in captions])
    )
    for words, one in zip(found, captions, strict=True):
        explained = explainer.explain(one.image, one.caption).words[0]
        assert [word.text for word in words] == [word.text for word in explained]
        np.testing.assert_allclose([w.score for w in words], [w.score for w in explained], atol=1e-6)
    with pytest.raises(ValueError, match="each caption needs its direction, got 2 and 1"):
        explainer.score_words(["a dog", "a cat"], explainer.embed_images(captions[0].image))


def test_what_cannot_be_measured_is_refused(bundled, captions):
    with pytest.raises(ValueError, match="'mine' is RISE, which has no scores of words"):
        word_rows(bundled, captions, {"mine": ("rise", None)})
    with pytest.raises(ValueError, match="there are no captions to score"):
        word_rows(bundled, [])


def test_a_caption_whose_nouns_are_all_false_has_no_noun_to_compare(bundled, captions):
    one = replace(captions[1], shown=(False,) * len(captions[1].nouns))
    rows = word_rows(bundled, [one], {"attention": ("attention", None)})
    assert set(rows["measure"]) == {"absent above zero"} and isinstance(one, Captioned)


# --- saturation ---------------------------------------------------------------------------------------------------


def test_saturation_compares_the_slope_at_the_end_with_that_of_the_whole_path(bundled, captions):
    """Worked out anew: the similarity as a function of how much of each word is collected, by finite differences."""
    found = saturation(replace(bundled, text_layers=1), captions).set_index("caption")
    assert list(found.index) == [one.caption for one in captions if one.true]
    one, explainer = captions[0], Explainer(bundled, text_layers=1)
    tower, image = explainer.text_tower, explainer.embed_images(one.image)[0].double()
    with torch.no_grad():
        trace = tower.trace(bundled.tokenizer([one.caption]))
        (layer,) = trace.layers
        brought = torch.einsum("hn,nhc->nhc", layer.attention[0, :, 0], layer.v[0]).flatten(1)[1:-1]  # (words, D)

        def similarity(amounts):  # of each token's part, (n, words)
            delta = ((amounts - 1) @ brought)[:, None, None]  # (n, 1, 1, D)
            return torch.stack([(tower.readout(trace, one[None])[0].double() @ image) for one in delta])

        step, count = 1e-2, len(brought)
        slopes = []
        for at in [*(np.arange(40) + 0.5) / 40, 1.0]:
            nudges = step * torch.eye(count)
            slopes.append((similarity(at + nudges) - similarity(at - nudges)) / (2 * step))
    along, end = torch.stack(slopes[:-1]).mean(0).abs().sum(), slopes[-1].abs().sum()
    assert len(explainer.explain(one.image, one.caption).words[0]) == count  # a word is a token here
    assert found.loc[one.caption, "saturation"] == pytest.approx(float((along - end) / (along + end)), abs=5e-3)


def test_errors_are_what_a_rank_correlation_with_leave_one_out_lacks(bundled, captions):
    found = saturation(bundled, captions).set_index("caption")
    one, layers = captions[0], Explainer(bundled).text_tower.layers
    for name, method in (("loosened", "grad-eclip"), ("integrated", "integrated-attention")):
        words = Explainer(bundled, method=method, text_layers=layers).explain(one.image, one.caption).words[0]
        alone = Explainer(bundled, method="leave-one-out").explain(one.image, one.caption).words[0]
        agreed = spearman([word.score for word in words], [word.score for word in alone])
        assert found.loc[one.caption, name] == pytest.approx(1 - agreed, abs=1e-6)


def test_an_error_that_grows_with_saturation_is_told_from_one_that_does_not():
    rng = np.random.default_rng(0)
    level = rng.uniform(size=300)
    rows = pd.DataFrame({"saturation": level, "loosened": level + 0.3 * rng.normal(size=300)})
    rows = rows.assign(**{"first order": -level, "integrated": rng.normal(size=300)})
    found = error_by_saturation(rows).set_index("scores")
    assert list(found.index) == list(ALONG_ATTENTION) and (found["n"] == 300).all()
    assert 0.4 < found.loc["loosened", "low"] < found.loc["loosened", "high"] < 1
    assert found.loc["first order", "value"] == pytest.approx(-1) and found.loc["first order", "high"] < 0
    assert found.loc["integrated", "low"] < 0 < found.loc["integrated", "high"]
    assert found.loc["loosened", "error"] == pytest.approx(rows["loosened"].mean())


def test_saturation_of_false_captions_is_refused(bundled, captions):
    with pytest.raises(ValueError, match="there are no true captions to score"):
        saturation(bundled, [one for one in captions if not one.true])


# --- the number of text layers ------------------------------------------------------------------------------------


def test_the_number_of_layers_is_that_which_ranks_words_most_like_leaving_them_out():
    assert list(layer_methods(12)) == [f"Grad-ECLIP, {layers} of 12 layers" for layers in (1, 6, 8, 12)]
    rows = pd.DataFrame(
        [
            ("as leave-one-out", "Grad-ECLIP, 1 of 3 layers", 0.1),
            ("as leave-one-out", "Grad-ECLIP, 3 of 3 layers", 0.2),
            ("as leave-one-out", "METAGAME", 0.9),
            ("deletion", "Grad-ECLIP, 1 of 3 layers", 1.0),
        ],
        columns=["measure", "method", "value"],
    )
    assert layers_chosen(rows) == "Grad-ECLIP, 3 of 3 layers"


def test_a_models_own_number_of_text_layers_is_the_default_and_can_be_overruled(bundled):
    clip = replace(bundled, text_layers=1)
    assert Explainer(clip).text_tower.layers == 1 and Explainer(clip, text_layers=3).text_tower.layers == 3
    assert Explainer(replace(bundled, text_layers=None)).text_tower.layers == 2
    assert Explainer(clip, method="game").text_tower.layers == 3  # other methods ask for what they ask for
    assert "the last 1 by default" in clip.describe().splitlines()[3]


def test_the_command_prints_every_measure_of_every_number_of_layers(capsys):
    assert main(["words", "--n", "2", "--layers"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("emoji: scores of the words of 4 captions of 2 development scenes")
    assert all(f"Grad-ECLIP, {layers} of 3 layers" in told for layers in (1, 2, 3)) and "METAGAME" not in told
    assert all(name in told for name in MEASURES) and "most like leaving words out: Grad-ECLIP, " in told
    assert main(["words", "--n", "1"]) == 2
    assert "--n must be at least 2, got 1" in capsys.readouterr().err
