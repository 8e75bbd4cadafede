"""The world of the scenes: captions, masks, withheld combinations and drawings are what they claim to be."""

import base64
import hashlib
import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.scenes import (
    ARTISTS,
    CANVAS,
    COLOURS,
    NUMBERS,
    SPLITS,
    Object,
    arrange,
    companion,
    concepts,
    covered,
    describe,
    draw_scene,
    is_trained,
    is_withheld_colour,
    is_withheld_pair,
    recoloured,
    relation_between,
    render,
    vocabulary,
    withheld_artist,
    without,
)
from gradeclip_utils.scenes.art import svg

ART = "bf254f110e9f4b5b"


def some(n, **options):
    return [draw_scene([77, i], split="development", **options) for i in range(n)]


def test_the_same_seed_gives_the_same_scene_and_splits_never_meet():
    assert draw_scene(5) == draw_scene(5)
    texts = {split: {draw_scene(i, split=split).caption for i in range(50)} for split in SPLITS}
    assert all(texts[a] != texts[b] for a, b in combinations(texts, 2))


def test_the_art_is_the_art_that_the_model_was_trained_on():
    """A new release of either package may redraw an emoji: then the model must be trained and measured again."""
    digest = hashlib.sha256()
    for noun in concepts(removed=True).index:
        for artist in ARTISTS:
            digest.update(svg(noun, artist).encode())
    assert digest.hexdigest()[:16] == ART


def test_every_concept_has_two_drawings_and_no_two_concepts_share_one():
    drawings = {(noun, artist): svg(noun, artist) for noun in concepts(removed=True).index for artist in ARTISTS}
    assert len(set(drawings.values())) == len(drawings)


def test_every_word_of_every_caption_is_in_the_vocabulary():
    known = set(vocabulary())
    for scene in some(400):
        assert set(scene.caption.replace(",", "").split()) <= known, scene.caption


def test_concepts_that_the_model_hardly_recognises_are_drawn_for_training_only():
    removed = set(concepts(removed=True).index) - set(concepts().index)
    shown = {t.noun for scene in some(1000, n_objects=4) for t in scene.objects}
    trained = {t.noun for i in range(1000) for t in draw_scene(i, n_objects=4).objects}
    assert len(shown) > 300 and not shown & removed
    assert removed <= trained
    for noun in removed:
        with pytest.raises(ValueError, match=f"{noun}.*is not in the world"):
            arrange([noun])


def test_spans_say_which_words_speak_of_which_objects():
    for scene in some(300):
        for span in scene.spans:
            text, things = scene.caption[span.start : span.end], [scene.objects[i] for i in span.objects]
            if span.kind == "noun":
                entry = concepts().loc[things[0].noun]
                assert text == (entry["plural"] if len(things) > 1 else entry["noun"])
            if span.kind == "colour":
                assert {t.colour for t in things} == {text}
            if span.kind == "count":
                assert text == NUMBERS[len(things)]
            if span.kind == "keyword":
                assert text in concepts().loc[things[0].noun, "keywords"]
            if span.kind == "relation":
                kind = "size" if text.endswith("than") else "position"
                assert text == relation_between(*things, kind=kind)
        told = {i for span in scene.spans if span.kind in ("noun", "something") for i in span.objects}
        assert told == set(range(len(scene.objects))), "every object is spoken of"


def test_a_companion_shows_the_same_things_with_their_colours_passed_on():
    told_apart = 0
    for i, scene in enumerate(some(200, tint=0.5)):
        other = companion(scene, [78, i], split="development")
        if other is None:
            continue
        told_apart += 1
        known = {(t.noun, t.colour) for t in scene.objects}
        assert sorted(t.noun for t in other.objects) == sorted(t.noun for t in scene.objects)
        assert {t.colour for t in other.objects} == {t.colour for t in scene.objects}
        assert {(t.noun, t.colour) for t in other.objects} != known
        assert is_trained(other)
    assert told_apart > 60


def test_a_scene_without_two_colours_has_no_companion():
    assert companion(arrange(["red car"]), 0) is None
    assert companion(arrange(["car", "ball"]), 0) is None
    assert companion(arrange(["red car", "red balloon"]), 0) is None
    assert {(t.noun, t.colour) for t in companion(arrange(["red car", "balloon"]), 0).objects} == {
        ("car", None),
        ("balloon", "red"),
    }


def test_training_never_shows_what_is_withheld():
    assert all(is_trained(scene) for scene in some(500))
    assert not all(is_trained(scene) for scene in some(100, trained=False))


