"""The losses: a phrase's map gathers the image's dense features into one embedding, which should be the phrase's.

    pairs -> trace, phrases -> map of each phrase -> region embedding --here--> losses -->
    fine-tuned model

CLIP aligns whole images with whole captions. Its maps say where in the image it found a phrase, so
they can serve as region labels that nobody had to draw (Zhao, Wang, Hsiao and Chan, arXiv
2502.18816). For a phrase t,

    map_i   = relu(lam_i * dS/d alpha_i)    Grad-ECLIP of S = cos(image, t), without a graph: a
    label f_i     = dense feature of patch i      the last block without self-attention
    (`Tower.dense`), unit length region  = normalise(sum_i map_i f_i)

The loss asks each region for its own phrase among all phrases of the batch, and each phrase for its
region. Gradients reach the model through f_i and the embedding of the phrase. Shapes: B pairs, P
places for phrases, N patches, E the width of the embedding, R regions.
"""

import zlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradeclip_utils.methods import METHODS, Options, layers_to_explain
from gradeclip_utils.methods.interactions import word_directions, word_masks
from gradeclip_utils.models import Clip
from gradeclip_utils.runtime import isolated_torch_state
from gradeclip_utils.towers import Layer, Trace, UnsupportedModel, open_image_tower, open_text_tower
from gradeclip_utils.towers.blocks import upcast
from gradeclip_utils.words import split_read

from .pairs import Batch

WORDS, UNIFORM, OTHER, GROUND_TRUTH = "word x region", "uniform", "other image", "ground truth"
_CHUNKS = 4  # texts are read in so many groups of like length, so that short ones cost little


@dataclass(frozen=True)
class Features:
    """The input of the losses, with a graph; from one process, or gathered from all."""

    images: Tensor  # (B, E) unit
    captions: Tensor  # (B, E) unit
    scale: Tensor  # the model's own, exp(logit_scale)
    regions: Tensor | None = None  # (B, P, E) unit; zero where there is none
    phrases: Tensor | None = None  # (B, P, E) unit
    weights: Tensor | None = (
        None  # (B, P): max(map); zero where there is no phrase, or a map without a positive value
    )
    same: Tensor | None = None  # (B, P) long: a number for the text of the phrase


class Learner(nn.Module):
    """A CLIP as fine-tuning needs it: from a batch to `Features`. One module, so that `accelerate` can wrap it."""

    def __init__(self, clip: Clip, maps: str = "grad-eclip", regional: bool = True) -> None:
        super().__init__()
        assert maps in self.choices()
        self.model, self.tokenizer, self.maps, self.regional = (
            clip.model,
            clip.tokenizer,
            maps,
            regional,
        )
        self.image_tower = open_image_tower(clip.model)
        if not self.image_tower.unit:
            raise UnsupportedModel(
                f"fine-tuning needs a CLIP, and {clip.name} is a classifier: it has no text tower"
            )
        self.text_tower = open_text_tower(
            clip.model, layers=1
        )  # one layer: the others are the model's own, quick ones
        method, own = METHODS[maps if maps in METHODS else "grad-eclip"], self.image_tower
        layers = layers_to_explain(None, clip.image_layers, method, own.depth)
        assert method.image is not None
        self._draw = method.image
        self._drawn = own if layers == own.layers else open_image_tower(clip.model, layers)
        self._words = open_text_tower(clip.model) if maps == WORDS else None

    @staticmethod
    def choices() -> tuple[str, ...]:
        """The values of `maps`: methods that explain images, `word x region`, and the reference baselines."""
        methods = [name for name, method in METHODS.items() if method.image is not None]
        return (*methods, WORDS, UNIFORM, OTHER, GROUND_TRUTH)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`Features` as a dict: what passes through a wrapper for several processes."""
        trace = self.image_tower.trace_with_grad(batch.pixels)
        texts = self._read(
            batch.texts if self.regional else [batch.texts[i] for i in batch.captions.tolist()]
        )
        found = {"images": trace.embedding.float(), "scale": self.model.logit_scale.exp()}
        if not self.regional:
            return found | {"captions": texts}
        patches = _patches(trace)
        dense = self.image_tower.dense(trace)[:, -patches:].float()  # (B, N, E)
        phrases, there = texts[batch.phrases], batch.there
        maps = (
            self.phrase_maps(_detached(trace), phrases.detach(), batch).relu() * there[..., None]
        )  # (B, P, N)
        with torch.autocast(phrases.device.type, enabled=False):
            gathered = torch.einsum(
                "bpn,bne->bpe", maps / maps.sum(-1, keepdim=True).clamp_min(1e-12), dense
            )
        numbers = torch.tensor(
            [zlib.crc32(text.lower().encode()) for text in batch.texts], device=phrases.device
        )
        return found | {
            "captions": texts[batch.captions],
            "regions": F.normalize(gathered, dim=-1),
            "phrases": phrases,
            "weights": maps.amax(-1),
            "same": numbers[batch.phrases],
        }

    def phrase_maps(self, trace: Trace, phrases: Tensor, batch: Batch) -> Tensor:
        """Signed maps (B, P, N) over the patches, without a graph; `trace` and `phrases` (B, P, E) are detached."""
        patches = _patches(trace)
        if self.maps == UNIFORM:
            return torch.ones(*phrases.shape[:2], patches, device=phrases.device)
        if self.maps == GROUND_TRUTH:
            assert batch.ground_truth is not None
            return batch.ground_truth.to(phrases).flatten(2)
        with isolated_torch_state(phrases.device):
            if self.maps == WORDS:
                phrases = self._word_directions(batch, phrases)
            if self._drawn is not self.image_tower:  # the method goes through other layers
                trace = self._drawn.trace(trace.inputs)
            maps = self._draw(self._drawn, trace, phrases, Options())
        maps = maps[..., -patches:]
        return _of_the_neighbour(maps, batch.there) if self.maps == OTHER else maps

    def _read(self, texts) -> Tensor:
        """Unit embeddings (T, E), read in groups of like length, each cropped to its own end where text is causal."""
        ids = self.tokenizer(list(texts)).to(self.image_tower.device)
        order = self.text_tower.ends(ids).argsort()
        parts = [
            self.text_tower.trace_with_grad(ids[rows]).embedding
            for rows in order.chunk(min(_CHUNKS, len(ids)))
        ]
        return torch.cat(parts)[order.argsort()].float()

    def _word_directions(self, batch: Batch, phrases: Tensor) -> Tensor:
        """The direction t (B, P, E) of every phrase inside its caption, the sum of its words' directions."""
        directions, tower = torch.zeros_like(phrases), self._words
        assert tower is not None
        for b, row in enumerate(batch.captions.tolist()):
            if not batch.spans[b]:
                continue
            caption = batch.texts[row]
            trace = tower.trace(self.tokenizer([caption]).to(tower.device))
            split = split_read(caption, self.tokenizer, tower)
            words = word_masks(split, trace)  # (W, N)
            own = [
                [a < phrase.end and z > phrase.start for a, z in split.spans]
                for phrase in batch.spans[b]
            ]
            members = torch.stack([words[torch.tensor(mine)].any(0) for mine in own])
            directions[b, : len(own)] = word_directions(tower, trace, members)
        return directions


