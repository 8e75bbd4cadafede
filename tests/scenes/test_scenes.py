"""The world of the scenes: layouts, captions, masks and drawings are what they claim to be."""

import base64
import hashlib
import io
import zipfile
from dataclasses import replace
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image, ImageChops
from scipy.stats import chi2_contingency, ks_2samp

from gradeclip_utils import scenes
from gradeclip_utils.errors import GradeclipError
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
    captions = {draw_scene(5, split=split).caption for split in scenes.SPLITS}
    assert len(captions) == len(scenes.SPLITS)


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
    count = 0
    for noun in concepts().index:
        artists = scenes.artists_of(noun)
        assert len(set(artists)) == len(artists) >= 5
        assert scenes.UNSEEN_ARTIST in artists
        count += len(artists)
    assert count == len(drawings)
    assert {*scenes.TRAINED_ARTISTS, scenes.UNSEEN_ARTIST} == set(scenes.ARTISTS)
    assert scenes.UNSEEN_ARTIST not in scenes.TRAINED_ARTISTS


def test_half_are_mirrored_where_that_changes_nothing_and_all_are_tilted_a_little():
    things = []
    for scene in first_scenes(150):
        things += scene.objects
    assert set(concepts().index) >= NOT_MIRRORED
    mirrored = []
    for thing in things:
        if thing.noun in NOT_MIRRORED:
            assert not thing.mirrored
        else:
            mirrored.append(thing.mirrored)
    assert 0.43 < np.mean(mirrored) < 0.57

    tilts = np.array([thing.tilt for thing in things])
    assert abs(tilts).max() <= 15
    assert tilts.std() > 7


def test_a_tint_leaves_one_hue():
    for colour, rgb in scenes.COLOURS.items():
        scene = arrange([f"{colour} car"])
        (mask,) = scene.masks(96)
        image = np.asarray(scene.image(96))
        mean = image[mask].mean(axis=0)
        lengths = np.linalg.norm([mean, rgb], axis=1)
        cosine = mean @ rgb / lengths.prod()
        assert cosine > 0.97, colour


@pytest.mark.parametrize("size", [96, 150])
def test_a_small_image_is_the_large_one_reduced(size):
    differences = []
    for scene in first_scenes(12):
        large = scene.image(384)
        reduced = large.resize((size, size), Image.BICUBIC)
        difference = ImageChops.difference(reduced, scene.image(size))
        differences.append(np.mean(difference))
    assert np.mean(differences) < 1.5  # of 255
    assert max(differences) < 5


# ------------------------------------------------------------------------------------- masks


def opacity(thing, backgrounds=(13, 43)):
    """How opaque an object is, (96, 96), by what shines through on two backgrounds."""
    with_thing = [render([thing], b, 96).astype(float) for b in backgrounds]
    without_thing = [render([], b, 96).astype(float) for b in backgrounds]
    difference = np.abs(np.subtract(*without_thing))
    assert difference.min() > 60, "these backgrounds resemble each other"
    shining_through = np.abs(np.subtract(*with_thing)) / difference
    return 1 - shining_through.mean(axis=-1)


def test_a_mask_holds_the_pixels_that_its_object_covers_and_no_others():
    for scene in first_scenes(12, n_objects=3):
        opacities = np.array([opacity(thing) for thing in scene.objects])
        covers = opacities > 0.5
        # colours are whole numbers, so that an opacity near one half is uncertain
        is_certain = np.abs(opacities - 0.5) > 0.04
        for i, mask in enumerate(scene.masks(96)):
            in_front = covers[i + 1 :].any(axis=0)
            expected = covers[i] & ~in_front
            certain = is_certain[i:].all(axis=0)
            assert certain.mean() > 0.95
            assert np.array_equal(mask[certain], expected[certain])


def test_an_object_hides_at_most_a_quarter_of_another_and_some_do():
    scenes_of_three = first_scenes(80, n_objects=3)
    hidden = np.array([hidden_fractions(scene.objects).max() for scene in scenes_of_three])
    assert hidden.max() <= 0.25 + 0.02  # rims are counted in whole pixels
    hides_something = hidden > 0.02
    assert 0.1 < hides_something.mean() < 0.4


