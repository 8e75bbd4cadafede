"""A report of your own images and captions: which pairs deserve a second look? One page, the worst pairs first.

    images, captions -> explanations -> rows, thumbnails -> index.html

    gradeclip report --data folder --captions captions.csv --out report

Every pair is asked three questions. Does the caption fit its own image better than other images (`fit`)? Does the map
depend on the caption (`dependence`, see `Explanation.prompt_dependence`)? Is the similarity far from those of the other
pairs (`deviation`)? Masks of the data set, and maps that others made (`maps`), are compared with the map.

Rows are kept as those of an evaluation are (`table`): a report that was killed goes on where it was, and the page is
written at the end, whole. A pair that cannot be explained is a row that says why.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..checks import as_path, whole, writable
from ..checks import seed as checked_seed
from ..datasets import Example, captioned_images, load, spread
from ..errors import GradeclipError
from ..explain import Explainer
from ..explanation import Explanation
from ..files import write_whole
from ..images import onto_image, read_image
from ..models import Clip, load_clip
from ..plots import paint
from .evaluation import asked_examples, game_areas, method_names
from .faithfulness import FULL
from .localisation import MEASURES, levelled, localisation, pool
from .report_page import write_page
from .statistics import spearman
from .table import Table, content_digest, describe_model

PAGE, THUMBNAILS = "index.html", "thumbnails"
GIVEN = "given map"  # the name of a map that somebody else made, among the methods
SAMPLE = 64  # images of the data set that every caption is compared with
_HEIGHT = 160  # pixels of a thumbnail
_TEXTS = ("image", "prompt", "method", "error", "content", "thumbnail")
_NUMBERS = ("similarity", "fit", "dependence", "low", "high", "largest", *MEASURES, "deletion", "insertion",
            "agreement")  # fmt: skip


def report(
    clip: Clip, data: str | Sequence[Example], out: str | Path, *, method: str = "grad-eclip",
    maps: str | Path | None = None, limit: int | None = None, nulls: int = 16, seed: int = 0, progress: bool = True,
    overwrite: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Explain every pair of a data set, and write a page that shows the worst of them first.

    Args:
        clip: the model.
        data: a data set as `datasets.load` takes it, or a list of `Example`.
        out: a folder for the report: `index.html`, `thumbnails/`, and the rows as `rows.jsonl`.
        method: of `methods.METHODS`, one with maps of images.
        maps: a folder of maps that others made, each an array (h, w) over the whole image, `KEY.npy` by the example's
            key (a slash as an underscore) or `NAME.npy` by the image file's name without its ending.
        limit: at most this many examples, spread over the data.
        nulls: how many prompts about other things a map is compared with (`Explainer.null_maps`), 2 to 1000.
        seed: of these prompts.
        progress: show a bar.
        overwrite: begin anew in a folder that holds another run.

    Returns:
        One row a pair and map: image, prompt, method, error (why the pair could not be explained), content (a checksum
        of image and mask), thumbnail, similarity, fit (fraction of up to 64 other images that the caption fits less),
        dependence, low and high (its interval), largest (value of the map); measures of `localisation` if there is a
        mask; with `maps` also deletion, insertion, and agreement (rank correlation of the two maps over the patches).

    Raises:
        GradeclipError: an unknown method, no examples, a folder of another report, a folder of maps that is missing or
            fits no example, a map that is none.
    """
    (method,) = method_names([method])
    nulls, seed = whole("nulls", nulls, 2, 1000), checked_seed(seed)
    examples = asked_examples("report", clip, data, limit)
    given = _given_maps(maps, examples)
    about = [(one.key, one.prompt) for one in examples]
    settings = {
        "report": method, "nulls": nulls, "seed": seed, "examples": len(examples),
        "asked": hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16],
        "maps": {key: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for key, file in given.items()},
        **describe_model(clip, (prompt for _, prompt in about)),
    }  # fmt: skip
    out = as_path(out, "the folder of the report")
    sampled = {one.key for one in spread(examples, SAMPLE)}
    with Table(out, settings, ("image", "method"), also=[PAGE, THUMBNAILS], overwrite=overwrite) as table:
        explain, failed = _Explain(clip, method, given, nulls, seed, out, sampled), {}
        for number, example in enumerate(tqdm(examples, unit="pair", disable=not progress)):
            names = [method, *[GIVEN] * (example.key in given)]
            there = [table.rows[example.key, name] for name in names if (example.key, name) in table.rows]
            thumbnail = f"{THUMBNAILS}/{number:06d}.jpg"
            if len(there) < len(names):
                found = explain.rows(example, thumbnail)
                if found[0]["error"]:
                    failed[example.key, method] = found[0]  # not kept, so that a mended file is explained next time
                else:
                    table.add(found)
            else:
                _check_kept(example, there[0], out / thumbnail, explain)
        rows = _with_fit(clip, method, {**table.rows, **failed}, examples)
        write_whole(out / PAGE, lambda stream: write_page(stream, rows, settings, method, GIVEN))
    return rows


