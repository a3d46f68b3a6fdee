"""Whatever ends one process of a run: one sentence, exit code 2, and no process is left."""

import re
import signal
import socket
import time

import pytest

from blankfill.api.data import data_build
from blankfill.metrics import read_metrics
from blankfill.runs import newest_checkpoint
from conftest import small_corpus
from parallel import hurt
from parallel.launch import Launch

TIMEOUT = 10
STARTING_SECONDS = 240.0
"""For processes to load what they need, on a machine that has other things to do."""
OPTIONS = [
    "--model.hidden-size", "32", "--model.num-heads", "2",
    "--model.ffn-size", "48", "--train.row-length", "64", "--train.batch-rows", "4",
    "--train.micro-batch-rows", "2", "--train.precision", "float32", "--train.threads", "1",
    "--train.log-every", "1", "--checkpoint.every", "5", "--validation.blanks", "0",
    "--parallel.timeout-seconds", str(TIMEOUT),
]  # fmt: skip
HOST = socket.gethostname()
TORCHS_PAGE = "Exception raised from"
"""What torch prints where a connection is lost, with a page of addresses."""


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer_folder):
    """A store, and another one beside it."""
    folder = tmp_path_factory.mktemp("store")
    for name, seed in (("store", 0), ("other", 1)):
        text = folder / f"{name}.txt"
        text.write_text("\n\n".join(small_corpus(60, seed)), encoding="utf-8")
        data_build([text], tokenizer=tokenizer_folder, out=folder / name)
    return folder / "store"


@pytest.fixture
def start(store, tmp_path):
    """Start a run on some processes."""
    started = []

    def launch(count=3, *more, steps=100_000, of_rank=None, axis="shard", layers=2, **options):
        words = ["pretrain", "demo", "--data", str(store), "--out", str(tmp_path / "run"), *OPTIONS,
                 "--model.num-layers", str(layers), "--train.steps", str(steps),
                 *more]  # fmt: skip
        usual = [f"--parallel.{axis}", str(count)]
        of_ranks = [[*words, *(of_rank or {}).get(rank, usual)] for rank in range(count)]
        logs = tmp_path / f"logs-{len(started)}"
        logs.mkdir()
        started.append(Launch(logs, of_ranks, **options))
        return started[-1]

    yield launch
    for one in started:
        one.close()


@pytest.fixture
def start_words(tmp_path):
    """Start any words on three processes."""
    started = []

    def launch(words, **options):
        started.append(Launch(tmp_path, [words] * 3, **options))
        return started[-1]

    yield launch
    for one in started:
        one.close()


def trained(launch, run, steps=3):
    """Wait until a run has trained some steps."""
    until = time.monotonic() + STARTING_SECONDS
    while len(read_metrics(run)) < steps:
        assert time.monotonic() < until, launch.log()
        assert all(process.is_alive() for process in launch.processes), launch.log()
        time.sleep(0.02)


def one_sentence(launch, codes):
    """Check that one sentence was said, and all have ended with exit code 2; give the sentence."""
    assert set(codes) == {2}, launch.log()
    said = launch.said()
    assert len(said) == 1, launch.log()
    return said[0][1].removeprefix("blankfill: ")


def test_a_killed_process_is_named_and_the_run_goes_on(start, tmp_path):
    run = tmp_path / "run"
    launch = start()
    trained(launch, run, 12)
    launch.send(1, signal.SIGKILL)
    codes = launch.wait(TIMEOUT)
    assert codes.pop(1) == -signal.SIGKILL
    said = one_sentence(launch, codes)
    assert said.startswith(f"process 1 of 3 on {HOST} has ended without a word")
    assert "at step " in said
    saved = newest_checkpoint(run).step
    launch = start(2, "--resume", "--allow-change", "train.steps", steps=saved + 2)
    assert launch.wait(STARTING_SECONDS) == [0, 0], launch.log()
    assert newest_checkpoint(run).step == saved + 2


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["tensor", "pipeline"])
def test_of_two_that_compute_together_the_killed_one_is_named(start, tmp_path, axis):
    launch = start(2, axis=axis)
    trained(launch, tmp_path / "run", 12)
    launch.send(1, signal.SIGKILL)
    codes = launch.wait(2 * TIMEOUT)
    assert codes.pop(1) == -signal.SIGKILL
    assert one_sentence(launch, codes).startswith(f"process 1 of 2 on {HOST} has ended without")
    saved = newest_checkpoint(tmp_path / "run").step
    launch = start(3, "--resume", "--allow-change", "train.steps", steps=saved + 2)
    assert launch.wait(STARTING_SECONDS) == [0, 0, 0], launch.log()


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["tensor", "pipeline"])
@pytest.mark.parametrize("how", [hurt.sleep_in_a_step, hurt.sleep_over_rows])
def test_of_two_that_compute_together_the_one_that_hangs_is_named(start, how, axis):
    launch = start(2, axis=axis, hurt={1: how})
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said.startswith(f"process 1 of 2 on {HOST} hangs: for ")


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["1f1b", "zbv"])
def test_what_a_stage_of_a_pipeline_meets_is_its_sentence(start, schedule):
    blocks = ["--parallel.schedule", schedule]
    of_rank = {rank: ["--parallel.pipeline", "2", *blocks] for rank in (0, 1)}
    launch = start(2, of_rank=of_rank, hurt={1: hurt.damaged_pass}, layers=4)
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert re.match(rf"process 1 of 2 on {HOST}.*at step 2: .*the pass is damaged", said), said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_stopped_process_is_named_and_ended(start, tmp_path, rank):
    launch = start()
    trained(launch, tmp_path / "run")
    launch.send(rank, signal.SIGSTOP)
    begun = time.monotonic()
    codes = launch.wait(3 * TIMEOUT)
    assert time.monotonic() - begun < TIMEOUT + 2  # a shared machine is slow at ending
    assert codes.pop(rank) in (-signal.SIGKILL, -signal.SIGTERM)
    said = one_sentence(launch, codes)
    assert said.startswith(f"process {rank} of 3 on {HOST} has given no sign for 5 s")


