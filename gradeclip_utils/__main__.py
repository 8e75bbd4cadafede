"""The command line: `gradeclip explain | report | evaluate`; `gradeclip COMMAND --help` shows an example.

    gradeclip explain                                    # does the bundled model work here?
    gradeclip explain --model ViT-B-16 --pretrained openai --image dog.jpg --caption "a dog on a
    sofa" gradeclip explain --image a.jpg b.jpg --caption "a dog" "a cat" --out maps.pdf  #
    maps-a.pdf, ...

The exit code is 0 after success, 2 after invalid input, with one sentence, and 130 after an
interruption. `--debug` adds a traceback to the sentence. Commands write their results before they
print. The module of a command has `command(parser)`, which adds the arguments and returns the
function that runs it: options -> the text to print.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from textwrap import fill
from typing import IO, TYPE_CHECKING, NamedTuple

from . import __version__
from .errors import GradeclipError
from .files import output, write_whole

if TYPE_CHECKING:
    from .explainer import Explainer
    from .explanation import Explanation

_OVERWRITING = (
    "No command writes over one of its inputs, nor over a result that exists, unless you add --overwrite. The same "
    "command continues a report or an evaluation that was stopped."
)


class _Command(NamedTuple):
    """A command: what it does, calls to show, and the module with `command`."""

    about: str
    example: str
    module: str


_COMMANDS = {
    "explain": _Command(
        "explain images by captions: a figure of each image, with the similarity and how it compares",
        'explain --model ViT-B-16 --pretrained openai --image dog.jpg --caption "a dog on a sofa"\n'
        'explain --image a.jpg b.jpg --caption "a dog" "a cat" --out maps.pdf',
        ".__main__",
    ),
    "report": _Command(
        "find the pairs of a data set that deserve a second look: one page, the worst pairs first",
        "report --data photos --captions captions.csv --out report --model ViT-B-16 --pretrained openai",
        ".measures.dataset_report",
    ),
    "evaluate": _Command(
        "measure which map is better on a data set, by how much, and how sure that is",
        "evaluate --data scenes:development:200 --methods grad-eclip,maskclip --jobs 2",
        ".measures.evaluation",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [one for one in given if one != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # without the line of source
            if given[:1] and given[0] in _COMMANDS and not {"-h", "--help"} & set(given):
                _say(f"gradeclip {given[0]}: loading")  # torch takes seconds to import
                try:
                    os.getcwd()
                except FileNotFoundError:  # torch's library of arithmetic would end the process
                    raise GradeclipError(
                        "the folder that this runs in was deleted: go to another one"
                    ) from None
            options = _parser_of(given).parse_args(given)
            return _print(options.run(options))
    except KeyboardInterrupt:
        again = (
            "add --overwrite to draw all of them"
            if given[:1] == ["explain"]
            else "the same command continues"
        )
        _say(f"gradeclip: stopped. What is finished is kept: {again}")
        return 130
    except (
        GradeclipError,
        OSError,
        ImportError,
        MemoryError,
    ) as error:  # any other error is a fault of gradeclip
        if debug:
            raise
        said = "there is not enough memory" if isinstance(error, MemoryError) else error
        _say(f"gradeclip: {said}")
        return 2


def _parser_of(arguments: list[str]) -> argparse.ArgumentParser:
    """Return the parser of a call: it has all commands, and the arguments of the one that is called."""
    parser = argparse.ArgumentParser(
        prog="gradeclip",
        description="Explain what CLIP matched in an image and in a sentence.",
        epilog=f"{_examples(_COMMANDS['explain'].example)}\n\n{fill(_OVERWRITING, 100)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    versions = f"gradeclip {__version__}, torch {metadata.version('torch')}"
    parser.add_argument("--version", action="version", version=versions)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, command in _COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.about,
            description=fill(f"{command.about[0].upper()}{command.about[1:]}. {_OVERWRITING}", 100),
            epilog=_examples(command.example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if arguments[:1] == [name]:
            room = import_module(command.module, "gradeclip_utils")  # of the chosen command alone
            model = "a name that open_clip knows, 'transformers:NAME_OR_FOLDER', or 'emoji'"
            added.add_argument(
                "--model", help=f"{model}; by default GRADECLIP_MODEL, or the bundled model"
            )
            added.add_argument(
                "--pretrained", metavar="TAG_OR_PATH", help="weights: a tag of open_clip, or a file"
            )
            added.add_argument(
                "--device", help="as torch names it; by default GRADECLIP_DEVICE, or cpu"
            )
            added.add_argument(
                "--overwrite", action="store_true", help="replace a result that exists"
            )
            added.set_defaults(run=room.command(added))
    return parser


def _examples(example: str) -> str:
    return "\n".join(["example:", *(f"  gradeclip {line}" for line in example.splitlines())])


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    _say(f"note: {message}")


def _say(text: str, stream: IO[str] | None = None, number: int = 2) -> OSError | None:
    """Print to a stream, by default that of errors; one that takes nothing stops no command, and is left alone."""
    try:
        print(text, file=stream or sys.stderr, flush=True)
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), number
        )  # so that Python does not try again when it ends
        return error
    return None


def _print(text: str | None) -> int:
    """Print the text of a command and return the exit code; a terminal of ASCII, or one that is gone, loses nothing."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    error = _say(text, sys.stdout, 1) if text else None
    if error is None or isinstance(error, BrokenPipeError):
        return 0
    _say(
        f"gradeclip: the results are written, and what the command says of them could not be printed: {error}"
    )
    return 2


