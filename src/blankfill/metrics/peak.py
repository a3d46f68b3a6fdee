"""The peak arithmetic rate that a run's utilisation (MFU) is measured against.

Known accelerators have theirs from the vendor's data sheet: dense (not sparse) matrix products,
with sums kept in float32. For any other device, every CPU among them, the peak is measured: the
best rate of matrix products of several shapes, in the run's precision and thread count. It is
called `measured peak` then; a share of it says how far the run is from the device's own products.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

__all__ = ["KNOWN", "KnownPeak", "Peak", "find_peak", "known_peak", "measure_peak"]

SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 1024, 2048), (1024, 4096, 1024))
"""Rows, inner size and columns of the products that measure a peak."""
MEASURING_SECONDS = 0.8
"""Total time that measuring takes."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A device's peak rate."""

    flops_per_second: float
    """Operations per second; a multiply and an add are two."""
    source: str
    """Where the number comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownPeak:
    """A data sheet's peaks, in units of 10^12 operations a second; 0 where it has none."""

    name: str
    """Pattern of the device's name, as torch gives it."""
    half: float
    """float16 products."""
    bfloat16: float
    """bfloat16 products."""
    tf32: float
    """float32 products that may round their factors to TF32."""
    float32: float
    """float32 products."""
    source: str
    """The document."""


def _ampere_on(
    name: str, half: float, tf32: float, float32: float, source: str
) -> KnownPeak:  # bfloat16 is as fast as float16 since Ampere
    return KnownPeak(name=name, half=half, bfloat16=half, tf32=tf32, float32=float32, source=source)


KNOWN: Final[tuple[KnownPeak, ...]] = (
    _ampere_on(r"\bB200\b", 2250, 1125, 75, "NVIDIA DGX B200 data sheet, dense"),
    _ampere_on(r"\bH[18]00 PCIe\b", 756, 378, 51, "NVIDIA H100 data sheet, PCIe, dense"),
    _ampere_on(r"\bH[12]00 NVL\b", 835, 417.5, 60, "NVIDIA H100 data sheet, NVL, dense"),
    _ampere_on(r"\bH[128]00\b", 989.4, 494.7, 66.9, "NVIDIA H100 data sheet, SXM, dense"),
    _ampere_on(r"\bH20\b", 148, 74, 44, "NVIDIA H20 data sheet, dense"),
    _ampere_on(r"\bA[18]00\b", 312, 156, 19.5, "NVIDIA A100 data sheet, dense"),
    _ampere_on(r"\bA10\b", 125, 62.5, 31.2, "NVIDIA A10 data sheet, dense"),
    _ampere_on(r"\bL40S\b", 362, 183, 91.6, "NVIDIA L40S data sheet, dense"),
    _ampere_on(r"\bL4\b", 121, 60, 30.3, "NVIDIA L4 data sheet, dense"),
    _ampere_on(r"\bRTX A6000\b", 154.8, 77.4, 38.7, "NVIDIA GA102 white paper, dense"),
    _ampere_on(r"\bRTX 4090$", 165.2, 82.6, 82.6, "NVIDIA Ada white paper, dense, float32 sums"),
    _ampere_on(r"\bRTX 3090$", 71, 35.6, 35.6, "NVIDIA GA102 white paper, dense, float32 sums"),
    KnownPeak(name=r"\bV100-PCIE", half=112, bfloat16=0, tf32=0, float32=14,
              source="NVIDIA V100 data sheet, PCIe"),
    KnownPeak(name=r"\bV100", half=125, bfloat16=0, tf32=0, float32=15.7,
              source="NVIDIA V100 data sheet, SXM2"),
    KnownPeak(name=r"\bT4\b", half=65, bfloat16=0, tf32=0, float32=8.1,
              source="NVIDIA T4 data sheet"),
)  # fmt: skip
"""The first whose pattern is in the device's name counts."""


def find_peak(dtype: torch.dtype, device: str = "cpu") -> Peak:
    """Find the peak of a device, from the table where it is known, else by measuring.

    Args:
        dtype: precision of the run's matrix products.
        device: where they run.
    """
    import torch

    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
        tf32 = bool(torch.backends.cuda.matmul.allow_tf32)
        found = known_peak(name, str(dtype).removeprefix("torch."), tf32=tf32)
        if found is not None:
            return found
    return _measured(dtype, device, torch.get_num_threads())


def known_peak(name: str, dtype: str, *, tf32: bool = False) -> Peak | None:
    """Look a device up in the table.

    Args:
        name: the device, as `torch.cuda.get_device_name` calls it.
        dtype: float32, float16 or bfloat16.
        tf32: whether float32 products may round their factors.
    """
    for known in KNOWN:
        if re.search(known.name, name):
            column = {"float16": known.half, "bfloat16": known.bfloat16}.get(
                dtype, known.tf32 if tf32 and known.tf32 else known.float32
            )
            return Peak(column * 1e12, known.source) if column else None
    return None


def measure_peak(
    dtype: torch.dtype, device: str = "cpu", *, seconds: float = MEASURING_SECONDS
) -> float:
    """Measure the best rate of matrix products, in operations a second."""
    import torch

    def wait() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    best = 0.0
    for rows, inner, columns in SHAPES:
        a = torch.full((rows, inner), 0.5, dtype=dtype, device=device)
        b = torch.full((inner, columns), 0.5, dtype=dtype, device=device)
        out = torch.mm(a, b)
        wait()
        end = time.perf_counter() + seconds / len(SHAPES)
        done = False
        while not done:
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            wait()
            now = time.perf_counter()
            best = max(best, 2 * rows * inner * columns / (now - start))
            done = now >= end
    return best


@functools.cache
def _measured(dtype: torch.dtype, device: str, threads: int) -> Peak:
    """Measure once per precision, device and thread count of a process."""
    unit = f"{threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    name = str(dtype).removeprefix("torch.")
    return Peak(measure_peak(dtype, device), f"measured peak, {name}, {unit}")
