"""Ablations: what lesson 02 measures of each part of Grad-ECLIP, worked out another way."""

import numpy as np
import pytest
from scipy.stats import rankdata

from gradeclip_utils import Explainer
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.scenes import describe, draw_scene
from gradeclip_utils.words import Word
from studies.ablations import OF_BOTH, both_things, noun_fraction
from studies.methods_compared import method_summary
from tests.studies.test_methods_compared import check


def test_lesson_02_measures_both_things_of_its_scenes(bundled):
    table = method_summary(bundled, 3, part="spatial weights")
    check(table, "methods", 3 * (10 + 9 + 2) + 8 + 9)
    scenes = [draw_scene(seed, split="development", n_objects=2, tint=0, plain=True) for seed in range(9)]
    scenes = [one for one in scenes if one.objects[0].noun != one.objects[1].noun][:3]
    explainer, found = Explainer(bundled, method="grad-eclip-softmax", image_layers=1), []
    for scene in scenes:
        masks = scene.masks(384)
        for own, other, thing in zip(masks, masks[::-1], scene.objects, strict=True):
            heat = explainer.explain(scene.image(), describe([thing])[0]).heatmap(0)
            ranks, inside = rankdata(heat), own.ravel().sum()
            higher = (ranks[own.ravel()].sum() - inside * (inside + 1) / 2) / inside / (own.size - inside)
            on, off = (heat[mask].sum() / heat.sum() for mask in (own, other))
            found.append((on, on - off, own.ravel()[heat.argmax()], higher))
    value = table.set_index("figure")["value"]
    for measure, expected in zip(OF_BOTH, np.mean(found, axis=0), strict=True):
        what = f"{measure} of both things"
        assert value[f"{what}, Softmax x gradient"] == pytest.approx(expected, abs=0.02)  # of finer pixels
        ahead = value[f"{what}, Grad-ECLIP as published"] - value[f"{what}, Softmax x gradient"]
        assert value[f"{what}, ahead of Softmax x gradient"] == pytest.approx(ahead)
    area = np.mean([scene.masks(96).mean() for scene in scenes])
    assert value[f"{OF_BOTH[0]} of both things, area"] == pytest.approx(area)
    blind = value[f"{OF_BOTH[0]} of both things, Raw attention"]
    assert value[f"{OF_BOTH[0]} of both things, Raw attention beyond area"] == pytest.approx(blind - area)
    models = {"Grad-ECLIP, image layers: 2": [Explainer(bundled, image_layers=2)]}
    models["random weights"] = [Explainer(randomised(bundled, seed=seed), image_layers=1) for seed in range(5)]
    for name, explainers in models.items():
        fractions = []
        for scene in scenes:
            prompts = [describe([thing])[0] for thing in scene.objects]
            for one in explainers:
                found = one.explain(scene.image(), prompts)
                for i, mask in enumerate(scene.masks(384)):
                    heat = found.heatmap(i)
                    fractions.append(heat[mask].sum() / heat.sum())
        (figure,) = (
            one for one in value.index if one.startswith(OF_BOTH[0]) and one.endswith(name) and "ahead" not in one
        )
        assert value[figure] == pytest.approx(np.mean(fractions), abs=0.01)


