"""Words: are the scores of a prompt's words right? A benchmark of explanations of text.

    captions, true and false --methods--> a score for each word --here--> one number a caption --statistics--> table

Four questions, of which no single one decides:

- **deletion, insertion**: does the similarity fall early when the highest words are taken out first, and rise early
  when they are put back first (`faithfulness.word_curves`)? Areas under the curves; low and high are good.
- **as leave-one-out**: rank correlation with what each word alone makes of the similarity when it is left out.
- **shown above zero, absent above zero**: the fraction of the nouns that the image shows, and of nouns that it does not
  show, whose score speaks for the image. A noun of several words has their sum.
- **shown above absent**: in a caption with one false noun, how often a true noun scores higher; chance is one half.

All scores come from the words in their caption, and all similarities from the unmodified model.

    python -m gradeclip_utils words --model emoji --n 200            # this benchmark; --layers for Grad-ECLIP's alone

And why are scores wrong where they are? `saturation` asks whether it is because gradients are taken where the
similarity has levelled off: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, on why
attributions should be integrated along a path.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from gradeclip_utils.checks import chosen, columns, instance, whole
from gradeclip_utils.checks import seed as checked_seed
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.faithfulness import areas, word_curves
from gradeclip_utils.measures.statistics import DRAWS, spearman, summarise
from gradeclip_utils.methods import METHODS
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.prompts import token_ids
from gradeclip_utils.scenes import SPLITS, concepts, draw_scene
from gradeclip_utils.towers import open_text_tower

from . import rivals  # noqa: F401, which registers its methods

Span = tuple[int, int]
MEASURES = (
    "deletion", "insertion", "as leave-one-out", "shown above zero", "absent above zero", "shown above absent",
)  # fmt: skip
_SEED = 94  # of the scenes


@dataclass(frozen=True)
class Captioned:
    """An image and a caption, of which it is known which nouns the image shows."""

    key: str  # the image's name; several captions may have one image
    image: Image.Image
    caption: str
    nouns: tuple[Span, ...]  # where each stands, `caption[start:end]`
    shown: tuple[bool, ...]  # for each noun, whether the image shows it

    @property
    def true(self) -> bool:
        """Whether the image shows every noun."""
        return all(self.shown)


def captioned_scenes(n: int, *, split: str = "development", seed: int = 0) -> list[Captioned]:
    """Scenes of two to four things, each with its own caption and with one noun exchanged for one that is not there."""
    n, seed = whole("n", n, 1), checked_seed(seed)
    found, place, names = [], 0, concepts()["noun"].tolist()
    while len(found) < 2 * n:
        rng = np.random.default_rng([_SEED, seed, place])
        scene = draw_scene([_SEED, seed, place], split=split, n_objects=int(rng.integers(2, 5)))
        place += 1
        spans = [span for span in scene.spans if span.kind == "noun"]
        single = [i for i, span in enumerate(spans) if scene.caption[span.start : span.end] in names]
        if len(spans) < 2 or not single:
            continue
        false = int(rng.choice(single))
        start, end = spans[false].start, spans[false].end
        vowel, there = scene.caption[start] in "aeiou", {thing.noun for thing in scene.objects}
        other = str(rng.choice([name for name in names if name not in there and (name[0] in "aeiou") == vowel]))
        shift = len(other) - (end - start)
        nouns = tuple((span.start, span.end) for span in spans)
        moved = tuple((a + shift * (a > start), b + shift * (a >= start)) for a, b in nouns)
        image, key = scene.image(), f"{split}/{seed}/{place - 1}"
        found.append(Captioned(key, image, scene.caption, nouns, (True,) * len(nouns)))
        caption = scene.caption[:start] + other + scene.caption[end:]
        found.append(Captioned(key, image, caption, moved, tuple(i != false for i in range(len(nouns)))))
    return found


def layer_methods(depth: int) -> dict[str, tuple[str, int | None]]:
    """Grad-ECLIP through one text layer, half of them, two thirds (as published) and all: rows of `text_methods`."""
    depth = whole("depth", depth, 1)
    parts = sorted({1, round(depth / 2), round(2 * depth / 3), depth} - {0})
    return {f"Grad-ECLIP, {layers} of {depth} layers": ("grad-eclip", layers) for layers in parts}


def text_methods(depth: int) -> dict[str, tuple[str, int | None]]:
    """The methods to compare: a name for tables -> a method of `METHODS` for prompts, and how many text layers."""
    others = (
        "integrated-attention", "metagame", "leave-one-out", "input-x-gradient", "integrated-gradients", "attention",
        "rollout",
    )  # fmt: skip
    return layer_methods(depth) | {METHODS[name].title: (name, None) for name in others}


def word_rows(
    clip: Clip, captions: Sequence[Captioned], methods: Mapping[str, tuple[str, int | None]] | None = None, *,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Measure the scores that methods give to the words of captions."""
    if not captions:
        raise GradeclipError("there are no captions to score: give at least one")
    asker = Explainer(clip)
    tower = asker.text_tower
    methods = text_methods(tower.depth if tower is not None else 1) if methods is None else methods
    for name, (method, _) in instance("methods", methods, Mapping, "a dictionary, as text_methods gives it").items():
        if METHODS[chosen("a method of words", method, METHODS)].text is None:
            raise GradeclipError(f"{name!r} is {METHODS[method].title}, which has no scores of words")
    images = _embeddings(asker, captions)
    ways = {name: (replace(METHODS[method], image=None), layers) for name, (method, layers) in methods.items()}
    rows, themselves = [], [name for name, (method, _) in methods.items() if method == "leave-one-out"]
    for i, (one, spans, scores, effects) in enumerate(_scored(clip, captions, images, ways, seed)):
        scores["Random"] = np.random.default_rng([seed, i]).normal(size=len(spans))
        own = _nouns(one, spans, scores)
        if one.true:
            own += _curves(asker, one, spans, scores, images[i], seed)
            agreed = {name: spearman(values, effects) for name, values in scores.items() if name not in themselves}
            own += [("as leave-one-out", name, value) for name, value in agreed.items() if np.isfinite(value)]
        rows += [(one.key, one.caption, *row) for row in own]
    return pd.DataFrame(rows, columns=["image", "caption", "measure", "method", "value"])


