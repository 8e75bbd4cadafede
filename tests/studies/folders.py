"""Small folders in published forms.

Images with captions and masks, COCO's own layout, and weights of small models.
"""

import json
from itertools import groupby

import numpy as np
import open_clip
import torch
from PIL import Image
from pycocotools import mask as tools
from safetensors.torch import save_file

from gradeclip_utils.scenes import arrange
from tests.conftest import TINY_TEXT, TINY_VISION, build
from training.compact import save_compact

SIDE = 96
SHOWN = [
    ("dog", "umbrella"),
    ("banana", "clock"),
    ("dog", "umbrella"),
    ("clock", "umbrella"),
    ("banana", "dog"),
]
NAMES = sorted({name for pair in SHOWN for name in pair})
SAID = [
    "A red dog beside an umbrella. ",
    "the black clock and a yellow banana",
    "Two red dogs.",
    "a clock",
    "green banana",
]


def write_noise(folder, captions):
    """Write images of noise, each with a box that is its object, and a table of their captions."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["image,caption,mask"]
    for i, caption in enumerate(captions):
        row, column = rng.integers(0, 16, 2)
        file = f"{i}.png"
        mask = np.zeros((32, 32), np.uint8)
        mask[row : row + 12, column : column + 12] = 255
        _noise(rng).save(folder / "images" / file)
        Image.fromarray(mask).save(folder / "masks" / file)
        lines.append(f"{file},{caption},{file}")
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


def _noise(rng):
    return Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))


def write_coco(folder):
    """Write two files of annotations and val2017/.

    Masks are polygons, and run lengths of crowds.
    """
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    images = []
    annotations = []
    captions = []
    for number, (pair, caption) in enumerate(zip(SHOWN, SAID, strict=True), start=1):
        scene = arrange(list(pair), seed=number)
        file = f"{number:012d}.jpg"
        scene.image(SIDE).convert("RGB").save(folder / "val2017" / file)
        images.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
        captions.append({"id": number, "image_id": number, "caption": caption})

        for k, (name, mask) in enumerate(zip(pair, scene.masks(SIDE), strict=True)):
            runs = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
            x, y, width, height = tools.toBbox(runs).tolist()
            right = x + width
            bottom = y + height
            annotation = {
                "id": 10 * number + k,
                "image_id": number,
                "category_id": NAMES.index(name) + 1,
                "iscrowd": k,
                "bbox": [x, y, width, height],
                "area": 1000.0,
                "segmentation": [[x, y, right, y, right, bottom, x, bottom]],
            }
            if annotation["iscrowd"]:
                annotation["segmentation"] = {"counts": _run_lengths(mask), "size": [SIDE, SIDE]}
            annotations.append(annotation)

    categories = [
        {"id": i, "name": name, "supercategory": "thing"} for i, name in enumerate(NAMES, start=1)
    ]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    _write(folder, "instances", instances)
    _write(folder, "captions", {"images": images, "annotations": captions})
    return folder


def write_coco_captions(folder, captions):
    """Write COCO's file of captions with val2017/: images of noise, each with its captions."""
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    rng = np.random.default_rng(0)
    images = []
    annotations = []
    for number, texts in enumerate(captions):
        file = f"{number}.jpg"
        _noise(rng).save(folder / "val2017" / file)
        images.append({"id": number, "file_name": file, "width": 32, "height": 32})
        for k, text in enumerate(texts):
            annotations.append(
                {
                    "id": 9 * number + k,
                    "image_id": number,
                    "caption": text,
                }
            )
    _write(folder, "captions", {"images": images, "annotations": annotations})
    return folder


def _write(folder, kind, record):
    (folder / f"annotations/{kind}_val2017.json").write_text(json.dumps(record))


def _run_lengths(mask):
    """As COCO has them for a crowd: along the columns, beginning with zeros."""
    flat = mask.T.ravel().tolist()
    lengths = [len(list(run)) for _, run in groupby(flat)]
    return [0, *lengths] if flat[0] else lengths


def write_transformers(folder):
    """Write random weights of a small CLIPModel with CLIP's own vocabulary, and its processor."""
    import transformers

    read = open_clip.SimpleTokenizer()
    vocabulary = dict(read.encoder)
    for name in ("start", "end"):
        vocabulary[f"<|{name}oftext|>"] = vocabulary.pop(f"<{name}_of_text>")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) for pair in read.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    layers = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    text = dict(layers)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        text[name] = getattr(tokenizer, name)
    vision = {**layers, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def write_compact(folder):
    """Write a small model of random weights that knows few words; the arguments that load it."""
    text = {**TINY_TEXT, "context_length": 77, "vocab_size": 49408}
    config = {"embed_dim": 48, "vision_cfg": TINY_VISION, "text_cfg": text}
    preprocess = {
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "size": 32,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**config)
    path = folder / "small.safetensors"
    words = ["a", "red", "car", "dog", "cat", "bus", "cow"]
    config |= {"preprocess": preprocess, "trained_on_drawn_scenes": True}
    save_compact(model, path, words=words, config=config)
    return ["--model", "emoji", "--pretrained", str(path)]


def write_open_clip(folder):
    """Write random weights of a small model with CLIP's own vocabulary and context."""
    vision = {**TINY_VISION, "layers": 4}
    text = {**TINY_TEXT, "context_length": 77}
    model_config = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}
    config = {"model_cfg": model_config, "preprocess_cfg": {"size": 32}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = build(vision, text)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
