"""Photographs: five that anybody may use, each with a caption. Their sources and licences are in `data/photos`."""

from __future__ import annotations

from functools import partial

from ..files import data_path
from ..images import read_image
from .example import Example
from .own import read_captions


def photographs() -> list[Example]:
    """Five photographs in the public domain or under CC0, at most 384 pixels a side, each with one caption.

        for example in photographs():
            display(explainer.explain(example.image(), example.prompt))

    There are no masks, and five images measure nothing: they are for looking at what a model of photographs does. The
    bundled models have never seen one, and say so.

    Returns:
        One example an image, by name.

    Raises:
        FileNotFoundError: the installation is damaged.
    """
    folder = data_path("photos")
    return [
        Example(row.image, row.caption, row.image, row.caption, (row.image,), partial(read_image, folder / row.image))
        for row in read_captions(folder / "captions.csv").itertuples()
    ]
