"""Opening a store of 10^12 tokens, and making rows of it anywhere: seconds and bytes.

The store is made of holes: one shard under as many names as there are shards, so that it takes a
few megabytes of disk. Seconds are those of the processor, so that other work on the machine matters
little; bytes are the growth of the process's memory (numpy and maps included).

    python benchmarks/store_at_scale.py --results benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from result_file import cpu_label, result_path

from blankfill.config.objective import ObjectiveConfig
from blankfill.data.rows import RowSource
from blankfill.data.store import TokenStore
from blankfill.objective.special import SpecialIds

IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
LENGTH = 1000
"""Tokens of a document."""
ROW_LENGTH = 2048
FAR = (1000, 100_000)
"""A window and its first row, as a checkpoint keeps them: nothing before it is planned."""


def make_store(folder: Path, shards: int, documents: int) -> None:
    """Write a store of holes."""
    shard, tokens = folder / "shard-00000", documents * LENGTH
    shard.mkdir(parents=True)
    (np.arange(documents + 1, dtype="<i8") * LENGTH).tofile(shard / "offsets.bin")
    sizes = {"tokens.bin": 2 * tokens, "sentences.bin": -(-tokens // 8), "languages.bin": documents}
    for name, size in sizes.items():
        with (shard / name).open("wb") as file:
            file.truncate(size)
    counts = {"documents": documents, "tokens": tokens, "pairs": 0}
    sums = dict.fromkeys((*sizes, "offsets.bin", "prompts.bin"), "0" * 64)
    entries = [
        {"name": f"shard-{k:05d}", **counts, "fingerprint": "0" * 64, "sha256": sums}
        for k in range(shards)
    ]
    for one in entries[1:]:
        (folder / one["name"]).symlink_to("shard-00000")
    manifest = {
        "format": "blankfill token store", "version": 4, "fingerprint": "0" * 64, "dtype": "<u2",
        "documents": shards * documents, "tokens": shards * tokens, "pairs": 0, "vocab_size": 500,
        "tokenizer": {"fingerprint": "f" * 64}, "languages": ["other"], "by_language": {},
        "shuffle_shards": max(1, 2**32 // tokens), "shards": entries,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def measure(shards: int, documents: int) -> dict[str, float]:
    """Open a store and make rows of it."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as name:
        make_store(Path(name), shards, documents)
        before, began = process.memory_info().rss, time.process_time()
        store = TokenStore.open(name)
        opened, ended = process.memory_info().rss, time.process_time()
        rows = RowSource([store], ObjectiveConfig(), IDS, row_length=ROW_LENGTH, seed=1)
        rows.rows(0, 8)
        first = time.process_time()
        rows.start_at([FAR])
        rows.rows(FAR[1], 8)
        far = time.process_time()
        return {
            "shards": shards, "documents": len(store), "tokens": store.num_tokens,
            "manifest_bytes": (Path(name) / "manifest.json").stat().st_size,
            "open_seconds": ended - began, "open_bytes": opened - before,
            "first_rows_seconds": first - ended, "far_rows_seconds": far - first,
            "bytes_after_rows": process.memory_info().rss - before,
        }  # fmt: skip


def main() -> None:
    """Measure a small store and one of 10^12 tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    stores = [measure(shards, 250_000) for shards in (40, 4000, 40_000)]
    for one in stores:
        print(json.dumps(one))
    record = {
        "cpu": cpu_label(), "python": platform.python_version(), "numpy": np.__version__,
        "row_length": ROW_LENGTH, "stores": stores,
    }  # fmt: skip
    path = result_path(args.results, "store_at_scale")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
