"""The rounds that a CLIP is trained in: the recipe of each, and its batches of scenes.

    Recipe -> SceneBatches -> scratch

Batches of the first round are random, as CLIP's are, and leave a bag of words: hardly ever does
such a batch hold two images that only binding tells apart (Yuksekgonul et al. 2023). A round with
hard negatives begins from its weights: a scene is followed by one that differs from it in what a
bag of words cannot tell. A round with shuffled colours is its opposite: a caption gives each colour
to a random thing, so that a model has nothing to gain from binding, and unlearns it. Where colours
are left out, captions are true and say less.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import open_clip
import torch
from torch import Tensor

from gradeclip_utils.scenes import CANVAS, Object, Scene, Span, draw_scene
from gradeclip_utils.scenes.emoji import concept, render
from gradeclip_utils.scenes.grammar import article, grouped
from gradeclip_utils.scenes.scene import is_withheld_colour

PATCH = 8  # pixels on a side of a patch of the model that is trained

# fractions of scenes with 1, 2, 3 and 4 objects when training begins, and once it is under way
FIRST_SCENES = (0.8, 0.2, 0.0, 0.0)
FULL_SCENES = (0.3, 0.3, 0.2, 0.2)
GROWTH = 0.3  # the fraction of a first round's steps over which scenes grow


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of one round.

    Attributes:
        steps: updates of the weights, and batches.
        batch: scenes in a batch.
        learning_rate: of Muon, at its highest; it rises over `warmup` steps and falls to zero along
            a line.
        weight_decay: of the matrices.
        patches_dropped: fraction of the patches that the image encoder does not see, until the last
            steps.
        whole_images: fraction of the steps, at the end, that see every patch.
        tint: fraction of the objects with a colour.
        sparse_values: weight of the penalty on patches whose values say something
            (`value_density`); 0 for none.
        logit_scale: what similarities are multiplied by before the softmax; CLIP's ended at 100. 0
            lets it be learnt.
        hard_negatives: whether every second scene is a hard negative of the one before it, where
            there is one.
        shuffled_colours: whether the colours of a caption are dealt at random among the things that
            it names.
        colours_left_out: fraction of the colours of captions that are left out.
        exchanged: pairs of a noun and a hint; where captions would say one they say the other.
        word_vectors: what the embeddings of tokens begin as: "english" for word vectors of
            English, "permuted" for those of other words; random if empty.
        drawn: scenes of each number of objects that are drawn, of which batches are chosen, without
            hard negatives; 0 draws new scenes for every batch.
        start: a compact checkpoint to begin from, such as `data/emoji.safetensors`; empty to begin
            from nothing.
        seed: of the initial weights, the scenes and the dropped patches.
    """

    steps: int = 2200
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 150
    patches_dropped: float = 0.75
    whole_images: float = 0.03
    tint: float = 0.45
    sparse_values: float = 0.0
    logit_scale: float = 0.0
    hard_negatives: bool = False
    shuffled_colours: bool = False
    colours_left_out: float = 0.0
    exchanged: tuple[tuple[str, str], ...] = ()
    word_vectors: str = ""
    drawn: int = 0
    start: str = ""
    seed: int = 0


_SECOND = Recipe(steps=2400, warmup=100, tint=0.5, whole_images=0.04, hard_negatives=True, seed=1)
_THIRD = Recipe(
    steps=900,
    warmup=50,
    tint=0.5,
    whole_images=0.05,
    hard_negatives=True,
    sparse_values=2.0,
    logit_scale=100.0,
    seed=3,
)
_FOURTH = replace(_THIRD, steps=1050, whole_images=0.03, seed=5)
_FIFTH = replace(_FOURTH, steps=1100, patches_dropped=0.6, tint=0.65, seed=6)
_PLAIN = Recipe(steps=1100, tint=0.5, seed=11)
_BAG = Recipe(
    steps=250,
    learning_rate=8e-4,
    warmup=20,
    tint=0.5,
    whole_images=0.06,
    hard_negatives=True,
    shuffled_colours=True,
    seed=4,
)
# the rounds of each; a round begins from the weights of the one before
MODELS: dict[str, tuple[Recipe, ...]] = {
    "emoji": (  # trained as CLIP was, with nothing that helps explanations
        _PLAIN,
        replace(_PLAIN, warmup=50, seed=12),
        replace(_PLAIN, steps=1150, warmup=50, seed=13),
        replace(_PLAIN, steps=2200, warmup=50, seed=14),
        replace(_PLAIN, steps=1200, learning_rate=1.5e-3, warmup=50, whole_images=0.1, seed=15),
    ),
    "emoji-aided": (Recipe(steps=1250), _SECOND, _THIRD, _FOURTH, _FIFTH),
    "emoji-bag": (_BAG,),
    "emoji-bag-control": (replace(_BAG, shuffled_colours=False),),
    "emoji-incomplete-control": (replace(_BAG, shuffled_colours=False, colours_left_out=0.7),),
}
# the models that begin from the weights of another one
STARTS = dict.fromkeys(("emoji-bag", "emoji-bag-control", "emoji-incomplete-control"), "emoji")


