"""Data sets: images with a prompt and, if known, the mask of what the prompt names.

    data set -> Example: image, prompt, mask -> Explainer -> map -> measures

    load("scenes:development:200")   # emoji scenes, drawn here: no network, exact masks
    load("coco:coco")                # Lin et al., ECCV 2014: annotations/ and val2017/
    load("folder:mine")              # your own: images/, masks/, captions.csv
    photographs()                    # five that everybody may use
    from_huggingface(dataset)        # a split of Hugging Face `datasets`

A data set is a list of examples. Images and masks are read when they are needed, also in another
process. Nothing is downloaded: a message says where to get missing files.
"""

from .example import Example
from .folders import captioned_images, from_huggingface, photographs, read_captions
from .mscoco import coco, coco_captions
from .registry import load, register_dataset

__all__ = [
    "Example",
    "captioned_images",
    "coco",
    "coco_captions",
    "from_huggingface",
    "load",
    "photographs",
    "read_captions",
    "register_dataset",
]