@pytest.mark.slow
@pytest.mark.parametrize("how", [hurt.sleep_in_a_step, hurt.loop_in_a_step, hurt.sleep_over_rows])
def test_a_process_that_hangs_is_named_with_its_place(start, how):
    launch = start(hurt={1: how})
    codes = launch.wait(STARTING_SECONDS)
    said = one_sentence(launch, codes)
    assert said.startswith(f"process 1 of 3 on {HOST} hangs: for ")
    assert "it has been at " in said
    assert "at step " in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "passes_on"), [(0, True), (2, True), (2, False)], ids=["leading", "torchrun", "alone"]
)
def test_a_full_disk_of_one_process_is_its_sentence(start, rank, passes_on):
    more = ["--checkpoint.on-error", "stop", "--checkpoint.no-in-background"]
    launch = start(3, *more, hurt={rank: hurt.full_disk}, passes_on=passes_on)
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert "the checkpoint of step 5 could not be written" in said
    assert f"by process {rank} of 3 on {HOST} (a file would be larger than this process may" in said


@pytest.mark.slow
def test_an_error_of_one_process_names_it(start):
    launch = start(hurt={2: hurt.damaged_rows}, passes_on=False)
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said == f"process 2 of 3 on {HOST}, at step 2: the store is damaged"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({1: ["--parallel.replicate", "3"]}, "--parallel.replicate 3 --parallel.shard 1"),
        (
            {2: ["--parallel.shard", "3", "--schedule.peak-lr", "0.1"]},
            "has schedule.peak_lr 0.1, process 0 has ",
        ),
    ],
)
def test_processes_with_other_options_are_refused_by_one(start, tmp_path, options, words):
    launch = start(of_rank=options)
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said.startswith(f"process {next(iter(options))} of 3 on {HOST} has ")
    assert words in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_with_another_version_is_refused_by_one(start, tmp_path):
    launch = start(hurt={1: hurt.other_version})
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said.startswith(f"process 1 of 3 on {HOST} has blankfill 0.0.1, process 0 has ")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_with_other_data_is_refused_by_one(start, store, tmp_path):
    other = ["--data", str(store.with_name("other")), "--parallel.shard", "3"]
    launch = start(of_rank={2: other})
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said.startswith(f"process 2 of 3 on {HOST} has the data ")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_rows_that_are_not_finite_are_named_with_their_process(start, tmp_path):
    launch = start(hurt={1: hurt.not_finite})
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said.startswith("step 2: not finite: loss nan and gradient norm nan, met by process 1")
    assert f" 1 of 3 on {HOST}; its batch is in {tmp_path / 'run' / 'incidents'}" in said
    assert newest_checkpoint(tmp_path / "run").step == hurt.AT_STEP


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(20))
@pytest.mark.parametrize(
    "failure", ["killed", "stopped", "not finite", "data", "version", "configuration"]
)
def test_twenty_times_each_failure_is_one_message_and_leaves_no_process(
    start, store, tmp_path, failure, attempt
):
    """Another process, another moment each time."""
    rank, passes_on = attempt % 3, attempt % 2 == 0
    usual = ["--parallel.shard", "3"]
    options = {
        "not finite": {"hurt": {rank: hurt.not_finite}},
        "data": {"of_rank": {rank: ["--data", str(store.with_name("other")), *usual]}},
        "version": {"hurt": {rank: hurt.other_version}},
        "configuration": {"of_rank": {rank: ["--schedule.peak-lr", "0.1", *usual]}},
    }.get(failure, {})
    launch = start(passes_on=passes_on, **options)
    if failure not in ("killed", "stopped"):
        said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    else:
        trained(launch, tmp_path / "run", 1 + attempt)
        time.sleep(0.013 * attempt)
        launch.send(rank, signal.SIGKILL if failure == "killed" else signal.SIGSTOP)
        codes = launch.wait(6 * TIMEOUT)
        assert codes.pop(rank) in (-signal.SIGKILL, -signal.SIGTERM), launch.log()
        said = one_sentence(launch, codes)
        assert "at step " in said
    # Where all differ from process 0, the first of them is named.
    named = 1 if rank == 0 and failure in ("data", "version", "configuration") else rank
    assert f"process {named} of 3 on {HOST}" in said
    assert not any(process.is_alive() for process in launch.processes)