def test_about_a_tenth_of_the_combinations_and_a_fifth_of_the_drawings_are_withheld():
    nouns = list(concepts().index)
    pairs = np.mean([is_withheld_pair(a, b) for a, b in combinations(nouns, 2)])
    colours = np.mean([is_withheld_colour(noun, colour) for noun in nouns for colour in COLOURS])
    artists = np.mean([withheld_artist(noun) is not None for noun in nouns])
    assert 0.09 < pairs < 0.11 and 0.08 < colours < 0.12 and 0.15 < artists < 0.25
    assert is_withheld_pair("cat", "dog") == is_withheld_pair("dog", "cat")
    assert not is_withheld_colour("cat", None)


def test_objects_that_share_a_picture_stay_in_quadrants_of_their_own():
    for scene in some(60, n_objects=4):
        masks = scene.masks(96)
        quadrants = [(m[:48].any(), m[48:].any(), m[:, :48].any(), m[:, 48:].any()) for m in masks]
        assert len(set(quadrants)) == 4 and all(sum(q) == 2 for q in quadrants), scene.caption


def test_a_mask_holds_exactly_the_pixels_that_change_when_the_object_goes():
    for scene in some(20, n_objects=3):
        picture = np.asarray(scene.image(96)).astype(int)
        for i, mask in enumerate(scene.masks(96)):
            rest = [t for j, t in enumerate(scene.objects) if j != i]
            changed = np.abs(picture - render(rest, scene.background, 96)).max(-1)
            assert not (changed[~mask] > 0).any() or changed[~mask].max() < 140  # half-covered rims lie outside
            surely = changed > 140
            assert not (surely & ~mask).any()


def test_what_lies_in_front_hides_what_lies_behind():
    masks = covered([Object("moon", size=64), Object("sun", size=30)], 96)
    assert not (masks[0] & masks[1]).any() and masks[1].any() and masks[0].any()


def test_a_small_picture_is_the_large_one_reduced():
    for scene in some(80):
        reduced = np.asarray(scene.image(384).resize((96, 96), Image.BICUBIC)).astype(int)
        assert np.abs(reduced - np.asarray(scene.image(96))).mean() < 3, scene


def test_a_picture_that_is_no_multiple_of_the_canvas_is_refused():
    with pytest.raises(ValueError, match="100 pixels: choose a multiple of 96"):
        draw_scene(0).image(100)


def test_a_tint_leaves_one_hue():
    for colour, rgb in COLOURS.items():
        scene = arrange([f"{colour} car"])
        inside = np.asarray(scene.image(96))[scene.masks(96)[0]].mean(0)
        cosine = inside @ np.array(rgb) / np.linalg.norm(inside) / np.linalg.norm(rgb)
        assert cosine > 0.97, colour


def test_captions_read_as_people_write():
    assert arrange(["red car", "blue ball"]).caption == "a red car and a blue ball"
    assert arrange(["owl"]).caption == "an owl"
    assert arrange(["bread", "orange dice"]).caption == "bread and an orange dice"
    assert arrange(["cat", "cat", "dog"]).caption == "two cats and a dog"
    assert arrange(["cat", "dog", "sun"], prefix="a photo of").caption == "a photo of a cat, a dog and a sun"
    assert describe([Object("dove")], tag=["peace"], named=[False])[0] == "something tagged peace"
    assert arrange(["cat", "dog"], relation="above").caption == "a cat above a dog"


@pytest.mark.parametrize("words", [["striped car"], ["red blue car"], ["carr"], [""]])
def test_a_word_that_the_world_does_not_have_is_refused_by_name(words):
    with pytest.raises(ValueError, match=f"{words[0]!r} is not in the world of the scenes"):
        arrange(words)


def test_a_scene_shows_itself_and_says_what_it_shows():
    scene = arrange(["red car", "cat"])
    data, metadata = scene._repr_mimebundle_()
    shown = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert np.array_equal(np.asarray(shown), np.asarray(scene.image()))
    assert metadata["image/png"]["alt"] == f"a scene: {scene.caption}" and data["text/plain"] == scene.caption


def test_a_scene_of_five_words_is_refused():
    with pytest.raises(ValueError, match="one to four words, and 5 were given"):
        arrange(["cat"] * 5)


def test_relations_are_those_of_the_picture():
    left, right = Object("cat", x=20, y=50, size=30), Object("dog", x=70, y=45, size=40)
    assert relation_between(left, right) == "to the left of"
    assert relation_between(right, left, kind="size") == "bigger than"
    assert relation_between(left, left, kind="size") == ""


def test_recolouring_and_leaving_out_keep_everything_else():
    scene = arrange(["red car", "blue ball"], background=3)
    swapped = recoloured(scene, ["blue", "red"])
    assert swapped.caption == "a blue car and a red ball" and swapped.background == 3
    assert [(t.x, t.y, t.size) for t in swapped.objects] == [(t.x, t.y, t.size) for t in scene.objects]
    alone = without(scene, 0)
    assert alone.caption == "a blue ball" and alone.objects == scene.objects[1:]
    assert CANVAS == 96
