"""Word importance (lesson 04): which scores of a caption's words can you believe?

    captions with one false word -> does the false word score lowest?       (`false_word_hits`)
    captions -> exact Shapley values of their words                         (`shapley_values`)
    captions -> rank correlation of each method's scores with these         (`agreement`)
    captions -> how often a function word scores highest                    (`function_word_wins`)
    one caption -> its words' scores by each method, as a figure            (`plot_scores`)
    "a red dog" -> lam, its product with the gradient, layer by layer       (`score_parts`)
    "a dove tagged peace" -> two words that stand in for each other         (`redundancy`)

The Shapley value of a word is the mean, over all orders in which the words of a caption can be
added, of what the word adds to the similarity (Shapley 1953; Lundberg and Lee, NeurIPS 2017). A
caption of n words has 2^n parts, which are few and short, so the values are exact.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import islice

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradeclip_utils import METHODS, Explainer
from gradeclip_utils.methods.grad_eclip import (
    attention_gradient,
    channel_weights,
    spatial_weights,
)
from gradeclip_utils.models import Clip
from gradeclip_utils.plots.colours import to_rgb
from gradeclip_utils.plots.figures import fit_height, new_figure, show_image
from gradeclip_utils.scenes import COLOURS, Scene, concepts, draw_scene, phrase
from gradeclip_utils.words import split_read

from .lesson import FULL_WIDTH, different_things
from .matching import places_of, shown_scene, two_coloured, word_kinds
from .pairs import embed_scenes, images_of
from .relevance import as_array, embedded
from .rivals.metagame import shapley_weights

CONTENT = ("noun", "colour")  # the kinds of words that a caption can be false in
COMPARED = (
    "leave-one-out",
    "replace",
    "integrated-gradients",
    "input-x-gradient",
    "grad-eclip",
    "grad-eclip-softmax",
    "grad-eclip-no-spatial",
    "game",
    "rollout",
    "attention",
)


def words_of(caption: str) -> list[str]:
    """The words of a caption; a comma is one of them, as it is for an explainer."""
    return re.findall(r"\w+|[^\w\s]", caption)


def titles(methods: Sequence[str] = COMPARED) -> dict[str, str]:
    """The titles of methods by their names."""
    return {method: METHODS[method].title for method in methods}


def scores_by(
    clip: Clip,
    captions: Sequence[str],
    images: Sequence,
    methods: Sequence[str],
) -> dict[str, list[np.ndarray]]:
    """The scores of each caption's words beside its image: by method, an array (W,) a caption."""
    opened = Explainer(clip)
    embeddings = opened.embed_images(images)  # (captions, E)

    scores: dict[str, list[np.ndarray]] = {}
    for method in methods:
        explainer = opened.with_method(words=method)
        with redirect_stderr(StringIO()):  # a page of a lesson has no room for progress bars
            words_of_captions = explainer.score_words(captions, embeddings)
        scores[method] = []
        for words in words_of_captions:
            scores_of_words = [word.score for word in words]
            scores[method].append(np.array(scores_of_words))
    return scores


# --------------------------------------------------------------------------------- captions


def two_plain(n: int) -> list[Scene]:
    """The first `n` test scenes of two different things without colours: "a dog and a drum"."""
    return list(islice(different_things(82, n_objects=2, tint=0), n))


@dataclass(frozen=True)
class FalseCaption:
    """A scene, and its caption with one word exchanged for one that is not in the scene."""

    scene: Scene
    caption: str
    kind: str  # of the exchanged word: "noun" or "colour"
    index: int  # of the exchanged word


def false_captions(n: int) -> list[FalseCaption]:
    """Two false captions of each of the first `n` coloured test scenes: a noun, then a colour."""
    captions = []
    for number, scene in enumerate(two_coloured(n)):
        rng = np.random.default_rng([0, number])
        captions += [_with_false_word(scene, kind, rng) for kind in CONTENT]
    return captions


def _with_false_word(scene: Scene, kind: str, rng: np.random.Generator) -> FalseCaption:
    """Exchange one word of a kind for another of its kind that is not in the scene."""
    words = words_of(scene.caption)
    index = int(rng.choice(places_of(scene, kind)))

    if kind == "colour":
        present = {thing.colour for thing in scene.objects}
        world = COLOURS
    else:
        present = {thing.noun for thing in scene.objects}
        world = concepts().index
    candidates = [word for word in world if word not in present]
    words[index] = str(rng.choice(candidates))

    # the article stands before the colour: it fits the new one, so that no other word is false
    if kind == "colour" and words[index - 1] in ("a", "an"):
        noun = words[index + 1]
        article, *_ = phrase(noun, colour=words[index]).split()
        words[index - 1] = article
    return FalseCaption(scene, " ".join(words), kind, index)


# ----------------------------------------------------------------------------- the false word


