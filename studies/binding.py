"""Attribute binding (lesson 06): does a model know which object is red, and do its maps show it?

    pairs -> embeddings -> right answers            (`pairs.judge`)
    pairs, colour words -> maps -> the thing they lie on
    pairs, tokens of one image in the other -> where the binding lies, layer by layer
    embeddings of pairs -> a linear map of text embeddings that binds

    python -m studies.binding runs/emoji-*-control.safetensors    # data/binding_control.csv

The linear map is LABCLIP's (Koishigarina, Uselis and Oh, "CLIP Behaves like a Bag-of-Words Model
Cross-modally but not Uni-modally", arXiv 2502.03566).
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from torch import Tensor
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.figures import (
    FULL_WIDTH,
    PALETTE,
    fit_height,
    new_figure,
    show_image,
)
from gradeclip_utils.runtime import isolated_torch_state
from gradeclip_utils.scenes import COLOURS, Scene, Span, showable
from gradeclip_utils.towers import Tower, open_image_tower

from .pairs import Embedded, Pair, draw_pairs, images_of, judge, maps_of, right_interval
from .relevance import AT_ONCE, as_array, direction_of, object_coverage, pixels_of

WORDS = ("true caption", "false caption", "absent colour", "rather than absent")
TOKEN_SETS = ("both objects", "one object", "background", "random patches", "class token")
_DRAWS = 1000  # bootstrap samples


# ---------------------------------------------------------------------------------------- questions


class Question(NamedTuple):
    """What a map is drawn for: a word of a caption, or a caption less the mean of other ones."""

    caption: str
    start: int = 0  # of the word
    end: int = 0
    subtracted: tuple[str, ...] = ()  # captions; then the question is about no word


def _about_word(caption: str, span: Span) -> Question:
    return Question(caption, span.start, span.end)


def _about_colour(pair: Pair, side: int, colour: str) -> Question:
    """The question about the word of a colour in caption 0 or 1 of a pair."""
    caption = pair.scenes[side].caption
    spans = pair.words(side)
    (span,) = [span for span in spans if caption[span.start : span.end] == colour]
    return _about_word(caption, span)


def _question(kind: str, pair: Pair, side: int, thing: int) -> Question:
    """The question of one of `WORDS` about the colour of a thing in image 0 or 1 of a pair."""
    objects = pair.scenes[side].objects
    colour = str(objects[thing].colour)
    if kind == "false caption":  # where the same word stands in the caption of the other image
        return _about_colour(pair, 1 - side, colour)

    true = _about_colour(pair, side, colour)
    if kind == "true caption":
        return true

    present = {object_.colour for object_ in objects}
    variants = [
        with_word(true.caption, true.start, true.end, absent)
        for absent in COLOURS
        if absent not in present
    ]
    if kind == "rather than absent":
        captions = tuple(caption for caption, _, _ in variants)
        return Question(true.caption, subtracted=captions)
    number = (len(pair.name) + thing) % len(variants)
    return Question(*variants[number])


def _questions(pairs: Sequence[Pair]) -> list[Question]:
    """The questions of all `WORDS` about both things in both images of pairs, in this order."""
    questions = []
    for pair in pairs:
        for side in (0, 1):
            for thing in pair.asked:
                questions += [_question(word, pair, side, thing) for word in WORDS]
    return questions


def with_word(caption: str, start: int, end: int, word: str) -> tuple[str, int, int]:
    """A caption with one word exchanged, its article agreeing, and where the new word stands."""
    article = r"\1n " if word[0].lower() in "aeiou" else r"\1 "
    before = re.sub(r"\b(a)n? $", article, caption[:start], flags=re.I)
    place = len(before)
    return before + word + caption[end:], place, place + len(word)


def _directions(explainer: Explainer, questions: Sequence[Question]) -> Tensor:
    """The direction (N, E) of each question; each caption is read once."""
    captions = []  # in which a word is asked about
    texts = []  # of differences
    for question in questions:
        if question.subtracted:
            texts += [question.caption, *question.subtracted]
        else:
            captions.append(question.caption)

    captions = list(dict.fromkeys(captions))
    words = dict(zip(captions, explainer.word_directions(captions), strict=True))
    embeddings: dict[str, Tensor] = {}
    if texts:
        texts = list(dict.fromkeys(texts))
        embeddings = dict(zip(texts, explainer.embed_texts(texts), strict=True))

    directions = []
    for caption, start, end, subtracted in questions:
        if subtracted:
            subtrahends = torch.stack([embeddings[text] for text in subtracted])
            direction = embeddings[caption] - subtrahends.mean(0)
        else:
            direction = direction_of(*words[caption], start, end)
        directions.append(direction)
    return torch.stack(directions)


def direction_norms(explainer: Explainer, pairs: Sequence[Pair]) -> pd.Series:
    """The mean length of the directions of each of `WORDS`, in units of an embedding's length."""
    norms = _directions(explainer, _questions(pairs)).norm(dim=-1)
    norms = norms.unflatten(0, (-1, len(WORDS)))  # (sides and things, words)
    return pd.Series(as_array(norms.mean(0)), index=WORDS)


