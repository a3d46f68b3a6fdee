"""Part c: whole training steps by size, row length and form, and nanoGPT's beside them.

A step of ours is the trainer's own: rows made from the store on a thread, forward, backward,
clipping, AdamW, the guard. A step of nanoGPT is what its training loop does, on tokens that lie on
the device, every position a target. Both take as many positions a step, halved until they fit.

Utilisation is a rate of operations over the card's measured peak of bfloat16 products, by two
countings: `palm`, 6 N + 12 L D T a position with N all parameters (Chowdhery et al. 2022, appendix
B), and for ours `model`, what it multiplies (`blankfill.metrics.flops`). nanoGPT has no gated
layer: its feed-forward layer is 4 D wide, and its number of parameters is told.
"""

from __future__ import annotations

import functools
import gc
import itertools
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blankfill.config.model import ModelConfig
from blankfill.config.presets import preset
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.engine.engine import Portion
from blankfill.engine.local import LocalEngine
from blankfill.model.glm import GLM
from blankfill.train import Trainer
from gpu_check import Settings
from gpu_check.measure import (
    count_synchronisations,
    describe_device,
    measure_copy,
    measure_product,
    median_seconds,
    peak_bytes,
)
from gpu_check.nanogpt import nanogpt_step
from gpu_check.record import Record, read_rows
from gpu_check.rows import row_source

BILLION = ModelConfig(
    vocab_size=32_768, hidden_size=2048, num_layers=24, num_heads=16, ffn_size=5504,
    deepnorm="deepnet",
)  # fmt: skip
"""1.3 B parameters: the shape of GPT-3 XL with a gated layer whose width is a multiple of 128."""
SIZES = {
    "110M": preset("base").model,
    "337M": preset("large").model,
    "1.3B": BILLION,
    "tiny": ModelConfig(hidden_size=64, num_layers=2, num_heads=2, ffn_size=128, vocab_size=16_384),
}
POSITIONS = {"110M": 32_768, "337M": 16_384, "1.3B": 8_192, "tiny": 512}
"""Positions of a step, in one micro-batch."""
COMPILING_SECONDS, PLAIN_SECONDS = 35.0, 10.0
"""A job is not begun where less time is left."""
SYNCHRONISED_STEPS = 4
"""Steps whose host synchronisations are counted."""
OURS, NANOGPT = "ours", "nanoGPT"


@dataclass(frozen=True)
class Job:
    """One line of the table."""

    who: str
    """OURS or NANOGPT."""
    size: str
    """Of SIZES."""
    length: int
    """Positions of a row."""
    way: str = "auto"
    """Way of attention of ours; auto takes the fastest that needs no compiler, as part b found."""
    compiled: bool = False
    """Whether blocks, or the whole nanoGPT, are compiled."""

    @property
    def name(self) -> str:
        """As it is printed."""
        how = f", {self.way}" if self.way != "auto" else ""
        return f"{self.size}, rows of {self.length:,}: {self.who}{how}" + (
            ", compiled" if self.compiled else ""
        )


JOBS = (
    Job(OURS, "110M", 512),
    Job(NANOGPT, "110M", 512),
    Job(OURS, "110M", 2048),
    Job(NANOGPT, "110M", 2048),
    Job(OURS, "337M", 512),
    Job(NANOGPT, "337M", 512),
    Job(OURS, "1.3B", 512),
    Job(NANOGPT, "1.3B", 512),
    Job(OURS, "1.3B", 2048),
    Job(OURS, "337M", 2048),
    Job(OURS, "110M", 512, "flex", compiled=True),
    Job(OURS, "110M", 512, "varlen", compiled=True),
    Job(NANOGPT, "110M", 512, compiled=True),
    Job(OURS, "110M", 512, "blocks"),
    Job(OURS, "110M", 512, "blocks", compiled=True),
    Job(OURS, "110M", 2048, "flex", compiled=True),
    Job(NANOGPT, "1.3B", 2048),
)
"""Most telling first: what there is no time for is left out from the end."""
QUICK = (Job(OURS, "tiny", 128), Job(NANOGPT, "tiny", 128))


def run(settings: Settings, record: Record) -> None:
    """Measure the card's peaks, then the steps."""
    size, copied = (512, 1 << 22) if settings.quick else (8192, 1 << 32)
    record.do("the machine", lambda: describe_device(settings.device) | {
        "product_flops_per_second": measure_product(settings.device, size),
        "copy_bytes_per_second": measure_copy(settings.device, copied),
    })  # fmt: skip
    peak = record.rows()[0].get("product_flops_per_second", 0.0)
    for job in QUICK if settings.quick else JOBS:
        if not re.search(settings.jobs, job.name):
            continue
        needed = COMPILING_SECONDS if job.compiled else PLAIN_SECONDS
        if job.who == NANOGPT and settings.nanogpt is None:
            record.add(job.name, "left out", error="no --nanogpt was given")
        elif settings.left() < needed and not settings.quick:
            record.add(job.name, "left out", error="there was no time for it")
        else:
            record.do(job.name, functools.partial(measure, job, settings, peak))


