"""The command `fine-tune`: a table of captions and a folder of images in, a tuned model out.

    captions.csv, images --here--> run -> model file -> load_clip

As a user types it: python -m gradeclip_utils fine-tune --captions captions.csv --images folder --out tuned.safetensors
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from ...checks import whole, writable
from ...datasets import load
from ...errors import InvalidValue
from ...files import write_path_whole
from ...models import BUNDLED_MODELS, Clip, load_clip, save_compact
from ..options import add_fields, read_fields
from .pairs import Pair, present_pairs, read_pairs
from .run import Tuning, check, fine_tune


def save_tuned(clip: Clip, path: str | Path, metadata: dict[str, str], words: Sequence[str] = ()) -> None:
    """Write a tuned model for `load_clip(name, path)`: compact for a bundled model, else its state as safetensors.

    Args:
        clip: the model.
        path: the file, ending in .safetensors.
        metadata: provenance, kept in the file.
        words: of the captions; the bundled model's own are kept.

    Raises:
        InvalidFile: it cannot be written; the message says where the model is kept instead.
    """
    if clip.name in BUNDLED_MODELS:
        known = {*(clip.vocabulary or ()), *words}
        write_path_whole(Path(path), lambda new: save_compact(clip.model, new, words=known, metadata=metadata))
        return
    state = {key: value.detach().cpu().contiguous().clone() for key, value in clip.model.state_dict().items()}
    write_path_whole(Path(path), lambda new: save_file(state, new, metadata=metadata))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `fine-tune`.

    Args:
        parser: gains them.
    """
    parser.add_argument("--captions", type=Path, help="a table with the columns image and caption")
    parser.add_argument("--images", type=Path, help="the folder of the images")
    parser.add_argument("--data", metavar="KIND:WHERE", help="instead of the two: a data set, as evaluate takes it")
    parser.add_argument("--out", type=Path, required=True, help="the tuned model, a file ending in .safetensors")
    where = "beside --out by default, and gone when the model is written"
    parser.add_argument("--folder", help=f"where the state is kept; a run that was cut short goes on there; {where}")
    parser.add_argument("--model", help="as load_clip takes it; by default GRADECLIP_MODEL, or the bundled model")
    parser.add_argument("--pretrained", help="as load_clip takes it")
    parser.add_argument("--device", default="cpu", help="of one process, as torch names it (cpu, cuda)")
    parser.add_argument("--skip-missing", action="store_true", help="leave out pairs whose image is missing")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images ahead")
    parser.add_argument("--save-every", type=int, default=50, help="steps between two checkpoints")
    add_fields(parser, Tuning())


def _pairs(options: argparse.Namespace) -> Sequence[Pair]:
    """The pairs of a table and a folder, or of a data set."""
    table, folder = options.captions, options.images
    if (options.data is None) != (table is not None and folder is not None) or (options.data and (table or folder)):
        raise InvalidValue("fine-tune needs --captions and --images, or --data in place of both", "option-data")
    if options.data is None:
        return present_pairs(read_pairs(table, folder), options.skip_missing)
    return [Pair(example.image, example.caption or example.prompt) for example in load(options.data)]


def run_command(options: argparse.Namespace) -> None:
    """The command `fine-tune`: read the pairs, tune, save, and say what was used.

    Args:
        options: what the parser read.

    Raises:
        ValueError, FileNotFoundError: as of `fine_tune`; or, before a pair is read, a place that cannot be written.
    """
    tuning = check(read_fields(options, Tuning()))
    for name, least in (("save_every", 1), ("workers", 0)):
        whole(f"--{name.replace('_', '-')}", getattr(options, name), least)
    out = writable(options.out, "--out", suffixes=(".safetensors",))
    folder = out.with_suffix(".state") if options.folder is None else options.folder
    folder = writable(folder, "--folder", folder=True)
    pairs = _pairs(options)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    writable(out, "--out", size=4 * sum(parameter.numel() for parameter in clip.model.parameters()))
    kept = {"folder": folder, "save_every": options.save_every, "workers": options.workers}
    tuned = fine_tune(clip, pairs, tuning, **kept)
    if int(os.environ.get("RANK", "0")) == 0:
        words = {word.strip(".,").lower() for pair in pairs for word in pair.caption.split()}
        save_tuned(tuned.clip, out, {name: str(value) for name, value in asdict(tuning).items()}, sorted(words))
        if options.folder is None:
            for file in folder.glob("state.*"):
                file.unlink()
            with suppress(OSError):  # somebody else's files lie there too
                folder.rmdir()
        used = tuned.log[["phrases", "wordless"]].sum() * tuning.grad_accum_steps
        print(f"{out}: {len(tuned.log)} steps; {used['phrases']:.0f} phrases had a region, and "
              f"{used['wordless']:.0f} captions had no phrase and were used as a whole alone")  # fmt: skip
