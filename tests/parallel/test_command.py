"""The command on several processes: one run folder, one sentence, one result."""

import ast
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

import blankfill
from blankfill.api.data import data_build
from blankfill.cli.main import entry_point, main
from blankfill.errors import ConfigError
from blankfill.metrics import read_metrics
from blankfill.prepare.asked import laid_out
from blankfill.prepare.plan import Plan
from blankfill.runs import newest_checkpoint, read_run
from blankfill.runs.record import ChangeEntry
from conftest import run_record, small_corpus
from parallel.twins import CFG, build_on_ranks, meet, settle_on_ranks
from parallel.twins import laid_out as of_layout

SMALL = {
    "model.num_layers": 1, "model.hidden_size": 32, "model.num_heads": 2, "model.ffn_size": 48,
    "train.row_length": 64, "train.batch_rows": 4, "train.micro_batch_rows": 2,
    "train.precision": "float32", "train.threads": 1, "schedule.warmup_steps": 1,
    "train.log_every": 1,
}  # fmt: skip
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def stores(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("stores")
    for name, seed in (("a", 0), ("b", 1)):
        text = "\n\n".join(small_corpus(60, seed))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        data_build([folder / f"{name}.txt"], tokenizer=tokenizer_folder, out=folder / name)
    return folder


def test_ranks_with_other_data_or_a_taken_folder_are_refused_alike(crew, stores, tmp_path):
    both, other = [stores / "a", stores / "a"], [stores / "a", stores / "b"]
    run = tmp_path / "run"
    found = crew.run(meet, 2, (1, 2), build_on_ranks, other, run, {})
    assert found[0] == found[1]
    assert found[0].startswith("ConfigError: process 1 of 2 has the data ")
    assert not run.exists()
    missing = [stores / "a", stores / "none"]
    found = crew.run(meet, 2, (1, 2), build_on_ranks, missing, run, {})
    assert found[0] == found[1]
    assert found[0].startswith("DataError: process 1 of 2: ")
    assert not run.exists()
    changes = {"train.embedding_init": "neighbours", "guard.on_spike": "rollback"}
    found = crew.run(meet, 2, (1, 2), build_on_ranks, both, run, changes)
    assert found == [(True, "ParallelEngine", "run")] * 2
    found = crew.run(meet, 2, (1, 2), build_on_ranks, both, run, {})
    assert found[0] == found[1]
    assert "already holds a run" in found[0]


def test_ranks_with_other_shares_or_weights_to_start_from_are_refused_alike(crew, stores, tmp_path):
    one, run = [stores / "a"] * 2, tmp_path / "run"
    for name in ("first", "second"):
        options = {"train.seed": 1 + (name == "second")}
        crew.run(meet, 2, (1, 2), build_on_ranks, one, tmp_path / name, options)
    both = [[stores / "a", stores / "b"]] * 2
    given = [{"shares": [0.5, 0.5]}, {"shares": [0.4, 0.6]}]
    found = crew.run(meet, 2, (1, 2), build_on_ranks, both, run, {}, given)
    assert found[0] == found[1]
    assert "process 1 of 2 has the shares of the data 0.4, 0.6, process 0 has 0.5" in found[0]
    given = [{"init": tmp_path / name} for name in ("first", "second")]
    found = crew.run(meet, 2, (1, 2), build_on_ranks, one, run, {}, given)
    assert found[0] == found[1]
    assert "process 1 of 2 has the weights of --init " in found[0]
    assert not run.exists()
    shard = newest_checkpoint(tmp_path / "first").path / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3] + b"abc")
    found = crew.run(meet, 2, (1, 2), build_on_ranks, one, run, {}, given[:1] * 2)
    assert found[0] == found[1]
    assert "model-00002-of-00002.safetensors is not the file that was written" in found[0]
    assert not run.exists()


def test_a_model_that_processes_cannot_compute_together_is_refused_alike(crew, stores, tmp_path):
    both, run = [stores / "a"] * 2, tmp_path / "run"
    together = {"parallel.tensor": 2}
    found = crew.run(
        meet, 2, (1, 1, 2), build_on_ranks, both, run, {**together, "model.ffn_size": 45}
    )
    assert found[0] == found[1]
    assert found[0].endswith("take --parallel.tensor 1, or model.ffn_size 44 or 46")
    assert not run.exists()
    changes = {**together, "train.embedding_init": "neighbours"}
    found = crew.run(meet, 2, (1, 1, 2), build_on_ranks, both, run, changes)
    assert found == [(True, "ParallelEngine", "run")] * 2


