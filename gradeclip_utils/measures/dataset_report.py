"""A report of your own images and captions: which pairs deserve a second look? One page, the worst pairs first.

    images, captions -> explanations -> rows, thumbnails -> index.html

    gradeclip report --data folder --captions captions.csv --out report

Every pair is asked three questions. Does the caption fit its own image better than other images (`fit`)? Does the map
depend on the caption (`dependence`, see `Explanation.prompt_dependence`)? Is the similarity far from those of the other
pairs (`deviation`)? If the data set has masks, the map is compared with them.

Rows are kept as those of an evaluation are (`table`): a report that was killed goes on where it was, and the page is
written at the end, whole. A pair that cannot be explained is a row that says why.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..checks import instance, whole, writable
from ..checks import seed as checked_seed
from ..datasets import Example, captioned_images, load, spread
from ..errors import GradeclipError
from ..explain import Explainer
from ..explanation import Explanation
from ..files import write_whole
from ..images import read_image
from ..models import Clip, load_clip
from ..plots import paint
from ..towers.base import remembering
from .evaluation import examples_of, method_names, run_table
from .localisation import localisation
from .report_page import page_of, worst_first
from .table import content_digest

_PAGE, _THUMBNAILS = "index.html", "thumbnails"
_SAMPLE = 64  # images of the data set that every caption is compared with
_HEIGHT = 160  # pixels of a thumbnail


def report(
    clip: Clip, data: str | Sequence[Example], out: str | Path, *, method: str = "grad-eclip",
    limit: int | None = None, nulls: int = 16, seed: int = 0, progress: bool = True, overwrite: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Explain every pair of a data set, and write a page that shows the worst of them first.

    Args:
        clip: the model.
        data: a data set as `datasets.load` takes it, or a list of `Example`.
        out: a folder for the report: `index.html`, `thumbnails/`, and the rows as `rows.jsonl`.
        method: of `methods.METHODS`, one with maps of images.
        limit: at most this many examples, spread over the data.
        nulls: how many prompts about other things a map is compared with (`Explainer.null_maps`), 2 to 1000.
        seed: of these prompts.
        progress: show a bar.
        overwrite: begin anew in a folder that holds another run.

    Returns:
        One row a pair, the worst first: image, prompt, error (why the pair could not be explained), content (a checksum
        of image and mask), thumbnail, similarity, fit (fraction of up to 64 other images that the caption fits less),
        dependence, low and high (its interval), largest (value of the map), the measures of `localisation` if there is
        a mask, deviation (of the similarity from the median, in robust deviations) and warnings.

    Raises:
        GradeclipError: an unknown method, no examples, a folder of another report.
    """
    instance("clip", clip, Clip, "a Clip(model, preprocess, tokenizer)")
    (method,) = method_names([method])
    nulls, seed = whole("nulls", nulls, 2, 1000), checked_seed(seed)
    examples = examples_of(data, limit)
    settings = {"report": method, "nulls": nulls, "seed": seed}
    with run_table(out, clip, examples, settings, ("image",), overwrite) as table:
        explainer = Explainer(clip, method=method, seed=seed)
        vars(explainer.image_tower)["trace"] = remembering(explainer.image_tower.trace)
        sample = _sample(explainer, examples) if len(table.rows) < len(examples) else {}
        failed = {}
        for number, example in enumerate(tqdm(examples, unit="pair", disable=not progress)):
            if kept := table.rows.get((example.key,)):
                if kept["content"] != content_digest(example.image(), example.mask()):
                    msg = f"image or mask of {example.key!r} was replaced since: choose another folder"
                    raise GradeclipError(msg)
                continue
            row = _row(explainer, example, sample, nulls, table.folder, f"{_THUMBNAILS}/{number:06d}.jpg")
            if row["error"]:
                failed[example.key] = row  # not kept, so that a mended file is explained next time
            else:
                table.add([row])
        rows = worst_first([failed.get(one.key) or table.rows[(one.key,)] for one in examples])
        write_whole(
            table.folder / _PAGE,
            lambda stream: stream.write(page_of(rows, clip, method).encode(errors="backslashreplace")),
        )
    return rows


