"""Drawing a scene takes a small part of the time that the bundled model takes to look at it.

    python -m benchmarks.drawing

Training draws every scene anew, so drawing must not be what it waits for. Measured on one thread once the rasters are
kept: the same development scenes are drawn twice, and the second time counts, of the best of five.

Prints its row of the table. Exits with 1 when the limit is missed.
"""

import sys
import time
from collections.abc import Callable

import torch

from gradeclip_utils import load_clip
from gradeclip_utils.scenes import CANVAS, draw_scene

LIMIT = 0.10  # of the time of a plain forward pass of image and caption
SCENES = 256


def best(act: Callable[[], object]) -> float:
    """The shortest of five times, after one that does not count."""
    act()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


@torch.inference_mode()
def main() -> int:
    """Print the row; 1 when the limit is missed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        clip, scenes = load_clip("emoji"), [draw_scene(i, split="development") for i in range(SCENES)]
        drawn = best(lambda: [scene.image(CANVAS) for scene in scenes]) / SCENES
        pixels = torch.stack([clip.preprocess(scene.image()) for scene in scenes[:32]])
        tokens = clip.tokenizer([scene.caption for scene in scenes[:32]])
        plain = best(lambda: (clip.model.encode_image(pixels), clip.model.encode_text(tokens))) / len(pixels)
    finally:
        torch.set_num_threads(threads)
    print(f"\n{SCENES} different scenes of one to four things, {CANVAS} pixels a side, one thread\n")
    print("| scene | drawn | looked at, in batches of 32 | ratio | limit | drawn a second |")
    print("| --- | --- | --- | --- | --- | --- |")
    took = f"{1000 * drawn:.2f} ms | {1000 * plain:.2f} ms | {drawn / plain:.2f}"
    print(f"| emoji | {took} | {LIMIT:.2f} | {1 / drawn:,.0f} |", flush=True)
    return int(drawn / plain > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
