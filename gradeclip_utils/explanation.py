"""Explanation: the result for one image, with everything that is needed to look at it and to trust it.

    tower -> trace -> method -> map -> Explanation -> figure

Frozen results: arrays are read-only and numbers are raw and signed. Cutting off what is negative, scaling and resizing
are display, and happen in `heatmap` and in the plots.
"""

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as as_safetensors

from .checks import as_path, finite, listed, readable, whole, writable
from .errors import GradeclipError
from .files import write_together, write_whole
from .images import onto_image, read_image
from .methods.interactions import centred, named_things
from .notices import png_note
from .words import Word

Box = tuple[float, float, float, float]
# the errors of Python, JSON and safetensors for a damaged record
_DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, SafetensorError)


class Result:
    """The common part of both results: frozen arrays, maps on the image, saved in a folder."""

    _arrays: ClassVar[tuple[str, ...]]  # the maps first
    _made: ClassVar[Any]  # from the record and the arrays of a folder; a ValueError says what does not fit
    image: Image.Image
    box: Box

    def heatmap(self, index: int = 0, *, signed: bool = False) -> np.ndarray:
        """One map in the image's own pixels, resized bilinearly: (H, W) float32, zero outside of `box`.

        Args:
            index: of the prompt or word.
            signed: False cuts off relevance below zero, on the token grid.

        Raises:
            GradeclipError: there are not as many maps, or `index` is no whole number.
        """
        maps = getattr(self, self._arrays[0])
        map_ = maps[whole("index", index, -len(maps), len(maps) - 1)]
        return onto_image(map_ if signed else np.maximum(map_, 0), self.box, self.image.size)

    def save(self, folder: str | Path) -> Path:
        """Write arrays (safetensors), words and provenance (JSON) and the image (PNG) into a folder, all or none.

        The JSON file comes last and holds checksums of the others, so that files of two explanations are never mixed.

        Args:
            folder: need not exist; it is returned.

        Raises:
            GradeclipError: the folder cannot be written, or holds a result of another image. It stays as it was.
        """
        name, image = type(self).__name__.lower(), self.image
        folder = writable(folder, "the folder of an explanation", folder=True, size=3 * image.width * image.height)
        png = io.BytesIO()
        image.save(png, "png", pnginfo=png_note(image))
        shared = folder / "image.png"
        others = [file.stem for file in folder.glob("*.json") if file.stem != name]
        if others and shared.is_file() and shared.read_bytes() != png.getvalue():
            msg = f"{folder} holds the {others[0]} of another image, which would be lost: choose another folder"
            raise GradeclipError(msg)
        arrays = {one: np.ascontiguousarray(found) for one in self._arrays if (found := getattr(self, one)) is not None}
        record = {one: value for one, value in vars(self).items() if one not in (*self._arrays, "image")}
        parts = {f"{name}.safetensors": as_safetensors(arrays), "image.png": png.getvalue()}
        sums = {file: hashlib.sha256(content).hexdigest() for file, content in parts.items()}
        text = json.dumps({**record, "sha256": sums}, default=_plain, ensure_ascii=False, indent=1)
        write_together(folder, {**parts, f"{name}.json": text.encode()})
        return folder

    def to_html(self, path: str | Path) -> Path:
        """Write one HTML file that shows what `plot` draws and works without a network.

        Pointing at a word gives its number. In a page of `Interactions` it also gives the word's map.

        Args:
            path: of a file that ends in .html; a file that is there is overwritten.

        Returns:
            The path.

        Raises:
            GradeclipError: the path does not end in .html, or cannot be written.
        """
        from .plots.page import page_of  # matplotlib is slow to import, and only what shows needs it

        path = writable(path, "the page of an explanation", suffixes=(".html",))
        write_whole(path, lambda stream: stream.write(page_of(self).encode()))
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder that `save` wrote.

        Args:
            folder: as it was given to `save`.

        Raises:
            GradeclipError: a file is missing, damaged, or was not saved with the others; the message names it.
        """
        name = cls.__name__.lower()
        folder, file = as_path(folder, "the folder of an explanation"), f"{name}.json"
        try:
            record = json.loads(_bytes(folder / file).decode("utf-8"))
            sums, box = record.pop("sha256"), tuple(map(float, record["box"]))
            for file in (f"{name}.safetensors", "image.png"):
                content = _bytes(folder / file)
                if hashlib.sha256(content).hexdigest() != sums[file]:
                    msg = f"{folder / file} is damaged, or not the file that was saved with {name}.json"
                    raise GradeclipError(msg)
            image = read_image(folder / file)
            file = f"{name}.safetensors"
            arrays = read_arrays(_bytes(folder / file))
            file = f"{name}.json"
            return cls._made({**record, "box": box, "image": image}, arrays)
        except GradeclipError:
            raise
        except _DAMAGED as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
            msg = f"{folder / file} is damaged, or holds no {name} that `save` wrote ({said})"
            raise GradeclipError(msg) from error

    def __post_init__(self):
        for name in self._arrays:  # arrays that cannot be written to; the caller's own stay as they are
            if getattr(self, name) is not None:
                array = np.array(getattr(self, name))
                array.flags.writeable = False
                object.__setattr__(self, name, array)


@dataclass(frozen=True, eq=False)
class Explanation(Result):
    """One image and T prompts explained. The target is each prompt's similarity, or its lead over `against`.

    Attributes:
        prompts: the T prompts.
        similarity: (T,) the model's own cosine similarities.
        image_maps: (T, h, w) signed relevance of each patch for the target, on the token grid; zero if the method has
            none for images.
        words: for each prompt its words, with the signed relevance of each word for the target; none if the prompt is
            an embedding, or the method has none for prompts.
        image: the image as it was given, upright RGB.
        box: left, top, right, bottom of what the model saw, in the image's pixels; beyond it where it was padded.
        provenance: model, pretrained, method and what it explains, attention (of Grad-ECLIP), layers, resolution,
            library versions; for single-head attention also the similarities that the single-head towers give, because
            those are the numbers explained.
        against, against_similarity, against_words: the other prompts of a contrastive target, their own similarities
            (T,), and their words, whose scores are for the *target*: positive where a word lowers S(image, against).
        percentile: (T,) the place of each similarity among the similarities of the same image with null captions
            ("a photo of a dog", "a photo of a bridge", ...): the percentage of them below it. None where the model
            embeds no captions. `percentile_interval` says how well so many captions determine it.
        null_median: the median of these similarities: half of the null captions lie below.
        null_count: how many null captions there are.
    """

    _arrays = ("image_maps", "similarity", "against_similarity", "percentile")
    prompts: tuple[str, ...]
    similarity: np.ndarray
    image_maps: np.ndarray
    words: tuple[tuple[Word, ...], ...]
    image: Image.Image
    box: Box
    provenance: dict
    against: tuple[str, ...] | None = None
    against_similarity: np.ndarray | None = None
    against_words: tuple[tuple[Word, ...], ...] | None = None
    percentile: np.ndarray | None = None
    null_median: float | None = None
    null_count: int = 0

    @property
    def percentile_interval(self) -> np.ndarray | None:
        """95 % interval (T, 2) of `percentile`, low and high, in percent.

        The null captions are a sample of all captions; the interval is Wilson's for a proportion (Wilson, "Probable
        Inference, the Law of Succession, and Statistical Inference", JASA 1927).
        """
        if self.percentile is None:
            return None
        share, n, z = self.percentile / 100, self.null_count, 1.959964
        middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        return 100 * np.stack([middle - half, middle + half], axis=-1) / (1 + z**2 / n)

    @property
    def origin(self) -> str:
        """The line under a figure: the model, the method, and the number that was explained if it is not the model's.

        >>> explanation.origin                                                   # doctest: +SKIP
        'ViT-B-16 (openai), Grad-ECLIP with one head: explains 0.171 (image) and 0.204 (words), not 0.350'
        """
        return _origin(self.provenance, self.similarity)

    def prompt_dependence(self, nulls: np.ndarray, index: int = 0) -> tuple[float, float, float]:
        """How much the map of one prompt depends on what was asked: 1 - its correlation with maps of null prompts.

        0 means the same map for any prompt, as raw attention and rollout give it; 1 a map that has nothing in common
        with the others. The correlation is Pearson's over patches, which does not depend on a map's scale; a rank
        correlation would be decided by the many patches near zero, where all maps are noise.

            explanation.prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            nulls: (M, h, w) maps of the same image for prompts of the same form about other things, two or more
                (`Explainer.null_maps`).
            index: of the prompt.

        Returns:
            The mean over null prompts, and its 95 % interval over them (Student's), low and high.

        Raises:
            GradeclipError: maps of another shape, fewer than two, values that are not finite, or no such prompt.
        """
        nulls, count = finite("null maps", nulls), len(self.image_maps)
        index = whole("index", index, -count, count - 1)
        if nulls.shape[1:] != self.image_maps.shape[1:] or len(nulls) < 2:
            h, w = self.image_maps.shape[1:]
            raise GradeclipError(f"null maps must be (M, {h}, {w}), two or more of them, got {nulls.shape}")
        from scipy.stats import t  # half a second to import, and few explanations are compared

        flat = np.concatenate([self.image_maps[index][None], nulls]).astype(float).reshape(1 + len(nulls), -1)
        flat = flat - flat.mean(1, keepdims=True)
        lengths = np.linalg.norm(flat, axis=1)
        flat = np.divide(flat, lengths[:, None], out=np.zeros_like(flat), where=lengths[:, None] > 0)
        same = flat[1:] @ flat[0] + ((lengths[1:] == 0) & (lengths[0] == 0))  # two constant maps are the same
        distances = np.clip(1 - same, 0, 2)
        mean, half = distances.mean(), t.ppf(0.975, len(nulls) - 1) * distances.std(ddof=1) / len(nulls) ** 0.5
        return float(mean), float(max(mean - half, 0.0)), float(min(mean + half, 2.0))

    def plot(self, **options):
        """Return a matplotlib figure: the image, then a map a prompt, with its words shaded by their scores.

        Args:
            **options: of `plots.plot_explanation`.
        """
        from .plots import plot_explanation  # matplotlib is slow to import, and only what shows needs it

        return plot_explanation(self, **options)

    @classmethod
    def _made(cls, record: dict, arrays: dict) -> "Explanation":
        for name, words in (("prompts", "words"), ("against", "against_words")):
            if record[name] is not None:
                texts = _texts(record[name])
                _require(len(record[words]) == len(texts), f"{words} are not those of {len(texts)} prompts")
                record |= {name: texts, words: tuple(map(_words, record[words], texts))}
        found, count = cls(**{**record, **arrays}), len(record["prompts"])
        _check_parts(found.image_maps, found.box, found.provenance, count)
        for name, wanted in (("", True), ("against_", found.against is not None)):
            similarity, words = getattr(found, f"{name}similarity"), getattr(found, f"{name}words")
            _require((similarity is not None) == (words is not None) == wanted, f"{name}similarity lacks its against")
            if wanted:
                fits = similarity.shape == (count,) and np.isfinite(similarity).all()
                _require(fits, f"{name}similarity is none of {count} prompts")
                _require(len(words) == count, f"{name}words are not those of {count} prompts")
        _require(found.against is None or len(found.against) == count, f"against does not fit {count} prompts")
        if (places := found.percentile) is not None:
            fits = places.shape == (count,) and (places >= 0).all() and (places <= 100).all()
            _require(bool(fits), f"percentile is none of {count} prompts")
            median = found.null_median
            fits = isinstance(found.null_count, int) and found.null_count > 0 and median is not None
            fits = fits and math.isfinite(median or 0.0)
            _require(bool(fits), "null_count or null_median is no number of captions or no similarity")
        return found

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.plot()._repr_mimebundle_()


@dataclass(frozen=True, eq=False)
class Interactions(Result):
    """Word x region: which part of the image each word of the caption matches.

    Attributes:
        caption: the caption.
        words: its W words, with their first-order scores (those of `Explainer.explain`).
        maps: (W, h, w) signed interaction of each word with each patch. They do not sum to the similarity.
        similarity: the model's own cosine similarity.
        image, box, provenance: as in `Explanation`.
    """

    _arrays = ("maps",)
    caption: str
    words: tuple[Word, ...]
    maps: np.ndarray
    similarity: float
    image: Image.Image
    box: Box
    provenance: dict

    @property
    def origin(self) -> str:
        """The line under a figure, as in `Explanation`."""
        return _origin(self.provenance, [self.similarity]) + (
            ", things told apart by their mean" if "centred" in self.provenance else ""
        )

    def centred(self, over: Sequence[int | Sequence[int]] | None = None) -> "Interactions":
        """The same with maps that tell the named things apart: each thing's map less the mean of all things' maps.

        The maps of all words have a part in common, which matches any object. Without it the maximum of a noun's map
        lies on its own object more often, above all in captions with several objects (lesson 03).

            explainer.interactions(image, "a dog and an umbrella").centred().plot()

        Args:
            over: the things, each a word by index, or a sequence of indices for a noun of several words. By default
                the nouns of the caption (`methods.interactions.named_things`). Other words keep their maps.

        Raises:
            GradeclipError: fewer than two things, or a word that is not there or given twice.
        """
        if over is None:
            over = named_things(self.caption, [(word.start, word.end) for word in self.words])
            if len(over) < 2:
                named = ", ".join(self.words[i].text for group in over for i in group) or "none"
                msg = f"{self.caption!r} names fewer than two things ({named}): give the words in over="
                raise GradeclipError(msg)
        groups = [
            tuple(whole("each word of over", i, 0, len(self.words) - 1) for i in listed("over", one, (int, np.integer)))
            for one in listed("over", over)
        ]
        return replace(self, maps=centred(self.maps, groups), provenance={**self.provenance, "centred": groups})

    def plot(self, **options):
        """Return a matplotlib figure: one signed map a word, all on one scale.

        Args:
            **options: of `plots.plot_interactions`.
        """
        from .plots import plot_interactions

        return plot_interactions(self, **options)

    @classmethod
    def _made(cls, record: dict, arrays: dict) -> "Interactions":
        found = cls(**{**record, **arrays, "words": _words(record["words"], record["caption"])})
        _check_parts(found.maps, found.box, found.provenance, len(found.words))
        _require(isinstance(found.caption, str) and np.isfinite(found.similarity), "caption or similarity is none")
        return found

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.plot()._repr_mimebundle_()


def _origin(provenance: dict, similarity) -> str:
    start = f"{provenance['model']} ({provenance['pretrained'] or 'own weights'}), {provenance['method']}"
    scores = provenance.get("single_head_similarity")
    if scores is not None:
        image, words = (None if values is None else _listed(values) for values in (scores["image"], scores["text"]))
        words = "" if words is None else f" and {words} (words)"
        return f"{start}: explains {image} (image){words}, not {_listed(similarity)}"
    if provenance["attention"] is None:  # not Grad-ECLIP
        return f"{start}: explains {provenance['explains']}"
    return f"{start} with the model's own heads" if provenance["attention"] == "model" else start


def _listed(scores) -> str:
    more = ", …" * (len(scores) > 10)  # as many as a figure draws
    return ", ".join(f"{score:.3f}" for score in scores[:10]) + more


# ------------------------------------------------------------------------------------------------------- stored folders


def _bytes(file: Path) -> bytes:
    return readable(file, "a file of a saved explanation").read_bytes()


def _plain(value: Any) -> Any:
    """Words and numbers of numpy in a form that JSON has."""
    return asdict(value) if isinstance(value, Word) else value.tolist()


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)


def _texts(given: list) -> tuple[str, ...]:
    fits = isinstance(given, list) and given and all(isinstance(text, str) for text in given)
    _require(bool(fits), "prompts are no texts")
    return tuple(given)


def _words(given: list, prompt: str) -> tuple[Word, ...]:
    words = tuple(Word(**word) for word in given)
    fits = all(prompt[one.start : one.end] == one.text and np.isfinite(one.score) for one in words)
    _require(fits, f"a word does not stand in {prompt[:40]!r} as it says, or has no score")
    return words


def _check_parts(maps: np.ndarray, box: Box, provenance: dict, count: int) -> None:
    shape = tuple(maps.shape)
    _require(len(shape) == 3 and shape[0] == count and 0 not in shape, f"maps {shape} are not those of {count} texts")
    _require(bool(np.isfinite(maps).all()), "maps hold NaN or infinity")
    fits = len(box) == 4 and (np.abs(box) < 1e6).all() and box[0] < box[2] and box[1] < box[3]
    _require(bool(fits), f"{box} is no box")
    known = provenance if isinstance(provenance, dict) else {}
    lacking = [name for name in ("model", "pretrained", "method", "explains", "attention") if name not in known]
    _require(not lacking, f"provenance lacks {', '.join(lacking)}")
