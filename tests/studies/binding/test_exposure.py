"""Exposure: in captions that keep a colour, or a thing, to themselves."""

from gradeclip_utils.scenes import Object, arrange
from studies.binding.exposure import hard_negative_counts


def dog(colour, *, said=True, beside=()):
    """A dog whose colour is said or not, beside things that are not named."""
    things = [Object("dog", colour=colour, x=24), *(Object(noun, x=72) for noun in beside)]
    return arrange(things, colour=[said], unnamed=range(1, len(things)))


def test_a_caption_that_keeps_its_colour_to_itself_fits_every_colour():
    red, silent = dog("red"), dog("blue", said=False)
    assert silent.caption == "a dog"
    assert hard_negative_counts([red, silent])["colour"] == 1  # "a red dog" is wrong of a blue one, "a dog" of neither
    assert hard_negative_counts([red, dog("red", said=False)])["colour"] == 0
    assert hard_negative_counts([red, dog("blue")])["colour"] == 2


def test_of_an_untinted_thing_every_colour_is_wrong():
    assert hard_negative_counts([dog("red"), dog(None)])["colour"] == 1


def test_what_is_not_named_makes_no_hard_negative_and_hinders_none():
    found = hard_negative_counts([dog("red", beside=["cat"]), dog("blue")])
    assert found["colour"] == 2 and found["object identity"] == 0
