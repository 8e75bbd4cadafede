"""Data sets: images with a prompt and the ground truth of where it lies, to measure maps on. All give the same record.

    data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation

    load("scenes:development:200")                  # emoji scenes, drawn here: no network, exact masks
    load("imagenet-segmentation:gtsegs_ijcv.mat")   # Guillaumin, Kuettel, Ferrari, IJCV 2014
    load("imagenet-s:ImageNetS919")                 # Gao et al., TPAMI 2022
    load("coco:coco")                               # Lin et al., ECCV 2014: annotations/ and val2017/
    load("folder:mine")                             # your own: images/, masks/, captions.csv
    sugar_crepe("data/swap_att.json", "val2017")    # Hsieh et al., NeurIPS 2023: a right and a wrong caption each

A data set is a list of examples, or of choices where captions are compared. What an example is about is known at once;
image and mask are read when they are asked for, so a list of a hundred thousand costs little, and goes to another
process as it is. Nothing is downloaded: what is missing is named, with the page that has it.

`example` has the record, `registry` has `load`, which `register_dataset` tells of data sets of yours, and each of the
other files reads one published format.
"""

from .emoji import emoji_scenes
from .example import Example, optional_library
from .imagenet import imagenet_name, imagenet_s, imagenet_segmentation
from .mscoco import coco, coco_captions
from .own import own_images, read_captions
from .registry import load, register_dataset, spread
from .sugarcrepe import Choice, sugar_crepe

__all__ = [
    "Choice", "Example", "coco", "coco_captions", "emoji_scenes", "imagenet_name", "imagenet_s",
    "imagenet_segmentation", "load", "optional_library", "own_images", "read_captions", "register_dataset",
    "spread", "sugar_crepe",
]  # fmt: skip
