"""Explaining is cheaper than looking: how long an explanation takes, in units of the model's own forward pass.

    python benchmarks/bench.py --threads 1

Every round times, one after the other and on the same image and prompts: open_clip's ``encode_image`` +
``encode_text``, which always reads 77 tokens; the same with the text cropped behind the last EOT, so that nobody can
say that the comparison flatters; and the explanation. Preprocessing and tokenizing belong to all three. A ratio is the
median over rounds of the ratio within a round. Weights are random: they do not change the time.

Prints a table in Markdown. Exits with 1 when a ratio to open_clip's own calls exceeds its limit.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from PIL import Image

from gradeclip_utils import Clip, Explainer

MODEL = "ViT-B-16"
CAPTION = "a red car next to a blue ball on grass"  # ten words


@dataclass(frozen=True)
class Case:
    """One row of the table: what is explained, and what it may cost."""

    title: str
    limit: float  # of the explanation's time, in units of the plain forward pass
    images: list[Image.Image]
    prompts: list[str]
    explain: Callable[[], object]


@torch.no_grad()
def plain(clip: Clip, images: list[Image.Image], prompts: list[str], crop: bool = False) -> None:
    """open_clip's own embeddings; with ``crop``, of the tokens up to the last EOT of the batch only."""
    model = clip.model
    model.encode_image(torch.stack([clip.preprocess(image) for image in images]), normalize=True)
    ids = clip.tokenizer(prompts)
    if not crop:
        model.encode_text(ids, normalize=True)
        return
    length = int(ids.argmax(dim=-1).max()) + 1
    x = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    torch.nn.functional.normalize(x[torch.arange(len(x)), ids.argmax(dim=-1)] @ model.text_projection, dim=-1)


def cases(explainer: Explainer) -> list[Case]:
    """The four rows."""
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 256, (375, 500, 3), dtype=np.uint8)) for _ in range(16)]
    colours = ["red", "green", "blue", "yellow", "black", "white", "brown", "pink", "orange", "purple"]
    things = ["car", "dog", "apple", "teapot", "bicycle", "umbrella", "violin", "lighthouse", "sofa", "kite"]
    prompts = [f"a photo of a {colour} {thing}" for colour, thing in itertools.product(colours, things)]
    one, some, caption = images[:1], prompts[:16], [CAPTION]
    return [
        Case("one prompt: map and words", 1.00, one, caption, lambda: explainer.explain(one[0], CAPTION)),
        Case("100 prompts, one image: the same", 0.35, one, prompts, lambda: explainer.explain(one[0], prompts)),
        Case("16 pairs: the same", 1.00, images, some, lambda: explainer.explain_batch(images, some)),
        Case("every word of ten x every region", 1.10, one, caption, lambda: explainer.interactions(one[0], CAPTION)),
    ]


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(clip: Clip, case: Case, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of the plain pass, the plain pass on cropped tokens, and the explanation, in each round."""
    actions = (
        lambda: plain(clip, case.images, case.prompts),
        lambda: plain(clip, case.images, case.prompts, crop=True),
        case.explain,
    )
    for action in actions:  # the first call pays for lazy set-up and for the parity check of each tower
        action()
    return tuple(zip(*([seconds(action) for action in actions] for _ in range(rounds)), strict=True))


def options() -> argparse.Namespace:
    """What the command line asks for, the same for every table."""
    parser = argparse.ArgumentParser(description="Time of an explanation, in units of the model's own forward pass.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (default 7)")
    return parser.parse_args()


def main() -> int:
    """Print the table; 1 when a limit is missed."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=None)
    clip = Clip(model.eval(), preprocess, open_clip.get_tokenizer(MODEL), name=MODEL)

    print(f"{MODEL}, 224 px, {arguments.threads} thread(s), torch {torch.__version__}, median of {arguments.rounds}\n")
    print("| explanation | plain forward | explained | ratio | limit | ratio to the plain forward on cropped tokens |")
    print("| --- | --- | --- | --- | --- | --- |")
    missed = False
    for case in cases(Explainer(clip)):
        forward, cropped, explained = measure(clip, case, arguments.rounds)
        ratio = statistics.median(e / f for e, f in zip(explained, forward, strict=True))
        strict = statistics.median(e / c for e, c in zip(explained, cropped, strict=True))
        times = f"{statistics.median(forward):.2f} s | {statistics.median(explained):.2f} s"
        print(f"| {case.title} | {times} | {ratio:.2f} | {case.limit:.2f} | {strict:.2f} |", flush=True)
        missed |= ratio > case.limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
