"""Tables of results, the project's and those that others send, have one form."""

import pandas as pd
import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import answer
from studies.lesson import COLUMNS, RESULTS, Claims
from studies.photographs import side_by_side

TABLES = sorted(RESULTS.glob("*/*.csv"))


@pytest.mark.parametrize("file", TABLES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_table_of_claims_has_the_columns_of_the_lessons_and_answers_that_follow_from_its_intervals(file):
    table = pd.read_csv(file, dtype={"lesson": str})
    assert list(table.columns) == COLUMNS and len(table)
    assert set(table["lesson"]) == {file.stem}
    assert (table["low"] <= table["estimate"] + 1e-4).all() and (table["estimate"] <= table["high"] + 1e-4).all()
    clear = table[table["answer"].isin(["higher", "lower"])]
    assert [answer(row.low, row.high, than=row.than) for row in clear.itertuples()] == list(clear["answer"])


def test_all_models_stand_side_by_side_with_published_numbers_last(tmp_path):
    claims = Claims("05", "my/model")
    claims.add("photographs: colorswap: all four right", estimate=0.5, bounds=(0.4, 0.6), n=40)
    claims.write(tmp_path)
    table = side_by_side(tmp_path)
    assert list(table.columns) == ["my/model", "published"]
    assert table.loc[("05", claims.rows[0][1])].tolist()[0] == "0.50 [0.40, 0.60]"
    assert table["published"].iloc[0].startswith("CLIP 0.12, SigLIP 0.30")
    with pytest.raises(GradeclipError, match="has no results: run a lesson first"):
        side_by_side(tmp_path / "empty")
