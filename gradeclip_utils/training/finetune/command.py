"""The command `fine-tune`: a table of captions and a folder of images in, a tuned model out.

    captions.csv, images --here--> run -> model file -> load_clip

As a user types it: python -m gradeclip_utils fine-tune --captions captions.csv --images folder --out tuned.safetensors
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from ...models import BUNDLED_MODELS, Clip, load_clip, save_compact
from ..options import add_fields, read_fields
from .pairs import present_pairs, read_pairs
from .run import Tuning, fine_tune


def save_tuned(clip: Clip, path: str | Path, metadata: dict[str, str], words: Sequence[str] = ()) -> None:
    """Write a tuned model for `load_clip(name, path)`: compact for a bundled model, else its state as safetensors.

    Args:
        clip: the model.
        path: the file, ending in .safetensors.
        metadata: provenance, kept in the file.
        words: of the captions; the bundled model's own are kept.
    """
    if clip.name in BUNDLED_MODELS:
        return save_compact(clip.model, path, words={*(clip.vocabulary or ()), *words}, metadata=metadata)
    state = {key: value.detach().cpu().contiguous() for key, value in clip.model.state_dict().items()}
    save_file({key: value.clone() for key, value in state.items()}, path, metadata=metadata)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `fine-tune`."""
    parser.add_argument("--captions", type=Path, required=True, help="a table with the columns image and caption")
    parser.add_argument("--images", type=Path, required=True, help="the folder of the images")
    parser.add_argument("--out", type=Path, required=True, help="the tuned model, a file ending in .safetensors")
    parser.add_argument("--folder", type=Path, help="where the state is kept; a run that was cut short goes on there")
    parser.add_argument("--model", help="as load_clip takes it; by default GRADECLIP_MODEL, or the bundled model")
    parser.add_argument("--pretrained", help="as load_clip takes it")
    parser.add_argument("--device", default="cpu", help="of one process, as torch names it (cpu, cuda)")
    parser.add_argument("--skip-missing", action="store_true", help="leave out pairs whose image is missing")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images ahead")
    parser.add_argument("--save-every", type=int, default=50, help="steps between two checkpoints")
    add_fields(parser, Tuning())


def run_command(options: argparse.Namespace) -> None:
    """The command `fine-tune`: read the pairs, tune, save, and say what was used."""
    clip = load_clip(options.model, options.pretrained, device=options.device)
    tuning = read_fields(options, Tuning())
    pairs = present_pairs(read_pairs(options.captions, options.images), options.skip_missing)
    kept = {"folder": options.folder, "save_every": options.save_every, "workers": options.workers}
    tuned = fine_tune(clip, pairs, tuning, **kept)
    if int(os.environ.get("RANK", "0")) == 0:
        words = {word.strip(".,").lower() for pair in pairs for word in pair.caption.split()}
        save_tuned(tuned.clip, options.out, {name: str(value) for name, value in asdict(tuning).items()}, sorted(words))
        used = tuned.log[["phrases", "wordless"]].sum() * tuning.grad_accum_steps
        print(f"{options.out}: {len(tuned.log)} steps; {used['phrases']:.0f} phrases had a region, and "
              f"{used['wordless']:.0f} captions had no phrase and were used as a whole alone")  # fmt: skip