def test_a_model_or_a_step_that_is_no_pipeline_is_refused_alike(crew, stores, tmp_path):
    both, run = [stores / "a"] * 2, tmp_path / "run"
    for changes, said in (
        ({"model.num_layers": 1}, "more stages than model.num_layers=1; take no pipeline"),
        ({"train.batch_rows": 2}, "and 2 rows on 1 data ranks are 1; take fewer stages, "),
        ({"parallel.schedule": "zbv"}, "take no pipeline"),
    ):
        options = {"parallel.pipeline": 2, **changes}
        found = crew.run(meet, 2, (1, 1, 1, 2), build_on_ranks, both, run, options)
        assert found[0] == found[1]
        assert found[0].startswith("ConfigError: parallel.pipeline=2 ")
        assert said in found[0]
        assert not run.exists()
    options = {"parallel.pipeline": 2, "train.embedding_init": "neighbours"}
    found = crew.run(meet, 2, (1, 1, 1, 2), build_on_ranks, both, run, options)
    assert found == [(True, "ParallelEngine", "run")] * 2


def test_neighbours_begin_the_embedding_as_on_one_process(crew, stores, tmp_path):
    from blankfill.prepare import build_trainer
    from blankfill.runs.parts import load_part

    changes = {"train.embedding_init": "neighbours", "guard.on_spike": "skip"}
    crew.run(meet, 2, (1, 2), build_on_ranks, [stores / "a"] * 2, tmp_path / "run", changes)
    cfg = CFG.changed({"train.steps": 2, "optimizer.ema_decay": 0.0, **changes})
    build_trainer(cfg, data=[stores / "a"], run=tmp_path / "alone").fit()
    first, alone = (
        load_part(tmp_path / name / "checkpoints" / "step-00000000", "model")
        for name in ("run", "alone")
    )
    assert first.keys() == alone.keys()
    assert all((first[name] == value).all() for name, value in alone.items())


def test_precision_attention_and_compiling_are_one_choice_told_to_all(crew, stores, tmp_path):
    for compiled in (False, True):
        options = {"train.compile": "on"} if compiled else {}
        run = tmp_path / str(compiled)
        found = crew.run(meet, 2, (1, 2), settle_on_ranks, stores / "a", run, options)
        assert found == [("torch.float32", "dense", compiled)] * 2
        record = read_run(run)
        assert (record.precision, record.attention, record.compiled) == (
            "float32", "dense", compiled
        )  # fmt: skip


def environment(rank, count):
    return {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(count)}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretrain", "demo", "--data", "store", "--out", "run"], "--parallel.shard 4"),
        (["pretrain", "demo", "--data", "store", "--out", "run", "--parallel.shard", "4",
          "--minutes", "1"], "name --train.steps instead"),
        (["info", "demo"], "works in one process, and 4 were started"),
    ],
)  # fmt: skip
def test_what_several_processes_cannot_do_is_one_sentence(
    monkeypatch, capsys, tmp_path, words, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("blankfill.cli.several.PATIENCE_SECONDS", 0.0)
    for rank in (0, 3):
        for name, value in environment(rank, 4).items():
            monkeypatch.setenv(name, value)
        assert main(words) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert sentence in said[0]
        assert (f"process 3 of 4 on {socket.gethostname()}: " in said[0]) == (rank == 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "code", "at_once"), [(4, 2, True), (4, 0, False), (4, 130, False), (1, 2, False)]
)
def test_one_of_several_that_fails_ends_without_waiting_for_torch(
    monkeypatch, capsys, count, code, at_once
):
    for name, value in environment(1, count).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("blankfill.cli.main.main", lambda: print("said") or code)
    monkeypatch.setattr(os, "_exit", lambda number: sys.exit(f"at once with {number}"))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as left:
            entry_point()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert left.value.code == (f"at once with {code}" if at_once else code)
    assert capsys.readouterr().out == "said\n"


@pytest.mark.parametrize(
    ("before", "count", "typed", "after"),
    [
        ((2, 4), 8, {}, (2, 4)),
        ((2, 4), 4, {}, (1, 1)),  # which is refused with the layouts of 4
        ((2, 4), 3, {"parallel.replicate": 3}, (3, 1)),
        ((2, 4), 1, {}, (1, 1)),
        ((2, 1, 2), 4, {}, (2, 1, 2)),
        ((2, 1, 2), 4, {"parallel.shard": 4}, (1, 4, 1)),
        ((2, 2), 4, {"parallel.tensor": 4}, (1, 1, 4)),
        ((1, 1), 4, {"parallel.shard": 4}, (1, 4)),
    ],
)
def test_a_layout_stays_where_it_is_of_the_processes(monkeypatch, before, count, typed, after):
    for name, value in environment(0, count).items():
        monkeypatch.setenv(name, value)
    cfg = dataclasses.replace(CFG, parallel=of_layout(before))
    found = laid_out(cfg, typed).changed(typed).parallel
    assert found == of_layout(after)


