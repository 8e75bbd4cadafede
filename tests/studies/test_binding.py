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
from studies.pairs import Embedded, answers, draw_pairs, embed_pairs, judge
from studies.relevance import object_coverage


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs("swapped colours", 3, nouns=16)


def test_the_index_is_that_of_the_maps_the_explainer_draws(bundled, pairs):
    explainer = Explainer(bundled)
    rows = word_maps(explainer, pairs)
    assert len(rows) == len(pairs) * 2 * 2 * len(WORDS)
    assert rows["index"].between(0, 1).all()

    scene = pairs[0].scenes[0]
    is_first_pair = rows["pair"] == pairs[0].name
    rows = rows[is_first_pair & (rows["side"] == 0)]
    rows = rows[rows["word"] == "true caption"].set_index("thing")
    interactions = explainer.interactions(scene.image(96), scene.caption)
    coverage = object_coverage(explainer, scene, interactions.image_maps.shape[1:])
    for word, map_ in zip(interactions.words[0], interactions.image_maps, strict=True):
        for thing in (0, 1):
            if word.text == scene.objects[thing].colour:
                heat = np.maximum(map_, 0)
                sums = (heat * coverage).sum(axis=(1, 2))
                means = sums / coverage.sum(axis=(1, 2))
                expected = means[thing] / means.sum() if means.any() else 0.5
                assert rows.loc[thing, "index"] == pytest.approx(expected, abs=1e-4)


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
    rows = pd.DataFrame({"word": ["true caption", "false caption"] * 2})
    rows["index"] = [in_true_caption, in_false_caption] * 2
    rows = rows.assign(pair="a pair", side=0)
    assert answers_by_maps(rows).tolist() == [answer]


def test_a_linear_map_learns_to_bind_where_texts_hold_the_binding_in_another_place():
    """Images say who has which colour along one axis and texts along another one."""
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(120, 1, 12, generator=generator).expand(-1, 2, -1)
    side = torch.tensor([1.0, -1.0])[None, :, None]
    binding_axis = side * torch.sign(content[:, :, :1])
    zero = torch.zeros_like(binding_axis)
    images = normalize(torch.cat([content, binding_axis, zero], -1), dim=-1)
    texts = normalize(torch.cat([content, zero, binding_axis], -1), dim=-1)

    pairs = draw_pairs("swapped colours", 60, nouns=16)
    test = Embedded(images[:60], texts[:60])
    development = Embedded(images[60:], texts[60:])
    assert answers(pairs, test)["right"].mean() == 0.5
    matrix = fit_text_map(development, steps=300)
    assert answers(pairs, mapped(test, matrix))["right"].mean() > 0.95
    assert torch.equal(matrix, fit_text_map(development, steps=300))


def test_a_colour_rather_than_absent_ones_is_the_caption_less_those_with_absent_colours(
    bundled, pairs
):
    explainer = Explainer(bundled)
    differences = []
    for pair in pairs[:1]:
        for side in (0, 1):
            scene = pair.scenes[side]
            shown = {thing.colour for thing in scene.objects}
            for span in pair.words(side):
                texts = [
                    with_word(scene.caption, span.start, span.end, colour)[0]
                    for colour in COLOURS
                    if colour not in shown
                ]
                mean = explainer.embed_texts(texts).mean(0)
                differences.append((explainer.embed_texts(scene.caption)[0] - mean).norm())
    norms = direction_norms(explainer, pairs[:1])
    assert list(norms.index) == list(WORDS)
    assert norms["rather than absent"] == pytest.approx(np.mean(differences), rel=1e-4)


def test_the_vote_shows_two_models_without_their_names(bundled):
    pairs = draw_pairs("swapped colours", 8)
    figure = plot_vote({"emoji": bundled, "again": bundled}, pairs, n=1)
    assert figure.alt.count("A: ") == figure.alt.count("B: ") == 1
    assert "emoji" not in figure.alt


def test_exchanging_all_tokens_exchanges_the_lead_and_none_changes_nothing(
    bundled, pairs, monkeypatch
):
    def sets(explainer, pairs, grid, token_count, rng):
        everything = np.ones((len(pairs), token_count), dtype=bool)
        return {"both objects": everything, "background": ~everything}

    monkeypatch.setattr(binding, "_token_sets", sets)
    table = patch_colours(bundled, pairs)
    falls = table.set_index("tokens")["fall"]
    assert np.allclose(falls["both objects"], table.set_index("tokens")["whole"]["both objects"])
    assert np.allclose(falls["background"], 0, atol=1e-5)


def test_pixels_of_the_objects_carry_the_colours_and_the_class_token_carries_them_out(
    bundled, pairs
):
    """The images of a pair differ on two objects alone, and the last layer's class token reads."""
    table = patch_colours(bundled, pairs)
    assert set(table["tokens"]) == set(TOKEN_SETS)
    assert len(table) == len(pairs) * 6 * len(TOKEN_SETS)
    means = patching_means(table)
    moved = means["mean"]
    assert (means["low"] <= moved + 1e-9).all()
    assert (moved <= means["high"] + 1e-9).all()
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
    expected = judge(
        bundled,
        draw_pairs(
            "colour",
            2,
            split="test",
        ),
    )["right"].mean()
    assert table.set_index("question").loc["colour", "right"] == expected
    assert set(table["training"]) == {"control"}

    monkeypatch.setattr(binding, "control_table", lambda weights: table)
    out = tmp_path / "control.csv"
    main(["control.safetensors", "--out", str(out)])
    assert pd.read_csv(out).equals(table)
    assert "swapped colours" in capsys.readouterr().out


def test_embeddings_of_pairs_are_those_of_their_scenes(bundled, pairs):
    embedded = embed_pairs(bundled, pairs)
    caption = pairs[1].scenes[0].caption
    (expected,) = Explainer(bundled).embed_texts(caption)
    assert embedded.images.shape == embedded.texts.shape == (3, 2, len(expected))
    assert torch.allclose(embedded.texts[1, 0], expected, atol=1e-5)
