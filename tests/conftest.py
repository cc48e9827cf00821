"""Fixtures for every test: quiet threads, and the data that lies beside the repository on a developer's machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if "OMP_NUM_THREADS" not in os.environ:  # the tests are many small jobs: more threads only wait for one another
    torch.set_num_threads(min(2, os.cpu_count() or 1))

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository (photos, recorded numbers); the test is skipped where it is absent."""
    path = Path(os.environ.get("MIEN_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no {path}: this test needs the developers' photos")
    return path


@pytest.fixture
def data() -> Path:
    """The recorded numbers that belong to the tests."""
    return REPOSITORY / "tests" / "data"
