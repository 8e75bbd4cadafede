"""Tables of results, the project's and those that others send, have one form."""

import pandas as pd
import pytest

from studies.lesson import COLUMNS, RESULTS, answer

TABLES = sorted(RESULTS.glob("*/*.csv"))


@pytest.mark.parametrize("file", TABLES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_table_of_claims_has_the_columns_of_the_lessons_and_answers_that_follow_from_its_intervals(file):
    table = pd.read_csv(file, dtype={"lesson": str})
    assert list(table.columns) == COLUMNS and len(table)
    assert set(table["lesson"]) == {file.stem}
    assert (table["low"] <= table["estimate"] + 1e-4).all() and (table["estimate"] <= table["high"] + 1e-4).all()
    clear = table[table["answer"].isin(["higher", "lower"])]
    assert [answer(row.low, row.high, row.than) for row in clear.itertuples()] == list(clear["answer"])
