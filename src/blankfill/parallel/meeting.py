"""Meeting the other processes of a run, and parting from them: whatever ends one, one says so."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from blankfill.config.parallel import ParallelConfig
from blankfill.config.train import DeviceKind
from blankfill.engine.device import choose_device
from blankfill.errors import ConfigError, ProcessLostError, TrainingError, for_people
from blankfill.parallel.fault import Fault
from blankfill.parallel.guests import introduce, meet, own_connection, store_is_launchers
from blankfill.parallel.lookout import waits_told_to
from blankfill.parallel.pulse import Pulse
from blankfill.parallel.ranks import Ranks
from blankfill.processes import deaf, settle_speaker, speaker_of, this_place

__all__ = ["joined"]

OLDEST_TORCH = (2, 13)
"""Before it a weight that two groups of FSDP2 share was not trained on the last rank
(pytorch#176076)."""
LOST = ("gloo/transport", "Connection closed", "Connection reset", "Broken pipe")
"""What torch says where the connection to another process is lost."""
COMING = 5
"""Times the time-out for which processes wait for one another at the start: they are not started
all at once, and load torch from disks of different speed."""
BEATS_OF_PATIENCE = 10
"""For which a process that has lost another waits until it is known which one."""


@contextmanager
def joined(layout: ParallelConfig, wanted: DeviceKind) -> Generator[Ranks]:
    """Meet the other processes that were started, until the block ends.

    Args:
        layout: of the processes.
        wanted: device; of several GPUs of a machine each process has one.

    Raises:
        ConfigError: they cannot be reached, there is no device for this one, or torch is too old.
        ProcessLostError: another process has ended, hangs, or cannot go on.
    """
    _require_torch()
    device = _own_device(choose_device(wanted))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    coming_seconds = COMING * layout.timeout_seconds
    store, rank, count = meet(coming_seconds)
    guests, fresh = introduce(store, rank, count, coming_seconds)
    own = dist.PrefixStore("pulse", fresh)
    own.set_timeout(timedelta(seconds=layout.timeout_seconds))
    pulse = Pulse(
        own, rank, guests, layout.timeout_seconds,
        hosts_store=not store_is_launchers(),
    )  # fmt: skip
    pulse.start()
    ending = contextlib.ExitStack()
    waits = contextlib.ExitStack()
    waits.enter_context(waits_told_to(pulse.lookout))
    try:
        dist.init_process_group(backend, store=own_connection(fresh), rank=rank, world_size=count)
        yield Ranks(layout, device, pulse)
    except BaseException as error:
        ending.enter_context(deaf())
        if isinstance(error, TrainingError):  # the guards' verdict is that of all
            settle_speaker(error, 0)
        if speaker_of(error) is not None:
            raise
        told = _as_all_know(error, pulse)
        if told is error:
            raise
        raise told from error
    finally:
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):  # of a connection that is lost
                dist.destroy_process_group()
        pulse.leave()
        waits.close()
        ending.close()


def _as_all_know(error: BaseException, pulse: Pulse) -> BaseException:
    """Give the error that a process ends with, once all know what ended the run.

    The process that is at fault says it itself, or the one that saw it first; others are silent.
    """
    known = pulse.fault()
    if isinstance(error, RuntimeError) and _says_lost(error):
        known = pulse.fault(BEATS_OF_PATIENCE * pulse.beat_seconds) or pulse.blame_nobody(
            "has lost the connection to another process"
        )
    elif isinstance(error, KeyboardInterrupt | SystemExit):
        # The launcher ends all where one has ended; which one it was is known in a moment.
        known = pulse.fault(2 * pulse.beat_seconds) or pulse.blame_self(_how_told(error))
        if pulse.rank in known.ranks:
            settle_speaker(error, pulse.rank)
            return error
    elif known is None:
        known = pulse.blame_self(_cause(error))
    if known.kind == "error" and known.by == pulse.rank:
        settle_speaker(error, pulse.rank)
        return _placed(error, known)
    lost = ProcessLostError(known.sentence())
    settle_speaker(lost, known.by)
    return lost


def _cause(error: BaseException) -> str:
    """Say what an error of this process alone is."""
    return str(for_people(error) or f"{type(error).__name__}: {error}")


def _placed(error: BaseException, fault: Fault) -> BaseException:
    """Add to what people see of an error the process, its machine and its step."""
    said = for_people(error)
    if said is None:
        error.add_note(fault.sentence())  # below the traceback
        return error
    placed = type(said)(fault.sentence())
    settle_speaker(placed, fault.by)
    return placed


def _how_told(error: BaseException) -> str:
    """Say of a process that was told to end, how."""
    if isinstance(error, KeyboardInterrupt):
        return "it was stopped (Ctrl-C)"
    code = error.code if isinstance(error, SystemExit) else None
    number = code - 128 if isinstance(code, int) else 0
    names = {int(s): s.name for s in signal.Signals}
    return f"it was told to end ({names[number]})" if number in names else "it was told to end"


def _require_torch() -> None:
    """Check that this torch trains every weight.

    Raises:
        ConfigError: it is older than the first that does.
    """
    major, minor = (int(word) for word in torch.__version__.split(".")[:2])
    if (major, minor) < OLDEST_TORCH:
        raise ConfigError(
            f"several processes need torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer, and this "
            f"is {torch.__version__}; install it, or train in one process"
        )


def _own_device(device: torch.device) -> torch.device:
    """Give this process the GPU of its number on this machine.

    Raises:
        ConfigError: there are fewer.
    """
    if device.type != "cuda":
        return device
    number, there = this_place().local_rank, torch.cuda.device_count()
    if number >= there:
        raise ConfigError(
            f"process {number + 1} of this machine has no GPU: there are {there}; take "
            f"--nproc-per-node {there}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _says_lost(error: RuntimeError) -> bool:
    """Tell whether an error is of the connection to another process."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in LOST)
