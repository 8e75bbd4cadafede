"""The page of refusals and warnings: every code of `gradeclip_utils.errors.CODES` and every note, and what to do."""

from gradeclip_utils.errors import CODES

HEAD = """# Refusals and warnings

What cannot be had is refused in one sentence, before anything is computed: what was given, what is allowed, what to do.
Every such error is a `gradeclip_utils.errors.GradeclipError`, and also what is Python's habit: a `ValueError`, a
`TypeError`, an `OSError`, a `FileNotFoundError` or an `ImportError`. Its `code` is short, and stays as it is when the
sentence is reworded:

```python
from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError

try:
    load_clip("ViT-B-61")
except GradeclipError as refusal:
    print(refusal.code, refusal)    # E-model-unknown open_clip has no model 'ViT-B-61'. Nearest: ...
```

A command prints the sentence with its code and exits with 2; `--debug` shows where it was said. Any other error is a
fault of this package, and has its traceback: please report it.
"""


NOTES_HEAD = """## Warnings

What is answered all the same, and should be read with care, comes with a warning: an `ExplanationWarning` where it is
about an explanation, else a `UserWarning`. A command prints it as a note, and a panel in its own line.
"""
# Words of the message -> what it means, what to do.
NOTES = {
    "zero everywhere": ("no patch or word has relevance: all answer alike", "nothing, where the target is constant"),
    "was trained on drawn scenes alone": (
        "a bundled model sees an image that is not marked as a scene",
        "load real CLIP for photographs; mark what is a drawn scene with `notices.mark_drawn`",
    ),
    "the font of figures cannot draw": ("letters of this script are drawn as boxes", "set matplotlib's `font.family`"),
    "is not known: maps are drawn as if": (
        "a preprocessing has a step that may move pixels, so a map may lie beside its place",
        "use steps of torchvision or open_clip",
    ),
    "the words of the prompt are not": (
        "the tokenizer does not say which tokens make a word",
        "take the tokenizer that came with the model",
    ),
    "the model reads only": ("the prompt is longer than the model reads", "shorten it; the rest has no effect"),
    "was never shown these words": ("a bundled model knows few words", "use those of its vocabulary, or another model"),
    "no interval for": ("too few values or clusters to resample", "measure more"),
    "and its rows are computed again": ("kept rows are damaged, or of inputs that changed", "nothing"),
    "and all is computed again": ("the file of kept rows is damaged and was set aside", "nothing"),
    "and their rows are left out": ("some kept rows are damaged", "run the same command again: it computes them"),
    "Their pairs are skipped": ("images of a table are not there", "correct the table or the folder"),
    "The file does not say which activation": (
        "weights of quick GELU and of GELU look alike, and give other numbers",
        "name the architecture with or without `-quickgelu`, as the weights were trained",
    ),
}


def refusals_page() -> str:
    """The page as Markdown: a table of the codes, in the order of the alphabet, and one of the warnings."""
    codes = [
        f'| <span id="E-{code}"></span>`E-{code}` | {meaning} | {advice} |'
        for code, (meaning, advice) in sorted(CODES.items())
    ]
    notes = [f"| “{words}” | {meaning} | {advice} |" for words, (meaning, advice) in NOTES.items()]
    tables = [("code", codes), ("it says", notes)]
    refused, noted = (
        [f"| {first} | what it means | what to do |", "| --- | --- | --- |", *rows, ""] for first, rows in tables
    )
    return "\n".join([HEAD, *refused, NOTES_HEAD, *noted])
