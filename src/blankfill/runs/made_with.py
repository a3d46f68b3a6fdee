"""What a run was made with: the versions of software, and the machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from blankfill import __version__
from blankfill.runtime import available_cores, cpu_name

__all__ = ["Hardware", "Software"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """Versions that a run was made with."""

    blankfill: str
    """Of blankfill."""
    python: str
    """Of Python."""
    torch: str
    """Of torch."""
    numpy: str
    """Of numpy."""

    @classmethod
    def here(cls) -> Software:
        """Give those of this process."""
        import numpy as np
        import torch

        return cls(
            blankfill=__version__, python=platform.python_version(), torch=torch.__version__,
            numpy=np.__version__,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """The machine that a run was made on."""

    machine: str
    """Its kind of processor, such as x86_64."""
    system: str
    """Its operating system."""
    cpu: str
    """Its processor's name."""
    cores: int
    """Cores that the process could use."""
    device: str = "cpu"
    """What the model computed on."""
    peak_flops_per_second: int | None = None
    """What the rate of arithmetic was measured against; None where nothing was trained."""
    peak_source: str | None = None
    """Where that number is from."""

    @classmethod
    def here(cls, device: str = "cpu") -> Hardware:
        """Describe this machine.

        Args:
            device: what the model computes on.
        """
        return cls(
            machine=platform.machine(), system=platform.system(), cpu=cpu_name(),
            cores=available_cores(), device=device,
        )  # fmt: skip
