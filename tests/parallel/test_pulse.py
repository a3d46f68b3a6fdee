"""A process that ends, gives no sign or stands still is named, and all others end."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch.distributed as dist

from blankfill.errors import BlankfillError, ConfigError, DataError, NoMemoryError, ProcessLostError
from blankfill.parallel.fault import Fault, Guest, State, read, written
from blankfill.parallel.guests import has_ended, introduce
from blankfill.parallel.lookout import Lookout, Standing, waits_told_to
from blankfill.parallel.meeting import _as_all_know
from blankfill.parallel.pace import Pace
from blankfill.parallel.pulse import Pulse
from blankfill.parallel.refusal import first_refusal, is_refused, wait_until_heard
from blankfill.processes import Alone, speaker_of

TIMEOUT = 3.0  # so that 1.5 s of silence are a loss
CALM = 6.0  # where others have to beat meanwhile, on a machine that is busy


def guests_of(store, count):
    """Introduce this process as each of several, the later ones before process 0 calls."""
    found = {}

    def come(rank):
        found[rank] = introduce(store, rank, count, 30)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(count)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    assert all(guests == found[0][0] for guests, _ in found.values())
    found[count - 1][1].set("seen", "by all")
    assert found[0][1].get("seen") == b"by all"
    return found[0][0]


class Fleet:
    """The heartbeats of several processes, all of them threads of this one."""

    def __init__(self, count, guests=None, timeout=TIMEOUT):
        self.timeout = timeout
        self.store = dist.HashStore()
        self.ended = {}
        guests = guests or [
            replace(guest, machine=f"machine {guest.rank}")  # else one would end all
            for guest in guests_of(self.store, count)
        ]
        self.pulses = [
            Pulse(
                self.store, rank, guests, timeout, lookout=FixedLookout(),
                end=lambda code, rank=rank: self.ended.setdefault(rank, code),
            )
            for rank in range(count)
        ]  # fmt: skip

    def start(self, *silent):
        for pulse in self.pulses:
            if pulse.rank not in silent:
                pulse.start()

    def faults(self, *ranks):
        return [self.pulses[rank].fault(10 * self.timeout) for rank in ranks]

    def leave(self):
        for pulse in self.pulses:
            pulse.leave()


class FixedLookout(Lookout):
    """Sees what it is told to."""

    now = Standing()

    def look(self):
        return 0.0

    def standing(self):
        return self.now


@pytest.fixture
def fleet():
    made = []

    def make(*args, **options):
        made.append(Fleet(*args, **options))
        return made[0]

    yield make
    made[0].leave()


def test_what_processes_tell_one_another_survives_the_store():
    state = State(beat=3, step=None, standing=Standing(waiting=True, where="here", idle_seconds=2))
    fault = Fault(kind="ended", ranks=(2, 3), hosts=("a", "b"), count=4, cause="x", by=1, step=7)
    assert (read(State, written(state)), read(Fault, written(fault))) == (state, fault)


def test_a_process_without_a_beat_is_named_with_its_machine_and_step(fleet):
    run = fleet(4, timeout=CALM)
    run.store.set("blankfill/pulse/2", written(State(beat=9, step=17)))
    run.start(2)
    found = run.faults(0, 1, 3)
    assert found[0] == found[1] == found[2]
    assert (found[0].kind, found[0].ranks, found[0].step) == ("silent", (2,), 17)
    host = run.pulses[0].guests[2].host
    assert found[0].sentence().startswith(f"process 2 of 4 on {host} has given no sign for 3 s")
    assert "at step 17" in found[0].sentence()


def test_all_processes_without_a_beat_are_named_together(fleet):
    run = fleet(8, timeout=CALM)
    run.start(5, 6)
    assert run.faults(0)[0].ranks == (5, 6)


def test_a_process_that_left_is_not_missed(fleet):
    run = fleet(3)
    run.start()
    run.pulses[1].leave()
    assert run.pulses[0].fault(TIMEOUT) is None


def test_a_process_that_was_killed_is_named_at_once(fleet):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    store = dist.HashStore()
    me = guests_of(store, 1)[0]
    with open(f"/proc/{child.pid}/stat") as file:
        began = int(file.read().rpartition(")")[2].split()[19])
    other = Guest(rank=1, host=me.host, machine=me.machine, pid=child.pid, began=began)
    run = fleet(2, [me, other])
    run.pulses[0].start()
    assert run.pulses[0].fault(0.2) is None
    start = time.monotonic()
    child.kill()  # nobody asks for its end, as where its launcher is busy
    fault = run.pulses[0].fault(10)
    assert time.monotonic() - start < TIMEOUT
    assert (fault.kind, fault.ranks) == ("ended", (1,))
    child.wait()
    child.stdin.close()
    assert has_ended(other)
    reused = Guest(rank=1, host=me.host, machine=me.machine, pid=os.getpid(), began=me.began + 1)
    assert has_ended(reused)
    assert not has_ended(me)


def test_a_stopped_process_of_this_machine_is_ended(fleet):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    store = dist.HashStore()
    me = guests_of(store, 1)[0]
    with open(f"/proc/{child.pid}/stat") as file:
        began = int(file.read().rpartition(")")[2].split()[19])
    child.send_signal(signal.SIGSTOP)
    run = fleet(
        2, [me, Guest(rank=1, host=me.host, machine=me.machine, pid=child.pid, began=began)]
    )
    run.pulses[0].start()
    assert run.faults(0)[0].kind == "silent"
    assert child.wait(10) == -signal.SIGKILL
    child.stdin.close()


@pytest.mark.parametrize(
    ("step", "first", "in_step", "idle", "stuck"),
    [
        (9, 3, True, 0.0, True),  # in a step even a process that computes does not get further
        (3, 3, True, 0.0, False),  # the first may compile
        (9, 3, False, 0.0, False),  # it may read a checkpoint
        (9, 3, False, 5.0, True),
        (None, None, False, 5.0, True),
    ],
)
def test_a_process_that_stands_still_while_others_wait_is_named(
    fleet, step, first, in_step, idle, stuck
):
    run = fleet(3)
    waiting = Standing(waiting=True, where="engine.py", still_seconds=5, idle_seconds=5)
    for pulse in run.pulses:
        pulse.lookout.now = waiting
    at = run.pulses[1]
    at.lookout.now = Standing(
        where="rows.py line 7, in rows", still_seconds=5, idle_seconds=idle, in_step=in_step
    )
    at.step, at._first_step = step, first
    run.start()
    if not stuck:
        assert run.pulses[0].fault(TIMEOUT) is None
        return
    found = run.faults(0, 1, 2)
    assert {(f.kind, f.ranks) for f in found} == {("stuck", (1,))}
    assert "hangs: for 5 s it has been at rows.py line 7, in rows" in found[0].sentence()
    until = time.monotonic() + 10 * TIMEOUT
    while len(run.ended) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    assert run.ended == {0: 2, 1: 2, 2: 2}  # those that wait, and the one that hangs


def test_processes_that_all_wait_are_told_so(fleet):
    run = fleet(2)
    for pulse in run.pulses:
        pulse.lookout.now = Standing(waiting=True, still_seconds=5, idle_seconds=5)
    run.start()
    assert run.faults(0)[0].kind == "unreachable"


def test_a_process_that_was_kept_from_its_core_has_not_stood_still():
    seconds = iter([0.0, 0.05, 100.0, 100.05])
    lookout = Lookout(clock=lambda: next(seconds))
    assert [round(lookout.look(), 3) for _ in range(3)] == [0.05, 0.5, 0.05]
    assert lookout.standing().still_seconds < 1


def test_one_process_says_it(fleet, caplog):
    run = fleet(3)
    for pulse in run.pulses:
        pulse.lookout.now = Standing(waiting=True)
    run.start(1)
    with caplog.at_level(logging.ERROR):
        until = time.monotonic() + 10 * TIMEOUT
        while len(run.ended) < 2 and time.monotonic() < until:
            time.sleep(0.02)
    assert run.ended == {0: 2, 2: 2}
    assert len(caplog.records) == 1


def test_a_store_that_is_lost_is_said_once_on_a_machine(fleet):
    run = fleet(3)

    def lost(*_):
        raise dist.DistNetworkError("Connection reset by peer")

    class Lost:
        set = check = get = add = compare_set = lost

    for pulse in run.pulses:
        pulse._store = Lost()
        pulse.guests = [replace(guest, machine="one") for guest in pulse.guests]
    run.start()
    found = run.faults(0, 1, 2)
    assert [f.by for f in found] == [0, 0, 0]
    assert "Connection reset by peer" in found[0].sentence()


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (DataError("b.bin is damaged"), DataError, "at step 4: b.bin is damaged"),
        (OSError(28, "No space left on device", "/x"), Exception, "/x: No space left on device"),
        (MemoryError("no 8 GB"), NoMemoryError, "or fewer texts at a time"),
        (RuntimeError("CUDA out of memory."), NoMemoryError, "or fewer texts at a time"),
    ],
)
def test_an_error_of_one_process_is_said_by_it_alone(fleet, error, kind, said):
    run = fleet(2)
    run.start()
    run.pulses[1].step = 4
    mine = _as_all_know(error, run.pulses[1])
    assert isinstance(mine, kind)
    assert str(mine).startswith("process 1 of 2 on ")
    assert str(mine).endswith(said)
    theirs = _as_all_know(RuntimeError("gloo/transport: Connection closed"), run.pulses[0])
    assert isinstance(theirs, ProcessLostError)
    assert (speaker_of(mine), speaker_of(theirs)) == (1, 1)


def test_a_bug_keeps_its_traceback_and_a_told_process_its_exit_code(fleet):
    run = fleet(2)
    run.start()
    bug = KeyError("x")
    run.pulses[0].step = 4
    assert _as_all_know(bug, run.pulses[0]) is bug
    host = run.pulses[0].guests[0].host
    assert bug.__notes__ == [f"process 0 of 2 on {host}, at step 4: KeyError: 'x'"]
    assert run.pulses[1].fault(5).cause == "KeyError: 'x'"
    assert isinstance(_as_all_know(SystemExit(143), run.pulses[1]), ProcessLostError)


def test_a_process_that_is_told_to_end_says_so(fleet):
    run = fleet(2)
    run.start()
    told = SystemExit(128 + signal.SIGTERM)
    assert _as_all_know(told, run.pulses[1]) is told
    assert run.pulses[0].fault(5).sentence().endswith("it was told to end (SIGTERM)")


def test_processes_that_are_started_anew_do_not_take_the_old_ones_for_their_own(monkeypatch):
    store = dist.HashStore()
    before = guests_of(store, 3)
    monkeypatch.setattr("blankfill.parallel.guests.began_at", lambda _: 1)  # another process
    assert guests_of(store, 3) != before
    monkeypatch.setattr("blankfill.parallel.guests.began_at", lambda _: 2)
    with pytest.raises(ConfigError, match="numbers 0 have not come"):  # nobody has called it
        introduce(store, 1, 3, 0.2)


def test_a_process_that_does_not_come_is_named():
    with pytest.raises(ConfigError, match="those with the numbers 1, 2 have not come within 0 s"):
        introduce(dist.HashStore(), 0, 3, 0.05)


def test_many_processes_are_named_in_a_sentence_that_can_be_read():
    def fault(count, cause):
        ranks = tuple(range(1, count + 1))
        hosts = tuple(f"node-{rank}" for rank in ranks)
        return Fault(
            kind="silent", ranks=ranks, hosts=hosts, count=768, cause=cause, by=0, step=4
        ).sentence()

    assert fault(1, "has ended").startswith("process 1 of 768 on node-1 has ended at step 4; ")
    assert fault(2, "has ended").startswith(
        "processes 1 on node-1 and 2 on node-2 of 768 have ended at step 4; "
    )
    assert fault(2, "hangs: for 3 s").startswith("processes 1 on node-1 and 2 on node-2 of 768 han")
    said = fault(40, "has ended")
    assert "8 on node-8 and 32 more of 768 have ended" in said
    assert "node-9" not in said


def introduced_with(store, count, refusing, seconds=30):
    """Let processes wait for one that refuses to begin; tell what ends each of them."""
    found = {}

    def come(rank):
        try:
            introduce(store, rank, count, seconds)
        except BlankfillError as error:
            found[rank] = error

    threads = [
        threading.Thread(target=come, args=(rank,)) for rank in range(count) if rank != refusing
    ]
    for thread in threads:
        thread.start()
    return threads, found


def test_processes_that_wait_for_one_that_refuses_to_begin_end_with_its_sentence():
    store = dist.HashStore()
    threads, found = introduced_with(store, 4, 2)
    begun = time.monotonic()
    refusal = first_refusal(store, 2, "process 2 of 4 on a: there is no option --x")
    assert first_refusal(store, 2, "something else") == refusal  # the first one stands
    wait_until_heard(store, 2, 4)
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 10  # all have heard it
    assert set(found) == {0, 1, 3}
    said = {(str(error), speaker_of(error)) for error in found.values()}
    assert said == {("process 2 of 4 on a: there is no option --x", 2)}


def test_what_was_refused_before_all_were_started_again_is_forgotten(monkeypatch):
    store = dist.HashStore()
    first_refusal(store, 1, "of before")
    assert is_refused(store)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not is_refused(store)
    assert guests_of(store, 3)


def test_of_processes_that_wait_for_others_in_vain_one_speaks():
    threads, found = introduced_with(dist.HashStore(), 4, 2, seconds=1)
    for thread in threads:
        thread.join()
    assert {str(error) for error in found.values()} == {
        "of 4 processes those with the numbers 2 have not come within 1 s; see what they say, or "
        "give them longer with --parallel.timeout-seconds"
    }
    assert len({speaker_of(error) for error in found.values()}) == 1
    assert speaker_of(found[0]) in found


def test_a_store_that_ends_while_processes_meet_is_a_sentence(monkeypatch):
    class Lost:
        def check(self, keys):
            raise dist.DistNetworkError("Connection reset by peer")

        set = check

    for name, value in (("RANK", 5), ("LOCAL_RANK", 1), ("WORLD_SIZE", 8), ("LOCAL_WORLD_SIZE", 4)):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(
        ConfigError, match=r"in which 8 processes meet has ended.*reset by"
    ) as found:
        introduce(Lost(), 5, 8, 1)
    assert speaker_of(found.value) == 4  # the first of its machine


def test_the_lookout_tells_work_from_waiting():
    seconds = iter(range(100))
    lookout = Lookout(clock=lambda: next(seconds))  # each time that it is asked, a second has gone
    lookout.mark(in_step=True)
    with lookout.waits():
        assert lookout.standing().waiting
    assert not lookout.standing().waiting
    assert lookout.own_seconds() == (2, 1)
    lookout.pause()
    with lookout.waits():  # between steps
        pass
    assert lookout.own_seconds() == (3, 1)
    lookout.forget()
    assert lookout.own_seconds() == (0, 0)


def test_a_thread_that_stands_still_is_found_with_its_place():
    lookout = Lookout(long_seconds=0.1)
    found = []

    def look():
        for _ in range(10):
            lookout.look()
            time.sleep(0.05)
        found.append(lookout.standing())

    thread = threading.Thread(target=look)
    thread.start()
    introduced = dist.HashStore()
    with pytest.raises(ConfigError):  # it waits in code of ours
        introduce(introduced, 0, 2, 1.0)
    thread.join()
    assert found[0].still_seconds > 0.3
    assert "parallel/guests.py line" in found[0].where
    assert found[0].where.endswith("in _introduce")


def test_a_process_that_waits_for_its_own_save_waits_for_others():
    lookout = Lookout()
    saving = lookout.waits()
    thread = threading.Thread(target=saving.__enter__)
    thread.start()
    thread.join()
    assert not lookout.standing().waiting  # it may compute meanwhile
    lookout._looked, lookout._busy = 100.0, 90.0
    assert lookout.standing().waiting
    saving.__exit__(None, None, None)


def test_every_wait_of_torch_is_told(crew):
    assert crew.run(count_waits, 2) == [True, True]


def count_waits():
    """Wait for the other rank by each kind of call; tell whether each was noted."""
    import torch

    told = []

    class Noting(Lookout):
        def waits(self):
            told.append(1)
            return super().waits()

    tensor, group = torch.ones(4), dist.new_group(backend="gloo")
    with waits_told_to(Noting()):
        for call in (
            lambda: dist.all_reduce(tensor),
            lambda: dist.broadcast_object_list([1], src=0, group=group),
            lambda: dist.all_gather_object([None, None], 1, group=group),
            lambda: dist.all_gather_into_tensor(torch.empty(8), tensor, async_op=True).wait(),
        ):
            before = len(told)
            call()
            if len(told) == before:
                return False
    dist.all_reduce(tensor)
    return len(told) < 20


class FourProcesses(Alone):
    def __init__(self, of_all):
        self.count, self.of_all = 4, of_all

    def gather(self, items):
        return self.of_all


class FixedSeconds(Lookout):
    def own_seconds(self):
        return 6.0, 1.0


def test_a_slow_process_is_named_with_its_step_time_once(caplog):
    ranks = FourProcesses([(6.0, 1.0, 10), (6.1, 1.0, 10), (5.9, 1.0, 10), (9.0, 0.0, 10)])
    pace = Pace(ranks, FixedSeconds())
    with caplog.at_level(logging.INFO):
        first = pace.read(10)
        pace.read(20)
        pace.read(30)
        ranks.of_all = [(6.0, 1.0, 10)] * 4
        pace.read(40)
        ranks.of_all = [(2.0, 1.0, 3)] * 4  # too little to judge
        assert pace.read(50) == {}
    assert first == {
        "process_seconds_median": 0.6, "process_seconds_max": 0.9, "slowest_process": 3.0
    }  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == [
        "step 20: the others wait: in a step process 3 of 4 works 0.9 s, the median process 0.6 s",
        "step 40: no process is slow any more: 0.6 s in a step",
    ]