def _embeddings(asker: Explainer, captions: Sequence[Captioned]) -> list[Tensor]:
    """The embedding (E,) of each caption's image, which is read once however many captions it has."""
    images = {one.key: one.image for one in captions}
    embeddings = dict(zip(images, asker.embed_images(list(images.values())), strict=True))
    return [embeddings[one.key] for one in captions]


def _scored(clip: Clip, captions: Sequence[Captioned], images: list[Tensor], ways: Mapping, seed: int = 0):
    """Each caption with its words' spans, their scores (W,) by each of `ways` (method, layers), and when left out."""
    texts = [one.caption for one in captions]
    found = {
        name: Explainer(clip, method=method, text_layers=layers, seed=seed).score_words(texts, images)
        for name, (method, layers) in ways.items()
    }
    asked = next((name for name, (method, _) in ways.items() if method.name == "leave-one-out"), "")
    left_out = found[asked] if asked else Explainer(clip, method="leave-one-out").score_words(texts, images)
    for i, words in enumerate(left_out):
        scores = {name: np.array([word.score for word in own[i]]) for name, own in found.items()}
        yield captions[i], [(word.start, word.end) for word in words], scores, np.array([word.score for word in words])


def _nouns(one: Captioned, spans: Sequence[Span], scores: Mapping[str, np.ndarray]) -> list[tuple]:
    """Measure, method and value of what a caption's nouns score."""
    members = [[k for k, (a, b) in enumerate(spans) if a < end and b > start] for start, end in one.nouns]
    there = np.array(one.shown)
    found = []
    for name, values in scores.items():
        nouns = np.array([values[some].sum() for some in members])
        if one.true:
            found.append(("shown above zero", name, (nouns > 0).mean()))
        else:
            found.append(("absent above zero", name, (nouns[~there] > 0).mean()))
            if there.any():
                higher = np.sign(nouns[there][:, None] - nouns[~there]) / 2 + 0.5
                found.append(("shown above absent", name, higher.mean()))
    return found


