"""Measure reading, tokenizing and storing text.

    python benchmarks/text.py CORPUS... --tokenizer tok16k --tokenizer tok150k
    python benchmarks/text.py CORPUS... --train 16384 --train 150000
    python benchmarks/text.py CORPUS...

Of each file: megabytes of text read in a second of the processor's time (which a busy machine
changes less than the clock's), the best of three. For each tokenizer: pieces by script, characters
and bytes per token by language, documents that come back exactly, encoding speed of one process.
With the first tokenizer: time and peak memory (resident memory of all its processes, summed) of
building a store from the corpus, and from the corpus ten times over. With --train: time and peak
memory of training, balanced. Writes text-CPU-DATE.json into the folder of results; figures of
several runs of a day are merged.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from result_file import cpu_label, result_path

from blankfill.api.data import data_info
from blankfill.api.tokenizer import tokenizer_info
from blankfill.text.corpus import read_documents
from blankfill.text.tokenizer import Tokenizer

ENCODED_BYTES = 20_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokenizer", action="append", default=[], type=Path)
    parser.add_argument("--train", action="append", default=[], type=int)
    parser.add_argument("--out", type=Path, help="keep what was trained here")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    files = list(map(str, args.files))
    figures = {"read_megabytes_per_cpu_second": {Path(f).name: reading_speed(f) for f in files}}
    with tempfile.TemporaryDirectory(dir=args.out) as name:
        scratch = Path(name)
        tokenizers = list(args.tokenizer)
        for size in args.train:
            folder = (args.out or scratch) / f"tok-{size}"
            command = ["tokenizer", "train", *files, "--vocab-size", str(size), "--out", folder]
            figures[f"train {size}"] = run_blankfill(command)
            tokenizers.append(folder)
        for folder in tokenizers:
            info = tokenizer_info(folder, files)
            figures[f"tokenizer {info.vocab_size}"] = {
                **dataclasses.asdict(info),
                "path": folder.name,
                "encode_megabytes_per_second": encoding_speed(folder, files),
                "training": Tokenizer.load(folder).manifest["training"],
            }
        for times in (1, 10) if tokenizers else ():
            out = scratch / f"store-{times}"
            command = ["data", "build", *(files * times), "--tokenizer", tokenizers[0]]
            figures[f"build {times} x"] = {
                **run_blankfill([*command, "--out", out]),
                **{k: getattr(data_info(out), k) for k in ("documents", "tokens")},
                "megabytes": sum(c.bytes for c in data_info(out).languages.values()) / 1e6,
            }
    write(args.results, files, figures)


def run_blankfill(arguments):
    """Run a command; return its time and the peak of its processes' resident memory."""
    command = [sys.executable, "-m", "blankfill", *map(str, arguments), "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = [0]

    def watch():
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            try:
                for member in (parent, *parent.children(recursive=True)):
                    total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            peak[0] = max(peak[0], total)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        sys.exit(f"{' '.join(command)} failed")
    seconds = time.perf_counter() - started
    watcher.join()
    return {"seconds": round(seconds, 2), "peak_megabytes": round(peak[0] / 1e6, 1)}


def reading_speed(path):
    rates = []
    for _ in range(3):
        started = time.process_time()
        size = sum(document.num_bytes for document in read_documents([path]))
        rates.append(size / 1e6 / (time.process_time() - started))
    return round(max(rates), 1)


def encoding_speed(folder, files):
    tokenizer = Tokenizer.load(folder)
    texts, size = [], 0
    for path in files:
        share = 0
        for document in read_documents([path]):
            texts.append(document.text)
            size += document.num_bytes
            share += document.num_bytes
            if share >= ENCODED_BYTES / len(files):
                break
    started = time.perf_counter()
    for text in texts:
        tokenizer.encode(text)
    return round(size / 1e6 / (time.perf_counter() - started), 2)


def write(folder, files, figures):
    path = result_path(folder, "text")
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    result = {
        "cpu": cpu_label(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": old.get("load_before", os.getloadavg()[0]),
        "files": [Path(name).name for name in files],
        **{key: value for key, value in old.items() if key.startswith(("train", "tokenizer", "b"))},
        **figures,
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
