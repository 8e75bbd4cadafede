"""Explanation: the result for one image, with what is needed to show it and to check it.

Results are frozen: arrays are read-only, and numbers are raw and signed. Only `heatmap` and the
plots cut off negative values, scale and resize.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as as_safetensors

from .checks import as_path, finite, flag, listed, readable, whole, writable
from .errors import GradeclipError
from .files import write_whole
from .images import DRAWN, onto_image, read_image
from .methods.interactions import centred, named_things
from .words import Word

_Box = tuple[float, float, float, float]


class _Result:
    """The common part of both results: frozen arrays, maps on the image, saved in a folder."""

    _arrays: ClassVar[tuple[str, ...]]  # the maps first
    image: Image.Image
    box: _Box
    provenance: dict
    similarity: Any

    def __post_init__(self):
        for (
            name
        ) in self._arrays:  # arrays that cannot be written to; the caller's own stay as they are
            if getattr(self, name) is not None:
                array = np.array(getattr(self, name))
                array.flags.writeable = False
                object.__setattr__(self, name, array)

    @property
    def origin(self) -> str:
        """The line under a figure: the model, the method, and the number that was explained if it is not the model's.

        >>> explanation.origin                                                   # doctest: +SKIP
        'ViT-B-16 (openai), Grad-ECLIP with one head: explains 0.171 (image) and 0.204 (words), not 0.350'
        """
        known = self.provenance
        start = (
            f"{known['model']} ({known['pretrained'] or 'weights not named'}), {known['method']}"
        )
        if scores := known.get("single_head_similarity"):
            words = "" if scores["text"] is None else f" and {_listed(scores['text'])} (words)"
            start += f": explains {_listed(scores['image'])} (image){words}, not {_listed(np.ravel(self.similarity))}"
        elif known["attention"] == "model":
            start += " with the model's own heads"
        elif known["attention"] is None:  # not Grad-ECLIP
            start += f": explains {known['explains']}"
        return start + ", things told apart by their mean" * ("centred" in known)

    def heatmap(self, index: int = 0, *, signed: bool = False) -> np.ndarray:
        """One map in the image's own pixels, resized bilinearly: (H, W) float32, zero outside of `box`.

        Args:
            index: of the prompt or word.
            signed: False cuts off relevance below zero, on the token grid.

        Raises:
            GradeclipError: there are not as many maps, `index` is not a whole number, or `signed`
                not True or False.
        """
        maps, signed = getattr(self, self._arrays[0]), flag("signed", signed)
        map_ = maps[whole("index", index, -len(maps), len(maps) - 1)]
        return onto_image(map_ if signed else np.maximum(map_, 0), self.box, self.image.size)

    def save(self, folder: str | Path) -> Path:
        """Write arrays (safetensors), words and provenance (JSON) and the image (PNG) into a folder, all or none.

        The JSON file holds checksums of all, so that files of two explanations are never mixed.

        Args:
            folder: need not exist; it is returned.

        Raises:
            GradeclipError: the folder cannot be written. It stays as it was.
        """
        name, image = type(self).__name__.lower(), self.image
        folder = writable(
            folder, "the folder of an explanation", folder=True, size=3 * image.width * image.height
        )
        png, note = io.BytesIO(), PngInfo()
        if DRAWN in image.info:
            note.add_text(DRAWN, "yes")
        image.save(png, "png", pnginfo=note)
        arrays = {
            one: np.ascontiguousarray(found)
            for one in self._arrays
            if (found := getattr(self, one)) is not None
        }
        record = {
            one: value for one, value in vars(self).items() if one not in (*self._arrays, "image")
        }
        parts = {f"{name}.safetensors": as_safetensors(arrays), f"{name}.png": png.getvalue()}
        parts[f"{name}.json"] = _as_json(record)
        sums = {file: sha256(content).hexdigest() for file, content in parts.items()}
        parts[f"{name}.json"] = _as_json({**record, "sha256": sums})
        write_whole({folder / file: content for file, content in parts.items()})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder that `save` wrote.

        Args:
            folder: as it was given to `save`.

        Raises:
            GradeclipError: a file is missing, was changed, or was not saved with the others; the
                message names it.
        """
        name, folder = cls.__name__.lower(), as_path(folder, "the folder of an explanation")
        paths = [folder / f"{name}.{kind}" for kind in ("json", "safetensors", "png")]
        text, arrays, png = (
            readable(path, "a file of a saved explanation").read_bytes() for path in paths
        )
        wrong = paths[0]
        try:
            record = json.loads(text)
            sums = record.pop("sha256")
            for wrong, content in zip(paths, (_as_json(record), arrays, png), strict=True):
                if sums[wrong.name] != sha256(content).hexdigest():
                    raise ValueError("its checksum is another")
            fields: dict[str, Any] = {one: _from_json(value) for one, value in record.items()}
            return cls(**{**fields, **read_arrays(arrays), "image": read_image(paths[2])})
        # the errors of Python, JSON and safetensors for a damaged file
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
            SafetensorError,
        ) as error:
            said = (
                f"it lacks {error}"
                if isinstance(error, KeyError)
                else str(error) or type(error).__name__
            )
            raise GradeclipError(
                f"{wrong} is not as `save` wrote it with the other files ({said})"
            ) from error

    def plot(self, **options):
        """Return a matplotlib figure: the image, then a map for each prompt, with its words shaded, or for each word.

        Args:
            **options: of `plots.plot_explanation` or `plots.plot_interactions`.
        """
        from . import plots  # matplotlib is slow to import, and only what shows needs it

        draw = plots.plot_explanation if isinstance(self, Explanation) else plots.plot_interactions
        return draw(self, **options)

    def to_html(self, path: str | Path) -> Path:
        """Write one HTML file that shows what `plot` draws and works without a network.

        Pointing at a word gives its number. In a page of `Interactions` it also gives the word's
        map.

        Args:
            path: of a file that ends in .html, which is overwritten if it is there, and returned.

        Raises:
            GradeclipError: the path does not end in .html, or cannot be written.
        """
        from .plots.page import (
            page_of,
        )  # matplotlib is slow to import, and only what shows needs it

        path = writable(path, "the page of an explanation", suffixes=(".html",))
        write_whole({path: page_of(self).encode()})
        return path

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.plot()._repr_mimebundle_()


