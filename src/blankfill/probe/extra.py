"""The libraries that fit: an extra, since nothing else needs them."""

from __future__ import annotations

import importlib

from blankfill.errors import ConfigError

__all__ = ["require_libraries"]


def require_libraries() -> None:
    """Find out before any work whether the libraries of the extra `probe` are there.

    Raises:
        ConfigError: one is missing.
    """
    for name in ("scipy", "sklearn", "statsmodels"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"a probe needs scikit-learn and statsmodels ({error}); "
                              "pip install 'blankfill[probe]'") from error  # fmt: skip
