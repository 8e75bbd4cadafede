"""A report of a whole data set: which captions, maps and scores deserve a second look? One page, the worst first.

    images, captions -> explanations -> rows, thumbnails -> index.html

    python -m gradeclip_utils report --data folder --captions captions.csv --out report

Of every image and its caption three questions are asked. Does the caption fit its own image better than others (`fit`)?
Does the map depend on what was asked (`dependence`, see `Explanation.prompt_dependence`)? Is the similarity far from
those of the other pairs (`deviation`)? Where the data set has masks, maps are measured by them; maps that others made
(`maps`) stand beside ours and are measured by the same lines, and by deletion and insertion.

A few images at a time are in memory. Rows are kept as those of an evaluation are (`results`): a report that was killed
goes on where it was, and the page is written at the end, whole.
"""

from __future__ import annotations

import argparse
import hashlib
import os.path
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..checks import as_path, whole, writable
from ..checks import seed as checked_seed
from ..datasets import Example, captioned_images, load, spread
from ..errors import GradeclipError
from ..explain import Explainer
from ..explanation import Explanation
from ..files import write_whole
from ..images import onto_image
from ..methods import METHODS
from ..models import Clip, load_clip
from ..plots import paint
from .evaluation import asked_examples, run_settings
from .faithfulness import FULL
from .identity import identity
from .localisation import levelled, localisation, pool
from .maps import method_names
from .report_page import write_page
from .results import Results
from .statistics import spearman
from .worker import contents, game_areas

PAGE, THUMBNAILS = "index.html", "thumbnails"
GIVEN = "given map"  # what a map that somebody else made is called among the methods
CHUNK = 8
SAMPLE = 64  # images of the data set that each caption is compared on
_HEIGHT = 160  # pixels of a thumbnail


