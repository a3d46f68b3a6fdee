"""Weights & Biases, an optional extra: off unless a project is named.

The package is imported only then. Nothing else of a run depends on it: every number is in
metrics.jsonl first. A login that fails is reported before a run begins; a page that fails later is
given up with a warning while the run goes on.
"""

from __future__ import annotations

import importlib
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blankfill.config.run import RunConfig, to_dict
from blankfill.errors import ConfigError

__all__ = ["WandbLog", "log_in_to_wandb", "require_wandb"]

log = logging.getLogger(__name__)

ID_FILE = "wandb-id"
"""Keeps the id of the page in the run's folder, so that a resumed or moved run goes on there."""


FORBIDDEN = "/\\#?%:"
LONGEST_NAME = 128
"""Characters that the server refuses in the name of a project, and how long a name may be."""


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


def log_in_to_wandb(project: str) -> None:
    """Make sure that numbers can be sent, before anything is written.

    Args:
        project: name of the project.

    Raises:
        ConfigError: the package is not installed, the name cannot be one, nobody is logged in, or
            the server does not answer or rejects the key.
    """
    wandb = require_wandb()
    if wrong := [c for c in FORBIDDEN if c in project]:
        raise ConfigError(
            f"train.wandb={project!r} cannot be the name of a project: it holds {wrong[0]!r}; "
            "leave it out"
        )
    if len(project) > LONGEST_NAME:
        raise ConfigError(
            f"train.wandb has {len(project)} characters; the name of a project has at most "
            f"{LONGEST_NAME}"
        )
    try:
        online: bool = wandb.login(verify=True)
    except Exception as error:  # every version of the package has errors of its own
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"train.wandb={project}: Weights & Biases cannot be logged in to ({reason}); run "
            "`wandb login` or set WANDB_API_KEY, set WANDB_MODE=offline to keep the numbers on "
            "this machine, or leave the option out"
        ) from error
    if not online:
        log.info(
            "Weights & Biases is not logged in to (WANDB_MODE): nothing is sent; an offline run is "
            "kept in the run's folder wandb/, and `wandb sync` sends it"
        )


class WandbLog:
    """One run's page; where the package fails later, it is given up and the run goes on.

    Lines are plotted over their own `step`: a run that was resumed or rolled back writes some steps
    again, which W&B's counter would refuse.

    Args:
        run: the run's folder.
        project: name of the project.
        config: the run's configuration, for the page; it is left out where not given.
    """

    def __init__(self, run: Path, project: str, config: RunConfig | None = None) -> None:
        path = run / ID_FILE
        if not path.exists():
            path.write_text(uuid.uuid4().hex, encoding="ascii")
        self._given_up = False
        self._page: Any = None
        settings = {
            "project": project, "id": path.read_text(encoding="ascii"),
            "name": run.resolve().name, "dir": str(run), "resume": "allow",
            "config": {} if config is None else to_dict(config),
        }  # fmt: skip
        self._page = self._guarded(lambda: require_wandb().init(**settings))
        self._guarded(lambda: self._page.define_metric("*", step_metric="step"))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Send the values that belong to `step`."""
        self._guarded(lambda: self._page.log({"step": step, **values}))

    def close(self) -> None:
        """Send what is left."""
        self._guarded(lambda: self._page.finish())

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Ask the package for something; where it fails, the page is given up, not the run."""
        if self._given_up:
            return None
        try:
            return call()
        except Exception as error:  # its process, the network or the disk may have failed
            self._given_up = True
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning(
                "Weights & Biases takes no more numbers (%s); the run goes on, and every number is "
                "in metrics.jsonl", reason,
            )  # fmt: skip
            return None
