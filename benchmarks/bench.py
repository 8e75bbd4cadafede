"""How long an explanation takes, in units of the model's own forward pass: about one.

    python -m benchmarks.bench --threads 1

Every round times, one after the other and on the same image and prompts:

- open_clip's ``encode_image`` + ``encode_text``, which always reads 77 tokens;
- the same with the text cropped behind the last EOT, which is the stricter comparison;
- the explanation.

Preprocessing and tokenizing belong to all three. A ratio is the median over rounds of the ratio
within a round. Weights are random: they do not change the time. In one thread it is the processor's
time, to which other programs on the machine add little.

Prints a table in Markdown. Exits with 1 when a ratio to open_clip's own calls exceeds its limit.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter, process_time
from timeit import timeit
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from PIL import Image
from torch.nn import functional as F

from gradeclip_utils import Clip, Explainer

MODEL = "ViT-B-16"
CAPTION = "a red car next to a blue ball on grass"  # ten words
COLOURS = "red green blue yellow black white brown pink orange purple"
THINGS = "car dog apple teapot bicycle umbrella violin lighthouse sofa kite"


class Case(NamedTuple):
    """One row of the table: what is explained, and what it may cost."""

    title: str
    aim: float  # of the explanation's time, in units of the plain forward pass
    limit: float  # beyond which the benchmark fails: timings vary
    images: list[Image.Image]
    prompts: list[str]
    explain: Callable[[], object]


def random_clip() -> Clip:
    """A model with random weights, the same in each process."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL)
    return Clip(model.eval(), preprocess, open_clip.get_tokenizer(MODEL), name=MODEL)


@torch.no_grad()
def embed(clip: Clip, images: list[Image.Image], prompts: list[str]) -> None:
    """open_clip's own embeddings."""
    pixels = torch.stack([clip.preprocess(image) for image in images])
    clip.model.encode_image(pixels, normalize=True)
    clip.model.encode_text(clip.tokenizer(prompts), normalize=True)


@torch.no_grad()
def embed_cropped(clip: Clip, images: list[Image.Image], prompts: list[str]) -> None:
    """The same of the tokens up to the last EOT of the batch only."""
    model = clip.model
    pixels = torch.stack([clip.preprocess(image) for image in images])
    model.encode_image(pixels, normalize=True)

    ids = clip.tokenizer(prompts)
    ends = ids.argmax(dim=-1)
    length = int(ends.max()) + 1
    x = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x)), ends]
    F.normalize(x @ model.text_projection, dim=-1)


def noise_images(count: int) -> list[Image.Image]:
    """Images (375, 500) of random pixels."""
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (count, 375, 500, 3), dtype=np.uint8)
    return [Image.fromarray(array) for array in arrays]


def cases(clip: Clip) -> list[Case]:
    """The rows of the table: one prompt, a hundred of one image and pairs, by word scores."""
    images = noise_images(16)
    image = images[0]
    prompts = [
        f"a photo of a {colour} {thing}"
        for colour, thing in itertools.product(COLOURS.split(), THINGS.split())
    ]
    pair_prompts = prompts[: len(images)]
    left_out = Explainer(clip)
    published = left_out.with_method(words="grad-eclip")
    maps_alone = left_out.with_method(words=None)
    embedding = left_out.embed_images(image)

    return [
        Case(
            "one prompt: map and published word scores",
            0.90,
            1.00,
            [image],
            [CAPTION],
            partial(published.explain, image, CAPTION),
        ),
        Case(
            "one prompt: map, and each word left out",
            1.10,
            1.30,
            [image],
            [CAPTION],
            partial(left_out.explain, image, CAPTION),
        ),
        Case(
            "one prompt: map alone",
            0.85,
            1.00,
            [image],
            [CAPTION],
            partial(maps_alone.explain, image, CAPTION),
        ),
        Case(
            "100 prompts, one image: maps and published word scores",
            0.16,
            0.35,
            [image],
            prompts,
            partial(published.explain, image, prompts),
        ),
        Case(
            "100 prompts, one image: maps, and each word left out",
            1.10,
            1.40,
            [image],
            prompts,
            partial(left_out.explain, image, prompts),
        ),
        Case(
            "100 prompts, one image: maps alone",
            0.13,
            0.30,
            [image],
            prompts,
            partial(maps_alone.explain, image, prompts),
        ),
        Case(
            "16 pairs: maps and published word scores",
            0.85,
            1.00,
            images,
            pair_prompts,
            partial(published.explain_batch, images, pair_prompts),
        ),
        Case(
            "16 pairs: maps, and each word left out",
            1.10,
            1.30,
            images,
            pair_prompts,
            partial(left_out.explain_batch, images, pair_prompts),
        ),
        Case(
            "one prompt: words alone, by leaving out",
            0.35,
            0.50,
            [image],
            [CAPTION],
            partial(left_out.score_words, [CAPTION], embedding),
        ),
        Case(
            "every word of ten x every region",
            1.00,
            1.10,
            [image],
            [CAPTION],
            partial(left_out.interactions, image, CAPTION),
        ),
    ]


def timed(actions: Sequence[Callable[[], object]], rounds: int) -> np.ndarray:
    """Seconds (rounds, actions) of calls that follow each other in every round, after a warm-up."""
    for action in actions:
        action()
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    seconds = []
    for _ in range(rounds):
        seconds.append([timeit(action, number=1, timer=clock) for action in actions])
    return np.array(seconds)


def parse_options() -> argparse.Namespace:
    """The options of the command line, the same for every table."""
    parser = argparse.ArgumentParser(
        description="Time of an explanation, in units of the model's own forward pass."
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (default 7)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def main() -> int:
    """Print the table; 1 when a limit is missed."""
    options = parse_options()
    clip = random_clip()
    print(
        f"{MODEL}, 224 px, {options.threads} thread(s), torch {torch.__version__}, "
        f"median of {options.rounds}\n"
    )
    print("| explanation | plain forward | explained | ratio | aim | limit | ratio, cropped text |")
    print("| --- | --- | --- | --- | --- | --- | --- |")

    missed = False
    for case in cases(clip):
        forward = partial(embed, clip, case.images, case.prompts)
        cropped = partial(embed_cropped, clip, case.images, case.prompts)
        times = timed([forward, cropped, case.explain], options.rounds)

        ratio, cropped_ratio = np.median(times[:, 2:] / times[:, :2], axis=0)
        forward_time, _, explain_time = np.median(times, axis=0)
        print(
            f"| {case.title} | {forward_time:.2f} s | {explain_time:.2f} s | {ratio:.2f} "
            f"| {case.aim:.2f} | {case.limit:.2f} | {cropped_ratio:.2f} |",
            flush=True,
        )
        missed |= ratio > case.limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
