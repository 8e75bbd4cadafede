"""Registry: all methods, with their papers, the number that each explains, and their costs.

`Explainer(clip, method="maskclip")` runs a method of `METHODS`, and `register_method` adds one of
your own. All work on the unmodified model, through a tower; methods that change the model's
attention do so in a computation of their own, and `Method.explains` names the number that they then
explain.

Every method is a function `(tower, trace, directions, options) -> maps`. `directions` (B, T, E) are
the targets in embedding space, `options` is an `Options`, and the signed maps are (B, T, N) over
the trace's tokens, zero for a token that is not valid (`trace.valid_mask`). The target of a
direction d is S = embedding . d: with d = e_T a similarity, with d = e_A - e_B the difference of
two. Costs are in forward passes of the tower, beyond the one of the trace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from torch import Tensor

from ..errors import GradeclipError, hint
from ..towers import Graph, Tower, Trace
from . import gradients, perturbation
from .attention import attention, game, legrad, rollout
from .features import clip_surgery, grad_cam, maskclip
from .grad_eclip import grad_eclip, grad_eclip_of_heads
from .options import DEFAULTS, Options
from .replacement import replace_words

MapFunction: TypeAlias = Callable[[Tower, Trace, Tensor, Options], Tensor]
Side: TypeAlias = Literal["image", "text"]
_FRACTIONS = {"all": 1, "half": 1 / 2, "sixth": 1 / 6}
_MODEL_SIMILARITY = "the model's own similarity"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to explain; `register_method` makes one of a function.

    Attributes:
        name: what `Explainer(method=...)` and tables call it, such as "grad-eclip".
        title: what figures call it, such as "Grad-ECLIP".
        paper: authors, title, venue.
        explains: which number.
        cost: in forward passes beyond the trace, in words.
        image: a function `(tower, trace, directions, options) -> maps`, as the module says; None if
            the method is not defined for images.
        text: the same for prompts.
        heads: the same as `image`, a part for each explained layer and head, (B, T, L, H, N); None
            if its maps are no sum over heads.
        layers: the explained layers: "last" as many as the model and the paper suggest; "all",
            "half", "sixth" that part, from the top; "none" if it looks into no layer.
        text_layers: the same for prompts, if it differs.
        word_change: what the method does to a word, if the word's score is the fall of the
            similarity after this change, such as "without this word".
        target: whether maps depend on the prompt.
        compares_targets: whether the map of a prompt also depends on the other prompts of a call,
            or, where there is none, on the empty prompt (`Options.empty`).
        graph: the graph that it takes gradients from, if the trace has it: "query_graph" for
            channel weights, "pixel_graph" for those of pixels, "layer_graph" for those of the
            attention of all tokens.
        explained_embedding: `(tower, trace) -> (B, E)`, the embedding of another network than the
            model whose similarity is explained; the explanation's provenance then has this number.

    Raises:
        GradeclipError: it explains neither images nor prompts, or there is no such choice of
            `layers`.
    """

    name: str
    title: str
    paper: str = ""
    explains: str = _MODEL_SIMILARITY
    cost: str = ""
    image: MapFunction | None = None
    text: MapFunction | None = None
    heads: MapFunction | None = None
    layers: str = "last"
    text_layers: str | None = None
    word_change: str = ""
    target: bool = True
    compares_targets: bool = False
    graph: Graph | None = None
    explained_embedding: Callable[[Tower, Trace], Tensor] | None = None

    def __post_init__(self):
        if self.image is None and self.text is None:
            raise GradeclipError(
                f"the method {self.name!r} explains neither images nor prompts: "
                "give image= or text="
            )
        for layers in (self.layers, self.text_layers or self.layers):
            if layers not in ("last", "none", *_FRACTIONS):
                choices = ", ".join(["last", *_FRACTIONS, "none"])
                raise GradeclipError(f"layers must be one of {choices}, got {layers!r}")

    def goes_through(self, side: Side) -> bool:
        """Whether maps, or word scores, depend on how many layers are explained."""
        layers = self.text_layers if side == "text" else None
        return (layers or self.layers) != "none"


def layers_to_explain(
    user: int | None,
    model_default: int | None,
    method: Method,
    depth: int,
    side: Side = "image",
) -> int:
    """How many of the last layers of an encoder a method explains.

    Args:
        user: what the user asks for; it decides.
        model_default: `Clip.image_layers` or `Clip.text_layers`, for Grad-ECLIP.
        method: decides next, if it goes through a part of the layers.
        depth: the encoder's number of layers.
        side: "image" or "text".

    Returns:
        Without all three, as Grad-ECLIP was published: one layer of images, two thirds of text.
    """
    if user is not None:
        return user

    part = method.layers
    if side == "text" and method.text_layers is not None:
        part = method.text_layers
    if part == "none":
        return 1  # the quickest trace
    if part in _FRACTIONS:
        return max(1, round(depth * _FRACTIONS[part]))

    if method.name == "grad-eclip" and model_default is not None:
        return model_default
    return 1 if side == "image" else max(1, round(2 * depth / 3))


