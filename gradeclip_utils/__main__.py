"""The command `gradeclip explain | report | evaluate`; `gradeclip COMMAND --help` for more.

    gradeclip explain                      # does the bundled model work here?
    gradeclip explain --image dog.jpg --prompt "a dog" --model ViT-B-16 --pretrained openai
    gradeclip explain --image a.jpg b.jpg --prompt "a dog" "a cat" --out maps.pdf  # maps-a.pdf

The exit code is 0 after success, 2 after invalid input, with one sentence, and 130 after an
interruption. `gradeclip --debug COMMAND` adds a traceback to the sentence. The module of a command
has `command(parser)`, which adds the arguments and returns the function that runs it: options ->
the text to print.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

from . import __version__
from .errors import GradeclipError
from .files import output

if TYPE_CHECKING:
    from .explainer import Explainer
    from .explanation import Explanation

OVERWRITING = (
    "No command writes over one of its inputs, nor over a result that exists, unless you add "
    "--overwrite. The same command continues a report or an evaluation that was stopped."
)


class Command(NamedTuple):
    """A command: its purpose, calls to show, and the module with `command`."""

    purpose: str
    examples: tuple[str, ...]
    module: str


COMMANDS = {
    "explain": Command(
        "explain images by prompts: a figure of each image, with the similarity and its place "
        "among other captions",
        (
            'explain --model ViT-B-16 --pretrained openai --image dog.jpg --prompt "a dog"',
            'explain --image a.jpg b.jpg --prompt "a dog" "a cat" --out maps.pdf',
        ),
        "gradeclip_utils.__main__",
    ),
    "report": Command(
        "find the pairs of a data set that deserve a second look: one page, the worst pairs first",
        ("report --data photos --captions captions.csv --out report",),
        "gradeclip_utils.measures.dataset_report",
    ),
    "evaluate": Command(
        "measure which map is better on a data set, by how much, and how sure that is",
        ("evaluate --data scenes:development:200 --methods grad-eclip,maskclip --jobs 2",),
        "gradeclip_utils.measures.evaluation",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
    options = build_parser(arguments).parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            print(options.run(options))
    except KeyboardInterrupt:
        print("gradeclip: stopped", file=sys.stderr)
        return 130
    except (GradeclipError, OSError, ImportError) as error:  # others are faults of gradeclip
        if options.debug:
            raise
        print(f"gradeclip: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a call: it has all commands, and the arguments of the one that is called."""
    parser = argparse.ArgumentParser(
        prog="gradeclip",
        description="Explain what CLIP matched in an image and in a sentence.",
        epilog=f"{_list_examples(COMMANDS['explain'])}\n\n{fill(OVERWRITING, 100)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    versions = f"gradeclip {__version__}, torch {metadata.version('torch')}"
    parser.add_argument("--version", action="version", version=versions)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        purpose = f"{command.purpose[0].upper()}{command.purpose[1:]}."
        subparser = subparsers.add_parser(
            name,
            help=command.purpose,
            description=fill(f"{purpose} {OVERWRITING}", 100),
            epilog=_list_examples(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in arguments:  # torch takes seconds to import: only for the command that is called
            _add_model_arguments(subparser)
            _add_common_arguments(subparser)
            module = import_module(command.module)
            subparser.set_defaults(run=module.command(subparser))
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a model."""
    parser.add_argument(
        "--model",
        help="a name that open_clip knows, 'transformers:NAME_OR_FOLDER', or 'emoji'; by default "
        "GRADECLIP_MODEL, or the bundled model",
    )
    parser.add_argument(
        "--pretrained", metavar="TAG_OR_PATH", help="weights: a tag of open_clip, or a file"
    )


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands have: how models compute, and whether a result is replaced."""
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32, bf16, fp16, pure_bf16 or pure_fp16; default: %(default)s",
    )
    parser.add_argument("--device", help="as torch names it; by default GRADECLIP_DEVICE, or cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace a result that exists")


def _list_examples(command: Command) -> str:
    return "\n".join(["example:", *(f"  gradeclip {example}" for example in command.examples)])


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning without its line of source."""
    print(f"note: {message}", file=sys.stderr)


# ------------------------------------------------------------------------------------ explain


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str]:
    """Add the arguments of `explain`, and return the function that runs it."""
    parser.add_argument(
        "--image",
        metavar="FILE",
        nargs="+",
        action="extend",  # so that `--image a.jpg --image b.jpg` keeps the first
        help="one image or more; by default a drawn scene",
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        nargs="+",
        action="extend",
        help="one prompt or more for each image",
    )
    parser.add_argument(
        "--against",
        metavar="TEXT",
        help="explain the lead over this prompt; 'others': over all other captions",
    )
    parser.add_argument(
        "--method",
        default="grad-eclip",
        help="the method of the maps, such as game or maskclip; default: %(default)s",
    )
    parser.add_argument(
        "--words",
        metavar="METHOD",
        default="leave-one-out",
        help="the method of the word scores: leave-one-out, grad-eclip (as published), replace or "
        "another one; none for no scores; default: %(default)s",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="explanation.png",
        help="a PNG, SVG or PDF; of several images each has its name added; default: %(default)s",
    )
    return _run_command


def _run_command(options: argparse.Namespace) -> str:
    """Explain each image, and return the numbers of each, after the figures are written."""
    import matplotlib.pyplot as plt
    from tqdm import tqdm

    from .explainer import Explainer
    from .images import read_image
    from .models import load_clip
    from .scenes import draw_scene

    if options.image and not options.prompt:
        raise GradeclipError("--image needs a --prompt: what should be looked for in it?")
    figures = _name_figures(options)
    scene = draw_scene(seed=0)
    images = {"a drawn scene": scene.image()}
    if options.image:
        images = {file: read_image(file) for file in options.image}
    prompts = options.prompt or [scene.caption]

    clip = load_clip(
        options.model,
        options.pretrained,
        device=options.device,
        precision=options.precision,
    )
    words = None if options.words == "none" else options.words
    explainer = Explainer(clip, method=options.method, words=words)
    lines = [str(clip)]
    for name, figure in zip(tqdm(images, unit="image", delay=1), figures, strict=True):
        explanation = explainer.explain(images[name], prompts, against=options.against)
        figure.parent.mkdir(parents=True, exist_ok=True)
        with plt.rc_context({"pdf.fonttype": 42}):  # TrueType, as many journals ask for
            explanation.plot().savefig(figure)
        plt.close("all")
        for index, prompt in enumerate(prompts):
            lines.append(f"{name}, {prompt!r}:")
            lines += _numbers(explainer, explanation, index, options.against)
        lines += _crop_note(explanation)
        lines.append(f"figure: {figure}")
    return "\n".join(lines)


def _name_figures(options: argparse.Namespace) -> list[Path]:
    """The file of each image's figure, which is no input and does not exist."""
    files = options.image or []
    figures = [Path(options.out)]
    if len(files) > 1:
        out = figures[0]
        figures = [out.with_name(f"{out.stem}-{Path(file).stem}{out.suffix}") for file in files]
    if len(set(figures)) < len(figures):
        raise GradeclipError("two images have one name: explain them in two calls")

    for figure in figures:
        output(
            figure,
            "--out",
            inputs=files,
            overwrite=options.overwrite,
            suffixes=(".png", ".svg", ".pdf"),
        )
    return figures


def _numbers(
    explainer: Explainer,
    explanation: Explanation,
    index: int,
    against: str | None,
) -> list[str]:
    """The numbers of one prompt, a line each."""
    prompt = explanation.prompts[index]
    lines = [f"  similarity  {explanation.similarity[index]:.4f}"]
    if explanation.lead is not None:
        lines.append(
            f"  lead        {explanation.lead[index]:+.4f} over {explanation.lead_over}, "
            "which the map explains"
        )
    if explanation.percentile is not None:
        percentile = explanation.percentile[index]
        lines.append(
            f"  percentile  {percentile:.0f} (the image is more similar to this prompt than to "
            f"{percentile:.0f} % of {explanation.null_count} other captions)"
        )
    null_maps = explainer.null_maps(explanation.image, prompt, against=against)
    value, low, high = explanation.prompt_dependence(null_maps, index)
    lines.append(
        f"  dependence  {value:.2f} [{low:.2f}, {high:.2f}] (0: the map is the same for any "
        "prompt; 1: it has nothing in common with those of other prompts)"
    )

    clip = explainer.clip
    device = explainer.image_tower.device
    pixels = clip.preprocess(explanation.image)[None].to(device)
    tokens = clip.tokenizer([prompt]).to(device)
    assert explainer.text_tower is not None  # it has read the prompt
    plain = explainer.image_tower.forward(pixels) * explainer.text_tower.forward(tokens)
    difference = abs(float(plain.sum()) - float(explanation.similarity[index]))
    lines.append(
        f"  parity      {difference:.1e} between this similarity and the plain forward pass"
    )
    return lines


def _crop_note(explanation: Explanation) -> list[str]:
    """A line about a part of the image that the model did not see, if there is one."""
    left, top, right, bottom = explanation.box
    width, height = explanation.image.size
    if max(left, top, width - right, height - bottom) <= 0.5:  # pixels
        return []
    across = f"pixels {max(left, 0):.0f} to {right:.0f} across"
    down = f"{max(top, 0):.0f} to {bottom:.0f} down"
    return [f"The model saw the centre crop ({across} and {down}); the map ends there."]


if __name__ == "__main__":
    sys.exit(main())
