"""Binding: where the maps of colour words point, and a linear map of texts that learns to bind."""

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import COLOURS
from studies import binding
from studies.binding import (
    WORDS,
    answers_by_maps,
    colour_directions,
    fit_text_map,
    main,
    mapped,
    plot_vote,
    word_maps,
)
from studies.pairs import Embedded, answers, draw_pairs, embed_pairs, judge
from studies.relevance import object_coverage


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs("swapped colours", 3, nouns=16)


def test_the_index_is_that_of_the_maps_the_explainer_draws(bundled, pairs):
    explainer = Explainer(bundled)
    rows = word_maps(explainer, pairs)
    assert len(rows) == len(pairs) * 2 * 2 * len(WORDS) and rows["index"].between(0, 1).all()
    pair = pairs[0]
    scene = pair.scenes[0]
    found = explainer.interactions(scene.image(96), scene.caption)
    coverage = object_coverage(explainer, scene, found.image_maps.shape[1:])
    for thing in (0, 1):
        at = [word.text for word in found.words[0]].index(scene.objects[thing].colour)
        heat = np.maximum(found.image_maps[at], 0)
        means = [(heat * coverage[k]).sum() / coverage[k].sum() for k in (thing, 1 - thing)]
        expected = means[0] / sum(means) if sum(means) > 0 else 0.5
        row = rows.query(
            "pair == @pair.name and side == 0 and thing == @thing and word == 'true caption'"
        )
        assert row["index"].item() == pytest.approx(expected, abs=1e-4)


def test_maps_that_follow_the_pixels_answer_right_and_those_of_the_sentence_do_not_know():
    rows = [
        {"pair": pair, "side": 0, "thing": thing, "word": word, "index": index}
        for pair, by_word in (
            ("pixels", (0.9, 0.9)),
            ("sentence", (0.9, 0.1)),
            ("wrong", (0.2, 0.3)),
        )
        for word, index in zip(("true caption", "false caption"), by_word, strict=True)
        for thing in (0, 1)
    ]
    assert answers_by_maps(pd.DataFrame(rows)).tolist() == [1.0, 0.5, 0.0]


def test_a_linear_map_learns_to_bind_where_texts_hold_the_binding_in_another_place():
    """Images say who has which colour along one axis and texts along another one."""
    generator = torch.Generator().manual_seed(0)
    what = torch.randn(120, 1, 12, generator=generator).expand(-1, 2, -1)
    sign = torch.tensor([1.0, -1.0])[None, :, None].expand(
        120,
        -1,
        -1,
    ) * torch.sign(what[:, :, :1])
    zero = torch.zeros_like(sign)
    unit = torch.nn.functional.normalize
    images, texts = (
        unit(torch.cat([what, sign, zero], -1), dim=-1),
        unit(torch.cat([what, zero, sign], -1), dim=-1),
    )
    pairs = draw_pairs("swapped colours", 60, nouns=16)
    test, dev = Embedded(images[:60], texts[:60]), Embedded(images[60:], texts[60:])
    assert answers(pairs, test)["right"].mean() == 0.5
    matrix = fit_text_map(dev, steps=300)
    assert answers(pairs, mapped(test, matrix))["right"].mean() > 0.95
    assert torch.equal(matrix, fit_text_map(dev, steps=300))


def test_directions_of_one_colour_are_compared_with_each_other(bundled, pairs):
    alike = colour_directions(Explainer(bundled), pairs)
    assert set(alike.index) <= set(COLOURS) and (alike.abs() <= 1 + 1e-6).all()


def test_the_vote_shows_two_models_without_their_names(bundled, pairs):
    figure = plot_vote(
        {"emoji": bundled, "again": bundled},
        draw_pairs("swapped colours", 8),
        n=1,
    )
    assert figure.alt.count("A: ") == figure.alt.count("B: ") == 2 and "emoji" not in figure.alt


def test_the_control_is_measured_by_a_command_on_the_lessons_questions(
    bundled, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(binding, "load_clip", lambda name, weights: bundled)
    table = binding.control_table("weights", 2)
    expected = judge(
        bundled,
        draw_pairs(
            "colour",
            2,
            split="test",
        ),
    )["right"].mean()
    assert table.set_index("question").loc["colour", "right"] == expected
    monkeypatch.setattr(binding, "control_table", lambda weights: table)
    main(["weights", "--out", str(tmp_path / "control.csv")])
    assert (
        pd.read_csv(tmp_path / "control.csv").equals(table)
        and "swapped colours" in capsys.readouterr().out
    )


def test_embeddings_of_pairs_are_those_of_their_scenes(bundled, pairs):
    found = embed_pairs(bundled, pairs)
    own = Explainer(bundled).embed_texts(pairs[1].scenes[0].caption)
    assert found.images.shape == found.texts.shape == (3, 2, found.texts.shape[-1])
    assert torch.allclose(found.texts[1, 0], own[0], atol=1e-5)
