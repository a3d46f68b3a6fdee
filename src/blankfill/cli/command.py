"""How the user of this process calls blankfill."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

__all__ = ["own_command"]


def own_command() -> str:
    """Give what a shell in this folder finds: `blankfill`, or where this interpreter keeps it.

    `make demo` installs into an environment that a shell does not know until it is activated.
    """
    beside = Path(sys.executable).with_name("blankfill")
    found = shutil.which("blankfill")
    if found is not None or not beside.is_file():
        return "blankfill"
    shown = os.path.relpath(beside)
    return str(beside) if shown.startswith(os.pardir) else shown
