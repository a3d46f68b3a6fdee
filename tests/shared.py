"""Real and hostile text that lies beside the repository, where it does."""

import os
from pathlib import Path

import pytest


def shared_path(name: str) -> Path:
    """Return a path under the shared folder, or skip the test, saying why."""
    root = Path(os.environ.get("BLANKFILL_SHARED", Path(__file__).parents[2] / "shared"))
    path = root / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set BLANKFILL_SHARED to a folder that has {name}")
    return path
