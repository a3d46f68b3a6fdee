"""Every verb that writes: what is not ours stays, and what cannot be written is one sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from blankfill.cli.main import main
from blankfill.config.model import ModelConfig
from blankfill.config.run import RunConfig
from blankfill.config.train import TrainConfig
from blankfill.data import ingest
from blankfill.data.store import TokenStore
from blankfill.disk.publish import NameLock
from blankfill.model import GLM, init_weights
from blankfill.runs import save_checkpoint, write_run
from blankfill.text.tokenizer import Tokenizer, copy_tokenizer
from conftest import run_record, small_corpus

FOX = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    """A corpus, its store, and a run that was never trained."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "corpus.txt").write_text("\n\n".join(small_corpus(40)), encoding="utf-8")
    copy_tokenizer(tokenizer_folder, folder / "tok")
    build = ["data", "build", str(folder / "corpus.txt"), "--tokenizer", str(folder / "tok")]
    assert main([*build, "--out", str(folder / "store")]) == 0
    make_run(folder / "run", folder / "tok")
    return folder


def make_run(run, tok):
    cfg = RunConfig(
        model=ModelConfig(vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, ffn_size=48,
                          max_position=256),
        train=TrainConfig(row_length=128),
    )  # fmt: skip
    model = GLM(cfg.model)
    init_weights(model, 0)
    run.mkdir()
    copy_tokenizer(tok, run / "tokenizer")
    write_run(run, run_record(cfg, Tokenizer.load(tok)))
    save_checkpoint(run, 0, {"model": model.state_dict()}, keep=1)


WORDS = {
    "demo": "demo --minutes 0.01 --out",
    "train": "train WORLD/corpus.txt --minutes 1 --out",
    "tokenizer": "tokenizer train WORLD/corpus.txt --vocab-size 400 --out",
    "tokenizer, overwriting": "tokenizer train WORLD/corpus.txt --vocab-size 400 --overwrite --out",
    "store": "data build WORLD/corpus.txt --tokenizer WORLD/tok --out",
    "store, overwriting": "data build WORLD/corpus.txt --tokenizer WORLD/tok --overwrite --out",
    "pretrain": "pretrain tiny --data WORLD/store --train.steps 1 --out",
    "pretrain, minutes": "pretrain tiny --data WORLD/store --minutes 0.01 --out",
    "export": "export WORLD/run --to hf --out",
    "import": "import WORLD/run --out",
    "resize": "resize WORLD/run --tokenizer WORLD/tok --out",
    "report": "report WORLD/run --out",
    "picture": "explain FOX --picture",
}


def command(kind, world, out):
    words = [word.replace("WORLD", str(world)) for word in WORDS[kind].split()]
    out = str(out)
    if kind == "picture" and not out.endswith(".png"):
        out = os.path.join(out, "p.png")
    return [FOX if word == "FOX" else word for word in words] + [out]


def tree(folder):
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink()
        else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }  # fmt: skip


