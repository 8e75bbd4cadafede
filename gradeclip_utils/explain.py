"""Explain: images and prompts in, an `Explanation` out. The end of the line, and the door where input is checked.

    image, prompt -> tower -> trace -> method -> map -> Explanation -> figure

`Explainer` opens both encoders of a model once and explains as many images and prompts as you like. Nothing about
the model differs afterwards, whatever happens: no hook, no mode, no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .encoders import GRAD_ECLIP, IMAGES_AT_ONCE, PROMPTS_AT_ONCE, Encoders, on_grid
from .explanation import Explanation, Interactions
from .images import ImageLike, read_image
from .methods.interactions import interactions, word_masks
from .notices import warn_of_empty_maps
from .prompts import Asked, Prompts, as_prompts, ask_embeddings, ask_strings, matched
from .towers.base import isolated_torch_state
from .words import Word, check_tokenizer


@dataclass(frozen=True)
class _Read:
    """P prompts as the model read them."""

    names: tuple[str, ...]
    embedding: Tensor  # (P, E), unit length
    similarity: Tensor  # (P,), the model's own
    explained: Tensor  # (P,), the one whose words were scored: another number where the text encoder has a single head
    words: tuple[tuple[Word, ...], ...]


class Explainer(Encoders):
    """Explains what a CLIP matched in an image and in a prompt, by Grad-ECLIP or by another method.

        explainer = Explainer(load_clip())
        explanation = explainer.explain("dog.png", ["a dog", "a red car"])
        explanation.similarity, explanation.image_maps.shape
        Explainer(load_clip(), method="maskclip").explain("dog.png", "a dog")

    Args:
        clip: a model with its preprocessing and tokenizer.
        method: a name in `methods.METHODS`, which says for each what it explains, its paper and its cost, or a
            `methods.Method` of your own. Where it is not defined for prompts, explanations have no words; where it is
            not defined for images, maps are zero.
        seed: of the methods that draw random numbers (RISE, M2IB).
        progress: show a bar for the methods that take long.
        attention: "model" explains the model's own similarity, through its own attention heads. "single-head" is the
            published variant: the explained encoder runs its explained layers with one head over the full width, the
            other encoder stays as it is. That explains another number; `provenance` reports it beside the model's own.
            It is the same as method="grad-eclip-single-head"; other methods keep the model's own heads.
        image_layers: how many of the last image layers are explained; by default as many as the method goes through,
            for Grad-ECLIP one. It sums over them.
        text_layers: the same for text; by default two thirds (8 of 12) for Grad-ECLIP.
        resolution: "model" shows the model what its own preprocessing makes of the image. "native" shows it the whole
            image in its own shape, sides rounded to the patch and position embeddings interpolated.

    Raises:
        UnsupportedModel: the image encoder cannot be opened. A text encoder that cannot be opened is refused when a
            prompt is a string: prompt embeddings can still be explained.
        ValueError: an argument is not one of the choices, or they do not go together.
        TypeError: `clip` is a bare model.
    """

    def explain(self, image: ImageLike, texts: Prompts, against: Prompts | None = None) -> Explanation:
        """Explain one image and T prompts, which share one pass of the image encoder.

        With `against`, the target is the difference S(image, text) - S(image, against): maps are signed for it, and
        so are the scores of both prompts' words (a word of `against` that pulls the other way is positive). Every
        method is given this difference as the direction of its target; raw attention and rollout know no target, and
        their maps stay the same. A prompt whose tokenizer is not CLIP's own (SigLIP's, say) has maps, no words, and a
        warning that says so.

        Args:
            image: a PIL image, a path, or a uint8 array (H, W, 3).
            texts: a prompt or several, or prompt embeddings (T, E), which have no words.
            against: one prompt (or embedding) for all, or one for each of `texts`.

        Returns:
            One explanation with T maps.

        Raises:
            ValueError: a prompt is empty, embeddings do not fit, the model holds NaN, the file is not an image.
            UnsupportedModel: a prompt is a string and the text encoder cannot be opened.
            TypeError: the tokenizer drops tokens at random.
        """
        return self._explain([read_image(image)], as_prompts(texts), against)[0]

    def explain_batch(
        self, images: Sequence[ImageLike], texts: Prompts, against: Prompts | None = None
    ) -> list[Explanation]:
        """Explain pairs, `images[i]` with `texts[i]`, in batches.

        Args:
            images: P images, each as for `explain`.
            texts: P prompts, or embeddings (P, E).
            against: one prompt for all, or one for each.

        Returns:
            P explanations, each with one map.

        Raises:
            ValueError: there are not as many images as prompts; and what `explain` raises.
        """
        texts = as_prompts(texts)
        if len(images) != len(texts):
            raise ValueError(f"pairs need as many pictures as prompts, got {len(images)} and {len(texts)}")
        against = None if against is None else matched(as_prompts(against), len(texts))
        explanations: list[Explanation] = []
        step = 1 if self.one_at_a_time else IMAGES_AT_ONCE
        for start in range(0, len(texts), step):
            some = slice(start, start + step)
            read = [read_image(image) for image in images[some]]
            explanations += self._explain(read, texts[some], None if against is None else against[some], start)
        return explanations

    def interactions(self, image: ImageLike, caption: str) -> Interactions:
        """Which region does each word of the caption match? Word x region, see `methods.interactions`.

        A word's score is its first-order score, the same as from `explain`. To tell several things of one caption
        apart, take away what their words share: `interactions(...).centred()`. With single-head attention both encoders
        run with one head, and `provenance` reports the similarity that they give: under "image" that of both, whose
        maps these are, under "text" that of the prompt's with the model's own image embedding, whose scores they are.

        Args:
            image: as for `explain`.
            caption: one prompt of W words.

        Returns:
            Signed maps (W, h, w), one a word.

        Raises:
            ValueError: the method is not Grad-ECLIP; and what `explain` raises.
            TypeError: the caption is no string, or the tokenizer does not say which tokens make up a word.
        """
        if self.method.name not in GRAD_ECLIP:
            raise ValueError(f"interactions are Grad-ECLIP's own, and this Explainer's method is {self.method.name!r}")
        if not isinstance(caption, str):
            raise TypeError(f"interactions need one caption, a string, got {type(caption).__name__}")
        read = read_image(image)
        with isolated_torch_state(self.image_tower.device):
            check_tokenizer(self.clip.tokenizer)
            asked, tower, view = self._ask([caption]), self._opened_text_tower(), self._view(read)
            image_trace, own = self._trace_images([view])
            text_trace, said = self._both(tower, tower.trace(asked.ids))
            word_mask = word_masks(asked.splits[0].word_ids, text_trace, asked.splits[0].first)  # (W, N)
            maps, directions = interactions(self.image_tower, image_trace, tower, text_trace, word_mask)
            warn_of_empty_maps(maps[None], image_trace.valid_mask, "word maps are")
            scores = (directions @ own[0]).tolist()  # (W,)
            explained = [(one * text_trace.embedding).sum(-1).tolist() for one in (image_trace.embedding, own)]
        words = tuple(
            Word(caption[a:b], score, a, b) for (a, b), score in zip(asked.splits[0].spans, scores, strict=True)
        )
        provenance, grid = self._provenance(*explained), _numpy(on_grid(maps, image_trace))
        return Interactions(caption, words, grid, float((own * said).sum()), read, view.box, provenance)

    def _explain(self, images: list[Image.Image], texts, against: Prompts | None, first: int = 0) -> list[Explanation]:
        """B images that the model sees at one size, and P = B * T prompts, image by image."""
        with isolated_torch_state(self.image_tower.device):
            asked = self._ask(texts, first)  # what is wrong with a prompt is said before anything is computed
            others = None if against is None else self._ask(matched(as_prompts(against), len(texts)), first)
            views = [self._view(image) for image in images]
            trace, embedding = self._trace_images(views)
            each = len(texts) // len(views)
            own, explained = (part.repeat_interleave(each, dim=0) for part in (embedding, trace.embedding))  # (P, E)
            read = self._read(asked, own)
            other = None if others is None else self._read(others, own, sign=-1)  # the target falls as theirs rises
            directions = read.embedding if other is None else read.embedding - other.embedding
            maps = self._token_maps(
                trace, directions.unflatten(0, (len(views), each)), self._empty_prompt() if others is None else None
            )  # (B, T, N)
            if self.method.image is not None:
                warn_of_empty_maps(maps, trace.valid_mask, "image maps are")
            maps, image_explained = on_grid(maps, trace), (explained * read.embedding).sum(-1).tolist()
        found = []
        for i, (image, view) in enumerate(zip(images, views, strict=True)):
            mine = slice(i * each, (i + 1) * each)
            text_explained = read.explained[mine].tolist() if any(read.words) else None
            found.append(
                Explanation(
                    prompts=read.names[mine],
                    similarity=_numpy(read.similarity[mine]),
                    image_maps=_numpy(maps[i]),
                    words=read.words[mine],
                    image=image,
                    box=view.box,
                    provenance=self._provenance(image_explained[mine], text_explained),
                    against=None if other is None else other.names[mine],
                    against_similarity=None if other is None else _numpy(other.similarity[mine]),
                    against_words=None if other is None else other.words[mine],
                )
            )
        return found

    def _ask(self, prompts: list[str] | Tensor, first: int = 0) -> Asked:
        """P prompts, checked; `first` is the number of the first embedding."""
        if isinstance(prompts, Tensor):
            return ask_embeddings(prompts, self.image_tower.width, first)
        clip, tower = self.clip, self._opened_text_tower()
        return ask_strings(prompts, clip.tokenizer, tower, clip.name, clip.vocabulary)

    def _read(self, asked: Asked, image: Tensor, sign: int = 1) -> _Read:
        """Embed P prompts, each for its image embedding (P, E), and score their words for `sign` * similarity."""
        if asked.embedding is not None:
            embedding = F.normalize(asked.embedding.to(image), dim=-1)
            similarity = (image * embedding).sum(-1)
            return _Read(asked.names, embedding, similarity, similarity, ((),) * len(embedding))
        assert asked.ids is not None
        tower, tokens = self._opened_text_tower(), asked.token_counts()
        order = sorted(range(len(tokens)), key=tokens.__getitem__)  # a batch costs as much as its longest prompt
        embedding, explained = torch.empty_like(image), torch.empty_like(image[:, 0])
        words: list[tuple[Word, ...]] = [()] * len(tokens)
        for start in range(0, len(order), PROMPTS_AT_ONCE):
            some = order[start : start + PROMPTS_AT_ONCE]
            trace, embedding[some] = self._both(tower, tower.trace(asked.ids[some]))
            explained[some] = (trace.embedding * image[some]).sum(-1)
            if self.method.text is None or not asked.splits:
                continue
            word_ids = asked.word_ids(some, trace.valid_mask)
            options = {"seed": self.seed, "progress": self.progress, "words": word_ids}
            scores = self.method.text(tower, trace, sign * image[some, None], **options)[:, 0]  # (P, N)
            for i, row in zip(some, scores.tolist(), strict=True):
                words[i] = asked.splits[i].words(row[asked.splits[i].first :][: tokens[i]])
        return _Read(asked.names, embedding, (image * embedding).sum(-1), explained, tuple(words))

    def _provenance(self, image_explained: list[float], text_explained: list[float] | None) -> dict:
        """Where an explanation comes from; with single-head attention also the similarities that it explains."""
        own = ("transformers",) if type(self.clip.model).__module__.startswith(("transformers.", "peft.")) else ()
        libraries = ("gradeclip", "torch", "open_clip_torch", *own)
        provenance: dict = {
            "model": self.clip.name,
            "pretrained": self.clip.pretrained,
            "method": self.method.title,
            "explains": self.method.explains,
            "attention": self.attention if self.method.name in GRAD_ECLIP else None,
            "image_layers": self.image_tower.layers,
            "text_layers": None if self.text_tower is None else self.text_tower.layers,
            "resolution": self.resolution,
            "versions": {name: _version(name) for name in libraries},
        }
        if self.attention == "single-head":
            provenance["single_head_similarity"] = {"image": image_explained, "text": text_explained}
        return provenance


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


@cache  # reading a package's metadata takes as long as a small explanation
def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"