def test_the_border_cuts_some_things_and_never_half_of_one():
    inside = []
    for scene in first_scenes(100, n_objects=1):
        (thing,) = scene.objects
        centred = replace(thing, x=48, y=48)
        visible = scene.masks(96).sum()
        whole = covered([centred], 96).sum()
        inside.append(visible / whole)
    inside = np.array(inside)
    is_cut = inside < 0.95
    assert inside.min() > 0.5
    assert 0.05 < is_cut.mean() < 0.4


def test_scenes_that_are_shown_have_nothing_cut_or_tiny():
    drawn = [draw_scene(i, split="test", n_objects=2) for i in range(30)]
    showable = [scene for scene in drawn if scenes.showable(scene)]
    assert showable
    for scene in showable:
        is_covered = scene.masks(96).any(axis=0)
        assert not is_covered[[0, -1]].any()
        assert not is_covered[:, [0, -1]].any()

    cut = Object("cat", x=4, y=48)
    tiny = Object("cat", size=8)
    for thing in (cut, tiny):
        assert not scenes.showable(arrange([thing]))


# ----------------------------------------------------------------------------------- layouts


@pytest.fixture(scope="module")
def places_by_count():
    """For each number of objects, x, y and size (n, 3) of the first object in many scenes."""
    places = {}
    for n in (1, 2, 4):
        rows = []
        for i in range(150):
            first, *_ = draw_scene([n, i], split="development", n_objects=n).objects
            rows.append((first.x, first.y, first.size))
        places[n] = np.array(rows)
    return places


@pytest.mark.parametrize("count", [2, 4])
def test_where_a_thing_stands_and_how_big_it_is_do_not_depend_on_the_number_of_things(
    places_by_count, count
):
    """Overlapping layouts that hide too much are drawn again, too rarely to be found here."""
    single = places_by_count[1].T
    several = places_by_count[count].T
    assert ks_2samp(single, several, axis=1).pvalue.min() > 1e-3
    cells = []
    for x, y, _ in (single, several):
        histogram, *_ = np.histogram2d(x, y, bins=4, range=[[0, 96], [0, 96]])
        cells.append(histogram.ravel() + 1)
    assert chi2_contingency(cells).pvalue > 1e-3


def test_things_stand_anywhere_and_are_of_any_size_in_the_range(places_by_count):
    places = np.concatenate([*places_by_count.values()])
    x, y, size = places.T
    from_middle = np.maximum(abs(x - 48), abs(y - 48))
    in_middle = from_middle < 12
    assert 0.04 < in_middle.mean() < 0.1  # a sixteenth of the places
    smallest, _, largest = SIZES
    assert smallest <= size.min() < 27
    assert 62 < size.max() <= largest
    small = np.mean(size < SMALL)
    big = np.mean(size > BIG)
    assert 0.15 < small < 0.4
    assert 0.15 < big < 0.4
    assert len(np.unique(size)) > 420


# ---------------------------------------------------------------------------------- captions


def assert_span_is_true(scene, span):
    text = scene.caption[span.start : span.end]
    things = [scene.objects[i] for i in span.objects]
    entry = concepts().loc[things[0].noun]
    if span.kind == "noun":
        expected = entry["plural"] if len(things) > 1 else entry["noun"]
        assert text == expected
    if span.kind == "colour":
        assert {thing.colour for thing in things} == {text}
    if span.kind == "count":
        numbers = {"two": 2, "three": 3, "four": 4}
        assert numbers[text] == len(things)
    if span.kind == "keyword":
        assert text in entry["keywords"]
    if span.kind == "relation":
        kind = "size" if text.endswith("than") else "position"
        assert text == relation_between(*things, kind=kind)


def test_spans_say_which_words_describe_which_objects():
    for scene in first_scenes(150):
        named = set()
        for span in scene.spans:
            assert_span_is_true(scene, span)
            if span.kind in ("noun", "something"):
                named.update(span.objects)
        everything = set(range(len(scene.objects)))
        assert named == everything - set(scene.unnamed)


def test_every_word_of_a_caption_is_in_the_vocabulary():
    vocabulary = set(scenes.vocabulary())
    for scene in first_scenes(150):
        words = scene.caption.replace(",", "").split()
        assert set(words) <= vocabulary, scene.caption


