"""Protocols: what in a table is due to how one asked, measured and drew, worked out another way."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torchvision import transforms

from gradeclip_utils import METHODS, Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.measures.faithfulness import FULL, areas, colours_of, image_curves, image_score
from gradeclip_utils.measures.localisation import localisation
from gradeclip_utils.scenes import arrange
from studies import protocols
from studies.methods_compared import method_summary, named_examples
from studies.pointing_game import games
from studies.protocols import RANGES, widened
from studies.tables import COSTLY
from tests.studies.test_methods_compared import check, few, small  # noqa: F401

DEEP = "Grad-ECLIP, image layers: 2"


@pytest.fixture
def two_layers(small):  # noqa: F811
    return replace(small, image_layers=2)


def test_maps_of_both_prompts_agree_as_those_that_an_explainer_gives(two_layers, few):  # noqa: F811
    table = method_summary(two_layers, 12, part="both prompts")
    check(table, "methods", len(few) + 1)
    value = table.set_index("figure")["value"]
    assert value["agreement of both prompts, Raw attention"] == pytest.approx(1)
    explainers = {"MaskCLIP": Explainer(two_layers, method="maskclip"), DEEP: Explainer(two_layers)}
    for title, explainer in explainers.items():
        pairs = [explainer.explain(one.image(), [one.prompt, one.others[0]]).image_maps for one in named_examples(3)]
        expected = np.mean([spearmanr(*maps.reshape(2, -1)).statistic for maps in pairs])
        assert value[f"agreement of both prompts, {title}"] == pytest.approx(expected, abs=5e-3)


def test_costly_methods_are_asked_for_both_prompts_of_a_few_images(two_layers):
    (table,) = protocols.both_prompts_figures(two_layers, 32, parts=["m2ib"])
    assert table["figure"].tolist() == ["agreement of both prompts, M2IB"] and table["n"].tolist() == [2]
    explainer = Explainer(two_layers, method="m2ib")
    pairs = [explainer.explain(one.image(), [one.prompt, one.others[0]]).image_maps for one in named_examples(2)]
    expected = np.mean([spearmanr(*maps.reshape(2, -1)).statistic for maps in pairs])
    assert table["mean"].item() == pytest.approx(expected, abs=0.02)


def test_prompts_without_their_shared_part_are_asked_as_directions(bundled):
    table = method_summary(bundled, 4, part="shared part")
    check(table, "methods", 2 + 3 * 4)
    value, examples = table.set_index("figure")["value"], named_examples(4)
    explainer = Explainer(bundled, image_layers=1)
    prompts = explainer.embed_texts([one.prompt for one in examples])
    assert value["length of the part that prompts share"] == pytest.approx(float(prompts.mean(0).norm()))
    similar = explainer.embed_images([one.image() for one in examples]) @ prompts.T
    stake = float(similar.diagonal().mean() - similar.mean())
    assert value["similarity of the own prompt above all"] == pytest.approx(stake, abs=1e-6)
    found = []
    for one, prompt in zip(examples, prompts, strict=True):
        whole, shared = (
            explainer.explain(one.image(), prompt[None]),
            explainer.maps([one.image()], prompts.mean(0)[None]),
        )
        maps = [whole.image_maps[0], whole.image_maps[0] - shared[0, 0].numpy()]  # linear in the direction
        heats = [np.array(replace(whole, image_maps=map_[None]).heatmap(0, signed=True)) for map_ in maps]
        found.append([localisation(heat, one.mask())["average_precision"] for heat in heats])
    before, after = np.mean(found, axis=0)
    title = "Grad-ECLIP as published"
    assert value[f"average precision without the shared part, {title}"] == pytest.approx(after, abs=0.02)
    beyond = value[f"average precision without the shared part beyond whole prompts, {title}"]
    assert beyond == pytest.approx(after - before, abs=0.02)


def test_a_map_that_is_stretched_is_measured_on_all_of_the_wide_image(bundled):
    table = method_summary(bundled, 8, part="stretched")
    value, what = table.set_index("figure")["value"], "average precision of wide images, "
    scenes, found = [one.scene for one in games(2, counts=[2], tint=0)], []
    for scene, flank in zip(scenes, scenes[::-1], strict=True):
        image = widened(scene, flank)
        assert image.size == (768, 384) and image.crop((192, 0, 576, 384)).tobytes() == scene.image().tobytes()
        explained = Explainer(bundled).explain(image, arrange([scene.objects[0].noun]).caption)
        mask = np.zeros((384, 768), bool)
        mask[:, 192:576] = scene.masks(384)[0]
        heats = [replace(explained, box=box).heatmap(0, signed=True) for box in (explained.box, (0, 0, 768, 384))]
        found.append([localisation(np.array(heat), mask)["average_precision"] for heat in heats])
    (on_crop, stretched), deep = np.mean(found, axis=0), "Grad-ECLIP, image layers: 4"
    assert value[what + deep] == pytest.approx(on_crop, abs=1e-3)
    assert value[f"{what}{deep}, stretched"] == pytest.approx(stretched, abs=1e-3)
    assert value[f"{what}{deep}, on the crop beyond stretched"] == pytest.approx(on_crop - stretched, abs=1e-3)
    assert f"{what}random, on the crop beyond stretched" in value.index


def test_nothing_is_stretched_where_the_model_sees_all_of_an_image(two_layers, few):  # noqa: F811
    steps = [transforms.Resize((32, 32)), *two_layers.preprocess.transforms[2:]]
    sees_all = replace(two_layers, preprocess=transforms.Compose(steps))
    value = method_summary(sees_all, 8, part="stretched").set_index("figure")["value"]
    assert value[f"average precision of wide images, {DEEP}, on the crop beyond stretched"] == 0
    assert value["average precision of wide images, random, on the crop beyond stretched"] == 0


def test_half_of_a_deletion_and_all_of_it_are_read_of_the_same_curves(two_layers, few):  # noqa: F811
    table = method_summary(two_layers, 12, part="full range")
    check(table, "methods", 3 * (len(few) + 1) + 3)
    value, found = table.set_index("figure")["value"], []
    explainer, asker = Explainer(two_layers, method="maskclip"), Explainer(two_layers)
    colours = colours_of(two_layers.preprocess)
    for one in named_examples(3):
        maps = {"maskclip": explainer.explain(one.image(), one.prompt).image_maps[0]}
        score = image_score(asker.image_tower.forward, asker.embed_texts(one.prompt)[0])
        pixels = model_view(two_layers.preprocess, one.image()).pixels
        half = replace(FULL, span=0.4, points=3)  # of six points as far as 1, the first three
        for protocol in (half, replace(FULL, points=6), replace(FULL, points=6, fill="mean")):
            curves = image_curves(score, pixels, maps, protocol, games=["deletion"], colours=colours)
            found.append(areas(curves)["auc"].item())
    for name, expected in zip(RANGES, np.reshape(found, (3, 3)).mean(0), strict=True):
        assert value[f"deletion of {name}, MaskCLIP"] == pytest.approx(expected, abs=1e-5)
    means = {name: value[value.index.str.startswith(f"deletion of {name}, ")].to_numpy() for name in RANGES}
    ranking = value[f"ranking by deletion of {RANGES[0]} and of {RANGES[2]}"]
    assert ranking == pytest.approx(spearmanr(means[RANGES[0]], means[RANGES[2]]).statistic)


def test_every_method_is_timed_beside_a_plain_pass_which_is_timed_as_well(two_layers, few, monkeypatch):  # noqa: F811
    calls = {}

    def timed(some, plain, **options):
        """One pass for what is the plain pass, and else as many as characters in its title."""
        assert options == {"repeats": 6, "small": True}
        calls.update(some)
        passes = [1.0 if call is plain else float(len(name)) for name, call in some.items()]
        return pd.DataFrame({"method": list(some), "seconds": 0.0, "passes": passes, "low": 0.5, "high": 99.0})

    monkeypatch.setattr("studies.tables.cost", timed)
    value = method_summary(two_layers, part="cost").set_index("figure")["value"]
    assert value["forward passes, the plain pass itself"] == 1 and value["forward passes, MaskCLIP"] == 8
    titles = {"the plain pass itself", "Grad-ECLIP as published", "Raw attention", "MaskCLIP", DEEP}
    assert set(calls) == titles | {METHODS[name].title for name in COSTLY}
    assert (
        calls[DEEP]().provenance["image_layers"] == 2
        and calls["Grad-ECLIP as published"]().provenance["image_layers"] == 1
    )
    assert calls["MaskCLIP"]().provenance["method"] == "MaskCLIP" and calls["the plain pass itself"]() is None
    assert torch.is_grad_enabled()
