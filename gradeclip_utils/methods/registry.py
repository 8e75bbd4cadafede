"""Registry: all methods, with their papers, the number that each explains, and their costs.

`Explainer(clip, method="maskclip")` runs a method of `METHODS`, and `register_method` adds one of
your own. All work on the unmodified model, through a tower; methods that change the model's
attention do so in a computation of their own, and `Method.explains` names the number that they then
explain. A method goes through the trace's explained layers: `Method.layers`, unless the user
chooses others.

Every method gets a tower, a trace and the targets' `directions` (B, T, E), and returns signed maps
(B, T, N) over the trace's tokens, zero for a token that is not valid (`trace.valid_mask`). The
target of a direction d is S = embedding . d: with d = e_T a similarity, with d = e_A - e_B the
difference of two. Costs are in forward passes of the tower, beyond the one of the trace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..checks import chosen, flag, instance, text, whole
from ..errors import GradeclipError
from ..towers import Tower, Trace
from . import gradients, perturbation
from .attention import attention, game, legrad, rollout
from .features import clip_surgery, grad_cam, maskclip
from .grad_eclip import grad_eclip

_FRACTIONS = {"all": 1, "half": 1 / 2, "sixth": 1 / 6}


@dataclass(frozen=True)
class Method:
    """One way to explain.

        Method("mine", "Mine", "A. Author, 2030", "the model's own similarity", "nothing beyond the
        trace", image=maps)

    Attributes:
        name: what `Explainer(method=...)` and tables call it, such as "grad-eclip".
        title: what figures call it, such as "Grad-ECLIP".
        paper: authors, title, venue.
        explains: which number: "the model's own similarity", or what else.
        cost: in forward passes beyond the trace, in words.
        image: a function `(tower, trace, directions) -> maps`, as the module says; None if the
            method is not defined for images. It may have keywords `seed`, `words`, `fill` and
            `empty`, and gets those that it has: `words` (B, N) numbers the word of every token, -1
            for none; `fill` is the id of padding; `empty` (E,) is the embedding of a prompt without
            words, if `wants_empty`.
        text: the same for prompts.
        layers: the explained layers: "last" as many as Grad-ECLIP; "all", "half", "sixth" that
            part, from the top.
        text_layers: the same for prompts, if it differs.
        wants_empty: whether `empty` is computed for it; such a method compares the targets of a
            call.
        wants_attention: if not, it also explains an encoder without attention
            (`towers.open_feature_map`).

    Raises:
        GradeclipError: it explains neither images nor prompts, `image` or `text` is not a function,
            or `layers` is none of the four.
    """

    name: str
    title: str
    paper: str
    explains: str
    cost: str
    image: Callable[..., Tensor] | None = None
    text: Callable[..., Tensor] | None = None
    layers: str = "last"
    text_layers: str | None = None
    wants_empty: bool = False
    wants_attention: bool = True

    def __post_init__(self):
        if self.image is None and self.text is None:
            raise GradeclipError(
                f"the method {self.name!r} explains neither images nor prompts: give image= or text="
            )
        for name in ("name", "title", "paper", "explains", "cost"):
            text(f"the {name} of a method", getattr(self, name))
        for layers in (self.layers, "last" if self.text_layers is None else self.text_layers):
            chosen("layers", layers, ("last", *_FRACTIONS))
        for name in ("wants_empty", "wants_attention"):
            flag(name, getattr(self, name))
        for side in ("image", "text"):
            if (function := getattr(self, side)) is not None:
                instance(f"{side} of the method {self.name!r}", function, Callable, "a function")

    def explained(self, depth: int, side: str = "image") -> int | None:
        """The number of layers that the method explains of `depth`; None leaves it to the tower."""
        of_text, depth = (
            chosen("side", side, ("image", "text")) == "text",
            whole("depth", depth, 1, 10_000),
        )
        part = (self.text_layers if of_text else None) or self.layers
        return None if part == "last" else max(1, round(depth * _FRACTIONS[part]))


def _grad_eclip_with_one_head(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-ECLIP as published: the explained layers run again with ONE head over the full width."""
    return grad_eclip(tower, trace if trace.heads == 1 else tower.with_one_head(trace), directions)


_OWN = "the model's own similarity"
_GRAD_ECLIP = (
    "Zhao, Wang, Zeng, Zhao and Chan, Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024; with "
    "the text side Zhao, Wang, Hsiao and Chan, arXiv 2502.18816"
)
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "grad-eclip",
            "Grad-ECLIP",
            _GRAD_ECLIP,
            _OWN,
            "a gradient through the explained layers",
            grad_eclip,
            grad_eclip,
        ),
        Method(
            "grad-eclip-no-spatial",
            "Grad-ECLIP without spatial weight",
            f"{_GRAD_ECLIP} (ablation)",
            _OWN,
            "a gradient through the explained layers",
            partial(grad_eclip, spatial="none"),
            partial(grad_eclip, spatial="none"),
        ),
        Method(
            "grad-eclip-softmax",
            "Softmax x gradient",
            f"{_GRAD_ECLIP} (ablation)",
            _OWN,
            "a gradient through the explained layers",
            partial(grad_eclip, spatial="softmax"),
            partial(grad_eclip, spatial="softmax"),
        ),
        Method(
            "grad-eclip-single-head",
            "Grad-ECLIP with one head",
            f"{_GRAD_ECLIP} (as published)",
            "the similarity of a different network, with one attention head",
            "the explained layers again, and a gradient through them",
            _grad_eclip_with_one_head,
            _grad_eclip_with_one_head,
        ),
        Method(
            "attention",
            "Raw attention",
            "Vaswani et al., Attention Is All You Need, NeurIPS 2017; Jain and "
            "Wallace, Attention is not Explanation, NAACL 2019",
            "where the tower looks, for any text or image",
            "nothing beyond the trace",
            attention,
            attention,
        ),
        Method(
            "rollout",
            "Attention rollout",
            "Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL "
            "2020, arXiv 2005.00928",
            "how attention mixes the input, for any text or image",
            "1 forward pass",
            rollout,
            rollout,
            layers="all",
        ),
        Method(
            "grad-cam",
            "Grad-CAM",
            "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via "
            "Gradient-based Localization, ICCV 2017, arXiv 1610.02391",
            _OWN,
            "the last block, and its gradient for each target",
            grad_cam,
            None,
            wants_attention=False,
        ),
        Method(
            "game",
            "GAME",
            "Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal "
            "and Encoder-Decoder Transformers, ICCV 2021, arXiv 2103.15679",
            _OWN,
            "1 forward pass, and a backward pass for each target",
            game,
            game,
            layers="all",
        ),
        Method(
            "maskclip",
            "MaskCLIP",
            "Zhou, Loy and Dai, Extract Free Dense Labels from CLIP, ECCV 2022, arXiv 2112.01071",
            "cosines of each patch's own feature, which the model never reads",
            "the last block",
            maskclip,
            None,
        ),
        Method(
            "clip-surgery",
            "CLIP Surgery",
            "Li et al., CLIP Surgery for Better Explainability with Enhancement in "
            "Open-Vocabulary Tasks, arXiv 2304.05653",
            "features of a different attention, less what the prompts of one call share",
            "half a forward pass",
            clip_surgery,
            None,
            layers="half",
            wants_empty=True,
        ),
        Method(
            "m2ib",
            "M2IB",
            "Wang, Rudner and Wilson, Visual Explanations of Image-Text Representations via "
            "Multi-Modal Information Bottleneck Attribution, NeurIPS 2023, arXiv 2312.17174",
            "what each token must say to keep the similarity up",
            "about 35 forward passes for each target",
            perturbation.m2ib,
            perturbation.m2ib,
            layers="sixth",
        ),
        Method(
            "rise",
            "RISE",
            "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box "
            "Models, BMVC 2018, arXiv 1806.07421",
            _OWN,
            "500 forward passes, for all targets together",
            perturbation.rise,
            None,
            wants_attention=False,
        ),
        Method(
            "legrad",
            "LeGrad",
            "Bousselham et al., LeGrad: An Explainability Method for Vision Transformers via "
            "Feature Formation Sensitivity, ICCV 2025, arXiv 2404.03214",
            "the similarity of averaged tokens, as if the tower ended earlier",
            "a sixth of a forward pass, and its gradient for each target",
            legrad,
            None,
            layers="sixth",
        ),
        Method(
            "input-x-gradient",
            "Input x gradient",
            "Shrikumar et al., Not Just a Black Box: Learning Important "
            "Features Through Propagating Activation Differences, arXiv 1605.01713",
            _OWN,
            "1 forward pass, and a backward pass for each target",
            gradients.input_x_gradient,
            gradients.input_x_gradient,
            text_layers="all",
            wants_attention=False,
        ),
        Method(
            "integrated-gradients",
            "Integrated gradients",
            "Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017, arXiv 1703.01365",
            _OWN,
            "50 forward and backward passes for each target",
            gradients.integrated_gradients,
            gradients.integrated_gradients,
            text_layers="all",
            wants_attention=False,
        ),
        Method(
            "leave-one-out",
            "Leave one word out",
            "Li, Monroe and Jurafsky, Understanding Neural Networks through "
            "Representation Erasure, arXiv 1612.08220",
            _OWN,
            "a forward pass for each word",
            None,
            perturbation.leave_one_out,
            wants_attention=False,
        ),
    )
}


def register_method(method: Method) -> Method:
    """Add a method to `METHODS`, so that its name can be used like any other, and return it.

    `del METHODS[name]` removes it again.

    Args:
        method: with a new name; `Explainer(clip, method=method)` also takes one that is not
            registered.

    Raises:
        GradeclipError: there is a method of this name, or it is no `Method`.
    """
    instance("a method", method, Method, "a Method")
    if method.name in METHODS:
        raise GradeclipError(f"there is a method {method.name!r}: choose another name")
    METHODS[method.name] = method
    return method
