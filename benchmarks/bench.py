"""Explaining costs about one forward pass: how long an explanation takes, in units of the model's own forward pass.

    python -m benchmarks.bench --threads 1

Every round times, one after the other and on the same image and prompts: open_clip's
``encode_image`` + ``encode_text``, which always reads 77 tokens; the same with the text cropped
behind the last EOT, so that nobody can say that the comparison flatters; and the explanation.
Preprocessing and tokenizing belong to all three. A ratio is the median over rounds of the ratio
within a round. Weights are random: they do not change the time.

Prints a table in Markdown. Exits with 1 when a ratio to open_clip's own calls exceeds its limit.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from timeit import timeit
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from PIL import Image

from gradeclip_utils import Clip, Explainer

MODEL = "ViT-B-16"
CAPTION = "a red car next to a blue ball on grass"  # ten words


class Case(NamedTuple):
    """One row of the table: what is explained, and what it may cost."""

    title: str
    limit: float  # of the explanation's time, in units of the plain forward pass
    images: list[Image.Image]
    prompts: list[str]
    explain: Callable[[], object]


def random_clip() -> Clip:
    """A model with random weights, the same in each process."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL)
    return Clip(model.eval(), preprocess, open_clip.get_tokenizer(MODEL), name=MODEL)


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
    torch.nn.functional.normalize(
        x[torch.arange(len(x)), ids.argmax(dim=-1)] @ model.text_projection, dim=-1
    )


def cases(explainer: Explainer) -> list[Case]:
    """The four rows."""
    noise = np.random.default_rng(0)
    images = [
        Image.fromarray(noise.integers(0, 256, (375, 500, 3), dtype=np.uint8)) for _ in range(16)
    ]
    colours = [
        "red",
        "green",
        "blue",
        "yellow",
        "black",
        "white",
        "brown",
        "pink",
        "orange",
        "purple",
    ]
    things = [
        "car",
        "dog",
        "apple",
        "teapot",
        "bicycle",
        "umbrella",
        "violin",
        "lighthouse",
        "sofa",
        "kite",
    ]
    prompts = [
        f"a photo of a {colour} {thing}" for colour, thing in itertools.product(colours, things)
    ]
    one, some, caption = images[:1], prompts[:16], [CAPTION]
    return [
        Case(
            "one prompt: map and words",
            1.00,
            one,
            caption,
            lambda: explainer.explain(one[0], CAPTION),
        ),
        Case(
            "100 prompts, one image: the same",
            0.35,
            one,
            prompts,
            lambda: explainer.explain(one[0], prompts),
        ),
        Case(
            "16 pairs: the same", 1.00, images, some, lambda: explainer.explain_batch(images, some)
        ),
        Case(
            "every word of ten x every region",
            1.10,
            one,
            caption,
            lambda: explainer.interactions(one[0], CAPTION),
        ),
    ]


def timed(actions: Sequence[Callable[[], object]], rounds: int) -> np.ndarray:
    """Seconds (rounds, actions) of calls that follow each other in every round, once each has paid for its set-up."""
    for action in actions:
        action()
    return np.array([[timeit(action, number=1) for action in actions] for _ in range(rounds)])


def options() -> argparse.Namespace:
    """What the command line asks for, the same for every table."""
    parser = argparse.ArgumentParser(
        description="Time of an explanation, in units of the model's own forward pass."
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (default 7)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def main() -> int:
    """Print the table; 1 when a limit is missed."""
    given, clip, missed = options(), random_clip(), False
    print(
        f"{MODEL}, 224 px, {given.threads} thread(s), torch {torch.__version__}, median of {given.rounds}\n"
    )
    print(
        "| explanation | plain forward | explained | ratio | limit | ratio to the plain forward on cropped tokens |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for case in cases(Explainer(clip)):
        forward, cropped = (
            partial(plain, clip, case.images, case.prompts, crop) for crop in (False, True)
        )
        times = timed([forward, cropped, case.explain], given.rounds)
        ratio, strict = np.median(times[:, 2:] / times[:, :2], axis=0)
        before, _, explained = np.median(times, axis=0)
        spent = f"{before:.2f} s | {explained:.2f} s"
        print(
            f"| {case.title} | {spent} | {ratio:.2f} | {case.limit:.2f} | {strict:.2f} |",
            flush=True,
        )
        missed |= ratio > case.limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