def test_the_last_layer_is_looked_at_with_the_models_heads_and_with_one(bundled):
    table = method_summary(bundled, 2, part="last layer")
    check(table, "methods", 8 + 4 + 4 + 2 + 1)
    value, (scenes, images, prompts) = table.set_index("figure")["value"], both_things(2)
    explainers = [Explainer(bundled, image_layers=1, attention=heads) for heads in ("model", "single-head")]
    texts, found = explainers[0].embed_texts(prompts), []
    for k, (scene, image) in enumerate(zip(scenes, images, strict=True)):
        layer = explainers[0].image_tower.trace(bundled.preprocess(image)[None]).layers[-1]
        alpha, q, keys = (
            layer.attention[0, :, 0, 1:].numpy(),
            layer.q[0].flatten().numpy(),
            layer.k[0, 1:].flatten(1).numpy(),
        )
        held = np.mean([np.sort(head)[-14:].sum() / head.sum() for head in alpha])
        cosine = keys @ q / np.linalg.norm(keys, axis=1)
        lam = (cosine - cosine.min()) / np.ptp(cosine)
        on = pool(scene.masks(384).any(0).astype(float), (12, 12)).ravel()
        own, one = (explainer.explain(image, prompts[2 * k : 2 * k + 2]) for explainer in explainers)
        flat = [each.image_maps.reshape(2, -1) for each in (own, one)]
        moved = np.abs(np.subtract(one.provenance["single_head_similarity"]["image"], own.similarity)).mean()
        first = int((texts @ explainers[0].embed_images(image)[0]).argmax()) // 2 == k
        alike = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*flat, strict=True)])
        found.append(
            (
                held,
                lam @ on / on.sum(),
                lam @ (1 - on) / (1 - on).sum(),
                first,
                moved,
                alike,
                np.corrcoef(flat[0])[0, 1],
            )
        )
    names = ["attention on a tenth of the patches", "loosened weight on things", "loosened weight where nothing is"]
    names += ["a true prompt is first", "one head moves the similarity by"]
    names += ["maps by one head and the model's heads, correlation", "maps of both prompts, correlation"]
    assert value[names].to_numpy() == pytest.approx(np.mean(found, axis=0), abs=2e-3)
    beyond = value["loosened weight on things"] - value["loosened weight where nothing is"]
    assert value["loosened weight on things beyond where nothing is"] == pytest.approx(beyond)


def test_random_weights_attend_to_what_random_weights_attend_to(bundled):
    value = method_summary(bundled, 2, part="last layer").set_index("figure")["value"]
    held = []
    for seed in range(5):
        tower = Explainer(randomised(bundled, seed=seed), image_layers=1).image_tower
        for image in both_things(2)[1]:
            alpha = tower.trace(bundled.preprocess(image)[None]).layers[-1].attention[0, :, 0, 1:]
            held.append((alpha.sort().values[:, -14:].sum(1) / alpha.sum(1)).mean())
    control = value["attention on a tenth of the patches, random weights"]
    assert control == pytest.approx(np.mean(held), abs=1e-4)
    difference = value["attention on a tenth of the patches"] - control
    assert value["attention on a tenth of the patches, beyond random weights"] == pytest.approx(difference)


def test_word_scores_lie_on_nouns_by_layers_and_beside_another_image(bundled):
    table = method_summary(bundled, 3, part="text layers")
    check(table, "methods", 9 + 3 + 1 + 3 * 2 + 3 * 2 + 2)
    value, (scenes, images, _) = table.set_index("figure")["value"], both_things(3)
    for layers in (1, 2):
        explainer, own, other = Explainer(bundled, text_layers=layers), [], []
        for k, scene in enumerate(scenes):
            nouns = {thing.noun for thing in scene.objects}
            for place, found in ((k, own), ((k + 1) % 3, other)):
                words = explainer.explain(images[place], f"a photo of {scene.caption}").words[0]
                positive = {i: word.score for i, word in enumerate(words) if word.score > 0}
                on = sum(score for i, score in positive.items() if words[i].text in nouns)
                found.append(on / sum(positive.values()))
        what = f"word scores on nouns, {layers} of 3 layers"
        assert value[what] == pytest.approx(np.mean(own), abs=1e-4)
        assert value[f"{what}, another image"] == pytest.approx(np.mean(other), abs=1e-4)
        assert value[f"{what} beyond another image"] == pytest.approx(np.mean(own) - np.mean(other), abs=1e-4)
    for layer in (1, 2, 3):
        parts = value[value.index.str.startswith("attention to") & value.index.str.contains(f"text layer {layer} of 3")]
        assert len(parts) == 3 and parts.sum() == pytest.approx(1)
    tokens = [len(bundled.tokenizer.encode(f"a photo of {scene.caption}")) + 2 for scene in scenes]
    even = value["attention to the token that reads, all tokens alike"]
    assert even == pytest.approx(np.mean([1 / n for n in tokens]))
    assert value["attention to words, all tokens alike"] == pytest.approx(1 - 2 * even)


def test_with_no_score_above_zero_nouns_have_their_part_of_the_words():
    words = [Word(text, score, i, i + 1) for i, (text, score) in enumerate([("a", -1.0), ("cat", -2.0), ("sat", 0.0)])]
    assert noun_fraction(words, {"cat"}) == pytest.approx(1 / 3)
