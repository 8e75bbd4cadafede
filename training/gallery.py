"""Maps of test scenes that nobody chose: `emoji` beside `emoji-aided`, map by map, in one figure.

python -m training gallery --out data/gallery.png
"""

from pathlib import Path

from matplotlib.figure import Figure

from gradeclip_utils import Explainer
from gradeclip_utils.models import load_clip
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.figures import show_image
from gradeclip_utils.scenes import CANVAS
from studies.lesson import prompts_of, shown_scenes

SCENES = 10
MODELS = ("emoji", "emoji-aided")
SIDE = 288  # pixels of a scene in the figure


def draw(out: Path) -> None:
    """Draw a row per scene: the image, and for each model the maps of its two things."""
    columns = 1 + 2 * len(MODELS)
    figure = Figure(figsize=(8.6, 1.95 * SCENES), layout="constrained")
    axes = figure.subplots(SCENES, columns)
    for column, name in enumerate(MODELS):
        axes[0, 1 + 2 * column].text(0, -60, name, fontsize=11)

    explainers = [Explainer(load_clip(name)) for name in MODELS]
    for row, scene in enumerate(shown_scenes(SCENES)):
        picture = scene.image(SIDE)
        show_image(axes[row, 0], picture)
        for column, explainer in enumerate(explainers):
            explanation = explainer.explain(scene.image(CANVAS), prompts_of(scene))
            for i, prompt in enumerate(explanation.prompts):
                panel = axes[row, 1 + 2 * column + i]
                show_image(panel, paint(picture, explanation.image_maps[i]))
                title = f"{prompt}  {explanation.similarity[i]:.2f}"
                panel.set_title(title, fontsize=9, loc="left", pad=2)
    figure.savefig(out, dpi=100)