# --------------------------------------------------------------------------------------------- maps


def word_maps(explainer: Explainer, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Where the maps of colour words lie in pairs with swapped colours.

    One row per image, thing and word.

    Each of the two things gives its colour word: as the true caption has it, as the false caption
    has it (beside the other thing), and a colour that is nowhere in the image in its place.
    "rather than absent" is the map of the true caption less the mean of those with an absent colour
    in the word's place. `index` is the fraction of the positive relevance on the two things, each
    per area, that lies on the thing; .5 where there is none.
    """
    sides = [(pair, side) for pair in pairs for side in (0, 1)]
    scenes = [pair.scenes[side] for pair, side in sides]
    directions = _directions(explainer, _questions(pairs))
    directions = directions.unflatten(0, (len(sides), -1))  # (sides, things and words, E)
    maps = maps_of(explainer, scenes, directions)
    grid = maps.shape[2:]
    maps = maps.reshape(len(sides), 2, len(WORDS), *grid)  # (sides, things, words, h, w)

    rows = []
    for i, (pair, side) in enumerate(sides):
        coverage = object_coverage(explainer, scenes[i], grid)
        for k, thing in enumerate(pair.asked):
            second = pair.asked[1 - k]
            for word, map_ in zip(WORDS, maps[i, k], strict=True):
                row = {
                    "pair": pair.name,
                    "side": side,
                    "thing": thing,
                    "word": word,
                    "index": _index(map_, coverage[thing], coverage[second]),
                }
                rows.append(row)
    table = pd.DataFrame(rows)
    lead = table["index"] - 0.5
    return table.assign(right=np.heaviside(lead, 0.5))


def _index(map_: np.ndarray, thing: np.ndarray, second: np.ndarray) -> float:
    """Mean positive relevance on a thing over the sum of the means on it and on a second one."""
    heat = np.maximum(map_, 0)
    on_thing = (heat * thing).sum() / thing.sum()
    on_second = (heat * second).sum() / second.sum()
    if on_thing + on_second == 0:
        return 0.5
    return float(on_thing / (on_thing + on_second))


class _Vote(NamedTuple):
    """An image with the map of one colour word by models A and B, and the word's object."""

    scene: Scene
    word: str
    noun: str
    maps: list[np.ndarray]
    indices: list[float]  # of each map, as in `word_maps`


def plot_vote(clips: Mapping[str, Clip], pairs: Sequence[Pair]) -> Figure:
    """Maps of one colour word by the first and the last model, A and B, for two pairs.

    They are the first pairs whose things are whole and large, and whose maps are not empty. The bar
    below a map is its index, as in `word_maps`.
    """
    first, *_, last = clips.values()
    candidates = [pair for pair in pairs if showable(pair.scenes[0])]
    votes = []
    for pair in candidates[:12]:
        vote = _vote((first, last), pair)
        if all((map_ > 0).any() for map_ in vote.maps):
            votes.append(vote)
        if len(votes) == 2:
            break

    side = FULL_WIDTH / 3 - 0.08  # inches of a map, and of the bar below it:
    bar_height = 0.1
    heights = [side, bar_height] * len(votes)
    height = sum(heights) + len(votes)
    alt = "; ".join(_describe_vote(vote) for vote in votes)
    figure = new_figure(FULL_WIDTH, height, alt, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05, wspace=0, hspace=0)
    grid = figure.add_gridspec(len(heights), 3, height_ratios=heights)

    rows = []
    for i, vote in enumerate(votes):
        map_axes, bar = _draw_vote(figure, grid, 2 * i, vote)
        rows += [(map_axes, side), (bar, bar_height)]
    fit_height(figure, rows)
    return figure


def _draw_vote(figure: Figure, grid: GridSpec, row: int, vote: _Vote) -> tuple[Axes, Axes]:
    """An image and the maps of its word by A and B, and in the next row the maps' indices.

    Gives the axes of one map and of its index.
    """
    image = vote.scene.image()
    image_axes = figure.add_subplot(grid[row, 0])
    show_image(image_axes, image)

    models = zip("AB", vote.maps, vote.indices, strict=True)
    for column, (letter, map_, index) in enumerate(models, start=1):
        map_axes = figure.add_subplot(grid[row, column])
        bar = figure.add_subplot(grid[row + 1, column])
        show_image(map_axes, paint(image, np.maximum(map_, 0)))
        map_axes.set_title(f"{letter}: {vote.word}", fontsize=10, loc="left", pad=3)
        _draw_index(bar, index, f"on the {vote.noun}")
    return map_axes, bar


def _vote(clips: Sequence[Clip], pair: Pair) -> _Vote:
    """The maps of the first colour word in the caption of a pair's first image."""
    scene = pair.scenes[0]
    span = pair.words(0)[0]
    (thing,) = span.objects
    (second,) = set(pair.asked) - {thing}
    question = _about_word(scene.caption, span)

    maps = []
    indices = []
    for clip in clips:
        explainer = Explainer(clip)
        directions = _directions(explainer, [question])  # (1, E)
        map_ = maps_of(explainer, [scene], directions)[0, 0]
        coverage = object_coverage(explainer, scene, map_.shape)
        maps.append(map_)
        indices.append(_index(map_, coverage[thing], coverage[second]))

    word = scene.caption[span.start : span.end]
    noun = scene.objects[thing].noun
    return _Vote(scene, word, noun, maps, indices)


def _draw_index(axes: Axes, index: float, label: str) -> None:
    """A bar from 0 to 1, with a tick where both objects get as much."""
    axes.barh(0, 1, height=1, color="0.92")
    axes.barh(0, index, height=1, color=PALETTE[0])
    axes.axvline(0.5, color="0.3", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    axes.set_axis_off()
    text = f"{label} {index:.2f}".replace(" 0.", " .")
    axes.text(0, -0.8, text, fontsize=9, va="top")


def _describe_vote(vote: _Vote) -> str:
    a, b = vote.indices
    part = f"part of the map of {vote.word} on the {vote.noun}"
    return f"{vote.scene.caption}: {part}, A: {a:.2f}, B: {b:.2f}"


def answers_by_maps(rows: pd.DataFrame) -> pd.Series:
    """Which caption its maps prefer: 1 for the true one, 0 for the false one, .5 for neither.

    A caption is preferred if its words lie more on the things that it gives the colours to.
    """
    means = rows.pivot_table("index", ["pair", "side"], "word", sort=False)
    lead = means["true caption"] + means["false caption"] - 1
    return np.heaviside(lead.round(6), 0.5)


# ----------------------------------------------------------------------------------------- patching


def patch_colours(clip: Clip, pairs: Sequence[Pair]) -> pd.DataFrame:
    """How much of an exchange of two colours a set of tokens carries, layer by layer.

    The tokens of the first image of a pair enter a layer, except those of a set, which come from
    the second image. The *lead* is the similarity to the caption of the first image less that to
    the other caption. Both captions have the same words, so the lead depends on the binding alone.

    The technique is activation patching (Meng et al., "Locating and Editing Factual Associations in
    GPT", NeurIPS 2022).

    Returns:
        One row per pair, layer (which the tokens enter, from 1) and set of `TOKEN_SETS` that the
        model has (tokens), with `fall`, how far the lead falls, and `whole`, how far it falls when
        all tokens are exchanged. Random patches are as many as those of one object, and show no
        object.
    """
    rng = np.random.default_rng(0)
    per_batch = AT_ONCE // 2
    tables = []
    for start in range(0, len(pairs), per_batch):
        batch = pairs[start : start + per_batch]
        tables.append(_patch_batch(clip, batch, rng))
    return pd.concat(tables, ignore_index=True)


def _patch_batch(clip: Clip, pairs: Sequence[Pair], rng: np.random.Generator) -> pd.DataFrame:
    """The rows of `patch_colours` of a few pairs, whose images are traced together."""
    explainer = Explainer(clip)
    scenes = [pair.scenes[side] for side in (0, 1) for pair in pairs]
    captions = [scene.caption for scene in scenes]
    first_texts, second_texts = explainer.embed_texts(captions).split(len(pairs))
    contrast = first_texts - second_texts  # (P, E)

    tower = _whole_tower(clip)
    pixels = pixels_of(clip, images_of(clip, scenes))
    first_pixels, second_pixels = pixels.split(len(pairs))
    rows = []
    with isolated_torch_state(tower.device), torch.no_grad():
        second = tower.trace(second_pixels)
        trace = tower.trace(first_pixels)
        lead = (trace.embedding * contrast).sum(-1)  # (P,)
        second_lead = (second.embedding * contrast).sum(-1)
        whole = as_array(lead - second_lead)

        tokens = trace.tokens  # (P, N, D)
        second_tokens = second.tokens
        sets = _token_sets(explainer, pairs, trace.grid, tokens.shape[1], rng)
        for layer in range(tower.first, tower.depth):
            for name, is_exchanged in sets.items():
                mask = torch.from_numpy(is_exchanged).to(tokens.device)  # (P, N)
                mixed = torch.where(mask[..., None], second_tokens, tokens)
                embedding = tower.forward_from(trace, layer, mixed)
                mixed_lead = (embedding * contrast).sum(-1)
                table = {
                    "pair": [pair.name for pair in pairs],
                    "layer": layer + 1,
                    "tokens": name,
                    "fall": as_array(lead - mixed_lead),
                    "whole": whole,
                }
                rows.append(pd.DataFrame(table))
            if layer < tower.depth - 1:
                tokens = tower.run_block(trace, layer, tokens)
                second_tokens = tower.run_block(second, layer, second_tokens)
    return pd.concat(rows)


def _whole_tower(clip: Clip) -> Tower:
    """The image tower with all layers; with the last one if that is an attention pool."""
    tower = open_image_tower(clip.model)
    if tower.blocks[-1].latent:
        return tower
    return open_image_tower(clip.model, tower.depth)


def _token_sets(
    explainer: Explainer,
    pairs: Sequence[Pair],
    grid: tuple[int, int],
    token_count: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Which tokens (P, N) of both images of each pair belong to each of `TOKEN_SETS`.

    A patch belongs to an object of which it shows a part. A model without a class token lacks that
    set.
    """
    first_patch = token_count - grid[0] * grid[1]
    shape = (len(pairs), token_count)
    sets = {name: np.zeros(shape, dtype=bool) for name in TOKEN_SETS}
    for i, pair in enumerate(pairs):
        coverage = object_coverage(explainer, pair.scenes[0], grid)  # (objects, h, w)
        is_covered = coverage.reshape(len(coverage), -1) > 0  # (objects, patches)
        objects = is_covered[list(pair.asked)]
        first = objects[0]
        background = np.flatnonzero(~is_covered.any(0))
        size = min(first.sum(), len(background))
        random = rng.choice(background, size, replace=False)

        sets["both objects"][i, first_patch:] = objects.any(0)
        sets["one object"][i, first_patch:] = first
        sets["background"][i, first_patch + background] = True
        sets["random patches"][i, first_patch + random] = True
        sets["class token"][i, :first_patch] = True
    return {name: mask for name, mask in sets.items() if mask.any()}


def patching_means(table: pd.DataFrame) -> pd.DataFrame:
    """What part of the lead changes sides, by set of tokens and layer: mean, low, high, n.

    The fall of the lead over its fall when all tokens are exchanged, both summed over pairs. The
    95 % interval draws pairs anew.
    """
    falls = table.pivot_table("fall", "pair", ["tokens", "layer"], sort=False)
    whole = table.groupby("pair", sort=False)["whole"].first()
    whole = whole[falls.index].to_numpy()  # (P,)

    count = len(whole)
    even = np.full(count, 1 / count)
    weights = np.random.default_rng(0).multinomial(count, even, _DRAWS)  # (draws, P)
    drawn_falls = weights @ falls.to_numpy()  # (draws, sets and layers)
    drawn_whole = weights @ whole
    drawn_means = drawn_falls / drawn_whole[:, None]
    low, high = np.quantile(drawn_means, [0.025, 0.975], axis=0)
    table = {
        "mean": falls.sum() / whole.sum(),
        "low": low,
        "high": high,
        "n": count,
    }
    return pd.DataFrame(table)


_SET_COLOURS = {
    "both objects": PALETTE[0],
    "one object": PALETTE[2],
    "class token": "#c05a1f",
    "background": PALETTE[1],
    "random patches": "0.75",
}


def plot_patching(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw, for each model, how much of the binding each set of tokens carries into each layer.

    Args:
        tables: what `patch_colours` gives, by model.
    """
    means = {model: patching_means(table) for model, table in tables.items()}
    alt = _describe_patching(means)
    figure = new_figure(FULL_WIDTH, 3.0, alt, layout="constrained")
    panels = figure.subplots(1, len(means), sharey=True, squeeze=False)[0]

    for axes, (model, table) in zip(panels, means.items(), strict=True):
        rows = table.reset_index()
        sns.lineplot(
            rows,
            x="layer",
            y="mean",
            hue="tokens",
            hue_order=[name for name in _SET_COLOURS if name in set(rows["tokens"])],
            palette=_SET_COLOURS,
            marker="o",
            markersize=4,
            legend="full" if axes is panels[0] else False,
            ax=axes,
        )
        for name, part in rows.groupby("tokens"):
            axes.fill_between(
                part["layer"],
                part["low"],
                part["high"],
                color=_SET_COLOURS[name],
                alpha=0.2,
                linewidth=0,
            )
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.set_title(model, fontsize=10, loc="left")
        axes.set_xlabel("layer that the tokens enter", fontsize=9)
        axes.set_ylabel("part of the lead that changes sides", fontsize=9)
        axes.set_xticks(rows["layer"].unique())
        axes.set_ylim(-0.3, 1.3)  # the band of a model with hardly any lead is wider

    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].get_legend().remove()
    figure.legend(handles, labels, loc="outside upper left", ncols=5, frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def _describe_patching(means: Mapping[str, pd.DataFrame]) -> str:
    """The figure in words: each set in the first and the last layer."""
    sentences = []
    for model, table in means.items():
        parts = []
        for name, part in table["mean"].groupby("tokens", sort=False):
            first, last = part.iloc[[0, -1]]
            parts.append(f"{name} {first:.2f} to {last:.2f}")
        listed = ", ".join(parts)
        sentences.append(f"{model}, from the first to the last layer: {listed}")
    return "; ".join(sentences)


# ------------------------------------------------------------------------------------------- remedy


def fit_text_map(dev: Embedded, steps: int = 2000) -> Tensor:
    """LABCLIP's linear map (E, E) of text embeddings, fitted on pairs by CLIP's contrastive loss.

    Encoders stay fixed. The two captions of a pair stand in one batch, so each is the hard negative
    of the other. A map of 192 x 192 numbers learns 150 pairs by heart; give it a thousand or more.
    """
    images = dev.images.double()  # (P, 2, E)
    texts = dev.texts.double()
    scale = 100.0  # of the logits, as in CLIP
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(texts.shape[-1], dtype=texts.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([matrix], lr=1e-3)

    with torch.enable_grad():
        for _ in range(steps):
            batch = torch.randperm(len(images), generator=generator)[:64]
            image_embeddings = images[batch].flatten(0, 1)
            text_embeddings = texts[batch].flatten(0, 1) @ matrix
            text_embeddings = F.normalize(text_embeddings, dim=-1)

            logits = scale * image_embeddings @ text_embeddings.T
            labels = torch.arange(len(logits))
            loss = F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
            (matrix.grad,) = torch.autograd.grad(loss, [matrix])
            optimizer.step()
    return matrix.detach()


def mapped(pairs: Embedded, matrix: Tensor) -> Embedded:
    """The same images, and texts after a linear map."""
    texts = pairs.texts.double() @ matrix
    texts = F.normalize(texts, dim=-1)
    return Embedded(pairs.images, texts.to(pairs.texts))


# ----------------------------------------------------------------------------------------- controls


def control_table(weights: Sequence[Path], n: int = 400) -> pd.DataFrame:
    """How often models with these weights are right on test pairs.

    Training (the name of the file), question, right, low, high, n.
    """
    rows = []
    for file in weights:
        clip = load_clip("emoji", file)
        for kind in ("swapped colours", "colour", "object identity"):
            answers = judge(clip, draw_pairs(kind, n, split="test"))
            right = answers["right"]
            low, high = right_interval(right, answers["pair"].array)
            row = {
                "training": file.stem,
                "question": kind,
                "right": right.mean(),
                "low": low,
                "high": high,
                "n": len(answers),
            }
            rows.append(row)
    return pd.DataFrame(rows).round(4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the controls of `emoji-bag`, and write their table."""
    parser = argparse.ArgumentParser(prog="python -m studies.binding", description=main.__doc__)
    parser.add_argument("weights", nargs="+", type=Path, help="as `python -m training` writes them")
    parser.add_argument(
        "--out", type=Path, default=data_path("binding_control.csv"), help="%(default)s"
    )
    options = parser.parse_args(arguments)
    table = control_table(options.weights)
    table.to_csv(options.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
