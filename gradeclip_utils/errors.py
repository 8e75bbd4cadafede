"""Errors: what a user gets who asked for something that cannot be had. One sentence, and a short code.

All of them are `GradeclipError`, and also what Python's habit is: a `ValueError` for a wrong value, a `TypeError` for a
wrong type, an `OSError` or `FileNotFoundError` for files. Any other error is a fault of ours. The command line shows
the sentence and the code of the first kind, and the traceback of the second. What each code means, and what to do about
it, is a page of the documentation (`docs/site/refusals.py`).
"""


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
        self.add_note(f"[{self.code}]")  # a traceback ends with it


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


def short(value: object, most: int = 60) -> str:
    """What was given, as Python writes it, cut to a length that fits a sentence.

    Args:
        value: what was given.
        most: characters.
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(error: BaseException) -> str:
    """What an error says, as a part of a sentence: its first line, or its kind where it says nothing.

    Args:
        error: most often a library's.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
