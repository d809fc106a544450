"""What unit tests of several rooms share: the two parts of a module's own ``example``."""

import pytest


@pytest.fixture(scope="module")
def topology(example):
    return example[0]


@pytest.fixture(scope="module")
def positions(example):
    """Heavy atoms [F, A, 3], nm."""
    return example[1]