def false_word_hits(
    clip: Clip,
    captions: Sequence[FalseCaption],
    methods: Sequence[str],
) -> pd.DataFrame:
    """Whether the false word scores lowest: one row per method and caption.

    Columns method, image, kind, lowest, below. `lowest`: of the caption's nouns and colours, shared
    among ties. A method that does not see the image is right in one of four, over both kinds
    together. `below`: below the true word of its kind, the other noun or colour, one half for a
    tie; chance is one half for each kind.
    """
    scenes = [caption.scene for caption in captions]
    images = images_of(clip, scenes)
    numbers = {scene: number for number, scene in enumerate(dict.fromkeys(scenes))}
    texts = [caption.caption for caption in captions]
    by_method = scores_by(clip, texts, images, methods)

    rows = []
    for method, scores_of_captions in by_method.items():
        for caption, scores in zip(captions, scores_of_captions, strict=True):
            scene = caption.scene
            content = places_of(scene, *CONTENT)
            lowest = scores[content].min()
            is_lowest = scores[caption.index] == lowest
            ties = (scores[content] == lowest).sum()

            (true_place,) = set(places_of(scene, caption.kind)) - {caption.index}
            lead = scores[true_place] - scores[caption.index]
            row = {
                "method": method,
                "image": numbers[scene],
                "kind": caption.kind,
                "lowest": is_lowest / ties,
                "below": np.heaviside(lead, 0.5),
            }
            rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------ Shapley values


def coalition_similarities(explainer: Explainer, caption: str, image: np.ndarray) -> np.ndarray:
    """Similarities (2^n,) of an image (E,) with every part of a caption of n words.

    Bit j of an index says whether word j is in the part: index 0 is the empty prompt, and the last
    index is the whole caption.
    """
    words = words_of(caption)
    parts = []
    for coalition in range(2 ** len(words)):
        part = [word for j, word in enumerate(words) if coalition >> j & 1]
        parts.append(" ".join(part))
    return embedded(explainer, parts) @ image


def shapley_values(similarities: np.ndarray) -> np.ndarray:
    """Shapley values (n,) of n words from the similarities (2^n,) of all parts of a caption."""
    n = len(similarities).bit_length() - 1
    _, weights = shapley_weights(n)  # (n, 2^n)
    return weights.numpy() @ similarities


def _word_table(scene: Scene, number: int) -> pd.DataFrame:
    """The words of a scene's caption: columns image, index, word, kind."""
    words = words_of(scene.caption)
    columns = {
        "image": number,
        "index": range(len(words)),
        "word": words,
        "kind": word_kinds(scene),
    }
    return pd.DataFrame(columns)


