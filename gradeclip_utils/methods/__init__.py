"""Methods: from a tower's trace and a target to a signed map. They know no architecture.

    tower --trace--> Trace --method--> map --Explanation--> figure

| file | holds |
| --- | --- |
| `grad_eclip` | Grad-ECLIP, its ablations, and word x region |
| `registry` | `Method`, all other methods, `METHODS`, and `register_method` |
"""

from .registry import METHODS, Method, register_method

__all__ = ["METHODS", "Method", "register_method"]
