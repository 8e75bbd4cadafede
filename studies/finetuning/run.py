"""Fine-tuning on image-caption pairs, with Grad-ECLIP maps as region labels.

    tuned = fine_tune(load_clip(), pairs, Tuning(steps=500))        # pairs: Pair(image, caption)
    Explainer(tuned.clip).explain(image, "a red car")
    tuned.save("tuned.safetensors")

    accelerate launch -m studies.finetuning ...     # the same on several processes or GPUs

The loss of a step is CLIP's contrastive loss over whole images and captions, plus `regions` times
the region-phrase loss (`losses.region_loss`). The maps are drawn by the model as it is at that
step. Towers are in evaluation mode: no dropout, and a batch norm keeps its statistics. The same
pairs, recipe and seed give the same steps, and a killed run continues from its last state to the
same weights (`loop`).
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gradeclip_utils.checks import (
    as_path,
    chosen,
    flag,
    instance,
    listed,
    number,
    optional_library,
    short,
    whole,
    writable,
)
from gradeclip_utils.datasets import coco_captions, load, read_captions
from gradeclip_utils.errors import GradeclipError, warn
from gradeclip_utils.files import digest, output, write_whole
from gradeclip_utils.models import BUNDLED_MODELS, Clip, load_clip, save_compact
from gradeclip_utils.models.bundled import config_of
from gradeclip_utils.models.open_clip import said_in_files, some
from gradeclip_utils.prompts import as_prompts
from gradeclip_utils.runtime import isolated_torch_state
from training.loop import Loop, origin, quick_arithmetic

from .losses import GROUND_TRUTH, Features, Learner, global_loss, region_loss
from .pairs import Batch, Pair, PairBatches

_STATE, _TUNED, _MOST_WORKERS, _MOST_STEPS = "state.pt", ", fine-tuned", 256, 10**8
_CHECKS: dict[str, Callable[[str, Any], Any]] = {  # of the fields of `Tuning`
    "steps": partial(whole, least=1, most=_MOST_STEPS),
    "batch": partial(whole, least=2, most=65_536),
    "learning_rate": partial(number, least=0, most=10),
    "warmup": partial(whole, most=_MOST_STEPS),
    "regions": partial(number, least=0, most=1e6),
    "maps": lambda name, value: chosen(name, value, Learner.choices()),
    "weighted": flag,
    "focal_gamma": partial(number, least=0, most=100),
    "phrases": partial(whole, least=1, most=100),
    "precision": partial(chosen, known=("fp32", "bf16")),
    "seed": partial(whole, most=2**63 - 1),
}


@dataclass(frozen=True)
class Tuning:
    """Everything that determines the tuned weights, besides the model and the pairs.

    Attributes:
        steps: updates of the weights.
        batch: pairs in one step, of all processes together.
        learning_rate: of AdamW, at its highest; it rises over `warmup` steps and falls to zero
            along a cosine.
        warmup: steps.
        regions: weight of the region-phrase loss beside the global one; 0 trains with whole
            captions alone.
        maps: the weights that gather the dense features: a method of `methods.METHODS`, "word x
            region" (the phrase inside its caption), or a reference: "uniform", "other image",
            "ground truth" (needs `Pair.where`).
        weighted: weigh each phrase by w = max(map).
        focal_gamma: exponent of the focal loss.
        phrases: the most phrases of a caption that are used.
        precision: "fp32", or "bf16" for autocast where the processor has bfloat16; maps are always
            drawn in float32.
        seed: of the order of the pairs.

    Raises:
        GradeclipError: a value is of another kind, or out of its bounds.
    """

    steps: int = 500
    batch: int = 64
    learning_rate: float = 1e-4
    warmup: int = 20
    regions: float = 1.0
    maps: str = "grad-eclip"
    weighted: bool = True
    focal_gamma: float = 2.0
    phrases: int = 4
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, checked in _CHECKS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name)))


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, and the log of its run.

    Attributes:
        clip: the model.
        log: one row per step: step, loss, `contrast` (the global loss), regions; `phrases` (that
            had a region) and `wordless` (captions without a phrase, which count as a whole alone);
            learning_rate; seconds and cpu_seconds since the start.
    """

    clip: Clip
    log: pd.DataFrame

    def save(
        self, path: str | Path, metadata: Mapping[str, Any] | None = None, words: Sequence[str] = ()
    ) -> None:
        """Write the model for `load_clip(name, path)`; of a bundled model also its config, ending in .json.

        Args:
            path: the file, ending in .safetensors.
            metadata: what to keep with the weights, such as the recipe.
            words: of the captions; a bundled model then knows them.

        Raises:
            GradeclipError: the file cannot be written, or a weight is not finite in half precision.
        """
        clip, path = self.clip, writable(path, "the tuned model", suffixes=(".safetensors",))
        given = instance("metadata", {} if metadata is None else metadata, Mapping, "a dictionary")
        about = {str(name): str(value) for name, value in given.items()}
        if clip.name in BUNDLED_MODELS:
            known, began = (
                {*(clip.vocabulary or ()), *listed("words", words)},
                clip.pretrained.partition(_TUNED)[0],
            )
            config = json.loads(
                config_of(clip.name, None if began == "bundled" else Path(began)).read_text()
            )
            return save_compact(
                clip.model, path, words=known, metadata={**about, "base": clip.name}, config=config
            )
        state = {
            key: value.detach().cpu().contiguous().clone()
            for key, value in clip.model.state_dict().items()
        }
        about |= said_in_files(clip.model)
        return write_whole({path: lambda new: save_file(state, new, metadata=about)})


