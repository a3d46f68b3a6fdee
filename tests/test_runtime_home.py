"""A user without a home folder, as in a container, loses the compiled form and nothing else."""

from pathlib import Path

import pytest

from blankfill import runtime
from blankfill.kernels import native


def test_without_a_home_the_compiled_form_is_left_out(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        runtime.cache_folder()
    assert native.load_native.__wrapped__() is None


def test_a_named_cache_needs_no_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runtime.cache_folder() == tmp_path / "blankfill"