def refused(words, capsys):
    capsys.readouterr()
    assert main(words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("blankfill: ")
    assert "Traceback" not in last
    return last


@pytest.mark.parametrize("kind", WORDS)
def test_what_is_not_ours_stays(kind, world, tmp_path, capsys):
    """Folders whose names look like ours, as others have them."""
    project = tmp_path / "project"
    (project / "data" / "corpus").mkdir(parents=True)
    for name in ("data/corpus/train.jsonl", "tokenizer.model", "tokenizer.json", "manifest.json",
                 "samples.jsonl", "checkpoints", "tokens.bin", "p.png"):  # fmt: skip
        (project / name).write_text('{"version": 1, "name": "mine"}', encoding="utf-8")
    before = tree(tmp_path)
    refused(command(kind, world, project), capsys)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", WORDS)
def test_a_place_that_cannot_be_written_is_refused_at_once(
    kind, world, tmp_path, capsys, monkeypatch
):
    (tmp_path / "here" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "p.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = tree(tmp_path)
    places = [tmp_path / "file", tmp_path / "file" / "sub" / "out", tmp_path / "loop" / "out",
              tmp_path / ("x" * 300)]  # fmt: skip
    if kind == "picture":
        places += [tmp_path]
    else:
        places += [tmp_path / "dangling", tmp_path / "loop", "", ".", "..", "/", "inner/.."]
    for place in places:
        refused(command(kind, world, place), capsys)
        assert tree(tmp_path) == before, place


@pytest.mark.parametrize("kind", [kind for kind in WORDS if kind != "pretrain"])
def test_the_second_writer_of_a_name_is_refused(kind, world, tmp_path, capsys):
    out = tmp_path / "p.png"
    with NameLock(out):
        assert "another process" in refused(command(kind, world, out), capsys)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("kind", ["tokenizer", "store"])
def test_ours_is_replaced_through_a_link_and_only_where_asked(kind, world, tmp_path, capsys):
    (tmp_path / "far").mkdir()
    assert main(command(kind, world, tmp_path / "far" / "real")) == 0
    (tmp_path / "out").symlink_to(tmp_path / "far" / "real")
    first = (tmp_path / "far" / "real").stat().st_ino
    assert "--overwrite" in refused(command(kind, world, tmp_path / "out"), capsys)
    assert main(command(f"{kind}, overwriting", world, tmp_path / "out")) == 0
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "far" / "real").stat().st_ino != first
    (tmp_path / "far" / "real" / "notes.txt").write_text("mine")
    said = refused(command(f"{kind}, overwriting", world, tmp_path / "out"), capsys)
    assert "notes.txt" in said
    assert sorted(os.listdir(tmp_path / "far")) == ["real"]


@pytest.mark.parametrize(
    ("kind", "other"), [("tokenizer", "store"), ("store", "tokenizer"), ("store", "import")]
)
def test_one_of_our_kinds_never_replaces_another(kind, other, world, tmp_path, capsys):
    assert main(command(other, world, tmp_path / "out")) == 0
    before = tree(tmp_path)
    refused(command(f"{kind}, overwriting", world, tmp_path / "out"), capsys)
    assert tree(tmp_path) == before


def test_reports_and_pictures_replace_their_own_and_go_into_pipes(world, tmp_path, capsys):
    for kind, name in (("report", "r.html"), ("picture", "p.png"), ("picture", "p2.png")):
        for _ in range(2):
            assert main(command(kind, world, tmp_path / name)) == 0
    (tmp_path / "p2.png").write_bytes(b"\x89PNG my photograph")
    assert "would be lost" in refused(command("picture", world, tmp_path / "p2.png"), capsys)
    for kind, name in (("report", "pipe"), ("picture", "pipe.png")):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        read = []
        thread = threading.Thread(target=lambda p=pipe, r=read: r.append(p.read_bytes()))
        thread.start()
        assert main(command(kind, world, pipe)) == 0
        thread.join()
        assert pipe.is_fifo()
        assert len(read[0]) > 5000
    assert "disk is full" in refused(command("report", world, "/dev/full"), capsys)


def test_new_files_follow_the_umask(world, tmp_path):
    for kind in ("export", "import", "resize"):
        assert main(command(kind, world, tmp_path / kind)) == 0
    umask = os.umask(0)
    os.umask(umask)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_names_that_are_not_utf8_come_back(world, tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    corpus = folder / os.fsdecode(b"text\xff.txt")
    corpus.write_text("\n\n".join(small_corpus(40)), encoding="utf-8")
    tok, store = folder / "tok", folder / os.fsdecode(b"st\xf6re")
    words = ["tokenizer", "train", str(corpus), "--vocab-size", "400", "--out", str(tok)]
    assert main(words) == 0
    words = ["data", "build", str(corpus), "--tokenizer", str(tok), "--out", str(store), "--json"]
    assert main(words) == 0
    assert len(TokenStore.open(store)) > 0
    (store / "manifest.json").read_bytes().decode("utf-8")
    for kind in ("import", "resize", "export"):
        assert main(command(kind, world, folder / os.fsdecode(kind.encode() + b"\xe9"))) == 0
    imported = folder / os.fsdecode(b"import\xe9")
    assert main(["report", str(imported), "--out", str(folder / "r.html")]) == 0
    assert main(["import", str(imported), "--out", str(folder / "again")]) == 0
    info = json.loads((folder / "again" / "run.json").read_text(encoding="utf-8"))
    assert info["imported"]["source"] == str(imported)


def test_a_module_of_the_calling_folder_is_never_executed(world, tmp_path, monkeypatch):
    for name in ("random", "struct", "logging", "sentencepiece", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ingest, "PACKET_RECORDS", 1)
    (tmp_path / "lines.jsonl").write_text('{"text": "a b c"}\n' * 3)
    assert main(command("tokenizer", world, tmp_path / "tok")) == 0
    words = ["data", "build", "lines.jsonl", "--tokenizer", str(world / "tok"), "--out", "store",
             "--num-workers", "2"]  # fmt: skip
    assert main(words) == 0
    assert not (tmp_path / "executed").exists()
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.parametrize("name", ["run.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "null", '{"version": 1}', '{"version": 10000000000000}',
                '{"version": "1"}', '{"version": true}', "\ufeff{}", "[" * 5000, "9" * 5000],
)  # fmt: skip
def test_a_broken_description_is_one_sentence_that_names_it(name, content, world, tmp_path, capsys):
    make_run(tmp_path / "run", world / "tok")
    (tmp_path / "run" / name).write_text(content, encoding="utf-8")
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    commands = [["fill", run, "a [MASK]"], ["resize", run, "--tokenizer", str(world / "tok"),
                "--out", out]]  # fmt: skip
    if name == "run.json":
        commands += [
            ["info", run],
            ["report", run, "--out", out],
            ["import", run, "--out", out],
            ["pretrain", "tiny", "--data", str(world / "store"), "--out", run, "--resume"],
        ]
    for words in commands:
        assert name.split("/")[-1] in refused(words, capsys), words
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["config", "data", "tokenizer", "started", "hardware"])
@pytest.mark.parametrize("value", [7, "x", [1], {"model": 3}])
def test_a_field_of_another_type_is_named(key, value, world, tmp_path, capsys):
    make_run(tmp_path / "run", world / "tok")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(info | {key: value}))
    capsys.readouterr()
    code = main(["info", str(tmp_path / "run")])
    err = capsys.readouterr().err
    assert code == (0 if (key, value) == ("started", "x") else 2)
    assert code == 0 or f"run.json is damaged, or another's: its '{key}" in err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 1}', '{"accuracy": 0.5}'])
