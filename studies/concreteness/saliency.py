"""Saliency: how much of a caption's importance does each word get?

    captions and images -> method -> word scores --here--> saliency, a table of words -> correlations

Word saliency asks of a word in a caption whether it counts more or less than an average one:

    saliency = log( fraction of the caption's importance / uniform fraction ),    uniform fraction = 1 / number of words

so 0 is an average word, log 2 one that counts twice as much. Importance is the positive part of a word's score, as in
the published text maps of Grad-ECLIP (Zhao et al., arXiv 2502.18816). A fraction may be zero, and its logarithm then is
not a number; so a twentieth of the importance is spread evenly over all words before, and saliency ends at log 0.05.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradeclip_utils.checks import all_chosen, chosen
from gradeclip_utils.datasets import Example
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.language import CONTENT, norms, phrases, tagged_words
from gradeclip_utils.methods import METHODS as KNOWN
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, Scene, draw_scene
from gradeclip_utils.towers.base import isolated_torch_state
from gradeclip_utils.words import Split, check_tokenizer, split_row

from .informativeness import caption_words, chosen_words, informativeness, training_exposure

METHODS = ("grad-eclip", "leave-one-out", "attention")
OTHER = ", other image"  # added to a method's name: the caption was asked of an image that is not its own
EVEN = 0.05  # fraction of a caption's importance that is spread evenly
_COLUMNS = ("caption", "word", "part", "start", "place", "tokens", "punctuation")
_SEED = 64  # of the scenes of this study
_AT_ONCE = 64  # captions in one batch


def gather_scenes(words: Iterable[str], *, each: int = 4, draw: int = 20_000) -> list[Scene]:
    """Development scenes whose captions hold every one of the words, as far as random scenes have them."""
    lacking = dict.fromkeys(words, each)
    drawn = [draw_scene([_SEED, i], split="development") for i in range(draw)]
    held = [set(caption_words(scene.caption)) & lacking.keys() for scene in drawn]
    kept = set()
    for wanted in (2, 1):
        for i, found in enumerate(held):
            if i not in kept and sum(lacking[word] > 0 for word in found) >= wanted:
                kept.add(i)
                for word in found:
                    lacking[word] -= 1
    if not kept:
        msg = f"none of {draw} captions holds any of the words: {', '.join(list(lacking)[:5])} ..."
        raise GradeclipError(msg)
    return [drawn[i] for i in sorted(kept)]


def scene_examples(scenes: Sequence[Scene], pixels: int = CANVAS) -> list[Example]:
    """Scenes as the records that every data set gives, with images of so many pixels a side, a multiple of 96."""
    examples = []
    for i, scene in enumerate(scenes):
        present = tuple(dict.fromkeys(thing.noun for thing in scene.objects))
        image = partial(scene.image, pixels)
        examples.append(Example(str(i), scene.caption, present[0], scene.caption, present, image))
    return examples


def unrelated_images(examples: Sequence[Example]) -> np.ndarray:
    """For each of P examples the number (P,) of another one whose image shows, and caption says, nothing alike."""
    alike = [{phrase.head.lower() for phrase in phrases(one.caption)} | set(one.present) for one in examples]
    order, chosen = np.random.default_rng(0).permutation(len(examples)), np.empty(len(examples), dtype=int)
    for place, i in enumerate(order):
        for ahead in range(1, len(examples)):
            j = order[(place + ahead) % len(examples)]
            if not alike[i] & alike[j]:
                chosen[i] = j
                break
        else:
            msg = f"every other example shares something with {examples[i].caption!r}: give more of them"
            raise GradeclipError(msg)
    return chosen


def word_scores(
    clip: Clip, examples: Sequence[Example], embeddings: Tensor | None = None, *, methods: Sequence[str] = METHODS
) -> pd.DataFrame:
    """The scores of all words of all captions, for their own image and for one that has nothing to do with them."""
    if clip.tokenizer is None:
        raise GradeclipError(f"word scores need a tokenizer, and {clip.name or 'this model'} has none")
    check_tokenizer(clip.tokenizer)
    all_chosen("methods", methods, [name for name, method in KNOWN.items() if method.text is not None])
    explainers = {name: Explainer(clip, method=name) for name in methods}
    if embeddings is None:
        embeddings = next(iter(explainers.values())).embed_images(one.image() for one in examples)
    both = torch.stack([embeddings, embeddings[unrelated_images(examples).tolist()]], dim=1)  # (P, 2, E)
    parts = []
    for start in range(0, len(examples), _AT_ONCE):
        captions = [one.caption for one in examples[start : start + _AT_ONCE]]
        parts.append(_batch(clip, captions, both[start : start + _AT_ONCE], explainers, start))
    return pd.concat(parts, ignore_index=True)


def _batch(clip: Clip, captions: list[str], directions: Tensor, explainers: dict, first: int) -> pd.DataFrame:
    """Rows of some captions; directions (B, 2, E) are the two images that each is asked of."""
    assert clip.tokenizer is not None
    ids = clip.tokenizer(captions)
    tower = next(iter(explainers.values())).text_tower
    ends = tower.ends(ids.to(tower.device)).tolist()
    read = zip(captions, ids.tolist(), ends, strict=True)
    splits = [split_row(caption, clip.tokenizer, row, end) for caption, row, end in read]
    table = pd.DataFrame([row for i, split in enumerate(splits) for row in _rows(split, first + i)], columns=_COLUMNS)
    for name, explainer in explainers.items():
        tower = explainer.text_tower
        with isolated_torch_state(tower.device):
            trace = tower.trace(ids.to(tower.device))
            word_ids = torch.full_like(trace.valid_mask, -1, dtype=torch.long)
            for row, split in zip(word_ids, splits, strict=True):
                row[split.first : split.first + len(split.word_ids)] = torch.tensor(split.word_ids)
            sought = directions.to(tower.device)
            scores = explainer.method.text(tower, trace, sought, seed=0, words=word_ids)  # (B, 2, N)
        for which, column in enumerate((name, name + OTHER)):
            lines = zip(splits, scores[:, which].tolist(), strict=True)
            words = [split.words(line[split.first :][: len(split.word_ids)]) for split, line in lines]
            table[column] = [word.score for caption in words for word in caption]
    return table[~table["punctuation"]].drop(columns="punctuation")


def _rows(split: Split, caption: int) -> list[tuple]:
    """What is known of each word of one caption before anything is explained."""
    parts = {place: word.part for word in tagged_words(split.prompt) for place in range(word.start, word.end)}
    for phrase in phrases(split.prompt):  # what heads a noun phrase is a noun there, whatever a lexicon calls it
        parts[phrase.words[-1].start] = "noun"
    texts = [split.prompt[start:end].lower() for start, end in split.spans]
    punctuation = [not any(map(str.isalnum, text)) for text in texts]
    count, tokens, rows = len(texts) - sum(punctuation), np.bincount(split.word_ids), []
    for i, ((start, _), text, mark) in enumerate(zip(split.spans, texts, punctuation, strict=True)):
        place = (i - sum(punctuation[:i])) / max(count - 1, 1)
        rows.append((caption, text, parts.get(start, "function"), start, place, int(tokens[i]), mark))
    return rows


def saliency(rows: pd.DataFrame, method: str, *, magnitude: bool = False) -> pd.Series:
    """Log of each word's fraction of its caption's importance over the uniform fraction."""
    chosen("method", method, score_columns(rows))
    importance = rows[method].abs() if magnitude else rows[method].clip(lower=0)
    captions = importance.groupby(rows["caption"])
    total = captions.transform("sum")
    ratio = importance / total.where(total > 0) * captions.transform("size")
    return np.log(EVEN + (1 - EVEN) * ratio).rename(method)


def score_columns(rows: pd.DataFrame) -> list[str]:
    """The columns of `word_scores` that hold scores."""
    return [name for name in rows if name.removesuffix(OTHER) in METHODS]


def word_table(rows: pd.DataFrame, *, own_world: bool = True) -> pd.DataFrame:
    """What is known of every word, a row a word; norms are joined here, and nowhere before."""
    words = rows.groupby("word")
    table = words.agg(captions=("caption", "nunique"), place=("place", "mean"), tokens=("tokens", "mean"))
    table["part"] = words["part"].agg(lambda parts: parts.mode().iloc[0])
    table = table.join(norms(table.index)).assign(all=True, content=table["part"].isin(CONTENT))
    if own_world:
        table["role"] = chosen_words()["role"].reindex(table.index, fill_value="other")
        table["exposure"] = np.log(training_exposure()["captions"].reindex(table.index))
        table["studied"], table["association"] = table["role"] != "other", table["role"] == "association"
        table = table.join(informativeness())
    return table
