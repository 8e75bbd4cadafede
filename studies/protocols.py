"""Protocols: what in a table of methods is due to how one asked, measured or drew, and what a map costs. Lesson 03.

    prompts, crops, ranges of a curve, turns of a clock --the same methods--> what changes --> figures

Beside the figures stand controls that should fail: a prompt less a direction that means nothing, a map that knows
nothing on its crop, and the plain forward pass timed as if it were a method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from PIL import Image

from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view, onto_image
from gradeclip_utils.measures.evaluation import available
from gradeclip_utils.measures.faithfulness import FULL, areas, colours_of, image_curves, image_score
from gradeclip_utils.measures.localisation import localisation
from gradeclip_utils.measures.sanity import agreement
from gradeclip_utils.models import Clip
from gradeclip_utils.notices import mark_drawn
from gradeclip_utils.scenes import Scene, arrange
from gradeclip_utils.towers import open_text_tower

from .maps import method_maps
from .pointing_game import games
from .tables import COSTLY, beyond, forward_passes, named_examples, names_of, same_ranking, through, title_of, told

RANGES = ("half with noise", "all with noise", "all with the mean colour")  # what deletion takes, and paints over


def _quick_maps(clip: Clip, images: list[Image.Image], texts: torch.Tensor) -> dict[str, np.ndarray]:
    """Maps of all quick methods through one layer, and of Grad-ECLIP through as many as the package takes, by title."""
    found = method_maps(replace(clip, image_layers=1), names_of(clip, "quick"), images, texts[:, None])
    maps = {title_of(str(name)): stack[:, 0] for name, stack in found.items()}
    maps[through(clip.image_layers)] = method_maps(clip, ["grad-eclip"], images, texts[:, None])["grad-eclip"][:, 0]
    return maps


def both_prompts_figures(clip: Clip, n: int, parts: Sequence[str] = ("quick",)) -> list[pd.DataFrame]:
    """How alike the maps for both things of an image are: 1 is one map, whatever is asked."""
    rows = []
    for part in parts:
        examples = named_examples(max(2, n // (4 if part == "quick" else 16)))
        images, asker = [one.image() for one in examples], Explainer(clip)
        own = asker.embed_texts([one.prompt for one in examples])
        other = asker.embed_texts([one.others[0] for one in examples])
        if part == "quick":
            both = zip(_quick_maps(clip, images, own).items(), _quick_maps(clip, images, other).values(), strict=True)
            stacks = {title: (mine, theirs) for (title, mine), theirs in both}
        else:  # these look at the same changed images for both
            maps = method_maps(clip, names_of(clip, part), images, torch.stack([own, other], 1))
            stacks = {title_of(str(name)): (one[:, 0], one[:, 1]) for name, one in maps.items()}
        for title, pair in stacks.items():
            rows += [{"image": k, "method": title, "value": value} for k, value in enumerate(agreement(*pair))]
    return [told("agreement of both prompts, {method}", pd.DataFrame(rows), "value")]


def shared_part_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """What maps find when prompts are without the part that all of them share, their mean."""
    examples, tables = named_examples(n), []
    images, masks = [one.image() for one in examples], [np.asarray(one.mask()) for one in examples]
    direct = (asker := Explainer(clip)).embed_texts([one.prompt for one in examples])
    common, similar = direct.mean(0), asker.embed_images(images) @ direct.T
    nothing = torch.randn(len(common), generator=torch.Generator().manual_seed(0)).to(common)
    nothing *= common.norm() / nothing.norm()
    asked = {"whole prompts": direct, "without the shared part": direct - common,
             "less a random direction": direct - nothing}  # fmt: skip
    numbers = {"length of the part that prompts share": direct @ common / common.norm(),  # its mean is that length
               "similarity of the own prompt above all": similar.diag() - similar.mean(1)}  # fmt: skip
    about = pd.DataFrame({"image": range(len(examples)), "concept": [one.concept for one in examples]})
    for figure, values in numbers.items():
        tables.append(told(figure, about.assign(value=values.cpu().numpy()), "value", cluster="concept"))
    names, directions = available(clip, ("grad-eclip", "maskclip", "grad-cam")), torch.stack([*asked.values()], 1)
    for name, maps in method_maps(replace(clip, image_layers=1), names, images, directions).items():
        title, found = title_of(str(name)), []
        for i, way in enumerate(asked):
            values = [precision(clip, maps[k, i], images[k], masks[k]) for k in range(len(masks))]
            found.append(about.assign(method=way, value=values))
        table = pd.concat(found)
        tables.append(told(f"average precision {{method}}, {title}", table, "value", cluster="concept").iloc[1:])
        for way in list(asked)[1:]:
            figure = f"average precision {way} beyond whole prompts, {title}"
            tables.append(beyond(table, way, "whole prompts", figure, cluster="concept"))
    return tables


def precision(clip: Clip, map_: np.ndarray, image: Image.Image, mask: np.ndarray) -> float:
    """Average precision of a map, read of every fourth pixel, down and across: heat maps are smooth."""
    heat = onto_image(map_, model_view(clip.preprocess, image).box, image.size)
    return localisation(heat[::4, ::4].copy(), mask[::4, ::4])["average_precision"]


def widened(scene: Scene, flank: Scene) -> Image.Image:
    """The image of a scene between the two halves of another one's: twice as wide as high."""
    middle, sides = np.asarray(scene.image()), np.asarray(flank.image())
    half = sides.shape[1] // 2
    return mark_drawn(Image.fromarray(np.hstack([sides[:, half:], middle, sides[:, :half]])))


