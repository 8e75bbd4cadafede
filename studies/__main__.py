"""Run a lesson on a model of your own: `python -m studies 06 --model ViT-B-16 --pretrained openai`.

`python -m studies all` runs those that measure a model one after the other, goes on after a kill,
and ends with one page: what was predicted, and what was found.

The executed notebook, its page and its table of claims lie in `results/MODEL-WEIGHTS/`. With
`--n 0`, the photographs of lesson 05 or 06 are measured alone: their claims are printed and written
to a table.
"""

import argparse
import sys
from pathlib import Path

from gradeclip_utils.errors import GradeclipError

from . import FEWEST


def _absolute(path: str) -> str:
    """A path that exists, in full: the kernel runs in another folder.

    Another text stays as it is.
    """
    if path and Path(path).exists():
        return str(Path(path).resolve())
    return path


def _absolute_data(data: str) -> str:
    """The same data sets, such as coco:FOLDER@SPLIT,colorswap:FOLDER, with paths in full."""
    from .photographs import split_sources

    sources = []
    for source in split_sources(data):
        kind, colon, places = source.partition(":")
        places = "@".join(map(_absolute, places.split("@")))
        sources.append(f"{kind}{colon}{places}")
    return ",".join(sources)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies", description="Run a lesson on a model of your own."
    )
    parser.add_argument("lesson", help="a number such as 06; all of them: all")
    parser.add_argument(
        "--model", default="emoji", help="a name that load_clip takes; default: %(default)s"
    )
    parser.add_argument("--pretrained", help="a tag of open_clip, or a file of weights")
    parser.add_argument(
        "--data", default="", help="photographs for lessons 05 to 07, such as coco:FOLDER"
    )
    parser.add_argument(
        "--n",
        type=int,
        help=f"how many scenes (in lesson 07, images), at least {FEWEST}; default: the lesson's "
        "own. 0 measures the photographs of lesson 05 or 06 alone",
    )
    options = parser.parse_args(arguments)
    if options.n == 0 and options.lesson == "all":
        parser.error("--n 0 measures the photographs of one lesson, 05 or 06")
    if options.n is not None and 0 != options.n < FEWEST:
        parser.error(f"--n must be at least {FEWEST}, or 0; got {options.n}")

    # they take seconds, and wait until the arguments are known to be right
    from .lesson import is_model_folder
    from .replication import replicate
    from .runs import measure_photographs, run_lesson

    model = options.model
    if is_model_folder(model):
        model = _absolute(model)
    pretrained = options.pretrained
    if pretrained:
        pretrained = _absolute(pretrained)
    data = _absolute_data(options.data)

    try:
        if options.lesson == "all":
            page = replicate(model, pretrained, data, options.n)
            print(page.read_text(encoding="utf-8"))
            print(page)
            return 0
        if options.n == 0:
            print(measure_photographs(options.lesson, model, pretrained, data))
            return 0
        out = run_lesson(options.lesson, model, pretrained, data, options.n)
    except GradeclipError as error:
        print(f"gradeclip: {error}", file=sys.stderr)
        return 2
    print(out.with_suffix(".html"))
    print(out.parent / f"{out.name[:2]}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
