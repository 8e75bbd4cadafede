"""A diff of two models: what moved comes first, a null says how far is far."""

import copy
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.__main__ import main
from gradeclip_utils.datasets import Example
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures import diff, randomised
from gradeclip_utils.scenes import concepts, draw_scene
from gradeclip_utils.towers import Tower

NOUNS = set(concepts()["noun"])


@pytest.fixture(scope="module")
def pool():
    """Scenes of two things, drawn once, with their captions."""
    examples = []
    for i in range(24):
        scene = draw_scene([6, i], split="development", n_objects=2)
        examples.append(example_of(scene.caption, scene.image()))
    return examples


def example_of(caption, image):
    return Example(
        key=caption,
        prompt=caption,
        concept=caption,
        caption=caption,
        present=(),
        image=lambda: image,
    )


def with_rotated_word(clip, word, seed):
    """A copy of a model that misreads one word: its embedding is turned by 90 degrees."""
    model = copy.deepcopy(clip.model)
    ids = clip.tokenizer([word])[0].tolist()
    tokens = ids[1 : ids.index(max(ids))]  # between SOT and EOT
    with torch.no_grad():
        for token in tokens:
            row = model.token_embedding.weight[token]
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(row.shape, generator=generator)
            along_row = (noise @ row) / (row @ row) * row
            sideways = noise - along_row
            row.copy_(sideways / sideways.norm() * row.norm())
    return replace(clip, model=model, name=f"misreads {word}")


