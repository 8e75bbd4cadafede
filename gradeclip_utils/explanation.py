"""Explanation: the result for one image, with what is needed to show it and to check it.

`Explanation` (prompts) and `Interactions` (the words of one prompt) have one shape: names, numbers
and ranks are the same. Results are frozen: arrays are read-only, and numbers are raw and signed.
Only `heatmap` and the plots cut off negative values, scale and resize.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .errors import GradeclipError, first_line, hint, short
from .files import write_whole
from .images import DRAWN, Box, onto_image, read_image
from .language import is_function_word
from .methods.interactions import centred, named_things
from .models import model_title
from .words import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LISTED = 10  # numbers in a line under a figure, which draws as many prompts


@dataclass(frozen=True)
class Provenance:
    """Where an explanation comes from.

    Attributes:
        model: the model's name.
        pretrained: the source of its weights; "" if it was not given.
        method: the name of the maps' method, such as "grad-eclip".
        title: what figures call it.
        explains: which number it explains.
        image_layers, text_layers: how many of the last layers were explained; None where there are
            no maps, or no words, or a word's score does not look into the layers.
        resolution: "model" or "native".
        versions: of the libraries.
        words: the name of the words' method; None if there are no words.
        words_title: what figures call it.
        word_change: what it does to a word, if a word's score is the fall of the similarity after
            this change, such as "without this word"; else "".
        explained_similarity: for each prompt, if the method explains another network than the
            model: the similarity that the image's map explains.
        explained_word_similarity: the same, for the scores of the words.
        unknown_words: words of the prompts that the model was never shown, in lower case.
        is_guess: whether the model was trained on drawn scenes alone, and the image is none.
        centred: the things that maps of words tell apart (`Interactions.centred`), by index.
    """

    model: str
    pretrained: str
    method: str
    title: str
    explains: str
    image_layers: int | None
    text_layers: int | None
    resolution: str
    versions: dict[str, str]
    words: str | None = None
    words_title: str = ""
    word_change: str = ""
    explained_similarity: tuple[float, ...] | None = None
    explained_word_similarity: tuple[float, ...] | None = None
    unknown_words: tuple[str, ...] = ()
    is_guess: bool = False
    centred: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class Regions:
    """Where relevance is high, in the image's own pixels.

    Attributes:
        mask: (H, W) bool.
        boxes: left, top, right, bottom of each connected part of the mask.
        points: x, y of the largest relevance in each.
        rule: how the mask was made.
    """

    mask: np.ndarray
    boxes: tuple[tuple[int, int, int, int], ...]
    points: tuple[tuple[int, int], ...]
    rule: str


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What both results have in common: T prompts, or W words of one prompt."""

    prompts: tuple[str, ...]
    similarity: np.ndarray
    image_maps: np.ndarray | None
    words: tuple[tuple[Word, ...], ...]
    image: Image.Image
    box: Box
    provenance: Provenance

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                array = value.copy()  # the caller's own stays as it is
                array.flags.writeable = False
                object.__setattr__(self, field.name, array)

    @property
    def _names(self) -> tuple[str, ...]:
        """What each map belongs to: a prompt, or a word."""
        raise NotImplementedError

    def _select(self, index: int) -> Self:
        """The same with one prompt, or one word."""
        raise NotImplementedError

    def __repr__(self) -> str:
        prompts = ", ".join(
            f"{short(prompt)} (similarity {similarity:.2f})"
            for prompt, similarity in zip(self.prompts, self.similarity, strict=True)
        )
        return f"{type(self).__name__} of {prompts}: {self.origin}"

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Self]:
        return (self._select(index) for index in range(len(self)))

    def __getitem__(self, key: str | int) -> Self:
        """The explanation of one prompt, or word of `Interactions`, by its text or its index."""
        return self._select(self._index(key))

    def _index(self, key: str | int) -> int:
        """The index of a prompt or word, by its text (the first of several) or its index."""
        if isinstance(key, str):
            if key not in self._names:
                raise GradeclipError(f"there is no {key!r} here: {hint(key, self._names)}")
            return self._names.index(key)
        try:
            return range(len(self))[key]
        except IndexError:  # as for a list
            last = len(self) - 1
            raise IndexError(f"index {key} is out of range: the last one is {last}") from None

    @property
    def origin(self) -> str:
        """The line under a figure: the model, the method, and the number that was explained.

        >>> explanation.origin                                                   # doctest: +SKIP
        'emoji (bundled), Grad-ECLIP: explains the model's own similarity, last 3 layers'
        """
        known = self.provenance
        line = f"{model_title(known.model, known.pretrained)}, {known.title}"
        if known.explained_similarity is None:
            line += f": explains {known.explains}"
            if self.lead_over and "similarity" in known.explains:
                line += f" less that of {self.lead_over}"
        else:
            line += f": explains {_listed(known.explained_similarity)} (image)"
            if known.explained_word_similarity is not None:
                line += f" and {_listed(known.explained_word_similarity)} (words)"
            line += f", not {_listed(self.similarity)}"
        if known.centred is not None:
            line += ", things told apart by their mean"
        if known.image_layers == 1:
            line += ", last layer"
        elif known.image_layers is not None:
            line += f", last {known.image_layers} layers"
        if known.words not in (None, known.method):
            line += f"; words: {known.words_title[0].lower()}{known.words_title[1:]}"
        return line

    @property
    def words_legend(self) -> str:
        """What a word's score is, for a legend.

        >>> explanation.words_legend                                             # doctest: +SKIP
        'fall of the similarity without this word'
        """
        change = self.provenance.word_change
        return f"fall of the {self._target} {change}" if change else "relevance of a word"

    def word_sentence(self, word: Word) -> str:
        """A word's score in a sentence.

        >>> explanation.word_sentence(explanation.words[0][1])                   # doctest: +SKIP
        'without this word the similarity is 0.041 lower'
        """
        change = self.provenance.word_change
        if not change and word.score == 0 and self._has_published_words:
            return "relevance 0: its key fits the query least, so lambda is 0 by definition"
        if not change:
            return f"relevance {word.score:+.4f}"
        direction = "lower" if word.score >= 0 else "higher"
        return f"{change} the {self._target} is {abs(word.score):.3f} {direction}"

    def is_filled(self, word: Word) -> bool:
        """Whether a drawing gives a word a colour, and counts it for the scale of colours.

        Grad-ECLIP gives function words ("a", "and") as much relevance as others, while leaving them
        out changes little (lesson 04): they have a number and no colour.
        """
        return not (self._has_published_words and is_function_word(word.text))

    def is_unknown(self, word: Word) -> bool:
        """Whether the model was never shown a word: a drawing strikes it out."""
        return word.text.lower() in self.provenance.unknown_words

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever sees a drawing must know of the model, a line each.

        >>> explainer.explain("astronaut.jpg", "an astronaut").notes             # doctest: +SKIP
        ('the model does not know: astronaut', 'trained on drawn scenes alone: a guess')
        """
        notes = []
        if self.provenance.unknown_words:
            notes.append(f"the model does not know: {', '.join(self.provenance.unknown_words)}")
        if self.provenance.is_guess:
            notes.append("trained on drawn scenes alone: a guess")
        return tuple(notes)

    @property
    def _has_published_words(self) -> bool:
        """Whether words are scored by Grad-ECLIP or a variant of it."""
        return (self.provenance.words or "").startswith("grad-eclip")

    @property
    def lead_over(self) -> str:
        """What the target is a lead over, in words; "" if it is the similarity itself."""
        return ""

    @property
    def _target(self) -> str:
        """The number that words and maps are about."""
        return "similarity"

    def heatmap(self, index: str | int = 0, *, signed: bool = False) -> np.ndarray:
        """One map in the image's own pixels, resized bilinearly: (H, W), zero outside of `box`.

            plt.imshow(explanation.heatmap("a dog"))

        Args:
            index: of the prompt or word, or its text.
            signed: False cuts off relevance below zero, on the token grid.

        Raises:
            GradeclipError: there is no such prompt, or the method has no maps of images.
        """
        map_ = self._maps()[self._index(index)]
        if not signed:
            map_ = np.maximum(map_, 0)
        return onto_image(map_, self.box, self.image.size)

    def regions(self, index: str | int = 0, *, quantile: float = 0.9) -> Regions:
        """Where the relevance of one prompt or word is high: a mask, boxes and points.

            explanation.regions("a dog").boxes

        Args:
            index: of the prompt or word, or its text.
            quantile: of the heat map's pixels in the part of the image that the model saw.

        Returns:
            The regions, the one with the largest relevance first.

        Raises:
            GradeclipError: there is no such prompt or word, the method has no maps of images, or
                `quantile` is not between 0 and 1.
        """
        if not 0 <= quantile <= 1:
            raise GradeclipError(f"quantile must be between 0 and 1, got {quantile}")
        from scipy import ndimage  # slow to import

        heat = self.heatmap(index)  # (H, W)
        seen = onto_image(np.ones((1, 1), np.float32), self.box, self.image.size) > 0
        threshold = np.quantile(heat[seen], quantile)
        mask = (heat >= threshold) & (heat > 0)

        labels, _ = ndimage.label(mask)
        regions = []
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = np.where(labels == number, heat, 0)
            y, x = np.unravel_index(inside.argmax(), heat.shape)
            box = (columns.start, rows.start, columns.stop, rows.stop)
            regions.append((float(inside.max()), box, (int(x), int(y))))
        regions.sort(reverse=True)
        return Regions(
            mask=mask,
            boxes=tuple(box for _, box, _ in regions),
            points=tuple(point for _, _, point in regions),
            rule=f"relevance above zero and its {quantile} quantile, connected pixels",
        )

    def _maps(self) -> np.ndarray:
        """The maps, if there are any."""
        if self.image_maps is None:
            raise GradeclipError(
                f"{self.provenance.title} explains prompts only: there are no maps"
            )
        return self.image_maps

    def save(self, path: str | Path) -> Path:
        """Write numbers, words, provenance and the image into one .npz file.

            path = explanation.save("dog.npz")
            Explanation.load(path).plot()

        Args:
            path: of the .npz file, which is overwritten if it is there, and returned.

        Raises:
            GradeclipError: the file's name does not end in .npz.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise GradeclipError(f"an explanation is saved as one .npz file, got {path.name!r}")

        png = io.BytesIO()
        note = PngInfo()
        if DRAWN in self.image.info:
            note.add_text(DRAWN, "yes")
        self.image.save(png, "png", pnginfo=note)

        arrays = {"image": np.frombuffer(png.getvalue(), np.uint8)}
        record: dict[str, Any] = {"kind": type(self).__name__}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = value
            elif field.name != "image":
                record[field.name] = value
        arrays["record"] = np.array(json.dumps(record, default=asdict, ensure_ascii=False))

        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        write_whole({path: content.getvalue()})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            GradeclipError: the file is another one.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            record = json.loads(str(arrays.pop("record")))
            kind = record.pop("kind")
            if kind != cls.__name__:
                raise GradeclipError(f"it holds {kind}, which {kind}.load reads")
            provenance = record.pop("provenance")
            png = Image.open(io.BytesIO(arrays.pop("image").tobytes()))
            return cls(
                image=read_image(png),
                provenance=Provenance(**{key: _as_tuple(provenance[key]) for key in provenance}),
                **{key: _from_json(record[key]) for key in record},
                **arrays,
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = first_line(error)
            raise GradeclipError(f"{path} is no saved {cls.__name__}: {reason}") from error

    def plot(self) -> "Figure":
        """A matplotlib figure of the image and its maps."""
        raise NotImplementedError

    def to_html(self, path: str | Path) -> Path:
        """Write one HTML file that shows what `plot` draws and works without a network.

        Pointing at a word gives its number. In a page of `Interactions` it also gives the word's
        map.

        Args:
            path: of a file, which is overwritten if it is there, and returned.
        """
        from .plots.page import page_of  # matplotlib is slow to import

        path = Path(path)
        write_whole({path: page_of(self).encode()})
        return path

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.plot()._repr_mimebundle_()


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Result):
    """One image and T prompts explained: each prompt's similarity, or its lead over `against`.

        explanation = explainer.explain("dog.png", ["a dog", "a red car"])
        explanation["a dog"].plot()
        [(one.prompts[0], one.similarity[0]) for one in explanation]

    Attributes:
        prompts: the T prompts.
        similarity: (T,) the model's own cosine similarities.
        image_maps: (T, h, w) signed relevance of each patch for the target, on the token grid; None
            if the method has none for images.
        words: for each prompt its words, with the signed score of each word for the target
            (`words_legend`); none if the prompt is an embedding, or the explainer has no method for
            words.
        image: the image as it was given, upright RGB.
        box: left, top, right, bottom of what the model saw, in the image's pixels; beyond it where
            it was padded.
        provenance: model, method, layers and versions, a `Provenance`.
        head_maps: (T, L, H, h, w) the part of each head of the L explained layers, the lowest
            first, which sum to `image_maps`; None unless they are asked for (`heads="separate"`).
        against, against_similarity, against_words: the other prompts of a contrastive target, their
            own similarities (T,), and their words, whose scores are for the *target*: positive
            where a word lowers S(image, against).
        against_others: the target is the lead over the mean of the null captions, `null_mean`.
        percentile: (T,) the place of each similarity among the similarities of the same image with
            null captions ("a photo of a dog", "a photo of a bridge", ...): the percentage of them
            below it. None where the model embeds no captions.
        null_mean: the mean of these similarities.
        null_median: the median: half of the null captions lie below.
        null_max: the largest of them.
        null_count: how many null captions there are.
        probability: (T,) what the model was trained to give: for SigLIP
            sigmoid(scale * similarity + bias), for CLIP the softmax of scale * similarity over the
            prompts of this call; None for a single one, or without a scale.
    """

    head_maps: np.ndarray | None = None
    against: tuple[str, ...] | None = None
    against_similarity: np.ndarray | None = None
    against_words: tuple[tuple[Word, ...], ...] | None = None
    against_others: bool = False
    percentile: np.ndarray | None = None
    null_mean: float | None = None
    null_median: float | None = None
    null_max: float | None = None
    null_count: int = 0
    probability: np.ndarray | None = None

    @property
    def _names(self) -> tuple[str, ...]:
        """The prompts."""
        return self.prompts

    @property
    def lead(self) -> np.ndarray | None:
        """The target (T,) of a contrast: by how much each similarity is above the other one."""
        if self.against_others:
            assert self.null_mean is not None
            return self.similarity - self.null_mean
        return None if self.against is None else self.similarity - self.against_similarity

    @property
    def lead_over(self) -> str:
        """What a contrast compares with, in words; "" if there is none.

        >>> explainer.explain(image, "a dog", against="others").lead_over        # doctest: +SKIP
        '193 other captions'
        """
        if self.against_others:
            return f"{self.null_count} other captions"
        return ", ".join(f"“{prompt}”" for prompt in dict.fromkeys(self.against or ()))

    @property
    def _target(self) -> str:
        """The number that words and maps are about."""
        return "similarity" if self.lead is None else "lead"

    def _select(self, index: int) -> Self:
        """The explanation of one prompt, with T = 1."""
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            by_prompt = isinstance(value, (tuple, np.ndarray)) and field.name != "box"
            if by_prompt:
                changes[field.name] = value[index : index + 1]

        known = self.provenance
        return replace(
            self,
            **changes,
            provenance=replace(
                known,
                unknown_words=self._unknown_in(index),
                explained_similarity=_one_of(known.explained_similarity, index),
                explained_word_similarity=_one_of(known.explained_word_similarity, index),
            ),
        )

    def _unknown_in(self, index: int) -> tuple[str, ...]:
        """The unknown words of one prompt, and of the one that it is compared with."""
        text = self.prompts[index]
        if self.against is not None:
            text += f" {self.against[index]}"
        return tuple(
            word
            for word in self.provenance.unknown_words
            if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.lower())
        )

    def plot(
        self,
        *,
        prompts: str | Sequence[str] | None = None,
        shared_scale: bool = True,
        width: float = 8.1,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Draw the image, then for each prompt its shaded words, its map and its similarity.

            explanation.plot(prompts=["a dog"], ax=axes[0])

        Args:
            prompts: those that are drawn; by default the nine most similar ones.
            shared_scale: one colour scale for all prompts; else one for each.
            width: inches.
            ax: axes of your own, which take the panel of one prompt.
        """
        from . import plots  # matplotlib is slow to import

        return plots.plot_explanation(
            self, prompts=prompts, shared_scale=shared_scale, width=width, ax=ax
        )

    @property
    def percentile_interval(self) -> np.ndarray | None:
        """The 95 % interval of `percentile`, (T, 2), if null captions were drawn from many more.

        The interval is about other captions, not about the picture. The same scene drawn at 96, 192
        and 384 pixels, which the preprocessing resizes, has similarities that differ by .003 and
        percentiles that differ by 4 points (root mean square of 160 pairs; at most 15), and of 96
        against 384 pixels 11 % lie outside the interval.

        Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA
            1927.
        """
        if self.percentile is None:
            return None
        part = self.percentile / 100
        share = 1.96**2 / self.null_count

        middle = part + share / 2
        half = np.sqrt(share * (part * (1 - part) + share / 4))
        return 100 * np.stack([middle - half, middle + half], axis=-1) / (1 + share)

    def prompt_dependence(
        self, nulls: np.ndarray, index: str | int = 0
    ) -> tuple[float, float, float]:
        """How much a map depends on the prompt: 1 - its correlation with maps of null prompts.

        0 means the same map for any prompt, as raw attention and rollout give it; 1 a map that has
        nothing in common with the others. The correlation is Pearson's over patches, which does not
        depend on a map's scale; a rank correlation would be decided by the many patches near zero,
        where all maps are noise.

            explanation.prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            nulls: (M, h, w) maps of the same image for prompts of the same form about other things,
                two or more (`Explainer.null_maps`).
            index: of the prompt, or its text.

        Returns:
            The mean over null prompts, and its 95 % interval over them (Student's), low and high.

        Raises:
            GradeclipError: maps of a different shape, fewer than two, or no such prompt.
        """
        from scipy.stats import t  # half a second to import, and few explanations are compared

        map_ = self._maps()[self._index(index)]
        nulls = np.asarray(nulls)
        if nulls.shape[1:] != map_.shape or len(nulls) < 2:
            h, w = map_.shape
            raise GradeclipError(
                f"null maps must be (M, {h}, {w}), two or more of them, got {nulls.shape}"
            )

        rows = np.concatenate([map_[None], nulls]).reshape(1 + len(nulls), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = np.corrcoef(rows)[0, 1:]
        # a flat map has no correlation: it is like another flat one, and unlike any other
        flat, *null_is_flat = np.ptp(rows, axis=1) == 0
        either_is_flat = np.logical_or(flat, null_is_flat)
        both_are_flat = np.logical_and(flat, null_is_flat)
        correlation = np.where(either_is_flat, both_are_flat, correlation)

        distances = np.clip(1 - correlation, 0, 2)
        mean = distances.mean()
        half = t.ppf(0.975, len(nulls) - 1) * distances.std(ddof=1) / len(nulls) ** 0.5
        return float(mean), float(max(mean - half, 0.0)), float(min(mean + half, 2.0))


@dataclass(frozen=True, eq=False, repr=False)
class Interactions(Result):
    """Word x region: which part of the image each of the W words of one prompt matches.

        interactions = explainer.interactions(image, "a dog and an umbrella")
        interactions["umbrella"].heatmap()

    Attributes:
        prompts: the prompt, (1,).
        similarity: (1,) the model's own cosine similarity.
        image_maps: (W, h, w) signed interaction of each word with each patch. They do not sum to
            the similarity.
        words: the W words of the prompt, a tuple in a tuple, with their first-order scores (those
            of `Explainer(words="grad-eclip")`).
        image, box, provenance: as in `Explanation`.
    """

    image_maps: np.ndarray

    @property
    def _names(self) -> tuple[str, ...]:
        """The words."""
        return tuple(word.text for word in self.words[0])

    def _select(self, index: int) -> Self:
        """The map of one word, with W = 1."""
        rows = slice(index, index + 1)
        return replace(self, image_maps=self.image_maps[rows], words=(self.words[0][rows],))

    def plot(
        self,
        *,
        words: str | Sequence[str] = "content",
        columns: int = 4,
        width: float = 8.1,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Draw the image, then a map for each word.

            interactions.plot(words=["umbrella"])

        Args:
            words: "content" draws nouns and adjectives, "all" function words too; or some of them.
            columns: maps in a row, beside the image.
            width: inches.
            ax: axes of your own, which take the map of one word.
        """
        from . import plots  # matplotlib is slow to import

        return plots.plot_interactions(self, words=words, columns=columns, width=width, ax=ax)

    def centred(self, over: Sequence[int | Sequence[int]] | None = None) -> Self:
        """The same with maps that tell the named things apart: each less the mean of all things.

        The maps of all words have a part in common, which matches any object. Without this part,
        the maximum of a noun's map lies on its own object more often, above all in prompts with
        several objects (lesson 03).

            explainer.interactions(image, "a dog and an umbrella").centred().plot()

        Args:
            over: the things, each a word by index, or a sequence of indices for a noun of several
                words. By default the nouns of the prompt (`methods.interactions.named_things`).
                Other words keep their maps.

        Raises:
            GradeclipError: fewer than two things, or a word that is not there or given twice.
        """
        (words,) = self.words
        if over is None:
            over = named_things(self.prompts[0], [(word.start, word.end) for word in words])
            if len(over) < 2:
                things = ", ".join(words[i].text for thing in over for i in thing) or "none"
                raise GradeclipError(
                    f"{short(self.prompts[0])} names fewer than two things ({things}): "
                    "give the words in over="
                )

        groups = tuple((thing,) if isinstance(thing, int) else tuple(thing) for thing in over)
        return replace(
            self,
            image_maps=centred(self.image_maps, groups),
            provenance=replace(self.provenance, centred=groups),
        )


def _one_of(values: tuple | None, index: int) -> tuple | None:
    """One value of several, as a tuple."""
    return None if values is None else values[index : index + 1]


def _listed(values: Sequence[float] | np.ndarray) -> str:
    """Numbers in a line under a figure."""
    line = ", ".join(f"{value:.3f}" for value in values[:_LISTED])
    return f"{line}, …" if len(values) > _LISTED else line


def _as_tuple(value: Any) -> Any:
    """A value of a JSON file with tuples for lists."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _from_json(value: Any) -> Any:
    """A field of a record: lists are tuples again, and words words."""
    if isinstance(value, list):
        return tuple(map(_from_json, value))
    return Word(**value) if isinstance(value, dict) else value
