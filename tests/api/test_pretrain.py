"""What `pretrain` says of its numbers, does with them, and refuses before it begins."""

import json

import pytest
import torch

from blankfill.api.data import data_build
from blankfill.api.pretrain import pretrain
from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError, TrainingError
from blankfill.guard.forgetting import ForgettingGuard
from blankfill.prepare.memory import require_memory
from blankfill.runs import newest_checkpoint
from conftest import small_corpus

SIZES = {
    "model.hidden-size": 16, "model.num-layers": 1, "model.num-heads": 2, "model.ffn-size": 16,
    "train.row-length": 64, "train.batch-rows": 2, "train.micro-batch-rows": 2, "train.steps": 2,
    "validation.blanks": 0, "train.threads": 1, "train.embedding-init": "random",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("pretrain")
    (folder / "text.txt").write_text("\n\n".join(small_corpus(80)), encoding="utf-8")
    data_build([folder / "text.txt"], tokenizer=tokenizer_folder, out=folder / "store")
    return folder / "store"


@pytest.fixture
def train(store, tmp_path):
    """A function that trains a small run from the command line and gives its exit code."""
    before = torch.get_num_threads()

    def call(*options, run="run"):
        words = ["pretrain", "tiny", "--data", str(store), "--out", str(tmp_path / run)]
        for name, value in SIZES.items():
            words += [] if f"--{name}" in options else [f"--{name}", str(value)]
        return main([*words, *map(str, options)])

    yield call
    torch.set_num_threads(before)


@pytest.mark.parametrize("ending", [SystemExit(143), KeyboardInterrupt(), ConfigError("no")])
@pytest.mark.parametrize("there", [False, True])
def test_what_ends_before_the_run_is_begun_leaves_no_empty_folder(
    ending, there, train, tmp_path, monkeypatch, capsys
):
    def end(*_):
        assert (tmp_path / "run").is_dir()
        raise ending

    monkeypatch.setattr("blankfill.prepare.build._build_engine", end)
    if there:
        (tmp_path / "run").mkdir()  # the user's own
    if isinstance(ending, SystemExit):
        with pytest.raises(SystemExit):
            train()
    else:
        assert train() in (2, 130)
    assert (tmp_path / "run").is_dir() is there
    told = "stopped before the run was begun" in capsys.readouterr().err
    assert told is (not there and not isinstance(ending, ConfigError))


def test_the_last_step_is_validated_and_the_result_says_of_which_step_it_is(
    train, store, capsys, tmp_path
):
    assert train("--validation", store, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["validation"]["step"] == 2
    rows = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    validated = [row["step"] for row in map(json.loads, rows) if "validation_loss_nats" in row]
    assert validated == [0, 2]
    assert train("--validation", store, "--validation.every", 3, run="other") == 0
    assert "validation after step 2:" in capsys.readouterr().out


def test_a_guard_that_ends_a_run_at_its_last_step_loses_none_of_it(
    train, store, monkeypatch, capsys, tmp_path
):
    judged = []

    def judge(_, values):
        judged.append(values)
        if len(judged) > 1:
            raise TrainingError("the loss is above its best")
        return {}

    monkeypatch.setattr(ForgettingGuard, "judge", judge)
    guard = ("--validation.forgetting-limit", 0.1, "--validation.on-forgetting", "stop")
    assert train("--validation", store, *guard) == 2
    assert "above its best" in capsys.readouterr().err
    assert newest_checkpoint(tmp_path / "run").step == 2


@pytest.mark.parametrize("seed", [0, 20240101123456, 2**63, 2**64 - 1])
def test_every_seed_of_64_bits_trains(train, seed):
    assert train("--train.seed", seed) == 0


def test_a_vocabulary_that_is_asked_for_is_kept_or_refused(train, tmp_path, capsys):
    def rows():
        described = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
        return described["config"]["model"]["vocab_size"]

    assert train("--model.vocab-size", 499) == 2
    assert "vocab_size=499 has no row for some of the tokenizer's 500 ids" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
    assert train("--model.vocab-size", 501) == 0
    assert rows() == 501
    # The rest of the run need not say it again, and cannot say another number.
    assert train("--resume", "--train.steps", 3, "--allow-change", "train.steps") == 0
    assert rows() == 501
    assert train("--resume", "--model.vocab-size", 502) == 2
    assert "vocab_size was 501, is 502" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "way"),
    [
        (("--model.hidden-size", 2**20), "model.hidden_size"),
        (("--model.num-layers", 10_000, "--model.hidden-size", 4096), "model.num_layers"),
        (("--model.vocab-size", 2**24, "--model.hidden-size", 8192), "model.vocab_size"),
        (("--train.row-length", 2**20, "--model.max-position", 2**20,
          "--train.batch-rows", 2**16, "--train.micro-batch-rows", 2**16), "row_length"),
        (("--train.row-length", 2**20, "--model.max-position", 2**20,
          "--train.batch-rows", 2**16, "--train.micro-batch-rows", 1), "train.batch_rows"),
    ],
)  # fmt: skip
def test_a_run_that_this_machine_cannot_hold_is_refused_before_it_begins(
    train, options, way, capsys, tmp_path
):
    assert train(*options) == 2
    said = capsys.readouterr().err
    assert "needs at least" in said
    assert way in said
    assert not (tmp_path / "run").exists()


