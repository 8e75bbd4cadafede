"""Methods: from a tower's trace and a target to a signed map. They know no architecture.

tower --trace--> Trace --method--> map --Explanation--> figure
"""

from .options import Options
from .registry import METHODS, Method, layers_to_explain, register_method

__all__ = ["METHODS", "Method", "Options", "layers_to_explain", "register_method"]
