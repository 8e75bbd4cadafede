"""Names and hints that exchange words: pairs that are alike, captions, and one command."""

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.scenes import CANVAS, concepts, vocabulary
from studies.s07_word_concreteness import HINT, NAME, norms
from training import roles, scratch, vectors
from training.rounds import Recipe, SceneBatches, exchange_words

SHORT = Recipe(steps=2, batch=4, warmup=1)


@pytest.fixture(scope="module")
def pairs():
    return roles.matched_pairs()


@pytest.fixture
def some_vectors(monkeypatch):
    """Word vectors without npm: every word but "dove" has one."""

    def made(words):
        by_word = {}
        for word in set(words) - {"dove"}:
            rng = np.random.default_rng([*word.encode()])
            by_word[word] = rng.standard_normal(vectors.NUMBERS)
        return by_word

    monkeypatch.setattr(vectors, "word_vectors", made)
    monkeypatch.setattr(roles, "word_vectors", made)


def test_the_words_of_a_pair_differ_in_role_and_not_in_how_common_or_long_they_are(pairs):
    nouns, hints = zip(*pairs, strict=True)
    assert len({*nouns, *hints}) == 2 * roles.PAIRS
    keywords = concepts()["keywords"]
    assert set(nouns) <= set(keywords.index)
    assert set(hints) <= set(keywords.explode()) - set(keywords.index)

    tokenizer = open_clip.SimpleTokenizer()
    for noun, hint in pairs:
        assert len(tokenizer.encode(noun)) == len(tokenizer.encode(hint))
    frequency = norms([*nouns, *hints])["frequency"].to_numpy().reshape(2, -1)
    assert np.abs(frequency[0] - frequency[1]).max() < 0.5


def test_every_word_names_in_one_training_and_hints_in_the_one_with_opposite_coins(pairs):
    coins = {*roles.exchanged_pairs(opposite=False)}
    opposite = {*roles.exchanged_pairs(opposite=True)}
    assert coins | opposite == set(pairs)
    assert len(coins) == len(opposite) == roles.PAIRS / 2


@pytest.mark.parametrize(
    ("caption", "exchanged"),
    [
        ("a dove and something tagged orchestra", "an orchestra and something tagged dove"),
        ("a photo of two doves", "a photo of two orchestra"),
        ("an image of a red dove, an umbrella", "an image of a red orchestra, an umbrella"),
        ("an orchestral dovecote", "an orchestral dovecote"),
    ],
)
def test_captions_exchange_whole_words_with_their_article(caption, exchanged):
    assert exchange_words(caption, [("dove", "orchestra")]) == exchanged


def test_captions_without_exchanges_stay_as_they_are():
    for scene in SceneBatches(Recipe(seed=31)).scenes(1500):
        assert exchange_words(scene.caption, ()) == scene.caption


def test_scenes_that_are_drawn_once_are_shown_again():
    batches = SceneBatches(Recipe(steps=20, batch=32, drawn=10, seed=2))
    few_objects, many_objects = batches.scenes(0), batches.scenes(19)
    assert {len(scene.objects) for scene in few_objects} == {1, 2}
    assert {len(scene.objects) for scene in many_objects} == {1, 2, 3, 4}
    scenes = {scene for step in range(20) for scene in batches.scenes(step)}
    assert len(scenes) == 40

    images, tokens = batches[19]
    assert torch.equal(images, batches[19][0])
    for image, caption_tokens, scene in zip(images, tokens, many_objects, strict=True):
        assert np.array_equal(image, scene.image(CANVAS))
        assert torch.equal(caption_tokens, batches.tokenizer([scene.caption])[0])


def test_batches_hold_the_exchanged_captions_and_the_same_images():
    plain = Recipe(steps=100, batch=32)
    exchanged = Recipe(steps=100, batch=32, exchanged=roles.exchanged_pairs(opposite=False))
    images, tokens = SceneBatches(plain)[50]
    same_images, other_tokens = SceneBatches(exchanged)[50]
    assert torch.equal(images, same_images)
    assert 0 < (tokens != other_tokens).any(dim=1).sum() < 32


def cosines_of_pairs(embeddings):
    """The cosine of every two rows."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (units @ units.T)[np.triu_indices(len(units), k=1)]


def test_tokens_begin_as_the_vectors_of_their_words_or_of_other_words(some_vectors):
    tokenizer = open_clip.SimpleTokenizer()
    ids = scratch.vocabulary_ids(tokenizer)
    models = {}
    for kind in ("", "english", "permuted"):
        torch.manual_seed(0)
        model = scratch.new_model(Recipe(word_vectors=kind), ids)
        models[kind] = model.token_embedding.weight.detach().numpy()

    made = vectors.word_vectors(vocabulary())
    words = ["cat", "car", "peace", "tree", "book", "sun", "key", "music"]  # a token each
    rows = [ids.tolist().index(tokenizer.encode(word)[0]) for word in words]
    expected = cosines_of_pairs(np.array([made[word] for word in words]))
    english = cosines_of_pairs(models["english"][rows])
    permuted = cosines_of_pairs(models["permuted"][rows])
    assert np.corrcoef(english, expected)[0, 1] > 0.95, "but for the mean vector"
    assert np.corrcoef(permuted, expected)[0, 1] < 0.5

    start = ids.tolist().index(tokenizer.sot_token_id)
    for kind in ("english", "permuted"):
        assert np.array_equal(models[kind][start], models[""][start])
        norms_of_rows = np.sort(np.linalg.norm(models[kind], axis=1))
        assert np.allclose(norms_of_rows, np.sort(np.linalg.norm(models["english"], axis=1)))


def test_one_command_trains_and_says_what_each_word_counts_in_each_training(
    tmp_path, some_vectors, pairs, monkeypatch
):
    arguments = {"rounds": [SHORT], "images": 60}
    file = tmp_path / "roles.csv"
    roles.make(tmp_path / "runs", file, **arguments)
    table = pd.read_csv(file)
    assert table.groupby("training").size().to_dict() == {
        "english": 2 * roles.PAIRS,
        "permuted": 2 * roles.PAIRS,
    }
    exchanged = roles.exchanged_pairs(opposite=False)
    role = table.set_index(["training", "word"])["role"]
    for noun, hint in pairs:
        names, hints = (hint, noun) if (noun, hint) in exchanged else (noun, hint)
        assert role["english", names] == role["permuted", hints] == NAME
        assert role["english", hints] == role["permuted", names] == HINT
    assert (table.groupby("training")["captions"].sum() > 60).all()
    assert table[table["word"] == "dove"]["english"].isna().all()
    likeness = table.groupby("training")["english"].mean()
    assert likeness["english"] > likeness["permuted"] + 0.2, "two steps do not forget the start"

    clip = load_clip("emoji", tmp_path / "runs" / "english.safetensors")
    assert "names and hints exchanged in captions" in str(clip)
    monkeypatch.setattr(roles, "train_rounds", None)
    roles.make(tmp_path / "runs", tmp_path / "again.csv", **arguments)
    assert (tmp_path / "again.csv").read_bytes() == file.read_bytes()
