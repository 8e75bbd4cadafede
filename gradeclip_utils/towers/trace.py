"""Trace: what became of a batch of inputs inside a tower.

model --tower--> Trace --method--> map --Explanation--> figure
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """What one explained layer did: B inputs, N tokens, R query tokens, H heads of C channels, D = H * C."""

    q: Tensor  # (B, R, H, C)
    k: Tensor  # (B, N, H, C)
    v: Tensor  # (B, N, H, C)
    attention: Tensor  # (B, H, R, N): alpha, rows sum to one
    o: Tensor  # (B, R, D): attention output, before out_proj


@dataclass(frozen=True)
class Entry:
    """A batch of inputs as it enters the first explained layer."""

    inputs: Tensor  # pixels (B, 3, H, W) or token ids (B, context_length), as the tower was given them
    tokens: Tensor  # (B, N, D)
    query_index: Tensor  # (B, R), positions of the query tokens; (B, 0) where a latent query reads, which is no token
    valid_mask: Tensor  # (B, N) bool: the tokens that a map is about (patches; SOT, words and EOT, but no padding)
    heads: int  # of the explained layers
    grid: tuple[int, int] | None  # (h, w) of the patches, which are the last h * w tokens
    attention_mask: Tensor | None = None
    # (B or 1, N, N) bool: who sees whom, beyond "causal"; None: everyone sees everyone. Or, where a model adds to its
    # attention logits by how far tokens are apart, what it adds: (B or 1, H, N, N) float, -inf where nobody sees
    positions: Tensor | None = None  # what layers turn by, or add, by the place of a token (rotary, a pool's positions)

    def mask_of_heads(self) -> Tensor | None:
        """The attention mask for every head, (B or 1, H or 1, N, N)."""
        mask = self.attention_mask
        return mask[:, None] if mask is not None and mask.ndim == 3 else mask


@dataclass(frozen=True, kw_only=True)
class Trace(Entry):
    """What became of it: the explained layers, the first one first, from one forward pass."""

    layers: tuple[Layer, ...]
    embedding: Tensor  # (B, E), of unit length; the logits of a classifier as they are
    graph: tuple[Tensor, tuple[Tensor, ...]] | None = None  # embedding and each layer's o, as autograd knows them
