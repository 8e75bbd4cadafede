"""`python -m gradeclip_utils`: does this model work here? Loads it, says what can be explained, explains a picture.

    python -m gradeclip_utils                                           # the bundled model on a scene of its own
    python -m gradeclip_utils --model ViT-B-16 --pretrained openai --image dog.jpg --caption "a dog on a sofa"

Exit code 0 when the explanation was written, 2 with one sentence when something was wrong with what was asked for.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

from . import __version__
from .explain import Explainer
from .images import read_image
from .models import Clip, load_clip
from .scenes import draw_scene


def main(arguments: list[str] | None = None) -> int:
    """Run the command with `arguments` (those of the shell by default) and return its exit code."""
    options = _options(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say  # a warning is for the reader of this command, not about a line of source
            clip = load_clip(options.model, options.pretrained, device=options.device, precision=options.precision)
            print(clip.describe())
            _explain(clip, options)
    except (ValueError, TypeError, OSError) as error:
        print(f"gradeclip: {error}", file=sys.stderr)
        return 2
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gradeclip_utils",
        description="Load a CLIP, say what can be explained, check that the explained number is the model's own, and "
        "write one explanation as a PNG.",
        epilog="Without --model, GRADECLIP_MODEL and GRADECLIP_PRETRAINED decide, and else the bundled model is used.",
    )
    parser.add_argument("--model", help="a name that open_clip knows, or 'emoji', the bundled model")
    parser.add_argument("--pretrained", metavar="TAG_OR_PATH", help="weights: a tag of open_clip, or a file")
    parser.add_argument("--image", metavar="FILE", help="the picture; a drawn scene if not given")
    parser.add_argument("--caption", metavar="TEXT", help="what to look for; with --image; the scene's own otherwise")
    parser.add_argument("--out", metavar="FILE.png", default="explanation.png", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; default: fp32")
    parser.add_argument("--version", action="version", version=f"gradeclip {__version__}, torch {torch.__version__}")
    options = parser.parse_args(arguments)
    if options.image and options.caption is None:
        parser.error("--image needs a --caption: what should be looked for in it?")
    folder = Path(options.out).absolute().parent
    if Path(options.out).suffix.lower() != ".png" or not folder.is_dir():
        parser.error(f"--out must end in .png and lie in a folder that exists; got {options.out!r}")
    return options


def _explain(clip: Clip, options: argparse.Namespace) -> None:
    scene = draw_scene(seed=0)
    image = read_image(options.image) if options.image else scene.image()
    caption = scene.caption if options.caption is None else options.caption
    explanation = Explainer(clip).explain(image, caption)
    difference = _difference(clip, explanation.image, caption, float(explanation.similarity[0]))
    print(f"  parity   the explained similarity differs from the plain forward pass by {difference:.1e}")
    explanation.plot().savefig(options.out)
    print(f"similarity {explanation.similarity[0]:.4f} of {options.image or 'a drawn scene'} and {caption!r}")
    print(f"written to {options.out}")


@torch.no_grad()
def _difference(clip: Clip, image, caption: str, similarity: float) -> float:
    """Between the explained number and what open_clip's own `encode_image` and `encode_text` give."""
    weight = next(clip.model.visual.parameters())
    pixels = clip.preprocess(image)[None].to(weight.device, weight.dtype)
    tokens = clip.tokenizer([caption]).to(weight.device)
    seen = clip.model.encode_image(pixels, normalize=True).float()
    read = clip.model.encode_text(tokens, normalize=True).float()
    return abs(float((seen * read).sum()) - similarity)


def _say(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"note: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
