"""Maps of test scenes that nobody chose: `emoji` beside `emoji-plain`, map by map, in one figure.

python -m training gallery --out data/gallery.png
"""

from matplotlib.figure import Figure

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.models import load_clip
from gradeclip_utils.plots import axes_at, new_figure, paint, show_image
from gradeclip_utils.scenes import CANVAS
from studies.lesson import prompts_of, shown_scenes

SCENES = 10
_SIDE = 288  # pixels of a scene as the figure draws it


def gallery() -> Figure:
    """A row per scene: the image, and for each model the maps of its two things with their similarities."""
    explainers = {name: Explainer(load_clip(name)) for name in ("emoji", "emoji-plain")}
    scenes = shown_scenes(SCENES)
    columns = 1 + 2 * len(explainers)
    side = 8.6 / columns
    alt = "Images and maps of the first test scenes: " + "; ".join(
        scene.caption for scene in scenes
    )
    figure = new_figure(8.6, SCENES * (side + 0.22) + 0.35, alt)
    for column, name in enumerate(explainers):
        figure.text(
            (1 + 2 * column) / columns,
            1 - 0.12 / figure.get_figheight(),
            name,
            va="center",
            fontsize=11,
        )
    for row, scene in enumerate(scenes):
        top, drawn = 0.5 + row * (side + 0.22), scene.image(_SIDE)
        show_image(axes_at(figure, 0, top, side - 0.06, side - 0.06), drawn)
        for column, explainer in enumerate(explainers.values()):
            found = explainer.explain(scene.image(CANVAS), prompts_of(scene))
            for i, prompt in enumerate(found.prompts):
                axes = axes_at(figure, (1 + 2 * column + i) * side, top, side - 0.06, side - 0.06)
                show_image(axes, paint(drawn, found.image_maps[i]))
                axes.set_title(
                    f"{prompt}  {found.similarity[i]:.2f}", fontsize=9, loc="left", pad=2
                )
    return figure
