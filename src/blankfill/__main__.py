"""`python -m blankfill` is the command `blankfill`."""

from __future__ import annotations

from blankfill.cli.main import entry_point

entry_point()