def test_an_evaluation_that_is_not_ours_is_not_replaced(content, world, tmp_path, capsys):
    make_run(tmp_path / "run", world / "tok")
    (tmp_path / "run" / "evaluation.json").write_text(content)
    words = ["evaluate", str(tmp_path / "run"), "--data", str(world / "store")]
    assert "evaluation.json" in refused(words, capsys)
    assert (tmp_path / "run" / "evaluation.json").read_text() == content


def test_too_many_open_files_is_one_sentence(world, tmp_path):
    (tmp_path / "lines.jsonl").write_text(('{"text": "' + "a b c " * 100 + '"}\n') * 4000)
    words = [sys.executable, "-m", "blankfill", "data", "build", str(tmp_path / "lines.jsonl"),
             "--tokenizer", str(world / "tok"), "--out", str(tmp_path / "out")]  # fmt: skip
    for limit in (10, 13, 17):
        done = subprocess.run(
            ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", *words], stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0 and limit > 10:  # one core encodes without a pool's files
            shutil.rmtree(tmp_path / "out")
            continue
        assert done.returncode == 2, (limit, done.stderr)
        assert "ulimit -n" in done.stderr
        assert os.listdir(tmp_path) == ["lines.jsonl"]


def start_build(world, out, *, ignoring=False):
    words = [sys.executable, "-m", "blankfill", "data", "build", "-", "--tokenizer",
             str(world / "tok"), "--out", str(out)]  # fmt: skip
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignoring else signal.SIG_DFL)
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGHUP, before)
    for _ in range(600):
        if any(name.endswith(".tmp") for name in os.listdir(out.parent)):
            return process
        time.sleep(0.05)
    raise AssertionError("it never began")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_nothing_in_the_way(number, world, tmp_path):
    process = start_build(world, tmp_path / "store")
    process.send_signal(number)
    process.communicate()
    if number == signal.SIGKILL:
        assert len(os.listdir(tmp_path)) == 2
    else:
        assert process.returncode == 128 + number
        assert os.listdir(tmp_path) == []
    assert main(command("store", world, tmp_path / "store")) == 0
    assert os.listdir(tmp_path) == ["store"]


def test_a_build_under_nohup_outlives_its_terminal(world, tmp_path):
    process = start_build(world, tmp_path / "store", ignoring=True)
    process.send_signal(signal.SIGHUP)
    process.communicate(b"a text that comes later")
    assert process.returncode == 0
    assert len(TokenStore.open(tmp_path / "store")) == 1


def test_a_folder_that_appears_during_a_build_stays(world, tmp_path):
    process = start_build(world, tmp_path / "late")
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "notes.txt").write_text("mine")
    process.communicate(b"a text that comes later")
    assert process.returncode == 2
    assert os.listdir(tmp_path / "late") == ["notes.txt"]
    assert len(TokenStore.open(tmp_path / "late-2")) == 1
    assert sorted(os.listdir(tmp_path)) == ["late", "late-2"]
