"""The form in which data/ keeps models that know few words; `models.bundled` reads it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.models.bundled import token_table


def save_compact(
    model: nn.Module,
    path: str | Path,
    *,
    words: Iterable[str],
    config: dict,
    metadata: Mapping[str, object] | None = None,
    shared: str | Path | None = None,
) -> None:
    """Save a model in half precision, with the embedding rows of its own tokens only.

    Tokens are those of `words`, comma and full stop, and the start and end of text.
    `load_clip("emoji", path)` makes an ordinary model of it again.

    Args:
        model: a `CLIP` or `CustomTextCLIP` of open_clip with CLIP's own BPE tokenizer.
        path: the file, ending in .safetensors; its config is written beside it, ending in .json.
        words: the words of the captions, with any punctuation beside comma and full stop.
        config: the keys of that .json but "words" and "shared" (see `models.bundled`).
        metadata: a record of the training, which is kept in the file and read by nobody.
        shared: the file of a bundled model. Tensors that it has too, bit by bit, are left out.

    Raises:
        GradeclipError: a weight is not finite in half precision.
    """
    path = Path(path)
    words = sorted({word.lower() for word in words})
    config = {**config, "words": " ".join(words)}

    state = half_precision(model)
    table = token_table(state)
    token_ids = ids_of(words, with_zero=hasattr(model, "text"))
    state[table] = state[table][token_ids]
    state["token_ids"] = token_ids.int()
    if shared is not None:
        config["shared"] = Path(shared).name
        teacher = load_file(shared)
        for name in teacher.keys() & state.keys():
            if torch.equal(teacher[name], state[name]):
                del state[name]

    path.with_suffix(".json").write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")
    record = {name: str(value) for name, value in (metadata or {}).items()}
    save_file(state, path, metadata=record)
    path.chmod(0o644)  # safetensors writes through a private temporary file


def half_precision(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model in half precision, finite and on the CPU."""
    state = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        # copies, since safetensors takes no shared memory; batch norm counts in integers
        state[name] = value.half() if value.is_floating_point() else value.clone()
        if not torch.isfinite(state[name]).all():
            raise GradeclipError(f"{name} is not finite in half precision")
    return state


def ids_of(words: Iterable[str], *, with_zero: bool) -> Tensor:
    """The ids, in their order, of all tokens that captions of these words hold."""
    tokenizer = open_clip.SimpleTokenizer()
    ids = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    if with_zero:  # it fills the context, and may be the token that reads
        ids.add(0)
    for word in (*words, ",", "."):
        ids.update(tokenizer.encode(word))
    return torch.tensor(sorted(ids))


def describe_training(recipe: Mapping[str, object]) -> str:
    """How a model was trained from scenes, in one sentence: the "training" of its config."""
    additions = []
    if recipe["hard_negatives"]:
        additions.append("hard negatives in every batch")
    if weight := recipe["sparse_values"]:
        additions.append(f"a penalty on patches whose values are large (weight {weight:g})")
    if scale := recipe["logit_scale"]:
        additions.append(f"a fixed scale of {scale:g} in the loss")
    if recipe["shuffled_colours"]:
        additions.append("the colours of each caption shuffled among its things")
    if part := recipe["colours_left_out"]:
        additions.append(f"{part:.0%} of the colours left out of captions")
    if recipe["exchanged"]:
        additions.append("names and hints exchanged in captions")
    if kind := recipe["word_vectors"]:
        additions.append(f"{kind} word vectors as the first token embeddings")
    if not additions:
        return "on drawn scenes, with the loss of CLIP alone"
    return f"on drawn scenes, with {', '.join(additions)}; CLIP's own training has none of these"