def find_method(method: str | Method) -> Method:
    """A method by its name, or as it is given."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise GradeclipError(f"there is no method {method!r}: {hint(str(method), METHODS)}")
    return METHODS[method]


def register_method(
    name: str,
    *,
    title: str,
    sides: Side | Literal["both"] = "image",
    target: bool = True,
    explains: str | None = None,
    **attributes: Any,
) -> Callable[[MapFunction], MapFunction]:
    """Add a function to `METHODS`, so that its name can be used like any other.

        @register_method("value-norm", title="Value norm", paper="A. Author, 2030", target=False)
        def value_norm(tower, trace, directions, options):
            length = trace.layers[-1].v.flatten(2).norm(dim=-1) * trace.valid_mask
            return length[:, None].expand(-1, directions.shape[1], -1)

    `METHODS.pop(name, None)` removes it again, which a cell that is run twice needs.

    Args:
        name: a new name.
        title: what figures call it.
        sides: "image", "text" or "both", what the function explains.
        target: whether maps depend on the prompt.
        explains: which number; by default the model's own similarity, or without a target none.
        **attributes: others of `Method`, such as `paper`, `cost` and `layers`.

    Returns:
        A decorator, which gives the function back as it is.

    Raises:
        GradeclipError: there is a method of this name; and the reasons of `Method`.
    """
    if name in METHODS:
        raise GradeclipError(
            f"there is a method {name!r}: choose another name; in a cell that is run again, write "
            f"METHODS.pop({name!r}, None) before it"
        )
    if explains is None:
        explains = _MODEL_SIMILARITY if target else "the same for any text or image"

    def register(function: MapFunction) -> MapFunction:
        METHODS[name] = Method(
            name=name,
            title=title,
            explains=explains,
            image=function if sides in ("image", "both") else None,
            text=function if sides in ("text", "both") else None,
            target=target,
            **attributes,
        )
        return function

    return register


# -------------------------------------------------------------------------------------- the table


def _grad_eclip_with_one_head(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Grad-ECLIP as published."""
    return grad_eclip(tower, tower.with_one_head(trace), directions, options)


def _embedding_with_one_head(tower: Tower, trace: Trace) -> Tensor:
    """The embeddings (B, E) that the published code explains."""
    return tower.with_one_head(trace).embedding


_GRAD_ECLIP = (
    "Zhao, Wang, Zeng, Zhao and Chan, Gradient-based Visual Explanation for Transformer-based "
    "CLIP, ICML 2024; with the text side Zhao, Wang, Hsiao and Chan, arXiv 2502.18816"
)
_GRAD_ECLIP_COST = "a gradient through the explained layers"

