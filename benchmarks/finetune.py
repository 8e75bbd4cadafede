"""What region labels cost: a step of fine-tuning with maps, in units of a step with whole captions alone.

    python -m benchmarks.finetune

Both steps are whole ones, as `fine_tune` takes them: images preprocessed, both towers forward and backward, the
optimiser. The step without maps is as lean as ours can be (text cropped behind its end, the last image block for the
query token alone), so that the comparison does not flatter. They take turns, a few steps each; the ratio is that of
the medians. The follow-up paper reports 1.18 for an epoch. Prints a table in Markdown; exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from dataclasses import replace

import numpy as np
import open_clip
import torch
from PIL import Image

from gradeclip_utils import Clip, ExplanationWarning, load_clip
from studies.finetuning.arms import ScenePairs
from gradeclip_utils.finetune.pairs import Pair
from gradeclip_utils.finetune.run import Tuning, fine_tune

LIMIT = 1.33
_CAPTION = "a red car next to a blue ball and two small dogs on green grass"  # four phrases


def photo_like(n: int) -> list[Pair]:
    """Pairs of noise in the size of a photograph, with captions of four phrases."""
    noise = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    return [Pair(Image.fromarray(one), _CAPTION.replace("red", str(i))) for i, one in enumerate(noise)]


def measured(clip: Clip, pairs, tuning: Tuning, rounds: int) -> tuple[float, float]:
    """Median seconds of a step without and with maps; the first step of every turn pays for what is lazy."""
    seconds: dict[float, list[float]] = {0.0: [], 1.0: []}
    for _ in range(rounds):
        for regions, found in seconds.items():
            log = fine_tune(clip, pairs, replace(tuning, regions=regions), progress=False).log
            found.extend(np.diff(log["seconds"]).tolist())
    return statistics.median(seconds[0.0]), statistics.median(seconds[1.0])


def main() -> int:
    """Print the table; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description="Time of a step of fine-tuning with maps, in units of one without.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each kind of step (default 4)")
    given = parser.parse_known_args()[0]
    torch.set_num_threads(given.threads)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-16", pretrained=None)
    large = Clip(model.eval(), preprocess, open_clip.get_tokenizer("ViT-B-16"), "ViT-B-16")
    cases = [
        ("emoji, 32 scenes", load_clip("emoji"), ScenePairs(32), Tuning(steps=5, batch=32)),
        ("ViT-B-16, 4 images of four phrases", large, photo_like(4), Tuning(steps=3, batch=4, precision="fp32")),
    ]
    print(f"{given.threads} thread(s), torch {torch.__version__}, medians of {given.rounds} turns\n")
    print("| fine-tuning, one step | without maps | with maps | ratio | limit |")
    print("| --- | --- | --- | --- | --- |")
    missed = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)  # noise has nothing to explain
        for title, clip, pairs, tuning in cases:
            without, maps = measured(clip, pairs, tuning, given.rounds)
            print(f"| {title} | {without:.2f} s | {maps:.2f} s | {maps / without:.2f} | {LIMIT} |", flush=True)
            missed |= maps / without > LIMIT
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
