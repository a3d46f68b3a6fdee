"""What a run says of itself: all that run.json keeps, and the line with which it starts."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blankfill import __version__
from blankfill.config.run import RunConfig, to_dict
from blankfill.data.store import TokenStore
from blankfill.engine.device import device_name
from blankfill.kernels.packed import in_c
from blankfill.prepare.start import Start
from blankfill.runs.folder import VERSION
from blankfill.runtime import available_cores, cpu_name
from blankfill.train.trainer import Trainer

__all__ = ["describe_run", "say_what_was_chosen"]

log = logging.getLogger(__name__)


def describe_run(
    cfg: RunConfig, device: torch.device, *, data: Sequence[Path], stores: Sequence[TokenStore],
    shares: Sequence[float] | None, validation: Sequence[Path], held_out: Sequence[TokenStore],
    start: Start | None,
) -> dict[str, Any]:  # fmt: skip
    """Describe a run as run.json keeps it, before anything is measured.

    Args:
        cfg: the run.
        device: where it trains.
        data: folders of `stores`.
        stores: what it trains on.
        shares: of each store in the rows; None where all documents are read in one order.
        validation: folders of `held_out`.
        held_out: what it validates on.
        start: the weights that it starts from, where they are another run's.
    """
    trained_on = [_entry(*of) for of in zip(data, stores, strict=True)]
    for entry, share in zip(trained_on, shares or (), strict=False):
        entry["share"] = share
    return {
        "format": "blankfill run",
        "version": VERSION,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": to_dict(cfg),
        "tokenizer": {"fingerprint": stores[0].tokenizer_fingerprint},
        "data": trained_on,
        "validation": [_entry(*of) for of in zip(validation, held_out, strict=True)],
        "software": {
            "blankfill": __version__, "python": platform.python_version(),
            "torch": torch.__version__, "numpy": np.__version__,
        },
        "hardware": {
            "machine": platform.machine(), "system": platform.system(),
            "cpu": cpu_name(), "cores": available_cores(), "device": device_name(device),
        },
        **({} if start is None else {"init": start.described}),
    }  # fmt: skip


def _entry(path: Path, store: TokenStore) -> dict[str, Any]:
    return {
        "path": str(path.resolve()), "fingerprint": store.fingerprint,
        "documents": len(store), "tokens": store.num_tokens,
    }  # fmt: skip


def say_what_was_chosen(trainer: Trainer, info: dict[str, Any], threads: int) -> None:
    """Log a run's size, device, ways and steps in one line."""
    hardware, engine = info["hardware"], trainer.engine
    native = engine.attention == "blocks" and in_c(engine.device, engine.dtype)
    log.info(
        "%s parameters, %s on %s, %d threads, attention %s%s, %s, %.3g TFLOP/s (%s), from step %d "
        "to step %d",
        f"{sum(p.numel() for p in engine.model.parameters()):,}",
        str(engine.dtype).removeprefix("torch."), hardware["device"], threads, engine.attention,
        " in C" if native else "", "compiled" if info["compiled"] else "not compiled",
        hardware["peak_flops_per_second"] / 1e12, hardware["peak_source"], trainer.index,
        trainer.cfg.train.steps,
    )  # fmt: skip
