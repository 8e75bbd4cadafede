"""Explain: images and prompts in, an `Explanation` out.

    image, prompt -> tower -> trace -> method -> map -> Explanation -> figure

`Explainer` opens both encoders of a model once and explains as many images and prompts as you like. It leaves nothing
behind on the model: no hook, no mode, no gradient.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .checks import chosen, flag, hint, instance, listed, short, whole
from .checks import seed as checked_seed
from .errors import GradeclipError, UnsupportedModel
from .explanation import Explanation, Interactions
from .files import version
from .images import ImageLike, View, check_pixels, model_view, native_view, prepared, read_image
from .methods import METHODS, Method
from .methods.grad_eclip import grad_eclip
from .methods.interactions import word_directions, word_masks
from .models import Clip
from .notices import is_drawn, warn, warn_of_empty_maps
from .prompts import Asked, Prompts, as_prompts, ask_embeddings, ask_strings, dense, matched, null_captions, token_ids
from .towers import Tower, Trace, open_feature_map, open_image_tower, open_text_tower
from .towers.base import eval_mode, is_small, isolated_torch_state, one_thread
from .towers.blocks import upcast
from .words import Split, Word, check_tokenizer, split_row

PROMPTS_AT_ONCE, IMAGES_AT_ONCE = 64, 16  # in one batch
_MOST_AT_ONCE = 100_000  # the highest batch size
_ONE_HEAD = "grad-eclip-single-head"
_GRAD_ECLIP = ("grad-eclip", _ONE_HEAD)  # the methods with a choice of attention heads, and with interactions
# embeddings of null captions for each model: captions -> the state of its weights, (K, E)
_NULLS: WeakKeyDictionary[torch.nn.Module, dict] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Read:
    """P prompts as the model read them."""

    names: tuple[str, ...]
    embedding: Tensor  # (P, E), unit length
    similarity: Tensor  # (P,), the model's own
    explained: Tensor  # (P,), the one whose words were scored: another number if the text encoder has a single head
    words: tuple[tuple[Word, ...], ...]


class Explainer:
    """Explains what a CLIP matched in an image and in a prompt, by Grad-ECLIP or by another method.

        explainer = Explainer(load_clip())
        explanation = explainer.explain("dog.png", ["a dog", "a red car"])
        explanation.similarity, explanation.image_maps.shape
        Explainer(load_clip(), method="maskclip").explain("dog.png", "a dog")

    Args:
        clip: a model with its preprocessing and tokenizer.
        method: a name in `methods.METHODS`, or a `methods.Method` of your own. Explanations by a method that is not
            defined for prompts have no words; by one that is not defined for images their maps are zero, and
            `provenance["image_layers"]` is None.
        seed: of the methods that draw random numbers (RISE, M2IB).
        progress: True shows a bar for the methods that take long, False none. By default a terminal shows one after
            five seconds, and a notebook none.
        attention: "model" explains the model's own similarity, through its own attention heads. "single-head" is the
            published variant: the explained encoder runs its explained layers with one head over the full width, the
            other encoder stays as it is. That explains another number; `provenance` reports it beside the model's own.
            It is the same as method="grad-eclip-single-head".
        image_layers: how many of the last image layers are explained and summed; by default as many as the method goes
            through, for Grad-ECLIP `clip.image_layers`, or one, as published.
        text_layers: the same for text; by default `clip.text_layers` for Grad-ECLIP, or two thirds (8 of 12).
        resolution: "model" shows the model what its own preprocessing makes of the image. "native" shows it the whole
            image in its own shape, sides rounded to the patch and position embeddings interpolated.
        null_captions: 10 to 10,000 captions, or their embeddings (K, E), with which `Explanation.percentile` compares;
            by default "a photo of a NOUN" for about 250 common nouns, those that the model knows. They are embedded
            once for a model.

    Attributes:
        clip, method, seed, progress, attention, resolution, null_captions: as given.
        image_tower: the image encoder, opened.
        text_tower: the text encoder, opened, or None if that is not possible; then `text_refusal` is the reason.

    Raises:
        UnsupportedModel: the image encoder cannot be opened. A text encoder that cannot be opened is refused when a
            prompt is a string: prompt embeddings can still be explained.
        GradeclipError: `clip` is a bare model, an argument is not one of the choices, or they do not go together.
    """

    def __init__(
        self, clip: Clip, *, method: str | Method = "grad-eclip", seed: int = 0, progress: bool | None = None,
        attention: str = "model", image_layers: int | None = None, text_layers: int | None = None,
        resolution: str = "model", null_captions: Prompts | None = None,
    ):  # fmt: skip
        if not isinstance(clip, Clip):
            raise GradeclipError(f"Explainer needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}")
        if isinstance(method, str) and method not in METHODS:
            raise GradeclipError(f"there is no method {short(method)}: {hint(method, METHODS)}")
        instance("method", method, (str, Method), "the name of a method, or a Method")
        chosen("attention", attention, ("model", "single-head"))
        method = METHODS[method] if isinstance(method, str) else method
        if attention == "single-head":
            if method.name not in _GRAD_ECLIP:
                msg = f"attention='single-head' is a variant of 'grad-eclip', got method={method.name!r}"
                raise GradeclipError(msg)
            method = METHODS[_ONE_HEAD]
        self.clip, self.method, self.seed = clip, method, checked_seed(seed)
        self.progress = progress if progress is None else flag("progress", progress)
        self.attention = "single-head" if method.name == _ONE_HEAD else "model"
        self.resolution = chosen("resolution", resolution, ("model", "native"))
        self.null_captions = null_captions if null_captions is None else as_prompts(null_captions)
        if self.null_captions is not None and not 10 <= len(self.null_captions) <= 10_000:
            raise GradeclipError(f"null_captions must be 10 to 10,000 captions, got {len(self.null_captions)}")
        if method.name == "grad-eclip":
            image_layers = clip.image_layers if image_layers is None else image_layers
            text_layers = clip.text_layers if text_layers is None else text_layers
        self.image_tower = _opened(clip.model, "image", image_layers, method)
        self.text_tower: Tower | None = None
        self.text_refusal: UnsupportedModel | None = None
        try:
            self.text_tower = _opened(clip.model, "text", text_layers, method)
        except UnsupportedModel as refusal:
            self.text_refusal = refusal
        own = ("transformers",) if type(clip.model).__module__.startswith(("transformers.", "peft.")) else ()
        self._versions = {name: version(name) for name in ("gradeclip", "torch", "open_clip_torch", *own)}
        self._hooked: list = []  # the model's hooks and replaced methods

    # ---------------------------------------------------------------------------------------------------- explanations

    def explain(self, image: ImageLike, texts: Prompts, against: Prompts | None = None) -> Explanation:
        """Explain one image and T prompts, which share one pass of the image encoder.

        With `against`, the target is the difference S(image, text) - S(image, against): maps are signed for it, and
        so are the scores of both prompts' words (a word of `against` that lowers the other similarity is positive).
        Raw attention and rollout know no target, and their maps stay the same. A prompt whose tokenizer does not say
        which tokens make up a word has maps, no words, and a warning.

        Args:
            image: a PIL image, a path, or a uint8 array (H, W, 3).
            texts: a prompt or several (a list, an array, a column of pandas; at most 10,000, of at most 5,000
                characters each), or prompt embeddings (T, E), which have no words. An embedding of another image
                compares two images: `explain(image, explainer.embed_images(other))`.
            against: one prompt (or embedding) for all, or one for each of `texts`.

        Returns:
            One explanation with T maps.

        Raises:
            GradeclipError: a prompt is empty or too long, embeddings do not fit, the model or the method gives NaN, the
                file is not an image, or the tokenizer drops tokens at random.
            UnsupportedModel: a prompt is a string and the text encoder cannot be opened.
        """
        return self._explain([self._read_image(image)], as_prompts(texts), against)[0]

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
            GradeclipError: there are not as many images as prompts; and the reasons of `explain`.
        """
        texts = as_prompts(texts)
        images = listed("images", images, (str, Path, Image.Image))
        if len(images) != len(texts):
            raise GradeclipError(f"pairs need as many images as prompts, got {len(images)} and {len(texts)}")
        against = None if against is None else matched(as_prompts(against), len(texts))
        explanations: list[Explanation] = []
        step = 1 if self._one_at_a_time else IMAGES_AT_ONCE
        for start in range(0, len(texts), step):
            some = slice(start, start + step)
            read = [self._read_image(image) for image in images[some]]
            explanations += self._explain(read, texts[some], None if against is None else against[some], start)
        return explanations

    def interactions(self, image: ImageLike, caption: str) -> Interactions:
        """Word x region: which part of the image does each word of the caption match? See `methods.interactions`.

        A word's score is its first-order score, the same as from `explain`. To tell several things of one caption
        apart, take away what their words share: `interactions(...).centred()`. With single-head attention both encoders
        run with one head, and `provenance` reports the similarity that they give: under "image" that of both, which the
        maps explain, under "text" that of the prompt's with the model's own image embedding, which the scores explain.

        Args:
            image: as for `explain`.
            caption: one prompt of W words.

        Returns:
            Signed maps (W, h, w), one a word.

        Raises:
            GradeclipError: the method is not Grad-ECLIP, the caption is no text, or the tokenizer does not say which
                tokens make up a word; and the reasons of `explain`.
        """
        if self.method.name not in _GRAD_ECLIP:
            msg = f"interactions are Grad-ECLIP's own, and this Explainer's method is {self.method.name!r}"
            raise GradeclipError(msg)
        read, caption = self._read_image(image), _caption(caption)
        with self._isolated():
            check_tokenizer(self.clip.tokenizer)
            asked, tower, view = self._ask([caption]), self._opened_text_tower(), self._view(read)
            image_trace, own = self._trace_images([view])
            text_trace, said = self._both(tower, tower.trace(asked.ids))
            directions = word_directions(tower, text_trace, word_masks(asked.splits[0], text_trace))  # (W, E)
            maps = _finite(grad_eclip(self.image_tower, image_trace, directions[None]), "maps", self.method)[0]
            warn_of_empty_maps(maps[None], image_trace.valid_mask, "word maps are")
            scores = (directions @ own[0]).tolist()  # (W,)
            explained = [(one * text_trace.embedding).sum(-1).tolist() for one in (image_trace.embedding, own)]
        spans = asked.splits[0].spans
        words = tuple(Word(caption[a:b], score, a, b) for (a, b), score in zip(spans, scores, strict=True))
        similarity, provenance = float((own * said).sum()), self._provenance(*explained)
        grid = _numpy(_on_grid(maps, image_trace))
        return Interactions(caption, words, grid, similarity, read, self._box(view, image_trace), provenance)

    def null_maps(self, image: ImageLike, prompt: str, count: int = 16) -> np.ndarray:
        """Maps of an image for prompts that are not about it: for `Explanation.prompt_dependence`.

            explainer.explain(image, prompt).prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            image: as for `explain`.
            prompt: the null prompts have its form, with other nouns (`language.with_other_nouns`, by this explainer's
                seed).
            count: how many, 2 to 10,000; the last one is the empty prompt.

        Returns:
            (count, h, w) signed maps, each as `explain` gives it for its prompt alone.

        Raises:
            GradeclipError: the method has no maps of images; and the reasons of `explain`.
        """
        from .language import with_other_nouns  # its taggers are slow to import

        self._need_maps()
        others = with_other_nouns(_caption(prompt), whole("count", count, 2, 10_000) - 1, known=self.clip.vocabulary,
                                  seed=self.seed)  # fmt: skip
        embeddings, view = self.embed_texts([*others, ""]), self._view(read_image(image))
        with self._isolated():
            trace, empty = self._trace_images([view])[0], self._empty_prompt()
            step = 1 if self.method.wants_empty else len(embeddings)  # such a method compares the prompts of a call
            maps = [self._token_maps(trace, some[None], empty)[0] for some in embeddings.split(step)]
            return _numpy(_on_grid(torch.cat(maps), trace))

    # ------------------------------------------------------------------------------- embeddings, maps and word scores

    def embed_images(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 32) -> Tensor:
        """Unit embeddings (N, E) of N images: `encode_image` of the unmodified model after its own preprocessing.

        Args:
            images: N images as for `explain`; a single one counts as a sequence of one. A generator is asked for one
                batch after the other, so that many images need not be in memory together.
            batch_size: how many images go through the model at once, at most 100,000.

        Returns:
            (N, E), of unit length (the logits of a classifier as they are), in float32 at least, on the model's device,
            without a graph. `embed_images(images) @ embed_texts(texts).T` holds the similarities that `explain` gives.

        Raises:
            GradeclipError: an image cannot be read, there is none, or the model holds NaN.
        """
        found = [trace.embedding for trace in self._image_traces(_as_images(images), batch_size)]
        with self._isolated():
            return torch.cat(found)

    def embed_texts(self, texts: str | Sequence[str], batch_size: int = PROMPTS_AT_ONCE) -> Tensor:
        """Unit embeddings (N, E) of N prompts: `encode_text` of the unmodified model.

        A text encoder that cannot be opened can still embed, and `explain` takes these embeddings in place of prompts.

        Args:
            texts: N prompts, at most 10 million; a single string counts as a sequence of one. Words beyond the model's
                context are cut off.
            batch_size: how many prompts go through the model at once, at most 100,000.

        Returns:
            (N, E), of unit length, in float32 at least, on the model's device, without a graph.

        Raises:
            UnsupportedModel: the model has no text encoder that open_clip knows.
            GradeclipError: a prompt is no string, or the tokenizer drops tokens at random.
        """
        prompts, tower = _strings(texts, most=10_000_000), self.text_tower
        whole("batch_size", batch_size, 1, _MOST_AT_ONCE)
        with self._isolated():
            if tower is None and not hasattr(self.clip.model, "encode_text"):
                self._opened_text_tower()
            if tower is None:
                check_tokenizer(self.clip.tokenizer, words=False)
                ids = self.clip.tokenizer(prompts).to(self.image_tower.device)
                with eval_mode(self.clip.model):
                    found = [self.clip.model.encode_text(part) for part in ids.split(batch_size)]
                return F.normalize(upcast(torch.cat(found)), dim=-1)
            ids = token_ids(self.clip.tokenizer, prompts, tower)
            order = tower.ends(ids).argsort()  # a batch costs as much as its longest prompt
            return torch.cat([tower.trace(ids[part]).embedding for part in order.split(batch_size)])[order.argsort()]

    def maps(
        self, images: ImageLike | Sequence[ImageLike], directions: Tensor | np.ndarray | Sequence[Tensor],
        batch_size: int = IMAGES_AT_ONCE,
    ) -> Tensor:  # fmt: skip
        """Signed maps (N, M, h, w) of N images for M directions of embedding space, by this explainer's method.

        The target of a direction d is `embed_images(image) . d`: with the embedding of a prompt its similarity, with
        the difference of two their contrast, with a row of `word_directions` a word's score. Directions keep their
        length, in which Grad-ECLIP is linear.

            explainer.maps(images, explainer.embed_texts(["a dog", "a cat"]))      # (N, 2, h, w)

        Args:
            images: N images as for `explain`; a single one counts as a sequence of one.
            directions: (M, E), the same for all images, or (N, M, E), each image's own.
            batch_size: how many images go through the model at once, at most 100,000.

        Returns:
            (N, M, h, w) on the token grid, in the precision of the embeddings, on the model's device, without a graph:
            the maps that `explain` shows for the same prompts.

        Raises:
            GradeclipError: the method has no maps of images; directions of another shape; images of several grids
                (`resolution="native"`) in one call; maps that are not finite.
        """
        self._need_maps()
        images, device = list(_as_images(images)), self.image_tower.device
        directions = self._directions(directions, "M", f"{len(images)}, M")
        if directions.ndim == 3 and len(directions) != len(images):
            raise GradeclipError(f"{len(images)} images need as many sets of directions, got {len(directions)}")
        with self._isolated():
            directions = directions.detach().to(device, copy=True).expand(len(images), -1, -1)
            empty = self._empty_prompt()
        found, start = [], 0
        for trace in self._image_traces(images, batch_size, self._wants_graph):
            with self._isolated():
                some = directions[start : start + len(trace.embedding)].to(trace.embedding)
                found.append(_on_grid(self._token_maps(trace, some, empty), trace))
            start += len(some)
        if len({part.shape[2:] for part in found}) > 1:
            msg = "images of several sizes have maps of several shapes: ask for them one at a time"
            raise GradeclipError(msg)
        with self._isolated():
            return torch.cat(found)

    def score_words(self, captions: Sequence[str], directions: Sequence[Tensor] | Tensor) -> list[tuple[Word, ...]]:
        """The words of P captions, with their scores for the targets embedding . direction: no image is needed.

            explainer.score_words(captions, explainer.embed_images(images))       # those of `explain_batch`

        Args:
            captions: P prompts.
            directions: (P, E), or P of (E,).

        Returns:
            P tuples of words; empty ones if the method is not defined for prompts.

        Raises:
            GradeclipError: there are not as many captions as directions, or the tokenizer does not say which tokens
                make up a word; and the reasons of `explain`.
        """
        prompts, targets = _strings(captions), self._directions(directions, "P")
        if len(prompts) != len(targets):
            raise GradeclipError(f"each caption needs its direction, got {len(prompts)} and {len(targets)}")
        with self._isolated():
            check_tokenizer(self.clip.tokenizer)
            asked, tower = self._ask(prompts), self._opened_text_tower()
            precision = upcast(next(tower.part.parameters())[:0])  # and device
            return list(self._read(asked, targets.detach().to(precision)).words)

    def word_directions(self, caption: str) -> tuple[Split, Tensor]:
        """The words of a caption, and the direction (W, E) in which each of its W words pushes the embedding.

        A word's direction times an image's embedding is the word's score, and `maps(image, directions)` are the
        regions that each word matches, as `interactions` shows them. See `methods.interactions.word_directions`.

        Args:
            caption: one prompt. Words beyond the context length are in `Split.unread` and have no direction.

        Returns:
            The words as they stand in the caption (`Split.spans`), and (W, E) on the model's device, without a graph.

        Raises:
            UnsupportedModel: the text encoder cannot be opened.
            GradeclipError: the tokenizer does not say which tokens make up a word.
        """
        return self.directions_of_words([_caption(caption)])[0]

    def directions_of_words(self, captions: Sequence[str]) -> list[tuple[Split, Tensor]]:
        """`word_directions` of each caption, in one batch.

        Args:
            captions: one or more, as many as the memory takes at once, each as for `word_directions`.

        Raises:
            UnsupportedModel, GradeclipError: as `word_directions`.
        """
        prompts, tower = _strings(captions), self._opened_text_tower()
        check_tokenizer(self.clip.tokenizer)
        with self._isolated():
            ids = token_ids(self.clip.tokenizer, prompts, tower)
            ends = tower.ends(ids).tolist()
            splits = [
                split_row(prompt, self.clip.tokenizer, row, end)
                for prompt, row, end in zip(prompts, ids.tolist(), ends, strict=True)
            ]
            trace, _ = self._both(tower, tower.trace(ids))
            masks = pad_sequence([word_masks(split, trace) for split in splits])  # (W, B, N)
            found = word_directions(tower, trace, masks)
            return [(split, found[: len(split.spans), i]) for i, split in enumerate(splits)]

    # -------------------------------------------------------------------------------------------------------- privates

    def _explain(self, images: list[Image.Image], texts, against: Prompts | None, first: int = 0) -> list[Explanation]:
        """Explain B images of one size and P = B * T prompts, image by image."""
        with self._isolated():
            asked = self._ask(texts, first)  # a wrong prompt is refused before anything is computed
            others = None if against is None else self._ask(matched(as_prompts(against), len(texts)), first)
            views = [self._view(image) for image in images]
            trace, embedding = self._trace_images(views)
            each = len(texts) // len(views)
            own, explained = (part.repeat_interleave(each, dim=0) for part in (embedding, trace.embedding))  # (P, E)
            read = self._read(asked, own)
            other = (
                None if others is None else self._read(others, own, sign=-1)
            )  # the target falls as their similarity rises
            directions = read.embedding if other is None else read.embedding - other.embedding
            empty = self._empty_prompt() if others is None else None
            maps = self._token_maps(trace, directions.unflatten(0, (len(views), each)), empty)  # (B, T, N)
            if self.method.image is not None:
                warn_of_empty_maps(maps, trace.valid_mask, "image maps are")
            maps, image_explained = _on_grid(maps, trace), (explained * read.embedding).sum(-1).tolist()
            nulls = self._null_similarities(embedding)
        found = []
        for i, (image, view) in enumerate(zip(images, views, strict=True)):
            mine = slice(i * each, (i + 1) * each)
            text_explained = read.explained[mine].tolist() if any(read.words) else None
            places = {} if nulls is None else _places(_numpy(read.similarity[mine]), _numpy(nulls[i]))
            found.append(
                Explanation(
                    prompts=read.names[mine],
                    similarity=_numpy(read.similarity[mine]),
                    image_maps=_numpy(maps[i]),
                    words=read.words[mine],
                    image=image,
                    box=self._box(view, trace),
                    provenance=self._provenance(image_explained[mine], text_explained),
                    against=None if other is None else other.names[mine],
                    against_similarity=None if other is None else _numpy(other.similarity[mine]),
                    against_words=None if other is None else other.words[mine],
                    **places,
                )
            )
        return found

    def _read_image(self, image: ImageLike) -> Image.Image:
        read = read_image(image)
        if self.clip.vocabulary is not None and not is_drawn(read):  # a model of few words was trained on drawn scenes
            about = "and this image is not marked as one: at a photograph it can only guess"
            warn(f"the model {self.clip.name!r} was trained on drawn scenes alone, {about}")
        return read

    def _ask(self, prompts: list[str] | Tensor, first: int = 0) -> Asked:
        """P prompts, checked; `first` is the number of the first embedding."""
        if isinstance(prompts, Tensor):
            return ask_embeddings(prompts, self.image_tower.width, first)
        return ask_strings(prompts, self.clip, self._opened_text_tower())

    def _read(self, asked: Asked, image: Tensor, sign: int = 1) -> _Read:
        """Embed P prompts, each for its image embedding (P, E), and score their words for `sign` * similarity."""
        if asked.embedding is not None:
            embedding = F.normalize(asked.embedding.to(image), dim=-1)
            similarity = (image * embedding).sum(-1)
            return _Read(asked.names, embedding, similarity, similarity, ((),) * len(embedding))
        assert asked.ids is not None
        tower, tokens = self._opened_text_tower(), [len(split.word_ids) for split in asked.splits]
        tokens = tokens or [0] * len(asked.names)
        order = sorted(range(len(tokens)), key=tokens.__getitem__)  # a batch costs as much as its longest prompt
        embedding, explained = torch.empty_like(image), torch.empty_like(image[:, 0])
        words: list[tuple[Word, ...]] = [()] * len(tokens)
        for start in range(0, len(order), PROMPTS_AT_ONCE):
            some = order[start : start + PROMPTS_AT_ONCE]
            traced = tower.trace(asked.ids[some], self._wants_graph and bool(asked.splits))
            trace, embedding[some] = self._both(tower, traced)
            explained[some] = (trace.embedding * image[some]).sum(-1)
            if self.method.text is None or not asked.splits:
                continue
            word_ids = asked.word_ids(some, trace.valid_mask)
            options = {"seed": self.seed, "progress": self.progress, "words": word_ids}
            scores = self.method.text(tower, trace, sign * image[some, None], **options)
            scores = _finite(scores, "scores", self.method, (len(some), 1, trace.valid_mask.shape[1]))[:, 0]  # (P, N)
            for i, row in zip(some, scores.tolist(), strict=True):
                words[i] = asked.splits[i].words(row[asked.splits[i].first :][: tokens[i]])
        return _Read(asked.names, embedding, (image * embedding).sum(-1), explained, tuple(words))

    def _null_similarities(self, embedding: Tensor) -> Tensor | None:
        """Similarities (B, K) of images with the null captions, or None if the model cannot embed any."""
        captions, model = self.null_captions, self.clip.model
        if not self.image_tower.unit:
            return None
        if isinstance(captions, Tensor):
            own = F.normalize(upcast(ask_embeddings(captions, self.image_tower.width).embedding), dim=-1)
            return embedding @ own.to(embedding).T
        if not callable(self.clip.tokenizer) or (self.text_tower is None and not hasattr(model, "encode_text")):
            return None
        weights = [(one.data_ptr(), one._version) for one in model.parameters()]  # those in training change
        key, known = None if captions is None else tuple(captions), _NULLS.setdefault(model, {})
        if key not in known or known[key][0] != weights:
            known[key] = (
                weights,
                self.embed_texts(null_captions(self.clip.vocabulary) if captions is None else captions),
            )
        return embedding @ known[key][1].to(embedding).T

    def _need_maps(self) -> None:
        if self.method.image is None:
            raise GradeclipError(f"{self.method.title} explains prompts only: it has no maps of images")

    def _directions(self, directions: Tensor | np.ndarray | Sequence[Tensor], *axes: str) -> Tensor:
        """Directions of embedding space as one finite tensor; `axes` are those that may stand before E, such as "M"."""
        try:
            if not isinstance(directions, (Tensor, np.ndarray)):
                directions = torch.stack([dense("each direction", one) for one in directions])
        except (TypeError, ValueError, RuntimeError):  # texts, nothing, several lengths
            msg = f"directions must be floats of one length, as embed_texts gives them, got {short(directions)}"
            raise GradeclipError(msg) from None
        found, width = dense("directions", directions), self.image_tower.width
        fits = found.ndim in [one.count(",") + 2 for one in axes] and found.shape[-1] == width and found.numel()
        if not fits or not torch.isfinite(found).all():
            shape = " or ".join(f"({one}, {width})" for one in axes)
            raise GradeclipError(f"directions must be {shape}, and finite, got {tuple(found.shape)}")
        return found

    def _token_maps(self, trace: Trace, directions: Tensor, empty: Tensor | None) -> Tensor:
        """Maps (B, T, N) by the method; zero if it has none for images."""
        shape = *directions.shape[:2], trace.valid_mask.shape[1]
        if self.method.image is None:
            return torch.zeros(shape)
        options = {"seed": self.seed, "progress": self.progress, "empty": empty}
        return _finite(self.method.image(self.image_tower, trace, directions, **options), "maps", self.method, shape)

    def _empty_prompt(self) -> Tensor | None:
        """The embedding (E,) of a prompt without words, for the method that subtracts it."""
        if not self.method.wants_empty or self.text_tower is None:
            return None
        return self.text_tower.forward(self.clip.tokenizer([""]).to(self.text_tower.device))[0]

    def _opened_text_tower(self) -> Tower:
        if self.text_tower is None:
            assert self.text_refusal is not None
            raise self.text_refusal
        return self.text_tower

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        """Compute without the caller's torch modes, and in one thread if the model is small.

        A hook that was added or removed since the last call lets the towers compare themselves with the model again.
        """
        hooked: list = []
        for module in self.image_tower.model.modules():
            hooked += [*module._forward_hooks, *module._forward_pre_hooks, *(["forward"] * ("forward" in vars(module)))]
        if hooked != self._hooked:
            self._hooked = hooked
            for tower in filter(None, (self.image_tower, self.text_tower)):
                tower.verified = False
        with isolated_torch_state(self.image_tower.device), one_thread(is_small(self.image_tower)):
            yield

    def _image_traces(self, images: Iterable[ImageLike], batch_size: int, graph: bool = False) -> Iterator[Trace]:
        """Trace images as the model sees them, a batch at a time."""
        whole("batch_size", batch_size, 1, _MOST_AT_ONCE)
        step, waiting = 1 if self._one_at_a_time else batch_size, iter(images)
        while read := [read_image(image) for image in islice(waiting, step)]:
            with self._isolated():
                if self.resolution == "native":
                    pixels = [self._view(image).pixels for image in read]
                else:
                    pixels = [prepared(self.clip.preprocess, image, self._size()) for image in read]
                trace = self.image_tower.trace(torch.stack(pixels).to(self.image_tower.device), graph)
            yield trace

    def _trace_images(self, views: list[View]) -> tuple[Trace, Tensor]:
        pixels = torch.stack([view.pixels for view in views]).to(self.image_tower.device)
        return self._both(self.image_tower, self.image_tower.trace(pixels, self._wants_graph))

    def _both(self, tower: Tower, trace: Trace) -> tuple[Trace, Tensor]:
        """The trace to explain, and the model's own embedding (B, E)."""
        return (tower.with_one_head(trace) if self.attention == "single-head" else trace), trace.embedding

    @property
    def _wants_graph(self) -> bool:
        """Whether the method takes channel weights of the trace itself; with one head it takes those of another."""
        return self.method.name.startswith("grad-eclip") and self.attention == "model"

    @property
    def _one_at_a_time(self) -> bool:
        """Whether images differ in size, so that no two make a batch: native ones, and all of NaFlex."""
        return self.resolution == "native" or self.image_tower.own_grid

    def _view(self, image: Image.Image) -> View:
        if self.resolution == "native":
            view = native_view(self.clip.preprocess, image, self.image_tower.patch_size)
        else:
            view = model_view(self.clip.preprocess, image)
        check_pixels(view.pixels, self._size())
        return view

    def _box(self, view: View, trace: Trace) -> tuple[float, float, float, float]:
        """The place of a trace's patches in the image: no model reads beyond its last whole patch."""
        assert trace.grid is not None
        left, top, right, bottom = view.box
        sides = zip(trace.grid, self.image_tower.patch_size, view.pixels.shape[1:], strict=True)
        down, across = (rows * pixels / side for rows, pixels, side in sides)
        return left, top, left + across * (right - left), top + down * (bottom - top)

    def _size(self) -> tuple[int, int] | None:
        """The one size (H, W) of pixels that the model takes, or None if it takes others too."""
        tower = self.image_tower
        free = self.resolution == "native" or tower.any_size or tower.own_grid
        return None if free else tower.image_size

    def _provenance(self, image_explained: list[float], text_explained: list[float] | None) -> dict:
        """The origin of an explanation; with single-head attention also the similarities that it explains."""
        words = self.text_tower is not None and self.method.text is not None
        provenance: dict = {
            "model": self.clip.name,
            "pretrained": self.clip.pretrained,
            "method": self.method.title,
            "explains": self.method.explains,
            "attention": self.attention if self.method.name in _GRAD_ECLIP else None,
            "image_layers": None if self.method.image is None else self.image_tower.layers,
            "text_layers": self.text_tower.layers if words and self.text_tower else None,
            "resolution": self.resolution,
            "versions": self._versions,
        }
        if self.attention == "single-head":
            provenance["single_head_similarity"] = {"image": image_explained, "text": text_explained}
        return provenance

    def __reduce__(self):
        method = self.method.name if METHODS.get(self.method.name) is self.method else self.method
        layers = {"image_layers": self.image_tower.layers or None}
        layers |= {} if self.text_tower is None else {"text_layers": self.text_tower.layers}
        names = ("seed", "progress", "attention", "resolution", "null_captions")
        options = {name: getattr(self, name) for name in names}
        return partial(Explainer, self.clip, method=method, **layers, **options), ()


