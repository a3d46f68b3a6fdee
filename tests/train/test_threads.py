"""How many threads a run computes with: measured, obeyed where named, measured again when slow."""

import dataclasses

import pytest
import torch

from blankfill.prepare import threads
from blankfill.prepare.threads import ThreadWatch, fastest_threads, settle_threads
from blankfill.prepare.trial import Trial
from blankfill.runs import read_run, write_run
from conftest import run_record
from train.conftest import CFG, same

FREE = CFG.changed({"train.threads": 0})


@pytest.fixture
def machine(monkeypatch):
    """Stand in for a machine: its cores, and how long the rows take on so many threads."""

    def make(seconds):
        cores, now = max(seconds), [max(seconds)]

        def set_threads(wanted):
            now[0] = min(wanted, cores) or cores
            return now[0]

        monkeypatch.setattr(threads, "set_threads", set_threads)
        monkeypatch.setattr(threads, "available_cores", lambda: cores)
        monkeypatch.setattr(threads, "median_seconds", lambda *_, **__: [seconds[now[0]]])
        return now

    return make


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({2: 6.0, 1: 1.0}, 1),  # a busy neighbour: two threads are six times slower than one
        ({2: 1.0, 1: 1.8}, 2),
        ({2: 1.0, 1: 0.9}, 1),
        ({2: 1.0, 1: 0.91}, 2),
        ({8: 8.0, 4: 4.0, 2: 2.0, 1: 1.0}, 1),
        ({8: 8.0, 4: 4.0, 2: 5.0}, 4),  # one is not tried
        ({6: 2.0, 3: 1.0, 1: 5.0}, 3),
        ({1: 1.0}, 1),
    ],
)
def test_fewer_threads_are_taken_where_they_gain_a_tenth(machine, seconds, chosen, model, rows):
    now = machine(seconds)
    trial = Trial(FREE, model, rows)
    assert fastest_threads(trial, torch.float32, max(seconds), kept=None) == chosen
    assert now == [chosen]


@pytest.mark.parametrize(("alone", "chosen"), [(0.5, 1), (0.51, 2), (3.0, 2)])
def test_a_resumed_run_changes_only_where_it_is_twice_as_quick(machine, alone, chosen, model, rows):
    machine({2: 100.0, 1: 100.0 * alone})
    assert settle_threads(FREE, model, rows, before=2) == chosen


def test_a_resumed_run_keeps_a_number_that_is_not_the_best(machine, model, rows):
    machine({4: 100.0, 2: 120.0, 1: 180.0})
    assert settle_threads(FREE, model, rows, before=2) == 2
    assert settle_threads(FREE, model, rows, before=16) == 4


def test_a_number_that_is_named_is_obeyed_and_nothing_is_measured(
    machine, monkeypatch, model, rows
):
    now = machine({2: 100.0, 1: 1.0})
    monkeypatch.setattr(threads, "Trial", None)
    for named in (1, 2):
        cfg = CFG.changed({"train.threads": named})
        assert settle_threads(cfg, model, rows, before=1) == named == now[0]
        assert threads.watch_threads(cfg, None, None, None, named) is None


def test_a_run_of_less_than_a_minute_is_not_measured(machine, model, rows):
    # Twelve steps of four rows, of which two take the given time.
    machine({2: 59.9 / 24, 1: 0.1})
    assert settle_threads(FREE, model, rows) == 2
    machine({2: 60.1 / 24, 1: 0.1})
    assert settle_threads(FREE, model, rows) == 1


class Watched:
    """A run that is watched, on a clock that only its steps move."""

    def __init__(self, run, monkeypatch, model, rows, number):
        self.now, self.step = 0.0, 0
        monkeypatch.setattr(threads.time, "monotonic", lambda: self.now)
        run.mkdir()
        write_run(run, dataclasses.replace(run_record(FREE), threads=number))
        self.watch = ThreadWatch(lambda: Trial(FREE, model, rows), torch.float32, run, number)

    def steps(self, count, seconds):
        """Do steps of so many seconds; tell how often was measured."""
        measured = 0
        for _ in range(count):
            self.step, self.now = self.step + 1, self.now + seconds
            measured += self.watch.after_step(self.step, seconds)
        return measured


@pytest.fixture
def watched(tmp_path, monkeypatch, model, rows):
    return lambda number: Watched(tmp_path / "run", monkeypatch, model, rows, number)


def test_a_rate_that_falls_by_half_is_measured_once_and_recorded(machine, watched, tmp_path):
    now, run = machine({2: 6.0, 1: 1.0}), watched(2)
    assert run.steps(100, 1.0) == 0
    assert run.steps(20, 1.9) == 0
    assert run.steps(8, 6.0) == 1
    assert now == [1]
    record = read_run(tmp_path / "run")
    assert record.threads == 1
    (change,) = record.changes
    assert change.values == {"threads": 1}
    assert 120 < change.step <= 128
    assert run.steps(60, 6.0) == 0  # slow as it is, that is its pace now


def test_one_slow_step_or_a_young_run_is_not_measured(machine, watched):
    machine({2: 6.0, 1: 1.0})
    run = watched(2)
    assert run.steps(20, 0.1) == 0
    assert run.steps(20, 1.0) == 0  # 22 seconds after it began
    assert run.steps(60, 0.1) == 0
    assert run.steps(3, 99.0) == 0


def test_a_run_on_fewer_threads_looks_again_for_a_free_core(machine, watched, tmp_path):
    machine({2: 1.0, 1: 2.0})
    run = watched(1)
    assert run.steps(59, 10.0) == 0
    assert run.steps(1, 10.0) == 1
    assert read_run(tmp_path / "run").threads == 2
    assert run.steps(200, 10.0) == 0


def test_a_full_disk_does_not_end_a_run_that_is_slow(machine, watched, tmp_path, caplog):
    machine({2: 6.0, 1: 1.0})
    run = watched(2)
    run.steps(100, 1.0)
    (tmp_path / "run/run.json").unlink()
    (tmp_path / "run/run.json").mkdir()
    assert run.steps(8, 6.0) == 1
    assert "run.json does not tell of 1 threads" in caplog.text


def test_measuring_between_steps_changes_no_weight(make_trainer, tmp_path):
    cfg = FREE.changed({"model.dropout": 0.1, "train.threads": 1})
    trials = []

    def watch(step, seconds):
        assert seconds > 0
        trial = Trial(cfg, watched.engine.model, lambda n: watched.rows.rows(0, n))
        trial.step(torch.float32)
        trials.append(step)
        return True

    watched = make_trainer(tmp_path / "watched", cfg, watch=watch)
    alone = make_trainer(tmp_path / "alone", cfg)
    assert watched.fit()
    assert alone.fit()
    assert trials == list(range(1, 13))
    assert same(watched, alone)


def test_a_run_records_its_threads(tmp_path, tokenizer_folder):
    from blankfill.api import data_build
    from blankfill.prepare.build import build_trainer

    store = tmp_path / "store"
    data_build([tokenizer_folder.parent / "corpus.txt"], tokenizer=tokenizer_folder, out=store)
    trainer = build_trainer(CFG.changed({"train.steps": 1}), data=[store], run=tmp_path / "run")
    assert trainer.fit()
    assert read_run(tmp_path / "run").threads == 1 == torch.get_num_threads()
