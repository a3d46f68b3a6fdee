"""Measure generation: one text, 32 texts, and 8 blanks of one text, beside an earlier source.

    python benchmarks/generate.py --before ../earlier/src --threads 2 --sizes 5M 25M

Models of random weights; every fill has a given length, so that both sides do the same work. Each
side runs in a process of its own, in turn, and what is written is the median of the rounds, as time
on the clock and as time of the processor. Writes generate-CPU-DATE.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from result_file import result_path

from blankfill.runtime import cpu_name

SIZES = {"5M": (192, 6, 4), "25M": (384, 10, 6), "110M": (768, 12, 12)}
"""Hidden size, layers, heads."""
VOCABULARY = 16_384
NEW_TOKENS = 48


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="src of an earlier revision")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps({size: measure(size, args.threads) for size in args.sizes}))
        return
    sides = {"now": Path(__file__).parents[1] / "src"}
    if args.before is not None:
        sides = {"before": args.before} | sides
    found = {side: [] for side in sides}
    for number in range(args.rounds):
        for side, source in sides.items():
            found[side].append(ask(source, args))
            print(f"round {number + 1}, {side}: {json.dumps(found[side][-1])}", flush=True)
    record = {
        "cpu": cpu_name(), "threads": args.threads, "rounds": args.rounds,
        "vocabulary": VOCABULARY, "medians": {side: medians(all_) for side, all_ in found.items()},
    }  # fmt: skip
    path = result_path(args.out, "generate")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def ask(source, args):
    """Measure one source tree in a process of its own."""
    command = [sys.executable, __file__, "--child", "--threads", str(args.threads), "--sizes"]
    environment = os.environ | {"PYTHONPATH": str(source.resolve())}
    done = subprocess.run(
        [*command, *args.sizes], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def medians(rounds):
    """The median of each number over the rounds."""
    return {
        size: {
            name: statistics.median(one[size][name] for one in rounds) for name in rounds[0][size]
        }
        for size in rounds[0]
    }


def measure(size, threads):
    """Milliseconds a token of one size, by the work that is done."""
    import numpy as np
    import torch

    from blankfill.config.objective import ObjectiveConfig
    from blankfill.config.run import RunConfig
    from blankfill.config.train import TrainConfig
    from blankfill.generate import LanguageModel, fill_tokens
    from blankfill.model.glm import GLM
    from blankfill.model.init import init_weights
    from blankfill.objective.special import SpecialIds

    torch.set_num_threads(threads)
    cfg = model_config(size)
    model = GLM(cfg).eval()
    init_weights(model, 0)
    ids = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)

    class OnlyIds:
        vocab_size = VOCABULARY

    tokenizer = OnlyIds()
    tokenizer.ids = ids
    run = RunConfig(
        model=cfg, objective=ObjectiveConfig(positions="corrupted"),
        train=TrainConfig(row_length=cfg.max_position),
    )  # fmt: skip
    lm = LanguageModel(model=model, tokenizer=tokenizer, cfg=run)
    rng = np.random.default_rng(0)

    def text(length, blanks=1):
        tokens = rng.integers(8, VOCABULARY, length).astype(np.int32)
        tokens[np.linspace(1, length - 1, blanks).astype(int)] = ids.mask
        return tokens

    one = [text(40)]
    many = [text(int(n)) for n in rng.integers(20, 60, 32)]
    lengths = [int(n) for n in rng.integers(8, NEW_TOKENS, 32)]
    eight = [text(60, blanks=8)]
    works = {
        "one text": (one, [NEW_TOKENS], NEW_TOKENS),
        "32 texts": (many, lengths, sum(lengths)),
        "8 blanks": (eight, [6], 8 * 6),
    }
    result = {}
    for name, (prompts, held, tokens) in works.items():
        fill_tokens(lm, prompts, lengths=held)
        clock, processor = [], []
        for _ in range(3):
            starts = time.perf_counter(), time.process_time()
            fill_tokens(lm, prompts, lengths=held)
            clock.append(time.perf_counter() - starts[0])
            processor.append(time.process_time() - starts[1])
        result[f"{name}: milliseconds a token"] = 1e3 * min(clock) / tokens
        result[f"{name}: milliseconds of the processor a token"] = 1e3 * min(processor) / tokens
    return result


def model_config(size):
    """The shape of a size."""
    from blankfill.config.model import ModelConfig

    hidden, layers, heads = SIZES[size]
    return ModelConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_layers=layers, num_heads=heads,
        ffn_size=8 * hidden // 3, max_position=512,
    )  # fmt: skip


if __name__ == "__main__":
    main()
