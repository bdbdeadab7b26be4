import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def recordings(request) -> Path:
    """The folder of the data set that the test's `data` marker names."""
    base = Path(os.environ.get("SELKIE_DATA") or REPOSITORY.parent / "shared/data")
    folder = base / request.node.get_closest_marker("data").args[0]
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}; set SELKIE_DATA")
    return folder