def stretched_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """What becomes of the average precision where a map of the middle of a wide image is laid over all of it."""
    scenes = [one.scene for one in games(max(2, n // 4), counts=[2], tint=0)]
    images = [widened(one, flank) for one, flank in zip(scenes, scenes[1:] + scenes[:1], strict=True)]
    texts = Explainer(clip).embed_texts([arrange([one.objects[0].noun]).caption for one in scenes])
    maps, whole = _quick_maps(clip, images, texts), (0.0, 0.0, float(images[0].width), float(images[0].height))
    deep, rng, rows = through(clip.image_layers), np.random.default_rng(0), []
    maps["random"] = rng.random(maps[deep].shape)
    for k, (scene, image) in enumerate(zip(scenes, images, strict=True)):
        side = (image.width - image.height) // 2
        mask, box = np.pad(scene.masks()[0], ((0, 0), (side, side))), model_view(clip.preprocess, image).box
        for title, stack in maps.items():
            ways = {"": box, ", stretched": whole} if title in (deep, "random") else {"": box}
            for way, place in ways.items():
                found = localisation(onto_image(stack[k], place, image.size), mask)["average_precision"]
                rows.append({"image": k, "method": title + way, "value": found})
    table, what = pd.DataFrame(rows), "average precision of wide images, "
    tables = [told(what + "{method}", table, "value")]
    for title in (deep, "random"):
        tables.append(beyond(table, title, f"{title}, stretched", f"{what}{title}, on the crop beyond stretched"))
    return tables


def full_range_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """Deletion up to half of the image and all the way, with noise and with the mean colour, from the same curves."""
    examples, found = named_examples(max(2, n // 4)), []
    images, asker = [one.image() for one in examples], Explainer(clip)
    texts = asker.embed_texts([one.prompt for one in examples])
    maps = _quick_maps(clip, images, texts)
    for k, example in enumerate(examples):
        curves = deletion_curves(clip, images[k], texts[k], {title: stack[k] for title, stack in maps.items()})
        found.append(deletion_ranges(curves).assign(image=example.key))
    rows = pd.concat(found)
    tables = [told("deletion of {range}, {method}", rows, "auc")]
    for pair in combinations(RANGES, 2):
        both = [rows[rows["range"] == one] for one in pair]
        tables.append(same_ranking(f"ranking by deletion of {pair[0]} and of {pair[1]}", "auc", *both))
    return tables


def deletion_curves(clip: Clip, image: Image.Image, text: torch.Tensor, maps: dict[str, np.ndarray]) -> pd.DataFrame:
    """Curves of the deletion of all of an image in five steps, with noise and with its mean colour."""
    pixels, colours = model_view(clip.preprocess, image).pixels, colours_of(clip.preprocess)
    score = image_score(Explainer(clip, image_layers=1).image_tower.forward, text)
    drawn = partial(image_curves, score, pixels, maps, colours=colours, games=["deletion"], batch=16)
    fills = ("random", "mean")
    return pd.concat([drawn(replace(FULL, fill=fill, points=6)).assign(fill=fill) for fill in fills], ignore_index=True)


def deletion_ranges(curves: pd.DataFrame) -> pd.DataFrame:
    """Areas under curves of one image, over each of `RANGES`."""
    noise, colour = (curves[curves["fill"] == fill] for fill in ("random", "mean"))
    parts = zip(RANGES, (noise[noise["fraction"] < 0.51], noise, colour), strict=True)
    return pd.concat([areas(part).assign(range=name) for name, part in parts], ignore_index=True)


def cost_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """What an explanation costs by each method, in forward passes of both towers: median of six rounds, and range."""
    example, one_layer = named_examples(1)[0], replace(clip, image_layers=1)
    image, prompt, tables = example.image(), example.prompt, []
    sees, reads = Explainer(one_layer).image_tower, open_text_tower(clip.model, layers=1)

    def plain() -> None:
        """The model's own forward pass, image and prompt prepared."""
        sees.forward(clip.preprocess(image)[None].to(sees.device))
        reads.forward(clip.tokenizer([prompt]).to(reads.device))

    for part in ("quick", *COSTLY):
        explainers = {title_of(name): Explainer(one_layer, method=name) for name in names_of(clip, part)}
        calls: dict[str, Callable[[], object]] = {"the plain pass itself": plain} if part == "quick" else {}
        if part == "quick":
            explainers[through(clip.image_layers)] = Explainer(clip)
        calls |= {title: partial(one.explain, image, prompt) for title, one in explainers.items()}
        if calls:
            tables.append(forward_passes("forward passes, {method}", calls, plain, sees))
    return tables
