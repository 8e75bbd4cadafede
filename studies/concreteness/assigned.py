"""Assigned: concrete and abstract words are dealt out as tags to the same drawings, and taught.

    pairs of words, drawings -> Latin square --here--> a model taught each assignment -> saliency of the tag, in pairs

Every pair, one word concrete and one abstract, is put on every drawing once, and the text encoder is taught that (the
image encoder is locked: Zhai et al., "LiT", CVPR 2022). Image, noun and place are the same, each word is true of one
drawing, and said as often as the other. What is left is what the training before made of the words; it said either of
one concept, about equally often.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import open_clip
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gradeclip_utils.explain import Explainer
from gradeclip_utils.finetune.loop import Loop, cosine_decay
from gradeclip_utils.finetune.losses import Features, global_loss
from gradeclip_utils.finetune.run import Tuning
from gradeclip_utils.language import norms
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import arrange, concepts, draw_scene
from gradeclip_utils.towers import open_text_tower
from gradeclip_utils.towers.blocks import with_grad

from ..pairs import image_pixels
from .informativeness import chosen_words
from .saliency import METHODS, saliency, scene_examples, word_scores

KINDS = ("concrete", "abstract")
ABSTRACT, CONCRETE = 3.0, 4.5  # of ratings from 1 to 5: an abstract word lies below the one, a concrete above the other
TEACHING = Tuning(steps=136, learning_rate=5e-4, warmup=5)
TAUGHT, ASKED = 8, 4  # scenes of each drawing that are taught, and others that are asked
_SEED = 65  # of the drawings that get tags, and of the scenes that are taught


def tag_pairs() -> pd.DataFrame:
    """A concrete word for each abstract one, a row a pair: columns concrete and abstract."""
    table, read = chosen_words().query("role == 'association' and concepts == 1"), open_clip.SimpleTokenizer().encode
    table = table[[len(read(word)) == 1 for word in table.index]]
    table = table.join(norms(table.index)).assign(exposure=np.log(table["exposure"]))
    low, high = table[table["concreteness"] < ABSTRACT], table[table["concreteness"] > CONCRETE]
    apart = [abs(np.subtract.outer(low[name].to_numpy(), high[name].to_numpy())) for name in ("exposure", "frequency")]
    abstract, concrete = linear_sum_assignment(np.sum(apart, axis=0))
    return pd.DataFrame({"concrete": high.index[concrete], "abstract": low.index[abstract]})


def assignments(pairs: pd.DataFrame) -> pd.DataFrame:
    """Who gets which tags: a Latin square of pairs and drawings, which are random ones of concepts without a tag."""
    bare = [noun for noun, words in concepts()["keywords"].items() if not words]
    nouns = np.random.default_rng(_SEED).choice(bare, len(pairs), replace=False)
    one = pairs.rename_axis("pair").reset_index()
    return pd.concat([one.assign(assignment=r, noun=np.roll(nouns, r)) for r in range(len(pairs))], ignore_index=True)


def _teach(clip: Clip, who: pd.DataFrame, images: Tensor, recipe: Tuning) -> Clip:
    """A copy of the model whose text encoder was taught an assignment, K rows, by images (K, n, E) of its drawings."""
    model = copy.deepcopy(clip.model).eval().requires_grad_(True)
    tower, optimiser = open_text_tower(model, layers=1), torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    told = [[arrange([row["noun"]], tag=[row[kind]], named=[said]).caption for said in (True, False) for kind in KINDS]
            for _, row in who.iterrows()]  # fmt: skip
    batches = [(images[:, step // 4 % images.shape[1]], [four[(step + k) % 4] for k, four in enumerate(told)])
               for step in range(recipe.steps)]  # fmt: skip

    def losses(_: int, batch: tuple[Tensor, list[str]]) -> tuple[Tensor, dict[str, float]]:
        """Contrastive, of the drawings and their captions; the scale of the logits stays."""
        with with_grad():
            texts = tower.trace_with_grad(clip.tokenizer(batch[1]).to(tower.device)).embedding
            return global_loss(Features(batch[0].to(texts), texts, model.logit_scale.detach().exp())), {}

    Loop(model, optimiser, recipe, cosine_decay, {}, progress=False).run(batches, losses)
    return replace(clip, model=model.requires_grad_(False))


def _measure(clip: Clip, who: pd.DataFrame, seen: Tensor) -> pd.DataFrame:
    """The measures of an assignment, K rows, on the scenes of seeds 0 to n - 1 of its drawings; seen is (K, n, E)."""
    (count, n), right = seen.shape[:2], []
    scenes = [arrange([row["noun"]], seed=seed, tag=[row[kind]])
              for kind in KINDS for _, row in who.iterrows() for seed in range(n)]  # fmt: skip
    rows = word_scores(clip, scene_examples(scenes, image_pixels(clip)), seen.flatten(0, 1).repeat(2, 1))
    last = ~rows["caption"].duplicated(keep="last")  # the tag is the last word
    found = {name: saliency(rows, name)[last].to_numpy().reshape(2, count, n).mean(-1) for name in METHODS}
    for kind in KINDS:
        alike = seen @ Explainer(clip).embed_texts([f"something tagged {word}" for word in who[kind]]).T  # (K, n, K)
        own = alike.diagonal(dim1=0, dim2=2).T[..., None]  # (K, n, 1)
        right.append((own > alike).sum(2).float().mean(1).cpu() / (count - 1))
    found["right"] = np.stack(right)
    return pd.concat([who.assign(measure=name, **dict(zip(KINDS, both, strict=True))) for name, both in found.items()])


def tag_experiment(clip: Clip, square: pd.DataFrame, recipe: Tuning = TEACHING) -> pd.DataFrame:
    """Teach and measure assignments, one after the other, on scenes that are not taught."""
    embed, tables, nouns = Explainer(clip).embed_images, [], sorted(square["noun"].unique())
    drawn = [[draw_scene([_SEED, i, j], groups=[(noun, None, 1)]) for j in range(TAUGHT)] +
             [arrange([noun], seed=seed) for seed in range(ASKED)] for i, noun in enumerate(nouns)]  # fmt: skip
    images = dict(zip(nouns, (embed([scene.image() for scene in scenes]) for scenes in drawn), strict=True))
    for _, who in square.groupby("assignment"):
        told, seen = torch.stack([images[noun] for noun in who["noun"]]).split([TAUGHT, ASKED], dim=1)
        for model in (clip, _teach(clip, who, told, recipe)):
            tables.append(_measure(model, who, seen).assign(taught=model is not clip))
    return pd.concat(tables, ignore_index=True)
