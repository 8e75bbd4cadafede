"""`Explainer`: prompts, batches, models in hand and options that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer, Explanation
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.dataset_report import report
from gradeclip_utils.measures.evaluation import evaluate
from tests.conftest import wrap
from tests.refusals.cases import named

PROMPTS = [
    ("none", None, "prompts must be strings"),
    ("a number", 5, "prompts must be strings"),
    ("a path", Path("dog"), "prompts must be strings"),
    ("true", True, "prompts must be strings"),
    ("bytes", b"dog", "prompts must be strings"),
    ("a dict", {"a": 1}, "prompts must be strings"),
    ("no prompts", [], "prompts must be strings"),
    ("a list of numbers", [1, 2], "prompts must be strings"),
    ("whole numbers", np.zeros((1, 48), int), "prompts must be strings"),
    ("a number of numpy", np.array(5), "prompts must be strings"),
    ("empty", "", "at least one word"),
    ("10,000 words", "dog " * 10_000, "a prompt can have 5000 characters, and .* has 40000"),
    ("half a character", "a \ud800 dog", "lone surrogate"),
    ("embeddings of another width", torch.ones(1, 3), r"must be \(T, 48\)"),
    ("an embedding of zeros", torch.zeros(1, 48), "finite and not zero"),
    ("a sparse embedding", torch.ones(2, 48).to_sparse(), "must be dense and have values, got torch.sparse_coo"),
    ("embeddings without values", torch.ones(2, 48, device="meta"), "must be dense and have values, got .* on meta"),
    ("an embedding with NaN", torch.full((48,), torch.nan), "finite and not zero"),
]


@pytest.mark.parametrize(("prompt", "message"), named(PROMPTS))
def test_what_is_no_prompt_is_refused_also_as_the_other_one(tiny, picture, prompt, message):
    explainer = Explainer(tiny)
    for ask in (lambda: explainer.explain(picture, prompt), lambda: explainer.explain(picture, "a dog", [prompt])):
        with pytest.raises((GradeclipError, ValueError), match=f"{message}|prompts must be strings"):
            ask()


@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e38, 1e-40])
def test_the_length_of_an_embedding_changes_nothing_however_large_or_small(tiny, picture, factor):
    direction = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    direction = direction / direction.abs().max()
    plain, long = (Explainer(tiny).explain(picture, direction * one) for one in (1, factor))
    np.testing.assert_allclose(long.similarity, plain.similarity, atol=1e-3 if factor < 1e-38 else 1e-6)


def test_embeddings_in_another_byte_order_or_width_are_the_same_embeddings(tiny, picture):
    direction = np.random.default_rng(0).normal(size=(1, 48)).astype(np.float32)
    plain, *others = (
        Explainer(tiny).explain(picture, direction.astype(kind)).image_maps for kind in ("<f4", ">f4", np.longdouble)
    )
    for one in others:
        np.testing.assert_allclose(one, plain, atol=1e-6)


BATCHES = [
    ("one image", lambda image: image, "as many images as prompts, got 1 and 2"),
    ("a dict", lambda image: {"a": image}, "images must be a list"),
    ("a number", lambda image: 5, "images must be a list"),
]


@pytest.mark.parametrize(("make", "message"), named(BATCHES))
def test_what_is_no_list_of_images_is_refused(tiny, picture, make, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny).explain_batch(make(picture), ["a dog", "a cat"])


def test_images_may_come_one_by_one(tiny, picture):
    found = Explainer(tiny).explain_batch((picture for _ in range(2)), ["a dog", "a cat"])
    assert len(found) == 2
    assert Explainer(tiny).embed_images(picture for _ in range(2)).shape == (2, 48)


class Tokenizer:
    """CLIP's own, whose ids are changed on the way."""

    def __init__(self, tokenizer, change):
        self.tokenizer, self.change = tokenizer, change

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, texts):
        return self.change(self.tokenizer(texts))


MODELS = [
    ("no preprocessing", lambda clip: replace(clip, preprocess=None), "a Clip needs a preprocessing"),
    ("numpy", lambda clip: replace(clip, preprocess=np.asarray), "this one gives ndarray"),
    ("a batch", lambda clip: replace(clip, preprocess=lambda i: clip.preprocess(i)[None]), r"gives .*\(1, 3, 32, 32\)"),
    ("NaN", lambda clip: replace(clip, preprocess=lambda i: clip.preprocess(i) * torch.nan), "gives NaN"),
    ("of another size", lambda clip: wrap(clip.model, 48), "gives 48 x 48 pixels, and the model takes 32 x 32"),
    ("no tokenizer", lambda clip: replace(clip, tokenizer=None), "strings need the model's tokenizer"),
    ("tokens in a list", lambda clip: retold(clip, lambda ids: ids.tolist()), "this one gives list"),
    ("another context", lambda clip: retold(clip, lambda ids: torch.cat([ids] * 2, 1)), r"\(1, 24\), .*\(1, 48"),
    ("foreign ids", lambda clip: retold(clip, lambda ids: ids + 10**6), "it is not its own"),
    ("a bare model", lambda clip: clip.model, "needs a Clip"),
]  # fmt: skip


def retold(clip, change):
    return replace(clip, tokenizer=Tokenizer(clip.tokenizer, change))


@pytest.mark.parametrize(("change", "message"), named(MODELS))
def test_a_model_whose_parts_do_not_fit_is_refused_by_the_part(tiny, picture, change, message):
    state = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    with pytest.raises(GradeclipError, match=message):
        Explainer(change(tiny)).explain(picture, "a dog")
    assert all(torch.equal(value, state[name]) for name, value in tiny.model.state_dict().items())


