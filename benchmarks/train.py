"""Measure whole training steps on this CPU beside nanoGPT and transformers, each at its fastest.

    python benchmarks/train.py --nanogpt NANOGPT/model.py --sizes 5M 25M --threads 2 1

A step is forward, backward, clipping and AdamW on 4,096 positions (2,048 of the 110 M model), in
the precision that training chooses here. Every contender runs as it is and compiled, in processes
of their own, and its faster form counts. Two tables of ratios: all positions as targets, like for
like; and GLM's mixture, where 30 % are. Then rows of 2,048 with packed documents against rows of
512, and against the same rows under a dense mask and under SDPA's. Memory is the process's peak.

nanoGPT is one file of a checkout; without it, or without transformers, that peer is left out.
Medians of at least five steps. Writes train-CPU-DATE.json.
"""

import argparse
import json
import os
from pathlib import Path

from result_file import result_path

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
    "ours, 30 % targets": ("blocks", 0.3),
    "ours, dense mask, 30 % targets": ("dense", 0.3),
    "ours, SDPA with a mask, 30 % targets": ("sdpa", 0.3),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="model.py of a checkout of nanoGPT")
    parser.add_argument("--sizes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", type=int, nargs="*", default=[available_cores(), 1])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-packed", action="store_true", help="leave rows of 2,048 out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    found = versions()
    peers = {
        name: kind
        for name, kind in PEERS.items()
        if (args.nanogpt if kind == "nanogpt" else "transformers" in found)
    }
    print(f"{cpu_name()}, {found}")
    results = []
    path = result_path(args.out, "train")
    for threads in args.threads:
        for size in args.sizes:
            common = {"size": size, "threads": threads}
            measured = {}
            for name, share in OURS.items():
                job = {"model": "glm", "attention": "blocks", "share": share}
                measured[name] = fastest(args, {**common, **job}, *ROWS[size])
            for name, kind in peers.items():
                job = {"model": kind, "attention": "sdpa", "share": 1.0}
                measured[name] = fastest(args, {**common, **job}, *ROWS[size])
            best = max((measured[name] for name in peers), key=rate, default=None)
            results += show(f"{size}, row {ROWS[size][0]}", threads, measured, best)
            save(path, found, results)
        if not args.no_packed and "25M" in args.sizes:
            common = {"size": "25M", "threads": threads, "model": "glm"}
            measured = {
                name: fastest(
                    args, {**common, "attention": attention, "share": share}, 2048, ROWS["25M"][1]
                )
                for name, (attention, share) in PACKED.items()
            }
            against = measured["ours, SDPA with a mask, 30 % targets"]
            results += show("25M, row 2048", threads, measured, against)
            save(path, found, results)
    print(f"wrote {path}")


def save(path, found, results):
    """Write what is measured so far: all of it takes an hour."""
    record = {
        "cpu": cpu_name(), "versions": found, "load": os.getloadavg()[0], "results": results,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def fastest(args, job, row_length, positions):
    """Measure a contender as it is and compiled; give the faster one."""
    forms = []
    for compiled in (False, True):
        result = child({
            **job, "what": "step", "shape": SHAPES[job["size"]], "compile": compiled,
            "row_length": row_length, "positions": positions, "repeats": args.repeats,
            "nanogpt": str(args.nanogpt),
        })  # fmt: skip
        forms.append({**result, "compiled": compiled})
    return max(forms, key=rate)


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
        form = "compiled" if result["compiled"] else "as it is"
        times = f"{ratio:5.2f} x" if ratio else ""
        print(f"{row:15} {threads} threads  {name:38} {rate(result):9,.0f}/s  {form}  {times} "
              f"{result['peak_bytes'] / 2**30:6.2f} GiB", flush=True)  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