def shapley_table(clip: Clip, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Exact Shapley values of words: columns image, index, word, kind, shapley."""
    explainer = Explainer(clip)
    embeddings = as_array(embed_scenes(explainer, scenes))
    tables = []
    for number, scene in enumerate(scenes):
        similarities = coalition_similarities(explainer, scene.caption, embeddings[number])
        words = _word_table(scene, number)
        tables.append(words.assign(shapley=shapley_values(similarities)))
    return pd.concat(tables, ignore_index=True)


def score_table(
    clip: Clip,
    scenes: Sequence[Scene],
    methods: Sequence[str],
    *,
    shown: Sequence[Scene] | None = None,
) -> pd.DataFrame:
    """Scores of words by each method: columns image, index, word, kind, method, score.

    `shown` gives each caption another image than its own, as a control.
    """
    images = images_of(clip, scenes if shown is None else shown)
    captions = [scene.caption for scene in scenes]
    by_method = scores_by(clip, captions, images, methods)

    tables = []
    for method, scores_of_captions in by_method.items():
        for number, scene in enumerate(scenes):
            words = _word_table(scene, number)
            tables.append(words.assign(method=method, score=scores_of_captions[number]))
    return pd.concat(tables, ignore_index=True)


def agreement(scores: pd.DataFrame, shapley: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of scores with Shapley values within each caption.

    Columns method, image, correlation. It is NaN where all words of a caption score the same.
    """
    joined = scores.merge(shapley[["image", "index", "shapley"]], on=["image", "index"])
    rows = []
    for (method, image), words in joined.groupby(["method", "image"], sort=False):
        correlation = words["score"].corr(words["shapley"], method="spearman")
        rows.append({"method": method, "image": image, "correlation": correlation})
    return pd.DataFrame(rows)


def function_word_wins(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether a function word scores highest in its caption: columns method, image, wins."""
    captions = scores.groupby(["method", "image"], sort=False)
    highest = scores.loc[captions["score"].idxmax()].reset_index(drop=True)
    wins = highest["kind"] == "function"
    return highest[["method", "image"]].assign(wins=wins)


# --------------------------------------------------------------------------- the first figure


def shown_caption(captions: Sequence[FalseCaption]) -> FalseCaption:
    """The false caption of the first scene in which no thing is cut or small, or called a map."""
    scene = shown_scene([caption.scene for caption in captions])
    return next(caption for caption in captions if caption.scene == scene)


def plot_scores(clip: Clip, caption: FalseCaption, methods: Sequence[str] = COMPARED) -> Figure:
    """The image, and below each word of its caption the word's score by each method.

    Each row has its own scale; the first one has the exact Shapley values.
    """
    rows = _scores_of_rows(clip, caption, methods)
    words = caption.caption.split()
    side = 2.1  # inches of the image
    names = 2.2  # of the methods' names
    height = max(0.24 * len(rows), side)
    alt = f"Word scores by {', '.join(rows)}: {caption.caption}"
    figure = new_figure(FULL_WIDTH, height + 0.4, alt, layout="constrained")
    widths = [side, FULL_WIDTH - side - names]
    image_axes, axes = figure.subplots(1, 2, width_ratios=widths)
    show_image(image_axes, caption.scene.image())

    scaled = []
    for scores in rows.values():
        largest = np.abs(scores).max()
        scaled.append(scores / max(largest, 1e-12))
    axes.imshow(to_rgb(np.array(scaled)), aspect="auto")
    axes.set_xticks(range(len(words)), words, fontsize=10)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)

    column_borders = np.arange(len(words) - 1) + 0.5
    row_borders = np.arange(len(rows) - 1) + 0.5
    axes.set_xticks(column_borders, minor=True)
    axes.set_yticks(row_borders, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    fit_height(figure, [(axes, height)])
    return figure


def _scores_of_rows(
    clip: Clip,
    caption: FalseCaption,
    methods: Sequence[str],
) -> dict[str, np.ndarray]:
    """The rows of the figure by title: exact Shapley values, and scores by each method."""
    images = images_of(clip, [caption.scene])
    explainer = Explainer(clip)
    (embedding,) = as_array(explainer.embed_images(images))
    similarities = coalition_similarities(explainer, caption.caption, embedding)
    rows = {"Exact Shapley values": shapley_values(similarities)}

    by_method = scores_by(clip, [caption.caption], images, methods)
    for method, (scores,) in by_method.items():
        rows[METHODS[method].title] = scores
    return rows


# --------------------------------------------------------------------- the parts of a score


@torch.no_grad()
def score_parts(explainer: Explainer, image, prompt: str) -> pd.DataFrame:
    """The parts of Grad-ECLIP's scores: columns layer, word, lam, gradient, product.

    A word's products add up to its score. `gradient` is w . v = dS/d alpha, summed over heads. A
    word of several tokens has the mean of their lam and the sums of the others. Layers are counted
    from the last, which is 1.
    """
    tower = explainer.with_method(words="grad-eclip").text_tower
    split = split_read(prompt, explainer.clip.tokenizer, tower)
    word_ids = np.array(split.word_ids)  # the word of each token
    direction = explainer.embed_images(image)[None]  # (1, 1, E)
    tokens = explainer.clip.tokenizer([prompt]).to(tower.device)
    trace = tower.trace(tokens, graph="query_graph")
    weights = channel_weights(tower, trace, direction)  # (1, 1, L, R, D)

    rows = []
    for position, layer in enumerate(trace.layers):
        lam = spatial_weights(layer, trace.valid_mask)[0, :, 0]  # (H, N)
        gradients = attention_gradient(weights[:, 0, position], layer.v)  # (1, H, R, N)
        gradient = gradients[0, :, 0]
        for index, (start, end) in enumerate(split.spans):
            tokens_of_word = split.first + np.flatnonzero(word_ids == index)
            lam_of_word = lam[:, tokens_of_word]
            gradient_of_word = gradient[:, tokens_of_word]

            row = {
                "layer": len(trace.layers) - position,
                "word": prompt[start:end],
                "lam": float(lam_of_word.mean()),
                "gradient": float(gradient_of_word.sum()),
                "product": float((lam_of_word * gradient_of_word).sum()),
            }
            rows.append(row)
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------- redundancy


def _tagged_scenes() -> Iterator[tuple[str, str, Scene]]:
    """Test scenes of one thing that has a keyword: the noun, its rarest keyword, the scene."""
    keywords_of_noun = concepts()["keywords"]
    nouns_of_keyword = keywords_of_noun.explode().value_counts()
    for number, (noun, keywords) in enumerate(keywords_of_noun.items()):
        if keywords:
            keyword = min(keywords, key=lambda word: nouns_of_keyword[word])
            scene = draw_scene([83, number], split="test", groups=[(noun, None, 1)])
            yield noun, keyword, scene


def redundancy(clip: Clip, n: int) -> pd.DataFrame:
    """What "a dove tagged peace" loses without the noun, without the keyword, and without both.

    One row a scene: columns noun, keyword, without_noun, without_keyword, without_both, all in
    similarity. Two words are redundant where the last is more than the sum of the first two.
    """
    explainer = Explainer(clip)
    tagged = list(islice(_tagged_scenes(), n))
    scenes = [scene for _, _, scene in tagged]
    embeddings = as_array(embed_scenes(explainer, scenes))

    rows = []
    for (noun, keyword, _), embedding in zip(tagged, embeddings, strict=True):
        captions = [
            f"{phrase(noun)} tagged {keyword}",
            f"something tagged {keyword}",
            phrase(noun),
            "something",
        ]
        whole, no_noun, no_keyword, neither = embedded(explainer, captions) @ embedding
        row = {
            "noun": noun,
            "keyword": keyword,
            "without_noun": whole - no_noun,
            "without_keyword": whole - no_keyword,
            "without_both": whole - neither,
        }
        rows.append(row)
    return pd.DataFrame(rows)
