"""Explain: images and prompts in, an `Explanation` out. The end of the line, and the door where input is checked.

    image, prompt -> tower -> trace -> method -> map -> Explanation -> figure

`Explainer` opens both encoders of a model once and explains as many images and prompts as you like. Nothing about
the model differs afterwards, whatever happens: no hook, no mode, no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .checks import chosen, listed, text, whole
from .encoders import GRAD_ECLIP, IMAGES_AT_ONCE, PROMPTS_AT_ONCE, Encoders, on_grid
from .errors import GradeclipError
from .explanation import Explanation, Interactions
from .files import version
from .images import ImageLike, read_image
from .methods.interactions import Group, word_masks
from .notices import is_drawn, warn, warn_of_empty_maps
from .prompts import Asked, Prompts, as_prompts, ask_embeddings, ask_strings, matched
from .towers.blocks import upcast
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
        progress: True shows a bar for the methods that take long, False none. By default a terminal shows one for what
            takes more than five seconds; a notebook, whose outputs are kept, shows none.
        attention: "model" explains the model's own similarity, through its own attention heads. "single-head" is the
            published variant: the explained encoder runs its explained layers with one head over the full width, the
            other encoder stays as it is. That explains another number; `provenance` reports it beside the model's own.
            It is the same as method="grad-eclip-single-head"; other methods keep the model's own heads.
        image_layers: how many of the last image layers are explained; by default as many as the method goes through,
            for Grad-ECLIP `clip.image_layers`, or one, as published. It sums over them.
        text_layers: the same for text; by default `clip.text_layers` for Grad-ECLIP, or two thirds (8 of 12).
        null_captions: the captions, or their embeddings (K, E), with which `Explanation.percentile` compares, 10 to
            10,000; by default "a photo of a NOUN" for some 300 common nouns, of those that the model knows. They are
            embedded once for a model.
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
            ValueError: there are not as many images as prompts; and what `explain` raises.
        """
        texts = as_prompts(texts)
        images = listed("images", images, (str, Path, Image.Image))
        if len(images) != len(texts):
            msg = f"pairs need as many pictures as prompts, got {len(images)} and {len(texts)}"
            raise GradeclipError(msg)
        against = None if against is None else matched(as_prompts(against), len(texts))
        explanations: list[Explanation] = []
        step = 1 if self.one_at_a_time else IMAGES_AT_ONCE
        for start in range(0, len(texts), step):
            some = slice(start, start + step)
            read = [self._read_image(image) for image in images[some]]
            explanations += self._explain(read, texts[some], None if against is None else against[some], start)
        return explanations

    def interactions(self, image: ImageLike, caption: str, by: str = "grad-eclip", **options) -> Interactions:
        """Which region does each word of the caption match? Word x region, see `methods.interactions`.

        A word's score is its first-order score, the same as from `explain`. To tell several things of one caption
        apart, take away what their words share: `interactions(...).centred()`. With single-head attention both encoders
        run with one head, and `provenance` reports the similarity that they give: under "image" that of both, whose
        maps these are, under "text" that of the prompt's with the model's own image embedding, whose scores they are.

        Args:
            image: as for `explain`.
            caption: one prompt of W words.
            by: "grad-eclip", "exclip" or "fixlip"; the last two keep the model's own heads and cost hundreds of
                forward passes, see `methods.second_order`.
            **options: of that method, such as `steps` of "exclip" and `masks` of "fixlip".

        Returns:
            Signed maps (W, h, w), one a word.

        Raises:
            ValueError: the method is not Grad-ECLIP, `by` is none of the three or has no such option; and as `explain`.
            TypeError: the caption is no string, or the tokenizer does not say which tokens make up a word.
        """
        from studies.rivals.second_order import INTERACTIONS, interactions, options_of

        if self.method.name not in GRAD_ECLIP:
            msg = f"interactions are Grad-ECLIP's own, and this Explainer's method is {self.method.name!r}"
            raise GradeclipError(msg)
        chosen("by", by, tuple(INTERACTIONS) if self.attention == "model" else ("grad-eclip",))
        takes, title = options_of(by), INTERACTIONS[by][0]
        ours = {name: getattr(self, name) for name in ("seed", "progress") if name in takes}
        if wrong := [name for name in options if name not in takes or name in ours]:
            has = ", ".join(name for name in takes if name not in ours) or "none"
            raise GradeclipError(f"{wrong[0]!r} is no option of {title}, which has {has}")
        read, caption = self._read_image(image), text("caption", caption)
        with self._isolated():
            check_tokenizer(self.clip.tokenizer)
            asked, tower, view = self._ask(as_prompts(caption)), self._opened_text_tower(), self._view(read)
            image_trace, own = self._trace_images([view])
            text_trace, said = self._both(tower, tower.trace(asked.ids))
            word_mask = word_masks(asked.splits[0], text_trace)  # (W, N)
            maps, directions = interactions(
                by, self.image_tower, image_trace, tower, text_trace, word_mask, **ours, **options
            )
            warn_of_empty_maps(maps[None], image_trace.valid_mask, "word maps are")
            scores = (directions @ own[0]).tolist()  # (W,)
            explained = [(one * text_trace.embedding).sum(-1).tolist() for one in (image_trace.embedding, own)]
        words = tuple(
            Word(caption[a:b], score, a, b) for (a, b), score in zip(asked.splits[0].spans, scores, strict=True)
        )
        provenance, grid = self._provenance(*explained), _numpy(on_grid(maps, image_trace))
        if by != "grad-eclip":
            provenance |= {"method": title, "image_layers": None, "text_layers": None}
        return Interactions(
            caption, words, grid, float((own * said).sum()), read, self._box(view, image_trace), provenance
        )

    def null_maps(self, image: ImageLike, prompt: str, count: int = 16) -> np.ndarray:
        """Maps of an image for prompts that are not about it: for `Explanation.prompt_dependence`.

            explainer.explain(image, prompt).prompt_dependence(explainer.null_maps(image, prompt))

        Args:
            image: as for `explain`.
            prompt: whose form they have, with other nouns (`language.with_other_nouns`, by this explainer's seed).
            count: how many; the last one is the empty prompt.

        Returns:
            (count, h, w) signed maps, each as `explain` gives it for its prompt alone.

        Raises:
            ValueError: fewer than two prompts, or a method without maps of images; and what `explain` raises.
        """
        from .language import with_other_nouns  # its taggers are slow to import, and most explanations do without

        if whole("count", count, 0, 10_000) < 2 or self.method.image is None:
            asked = f"got {count} and {self.method.title}"
            msg = f"null maps need two prompts or more and a method that explains images, {asked}"
            raise GradeclipError(msg)
        others = with_other_nouns(prompt, count - 1, known=self.clip.vocabulary, seed=self.seed)
        embeddings, view = self.embed_texts([*others, ""]), self._view(read_image(image))
        with self._isolated():
            trace = self._trace_images([view])[0]
            return _numpy(on_grid(self._maps_of_each(trace, embeddings), trace))

    def score_words(self, captions: Sequence[str], directions: Sequence[Tensor] | Tensor) -> list[tuple[Word, ...]]:
        """The words of P captions, with their scores for the targets embedding . direction: no image is needed.

            explainer.score_words(captions, explainer.embed_images(images))       # those of `explain_batch`

        Args:
            captions: P prompts.
            directions: (P, E), or P of (E,).

        Returns:
            P tuples of words; empty ones where the method is not defined for prompts.

        Raises:
            ValueError: there are not as many captions as directions; and what `explain` raises.
            TypeError: the tokenizer does not say which tokens make up a word.
        """
        prompts, targets = as_prompts(captions), self._directions(directions, "P")
        if len(prompts) != len(targets):
            raise GradeclipError(f"each caption needs its direction, got {len(prompts)} and {len(targets)}")
        with self._isolated():
            check_tokenizer(self.clip.tokenizer)
            asked, tower = self._ask(prompts), self._opened_text_tower()
            precision = upcast(next(tower.part.parameters())[:0])  # and device
            return list(self._read(asked, targets.detach().to(precision)).words)

    def metagame(self, image: ImageLike, caption: str, over: Sequence[Group] | None = None) -> Interactions:
        """How does each noun of the caption change the map? Word x region and word x word x region by Shapley values.

        For any method that has maps of images: the players' maps add up to the caption's map less that of the prompt
        without any of them. See `methods.metagame`.

            found = explainer.metagame(image, "a red car and a blue ball on grass")
            found.maps, found.pairs                                         # (3, h, w), (3, 3, h, w)

        Args:
            image: as for `explain`.
            caption: one prompt.
            over: the G players, each a tuple of words by index; `[(i,) for i in range(W)]` for every word. Words of no
                player stay in every prompt. By default each noun with the words before it (`noun_players`). Up to 8
                players values are exact, beyond that they are sampled, by `seed`, and there are no `pairs`.

        Returns:
            Maps (G, h, w) and scores of the players, which take the place of words. The scores are the Shapley values
            of the similarity.

        Raises:
            UnsupportedModel: the text encoder cannot be opened.
            ValueError: the method has no maps of images, the caption names nothing, or `over` holds a word twice.
            TypeError: the caption is no string, or the tokenizer does not say which tokens make up a word.
        """
        from studies.rivals.metagame import EXACT, shapley_weights

        if self.method.image is None:
            raise GradeclipError(f"{self.method.title} explains prompts only: it has no maps of images")
        read, caption = self._read_image(image), text("caption", caption)
        with self._isolated():
            spans, embeddings, weights = self._coalitions(caption, over)
            view = self._view(read)
            trace, own = self._trace_images([view])
            of_coalitions = self._maps_of_each(trace, embeddings)  # (C, N)
            maps, scores = on_grid(weights @ of_coalitions, trace), (weights @ embeddings @ own[0]).tolist()
            pairs, count = None, len(weights)
            if count <= EXACT:
                index = shapley_weights(count, order=2)[1].to(of_coalitions)
                pairs = np.zeros((count, *maps.shape), np.float32)  # zero on the diagonal
                pairs[np.triu_indices(count, 1)] = _numpy(on_grid(index @ of_coalitions, trace))
                pairs += pairs.swapaxes(0, 1)
            similarity, explained = (float(one[0] @ embeddings[-1]) for one in (own, trace.embedding))
        words = tuple(Word(caption[a:b], score, a, b) for (a, b), score in zip(spans, scores, strict=True))
        provenance = {**self._provenance([explained], None), "method": f"METAGAME of {self.method.title}"}
        return Interactions(caption, words, _numpy(maps), similarity, read, self._box(view, trace), provenance, pairs)

    def _read_image(self, image: ImageLike) -> Image.Image:
        read = read_image(image)
        if self.clip.vocabulary is not None and not is_drawn(read):  # what knows few words was trained on drawn scenes
            about = "and this image is not marked as one: at a photograph it can only guess"
            warn(f"the model {self.clip.name!r} was trained on drawn scenes alone, {about}")
        return read

    def _explain(self, images: list[Image.Image], texts, against: Prompts | None, first: int = 0) -> list[Explanation]:
        """B images that the model sees at one size, and P = B * T prompts, image by image."""
        with self._isolated():
            asked = self._ask(texts, first)  # what is wrong with a prompt is said before anything is computed
            others = None if against is None else self._ask(matched(as_prompts(against), len(texts)), first)
            views = [self._view(image) for image in images]
            trace, embedding = self._trace_images(views)
            each = len(texts) // len(views)
            own, explained = (part.repeat_interleave(each, dim=0) for part in (embedding, trace.embedding))  # (P, E)
            read = self._read(asked, own)
            other = None if others is None else self._read(others, own, sign=-1)  # the target falls as theirs rises
            directions = read.embedding if other is None else read.embedding - other.embedding
            empty = self._empty_prompt() if others is None else None
            maps = self._token_maps(trace, directions.unflatten(0, (len(views), each)), empty)  # (B, T, N)
            if self.method.image is not None:
                warn_of_empty_maps(maps, trace.valid_mask, "image maps are")
            maps, image_explained = on_grid(maps, trace), (explained * read.embedding).sum(-1).tolist()
            nulls = self._null_similarities(embedding)
        found = []
        for i, (image, view) in enumerate(zip(images, views, strict=True)):
            mine = slice(i * each, (i + 1) * each)
            places = {} if nulls is None else _places(_numpy(read.similarity[mine]), _numpy(nulls[i]))
            text_explained = read.explained[mine].tolist() if any(read.words) else None
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
            "versions": {name: version(name) for name in libraries},
        }
        if self.attention == "single-head":
            provenance["single_head_similarity"] = {"image": image_explained, "text": text_explained}
        return provenance


def _places(similarity: np.ndarray, nulls: np.ndarray) -> dict:
    """The places (T,) of similarities among those of null captions, in percent; equal ones count half."""
    apart = similarity[:, None] - nulls
    below, equal = (apart > 1e-6).mean(1), (np.abs(apart) <= 1e-6).mean(1)
    percentile = 100 * (below + equal / 2)
    return {"percentile": percentile, "null_median": float(np.median(nulls)), "null_count": len(nulls)}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
