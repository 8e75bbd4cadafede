"""What a thousand photographs cost: seconds for every study and method on ViT-B/16, and the most memory.

    python -m benchmarks.scale            # about twenty minutes on two cores; prints tables in
    Markdown

Weights are random and images are drawn, because neither changes the time. Images are as large as
COCO's (640 x 480). Every row runs in a process of its own, on as many threads as torch takes, and
is measured after a warm-up.
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

COUNT = 8  # images of a row,
SLOW = (
    "rise",
    "m2ib",
    "integrated-gradients",
)  # but 1, without a warm-up, where a method takes many passes


def scenes(count: int) -> list[Scene]:
    """Return scenes of two things, one of them with a colour."""
    pairs, colours = [("dog", "umbrella"), ("banana", "clock"), ("cat", "guitar")], list(COLOURS)
    things = [(*pairs[i % len(pairs)], colours[i % len(colours)]) for i in range(count)]
    return [
        draw_scene([0, i], groups=[(a, colour, 1), (b, None, 1)])
        for i, (a, b, colour) in enumerate(things)
    ]


def photograph(scene: Scene) -> Image.Image:
    """Return a scene as large as an image of COCO."""
    return scene.image(672).crop((16, 96, 656, 576))


def mask(scene: Scene, index: int) -> np.ndarray:
    """Return the mask of a thing in `photograph`."""
    return scene.masks(672)[index][96:576, 16:656]


def examples(count: int) -> list[Example]:
    """Return an example per thing, with its mask and a caption that says the colour of one."""
    found = []
    for i, scene in enumerate(scenes(count)):
        said = " and ".join(phrase(thing.noun, colour=thing.colour) for thing in scene.objects)
        for k, noun in enumerate(thing.noun for thing in scene.objects):
            reading = partial(photograph, scene), partial(mask, scene, k)
            found.append(Example(f"{i}/{noun}", said, noun, said, (noun,), *reading))
    return found


def captions(count: int) -> list[Example]:
    """Return five examples an image, as in COCO."""
    said = [f"a man riding a {colour} bicycle on a busy street" for colour in list(COLOURS)[:5]]
    return [
        Example(f"{i}/{k}", text, "bicycle", text, ("bicycle",), partial(photograph, scene))
        for i, scene in enumerate(scenes(count))
        for k, text in enumerate(said)
    ]


def choices(count: int) -> list[Choice]:
    """Return a choice per image."""
    said = "swap_att", "a red dog and a blue car", "a blue dog and a red car"
    return [
        Choice(str(i), *said, partial(photograph, scene)) for i, scene in enumerate(scenes(count))
    ]


STUDIES = {  # by the function that runs it
    "concreteness.word_rows": (
        "concreteness (lesson 06): five captions: Grad-ECLIP and leaving each word out",
        captions,
    ),
    "photographs.matching_rows": ("matching (lesson 04): three maps and masks", examples),
    "photographs.colour_rows": ("colours (lesson 05): the maps of two colour words", examples),
    "photographs.choice_rows": ("choices (lesson 05): two captions", choices),
}


def study(name: str, count: int) -> Callable[[], object]:
    """Return a call that runs a study on `count` images; it is imported here because it takes memory."""
    _, make = STUDIES[name]
    return partial(resolve_name(f"studies.{name}"), random_clip(), make(count))


def method(name: str, count: int) -> Callable[[], object]:
    """Return a call that explains `count` images with a prompt each, words and all."""
    explainer = Explainer(random_clip(), method=name)
    return lambda: [explainer.explain(photograph(scene), scene.caption) for scene in scenes(count)]


def measured(made: Callable, name: str, count: int) -> tuple[float, float]:
    """Return seconds for a thousand images, and the most memory that the process had, in GiB."""
    if count > 1:
        made(name, 1)()
    seconds = timeit(made(name, count), number=1) / count * 1000
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table(head: str, made: Callable, titles: Iterable[tuple[str, str]]) -> None:
    """Print one table, a row per name and title."""
    print(f"\n| {head} | seconds for 1,000 images | most memory |\n| --- | --: | --: |")
    for name, title in titles:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            seconds, memory = alone.apply(measured, (made, name, 1 if name in SLOW else COUNT))
        print(f"| {title} | {seconds:,.0f} | {memory:.1f} GiB |", flush=True)


if __name__ == "__main__":
    table("study", study, [(name, title) for name, (title, _) in STUDIES.items()])
    table(
        "method, one prompt per image", method, [(name, one.title) for name, one in METHODS.items()]
    )
