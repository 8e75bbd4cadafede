"""Fine-tune a model on images and captions of your own: python -m studies.finetuning --help.

    python -m studies.finetuning --captions captions.csv --images photos --out mine.safetensors

The same command continues a run that was stopped. It writes over nothing without --overwrite.
"""

import argparse
import sys

from gradeclip_utils.errors import GradeclipError

from .run import command


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when it is done, 2 when its input is wrong, 130 when it was stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.finetuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="by default GRADECLIP_MODEL, or the bundled model")
    parser.add_argument("--pretrained", help="weights: a tag of open_clip, or a file")
    parser.add_argument("--device", help="as torch names it; by default GRADECLIP_DEVICE, or cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace a result that exists")
    run = command(parser)
    options = parser.parse_args(arguments)
    try:
        print(run(options))
    except (GradeclipError, OSError) as error:
        print(f"fine-tuning: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fine-tuning: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