def _patches(trace: Trace) -> int:
    assert trace.grid is not None
    return trace.grid[0] * trace.grid[1]


def _detached(trace: Trace) -> Trace:
    """The same trace without a graph, in float32: what a map is made of."""
    layers = tuple(
        Layer(*(upcast(part.detach()) for part in vars(layer).values())) for layer in trace.layers
    )
    positions = trace.positions if trace.positions is None else upcast(trace.positions.detach())
    tokens, embedding = upcast(trace.tokens.detach()), upcast(trace.embedding.detach())
    return replace(trace, tokens=tokens, layers=layers, embedding=embedding, positions=positions)


def global_loss(features: Features) -> Tensor:
    """CLIP's symmetric contrastive loss over images and captions (Radford et al. 2021), a scalar."""
    logits = features.scale * features.images @ features.captions.T  # (B, B)
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def region_loss(
    features: Features, focal_gamma: float = 2.0, weighted: bool = True
) -> tuple[Tensor, int]:
    """Focal region-phrase loss, each phrase weighted by w = max(map), and the number R of regions."""
    assert features.regions is not None and features.phrases is not None
    assert features.weights is not None and features.same is not None
    taken = features.weights > 0
    regions, phrases, same = features.regions[taken], features.phrases[taken], features.same[taken]
    weights = features.weights[taken] if weighted else torch.ones_like(features.weights[taken])
    if not len(regions):
        return 0.0 * (features.regions.sum() + features.phrases.sum()), 0
    logits = features.scale.detach() * regions @ phrases.T  # (R, R)
    alike = (same[:, None] == same) & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(alike, -torch.inf)
    fraction = weights / weights.sum()
    loss = (
        sum(
            fraction @ _focal(part.log_softmax(-1).diagonal(), focal_gamma)
            for part in (logits, logits.T)
        )
        / 2
    )
    return loss, len(regions)


def _focal(log_p: Tensor, focal_gamma: float) -> Tensor:
    missed = (1 - log_p.exp()).clamp_min(
        torch.finfo(log_p.dtype).tiny
    )  # at 0 a root has an infinite slope
    return -(missed**focal_gamma) * log_p


def _of_the_neighbour(maps: Tensor, there: Tensor) -> Tensor:
    """For each phrase a map of the next image's phrase in the same place, or of its first one; uniform if none."""
    maps, there = maps.roll(-1, 0), there.roll(-1, 0)
    first = torch.where(there[:, :1, None], maps[:, :1], torch.ones_like(maps[:, :1]))
    return torch.where(there[..., None], maps, first.expand_as(maps))
