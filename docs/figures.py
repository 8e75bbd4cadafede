"""Make the README's figure anew, with the weights that are here, and the schematic: `make figures`.

`make figures` makes the gallery as well.

The scene is the one that the rule of the first lesson chooses: the lesson's own cells are executed up to the rule, the
seed that it chose is written into the README's lines of Python, and these draw the figure.
"""

import os
import re
import tempfile
from contextlib import chdir
from pathlib import Path

import nbformat

from gradeclip_utils.files import write_whole
from gradeclip_utils.plots import plot_method

ROOT = Path(__file__).resolve().parent.parent
README, LESSON = ROOT / "README.md", ROOT / "notebooks" / "01_start_here.ipynb"
LINES = re.compile(r"```python\n(.*?)```", re.S)
SEED = re.compile(r'(?<=arrange\(\["dog", "umbrella"\], seed=)\d+')


def chosen_seed(lesson: Path = LESSON) -> int:
    """The seed that the lesson's rule chooses.

    Args:
        lesson: a notebook, one of whose cells of code sets `chosen`; the cells before it are executed as well.

    Raises:
        LookupError: no cell does.
    """
    names: dict = {}
    for cell in nbformat.read(lesson, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "chosen" in names:
                return names["chosen"]
    raise LookupError(f"no cell of {lesson.name} chooses a seed: the rule is expected to set `chosen`")


def main() -> None:
    """Write the seed into the README, and the figure beside it."""
    for name in ("GRADECLIP_MODEL", "GRADECLIP_PRETRAINED"):
        os.environ.pop(name, None)  # the figure is of the bundled model, whatever the shell says
    seed = chosen_seed()
    text, changed = SEED.subn(str(seed), README.read_text(encoding="utf-8"))
    if changed != 1:
        raise LookupError("the README's lines of Python are expected to name one seed")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        exec(LINES.search(text)[1], {})
        figure = Path("explained.png").read_bytes()
    write_whole(ROOT / "docs" / "explained.png", lambda stream: stream.write(figure))
    write_whole(README, lambda stream: stream.write(text.encode()))
    write_whole(ROOT / "docs" / "schematic.png", lambda stream: plot_method().savefig(stream, dpi=150))
    print(f"docs/explained.png shows seed {seed}")


if __name__ == "__main__":
    main()
