"""Times, peak rates, memory and host synchronisations of a device."""

from __future__ import annotations

import contextlib
import itertools
import platform
import statistics
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from blankfill.runtime import available_cores, cpu_name

__all__ = [
    "count_synchronisations",
    "describe_device",
    "measure_copy",
    "measure_product",
    "median_seconds",
    "peak_bytes",
    "relative_error",
]

HERE = Path(__file__).parent


def describe_device(device: str) -> dict[str, Any]:
    """Name the machine and its software."""
    found: dict[str, Any] = {
        "python": platform.python_version(), "torch": torch.__version__, "cpu": cpu_name(),
        "cores": available_cores(),
    }  # fmt: skip
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name, "memory_gib": properties.total_memory / 2**30,
            "multiprocessors": properties.multi_processor_count, "cuda": torch.version.cuda,
            "capability": list(torch.cuda.get_device_capability()),
        }  # fmt: skip
    return found


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(
    call: Callable[[], object], device: str, *, warm: int = 3, least: int = 5, most: int = 50,
    seconds: float = 1.0,
) -> tuple[float, int]:  # fmt: skip
    """Time a call by the device's own clock.

    Args:
        call: what is timed.
        device: where it computes.
        warm: calls before.
        least: fewest timed calls.
        most: most timed calls.
        seconds: no call begins after this, when there are `least`.

    Returns:
        Median seconds from the end of a call to the end of the next, and the number of calls.
    """
    for _ in range(warm):
        call()
    wait(device)
    marks: list[Any] = []

    def mark() -> None:
        if device == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            marks.append(event)
        else:
            marks.append(time.perf_counter())

    end = time.perf_counter() + seconds
    mark()
    while len(marks) <= least or (len(marks) <= most and time.perf_counter() < end):
        call()
        mark()
        if len(marks) % 8 == 0:
            wait(device)  # the queue must not run ahead of the clock above
    wait(device)
    pairs = itertools.pairwise(marks)
    times = [a.elapsed_time(b) / 1000 if device == "cuda" else b - a for a, b in pairs]
    return statistics.median(times), len(times)


def measure_product(device: str, size: int) -> float:
    """Give the rate of a square bfloat16 product of random factors, in operations a second."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    seconds, _ = median_seconds(lambda: torch.mm(a, b, out=out), device, least=20, seconds=1.0)
    return 2 * size**3 / seconds


def measure_copy(device: str, size: int) -> float:
    """Give the rate of a copy in the device's memory, bytes read and bytes written counted."""
    a = torch.empty(size, device=device, dtype=torch.uint8).random_(0, 256)
    b = torch.empty_like(a)
    seconds, _ = median_seconds(lambda: b.copy_(a), device, least=20, seconds=0.5)
    return 2 * size / seconds


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Give |found - exact| / |exact| in float64; infinity where a value is not finite."""
    wide, other = found.double(), exact.double()
    error = float((wide - other).norm() / other.norm())
    return error if bool(torch.isfinite(wide).all()) else float("inf")


def peak_bytes(device: str) -> dict[str, int]:
    """Give the most memory that torch had in use and had taken, and begin to count anew."""
    if device != "cuda":
        return {}
    found = {
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return found


def count_synchronisations(call: Callable[[], object], device: str, calls: int) -> dict[str, Any]:
    """Count how often the host waits for the device in a call, and where.

    A copy from memory that is not pinned counts, and so does reading a value.

    Returns:
        `main_thread` and `other_threads`, each a call's mean, and `where`: a call's mean by place.
        Nothing where the device does not tell.
    """
    if device != "cuda":
        return {}
    wait(device)
    with _heard() as heard:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(calls):
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    in_main = sum(number for (main, _), number in heard.items() if main)
    return {
        "main_thread": in_main / calls,
        "other_threads": (sum(heard.values()) - in_main) / calls,
        "where": {place: number / calls for (_, place), number in heard.most_common(12)},
    }


@contextlib.contextmanager
def _heard() -> Iterator[Counter[tuple[bool, str]]]:
    """Count torch's warnings of synchronisations by thread and place, and show none of them."""
    heard: Counter[tuple[bool, str]] = Counter()

    def note(message: object, *_args: object, **_more: object) -> None:
        if "called a synchronizing" in str(message):  # and not that telling it is new
            in_main = threading.current_thread() is threading.main_thread()
            heard[in_main, _place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # catch_warnings puts the old one back
        yield heard


def _place() -> str:
    """Name the innermost line of ours, or of a peer's, that is being done."""
    frames = [
        f for f in traceback.extract_stack()
        if Path(f.filename).parent != HERE and not f.filename.endswith("warnings.py")
    ]  # fmt: skip
    ours = [f for f in frames if "/blankfill/" in f.filename or "nanogpt" in f.filename]
    frame = (ours or frames)[-1]
    return f"{frame.filename.rpartition('/blankfill/')[2]}:{frame.lineno} {frame.name}"