@pytest.mark.parametrize(
    ("layout", "changed", "by_row"),
    [
        ((1, 1), [], False),
        ((1, 1), ["train.steps"], False),
        ((1, 4), [], True),  # it goes on on one process for the first time
        ((1, 1), ["train.steps", "parallel.shard"], True),  # and after that
        ((1, 1), ["parallel.tensor"], True),
    ],
)
def test_dropout_stays_by_rows_in_a_run_that_was_once_shared_out(layout, changed, by_row):
    cfg = CFG.changed({"parallel.replicate": layout[0], "parallel.shard": layout[1]})
    entries = tuple(ChangeEntry(step=k, values={name: 1}) for k, name in enumerate(changed))
    old = dataclasses.replace(run_record(cfg), changes=entries)
    assert Plan.was_shared_out.fget(types.SimpleNamespace(old=old)) == by_row
    assert not Plan.was_shared_out.fget(types.SimpleNamespace(old=None))


@pytest.mark.parametrize(
    "named",
    [
        {"WORLD_SIZE": "many"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "2"},
    ],
)
def test_an_environment_that_is_no_launchers_is_refused(monkeypatch, capsys, tmp_path, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert main(["pretrain", "demo", "--data", "store", "--out", "run"]) == 2
    assert "torchrun" in capsys.readouterr().err


def test_torchrun_trains_and_one_process_goes_on_and_fills(stores, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    words = ["pretrain", "demo", "--data", str(stores / "a"), "--validation", str(stores / "b"),
             "--out", str(run), *OPTIONS]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "--standalone",
         "-m", "blankfill", *words, "--train.steps", "3", "--parallel.shard", "3"],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 3 of 3") == 1  # one process speaks
    assert done.stderr.count("step 0: validation loss") == 1
    record = read_run(run)
    assert (record.config.parallel.shard, record.config.parallel.replicate) == (3, 1)
    for name in environment(0, 1):
        monkeypatch.delenv(name, raising=False)
    more = ["--train.steps", "4", "--resume", "--allow-change", "train.steps", "--quiet"]
    assert main([*words, *more]) == 0
    assert newest_checkpoint(run).step == 4
    assert [row["step"] for row in read_metrics(run) if "loss_nats" in row] == [1, 2, 3, 4]
    assert read_run(run).changes[-1].values == {"train.steps": 4, "parallel.shard": 1}
    assert main(["pretrain", "--resume", str(run), "--train.steps", "5", "--quiet"]) == 0
    assert newest_checkpoint(run).step == 5
    capsys.readouterr()
    assert main(["fill", str(run), "The old [MASK] reads.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("layout", [(2, 2), (1, 2, 2)], ids=str)
def test_a_run_of_four_goes_on_on_one_and_is_exported_with_its_proof(
    crew, stores, tmp_path, capsys, monkeypatch, layout
):
    run = tmp_path / "run"
    found = crew.run(meet, 4, layout, build_on_ranks, [stores / "a"] * 4, run, {})
    assert found == [(True, "ParallelEngine", "run")] * 4
    for name in environment(0, 1):
        monkeypatch.delenv(name, raising=False)
    assert main(["pretrain", "--resume", str(run), "--train.steps", "4", "--quiet"]) == 0
    assert newest_checkpoint(run).step == 4
    capsys.readouterr()
    words = ["export", str(run), "--to", "hf", "--out", str(tmp_path / "exported"), "--json"]
    assert main(words) == 0
    proof = json.loads(capsys.readouterr().out)["parity"]
    assert proof["max_logit_difference"] <= proof["tolerance"]
    assert proof["num_different_tokens"] == 0 < proof["num_greedy_tokens"]


def imports_at_load(tree):
    """List the modules that loading a module imports."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_one_process_loads_nothing_of_it():
    source = Path(blankfill.__file__).parent
    found = [
        f"{path.relative_to(source)}: {name}"
        for path in source.rglob("*.py")
        if path.parent.name != "parallel"
        for name in imports_at_load(ast.parse(path.read_text(encoding="utf-8")))
        if name.startswith(("blankfill.parallel", "torch.distributed"))
    ]
    assert found == []


def test_memory_is_that_of_the_rows_that_a_process_keeps(monkeypatch):
    import torch

    from blankfill.prepare.memory import least_bytes, require_memory

    cfg = CFG.changed({"parallel.shard": 4})
    needed = least_bytes(cfg)[0]
    rest = sum(least_bytes(cfg)[1:])
    monkeypatch.setattr("blankfill.prepare.memory.memory_bytes", lambda: needed // 2 + 2 * rest)
    for name, value in environment(0, 4).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    require_memory(cfg, torch.device("cpu"))  # two of the four quarters are here
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="this machine has"):
        require_memory(cfg, torch.device("cpu"))
