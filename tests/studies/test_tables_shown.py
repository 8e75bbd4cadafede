"""Tables that notebooks show: each has an interval and a control that should fail, or estimates nothing and says so."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
BOUNDS = re.compile(r"\[[+-]?[\d.,]+%?, [+-]?[\d.,]+%?\]")
CONTROLS = re.compile(
    r"chance|control|random|shuffled|all alike|wrong word|another (noun|image)|text-blind|raw attention|area\b"
    r"|uniform map|colour of neither|absent|\bplain\b|caption's map|without the image", re.IGNORECASE
)  # fmt: skip

# Tables that estimate nothing over a sample: cell -> words of the text before it, or of the cell, that say what it is.
ONE_EXAMPLE = {
    "02 inside-043": "Four keys by hand", "02 inside-049m": "for four patches of this scene",
    "02 inside-075": "One score for each token", "03 hard-00002": "The first three rows, of one image:",
    "05 binding-005": "The captions of the first pair of each kind:", "05 binding-007": "The first three answers:",
    "06 words-005": "that this caption belongs to this image", "06 words-007": "For the caption above:",
    "06 words-011": "Six of them:", "06 words-assigned-1": "Who gets which tags, for five drawings",
    "07 006d9a12": "In one scene:", "07 30c30314": "the scene of section 1 once more",
    "08 models-019": "On one image:", "08 models-025": "For one caption:",
    "08 models-027": "The same scene and caption for all", "09 real-019": "A row is one photograph",
    "09 real-023": "From this one image:",
}  # fmt: skip
DESCRIPTION = {
    "03 7413a8da": "The package says which", "06 words-013": "`exposure` counts captions",
    "06 words-019": "How many words there are, by role and rating:",
    "06 words-assigned-5": "Words of the two kinds were matched",
    "06 words-021": "no model is asked", "07 35027676": "What the file holds today",
    "08 models-012": "What changes in the trace", "09 real-004": "How large are they?",
    "09 real-026": "`study ... --out` adds each to a table",
}  # fmt: skip
COUNTS = {"03 seeds-0001": "The table counts these verdicts"}
PUBLISHED = {
    "03 publish-01": "Published beside measured", "05 binding-beside": "another model, in another world",
    "06 words-published": "What is known of real CLIP", "07 published1": "Published beside measured",
    "09 real-028": "what others published about CLIP",
}  # fmt: skip
NO_ESTIMATE = ONE_EXAMPLE | DESCRIPTION | COUNTS | PUBLISHED
# Where the control stands in a table beside this one: words of the text before it, or of the cell, that name it.
BESIDE = {
    "03 saturat-01": "control, random scores", "06 words-seeds-2": "Their controls, another image and random weights",
    "06 concreteness-again-2": "the controls are those of section 5", "07 d5c05a12": "its controls, “uniform map”",
    "07 1333de7c": "What the control arms pay",
}  # fmt: skip


def shown(path):
    """(name of the cell, its HTML, the text that goes with it) of every table that a notebook shows."""
    cells, said = json.loads(path.read_text(encoding="utf-8"))["cells"], ""
    for cell in cells:
        source = "".join(cell["source"])
        said += source
        for output in cell.get("outputs", []):
            table = "".join(output.get("data", {}).get("text/html", ""))
            if "<table" in table:
                yield f"{path.stem[:2]} {cell['id']}", table, said
        if cell["cell_type"] == "code" and any("<table" in str(output.get("data")) for output in cell["outputs"]):
            said = ""  # what is said before a table goes with no later one


def lacking(name, table, said):
    """What a table lacks of the three: interval, control, or the reason that it needs neither."""
    if name in NO_ESTIMATE:
        return [] if NO_ESTIMATE[name] in said else ["the words that say what it is"]
    texts = [unescape(re.sub("<[^>]+>", "", one)).strip() for one in re.findall(r"<t[hd].*?</t[hd]>", table, re.DOTALL)]
    heads = {unescape(re.sub("<[^>]+>", "", one)).strip() for one in re.findall(r"<th.*?</th>", table, re.DOTALL)}
    interval = {"low", "high"} <= heads or any(BOUNDS.search(one) for one in texts)
    names = [one for one in texts if re.search("[a-z]", one) and not BOUNDS.search(one)]
    control = any(map(CONTROLS.search, names)) or BESIDE.get(name, "\0") in said
    return [what for what, there in (("an interval", interval), ("a control", control)) if not there]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_table_has_an_interval_and_a_control_or_says_that_it_estimates_nothing(path):
    found = {name: lacking(name, table, said) for name, table, said in shown(path)}
    assert not {name: what for name, what in found.items() if what}


def test_every_reason_is_of_a_table_that_is_shown():
    names = {name for path in NOTEBOOKS for name, _, _ in shown(path)}
    assert len(names) > 50 and not (NO_ESTIMATE.keys() | BESIDE.keys()) - names
    assert not NO_ESTIMATE.keys() & BESIDE.keys()


def test_a_table_without_interval_or_control_or_reason_is_found():
    bare = "<table><tr><th></th><th>mean</th></tr><tr><th>{}</th><td>{}</td></tr></table>"
    assert lacking("new", bare.format("cat", "0.42"), "") == ["an interval", "a control"]
    assert lacking("new", bare.format("cat", "0.42 [0.38, 0.46]"), "") == ["a control"]
    assert lacking("new", bare.format("random", "0.42"), "") == ["an interval"]
    assert not lacking("new", bare.format("random", "0.42 [0.38, 0.46]"), "")
    assert lacking("02 inside-043", bare.format("cat", "0.42"), "") == ["the words that say what it is"]
    assert lacking("07 1333de7c", bare.format("cat", "0.42 [0.38, 0.46]"), "") == ["a control"]
