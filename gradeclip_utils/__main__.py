"""The command line: `--help` names the commands, `COMMAND --help` says what one takes, with an example.

    python -m gradeclip_utils explain                                    # does the bundled model work here?
    python -m gradeclip_utils explain --model ViT-B-16 --pretrained openai --image dog.jpg --caption "a dog on a sofa"
    python -m gradeclip_utils explain --image a.jpg b.jpg --caption "a dog" "a cat" --out maps.pdf  # maps-a.pdf, ...

Exit code 0 when it was done, 2 with one sentence when something was wrong with what was asked for, 130
when it was stopped. `--debug` shows the traceback of that sentence; a fault of ours always has one. A command's
arguments are in the room that does the work, as `add_arguments(parser)` and `run_command(options)`; only the room of
the command that was chosen is imported.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from . import __version__
from .checks import writable
from .errors import GradeclipError
from .files import write_whole

if TYPE_CHECKING:
    from PIL import Image

    from .explain import Explainer
    from .explanation import Explanation

PROGRAM = "python -m gradeclip_utils"


@dataclass(frozen=True)
class Command:
    """A command, or a group of them.

    Attributes:
        about: what it does, in one sentence.
        example: what a user would type, a line a call.
        module: where `add_arguments` and `run_command` are; empty for a group.
        inside: the commands of a group, by name.
        of_model: whether it is about one model, and takes `--model`, `--pretrained` and `--device`.
    """

    about: str
    example: str
    module: str = ""
    inside: dict[str, Command] = field(default_factory=dict)
    of_model: bool = False


STUDIES = {
    name: Command(f"the main figures {about}; a table goes on where it was stopped", f"{name} {example}",
                  ".studies.command", of_model=True)
    for name, about, example in (
        ("matching", "of image-text matching, of any model", "--model ViT-B-16 --pretrained openai"),
        ("binding", "of attribute binding, of any model", "--out binding.csv"),
        ("concreteness", "of word concreteness, of any model", "--model emoji-fine"),
        ("architectures", "of a model among other architectures", "--model emoji-resnet"),
        ("first-steps", "of twelve steps of fine-tuning, of any model", "--out lessons.csv"),
        ("methods", "of Grad-ECLIP beside other methods, of any model", "--out methods.csv"),
        ("words", "of scores of words by all methods, of any model", "--out methods.csv"),
        ("causal", "of what maps say of the effect of an object, by all methods, of any model", "--out causal.csv"),
    )
} | {
    "choices": Command(
        "of two captions, which is this image's? SugarCrepe, Winoground, ARO, of any model; with --folder it goes on "
        "where it was stopped", "choices --data winoground:winoground --model ViT-B-16 --pretrained openai",
        ".studies.choices", of_model=True),
    "two-models": Command(
        "which figures hold for the model that binds colours and for the one that does not, and which after another "
        "training? Writes data/two_models.csv",
        'two-models\ntwo-models "second seed=runs/seed7.safetensors"', ".studies.two_models"),
    "exposure": Command("how often the training of the bundled model said each word", "exposure --write",
                        ".studies.concreteness.informativeness"),
    "fine-tuning": Command(
        "what do Grad-ECLIP maps teach, beside other maps, none, and true masks? Writes data/finetuning.csv",
        "fine-tuning --arms before grad-eclip", ".training.finetune.experiment"),
}  # fmt: skip
COMMANDS = {
    "explain": Command(
        "load a CLIP, say what can be explained, check that the explained number is the model's own, write a figure of "
        "each image",
        'explain --model ViT-B-16 --pretrained openai --image dog.jpg --caption "a dog on a sofa"\n'
        'explain --image a.jpg b.jpg --caption "a dog" "a cat" --out maps.pdf',
        ".__main__", of_model=True),
    "evaluate": Command(
        "is this map better than that one? Measure methods on a data set; given again, it goes on where it was stopped",
        "evaluate --data scenes:development:200 --methods grad-eclip,maskclip --jobs 2",
        ".evaluation.run", of_model=True),
    "words": Command(
        "are the scores of a caption's words right? Every method that has some, and how many text layers are best",
        "words --model emoji --n 200\nwords --layers", ".evaluation.words", of_model=True),
    "report": Command(
        "which pairs of a data set deserve a second look? One page, the worst first; given again, it goes on where it "
        "was stopped", "report --data photos --captions captions.csv --out report --model ViT-B-16 --pretrained openai",
        ".evaluation.dataset_report", of_model=True),
    "study": Command("measure what a lesson is about", "study binding --model emoji-fine", inside=STUDIES),
    "convert": Command(
        "a CLIP of open_clip as a CLIPModel of transformers, or back: the same weights, the same explanation",
        "convert emoji --out emoji-hf\nconvert transformers:emoji-hf --out emoji-back", ".models.convert"),
    "card": Command("what the bundled model recognises, and what it cannot: the figures of its card",
                    "card --split test --write", ".training.card"),
    "train": Command(
        "train the bundled CLIP from nothing on emoji scenes; given again, it goes on where it was stopped",
        "train --seed 1 --folder runs/seed1\ntrain --folder runs/seed1 --export runs/seed1.safetensors",
        ".training.scratch"),
    "art": Command("make the archive of the emoji world's drawings anew, from named packages that npm fetches",
                   "art --out art.zip", ".scenes.art"),
    "distil": Command("teach small CLIPs of other architectures by the bundled model", "distil emoji-resnet",
                      ".training.distil"),
    "fine-tune": Command("fine-tune a model on images and captions of your own, by its own maps",
                         "fine-tune --captions captions.csv --images folder --out tuned.safetensors",
                         ".training.finetune.run"),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run a command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [one for one in given if one != "--debug"]
    options = parser_of(given).parse_args(given)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say  # a warning is for the reader of this command, not about a line of source
            return options.run(options) or 0
    except Exception as error:
        if debug or not isinstance(error, (GradeclipError, OSError, ImportError)):  # any other is a fault of ours
            raise
        print(f"gradeclip: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gradeclip: stopped; where state is kept, the same command goes on from there", file=sys.stderr)
        return 130


def parser_of(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of a call: it has all commands, and the arguments of the one that is called."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="What CLIP matched in an image and in a sentence: explain, measure, train.",
        epilog=_examples(PROGRAM, COMMANDS["explain"].example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    versions = f"gradeclip {__version__}, torch {metadata.version('torch')}"
    parser.add_argument("--version", action="version", version=versions)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal, wherever it stands")
    _add_commands(parser, COMMANDS, arguments)
    return parser


def _add_commands(parser: argparse.ArgumentParser, commands: dict[str, Command], arguments: list[str]) -> None:
    """Add `commands` to `parser`; only the room of the one that `arguments` begin with is imported."""
    before = parser.prog
    group = before.removeprefix(PROGRAM).strip() or "command"
    parsers = parser.add_subparsers(metavar=group.upper(), required=True, dest="command")
    for name, command in commands.items():
        added = parsers.add_parser(
            name,
            help=command.about,
            description=fill(f"{command.about[0].upper()}{command.about[1:]}.", 100),
            epilog=_examples(before, command.example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if arguments[:1] == [name]:
            if command.inside:
                _add_commands(added, command.inside, arguments[1:])
            else:
                if command.of_model:
                    _add_model(added)
                room = import_module(command.module, "gradeclip_utils")
                room.add_arguments(added)
                added.set_defaults(run=room.run_command)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which model a command is about."""
    parser.add_argument("--model", help="a name that open_clip knows, 'transformers:NAME_OR_FOLDER', or 'emoji'")
    parser.add_argument("--pretrained", metavar="TAG_OR_PATH", help="weights: a tag of open_clip, or a file")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")


