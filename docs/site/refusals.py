"""The page of refusals: every code, what it means and what to do, from `gradeclip_utils.errors.CODES`."""

from gradeclip_utils.errors import CODES

HEAD = """# Refusals

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


def refusals_page() -> str:
    """The page as Markdown: a table of the codes, in the order of the alphabet."""
    rows = [f"| `E-{code}` | {meaning} | {advice} |" for code, (meaning, advice) in sorted(CODES.items())]
    return "\n".join([HEAD, "| code | what it means | what to do |", "| --- | --- | --- |", *rows, ""])
