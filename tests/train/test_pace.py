"""Minutes in place of steps."""

import contextlib
from types import SimpleNamespace

import pytest

from blankfill.api.data import data_build
from blankfill.api.pretrain import pretrain
from blankfill.errors import ConfigError
from blankfill.prepare import pace
from blankfill.prepare.compiling import BreakEven
from blankfill.prepare.pace import Pace, measure_pace, with_steps
from blankfill.runs import read_run
from conftest import small_corpus
from train.conftest import CFG


class Clock:
    """A clock that only work moves."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


class FakeTrainer:
    """Its first steps are slow, one later step is an outlier."""

    def __init__(self, cfg, clock, seconds=0.5):
        self.cfg, self.clock, self.seconds, self.steps = cfg, clock, seconds, 0
        self.engine = SimpleNamespace(model=None, dtype=None, attention=None)

    def open_loader(self):
        return contextlib.nullcontext()

    def step(self, loader):
        self.steps += 1
        slow = self.steps <= pace.WARM_STEPS or self.steps == 8
        self.clock.now += 18 * self.seconds if slow else self.seconds

    def validate(self):
        self.clock.now += 4.0


def test_the_pace_is_the_median_of_warm_steps_and_leaves_no_trace(clock, tmp_path):
    built = []

    def build(cfg, folder):
        folder.mkdir()
        built.append((cfg.train, folder))
        return FakeTrainer(cfg, clock)

    cfg = CFG.changed({"train.compile": "on", "train.ramp_from_rows": 2, "train.ramp_rows": 20})
    found = measure_pace(cfg, build, tmp_path / "run")
    assert found == Pace(step_seconds=0.5, validation_seconds=4.0)
    ((train, folder),) = built
    assert folder != tmp_path / "run"
    assert not list(tmp_path.iterdir())
    assert train.compile == "off"
    assert train.rows_at(0) == train.batch_rows  # the pace is that of full batches


@pytest.mark.parametrize(("seconds", "timed"), [(1 / 64, 12), (1.0, 4), (10.0, 4)])
def test_slow_steps_are_timed_less_often(seconds, timed, clock, tmp_path):
    made = []

    def build(cfg, folder):
        made.append(FakeTrainer(cfg, clock, seconds))
        return made[0]

    assert measure_pace(CFG, build, tmp_path / "run").step_seconds == seconds
    assert made[0].steps == pace.WARM_STEPS + timed


@pytest.mark.parametrize(
    ("seconds", "earned_back", "expected"),
    [
        (104.0, 80, Pace(step_seconds=0.375, validation_seconds=4.0, compile_seconds=10.0)),
        (34.0, 80, Pace(step_seconds=0.5, validation_seconds=4.0)),
        (104.0, None, Pace(step_seconds=0.5, validation_seconds=4.0)),
        (0.0, 1, Pace(step_seconds=0.5, validation_seconds=4.0)),
    ],
)
def test_the_pace_of_a_run_that_will_be_compiled(
    seconds, earned_back, expected, clock, tmp_path, monkeypatch
):
    def measure(*_, steps):
        assert steps == int((seconds - 8) / 0.5)
        if earned_back is None:
            return "too short"
        return BreakEven(
            plain_seconds=0.125, compiled_seconds=0.125 - 10 / earned_back, compile_seconds=10.0,
            calls=1,
        )  # fmt: skip

    monkeypatch.setattr(pace, "measure_break_even", measure)
    found = measure_pace(
        CFG, lambda cfg, _: FakeTrainer(cfg, clock), tmp_path / "run", seconds=seconds
    )
    assert found == expected
    left = 104 - found.compile_seconds - 2 * found.validation_seconds
    assert found.steps_in(104) == int(left / found.step_seconds)


def test_a_trial_that_fails_leaves_no_trace(tmp_path):
    def build(cfg, folder):
        folder.mkdir()
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        measure_pace(CFG, build, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "every", "steps"), [(100, 0, 184), (100, 10, 102), (8.4, 0, 0), (1, 0, 0)]
)
def test_steps_and_validations_fit_into_the_time(seconds, every, steps):
    found = Pace(step_seconds=0.5, validation_seconds=4.0)
    assert found.steps_in(seconds, every) == steps
    spent = 2 * 4.0 + steps * 0.5 + (steps // every * 4.0 if every else 0)
    left = seconds - spent
    assert not steps or 0 <= left < 0.5 + (4.0 if every else 0)


def test_warm_up_takes_a_tenth_at_most():
    cfg = CFG.changed({"schedule.warmup_steps": 100})
    assert with_steps(cfg, 50).schedule.warmup_steps == 5
    assert with_steps(cfg, 5000) == cfg.changed({"train.steps": 5000})


def test_a_run_is_given_minutes_and_keeps_its_steps(tmp_path, tokenizer_folder, monkeypatch):
    (tmp_path / "text.txt").write_text("\n\n".join(small_corpus(60, 0)), encoding="utf-8")
    data_build([tmp_path / "text.txt"], tokenizer=tokenizer_folder, out=tmp_path / "store")
    monkeypatch.setattr(
        pace, "measure_pace", lambda *_, **__: Pace(step_seconds=1.0, validation_seconds=0.0)
    )
    words = {
        "data": [tmp_path / "store"], "out": tmp_path / "run",
        "config": CFG.changed({"model.vocab_size": 512, "train.steps": 10**9}),
    }  # fmt: skip
    assert pretrain("tiny", minutes=0.1, **words).step == 6
    monkeypatch.setattr(pace, "measure_pace", None)  # a resumed run is not measured again
    result = pretrain("tiny", minutes=99, resume=True, **words)
    assert (result.step, result.steps) == (6, 6)
    assert read_run(tmp_path / "run").config.schedule.warmup_steps == 0


@pytest.mark.parametrize(
    ("minutes", "said"), [(-1, "must be 0, or a number"), (0.001, "give it more")]
)
def test_minutes_that_make_no_step_are_one_sentence(
    tmp_path, tokenizer_folder, monkeypatch, minutes, said
):
    monkeypatch.setattr(
        pace, "measure_pace", lambda *_, **__: Pace(step_seconds=1.0, validation_seconds=0.0)
    )
    with pytest.raises(ConfigError, match=said):
        pretrain("tiny", data=[tmp_path], out=tmp_path / "run", minutes=minutes)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_a_run_is_refused_before_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "measure_pace", None)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="already holds a run"):
        pretrain("tiny", data=[tmp_path], out=tmp_path, minutes=1)
