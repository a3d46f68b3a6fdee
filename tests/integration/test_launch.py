"""`scripts/launch-slurm` and `scripts/launch-ssh` start a torchrun on each machine, and end it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import small_corpus

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = ["pretrain", "small", "--data", "a store", "--out", "it's", "--resume"]
SSH = """\
import os, sys, time
*options, host, command = sys.argv[1:]
assert options[0] == "-o"
if host == "away":
    while not os.path.exists(os.environ["TOLD"] + "/one.json"):
        time.sleep(0.02)
    print("ssh: no route", file=sys.stderr)
    raise SystemExit(255)
os.environ["HOST"] = host
os.execvp("sh", ["sh", "-c", command])
"""
SRUN = """\
import json, os, sys
words = sys.argv[1:]
options = [word for word in words if word.startswith("--")][:5]
json.dump(words, open(os.environ["TOLD"] + "/srun.json", "w"))
"""
SCONTROL = """\
import sys
assert sys.argv[1:] == ["show", "hostnames", "node[07-08]"]
print("node07\\nnode08")
"""
PYTHON = """\
import json, os, signal, sys, time
from pathlib import Path
host, words = os.environ["HOST"], sys.argv[1:]
told = Path(os.environ["TOLD"])
def end(number, _frame):
    (told / f"{host}.ended").write_text(signal.Signals(number).name)
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
about = {"words": words, "folder": os.getcwd(), "colour": os.environ.get("COLOUR")}
(told / f"{host}.tmp").write_text(json.dumps(about))
(told / f"{host}.tmp").rename(told / f"{host}.json")
how = os.environ.get("HOW_" + host, "0")
while how == "wait" or (how != "0" and not (told / "one.json").exists()):
    time.sleep(0.02)
sys.exit(int(how))
"""


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """Programs that stand in for those of a cluster; what they are told lies in `told`."""
    folder, told = tmp_path / "bin", tmp_path / "told"
    folder.mkdir()
    told.mkdir()
    fakes = {"ssh": SSH, "srun": SRUN, "scontrol": SCONTROL, "fakepython": PYTHON}
    for name, lines in fakes.items():
        (folder / name).write_text(f"#!{sys.executable}\n{lines}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(told))
    monkeypatch.chdir(tmp_path)
    for name in ("PROCESSES", "PORT", "RESTARTS", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return folder


def told(name):
    return json.loads((Path("told") / f"{name}.json").read_text())


def value_of(words, option):
    return words[words.index(option) + 1]


def launch_ssh(*arguments):
    return [sys.executable, str(SCRIPTS / "launch-ssh"), *arguments]


def by_ssh(*arguments):
    return subprocess.run(launch_ssh(*arguments), capture_output=True, text=True, check=False)


def start(hosts, monkeypatch, **how):
    """Start two machines; `how` each ends."""
    for host, code in how.items():
        monkeypatch.setenv(f"HOW_{host}", code)
    process = subprocess.Popen(
        launch_ssh("--hosts", hosts, "--python", "fakepython", "--", *WORDS),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    waiting = [Path("told") / f"{host}.json" for host, code in how.items() if code == "wait"]
    end = time.monotonic() + 60
    while not all(path.exists() for path in waiting):
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def test_every_machine_is_told_its_place(bin_folder):
    done = by_ssh("--hosts", "me@first,second", "--processes", "8", "--port", "1234", "--set",
                  "COLOUR=dark red", "--python", "fakepython", "--", *WORDS)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    first, second = told("me@first"), told("second")
    for found in (first, second):
        words = found["words"]
        assert words[:2] == ["-m", "torch.distributed.run"]
        assert words[words.index("blankfill") - 1 :] == ["-m", "blankfill", *WORDS]
        assert value_of(words, "--nnodes") == "2"
        assert value_of(words, "--nproc-per-node") == "8"
        assert value_of(words, "--rdzv-endpoint") == "first:1234"
        assert Path(found["folder"]) == Path.cwd()
        assert found["colour"] == "dark red"
    assert value_of(first["words"], "--rdzv-conf") == "is_host=true"
    assert value_of(second["words"], "--rdzv-conf") == "is_host=false"
    assert value_of(first["words"], "--local-addr") == "first"
    assert value_of(second["words"], "--local-addr") == "second"
    assert value_of(first["words"], "--rdzv-id") == value_of(second["words"], "--rdzv-id")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_ends_every_machine_in_order(bin_folder, monkeypatch, number):
    process = start("one,two", monkeypatch, one="wait", two="wait")
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "")
    assert [Path(f"told/{host}.ended").read_text() for host in ("one", "two")] == ["SIGTERM"] * 2


def test_machines_end_when_the_launcher_is_killed(bin_folder, monkeypatch):
    process = start("one,two", monkeypatch, one="wait", two="wait")
    process.kill()
    process.communicate()
    ended = [Path(f"told/{host}.ended") for host in ("one", "two")]
    end = time.monotonic() + 60
    while not all(path.exists() and path.read_text() == "SIGTERM" for path in ended):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("hosts", "code", "says"),
    [("one,two", "3", "two ended with 3"), ("one,away", "0", "away cannot be reached")],
)
def test_where_one_machine_fails_the_others_are_ended(bin_folder, monkeypatch, hosts, code, says):
    process = start(hosts, monkeypatch, one="wait", two=code)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (3 if code == "3" else 1)
    assert f"launch-ssh: {says}" in said
    assert said.count("launch-ssh") == 1
    assert Path("told/one.ended").read_text() == "SIGTERM"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hosts", "one,two"], "name what to train after --"),
        (["--hosts", "one,one", "--", "pretrain"], "--hosts has 2 names, 1 of them different"),
        (["--hosts", ",", "--", "pretrain"], "--hosts has 0 names"),
        (["--hosts", "one", "--processes", "0", "--", "pretrain"], "--processes 0"),
        (["--hosts", "one", "--set", "COLOUR", "--", "pretrain"], "--set COLOUR is not NAME=VALUE"),
        (["--hosts", "one", "--restarts", "2", "--", "pretrain"], "add --resume"),
    ],
)
def test_what_ssh_cannot_begin_is_one_sentence(bin_folder, arguments, says):
    done = by_ssh(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(Path("told").iterdir())


def test_no_ssh_is_one_sentence(bin_folder, monkeypatch):
    monkeypatch.setenv("PATH", str(bin_folder.parent))
    done = by_ssh("--hosts", "one", "--", "pretrain")
    assert done.returncode == 2
    assert "there is no ssh on the PATH" in done.stderr


JOB = {
    "SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "node[07-08]", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "96",
}  # fmt: skip


def by_slurm(*words, **environment):
    return subprocess.run(
        [SCRIPTS / "launch-slurm", *words], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_slurm_starts_a_launcher_on_each_node(bin_folder):
    done = by_slurm(*WORDS, **JOB)
    assert (done.returncode, done.stderr) == (0, "")
    words = told("srun")
    assert words[:5] == ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1",
                         "--cpus-per-task=96"]  # fmt: skip
    assert words[5:8] == ["python", "-m", "torch.distributed.run"]
    assert value_of(words, "--nnodes") == "2"
    assert value_of(words, "--nproc-per-node") == "8"
    assert value_of(words, "--rdzv-endpoint") == "node07:21234"
    assert value_of(words, "--rdzv-id") == "41234"
    assert words[words.index("blankfill") - 1 :] == ["-m", "blankfill", *WORDS]


def test_slurm_takes_what_the_environment_says(bin_folder):
    job = {name: value for name, value in JOB.items() if name != "SLURM_CPUS_PER_TASK"}
    given = {"PROCESSES": "4", "PORT": "777", "RESTARTS": "2", "PYTHON": "/opt/python"}
    done = by_slurm(*WORDS, **job, **given)
    assert (done.returncode, done.stderr) == (0, "")
    words = told("srun")
    assert words[4] == "/opt/python"
    assert value_of(words, "--nproc-per-node") == "4"
    assert value_of(words, "--max-restarts") == "2"
    assert value_of(words, "--rdzv-endpoint") == "node07:777"


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (WORDS, {}, "this is no job of Slurm; submit it: sbatch"),
        ([], JOB, "name what to train"),
        (WORDS, {**JOB, "PROCESSES": "two"}, "PROCESSES=two is not a number"),
        (WORDS, {**JOB, "PROCESSES": "0"}, "PROCESSES=0 starts nothing"),
        (WORDS[:-1], {**JOB, "RESTARTS": "1"}, "add --resume"),
    ],
)
def test_what_slurm_cannot_begin_is_one_sentence(bin_folder, words, environment, says):
    done = by_slurm(*words, **environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(Path("told").iterdir())


ON_ONE_MACHINE = """\
import os, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--nodes=")]
while words[0].startswith("--"):
    del words[0]
