"""Words: whatever a person types, scores land on the words as they were written."""

from itertools import pairwise

import open_clip
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.words import split_row

TOKENIZER = open_clip.SimpleTokenizer()


def split(prompt, pieces=None):
    """How the pieces that a model read, by default all, make up the words of a prompt."""
    if pieces is None:
        pieces = TOKENIZER.encode(prompt)
    return split_row(prompt, TOKENIZER, [0, *pieces, 0], 1 + len(pieces))


def words_by_pieces(prompt):
    """The words of a prompt, each with the number of its pieces for a score."""
    result = split(prompt)
    counts = [result.word_ids.count(i) for i in range(len(result.spans))]
    return result.words(counts)


@pytest.mark.parametrize(
    ("prompt", "words", "pieces"),
    [
        ("A red car.", "A red car .", [1, 1, 1, 1]),
        ("a dog's ball", "a dog's ball", [1, 2, 1]),
        ("3d in 2026", "3d in 2026", [2, 1, 4]),
        ("naïve café", "naïve café", [3, 1]),
        # no spaces say where a word ends
        ("日本語, 猫", "日 本 語 , 猫", [1, 1, 2, 1, 3]),
        ("नमस्ते दुनिया", "नमस्ते दुनिया", [7, 6]),
        ("I ❤️ 🍕👨‍👩‍👧!", "I ❤️ 🍕 👨‍👩‍👧 !", [1, 1, 1, 3, 1]),
        ("Tom &amp; Jerry", "Tom &amp; Jerry", [1, 1, 1]),
        ("<b>hi</b>", "< b > hi </ b >", [1, 1, 1, 1, 1, 1, 1]),
        ("&Aacute;a ﬁsh", "&Aacute;a ﬁsh", [2, 1]),
        ("İstanbul", "İstanbul", [3]),
        ('“dog” "dog"', '“ dog ” " dog "', [1, 1, 1, 1, 1, 1]),
        # ftfy mends it to "schön" before the model reads it
        ("schÃ¶n", "schÃ¶n", [3]),
    ],
)
def test_pieces_are_added_to_words_as_they_were_written(prompt, words, pieces):
    result = words_by_pieces(prompt)
    assert [word.text for word in result] == words.split()
    assert [word.score for word in result] == pieces


LETTERS = st.characters(exclude_categories=("Cs",)) | st.sampled_from(
    " \n&;<>#'’.,!?aéſﬁ猫🍕\u200d\ufe0f"
)


@settings(max_examples=150, deadline=None)
@example("&amp;amp;lt; &#x27;&#39; &nbsp; x&y;z")
@example("\u0301 \u0600a \r\n\u0000 \x7f")
@example("\x85")  # white space that ftfy reads as an ellipsis
@example("</w> <start_of_text> a <end_of_text>")
@given(st.text(LETTERS, max_size=40))
def test_any_text_is_covered_by_ordered_words_that_share_no_character_and_lose_no_piece(prompt):
    pieces = TOKENIZER.encode(prompt)
    if not pieces:
        with pytest.raises(GradeclipError, match="at least one word"):
            split(prompt)
        return
    words = words_by_pieces(prompt)
    assert sum(word.score for word in words) == len(pieces)
    for word in words:
        assert word.score >= 1
        assert word.text
        assert prompt[word.start : word.end] == word.text
    for before, after in pairwise(words):
        assert before.end <= after.start


@pytest.mark.parametrize(
    ("count", "unread"),
    [(1, ("naïve", "dog")), (2, ("naïve", "dog")), (4, ("dog",)), (5, ())],
)
def test_words_that_lose_a_piece_are_named_as_unread(count, unread):
    pieces = TOKENIZER.encode("a naïve dog")
    assert len(pieces) == 5  # the word in the middle has three
    result = split("a naïve dog", pieces[:count])
    assert len(result.word_ids) == count
    assert result.unread == unread


def test_ids_that_are_not_the_pieces_in_order_are_refused():
    with pytest.raises(GradeclipError, match="in a different order from its tokens"):
        split("a red car", TOKENIZER.encode("red a car"))
