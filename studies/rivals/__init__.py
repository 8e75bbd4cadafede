"""Rivals of Grad-ECLIP, registered through the same door that any other project uses: `register_method`."""

from gradeclip_utils.methods import METHODS, Method, register_method
from gradeclip_utils.methods.attention import integrated_attention
from gradeclip_utils.methods.perturbation import cci

from .metagame import metagame
from .second_order import fixlip, fixlip_of_words

for _rival in (
    Method(
        "cci",
        "CCI",
        "Agarwal, Karanam and Gandhi, Concept Regions Matter: Benchmarking CLIP with a New "
        "Cluster-Importance Approach, CVPR 2026, arXiv 2511.12978",
        "the model's own similarity",
        "8 forward passes, for all targets together",
        cci,
        None,
        layers="all",
    ),
    Method(
        "metagame",
        "METAGAME",
        "Baniecki, Fumagalli and Biecek, METAGAME, arXiv 2605.06295",
        "the model's own similarity",
        "2^n forward passes for n words; beyond 8 words at most 32 for each word",
        None,
        metagame,
        wants_attention=False,
    ),
    Method(
        "integrated-attention",
        "Integrated attention",
        "Hao, Dong, Wei and Xu, Self-Attention Attribution: "
        "Interpreting Information Interactions Inside Transformer, AAAI 2021, arXiv 2004.11207",
        "the model's own similarity",
        "8 readouts and their gradients",
        None,
        integrated_attention,
    ),
    Method(
        "fixlip",
        "FIxLIP",
        "Baniecki, Muschalik, Fumagalli, Hammer, Huellermeier and Biecek, Explaining "
        "Similarity in Vision-Language Encoders with Weighted Banzhaf Interactions, NeurIPS 2025, arXiv "
        "2508.05430",
        "the model's own similarity",
        "500 forward passes, for all targets together; 2^n for n words of a prompt, at most 256",
        fixlip,
        fixlip_of_words,
        wants_attention=False,
    ),
):
    if _rival.name not in METHODS:
        register_method(_rival)