children = [subprocess.Popen(words) for _ in range(2)]
sys.exit(max(child.wait() for child in children))
"""
"""Stands in for srun: both nodes are here."""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ssh", "slurm"])
def test_two_launchers_train_one_run(bin_folder, tokenizer_folder, tmp_path, way):
    from blankfill.api.data import data_build
    from blankfill.metrics import read_metrics

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(small_corpus(60, 0)), encoding="utf-8")
    data_build([text], tokenizer=tokenizer_folder, out=tmp_path / "store")
    small = {"model.num-layers": 1, "model.hidden-size": 32, "model.num-heads": 2, "train.steps": 3,
             "model.ffn-size": 48, "train.row-length": 64, "train.batch-rows": 4,
             "train.micro-batch-rows": 2, "train.threads": 1, "train.log-every": 1}  # fmt: skip
    words = [
        "pretrain",
        "demo",
        "--data",
        "store",
        "--out",
        "run",
        "--parallel.shard",
        "2",
        *(word for name, value in small.items() for word in (f"--{name}", str(value))),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if way == "ssh":
        done = by_ssh("--hosts", "127.0.0.1,localhost", "--port", port, "--python", sys.executable,
                      "--", *words)  # fmt: skip
    else:
        (bin_folder / "srun").write_text(f"#!{sys.executable}\n{ON_ONE_MACHINE}")
        (bin_folder / "scontrol").write_text("#!/bin/sh\necho localhost\necho localhost\n")
        job = {**JOB, "SLURM_CPUS_PER_TASK": "1", "PROCESSES": "1", "PORT": port}
        done = by_slurm(*words, **job, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    rows = [row for row in read_metrics(tmp_path / "run") if "loss_nats" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert json.loads((tmp_path / "run/run.json").read_text())["config"]["parallel"]["shard"] == 2
