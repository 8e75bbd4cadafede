"""Fine-tuning on image-caption pairs, with Grad-ECLIP maps as region labels.

    tuned = fine_tune(load_clip(), pairs, Tuning(steps=500))        # pairs: Pair(image, caption)
    Explainer(tuned.clip).explain(image, "a red car")
    tuned.save("tuned.safetensors")

The loss of a step is CLIP's contrastive loss over whole images and captions, plus `regions` times
the region-phrase loss (`losses.region_loss`). The maps are drawn by the model as it is at that
step. Towers are in evaluation mode: no dropout, and a batch norm keeps its statistics. The same
pairs, recipe and seed give the same steps.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn
from tqdm.auto import tqdm

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, weights_digest, write_whole
from gradeclip_utils.models import BUNDLED_MODELS, Clip
from gradeclip_utils.runtime import isolated_torch_state
from gradeclip_utils.towers import Tower

from .arithmetic import quick_arithmetic
from .losses import GROUND_TRUTH, Features, Learner, global_loss, region_loss
from .pairs import Batch, Pair, PairBatches
from .state import MAX_LOGIT_SCALE, load_state, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Tuning:
    """Everything that determines the tuned weights, besides the model and the pairs.

    Attributes:
        steps: updates of the weights.
        batch: pairs in one step, of one GPU.
        learning_rate: of AdamW, at its highest; it rises over `warmup` steps and falls to zero
            along a cosine.
        warmup: steps.
        regions: weight of the region-phrase loss beside the global one; 0 trains with whole
            captions alone.
        maps: the weights that gather the dense features: a method of `methods.METHODS`, "word x
            region" (the phrase inside its caption), or a reference: "uniform", "other image",
            "ground truth" (needs `Pair.where`).
        weighted: weigh each phrase by w = max(map).
        precision: "fp32", or "bf16" for autocast where the processor has bfloat16; maps are always
            drawn in float32.
        seed: of the order of the pairs.
    """

    steps: int = 500
    batch: int = 64
    learning_rate: float = 1e-4
    warmup: int = 20
    regions: float = 1.0
    maps: str = "grad-eclip"
    weighted: bool = True
    precision: str = "bf16"
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, and the log of its run.

    Attributes:
        clip: the model.
        tuning: its recipe.
        log: one row per step: step, loss, `contrast` (the global loss), regions; `phrases` (that
            had a region) and `wordless` (captions without a phrase, which count as a whole alone);
            learning_rate; cpu_seconds.
    """

    clip: Clip
    tuning: Tuning
    log: pd.DataFrame

    def save(self, path: str | Path) -> None:
        """Write the weights, ending in .safetensors, for `load_clip(name, path)`.

        A bundled model is written as it is shipped: in half precision, with its config in a .json.
        """
        path = Path(path)
        metadata = {name: str(value) for name, value in asdict(self.tuning).items()}
        files: dict[Path, Any] = {}
        state = {}
        for name, value in self.clip.model.state_dict().items():
            tensor = value.detach().cpu()
            state[name] = tensor.clone(memory_format=torch.contiguous_format)

        if self.clip.name in BUNDLED_MODELS:
            config = json.loads(data_path(f"{self.clip.name}.json").read_text())
            config.pop("shared", None)  # no weights are another model's
            config["training"] = f"from {self.clip.name!r}, so that maps of phrases match regions"
            files[path.with_suffix(".json")] = f"{json.dumps(config, indent=2)}\n".encode()

            state = {
                name: value.half() if value.is_floating_point() else value
                for name, value in state.items()
            }
            token_count = config["text_cfg"].get("vocab_size", 49408)
            state["token_ids"] = torch.arange(token_count, dtype=torch.int32)

        # as bytes, because save_file makes files that nobody else may read
        files[path] = as_safetensors(state, metadata=metadata)
        write_whole(files)