def _examples(before: str, example: str) -> str:
    return "\n".join(["example:", *(f"  {before} {line}" for line in example.splitlines())])


def _say(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"note: {message}", file=sys.stderr)


# ------------------------------------------------------------------------------------------------------------ explain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `explain`."""
    decides = "GRADECLIP_MODEL and GRADECLIP_PRETRAINED decide, and else the bundled model is used."
    parser.epilog = f"{parser.epilog}\n\nWithout --model, {decides}"
    parser.add_argument("--image", metavar="FILE", nargs="+", help="an image, or several; a drawn scene if not given")
    whose = "with --image; the scene's own otherwise"
    parser.add_argument("--caption", metavar="TEXT", nargs="+", help=f"what to look for in each image, {whose}")
    kinds = "a PNG, SVG or PDF, as it ends; of several images each has its name added; default: %(default)s"
    parser.add_argument("--out", metavar="FILE", default="explanation.png", help=kinds)
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; default: fp32")


def run_command(options: argparse.Namespace) -> None:
    """Explain each image, and say how far the explained numbers are from the model's own."""
    if options.image and not options.caption:
        raise GradeclipError("--image needs a --caption: what should be looked for in it?")
    files = options.image or [None]
    out = writable(options.out, "--out", suffixes=(".png", ".svg", ".pdf"), size=1_000_000 * len(files))
    places = [out if len(files) == 1 else out.with_stem(f"{out.stem}-{Path(file).stem}") for file in files]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise GradeclipError(f"two images would be written to {twice}: explain them in two calls")

    from .images import read_image

    for file in options.image or ():
        read_image(file)

    import matplotlib

    from .explain import Explainer
    from .models import load_clip
    from .scenes import draw_scene

    clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
    print(clip.describe())
    explainer, scene = Explainer(clip), draw_scene(seed=0)
    for file, place in zip(files, places, strict=True):
        image = scene.image() if file is None else read_image(file)
        explanation = explainer.explain(image, options.caption or [scene.caption])
        for i, caption in enumerate(explanation.prompts):
            _print_numbers(explainer, explanation, image, i)
            print(f"similarity {explanation.similarity[i]:.4f} of {file or 'a drawn scene'} and {caption!r}")
        with matplotlib.rc_context({"pdf.fonttype": 42}):  # letters as TrueType, as many journals ask for
            write_whole(place, partial(explanation.plot().savefig, format=place.suffix[1:].lower()))
        print(f"written to {place}")


def _print_numbers(explainer: Explainer, explanation: Explanation, image: Image.Image, i: int) -> None:
    caption = explanation.prompts[i]
    difference = _difference(explainer, explanation.image, caption, float(explanation.similarity[i]))
    print(f"  parity   the explained similarity differs from the plain forward pass by {difference:.1e}")
    value, low, high = explanation.prompt_dependence(explainer.null_maps(image, caption), i)
    print(f"  prompt   the map differs from those of 16 other prompts by {value:.2f} [{low:.2f}, {high:.2f}]")
    print("           (1 less their mean correlation: 0 is the same map whatever is asked)")


def _difference(explainer: Explainer, image: Image.Image, caption: str, similarity: float) -> float:
    """Between the explained number and what the model's own methods give (`encode_image`, `get_image_features`)."""
    clip, tower = explainer.clip, explainer.text_tower
    assert clip.tokenizer is not None and tower is not None  # it was explained, so that it could be read
    image_embedding = explainer.image_tower.forward(clip.preprocess(image)[None].to(tower.device))
    text_embedding = tower.forward(clip.tokenizer([caption]).to(tower.device))
    return abs(float((image_embedding * text_embedding).sum()) - similarity)


if __name__ == "__main__":
    sys.exit(main())
