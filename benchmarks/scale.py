"""What a thousand photographs cost: seconds for every study and method on ViT-B/16, and the most memory.

    python -m benchmarks.scale            # about twenty minutes on two cores; prints tables in Markdown

Weights are random and images are drawn, because neither changes the time. Images are as large as COCO's (640 x 480).
Every row runs in a process of its own, on as many threads as torch takes, and is measured after a warm-up.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import open_clip
import torch
from PIL import Image

from benchmarks.bench import MODEL
from gradeclip_utils import Clip, Explainer
from gradeclip_utils.datasets import Example
from gradeclip_utils.methods import METHODS
from gradeclip_utils.scenes import COLOURS, Scene, draw_scene, phrase
from studies.choices import Choice

CAPTIONS = 5  # an image, as in COCO
SLOW = {"rise": 1, "m2ib": 1, "integrated-gradients": 1}  # images, where a method takes many passes; no warm-up
STUDIES = {
    "concreteness (lesson 06)": "five captions: Grad-ECLIP and leaving each word out",
    "matching (lesson 04)": "three maps and masks",
    "colours (lesson 05)": "the maps of two colour words",
    "choices (lesson 05)": "two captions",
}


def model() -> Clip:
    """Return a model with random weights, the same in each process."""
    torch.manual_seed(0)
    built, _, preprocess = open_clip.create_model_and_transforms(MODEL)
    return Clip(built.eval(), preprocess, open_clip.get_tokenizer(MODEL))


def scenes(count: int) -> list[Scene]:
    """Return scenes of two things, one of them with a colour."""
    pairs = [("dog", "umbrella"), ("banana", "clock"), ("cat", "guitar")]
    groups = [[(a, list(COLOURS)[i % len(COLOURS)], 1), (b, None, 1)] for i, (a, b) in enumerate(pairs * count)]
    return [draw_scene([0, i], groups=groups[i]) for i in range(count)]


def photograph(scene: Scene) -> Image.Image:
    """Return a scene as large as an image of COCO."""
    return scene.image(672).crop((16, 96, 656, 576))


def mask(scene: Scene, index: int) -> np.ndarray:
    """Return the mask of a thing in `photograph`, never an empty one."""
    found = scene.masks(672)[index][96:576, 16:656]
    return found if found.any() else np.ones_like(found)


def examples(count: int) -> list[Example]:
    """Return an example per thing, with its mask and a caption that says the colour of one."""
    found = []
    for i, scene in enumerate(scenes(count)):
        said = " and ".join(phrase(thing.noun, colour=thing.colour) for thing in scene.objects)
        for k, thing in enumerate(scene.objects):
            shown = {"image": partial(photograph, scene), "load_mask": partial(mask, scene, k)}
            found.append(Example(f"{i}/{thing.noun}", said, thing.noun, said, (thing.noun,), **shown))
    return found


def captions(count: int) -> list[Example]:
    """Return `CAPTIONS` examples an image."""
    said = "a man riding a {} bicycle on a busy street"
    return [
        Example(f"{i}/{k}", text, "bicycle", text, ("bicycle",), image)
        for i, image in enumerate(partial(photograph, scene) for scene in scenes(count))
        for k, text in enumerate(said.format(colour) for colour in list(COLOURS)[:CAPTIONS])
    ]


def choices(count: int) -> list[Choice]:
    """Return a choice per image."""
    return [
        Choice(str(i), "swap_att", "a red dog and a blue car", "a blue dog and a red car", partial(photograph, scene))
        for i, scene in enumerate(scenes(count))
    ]


def study(name: str, count: int) -> Callable[[], object]:
    """Return a call that runs a study on `count` images."""
    from studies import concreteness, photographs

    clip, (kind, _) = model(), name.split(maxsplit=1)
    run, make = {
        "concreteness": (concreteness.word_rows, captions),
        "matching": (photographs.matching_rows, examples),
        "colours": (photographs.colour_rows, examples),
        "choices": (photographs.choice_rows, choices),
    }[kind]
    return partial(run, clip, make(count))


def method(name: str, count: int) -> Callable[[], object]:
    """Return a call that explains `count` images with a prompt each, words and all."""
    explainer = Explainer(model(), method=name)
    return lambda: [explainer.explain(photograph(scene), scene.caption) for scene in scenes(count)]


def measured(made: Callable, name: str, count: int) -> tuple[float, float]:
    """Return seconds for a thousand images, and the most memory that the process had, in GiB."""
    if count > 1:
        made(name, 1)()
    call, start = made(name, count), time.perf_counter()
    call()
    seconds = (time.perf_counter() - start) / count * 1000
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table(head: str, made: Callable, rows: Sequence[tuple[str, str, int]]) -> None:
    """Print one table, a row per name, title and number of images."""
    print(f"\n| {head} | seconds for 1,000 images | most memory |\n| --- | --: | --: |")
    for name, title, count in rows:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            seconds, memory = alone.apply(measured, (made, name, count))
        print(f"| {title} | {seconds:,.0f} | {memory:.1f} GiB |", flush=True)


if __name__ == "__main__":
    table("study", study, [(name, f"{name}: {what}", 8) for name, what in STUDIES.items()])
    table("method, one prompt per image", method, [(n, m.title, SLOW.get(n, 8)) for n, m in METHODS.items()])
