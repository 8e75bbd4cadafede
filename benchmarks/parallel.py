"""Two processes finish an evaluation at least 1.7 times as fast as one.

    python -m benchmarks.parallel

One process and then two, each with one thread of torch, measure the same scenes by the same methods. The two pay for
what a user pays: starting, importing torch, loading the model, and sending rows back. The first scenes are measured
before, so that neither run pays for drawing a sprite for the first time in the main process.

Prints its row of the table. Exits with 1 when the limit is missed, also where there is but one processor.
"""

import os
import sys
import time

import torch

from gradeclip_utils import load_clip
from gradeclip_utils.measures.evaluation import evaluate

LIMIT = 1.7  # how many times as fast
SCENES = 96  # twelve chunks, an even number; and long enough that starting the processes does not decide
METHODS = ["grad-eclip", "maskclip", "game", "integrated-gradients"]  # quick ones, and one that takes long


def seconds(scenes: int, jobs: int) -> float:
    """How long an evaluation of so many scenes takes."""
    clip, begin = load_clip("emoji"), time.perf_counter()
    evaluate(clip, f"scenes:development:{scenes}", METHODS, jobs=jobs, threads=1, progress=False)
    return time.perf_counter() - begin


def main() -> int:
    """Print the row; 1 when the limit is missed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds(8, jobs=1)
        one, two = seconds(SCENES, jobs=1), seconds(SCENES, jobs=2)
    finally:
        torch.set_num_threads(threads)
    print(f"\nevaluation of {SCENES} scenes, {len(METHODS)} methods, {os.cpu_count()} processors\n")
    print("| run | one process | two processes | times as fast | limit |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| python -m gradeclip_utils evaluate | {one:.1f} s | {two:.1f} s | {one / two:.2f} | {LIMIT:.2f} |",
        flush=True,
    )
    return int(one / two < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
