"""Language: what is no text, and files that are no tables."""

import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.language import norms, phrases, tagged_words, with_other_nouns
from tests.refusals.cases import named

ASKED = [
    ("phrases of nothing", lambda: phrases(None), "caption must be a text, got None"),
    ("phrases of a list", lambda: phrases(["a dog"]), r"caption must be a text, got \['a dog'\]"),
    ("words of a number", lambda: tagged_words(5), "caption must be a text, got 5"),
    ("prompts by a text", lambda: with_other_nouns("a dog", "x"), "count must be a whole number, got 'x'"),
    ("prompts without end", lambda: with_other_nouns("a dog", 10**9), "count must be at most 10000, got 1000000000"),
    ("norms of a text", lambda: norms("dog"), "words must be a list, got 'dog'"),
    ("norms of numbers", lambda: norms([5]), "each of words must be a text, got 5"),
    ("norms of nothing", lambda: norms(None), "words must be a list, got None"),
]


@pytest.mark.parametrize(("ask", "message"), named(ASKED))
def test_what_is_no_text_is_refused(ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask()


@pytest.mark.parametrize("name", ["x.csv", "x.xlsx"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 dear", b'a,"b\n\n"c'])
def test_a_file_that_is_no_table_of_norms_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for which in ("brysbaert", "glasgow", "lancaster"):
        with pytest.raises(GradeclipError, match=f"{name} (cannot be read as a table|is not the )"):
            norms(["dog"], **{which: tmp_path / name})
