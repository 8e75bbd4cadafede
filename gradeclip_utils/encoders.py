"""Encoders: both encoders of a model, opened for a method, and what they say of images, prompts and directions.

    images, prompts --here--> embeddings;    images, directions --here--> maps

What an `Explainer` does for one image and its prompts, with all that is needed to look at it, this does for thousands
of images and vectors: tensors in batches, on the model's own device.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .checks import chosen, listed, short, text, whole
from .checks import seed as checked_seed
from .errors import GradeclipError
from .images import ImageLike, View, check_pixels, model_view, native_view, read_image
from .methods import METHODS, Method
from .methods.interactions import Group, word_directions, word_masks
from .models import Clip
from .prompts import Prompts, as_prompts, as_tensor, ask_embeddings, null_captions, token_ids
from .towers import Tower, Trace, UnsupportedModel, open_feature_map, open_image_tower, open_text_tower
from .towers.base import eval_mode, is_small, isolated_torch_state, one_thread
from .towers.blocks import upcast
from .words import Split, check_tokenizer, split_read

PROMPTS_AT_ONCE, IMAGES_AT_ONCE = 64, 16  # in one batch
ONE_HEAD = "grad-eclip-single-head"
GRAD_ECLIP = ("grad-eclip", ONE_HEAD)  # what has attention heads to choose, and interactions


# embeddings of null captions, of a model: captions -> the state of its weights, (K, E)
_NULLS: WeakKeyDictionary[torch.nn.Module, dict] = WeakKeyDictionary()


class Encoders:
    """The image encoder and the text encoder of a model.

    Attributes:
        clip: the model.
        image_tower: the image encoder, opened.
        text_tower: the text encoder, opened, or None where it cannot be.
        text_refusal: then the reason.
        method, seed, progress, attention, resolution: as given.
    """

    def __init__(
        self, clip: Clip, *, method: str | Method = "grad-eclip", seed: int = 0, progress: bool | None = None,
        attention: str = "model", image_layers: int | None = None, text_layers: int | None = None,
        resolution: str = "model", null_captions: Prompts | None = None,
    ):  # fmt: skip
        if not isinstance(clip, Clip):
            msg = f"Explainer needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}"
            raise GradeclipError(msg)
        if not callable(clip.preprocess):
            msg = f"a Clip needs a preprocessing, image -> float tensor (3, H, W), got {short(clip.preprocess)}"
            raise GradeclipError(msg)
        if not isinstance(method, Method) and (not isinstance(method, str) or method not in METHODS):
            msg = f"method must be one of {', '.join(METHODS)}, or a Method, got {short(method)}"
            raise GradeclipError(msg)
        chosen("attention", attention, ("model", "single-head"))
        chosen("resolution", resolution, ("model", "native"))
        seed = checked_seed(seed)
        method = method if isinstance(method, Method) else METHODS[method]
        if attention == "single-head":
            if method.name not in GRAD_ECLIP:
                msg = f"attention='single-head' is a variant of 'grad-eclip', got method={method.name!r}"
                raise GradeclipError(msg)
            method = METHODS[ONE_HEAD]
        self.clip, self.method, self.seed, self.progress = clip, method, seed, progress
        self.attention = "single-head" if method.name == ONE_HEAD else "model"
        self.resolution = resolution
        self.null_captions = None if null_captions is None else _checked_nulls(null_captions)
        if self.method.name == "grad-eclip":
            image_layers = clip.image_layers if image_layers is None else image_layers
            text_layers = clip.text_layers if text_layers is None else text_layers
        self.image_tower = _opened(clip.model, "image", image_layers, self.method)
        self.text_tower: Tower | None = None
        self.text_refusal: UnsupportedModel | None = None
        try:
            self.text_tower = _opened(clip.model, "text", text_layers, self.method)
        except UnsupportedModel as refusal:
            self.text_refusal = refusal

    def embed_images(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 32) -> Tensor:
        """Unit embeddings (N, E) of N images: `encode_image` of the unmodified model after its own preprocessing."""
        found = [trace.embedding for trace in self._image_traces(_as_images(images), batch_size)]
        with self._isolated():
            return torch.cat(found)

    def embed_texts(self, texts: str | Sequence[str], batch_size: int = PROMPTS_AT_ONCE) -> Tensor:
        """Unit embeddings (N, E) of N prompts: `encode_text` of the unmodified model."""
        prompts, tower = as_prompts(texts), self.text_tower
        if isinstance(prompts, Tensor):
            raise GradeclipError(f"embed_texts needs strings, got embeddings {tuple(prompts.shape)}")
        whole("batch_size", batch_size, 1)
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
        """Signed maps (N, M, h, w) of N images for M directions of embedding space, by this explainer's method."""
        if self.method.image is None:
            raise GradeclipError(f"{self.method.title} explains prompts only: it has no maps of images")
        images, device = list(_as_images(images)), self.image_tower.device
        directions = self._directions(directions, "M", f"{len(images)}, M")
        if directions.ndim == 3 and len(directions) != len(images):
            msg = f"{len(images)} images need as many sets of directions, got {len(directions)}"
            raise GradeclipError(msg)
        with self._isolated():
            directions = directions.detach().to(device, copy=True).expand(len(images), -1, -1)
            empty = self._empty_prompt()
        found, start = [], 0
        for trace in self._image_traces(images, batch_size, self._wants_graph):
            with self._isolated():
                some = directions[start : start + len(trace.embedding)].to(trace.embedding)
                found.append(on_grid(self._token_maps(trace, some, empty), trace))
            start += len(some)
        if len({part.shape[2:] for part in found}) > 1:
            msg = "images of several sizes have maps of several shapes: ask for them one at a time"
            raise GradeclipError(msg)
        with self._isolated():
            return torch.cat(found)

    def word_directions(self, caption: str) -> tuple[Split, Tensor]:
        """The words of a caption, and the direction (W, E) in which each of its W words pushes the embedding."""
        return self.directions_of_words([caption])[0]

    def directions_of_words(self, captions: Sequence[str]) -> list[tuple[Split, Tensor]]:
        """What `word_directions` says of each caption, in one batch."""
        if not (captions := listed("captions", captions)):
            raise GradeclipError("there are no captions: give at least one")
        tower = self._opened_text_tower()
        check_tokenizer(self.clip.tokenizer)
        with self._isolated():
            splits = [split_read(text("caption", caption), self.clip.tokenizer, tower) for caption in captions]
            trace, _ = self._both(tower, tower.trace(self.clip.tokenizer(captions).to(tower.device)))
            masks = pad_sequence([word_masks(split, trace) for split in splits])  # (W, B, N)
            found = word_directions(tower, trace, masks)
            return [(split, found[: len(split.spans), i]) for i, split in enumerate(splits)]

    def _null_similarities(self, embedding: Tensor) -> Tensor | None:
        """Similarities (B, K) of images with the null captions; None where the model embeds none."""
        if not self.image_tower.unit or (own := self._null_embeddings()) is None:
            return None
        return embedding @ own.to(embedding).T

    def _null_embeddings(self) -> Tensor | None:
        """Unit embeddings (K, E) of the null captions, computed once for all explainers of these weights."""
        captions = self.null_captions
        if isinstance(captions, Tensor):
            asked = ask_embeddings(captions, self.image_tower.width).embedding
            return F.normalize(upcast(asked), dim=-1)
        if not callable(self.clip.tokenizer) or (
            self.text_tower is None and not hasattr(self.clip.model, "encode_text")
        ):
            return None
        weights = tuple((one.data_ptr(), one._version) for one in self.clip.model.parameters())
        key = None if captions is None else tuple(captions)
        known = _NULLS.setdefault(self.clip.model, {})
        if key not in known or known[key][0] != weights:
            found = self.embed_texts(null_captions(self.clip.vocabulary) if captions is None else captions)
            known[key] = weights, found
        return known[key][1]

    def _directions(self, directions: Tensor | np.ndarray | Sequence[Tensor], *axes: str) -> Tensor:
        """Directions of embedding space as one finite tensor; `axes` are those that may stand before E, such as "M"."""
        try:
            if not isinstance(directions, (Tensor, np.ndarray)):
                directions = torch.stack([as_tensor(one) for one in directions])
            found = as_tensor(directions)
        except (TypeError, ValueError, RuntimeError):  # texts, nothing, several lengths
            msg = f"directions must be floats of one length, as embed_texts gives them, got {short(directions)}"
            raise GradeclipError(msg) from None
        width = self.image_tower.width
        fits = found.ndim in [one.count(",") + 2 for one in axes] and found.shape[-1] == width and found.numel()
        if not fits or not torch.isfinite(found).all():
            shape = " or ".join(f"({one}, {width})" for one in axes)
            msg = f"directions must be {shape}, and finite, got {tuple(found.shape)}"
            raise GradeclipError(msg)
        return found

    def _coalitions(self, caption: str, over: Sequence[Group] | None):
        """Places of the G players, embeddings (C, E) of coalitions, of which the last is all, and weights (G, C)."""
        from studies.rivals.metagame import embed_coalitions, noun_players, weights_of

        tower = self._opened_text_tower()
        check_tokenizer(self.clip.tokenizer)
        split = split_read(caption, self.clip.tokenizer, tower)
        if over is None:
            groups = noun_players(caption, split.spans)
        else:
            groups = tuple(tuple(listed("each of over", group)) for group in listed("over", over))
        words, count = [i for group in groups for i in group], len(split.spans)
        there = all(isinstance(i, Integral) and 0 <= i < count for i in words)
        if not groups or not all(groups) or not there or len(set(words)) < len(words):
            msg = f"over must hold words 0 to {count - 1}, each at most once, got {list(groups)!r}"
            raise GradeclipError(msg)
        ids = self.clip.tokenizer([caption]).to(tower.device)[0]
        word_ids = torch.tensor([-1] * split.first + list(split.word_ids))
        players = torch.stack([torch.isin(word_ids, torch.tensor(group)) for group in groups]).to(tower.device)
        coalitions, weights = weights_of(len(groups), self.seed)
        embeddings = embed_coalitions(tower, ids, players, coalitions)
        spans = tuple((split.spans[group[0]][0], split.spans[group[-1]][1]) for group in map(sorted, groups))
        return spans, embeddings, weights.to(embeddings)

    def _token_maps(self, trace: Trace, directions: Tensor, empty: Tensor | None) -> Tensor:
        """Maps (B, T, N) by the method; zero where it has none for images."""
        if self.method.image is None:
            return torch.zeros(*directions.shape[:2], trace.valid_mask.shape[1])
        options = {"seed": self.seed, "progress": self.progress, "empty": empty}
        return self.method.image(self.image_tower, trace, directions, **options)

    def _maps_of_each(self, trace: Trace, directions: Tensor) -> Tensor:
        """Maps (T, N) of one image, each as if its direction (T, E) had been asked for alone."""
        empty, step = self._empty_prompt(), 1 if self.method.wants_empty else len(directions)
        return torch.cat([self._token_maps(trace, some[None], empty)[0] for some in directions.split(step)])

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
        """What all arithmetic runs in: nothing of the caller's modes, and one thread if the model is small."""
        with isolated_torch_state(self.image_tower.device), one_thread(is_small(self.image_tower)):
            yield

    def _image_traces(self, images: Iterable[ImageLike], batch_size: int, graph: bool = False) -> Iterator[Trace]:
        """Traces of images as the model sees them, a batch at a time, whatever the caller's torch state is."""
        whole("batch_size", batch_size, 1)
        step, waiting = 1 if self.one_at_a_time else batch_size, iter(images)
        while read := [read_image(image) for image in islice(waiting, step)]:
            with self._isolated():
                if self.resolution == "native":
                    pixels = [self._view(image).pixels for image in read]
                else:
                    pixels = [check_pixels(self.clip.preprocess(image), self._size()) for image in read]
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
        """Whether the method takes channel weights of the very trace: with one head it takes those of another."""
        return self.method.name.startswith("grad-eclip") and self.attention == "model"

    @property
    def one_at_a_time(self) -> bool:
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
        """Where the patches of a trace lie in the image: no model reads what is beyond its last whole patch."""
        assert trace.grid is not None
        left, top, right, bottom = view.box
        sides = zip(trace.grid, self.image_tower.patch_size, view.pixels.shape[1:], strict=True)
        down, across = (rows * pixels / side for rows, pixels, side in sides)
        return left, top, left + across * (right - left), top + down * (bottom - top)

    def _size(self) -> tuple[int, int] | None:
        """The one size (H, W) of pixels that the model takes; None where it takes others too."""
        tower = self.image_tower
        free = self.resolution == "native" or tower.any_size or tower.own_grid
        return None if free else tower.image_size


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


def _checked_nulls(captions: Prompts) -> list[str] | Tensor:
    """Null captions as a list, or their embeddings."""
    found = as_prompts(captions)
    if not 10 <= len(found) <= 10_000:
        raise GradeclipError(f"null_captions must be 10 to 10,000 captions, got {len(found)}")
    return found


def _as_images(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """One image or more; a single one, which would be taken for its own rows or letters, as a sequence of one."""
    if isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    if isinstance(images, Iterator) and (first := list(islice(images, 1))):
        return chain(first, images)
    if not isinstance(images, Sequence):
        images = listed("images", images)
    if len(images) == 0:
        raise GradeclipError("there are no images: give at least one")
    return images


def on_grid(maps: Tensor, trace: Trace) -> Tensor:
    """Maps over tokens as maps (..., h, w) over patches."""
    assert trace.grid is not None
    height, width = trace.grid
    return maps[..., -height * width :].unflatten(-1, trace.grid)  # (..., N) -> (..., h, w)
