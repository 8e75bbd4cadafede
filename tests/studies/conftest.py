"""What tests of the studies share."""

import pytest

import studies.lesson


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """Claims and rows are written here, and not into the checkout."""
    folder = tmp_path / "results"
    monkeypatch.setattr(studies.lesson, "RESULTS", folder)
    monkeypatch.setenv("GRADECLIP_RESULTS", str(folder))
    return folder
