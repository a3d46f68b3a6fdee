"""`scripts/gpu-check` does every part on a CPU, small; what a part found that was ended is kept."""

import argparse
import json
import re
import time
from pathlib import Path

import pytest
import torch
from gpu_check import PARTS, Settings
from gpu_check.attention import _Case
from gpu_check.measure import _heard, median_seconds, relative_error
from gpu_check.record import Record, read_rows
from gpu_check.sharded import TOLERANCES, Pair, _judged, compare, joined_alone
from gpu_check.steps import JOBS, Job, measure
from gpu_check.table import write_report

from blankfill.parallel import ParallelEngine
from blankfill.parallel.places import own
from script_files import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = load_script("gpu-check")


@pytest.fixture
def settings(tmp_path):
    """What `--device cpu --quick --out F` asks for."""
    return SCRIPT.read_arguments(["--device", "cpu", "--quick", "--out", str(tmp_path)])[0]


@pytest.fixture
def fake_part(tmp_path, monkeypatch):
    """A function that makes part b do some lines of Python in its own process."""

    def make(lines):
        monkeypatch.setattr(SCRIPT, "__file__", str(tmp_path / "scripts/gpu-check"))
        script = tmp_path / "scripts/gpu-check"
        script.parent.mkdir()
        head = (
            f"import os, sys, time\nfrom pathlib import Path\n"
            f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
            f"from gpu_check.record import Record\nrecord = Record(Path({str(tmp_path)!r}), 'b')\n"
        )
        script.write_text(head + lines)

    return make


def rows(folder):
    return {row["job"]: row for row in read_rows(folder)}


@pytest.mark.parametrize("way", ["blocks", "dense"])
def test_ways_are_held_to_the_rule(settings, way):
    found = _Case(settings, 128).measure(way)
    assert found["status"] == "passed"
    # Rounding to bfloat16 is seen, and nothing else.
    assert all(1e-4 < error < found["tolerance"] for error in found["errors"].values())


def test_a_wrong_way_fails(settings, monkeypatch):
    from gpu_check import attention

    case = _Case(settings, 128)
    case.measure("dense")
    right = attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, mask: right(q, k, v.roll(1, dims=1), mask)
    )
    found = case.measure("blocks")
    assert found["status"] == "failed"
    assert found["between"]["dense"] > 0.1


def test_a_step_is_timed(settings):
    found = measure(Job("ours", "tiny", 128), settings, 1e12)
    assert found["positions"] == 512
    assert found["positions_per_second"] == pytest.approx(512 / found["seconds"])
    assert 0 < found["mfu_model"] < found["mfu_palm"]
    assert 0.05 < found["target_share"] < 0.6


def test_memory_that_does_not_do_is_halved(settings, monkeypatch):
    from gpu_check import steps

    tried = []

    def give(_job, _settings, _peak, number):
        tried.append(number)
        if number > 1:
            raise torch.OutOfMemoryError("full")
        return {"rows": number}

    monkeypatch.setattr(steps, "_measure", give)
    assert measure(Job("ours", "tiny", 128), settings, 1.0) == {"rows": 1}
    assert tried == [4, 2, 1]


def test_job_names_are_distinct():
    assert len({job.name for job in JOBS}) == len(JOBS)


def test_a_part_that_is_ended_keeps_its_rows(settings, fake_part):
    fake_part(
        "record.add('first', 'passed')\nrecord.add('second', 'started')\n"
        "os.system('sleep 60 &')\ntime.sleep(60)\n"
    )
    begun = time.monotonic()
    SCRIPT.run_part(PARTS["b"], time.time() + 1.5, [], settings)
    assert time.monotonic() - begun < 10
    found = rows(settings.out)
    assert found["first"]["status"] == "passed"
    assert found["second"]["status"] == "failed"
    assert "its time was over" in found["second"]["error"]


def test_a_part_that_died_goes_on_behind_its_job(settings, fake_part):
    fake_part(
        "record.do('first', lambda: {})\n"
        "record.do('second', lambda: os.kill(os.getpid(), 11))\n"
        "record.do('third', lambda: 1 / 0)\nrecord.do('fourth', lambda: {'status': 'passed'})\n"
    )
    SCRIPT.run_part(PARTS["b"], time.time() + 30, [], settings)
    found = rows(settings.out)
    assert [row["status"] for row in found.values()] == ["measured", "failed", "failed", "passed"]
    assert "ended with -11" in found["second"]["error"]
    assert "ZeroDivisionError" in found["third"]["error"]


def test_a_job_that_hangs_is_ended_alone(settings, fake_part):
    fake_part(
        "record.do('first', lambda: time.sleep(60), 0.5)\n"
        "record.do('second', lambda: time.sleep(0.01) or {'status': 'passed'}, 60)\n"
    )
    begun = time.monotonic()
    SCRIPT.run_part(PARTS["b"], time.time() + 50, [], settings)
    assert time.monotonic() - begun < 40
    found = rows(settings.out)
    assert [row["status"] for row in found.values()] == ["failed", "passed"]
    assert "ended with 1" in found["first"]["error"]
    log = (settings.out / "gpu-check.log").read_text()
    assert "in <lambda>" in log  # where it stood


def test_a_part_that_cannot_begin_is_not_tried_for_ever(settings, fake_part):
    fake_part("raise SystemExit(3)\n")
    SCRIPT.run_part(PARTS["b"], time.time() + 60, [], settings)
    assert "ended with 3" in rows(settings.out)["the part"]["error"]


