"""Methods: from a tower's trace and a target to a signed map. They know no architecture.

tower --trace--> Trace --method--> map --Explanation--> figure
"""

from .registry import METHODS, Method, register_method

__all__ = ["METHODS", "Method", "register_method"]
