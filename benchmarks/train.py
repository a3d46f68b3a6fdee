"""Measure whole training steps on this CPU beside nanoGPT and transformers, each at its fastest.

    python benchmarks/train.py --nanogpt NANOGPT/model.py --sizes 5M 25M --threads 2 1

A step is forward, backward, clipping and AdamW on 4,096 positions (2,048 of the 110 M model), with
products in --precision: where not given, bfloat16 if this CPU multiplies it, else float32. Every
contender runs as it is and compiled, in processes of their own, and its fastest form counts; a peer
in float32 too, should it be faster so. Two tables of ratios: all positions as targets, like for
like; and GLM's mixture, where 30 % are. Then rows of 2,048 with packed documents against rows of
512, and against the same rows under a dense mask and under SDPA's. Memory is the process's peak.

nanoGPT is one file of a checkout; without it, or without transformers, that peer is left out.
Medians of at least five steps. --rounds measures the faster forms of a table again, in turn, and
takes the median of the rounds: a machine's speed may drift meanwhile. Writes
train-PRECISION-CPU-DATE.json.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

from result_file import result_path

from blankfill.engine.device import choose_precision
from blankfill.runtime import available_cores, cpu_name
from model import SHAPES, child, versions

SHAPES = SHAPES | {
    "110M": {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "ffn_size": 2048}
}
ROWS = {"5M": (256, 4096), "25M": (512, 4096), "110M": (512, 2048)}
"""Row length and positions of a step."""
OURS = {"ours, all targets": 1.0, "ours, 30 % targets": 0.3}
PEERS = {"nanoGPT": "nanogpt", "transformers GPT-2": "gpt2", "transformers Llama": "llama"}
PACKED = {
    "ours, 30 % targets": ("blocks", 2048),
    "ours, rows of 512, 30 % targets": ("blocks", 512),
    "ours, dense mask, 30 % targets": ("dense", 2048),
    "ours, SDPA with a mask, 30 % targets": ("sdpa", 2048),
}
"""Way of attention and row length."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="model.py of a checkout of nanoGPT")
    parser.add_argument(
        "--sizes",
        nargs="*",
        choices=SHAPES,
        default=list(SHAPES),
        help="none: the rows of 2,048 alone",
    )
    parser.add_argument("--threads", type=int, nargs="*", default=[available_cores(), 1])
    parser.add_argument("--precision", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=1, help="times in turn")
    parser.add_argument("--no-packed", action="store_true", help="leave rows of 2,048 out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    found = versions()
    peers = {
        name: kind
        for name, kind in PEERS.items()
        if (args.nanogpt if kind == "nanogpt" else "transformers" in found)
    }
    precision = str(choose_precision(args.precision)).removeprefix("torch.")
    print(f"{cpu_name()}, {precision}, {found}")
    results = []
    path = result_path(args.out, f"train-{precision}")
    for threads in args.threads:
        for size in args.sizes:
            common = (args, size, threads, *ROWS[size])
            measured = measure({
                name: job_of(*common, model="glm", attention="blocks", share=share)
                for name, share in OURS.items()
            } | {
                name: job_of(*common, model=kind, attention="sdpa", share=1.0)
                for name, kind in peers.items()
            }, precision, args.rounds)  # fmt: skip
            best = max((measured[name] for name in peers), key=rate, default=None)
            results += show(f"{size}, row {ROWS[size][0]}", threads, measured, best)
            save(path, precision, found, results)
        if not args.no_packed:
            measured = measure({
                name: job_of(args, "25M", threads, row_length, ROWS["25M"][1], model="glm",
                             attention=attention, share=0.3)
                for name, (attention, row_length) in PACKED.items()
            }, precision, args.rounds)  # fmt: skip
            against = measured["ours, SDPA with a mask, 30 % targets"]
            results += show("25M, row 2048", threads, measured, against)
            save(path, precision, found, results)
    print(f"wrote {path}")


def save(path, precision, found, results):
    """Write what is measured so far: all of it takes an hour."""
    record = {
        "cpu": cpu_name(), "precision": precision, "versions": found, "load": os.getloadavg()[0],
        "results": results,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def job_of(args, size, threads, row_length, positions, **contender):
    """Say what a contender's process does."""
    return {
        **contender, "what": "step", "size": size, "shape": SHAPES[size], "threads": threads,
        "row_length": row_length, "positions": positions, "repeats": args.repeats,
        "nanogpt": str(args.nanogpt),
    }  # fmt: skip


def measure(jobs, precision, rounds):
    """Measure all forms of each contender; then the fastest of each again, in turn."""
    measured = {}
    for name, job in jobs.items():
        peer = job["model"] != "glm"
        forms = [
            {"precision": each, "compile": compiled}
            for each in ([precision, "float32"] if peer and precision != "float32" else [precision])
            for compiled in (False, True)
        ]
        measured[name] = max(({**child({**job, **form}), **form} for form in forms), key=rate)
    taken = {name: [result["seconds"]] for name, result in measured.items() if rate(result)}
    for _ in range(rounds - 1):
        for name, seconds in taken.items():
            form = {key: measured[name][key] for key in ("precision", "compile")}
            seconds.append(child({**jobs[name], **form})["seconds"])
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        measured[name] |= {
            "seconds": median, "positions_per_second": jobs[name]["positions"] / median,
            "rounds": seconds,
        }  # fmt: skip
    return measured


def rate(result):
    return result.get("positions_per_second", 0.0)


def show(row, threads, measured, against):
    """Print one block of the table; ratios are to the best peer."""
    lines = []
    for name, result in measured.items():
        ratio = rate(result) / rate(against) if against and rate(against) else None
        lines.append({"row": row, "threads": threads, "contender": name, **result, "ratio": ratio})
        if "error" in result:
            print(f"{row:15} {threads} threads  {name:38} {result['error']}")
            continue
        form = f"{result['precision']}, {'compiled' if result['compile'] else 'as it is'}"
        times = f"{ratio:5.2f} x" if ratio else ""
        print(f"{row:15} {threads} threads  {name:38} {rate(result):9,.0f}/s  {form:18}  {times} "
              f"{result['peak_bytes'] / 2**30:6.2f} GiB", flush=True)  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
