"""Settings of the process, which are changed only where the user asks: on the command line, which
owns its process, and in Python by `blankfill.tune()`.

Measured on small models (two cores, bfloat16): glibc gives each large tensor back to the kernel and
takes it again, so page faults dominate; and OpenMP threads that spin keep a neighbour's core busy
while threads that sleep at once wake too late. Three settings remove most of both; they must stand
before torch is loaded. All of them are kept from anyone who has chosen their own, and
`BLANKFILL_TUNE=0` turns them off.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range

__all__ = [
    "at_most_cores",
    "available_cores",
    "cache_folder",
    "cpu_name",
    "memory_bytes",
    "native_wanted",
    "process_settings",
    "restored_process",
    "set_threads",
    "tune",
]

log = logging.getLogger(__name__)

# Parameter numbers of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_SPIN_COUNT = "10000"
"""OpenMP spins this often before it sleeps: costs 5 % alone, gains 2 x beside a busy neighbour."""
_ONEDNN_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")
"""What tells oneDNN how many products it keeps the machine code of."""
_ONEDNN_CACHE = "64"
"""Each step has another number of
targets, so most products of bfloat16 have a shape of their own, which never comes again: of 1,024,
as oneDNN keeps, `small` held 5.1 GB after 25 steps, of 64 3.6 GB, in no more time a step."""


def available_cores() -> int:
    """Count the cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def at_most_cores(wanted: int, name: str) -> int:
    """Give so many threads or processes, but no more than cores; 0 is one for each core.

    Args:
        wanted: the user's number.
        name: of its option, for the log.
    """
    cores = available_cores()
    if wanted > cores:
        log.info("%s=%d is more than the %d cores that this process may use; %d it is",
                    name, wanted, cores, cores)  # fmt: skip
    return min(wanted, cores) or cores


def set_threads(wanted: int) -> int:
    """Let torch use `wanted` CPU threads, or every core that this process may use when it is 0.

    More threads than cores are only slower, and thousands of them end the process.
    """
    import torch  # what else is here is asked for before torch is loaded

    threads = at_most_cores(wanted, "train.threads")
    torch.set_num_threads(threads)
    return threads


@contextmanager
def restored_process() -> Generator[None]:
    """Leave torch's number of threads and its random numbers as they were found.

    Training sets both: they are part of what makes a run the same every time.
    """
    import torch

    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)


def memory_bytes() -> int:
    """Tell how much memory this process may use, swap included; 0 where that is not known."""
    try:
        known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total = sum(int(known[name].split()[0]) for name in ("MemTotal", "SwapTotal")) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return 0
    try:  # a container's limit, of memory alone
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def cpu_name() -> str:
    """Name the processor as it names itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or os.uname().machine


def cache_folder() -> Path:
    """Where what can be made again is kept: `$XDG_CACHE_HOME/blankfill`, or under `~/.cache`.

    Raises:
        OSError: there is neither, as for a container's user without a name.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "blankfill"
    try:
        return Path.home() / ".cache" / "blankfill"
    except RuntimeError as error:
        raise OSError("no home folder to keep it in; set XDG_CACHE_HOME") from error


def native_wanted() -> bool:
    """Tell whether compiled forms of our operators may be used; `BLANKFILL_NATIVE=0` says no."""
    return os.environ.get("BLANKFILL_NATIVE") != "0"


@checks_arguments
def tune(*, threads: Annotated[int, Range(0, 1024)] | None = None) -> list[str]:
    """Set the process's memory and thread-waiting policy, once, before the first tensor.

    The command line does this whenever it starts to compute. It changes the whole process: the
    C library's malloc keeps what is freed, OpenMP's threads sleep sooner, and oneDNN keeps less.

    Example:
        import blankfill
        blankfill.tune(threads=1)  # before anything imports torch

    Args:
        threads: CPU threads that torch uses, at most one for each core; 0 is one for each core.
            Left as it is where not given. This alone also works when torch is loaded.

    Returns:
        What was chosen, in words; empty where nothing was, because torch is already loaded, the
        user said `BLANKFILL_TUNE=0`, or the C library is not glibc.

    Raises:
        ConfigError: threads is negative, or no whole number.
    """
    chosen = _tuned()
    if threads is not None:
        chosen.append(f"{set_threads(threads)} threads")
    return chosen


def _tuned() -> list[str]:
    """Choose what must stand before torch is loaded."""
    if os.environ.get("BLANKFILL_TUNE") == "0" or "torch" in sys.modules:
        return []
    chosen: list[str] = []
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
        chosen.append(f"OpenMP spin count {_SPIN_COUNT}")
    if not any(name in os.environ for name in _ONEDNN_CACHES):
        os.environ[_ONEDNN_CACHES[0]] = _ONEDNN_CACHE
        chosen.append(f"{_ONEDNN_CACHE} products of oneDNN kept")
    if not any(name.startswith("MALLOC_") for name in os.environ) and _keep_freed_memory():
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        chosen.append("freed memory kept, huge pages")
    return chosen


def process_settings() -> dict[str, str]:
    """Give what memory, threads and blankfill were told by the environment.

    What `tune` chose is among it: the spin count, and `THP_MEM_ALLOC_ENABLE`, which it sets where
    malloc keeps what is freed.
    """
    about = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "THP_MEM_", "ONEDNN_", "DNNL_",
             "BLANKFILL_", "LD_PRELOAD")  # fmt: skip
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(about)}


def _keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of unmapping them."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    results = [
        mallopt(_M_MMAP_MAX, 0),
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
        mallopt(_M_TOP_PAD, 256 * 2**20),
        mallopt(_M_ARENA_MAX, 1),
    ]
    return all(results)