def fine_tune(
    clip: Clip,
    pairs: Sequence[Pair],
    tuning: Tuning = Tuning(),
    *,
    checkpoint: str | Path | None = None,
    save_every: int = 50,
    workers: int = 0,
    progress: bool = True,
    accelerator: Accelerator | None = None,
) -> Tuned:
    """Fine-tune a copy of a model on pairs of an image and a caption.

    Args:
        clip: any model with towers that can be opened; it stays as it is.
        pairs: a list, or any sequence that makes a pair when it is asked for one.
        tuning: the recipe.
        checkpoint: a file for the state, from which the same call goes on after a stop.
        save_every: steps between two states.
        workers: processes that read images ahead; 0 reads them between the steps.
        progress: show a bar.
        accelerator: of `accelerate`, for several GPUs: each has batches and negatives of its own,
            and all take the mean of the gradients. Start the script by `accelerate launch`.

    Raises:
        UnsupportedModel: a tower cannot be opened, or has no dense features.
        GradeclipError: there are fewer pairs than a batch, `maps` is unknown, the checkpoint is of
            another run, or the loss is not finite.
    """
    if tuning.batch > len(pairs):
        raise GradeclipError(
            f"batch must be at most the number of pairs, {len(pairs)}, got {tuning.batch}"
        )
    model = copy.deepcopy(clip.model).eval().requires_grad_(True)
    learner = Learner(replace(clip, model=model), tuning.maps, regional=tuning.regions > 0)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=tuning.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    grid = None
    if tuning.maps == GROUND_TRUTH:
        grid = patch_grid(learner.image_tower)
    batches = PairBatches(clip.preprocess, pairs, tuning.batch, tuning.seed, grid=grid)

    settings = {**asdict(tuning), "pairs": len(pairs), "weights": weights_digest(clip.model)}
    log: list[dict[str, float]] = []
    if checkpoint is not None:
        log = load_state(Path(checkpoint), settings, model, optimiser)

    encode: Callable[[Batch], dict[str, Tensor]] = learner
    backward = Tensor.backward
    if accelerator is not None:
        encode, optimiser = accelerator.prepare(learner, optimiser)
        backward = accelerator.backward
        batches.seed += accelerator.process_index

    steps = range(len(log), tuning.steps)
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=steps, num_workers=workers
    )
    bar = tqdm(loader, total=tuning.steps, initial=len(log), unit="step", disable=not progress)
    for step, batch in zip(steps, bar, strict=True):
        began = time.process_time()
        learning_rate = cosine_decay(tuning, step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate

        batch = batch.to(learner.image_tower.device)
        verify(learner, batch)
        with quick_arithmetic(batch.pixels.device, tuning.precision == "bf16"):
            features = Features(**encode(batch))
        loss, parts = losses(features, tuning)
        if not math.isfinite(loss.item()):
            raise GradeclipError(
                f"the loss became {loss.item()} at step {step}: lower the learning rate"
            )

        optimiser.zero_grad()
        backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

        wordless = int((~batch.phrase_mask.any(1)).sum())
        row = {
            "step": step,
            "loss": loss.item(),
            **parts,
            "wordless": wordless,
            "learning_rate": learning_rate,
            "cpu_seconds": time.process_time() - began,
        }
        log.append(row)

        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if checkpoint is not None and len(log) % save_every == 0:
            save_state(Path(checkpoint), settings, model, optimiser, log)

    tuned = replace(
        clip,
        model=model.requires_grad_(False),
        pretrained=f"{clip.pretrained}, fine-tuned",
    )
    return Tuned(tuned, tuning, pd.DataFrame(log))


def losses(features: Features, tuning: Tuning) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts for the log."""
    contrast = global_loss(features)
    if features.regions is None:
        return contrast, {"contrast": contrast.item(), "regions": 0.0, "phrases": 0}

    regions, count = region_loss(features, tuning.weighted)
    loss = contrast + tuning.regions * regions
    parts = {"contrast": contrast.item(), "regions": regions.item(), "phrases": count}
    return loss, parts


def verify(learner: Learner, batch: Batch) -> None:
    """Compare the towers once with the model's own forward pass, without autocast."""
    if learner.text_tower.verified:
        return
    with isolated_torch_state(batch.pixels.device):
        learner.image_tower.trace(batch.pixels[:1])
        ids = learner.tokenizer(list(batch.texts[:1])).to(batch.pixels.device)
        learner.text_tower.trace(ids)


def cosine_decay(tuning: Tuning, step: int) -> float:
    """The learning rate at a step: up to its highest over `warmup`, times a cosine down to zero."""
    warmup = min(1.0, (step + 1) / max(1, tuning.warmup))
    decay = 0.5 * (1 + math.cos(math.pi * step / tuning.steps))
    return tuning.learning_rate * warmup * decay


def patch_grid(tower: Tower) -> tuple[int, int]:
    """Rows and columns of patches in an image of the model's own size."""
    height, width = tower.image_size
    patch_height, patch_width = tower.patch_size
    return height // patch_height, width // patch_width
