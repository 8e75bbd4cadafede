"""Binding: where the maps of colour words point, and a linear map of texts that learns to bind."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import COLOURS
from studies import binding
from studies.binding import (
    TOKEN_SETS,
    WORDS,
    answers_by_maps,
    direction_norms,
    fit_text_map,
    main,
    mapped,
    patch_colours,
    patching_means,
    plot_patching,
    plot_vote,
    with_word,
    word_maps,
)
from studies.pairs import Embedded, answers, draw_pairs, judge
from studies.relevance import object_coverage


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs("swapped colours", 3, nouns=16)


def test_the_index_is_that_of_the_maps_the_explainer_draws(bundled, pairs):
    explainer = Explainer(bundled)
    rows = word_maps(explainer, pairs)
    assert len(rows) == len(pairs) * 2 * 2 * len(WORDS)
    assert rows["index"].between(0, 1).all()

    pair = pairs[0]
    scene = pair.scenes[0]
    rows = rows.set_index(["pair", "side", "word", "thing"]).sort_index()
    rows = rows.loc[pair.name, 0, "true caption"]
    interactions = explainer.interactions(scene.image(96), scene.caption)
    maps = interactions.image_maps
    coverage = object_coverage(explainer, scene, maps.shape[1:])
    areas = coverage.sum(axis=(1, 2))
    words = [word.text for word in interactions.words[0]]
    for k, thing in enumerate(scene.objects):
        place = words.index(thing.colour)
        heat = np.maximum(maps[place], 0)
        sums = (heat * coverage).sum(axis=(1, 2))
        means = sums / areas
        expected = 0.5
        if means.any():
            expected = means[k] / means.sum()
        assert rows.loc[k, "index"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("in_true_caption", "in_false_caption", "answer"),
    [
        (0.9, 0.9, 1.0),  # the map follows the pixels
        (0.9, 0.1, 0.5),  # it follows the sentence
        (0.2, 0.3, 0.0),
    ],
)
def test_maps_that_follow_the_pixels_answer_right_and_those_of_the_sentence_do_not_know(
    in_true_caption, in_false_caption, answer
):
    rows = pd.DataFrame(
        {
            "pair": "a pair",
            "side": 0,
            "word": ["true caption", "false caption"] * 2,
            "index": [in_true_caption, in_false_caption] * 2,
        }
    )
    assert answers_by_maps(rows).tolist() == [answer]


def test_a_linear_map_learns_to_bind_where_texts_hold_the_binding_in_another_place():
    """Images say who has which colour along one axis and texts along another one."""
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(120, 1, 12, generator=generator).expand(-1, 2, -1)
    side = torch.tensor([[1.0], [-1.0]])
    binding_axis = side * content[:, :, :1].sign()  # (120, 2, 1)
    zero = torch.zeros_like(binding_axis)
    images = torch.cat([content, binding_axis, zero], -1)
    texts = torch.cat([content, zero, binding_axis], -1)
    test_images, development_images = normalize(images, dim=-1).split(60)
    test_texts, development_texts = normalize(texts, dim=-1).split(60)

    pairs = draw_pairs("swapped colours", 60, nouns=16)
    test = Embedded(test_images, test_texts)
    development = Embedded(development_images, development_texts)
    before = answers(pairs, test)
    assert before["right"].mean() == 0.5
    matrix = fit_text_map(development, steps=300)
    after = answers(pairs, mapped(test, matrix))
    assert after["right"].mean() > 0.95
    assert torch.equal(matrix, fit_text_map(development, steps=300))


def test_a_colour_rather_than_absent_ones_is_the_caption_less_those_with_absent_colours(
    bundled, pairs
):
    explainer = Explainer(bundled)
    pair = pairs[0]
    norms = []
    for side, scene in enumerate(pair.scenes):
        absent = [*COLOURS]
        for thing in scene.objects:
            absent.remove(thing.colour)
        (caption,) = explainer.embed_texts(scene.caption)
        for span in pair.words(side):
            texts = [with_word(scene.caption, span.start, span.end, colour)[0] for colour in absent]
            direction = caption - explainer.embed_texts(texts).mean(0)
            norms.append(direction.norm().item())
    means = direction_norms(explainer, [pair])
    assert list(means.index) == list(WORDS)
    assert means["rather than absent"] == pytest.approx(np.mean(norms), rel=1e-4)


def test_the_vote_shows_two_models_without_their_names(bundled):
    pairs = draw_pairs("swapped colours", 8)
    figure = plot_vote({"emoji": bundled, "again": bundled}, pairs)
    assert figure.alt.count("A: ") == figure.alt.count("B: ") == 2
    assert "emoji" not in figure.alt


def test_exchanging_all_tokens_exchanges_the_lead_and_none_changes_nothing(
    bundled, pairs, monkeypatch
):
    def sets(explainer, pairs, grid, token_count, rng):
        everything = np.ones((len(pairs), token_count), dtype=bool)
        return {"both objects": everything, "background": ~everything}

    monkeypatch.setattr(binding, "_token_sets", sets)
    table = patch_colours(bundled, pairs).set_index("tokens")
    everything = table.loc["both objects"]
    nothing = table.loc["background"]
    assert np.allclose(everything["fall"], everything["whole"])
    assert np.allclose(nothing["fall"], 0, atol=1e-5)


def test_pixels_of_the_objects_carry_the_colours_and_the_class_token_carries_them_out(
    bundled, pairs
):
    """The images of a pair differ on two objects alone, and the last layer's class token reads."""
    table = patch_colours(bundled, pairs)
    assert set(table["tokens"]) == set(TOKEN_SETS)
    assert len(table) == len(pairs) * 6 * len(TOKEN_SETS)
    means = patching_means(table)
    moved = means["mean"]
    assert moved.between(means["low"] - 1e-9, means["high"] + 1e-9).all()
    assert moved["both objects", 1] == pytest.approx(1, abs=0.1)
    assert moved["background", 1] == pytest.approx(0, abs=0.02)
    assert moved["class token", 1] == pytest.approx(0, abs=1e-4)
    assert moved["class token", 6] > moved["class token", 2]

    figure = plot_patching({"emoji": table})
    assert "emoji, from the first to the last layer: both objects 1.0" in figure.alt
    pd.testing.assert_frame_equal(table, patch_colours(bundled, pairs))


def test_the_control_is_measured_by_a_command_on_the_lessons_questions(
    bundled, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(binding, "load_clip", lambda name, weights: bundled)
    table = binding.control_table([Path("runs/control.safetensors")], 2)
    assert set(table["training"]) == {"control"}
    pairs = draw_pairs("colour", 2, split="test")
    expected = judge(bundled, pairs)["right"].mean()
    assert table.set_index("question").loc["colour", "right"] == expected

    monkeypatch.setattr(binding, "control_table", lambda weights: table)
    out = tmp_path / "control.csv"
    main(["control.safetensors", "--out", str(out)])
    assert pd.read_csv(out).equals(table)
    assert "swapped colours" in capsys.readouterr().out
