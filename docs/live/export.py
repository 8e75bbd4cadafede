"""Export: the bundled model and its explanation as three ONNX graphs, equal to `Explainer`.

    scene.onnx    rgba (side, side, 4) uint8         -> image_embedding (E,), and more for maps
    map.onnx      that, and a direction (E,)         -> signed map (h, w)
    caption.onnx  token ids (CONTEXT,) int64         -> text_embedding (E,), directions (CONTEXT, E)

The package's own towers, `grad_eclip` and `word_directions` run once on an example, and all their
operations, derivatives included, are recorded as plain tensor operations. A map is linear in its
direction, so the part of the recording that does not depend on the direction is computed once a
scene.

Weights are kept in half precision where that is exact, and widened when a graph runs: arithmetic
is float32, as in the package.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.transforms import Normalize

from gradeclip_utils import Clip, Explainer
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.methods.interactions import word_directions
from gradeclip_utils.towers import Entry
from gradeclip_utils.towers.blocks import with_parts
from gradeclip_utils.towers.open_clip import TextTransformerTower

# Tokens of a caption that the page reads, of the model's 77: quicker, and enough for four things.
CONTEXT = 48


def export(clip: Clip, out: Path) -> dict[str, list[int]]:
    """Write the graphs of a model that knows few words; the ids of their tokens in caption.onnx."""
    explainer = Explainer(clip, words="grad-eclip")
    tower = explainer.image_tower
    rgba = torch.zeros(*tower.image_size, 4, dtype=torch.uint8)
    example = (rgba, torch.zeros(tower.width))  # any values will do
    scene, map_ = split(record(scene_and_map(explainer), *example))
    write(scene, out / "scene.onnx", ["rgba"], ["image_embedding"])
    write(map_, out / "map.onnx", ["direction"], ["map"])
    ids, embeddings = small_vocabulary(clip)
    example = torch.tensor(ids["<start>"] + ids["a"] * (CONTEXT - 2) + ids["<end>"])
    caption = record(caption_directions(clip, explainer.text_tower.layers, embeddings), example)
    write(caption, out / "caption.onnx", ["ids"], ["text_embedding", "directions"])
    return ids


def scene_and_map(
    explainer: Explainer,
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """From RGBA pixels and a direction (E,) to the image embedding (E,) and the map (h, w)."""
    tower = explainer.image_tower
    (normalize,) = (
        step for step in explainer.clip.preprocess.transforms if isinstance(step, Normalize)
    )
    mean = torch.tensor(normalize.mean)[:, None, None]
    std = torch.tensor(normalize.std)[:, None, None]

    def run(rgba: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (rgba[..., :3].permute(2, 0, 1).to(torch.float32) / 255 - mean) / std
        trace = tower.trace_with_grad(pixels[None])
        maps = grad_eclip(tower, trace, direction[None, None])  # (1, 1, N)
        height, width = trace.grid
        map_ = maps[0, 0, -height * width :].unflatten(0, trace.grid)
        return trace.embedding[0], map_

    return run


def small_vocabulary(clip: Clip) -> tuple[dict[str, list[int]], nn.Embedding]:
    """The tokens of known words, numbered in the order of their own ids, and their embeddings."""
    tokenizer = clip.tokenizer
    ids = {word: tokenizer.encode(word) for word in [*sorted(clip.vocabulary), ",", "."]}
    ids |= {"<start>": [tokenizer.sot_token_id], "<end>": [tokenizer.eot_token_id]}
    # In order, because the largest id is the end of a prompt.
    tokens_in_use = sorted({token for tokens in ids.values() for token in tokens})
    rows = clip.model.token_embedding.weight.detach()[tokens_in_use]
    number = {token: i for i, token in enumerate(tokens_in_use)}
    ids = {word: [number[token] for token in tokens] for word, tokens in ids.items()}
    return ids, nn.Embedding.from_pretrained(rows)


class WholeContext(TextTransformerTower):
    """The text tower for a recording: nothing is cut off, so no shape depends on the prompt."""

    def _enter(self, ids: Tensor) -> Entry:
        text = self.text
        ends = self.ends(ids)
        count = ids.shape[1]
        x = text.token_embedding(ids) + text.positional_embedding[:count]
        mask = text.attn_mask[:count, :count]
        x = with_parts(text.transformer, resblocks=text.transformer.resblocks[: self.first])(
            x, mask
        )
        valid_mask = torch.arange(count) <= ends[:, None]
        return Entry(
            ids,
            x,
            ends[:, None],
            valid_mask,
            self.heads,
            attention_mask=(mask == 0)[None, None],
        )


def caption_directions(
    clip: Clip, layers: int, embeddings: nn.Embedding
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From token ids (CONTEXT,) to the embedding (E,) and each token's direction (CONTEXT, E)."""
    model = copy.copy(clip.model)
    model._modules = {**clip.model._modules, "token_embedding": embeddings}
    tower = WholeContext(model, layers)

    def run(ids: Tensor) -> tuple[Tensor, Tensor]:
        trace = tower.trace_with_grad(ids[None])
        each_token = torch.eye(len(ids), dtype=torch.bool)
        return trace.embedding[0], word_directions(tower, trace, each_token)

    return run


