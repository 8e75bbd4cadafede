"""Small folders in published forms: images with captions and masks, COCO's own layout, and weights in three forms."""

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

SIDE = 96
SHOWN = [("dog", "umbrella"), ("banana", "clock"), ("dog", "umbrella"), ("clock", "umbrella"), ("banana", "dog")]
NAMES = sorted({name for pair in SHOWN for name in pair})
SAID = [
    "A red dog beside an umbrella. ",
    "the black clock and a yellow banana",
    "Two red dogs.",
    "a clock",
    "green banana",
]

RATED = "dog idea bus freedom apple love table hope chair truth river art horse peace bread luck".split()


def write_noise(folder, captions):
    """Write images of noise, each with a box that is its object, and a table of their captions."""
    rng, lines = np.random.default_rng(0), ["image,caption"]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i, caption in enumerate(captions):
        mask = np.zeros((32, 32), np.uint8)
        top, left = rng.integers(0, 16, 2)
        mask[top : top + 12, left : left + 12] = 255
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"images/{i}.png")
        Image.fromarray(mask).save(folder / f"masks/{i}.png")
        lines.append(f"{i}.png,{caption}")
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


def write_coco(folder):
    """Write two files of annotations and val2017/; masks are polygons, and run lengths of crowds."""
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    images, annotations, captions = [], [], []
    for number, (pair, said) in enumerate(zip(SHOWN, SAID, strict=True), start=1):
        scene, file = arrange(list(pair), seed=number), f"{number:012d}.jpg"
        scene.image(SIDE).convert("RGB").save(folder / "val2017" / file)
        images.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
        for k, (name, mask) in enumerate(zip(pair, scene.masks(SIDE), strict=True)):
            annotation = {"id": 10 * number + k, "image_id": number, "category_id": NAMES.index(name) + 1, "iscrowd": k}
            runs = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
            x, y, wide, high = tools.toBbox(runs).tolist()
            box = [[x, y, x + wide, y, x + wide, y + high, x, y + high]]
            shape = {"counts": _run_lengths(mask), "size": [SIDE, SIDE]} if k else box
            annotations.append({**annotation, "bbox": [x, y, wide, high], "area": 1000.0, "segmentation": shape})
        captions.append({"id": number, "image_id": number, "caption": said})
    categories = [{"id": i, "name": name, "supercategory": "thing"} for i, name in enumerate(NAMES, start=1)]
    record = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(record))
    (folder / "annotations/captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return folder


def write_coco_captions(folder, count):
    """Write COCO's file of captions with val2017/: images of noise, each with one caption of rated words."""
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    images, annotations = [], []
    for number in range(count):
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 32, "height": 32})
        noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        noise.save(folder / "val2017" / images[-1]["file_name"])
        one, other = rng.choice(RATED, 2, replace=False)
        caption = f"a {rng.choice(['red', 'happy'])} {one} with the {rng.choice(['small', 'true'])} {other}"
        annotations.append({"id": number, "image_id": number, "caption": caption})
    record = {"images": images, "annotations": annotations}
    (folder / "annotations/captions_val2017.json").write_text(json.dumps(record))
    return folder


def _run_lengths(mask):
    """As COCO has them for a crowd: along the columns, beginning with zeros."""
    flat = mask.T.ravel().tolist()
    return [0] * flat[0] + [len(list(run)) for _, run in groupby(flat)]


def write_vit_b_32(folder, form):
    """Write a ViT-B/32 of random weights as open_clip, OpenAI or transformers publish theirs; what loads it."""
    if form == "transformers":
        return (_write_transformers(folder),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-32", force_quick_gelu=form == "openai")
    if form == "open_clip":
        save_file(model.state_dict(), folder / "weights.safetensors")
        return "ViT-B-32-gelu", folder / "weights.safetensors"
    for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    del model.attn_mask  # a buffer in open_clip, but not in the archives
    traced = torch.jit.trace_module(model, {"encode_image": torch.zeros(1, 3, 224, 224)}, check_trace=False)
    torch.jit.save(traced, folder / "ViT-B-32.pt")
    return "ViT-B-32", folder / "ViT-B-32.pt"


def _write_transformers(folder):
    import transformers

    read = open_clip.SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (folder / "vocab.json").write_text(json.dumps({ends.get(piece, piece): i for piece, i in read.encoder.items()}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, read.bpe_ranks)]))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    config = transformers.CLIPConfig()  # of ViT-B/32
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, token, getattr(tokenizer, token))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPProcessor(transformers.CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    return folder


def write_open_clip(folder):
    """Write random weights of a small model with CLIP's own vocabulary and context."""
    vision, text = {**TINY_VISION, "layers": 4}, {**TINY_TEXT, "context_length": 77}
    config = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    state = {key: value.contiguous() for key, value in build(vision, text).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