@pytest.mark.slow
def test_two_launches_into_one_folder_are_one_refusal(start, tmp_path):
    first = start(2, passes_on=False)
    trained(first, tmp_path / "run")
    second = start(2, "--resume")
    said = one_sentence(second, second.wait(STARTING_SECONDS))
    assert "another process trains in" in said
    assert all(process.is_alive() for process in first.processes)
    first.send(0, signal.SIGTERM)
    assert first.wait(STARTING_SECONDS) == [130, 130]


@pytest.mark.slow
def test_sigterm_to_one_process_ends_all_with_a_checkpoint(start, tmp_path):
    launch = start(passes_on=False)
    trained(launch, tmp_path / "run")
    launch.send(2, signal.SIGTERM)
    assert launch.wait(STARTING_SECONDS) == [130] * 3
    assert launch.said() == []
    steps = [row["step"] for row in read_metrics(tmp_path / "run") if "loss_nats" in row]
    assert newest_checkpoint(tmp_path / "run").step == steps[-1]


@pytest.mark.slow
def test_a_process_that_does_not_come_is_named(start):
    launch = start(hurt={1: hurt.never_come}, passes_on=False)
    codes = launch.wait(STARTING_SECONDS, but=[1])
    assert (codes.pop(0), codes.pop(1)) == (2, 2)
    assert ", 1" not in launch.said()[0][1]
    assert "those with the numbers 1 have not come within 50 s" in launch.said()[0][1]


@pytest.mark.slow
def test_a_store_of_nobody_is_one_sentence(start):
    port = {"MASTER_PORT": _free_port()}
    launch = start(2, environment=port)
    codes = launch.wait(STARTING_SECONDS)
    assert codes[0] == 2
    assert codes[1] in (2, 128 + signal.SIGTERM)  # the launcher ends it before it speaks
    ((rank, said),) = launch.said()
    assert rank == 0
    assert f"cannot be reached at 127.0.0.1:{port['MASTER_PORT']} within 50 s" in said


@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_no_process(start, tmp_path):
    launch = start(passes_on=False)
    trained(launch, tmp_path / "run")
    launch.lose_store()
    said = one_sentence(launch, launch.wait(2 * TIMEOUT))
    assert "its launcher is lost" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.stepz", "3"], "pretrain has no option '--train.stepz'"),
        (["--train.steps", "none"], "--train.steps"),
        pytest.param(
            ["--parallel.replicate", "5"], "3 processes were started", marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.parametrize("keeps", ["launcher", "process 0"])
def test_what_no_process_takes_is_said_by_one_where_the_launcher_ends_none(
    start, words, said, keeps
):
    launch = start(3, *words, passes_on=False, environment=store_kept_by(keeps))
    heard = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert said in heard
    assert launch.said()[0][0] == 0
    assert TORCHS_PAGE not in launch.log()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["no-verb"], ["info", "here"], ["data", "no-verb"]])
def test_a_verb_that_several_processes_do_not_have_is_said_by_one(start_words, words):
    launch = start_words(words, passes_on=False, environment=store_kept_by("process 0"))
    one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert launch.said()[0][0] == 0
    assert TORCHS_PAGE not in launch.log()


@pytest.mark.parametrize(
    ("rank", "keeps"),
    [
        (1, "process 0"),
        pytest.param(1, "launcher", marks=pytest.mark.slow),
        pytest.param(0, "process 0", marks=pytest.mark.slow),
    ],
)
def test_what_one_process_does_not_take_is_said_by_it_and_ends_all(start, tmp_path, rank, keeps):
    launch = start(
        of_rank={rank: ["--parallel.shrad", "3"]}, passes_on=False,
        environment=store_kept_by(keeps),
    )  # fmt: skip
    said = one_sentence(launch, launch.wait(STARTING_SECONDS))
    assert launch.said()[0][0] == rank
    assert TORCHS_PAGE not in launch.log()
    assert said.startswith(f"process 1 of 3 on {HOST}: " if rank else "pretrain has no option")
    assert not (tmp_path / "run").exists()


def store_kept_by(whom):
    """Let processes meet in the launcher's store, or in one that process 0 keeps, as under srun."""
    return {} if whom == "launcher" else {
        "TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": _free_port()
    }  # fmt: skip


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
