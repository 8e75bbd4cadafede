"""Methods: from a tower's trace and a target to a signed map. They know no architecture.

    tower --trace--> Trace --method--> map --Explanation--> figure

| file | holds |
| --- | --- |
| `registry` | `METHODS`, the list of all of them; `Method`, what is known of each; `register_method` |
| `grad_eclip` | Grad-ECLIP and its ablations |
| `interactions` | word x region maps by Grad-ECLIP |
| `attention` | by attention: raw attention, rollout, GAME, LeGrad |
| `features` | by the tokens themselves: Grad-CAM, MaskCLIP, CLIP Surgery |
| `input_gradients` | by gradients of the input: input x gradient, integrated gradients |
| `perturbation` | by changing the input: RISE, M2IB, leave-one-out |
"""

from .registry import METHODS, Method, register_method

__all__ = ["METHODS", "Method", "register_method"]