def record(run: Callable, *example: Tensor) -> fx.GraphModule:
    """Everything that a function does to tensors, as a graph of plain operations."""
    table = core_aten_decompositions()
    # With a graph and plain attention no fused kernel takes a shortcut.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        recorded = make_fx(functionalize(run), decomposition_table=table)(*example)
    recorded.meta["example"] = example
    simplify(recorded)
    return recorded


def simplify(recorded: fx.GraphModule) -> None:
    """Leave out what is computed twice: the readout repeats the trace's layers, with o + 0."""
    values = _values(recorded)
    aten = torch.ops.aten
    graph = recorded.graph
    # The value of `full_like` depends on no input.
    for node in graph.find_nodes(op="call_function", target=aten.full_like.default):
        arguments = (list(values[node].shape), node.args[1])
        options = {"dtype": values[node].dtype}
        with graph.inserting_before(node):
            full = graph.call_function(aten.full.default, arguments, options)
        node.replace_all_uses_with(full)
        values[full] = values[node]

    depends = _dependents(recorded, graph.find_nodes(op="placeholder"))
    for node in graph.find_nodes(op="call_function", target=aten.index_put.default):
        o, _, delta, *accumulate = node.args
        if accumulate == [True] and delta not in depends and not values[delta].any():
            node.replace_all_uses_with(o)

    earliest: dict[tuple, fx.Node] = {}
    for node in graph.nodes:
        if node.target is aten.alias.default:
            node.replace_all_uses_with(node.args[0])
        elif node.op in ("get_attr", "call_function"):
            call = (node.target, repr(node.args), repr(node.kwargs))
            first = earliest.setdefault(call, node)
            if first is not node:
                node.replace_all_uses_with(first)
    graph.eliminate_dead_code()
    recorded.recompile()


def _dependents(recorded: fx.GraphModule, sources: Sequence[fx.Node]) -> set[fx.Node]:
    """These nodes, and all whose value depends on one of them."""
    dependents = set(sources)
    for node in recorded.graph.nodes:
        if not dependents.isdisjoint(node.all_input_nodes):
            dependents.add(node)
    return dependents


def _values(recorded: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """The value of every node on the example."""
    run = fx.Interpreter(recorded, garbage_collect_values=False)
    with torch.no_grad():
        run.run(*recorded.meta["example"])
    return run.env


def split(recorded: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut a recording (early, late) -> (early, late) in two; the first also feeds the second."""
    early, late = recorded.graph.find_nodes(op="placeholder")
    (output,) = recorded.graph.find_nodes(op="output")
    early_result, late_result = output.args[0]
    after_late = _dependents(recorded, [late])
    before_late = _dependents(recorded, [early]) - after_late
    crossing = []
    for node in recorded.graph.nodes:
        users = {user for user in node.users if user is not output}
        if node in before_late and users & after_late:
            crossing.append(node)

    first = _part(recorded, [early], [early_result, *crossing])
    second = _part(recorded, [late, *crossing], [late_result])
    values = _values(recorded)
    first.meta["example"] = (values[early],)
    second.meta["example"] = tuple(values[node] for node in (late, *crossing))
    return first, second


def _part(
    recorded: fx.GraphModule, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
) -> fx.GraphModule:
    """The piece of a recording that leads from some nodes to others."""
    graph = fx.Graph()
    copied = {node: graph.placeholder(node.name) for node in inputs}
    for node in recorded.graph.nodes:
        if node in copied or node.op in ("placeholder", "output"):
            continue
        if all(source in copied for source in node.all_input_nodes):
            copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.output(tuple(copied[node] for node in outputs))
    graph.eliminate_dead_code()
    return fx.GraphModule(recorded, graph)


def write(
    recorded: fx.GraphModule, path: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Write a recording as ONNX. More inputs and outputs than names cross a cut: "kept_0", ..."""
    example = recorded.meta["example"]
    (output,) = recorded.graph.find_nodes(op="output")
    inputs = [*inputs, *(f"kept_{i}" for i in range(len(example) - len(inputs)))]
    outputs = [
        *outputs,
        *(f"kept_{i}" for i in range(len(output.args[0]) - len(outputs))),
    ]
    names = {"input_names": inputs, "output_names": outputs}
    with torch.no_grad():
        program = torch.onnx.export(recorded.eval(), example, dynamo=True, verbose=False, **names)
    model = program.model_proto
    halve(model)
    onnx.save(model, path)


def halve(model: onnx.ModelProto) -> None:
    """Keep weights of some size in half precision wherever that is exact; a `Cast` widens them."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < 256:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if (half.astype(np.float32) == values).all():
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
