"""Choices: the figures of a data set of choices, whoever asks and however often it is stopped."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.datasets import load_choices
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import interval
from studies import choices as study
from studies.choices import choice_figures, choice_rows

CAPTIONS = ["a red car and a blue ball", "a blue car and a red ball"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Winoground's form: five examples of two images of noise."""
    folder, noise, lines = tmp_path_factory.mktemp("winoground"), np.random.default_rng(0), []
    (folder / "images").mkdir()
    for i in range(5):
        names = [f"ex_{i}_img_{k}" for k in (0, 1)]
        for name in names:
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "images" / f"{name}.png")
        said = [f"{caption} number {i}" for caption in CAPTIONS]
        lines.append({"id": i, "image_0": names[0], "image_1": names[1], "caption_0": said[0], "caption_1": said[1],
                      "collapsed_tag": ("Object", "Relation")[i % 2]})  # fmt: skip
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return f"winoground:{folder}"


@pytest.fixture(scope="module")
def rows(tiny, data):
    return choice_rows(tiny, data, progress=False)


def test_a_choice_is_right_where_its_own_caption_is_the_more_similar_one(rows, tiny, data):
    explainer = Explainer(tiny)
    choices = load_choices(data)
    for choice, row in zip(choices, rows.itertuples(), strict=True):
        own, other = explainer.explain(choice.image(), [choice.caption, choice.negative]).similarity
        assert (row.image, row.kind) == (choice.key, choice.kind)
        assert row.margin == pytest.approx(own - other, abs=1e-6) and row.right == (own > other)
    mean = explainer.embed_images([choice.image() for choice in choices]).mean(0)
    apart = torch.stack([mean @ (a - b) for a, b in
                         zip(*(explainer.embed_texts([getattr(c, name) for c in choices])
                               for name in ("caption", "negative")), strict=True)])  # fmt: skip
    assert list(rows["text_only"]) == [float(one > 0) for one in apart]


def test_figures_are_by_kind_beside_those_of_captions_alone_with_winogrounds_text_score(rows, data):
    table = choice_figures(rows, data).set_index("figure")
    for kind, part in rows.groupby("kind"):
        assert table.loc[f"winoground, {kind}", "value"] == part["right"].mean()
        assert table.loc[f"winoground, {kind}, captions alone", "value"] == pytest.approx(0.5)  # each is right once
    both = [a and b for a, b in rows["right"].to_numpy().reshape(-1, 2)]
    assert table.loc["winoground, text score", "value"] == np.mean(both)
    assert table.loc["winoground, all kinds", "n"] == 10 and table.loc["winoground, text score", "n"] == 5
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    blind = choice_figures(rows.assign(right=[1.0, 0.0] * 5), data).set_index("figure")  # as every scorer of captions
    assert blind.loc["winoground, all kinds", ["low", "high"]].tolist() == [0.5, 0.5], "examples are drawn, not images"
    assert choice_figures(rows[1:], data).set_index("figure").loc["winoground, text score", "n"] == 4, "whole ones"
    assert "winoground, text score" not in set(choice_figures(rows[::2], data)["figure"])


def test_what_was_done_is_not_done_again(rows, tiny, data, tmp_path, monkeypatch):
    found = choice_rows(tiny, data, folder=tmp_path / "run", progress=False)
    pd.testing.assert_frame_equal(found, rows)
    monkeypatch.setattr(study, "judge_choices", None)  # no question is asked again
    pd.testing.assert_frame_equal(choice_rows(tiny, data, folder=tmp_path / "run", progress=False), rows)
    with pytest.raises(GradeclipError, match="holds another run: .*asked was"):
        choice_rows(tiny, data, 3, folder=tmp_path / "run", progress=False)


def test_images_that_several_choices_show_are_drawn_again_and_not_the_choices(tiny, tmp_path):
    entries, noise = {}, np.random.default_rng(0)
    for i in range(12):
        shown = i // 4  # three images, of four choices each
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{shown}.png")
        entries[str(i)] = {"filename": f"{shown}.png", "caption": f"a dog {i}", "negative_caption": f"a cat {i}"}
    for kind, some in (("swap_att", list(entries)), ("swap_obj", ["0", "4", "8"])):
        (tmp_path / f"{kind}.json").write_text(json.dumps({name: entries[name] for name in some}))
    data = f"sugar-crepe:{tmp_path}@{tmp_path}"
    rows = choice_rows(tiny, data, progress=False)
    assert rows["image_key"].tolist() == [f"{i // 4}.png" for i in range(12)] + ["0.png", "1.png", "2.png"]
    answers = [1.0] * 4 + [0.0] * 8 + [1.0, 0.0, 0.0]  # one image is told, whatever is asked of it
    table = choice_figures(rows.assign(right=answers), data).set_index("figure")
    for kind, expected in (("swap_att", interval(answers[:12], rows["image_key"][:12])),
                           ("swap_obj", interval(answers[12:])),  # of one choice each: Wilson's
                           ("all kinds", interval(answers, rows["image_key"]))):  # fmt: skip
        found = table.loc[f"sugar-crepe, {kind}"]
        assert [found["low"], found["high"]] == pytest.approx(expected) and found["value"] == pytest.approx(1 / 3)
    assert table.loc["sugar-crepe, swap_att", ["low", "high"]].tolist() == [0, 1]  # of Wilson's 12: .14 to .61