def fine_tune(
    clip: Clip,
    pairs: Sequence[Pair] | Sequence[tuple],
    tuning: Tuning = Tuning(),
    *,
    folder: str | Path | None = None,
    save_every: int = 50,
    workers: int = 0,
    progress: bool = True,
) -> Tuned:
    """Fine-tune a copy of a model on pairs of an image and a caption.

    Args:
        clip: any model with towers that can be opened; it stays as it is.
        pairs: `Pair`s or (image, caption) tuples; a list, or any sequence that makes a pair when it
            is asked for one.
        tuning: the recipe.
        folder: for the state, from which a killed run continues. None: nothing is stored.
        save_every: steps between two states.
        workers: processes that read images ahead; 0 reads them between the steps.
        progress: show a bar.

    Raises:
        UnsupportedModel: a tower cannot be opened, or has no dense features.
        GradeclipError: images are missing or damaged, there are no pairs or fewer than a batch,
            `folder` holds a different run, or the loss is not finite.
    """
    instance("tuning", tuning, Tuning, "a Tuning")
    whole("save_every", save_every, 1, _MOST_STEPS)
    whole("workers", workers, 0, _MOST_WORKERS)
    flag("progress", progress)
    if not callable(instance("clip", clip, Clip, "a Clip(model, preprocess, tokenizer)").tokenizer):
        raise GradeclipError(
            "fine-tuning reads captions, and the model has no tokenizer: give Clip one"
        )
    weights = sum(parameter.numel() for parameter in clip.model.parameters())
    if folder is not None:  # the state before and the next one: weights and two moments
        folder = writable(folder, "the folder of the state", folder=True, size=2 * 3 * weights * 4)
    if hasattr(pairs, "iloc"):
        raise GradeclipError(
            "pairs must be a list, got a table: list(zip(table['image'], table['caption']))"
        )
    makes_them = hasattr(pairs, "__getitem__") and not hasattr(
        pairs, "ndim"
    )  # when it is asked for them
    if not makes_them or isinstance(pairs, (list, tuple, str, bytes, dict)):
        pairs = _present_pairs([_as_pair(pair) for pair in listed("pairs", pairs)])
    pairs = cast(Sequence[Pair], pairs)
    if tuning.batch > len(pairs):
        raise GradeclipError(
            f"batch must be at most the number of pairs, {len(pairs)}, got {tuning.batch}"
        )
    run = _Run(clip, tuning)
    batches = PairBatches(
        clip.preprocess,
        pairs,
        tuning.batch,
        tuning.steps,
        tuning.seed,
        place=run.place,
        places=tuning.phrases,
        grid=run.grid,
    )
    about = {
        "pairs": len(pairs),
        "images and captions": digest(_content(pairs)),
        "model": clip.name,
    }
    loop = Loop(
        run.model,
        run.optimiser,
        tuning,
        _cosine_decay,
        about | origin(clip.model),
        file=None if folder is None else Path(folder) / _STATE,
        save_every=save_every,
        writes=run.place[0] == 0,
        progress=progress,
    )
    log = loop.run(batches, run.losses, workers)
    model = run.model.requires_grad_(False).eval()
    return Tuned(replace(clip, model=model, pretrained=f"{clip.pretrained}{_TUNED}"), log)


def _as_pair(given: Pair | Sequence) -> Pair:
    pair = Pair(*given) if isinstance(given, (tuple, list)) and len(given) in (2, 3) else given
    if not isinstance(pair, Pair) or not (
        isinstance(pair.image, (Image.Image, str, Path)) or callable(pair.image)
    ):
        raise GradeclipError(f"a pair is an image (or its path) and a caption, got {short(given)}")
    if not isinstance(pair.caption, str) or not pair.caption.strip():
        raise GradeclipError(
            f"the caption of a pair must be a text that is not empty, got {short(pair.caption)}"
        )
    as_prompts(pair.caption)
    return pair


