"""`GradeclipError`, the one exception for invalid input, its subclass for models, and helpers for messages."""


class GradeclipError(ValueError):
    """Invalid input. The message repeats what was given, states the rule, and says what to do."""


class UnsupportedModel(GradeclipError):
    """The model has a part that cannot be explained. The message names the part."""


def short(value: object, most: int = 60) -> str:
    """The repr of a value in one line, cut to a length that fits into a sentence."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if there is no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
