"""Draw the README's figure, wide and narrow, and the schematic anew: `make figures`."""

import os
from functools import partial
from pathlib import Path

from schematic import plot_method  # beside this file

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.files import write_whole
from gradeclip_utils.scenes import arrange

DOCS = Path(__file__).resolve().parent


def main() -> None:
    """Write the figures."""
    for name in ("GRADECLIP_MODEL", "GRADECLIP_PRETRAINED"):
        os.environ.pop(name, None)  # the figure is of the bundled model
    scene = arrange(["dog", "umbrella"], seed=3)
    explanation = Explainer(load_clip()).explain(scene.image(), ["a dog", "a piano"])
    for name, width in (("explained", 8.7), ("explained-narrow", 3.9)):
        figure = explanation.plot(width=width)
        write_whole({DOCS / f"{name}.png": partial(figure.savefig, format="png", dpi=150)})
    write_whole({DOCS / "schematic.png": partial(plot_method().savefig, format="png", dpi=150)})


if __name__ == "__main__":
    main()
