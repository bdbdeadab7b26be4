"""Tests that need a GPU: skipped with a reason where there is none.

SELKIE_TEST_DEVICE=cpu runs them on the CPU, which shows that the tests themselves are in order.
"""

import os

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    name = os.environ.get("SELKIE_TEST_DEVICE", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device (SELKIE_TEST_DEVICE=cpu runs this test on the CPU)")
    return torch.device(name)


@pytest.fixture
def full_precision():
    """Keep float32 products from being rounded to tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
