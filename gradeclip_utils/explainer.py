"""Explain: images and prompts in, an `Explanation` out.

    image, prompt -> tower -> trace -> method -> map -> Explanation -> figure

`Explainer` opens both encoders of a model once and explains as many images and prompts as you like.
It leaves nothing behind on the model: no hook, no mode, no gradient.

Shapes: B images, T prompts of one image, P = B * T prompts, K null captions, N tokens, W words, E
the width of the embedding.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self, TypeAlias, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .errors import GradeclipError, UnsupportedModel, short, warn
from .explanation import Explanation, Interactions, Provenance
from .files import version
from .images import DRAWN, Box, ImageLike, View, model_view, native_view, read_image
from .language import with_other_nouns
from .methods import METHODS, Method, Options, layers_to_explain
from .methods.common import word_ids_of
from .methods.interactions import word_directions, word_masks
from .methods.registry import Side, find_method
from .models import Clip
from .prompts import (
    Prompts,
    TokenizedPrompts,
    as_prompts,
    as_strings,
    embeddings_as_prompts,
    one_string,
    token_ids,
    tokenize,
)
from .prompts import null_captions as default_null_captions
from .runtime import TraceMemory, isolated_torch_state, one_thread, usable_device
from .towers import Tower, Trace, open_image_tower, open_text_tower
from .towers.blocks import eval_mode, upcast
from .words import Split, Word, check_tokenizer

PROMPT_BATCH = 64  # prompts in one forward pass
SAME = "same"  # words of a call: by the explainer's own method
ALL = slice(0, None)  # of the prompts
OTHERS = "others"  # the other side of a contrast: all null captions
_NULLS_AT_ONCE = 32  # null captions in one forward pass, so that a bar can show their number
_LIBRARIES = ("gradeclip", "torch", "open_clip_torch", "transformers")
_VERSIONS = {library: version(library) for library in _LIBRARIES}


@dataclass(frozen=True)
class EncodedPrompts:
    """P prompts as the model read them, each for its image."""

    names: tuple[str, ...]
    embedding: Tensor  # (P, E), unit length
    similarity: Tensor  # (P,), the model's own
    words: tuple[tuple[Word, ...], ...]
    explained_similarity: Tensor | None = None  # (P,), of another network that the method explains


# prompts, and the other prompts of a contrast
Sides: TypeAlias = tuple[EncodedPrompts, EncodedPrompts | None]


class Explainer:
    """Explains what a CLIP matched in an image and in a prompt, by Grad-ECLIP or by another method.

        explainer = Explainer(load_clip())
        explanation = explainer.explain("dog.png", ["a dog", "a red car"])
        explanation.similarity, explanation.image_maps.shape
        Explainer(load_clip(), method="maskclip").explain("dog.png", "a dog")
        Explainer(load_clip(), words="grad-eclip").explain("dog.png", "a dog")  # as published

    Threads and pickling are the caller's: an opened model belongs to one thread, and another
    process makes an explainer of its own.

    Args:
        clip: a model with its preprocessing and tokenizer.
        method: of the maps: a name in `methods.METHODS`, or a `methods.Method` of your own. One
            that is not defined for images scores the words in place of `words`, and there are no
            maps.
        words: the method of the word scores. By default a word's score is what the similarity loses
            when the word is left out, so each word of each prompt is one more short text to read:
            about a tenth more time for one prompt, and half a plain forward pass for a hundred.
            "grad-eclip" gives the scores of the paper, "replace" puts other words in a word's
            place, None gives no scores.
        seed: for the methods that draw random numbers (RISE, M2IB).
        image_layers: how many of the last image layers are explained and summed; by default as many
            as the method explains, for Grad-ECLIP `clip.image_layers`, or one, as published.
        text_layers: the same for text; by default `clip.text_layers` for Grad-ECLIP, or two thirds
            (8 of 12).
        resolution: "model" uses the model's own preprocessing. "native" shows the model the whole
            image in its own shape, with sides rounded to whole patches and interpolated position
            embeddings.
        null_captions: two or more captions that `Explanation.percentile` compares a similarity
            with; by default "a photo of a dog", "a photo of a bridge" and so on, by nouns that the
            model knows. They are embedded once, and again after a change of the model's weights.
        device: where the model is moved to, as by `to`; by default it stays where it is.
        batch_size: how many images make one forward pass.
        keep_trace: keep the last trace of each encoder, so that the same image with another prompt
            is traced once. For a model whose weights do not change meanwhile.

    Attributes:
        clip, seed, resolution, null_captions, batch_size: as given, or the default.
        method, words: the methods of maps and of word scores; `words` may be None.
        image_tower: the image encoder, opened.
        text_tower: the text encoder, opened, or None if that is not possible; then `text_refusal`
            is the reason.

    Raises:
        UnsupportedModel: the image encoder cannot be opened. A text encoder that cannot be opened
            is refused when a prompt is a string: prompt embeddings can still be explained.
        GradeclipError: `clip` is a bare model, an argument is not one of the choices, or torch
            cannot compute on `device` here.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        method: str | Method = "grad-eclip",
        words: str | Method | None = "leave-one-out",
        seed: int = 0,
        image_layers: int | None = None,
        text_layers: int | None = None,
        resolution: str = "model",
        null_captions: Sequence[str] | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 16,
        keep_trace: bool = False,
    ):
        if not isinstance(clip, Clip):
            raise GradeclipError(
                f"Explainer needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}"
            )
        if resolution not in ("model", "native"):
            raise GradeclipError(f"resolution must be 'model' or 'native', got {short(resolution)}")
        if null_captions is None:
            null_captions = default_null_captions(clip.vocabulary)
        elif isinstance(null_captions, str) or len(null_captions) < 2:
            raise GradeclipError(
                f"null_captions must be two captions or more, got {short(null_captions)}"
            )

        if batch_size < 1:
            raise GradeclipError(f"batch_size must be 1 or more, got {batch_size}")

        self.clip = clip
        self.method = find_method(method)
        self.words = _words_method(self.method, words)
        self.seed = seed
        self.resolution = resolution
        self.null_captions = as_strings(null_captions)
        self.batch_size = batch_size
        self._layers = {"image": image_layers, "text": text_layers}
        self._towers: dict[tuple[Side, int], Tower] = {}  # by side and number of explained layers
        self._memory = TraceMemory(keep_trace)
        self._nulls: dict[int, Tensor] = {}  # version of the weights -> embeddings (K, E)
        if device is not None:
            clip.model.to(usable_device(device))
        self._open_towers()

    def __repr__(self) -> str:
        parts = []
        if self.method.image is not None:
            parts.append(f"maps by {_with_layers(self.method, self.image_tower)}")
        if self.words is not None and self.text_tower is not None:
            parts.append(f"words by {_with_layers(self.words, self.text_tower)}")
        return f"Explainer of {self.clip.name}: {', '.join(parts)}"

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.image_tower.device

    def to(self, device: str | torch.device) -> Self:
        """Move the model to another device, as torch does, and return the explainer.

            explainer.to("cuda").device

        Raises:
            GradeclipError: torch has no such device here.
        """
        self.clip.model.to(usable_device(device))
        self._towers.clear()
        self._open_towers()
        return self

    def with_method(
        self,
        method: str | Method | None = None,
        *,
        words: str | Method | None = SAME,
    ) -> Self:
        """An explainer by another method, with the same model, opened once.

            explainer.with_method("maskclip"), explainer.with_method(words="grad-eclip")

        Args:
            method: of the maps; by default that of this explainer.
            words: of the word scores; by default that of this explainer.
        """
        explainer = copy.copy(self)
        explainer.method = find_method(method or self.method)
        explainer.words = _words_method(explainer.method, self.words if words == SAME else words)
        explainer._open_towers()
        return explainer

    def _open_towers(self) -> None:
        """Open both encoders; a text encoder that cannot be opened is refused when it is needed."""
        self.image_tower = self._open("image", self.method)
        self.text_tower: Tower | None = None
        self.text_refusal: UnsupportedModel | None = None
        try:
            self.text_tower = self._open("text", self.words or METHODS["leave-one-out"])
        except UnsupportedModel as refusal:
            self.text_refusal = refusal

    def _open(self, side: Side, method: Method) -> Tower:
        """An encoder with the explained layers that the user, a method or the model asks for."""
        if side == "image":
            open_tower = open_image_tower
            model_default = self.clip.image_layers
        else:
            open_tower = open_text_tower
            model_default = self.clip.text_layers

        opened = [tower for (other, _), tower in self._towers.items() if other == side]
        tower = opened[0] if opened else open_tower(self.clip.model)
        layers = layers_to_explain(self._layers[side], model_default, method, tower.depth, side)
        if layers != tower.layers and (side, layers) not in self._towers:
            try:
                tower = open_tower(self.clip.model, layers)
            except UnsupportedModel as refusal:
                raise UnsupportedModel(
                    f"{method.title} explains {layers} layers, and {refusal}"
                ) from refusal
        return self._towers.setdefault((side, layers), tower)

    # --------------------------------------------------------------------------------- explanations

    @overload
    def explain(
        self,
        image: ImageLike,
        prompts: Prompts,
        *,
        against: Prompts | None = None,
        method: str | Method | None = None,
        methods: None = None,
        words: str | Method | None = SAME,
        heads: str = "joint",
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        image: ImageLike,
        prompts: Prompts,
        *,
        against: Prompts | None = None,
        method: None = None,
        methods: Sequence[str | Method],
        words: str | Method | None = SAME,
        heads: str = "joint",
    ) -> dict[str, Explanation]: ...

    def explain(
        self,
        image: ImageLike,
        prompts: Prompts,
        *,
        against: Prompts | None = None,
        method: str | Method | None = None,
        methods: Sequence[str | Method] | None = None,
        words: str | Method | None = SAME,
        heads: str = "joint",
    ) -> Explanation | dict[str, Explanation]:
        """Explain one image and T prompts: one explanation with T maps, from one pass of the image.

        With `against`, the target is the difference S(image, prompt) - S(image, against): maps are
        signed for it, and so are the scores of both prompts' words (a word of `against` that lowers
        the other similarity is positive). With `against="others"` it is the lead over the mean
        similarity of all null captions: what any caption shares is taken away. It costs no pass.
        Raw attention and rollout do not depend on the target. If the tokenizer does not say which
        tokens make up a word, the prompt has maps but no words, and a warning says so.

            explainer.explain("dog.png", "a dog", methods=["grad-eclip", "maskclip"])
            explainer.explain("dog.png", "a dog", heads="separate").head_maps

        Args:
            image: a PIL image, a path, a uint8 array (H, W, 3), or a float tensor (3, H, W) in 0
                to 1.
            prompts: a prompt or several (a list, an array, a column of pandas), or prompt
                embeddings (T, E), which have no words. An embedding of another image compares two
                images: `explain(image, explainer.embed_images(other))`.
            against: one prompt (or embedding) for all, or one for each of `prompts`; or "others",
                the null captions (a list `["others"]` is the prompt of this word).
            method: another method of the maps than this explainer's.
            methods: several, which share the words, and one trace if they explain the same layers;
                then a dict of explanations by their names.
            words: another method of the word scores than this explainer's, or None for no scores.
            heads: "separate" also gives `head_maps`, the part of each attention head in each map.

        Raises:
            GradeclipError: a prompt is empty, embeddings do not fit, the model or the method gives
                NaN, the file is not an image, the tokenizer drops tokens at random, heads are to be
                separate in a method whose maps are no sum over heads, or there is both `method` and
                `methods`.
            UnsupportedModel: a prompt is a string and the text encoder cannot be opened.
        """
        if heads not in ("joint", "separate"):
            raise GradeclipError(f"heads must be 'joint' or 'separate', got {short(heads)}")
        if method is not None and methods is not None:
            raise GradeclipError("give method= for one explanation, or methods= for several")
        if isinstance(methods, str):
            raise GradeclipError(f"methods must be a list of names, got {methods!r}")

        prompts = as_prompts(prompts)
        against = _matched(against, len(prompts))
        images = [self._read_image(image)]
        tokens = self._tokenize(prompts)
        contrast_tokens = self._tokenize_contrast(against)
        if methods is None:
            explainer = self.with_method(method, words=words)
            return explainer._explain(images, tokens, contrast_tokens, {}, heads)[0]

        explainers = [self.with_method(method, words=words) for method in methods]
        names = [explainer.method.name for explainer in explainers]
        # first those whose trace also serves the others
        graphs = ["query_graph", "layer_graph", "pixel_graph", None]
        explainers.sort(key=lambda explainer: graphs.index(explainer.method.graph))

        explanations: dict[str, Explanation] = {}
        encoded: dict[str, Sides] = {}
        with self._memory.switched_on():
            for explainer in explainers:
                (explanation,) = explainer._explain(images, tokens, contrast_tokens, encoded, heads)
                explanations[explainer.method.name] = explanation
        return {name: explanations[name] for name in names}

    def explain_batch(
        self,
        images: Sequence[ImageLike],
        prompts: Prompts,
        *,
        against: Prompts | None = None,
    ) -> list[Explanation]:
        """Explain pairs, `images[i]` with `prompts[i]`, in batches: P explanations of one map each.

        Args:
            images: P images, each as for `explain`, or a tensor (P, 3, H, W).
            prompts: P prompts, or embeddings (P, E).
            against: one prompt for all, or one for each.

        Raises:
            GradeclipError: there are not as many images as prompts; and the reasons of `explain`.
        """
        prompts = as_prompts(prompts)
        images = list(_as_images(images))
        if len(images) != len(prompts):
            raise GradeclipError(
                f"pairs need as many images as prompts, got {len(images)} and {len(prompts)}"
            )
        against = _matched(against, len(prompts))

        explanations: list[Explanation] = []
        for rows in self._batches(len(images)):
            explanations += self._explain(
                [self._read_image(image) for image in images[rows]],
                self._tokenize(prompts, rows),
                self._tokenize_contrast(against, rows),
                {},
            )
        return explanations

    def interactions(self, image: ImageLike, prompt: str) -> Interactions:
        """Word x region: signed maps (W, h, w) of the part of the image that each word matches.

        See `methods.interactions`. A word's score is the one that `words="grad-eclip"` gives. To
        tell several things of one prompt apart, subtract what their words share:
        `interactions(...).centred()`.

        Args:
            image: as for `explain`.
            prompt: one prompt of W words.

        Raises:
            GradeclipError: the method is not Grad-ECLIP, the prompt is not a text, or the tokenizer
                does not say which tokens make up a word; and the reasons of `explain`.
        """
        if self.method.name != "grad-eclip":
            raise GradeclipError(
                f"interactions are Grad-ECLIP's own, and this method is {self.method.name!r}"
            )
        prompt = one_string(prompt)
        image = self._read_image(image)
        with self._isolated():
            tower, tokens, text_embedding, directions = self._encode_words([prompt])
            directions = directions[:, 0]  # (W, E)
            (view,), trace = self._trace([image])
            maps = self._token_maps(trace, directions[None])  # (1, W, N)

            similarity = (trace.embedding * text_embedding).sum(-1)
            scores = directions @ trace.embedding[0]
        return Interactions(
            prompts=(prompt,),
            similarity=_as_numpy(similarity),
            image_maps=_as_numpy(_on_grid(maps[0], trace)),
            words=(tokens.splits[0].words(scores.tolist()),),
            image=image,
            box=self._box(view, trace),
            provenance=self._provenance(
                self.method,
                tower,
                unknown_words=tuple(dict.fromkeys(chain(*tokens.unknown))),
                is_guess=self._guesses(image),
            ),
        )

    def null_maps(
        self,
        image: ImageLike,
        prompt: str,
        count: int = 16,
        *,
        against: str | None = None,
    ) -> np.ndarray:
        """Signed maps (count, h, w) of an image for prompts that are not about it.

            explainer.explain(image, prompt).prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            image: as for `explain`.
            prompt: the null prompts have its form, with other nouns (`language.with_other_nouns`,
                by this explainer's seed).
            count: how many, two or more; the last one is the empty prompt.
            against: of the targets, as for `explain`, one prompt or "others".

        Raises:
            GradeclipError: the method has no maps of images, the prompt is not a text, or `count`
                is below 2; and the reasons of `explain`.
        """
        prompt = one_string(prompt)
        if count < 2:
            raise GradeclipError(f"count must be 2 or more, got {count}")
        null_prompts = with_other_nouns(
            prompt, count - 1, known=self.clip.vocabulary, seed=self.seed
        )
        embeddings = self.embed_texts([*null_prompts, ""])
        if against == OTHERS:
            embeddings = embeddings - self._null_embeddings().mean(0)
        elif against is not None:
            embeddings = embeddings - self.embed_texts(against)
        prompts_per_call = 1 if self.method.compares_targets else count
        maps = [self.maps(image, part)[0] for part in embeddings.split(prompts_per_call)]
        return _as_numpy(torch.cat(maps))

    # ------------------------------------------------------------- embeddings, maps and word scores

    def embed_images(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        """Unit embeddings (N, E) of N images: `encode_image` of the unmodified model.

        Args:
            images: N images as for `explain`, or a tensor (N, 3, H, W); a single one counts as a
                sequence of one. A generator is read batch by batch, so many images need not be in
                memory together.

        Returns:
            (N, E), of unit length (the logits of a classifier as they are), in float32 at least, on
            the model's device, without a graph. `embed_images(images) @ embed_texts(prompts).T`
            holds the similarities that `explain` gives.

        Raises:
            GradeclipError: an image cannot be read, there is none, or the model holds NaN.
        """
        embeddings: list[Tensor] = []
        for batch in _in_batches(_as_images(images), self._images_per_pass):
            pictures = [read_image(image) for image in batch]
            with self._isolated():
                embeddings.append(self._trace(pictures, with_graph=False)[1].embedding)
        if not embeddings:
            raise GradeclipError("there are no images: give at least one")
        with self._isolated():
            return torch.cat(embeddings)

    def embed_texts(self, prompts: str | Sequence[str]) -> Tensor:
        """Unit embeddings (N, E) of N prompts: `encode_text` of the unmodified model.

        A text encoder that cannot be opened can still embed, and `explain` takes these embeddings
        in place of prompts.

        Args:
            prompts: N prompts; a single string counts as a sequence of one. Words beyond the
                model's context are cut off.

        Raises:
            UnsupportedModel: the model has no text encoder that open_clip knows.
            GradeclipError: a prompt is not a string, or the tokenizer drops tokens at random.
        """
        prompts = as_strings(prompts)
        with self._isolated():
            if self.text_tower is None and hasattr(self.clip.model, "encode_text"):
                return self._embed_by_model(prompts)

            tower = self._opened_text_tower()
            ids = token_ids(self.clip.tokenizer, prompts, tower)
            order = tower.ends(ids).argsort()  # a batch costs as much as its longest prompt
            embeddings = [tower.trace(ids[batch]).embedding for batch in order.split(PROMPT_BATCH)]
            return torch.cat(embeddings)[order.argsort()]

    def maps(
        self,
        images: ImageLike | Sequence[ImageLike],
        directions: Tensor | np.ndarray | Sequence[Tensor],
    ) -> Tensor:
        """Signed maps (N, M, h, w) of N images for M directions of embedding space.

        The target of a direction d is `embed_images(image) . d`: a similarity if d is the embedding
        of a prompt, a contrast if it is the difference of two, a word's score if it is a row of
        `word_directions`. Directions are not normalised; Grad-ECLIP is linear in them.

            explainer.maps(images, explainer.embed_texts(["a dog", "a cat"]))      # (N, 2, h, w)

        Args:
            images: N images as for `explain`; a single one counts as a sequence of one.
            directions: (M, E), the same for all images, or (N, M, E), each image's own.

        Returns:
            (N, M, h, w) on the token grid, in the precision of the embeddings, on the model's
            device, without a graph: the maps that `explain` shows for the same prompts.

        Raises:
            GradeclipError: the method has no maps of images; directions of a wrong shape; images of
                several grids (`resolution="native"`) in one call; maps that are not finite.
        """
        if self.method.image is None:
            raise GradeclipError(
                f"{self.method.title} explains prompts only: it has no maps of images"
            )
        images = list(_as_images(images))
        with self._isolated():
            targets = self._as_tensor(directions)
            count = len(images)
            width = self.image_tower.width
            of_each_image = targets.ndim == 3 and len(targets) == count
            if targets.shape[-1] != width or not (targets.ndim == 2 or of_each_image):
                raise GradeclipError(
                    f"directions must be (M, {width}) or ({count}, M, {width}), "
                    f"got {tuple(targets.shape)}"
                )
            targets = targets.expand(count, -1, -1)  # (N, M, E)

            maps: list[Tensor] = []
            for rows in self._batches(count):
                _, trace = self._trace([read_image(image) for image in images[rows]])
                batch_targets = targets[rows].to(trace.embedding)
                token_maps = self._token_maps(trace, batch_targets, self._empty_prompt())
                maps.append(_on_grid(token_maps, trace))  # (B, M, h, w)

            if len({part.shape[2:] for part in maps}) > 1:
                raise GradeclipError(
                    "images of several sizes have maps of several shapes: ask for one at a time"
                )
            return torch.cat(maps)

    def score_words(
        self,
        prompts: Sequence[str],
        directions: Sequence[Tensor] | Tensor,
    ) -> list[tuple[Word, ...]]:
        """The words of P prompts, with their scores for targets embedding . direction.

        Scores are by the method `words`; without one, prompts have no words. No image is needed.

            explainer.score_words(prompts, explainer.embed_images(images))   # as in explain_batch

        Args:
            prompts: P prompts.
            directions: (P, E), or P of (E,).

        Raises:
            GradeclipError: there are not as many prompts as directions, or the tokenizer does not
                say which tokens make up a word; and the reasons of `explain`.
        """
        prompts = as_strings(prompts)
        with self._isolated():
            check_tokenizer(self.clip.tokenizer)
            directions = self._as_tensor(directions)
            shape = (len(prompts), self.image_tower.width)
            if directions.shape != shape:
                raise GradeclipError(f"directions must be {shape}, got {tuple(directions.shape)}")
            tower = self._opened_text_tower()
            weight = next(tower.part.parameters())
            directions = directions.to(weight.device, upcast(weight[:0]).dtype)
            return list(self._encode(self._tokenize(prompts), directions).words)

    def word_directions(self, prompts: str | Sequence[str]) -> list[tuple[Split, Tensor]]:
        """The words of each prompt, and the directions (W, E) in which they push its embedding.

        A word's direction times an image's embedding is the word's score, and `maps(image,
        directions)` are the regions that each word matches, as `interactions` shows them. They are
        Grad-ECLIP's, whatever this explainer's methods are, on the model's device, without a graph.
        See `methods.interactions.word_directions`.

            ((split, directions),) = explainer.word_directions("a dog and an umbrella")

        Args:
            prompts: a single string counts as a sequence of one. Words beyond the context length
                are in `Split.unread` and have no direction; the others are `Split.spans`.

        Raises:
            UnsupportedModel: the text encoder cannot be opened.
            GradeclipError: the tokenizer does not say which tokens make up a word.
        """
        pairs: list[tuple[Split, Tensor]] = []
        with self._isolated():
            for batch in _in_batches(as_strings(prompts), PROMPT_BATCH):
                _, tokens, _, directions = self._encode_words(batch)  # (W, B, E)
                for i, split in enumerate(tokens.splits):
                    pairs.append((split, directions[: len(split.spans), i]))
        return pairs

    # ------------------------------------------------------------------------------------- the flow

    def _explain(
        self,
        images: list[Image.Image],
        tokens: TokenizedPrompts,
        contrast_tokens: TokenizedPrompts | str | None,
        encoded_by_words: dict[str, Sides],
        heads: str = "joint",
    ) -> list[Explanation]:
        """Explain B images of one size; their P = B * T prompts stand in the images' order.

        `encoded_by_words` keeps the prompts, with words scored by a method of this name, for other
        methods of the same images.
        """
        prompts_per_image = len(tokens.names) // len(images)
        over_others = isinstance(contrast_tokens, str)
        with self._isolated():
            views, trace = self._trace(images)
            image_embedding = trace.embedding.repeat_interleave(prompts_per_image, dim=0)  # (P, E)

            words = "" if self.words is None else self.words.name
            if words not in encoded_by_words:
                encoded_by_words[words] = self._encode_sides(
                    tokens, contrast_tokens, image_embedding
                )
            encoded, contrast = encoded_by_words[words]

            targets = encoded.embedding  # (P, E)
            if contrast is not None:  # the target falls as the other similarity rises
                targets = targets - contrast.embedding
            elif over_others:
                targets = targets - self._null_embeddings().mean(0).to(targets)
            targets = targets.unflatten(0, (-1, prompts_per_image))  # (B, T, E)

            empty = self._empty_prompt() if contrast_tokens is None else None
            maps = self._image_maps(trace, targets, empty, encoded.names)  # (B, T, h, w)
            head_maps = self._head_maps(trace, targets) if heads == "separate" else None
            explained_similarity = self._explained_similarity(trace, encoded)  # (P,)
            null_similarity = self._null_similarity(trace.embedding)  # (B, K)

        explanations: list[Explanation] = []
        for i, image in enumerate(images):
            rows = slice(i * prompts_per_image, (i + 1) * prompts_per_image)
            similarity = _as_numpy(encoded.similarity[rows])
            explanations.append(
                Explanation(
                    prompts=encoded.names[rows],
                    similarity=similarity,
                    image_maps=None if maps is None else maps[i],
                    words=encoded.words[rows],
                    image=image,
                    box=self._box(views[i], trace),
                    provenance=self._provenance(
                        self.words if any(encoded.words[rows]) else None,
                        self.text_tower,
                        unknown_words=_unknown_words([tokens, contrast_tokens], rows),
                        is_guess=self._guesses(image),
                        explained_similarity=_as_floats(explained_similarity, rows),
                        explained_word_similarity=_as_floats(encoded.explained_similarity, rows),
                    ),
                    head_maps=None if head_maps is None else head_maps[i],
                    probability=self._probability(similarity),
                    **_contrast_fields(contrast, rows),
                    **_places(similarity, null_similarity, i),
                    against_others=over_others,
                )
            )
        return explanations

    def _image_maps(
        self,
        trace: Trace,
        targets: Tensor,
        empty: Tensor | None,
        names: Sequence[str],
    ) -> np.ndarray | None:
        """Maps (B, T, h, w) of images, if the method has any; those of zeros are said."""
        if self.method.image is None:
            return None
        maps = self._token_maps(trace, targets, empty)  # (B, T, N)
        self._warn_of_empty_maps(maps, targets, names)
        return _as_numpy(_on_grid(maps, trace))

    def _head_maps(self, trace: Trace, targets: Tensor) -> np.ndarray:
        """The part of each layer and head in the maps, (B, T, L, H, h, w)."""
        if self.method.heads is None:
            able = ", ".join(name for name, method in METHODS.items() if method.heads is not None)
            raise GradeclipError(
                f"maps of {self.method.title} are no sum over heads: ask for one of {able}"
            )
        maps = self.method.heads(self.image_tower, trace, targets, Options(self.seed))
        return _as_numpy(_on_grid(maps, trace))

    def _explained_similarity(self, trace: Trace, encoded: EncodedPrompts) -> Tensor | None:
        """Similarities (P,) by another network's image embedding, if the method explains one."""
        if self.method.explained_embedding is None:
            return None
        explained = self.method.explained_embedding(self.image_tower, trace)  # (B, E)
        text_embedding = encoded.embedding.unflatten(0, (len(explained), -1))  # (B, T, E)
        return (explained[:, None] * text_embedding).sum(-1).flatten()

    def _read_image(self, image: ImageLike) -> Image.Image:
        """An image to explain, with a warning if the model has seen nothing like it."""
        picture = read_image(image)
        if self._guesses(picture):
            about = "and this image is not marked as one: on a photograph it can only guess"
            warn(f"the model {self.clip.name!r} was trained on drawn scenes alone, {about}")
        return picture

    def _guesses(self, image: Image.Image) -> bool:
        """Whether the model was trained on drawn scenes alone, and an image is no such scene."""
        return self.clip.trained_on_drawn_scenes and DRAWN not in image.info

    def _tokenize(self, prompts: list[str] | Tensor, rows: slice = ALL) -> TokenizedPrompts:
        """Some of the prompts with their token ids and words, or embeddings."""
        with self._isolated():
            if isinstance(prompts, Tensor):
                width = self.image_tower.width
                return embeddings_as_prompts(prompts[rows], width, first_index=rows.start)
            return tokenize(prompts[rows], self.clip, self._opened_text_tower())

    def _tokenize_contrast(
        self,
        against: list[str] | Tensor | str | None,
        rows: slice = ALL,
    ) -> TokenizedPrompts | str | None:
        """The same of the other prompts of a contrast; `OTHERS` and None as they are."""
        if against is None or isinstance(against, str):
            return against
        return self._tokenize(against, rows)

    def _trace(
        self, images: list[Image.Image], *, with_graph: bool = True
    ) -> tuple[list[View], Trace]:
        """What the model sees of B images, and their trace, with the method's graph."""
        views = [self._view(image) for image in images]
        pixels = torch.stack([view.pixels for view in views]).to(self.image_tower.device)
        trace = self._memory.trace(
            self.image_tower,
            pixels,
            graph=self.method.graph if with_graph else None,
        )
        return views, trace

    def _encode_sides(
        self,
        tokens: TokenizedPrompts,
        contrast_tokens: TokenizedPrompts | str | None,
        image_embedding: Tensor,
    ) -> Sides:
        """The prompts, and the other prompts of a contrast if there is one."""
        encoded = self._encode(tokens, image_embedding)
        if isinstance(contrast_tokens, TokenizedPrompts):
            return encoded, self._encode(contrast_tokens, image_embedding, sign=-1)
        return encoded, None

    def _encode(
        self,
        tokens: TokenizedPrompts,
        image_embedding: Tensor,
        sign: int = 1,
    ) -> EncodedPrompts:
        """Embed P prompts, each for its image embedding (P, E), and score their words.

        The target of the scores is `sign` * similarity.
        """
        if tokens.embedding is not None:
            embedding = F.normalize(tokens.embedding.to(image_embedding), dim=-1)
            similarity = (image_embedding * embedding).sum(-1)
            return EncodedPrompts(tokens.names, embedding, similarity, ((),) * len(tokens.names))

        assert tokens.ids is not None
        tower = self._opened_text_tower()
        scorer = self.words if tokens.splits else None
        graph = None if scorer is None else scorer.graph
        embed_explained = None if scorer is None else scorer.explained_embedding
        words: list[tuple[Word, ...]] = [()] * len(tokens.names)
        embedding = torch.empty_like(image_embedding)  # (P, E)
        explained = torch.empty_like(image_embedding)  # by the network that the scorer explains

        order = tower.ends(tokens.ids).argsort()  # a batch costs as much as its longest prompt
        for batch in order.split(PROMPT_BATCH):
            trace = self._memory.trace(tower, tokens.ids[batch], graph)
            embedding[batch] = trace.embedding
            if embed_explained is not None:
                explained[batch] = embed_explained(tower, trace)
            if scorer is not None:
                splits = [tokens.splits[i] for i in batch]
                targets = sign * image_embedding[batch]
                scored = self._score_splits(scorer, trace, splits, targets)
                for i, scored_words in zip(batch, scored, strict=True):
                    words[i] = scored_words

        explained_similarity = None
        if embed_explained is not None:
            explained_similarity = (image_embedding * explained).sum(-1)
        return EncodedPrompts(
            names=tokens.names,
            embedding=embedding,
            similarity=(image_embedding * embedding).sum(-1),
            words=tuple(words),
            explained_similarity=explained_similarity,
        )

    def _score_splits(
        self,
        scorer: Method,
        trace: Trace,
        splits: list[Split],
        directions: Tensor,
    ) -> list[tuple[Word, ...]]:
        """The words of B prompts in a trace, scored for their directions (B, E)."""
        tower = self._opened_text_tower()
        word_ids = word_ids_of(splits, trace.valid_mask)  # (B, N)
        options = Options(
            seed=self.seed,
            word_ids=word_ids,
            splits=splits,
            # padding, which a prompt of full length does not hold
            fill=int(self.clip.tokenizer([""])[0, -1]),
            tokenize=lambda prompts: token_ids(self.clip.tokenizer, prompts, tower),
            vocabulary=self.clip.vocabulary,
        )
        scores = self._run(scorer, tower, trace, directions[:, None], options)[:, 0]  # (B, N)

        words: list[tuple[Word, ...]] = []
        for split, row, ids in zip(splits, scores.cpu(), word_ids.cpu(), strict=True):
            inside = ids >= 0
            sums = ids[inside].bincount(row[inside], minlength=len(split.spans))
            words.append(split.words(sums.tolist()))
        return words

    def _encode_words(
        self, prompts: Sequence[str]
    ) -> tuple[Tower, TokenizedPrompts, Tensor, Tensor]:
        """Tower, prompts, embeddings (B, E) and directions (W, B, E) of words, by Grad-ECLIP."""
        check_tokenizer(self.clip.tokenizer)
        tower = self._open("text", METHODS["grad-eclip"])
        tokens = self._tokenize(list(prompts))
        assert tokens.ids is not None
        trace = tower.trace(tokens.ids)
        masks = word_masks(tokens.splits, trace)  # (W, B, N)
        return tower, tokens, trace.embedding, word_directions(tower, trace, masks)

    def _token_maps(
        self,
        trace: Trace,
        directions: Tensor,
        empty: Tensor | None = None,
    ) -> Tensor:
        """Maps (B, T, N) of images by the method."""
        options = Options(self.seed, empty)
        return self._run(self.method, self.image_tower, trace, directions, options)

    def _run(
        self,
        method: Method,
        tower: Tower,
        trace: Trace,
        directions: Tensor,
        options: Options,
    ) -> Tensor:
        """A method's maps (B, T, N) of images or prompts, with shape and values checked."""
        function = method.text if trace.grid is None else method.image
        assert function is not None
        maps = function(tower, trace, directions, options)

        shape = (*directions.shape[:2], trace.valid_mask.shape[1])
        if not isinstance(maps, Tensor) or maps.shape != shape:
            got = tuple(maps.shape) if isinstance(maps, Tensor) else short(maps)
            raise GradeclipError(
                f"the method {method.name!r} must give a tensor {shape}, got {got}"
            )
        if not torch.isfinite(maps).all():
            raise GradeclipError(
                f"the method {method.name!r} gives NaN or infinity for this target"
            )
        return maps

    def _warn_of_empty_maps(self, maps: Tensor, targets: Tensor, names: Sequence[str]) -> None:
        """Warn if a map (B, T, N) is zero everywhere."""
        zero = (maps == 0).all(dim=-1).flatten()
        same = (targets == 0).all(dim=-1).flatten()  # both prompts of a contrast
        for name, is_zero, is_same in zip(names, zero.tolist(), same.tolist(), strict=True):
            if is_zero:
                reason = f"{self.method.title} tells no patch from another"
                if is_same:
                    reason = "the two prompts are the same to the model"
                elif self.method.name == "grad-eclip":
                    reason = "the keys of all patches fit the query alike, so lambda is 0"
                warn(f"the map of {short(name, 40)} is zero everywhere: {reason}")

    def _null_similarity(self, image_embedding: Tensor) -> Tensor | None:
        """Similarities (B, K) of images with the null captions; None if none can be embedded."""
        if not self._embeds_nulls:
            return None
        return image_embedding @ self._null_embeddings().to(image_embedding).T

    @property
    def _embeds_nulls(self) -> bool:
        """Whether the model embeds the null captions."""
        embeds_text = self.text_tower is not None or hasattr(self.clip.model, "encode_text")
        return embeds_text and self.image_tower.unit and callable(self.clip.tokenizer)

    def _null_embeddings(self) -> Tensor:
        """The embeddings (K, E) of the null captions, computed once for the model's weights."""
        if not self._embeds_nulls:
            raise GradeclipError(
                f"{self.clip.name!r} embeds no captions, so there are no others to compare with: "
                "against must be a prompt embedding"
            )
        weights = sum(parameter._version for parameter in self.clip.model.parameters())
        if weights not in self._nulls:
            self._nulls.clear()
            starts = range(0, len(self.null_captions), _NULLS_AT_ONCE)
            title = f"embedding {len(self.null_captions)} other captions"
            small = self.image_tower.small  # which takes less than a second
            parts = [
                self.embed_texts(self.null_captions[start : start + _NULLS_AT_ONCE])
                for start in tqdm(starts, desc=title, delay=2, leave=False, disable=small)
            ]
            self._nulls[weights] = torch.cat(parts)
        return self._nulls[weights]

    def _probability(self, similarity: np.ndarray) -> np.ndarray | None:
        """The probability (T,) of each prompt, as the model was trained to give it."""
        model = self.image_tower.model
        if getattr(model, "logit_scale", None) is None:
            return None
        scale = model.logit_scale.detach().float().exp().cpu()
        logits = torch.from_numpy(similarity) * scale
        bias = getattr(model, "logit_bias", None)
        if bias is not None:  # SigLIP's, each pair by itself
            return (logits + bias.detach().float().cpu()).sigmoid().numpy()
        if len(similarity) == 1:
            return None
        return logits.softmax(0).numpy()

    def _embed_by_model(self, prompts: list[str]) -> Tensor:
        """Unit embeddings by a text encoder that cannot be opened."""
        check_tokenizer(self.clip.tokenizer, words=False)
        ids = self.clip.tokenizer(prompts).to(self.image_tower.device)
        with eval_mode(self.clip.model):
            parts = [self.clip.model.encode_text(batch) for batch in ids.split(PROMPT_BATCH)]
        return F.normalize(upcast(torch.cat(parts)), dim=-1)

    def _empty_prompt(self) -> Tensor | None:
        """The embedding (E,) of a prompt without words, for a method that compares targets."""
        if not self.method.compares_targets or self.text_tower is None:
            return None
        return self.text_tower.forward(self.clip.tokenizer([""]).to(self.text_tower.device))[0]

    def _as_tensor(self, directions: Tensor | np.ndarray | Sequence[Tensor]) -> Tensor:
        """Directions of embedding space as a tensor without a graph on the model's device."""
        if not isinstance(directions, (Tensor, np.ndarray)):
            directions = torch.stack([torch.as_tensor(row) for row in directions])
        # a copy, because tensors of the caller's inference mode have no gradients
        return torch.as_tensor(directions).detach().to(self.image_tower.device, copy=True)

    def _opened_text_tower(self) -> Tower:
        """The text encoder, or the refusal that says why it cannot be opened."""
        if self.text_tower is None:
            assert self.text_refusal is not None
            raise self.text_refusal
        return self.text_tower

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        """Compute without the caller's torch modes, and in one thread if the model is small."""
        with isolated_torch_state(self.image_tower.device), one_thread(self.image_tower.small):
            yield

    @property
    def _images_per_pass(self) -> int:
        """How many images make a batch: one if they differ in size."""
        return 1 if self.resolution == "native" else self.batch_size

    def _batches(self, count: int) -> Iterator[slice]:
        """Slices of `count` images."""
        for start in range(0, count, self._images_per_pass):
            yield slice(start, start + self._images_per_pass)

    def _view(self, image: Image.Image) -> View:
        """What the model sees of an image."""
        tower = self.image_tower
        if self.resolution == "native":
            return native_view(self.clip.preprocess, image, tower.patch_size)
        view = model_view(self.clip.preprocess, image)
        height, width = view.pixels.shape[1:]
        if not tower.any_size and (height, width) != tuple(tower.image_size):
            raise GradeclipError(
                f"the preprocessing gives {height} x {width} pixels, and the model takes "
                f"{tower.image_size[0]} x {tower.image_size[1]}"
            )
        return view

    def _box(self, view: View, trace: Trace) -> Box:
        """The place of the patches in the image: no model reads beyond its last whole patch."""
        assert trace.grid is not None
        left, top, right, bottom = view.box
        rows, columns = trace.grid
        patch_height, patch_width = self.image_tower.patch_size
        height, width = view.pixels.shape[1:]
        across = columns * patch_width / width
        down = rows * patch_height / height
        return left, top, left + across * (right - left), top + down * (bottom - top)

    def _provenance(
        self,
        words: Method | None,
        text_tower: Tower | None,
        *,
        unknown_words: tuple[str, ...] = (),
        is_guess: bool = False,
        explained_similarity: tuple[float, ...] | None = None,
        explained_word_similarity: tuple[float, ...] | None = None,
    ) -> Provenance:
        """Where an explanation comes from, with words scored by a method, if there are any."""
        image_layers = text_layers = None
        if self.method.image is not None and self.method.goes_through("image"):
            image_layers = self.image_tower.layers
        if words is not None and text_tower is not None and words.goes_through("text"):
            text_layers = text_tower.layers
        return Provenance(
            model=self.clip.name,
            pretrained=self.clip.pretrained,
            method=self.method.name,
            title=self.method.title,
            explains=self.method.explains,
            image_layers=image_layers,
            text_layers=text_layers,
            resolution=self.resolution,
            versions=dict(_VERSIONS),
            words=None if words is None else words.name,
            words_title="" if words is None else words.title,
            word_change="" if words is None else words.word_change,
            unknown_words=unknown_words,
            is_guess=is_guess,
            explained_similarity=explained_similarity,
            explained_word_similarity=explained_word_similarity,
        )


def _words_method(method: Method, words: str | Method | None) -> Method | None:
    """The method of word scores: `method` itself, if it is defined for prompts alone."""
    if method.image is None:
        return method
    if words is None:
        return None
    words_method = find_method(words)
    if words_method.text is None:
        names = [name for name, known in METHODS.items() if known.text is not None]
        raise GradeclipError(
            f"{words_method.title} explains images only: words must be None or one of "
            f"{', '.join(names)}"
        )
    return words_method


def _with_layers(method: Method, tower: Tower) -> str:
    """A method's title, with the layers that it explains if it looks into any."""
    if not method.goes_through(tower.name):
        return method.title
    return f"{method.title} of the last {tower.layers} of {tower.depth} {tower.name} layers"


def _as_images(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Images, of which a single one is a sequence of one."""
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 3:
        return [images]
    return images


def _in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _matched(against: Prompts | None, count: int) -> list[str] | Tensor | str | None:
    """One prompt for each of `count` others, from one for all or one for each; or `OTHERS`."""
    if against is None:
        return None
    if isinstance(against, str) and against == OTHERS:
        return OTHERS
    prompts = as_prompts(against)
    if len(prompts) not in (1, count):
        raise GradeclipError(
            f"against must be one prompt, or one for each of {count}, got {len(prompts)}"
        )
    if isinstance(prompts, Tensor):
        return prompts.expand(count, -1)
    return prompts * (count // len(prompts))


def _on_grid(maps: Tensor, trace: Trace) -> Tensor:
    """Maps over patches (..., h, w) from maps over tokens (..., N)."""
    assert trace.grid is not None
    height, width = trace.grid
    return maps[..., -height * width :].unflatten(-1, trace.grid)


def _unknown_words(sides: Sequence[TokenizedPrompts | str | None], rows: slice) -> tuple[str, ...]:
    """The words of some prompts, on both sides of a contrast, that the model does not know."""
    unknown: list[str] = []
    for tokens in sides:
        if isinstance(tokens, TokenizedPrompts):
            unknown += chain(*tokens.unknown[rows])
    return tuple(dict.fromkeys(unknown))


def _contrast_fields(contrast: EncodedPrompts | None, rows: slice) -> dict[str, Any]:
    """The fields of an explanation about its other prompts."""
    if contrast is None:
        return {}
    return {
        "against": contrast.names[rows],
        "against_similarity": _as_numpy(contrast.similarity[rows]),
        "against_words": contrast.words[rows],
    }


def _places(
    similarity: np.ndarray,
    null_similarity: Tensor | None,
    image_index: int,
) -> dict[str, Any]:
    """The fields about the places (T,) of similarities among those of null captions (B, K).

    Places are in percent; equal similarities count half.
    """
    if null_similarity is None:
        return {}
    nulls = _as_numpy(null_similarity[image_index])
    difference = similarity[:, None] - nulls  # (T, K)
    below = (difference > 1e-6).mean(axis=1)
    equal = (np.abs(difference) <= 1e-6).mean(axis=1)
    return {
        "percentile": 100 * (below + equal / 2),
        "null_mean": float(nulls.mean()),
        "null_median": float(np.median(nulls)),
        "null_max": float(nulls.max()),
        "null_count": len(nulls),
    }


def _as_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def _as_floats(values: Tensor | None, rows: slice) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[rows].tolist())
