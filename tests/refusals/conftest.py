"""A folder of images that the tests of refusals share."""

import pytest

from tests.studies.folders import write_noise


@pytest.fixture
def folder(tmp_path):
    return write_noise(tmp_path, ["a dog", "a cat", "a bus", "a cow"])