def test_the_report_has_every_row(settings, capsys):
    Record(settings.out, "c").do("one", lambda: 1 / 0)
    assert write_report(settings, 1.0, show="c")
    report = json.loads((settings.out / "gpu-check.json").read_text())
    assert report["failed"] == 1
    assert "ZeroDivisionError" in report["rows"][0]["error"]
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_synchronisations_are_heard_where_they_are():
    import warnings

    with _heard() as heard:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    ((main, place),) = heard
    assert main
    assert "test_gpu_check.py" in place
    assert heard.total() == 3


def test_small_measures():
    seconds, number = median_seconds(lambda: time.sleep(0.002), "cpu", warm=1, least=3, most=3)
    assert number == 3
    assert seconds >= 0.002
    exact = torch.tensor([3.0, 4.0])
    assert relative_error(exact + torch.tensor([0.0, 0.5]), exact) == pytest.approx(0.1)
    assert relative_error(torch.tensor([float("nan"), 4.0]), exact) == float("inf")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--store", "nowhere"], "is not a token store"),
        (["--nanogpt", "nowhere.py"], "is not a file"),
        (["--device", "cuda"], "finds no CUDA device"),
    ],
)
def test_what_cannot_begin_is_said(tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert SCRIPT.main(["--device", "cpu", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--parts", "a,x"], ["--seconds", "a=soon"]])
def test_options_that_mean_nothing_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        SCRIPT.read_arguments(arguments)
    assert ended.value.code == 2
    assert arguments[1][-1] in capsys.readouterr().err


def test_times_are_taken():
    wanted = argparse.Namespace(
        device="cpu", quick=True, parts="c,a", seconds="c=9", store=None, held_out=None,
        nanogpt=None, out=Path("x"), until=0.0, jobs="110M.*compiled",
    )  # fmt: skip
    settings = Settings.of(wanted)
    assert settings.parts == ("c", "a")
    assert settings.seconds["c"] == 9
    assert settings.seconds["a"] == PARTS["a"].seconds
    chosen = [job.name for job in JOBS if re.search(settings.jobs, job.name)]
    assert "110M, rows of 512: nanoGPT, compiled" in chosen
    assert all(name.startswith("110M") and name.endswith("compiled") for name in chosen)
    wanted.jobs = "("
    with pytest.raises(ValueError, match="--jobs '\\('"):
        Settings.of(wanted)


def test_all_parts_fit_into_nine_minutes():
    assert sum(part.seconds for part in PARTS.values()) < 9 * 60


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_sharded_engine_learns_what_the_local_one_does(settings, optimizer):
    with joined_alone("cpu") as ranks:
        found = compare(Pair("tiny", 128, 1.0, optimizer), settings, ranks)
    assert found["status"] == "passed"
    assert found["first_loss_difference"] == 0
    (first, _), *_, (last, _) = found["losses"]
    assert last < first - 0.2
    sharded, local = found["sharded"], found["local"]
    assert found["rate_ratio"] == pytest.approx(local["seconds"] / sharded["seconds"])
    write_report(settings, 1.0, show="e")


def test_an_engine_that_learns_something_else_fails(settings, monkeypatch):
    def forgetful(self, lr):
        parameters = self._kept._parameters
        parameters["norm.weight"].grad = None
        own(parameters["embed.word.weight"].grad).mul_(0.5)
        step(self, lr)

    step = ParallelEngine.step
    monkeypatch.setattr(ParallelEngine, "step", forgetful)
    with joined_alone("cpu") as ranks:
        found = compare(Pair("tiny", 128, 1.0, "adamw"), settings, ranks)
    assert found["status"] == "failed"
    assert "1 weights did not move: norm.weight" in found["error"]


@pytest.mark.parametrize(
    ("what", "value"),
    [("first_loss_difference", 0.001), ("loss_difference", 0.05), ("norm_difference", 0.5),
     ("weights_apart", float("nan"))],
)  # fmt: skip
def test_what_is_apart_is_named(what, value):
    found = dict.fromkeys(TOLERANCES, 0.0) | {"unmoved": []}
    assert _judged(found) == {"status": "passed"}
    told = _judged(found | {what: value})
    assert told["status"] == "failed"
    assert what.replace("_", " ") in told["error"]


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path, tokenizer_folder):
    from blankfill.cli.main import main as blankfill

    text = tmp_path / "text.jsonl"
    lines = ["the old fox reads the town books by the river." * 6, "人山水火木土天地日月书。" * 9]
    text.write_text("\n".join(json.dumps({"text": line}) for line in lines * 60))
    for name in ("store", "held"):
        blankfill(["--quiet", "data", "build", str(text), "--tokenizer", str(tokenizer_folder),
                   "--out", str(tmp_path / name)])  # fmt: skip
    code = SCRIPT.main(["--device", "cpu", "--quick", "--out", str(tmp_path / "out"), "--store",
                        str(tmp_path / "store"), "--held-out", str(tmp_path / "held")])  # fmt: skip
    found = json.loads((tmp_path / "out/gpu-check.json").read_text())
    states = {row["job"]: row["status"] for row in found["rows"]}
    assert code == 0, states
    assert {row["part"] for row in found["rows"]} == set("abcde")
    assert states["pretrain, resumed"] == states["evaluate"] == "passed"
