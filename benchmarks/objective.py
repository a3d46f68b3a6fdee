"""Measure blank infilling: documents' ids to packed batches, on one core, in one process.

    python benchmarks/objective.py --glm THUDM_GLM --t5 run_t5_mlm_flax.py

Ours: every row of an epoch through `RowSource.batch`, the plan included (kinds, lengths, packing,
places, rows), for each kind and mixture, on documents of mean 180 tokens and on long ones, beside
the plain path that builds example by example. The others, where their files are given: the released
sampler of GLM (`blocklm_utils.py: ConstructBlockStrategy`, one document of a row's length at once)
and the collator of transformers' T5 example (`FlaxDataCollatorForT5MLM`), run from those files.
The sides take turns; figures are medians over rounds. Writes objective-CPU-DATE.json.
"""

import argparse
import ast
import dataclasses
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
import types
from pathlib import Path

import numpy as np
from result_file import cpu_label, result_path

from blankfill.config.objective import MIXTURES, ObjectiveConfig
from blankfill.data.in_memory import InMemoryStore
from blankfill.data.rows import RowSource
from blankfill.objective import SpecialIds, draw_example
from blankfill.objective.pack import pack, stack

IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
VOCAB = 50_000
ROWS = 64
KINDS = {
    "short, fixed ratio": ObjectiveConfig(short_rate=1, document_rate=0, ratio_law="fixed"),
    "short": ObjectiveConfig(short_rate=1, document_rate=0),
    "sentence": ObjectiveConfig(short_rate=0, sentence_rate=1, document_rate=0),
    "document": ObjectiveConfig(short_rate=0, document_rate=1),
    "causal": ObjectiveConfig(short_rate=0, document_rate=0, causal_rate=1),
    "mixture ours": MIXTURES["ours"],
    "mixture glm-10b-512": dataclasses.replace(MIXTURES["glm-10b-512"]),
    "mixture glm-130b": MIXTURES["glm-130b"],
}


class Store(InMemoryStore):
    """Random ids; a sentence ends at every twentieth token."""

    has_sentences = True

    def __init__(self, lengths, seed=0):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(8, VOCAB, int(np.sum(lengths)))
        super().__init__(np.split(tokens, np.cumsum(lengths)[:-1]))
        self.marks = np.packbits(np.arange(len(tokens)) % 20 == 19, bitorder="little")
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])

    def sentence_ends(self, index, start, end):
        low = int(self.offsets[index]) + start
        bits = np.unpackbits(self.marks[low >> 3 : (low + end - start + 7) >> 3], bitorder="little")
        return np.flatnonzero(bits[low & 7 : (low & 7) + end - start]) + (start + 1)


def ours(store, cfg, row_length):
    """A whole epoch, its plan and every row of it."""
    seeds = iter(range(10**9))

    def epoch():
        source = RowSource([store], cfg, IDS, row_length=row_length, seed=next(seeds))
        start = time.perf_counter()
        for index in range(source.num_rows(0) // ROWS):
            source.rows(index * ROWS, ROWS)
        return store.num_tokens, time.perf_counter() - start

    return epoch


def plain(store, cfg, row_length):
    position = iter(range(10**9))

    def batch():
        examples, tokens = [], 0
        for _ in range(100):
            index = next(position)
            document = store.document(index % len(store)).astype(np.int32)[:1500]
            tokens += len(document)
            examples.append(draw_example(document, cfg, IDS, seed=0, epoch=0, index=index))
        rows = pack(np.array([len(e.tokens) for e in examples]), row_length)
        zeros = [0] * len(examples)
        members = [[examples[i] for i in row] for row in rows]
        stack(members, row_length, pad=0, documents=zeros, languages=zeros, sources=zeros)
        return tokens

    return batch


def released_glm(folder, row_length):
    """The released sampler, on one document of a row's length at a time."""
    np.long = np.int64  # the name it uses is gone from numpy
    stubs = {
        "mpu": {"get_data_parallel_rank": lambda: 0, "get_data_parallel_world_size": lambda: 1},
        "utils": {"print_rank_0": lambda *_: None},
        "scipy": {},
        "scipy.stats": {
            "poisson": types.SimpleNamespace(
                pmf=lambda k, mean: math.exp(-mean) * mean**k / math.factorial(k)
            )
        },
    }
    for name, members in stubs.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)
    spec = importlib.util.spec_from_file_location("blocklm", Path(folder) / "blocklm_utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    commands = {
        "MASK": 1, "sMASK": 2, "gMASK": 3, "sop": 4, "eop": 5, "eos": 6, "pad": 0, "dBLOCK": 7,
        "ENC": 8,
    }  # fmt: skip

    class Tokenizer:
        def get_command(self, name):
            return types.SimpleNamespace(Id=commands[name])

        def IdToToken(self, token):  # noqa: N802
            return "." if token % 20 == 0 else "x"

        def DecodeIds(self, tokens):  # noqa: N802
            return ""

    strategy = module.ConstructBlockStrategy(
        types.SimpleNamespace(eod_token=6), Tokenizer(), row_length, bert_prob=1.0
    )
    rng = np.random.default_rng(0)

    def batch():
        samples = [
            {
                "text": np.concatenate([[8], rng.integers(9, VOCAB, row_length - 1)]),
                "loss_mask": np.ones(row_length, np.int64),
            }
            for _ in range(4)
        ]
        start = time.perf_counter()
        strategy.construct_blocks(samples)
        return 4 * row_length, time.perf_counter() - start

    return batch


