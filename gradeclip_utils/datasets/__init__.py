"""Data sets: images with a prompt and, if known, the mask of what the prompt names.

    data set -> Example: image, prompt, mask -> Explainer -> map -> measures

    load("scenes:development:200")                  # emoji scenes, drawn here: no network, exact masks
    load("coco:coco")                               # Lin et al., ECCV 2014: annotations/ and val2017/
    load("folder:mine")                             # your own: images/, masks/, captions.csv
    from_huggingface(load_dataset("...")["test"])   # anything that Hugging Face `datasets` reads
    load_choices("sugar-crepe:data@coco/val2017")   # Hsieh et al., NeurIPS 2023: a right and a wrong caption each
    load_choices("winoground:winoground")           # Thrush et al., CVPR 2022
    load_choices("aro:aro")                         # Yuksekgonul et al., ICLR 2023
    load_choices("colorswap:colorswap")             # Burapacheep et al., 2024
    photographs()                                   # five that everybody may use

A data set is a list of examples, or of choices between two captions. Images and masks are read when they are needed,
also in another process. Nothing is downloaded: a message says where to get missing files.
"""

from .choices import Choice, aro, colorswap, sugar_crepe, winoground
from .example import Example
from .mscoco import coco, coco_captions
from .own import captioned_images, from_huggingface, photographs, read_captions
from .registry import load, load_choices, register_dataset

__all__ = [
    "Choice", "Example", "aro", "captioned_images", "coco", "coco_captions", "colorswap",
    "from_huggingface", "load", "load_choices", "photographs", "read_captions",
    "register_dataset", "sugar_crepe", "winoground",
]  # fmt: skip
