"""Language: what is no text."""

import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.language import phrases, tagged_words, with_other_nouns
from tests.refusals.cases import named

ASKED = [
    ("phrases of nothing", lambda: phrases(None), "caption must be a text, got None"),
    ("phrases of a list", lambda: phrases(["a dog"]), r"caption must be a text, got \['a dog'\]"),
    ("words of a number", lambda: tagged_words(5), "caption must be a text, got 5"),
    ("prompts by a text", lambda: with_other_nouns("a dog", "x"), "count must be a whole number, got 'x'"),
    ("prompts without end", lambda: with_other_nouns("a dog", 10**9), "count must be at most 10000, got 1000000000"),
]


@pytest.mark.parametrize(("ask", "message"), named(ASKED))
def test_what_is_no_text_is_refused(ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask()
