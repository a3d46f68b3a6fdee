import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from blankfill.cli.main import VERBS, main
from blankfill.config.model import ModelConfig
from blankfill.config.objective import ObjectiveConfig
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.demo.corpus import generate
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.runs import save_checkpoint, write_run
from blankfill.text.tokenizer import Tokenizer
from conftest import run_record
from shared import shared_path

FOX = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tokenizer, a store and an untrained run."""
    folder = tmp_path_factory.mktemp("world")
    corpus = generate(5, num_train=300, num_valid=4)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for document in corpus.train:
            file.write(json.dumps({"text": document.text}, ensure_ascii=False) + "\n")
    tok, store = str(folder / "tok"), str(folder / "store")
    source = str(folder / "corpus.jsonl")
    assert main(["tokenizer", "train", source, "--vocab-size", "1000", "--model-type", "bpe",
                 "--out", tok]) == 0  # fmt: skip
    assert main(["data", "build", source, "--tokenizer", tok, "--out", store]) == 0
    tokenizer = Tokenizer.load(tok)
    cfg = RunConfig(
        model=ModelConfig(vocab_size=1024, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48,
                          max_position=256),
        objective=ObjectiveConfig(), train=TrainConfig(row_length=128),
    )  # fmt: skip
    model = GLM(cfg.model)
    init_weights(model, 0)
    run = folder / "run"
    run.mkdir()
    (folder / "tok").rename(run / "tokenizer")
    write_run(run, run_record(cfg, tokenizer))
    save_checkpoint(run, 0, {"model": model.state_dict()}, keep=1)
    return folder


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"blankfill {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_opens_with_an_example(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.index("Example:") < text.index("Options")
    assert f"blankfill {verb}" in text.split("Example:")[1][:120]


@pytest.mark.parametrize(
    "words",
    ["--help", "explain --help", "pretrain --help-all", "fill --help", "demo --help", "-V",
     "--complete pretrain tiny --ste", "--show-completion bash"],
)  # fmt: skip
def test_help_version_and_completion_never_load_torch(words):
    code = (
        "import sys\n"
        "from blankfill.cli.main import main\n"
        "main(sys.argv[1:])\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *words.split()]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_explain_gives_the_articles_numbers_as_json(capsys):
    words = ["explain", FOX, "--spans", "2:4", "--tokenizer", "words", "--positions", "original"]
    assert main([*words, "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    keys = ("token", "part", "position", "block_position", "target")
    assert [[row[key] for key in keys] for row in tokens] == [
        ["The", "A", 0, 0, None], ["quick", "A", 1, 0, None], ["[MASK]", "A", 2, 0, None],
        ["jumps", "A", 3, 0, None], ["over", "A", 4, 0, None], ["the", "A", 5, 0, None],
        ["lazy", "A", 6, 0, None], ["dog.", "A", 7, 0, None],
        ["[S]", "B", 2, 0, "brown"], ["brown", "B", 2, 0, "fox"], ["fox", "B", 3, 1, "[E]"],
    ]  # fmt: skip


def test_explain_draws_its_picture(tmp_path, capsys):
    for name in ("fox.png", "fox.svg"):
        assert main(["explain", FOX, "--picture", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 5000
    assert main(["explain", FOX, "--picture", str(tmp_path / "fox.doc")]) == 2
    assert ".png" in capsys.readouterr().err


def test_fill_answers_every_blank_and_lists_candidates(world, capsys):
    text = "On Monday [MASK] bought three [MASK] from Emil."
    words = ["fill", str(world / "run"), text, "--json", "--max-new-tokens", "4"]
    assert main([*words, "--num-candidates", "3"]) == 0
    item = json.loads(capsys.readouterr().out)["items"][0]
    assert item["prompt"] == text
    assert len(item["blanks"]) == 2
    for blank in item["blanks"]:
        shares = [candidate["probability"] for candidate in blank["candidates"]]
        assert shares == sorted(shares, reverse=True)
        assert 1 <= len(shares) <= 3


def test_fill_reads_stdin_a_text_a_line(world):
    command = [sys.executable, "-m", "blankfill", "fill", str(world / "run"), "-", "--json",
               "--max-new-tokens", "3"]  # fmt: skip
    texts = "a [MASK] b\n\n\u5728[MASK]\uff0c\u6709[MASK]\u3002\r\n"
    done = subprocess.run(command, input=texts.encode(), capture_output=True, check=True)
    items = json.loads(done.stdout)["items"]
    assert [len(item["blanks"]) for item in items] == [1, 2]


def test_sampled_fills_repeat_with_their_seed(world, capsys):
    def answers(seed):
        words = ["fill", str(world / "run"), "a [MASK] b", "--temperature", "1.0", "--json"]
        assert main([*words, "--seed", str(seed), "--max-new-tokens", "6"]) == 0
        return json.loads(capsys.readouterr().out)["items"][0]["text"]

    assert answers(1) == answers(1)
    assert len({answers(seed) for seed in range(4)}) > 1


def test_generate_continues(world, capsys):
    words = ["generate", str(world / "run"), "On Monday", "--max-new-tokens", "5", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["items"][0]["text"].startswith("On Monday")


MISTAKES = [
    (["nonsense"], "no command"),
    (["explain", ""], "empty"),
    (["explain", FOX, "--spans", "2-4"], "2:4"),
    (["explain", FOX, "--spans", "7:12"], "inside the document's 9"),
    (["explain", FOX, "--data", "store"], "one of the two"),
    (["pretrain", "tinny", "--data", "x", "--out", "y"], "'tinny'"),
    (["pretrain", "tiny", "--data", "nowhere", "--out", "y"], "nowhere"),
    (["fill", "nowhere", "a [MASK]"], "nowhere"),
    (["evaluate", "nowhere", "--data", "x"], "nowhere"),
    (["info", "nowhere"], "nowhere"),
    (["data", "build", "nowhere.txt", "--tokenizer", "nowhere", "--out", "y"], "nowhere"),
    (["tokenizer", "train", "nowhere.txt", "--out", "y"], "nowhere.txt"),
]


@pytest.mark.parametrize(
    ("words", "message"), MISTAKES, ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else ""
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["no blank here", "[MASK]" + "x" * 3000])
def test_a_text_that_cannot_be_filled_is_one_sentence(world, text, capsys):
    assert main(["fill", str(world / "run"), text]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_build_that_is_terminated_leaves_nothing(world, tmp_path):
    fifo = tmp_path / "endless.txt"
    os.mkfifo(fifo)
    out = tmp_path / "out"
    out.mkdir()
    code = "from blankfill.cli.main import entry_point; entry_point()"
    tokenizer = world / "run" / "tokenizer"
    words = ["data", "build", fifo, "--tokenizer", tokenizer, "--out", out / "s"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stderr=subprocess.DEVNULL
    )
    # Open for reading too, so that a child that ended early cannot make this wait for a reader.
    with open(os.open(fifo, os.O_RDWR), "wb", buffering=0) as file:
        file.write(b"some words of a text\n\n" * 1000)
        deadline = time.monotonic() + 30
        while not list(out.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(out.iterdir())  # it is being written
        process.terminate()
        assert process.wait(30) == 143
    assert list(out.iterdir()) == []


def test_hostile_files_as_text_end_in_0_or_2(world):
    code = (
        "import sys, io\n"
        "from blankfill.cli.main import main\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "for words in (['explain', '-'], ['fill', sys.argv[2], '-', '--max-new-tokens', '2']):\n"
        "    for payload in (data, b'[MASK] ' + data[:3000]):\n"
        "        sys.stdin = io.TextIOWrapper(io.BytesIO(payload))\n"
        "        sys.stdout = io.StringIO()\n"
        "        assert main(words) in (0, 2), words\n"
    )
    folder = shared_path("data/nasty")
    # Every fifth file here; all of them, through every verb, under the mark `slow`.
    for path in sorted(folder.iterdir())[::9]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(world / "run")], capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (path.name, done.stderr[-600:])
        assert b"Traceback" not in done.stderr, path.name


def test_json_of_a_number_that_is_not_finite_is_null(capsys, monkeypatch):
    import dataclasses

    from blankfill.results import plain

    @dataclasses.dataclass
    class Result:
        value: float
        array: tuple

    assert plain(Result(float("nan"), (1, float("inf")))) == {
        "value": None, "array": [1, None],
    }  # fmt: skip
    assert np.isnan(float("nan"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.45 TiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation."),
    ],
)
def test_a_machine_without_memory_is_one_sentence(error, monkeypatch, capsys):
    from blankfill.data.store import TokenStore

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(TokenStore, "open", fail)
    assert main(["data", "info", "store"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("blankfill: there is not enough memory")
    assert said.count("\n") == 1


def test_a_mistake_of_ours_is_not_taken_for_want_of_memory(monkeypatch):
    from blankfill.data.store import TokenStore

    def fail(*_, **__):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(TokenStore, "open", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        main(["data", "info", "store"])
