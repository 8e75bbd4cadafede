"""Registry: every method there is, with its paper, what it explains and what it costs.

    architecture --trace--> Trace --method--> map --Explanation--> picture

``METHODS`` names them; ``Explainer(clip, method="maskclip")`` runs one. All work on the unmodified model, through what
a tower offers; methods that change the model's attention change it in a computation of their own, and say what number
they then explain. Each goes through the trace's explained layers: which part of the tower that is belongs to the method
(``Method.layers``) unless the user says otherwise.

Every method gets a tower, a trace and the targets' ``directions`` (B, T, E), and returns signed maps (B, T, N) over the
trace's tokens, zero where a token is not ``real``. The target of a direction d is S = embedding . d: with d = e_T a
similarity, with d = e_A - e_B the difference of two. Costs are in forward passes of the tower, on top of the trace,
which is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from torch import Tensor

from ..towers import Tower, Trace
from . import perturbation
from .attention import attention, game, legrad, rollout
from .features import clip_surgery, grad_cam, maskclip
from .grad_eclip import grad_eclip, grad_eclip_with_one_head

_SHARES = {"all": 1, "half": 1 / 2, "sixth": 1 / 6}


@dataclass(frozen=True)
class Method:
    """One way to explain. ``image`` and ``text`` are None where the method is not defined for that side.

    They are called as ``method.image(tower, trace, directions, *, seed=0, progress=False, words=None, empty=None)`` and
    take what concerns them: ``words`` (B, N) numbers the word of every token, -1 for none; ``empty`` (E,) is the
    embedding of a prompt without words, given where ``wants_empty``.
    """

    name: str  # "grad-eclip", the key in METHODS
    title: str  # "Grad-ECLIP"
    paper: str  # authors, title, venue
    explains: str  # which number: "the model's own similarity", or what is not that
    cost: str  # in forward passes, in words
    image: Callable[..., Tensor] | None
    text: Callable[..., Tensor] | None
    layers: str = "last"  # "last": as many as Grad-ECLIP explains; "all", "half", "sixth": that part, from the top
    text_layers: str | None = None  # the same for prompts, where it is another part
    wants_empty: bool = False
    wants_attention: bool = True  # if not, it also explains a tower that has none (``towers.open_feature_map``)

    def explained(self, depth: int, side: str = "image") -> int | None:
        """How many of ``depth`` layers the method goes through; None leaves it to the tower, as Grad-ECLIP does."""
        part = (self.text_layers if side == "text" else None) or self.layers
        return None if part == "last" else max(1, round(depth * _SHARES[part]))


def _uniform(function: Callable[..., Tensor], *wanted: str, **fixed) -> Callable[..., Tensor]:
    """The function, called as every method is called; it gets those keywords that it wants."""

    @wraps(function)
    def method(
        tower: Tower,
        trace: Trace,
        directions: Tensor,
        *,
        seed: int = 0,
        progress: bool = False,
        words: Tensor | None = None,
        empty: Tensor | None = None,
    ) -> Tensor:
        given = {"seed": seed, "progress": progress, "words": words, "empty": empty}
        return function(tower, trace, directions, **{name: given[name] for name in wanted}, **fixed)

    return method


def _both(*arguments, **keywords) -> dict[str, Callable[..., Tensor]]:
    method = _uniform(*arguments, **keywords)
    return {"image": method, "text": method}


_OWN = "the model's own similarity"
_GRAD_ECLIP = (
    "Zhao, Wang, Hsiao and Chan, Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024, "
    "arXiv 2502.18816"
)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("grad-eclip", "Grad-ECLIP", _GRAD_ECLIP, _OWN, "a readout and its gradient", **_both(grad_eclip)),
        Method(
            "grad-eclip-no-spatial", "Grad-ECLIP without spatial weight", f"{_GRAD_ECLIP} (ablation)", _OWN,
            "a readout and its gradient", **_both(grad_eclip, spatial="none"),
        ),
        Method(
            "grad-eclip-single-head", "Grad-ECLIP with one head", f"{_GRAD_ECLIP} (as published)",
            "the similarity of another network, with one attention head",
            "the explained layers again, a readout and its gradient", **_both(grad_eclip_with_one_head),
        ),
        Method(
            "attention", "Raw attention",
            "Vaswani et al., Attention Is All You Need, NeurIPS 2017; Jain and Wallace, Attention is not Explanation, "
            "NAACL 2019",
            "where the tower looks, whatever the other side is", "nothing beyond the trace", **_both(attention),
        ),
        Method(
            "rollout", "Attention rollout",
            "Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv 2005.00928",
            "how attention mixes the input, whatever the other side is", "1 forward pass", **_both(rollout),
            layers="all",
        ),
        Method(
            "grad-cam", "Grad-CAM",
            "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, "
            "ICCV 2017, arXiv 1610.02391",
            _OWN, "the last block, and its gradient for each target", _uniform(grad_cam), None, wants_attention=False,
        ),
        Method(
            "game", "GAME",
            "Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and "
            "Encoder-Decoder Transformers, ICCV 2021, arXiv 2103.15679",
            _OWN, "1 forward pass, and a backward pass for each target", **_both(game), layers="all",
        ),
        Method(
            "maskclip", "MaskCLIP",
            "Zhou, Loy and Dai, Extract Free Dense Labels from CLIP, ECCV 2022, arXiv 2112.01071",
            "cosines of each patch's own feature, which the model never reads", "the last block",
            _uniform(maskclip), None,
        ),
        Method(
            "clip-surgery", "CLIP Surgery",
            "Li et al., CLIP Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks, "
            "arXiv 2304.05653",
            "features of another attention, less what the prompts of one call share", "half a forward pass",
            _uniform(clip_surgery, "empty"), None, layers="half", wants_empty=True,
        ),
        Method(
            "m2ib", "M2IB",
            "Wang, Rudner and Wilson, Visual Explanations of Image-Text Representations via Multi-Modal Information "
            "Bottleneck Attribution, NeurIPS 2023, arXiv 2312.17174",
            "what each token must say to keep the similarity up", "about 35 forward passes for each target",
            **_both(perturbation.m2ib, "seed", "progress"), layers="sixth",
        ),
        Method(
            "rise", "RISE",
            "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018, "
            "arXiv 1806.07421",
            _OWN, "500 forward passes, for all targets together",
            _uniform(perturbation.rise, "seed", "progress"), None, wants_attention=False,
        ),
        Method(
            "legrad", "LeGrad",
            "Bousselham et al., LeGrad: An Explainability Method for Vision Transformers via Feature Formation "
            "Sensitivity, ICCV 2025, arXiv 2404.03214",
            "the similarity of averaged tokens, as if the tower ended earlier",
            "a sixth of a forward pass, and its gradient for each target", _uniform(legrad), None, layers="sixth",
        ),
        Method(
            "input-x-gradient", "Input x gradient",
            "Shrikumar et al., Not Just a Black Box: Learning Important Features Through Propagating Activation "
            "Differences, arXiv 1605.01713",
            _OWN, "1 forward pass, and a backward pass for each target", _uniform(perturbation.pixels_x_gradient),
            _uniform(perturbation.tokens_x_gradient), text_layers="all", wants_attention=False,
        ),
        Method(
            "integrated-gradients", "Integrated gradients",
            "Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017, arXiv 1703.01365",
            _OWN, "50 forward and backward passes for each target",
            _uniform(perturbation.integrated_gradients, "progress"), None, wants_attention=False,
        ),
        Method(
            "leave-one-out", "Leave one word out",
            "Li, Monroe and Jurafsky, Understanding Neural Networks through Representation Erasure, arXiv 1612.08220",
            _OWN, "a forward pass for each word", None, _uniform(perturbation.leave_one_out, "words"),
            wants_attention=False,
        ),
    )
}  # fmt: skip
