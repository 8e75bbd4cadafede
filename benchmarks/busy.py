"""Beside busy processes an explanation with a small model takes no longer than on a quiet machine.

    python -m benchmarks.busy

All processors but one are kept busy. A process that asks for a thread a processor then waits, at every step, for the
one that has none; one thread goes on. Nobody says here how many threads there are: the default is measured, in
processes of their own, which begin while nothing or while all of that runs.

Prints its row of the table. Exits with 1 when the limit is missed.
"""

import os
import subprocess
import sys

LIMIT = 2.0  # times as long; two threads beside one busy process took more than forty times as long
MEASURE = """
import time
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.scenes import draw_scene
explainer, images = Explainer(load_clip("emoji")), [draw_scene(i).image() for i in range(20)]
explainer.explain(images[0], "a dog")
begin = time.perf_counter()
for image in images:
    explainer.explain(image, "a dog")
print(time.perf_counter() - begin)
"""

BUSY = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # it ends with this process, however that ends


def seconds() -> float:
    """How long twenty explanations take, in a process that was told no number of threads."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", MEASURE]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout)


def main() -> int:
    """Print the row; 1 when the limit is missed."""
    quiet, processors = seconds(), os.cpu_count() or 2
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(max(1, processors - 1))]
    try:
        beside = seconds()
    finally:
        for one in busy:
            one.kill()
            one.wait()
    print(f"\n{processors} processors, {len(busy)} of them kept busy\n")
    print("| twenty explanations, emoji | quiet | beside busy processes | times as long | limit |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| default threads | {quiet:.2f} s | {beside:.2f} s | {beside / quiet:.2f} | {LIMIT:.2f} |", flush=True)
    return int(beside / quiet > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