def report(
    clip: Clip, data: str | Sequence[Example], out: str | Path, *, method: str = "grad-eclip",
    maps: str | Path | None = None, limit: int | None = None, nulls: int = 16, seed: int = 0, chunk: int = CHUNK,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Explain every pair of a data set, and write a page that shows the worst of them first.

    Args:
        clip: the model.
        data: what `datasets.load` takes, or examples.
        out: a folder for the report: `index.html`, `thumbnails/`, and the rows as `rows.parquet`.
        method: of `methods.METHODS`, one with maps of images.
        maps: a folder of maps that others made, each an array (h, w) over the whole image, `KEY.npy` by the example's
            key (a slash as an underscore) or `NAME.npy` by the image file's name without its ending.
        limit: no more examples than this, spread over the data.
        nulls: prompts that a map is compared with (`Explainer.null_maps`).
        seed: of these prompts.
        chunk: how many images are in memory together.
        progress: show a bar.

    Returns:
        One row a pair and map: image, prompt, method, similarity, fit (fraction of up to 64 other images to which the
        caption is less similar), dependence, low and high (its interval), largest (value of the map), thumbnail;
        measures of `localisation` where there is a mask; with `maps` also deletion, insertion, and agreement (rank
        correlation of the given map with ours, over the patches).

    Raises:
        ValueError, TypeError: an unknown method, no examples, a map that is none; a folder of another report.
        FileNotFoundError: an image, or the folder of maps, is missing, or not one map has the name of an example.
    """
    (method,) = method_names([method])
    chunk, nulls = whole("chunk", chunk, 1), whole("nulls", nulls, 2)
    examples = asked_examples("report", clip, data, limit)
    given = _given_maps(maps, examples)
    asked = [(one.key, one.prompt) for one in examples]
    own = {"report": method, "maps": len(given), "chunk": chunk, "nulls": nulls, "seed": checked_seed(seed),
           "computed_by": identity(METHODS[method])}  # fmt: skip
    settings = run_settings(clip, asked, **own)
    others = _inputs(spread(examples, SAMPLE), {})  # with which every caption is compared
    out, found, explain = as_path(out, "--out"), [], None
    with closing(Results(out, settings)) as results, tqdm(total=len(examples), disable=not progress) as bar:
        for number, start in enumerate(range(0, len(examples), chunk)):
            part = examples[start : start + chunk]
            inputs = partial(_inputs, part, given, others)
            expected = [(one.key, name) for one in part for name in (method, *[GIVEN] * (one.key in given))]
            rows = results.read(number, expected, inputs)
            if rows is None or not all((out / name).is_file() for name in rows["thumbnail"]):
                explain = explain or _Explained(clip, examples, method, given, nulls, seed, out)
                rows = pd.DataFrame([row for i, one in enumerate(part) for row in explain.rows(one, start + i)])
                results.write(number, rows, inputs())
            found.append(rows)
            bar.update(len(part))
        table = pd.concat(found, ignore_index=True)
        results.write_table(table)
        write_whole(out / PAGE, lambda stream: write_page(stream, table, settings, method, GIVEN))
    return table


class _Explained:
    """What a report says of one example after the other: the explainer, and images to compare captions on."""

    def __init__(self, clip, examples, method, given, nulls, seed, out) -> None:
        self.explainer = Explainer(clip, method=method, seed=seed, progress=False)
        self.method, self.given, self.nulls, self.out = method, given, nulls, out
        sampled = spread(examples, SAMPLE)
        self.others = self.explainer.embed_images((one.image() for one in sampled), CHUNK)  # (S, E)
        self.pixels = [identity(np.asarray(one.image())) for one in sampled]

    def rows(self, example: Example, number: int) -> list[dict]:
        """One row for our map, and one for a given map; the thumbnail is written first."""
        image = example.image()
        explanation = self.explainer.explain(image, example.prompt)
        dependence = explanation.prompt_dependence(self.explainer.null_maps(image, example.prompt, self.nulls))
        heats = {self.method: explanation.heatmap(0, signed=True)}
        if example.key in self.given:
            width, height = image.size
            heats[GIVEN] = onto_image(_read_map(self.given[example.key]), (0, 0, width, height), image.size)
        measures = self._measures(example, explanation, heats)
        thumbnail = f"{THUMBNAILS}/{number:06d}.jpg"
        _write_thumbnail(self.out / thumbnail, explanation, heats)
        common = {"image": example.key, "prompt": example.prompt, "thumbnail": thumbnail,
                  "similarity": float(explanation.similarity[0]), "fit": self._fit(image, example.prompt)}  # fmt: skip
        found = []
        for name, heat in heats.items():
            values = dependence if name == self.method else (np.nan,) * 3
            own = dict(zip(("dependence", "low", "high"), values, strict=True), largest=float(heat.max()))
            found.append({**common, "method": name, **own, **measures[name]})
        return found

    def _fit(self, image: Image.Image, prompt: str) -> float:
        """The fraction of other images to which the caption is less similar than to its own; NaN without others."""
        own, caption = self.explainer.embed_images([image])[0], self.explainer.embed_texts([prompt])[0]
        mine = identity(np.asarray(image))  # one may be there with several captions, and embeddings hang on the batch
        others = self.others[[pixels != mine for pixels in self.pixels]]
        if not len(others):
            return float("nan")
        ahead = own @ caption - others @ caption
        return float(((ahead > 0).float() + (ahead == 0).float() / 2).mean())

    def _measures(self, example: Example, explanation: Explanation, heats: dict) -> dict[str, dict[str, float]]:
        """For each map what it is worth: by the mask if there is one; beside a given map by deletion and insertion."""
        mask = example.mask()
        found = {
            name: localisation(heat, mask) if mask is not None and mask.any() else {} for name, heat in heats.items()
        }
        if GIVEN not in heats:
            return found
        maps, theirs = {self.method: explanation.image_maps[0]}, {GIVEN: heats[GIVEN]}
        for row in game_areas(self.explainer, example.prompt, explanation, maps, theirs, FULL).itertuples():
            found[row.method][row.game] = row.auc
        both = (pool(heats[GIVEN], explanation.image_maps.shape[1:], explanation.box), explanation.image_maps[0])
        found[GIVEN]["agreement"] = float(spearman(*(levelled(one).ravel() for one in both)))
        return found


def _given_maps(folder: str | Path | None, examples: Sequence[Example]) -> dict[str, Path]:
    """The map that somebody else made of each example, where there is one."""
    if folder is None:
        return {}
    folder = as_path(folder, "the folder of maps")
    if not folder.is_dir():
        raise GradeclipError(f"there is no folder of maps {folder}")
    files = {file.stem: file for file in folder.glob("*.npy")}
    found = {}
    for example in examples:
        key = example.key.replace("/", "_")
        name = Path(key.partition("-")[2] or key).stem  # the keys of tables begin with their line
        if (file := files.get(key) or files.get(name)) is not None:
            found[example.key] = file
    if not found:
        named = f"{examples[0].key.replace('/', '_')}.npy"
        raise GradeclipError(f"not one map in {folder} is called after an example, as {named} would be")
    return found


def _read_map(file: Path) -> np.ndarray:
    """A map (h, w) of finite numbers, as float32."""
    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise GradeclipError(f"{file} is no array of numpy, or is cut short ({error})") from error
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        kind = f"{values.dtype} of shape {values.shape}"
        raise GradeclipError(f"{file} must hold a map (h, w) of finite numbers, and holds {kind}")
    return values.astype(np.float32)


def _inputs(part: Sequence[Example], given: dict[str, Path], others: str = "") -> str:
    """A checksum of the images, masks and maps that some rows are about, and of that of the images beside them."""
    digest = hashlib.sha256(contents(part, others).encode())
    for example in part:
        digest.update(given[example.key].read_bytes() if example.key in given else b"")
    return digest.hexdigest()[:32]


def _write_thumbnail(file: Path, explanation: Explanation, heats: dict[str, np.ndarray]) -> None:
    """The image, and each map on it, side by side. Each map has a scale of its own: its largest value is in the row."""
    others = list(heats.values())[1:]
    shown = [explanation.image, paint(explanation.image, explanation.image_maps[0], box=explanation.box)]
    shown += [paint(explanation.image, heat) for heat in others]
    width, height = explanation.image.size
    size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
    strip = Image.new("RGB", ((size[0] + 4) * len(shown) - 4, _HEIGHT), "white")
    for i, image in enumerate(shown):
        strip.paste(image.resize(size, Image.Resampling.LANCZOS), (i * (size[0] + 4), 0))
    write_whole(file, lambda stream: strip.save(stream, "JPEG", quality=85))


# ------------------------------------------------------------------------------------------------------------ command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `python -m gradeclip_utils report`."""
    parser.add_argument("--data", required=True, help="a folder of images, or a data set, KIND:WHERE")
    parser.add_argument("--captions", help="with a folder: a table with the columns image and caption")
    parser.add_argument("--out", required=True, help="the folder of the report")
    parser.add_argument("--maps", metavar="FOLDER", help="maps that others made: KEY.npy or NAME.npy, (h, w)")
    parser.add_argument("--method", default="grad-eclip", help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="no more pairs than this, spread over the data set")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts that maps are compared with")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; %(default)s")


def run_command(options: argparse.Namespace) -> None:
    """Write the report, and say where it is."""
    if os.path.isdir(options.data) == (options.captions is None):  # also of a name that no folder can have
        needs = "needs --captions, a table with the columns image and caption"
        msg = f"a folder of images {needs}" if options.captions is None else f"there is no folder {options.data}"
        raise GradeclipError(f"{msg}; a data set is named KIND:WHERE, without --captions")
    data = captioned_images(options.data, options.captions) if options.captions else load(options.data)
    method_names([options.method])  # before a model is loaded, which may take minutes
    writable(options.out, "--out", folder=True)
    clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
    names = "method maps limit seed".split()
    rows = report(clip, data, options.out, **{name: getattr(options, name) for name in names})
    print(f"{rows['image'].nunique()} pairs: {Path(options.out) / PAGE}")
