"""Errors: what a user gets who asked for something that cannot be had. One sentence, and a short code.

All of them are `GradeclipError`, and also what Python's habit is: a `ValueError` for a wrong value, a `TypeError` for a
wrong type, an `OSError` or `FileNotFoundError` for files. Any other error is a fault of ours. The command line shows
the sentence and the code of the first kind, and the traceback of the second.
"""

from __future__ import annotations


class GradeclipError(Exception):
    """What was asked for cannot be had; the message says what was given, what the rule is, and what to do.

    Args:
        message: one sentence.
        code: short and stable, such as "image-dtype"; the class has one for those who give none.

    Attributes:
        code: as given, after "E-".
    """

    code = "E-refused"

    def __init__(self, message: str = "", code: str = ""):
        super().__init__(message)
        if code:
            self.code = f"E-{code}"


class InvalidValue(GradeclipError, ValueError):
    """A value that is not allowed."""


class InvalidType(GradeclipError, TypeError):
    """A thing of another kind than is taken."""


class InvalidFile(GradeclipError, OSError, ValueError):
    """A file or folder that cannot be read or written, or that holds something else than it should."""


class MissingFile(GradeclipError, FileNotFoundError):
    """A file that is not there."""


class MissingLibrary(GradeclipError, ImportError):
    """A library that only some people need, and that is not installed."""


class NotFinite(GradeclipError, FloatingPointError):
    """Numbers that ran away: NaN or infinity where neither has a meaning."""
