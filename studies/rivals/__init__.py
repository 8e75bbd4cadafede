"""Rivals of Grad-ECLIP, added to the package from outside.

`METHODS` and the public names of `Explainer`.

    from studies.rivals import exclip, fixlip, metagame

    metagame(explainer, image, "a red car and a blue ball").image_maps
    Explainer(clip, method="cci")    # as "metagame", "integrated-attention" and "fixlip"

| name | explains | source |
| --- | --- | --- |
| `metagame`, "metagame" | word x region, also in pairs; words | Baniecki et al., arXiv 2605.06295 |
| `exclip` | word x region | arXiv 2408.14153 |
| `fixlip`, "fixlip" | word x region; regions, words | Baniecki et al., arXiv 2508.05430 |
| "cci" | regions | Agarwal, Karanam and Gandhi, arXiv 2511.12978 |
| "integrated-attention" | words | Hao, Dong, Wei and Xu, arXiv 2004.11207 |
"""

from gradeclip_utils.methods import METHODS, Method

from .attention import cci, integrated_attention
from .metagame import Metagame, metagame, word_values
from .second_order import exclip, fixlip, fixlip_of_patches, fixlip_of_words

__all__ = ["RIVALS", "Metagame", "exclip", "fixlip", "metagame"]

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
        name="metagame",
        title="METAGAME",
        paper=(
            "Baniecki, Biecek and Fumagalli, Attributions All the Way Down? The Metagame "
            "of Interpretability, arXiv 2605.06295"
        ),
        cost="2^n forward passes for n words; beyond 8 words at most 32 for each word",
        text=word_values,
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
        cost=(
            "500 forward passes, for all targets together; 2^n for n words of a prompt, at most 256"
        ),
        image=fixlip_of_patches,
        text=fixlip_of_words,
    ),
)
for _rival in RIVALS:
    METHODS.setdefault(_rival.name, _rival)
