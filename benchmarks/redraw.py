"""How quickly the explorer redraws: changes that need no new pass of the image tower's trunk.

    python -m benchmarks.redraw

A change is measured from the state that is wanted to the PNG, the words and the legend that are sent to the browser.
Every measured state is new: another caption, word, patch, weight, threshold or opacity than any before, on a picture
that was looked at once. So nothing is answered from memory but the trunk. The bundled model must keep below 100 ms and
ViT-B/16 (random weights, which do not change the time) below 400 ms, in the median over the states of each kind, on two
threads. Prints a table in Markdown; exits with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import open_clip
import torch
from PIL import Image

from gradeclip_utils import Clip, load_clip
from gradeclip_utils.rendering import canvas, legend_html, painted, png, title_html, word_marks
from gradeclip_utils.scenes import arrange
from gradeclip_utils.session import Session, State, as_source

LIMITS = {"emoji": 0.100, "ViT-B-16": 0.400}  # seconds
_THINGS = ("car", "dog", "apple", "balloon", "bicycle", "umbrella", "violin", "rocket", "couch", "kite")
_COLOURS = ("red", "green", "blue", "yellow", "brown", "pink", "orange", "purple")


def states(start: State, rounds: int) -> Iterator[tuple[str, State]]:
    """What is changed, and a state that was never asked for before."""
    captions = (
        f"a {colour} {thing} and a {other}"
        for colour, thing, other in itertools.product(_COLOURS, _THINGS, _THINGS)
        if thing != other
    )
    for i in range(rounds):
        new = replace(start, caption=next(captions))
        yield "caption", new
        yield "word", replace(new, phrase=(2, 2))
        yield "patch", replace(start, caption=next(captions), patch=(i % 5, 3))
        yield "against", replace(new, against=next(captions))
        yield "spatial weight", replace(start, caption=next(captions), loosened=0.1 + 0.8 * i / rounds)
        yield "one head", replace(start, caption=next(captions), attention="single-head")
        yield "threshold, opacity", replace(new, threshold=0.1 + 0.5 * i / rounds, opacity=0.9 - 0.5 * i / rounds)


def drawn(session: Session, state: State) -> None:
    """Everything that a change sends to the browser."""
    view = session.view(state)
    for panel in view.panels:
        png(painted(state, panel))
        canvas(state, panel), word_marks(state, panel), title_html(state, panel), legend_html(state, panel)


def measure(clip: Clip, image, rounds: int) -> dict[str, list[float]]:
    """Seconds of each redraw, by what was changed."""
    session, took = Session(clip), {}
    start = State(as_source(image), "a dog")
    drawn(session, start)  # the trunk
    drawn(session, replace(start, attention="single-head", phrase=(1, 1)))
    for kind, state in states(start, rounds):
        begun = time.perf_counter()
        drawn(session, state)
        took.setdefault(kind, []).append(time.perf_counter() - begun)
    return took


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description="Time from a change in the explorer to the picture.")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default 2)")
    parser.add_argument("--rounds", type=int, default=9, help="new states of each kind (default 9)")
    options = parser.parse_args([] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-16", pretrained=None)
    noise = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    cases = [
        (load_clip("emoji"), arrange(["dog", "umbrella"], background=23)),
        (Clip(model.eval(), preprocess, open_clip.get_tokenizer("ViT-B-16"), "ViT-B-16"), Image.fromarray(noise)),
    ]
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} new states of each kind\n")
    print("| model | what is changed | median | slowest | limit |\n| --- | --- | --- | --- | --- |")
    missed = False
    for clip, image in cases:
        limit = LIMITS[clip.name]
        for kind, seconds in measure(clip, image, options.rounds).items():
            median = statistics.median(seconds)
            print(
                f"| {clip.name} | {kind} | {1e3 * median:.0f} ms | {1e3 * max(seconds):.0f} ms | {1e3 * limit:.0f} ms |"
            )
            missed |= median > limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