class _Explain:
    """Explains one example after the other, and traces each image once."""

    def __init__(self, clip, method, given, nulls, seed, out, sampled) -> None:
        self.explainer = Explainer(clip, method=method, seed=seed)
        self.explainer.image_tower = _Remembering(self.explainer.image_tower)  # type: ignore[assignment]
        self.method, self.given, self.nulls, self.out, self.sampled = method, given, nulls, out, sampled

    def rows(self, example: Example, thumbnail: str) -> list[dict]:
        """Return a row for the map, and one for a given map; the thumbnail is written first."""
        common = {"image": example.key, "prompt": example.prompt, "method": self.method, "error": "", "content": ""}
        try:
            image, mask = read_image(example.image()), example.mask()
            explanation = self.explainer.explain(image, example.prompt)
            nulls = self.explainer.null_maps(image, example.prompt, self.nulls)
            dependence = explanation.prompt_dependence(nulls)
            embedding = self.explainer.embed_images([image])[0].float().tolist()
            heats = {self.method: explanation.heatmap(0, signed=True)}
            if example.key in self.given:
                width, height = image.size
                heats[GIVEN] = onto_image(_read_map(self.given[example.key]), (0, 0, width, height), image.size)
            measures = self._measures(example, explanation, heats, mask)
        except GradeclipError as refusal:
            return [{**common, "error": str(refusal)}]
        _write_thumbnail(self.out / thumbnail, explanation, heats)
        common |= {"thumbnail": thumbnail, "similarity": float(explanation.similarity[0])}
        common |= {"content": content_digest(image, mask)}
        if example.key in self.sampled:
            common["embedding"] = embedding
        found = []
        for name, heat in heats.items():
            values = dependence if name == self.method else (np.nan,) * 3
            own = dict(zip(("dependence", "low", "high"), values, strict=True), largest=float(heat.max()))
            found.append({**common, "method": name, **own, **measures[name]})
        return found

    def _measures(self, example: Example, explanation: Explanation, heats: dict, mask) -> dict[str, dict[str, float]]:
        """Return what each map is worth by the mask, and beside a given map by deletion and insertion."""
        found: dict[str, dict[str, float]]
        found = {name: {} if mask is None else localisation(heat, mask) for name, heat in heats.items()}
        if GIVEN not in heats:
            return found
        maps, others = {self.method: explanation.image_maps[0]}, {GIVEN: heats[GIVEN]}
        for row in game_areas(self.explainer, example.prompt, explanation, maps, others, FULL).itertuples():
            found[row.method][row.game] = row.auc
        both = (pool(heats[GIVEN], explanation.image_maps.shape[1:], explanation.box), explanation.image_maps[0])
        found[GIVEN]["agreement"] = float(spearman(*(levelled(one).ravel() for one in both)))
        return found


class _Remembering:
    """A tower that does not trace the same image twice in a row."""

    def __init__(self, tower):
        self._tower, self._last = tower, None

    def __getattr__(self, name: str):
        return getattr(self._tower, name)

    def trace(self, inputs: torch.Tensor, graph: bool = False):
        last = self._last
        if last is None or not torch.equal(last[0], inputs) or (graph and not last[1]):
            self._last = last = inputs, graph, self._tower.trace(inputs, graph)
        return last[2]


def _check_kept(example: Example, row: dict, thumbnail: Path, explain: _Explain) -> None:
    """Refuse a row of an image that was replaced since, and draw a thumbnail again that was damaged."""
    if row["content"] != content_digest(example.image(), example.mask()):
        raise GradeclipError(f"image or mask of {example.key!r} was replaced since: choose another folder")
    try:
        with Image.open(thumbnail) as found:
            found.load()
    except OSError:
        explain.rows(example, f"{THUMBNAILS}/{thumbnail.name}")