def transformers_t5(file, row_length):
    """The collator of transformers' T5 example, with numpy's sum in place of jax's."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    wanted = {"FlaxDataCollatorForT5MLM", "compute_input_and_target_lengths"}
    tree.body = [n for n in tree.body if getattr(n, "name", None) in wanted]

    def shift(labels, pad, start):
        shifted = np.zeros_like(labels)
        shifted[:, 1:], shifted[:, 0] = labels[:, :-1], start
        return np.where(shifted == -100, pad, shifted)

    namespace = {
        "np": np, "List": list, "Dict": dict, "PreTrainedTokenizerBase": object,
        "BatchEncoding": dict, "shift_tokens_right": shift,
        "flax": types.SimpleNamespace(
            struct=types.SimpleNamespace(dataclass=dataclasses.dataclass)
        ),
        "jax": types.SimpleNamespace(
            ops=types.SimpleNamespace(segment_sum=lambda _, ids: np.bincount(ids))
        ),
    }  # fmt: skip
    exec(compile(tree, str(file), "exec"), namespace)
    length, targets = namespace["compute_input_and_target_lengths"](row_length, 0.15, 3.0)
    collator = namespace["FlaxDataCollatorForT5MLM"](
        tokenizer=types.SimpleNamespace(vocab_size=VOCAB, eos_token_id=1), noise_density=0.15,
        mean_noise_span_length=3.0, input_length=row_length, target_length=targets, pad_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def batch():
        examples = [{"input_ids": rng.integers(9, VOCAB, length)} for _ in range(16)]
        start = time.perf_counter()
        collator(examples)
        return 16 * length, time.perf_counter() - start

    return batch


def timed(batch):
    start = time.perf_counter()
    done = batch()
    if isinstance(done, tuple):
        return done[0] / done[1]
    return done / (time.perf_counter() - start)


def plan_rates(stores, row_length):
    """How fast an epoch is planned, and how full its rows are."""
    plans = {}
    for name, store in stores.items():
        start = time.perf_counter()
        source = RowSource([store], MIXTURES["ours"], IDS, row_length=row_length, seed=5)
        rows = source.num_rows(0)
        tokens = store.num_tokens
        seconds = time.perf_counter() - start
        whole = source.rows(0, rows)
        plans[name] = {
            "tokens": tokens, "planning_tokens_per_second": tokens / seconds, "rows": rows,
            "fill": float((whole.segment_ids >= 0).mean()),
        }  # fmt: skip
    return plans


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glm", type=Path, help="a checkout of the released GLM")
    parser.add_argument("--t5", type=Path, help="transformers' run_t5_mlm_flax.py")
    parser.add_argument("--row-length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(1)
    stores = {
        "documents of mean 180": Store(np.maximum(1, rng.gamma(2, 90, 40_000)).astype(int)),
        "documents of mean 1,500": Store(np.maximum(1, rng.gamma(2, 750, 6_000)).astype(int)),
    }
    sides = {
        f"{kind}, {name}": ours(store, cfg, args.row_length)
        for name, store in stores.items()
        for kind, cfg in KINDS.items()
    }
    sides["plain path, documents of mean 180"] = plain(
        stores["documents of mean 180"], MIXTURES["ours"], args.row_length
    )
    if args.glm:
        sides["released GLM sampler, short"] = released_glm(args.glm, args.row_length)
    if args.t5:
        sides["transformers T5 collator"] = transformers_t5(args.t5, args.row_length)
    rates = {name: [] for name in sides}
    for batch in sides.values():
        timed(batch)  # takes memory from the kernel
    for _ in range(args.rounds):
        for name, batch in sides.items():
            rates[name].append(timed(batch))
    plans = plan_rates(stores, args.row_length)
    table = {
        name: {
            "tokens_per_second": round(statistics.median(values)),
            "quartiles": [round(q) for q in statistics.quantiles(values, n=4)[::2]],
        }
        for name, values in rates.items()
    }
    for name, row in table.items():
        print(f"{name:55} {row['tokens_per_second'] / 1e6:8.2f} M tokens/s")
    for name, row in plans.items():
        print(f"plan, {name:49} {row['planning_tokens_per_second'] / 1e6:8.2f} M tokens/s", row)
    record = {
        "cpu": cpu_label(), "python": platform.python_version(), "numpy": np.__version__,
        "cores_used": 1,
        "row_length": args.row_length, "rows_per_batch": ROWS, "rounds": args.rounds,
        "sides": table, "plans": plans,
    }  # fmt: skip
    path = result_path(args.results, "objective")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