def test_a_third_of_the_scenes_of_several_things_leave_one_or_two_unnamed():
    unnamed_counts = []
    for scene in first_scenes(150):
        assert scene.spans, "something is always named"
        kinds = {(thing.noun, thing.colour) for thing in scene.objects}
        if len(kinds) > 1:
            unnamed_nouns = {scene.objects[i].noun for i in scene.unnamed}
            unnamed_counts.append(len(unnamed_nouns))
    has_unnamed = np.array(unnamed_counts) > 0
    assert 0.25 < has_unnamed.mean() < 0.42
    assert max(unnamed_counts) == 2
    assert not any(scene.unnamed for scene in first_scenes(60, plain=True))


def test_about_a_tenth_of_the_combinations_are_withheld_and_training_never_shows_them():
    for i in range(100):
        scene = draw_scene(i)
        assert is_trained(scene.objects)
    nouns = concepts().index
    pairs = [is_withheld_pair(a, b) for a, b in combinations(nouns, 2)]
    colours = [is_withheld_colour(noun, tint) for noun, tint in product(nouns, scenes.COLOURS)]
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
    related = arrange(["cat", "dog"], relation="above")
    assert related.caption == "a cat above a dog"


def test_more_than_four_objects_can_be_placed_by_hand():
    nouns = ["cat", "dog", "car", "sun", "key"]
    objects = [Object(noun, x=16 + 16 * k, size=14) for k, noun in enumerate(nouns)]
    scene = arrange(objects)
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
    words = ["cat", "dog"]
    assert arrange(words) == arrange(words)
    assert arrange(words) != arrange(words, seed=1)

    sun = Object("sun", x=20, y=20, size=30)
    scene = arrange(["cat", sun, "dog"], seed=3)
    assert scene.objects[1] == sun
    assert scene.caption == "a cat, a sun and a dog"
    hidden = hidden_fractions(scene.objects)
    assert hidden.max() < 0.1
    artists = {thing.artist for thing in scene.objects}
    assert artists <= set(scenes.TRAINED_ARTISTS)


def test_recolouring_and_leaving_out_change_nothing_else():
    scene = arrange(["red car", "blue ball"], background=3)
    swapped = scenes.recoloured(scene, ["blue", "red"])
    assert swapped.caption == "a blue car and a red ball"
    assert swapped.background == 3
    for thing, before in zip(swapped.objects, scene.objects, strict=True):
        assert replace(thing, colour=before.colour) == before

    single = scenes.without(scene, 0)
    assert single.caption == "a blue ball"
    assert single.objects == scene.objects[1:]


def test_python_that_makes_a_scene_again_is_given_for_words_objects_and_a_thing_left_unnamed():
    words = arrange(["red car", "cat"], seed=2)
    objects = [Object("cat", x=20), Object("dog", x=70)]
    by_hand = arrange(objects, background=4, unnamed=[1])
    for scene in (words, by_hand):
        assert eval(scenes.as_python(scene)) == scene
    assert scenes.as_python(words) == "arrange(['red car', 'cat'], seed=2)"


def test_a_scene_shows_itself_and_says_what_it_shows():
    scene = arrange(["red car", "cat"])
    data, metadata = scene._repr_mimebundle_()
    png = base64.b64decode(data["image/png"])
    image = Image.open(io.BytesIO(png))
    difference = ImageChops.difference(image.convert("RGB"), scene.image())
    assert np.mean(difference) < 4  # of 255: a PNG of 256 colours
    description = f"a scene: {scene.caption}"
    assert data["text/plain"] == description
    assert metadata["image/png"]["alt"] == description


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        pytest.param(lambda: Object("dgo"), "did you mean .*dog", id="a noun, misspelt"),
        pytest.param(lambda: Object("dog", colour="mauve"), "red", id="an unknown colour"),
        pytest.param(lambda: arrange(["mauve car"]), "mauve car", id="words of no scene"),
        pytest.param(lambda: draw_scene(1, split="val"), "development", id="an unknown split"),
    ],
)
def test_what_is_no_scene_is_refused_with_what_is_one(ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask()