def measure(job: Job, settings: Settings, peak: float) -> dict[str, Any]:
    """Do one job, with fewer positions a step where memory does not hold them."""
    rows = POSITIONS[job.size] // job.length
    while True:
        try:
            return _measure(job, settings, peak, rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            print(f"{job.name}: {rows} rows do not fit", flush=True)
            rows //= 2
        finally:
            forget(settings.device)


def forget(device: str) -> None:
    """Give back what a model held."""
    gc.collect()
    torch._dynamo.reset()
    peak_bytes(device)


def _measure(job: Job, settings: Settings, peak: float, rows: int) -> dict[str, Any]:
    """Time the steps of a job and say what they cost."""
    device, quick = settings.device, settings.quick
    cfg = SIZES[job.size]
    peak_bytes(device)
    with tempfile.TemporaryDirectory() as folder:
        if job.who == OURS:
            step, info = _our_step(job, settings, rows, Path(folder))
        else:
            assert settings.nanogpt is not None
            shape = (rows, job.length)
            step, info = nanogpt_step(settings.nanogpt, cfg, shape, device, compiled=job.compiled)
        with info["open"]() as loader:
            begun = time.perf_counter()
            step(loader)
            if device == "cuda":
                torch.cuda.synchronize()
            first = time.perf_counter() - begun
            seconds, number = median_seconds(
                lambda: step(loader), device, warm=1 if quick else 3, least=2 if quick else 6,
                most=3 if quick else 30, seconds=2.5,
            )  # fmt: skip
            try:
                waits = count_synchronisations(lambda: step(loader), device, SYNCHRONISED_STEPS)
            except RuntimeError as error:  # the times stand without it
                waits = {"error": str(error)}
            last = step(loader)
    positions = rows * job.length
    parameters = info["parameters"]
    palm = 6 * parameters + 12 * cfg.num_layers * cfg.hidden_size * job.length
    rate = positions / seconds
    values: dict[str, Any] = {
        "seconds": seconds, "steps": number, "positions": positions,
        "positions_per_second": rate, "parameters": parameters, "first_step_seconds": first,
        "mfu_palm": palm * rate / peak if peak else 0.0, "synchronisations": waits,
        "memory": peak_bytes(device),
    }  # fmt: skip
    if job.who == OURS:
        values |= {
            "made_positions_per_second": info["rows_per_second"] * job.length,
            "attention": info["attention"], "precision": info["precision"],
            "mfu_model": last.flops.model / seconds / peak if peak else 0.0,
            "mfu_dense": last.flops.dense / seconds / peak if peak else 0.0,
            "target_share": last.num_targets / positions,
        }  # fmt: skip
    return values


def _our_step(
    job: Job, settings: Settings, rows: int, folder: Path
) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Build a trainer as a run has it."""
    way = fastest_way(settings, job.length) if job.way == "auto" else job.way
    cfg = RunConfig(
        model=SIZES[job.size],
        train=TrainConfig(
            steps=1000, row_length=job.length, batch_rows=rows, micro_batch_rows=rows,
            attention=way, compile="on" if job.compiled else "off",
        ),
        schedule=ScheduleConfig(peak_lr=1e-4),
    )  # fmt: skip
    with torch.device(settings.device):
        model = GLM(cfg.model)
    with torch.no_grad():
        # On the device: values of a run are drawn on the CPU, which takes 1.3 B half a minute.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
    engine = LocalEngine(cfg, model, attention=way, compiled=job.compiled)
    trainer = Trainer(cfg, engine, row_source(settings, job.length), folder)
    batches = itertools.count()

    def make() -> object:
        part = Portion(first=rows * next(batches), num_rows=rows, size=rows)
        return engine.transfer(trainer.rows.rows(part.first, part.size), part)

    making, _ = median_seconds(make, settings.device, warm=2, least=3, most=8, seconds=0.5)
    return trainer.step, {
        "rows_per_second": rows / making, "open": trainer.open_loader,
        "parameters": sum(p.numel() for p in model.parameters()),
        "attention": way, "precision": str(engine.dtype).removeprefix("torch."),
    }  # fmt: skip


def fastest_way(settings: Settings, length: int) -> Any:
    """Name the way that passed in part b and took least time there, of those not compiled."""
    seconds = {
        row["job"].partition(",")[0]: row["seconds"]
        for row in read_rows(settings.out)
        if row["part"] == "b" and row["status"] == "passed"
        and row["job"].endswith(f"rows of {length:,}") and not row["job"].startswith("flex")
    }  # fmt: skip
    default = "varlen" if settings.device == "cuda" else "blocks"
    return min(seconds, key=seconds.__getitem__, default=default)
