"""The pointing game.

What is asked, what is scored, and that a question is the one that Explainer answers.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.images import onto_image
from gradeclip_utils.scenes import Span, arrange
from studies import pointing_game as study
from studies.pairs import images_of

SIZE = (96, 96)


@pytest.fixture(scope="module")
def played():
    return study.games(2, tint=0)


def asked(clip, scenes):
    explainer = Explainer(clip)
    return study.question_maps(
        explainer,
        scenes,
        study.question_directions(
            explainer,
            scenes,
            study.QUESTIONS,
        ),
    )


def shape(heat):
    """A map without its length, which the direction of a question does not keep."""
    return heat / np.abs(heat).max()


def on_scene(map_, explanation):
    return onto_image(
        map_,
        [side * 96 / explanation.image.width for side in explanation.box],
        SIZE,
    )


def test_images_of_one_scene_differ_in_how_many_objects_they_show_and_in_nothing_else(played):
    one, *_, four = (game.scene for game in played[:4])
    for count, game in enumerate(played[:4], start=1):
        assert game.name == played[0].name and game.scene.background == four.background
        assert game.scene.objects == four.objects[:count]
    assert one.caption in four.caption and played[4].name != played[0].name
    assert all(
        len({thing.noun for thing in game.scene.objects}) == len(game.scene.objects)
        for game in played
    )


def test_one_map_for_four_nouns_is_right_for_one_of_them_at_most(played, tiny):
    rows = study.play(tiny, [game for game in played if len(game.scene.objects) == 4])
    blind = rows[rows["question"] == "caption"]
    assert len(blind) == 8 and (blind.groupby("image")["hit"].sum() <= 1 + 1e-9).all()
    for row in blind.itertuples():
        rest = blind[(blind["image"] == row.image) & (blind["noun"] != row.noun)]
        assert row.on_others == pytest.approx(rest["on_thing"].sum())
    assert np.allclose(blind[["on_thing", "on_others", "on_nothing"]].sum(axis=1), 1)


def test_caption_prompt_and_contrast_are_those_of_explain(played, tiny):
    scene, explainer = played[2].scene, Explainer(tiny)
    maps = asked(tiny, [scene])
    names = [arrange([thing.noun]).caption for thing in scene.objects]
    fewer = arrange(list(scene.objects[:1] + scene.objects[2:])).caption
    (image,) = images_of(tiny, [scene])
    expected = explainer.explain(image, [scene.caption, *names])
    rather = explainer.explain(image, scene.caption, against=fewer)
    for found, map_ in [
        (maps["caption"][0, 0], expected.image_maps[0]),
        (maps["prompt"][0, 1], expected.image_maps[2]),
        (maps["contrast"][0, 1], rather.image_maps[0]),
    ]:
        assert np.allclose(
            shape(found),
            shape(on_scene(map_, expected)),
            atol=1e-4,
        )


def test_words_are_those_of_interactions_and_a_noun_of_two_words_is_their_sum(tiny):
    scene = arrange(["red car", "dog"])
    name = Span(2, 9, "noun", (0,))  # "red car", as if that were its noun
    scene = replace(scene, spans=(*(span for span in scene.spans if span.objects != (0,)), name))
    words, maps = (
        Explainer(tiny).interactions(*images_of(tiny, [scene]), scene.caption),
        asked(tiny, [scene]),
    )
    _, red, car, *_, dog = words.image_maps
    found = maps["word x region"][0]
    assert np.allclose(
        found, [on_scene(red + car, words), on_scene(dog, words)], atol=1e-5 * np.abs(found).max()
    )
    assert np.allclose(
        maps["word x region, centred"][0], found - found.mean(0), atol=1e-5 * np.abs(found).max()
    )


def test_images_in_a_batch_score_what_they_score_alone(played, tiny):
    together = study.play(tiny, played)
    alone = pd.concat([study.play(tiny, [game]) for game in played])
    keys = ["image", "objects", "noun", "question"]
    pd.testing.assert_frame_equal(
        together.set_index(keys).sort_index(),
        alone.set_index(keys).sort_index(),
        atol=1e-5,
        check_exact=False,
    )


def test_what_needs_a_second_object_is_not_asked_of_one(played, tiny):
    rows = study.play(tiny, played)
    asked_of_one = set(rows[rows["objects"] == 1]["question"])
    assert asked_of_one == {"caption", "prompt", "word x region"}
    assert set(rows[rows["objects"] == 2]["question"]) == set(study.QUESTIONS)
    assert not len(study.play(tiny, played[:1], questions=["contrast"]))


def test_a_caption_that_the_model_cannot_read_to_its_end_is_refused(tiny):
    scene = arrange(["cat", "dog", "car", "tree"])
    scene = replace(scene, caption=scene.caption + " in a photo of a photo" * 8)
    with pytest.raises(ValueError, match="reads only the beginning of"):
        study.play(tiny, [study.Game("long", scene)])
