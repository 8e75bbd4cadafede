"""Names that are none of those there are, and what a refusal proposes."""

from gradeclip_utils.checks import hint, nearest

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
