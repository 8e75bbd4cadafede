"""The world of the scenes: layouts, captions, masks, what is withheld, and drawings are what they claim to be."""

import base64
import hashlib
import io
import zipfile
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp

from gradeclip_utils import scenes
from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import Object, arrange, concepts, draw_scene
from gradeclip_utils.scenes.emoji import NOT_MIRRORED, covered, render
from gradeclip_utils.scenes.grammar import relation_between
from gradeclip_utils.scenes.scene import (
    BIG,
    SIZES,
    SMALL,
    hidden_fractions,
    is_withheld_colour,
    is_withheld_pair,
)
from tests.scenes import is_trained

DRAWINGS = "575fefe16caae2dd"


@cache
def numbered(i, **options):
    return draw_scene([77, i], split="development", **options)


def some(n, **options):
    return [numbered(i, **options) for i in range(n)]


def test_the_same_seed_gives_the_same_scene_and_splits_never_meet():
    assert (
        draw_scene(5)
        == draw_scene(5)
        == draw_scene([5])
        == draw_scene([5, 0])
        != draw_scene([0, 5])
    )
    texts = {
        split: {draw_scene(i, split=split).caption for i in range(20)} for split in scenes.SPLITS
    }
    assert all(texts[a] != texts[b] for a, b in combinations(texts, 2))


