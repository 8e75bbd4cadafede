"""How `data/` was made, one command a file: python -m training emoji | emoji-aided | students | ...

Every training shows its progress, says its seed, keeps its state in --folder, and goes on from
there when the same command is given again. `python -m training COMMAND --help` says what a command
takes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models import Clip, load_clip

from . import art, card, distil, fine, gallery, layers, roles, scratch, seeds
from .rounds import MODELS, STARTS

RUNS = Path("runs")


# ---------------------------------------------------------------------------------- arguments


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command, with the function that runs it as `run`."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")

    def command(name, run, about):
        """Add a command; gives the function that adds an argument."""
        added = commands.add_parser(name, help=about, formatter_class=parser.formatter_class)
        added.set_defaults(run=run)
        return added.add_argument

    for name in MODELS:
        add_model(command, name)

    run = use(seeds.make, "folder", "out")
    add = command("seeds", run, "three half-length trainings, and what lessons claim of each")
    add("--folder", type=Path, default=RUNS / "seeds", help="for states and weights")
    add("--out", type=Path, default=data_path(seeds.TABLE), help="the table")

    run = use(roles.make, "folder", "out")
    add = command("roles", run, "two trainings in which coins exchange names and hints")
    add("--folder", type=Path, default=RUNS / "roles", help="for states and weights")
    add("--out", type=Path, default=data_path(roles.TABLE), help="the table")

    add = command("students", run_students, "teach CLIPs of other architectures by emoji")
    add("names", nargs="*", help=f"of {', '.join(distil.CONFIGS)}; all by default")
    add("--folder", type=Path, default=RUNS / "students", help="for the states")
    add("--out", type=Path, default=data_path(), help="for the weights")
    add("--card", action="store_true", help="only measure those in data/, and write their card")

    run = use(fine.ship, "runs", "out")
    add = command("emoji-fine", run, "ship the model of the fine-tuning experiment")
    add("--runs", type=Path, default=RUNS / "finetuning", help="of the experiment")
    add("--out", type=Path, default=data_path(), help="for weights and card")

    add = command("layers", run_layers, "how many image layers should explain a model?")
    add_weights(add)
    add("--write", action="store_true", help="put the number into the config beside the weights")

    add = command("card", run_card, "the figures of the card of a bundled model")
    add_weights(add)
    add("--split", choices=["development", "test"], default="development")
    add("--parts", nargs="*", default=[], metavar="PART", help=" ".join(card.PARTS))
    add("--write", action="store_true", help="put the figures into data/figures.csv and the card")

    run = use(gallery.draw, "out")
    add = command("gallery", run, "maps of the first test scenes by two models")
    add("--out", type=Path, default=data_path("gallery.png"))

    add = command("art", use(art.build, "out"), "make the archive of drawings anew, by npm")
    add("--out", type=Path, default=data_path("art.zip"))
    return parser.parse_args(arguments)


def add_model(command, name: str) -> None:
    """The command that trains a model from scenes."""
    rounds = MODELS[name]
    steps = sum(recipe.steps for recipe in rounds)
    recipe_seeds = ", ".join(str(recipe.seed) for recipe in rounds)
    out = data_path(f"{name}.safetensors")
    if name.endswith("control"):
        out = RUNS / out.name
    start = ""
    if name in STARTS:
        start = str(data_path(f"{STARTS[name]}.safetensors"))

    about = f"train it: {steps} steps of {rounds[0].batch} scenes, seeds {recipe_seeds}"
    add = command(name, run_training, about)
    add("--folder", type=Path, default=RUNS / name, help="for the state")
    add("--out", type=Path, default=out, help="the weights")
    add("--start", default=start, help="weights to begin from")


def add_weights(add) -> None:
    """The arguments that name a trained model."""
    add("--model", default="emoji", help="a bundled model")
    add("--weights", type=Path, help="another compact checkpoint of its architecture")


# ----------------------------------------------------------------------------------- commands


def use(function: Callable, *names: str) -> Callable[[argparse.Namespace], None]:
    """A command that calls a function with these options."""
    return lambda options: function(*[getattr(options, name) for name in names])


def run_training(options: argparse.Namespace) -> None:
    """Train the rounds of a model, and choose the number of layers that explain it."""
    scratch.train_rounds(MODELS[options.command], options.folder, options.out, start=options.start)
    table = layers.measure(load_clip("emoji", options.out))
    layers.write(layers.fewest(table), options.out)


def run_students(options: argparse.Namespace) -> None:
    """Teach students, or write their card."""
    if options.card:
        distil.write_card(distil.card(), options.out)
    else:
        distil.make(options.names, options.folder, options.out)


def run_layers(options: argparse.Namespace) -> None:
    """Print where maps lie by number of layers, and write the number that is chosen."""
    table = layers.measure(trained_clip(options))
    wide = table.pivot(index=["measure", "objects"], columns="layers", values="mean")
    print(wide.round(3).to_string())
    print(f"fewest layers within .02 of the best: {layers.fewest(table)}")
    if options.write:
        weights = options.weights or data_path(f"{options.model}.safetensors")
        layers.write(layers.fewest(table), weights)


def run_card(options: argparse.Namespace) -> None:
    """Print the figures of a model, or publish them."""
    if options.write and (options.split != "test" or options.parts):
        raise GradeclipError(
            "--write publishes all figures of the test split: give --split test and no --parts"
        )
    table = card.measure(trained_clip(options), options.model, options.split, options.parts)
    print(card.as_markdown(table))
    if options.write:
        card.write(table, data_path())


def trained_clip(options: argparse.Namespace) -> Clip:
    """A trained model from its weights; students have an architecture of their own."""
    weights = options.weights or data_path(f"{options.model}.safetensors")
    architecture = "emoji" if options.model in MODELS else options.model
    return load_clip(architecture, weights)


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 when it is done, 2 when its input is wrong, 130 when it was stopped."""
    options = parse(arguments)
    try:
        options.run(options)
    except (GradeclipError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: stopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
