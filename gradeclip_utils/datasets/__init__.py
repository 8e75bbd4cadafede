"""Data sets: images with a prompt and the ground truth of where it lies, to measure maps on. All give the same record.

    data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation

    load("scenes:development:200")                  # emoji scenes, drawn here: no network, exact masks
    load("imagenet-segmentation:gtsegs_ijcv.mat")   # Guillaumin, Kuettel, Ferrari, IJCV 2014
    load("imagenet-s:ImageNetS919")                 # Gao et al., TPAMI 2022
    load("coco:coco")                               # Lin et al., ECCV 2014: annotations/ and val2017/
    load("folder:mine")                             # your own: images/, masks/, captions.csv
    load("webdataset:train-{0000..0127}.tar")       # tars of images and captions, as img2dataset writes them
    load("csv:pairs.csv")                           # open_clip's table: filepath, title
    load("dataset:saved@test")                      # a folder of Hugging Face `datasets`, or of parquet files
    load_choices("sugar-crepe:data@coco/val2017")   # Hsieh et al., NeurIPS 2023: a right and a wrong caption each
    load_choices("winoground:winoground")           # Thrush et al., CVPR 2022
    load_choices("aro:aro")                         # Yuksekgonul et al., ICLR 2023
    photographs()                                   # five that everybody may use

A data set is a list of examples, or of choices where captions are compared. What an example is about is known at once;
image and mask are read when they are asked for, so a list of a hundred thousand costs little, and goes to another
process as it is. Nothing is downloaded: what is missing is named, with the page that has it.

`example` has the record, `registry` has `load`, which `register_dataset` tells of data sets of yours, and the other
files read published formats.
"""

from .arrow import saved_dataset
from .choices import Choice, aro, sugar_crepe, winoground
from .emoji import emoji_scenes
from .example import Example, optional_library
from .imagenet import imagenet_name, imagenet_s, imagenet_segmentation
from .mscoco import coco, coco_captions
from .own import captioned_images, open_clip_csv, own_images, photographs, read_captions
from .registry import load, load_choices, register_choices, register_dataset, spread
from .webdataset import webdataset

__all__ = [
    "Choice", "Example", "aro", "captioned_images", "coco", "coco_captions", "emoji_scenes", "imagenet_name",
    "imagenet_s", "imagenet_segmentation", "load", "load_choices", "open_clip_csv", "optional_library", "own_images",
    "photographs", "read_captions", "register_choices", "register_dataset", "saved_dataset", "spread", "sugar_crepe",
    "webdataset", "winoground",
]  # fmt: skip
