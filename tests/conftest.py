"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import rig  # it stands beside this file, not in a package


@pytest.fixture(scope="session")
def kernel_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the kernel for these tests only; returns the folder of its spec."""
    if not rig.BINARY.exists():
        pytest.fail(f"{rig.BINARY} is missing: run 'make build'")
    prefix = tmp_path_factory.mktemp("prefix")
    rig.outlast("install", "--prefix", prefix)
    return prefix / "share" / "jupyter" / "kernels"
