"""Explanation: what was found out about one image, with all that is needed to look at it and to trust it.

    tower -> trace -> method -> map -> Explanation -> figure

Frozen results: arrays are read-only and numbers are raw and signed. Cutting off what is negative, scaling and resizing
are display, and happen in `heatmap` and in the plots.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy.stats import bootstrap

from .images import onto_image
from .methods.interactions import centred, named_things
from .words import Word

Box = tuple[float, float, float, float]
_ARRAYS, _RECORD, _IMAGE = "explanation.safetensors", "explanation.json", "image.png"


@dataclass(frozen=True, eq=False)
class Explanation:
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
    """

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

    @property
    def origin(self) -> str:
        """What belongs under every figure: which model, and whether its own similarity was explained or another number.

        >>> explanation.origin                                                   # doctest: +SKIP
        'ViT-B-16 (openai), Grad-ECLIP with one head: explains 0.171 (picture) and 0.204 (words), not 0.350'
        """
        return _origin(self.provenance, self.similarity)

    def heatmap(self, index: int = 0, *, signed: bool = False) -> np.ndarray:
        """The map of one prompt in the image's own pixels, (H, W) float32, zero where the model did not look.

        Relevance below zero is cut off on the token grid, unless `signed`; then the map is resized bilinearly.
        """
        return _heatmap(self.image_maps[index], self.box, self.image, signed)

    def prompt_dependence(self, nulls: np.ndarray, index: int = 0) -> tuple[float, float, float]:
        """How much the map of one prompt depends on what was asked: 1 - its correlation with maps of null prompts.

        0 means the same map whatever is asked, as raw attention and rollout give it; 1 a map that has nothing in common
        with the others. The correlation is Pearson's over patches, which does not see a map's scale: a rank correlation
        would be decided by the many patches near zero, where all maps are noise.

            explanation.prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            nulls: (M, h, w) maps of the same image for prompts of the same form about other things, two or more
                (`Explainer.null_maps`).
            index: of the prompt.

        Returns:
            The mean over null prompts, and its 95 % bootstrap interval over them, low and high.

        Raises:
            ValueError: maps of another shape, or fewer than two.
        """
        nulls = np.asarray(nulls, dtype=float)
        if nulls.shape[1:] != self.image_maps.shape[1:] or len(nulls) < 2:
            raise ValueError(f"null maps must be (M, {self.image_maps.shape[1]}, {self.image_maps.shape[2]}), two or "
                             f"more of them, got {nulls.shape}")  # fmt: skip
        flat = np.concatenate([self.image_maps[index][None], nulls]).astype(float).reshape(1 + len(nulls), -1)
        flat = flat - flat.mean(1, keepdims=True)
        lengths = np.linalg.norm(flat, axis=1)
        flat = np.divide(flat, lengths[:, None], out=np.zeros_like(flat), where=lengths[:, None] > 0)
        same = flat[1:] @ flat[0] + ((lengths[1:] == 0) & (lengths[0] == 0))  # two constant maps are the same
        distances = np.clip(1 - same, 0, 2)
        bounds = bootstrap((distances,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0))
        low, high = bounds.confidence_interval
        return float(distances.mean()), float(low), float(high)

    def plot(self, **options):
        """A matplotlib figure: image, heat maps with a colour bar, words shaded by score. See `plots`."""
        from .plots import plot_explanation  # matplotlib is slow to import, and only this needs it

        return plot_explanation(self, **options)

    def save(self, folder: str | Path) -> Path:
        """Write arrays (safetensors), words and provenance (JSON) and the image (PNG) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"similarity": self.similarity, "image_maps": self.image_maps}
        if self.against_similarity is not None:
            arrays["against_similarity"] = self.against_similarity
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / _ARRAYS)
        names = ("prompts", "words", "box", "provenance", "against", "against_words")
        record = {name: getattr(self, name) for name in names}
        text = json.dumps(record, default=asdict, ensure_ascii=False, indent=1)
        (folder / _RECORD).write_text(text, encoding="utf-8")
        self.image.save(folder / _IMAGE)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Explanation":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: one of the three files is missing.
        """
        folder = Path(folder)
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        for name in ("prompts", "box", "against"):
            record[name] = None if record[name] is None else tuple(record[name])
        for name in ("words", "against_words"):
            if record[name] is not None:
                record[name] = tuple(tuple(Word(**word) for word in words) for words in record[name])
        with Image.open(folder / _IMAGE) as file:
            record["image"] = file.convert("RGB")
        return cls(**record | load_file(folder / _ARRAYS))

    def __post_init__(self):
        for name in ("similarity", "image_maps", "against_similarity"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _read_only(getattr(self, name)))

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.plot()._repr_mimebundle_()