# ------------------------------------------------------------------------------------------ explain


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str | None]:
    """Add the arguments of the command, and return the function that runs it."""
    parser.add_argument(
        "--image", metavar="FILE", nargs="+", help="one image or more; by default a drawn scene"
    )
    parser.add_argument(
        "--caption",
        metavar="TEXT",
        nargs="+",
        type=_text,
        help="one caption or more for each image",
    )
    kinds = "a PNG, SVG or PDF; of several images each has its name added; default: %(default)s"
    parser.add_argument("--out", metavar="FILE", default="explanation.png", help=kinds)
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32, bf16, fp16, pure_bf16 or pure_fp16; default: fp32",
    )
    return _run_command


def _text(given: str) -> str:
    """Return an argument that was typed as UTF-8 in a locale that has only ASCII."""
    try:
        return given.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8")
    except UnicodeError:
        name = os.environ.get("LC_ALL") or os.environ.get("LANG") or "C"
        raise argparse.ArgumentTypeError(
            f"a caption is not UTF-8 (the locale is {name}): {given!a}"
        ) from None


def _run_command(options: argparse.Namespace) -> str:
    """Explain each image, and return the numbers of each, after the figures are written."""
    if options.image and not options.caption:
        raise GradeclipError("--image needs a --caption: what should be looked for in it?")
    files, names, out = options.image or [None], [options.out], Path(options.out)
    if len(files) > 1:
        names = [out.with_name(f"{out.stem}-{Path(file).stem}{out.suffix}") for file in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise GradeclipError(f"two images would be written to {twice}: explain them in two calls")
    given = {"inputs": files, "overwrite": options.overwrite, "suffixes": (".png", ".svg", ".pdf")}
    places = [output(name, "--out", **given) for name in names]

    from .images import read_image

    for file in options.image or ():
        read_image(file)

    import matplotlib
    from tqdm import tqdm

    from .explainer import Explainer
    from .models import load_clip
    from .scenes import draw_scene

    clip = load_clip(
        options.model, options.pretrained, device=options.device, precision=options.precision
    )
    explainer, scene, said = Explainer(clip), draw_scene(seed=0), [str(clip)]
    for file, place in zip(tqdm(files, unit="image", disable=len(files) == 1), places, strict=True):
        image = scene.image() if file is None else read_image(file)
        explanation = explainer.explain(image, options.caption or [scene.caption])
        with matplotlib.rc_context(
            {"pdf.fonttype": 42}
        ):  # letters as TrueType, as many journals ask for
            write_whole(
                {place: partial(explanation.plot().savefig, format=place.suffix[1:].lower())}
            )
        said += [
            _numbers(explainer, explanation, file or "a drawn scene", i)
            for i in range(len(explanation.prompts))
        ]
        left, top, right, bottom = explanation.box
        if (
            left > 0.5
            or top > 0.5
            or right < explanation.image.width - 0.5
            or bottom < explanation.image.height - 0.5
        ):
            seen = f"pixels {max(left, 0):.0f} to {right:.0f} across and {max(top, 0):.0f} to {bottom:.0f} down"
            said.append(f"The model saw the centre crop ({seen}); the map ends there.")
        said.append(f"figure: {place}")
    return "\n".join(said)


def _numbers(explainer: Explainer, explanation: Explanation, name: str, i: int) -> str:
    """Return the numbers of one caption, after the image and the caption that they are about."""
    caption = explanation.prompts[i]
    lines = [f"{name}, {caption!r}:", f"  similarity  {explanation.similarity[i]:.4f}"]
    if explanation.percentile is not None:
        share, count = explanation.percentile[i], explanation.null_count
        lines.append(
            f"  percentile  {share:.0f} (the image is more similar to this caption than to {share:.0f} % of "
            f"{count} other captions)"
        )
    value, low, high = explanation.prompt_dependence(
        explainer.null_maps(explanation.image, caption), i
    )
    lines.append(
        f"  dependence  {value:.2f} [{low:.2f}, {high:.2f}] (0: the map is the same for any prompt; 1: it has "
        "nothing in common with those of other prompts)"
    )
    clip, tower = explainer.clip, explainer.text_tower
    assert tower is not None  # it has read the caption
    image_embedding = explainer.image_tower.forward(
        clip.preprocess(explanation.image)[None].to(tower.device)
    )
    text_embedding = tower.forward(clip.tokenizer([caption]).to(tower.device))
    difference = abs(
        float((image_embedding * text_embedding).sum()) - float(explanation.similarity[i])
    )
    return "\n".join(
        [
            *lines,
            f"  parity      {difference:.1e} between this similarity and the plain forward pass",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
