"""The losses: a phrase's map gathers dense features into one embedding, to be the phrase's own.

    pairs -> trace, phrases -> map of each phrase -> region embedding --here--> losses -->
    fine-tuned model

CLIP aligns whole images with whole captions. Its maps say where in the image it found a phrase, so
they can serve as region labels that nobody had to draw (Zhao, Wang, Hsiao and Chan, arXiv
2502.18816). The weight of a phrase is that of SFF-CLIP (Zhao, Lin, Chan and Hsiao, "Fine-grained
CLIP fine-tuning with self-annotated region alignment", Eq. 3). For a phrase t,

    map_i  = relu(lam_i * dS/d alpha_i)    Grad-ECLIP of S = cos(image, t), without a graph: a label
    f_i    = dense feature of patch i      the last block without self-attention (`Tower.dense`)
    region = normalise(sum_i map_i f_i)

The loss asks each region for its own phrase among all phrases of the batch, and each phrase for its
region. Gradients reach the model through f_i and the embedding of the phrase. Shapes: B pairs, P
places for phrases, N patches, E the width of the embedding, R regions.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods import METHODS, Options, layers_to_explain
from gradeclip_utils.methods.interactions import word_directions, word_masks
from gradeclip_utils.models import Clip
from gradeclip_utils.runtime import isolated_torch_state
from gradeclip_utils.towers import Layer, Trace, UnsupportedModel, open_image_tower, open_text_tower
from gradeclip_utils.towers.blocks import upcast
from gradeclip_utils.words import split_read

from .pairs import Batch

WORDS = "word x region"
UNIFORM = "uniform"
OTHER = "other image"
GROUND_TRUTH = "ground truth"
FOCAL_GAMMA = 2.0
_TEXT_CHUNKS = 4  # texts are read in so many groups of like length, so that short ones cost little


@dataclass(frozen=True)
class Features:
    """The input of the losses, with a graph."""

    images: Tensor  # (B, E) unit
    captions: Tensor  # (B, E) unit
    scale: Tensor  # the model's own, exp(logit_scale)
    regions: Tensor | None = None  # (B, P, E) unit; zero where there is none
    phrases: Tensor | None = None  # (B, P, E) unit
    weights: Tensor | None = None  # (B, P): max(map); 0 without a phrase or a positive value
    text_ids: Tensor | None = None  # (B, P) long: equal for equal texts


def map_choices() -> list[str]:
    """The values of `maps`: methods that explain images, `word x region`, and references."""
    methods = [name for name, method in METHODS.items() if method.image is not None]
    return [*methods, WORDS, UNIFORM, OTHER, GROUND_TRUTH]


class Learner(nn.Module):
    """A CLIP as fine-tuning needs it: from a batch to `Features`.

    It is one module, so that `accelerate` can wrap it.
    """

    def __init__(self, clip: Clip, maps: str = "grad-eclip", regional: bool = True) -> None:
        super().__init__()
        if maps not in map_choices():
            raise GradeclipError(f"maps must be one of {', '.join(map_choices())}; got {maps!r}")
        self.model = clip.model
        self.tokenizer = clip.tokenizer
        self.maps = maps
        self.regional = regional

        self.image_tower = open_image_tower(clip.model)
        if not self.image_tower.unit:
            raise UnsupportedModel(
                f"fine-tuning needs a CLIP, and {clip.name} is a classifier: it has no text tower"
            )
        # one layer is traced: the others are the model's own, quick ones
        self.text_tower = open_text_tower(clip.model, layers=1)
        self.word_tower = open_text_tower(clip.model) if maps == WORDS else None

        self.method = METHODS[maps if maps in METHODS else "grad-eclip"]
        self.map_tower = self.image_tower
        # the last layer alone, as in the paper, unless the method goes through a part of all
        layers = layers_to_explain(
            user=None,
            model_default=None,
            method=self.method,
            depth=self.image_tower.depth,
        )
        if layers != self.image_tower.layers:
            self.map_tower = open_image_tower(clip.model, layers)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`Features` as a dict: what passes through a wrapper for several GPUs."""
        trace = self.image_tower.trace_with_grad(batch.pixels)
        features = {
            "images": trace.embedding.float(),
            "scale": self.model.logit_scale.exp(),
        }
        if not self.regional:
            captions = [batch.texts[row] for row in batch.captions.tolist()]
            return features | {"captions": self.embed_texts(captions)}

        texts = self.embed_texts(batch.texts)
        phrases = texts[batch.phrases]  # (B, P, E)
        maps = self.phrase_maps(detach(trace), phrases.detach(), batch)  # (B, P, N)
        maps = maps.relu() * batch.phrase_mask[..., None]

        dense = self.image_tower.dense(trace)
        patch_features = dense[:, -patch_count(trace) :].float()  # (B, N, E)
        with torch.autocast(phrases.device.type, enabled=False):
            totals = maps.sum(-1, keepdim=True).clamp_min(1e-12)
            gathered = torch.einsum("bpn,bne->bpe", maps / totals, patch_features)
            regions = F.normalize(gathered, dim=-1)  # (B, P, E)

        checksums = [zlib.crc32(text.lower().encode()) for text in batch.texts]
        text_ids = torch.tensor(checksums, device=phrases.device)  # (T,)
        return features | {
            "captions": texts[batch.captions],
            "regions": regions,
            "phrases": phrases,
            "weights": maps.amax(-1),
            "text_ids": text_ids[batch.phrases],
        }

    def phrase_maps(self, trace: Trace, phrases: Tensor, batch: Batch) -> Tensor:
        """Signed maps (B, P, N) over the patches, without a graph; `phrases` (B, P, E)."""
        patches = patch_count(trace)
        if self.maps == UNIFORM:
            return torch.ones(*phrases.shape[:2], patches, device=phrases.device)
        if self.maps == GROUND_TRUTH:
            assert batch.ground_truth is not None
            return batch.ground_truth.to(phrases).flatten(2)

        assert self.method.image is not None
        with isolated_torch_state(phrases.device):
            directions = phrases
            if self.maps == WORDS:
                directions = self.directions_in_captions(batch, phrases)
            if self.map_tower is not self.image_tower:  # the method goes through other layers
                trace = self.map_tower.trace(trace.inputs)
            relevance = self.method.image(self.map_tower, trace, directions, Options())

        maps = relevance[..., -patches:]  # (B, P, N)
        if self.maps == OTHER:
            return maps_of_next_image(maps, batch.phrase_mask)
        return maps

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings (T, E), in groups of like length, each cropped where text is causal."""
        ids = self.tokenizer(list(texts)).to(self.image_tower.device)
        order = self.text_tower.ends(ids).argsort()
        groups = order.chunk(min(_TEXT_CHUNKS, len(ids)))
        embeddings = [self.text_tower.trace_with_grad(ids[rows]).embedding for rows in groups]
        return torch.cat(embeddings)[order.argsort()].float()

    def directions_in_captions(self, batch: Batch, phrases: Tensor) -> Tensor:
        """The direction (B, P, E) of every phrase in its caption: the sum of those of its words."""
        directions = torch.zeros_like(phrases)
        tower = self.word_tower
        assert tower is not None
        for b, spans in enumerate(batch.spans):
            if not spans:
                continue
            caption = batch.texts[int(batch.captions[b])]
            trace = tower.trace(self.tokenizer([caption]).to(tower.device))
            split = split_read(caption, self.tokenizer, tower)
            words = word_masks([split], trace)[:, 0]  # (W, N)
            starts, ends = torch.tensor(split.spans).T  # (W,), characters

            members = []
            for phrase in spans:
                overlaps = (starts < phrase.end) & (ends > phrase.start)
                members.append(words[overlaps].any(0))
            phrase_masks = torch.stack(members)  # (phrases, N)
            directions[b, : len(members)] = word_directions(tower, trace, phrase_masks)
        return directions


def patch_count(trace: Trace) -> int:
    """How many patches an image has; they are the last tokens."""
    assert trace.grid is not None
    rows, columns = trace.grid
    return rows * columns


def detach(trace: Trace) -> Trace:
    """The same trace without a graph, in float32, from which maps are made."""
    layers = []
    for layer in trace.layers:
        parts = [upcast(part.detach()) for part in vars(layer).values()]
        layers.append(Layer(*parts))

    positions = trace.positions
    if positions is not None:
        positions = upcast(positions.detach())
    return replace(
        trace,
        tokens=upcast(trace.tokens.detach()),
        layers=tuple(layers),
        embedding=upcast(trace.embedding.detach()),
        positions=positions,
    )


def maps_of_next_image(maps: Tensor, phrase_mask: Tensor) -> Tensor:
    """For each phrase the map (B, P, N) of the next image's phrase in the same place.

    An image with fewer phrases gives that of its first one, and one without phrases a uniform map.
    """
    maps = maps.roll(-1, 0)
    has_phrase = phrase_mask.roll(-1, 0)[..., None]  # (B, P, 1)
    first = maps[:, :1].masked_fill(~has_phrase[:, :1], 1)  # (B, 1, N)
    return torch.where(has_phrase, maps, first)


def global_loss(features: Features) -> Tensor:
    """CLIP's symmetric contrastive loss of images and captions (Radford et al. 2021), a scalar."""
    logits = features.scale * features.images @ features.captions.T  # (B, B)
    labels = torch.arange(len(logits), device=logits.device)
    of_images = F.cross_entropy(logits, labels)
    of_captions = F.cross_entropy(logits.T, labels)
    return (of_images + of_captions) / 2