def drawings():
    """Name -> bytes of every drawing that is shipped."""
    with zipfile.ZipFile(data_path("art.zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_art_is_the_art_that_the_model_was_trained_on():
    digest = hashlib.sha256()
    for name, content in sorted(drawings().items()):
        digest.update(name.encode() + content)
    assert digest.hexdigest()[:16] == DRAWINGS


def test_every_concept_has_five_drawings_or_more_and_no_two_concepts_share_one():
    artists = [scenes.artists_of(noun) for noun in concepts().index]
    assert len(set(drawings().values())) == len(drawings()) == sum(map(len, artists))
    assert all(
        len(drew) == len(set(drew)) >= 5 and scenes.UNSEEN_ARTIST in drew for drew in artists
    )
    assert set(scenes.TRAINED_ARTISTS) == set(scenes.ARTISTS) - {scenes.UNSEEN_ARTIST}


def test_spans_say_which_words_speak_of_which_objects_and_every_word_is_in_the_vocabulary():
    known = set(scenes.vocabulary())
    for scene in some(250):
        assert set(scene.caption.replace(",", "").split()) <= known, scene.caption
        for span in scene.spans:
            text, things = (
                scene.caption[span.start : span.end],
                [scene.objects[i] for i in span.objects],
            )
            if span.kind == "noun":
                entry = concepts().loc[things[0].noun]
                assert text == (entry["plural"] if len(things) > 1 else entry["noun"])
            if span.kind == "colour":
                assert {t.colour for t in things} == {text}
            if span.kind == "count":
                assert text == {2: "two", 3: "three", 4: "four"}[len(things)]
            if span.kind == "keyword":
                assert text in concepts().loc[things[0].noun, "keywords"]
            if span.kind == "relation":
                kind = "size" if text.endswith("than") else "position"
                assert text == relation_between(*things, kind=kind)
        told = {
            i for span in scene.spans if span.kind in ("noun", "something") for i in span.objects
        }
        assert told == set(range(len(scene.objects))) - set(scene.unnamed)


def test_a_third_of_the_scenes_of_several_things_leave_one_or_two_unnamed():
    several = [s for s in some(250) if len({(o.noun, o.colour) for o in s.objects}) > 1]
    left_out = np.array([len({s.objects[i].noun for i in s.unnamed}) for s in several])
    assert 0.25 < (left_out > 0).mean() < 0.42 and left_out.max() == 2
    assert all(s.spans for s in several), "something is always named"
    assert not any(s.unnamed for s in some(60, plain=True))


def test_about_a_tenth_of_the_combinations_are_withheld_and_training_never_shows_them():
    assert all(is_trained(draw_scene(i).objects) for i in range(100))
    nouns = list(concepts().index)
    pairs = np.mean([is_withheld_pair(a, b) for a, b in combinations(nouns, 2)])
    colours = np.mean(
        [is_withheld_colour(noun, colour) for noun in nouns for colour in scenes.COLOURS]
    )
    assert 0.09 < pairs < 0.11 and 0.08 < colours < 0.12
    assert is_withheld_pair("cat", "dog") == is_withheld_pair("dog", "cat")
    assert not is_withheld_colour("cat", None)


@pytest.fixture(scope="module")
def by_number():
    """For each number of objects, x, y and size of the first object in many scenes."""
    drawn = {}
    for n in (1, 2, 4):
        objects = [
            draw_scene([n, i], split="development", n_objects=n).objects[0] for i in range(250)
        ]
        drawn[n] = np.array([(o.x, o.y, o.size) for o in objects])
    return drawn


@pytest.mark.parametrize("other", [2, 4])
def test_where_a_thing_stands_and_how_big_it_is_say_nothing_of_how_many_there_are(by_number, other):
    """Overlapping layouts that hide too much are drawn again, rarely: a Kolmogorov-Smirnov test finds nothing."""
    for k in range(3):
        assert ks_2samp(by_number[1][:, k], by_number[other][:, k]).pvalue > 1e-3
    cells = [
        np.histogram2d(*by_number[n][:, :2].T, bins=4, range=[[0, 96]] * 2)[0].ravel()
        for n in (1, other)
    ]
    assert chi2_contingency(np.array(cells) + 1).pvalue > 1e-3


def test_things_stand_anywhere_and_are_of_any_size_in_the_range(by_number):
    x, y, size = np.concatenate(list(by_number.values())).T
    middle = (abs(x - 48) < 12) & (abs(y - 48) < 12)
    assert 0.04 < middle.mean() < 0.1  # a sixteenth of the places
    assert SIZES[0] <= size.min() < 27 and 62 < size.max() <= SIZES[2]
    assert 0.15 < (size < SMALL).mean() < 0.4 and 0.15 < (size > BIG).mean() < 0.4
    assert len(np.unique(size)) > 700


def test_an_object_hides_at_most_a_quarter_of_another_and_some_do():
    most = [hidden_fractions(s.objects).max() for s in some(120, n_objects=3)]
    assert max(most) <= 0.25 + 0.02  # rims are counted in whole pixels
    assert 0.1 < np.mean(np.array(most) > 0.02) < 0.4


def test_the_border_cuts_some_things_and_never_half_of_one():
    inside = []
    for scene in some(100, n_objects=1):
        thing = scene.objects[0]
        whole = Object(
            thing.noun, thing.artist, size=thing.size, tilt=thing.tilt, mirrored=thing.mirrored
        )
        inside.append(scene.masks(96)[0].sum() / covered([whole], 96)[0].sum())
    assert min(inside) > 0.5 and 0.05 < np.mean(np.array(inside) < 0.95) < 0.4


def test_half_are_mirrored_where_that_changes_nothing_and_all_are_tilted_a_little():
    things = [t for s in some(250) for t in s.objects]
    free = [t.mirrored for t in things if t.noun not in NOT_MIRRORED]
    assert 0.43 < np.mean(free) < 0.57 and not any(
        t.mirrored for t in things if t.noun in NOT_MIRRORED
    )
    assert set(concepts().index) >= NOT_MIRRORED
    assert max(abs(t.tilt) for t in things) <= 15 and np.std([t.tilt for t in things]) > 7


def opacity(thing, backgrounds=(13, 43)):
    """How opaque an object is, (96, 96), told from what shines through: images of it on two backgrounds."""
    with_it, without_it = (
        [render(shown, b, 96).astype(float) for b in backgrounds] for shown in ([thing], [])
    )
    apart = np.abs(without_it[0] - without_it[1])
    assert apart.min() > 60, "these backgrounds resemble each other"
    return 1 - np.mean(np.abs(with_it[0] - with_it[1]) / apart, axis=-1)


def test_a_mask_holds_the_pixels_that_its_object_covers_and_no_others():
    for scene in some(12, n_objects=3):
        solid = np.array([opacity(thing) for thing in scene.objects])
        for i, mask in enumerate(scene.masks(96)):
            expected = (solid[i] > 0.5) & ~(solid[i + 1 :] > 0.5).any(0)
            surely = (np.abs(solid[i:] - 0.5) > 0.04).all(0)  # colours are whole numbers
            assert surely.mean() > 0.95 and np.array_equal(mask[surely], expected[surely])


def test_a_small_image_is_the_large_one_reduced():
    far = []
    for scene in some(12):
        reduced = np.asarray(scene.image(384).resize((96, 96), Image.BICUBIC)).astype(int)
        far.append(np.abs(reduced - np.asarray(scene.image(96))).mean())
    assert np.mean(far) < 1.5 and max(far) < 5  # of 255


def test_a_tint_leaves_one_hue():
    for colour, rgb in scenes.COLOURS.items():
        scene = arrange([f"{colour} car"])
        inside = np.asarray(scene.image(96))[scene.masks(96)[0]].mean(0)
        cosine = inside @ np.array(rgb) / np.linalg.norm(inside) / np.linalg.norm(rgb)
        assert cosine > 0.97, colour


def test_captions_read_as_people_write():
    assert arrange(["red car", "blue ball"]).caption == "a red car and a blue ball"
    assert arrange(["owl"]).caption == "an owl"
    assert arrange(["bread", "orange dice"]).caption == "bread and an orange dice"
    assert arrange(["cat", "cat", "dog"]).caption == "two cats and a dog"
    assert (
        arrange(["cat", "dog", "sun"], prefix="a photo of").caption
        == "a photo of a cat, a dog and a sun"
    )
    assert (
        scenes.describe([Object("dove")], tag=["peace"], named=[False])[0]
        == "something tagged peace"
    )
    assert arrange(["cat", "dog"], relation="above").caption == "a cat above a dog"
    five = arrange(
        [
            Object(noun, x=16 * i + 16, size=14)
            for i, noun in enumerate(["cat", "dog", "car", "sun", "key"])
        ]
    )
    assert (
        five.caption == "a cat, a dog, a car, a sun and a key" and five.masks(96).any((1, 2)).all()
    )


def test_a_scene_shows_itself_and_says_what_it_shows():
    scene = arrange(["red car", "cat"])
    data, metadata = scene._repr_mimebundle_()
    shown = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    apart = np.asarray(shown.convert("RGB"), float) - np.asarray(
        scene.image().convert("RGB"), float
    )
    assert (
        shown.size == scene.image().size and np.abs(apart).mean() < 4
    )  # of 255: a PNG of 256 colours
    assert metadata["image/png"]["alt"] == data["text/plain"] == f"a scene: {scene.caption}"


def test_words_are_laid_out_by_a_seed_around_objects_that_have_a_place():
    assert arrange(["cat", "dog"]) == arrange(["cat", "dog"]) != arrange(["cat", "dog"], seed=1)
    given = Object("sun", x=20, y=20, size=30)
    scene = arrange(["cat", given, "dog"], seed=3)
    assert scene.objects[1] == given and scene.caption == "a cat, a sun and a dog"
    assert hidden_fractions(scene.objects).max() < 0.1
    assert all(t.artist in scenes.TRAINED_ARTISTS for t in scene.objects)
    with pytest.raises(ValueError, match="no room for other objects beside these 1"):
        arrange(["cat", Object("sun", size=190)])


def test_relations_are_those_of_the_image():
    left, right = Object("cat", x=20, y=50, size=30), Object("dog", x=70, y=45, size=40)
    assert relation_between(left, right) == "to the left of"
    assert relation_between(right, left, kind="size") == "bigger than"
    assert relation_between(left, left, kind="size") == ""


def test_recolouring_and_leaving_out_keep_everything_else():
    scene = arrange(["red car", "blue ball"], background=3)
    swapped = scenes.recoloured(scene, ["blue", "red"])
    assert swapped.caption == "a blue car and a red ball" and swapped.background == 3
    assert [(t.x, t.y, t.size) for t in swapped.objects] == [
        (t.x, t.y, t.size) for t in scene.objects
    ]
    alone = scenes.without(scene, 0)
    assert alone.caption == "a blue ball" and alone.objects == scene.objects[1:]


def test_scenes_that_are_shown_have_nothing_cut_or_tiny():
    found = [
        scene
        for i in range(30)
        if scenes.showable(scene := draw_scene(i, split="test", n_objects=2))
    ]
    assert found
    for scene in found:
        masks = np.stack([covered([thing], 96)[0] for thing in scene.objects])
        assert not masks[:, [0, -1]].any() and not masks[:, :, [0, -1]].any()
    for thing in (Object("cat", x=4, y=48), Object("cat", size=8)):
        assert not scenes.showable(arrange([thing]))
