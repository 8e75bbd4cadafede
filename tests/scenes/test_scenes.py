"""The world of the scenes: layouts, captions, masks and drawings are what they claim to be."""

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

ART_DIGEST = "575fefe16caae2dd"


@cache
def scene_number(i, **options):
    return draw_scene([77, i], split="development", **options)


def first_scenes(n, **options):
    return [scene_number(i, **options) for i in range(n)]


def test_the_same_seed_gives_the_same_scene_and_splits_never_meet():
    scene = draw_scene(5)
    assert draw_scene(5) == draw_scene([5]) == draw_scene([5, 0]) == scene
    assert draw_scene([0, 5]) != scene
    captions = []
    for split in scenes.SPLITS:
        captions.append({draw_scene(i, split=split).caption for i in range(20)})
    assert all(a != b for a, b in combinations(captions, 2))


# ---------------------------------------------------------------------------------- drawings


def read_drawings():
    """Name -> bytes of every drawing that is shipped."""
    with zipfile.ZipFile(data_path("art.zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_art_is_the_art_that_the_model_was_trained_on():
    digest = hashlib.sha256()
    for name, content in sorted(read_drawings().items()):
        digest.update(name.encode() + content)
    assert digest.hexdigest()[:16] == ART_DIGEST


def test_every_concept_has_five_drawings_or_more_and_no_two_concepts_share_one():
    drawings = read_drawings()
    assert len(set(drawings.values())) == len(drawings)
    artists = [scenes.artists_of(noun) for noun in concepts().index]
    assert sum(map(len, artists)) == len(drawings)
    for names in artists:
        assert len(set(names)) == len(names) >= 5
        assert scenes.UNSEEN_ARTIST in names
    assert set(scenes.TRAINED_ARTISTS) == set(scenes.ARTISTS) - {scenes.UNSEEN_ARTIST}


def test_half_are_mirrored_where_that_changes_nothing_and_all_are_tilted_a_little():
    things = []
    for scene in first_scenes(250):
        things += scene.objects
    assert set(concepts().index) >= NOT_MIRRORED
    assert not any(thing.mirrored for thing in things if thing.noun in NOT_MIRRORED)
    mirrored = [thing.mirrored for thing in things if thing.noun not in NOT_MIRRORED]
    assert 0.43 < np.mean(mirrored) < 0.57

    tilts = np.array([thing.tilt for thing in things])
    assert abs(tilts).max() <= 15
    assert tilts.std() > 7


def test_a_tint_leaves_one_hue():
    for colour, rgb in scenes.COLOURS.items():
        scene = arrange([f"{colour} car"])
        mean = np.asarray(scene.image(96))[scene.masks(96)[0]].mean(0)
        cosine = mean @ np.array(rgb) / np.linalg.norm(mean) / np.linalg.norm(rgb)
        assert cosine > 0.97, colour


def test_a_small_image_is_the_large_one_reduced():
    differences = []
    for scene in first_scenes(12):
        reduced = np.asarray(scene.image(384).resize((96, 96), Image.BICUBIC)).astype(int)
        differences.append(np.abs(reduced - np.asarray(scene.image(96))).mean())
    assert np.mean(differences) < 1.5  # of 255
    assert max(differences) < 5


# ------------------------------------------------------------------------------------- masks


def opacity(thing, backgrounds=(13, 43)):
    """How opaque an object is, (96, 96), by what shines through on two backgrounds."""
    with_thing = [render([thing], b, 96).astype(float) for b in backgrounds]
    without_thing = [render([], b, 96).astype(float) for b in backgrounds]
    difference = np.abs(without_thing[0] - without_thing[1])
    assert difference.min() > 60, "these backgrounds resemble each other"
    return 1 - np.mean(np.abs(with_thing[0] - with_thing[1]) / difference, axis=-1)


def test_a_mask_holds_the_pixels_that_its_object_covers_and_no_others():
    for scene in first_scenes(12, n_objects=3):
        opacities = np.array([opacity(thing) for thing in scene.objects])
        for i, mask in enumerate(scene.masks(96)):
            in_front = opacities[i + 1 :] > 0.5
            expected = (opacities[i] > 0.5) & ~in_front.any(0)
            # colours are whole numbers, so that an opacity near one half is uncertain
            certain = (np.abs(opacities[i:] - 0.5) > 0.04).all(0)
            assert certain.mean() > 0.95
            assert np.array_equal(mask[certain], expected[certain])


def test_an_object_hides_at_most_a_quarter_of_another_and_some_do():
    most_hidden = np.array(
        [hidden_fractions(scene.objects).max() for scene in first_scenes(120, n_objects=3)]
    )
    assert most_hidden.max() <= 0.25 + 0.02  # rims are counted in whole pixels
    assert 0.1 < (most_hidden > 0.02).mean() < 0.4


def test_the_border_cuts_some_things_and_never_half_of_one():
    inside = []
    for scene in first_scenes(100, n_objects=1):
        thing = scene.objects[0]
        centred = Object(
            thing.noun, thing.artist, size=thing.size, tilt=thing.tilt, mirrored=thing.mirrored
        )
        inside.append(scene.masks(96)[0].sum() / covered([centred], 96)[0].sum())
    assert min(inside) > 0.5
    assert 0.05 < np.mean(np.array(inside) < 0.95) < 0.4


def test_scenes_that_are_shown_have_nothing_cut_or_tiny():
    drawn = [draw_scene(i, split="test", n_objects=2) for i in range(30)]
    showable = [scene for scene in drawn if scenes.showable(scene)]
    assert showable
    for scene in showable:
        masks = np.stack([covered([thing], 96)[0] for thing in scene.objects])
        assert not masks[:, [0, -1]].any()
        assert not masks[:, :, [0, -1]].any()
    for thing in (Object("cat", x=4, y=48), Object("cat", size=8)):
        assert not scenes.showable(arrange([thing]))


# ----------------------------------------------------------------------------------- layouts


@pytest.fixture(scope="module")
def places_by_count():
    """For each number of objects, x, y and size (n, 3) of the first object in many scenes."""
    places = {}
    for n in (1, 2, 4):
        first_objects = [
            draw_scene([n, i], split="development", n_objects=n).objects[0] for i in range(250)
        ]
        places[n] = np.array([(thing.x, thing.y, thing.size) for thing in first_objects])
    return places


@pytest.mark.parametrize("count", [2, 4])
def test_where_a_thing_stands_and_how_big_it_is_do_not_depend_on_the_number_of_things(
    places_by_count, count
):
    """Overlapping layouts that hide too much are drawn again, too rarely to be found here."""
    single = places_by_count[1]
    places = places_by_count[count]
    for k in range(3):
        assert ks_2samp(single[:, k], places[:, k]).pvalue > 1e-3
    cells = []
    for x, y, _ in (single.T, places.T):
        histogram, _, _ = np.histogram2d(x, y, bins=4, range=[[0, 96], [0, 96]])
        cells.append(histogram.ravel() + 1)
    assert chi2_contingency(cells).pvalue > 1e-3


def test_things_stand_anywhere_and_are_of_any_size_in_the_range(places_by_count):
    x, y, size = np.concatenate(list(places_by_count.values())).T
    in_middle = (abs(x - 48) < 12) & (abs(y - 48) < 12)
    assert 0.04 < in_middle.mean() < 0.1  # a sixteenth of the places
    assert SIZES[0] <= size.min() < 27
    assert 62 < size.max() <= SIZES[2]
    assert 0.15 < (size < SMALL).mean() < 0.4
    assert 0.15 < (size > BIG).mean() < 0.4
    assert len(np.unique(size)) > 700


# ---------------------------------------------------------------------------------- captions


def assert_span_is_true(scene, span):
    text = scene.caption[span.start : span.end]
    things = [scene.objects[i] for i in span.objects]
    entry = concepts().loc[things[0].noun]
    if span.kind == "noun":
        assert text == (entry["plural"] if len(things) > 1 else entry["noun"])
    if span.kind == "colour":
        assert {thing.colour for thing in things} == {text}
    if span.kind == "count":
        assert text == {2: "two", 3: "three", 4: "four"}[len(things)]
    if span.kind == "keyword":
        assert text in entry["keywords"]
    if span.kind == "relation":
        kind = "size" if text.endswith("than") else "position"
        assert text == relation_between(*things, kind=kind)


def test_spans_say_which_words_describe_which_objects():
    for scene in first_scenes(250):
        named = set()
        for span in scene.spans:
            assert_span_is_true(scene, span)
            if span.kind in ("noun", "something"):
                named.update(span.objects)
        assert named == set(range(len(scene.objects))) - set(scene.unnamed)


def test_every_word_of_a_caption_is_in_the_vocabulary():
    vocabulary = set(scenes.vocabulary())
    for scene in first_scenes(250):
        assert set(scene.caption.replace(",", "").split()) <= vocabulary, scene.caption


def test_a_third_of_the_scenes_of_several_things_leave_one_or_two_unnamed():
    unnamed_counts = []
    for scene in first_scenes(250):
        assert scene.spans, "something is always named"
        if len({(thing.noun, thing.colour) for thing in scene.objects}) > 1:
            unnamed_counts.append(len({scene.objects[i].noun for i in scene.unnamed}))
    unnamed_counts = np.array(unnamed_counts)
    assert 0.25 < (unnamed_counts > 0).mean() < 0.42
    assert unnamed_counts.max() == 2
    assert not any(scene.unnamed for scene in first_scenes(60, plain=True))


def test_about_a_tenth_of_the_combinations_are_withheld_and_training_never_shows_them():
    assert all(is_trained(draw_scene(i).objects) for i in range(100))
    nouns = list(concepts().index)
    pairs = [is_withheld_pair(a, b) for a, b in combinations(nouns, 2)]
    colours = [is_withheld_colour(noun, colour) for noun in nouns for colour in scenes.COLOURS]
    assert 0.09 < np.mean(pairs) < 0.11
    assert 0.08 < np.mean(colours) < 0.12
    assert is_withheld_pair("cat", "dog") == is_withheld_pair("dog", "cat")
    assert not is_withheld_colour("cat", None)


@pytest.mark.parametrize(
    ("words", "caption"),
    [
        (["red car", "blue ball"], "a red car and a blue ball"),
        (["owl"], "an owl"),
        (["bread", "orange dice"], "bread and an orange dice"),
        (["cat", "cat", "dog"], "two cats and a dog"),
    ],
)
def test_captions_read_as_people_write(words, caption):
    assert arrange(words).caption == caption


def test_captions_have_openings_keywords_and_relations():
    three = arrange(["cat", "dog", "sun"], prefix="a photo of")
    assert three.caption == "a photo of a cat, a dog and a sun"
    tagged, _ = scenes.describe([Object("dove")], tag=["peace"], named=[False])
    assert tagged == "something tagged peace"
    assert arrange(["cat", "dog"], relation="above").caption == "a cat above a dog"


def test_more_than_four_objects_can_be_placed_by_hand():
    nouns = ["cat", "dog", "car", "sun", "key"]
    scene = arrange([Object(noun, x=16 * i + 16, size=14) for i, noun in enumerate(nouns)])
    assert scene.caption == "a cat, a dog, a car, a sun and a key"
    assert scene.masks(96).any((1, 2)).all()


def test_relations_are_those_of_the_image():
    left = Object("cat", x=20, y=50, size=30)
    right = Object("dog", x=70, y=45, size=40)
    assert relation_between(left, right) == "to the left of"
    assert relation_between(right, left, kind="size") == "bigger than"
    assert relation_between(left, left, kind="size") == ""


# ------------------------------------------------------------------------- scenes of one's own


def test_words_are_laid_out_by_a_seed_around_objects_that_have_a_place():
    assert arrange(["cat", "dog"]) == arrange(["cat", "dog"])
    assert arrange(["cat", "dog"]) != arrange(["cat", "dog"], seed=1)
    sun = Object("sun", x=20, y=20, size=30)
    scene = arrange(["cat", sun, "dog"], seed=3)
    assert scene.objects[1] == sun
    assert scene.caption == "a cat, a sun and a dog"
    assert hidden_fractions(scene.objects).max() < 0.1
    assert all(thing.artist in scenes.TRAINED_ARTISTS for thing in scene.objects)


def test_recolouring_and_leaving_out_change_nothing_else():
    scene = arrange(["red car", "blue ball"], background=3)
    swapped = scenes.recoloured(scene, ["blue", "red"])
    assert swapped.caption == "a blue car and a red ball"
    assert swapped.background == 3
    for thing, before in zip(swapped.objects, scene.objects, strict=True):
        assert (thing.x, thing.y, thing.size) == (before.x, before.y, before.size)

    single = scenes.without(scene, 0)
    assert single.caption == "a blue ball"
    assert single.objects == scene.objects[1:]


def test_python_that_makes_a_scene_again_is_given_for_words_objects_and_a_thing_left_unnamed():
    words = arrange(["red car", "cat"], seed=2)
    by_hand = arrange([Object("cat", x=20), Object("dog", x=70)], background=4, unnamed=[1])
    for scene in (words, by_hand):
        assert eval(scenes.as_python(scene)) == scene
    assert scenes.as_python(words) == "arrange(['red car', 'cat'], seed=2)"


def test_a_scene_shows_itself_and_says_what_it_shows():
    scene = arrange(["red car", "cat"])
    data, metadata = scene._repr_mimebundle_()
    shown_image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    difference = np.asarray(shown_image, float) - np.asarray(scene.image(), float)
    assert np.abs(difference).mean() < 4  # of 255: a PNG of 256 colours
    assert metadata["image/png"]["alt"] == data["text/plain"] == f"a scene: {scene.caption}"
