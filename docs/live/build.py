"""Build the live explorer: one folder, whose page explains scenes in a browser without Python.

    python docs/live/build.py build/live                     # takes `pip install '.[live]'` and npm
    python -m http.server --directory build/live

Everything that the page loads lies in the folder: this folder's page, the package's `pixels.js`,
graphs of the bundled model by `export.py`, scenes with their captions, and onnxruntime-web, which
npm fetches in a fixed version.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from torchvision.transforms import Compose

from gradeclip_utils import Clip, Explainer, load_clip
from gradeclip_utils.plots.colours import colormap
from gradeclip_utils.plots.drawing import title_of
from gradeclip_utils.plots.page import FRONT
from gradeclip_utils.prompts import null_captions
from gradeclip_utils.scenes import (
    Scene,
    arrange,
    concept,
    concepts,
    describe,
    draw_scene,
    phrase,
    showable,
)
from gradeclip_utils.scenes.emoji import words_by_kind
from gradeclip_utils.words import Word
from training.npm import fetched

HERE = Path(__file__).parent
PAGE = [HERE / name for name in ("index.html", "live.css", "live.js", "model.js")]
PAGE += [FRONT / name for name in ("pixels.js", "htm-preact.js", "htm-preact.LICENSE")]
RUNTIME = "onnxruntime-web@1.27.0"
RUNTIME_SHA256 = "b59c9819434a7519f334f77e8d4bf22b69808d531a57724cabc4bb2c0704c835"
RUNTIME_FILES = (  # of the wasm backend
    "dist/ort.wasm.bundle.min.mjs",
    "dist/ort-wasm-simd-threaded.wasm",
)
SCENES = 12
ABSENT = "piano"  # in the scene of the README; other scenes lack a noun that is drawn by chance


def fetch_runtime(out: Path) -> None:
    """Put onnxruntime-web's files into a folder, fetched by npm and checked."""
    files = fetched(RUNTIME, RUNTIME_SHA256, RUNTIME_FILES)
    for path in RUNTIME_FILES:
        (out / Path(path).name).write_bytes(files[path])


def chosen_scenes() -> list[Scene]:
    """The scene of the README, and showable development scenes with one to three things."""
    scenes = [arrange(["dog", "umbrella"], seed=3)]
    for i in range(9 * SCENES):
        scene = draw_scene([20, i], split="development", n_objects=1 + i % 3)
        nouns = {thing.noun for thing in scene.objects}
        if showable(scene) and len(nouns) == len(scene.objects):
            scenes.append(scene)
    return scenes[:SCENES]


def absent_noun(clip: Clip, scene: Scene, number: int) -> str:
    """A noun that the model knows and a scene lacks, of another category than its things."""
    if number == 0:
        return ABSENT
    categories = {concept(thing.noun)["category"] for thing in scene.objects}
    known = concepts()[concepts()["noun"].isin(clip.vocabulary)]
    others = known[~known["category"].isin(categories)]["noun"]
    return str(np.random.default_rng(number).choice(others))


def write_scenes(clip: Clip, out: Path) -> None:
    """Write each scene's image, what the model sees of it, and scenes.json with its captions.

    One caption of each scene is false.
    """
    (out / "scenes").mkdir(exist_ok=True)
    as_seen = Compose(clip.preprocess.transforms[:-2])  # without `ToTensor` and `Normalize`
    rows = []
    for i, scene in enumerate(chosen_scenes()):
        names = {kind: f"scenes/{i:02d}-{kind}.png" for kind in ("image", "seen")}
        image = scene.image()
        image.save(out / names["image"], optimize=True)
        as_seen(image).save(out / names["seen"], optimize=True)
        nouns = [thing.noun for thing in scene.objects]
        absent = phrase(absent_noun(clip, scene, i))
        rows.append(
            {
                **names,
                "captions": [*map(phrase, nouns[:2]), absent],
                "absent": absent,
                "about": f"a drawn scene of {describe(scene.objects)[0]}",
            }
        )
    (out / "scenes.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_about(clip: Clip, tokens: dict[str, list[int]], context: int, out: Path) -> None:
    """Write about.json: words, colours, and (nulls.bin) the embeddings of the other captions."""
    explainer = Explainer(clip)
    nulls = explainer.embed_texts(null_captions(clip.vocabulary)).numpy().astype("<f4")
    (out / "nulls.bin").write_bytes(nulls.tobytes())
    cells = title_of([Word(word, 0.0, 0, len(word)) for word in tokens])
    about = {
        "side": explainer.image_tower.image_size[0],
        "context": context,
        "words": len(clip.vocabulary),
        "nulls": len(nulls),
        "tokens": tokens,
        "known": words_by_kind(clip.vocabulary),
        "nouns": sorted(clip.vocabulary & {*concepts()["noun"], *concepts()["plural"]}),
        "small": [word.text for word, _ in cells if word.small],
        "colormap": np.round(colormap(), 5).tolist(),
        "provenance": (
            f"{clip.name}: a small CLIP of drawn scenes. {explainer.method.title} of its last "
            f"{explainer.image_tower.layers} image layers (the paper explains one). Words: what "
            "the similarity loses without them. "
            f"{RUNTIME}, MIT licence; htm and preact, Apache-2.0 and MIT licence."
        ),
    }
    (out / "about.json").write_text(json.dumps(about), encoding="utf-8")


def build(out: Path) -> None:
    """Make the folder anew, all but onnxruntime-web. One that holds something else is refused."""
    from export import CONTEXT, export  # which need onnx, unlike the rest

    if out.exists() and any(out.iterdir()):
        if not (out / "live.js").is_file():
            msg = f"{out} holds something else: name a folder that is new or of an older build"
            raise FileExistsError(msg)
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    for file in PAGE:
        shutil.copy(file, out)
    clip = load_clip("emoji")
    write_scenes(clip, out)
    write_about(clip, export(clip, out), CONTEXT, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder, which is made anew")
    folder = parser.parse_args().out
    try:
        build(folder)
        fetch_runtime(folder)
    except ModuleNotFoundError as missing:
        sys.exit(
            f"{missing.name} is missing, with which the model is exported: pip install '.[live]'"
        )
    except (FileNotFoundError, FileExistsError, ConnectionError) as refusal:
        sys.exit(str(refusal))
    weight = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {weight / 1e6:.1f} MB; python -m http.server --directory {folder}")