def test_what_the_presets_of_a_small_machine_need_is_never_refused(monkeypatch):
    monkeypatch.setattr("blankfill.prepare.memory.memory_bytes", lambda: 10**9)
    require_memory(RunConfig(), torch.device("cpu"))
    with pytest.raises(ConfigError, match="this machine has 1 GB"):
        require_memory(
            RunConfig(model=ModelConfig(hidden_size=4096, num_heads=32)), torch.device("cpu")
        )
    monkeypatch.setattr("blankfill.prepare.memory.memory_bytes", lambda: 0)  # not known
    require_memory(
        RunConfig(model=ModelConfig(hidden_size=4096, num_heads=32)), torch.device("cpu")
    )


def test_the_python_side_refuses_as_the_command_line_does(store, tmp_path):
    with pytest.raises(ConfigError, match="minutes=nan must be 0, or a number"):
        pretrain("tiny", data=[store], out=tmp_path / "run", minutes=float("nan"))
    assert not list(tmp_path.iterdir())


SETTINGS = ("TFLOP/s", "compiled", "rounded up", "malloc", "OpenMP", "MFU")


def test_the_first_lines_say_what_a_reader_wants_to_know(train, store, capsys, tmp_path):
    assert train("--validation", store) == 0
    said = capsys.readouterr().err.split("\nstep 0:")[0].splitlines()
    assert len(said) <= 10
    assert [line.split(":")[0] for line in said[:5]] == [
        "model",
        "text",
        "plan",
        "held out",
        "here",
    ]
    assert "2 steps of 2 rows of 64 positions" in said[2]
    assert not any(word in line for line in said for word in SETTINGS)
    assert train("--resume", "--train.steps", 3, "--allow-change", "steps") == 0
    assert "3 steps of 2 rows of 64 positions" in (resumed := capsys.readouterr().err)
    assert "going on at step 2" in resumed
    assert said[3] in resumed  # the store that is held out is the run's
    assert train(run="without") == 0
    assert "held out: nothing" in capsys.readouterr().err


def test_settings_are_told_on_request_and_kept(train, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert train("--verbose") == 0
    said = capsys.readouterr().err
    assert all(word in said for word in ("TFLOP/s", "not compiled", "rounded up"))
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["process"]["OMP_WAIT_POLICY"] == "passive"
    assert train("--quiet", run="quiet") == 0
    assert capsys.readouterr().err == ""