_METHODS = [
    Method(
        name="grad-eclip",
        title="Grad-ECLIP",
        paper=_GRAD_ECLIP,
        cost=_GRAD_ECLIP_COST,
        image=grad_eclip,
        text=grad_eclip,
        heads=grad_eclip_of_heads,
        graph="query_graph",
    ),
    Method(
        name="grad-eclip-no-spatial",
        title="Grad-ECLIP without spatial weight",
        paper=f"{_GRAD_ECLIP} (ablation)",
        cost=_GRAD_ECLIP_COST,
        image=partial(grad_eclip, spatial="none"),
        text=partial(grad_eclip, spatial="none"),
        heads=partial(grad_eclip_of_heads, spatial="none"),
        graph="query_graph",
    ),
    Method(
        name="grad-eclip-softmax",
        title="Softmax x gradient",
        paper=f"{_GRAD_ECLIP} (ablation)",
        cost=_GRAD_ECLIP_COST,
        image=partial(grad_eclip, spatial="softmax"),
        text=partial(grad_eclip, spatial="softmax"),
        heads=partial(grad_eclip_of_heads, spatial="softmax"),
        graph="query_graph",
    ),
    Method(
        name="grad-eclip-single-head",
        title="Grad-ECLIP with one head",
        paper=f"{_GRAD_ECLIP} (as published)",
        explains="the similarity of a different network, with one attention head",
        cost="the explained layers again, and a gradient through them",
        image=_grad_eclip_with_one_head,
        text=_grad_eclip_with_one_head,
        explained_embedding=_embedding_with_one_head,
    ),
    Method(
        name="attention",
        title="Raw attention",
        paper=(
            "Vaswani et al., Attention Is All You Need, NeurIPS 2017; Jain and Wallace, "
            "Attention is not Explanation, NAACL 2019"
        ),
        explains="where the tower looks, for any text or image",
        cost="nothing beyond the trace",
        image=attention,
        text=attention,
        target=False,
    ),
    Method(
        name="rollout",
        title="Attention rollout",
        paper=(
            "Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, "
            "arXiv 2005.00928"
        ),
        explains="how attention mixes the input, for any text or image",
        cost="nothing beyond the trace",
        image=rollout,
        text=rollout,
        layers="all",
        target=False,
        graph="layer_graph",
    ),
    Method(
        name="grad-cam",
        title="Grad-CAM",
        paper=(
            "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via "
            "Gradient-based Localization, ICCV 2017, arXiv 1610.02391"
        ),
        cost="the last block, and its gradient for each target",
        image=grad_cam,
    ),
    Method(
        name="game",
        title="GAME",
        paper=(
            "Chefer, Gur and Wolf, Generic Attention-model Explainability for "
            "Interpreting Bi-Modal and Encoder-Decoder Transformers, ICCV 2021, arXiv "
            "2103.15679"
        ),
        cost="a backward pass for each target",
        image=game,
        text=game,
        layers="all",
        graph="layer_graph",
    ),
    Method(
        name="maskclip",
        title="MaskCLIP",
        paper=(
            "Zhou, Loy and Dai, Extract Free Dense Labels from CLIP, ECCV 2022, arXiv 2112.01071"
        ),
        explains="cosines of each patch's own feature, which the model never reads",
        cost="the last block",
        image=maskclip,
    ),
    Method(
        name="clip-surgery",
        title="CLIP Surgery",
        paper=(
            "Li et al., CLIP Surgery for Better Explainability with Enhancement in "
            "Open-Vocabulary Tasks, arXiv 2304.05653"
        ),
        explains="features of a different attention, less what the prompts of one call share",
        cost="half a forward pass",
        image=clip_surgery,
        layers="half",
        compares_targets=True,
    ),
    Method(
        name="m2ib",
        title="M2IB",
        paper=(
            "Wang, Rudner and Wilson, Visual Explanations of Image-Text Representations "
            "via Multi-Modal Information Bottleneck Attribution, NeurIPS 2023, arXiv "
            "2312.17174"
        ),
        explains="what each token must say to keep the similarity up",
        cost="about 35 forward passes for each target",
        image=perturbation.m2ib,
        text=perturbation.m2ib,
        layers="sixth",
    ),
    Method(
        name="rise",
        title="RISE",
        paper=(
            "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of "
            "Black-box Models, BMVC 2018, arXiv 1806.07421"
        ),
        cost="500 forward passes, for all targets together",
        image=perturbation.rise,
        layers="none",
    ),
    Method(
        name="legrad",
        title="LeGrad",
        paper=(
            "Bousselham et al., LeGrad: An Explainability Method for Vision Transformers "
            "via Feature Formation Sensitivity, ICCV 2025, arXiv 2404.03214"
        ),
        explains="the similarity of averaged tokens, as if the tower ended earlier",
        cost="a gradient through each of a sixth of the layers, for each target",
        image=legrad,
        layers="sixth",
        graph="layer_graph",
    ),
    Method(
        name="input-x-gradient",
        title="Input x gradient",
        paper=(
            "Shrikumar et al., Not Just a Black Box: Learning Important Features Through "
            "Propagating Activation Differences, arXiv 1605.01713"
        ),
        cost="a backward pass for each target",
        image=gradients.input_x_gradient,
        text=gradients.input_x_gradient,
        text_layers="all",
        graph="pixel_graph",
    ),
    Method(
        name="integrated-gradients",
        title="Integrated gradients",
        paper=(
            "Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML "
            "2017, arXiv 1703.01365"
        ),
        cost="50 forward and backward passes for each target",
        image=gradients.integrated_gradients,
        text=gradients.integrated_gradients,
        text_layers="all",
    ),
    Method(
        name="leave-one-out",
        title="Leave one word out",
        paper=(
            "Li, Monroe and Jurafsky, Understanding Neural Networks through "
            "Representation Erasure, arXiv 1612.08220"
        ),
        cost="a forward pass for each word",
        text=perturbation.leave_one_out,
        layers="none",
        word_change="without this word",
    ),
    Method(
        name="replace",
        title="Replace a word",
        paper=(
            "Lymperaiou and Stamou, Conceptual Contrastive Edits in Textual and Vision-Language "
            "Retrieval, arXiv 2503.01914"
        ),
        cost="up to 16 forward passes for each word",
        text=replace_words,
        layers="none",
        word_change="with another word in its place",
    ),
]
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
