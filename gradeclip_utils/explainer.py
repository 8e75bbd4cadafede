"""Explain: images and prompts in, an `Explanation` out.

    image, prompt -> tower -> trace -> method -> map -> Explanation -> figure

`Explainer` opens both encoders of a model once and explains as many images and prompts as you like.
It leaves nothing behind on the model: no hook, no mode, no gradient.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from threading import RLock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .checks import chosen, hint, instance, listed, short, text, whole
from .checks import seed as checked_seed
from .errors import GradeclipError, UnsupportedModel, warn
from .explanation import Explanation, Interactions
from .files import version
from .images import DRAWN, ImageLike, View, model_view, native_view, read_image
from .methods import METHODS, Method, Options, layers_to_explain
from .methods.interactions import word_directions, word_masks
from .methods.registry import Side
from .models import Clip
from .prompts import (
    Prompts,
    TokenizedPrompts,
    as_prompts,
    dense,
    embeddings_as_prompts,
    token_ids,
    tokenize,
)
from .prompts import null_captions as default_nulls
from .runtime import isolated_torch_state, one_thread
from .towers import Tower, Trace, open_image_tower, open_text_tower
from .towers.blocks import eval_mode, upcast
from .words import Split, Word, check_tokenizer

_PROMPTS_AT_ONCE, _IMAGES_AT_ONCE = 64, 16  # in one batch
_MOST_PROMPTS = 1000  # of one image
_ONE_HEAD = "grad-eclip-single-head"
_GRAD_ECLIP = ("grad-eclip", _ONE_HEAD)  # the methods with word x region maps
_VERSIONS = {
    library: version(library)
    for library in ("gradeclip", "torch", "open_clip_torch", "transformers")
}
# embeddings (K, E) of null captions for each model, with what they depend on
_NULLS: WeakKeyDictionary[torch.nn.Module, tuple[tuple, Tensor]] = WeakKeyDictionary()
_ONE_AT_A_TIME = RLock()  # the modes of torch and of a model are those of all threads


class _Read(NamedTuple):
    """P prompts as the model read them, each beside its image."""

    names: tuple[str, ...]
    embedding: Tensor  # (P, E), unit length
    similarity: Tensor  # (P,), the model's own
    explained: Tensor  # (P,), the one whose words were scored: another number if the text encoder has a single head
    words: list[tuple[Word, ...]]


class Explainer:
    """Explains what a CLIP matched in an image and in a prompt, by Grad-ECLIP or by another method.

        explainer = Explainer(load_clip())
        explanation = explainer.explain("dog.png", ["a dog", "a red car"])
        explanation.similarity, explanation.image_maps.shape
        Explainer(load_clip(), method="maskclip").explain("dog.png", "a dog")

    With method="grad-eclip-single-head", the published variant, the explained encoder runs its
    explained layers with one head over the full width, and the other encoder stays as it is. This
    explains a different number from the model's similarity; `Explanation.provenance` has both.

    Args:
        clip: a model with its preprocessing and tokenizer.
        method: a name in `methods.METHODS`, or a `methods.Method` of your own. If it is not defined
            for prompts, explanations have no words. If it is not defined for images, their maps are
            zero, and `provenance["image_layers"]` is None.
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
            model knows.

    Attributes:
        clip, method, seed, resolution, null_captions: as given, or the default.
        image_tower: the image encoder, opened.
        text_tower: the text encoder, opened, or None if that is not possible; then `text_refusal`
            is the reason.

    Raises:
        UnsupportedModel: the image encoder cannot be opened. A text encoder that cannot be opened
            is refused when a prompt is a string: prompt embeddings can still be explained.
        GradeclipError: `clip` is a bare model, an argument is not one of the choices, or they do
            not go together.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        method: str | Method = "grad-eclip",
        seed: int = 0,
        image_layers: int | None = None,
        text_layers: int | None = None,
        resolution: str = "model",
        null_captions: Sequence[str] | None = None,
    ):
        if not isinstance(clip, Clip):
            raise GradeclipError(
                f"Explainer needs a Clip(model, preprocess, tokenizer), got {type(clip).__name__}"
            )
        if isinstance(method, str) and method not in METHODS:
            raise GradeclipError(f"there is no method {short(method)}: {hint(method, METHODS)}")
        instance("method", method, (str, Method), "the name of a method, or a Method")
        self.null_captions = (
            default_nulls(clip.vocabulary) if null_captions is None else _strings(null_captions)
        )
        if null_captions is not None and len(self.null_captions) < 2:
            raise GradeclipError(
                f"null_captions must be two captions or more, got {short(null_captions)}"
            )
        self._options: dict = {
            "method": method,
            "seed": seed,
            "image_layers": image_layers,
            "text_layers": text_layers,
            "resolution": resolution,
            "null_captions": null_captions,
        }
        self.clip, self.method = clip, METHODS[method] if isinstance(method, str) else method
        self.seed, self.resolution = (
            checked_seed(seed),
            chosen("resolution", resolution, ("model", "native")),
        )
        self._layers = image_layers, text_layers
        self._open()

    def __reduce__(
        self,
    ):  # an opened model holds functions, which do not go to another process: it opens them again
        return partial(Explainer, **self._options), (
            self.clip,
        )  # a deep copy copies these arguments alone

    # --------------------------------------------------------------------------------- explanations

    def explain(
        self, image: ImageLike, texts: Prompts, against: Prompts | None = None
    ) -> Explanation:
        """Explain one image and T prompts, which share one pass of the image encoder: one explanation with T maps.

        With `against`, the target is the difference S(image, text) - S(image, against): maps are
        signed for it, and so are the scores of both prompts' words (a word of `against` that lowers
        the other similarity is positive). Raw attention and rollout do not depend on the target. If
        the tokenizer does not say which tokens make up a word, the prompt has maps but no words,
        and a warning says so.

        Args:
            image: a PIL image, a path, or a uint8 array (H, W, 3).
            texts: a prompt or several, at most 1,000 (a list, an array, a column of pandas; of at
                most 5,000 characters each), or prompt embeddings (T, E), which have no words. An
                embedding of another image compares two images: `explain(image,
                explainer.embed_images(other))`.
            against: one prompt (or embedding) for all, or one for each of `texts`.

        Raises:
            GradeclipError: a prompt is empty or too long, embeddings do not fit, the model or the
                method gives NaN, the file is not an image, or the tokenizer drops tokens at random.
            UnsupportedModel: a prompt is a string and the text encoder cannot be opened.
        """
        prompts = as_prompts(texts)
        if len(prompts) > _MOST_PROMPTS:
            raise GradeclipError(
                f"explain takes at most {_MOST_PROMPTS} prompts in one call, got {len(prompts)}"
            )
        return self._explain([self._read_image(image)], prompts, _matched(against, len(prompts)))[0]

    def explain_batch(
        self, images: Sequence[ImageLike], texts: Prompts, against: Prompts | None = None
    ) -> list[Explanation]:
        """Explain pairs, `images[i]` with `texts[i]`, in batches: P explanations, each with one map.

        Args:
            images: P images, each as for `explain`.
            texts: P prompts, or embeddings (P, E).
            against: one prompt for all, or one for each.

        Raises:
            GradeclipError: there are not as many images as prompts; and the reasons of `explain`.
        """
        prompts = as_prompts(texts)
        images = listed("images", images, (str, Path, Image.Image))
        if len(images) != len(prompts):
            raise GradeclipError(
                f"pairs need as many images as prompts, got {len(images)} and {len(prompts)}"
            )
        others, found = _matched(against, len(prompts)), []
        for some in self._batches(len(images)):
            read = [self._read_image(image) for image in images[some]]
            found += self._explain(
                read, prompts[some], None if others is None else others[some], some.start
            )
        return found

    def interactions(self, image: ImageLike, caption: str) -> Interactions:
        """Word x region: signed maps (W, h, w), the part of the image that each word matches (`methods.interactions`).

        A word's score is the same as from `explain`. To tell several things of one caption apart,
        subtract what their words share: `interactions(...).centred()`. With a single head, both
        encoders run with one. `provenance` then has the similarities that are explained: under
        "image" that of both such embeddings, which the maps explain; under "text" that of the
        prompt's with the model's own image embedding, which the scores explain.

        Args:
            image: as for `explain`.
            caption: one prompt of W words.

        Raises:
            GradeclipError: the method is not Grad-ECLIP, the caption is not a text, or the
                tokenizer does not say which tokens make up a word; and the reasons of `explain`.
        """
        if (name := self.method.name) not in _GRAD_ECLIP:
            raise GradeclipError(
                f"interactions are Grad-ECLIP's own, and this Explainer's method is {name!r}"
            )
        read = self._read_image(image)
        with self._isolated():
            asked, said, prompt, found = self._directions_of_words([text("caption", caption)])
            (view,), trace = self._trace([read], self._wants_graph)
            own, trace, directions = (
                trace.embedding,
                self._explained(self.image_tower, trace),
                found[:, 0],
            )  # (W, E)
            maps = self._token_maps(trace, directions[None], None)
            words = asked.splits[0].words((directions @ own[0]).tolist())
            _warn_of_empty_maps(maps, trace.valid_mask, [word.text for word in words])
            one_head = {
                "image": (trace.embedding * prompt).sum(-1).tolist(),
                "text": (own * prompt).sum(-1).tolist(),
            }
        grid, box, provenance = (
            _numpy(_on_grid(maps[0], trace)),
            self._box(view, trace),
            self._provenance(one_head),
        )
        return Interactions(caption, words, grid, float((own * said).sum()), read, box, provenance)

    def null_maps(self, image: ImageLike, prompt: str, count: int = 16) -> np.ndarray:
        """Signed maps (count, h, w) of an image for prompts that are not about it, each as `explain` gives it.

            explainer.explain(image, prompt).prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            image: as for `explain`.
            prompt: the null prompts have its form, with other nouns (`language.with_other_nouns`,
                by this explainer's seed).
            count: how many, 2 to 10,000; the last one is the empty prompt.

        Raises:
            GradeclipError: the method has no maps of images; and the reasons of `explain`.
        """
        from .language import with_other_nouns  # its taggers are slow to import

        count = whole("count", count, 2, 10_000) - 1
        others = with_other_nouns(prompt, count, known=self.clip.vocabulary, seed=self.seed)
        embeddings = self.embed_texts([*others, ""])
        step = (
            1 if self.method.compares_targets else len(embeddings)
        )  # such a method compares the prompts of a call
        return np.concatenate(
            [_numpy(self.maps(image, some)[0]) for some in embeddings.split(step)]
        )

    # ------------------------------------------------------------- embeddings, maps and word scores

    def embed_images(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        """Unit embeddings (N, E) of N images: `encode_image` of the unmodified model after its own preprocessing.

        Args:
            images: N images as for `explain`; a single one counts as a sequence of one. A generator
                is read batch by batch, so many images need not be in memory together.

        Returns:
            (N, E), of unit length (the logits of a classifier as they are), in float32 at least, on
            the model's device, without a graph. `embed_images(images) @ embed_texts(texts).T` holds
            the similarities that `explain` gives.

        Raises:
            GradeclipError: an image cannot be read, there is none, or the model holds NaN.
        """
        waiting, found = iter(_as_images(images)), []
        while read := [read_image(image) for image in islice(waiting, self._images_at_once)]:
            with self._isolated():
                found.append(self._trace(read)[1].embedding)
        with self._isolated():
            return torch.cat(found)

    def embed_texts(self, texts: str | Sequence[str]) -> Tensor:
        """Unit embeddings (N, E) of N prompts, as `embed_images` gives them: `encode_text` of the unmodified model.

        A text encoder that cannot be opened can still embed, and `explain` takes these embeddings
        in place of prompts.

        Args:
            texts: N prompts; a single string counts as a sequence of one. Words beyond the model's
                context are cut off.

        Raises:
            UnsupportedModel: the model has no text encoder that open_clip knows.
            GradeclipError: a prompt is not a string, or the tokenizer drops tokens at random.
        """
        prompts = _strings(texts)
        with self._isolated():
            if self.text_tower is None and hasattr(self.clip.model, "encode_text"):
                check_tokenizer(self.clip.tokenizer, words=False)
                ids = self.clip.tokenizer(prompts).to(self.image_tower.device)
                with eval_mode(self.clip.model):
                    found = [
                        self.clip.model.encode_text(part) for part in ids.split(_PROMPTS_AT_ONCE)
                    ]
                return F.normalize(upcast(torch.cat(found)), dim=-1)
            tower = self._opened_text_tower()
            ids = token_ids(self.clip.tokenizer, prompts, tower)
            order = tower.ends(ids).argsort()  # a batch costs as much as its longest prompt
            found = [tower.trace(ids[part]).embedding for part in order.split(_PROMPTS_AT_ONCE)]
            return torch.cat(found)[order.argsort()]

    def maps(
        self,
        images: ImageLike | Sequence[ImageLike],
        directions: Tensor | np.ndarray | Sequence[Tensor],
    ) -> Tensor:
        """Signed maps (N, M, h, w) of N images for M directions of embedding space, by this explainer's method.

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
        targets = self._directions(directions, ("M",), (len(images), "M"))
        with self._isolated():
            # a copy, because tensors of the caller's inference mode have no gradients
            targets = (
                targets.detach().to(self.image_tower.device, copy=True).expand(len(images), -1, -1)
            )
            empty, found = self._empty_prompt(), []
            for some in self._batches(len(images)):
                _, trace = self._trace(
                    [read_image(image) for image in images[some]], self._wants_graph
                )
                found.append(
                    _on_grid(
                        self._token_maps(trace, targets[some].to(trace.embedding), empty), trace
                    )
                )
            if len({part.shape[2:] for part in found}) > 1:
                raise GradeclipError(
                    "images of several sizes have maps of several shapes: ask for them one at a time"
                )
            return torch.cat(found)

    def score_words(
        self, captions: Sequence[str], directions: Sequence[Tensor] | Tensor
    ) -> list[tuple[Word, ...]]:
        """The words of P captions, with their scores for the targets embedding . direction: no image is needed.

            explainer.score_words(captions, explainer.embed_images(images))       # those of
            `explain_batch`

        Args:
            captions: P prompts. They have no words if the method is not defined for prompts.
            directions: (P, E), or P of (E,).

        Raises:
            GradeclipError: there are not as many captions as directions, or the tokenizer does not
                say which tokens make up a word; and the reasons of `explain`.
        """
        prompts = _strings(captions)
        targets = self._directions(directions, (len(prompts),))
        with self._isolated():
            check_tokenizer(self.clip.tokenizer)
            precision = upcast(next(self._opened_text_tower().part.parameters())[:0])  # and device
            return self._read(self._ask(prompts), targets.detach().to(precision)).words

    def word_directions(self, captions: str | Sequence[str]) -> list[tuple[Split, Tensor]]:
        """The words of each caption, and the direction (W, E) in which each of its W words pushes the embedding.

        A word's direction times an image's embedding is the word's score, and `maps(image,
        directions)` are the regions that each word matches, as `interactions` shows them.
        Directions are on the model's device, without a graph. See
        `methods.interactions.word_directions`.

            ((split, directions),) = explainer.word_directions("a dog and an umbrella")

        Args:
            captions: prompts; a single string counts as a sequence of one. Words beyond the context
                length are in `Split.unread` and have no direction; the others are `Split.spans`.

        Raises:
            UnsupportedModel: the text encoder cannot be opened.
            GradeclipError: the tokenizer does not say which tokens make up a word.
        """
        prompts, found = _strings(captions), []
        with self._isolated():
            for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
                asked, _, _, some = self._directions_of_words(
                    prompts[start : start + _PROMPTS_AT_ONCE]
                )
                found += [
                    (split, some[: len(split.spans), i]) for i, split in enumerate(asked.splits)
                ]
        return found

    # ------------------------------------------------------------------------------------- privates

    def _explain(
        self, images: list[Image.Image], texts, against, first: int = 0
    ) -> list[Explanation]:
        """Explain B images of one size and P = B * T prompts, image by image; embeddings are numbered from `first`."""
        with self._isolated():
            asked = self._ask(texts, first)  # a wrong prompt is refused before anything is computed
            others = None if against is None else self._ask(against, first)
            views, trace = self._trace(images, self._wants_graph)
            own, trace = trace.embedding, self._explained(self.image_tower, trace)  # (B, E)
            each = len(texts) // len(images)
            beside = own.repeat_interleave(each, dim=0)  # (P, E)
            read = self._read(asked, beside)
            other = (
                None if others is None else self._read(others, beside, sign=-1)
            )  # the target falls as theirs rises
            targets = read.embedding if other is None else read.embedding - other.embedding
            empty = self._empty_prompt() if other is None else None
            maps = self._token_maps(
                trace, targets.unflatten(0, (len(images), each)), empty
            )  # (B, T, N)
            if self.method.image is not None:
                _warn_of_empty_maps(maps, trace.valid_mask, read.names, contrast=other is not None)
            image_explained = (
                trace.embedding[:, None] * read.embedding.unflatten(0, (len(images), each))
            ).sum(-1)
            nulls = self._null_similarities(own)  # (B, K)
        parts: dict = {
            "prompts": read.names,
            "similarity": _numpy(read.similarity),
            "words": tuple(read.words),
        }
        parts["image_maps"] = _numpy(_on_grid(maps, trace).flatten(0, 1))
        if other is not None:
            parts |= {"against": other.names, "against_similarity": _numpy(other.similarity)}
            parts["against_words"] = tuple(other.words)
        found = []
        for i, (image, view) in enumerate(zip(images, views, strict=True)):
            mine = {name: part[i * each : (i + 1) * each] for name, part in parts.items()}
            if nulls is not None:
                mine |= _places(mine["similarity"], _numpy(nulls[i]))
            words_explained = (
                read.explained[i * each : (i + 1) * each].tolist() if any(read.words) else None
            )
            provenance = self._provenance(
                {"image": image_explained[i].tolist(), "text": words_explained}
            )
            found.append(
                Explanation(image=image, box=self._box(view, trace), provenance=provenance, **mine)
            )
        return found

    def _read_image(self, image: ImageLike) -> Image.Image:
        read = read_image(image)
        if (
            self.clip.vocabulary is not None and DRAWN not in read.info
        ):  # of few words: trained on drawn scenes
            about = "and this image is not marked as one: on a photograph it can only guess"
            warn(f"the model {self.clip.name!r} was trained on drawn scenes alone, {about}")
        return read

    def _ask(self, prompts: list[str] | Tensor, first: int = 0) -> TokenizedPrompts:
        if isinstance(prompts, Tensor):
            return embeddings_as_prompts(prompts, self.image_tower.width, first)
        return tokenize(prompts, self.clip, self._opened_text_tower())

    def _read(self, asked: TokenizedPrompts, image: Tensor, sign: int = 1) -> _Read:
        """Embed P prompts, each for its image embedding (P, E), and score their words for `sign` * similarity."""
        if asked.embedding is not None:
            embedding = F.normalize(asked.embedding.to(image), dim=-1)
            similarity = (image * embedding).sum(-1)
            return _Read(asked.names, embedding, similarity, similarity, [()] * len(embedding))
        assert asked.ids is not None
        tower = self._opened_text_tower()
        embedding, explained = torch.empty_like(image), torch.empty_like(image[:, 0])
        words: list[tuple[Word, ...]] = [()] * len(image)
        order = tower.ends(asked.ids).argsort()  # a batch costs as much as its longest prompt
        for some in order.split(_PROMPTS_AT_ONCE):
            own = tower.trace(asked.ids[some], self._wants_graph and bool(asked.splits))
            trace, embedding[some] = self._explained(tower, own), own.embedding
            explained[some] = (trace.embedding * image[some]).sum(-1)
            if self.method.text is None or not asked.splits:
                continue
            word_ids = _word_ids([asked.splits[i] for i in some], trace.valid_mask)  # (B, N)
            fill = int(
                self.clip.tokenizer([""])[0, -1]
            )  # padding, which a prompt of full length does not hold
            offered = Options(seed=self.seed, word_ids=word_ids, fill=fill)
            scores = _run(self.method, tower, trace, sign * image[some, None], offered)[:, 0]
            for i, row, ids in zip(some, scores.cpu(), word_ids.cpu(), strict=True):
                split, inside = asked.splits[i], ids >= 0
                words[i] = split.words(ids[inside].bincount(row[inside], len(split.spans)).tolist())
        return _Read(asked.names, embedding, (image * embedding).sum(-1), explained, words)

    def _directions_of_words(
        self, captions: list[str]
    ) -> tuple[TokenizedPrompts, Tensor, Tensor, Tensor]:
        """Captions; their embeddings (B, E), the model's own and the explained one; directions of words (W, B, E)."""
        check_tokenizer(self.clip.tokenizer)
        tower, asked = self._opened_text_tower(), self._ask(as_prompts(captions))
        own = tower.trace(asked.ids)
        trace = self._explained(tower, own)
        masks = pad_sequence([word_masks(split, trace) for split in asked.splits])  # (W, B, N)
        return asked, own.embedding, trace.embedding, word_directions(tower, trace, masks)

    def _null_similarities(self, embedding: Tensor) -> Tensor | None:
        """Similarities (B, K) of images with the null captions, or None if the model cannot embed any."""
        model, embeds = (
            self.clip.model,
            self.text_tower is not None or hasattr(self.clip.model, "encode_text"),
        )
        if (
            not self.null_captions
            or not self.image_tower.unit
            or not callable(self.clip.tokenizer)
            or not embeds
        ):
            return None
        # not every change of weights counts as a new version: a few of each are read, and PEFT's
        # switches
        own, switches = [*model.parameters()], ("_active_adapter", "_disable_adapters", "scaling")
        few = [
            one[tuple(slice(None, None, max(1, n // 2)) for n in one.shape)].flatten()
            for one in own
        ]
        weights = (
            torch.cat([one.detach().to(own[0].device) for one in few])
            .float()
            .cpu()
            .numpy()
            .tobytes()
        )
        adapters = [str(vars(one).get(name)) for one in model.modules() for name in switches]
        versions, tokenizer = [one._version for one in own], id(self.clip.tokenizer)
        state = [*self.null_captions], tokenizer, self._parts, weights, versions, adapters
        if model not in _NULLS or _NULLS[model][0] != state:
            _NULLS[model] = state, self.embed_texts(self.null_captions)
        return embedding @ _NULLS[model][1].to(embedding).T

    def _directions(
        self, given: Tensor | np.ndarray | Sequence[Tensor], *shapes: tuple[int | str, ...]
    ) -> Tensor:
        """Directions of embedding space as one finite tensor; `shapes` are those that may stand before E."""
        try:
            if not isinstance(given, Tensor) and not (
                isinstance(given, np.ndarray) and given.dtype.kind in "fc"
            ):
                given = torch.stack([dense("each direction", one) for one in given])
        except (TypeError, ValueError, RuntimeError):  # texts, nothing, several lengths
            msg = f"directions must be floats of one length, as embed_texts gives them, got {short(given)}"
            raise GradeclipError(msg) from None
        found, allowed = (
            dense("directions", given),
            [(*shape, self.image_tower.width) for shape in shapes],
        )
        got = tuple(found.shape)
        fits = any(
            all(want in ("M", has) for want, has in zip_longest(shape, got)) for shape in allowed
        )
        if not fits or not found.numel() or not torch.isfinite(found).all():
            rule = " or ".join(f"({', '.join(map(str, shape))})" for shape in allowed)
            raise GradeclipError(f"directions must be {rule}, and finite, got {got}")
        return found

    def _token_maps(self, trace: Trace, directions: Tensor, empty: Tensor | None) -> Tensor:
        """Maps (B, T, N) by the method; zero if it has none for images."""
        if self.method.image is None:
            return torch.zeros(*directions.shape[:2], trace.valid_mask.shape[1])
        return _run(self.method, self.image_tower, trace, directions, Options(self.seed, empty))

    def _empty_prompt(self) -> Tensor | None:
        """The embedding (E,) of a prompt without words, for the method that subtracts it."""
        if not self.method.compares_targets or self.text_tower is None:
            return None
        return self.text_tower.forward(self.clip.tokenizer([""]).to(self.text_tower.device))[0]

    def _opened_text_tower(self) -> Tower:
        if self.text_tower is None:
            assert self.text_refusal is not None
            raise self.text_refusal
        return self.text_tower

    def _open(self) -> None:
        """Open both encoders, and note the modules, hooks and replaced methods that they were opened with."""
        self.image_tower = _opened(
            self.clip.model, "image", self._layers[0], self.clip.image_layers, self.method
        )
        self.text_tower: Tower | None = None
        self.text_refusal: UnsupportedModel | None = None
        try:
            self.text_tower = _opened(
                self.clip.model, "text", self._layers[1], self.clip.text_layers, self.method
            )
        except UnsupportedModel as refusal:
            self.text_refusal = refusal
        self._parts = _parts_of(self.clip.model)

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        """Compute without the caller's torch modes, one call at a time, and in one thread if the model is small."""
        with (
            _ONE_AT_A_TIME,
            isolated_torch_state(self.image_tower.device),
            one_thread(self.image_tower.small),
        ):
            if self._parts != _parts_of(self.clip.model):
                self._open()  # new towers compare themselves with the model
            yield

    @property
    def _images_at_once(self) -> int:
        """How many images make a batch: one if they differ in size, as native ones do, and all of NaFlex."""
        return 1 if self.resolution == "native" else _IMAGES_AT_ONCE

    def _batches(self, count: int) -> Iterator[slice]:
        return (slice(i, i + self._images_at_once) for i in range(0, count, self._images_at_once))

    def _trace(self, images: list[Image.Image], graph: bool = False) -> tuple[list[View], Trace]:
        views = [self._view(image) for image in images]
        pixels = torch.stack([view.pixels for view in views]).to(self.image_tower.device)
        return views, self.image_tower.trace(pixels, graph)

    def _explained(self, tower: Tower, trace: Trace) -> Trace:
        """The trace to explain: the model's own, or the one of a single head."""
        return tower.with_one_head(trace) if self.method.name == _ONE_HEAD else trace

    @property
    def _wants_graph(self) -> bool:
        """Whether the method takes channel weights of the trace itself; with one head it takes those of another."""
        return self.method.name.startswith("grad-eclip") and self.method.name != _ONE_HEAD

    def _view(self, image: Image.Image) -> View:
        tower = self.image_tower
        if self.resolution == "native":
            return native_view(self.clip.preprocess, image, tower.patch_size)
        view = model_view(self.clip.preprocess, image)
        if not tower.any_size and tuple(view.pixels.shape[1:]) != tuple(tower.image_size):
            given, wanted = (
                " x ".join(map(str, one)) for one in (view.pixels.shape[1:], tower.image_size)
            )
            raise GradeclipError(
                f"the preprocessing gives {given} pixels, and the model takes {wanted}"
            )
        return view

    def _box(self, view: View, trace: Trace) -> tuple[float, float, float, float]:
        """The place of a trace's patches in the image: no model reads beyond its last whole patch."""
        assert trace.grid is not None
        left, top, right, bottom = view.box
        sides = zip(trace.grid, self.image_tower.patch_size, view.pixels.shape[1:], strict=True)
        down, across = (rows * pixels / side for rows, pixels, side in sides)
        return left, top, left + across * (right - left), top + down * (bottom - top)

    def _provenance(self, one_head: dict) -> dict:
        """The origin of an explanation; with single-head attention also the similarities that it explains."""
        method, words = self.method, self.text_tower is not None and self.method.text is not None
        provenance: dict = {
            "model": self.clip.name,
            "pretrained": self.clip.pretrained,
            "method": method.title,
            "explains": method.explains,
            "attention": {"grad-eclip": "model", _ONE_HEAD: "single-head"}.get(method.name),
            "image_layers": None if method.image is None else self.image_tower.layers,
            "text_layers": self.text_tower.layers if words and self.text_tower else None,
            "resolution": self.resolution,
            "versions": dict(_VERSIONS),
        }
        if method.name == _ONE_HEAD:
            provenance["single_head_similarity"] = one_head
        return provenance


def _parts_of(model: torch.nn.Module) -> list[tuple]:
    """All modules, each with its hooks and whether its `forward` is its own."""
    return [
        (id(one), *one._forward_hooks, *one._forward_pre_hooks, "forward" in vars(one))
        for one in model.modules()
    ]


def _opened(
    model: torch.nn.Module, side: Side, layers: int | None, default: int | None, method: Method
) -> Tower:
    """The tower, with as many explained layers as the user or else the method asks for."""
    open_tower = open_image_tower if side == "image" else open_text_tower
    tower = open_tower(model)
    wanted = layers_to_explain(layers, default, method, tower.depth, side)
    if wanted == tower.layers:
        return tower
    try:
        return open_tower(model, wanted)
    except UnsupportedModel as refusal:
        raise UnsupportedModel(
            f"{method.title} explains {wanted} layers, and {refusal}"
        ) from refusal


def _as_images(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """One image or more; a single one, which would be taken for its own rows or letters, as a sequence of one."""
    if isinstance(images, (str, Path, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim == 3
    ):
        return [images]
    if isinstance(images, Iterator) and (first := list(islice(images, 1))):
        return chain(first, images)
    if not (found := listed("images", images)):
        raise GradeclipError("there are no images: give at least one")
    return found


def _matched(against: Prompts | None, count: int) -> list[str] | Tensor | None:
    """One prompt for each of `count` others, from one for all or one for each."""
    if against is None:
        return None
    prompts = as_prompts(against)
    if len(prompts) not in (1, count):
        raise GradeclipError(
            f"against must be one prompt, or one for each of {count}, got {len(prompts)}"
        )
    return (
        prompts.expand(count, -1)
        if isinstance(prompts, Tensor)
        else prompts * (count // len(prompts))
    )


def _strings(texts: str | Sequence[str]) -> list[str]:
    prompts = as_prompts(texts)
    if isinstance(prompts, Tensor):
        raise GradeclipError(f"prompts must be strings here, got embeddings {tuple(prompts.shape)}")
    return prompts


def _word_ids(splits: Sequence[Split], valid_mask: Tensor) -> Tensor:
    """The word of every token of some prompts, (B, N); -1 for SOT, EOT and padding."""
    word_ids = torch.full_like(valid_mask, -1, dtype=torch.long)
    for row, split in zip(word_ids, splits, strict=True):
        row[split.first :][: len(split.word_ids)] = torch.tensor(split.word_ids)
    return word_ids


def _run(
    method: Method, tower: Tower, trace: Trace, directions: Tensor, options: Options
) -> Tensor:
    """A method's finite maps (B, T, N) of images or prompts; with shape and values checked."""
    side, what = (method.text, "scores") if trace.grid is None else (method.image, "maps")
    assert side is not None
    shape = (*directions.shape[:2], trace.valid_mask.shape[1])
    found = side(tower, trace, directions, options)
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else short(found)
        raise GradeclipError(
            f"the method {method.name!r} must give {what} as a tensor {shape}, got {got}"
        )
    if not torch.isfinite(found).all():
        raise GradeclipError(
            f"the method {method.name!r} gives {what} that are NaN or infinite for this target"
        )
    return found


def _warn_of_empty_maps(
    maps: Tensor, valid_mask: Tensor, names: Sequence[str], contrast: bool = False
) -> None:
    """Warn if a map (B, T, N), of one name each, is zero at every valid token (B, N)."""
    empty = (maps.masked_fill(~valid_mask[:, None], 0.0) == 0).all(dim=-1).flatten().tolist()
    if said := [short(name, 40) for name, zero in zip(names, empty, strict=True) if zero]:
        some = ", ".join(said[:3]) + ", ..." * (len(said) > 3)
        which, it = (
            (f"the map of {some} is", "it")
            if len(said) == 1
            else (f"the maps of {some} are", "them")
        )
        cause = (
            "the two captions are the same"
            if contrast
            else f"nothing in the image speaks for or against {it}"
        )
        reason = f"{cause} to the model, or all patches look alike to it"
        warn(f"{which} zero everywhere: {reason}")


def _on_grid(maps: Tensor, trace: Trace) -> Tensor:
    assert trace.grid is not None
    height, width = trace.grid
    return maps[..., -height * width :].unflatten(-1, trace.grid)  # (..., N) -> (..., h, w)


def _places(similarity: np.ndarray, nulls: np.ndarray) -> dict:
    """The places (T,) of similarities among those of null captions, in percent; equal ones count half."""
    apart = similarity[:, None] - nulls
    below, equal = (apart > 1e-6).mean(1), (np.abs(apart) <= 1e-6).mean(1)
    percentile = 100 * (below + equal / 2)
    return {
        "percentile": percentile,
        "null_median": float(np.median(nulls)),
        "null_max": float(np.max(nulls)),
        "null_count": len(nulls),
    }


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
