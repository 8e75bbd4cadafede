"""The rows that a run has so far."""

import pandas as pd

from gradeclip_utils.measures.results import read_whole


def read_run(folder):
    """The rows of the chunks that are whole, in the order of the examples; no row where there is no run."""
    parts = read_whole(folder)
    rows = [parts[number][0] for number in sorted(parts)]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"image": [], "method": []})