def _with_fit(clip: Clip, method: str, rows: dict[tuple, dict], examples: Sequence[Example]) -> pd.DataFrame:
    """Return the rows in the order of the examples, with how well each caption fits its own image."""
    order = {example.key: i for i, example in enumerate(examples)}
    table = pd.DataFrame(sorted(rows.values(), key=lambda row: (order[row["image"]], row["method"] != method)))
    for name in (*_TEXTS, *_NUMBERS, "embedding"):
        if name not in table:
            table[name] = None
    table = table.astype(dict.fromkeys(_NUMBERS, float))
    seen = table[table["embedding"].notna()].drop_duplicates("content")
    fine = table["error"] == ""
    if len(seen) and fine.any():
        captions = list(dict.fromkeys(table.loc[fine, "prompt"]))
        texts = dict(zip(captions, Explainer(clip).embed_texts(captions).float().cpu().numpy(), strict=True))
        images, contents = np.array(seen["embedding"].tolist()), seen["content"].to_numpy()
        for i, row in table[fine].iterrows():
            others = images[contents != row["content"]] @ texts[row["prompt"]]
            if len(others):
                ahead = row["similarity"] - others
                table.loc[i, "fit"] = ((ahead > 0) + (ahead == 0) / 2).mean()
    texts_there = table[list(_TEXTS)].astype(object).where(table[list(_TEXTS)].notna(), "")
    numbers = [name for name in _NUMBERS if table[name].notna().any() or name not in MEASURES]
    return pd.concat([texts_there, table[numbers]], axis=1)


def _given_maps(folder: str | Path | None, examples: Sequence[Example]) -> dict[str, Path]:
    """Return the map that somebody else made of each example, where there is one."""
    if folder is None:
        return {}
    folder = as_path(folder, "the folder of maps")
    if not folder.is_dir():
        raise GradeclipError(f"there is no folder of maps {folder}")
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    found, images = {}, defaultdict(set)
    for example in examples:
        key = example.key.replace("/", "_")
        line = re.fullmatch(r"\d+-(.+)", key)  # tables have keys such as 3-dog.png, by line and file
        if key in files:
            found[example.key] = files[key]
        elif line and (name := os.path.splitext(line[1])[0]) in files:
            found[example.key] = files[name]
            images[name].add(line[1])
    if shared := [name for name, some in images.items() if len(some) > 1]:
        both = " and ".join(sorted(images[shared[0]]))
        raise GradeclipError(f"{shared[0]}.npy could be the map of {both}: name the maps by the keys of the examples")
    if not found:
        named = f"{examples[0].key.replace('/', '_')}.npy"
        raise GradeclipError(f"no map in {folder} has the name of an example, such as {named}")
    return found


def _read_map(file: Path) -> np.ndarray:
    """Return a map (h, w) of finite numbers, as float32."""
    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise GradeclipError(f"{file} is no array of numpy, or is cut short ({error})") from error
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        kind = f"{values.dtype} of shape {values.shape}"
        raise GradeclipError(f"{file} must hold a map (h, w) of finite numbers, and holds {kind}")
    return values.astype(np.float32)


def _write_thumbnail(file: Path, explanation: Explanation, heats: dict[str, np.ndarray]) -> None:
    """Write the image and each map on it, side by side; each map has a scale of its own."""
    others = list(heats.values())[1:]
    shown = [explanation.image, paint(explanation.image, explanation.image_maps[0], box=explanation.box)]
    shown += [paint(explanation.image, heat) for heat in others]
    width, height = explanation.image.size
    size = (min(4 * _HEIGHT, max(1, round(width * _HEIGHT / height))), _HEIGHT)
    strip = Image.new("RGB", ((size[0] + 4) * len(shown) - 4, _HEIGHT), "white")
    for i, image in enumerate(shown):
        strip.paste(image.resize(size, Image.Resampling.LANCZOS), (i * (size[0] + 4), 0))
    write_whole(file, lambda stream: strip.save(stream, "JPEG", quality=85))


# ------------------------------------------------------------------------------------------------------------ command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gradeclip report`."""
    parser.add_argument("--data", required=True, help="a folder of images, or a data set, KIND:WHERE")
    parser.add_argument("--captions", help="with a folder: a table with the columns image and caption")
    parser.add_argument("--out", required=True, help="the folder of the report")
    parser.add_argument("--maps", metavar="FOLDER", help="maps that others made: KEY.npy or NAME.npy, (h, w)")
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
    inputs = [options.data, options.captions, options.maps]
    if out.exists() and any(one and os.path.exists(one) and os.path.samefile(out, one) for one in inputs):
        raise GradeclipError(f"--out {out} is an input of this command: choose another folder")
    folder = options.captions is not None
    data = captioned_images(options.data, options.captions, check=False) if folder else load(options.data)
    clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
    names = "method maps limit seed overwrite".split()
    rows = report(clip, data, out, **{name: getattr(options, name) for name in names})
    failed = int((rows["error"] != "").sum())
    said = f", of which {failed} could not be explained" * (failed > 0)
    return f"{rows['image'].nunique()} pairs{said}: {out / PAGE}"
