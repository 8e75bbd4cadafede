"""Rivals of Grad-ECLIP, added to the methods of the package from outside: importing is enough.

    import studies.rivals

    Explainer(clip, method="cci")

| name | explains | source |
| --- | --- | --- |
| "cci" | regions | Agarwal, Karanam and Gandhi, arXiv 2511.12978 |
| "fixlip" | regions | Baniecki et al., arXiv 2508.05430 |
| "integrated-attention" | words | Hao, Dong, Wei and Xu, arXiv 2004.11207 |
"""

from gradeclip_utils.methods import METHODS, Method

from .attention import cci, integrated_attention
from .fixlip import fixlip

RIVALS = (
    Method(
        name="cci",
        title="CCI",
        paper=(
            "Agarwal, Karanam and Gandhi, Concept Regions Matter: Benchmarking CLIP with "
            "a New Cluster-Importance Approach, CVPR 2026, arXiv 2511.12978"
        ),
        cost="8 forward passes, for all targets together",
        image=cci,
        layers="all",
    ),
    Method(
        name="integrated-attention",
        title="Integrated attention",
        paper=(
            "Hao, Dong, Wei and Xu, Self-Attention Attribution: Interpreting Information "
            "Interactions Inside Transformer, AAAI 2021, arXiv 2004.11207"
        ),
        cost="8 readouts and their gradients",
        text=integrated_attention,
    ),
    Method(
        name="fixlip",
        title="FIxLIP",
        paper=(
            "Baniecki, Muschalik, Fumagalli, Hammer, Huellermeier and Biecek, Explaining "
            "Similarity in Vision-Language Encoders with Weighted Banzhaf Interactions, "
            "NeurIPS 2025, arXiv 2508.05430"
        ),
        cost="500 forward passes, for all targets together",
        image=fixlip,
    ),
)
for _rival in RIVALS:
    METHODS.setdefault(_rival.name, _rival)