def planted(clip, pool, seed):
    """Six pairs, of which a copy of the model misreads a noun of one: its caption, and the diff."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(pool), 6, replace=False)
    examples = [pool[i] for i in chosen]
    counts = Counter()
    for example in examples:
        counts.update(set(example.prompt.split()))

    caption = examples[0].prompt
    nouns = [word for word in caption.split() if counts[word] == 1 and word in NOUNS]
    if not nouns:
        return planted(clip, pool, seed + 1000)
    misread = str(rng.choice(nouns))
    return caption, diff(clip, with_rotated_word(clip, misread, seed), examples)


@pytest.mark.weekly
def test_a_planted_change_comes_first_in_95_of_100_trials(bundled, pool):
    times_first = 0
    for seed in range(100):
        caption, result = planted(bundled, pool, seed)
        times_first += result.pairs["prompt"].iloc[0] == caption
    assert times_first >= 95


def test_a_model_against_itself_says_that_nothing_changed(tiny, pool, tmp_path):
    result = diff(tiny, tiny, pool[:4], tmp_path, null=with_rotated_word(tiny, "a", 0))
    assert result.answer == "unchanged"
    assert result.conclusion.startswith("Nothing changed: both models give 4 pairs the same")
    assert (result.pairs["moved"] == 0).all()
    assert (result.pairs["map"].abs() < 1e-6).all()
    assert (result.words["moved"] == 0).all()
    assert "Nothing changed" in (tmp_path / "index.html").read_text()


def test_a_pair_moves_by_the_difference_of_its_percentiles(tiny, pool):
    changed = with_rotated_word(tiny, "a", 1)
    result = diff(tiny, changed, pool[:5])
    assert result.answer == ""  # without a null nothing says how far is far
    images = {example.prompt: example.image() for example in pool}
    for row in result.pairs.itertuples():
        image = images[row.prompt]
        before = Explainer(tiny).explain(image, row.prompt)
        after = Explainer(changed).explain(image, row.prompt)

        (change,) = after.similarity - before.similarity
        assert row.similarity_b - row.similarity_a == pytest.approx(change, abs=1e-5)
        (change,) = after.percentile - before.percentile
        assert row.moved == pytest.approx(change, abs=1e-3)
        heats = before.heatmap().ravel(), after.heatmap().ravel()
        correlation = np.corrcoef(heats)[0, 1]
        assert row.map == pytest.approx(1 - correlation, abs=0.15)  # on another canvas, unsigned
    assert result.pairs["moved"].abs().is_monotonic_decreasing


def test_the_shares_of_a_prompts_words_are_their_scores_over_all_magnitudes(tiny, pool):
    changed = with_rotated_word(tiny, "a", 2)
    result = diff(tiny, changed, pool[:5])
    explainer = Explainer(tiny, words="grad-eclip")
    shares = defaultdict(list)
    for example in pool[:5]:
        (words,) = explainer.explain(example.image(), example.prompt).words
        total = sum(abs(word.score) for word in words)
        for word in words:
            shares[word.text].append(word.score / total)
    expected = {word: np.mean(values) for word, values in shares.items()}
    table = result.words.set_index("word")
    assert table["share_a"].to_dict() == pytest.approx(expected, abs=1e-4)
    assert result.words["moved"].abs().is_monotonic_decreasing

    kinds = result.kinds.set_index("kind")
    assert {"noun", "function"} <= set(kinds.index)
    assert kinds.loc["noun", "pairs"] == 5
    assert (kinds["low"] <= kinds["moved"]).all()
    assert (kinds["moved"] <= kinds["high"]).all()


@pytest.mark.slow
def test_a_change_is_compared_with_what_a_second_training_moves(bundled, pool):
    examples = pool[:8]
    changed = randomised(bundled)
    no_noise = diff(bundled, changed, examples, null=bundled)
    assert no_noise.answer == "higher"
    assert "more than two trainings" in no_noise.conclusion
    assert no_noise.pairs["as_far"].iloc[0] == 0

    same_noise = diff(bundled, changed, examples, null=changed)
    pairs = same_noise.pairs
    kinds = same_noise.kinds
    assert same_noise.answer == "about equal"
    assert (pairs["moved"] == pairs["moved_null"]).all()
    assert (kinds["moved"] == kinds["moved_null"]).all()
    assert pairs["as_far"].iloc[0] == 100 / len(examples)


def test_each_model_reads_every_image_and_every_caption_once(tiny, pool, monkeypatch):
    images = []
    prompts = []
    trace = Tower.trace

    def counted(self, inputs, graph=None):
        models = [id(self.model)] * len(inputs)
        if inputs.ndim == 4:
            images.extend(models)
        else:
            prompts.extend(models)
        return trace(self, inputs, graph)

    monkeypatch.setattr(Tower, "trace", counted)
    copied = replace(tiny, model=copy.deepcopy(tiny.model))
    diff(tiny, copied, pool)
    null_captions = len(Explainer(tiny).null_captions)
    for clip in (tiny, copied):
        assert images.count(id(clip.model)) == len(pool)
        assert prompts.count(id(clip.model)) == len(pool) + null_captions


def test_the_page_shows_the_pairs_with_both_maps_and_fetches_nothing(tiny, bundled, tmp_path):
    examples = []
    widths = {}  # of the images at the height of the page
    for i, caption in enumerate(("<b>a dog</b>", "a red car", "two cats")):
        noise = Image.effect_noise((60 + 10 * i, 60), 64 + i).convert("RGB")
        examples.append(example_of(caption, noise))
        widths[caption] = round(noise.width * 160 / noise.height)
    out = tmp_path / "diff"
    result = diff(bundled, tiny, examples, out)
    prompts = list(result.pairs["prompt"])

    page = BeautifulSoup((out / "index.html").read_text(), "html.parser")
    pairs, kinds, words = page.find_all("table")
    rows = pairs.tbody.find_all("tr")
    for row, prompt in zip(rows, prompts, strict=True):
        caption, maps, *_ = row.find_all("td")
        assert caption.text == prompt
        with Image.open(out / maps.img["src"]) as strip:
            assert strip.size == (3 * widths[prompt] + 8, 160)
    assert len(kinds.find_all("tr")) == 1 + len(result.kinds)
    assert len(words.find_all("tr")) == 1 + len(result.words)
    assert not page.find_all(["link", "iframe"])

    stored = pd.read_csv(out / "pairs.csv")
    assert list(stored["prompt"]) == prompts


def test_the_command_reads_a_folder_with_its_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        scene = draw_scene([6, i], n_objects=1)
        scene.image().save(tmp_path / f"{i}.png")
    table = "image,caption\n0.png,a dog\n1.png,a dog\n"
    (tmp_path / "captions.csv").write_text(table)

    arguments = ["diff", "emoji", "emoji", "--data", ".", "--out", "page"]
    assert main(arguments) == 0
    assert "Nothing changed" in capsys.readouterr().out
    assert (tmp_path / "page" / "index.html").is_file()
    assert main(arguments) == 2
    assert "exists: choose another" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused_in_a_sentence(tiny, pool):
    with pytest.raises(GradeclipError, match="pairs of two images or more, got 1 pairs"):
        diff(tiny, tiny, pool[:1])
    with pytest.raises(GradeclipError, match="not a method that explains images"):
        diff(tiny, tiny, pool, method="leave-one-out")
    with pytest.raises(GradeclipError, match=r"1 of 2 pairs are not compared: .*gone\.png"):
        diff(tiny, tiny, [pool[0], broken()])


def test_a_pair_that_cannot_be_read_is_left_out_with_a_warning(tiny, pool):
    with pytest.warns(UserWarning, match="1 of 4 pairs are not compared"):
        result = diff(tiny, tiny, [*pool[:3], broken()])
    assert len(result.pairs) == 3


def broken():
    return Example("gone", "a cat", "cat", "", (), lambda: Image.open("gone.png"))
