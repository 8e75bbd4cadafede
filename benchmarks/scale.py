"""What a thousand photographs cost: seconds for every study and method, and the most memory.

    python -m benchmarks.scale     # about twenty minutes on two cores; prints tables in Markdown

The model is ViT-B/16 with random weights, and images are drawn: neither changes the time. Images
are as large as COCO's (640 x 480). Every row runs in a process of its own, on as many threads as
torch takes, and is measured after a warm-up.
"""

import multiprocessing
import resource
from collections.abc import Callable, Iterable
from functools import partial
from pkgutil import resolve_name
from timeit import timeit

import numpy as np
from PIL import Image

from benchmarks.bench import random_clip
from gradeclip_utils import Explainer
from gradeclip_utils.datasets import Example
from gradeclip_utils.methods import METHODS
from gradeclip_utils.scenes import COLOURS, Scene, draw_scene, phrase
from studies.choices import Choice

COUNT = 8  # images of a row
SLOW = ("rise", "m2ib", "integrated-gradients")  # many passes: one image, without a warm-up
PAIRS = [("dog", "umbrella"), ("banana", "clock"), ("cat", "guitar")]


def scenes(count: int) -> list[Scene]:
    """Scenes of two things, one of them with a colour."""
    colours = list(COLOURS)
    drawn = []
    for i in range(count):
        first, second = PAIRS[i % len(PAIRS)]
        groups = [(first, colours[i % len(colours)], 1), (second, None, 1)]
        drawn.append(draw_scene([0, i], groups=groups))
    return drawn


def photograph(scene: Scene) -> Image.Image:
    """A scene as large as an image of COCO."""
    return scene.image(672).crop((16, 96, 656, 576))


def mask(scene: Scene, index: int) -> np.ndarray:
    """The mask of a thing in `photograph`."""
    return scene.masks(672)[index][96:576, 16:656]


def examples(count: int) -> list[Example]:
    """An example per thing, with its mask and a caption that says the colour of one."""
    rows = []
    for i, scene in enumerate(scenes(count)):
        caption = " and ".join(phrase(thing.noun, colour=thing.colour) for thing in scene.objects)
        for k, thing in enumerate(scene.objects):
            rows.append(
                Example(
                    f"{i}/{thing.noun}",
                    caption,
                    thing.noun,
                    caption,
                    (thing.noun,),
                    partial(photograph, scene),
                    partial(mask, scene, k),
                )
            )
    return rows


def captions(count: int) -> list[Example]:
    """Five examples an image, as in COCO."""
    texts = [f"a man riding a {colour} bicycle on a busy street" for colour in list(COLOURS)[:5]]
    return [
        Example(f"{i}/{k}", text, "bicycle", text, ("bicycle",), partial(photograph, scene))
        for i, scene in enumerate(scenes(count))
        for k, text in enumerate(texts)
    ]


def choices(count: int) -> list[Choice]:
    """A choice per image."""
    captions = ("swap_att", "a red dog and a blue car", "a blue dog and a red car")
    return [
        Choice(str(i), *captions, partial(photograph, scene))
        for i, scene in enumerate(scenes(count))
    ]


STUDIES = {  # by the function that runs it
    "s07_word_concreteness.word_rows": (
        "concreteness (lesson 07): five captions: leaving words out and exact Shapley values",
        captions,
    ),
    "photographs.matching_rows": ("matching (lesson 05): three maps and masks", examples),
    "photographs.colour_rows": ("colours (lesson 06): the maps of two colour words", examples),
    "photographs.choice_rows": ("choices (lesson 06): two captions", choices),
}


def study(name: str, count: int) -> Callable[[], object]:
    """A call that runs a study on `count` images; it is imported here because it takes memory."""
    _, make = STUDIES[name]
    return partial(resolve_name(f"studies.{name}"), random_clip(), make(count))


def method(name: str, count: int) -> Callable[[], object]:
    """A call that explains `count` images with a prompt each, words and all."""
    words = name if METHODS[name].text is not None else None
    explainer = Explainer(random_clip(), method=name, words=words)
    return lambda: [explainer.explain(photograph(scene), scene.caption) for scene in scenes(count)]


def measured(make: Callable, name: str, count: int) -> tuple[float, float]:
    """Seconds for a thousand images, and the most memory that the process had, in GiB."""
    if count > 1:
        make(name, 1)()
    seconds = timeit(make(name, count), number=1) / count * 1000
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table(head: str, make: Callable, titles: Iterable[tuple[str, str]]) -> None:
    """Print one table, a row per name and title."""
    print(f"\n| {head} | seconds for 1,000 images | most memory |\n| --- | --: | --: |")
    for name, title in titles:
        count = 1 if name in SLOW else COUNT
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, memory = pool.apply(measured, (make, name, count))
        print(f"| {title} | {seconds:,.0f} | {memory:.1f} GiB |", flush=True)


if __name__ == "__main__":
    table("study", study, [(name, title) for name, (title, _) in STUDIES.items()])
    table(
        "method, one prompt per image",
        method,
        [(name, METHODS[name].title) for name in METHODS],
    )
