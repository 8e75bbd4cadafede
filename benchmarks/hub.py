"""The same for models of transformers: an explanation, in units of `get_image_features` + `get_text_features`.

    python -m benchmarks.hub --threads 1

`CLIPModel` is open_clip's ViT-B-16 converted, with its processor; `SiglipModel` has the config of
google/siglip-base-patch16-224, and a tokenizer of words, because SigLIP's own is a file of a hub. Weights are random:
they do not change the time. Prompts are padded to the length of the model's training, in the plain pass and in the
explanation. Attention is the library's default.

Prints a table in Markdown. Exits with 1 when a ratio exceeds its limit.
"""

import statistics
import sys
import tempfile
from types import SimpleNamespace

import open_clip
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.bench import MODEL, Case, cases, options, seconds
from gradeclip_utils import Clip, Explainer, load_clip
from gradeclip_utils.models.convert import to_transformers

# Of the first cases of `bench`. SigLIP's text is read in both directions: the gradient goes back through all 64 tokens
# of six of its twelve layers, which is a seventh of the plain pass by itself.
LIMITS = {"CLIPModel": (1.05, 0.35, 1.00), "SiglipModel": (1.20,)}


def clip_model() -> Clip:
    """A `CLIPModel` of ViT-B/16."""
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=None)
    with tempfile.TemporaryDirectory() as folder:
        to_transformers(Clip(model.eval(), preprocess, open_clip.get_tokenizer(MODEL), MODEL), f"{folder}/model")
        return load_clip(f"transformers:{folder}/model")


def siglip_model(words: str) -> Clip:
    """A `SiglipModel` of B/16, 224 px, that knows some words."""
    known = {word: i for i, word in enumerate(dict.fromkeys(["<pad>", "</s>", "<unk>", *words.split()]))}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", known["</s>"])])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>",
                                                unk_token="<unk>", model_max_length=64)  # fmt: skip
    text = {"vocab_size": len(fast), "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    config = transformers.SiglipConfig(text_config=text, vision_config={"image_size": 224, "patch_size": 16})
    model = transformers.SiglipModel(config).eval()
    images = transformers.SiglipImageProcessor(size={"height": 224, "width": 224})
    return Clip.from_transformers(model, SimpleNamespace(image_processor=images, tokenizer=fast), "SigLIP-B/16")


@torch.no_grad()
def plain(clip: Clip, case: Case) -> None:
    """The model's own embeddings."""
    clip.model.get_image_features(pixel_values=torch.stack([clip.preprocess(image) for image in case.pictures]))
    clip.model.get_text_features(input_ids=clip.tokenizer(case.prompts))


def ratios(clip: Clip, case: Case, rounds: int) -> tuple[float, float, float]:
    """Medians over rounds: seconds of the plain pass, of the explanation, and their ratio within a round."""
    actions = (lambda: plain(clip, case), case.explain)
    for action in actions:  # the first call pays for lazy set-up and for the parity check of each tower
        action()
    forward, explained = zip(*([seconds(action) for action in actions] for _ in range(rounds)), strict=True)
    ratio = statistics.median(e / f for e, f in zip(explained, forward, strict=True))
    return statistics.median(forward), statistics.median(explained), ratio


def main() -> int:
    """Print the table; 1 when a limit is missed."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    words = (
        "a photo of next to on grass red green blue yellow black white brown pink orange purple car dog apple teapot"
    )
    print(f"\ntransformers {transformers.__version__}, {arguments.threads} thread(s), median of {arguments.rounds}\n")
    print("| model | explanation | plain forward | explained | ratio | limit |")
    print("| --- | --- | --- | --- | --- | --- |")
    missed = False
    for name, clip in (("CLIPModel", clip_model()), ("SiglipModel", siglip_model(words))):
        for limit, case in zip(LIMITS[name], cases(Explainer(clip)), strict=False):
            forward, explained, ratio = ratios(clip, case, arguments.rounds)
            times = f"{forward:.2f} s | {explained:.2f} s"
            print(f"| {name} ViT-B/16 | {case.title} | {times} | {ratio:.2f} | {limit:.2f} |", flush=True)
            missed |= ratio > limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
