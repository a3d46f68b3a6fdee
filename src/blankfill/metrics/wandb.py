"""Weights & Biases, for those who want it: an extra, off unless a project is named.

The package is imported only then. Nothing else of a run depends on it: every number is in
metrics.jsonl first.
"""

from __future__ import annotations

import importlib
import json
import uuid
from pathlib import Path
from typing import Any

from blankfill.errors import ConfigError

__all__ = ["WandbLog", "require_wandb"]

ID_FILE = "wandb-id"
"""Keeps the id of the page in the run's folder, so that a resumed or moved run goes on there."""


def require_wandb() -> Any:
    """Import the package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"train.wandb needs the wandb package ({error}); pip install 'blankfill[wandb]', or "
            "leave the option out"
        ) from error


class WandbLog:
    """One run's page.

    Lines are plotted over their own `step`: a run that was resumed or rolled back writes some steps
    again, which W&B's counter would refuse.

    Args:
        run: the run's folder.
        project: name of the project.
    """

    def __init__(self, run: Path, project: str) -> None:
        config: dict[str, Any] = {}
        if (run / "run.json").exists():
            config = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]
        path = run / ID_FILE
        if not path.exists():
            path.write_text(uuid.uuid4().hex, encoding="ascii")
        self._run = require_wandb().init(
            project=project, id=path.read_text(encoding="ascii"), name=run.resolve().name,
            dir=str(run), resume="allow", config=config,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Send the values that belong to `step`."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
