"""`Explainer`: prompts, batches, models in hand and options that are refused, each in one sentence."""

from dataclasses import replace

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer, Explanation
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods import Method
from tests.conftest import build, wrap
from tests.refusals.cases import named

PROMPTS = [
    ("none", None, "prompts must be strings"),
    ("no prompts", [], "prompts must be strings"),
    ("a list of numbers", ["a dog", 2], "prompts must be strings, or a float array .*, got 2"),
    (
        "a table of two texts",
        pd.DataFrame({"a": ["x"], "b": ["y"]}),
        "a table with the columns a, b: give one of them",
    ),
    ("a column with a gap", pd.Series(["a dog", np.nan]), "prompts must be strings, .*, got nan"),
    ("empty", "", "at least one word"),
    ("10,000 words", "dog " * 10_000, "a prompt can have 5000 characters, and .* has 40000"),
    ("half a character", "a \ud800 dog", "lone surrogate"),
    ("embeddings of another width", torch.ones(1, 3), r"must be \(T, 48\)"),
    ("an embedding of zeros", torch.zeros(1, 48), "finite and not zero"),
    (
        "embeddings without values",
        torch.ones(2, 48, device="meta"),
        "must be dense and have values, got .* on meta",
    ),
]


@pytest.mark.parametrize(("prompt", "message"), named(PROMPTS))
def test_what_is_no_prompt_is_refused_also_as_the_other_one(tiny, picture, prompt, message):
    explainer = Explainer(tiny)
    with pytest.raises(GradeclipError, match=message):
        explainer.explain(picture, prompt)
    if prompt is not None:
        with pytest.raises(GradeclipError, match=message):
            explainer.explain(picture, "a dog", prompt)