def _curves(asker: Explainer, one: Captioned, spans: Sequence[Span], scores, image, seed: int) -> list[tuple]:
    """Measure, method and value of deletion and insertion; what several methods write is embedded once."""
    similarity, tower = {}, asker.text_tower
    assert tower is not None  # it gave the scores

    def score(captions: list[str]):
        """Similarities (B,) with the image."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in similarity]
        if new:
            ids = token_ids(asker.clip.tokenizer, new, tower)
            similarity.update(zip(new, (tower.trace(ids).embedding @ image).tolist(), strict=True))
        return image.new_tensor([similarity[caption] for caption in captions])

    curves = areas(word_curves(score, one.caption, scores, spans, seed=seed))
    return list(curves[["game", "method", "auc"]].itertuples(index=False, name=None))


# --------------------------------------------------------------------------------------------------------- saturation

ALONG_ATTENTION = ("loosened", "first order", "integrated")


def saturation(clip: Clip, captions: Sequence[Captioned]) -> pd.DataFrame:
    """How far the similarity has levelled off along the attention, and how wrong scores of words are, by caption."""
    true = [one for one in captions if one.true]
    if not true:
        raise GradeclipError("there are no true captions to score: give at least one")
    layers = clip.text_layers or open_text_tower(clip.model).layers
    own, rows = replace(METHODS["grad-eclip"], image=None), []
    first_order = replace(own, text=partial(grad_eclip, spatial="softmax"))
    asked = zip(ALONG_ATTENTION, (own, first_order, METHODS["integrated-attention"]), strict=True)
    ways = {name: (method, layers) for name, method in asked}
    for one, _, scores, effects in _scored(clip, true, _embeddings(Explainer(clip), true), ways):
        along, end = (np.abs(scores[name]).sum() for name in ("integrated", "first order"))
        errors = {name: 1 - float(spearman(values, effects)) for name, values in scores.items()}
        if along + end > 0 and np.isfinite(list(errors.values())).all():
            rows.append((one.key, one.caption, (along - end) / (along + end), *errors.values()))
    return pd.DataFrame(rows, columns=["image", "caption", "saturation", *ALONG_ATTENTION])


def error_by_saturation(rows: pd.DataFrame) -> pd.DataFrame:
    """Does the error of scores grow with saturation? Spearman's correlation over captions, with its interval."""
    columns(rows, ("saturation", *ALONG_ATTENTION))
    if not len(rows):
        raise GradeclipError("there are no captions of which a correlation could be had")
    picks = np.random.default_rng(0).integers(0, len(rows), (DRAWS, len(rows)))
    levels, table = rows["saturation"].to_numpy(), []
    for name in ALONG_ATTENTION:
        errors = rows[name].to_numpy()
        low, high = np.nanpercentile(spearman(levels[picks], errors[picks]), [2.5, 97.5])
        table.append((name, errors.mean(), float(spearman(levels, errors)), low, high, len(rows)))
    return pd.DataFrame(table, columns=["scores", "error", "value", "low", "high", "n"])


# ------------------------------------------------------------------------------------------------------------ command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `python -m gradeclip_utils words`."""
    parser.add_argument("--n", type=int, default=200, help="scenes, with a true and a false caption each; %(default)s")
    parser.add_argument("--split", default="development", choices=SPLITS, help="where they are from; %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes, and of methods that draw; %(default)s")
    parser.add_argument("--layers", action="store_true", help="Grad-ECLIP alone, by its number of text layers")


def run_command(options: argparse.Namespace) -> None:
    """Measure scores of words, and print every measure of every method with its interval."""
    whole("--n", options.n, 2)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    captions = captioned_scenes(options.n, split=options.split, seed=options.seed)
    methods = layer_methods(open_text_tower(clip.model).depth) if options.layers else None
    rows = word_rows(clip, captions, methods, seed=options.seed)
    print(f"{clip.name}: scores of the words of {len(captions)} captions of {options.n} {options.split} scenes\n")
    print(report(rows))
    if methods is not None:
        print(f"\nmost like leaving words out: {layers_chosen(rows)}")


def report(rows: pd.DataFrame) -> str:
    """A table for people, a row a method: means of all measures with their 95 % intervals over images.

    Args:
        rows: as `word_rows` gives them.
    """
    found = summarise(rows, "value", by=["measure", "method"])
    told = found.apply(lambda one: f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]", axis=1)
    table = found[["measure", "method"]].assign(told=told).pivot(index="method", columns="measure", values="told")
    order = list(dict.fromkeys(rows["method"]))
    return table.loc[order, [name for name in MEASURES if name in table]].fillna("").to_string()


def layers_chosen(rows: pd.DataFrame) -> str:
    """The method of `layer_methods` whose scores rank words most like leaving them out, by the mean over captions."""
    ranked = rows[(rows["measure"] == "as leave-one-out") & rows["method"].str.startswith("Grad-ECLIP")]
    return str(ranked.groupby("method")["value"].mean().idxmax())
