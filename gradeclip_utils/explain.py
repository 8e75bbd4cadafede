"""Explain: pictures and prompts in, an ``Explanation`` out. The end of the line, and the door where input is checked.

    picture, prompt -> architecture -> trace -> method -> map -> Explanation -> picture

``Explainer`` opens both towers of a model once and explains as many pictures and prompts as you like. Nothing about
the model differs afterwards, whatever happens: no hook, no mode, no gradient.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .explanation import Explanation, Interactions
from .images import View, read_image, view_of
from .methods import METHODS, Method
from .methods.interactions import interactions, word_directions, word_masks
from .models import Clip
from .notices import warn, warn_of_empty_maps
from .towers import Tower, Trace, UnsupportedModel, open_feature_map, open_image_tower, open_text_tower
from .towers.base import eval_mode
from .words import Split, Word, check_tokenizer, split_prompt, unknown_words, why_no_words

Picture = Image.Image | str | Path | np.ndarray
Prompts = str | Sequence[str] | Tensor | np.ndarray

_AT_ONCE = 64  # prompts in one batch
_PAIRS_AT_ONCE = 16  # pictures in one batch
_ONE_HEAD = "grad-eclip-single-head"
_GRAD_ECLIP = ("grad-eclip", _ONE_HEAD)  # what has attention heads to choose, and interactions


@dataclass(frozen=True)
class _Asked:
    """P prompts, checked: token ids, split into words where the tokenizer tells, or embeddings, which have neither."""

    names: tuple[str, ...]
    splits: tuple[Split, ...] = ()
    ids: Tensor | None = None  # (P, context_length)
    embedding: Tensor | None = None  # (P, E)


@dataclass(frozen=True)
class _Read:
    """P prompts as the model read them."""

    names: tuple[str, ...]
    embedding: Tensor  # (P, E), unit length
    similarity: Tensor  # (P,), the model's own
    explained: Tensor  # (P,), the one whose words were scored: another number where the text tower has a single head
    words: tuple[tuple[Word, ...], ...]


class Explainer:
    """Explains what a CLIP matched in a picture and in a prompt, by Grad-ECLIP or by any of its rivals.

    >>> explainer = Explainer(load_clip())                                          # doctest: +SKIP
    >>> explanation = explainer.explain("dog.png", ["a dog", "a red car"])          # doctest: +SKIP
    >>> explanation.similarity, explanation.image_maps.shape                        # doctest: +SKIP
    >>> Explainer(load_clip(), method="maskclip").explain("dog.png", "a dog")       # doctest: +SKIP

    Args:
        clip: a model with its preprocessing and tokenizer.
        method: a name in `methods.METHODS`, which says for each what it explains, its paper and its cost, or a
            `methods.Method` of your own. Where it is not defined for prompts, explanations have no words; where it is
            not defined for images, maps are zero.
        seed: of the methods that draw random numbers (RISE, M2IB).
        progress: show a bar for the methods that take long.
        attention: "model" explains the model's own similarity, through its own attention heads. "single-head" is the
            published variant: the explained tower runs its explained layers with one head over the full width, the
            other tower stays as it is. That explains another number; ``provenance`` reports it beside the model's own.
            It is the same as method="grad-eclip-single-head"; the rivals keep the model's own heads.
        image_layers: how many of the last image layers are explained; by default as many as the method goes through,
            for Grad-ECLIP one. It sums over them.
        text_layers: the same for text; by default two thirds (8 of 12) for Grad-ECLIP.
        resolution: "model" shows the model what its own preprocessing makes of the picture. "native" shows it the whole
            picture in its own shape, sides rounded to the patch and position embeddings interpolated.

    Raises:
        UnsupportedModel: the image tower cannot be opened. A text tower that cannot be opened is refused when a prompt
            is a string: prompt embeddings can still be explained.
        ValueError: an argument is not one of the choices, or they do not go together.
        TypeError: ``clip`` is a bare model.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        method: str | Method = "grad-eclip",
        seed: int = 0,
        progress: bool = False,
        attention: str = "model",
        image_layers: int | None = None,
        text_layers: int | None = None,
        resolution: str = "model",
    ):
        if not isinstance(clip, Clip):
            raise TypeError(f"Explainer needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}")
        if not isinstance(method, Method) and method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, or a Method, got {method!r}")
        if attention not in ("model", "single-head"):
            raise ValueError(f"attention must be 'model' or 'single-head', got {attention!r}")
        if resolution not in ("model", "native"):
            raise ValueError(f"resolution must be 'model' or 'native', got {resolution!r}")
        method = method if isinstance(method, Method) else METHODS[method]
        if attention == "single-head":
            if method.name not in _GRAD_ECLIP:
                raise ValueError(f"attention='single-head' is a variant of 'grad-eclip', got method={method.name!r}")
            method = METHODS[_ONE_HEAD]
        self.clip, self.method, self.seed, self.progress = clip, method, seed, progress
        self.attention = "single-head" if method.name == _ONE_HEAD else "model"
        self.resolution = resolution
        self.image_tower = _opened(clip.model, "image", image_layers, self.method)
        try:
            self.text_tower, self.text_refusal = _opened(clip.model, "text", text_layers, self.method), None
        except UnsupportedModel as refusal:
            self.text_tower, self.text_refusal = None, refusal

    def explain(self, image: Picture, texts: Prompts, against: Prompts | None = None) -> Explanation:
        """Explain one picture and T prompts, which share one pass of the image tower.

        With ``against``, the target is the difference S(image, text) - S(image, against): maps are signed for it, and
        so are the scores of both prompts' words (a word of ``against`` that pulls the other way is positive). Every
        method is given this difference as the direction of its target; raw attention and rollout know no target, and
        their maps stay the same.

        Args:
            image: a PIL image, a path, or a uint8 array (H, W, 3).
            texts: a prompt or several, or prompt embeddings (T, E), which have no words.
            against: one prompt (or embedding) for all, or one for each of ``texts``.

        Raises:
            ValueError: a prompt is empty, embeddings do not fit, the model holds NaN, the file is not a picture.
            UnsupportedModel: a prompt is a string and the text tower cannot be opened.
            TypeError: the tokenizer drops tokens at random.

        A prompt whose tokenizer is not CLIP's own (SigLIP's, say) has maps, no words, and a warning that says so.
        """
        return self._explain([read_image(image)], _as_prompts(texts), against)[0]

    def explain_batch(
        self, images: Sequence[Picture], texts: Prompts, against: Prompts | None = None
    ) -> list[Explanation]:
        """Explain pairs, ``images[i]`` with ``texts[i]``, in batches. One explanation a pair."""
        texts = _as_prompts(texts)
        if len(images) != len(texts):
            raise ValueError(f"pairs need as many pictures as prompts, got {len(images)} and {len(texts)}")
        against = None if against is None else _match(_as_prompts(against), len(texts))
        explanations: list[Explanation] = []
        step = 1 if self.resolution == "native" else _PAIRS_AT_ONCE  # native pictures differ in size
        for start in range(0, len(texts), step):
            some = slice(start, start + step)
            pictures = [read_image(image) for image in images[some]]
            explanations += self._explain(pictures, texts[some], None if against is None else against[some])
        return explanations

    def interactions(self, image: Picture, caption: str) -> Interactions:
        """Which region does each word of the caption match? Signed maps (W, h, w), see ``methods.interactions``.

        A word's score is its first-order score, the same as from ``explain``. Only Grad-ECLIP has interactions. To tell
        several things of one caption apart, take away what their words share: ``interactions(...).centred()``.
        """
        if self.method.name not in _GRAD_ECLIP:
            raise ValueError(f"interactions are Grad-ECLIP's own, and this Explainer's method is {self.method.name!r}")
        if not isinstance(caption, str):
            raise TypeError(f"interactions need one caption, a string, got {type(caption).__name__}")
        picture = read_image(image)
        with isolated_torch_state(self.image_tower.device):
            check_tokenizer(self.clip.tokenizer)
            asked = self._ask([caption])
            view = self._view(picture)
            image_trace, image_embedding = self._trace_images([view])
            text_trace, text_embedding = self._both(self.text_tower, self.text_tower.trace(asked.ids))
            word_mask = word_masks(asked.splits[0].word_ids, text_trace)  # (W, N)
            maps, directions = interactions(self.image_tower, image_trace, self.text_tower, text_trace, word_mask)
            warn_of_empty_maps(maps[None], image_trace.valid_mask, "word maps are")
            scores = (directions @ image_embedding[0]).tolist()  # (W,)
            similarity = float(image_embedding[0] @ text_embedding[0])
        spans = asked.splits[0].spans
        words = tuple(Word(caption[a:b], score, a, b) for (a, b), score in zip(spans, scores, strict=True))
        maps = _numpy(_on_grid(maps, image_trace))
        return Interactions(caption, words, maps, similarity, picture, view.box, self._provenance())

    def embed_images(self, images: Sequence[Image.Image | str | Path | np.ndarray], batch_size: int = 32) -> Tensor:
        """Unit embeddings (N, E) of N images: `encode_image` of the unmodified model after its own preprocessing.

        Args:
            images: N images as for `explain`; a single one counts as a sequence of one.
            batch_size: how many images go through the model at once.

        Returns:
            (N, E), of unit length (the logits of a classifier as they are), in float32 at least, on the model's device,
            without a graph. `embed_images(images) @ embed_texts(texts).T` holds the similarities that `explain` gives.

        Raises:
            ValueError: an image cannot be read, there is none, or the model holds NaN.
        """
        found = [trace.embedding for trace in self._image_traces(images, batch_size)]
        with isolated_torch_state(self.image_tower.device):
            return torch.cat(found)

    def embed_texts(self, texts: str | Sequence[str], batch_size: int = 64) -> Tensor:
        """Unit embeddings (N, E) of N prompts: `encode_text` of the unmodified model.

        A text encoder that cannot be opened can still embed, and `explain` takes what it gave in place of prompts.

        Args:
            texts: N prompts; a single string counts as a sequence of one. What is longer than the context is cut off.
            batch_size: how many prompts go through the model at once.

        Returns:
            (N, E), of unit length, in float32 at least, on the model's device, without a graph.

        Raises:
            UnsupportedModel: the model has no text encoder that open_clip knows.
            TypeError: a prompt is no string, or the tokenizer drops tokens at random.
        """
        prompts = _as_prompts(texts)
        if isinstance(prompts, Tensor):
            raise TypeError(f"embed_texts needs strings, got embeddings {tuple(prompts.shape)}")
        device = self.image_tower.device
        with isolated_torch_state(device):
            if self.text_tower is None and not hasattr(self.clip.model, "encode_text"):
                raise self.text_refusal
            check_tokenizer(self.clip.tokenizer, words=False)
            ids = self.clip.tokenizer(prompts).to(device)
            if self.text_tower is None:
                with eval_mode(self.clip.model):
                    found = [self.clip.model.encode_text(part) for part in ids.split(batch_size)]
                return F.normalize(_wide(torch.cat(found)), dim=-1)
            order = self.text_tower.ends(ids).argsort()  # a batch costs as much as its longest prompt
            found = torch.cat([self.text_tower.trace(ids[part]).embedding for part in order.split(batch_size)])
            return found[order.argsort()]

    def maps(
        self,
        images: Sequence[Image.Image | str | Path | np.ndarray],
        directions: Tensor | np.ndarray,
        batch_size: int = 16,
    ) -> Tensor:
        """Signed maps (N, M, h, w) of N images for M directions of embedding space, by this explainer's method.

        The target of a direction d is `embed_images(image) . d`: with the embedding of a prompt its similarity, with
        the difference of two their contrast, with a row of `word_directions` a word's score. Grad-ECLIP is linear in
        d. Directions keep their length (`METHODS` says which other methods are linear in it).

            explainer.maps(images, explainer.embed_texts(["a dog", "a cat"]))      # (N, 2, h, w)

        Args:
            images: N images as for `explain`; a single one counts as a sequence of one.
            directions: (M, E), the same for all images, or (N, M, E), each image's own.
            batch_size: how many images go through the model at once.

        Returns:
            (N, M, h, w) on the token grid, in the precision of the embeddings, on the model's device, without a graph.
            What `explain` shows for the same prompts.

        Raises:
            ValueError: the method has no maps of images; directions of another shape; images of several grids
                (`resolution="native"`) in one call.
        """
        if self.method.image is None:
            raise ValueError(f"{self.method.title} explains prompts only: it has no maps of images")
        images, device = _as_images(images), self.image_tower.device
        directions = torch.as_tensor(directions)
        if directions.ndim not in (2, 3) or directions.shape[-1] != self.image_tower.width or not directions.numel():
            shape = f"(M, {self.image_tower.width}) or ({len(images)}, M, {self.image_tower.width})"
            raise ValueError(f"directions must be {shape}, got {tuple(directions.shape)}")
        if directions.ndim == 3 and len(directions) != len(images):
            raise ValueError(f"{len(images)} images need as many sets of directions, got {len(directions)}")
        with isolated_torch_state(device):
            directions = directions.detach().to(device, copy=True).expand(len(images), -1, -1)
            options = {"seed": self.seed, "progress": self.progress, "empty": self._empty_prompt()}
        found, start = [], 0
        for trace in self._image_traces(images, batch_size):
            with isolated_torch_state(device):
                some = directions[start : start + len(trace.embedding)].to(trace.embedding)
                found.append(_on_grid(self.method.image(self.image_tower, trace, some, **options), trace))
            start += len(some)
        if len({part.shape[2:] for part in found}) > 1:
            raise ValueError("images of several sizes have maps of several shapes: ask for them one at a time")
        with isolated_torch_state(device):
            return torch.cat(found)

    def word_directions(self, caption: str) -> tuple[Split, Tensor]:
        """The words of a caption, and the direction (W, E) in which each of its W words pushes the embedding.

        A word's direction times an image's embedding is the word's score, and `maps(image, directions)` are the
        regions that each word matches: what `interactions` shows. See `methods.interactions.word_directions`.

        Args:
            caption: one prompt. Words beyond the context length are in `Split.unread` and have no direction.

        Returns:
            The words as they stand in the caption (`Split.spans`), and (W, E) on the model's device, without a graph.

        Raises:
            UnsupportedModel: the text encoder cannot be opened.
            TypeError: the tokenizer does not say which tokens make up a word.
        """
        if self.text_tower is None:
            raise self.text_refusal
        check_tokenizer(self.clip.tokenizer)
        with isolated_torch_state(self.text_tower.device):
            ids = self.clip.tokenizer([caption]).to(self.text_tower.device)
            split = split_prompt(caption, self.clip.tokenizer, ids[0, 1 : int(self.text_tower.ends(ids)[0])].tolist())
            trace, _ = self._both(self.text_tower, self.text_tower.trace(ids))
            return split, word_directions(self.text_tower, trace, word_masks(split.word_ids, trace))

    def _image_traces(self, images: Sequence, batch_size: int) -> Iterator[Trace]:
        """Traces of images as the model sees them, a batch at a time, whatever the caller's torch state is."""
        images = _as_images(images)
        step = 1 if self.resolution == "native" else batch_size  # native images differ in size
        for start in range(0, len(images), step):
            pictures = [read_image(image) for image in images[start : start + step]]
            with isolated_torch_state(self.image_tower.device):
                if self.resolution == "native":
                    pixels = [self._view(picture).pixels for picture in pictures]
                else:
                    pixels = [self.clip.preprocess(picture) for picture in pictures]
                trace = self.image_tower.trace(torch.stack(pixels).to(self.image_tower.device))
            yield trace

    def _explain(self, pictures: list[Image.Image], texts, against: Prompts | None) -> list[Explanation]:
        """B pictures that the model sees at one size, and P = B * T prompts, picture by picture."""
        with isolated_torch_state(self.image_tower.device):
            asked = self._ask(texts)  # what is wrong with a prompt is said before anything is computed
            rivals = None if against is None else self._ask(_match(_as_prompts(against), len(texts)))
            views = [self._view(picture) for picture in pictures]
            trace, embedding = self._trace_images(views)
            each = len(texts) // len(views)
            own, explained = (part.repeat_interleave(each, dim=0) for part in (embedding, trace.embedding))  # (P, E)
            read = self._read(asked, own)
            other = None if rivals is None else self._read(rivals, own, sign=-1)  # the target falls as theirs rises
            directions = read.embedding if other is None else read.embedding - other.embedding
            empty = self._empty_prompt() if rivals is None else None
            maps = self._maps(trace, directions.unflatten(0, (len(views), each)), empty)  # (B, T, h, w)
            image_explained = (explained * read.embedding).sum(-1)  # (P,)
            return [
                self._pack(picture, view, maps[i], slice(i * each, (i + 1) * each), read, other, image_explained)
                for i, (picture, view) in enumerate(zip(pictures, views, strict=True))
            ]

    def _pack(self, picture, view: View, maps: Tensor, mine: slice, read: _Read, other, image_explained) -> Explanation:
        """One picture's share of P prompts."""
        provenance = self._provenance()
        if self.attention == "single-head":
            text = read.explained[mine].tolist() if any(read.words) else None
            provenance["single_head_similarity"] = {"image": image_explained[mine].tolist(), "text": text}
        return Explanation(
            prompts=read.names[mine],
            similarity=_numpy(read.similarity[mine]),
            image_maps=_numpy(maps),
            words=read.words[mine],
            image=picture,
            box=view.box,
            provenance=provenance,
            against=None if other is None else other.names[mine],
            against_similarity=None if other is None else _numpy(other.similarity[mine]),
            against_words=None if other is None else other.words[mine],
        )

    def _maps(self, trace: Trace, directions: Tensor, empty: Tensor | None) -> Tensor:
        if self.method.image is None:
            return _on_grid(torch.zeros(*directions.shape[:2], trace.valid_mask.shape[1]), trace)
        options = {"seed": self.seed, "progress": self.progress, "empty": empty}
        maps = self.method.image(self.image_tower, trace, directions, **options)  # (B, T, N)
        warn_of_empty_maps(maps, trace.valid_mask, "image maps are")
        return _on_grid(maps, trace)

    def _empty_prompt(self) -> Tensor | None:
        """The embedding (E,) of a prompt without words, for the method that subtracts it."""
        if not self.method.wants_empty or self.text_tower is None:
            return None
        return self.text_tower.forward(self.clip.tokenizer([""]).to(self.text_tower.device))[0]

    def _ask(self, prompts: list[str] | Tensor) -> _Asked:
        """Check P prompts, split them, and warn of what the model cannot read or does not know."""
        if isinstance(prompts, Tensor):
            width = self.image_tower.width
            if prompts.shape[1] != width or not torch.isfinite(prompts).all() or (prompts == 0).all(-1).any():
                shape = tuple(prompts.shape)
                raise ValueError(f"prompt embeddings must be (T, {width}), finite and not zero, got {shape}")
            return _Asked(tuple(f"embedding {i}" for i in range(len(prompts))), embedding=prompts.detach().clone())
        if self.text_tower is None:
            raise self.text_refusal
        check_tokenizer(self.clip.tokenizer, words=False)
        ids = self.clip.tokenizer(prompts).to(self.text_tower.device)
        if reason := why_no_words(self.clip.tokenizer):
            warn(f"the picture is explained, the words of the prompt are not: {reason}")
            return _Asked(tuple(prompts), ids=ids)
        ends = self.text_tower.ends(ids).tolist()
        splits = tuple(
            split_prompt(prompt, self.clip.tokenizer, row[1:end])
            for prompt, row, end in zip(prompts, ids.tolist(), ends, strict=True)
        )
        for split in splits:
            if split.unread:
                start, unread = split.prompt[:40], " ".join(split.unread)
                warn(f"the model reads only {len(split.word_ids)} tokens of {start!r}...; not read: {unread}")
        if self.clip.vocabulary is not None:
            unknown = dict.fromkeys(word for split in splits for word in unknown_words(split, self.clip.vocabulary))
            if unknown:
                warn(f"the model {self.clip.name!r} was never shown these words: {', '.join(unknown)}")
        return _Asked(tuple(prompts), splits, ids)

    def _read(self, asked: _Asked, image: Tensor, sign: int = 1) -> _Read:
        """Embed P prompts, each for its image embedding (P, E), and score their words for ``sign`` * similarity."""
        if asked.ids is None:
            embedding = F.normalize(asked.embedding.to(image), dim=-1)
            similarity = (image * embedding).sum(-1)
            return _Read(asked.names, embedding, similarity, similarity, ((),) * len(embedding))
        tokens = [len(split.word_ids) for split in asked.splits] or [0] * len(asked.ids)
        order = sorted(range(len(tokens)), key=tokens.__getitem__)  # a batch costs as much as its longest prompt
        embedding, explained = torch.empty_like(image), torch.empty_like(image[:, 0])
        words: list[tuple[Word, ...]] = [()] * len(tokens)
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            trace, embedding[some] = self._both(self.text_tower, self.text_tower.trace(asked.ids[some]))
            explained[some] = (trace.embedding * image[some]).sum(-1)
            if self.method.text is None or not asked.splits:
                continue
            options = {"seed": self.seed, "progress": self.progress, "words": _owners(asked, some, trace)}
            scores = self.method.text(self.text_tower, trace, sign * image[some, None], **options)[:, 0]  # (P, N)
            for i, row in zip(some, scores.tolist(), strict=True):
                words[i] = asked.splits[i].words(row[1 : 1 + tokens[i]])
        return _Read(asked.names, embedding, (image * embedding).sum(-1), explained, tuple(words))

    def _trace_images(self, views: list[View]) -> tuple[Trace, Tensor]:
        pixels = torch.stack([view.pixels for view in views]).to(self.image_tower.device)
        return self._both(self.image_tower, self.image_tower.trace(pixels))

    def _both(self, tower, trace: Trace) -> tuple[Trace, Tensor]:
        """The trace to explain, and the model's own embedding (B, E)."""
        return (tower.with_one_head(trace) if self.attention == "single-head" else trace), trace.embedding

    def _view(self, picture: Image.Image) -> View:
        return view_of(self.clip.preprocess, picture, self.resolution, self.image_tower.patch_size)

    def _provenance(self) -> dict:
        libraries = ("gradeclip", "torch", "open_clip_torch")
        return {
            "model": self.clip.name,
            "pretrained": self.clip.pretrained,
            "method": self.method.title,
            "explains": self.method.explains,
            "attention": self.attention if self.method.name in _GRAD_ECLIP else None,
            "image_layers": self.image_tower.layers,
            "text_layers": None if self.text_tower is None else self.text_tower.layers,
            "resolution": self.resolution,
            "versions": {name: _version(name) for name in libraries},
        }


