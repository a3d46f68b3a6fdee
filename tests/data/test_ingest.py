import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from blankfill.data import ingest
from blankfill.data.ingest import build_store
from blankfill.data.store import TokenStore
from blankfill.errors import DataError
from blankfill.text.corpus import read_documents
from blankfill.text.tokenizer import Tokenizer
from conftest import small_corpus
from data.text_files import texts_of, write_lines
from shared import shared_path


def test_documents_come_back_as_text_in_the_order_of_the_input(tmp_path, tokenizer_folder):
    texts = small_corpus(50)
    path = write_lines(tmp_path / "a.jsonl", [*texts, " "])
    manifest, _, skips, _ = build_store([path, path], tokenizer_folder, tmp_path / "s")
    assert texts_of(tmp_path / "s") == texts + texts
    assert (manifest["documents"], skips.counts) == (100, {"empty": 2})
    assert manifest["by_language"]["zh"]["characters"] == 2 * sum(map(len, texts[1::2]))
    assert manifest["by_language"]["en"]["bytes"] == 2 * sum(len(t.encode()) for t in texts[::2])


def test_any_number_of_processes_builds_the_same_store(tmp_path, tokenizer_folder, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", small_corpus(300))
    monkeypatch.setattr(ingest, "PACKET_RECORDS", 20)
    manifests = [
        build_store([path], tokenizer_folder, tmp_path / f"s{n}", num_workers=n)[0] for n in (1, 3)
    ]
    assert manifests[0] == manifests[1]
    assert texts_of(tmp_path / "s3") == small_corpus(300)


def test_strict_names_the_first_unusable_line_and_leaves_nothing(tmp_path, tokenizer_folder):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{"text": 1}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        build_store([path], tokenizer_folder, tmp_path / "s", strict=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_empty_corpus_is_one_clear_sentence(tmp_path, tokenizer_folder):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"no document with text in .*a.txt"):
        build_store([tmp_path / "a.txt"], tokenizer_folder, tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_every_hostile_file_builds_a_store_or_is_refused(tmp_path, tokenizer_folder):
    num_refused = 0
    for path in sorted(shared_path("data/nasty").iterdir()):
        if "200k" in path.name:
            continue  # takes seconds; the test of the whole folder has it
        try:
            build_store([path], tokenizer_folder, tmp_path / "s", num_workers=1)
        except DataError:
            num_refused += 1
            assert list(tmp_path.iterdir()) == []
        else:
            if TokenStore.open(tmp_path / "s").num_tokens < 1_000_000:
                assert texts_of(tmp_path / "s") == [d.text for d in read_documents([path])]
            shutil.rmtree(tmp_path / "s")
    assert 25 < num_refused < 45


def test_a_folder_of_hostile_files_is_read_to_its_end(tmp_path, tokenizer_folder):
    skips = build_store([shared_path("data/nasty")], tokenizer_folder, tmp_path / "s").skips
    store = TokenStore.open(tmp_path / "s", verify=True)
    assert len(store) > 200_000
    assert skips.total > 500
    assert len(skips.first) == 20


COMMAND = """
import sys
from pathlib import Path
from blankfill.data import ingest
ingest.PACKET_RECORDS = 50
if __name__ == "__main__":
    print("start", flush=True)
    ingest.build_store([sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]), num_workers=2)
"""


def children(group):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{name}/cmdline") as file:
                command = file.read()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append((int(name), command))
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds processes under /proc")
@pytest.mark.parametrize("end", ["interrupt", "kill", "kill a worker"])
def test_no_process_outlives_a_build_that_is_ended(tmp_path, tokenizer_folder, end):
    script = tmp_path / "build.py"
    script.write_text(COMMAND)
    out = tmp_path / "out"
    out.mkdir()
    fifo = tmp_path / "endless.jsonl"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, str(script), str(fifo), str(tokenizer_folder), str(out / "s")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with open(fifo, "wb", buffering=0) as file:
        # Workers are at work once many packets have gone in; the input does not end.
        for _ in range(40):
            file.write(b'{"text": "some words of a text"}\n' * 200)
        time.sleep(0.5)
        workers = [pid for pid, command in children(process.pid) if "spawn_main" in command]
        assert len(workers) == 2
        if end == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        elif end == "kill":
            process.kill()
        else:
            os.kill(workers[0], signal.SIGKILL)
            with contextlib.suppress(BrokenPipeError):  # the reader goes away
                for _ in range(10_000):
                    file.write(b'{"text": "some words of a text"}\n' * 200)
                    time.sleep(0.001)
    process.wait(20)
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    deadline = time.monotonic() + 10
    while children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children(process.pid) == []
    if end != "kill":
        assert list(out.iterdir()) == []
        assert ("KeyboardInterrupt" if end == "interrupt" else "has ended") in said


def test_an_interrupt_while_a_process_starts_is_not_lost_and_not_inherited():
    ask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with ingest._interrupts_held():
        child = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, check=True)
    assert child.stdout == b"True\n"
    with pytest.raises(KeyboardInterrupt), ingest._interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path, tokenizer_folder):
    path = tmp_path / "a.jsonl.gz"
    texts = small_corpus(20_000)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text * 5}) + "\n" for text in texts)
    command = (
        "import sys, resource; from pathlib import Path; from blankfill.data.ingest import "
        "build_store\nbuild_store(sys.argv[3:], Path(sys.argv[1]), Path(sys.argv[2]), "
        "num_workers=1)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for times in (1, 8):
        arguments = [str(tokenizer_folder), str(tmp_path / f"s{times}"), *[str(path)] * times]
        done = subprocess.run(
            [sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.2 * peaks[0]


def test_sentences_of_a_document_are_those_of_its_text(tmp_path, tokenizer_folder):
    text = "The old fox came. The dog slept.\n\n狐狸来了。狗睡着了。“走吧！”"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    build_store([tmp_path / "a.txt"], tokenizer_folder, tmp_path / "s")
    store = TokenStore.open(tmp_path / "s")
    found = []
    tokenizer = Tokenizer.load(tokenizer_folder)
    for i in range(len(store)):
        tokens, start = store.document(i), 0
        for end in store.sentence_ends(i, 0, len(tokens)):
            found.append(tokenizer.decode(tokens[start:end]))
            start = end
    assert "".join(found).split() == text.split()
    assert [s.strip() for s in found] == [
        "The old fox came.", "The dog slept.", "狐狸来了。", "狗睡着了。", "“走吧！”",
    ]  # fmt: skip