@dataclass(frozen=True, eq=False)
class Explanation(_Result):
    """One image and T prompts explained. The target is each prompt's similarity, or its lead over `against`.

    Attributes:
        prompts: the T prompts.
        similarity: (T,) the model's own cosine similarities.
        image_maps: (T, h, w) signed relevance of each patch for the target, on the token grid; zero
            if the method has none for images.
        words: for each prompt its words, with the signed relevance of each word for the target;
            none if the prompt is an embedding, or the method has none for prompts.
        image: the image as it was given, upright RGB.
        box: left, top, right, bottom of what the model saw, in the image's pixels; beyond it where
            it was padded.
        provenance: model, pretrained, method and what it explains, attention (of Grad-ECLIP),
            layers, resolution, library versions; for single-head attention also the similarities of
            the single-head towers, which are the numbers explained.
        against, against_similarity, against_words: the other prompts of a contrastive target, their
            own similarities (T,), and their words, whose scores are for the *target*: positive
            where a word lowers S(image, against).
        percentile: (T,) the place of each similarity among the similarities of the same image with
            null captions ("a photo of a dog", "a photo of a bridge", ...): the percentage of them
            below it. None where the model embeds no captions.
        null_median: the median of these similarities: half of the null captions lie below.
        null_max: the largest of them, which sets the axis of the bars.
        null_count: how many null captions there are.
    """

    _arrays = ("image_maps", "similarity", "against_similarity", "percentile")
    prompts: tuple[str, ...]
    similarity: np.ndarray
    image_maps: np.ndarray
    words: tuple[tuple[Word, ...], ...]
    image: Image.Image
    box: _Box
    provenance: dict
    against: tuple[str, ...] | None = None
    against_similarity: np.ndarray | None = None
    against_words: tuple[tuple[Word, ...], ...] | None = None
    percentile: np.ndarray | None = None
    null_median: float | None = None
    null_max: float | None = None
    null_count: int = 0

    @property
    def percentile_interval(self) -> np.ndarray | None:
        """The 95 % interval of `percentile`, (T, 2), as if null captions were drawn from many more (Wilson's).

        Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA
            1927.
        """
        if self.percentile is None:
            return None
        part, share = self.percentile / 100, 1.96**2 / self.null_count
        middle, half = part + share / 2, np.sqrt(share * (part * (1 - part) + share / 4))
        return 100 * np.stack([middle - half, middle + half], axis=-1) / (1 + share)

    def prompt_dependence(self, nulls: np.ndarray, index: int = 0) -> tuple[float, float, float]:
        """How much the map of one prompt depends on what was asked: 1 - its correlation with maps of null prompts.

        0 means the same map for any prompt, as raw attention and rollout give it; 1 a map that has
        nothing in common with the others. The correlation is Pearson's over patches, which does not
        depend on a map's scale; a rank correlation would be decided by the many patches near zero,
        where all maps are noise.

            explanation.prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            nulls: (M, h, w) maps of the same image for prompts of the same form about other things,
                two or more (`Explainer.null_maps`).
            index: of the prompt.

        Returns:
            The mean over null prompts, and its 95 % interval over them (Student's), low and high.

        Raises:
            GradeclipError: maps of a different shape, fewer than two, values that are not finite,
                or no such prompt.
        """
        nulls, count = finite("null maps", nulls), len(self.image_maps)
        index = whole("index", index, -count, count - 1)
        if nulls.shape[1:] != self.image_maps.shape[1:] or len(nulls) < 2:
            h, w = self.image_maps.shape[1:]
            raise GradeclipError(
                f"null maps must be (M, {h}, {w}), two or more of them, got {nulls.shape}"
            )
        from scipy.stats import t  # half a second to import, and few explanations are compared

        rows = np.concatenate([self.image_maps[index][None], nulls]).reshape(1 + len(nulls), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            same = np.corrcoef(rows)[0, 1:]
        flat = (
            np.ptp(rows, axis=1) == 0
        )  # such a map has no correlation, and is like another one of its kind
        distances = np.clip(1 - np.where(flat[0] | flat[1:], flat[0] & flat[1:], same), 0, 2)
        mean, half = (
            distances.mean(),
            t.ppf(0.975, len(nulls) - 1) * distances.std(ddof=1) / len(nulls) ** 0.5,
        )
        return float(mean), float(max(mean - half, 0.0)), float(min(mean + half, 2.0))


@dataclass(frozen=True, eq=False)
class Interactions(_Result):
    """Word x region: which part of the image each word of the caption matches.

    Attributes:
        caption: the caption.
        words: its W words, with their first-order scores (those of `Explainer.explain`).
        maps: (W, h, w) signed interaction of each word with each patch. They do not sum to the
            similarity.
        similarity: the model's own cosine similarity.
        image, box, provenance: as in `Explanation`.
    """

    _arrays = ("maps",)
    caption: str
    words: tuple[Word, ...]
    maps: np.ndarray
    similarity: float
    image: Image.Image
    box: _Box
    provenance: dict

    def centred(self, over: Sequence[int | Sequence[int]] | None = None) -> "Interactions":
        """The same with maps that tell the named things apart: each thing's map less the mean of all things' maps.

        The maps of all words have a part in common, which matches any object. Without this part,
        the maximum of a noun's map lies on its own object more often, above all in captions with
        several objects (lesson 03).

            explainer.interactions(image, "a dog and an umbrella").centred().plot()

        Args:
            over: the things, each a word by index, or a sequence of indices for a noun of several
                words. By default the nouns of the caption (`methods.interactions.named_things`).
                Other words keep their maps.

        Raises:
            GradeclipError: fewer than two things, or a word that is not there or given twice.
        """
        if over is None:
            over = named_things(self.caption, [(word.start, word.end) for word in self.words])
            if len(over) < 2:
                named = ", ".join(self.words[i].text for group in over for i in group) or "none"
                raise GradeclipError(
                    f"{self.caption!r} names fewer than two things ({named}): give the words in over="
                )
        groups = [
            tuple(
                whole("each word of over", i, 0, len(self.words) - 1)
                for i in listed("over", one, (int, np.integer))
            )
            for one in listed("over", over)
        ]
        return replace(
            self, maps=centred(self.maps, groups), provenance={**self.provenance, "centred": groups}
        )


def _listed(scores: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{score:.3f}" for score in scores[:10]) + ", …" * (
        len(scores) > 10
    )  # as many as a figure draws


def _from_json(value: Any) -> Any:
    """A field of a record, lists as tuples and words as words again."""
    if isinstance(value, list):
        return tuple(map(_from_json, value))
    is_word = isinstance(value, dict) and value.keys() == {"text", "score", "start", "end"}
    return Word(**value) if is_word else value


def _as_json(record: dict) -> bytes:
    def plain(value: Any) -> Any:  # words, and numbers of numpy
        return asdict(value) if isinstance(value, Word) else value.tolist()

    return json.dumps(record, default=plain, ensure_ascii=False, indent=1).encode()
