import threading

import pytest
import torch

from blankfill.errors import CheckpointError
from blankfill.runs import RunLock
from blankfill.runs.background import BackgroundWriter


def test_a_save_keeps_the_values_of_its_moment():
    writer, go, written = BackgroundWriter(), threading.Event(), {}
    value = torch.zeros(3)

    def write(copies):
        go.wait(10)
        written.update(copies["model"])

    writer.start({"model": {"a": value}}, write)
    value.fill_(7)
    go.set()
    writer.wait()
    assert torch.equal(written["a"], torch.zeros(3))


def test_a_save_waits_for_the_one_before():
    writer, order = BackgroundWriter(), []
    for number in range(3):
        writer.start({"model": {"a": torch.ones(1)}}, lambda _, n=number: order.append(n))
    writer.wait()
    assert order == [0, 1, 2]


@pytest.mark.parametrize("call", ["start", "wait"])
def test_an_error_of_the_thread_is_raised_by_the_next_call_and_once(call):
    writer = BackgroundWriter()

    def fail(_):
        raise CheckpointError("full")

    writer.start({}, fail)
    while writer._thread.is_alive():
        pass
    with pytest.raises(CheckpointError, match="full"):
        writer.start({}, fail) if call == "start" else writer.wait()
    writer.wait()


def test_an_error_is_known_without_waiting_for_it():
    writer, go = BackgroundWriter(), threading.Event()

    def fail(_):
        go.wait(10)
        raise CheckpointError("full")

    writer.start({}, fail)
    assert not writer.has_failed
    go.set()
    writer._thread.join()
    assert writer.has_failed
    with pytest.raises(CheckpointError, match="full"):
        writer.wait()
    assert not writer.has_failed


def test_without_background_a_save_is_done_when_it_returns():
    writer, done = BackgroundWriter(background=False), []
    writer.start({"model": {"a": torch.ones(1)}}, done.append)
    assert done


def test_two_processes_never_train_in_one_folder(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(CheckpointError, match="another process"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()
