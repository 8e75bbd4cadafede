"""The pointing game: its questions and scores, and that `Explainer` answers the same questions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.images import onto_image
from gradeclip_utils.scenes import Span, arrange, phrase
from studies.pairs import images_of
from studies.pointing_game import (
    QUESTIONS,
    Game,
    games,
    play,
    question_directions,
    question_maps,
)


@pytest.fixture(scope="module")
def played():
    return games(2, tint=0)


def maps_of(clip, scene):
    """By question, the heat maps (T, 96, 96) of one scene."""
    explainer = Explainer(clip)
    directions = question_directions(explainer, [scene], QUESTIONS)
    maps = question_maps(explainer, [scene], directions)
    return {question: batch[0] for question, batch in maps.items()}


def on_scene(map_, explanation):
    box = [side * 96 / explanation.image.width for side in explanation.box]
    return onto_image(map_, box, (96, 96))


def test_images_of_one_scene_differ_in_how_many_objects_they_show_and_in_nothing_else(played):
    first, *_, whole, other = played[:5]
    assert first.scene.caption in whole.scene.caption
    assert other.name != first.name
    for count, game in enumerate(played[:4], start=1):
        assert game.name == first.name
        assert game.scene.background == whole.scene.background
        assert game.scene.objects == whole.scene.objects[:count]
        nouns = {thing.noun for thing in game.scene.objects}
        assert len(nouns) == count


def test_one_map_for_four_nouns_is_right_for_one_of_them_at_most(played, tiny):
    rows = play(tiny, [played[3], played[7]], questions=["caption"])
    assert len(rows) == 8
    for _, of_image in rows.groupby("image"):
        assert of_image["hit"].sum() <= 1 + 1e-9
        on_things = of_image["on_thing"].sum()
        assert np.allclose(of_image["on_others"], on_things - of_image["on_thing"])
        assert np.allclose(of_image["on_nothing"], 1 - on_things)


def test_caption_prompt_and_contrast_are_those_of_explain(played, tiny):
    scene = played[2].scene
    first, second, third = scene.objects
    fewer = arrange([first, third])
    explainer = Explainer(tiny)
    (image,) = images_of(tiny, [scene])
    explanation = explainer.explain(image, [scene.caption, phrase(second.noun)])
    contrast = explainer.explain(image, scene.caption, against=fewer.caption)

    maps = maps_of(tiny, scene)
    of_caption, of_prompt = explanation.image_maps
    for heat, map_ in (
        (maps["caption"][0], of_caption),
        (maps["prompt"][1], of_prompt),
        (maps["contrast"][1], contrast.image_maps[0]),
    ):
        expected = on_scene(map_, explanation)
        # without its length, which the direction of a question does not keep
        heat = heat / abs(heat).max()
        expected = expected / abs(expected).max()
        assert np.allclose(heat, expected, atol=1e-4)


def test_words_are_those_of_interactions_and_a_noun_of_two_words_is_their_sum(tiny):
    scene = arrange(["red car", "dog"])
    name = Span(2, 9, "noun", (0,))  # "red car", as if that were its noun
    spans_of_dog = [span for span in scene.spans if span.objects == (1,)]
    scene = replace(scene, spans=(*spans_of_dog, name))
    (image,) = images_of(tiny, [scene])
    interactions = Explainer(tiny).interactions(image, scene.caption)
    _, red, car, *_, dog = interactions.image_maps
    heats = [on_scene(map_, interactions) for map_ in (red + car, dog)]
    expected = np.stack(heats)

    maps = maps_of(tiny, scene)
    tolerance = 1e-5 * np.abs(expected).max()
    assert np.allclose(maps["word x region"], expected, atol=tolerance)
    centred = expected - expected.mean(0)
    assert np.allclose(maps["word x region, centred"], centred, atol=tolerance)


def test_images_in_a_batch_score_what_they_score_alone(played, tiny):
    keys = ["image", "objects", "noun", "question"]
    together = play(tiny, played).sort_values(keys)
    tables = [play(tiny, [game]) for game in played]
    alone = pd.concat(tables).sort_values(keys)
    pd.testing.assert_frame_equal(
        together.reset_index(drop=True),
        alone.reset_index(drop=True),
        atol=1e-5,
        check_exact=False,
    )


def test_what_needs_a_second_object_is_not_asked_of_one(played, tiny):
    rows = play(tiny, played)
    by_count = rows.groupby("objects")["question"].unique()
    assert set(by_count[1]) == {"caption", "prompt", "word x region"}
    assert set(by_count[2]) == set(QUESTIONS)
    assert play(tiny, played[:1], questions=["contrast"]).empty


def test_a_caption_that_the_model_cannot_read_to_its_end_is_refused(tiny):
    scene = arrange(["cat", "dog", "car", "tree"])
    scene = replace(scene, caption=scene.caption + " in a photo of a photo" * 8)
    with pytest.raises(ValueError, match="reads only the beginning of"):
        play(tiny, [Game("long", scene)])