def region_loss(features: Features, weighted: bool = True) -> tuple[Tensor, int]:
    """Focal region-phrase loss, each phrase weighted by w = max(map), and the number R of regions.

        loss = sum_t w_t (focal(p_t) + focal(q_t)) / (2 sum_t w_t)

    p_t is the softmax over all phrases of region t, and q_t that over all regions of phrase t. A
    phrase of the same text is no wrong answer, and left out of the softmax.
    """
    assert features.weights is not None and features.text_ids is not None
    assert features.regions is not None and features.phrases is not None

    has_region = features.weights > 0
    regions = features.regions[has_region]  # (R, E)
    phrases = features.phrases[has_region]
    text_ids = features.text_ids[has_region]
    weights = features.weights[has_region]
    if not weighted:
        weights = torch.ones_like(weights)
    if not len(regions):  # zero, with a graph
        return 0.0 * (features.regions.sum() + features.phrases.sum()), 0

    logits = features.scale.detach() * regions @ phrases.T  # (R, R)
    same_text = text_ids[:, None] == text_ids  # (R, R)
    same_text.fill_diagonal_(False)  # a region's own phrase is its right answer
    logits = logits.masked_fill(same_text, -torch.inf)

    log_p = logits.log_softmax(-1).diagonal()  # (R,)
    log_q = logits.T.log_softmax(-1).diagonal()
    penalties = focal(log_p, FOCAL_GAMMA) + focal(log_q, FOCAL_GAMMA)
    shares = weights / weights.sum()
    return shares @ penalties / 2, len(regions)


def focal(log_p: Tensor, gamma: float) -> Tensor:
    """The focal loss (1 - p)^gamma * -log p (Lin et al., arXiv 1708.02002)."""
    return -((1 - log_p.exp()) ** gamma) * log_p