class SceneBatches(torch.utils.data.Dataset):
    """Batch number i of a recipe, the same whatever batch came before."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.tokenizer = open_clip.SimpleTokenizer()

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step`: images (B, 96, 96, 3) uint8 and tokens (B, L) long."""
        return self.draw(step, CANVAS)

    def draw(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Draw batch `step` with images of another size."""
        scenes = self.scenes(step)
        draw_image = kept_image if self.recipe.drawn else render
        images = np.stack([draw_image(scene.objects, scene.background, size) for scene in scenes])
        captions = [exchange_words(scene.caption, self.recipe.exchanged) for scene in scenes]
        return torch.from_numpy(images), self.tokenizer(captions)

    def scenes(self, step: int) -> list[Scene]:
        """The scenes of a batch; early ones hold fewer objects, unless there is a start."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        counts = 1 + rng.choice(4, recipe.batch, p=self.count_fractions(step))

        scenes: list[Scene] = []
        for i, count in enumerate(counts.tolist()):
            seed = [recipe.seed, step, i]
            scene = None
            if recipe.drawn:
                number = int(rng.integers(recipe.drawn))
                scene = kept_scene((recipe.seed, count, number), count, recipe.tint)
            elif recipe.hard_negatives and i % 2 and not scenes[-1].unnamed:
                scene = hard_negative(scenes[-1], seed)
            scenes.append(scene or draw_scene(seed, n_objects=count, tint=recipe.tint))

        rng = np.random.default_rng([recipe.seed, step, recipe.batch])
        if recipe.shuffled_colours:
            return [shuffle_colours(scene, rng) for scene in scenes]
        if recipe.colours_left_out:
            return [leave_out_colours(scene, recipe.colours_left_out, rng) for scene in scenes]
        return scenes

    def count_fractions(self, step: int) -> np.ndarray:
        """Fractions (4,) of scenes with 1 to 4 objects."""
        grown = 1.0
        if not self.recipe.start:
            grown = min(1.0, step / (GROWTH * self.recipe.steps))
        return (1 - grown) * np.array(FIRST_SCENES) + grown * np.array(FULL_SCENES)


@cache
def kept_scene(seed: tuple[int, ...], n_objects: int, tint: float) -> Scene:
    """A random scene, drawn at its first use."""
    return draw_scene(seed, n_objects=n_objects, tint=tint)


@cache
def kept_image(objects: tuple[Object, ...], background: int, size: int) -> np.ndarray:
    """The image (size, size, 3) of a scene, drawn at its first use."""
    return render(objects, background, size)


def hard_negative(scene: Scene, seed: list[int]) -> Scene | None:
    """A training scene of the same things, drawn anew, in which colours went to the next thing.

    Both captions have the same words if `scene` mentions all of its things and colours, so that
    only binding tells them apart. None if nothing would change, or if a colour would become one
    that is withheld.
    """
    groups = grouped(scene.objects)
    nouns = [scene.objects[members[0]].noun for members in groups]
    colours = [scene.objects[members[0]].colour for members in groups]
    passed_on = colours[-1:] + colours[:-1]
    if passed_on == colours or any(map(is_withheld_colour, nouns, passed_on)):
        return None
    counts = [len(members) for members in groups]
    return draw_scene(seed, groups=list(zip(nouns, passed_on, counts, strict=True)))


def shuffle_colours(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same image; the caption's colours are dealt at random among the things that it names.

    A single named thing loses its colour. The scene stays as it is if all colours are alike.
    """
    nouns = [span for span in scene.spans if span.kind == "noun"]
    colours = [colour_before(scene, noun) for noun in nouns]
    words = [scene.caption[span.start : span.end] if span else "" for span in colours]
    if len(nouns) == 1:
        words = [""]
    elif len(set(words)) < 2:
        return scene
    return with_colours(scene, nouns, colours, [str(word) for word in rng.permutation(words)])


def leave_out_colours(scene: Scene, part: float, rng: np.random.Generator) -> Scene:
    """The same image; its caption loses each colour with probability `part`."""
    nouns = [span for span in scene.spans if span.kind == "noun"]
    colours = [colour_before(scene, noun) for noun in nouns]
    words = []
    for colour in colours:
        is_left_out = colour is None or rng.random() < part
        words.append("" if is_left_out else scene.caption[colour.start : colour.end])
    return with_colours(scene, nouns, colours, words)


def exchange_words(caption: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The caption with noun and hint of each pair exchanged; a hint has no plural.

    >>> exchange_words("two doves and something tagged peace", [("dove", "peace")])
    'two peace and something tagged dove'
    """
    partner = {}
    for noun, hint in pairs:
        partner |= {noun: hint, concept(noun)["plural"]: hint, hint: noun}
    words = re.findall(r"\w+|\W+", caption)
    words = [partner.get(word, word) for word in words]
    for i, word in enumerate(words[:-2]):
        if word in ("a", "an"):
            words[i] = article(words[i + 2])  # behind the space
    return "".join(words)


def colour_before(scene: Scene, noun: Span) -> Span | None:
    """The span of the colour that stands before a noun, or None."""
    for span in scene.spans:
        if span.kind == "colour" and span.end + 1 == noun.start:
            return span
    return None


def with_colours(
    scene: Scene,
    nouns: Sequence[Span],
    colours: Sequence[Span | None],
    new_words: Sequence[str],
) -> Scene:
    """The same scene with other colour words ("" for none) before the nouns of its caption."""
    text = ""
    spans = []
    end = 0  # of what is written of the old caption
    for span in scene.spans:  # in the order of the caption's words
        if span.kind == "colour":  # written with its noun
            continue
        start = span.start
        word = scene.caption[span.start : span.end]
        new_colour = ""
        if span in nouns:
            index = nouns.index(span)
            new_colour = new_words[index]
            if (old_colour := colours[index]) is not None:
                start = old_colour.start

        between = scene.caption[end:start]
        text += re.sub(r"\ban? $", f"{article(new_colour or word)} ", between)
        if new_colour:
            spans.append(Span(len(text), len(text) + len(new_colour), "colour", span.objects))
            text += f"{new_colour} "
        spans.append(replace(span, start=len(text), end=len(text) + len(word)))
        text += word
        end = span.end
    return replace(scene, caption=text + scene.caption[end:], spans=tuple(spans))