OPTIONS = [
    ("half a seed", {"seed": 1.5}, "seed must be a whole number, got 1.5"),
    ("a seed in words", {"seed": "x"}, "seed must be a whole number"),
    ("no seed", {"seed": None}, "seed must be a whole number"),
    ("a seed below zero", {"seed": -1}, "seed must be at least 0"),
    ("methods", {"method": ["rise"]}, "method must be one of"),
    ("no method", {"method": None}, "method must be one of"),
    ("attention", {"attention": None}, "attention must be 'model' or 'single-head', got None"),
]


@pytest.mark.parametrize(("options", "message"), named(OPTIONS))
def test_an_option_that_is_no_choice_is_refused(tiny, options, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny, **options)


@pytest.mark.parametrize("index", [99, "x", 1.5, None, -3])
def test_a_map_that_is_not_there_is_refused(tiny, picture, index):
    with pytest.raises(GradeclipError, match="index must be"):
        Explainer(tiny).explain(picture, ["a dog", "a cat"]).heatmap(index)


@pytest.mark.parametrize("over", [5, "dog", [1], [["a"]], [[0.5]], [[True, -1]]])
def test_players_that_are_no_groups_of_words_are_refused(tiny, picture, over):
    with pytest.raises(GradeclipError, match=r"over must (be a list|hold words 0 to 4)"):
        Explainer(tiny).metagame(picture, "a dog and a cat", over=over)


INTERACTIONS = [
    ("an option of another", {"steps": 5}, "'steps' is no option of Grad-ECLIP, which has spatial"),
    ("an unknown option", {"by": "exclip", "nope": 1}, "'nope' is no option of exCLIP, which has steps"),
    ("a seed beside the explainer's", {"by": "fixlip", "seed": 1}, "'seed' is no option of FIxLIP, which has p, masks"),
    ("steps in words", {"by": "exclip", "steps": "x"}, "steps must be a whole number, got 'x'"),
    ("no masks", {"by": "fixlip", "masks": 0}, "masks must be at least 1, got 0"),
    ("a p beyond one", {"by": "fixlip", "p": 2}, "p must be from 0 to 1, got 2"),
]


@pytest.mark.parametrize(("options", "message"), named(INTERACTIONS))
def test_options_that_interactions_have_not_are_refused(tiny, picture, options, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny).interactions(picture, "a dog", **options)


DIRECTIONS = [
    ("prompts", ["a dog"], "directions must be floats of one length, as embed_texts gives them, got"),
    ("nothing", None, "directions must be floats of one length"),
    ("an empty list", [], "directions must be floats of one length"),
    ("two lengths", [torch.ones(48), torch.ones(3)], "directions must be floats of one length"),
    ("a number", torch.ones(()), "directions must be"),
    ("another width", torch.ones(1, 3), r"directions must be \((M|P), 48\)"),
]


@pytest.mark.parametrize(("directions", "message"), named(DIRECTIONS))
def test_what_is_no_direction_is_refused(tiny, picture, directions, message):
    explainer = Explainer(tiny)
    for ask in (lambda: explainer.maps(picture, directions), lambda: explainer.score_words(["a dog"], directions)):
        with pytest.raises(GradeclipError, match=message):
            ask()
    with pytest.raises(GradeclipError, match="and finite"):
        explainer.maps(picture, torch.full((1, 48), torch.nan))


@pytest.mark.parametrize("caption", [None, 5, ["a dog"], b"dog"])
def test_directions_of_words_are_those_of_one_caption(tiny, caption):
    with pytest.raises(GradeclipError, match="caption must be a text, got"):
        Explainer(tiny).word_directions(caption)


def test_several_directions_may_come_as_a_list_and_captions_one_by_one(tiny, picture):
    explainer = Explainer(tiny)
    both = explainer.embed_texts(["a dog", "a cat"])
    torch.testing.assert_close(explainer.maps(picture, list(both)), explainer.maps(picture, both))
    found = explainer.score_words((text for text in ("a dog", "a cat")), [one.numpy() for one in both])
    assert [[word.text for word in words] for words in found] == [["a", "dog"], ["a", "cat"]]


@pytest.mark.parametrize(
    ("count", "message"), [("x", "count must be a whole number"), (2.5, "whole number"), (1, "two")]
)
def test_null_maps_that_cannot_be_counted_are_refused(tiny, picture, count, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(tiny).null_maps(picture, "a dog", count)


def test_numbers_of_numpy_and_columns_of_pandas_are_taken_as_ours_are(tiny, folder, picture, tmp_path):
    explainer = Explainer(tiny, image_layers=np.int64(2), text_layers=np.int32(1), seed=np.int64(3))
    found = explainer.explain(picture, pd.Series(["a dog", "a cat"]), np.array(["a cow", "a bus"]))
    assert Explanation.load(found.save(tmp_path / "found")).provenance["image_layers"] == 2
    options = {"methods": pd.Series(["grad-eclip"]), "references": False, "progress": False, "out": tmp_path / "run"}
    rows = evaluate(tiny, f"folder:{folder}", limit=np.int64(2), chunk=np.int64(1), seed=np.int64(0), **options)
    assert len(rows) == 2
    assert len(
        report(tiny, f"folder:{folder}", tmp_path / "page", nulls=np.int64(2), chunk=np.int64(3), progress=False)
    )


@pytest.mark.parametrize("over", [1.5, "dog", [1.5], [0, 0], [[0], [99]]])
def test_words_that_cannot_be_told_apart_are_refused(tiny, picture, over):
    with pytest.raises((GradeclipError, ValueError, TypeError)):
        Explainer(tiny).interactions(picture, "a dog and a cat").centred(over)