@pytest.mark.parametrize(
    "several",
    [
        pd.DataFrame({"n": [1, 2], "caption": ["a dog", "a cat"]}),
        pd.Series(["a dog", "a cat"]),
        np.array(["a dog", "a cat"]),
        (one for one in ("a dog", "a cat")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_column_of_text_is_a_list_of_prompts(tiny, picture, several):
    assert Explainer(tiny).explain(picture, several).prompts == ("a dog", "a cat")


class Tokenizer:
    """CLIP's own, whose ids are changed on the way."""

    def __init__(self, own, change):
        self.own, self.change = own, change

    def __getattr__(self, name):
        if name == "tokenizer":  # it is no Hugging Face tokenizer
            raise AttributeError(name)
        return getattr(self.own, name)

    def __call__(self, texts):
        return self.change(self.own(texts))


def retold(clip, change):
    return replace(clip, tokenizer=Tokenizer(clip.tokenizer, change))


def broken():
    model = build()
    model.transformer.resblocks[0].attn.out_proj.weight.data[0, 0] = torch.nan
    return model


MODELS = [
    ("numpy", lambda clip: replace(clip, preprocess=np.asarray), "this one gives ndarray"),
    (
        "of two arguments",
        lambda clip: replace(clip, preprocess=lambda image, size: image),
        "<lambda> fails on an",
    ),
    (
        "a batch",
        lambda clip: replace(clip, preprocess=lambda i: clip.preprocess(i)[None]),
        r"gives .*\(1, 3, 32, 32\)",
    ),
    (
        "NaN",
        lambda clip: replace(clip, preprocess=lambda i: clip.preprocess(i) * torch.nan),
        "gives NaN",
    ),
    (
        "of another size",
        lambda clip: wrap(clip.model, 48),
        "gives 48 x 48 pixels, and the model takes 32 x 32",
    ),
    (
        "a tokenizer that fails",
        lambda clip: replace(clip, tokenizer=lambda texts, more: texts),
        "and this one fails: ",
    ),
    (
        "no tokenizer",
        lambda clip: replace(clip, tokenizer=None),
        "strings need the model's tokenizer",
    ),
    (
        "tokens in a list",
        lambda clip: retold(clip, lambda ids: ids.tolist()),
        "this one gives list",
    ),
    ("no tokens", lambda clip: retold(clip, lambda ids: ids[:, :0]), r"\(1, 24\), .*\(1, 0\)"),
    (
        "tokens without values",
        lambda clip: retold(clip, lambda ids: ids.to("meta")),
        "this one gives .*meta",
    ),
    (
        "another context",
        lambda clip: retold(clip, lambda ids: torch.cat([ids] * 2, 1)),
        r"\(1, 24\), .*\(1, 48",
    ),
    (
        "a shorter context",
        lambda clip: retold(clip, lambda ids: ids[:, :12]),
        "of 12 tokens; .* that fills 24",
    ),
    ("foreign ids", lambda clip: retold(clip, lambda ids: ids + 10**6), "it is not its own"),
    (
        "a tokenizer that drops tokens",
        lambda clip: replace(
            clip, tokenizer=open_clip.SimpleTokenizer(context_length=24, reduction_mask="random")
        ),
        "drops tokens at random",
    ),
    (
        "a bare model",
        lambda clip: clip.model,
        r"Explainer needs a Clip\(model, preprocess, tokenizer\), got CLIP",
    ),
    (
        "weights of NaN",
        lambda clip: wrap(broken()),
        "weight 'transformer.resblocks.0.attn.out_proj.weight' holds NaN",
    ),
]


@pytest.mark.parametrize(("change", "message"), named(MODELS))
def test_a_model_whose_parts_do_not_fit_is_refused_by_the_part(tiny, picture, change, message):
    with pytest.raises(GradeclipError, match=message):
        Explainer(change(tiny)).explain(picture, "a dog")


ASKED = [
    (
        "half a seed",
        lambda one, image: Explainer(one.clip, seed=1.5),
        "seed must be a whole number, got 1.5",
    ),
    (
        "a seed below zero",
        lambda one, image: Explainer(one.clip, seed=-1),
        "seed must be at least 0",
    ),
    (
        "a method that is nearly one",
        lambda one, image: Explainer(one.clip, method="gradcam"),
        "there is no method 'gradcam': did you mean grad-cam",
    ),
    (
        "resolution",
        lambda one, image: Explainer(one.clip, resolution=224),
        "resolution must be 'model' or 'native', got 224",
    ),
    (
        "four layers",
        lambda one, image: Explainer(one.clip, image_layers=4),
        "image_layers must be at most 3, got 4",
    ),
    (
        "no layers",
        lambda one, image: Explainer(one.clip, text_layers=0),
        "text_layers must be at least 1, got 0",
    ),
    (
        "fewer images than prompts",
        lambda one, image: one.explain_batch([image], ["a", "b"]),
        "as prompts, got 1 and 2",
    ),
    (
        "images in a dict",
        lambda one, image: one.explain_batch({"a": image}, ["a"]),
        "images must be a list",
    ),
    (
        "a table of numbers",
        lambda one, image: one.embed_images(pd.DataFrame({"a": [1]})),
        "a table with the columns a",
    ),
    (
        "no images",
        lambda one, image: one.embed_images([]),
        "there are no images: give at least one",
    ),
    ("no images one by one", lambda one, image: one.embed_images(iter(())), "there are no images"),
    (
        "interactions of another method",
        lambda one, image: Explainer(one.clip, method="rise").interactions(image, "a"),
        "interactions are Grad-ECLIP's own, and this Explainer's method is 'rise'",
    ),
    (
        "interactions of a long caption",
        lambda one, image: one.interactions(image, "a " * 9999),
        "5000 characters",
    ),
    (
        "a map that is not there",
        lambda one, image: one.explain(image, "a").heatmap(1),
        "must be at most 0, got 1",
    ),
    (
        "a map of half",
        lambda one, image: one.explain(image, "a").heatmap(0.5),
        "index must be a whole number",
    ),
    (
        "a map that is signed",
        lambda one, image: one.explain(image, "a").heatmap(signed="no"),
        "must be False or True",
    ),
    (
        "1,001 prompts",
        lambda one, image: one.explain(image, ["a"] * 1001),
        "at most 1000 prompts in one call, got",
    ),
    (
        "null maps of one",
        lambda one, image: one.null_maps(image, "a", 1),
        "count must be at least 2, got 1",
    ),
    (
        "null maps of words",
        lambda one, image: Explainer(one.clip, method="leave-one-out").null_maps(image, "a"),
        "Leave one word out explains prompts only: it has no maps of images",
    ),
    (
        "dependence on NaN",
        lambda one, image: one.explain(image, "a").prompt_dependence(np.full((3, 4, 4), np.nan)),
        "48 of 48 values of null maps are NaN",
    ),
    (
        "dependence on another grid",
        lambda one, image: one.explain(image, "a").prompt_dependence(np.ones((3, 5, 4))),
        r"null maps must be \(M, 4, 4\), two or more of them, got",
    ),
    (
        "against two of three",
        lambda one, image: one.explain(image, ["a", "b", "c"], ["d", "e"]),
        "against must be one prompt, or one for each of 3, got 2",
    ),
    (
        "words of no caption",
        lambda one, image: one.word_directions(None),
        "prompts must be strings",
    ),
    (
        "texts that are embeddings",
        lambda one, image: one.embed_texts(torch.ones(2, 48)),
        "must be strings here",
    ),
    (
        "maps of words alone",
        lambda one, image: Explainer(one.clip, method="leave-one-out").maps(image, []),
        "Leave one word out explains prompts only",
    ),
    (
        "two images with three sets",
        lambda one, image: one.maps([image, image], torch.randn(3, 1, 48)),
        r"must be \(M, 48\) or \(2, M, 48\), and finite, got \(3, 1, 48\)",
    ),
    (
        "a caption without direction",
        lambda one, image: one.score_words(["a", "b"], torch.ones(1, 48)),
        r"must be \(2, 48\)",
    ),
]


@pytest.mark.parametrize(("ask", "message"), named(ASKED))
def test_what_cannot_be_asked_of_an_explainer_is_refused(tiny, picture, ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask(Explainer(tiny), picture)


DIRECTIONS = [
    (
        "prompts",
        ["a dog"],
        "directions must be floats of one length, as embed_texts gives them, got",
    ),
    ("prompts in an array", np.array(["a dog"]), "directions must be floats of one length"),
    ("nothing", None, "directions must be floats of one length"),
    ("another width", torch.ones(1, 3), r"directions must be \((M|1), 48\)"),
    ("NaN", torch.full((1, 48), torch.nan), "and finite"),
    ("complex numbers", torch.ones(1, 48) * 1j, "directions must be floats, got torch.complex64"),
]


@pytest.mark.parametrize(("directions", "message"), named(DIRECTIONS))
def test_what_is_no_direction_is_refused(tiny, picture, directions, message):
    explainer = Explainer(tiny)
    for ask in (
        lambda: explainer.maps(picture, directions),
        lambda: explainer.score_words(["a dog"], directions),
    ):
        with pytest.raises(GradeclipError, match=message):
            ask()


GIVEN = [
    (
        "NaN",
        lambda tower, trace, directions: trace.tokens.new_full((1, 1, 17), torch.nan),
        "that are NaN or infinite",
    ),
    (
        "another shape",
        lambda tower, trace, directions: torch.ones(3),
        r"a tensor \(1, 1, 17\), got \(3,\)",
    ),
    (
        "nothing",
        lambda tower, trace, directions: None,
        r"must give maps as a tensor \(1, 1, 17\), got None",
    ),
]


@pytest.mark.parametrize(("image", "message"), named(GIVEN))
def test_a_method_that_gives_no_maps_is_refused_by_its_name(tiny, picture, image, message):
    method = Method("mine", "Mine", "A. Author, 2030", "a number of mine", "nothing", image=image)
    with pytest.raises(GradeclipError, match=f"the method 'mine' .*{message}"):
        Explainer(tiny, method=method).explain(picture, "a dog")


def test_numbers_of_numpy_are_taken(tiny, picture, tmp_path):
    explainer = Explainer(tiny, image_layers=np.int64(2), text_layers=np.int32(1), seed=np.int64(3))
    found = explainer.explain(picture, pd.Series(["a dog", "a cat"]), np.array(["a cow", "a bus"]))
    assert Explanation.load(found.save(tmp_path / "found")).provenance["image_layers"] == 2
