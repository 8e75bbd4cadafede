"""Names that are none of those there are, and what a refusal proposes."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils.checks import all_chosen, chosen, hint, listed, nearest
from gradeclip_utils.errors import GradeclipError

METHODS = ["grad-eclip", "Grad-CAM", "maskclip", "rise"]


def test_the_nearest_names_come_best_first_whatever_their_case():
    assert nearest("GRAD-ECLIPS", METHODS)[:2] == ["grad-eclip", "Grad-CAM"]
    assert nearest("grad-cam", METHODS, most=1) == ["Grad-CAM"]
    assert nearest("xyz", METHODS) == []
    assert nearest("", METHODS) == []


def test_a_hint_names_what_is_near_or_else_all_there_is():
    assert hint("maskclipp", iter(METHODS)) == "did you mean maskclip or grad-eclip?"
    assert hint("rize", METHODS) == "did you mean rise?"
    assert hint("xyz", iter(METHODS)) == "choose from grad-eclip, Grad-CAM, maskclip, rise"


def test_a_choice_may_be_a_number_or_a_text_of_numpy_and_comes_back_as_ours():
    assert type(chosen("objects", np.int64(3), (2, 3, 4))) is int
    assert type(chosen("method", np.str_("rise"), METHODS)) is str
    for wrong in (np.int64(5), np.array([3]), [3], None):
        with pytest.raises(GradeclipError, match="objects must be one of 2, 3, 4, got"):
            chosen("objects", wrong, (2, 3, 4))


@pytest.mark.parametrize(
    "several", [("rise", "maskclip"), iter(["rise", "maskclip"]), pd.Series(["rise", "maskclip"]),
                np.array(["rise", "maskclip"]), {"rise": 1, "maskclip": 2}.keys()], ids=lambda one: type(one).__name__
)  # fmt: skip
def test_several_may_come_in_whatever_holds_them_but_not_as_a_text_or_a_mapping(several):
    assert all_chosen("methods", several, METHODS) == ["rise", "maskclip"]
    for wrong in ("rise", {"rise": 1}, b"rise", 5, None):
        with pytest.raises(GradeclipError, match="methods must be a list"):
            listed("methods", wrong)