@contextmanager
def isolated_torch_state(device: torch.device) -> Iterator[None]:
    """The caller's inference mode, no_grad or autocast must not reach the arithmetic of an explanation."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


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


def _owners(asked: _Asked, some: list[int], trace: Trace) -> Tensor:
    """The word of every token (B, N) of some prompts; -1 for SOT, EOT and padding."""
    word_ids = torch.full_like(trace.valid_mask, -1, dtype=torch.long)
    for row, i in zip(word_ids, some, strict=True):
        row[1 : 1 + len(asked.splits[i].word_ids)] = torch.tensor(asked.splits[i].word_ids)
    return word_ids


def _as_prompts(prompts: Prompts) -> list[str] | Tensor:
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, np.ndarray) and prompts.dtype.kind == "f":
        prompts = torch.from_numpy(prompts)
    if isinstance(prompts, Tensor):
        if not prompts.is_floating_point() or prompts.ndim not in (1, 2) or not prompts.numel():
            raise ValueError(f"prompt embeddings must be floats (T, E), got {prompts.dtype} {tuple(prompts.shape)}")
        return prompts.reshape(-1, prompts.shape[-1])  # (E,) -> (1, E)
    prompts = list(prompts)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise TypeError(f"prompts must be strings, or a float array of embeddings (T, E), got {prompts!r}")
    return prompts


def _as_images(images) -> Sequence:
    """Images as a sequence; a single one, which would be taken for its own rows or letters, as a sequence of one."""
    single = isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim == 3)
    images = [images] if single else images
    if len(images) == 0:
        raise ValueError("there are no images: give at least one")
    return images


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _match(prompts: list[str] | Tensor, count: int) -> list[str] | Tensor:
    """One prompt for all, or one for each."""
    if len(prompts) not in (1, count):
        raise ValueError(f"against must be one prompt, or one for each of {count}, got {len(prompts)}")
    if len(prompts) == count:
        return prompts
    return prompts.expand(count, -1) if isinstance(prompts, Tensor) else prompts * count


def _numpy(tensor: Tensor) -> np.ndarray:
    array = tensor.float().cpu().numpy()
    array.flags.writeable = False
    return array


def _on_grid(maps: Tensor, trace: Trace) -> Tensor:
    height, width = trace.grid
    return maps[..., -height * width :].unflatten(-1, trace.grid)  # (..., N) -> (..., h, w)


@cache  # reading a package's metadata takes as long as a small explanation
def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"