def _sample(explainer: Explainer, examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Return embeddings (E,) of some images, spread over the data, by the image's checksum."""
    found = {}
    for example in spread(list(examples), _SAMPLE):
        with suppress(GradeclipError):  # its own row says what is wrong
            image = read_image(example.image())
            found[content_digest(image)] = explainer.embed_images(image)[0].cpu().numpy()
    return found


def _row(explainer: Explainer, example: Example, sample: dict, nulls: int, folder: Path, thumbnail: str) -> dict:
    """Return the row of a pair, after its thumbnail is written."""
    row: dict = {"image": example.key, "prompt": example.prompt, "error": ""}
    try:
        image, mask = read_image(example.image()), example.mask()
        explanation = explainer.explain(image, example.prompt)
        dependence = explanation.prompt_dependence(explainer.null_maps(image, example.prompt, nulls))
        heat = explanation.heatmap(0, signed=True)
        measures = {} if mask is None else localisation(heat, mask)
    except GradeclipError as refusal:
        return {**row, "error": str(refusal)}
    _write_thumbnail(folder / thumbnail, explanation)
    text, own = explainer.embed_texts([example.prompt])[0].cpu().numpy(), content_digest(image)
    similarity = float(explanation.similarity[0])
    ahead = np.array([similarity - other @ text for content, other in sample.items() if content != own])
    row |= {"content": content_digest(image, mask), "thumbnail": thumbnail, "similarity": similarity}
    row["fit"] = ((ahead > 0) + (ahead == 0) / 2).mean() if len(ahead) else np.nan
    row |= dict(zip(("dependence", "low", "high"), dependence, strict=True), largest=float(heat.max()))
    return row | measures


def _write_thumbnail(file: Path, explanation: Explanation) -> None:
    """Write the image and the map on it, side by side."""
    width, height = explanation.image.size
    size = (min(4 * _HEIGHT, max(1, round(width * _HEIGHT / height))), _HEIGHT)
    strip = Image.new("RGB", (2 * size[0] + 4, _HEIGHT), "white")
    shown = explanation.image, paint(explanation.image, explanation.image_maps[0], box=explanation.box)
    for i, image in enumerate(shown):
        strip.paste(image.resize(size, Image.Resampling.LANCZOS), (i * (size[0] + 4), 0))
    write_whole(file, lambda stream: strip.save(stream, "JPEG", quality=85))


# ------------------------------------------------------------------------------------------------------------ command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gradeclip report`."""
    parser.add_argument("--data", required=True, help="a folder of images, or a data set, KIND:WHERE")
    parser.add_argument("--captions", help="with a folder: a table with the columns image and caption")
    parser.add_argument("--out", required=True, help="the folder of the report")
    parser.add_argument("--method", default="grad-eclip", help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="at most this many pairs, spread over the data set")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts that maps are compared with")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; %(default)s")


def run_command(options: argparse.Namespace) -> str:
    """Write the report, and return a line that says where it is."""
    if options.captions is not None and not str(options.captions).strip():
        raise GradeclipError("--captions must be a path, and an empty one was given")
    if os.path.isdir(options.data) == (options.captions is None):  # also of a name that no folder can have
        needs = "needs --captions, a table with the columns image and caption"
        msg = f"a folder of images {needs}" if options.captions is None else f"there is no folder {options.data}"
        raise GradeclipError(f"{msg}; a data set is named KIND:WHERE, without --captions")
    method_names([options.method])  # before a model is loaded, which may take minutes
    out = writable(options.out, "--out", folder=True)
    if options.captions is None:
        data = load(options.data)
    else:
        data = captioned_images(options.data, options.captions, check=False)
    clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
    names = "method limit seed overwrite".split()
    rows = report(clip, data, out, **{name: getattr(options, name) for name in names})
    failed = int((rows["error"] != "").sum())
    said = f", of which {failed} could not be explained" * (failed > 0)
    return f"{len(rows)} pairs{said}: {out / _PAGE}"