def _opened(model: torch.nn.Module, side: str, layers: int | None, method: Method) -> Tower:
    """The tower, with as many explained layers as the user or else the method asks for."""
    opened = open_image_tower if side == "image" else open_text_tower
    try:
        tower = opened(model) if layers is None else opened(model, layers)
    except UnsupportedModel:
        if side == "text" or method.wants_attention:
            raise
        return open_feature_map(model)
    asked = None if layers is not None else method.explained(tower.depth, side)
    try:
        return tower if asked is None else opened(model, asked)
    except UnsupportedModel as refusal:
        raise UnsupportedModel(f"{method.title} goes through {asked} layers, and {refusal}") from refusal


def _as_images(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """One image or more; a single one, which would be taken for its own rows or letters, as a sequence of one."""
    if isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    if isinstance(images, Iterator) and (first := list(islice(images, 1))):
        return chain(first, images)
    images = listed("images", images)
    if len(images) == 0:
        raise GradeclipError("there are no images: give at least one")
    return images


def _strings(texts: str | Sequence[str], most: int = 10_000) -> list[str]:
    """Prompts that are no embeddings, as a list."""
    prompts = as_prompts(texts, most)
    if isinstance(prompts, Tensor):
        raise GradeclipError(f"prompts must be strings here, got embeddings {tuple(prompts.shape)}")
    return prompts


def _caption(caption: str) -> str:
    """One prompt, checked."""
    return as_prompts(instance("caption", caption, str, "a text"))[0]


def _finite(found: object, what: str, method: Method, shape: tuple[int, ...] | None = None) -> Tensor:
    """The result of a method, refused if it is no finite tensor of the shape."""
    if not isinstance(found, Tensor) or (shape is not None and tuple(found.shape) != tuple(shape)):
        got = tuple(found.shape) if isinstance(found, Tensor) else short(found)
        raise GradeclipError(f"the method {method.name!r} must give {what} as a tensor {tuple(shape or ())}, got {got}")
    if not torch.isfinite(found).all():
        raise GradeclipError(f"the method {method.name!r} gives {what} that are NaN or infinite for this target")
    return found


def _on_grid(maps: Tensor, trace: Trace) -> Tensor:
    """Maps over tokens as maps (..., h, w) over patches."""
    assert trace.grid is not None
    height, width = trace.grid
    return maps[..., -height * width :].unflatten(-1, trace.grid)  # (..., N) -> (..., h, w)


def _places(similarity: np.ndarray, nulls: np.ndarray) -> dict:
    """The places (T,) of similarities among those of null captions, in percent; equal ones count half."""
    apart = similarity[:, None] - nulls
    below, equal = (apart > 1e-6).mean(1), (np.abs(apart) <= 1e-6).mean(1)
    percentile = 100 * (below + equal / 2)
    return {"percentile": percentile, "null_median": float(np.median(nulls)), "null_count": len(nulls)}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
