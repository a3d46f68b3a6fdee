import threading

import pytest
import torch

from blankfill.errors import CheckpointError
from blankfill.runs import RunLock, Saver


def test_a_save_keeps_the_values_of_its_moment():
    saver, go, written = Saver(), threading.Event(), {}
    value = torch.zeros(3)

    def write(copies):
        go.wait(10)
        written.update(copies["model"])

    saver.save({"model": {"a": value}}, write)
    value.fill_(7)
    go.set()
    saver.wait()
    assert torch.equal(written["a"], torch.zeros(3))


def test_a_save_waits_for_the_one_before():
    saver, order = Saver(), []
    for number in range(3):
        saver.save({"model": {"a": torch.ones(1)}}, lambda _, n=number: order.append(n))
    saver.wait()
    assert order == [0, 1, 2]


@pytest.mark.parametrize("hear", ["save", "wait", "check"])
def test_an_error_of_the_thread_is_raised_by_the_next_call_and_once(hear):
    saver = Saver()

    def fail(_):
        raise CheckpointError("full")

    saver.save({}, fail)
    while saver._thread.is_alive():
        pass
    with pytest.raises(CheckpointError, match="full"):
        saver.save({}, fail) if hear == "save" else getattr(saver, hear)()
    saver.wait()


def test_a_check_never_waits():
    saver, go = Saver(), threading.Event()
    saver.save({}, lambda _: go.wait(10))
    saver.check()
    assert saver._thread.is_alive()
    go.set()
    saver.wait()


def test_without_background_a_save_is_done_when_it_returns():
    saver, done = Saver(background=False), []
    saver.save({"model": {"a": torch.ones(1)}}, done.append)
    assert done


def test_two_processes_never_train_in_one_folder(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(CheckpointError, match="another process"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()
