"""Ablations: what each part of Grad-ECLIP is good for, on scenes of two things that are asked for in turn. Lesson 02.

    scenes --Grad-ECLIP, changed in one part--> maps, weights, scores of words --> a row a scene --> figures

Beside the figures stand controls that should fail: models that know nothing, a map that is the same everywhere, and
captions that are read beside another image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.measures.evaluation import available
from gradeclip_utils.measures.localisation import located
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.measures.statistics import summarise
from gradeclip_utils.methods.grad_eclip import grad_eclip, spatial_weights
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, Scene, describe, draw_scene
from gradeclip_utils.towers import open_text_tower
from gradeclip_utils.words import Word

from .maps import method_maps, on_canvas
from .relevance import object_coverage
from .tables import ahead_of, beyond, through, title_of, told

OF_BOTH = ("energy pointing game", "selectivity", "pointing game", "pixel AUC")  # of both things of a scene, in turn
_KINDS = ("grad-eclip", "grad-eclip-softmax", "grad-eclip-no-spatial", "grad-eclip-single-head", "attention")
_DRAWN_ANEW, _AT_RANDOM = 5, ", random weights"  # models that know nothing
_ATTENDED, _FIRST = "attention on a tenth of the patches", "a true prompt is first"
_ON, _OFF = "loosened weight on things", "loosened weight where nothing is"


def both_things(n: int) -> tuple[list[Scene], list[Image.Image], list[str]]:
    """Development scenes of two different things, their images, and the prompts of both things, scene by scene."""
    drawn = (draw_scene(seed, split="development", n_objects=2, tint=0, plain=True) for seed in count())
    scenes = list(islice((one for one in drawn if one.objects[0].noun != one.objects[1].noun), min(n, 60)))
    return scenes, [one.image() for one in scenes], [describe([thing])[0] for one in scenes for thing in one.objects]


def spatial_weight_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """Where maps lie by one spatial weight or another, with one head, through more layers, and with random weights."""
    scenes, images, prompts = both_things(n)
    rows = []

    def _add(title: str, model: Clip, name: str = "grad-eclip") -> None:
        """The rows of the maps of one method."""
        texts = Explainer(model).embed_texts(prompts).unflatten(0, (-1, 2))
        maps = np.ones((len(images), 2, 1, 1))
        if title != "area":
            maps = method_maps(model, [name], images, texts)[name]
        for k, scene in enumerate(scenes):
            rows.extend({"image": k, "method": title} | row for row in _of_both(clip, scene, images[k], maps[k]))

    one_layer = replace(clip, image_layers=1)
    tower = Explainer(one_layer).image_tower
    for name in available(one_layer, _KINDS):
        _add(title_of(name), one_layer, name)
    deep = {min(2, tower.depth), min(4, tower.depth), clip.image_layers or 1, tower.depth} - {1}
    for layers in [] if tower.blocks[-1].latent else sorted(deep):
        _add(through(layers), replace(clip, image_layers=layers))
    for seed in range(_DRAWN_ANEW):
        _add("random weights", randomised(one_layer, seed=seed))
    _add("area", one_layer)
    table, tables = pd.DataFrame(rows), []
    blind = table["method"].isin(["area", title_of("attention")])  # one map for both things
    for measure in OF_BOTH:
        what, seen = f"{measure} of both things, ", table[~blind] if measure == "selectivity" else table
        tables += [told(what + "{method}", seen, measure), ahead_of(what + "ahead of {method}", table, measure)]
        for title in () if measure == "selectivity" else (title_of("attention"), "random weights"):
            tables.append(beyond(table, title, "area", f"{what}{title} beyond area", measure))
    return tables


def _of_both(clip: Clip, scene: Scene, image: Image.Image, maps: np.ndarray) -> Iterator[dict[str, float]]:
    """The measures of `OF_BOTH` of each thing of a scene, from its own map."""
    masks, box = scene.masks(CANVAS), model_view(clip.preprocess, image).box
    for i, mask in enumerate(masks):
        heat = on_canvas(np.maximum(maps[i], 0), box, image)
        one = located(heat, masks)[i]
        parts = one.on_thing, one.on_thing - one.on_others, one.hit, roc_auc_score(mask.ravel(), heat.ravel())
        yield dict(zip(OF_BOTH, parts, strict=True))


def last_layer_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """What the last layer attends to, where its loosened weight is large, and what one head makes of it."""
    scenes, images, prompts = both_things(n)
    rows = [pd.DataFrame(_looked(clip, scenes, images, prompts, one_head=True))]
    for seed in range(_DRAWN_ANEW):
        found = pd.DataFrame(_looked(randomised(clip, seed=seed), scenes, images, prompts))
        rows.append(found.set_index("image").add_suffix(_AT_RANDOM).reset_index())
    table = pd.concat([one.melt("image", var_name="method") for one in rows], ignore_index=True)
    tables = [told("{method}", table, "value")]
    for one in (_ATTENDED, _ON, _OFF, _FIRST):
        tables.append(beyond(table, one, one + _AT_RANDOM, f"{one}, beyond random weights"))
    for drawn in ("", _AT_RANDOM):
        tables.append(beyond(table, _ON + drawn, _OFF + drawn, f"{_ON} beyond where nothing is{drawn}"))
    return [*tables, beyond(table, _FIRST, f"{_FIRST} with one head", f"{_FIRST} beyond with one head")]


def _looked(
    clip: Clip, scenes: list[Scene], images: list, prompts: list[str], one_head: bool = False
) -> Iterator[dict]:
    """One row a scene, of what the last layer has; with `one_head` also of what becomes of it with one head."""
    explainer = Explainer(replace(clip, image_layers=1))
    tower, texts = explainer.image_tower, explainer.embed_texts(prompts)

    def right(embedding: torch.Tensor, k: int) -> float:
        """Whether the prompt that is most similar of all is true of scene k."""
        return float(prompts[int((embedding @ texts.T).argmax())] in prompts[2 * k : 2 * k + 2])

    for k, scene in enumerate(scenes):
        trace = tower.trace(clip.preprocess(images[k])[None].to(tower.device))
        there, layer = trace.valid_mask[0], trace.layers[-1]
        alpha = layer.attention[0, :, 0, there].float()  # (H, patches)
        held = alpha.topk(round(alpha.shape[1] / 10)).values.sum(1) / alpha.sum(1)
        lam = spatial_weights(layer, trace.valid_mask)[0, 0, 0, there].cpu().numpy()
        things = object_coverage(explainer, scene, trace.grid).sum(0).clip(max=1).ravel()
        on, off = ((lam * part).sum() / part.sum() for part in (things, 1 - things))
        row = {"image": k, _ATTENDED: float(held.mean()), _ON: on, _OFF: off, _FIRST: right(trace.embedding[0], k)}
        if one_head:
            single, two = tower.with_one_head(trace), texts[None, 2 * k : 2 * k + 2]
            maps = [grad_eclip(tower, one, two)[0][:, there].float().cpu().numpy() for one in (trace, single)]
            alike = np.corrcoef(np.concatenate(maps))  # of both prompts, with the model's heads and with one
            moved = (two[0] @ (single.embedding - trace.embedding)[0]).abs().mean()
            row |= {
                "one head moves the similarity by": float(moved),
                f"{_FIRST} with one head": right(single.embedding[0], k),
            }
            row["maps by one head and the model's heads, correlation"] = (alike[0, 2] + alike[1, 3]) / 2
            row["maps of both prompts, correlation"] = alike[0, 1]
        yield row


def text_layer_figures(clip: Clip, n: int) -> list[pd.DataFrame]:
    """What reads the prompt attends to, layer by layer, and how far scores of words lie on nouns, by layers."""
    scenes, images, _ = both_things(n)
    captions = [f"a photo of {one.caption}" for one in scenes]
    depth = (tower := open_text_tower(clip.model, layers=1)).depth
    trace = open_text_tower(clip.model, layers=depth).trace(clip.tokenizer(captions).to(tower.device))
    attention = {f"text layer {number} of {depth}": layer.attention[:, :, 0].mean(1).cpu()  # (B, N), heads averaged
              for number, layer in enumerate(trace.layers, 1)}  # fmt: skip
    seen, rows = (attention[f"text layer {depth} of {depth}"] > 0).float(), []
    attention["all tokens alike"] = seen / seen.sum(1, keepdim=True)
    for where, alpha in attention.items():
        itself = alpha.gather(1, trace.query_index.cpu()).sum(1)  # none, where no token reads
        parts = {"the first token": alpha[:, 0], "words": 1 - alpha[:, 0] - itself, "the token that reads": itself}
        rows += [{"image": k, "figure": f"attention to {name}, {where}", "value": float(value)}
                 for name, part in parts.items() for k, value in enumerate(part)]  # fmt: skip
    tables = [summarise(pd.DataFrame(rows), "value", "figure")]
    rows = [{"image": k, "method": "all words alike", "value": 2 / len(one.split())} for k, one in enumerate(captions)]
    nouns = [{thing.noun for thing in one.objects} for one in scenes]
    for layers in range(1, depth + 1):
        explainer = Explainer(replace(clip, image_layers=1), text_layers=layers)
        for name, shown in {"": images, ", another image": images[1:] + images[:1]}.items():
            found, title = explainer.explain_batch(shown, captions), f"{layers} of {depth} layers{name}"
            rows += [{"image": k, "method": title, "value": noun_fraction(one.words[0], nouns[k])}
                     for k, one in enumerate(found)]  # fmt: skip
    table = pd.DataFrame(rows)
    tables.append(told("word scores on nouns, {method}", table, "value"))
    for layers in range(1, depth + 1):
        own = f"{layers} of {depth} layers"
        for than in ("all words alike", f"{own}, another image", *([f"1 of {depth} layers"] if layers > 1 else [])):
            tables.append(
                beyond(table, own, than, f"word scores on nouns, {own} beyond {than.removeprefix(own + ', ')}")
            )
    return tables


def noun_fraction(words: Sequence[Word], nouns: set[str]) -> float:
    """Which fraction of the positive scores of words lies on nouns; where no score is positive, of the words."""
    scores, on_noun = np.array([[max(word.score, 0), word.text in nouns] for word in words]).T
    return float(scores @ on_noun / scores.sum() if scores.any() else on_noun.mean())
