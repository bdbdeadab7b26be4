from pathlib import Path

import pytest

from tests.train.small_runs import here, make_stores, one_thread  # noqa: F401


@pytest.fixture(scope="session")
def stores(city) -> Path:
    """The folder with the tiny city's stores; tests that change them copy it first."""
    return make_stores(city)
