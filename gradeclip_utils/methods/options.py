"""Options: what a method may use beside the tower, the trace and the directions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..words import Split


@dataclass(frozen=True)
class Options:
    """What the explainer tells every method, which uses what it needs.

    B inputs have N tokens and embeddings of width E.

    Attributes:
        seed: for random numbers.
        empty: the embedding (E,) of a prompt without words, for a method that compares the targets
            of one call.
        word_ids: of prompts, the word of every token (B, N); -1 for SOT, EOT and padding.
        splits: of prompts, the words of each as they were written.
        fill: the token id of padding.
        tokenize: T strings -> token ids (T, context length) on the tower's device.
        vocabulary: the words that the model knows, or None if it knows any.
    """

    seed: int = 0
    empty: Tensor | None = None
    word_ids: Tensor | None = None
    splits: Sequence[Split] = ()
    fill: int | None = None
    tokenize: Callable[[Sequence[str]], Tensor] | None = None
    vocabulary: frozenset[str] | None = None


DEFAULTS = Options()
