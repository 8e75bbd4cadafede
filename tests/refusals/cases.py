"""What the tests of refusals share."""

import pytest

from gradeclip_utils.errors import GradeclipError


def named(cases):
    """Cases (name, ...) as parameters that are called by their names."""
    return [pytest.param(*values, id=name) for name, *values in cases]


def refused(cases):
    """A test that makes the call of each case (name, call, message), which is refused with it."""

    @pytest.mark.parametrize(("call", "message"), named(cases))
    def test(call, message):
        with pytest.raises(GradeclipError, match=message):
            call()

    return test
