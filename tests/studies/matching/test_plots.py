"""Figures of the study of matching."""

import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from studies.matching.plots import draw_word_regions
from studies.matching.wording import scene_regions
from tests.conftest import build, wrap

pytestmark = pytest.mark.usefixtures("legible")


def test_the_matrix_is_drawn_with_all_its_words_and_numbers():
    explainer = Explainer(wrap(build(text={"context_length": 77})))
    matrix = scene_regions(explainer, arrange(["red car", "blue car"]))
    figure = draw_word_regions(matrix)
    assert [text.get_text() for text in figure.axes[-1].get_yticklabels()] == list(matrix.words)
    assert len(figure.axes[-1].texts) == matrix.values.size and len(figure.axes) == 1 + len(matrix.regions)
    assert all(word in figure.alt for word in matrix.words)
    strongest = {(matrix.values[i, j], word, region) for i, word in enumerate(matrix.words)
                 for j, region in enumerate(matrix.regions)}  # fmt: skip
    _, word, region = max(strongest)
    assert figure.texts[0].get_text() == f"the strongest pair: “{word}” and {region}"
