"""How quickly the explorer and the lessons' panels redraw: changes that need no new pass of the image tower's trunk.

    python -m benchmarks.redraw

A change is measured from the state that is wanted to the images, the words and the legend that are sent to the
browser. Every measured state is new: another caption, word, patch, weight, threshold or opacity than any before, on an
image that was looked at once. So nothing is answered from memory but the trunk (in lesson 06, beside a word's
captions, also the maps of its captions, which norm and method do not change). The explorer must keep below 100 ms with
the bundled model and below 400 ms with ViT-B/16 (random weights, which do not change the time), a lesson's figure below
250 ms, in the median over the states of each kind, on two threads. Panels that ask several methods or models, or look
at new images, have a progress bar, and no limit.
Prints a table in Markdown; exits with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import open_clip
import torch
from PIL import Image

from gradeclip_utils import METHODS, Clip, Explainer, load_clip
from gradeclip_utils.language import NORMS
from gradeclip_utils.panels.lesson import FigurePanel, panel
from gradeclip_utils.panels.session import Session
from gradeclip_utils.panels.state import State, as_source
from gradeclip_utils.scenes import arrange
from studies.architectures import plot_model_maps
from studies.binding.cached_explainer import CachedExplainer
from studies.binding.playground import QUESTIONS, playground
from studies.concreteness.plots import plot_words
from studies.concreteness.word_study import word_study
from studies.matching.adjectives import colour_pairs, prompt_path
from studies.matching.plots import draw_path
from studies.methods_compared import method_gallery
from studies.finetuning.arms import read, tidy
from studies.finetuning.plots import draw_arms, draw_before_after

LIMITS = {"emoji": 0.100, "ViT-B-16": 0.400, "lesson": 0.250}  # seconds
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
        yield "spatial weight", replace(start, caption=next(captions), spatial=("softmax", "none")[i % 2])
        yield "one head", replace(start, caption=next(captions), attention="single-head")
        yield "threshold, opacity", replace(new, threshold=0.1 + 0.5 * i / rounds, opacity=0.9 - 0.5 * i / rounds)


def drawn(session: Session, state: State) -> None:
    """Everything that a change sends to the browser: with a caption the maps of all its words."""
    json.dumps(session.view(state).payload())


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


def lessons(clip: Clip) -> Iterator[tuple[str, FigurePanel, bool, list[tuple[dict, dict]]]]:
    """What is changed, the panel, whether it has a limit, and what to turn before (the image) and then (measured)."""
    explainer, cached, pairs = Explainer(clip), CachedExplainer(clip), list(itertools.permutations(_THINGS, 2))
    images = [{"first": one, "second": other} for one, other in pairs]
    slow = ("m2ib", "rise", "integrated-gradients", "fixlip")
    some = [name for name, method in METHODS.items() if method.image and name not in slow]
    scene, prompts = arrange(["dog", "umbrella"], background=23).image(), [{"prompt": f"a {one}"} for one in _THINGS]
    shown = panel(partial(method_gallery, Session(clip), some, scene), prompt="a dog", against="")
    yield f"03, prompt of {len(some)} methods", shown, False, [({}, one) for one in prompts]
    way = prompt_path(explainer, colour_pairs(1)[0].scene, "a dog", "a red dog")
    shown = panel(lambda weight: draw_path(way, weight), weight=(0.0, 1.0, 0.01))
    yield "04, weight of the adjective", shown, True, [({}, {"weight": 0.03 + 0.07 * i}) for i in range(len(pairs))]
    chosen = {"first": list(_THINGS), "second": list(_THINGS[::-1]), "question": list(QUESTIONS)}
    shown = panel(lambda **asked: playground(cached, **asked).figure(), **chosen)
    changes = [({**one, "question": QUESTIONS[0]}, {"question": QUESTIONS[1]}) for one in images]
    yield "05, question of the playground", shown, True, changes
    found = word_study(clip)
    norms, methods = [*NORMS], [*found.values]
    shown = panel(partial(plot_words, found), norm=norms, part=["all", "noun"], method=methods, word="")
    turned = [{"norm": norm, "method": method} for norm in norms for method in methods[1:]]
    yield "06, norm and method", shown, True, [({}, one) for one in turned]
    words = found.rows["word"].drop_duplicates().tolist()[::7]
    changes = [({"word": word, "method": methods[0]}, {"method": methods[1]}) for word in words]
    yield "06, method beside a word's captions", shown, True, changes
    yield "06, word of three new captions", shown, False, [({}, {"word": word}) for word in reversed(words)]
    results = read()
    arms = list(dict.fromkeys(tidy(results)["figure"]))
    shown = panel(lambda figure: draw_arms(results, figure), figure=arms)
    yield "07, figure of all arms", shown, True, [({}, {"figure": one}) for one in arms[1:]]
    sessions = {name: Session(one) for name, one in (("before", clip), ("after", load_clip("emoji-fine")))}
    shown = panel(partial(draw_before_after, sessions), first=list(_THINGS), second=list(_THINGS[::-1]), asked=(0, 1))
    yield "07, phrase of two models", shown, True, [({**one, "asked": 0}, {"asked": 1}) for one in images]
    names = ("emoji", "emoji-average", "emoji-siglip", "emoji-resnet")
    readers = {name: Session(load_clip(name)) for name in names}
    shown = panel(lambda prompt, report=None: plot_model_maps(readers, scene, [prompt], report), prompt="a kite")
    yield "08, prompt of four models", shown, False, [({}, one) for one in prompts]


def measure_lesson(shown: FigurePanel, changes: list[tuple[dict, dict]], rounds: int) -> list[float]:
    """Seconds of each redraw that a panel says itself."""
    took = []
    for before, then in changes[: rounds + 1]:
        shown.change(**before)
        shown.change(**then)
        assert not shown.message, shown.message
        took.append(shown.seconds)
    return took[1:]  # the first one loads fonts and libraries


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description="Time from a change in the explorer to the image.")
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
    print("| model or lesson | what is changed | median | slowest | limit |\n| --- | --- | --- | --- | --- |")
    missed = False
    for clip, image in cases:
        limit = LIMITS[clip.name]
        for kind, seconds in measure(clip, image, options.rounds).items():
            median = statistics.median(seconds)
            print(
                f"| {clip.name} | {kind} | {1e3 * median:.0f} ms | {1e3 * max(seconds):.0f} ms | {1e3 * limit:.0f} ms |"
            )
            missed |= median > limit
    limit = LIMITS["lesson"]
    for kind, shown, limited, changes in lessons(cases[0][0]):
        seconds = measure_lesson(shown, changes, options.rounds)
        median, said = statistics.median(seconds), f"{1e3 * limit:.0f} ms" if limited else "a bar"
        print(
            f"| lesson {kind.replace(', ', ' | ')} | {1e3 * median:.0f} ms | {1e3 * max(seconds):.0f} ms | {said} |",
            flush=True,
        )
        missed |= limited and median > limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
