"""The page of refusals and warnings: what each code of `errors.CODES` and `notices.WARNINGS` means, and what to do."""

from gradeclip_utils.errors import CODES
from gradeclip_utils.notices import WARNINGS

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

A traceback ends with the code. A command prints the sentence with its code and exits with 2; `--debug` shows where it
was said. Any other error is a fault of this package, and has its traceback: please report it.
"""


WARNINGS_HEAD = r"""## Warnings

What is answered all the same, and should be read with care, comes with a warning: an `ExplanationWarning` where it is
about an explanation, else a `UserWarning`. Its message ends with a short code. A command prints it as a note, and a
panel, without the code, in its own line. Who has read a warning and goes on all the same silences it by its code:

```python
import warnings

warnings.filterwarnings("ignore", r".*\[W-word-unknown\]")
```
"""


def refusals_page() -> str:
    """The page as Markdown: a table of the codes of refusals, and one of those of warnings."""
    refused, noted = (_table(letter, codes) for letter, codes in (("E", CODES), ("W", WARNINGS)))
    return "\n".join([HEAD, *refused, WARNINGS_HEAD, *noted])


def _table(letter: str, codes: dict[str, tuple[str, str]]) -> list[str]:
    """The lines of a table, each row of which can be pointed to by its code."""
    rows = [
        f'| <span id="{letter}-{code}"></span>`{letter}-{code}` | {meaning} | {advice} |'
        for code, (meaning, advice) in codes.items()
    ]
    return ["| code | what it means | what to do |", "| --- | --- | --- |", *rows, ""]
