"""The parts of `scripts/gpu-check`, and what it was asked for."""

from __future__ import annotations

import argparse
import importlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PARTS", "Part", "Settings"]


@dataclass(frozen=True)
class Part:
    """One part, done by `run(settings, record)` of its module."""

    name: str
    """Letter that `--parts` takes."""
    title: str
    """What it does."""
    module: str
    """Of this package; loaded by the part's own process alone."""
    seconds: float
    """Its time on a card, the start of its process included."""

    @property
    def run(self) -> Callable[..., None]:
        """The function that does it."""
        return importlib.import_module(f"gpu_check.{self.module}").run


PARTS = {
    part.name: part
    for part in (
        Part("a", "tests marked gpu", "marked", 95),
        Part("b", "ways of attention", "attention", 60),
        Part("c", "training steps", "steps", 145),
        Part("d", "a run, killed and resumed", "training", 170),
        Part("e", "the sharded engine beside the local one", "sharded", 65),
    )
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What was asked for."""

    device: str
    """cuda or cpu."""
    quick: bool
    """Small sizes and few repeats."""
    parts: tuple[str, ...]
    """Letters."""
    seconds: dict[str, float]
    """Time of each part."""
    store: Path | None
    """Training text."""
    held_out: Path | None
    """Held-out text."""
    nanogpt: Path | None
    """File of nanoGPT's model."""
    out: Path
    """Folder of the results."""
    jobs: str = ""
    """Regular expression of the names of the jobs of c and e that are done."""
    until: float = 0.0
    """When this part is ended, as `time.time()`."""

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        """Take up the command line.

        Raises:
            ValueError: a part, its time or an expression is not one.
        """
        try:
            re.compile(args.jobs)
        except re.error as error:
            raise ValueError(f"--jobs {args.jobs!r} is no regular expression: {error}") from error
        names = tuple(dict.fromkeys(args.parts.split(",")))
        times = {name: part.seconds for name, part in PARTS.items()}
        for entry in filter(None, args.seconds.split(",")):
            name, _, value = entry.partition("=")
            times[name] = float(value) if value.replace(".", "", 1).isdigit() else 0.0
            if not times[name]:
                raise ValueError(f"--seconds has {entry!r}; write a=60,c=120")
        if wrong := [name for name in (*names, *times) if name not in PARTS]:
            raise ValueError(f"there is no part {wrong[0]!r}; take some of {','.join(PARTS)}")
        paths: dict[str, Any] = {
            name: path and path.resolve()
            for name, path in vars(args).items()
            if name in ("store", "held_out", "nanogpt", "out")
        }
        return cls(device=args.device, quick=args.quick, parts=names, seconds=times,
                   jobs=args.jobs, until=args.until, **paths)  # fmt: skip

    def problem(self) -> str | None:
        """Say what keeps all of it from beginning, or None."""
        for path, what in ((self.store, "--store"), (self.held_out, "--held-out")):
            if path and not (path / "manifest.json").is_file():
                return f"{what} {path} is not a token store; make one with: blankfill data build"
        if self.nanogpt and not self.nanogpt.is_file():
            return f"--nanogpt {self.nanogpt} is not a file; name model.py of a checkout of nanoGPT"
        if self.out.exists() and not self.out.is_dir():
            return f"--out {self.out} is a file; name a folder"
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                return f"torch {torch.__version__} finds no CUDA device; try --device cpu --quick"
        return None

    def left(self) -> float:
        """Seconds until this part is ended."""
        return self.until - time.time()
