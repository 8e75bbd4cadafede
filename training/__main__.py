"""How `data/` was made, one command a file: python -m training emoji | emoji-plain | emoji-bag | students | ...

Every training shows its progress, says its seed, keeps its state in --folder, and goes on from
there when the same command is given again. `python -m training COMMAND --help` says what a command
takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models import Clip, load_clip

from . import art, card, distil, fine, gallery, layers, scratch
from .rounds import MODELS, STARTS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__.partition("\n")[0]
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, rounds in MODELS.items():
        steps, seeds = (
            sum(recipe.steps for recipe in rounds),
            ", ".join(str(recipe.seed) for recipe in rounds),
        )
        own = commands.add_parser(
            name, help=f"train it: {steps} steps of {rounds[0].batch} scenes, seed {seeds}"
        )
        out = (
            Path("runs", f"{name}.safetensors")
            if name.endswith("control")
            else data_path(f"{name}.safetensors")
        )
        start = data_path(f"{STARTS[name]}.safetensors") if name in STARTS else ""
        own.add_argument(
            "--folder", type=Path, default=Path("runs", name), help="for the state; %(default)s"
        )
        own.add_argument("--out", type=Path, default=out, help="the weights; %(default)s")
        own.add_argument(
            "--start", default=str(start), help="weights to begin from; by default '%(default)s'"
        )
        own.add_argument(
            "--image-layers",
            type=int,
            help="layers that explain it by default; if not given, measured",
        )
        own.add_argument(
            "--rounds", help="only these rounds, such as 2-3; then --start says where they begin"
        )
        own.set_defaults(run=_train)
    own = commands.add_parser("layers", help="how many image layers should explain a model?")
    own.add_argument("--model", default="emoji")
    own.add_argument("--weights", type=Path, help="another compact checkpoint than the model's own")
    own.add_argument(
        "--write", action="store_true", help="put the number into the config beside the weights"
    )
    own.set_defaults(run=_layers)
    own = commands.add_parser(
        "students", help="teach CLIPs of other architectures by the bundled model"
    )
    own.add_argument(
        "names", nargs="*", help="of emoji-average, emoji-siglip, emoji-resnet; all by default"
    )
    own.add_argument(
        "--folder", type=Path, default=Path("runs/students"), help="for the states; %(default)s"
    )
    own.add_argument("--out", type=Path, default=data_path(), help="for the weights; %(default)s")
    own.add_argument(
        "--teacher", metavar="FILE", help="other weights of the bundled model's architecture"
    )
    own.add_argument(
        "--card",
        action="store_true",
        help="only measure the students in data/, and write their card",
    )
    own.set_defaults(run=_students)
    own = commands.add_parser(
        "emoji-fine", help="ship the model that the fine-tuning experiment trained, and its card"
    )
    own.add_argument(
        "--runs", type=Path, default=Path("runs/finetuning"), help="of the experiment; %(default)s"
    )
    own.add_argument("--out", type=Path, default=data_path(), help="%(default)s")
    own.set_defaults(
        run=lambda given: fine.ship(data_path("finetuning.csv"), given.runs, given.out)
    )
    own = commands.add_parser("card", help="the figures of the card of a bundled model")
    own.add_argument("--model", default="emoji")
    own.add_argument("--weights", type=Path, help="another compact checkpoint than the model's own")
    own.add_argument("--split", choices=["development", "test"], default="development")
    own.add_argument("--parts", nargs="*", default=(), metavar="PART", help=" ".join(card.PARTS))
    own.add_argument(
        "--write",
        action="store_true",
        help="put the figures into data/figures.csv and data/README.md",
    )
    own.set_defaults(run=_card)
    own = commands.add_parser(
        "gallery", help="maps of the first test scenes, emoji beside emoji-plain"
    )
    own.add_argument("--out", type=Path, default=data_path("gallery.png"), help="%(default)s")
    own.set_defaults(run=lambda given: gallery.gallery().savefig(given.out, dpi=100))
    own = commands.add_parser(
        "art", help="make the archive of drawings anew, from named packages that npm fetches"
    )
    own.add_argument("--out", type=Path, default=data_path("art.zip"), help="%(default)s")
    own.set_defaults(run=lambda given: art.build(given.out))
    return parser


def _students(given: argparse.Namespace) -> None:
    if given.card:
        distil.write_card(distil.card(), given.out)
    else:
        distil.make(given.names, given.folder, given.out, given.teacher)


def _card(given: argparse.Namespace) -> None:
    if given.write and (given.split != "test" or given.parts):
        raise GradeclipError(
            "--write publishes all figures of the test split: give --split test and no --parts"
        )
    table = card.measure(_clip(given), given.model, given.split, given.parts)
    print(card.as_markdown(table))
    if given.write:
        card.write(table, data_path())


def _clip(given: argparse.Namespace) -> Clip:
    """Load a trained model from its weights; students have an architecture of their own."""
    weights = given.weights or data_path(f"{given.model}.safetensors")
    return load_clip("emoji" if given.model in MODELS else given.model, weights)


def _train(given: argparse.Namespace) -> None:
    rounds = MODELS[given.command]
    if given.rounds:
        first, _, last = given.rounds.partition("-")
        rounds = rounds[int(first) - 1 : int(last or first)]
    image_layers = given.image_layers or scratch.IMAGE_LAYERS
    scratch.train_rounds(
        rounds, given.folder, given.out, start=given.start, image_layers=image_layers
    )
    if given.image_layers is None:
        layers.write(layers.fewest(layers.measure(load_clip("emoji", given.out))), given.out)


def _layers(given: argparse.Namespace) -> None:
    table = layers.measure(_clip(given))
    cases = table["measure"] + ", " + table["objects"].astype(str) + " things"
    print(
        table.assign(case=cases)
        .pivot(index="case", columns="layers", values="mean")
        .round(3)
        .to_string()
    )
    print(f"fewest layers within .05 of the best: {layers.fewest(table)}")
    if given.write:
        layers.write(layers.fewest(table), given.weights or data_path(f"{given.model}.safetensors"))


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 when it is done, 2 when it was given something wrong, 130 when it was stopped."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except (GradeclipError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: stopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