def _present_pairs(pairs: list[Pair], skip_missing: bool = False) -> list[Pair]:
    """The pairs; images that are missing are refused by name, or skipped with a warning."""
    present, missing = [], []
    for pair in pairs:
        is_file = (
            not isinstance(pair.image, (str, Path))
            or as_path(pair.image, "the image of a pair").is_file()
        )
        (present if is_file else missing).append(pair)
    if missing:
        names = some([str(pair.image) for pair in missing], 10)
        message = f"{len(missing)} of {len(pairs)} images are missing: {names}"
        if not skip_missing:
            how = "Correct the table (a caption with a comma needs quotes) or the folder, or leave those out"
            raise GradeclipError(f"{message}. {how} (--skip-missing)")
        warn(f"{message}. Their pairs are skipped.", UserWarning)
    if not present:
        raise GradeclipError(
            "fine-tuning needs pairs of an image and a caption, and there are none"
        )
    return present


class _Run:
    """Model, optimiser and losses of a run, in one process or one of several."""

    def __init__(self, clip: Clip, tuning: Tuning) -> None:
        self.tuning = tuning
        self.accelerator: Any = None  # one process needs none
        self.place = (0, 1)  # number of this process, number of processes
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            library = optional_library(
                "accelerate", "fine-tuning runs in several processes here", "accelerate"
            )
            handler = library.DistributedDataParallelKwargs(find_unused_parameters=True)
            self.accelerator = library.Accelerator(kwargs_handlers=[handler])
            self.place = (self.accelerator.process_index, self.accelerator.num_processes)
        if tuning.batch % self.place[1]:
            raise GradeclipError(
                f"batch must be a multiple of {self.place[1]} processes, got {tuning.batch}"
            )
        self.model = copy.deepcopy(clip.model).eval().requires_grad_(True)
        if self.accelerator is not None:
            self.model.to(self.accelerator.device)
        self.learner = Learner(replace(clip, model=self.model), tuning.maps, tuning.regions > 0)
        tower = self.learner.image_tower
        self.device, self.grid = tower.device, None
        if tuning.maps == GROUND_TRUTH:
            (height, width), (down, across) = tower.image_size, tower.patch_size
            self.grid = height // down, width // across
        parameters = self.model.parameters()
        self.optimiser = torch.optim.AdamW(
            parameters, lr=tuning.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.wrapped = (
            self.learner if self.accelerator is None else self.accelerator.prepare(self.learner)
        )

    def losses(self, step: int, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of one pass, over the pairs of all processes, and its parts."""
        moved = {
            name: part.to(self.device)
            for name, part in vars(batch).items()
            if isinstance(part, Tensor)
        }
        tuning, batch = self.tuning, replace(batch, **moved)
        if (
            not self.learner.text_tower.verified
        ):  # against the model's own forward pass, without autocast
            with isolated_torch_state(self.device):
                self.learner.image_tower.trace(batch.pixels[:1])
                self.learner.text_tower.trace(
                    self.learner.tokenizer(list(batch.texts[:1])).to(self.device)
                )
        with quick_arithmetic(self.device, tuning.precision == "bf16"):
            found = self.wrapped(batch)
        features = Features(**self._gathered(found))
        loss = contrast = global_loss(features)
        regions, count = torch.zeros(()), 0
        if features.regions is not None:
            regions, count = region_loss(features, tuning.focal_gamma, tuning.weighted)
            loss = contrast + tuning.regions * regions
        wordless = (~batch.there.any(1)).sum()
        wordless = int(wordless if self.place[1] == 1 else self.accelerator.reduce(wordless))
        parts = {
            "contrast": contrast.item(),
            "regions": regions.item(),
            "phrases": count,
            "wordless": wordless,
        }
        return loss, parts

    def _gathered(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features of all processes, in their order; each then computes the loss of them all."""
        if self.place[1] == 1:
            return found
        gather = torch.distributed.nn.functional.all_gather
        return {
            name: part
            if part.ndim == 0
            else torch.cat(gather(part))
            if part.is_floating_point()
            else self.accelerator.gather(part)
            for name, part in found.items()
        }


def _cosine_decay(recipe: Any, step: int) -> float:
    """The learning rate at a step: up to its highest over `warmup`, times a cosine that is zero at `steps`."""
    rising = min(1.0, (step + 1) / max(1, recipe.warmup))
    return recipe.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def _content(pairs: Sequence[Pair]) -> Iterator[bytes]:
    """Captions and images, which tell a state of other pairs; of a lazy sequence only some."""
    for i in range(len(pairs) if isinstance(pairs, list) else min(len(pairs), 100)):
        pair = pairs[i]
        yield f"{pair.caption}\0".encode()
        if isinstance(pair.image, (str, Path)):
            yield Path(pair.image).expanduser().read_bytes()
        elif not callable(pair.image) or i % 10 == 0:
            yield pair.read().tobytes()


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str | None]:
    """Add the arguments of the command, and return the function that runs it."""
    parser.add_argument("--captions", type=Path, help="a table with the columns image and caption")
    parser.add_argument("--images", type=Path, help="the folder of the images")
    parser.add_argument(
        "--data", metavar="KIND:WHERE", help="instead of the two: a data set, as evaluate takes it"
    )
    tuned = "the tuned model, a file ending in .safetensors; beside it, ending in .json, the config of a bundled model"
    parser.add_argument("--out", type=Path, required=True, help=tuned)
    where = "beside --out by default, and gone when the model is written"
    parser.add_argument(
        "--folder",
        help=f"where the state is kept; a run that was cut short continues there; {where}",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave out pairs whose image is missing"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that read images ahead")
    parser.add_argument("--save-every", type=int, default=50, help="steps between two checkpoints")
    said = re.findall(
        r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(Tuning) or "", re.M
    )  # its "Attributes:"
    about = {name: " ".join(text.split()).rstrip(".").replace("%", "%%") for name, text in said}
    for one in fields(Tuning):
        kind = (
            {"action": argparse.BooleanOptionalAction}
            if one.type == "bool"
            else {"type": type(one.default)}
        )
        name = f"--{one.name.replace('_', '-')}"
        parser.add_argument(
            name, default=one.default, help=f"{about[one.name]}; %(default)s by default", **kind
        )
    return _run_command


def _pairs(options: argparse.Namespace) -> Sequence[Pair]:
    table, folder = options.captions, options.images
    if (options.data is None) != (table is not None and folder is not None) or (
        options.data and (table or folder)
    ):
        raise GradeclipError(
            "fine-tuning needs --captions and --images, or --data in place of both"
        )
    if options.data is None:
        rows, folder = read_captions(table), as_path(folder, "the folder of images")
        pairs = [Pair(folder / row.image, row.caption) for row in rows.itertuples()]
        return _present_pairs(pairs, options.skip_missing)
    kind, _, where = options.data.partition(
        ":"
    )  # COCO's examples are its categories: an image would come many times
    path, _, split = where.partition("@")
    examples = (
        coco_captions(*filter(None, (path, split)))
        if kind == "coco" and path
        else load(options.data)
    )
    return [Pair(example.image, example.caption or example.prompt) for example in examples]


def _run_command(options: argparse.Namespace) -> str | None:
    tuning = Tuning(**{name: getattr(options, name) for name in _CHECKS})
    whole("--save-every", options.save_every, 1, _MOST_STEPS)  # before a model is loaded
    whole("--workers", options.workers, 0, _MOST_WORKERS)
    model = Path(
        str(options.model or os.environ.get("GRADECLIP_MODEL")).removeprefix("transformers:")
    ).expanduser()
    weights = options.pretrained or os.environ.get("GRADECLIP_PRETRAINED")
    inputs = [
        options.captions,
        options.images,
        weights,
        *(model.iterdir() if model.is_dir() else ()),
    ]
    free = partial(output, inputs=inputs, overwrite=options.overwrite)
    out = free(options.out, "--out", suffixes=(".safetensors",))
    folder = out.with_suffix(".state") if options.folder is None else options.folder
    folder = writable(folder, "--folder", folder=True)
    pairs = _pairs(options)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    if clip.name in BUNDLED_MODELS:  # their config is written too
        free(out.with_suffix(".json"), "the config beside --out")
    writable(out, "--out", size=4 * sum(parameter.numel() for parameter in clip.model.parameters()))
    tuned = fine_tune(
        clip, pairs, tuning, folder=folder, save_every=options.save_every, workers=options.workers
    )
    if int(os.environ.get("RANK", "0")) > 0:
        return None
    words = {word.strip(".,").lower() for pair in pairs for word in pair.caption.split()}
    tuned.save(out, asdict(tuning), sorted(words))
    if options.folder is None:
        for file in (folder / _STATE, (folder / _STATE).with_suffix(".jsonl")):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # other files lie there too
            folder.rmdir()
    used = tuned.log[["phrases", "wordless"]].sum()
    name = (
        tuned.clip.name if tuned.clip.name in BUNDLED_MODELS or not options.model else options.model
    )
    return (
        f"{out}: steps: {len(tuned.log)}; phrases that had a region: {used['phrases']:.0f}; captions without a phrase, "
        f"which counted as a whole alone: {used['wordless']:.0f}"
        f'\nload it: load_clip({name!r}, {str(out)!r}), or --model {name} --pretrained "{out}"'
    )