@dataclass(frozen=True, eq=False)
class Interactions:
    """Word x region: which part of the image each word of the caption matches.

    Attributes:
        caption: the caption.
        words: its W words, with their first-order scores (those of `Explainer.explain`); of `Explainer.metagame` its
            players, words or groups of them, with their Shapley values.
        maps: (W, h, w) signed interaction of each word with each patch. They do not sum to the similarity.
        similarity: the model's own cosine similarity.
        image, box, provenance: as in `Explanation`.
        pairs: (W, W, h, w) of `Explainer.metagame`: what two words do together beyond what each does (Shapley
            interaction index), zero on the diagonal; else None.
    """

    caption: str
    words: tuple[Word, ...]
    maps: np.ndarray
    similarity: float
    image: Image.Image
    box: Box
    provenance: dict
    pairs: np.ndarray | None = None

    @property
    def origin(self) -> str:
        """What belongs under every figure, as in `Explanation`."""
        return _origin(self.provenance, [self.similarity]) + (
            ", things told apart by their mean" if "centred" in self.provenance else ""
        )

    def centred(self, over: Sequence[int | Sequence[int]] | None = None) -> "Interactions":
        """The same, without what the named things of the caption share: each one's map less the mean of all of theirs.

        The maps of all words have a part in common, which answers to any object. Without it, on 150 development scenes
        of the bundled model, the maximum of a noun's map lies in its object's quadrant in 95 % instead of 86 % of the
        cases with two objects, in 89 instead of 78 with three, in 82 instead of 73 with four (chance: 25).

            explainer.interactions(image, "a dog and an umbrella").centred().plot()

        Args:
            over: which words are told apart, by index; a sequence of indices for a noun of several words, whose maps
                add up. By default the nouns of the caption (`named_things`). Other words keep their maps.

        Raises:
            ValueError: fewer than two things are named, or a word is not there or given twice.
        """
        if over is None:
            over = named_things(self.caption, [(word.start, word.end) for word in self.words])
            if len(over) < 2:
                named = ", ".join(self.words[i].text for group in over for i in group) or "none"
                raise ValueError(f"{self.caption!r} names fewer than two things ({named}): give the words in over=")
        groups = [(one,) if isinstance(one, (int, np.integer)) else tuple(one) for one in over]
        return replace(self, maps=centred(self.maps, groups), provenance={**self.provenance, "centred": groups})

    def heatmap(self, index: int, *, signed: bool = False) -> np.ndarray:
        """The map of one word in the image's own pixels, (H, W); as `Explanation.heatmap`."""
        return _heatmap(self.maps[index], self.box, self.image, signed)

    def plot(self, **options):
        """A matplotlib figure: one signed map a word, all on one scale. See `plots`."""
        from .plots import plot_interactions

        return plot_interactions(self, **options)

    def __post_init__(self):
        for name in ("maps", "pairs"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _read_only(getattr(self, name)))

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.plot()._repr_mimebundle_()


def _read_only(array: np.ndarray) -> np.ndarray:
    """A copy that cannot be written to; the caller's own stays as it is."""
    array = np.array(array)
    array.flags.writeable = False
    return array


def _origin(provenance: dict, similarity) -> str:
    start = f"{provenance['model']} ({provenance['pretrained'] or 'own weights'}), {provenance['method']}"
    scores = provenance.get("single_head_similarity")
    if scores is not None:
        image, words = (None if values is None else _listed(values) for values in (scores["image"], scores["text"]))
        words = "" if words is None else f" and {words} (words)"
        return f"{start}: explains {image} (picture){words}, not {_listed(similarity)}"
    if provenance["attention"] is None:  # not Grad-ECLIP
        return f"{start}: explains {provenance['explains']}"
    return f"{start} with the model's own heads" if provenance["attention"] == "model" else start


def _listed(scores) -> str:
    return ", ".join(f"{score:.3f}" for score in scores)


def _heatmap(map_: np.ndarray, box: Box, image: Image.Image, signed: bool) -> np.ndarray:
    return onto_image(map_ if signed else np.maximum(map_, 0), box, image.size)
