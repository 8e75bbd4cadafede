"""Fine-tune a model on images and captions of your own, by its own maps.

    python -m studies.finetuning --captions captions.csv --images photos --out mine.safetensors
    accelerate launch -m studies.finetuning ...        # the same on several GPUs

captions.csv has the columns image and caption. The same command goes on with a run that was
stopped. All parts of a recipe are in `studies.finetuning.Tuning`.
"""

import argparse
import os
import sys
from pathlib import Path

from gradeclip_utils.datasets import read_captions
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import output
from gradeclip_utils.models import load_clip

from .losses import map_choices
from .pairs import Pair
from .run import Tuning, fine_tune

RECIPE = {  # options of the recipe, and what they mean
    "steps": "updates of the weights",
    "batch": "pairs in one step, of one GPU",
    "learning_rate": "of AdamW",
    "warmup": "steps in which the rate rises",
    "regions": "weight of the region loss",
    "maps": f"one of {', '.join(map_choices())}",
    "seed": "of the order of the pairs",
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.finetuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--captions", type=Path, required=True, help="a table with the columns image and caption")
    add("--images", type=Path, required=True, help="the folder of the images")
    add("--out", type=Path, required=True, help="the tuned model, ending in .safetensors")
    add("--overwrite", action="store_true", help="replace a result that exists")
    add("--model", help="by default GRADECLIP_MODEL, or the bundled model")
    add("--pretrained", help="weights: a tag of open_clip, or a file")
    add("--device", help="as torch names it; by default GRADECLIP_DEVICE, or cpu")
    add("--workers", type=int, default=0, help="processes that read images ahead")
    add("--save-every", type=int, default=50, help="steps between two saved states")

    recipe = Tuning()
    for name, meaning in RECIPE.items():
        default = getattr(recipe, name)
        option = f"--{name.replace('_', '-')}"
        add(option, type=type(default), default=default, help=meaning)
    add("--precision", default=recipe.precision, choices=("fp32", "bf16"))
    return parser.parse_args(arguments)


def read_pairs(captions: Path, images: Path) -> list[Pair]:
    """Pairs of a table; images that are missing are refused by name."""
    table = read_captions(captions)
    pairs = [Pair(images / row.image, row.caption) for row in table.itertuples()]
    missing = [name for name in table["image"] if not (images / name).is_file()]
    if missing:
        raise GradeclipError(
            f"{len(missing)} of {len(pairs)} images are missing, such as {missing[0]}: "
            "correct the table (a caption with a comma needs quotes) or the folder"
        )
    return pairs


def run(options: argparse.Namespace) -> str:
    """Tune and write the model; a sentence on the result."""
    inputs = [options.captions, options.pretrained]
    out = output(
        options.out,
        "--out",
        inputs=inputs,
        overwrite=options.overwrite,
        suffixes=(".safetensors",),
    )
    recipe = {name: getattr(options, name) for name in RECIPE}
    tuning = Tuning(**recipe, precision=options.precision)
    pairs = read_pairs(options.captions, options.images)
    clip = load_clip(options.model, options.pretrained, device=options.device)

    accelerator = None
    if "LOCAL_RANK" in os.environ:  # started by accelerate launch
        from accelerate import Accelerator

        accelerator = Accelerator()

    checkpoint = out.with_suffix(".checkpoint")
    tuned = fine_tune(
        clip,
        pairs,
        tuning,
        checkpoint=checkpoint,
        save_every=options.save_every,
        workers=options.workers,
        accelerator=accelerator,
    )
    if accelerator is None or accelerator.is_main_process:
        tuned.save(out)
        checkpoint.unlink(missing_ok=True)

    phrases, wordless = tuned.log[["phrases", "wordless"]].sum().astype(int)
    return (
        f"{out}: {len(tuned.log)} steps; {phrases} phrases had a region; "
        f"{wordless} captions without a phrase counted as a whole alone\n"
        f"load it: load_clip({clip.name!r}, {str(out)!r})"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when it is done, 2 when its input is wrong, 130 when it was stopped."""
    options = parse(arguments)
    try:
        print(run(options))
    except (GradeclipError, OSError) as error:
        print(f"fine-tuning: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fine-tuning: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
