"""Measure Muon's products in bfloat16 beside float32: loss after some steps, and time.

    python benchmarks/muon.py --data STORE --validation STORE --steps 150 --seeds 1 2 3

Loss: the preset `demo`, whose model computes in float32 in either run, trained for some steps on a
token store (the demo's own are in runs/demo/data), and its loss on held-out rows. Time: the
products of all matrices of a model, on one thread, as time of the processor, medians in turn.
Writes muon-CPU-DATE.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from result_file import result_path

from blankfill.runtime import cpu_name, tune

SHAPES = {"5M": (192, 512, 6), "25M": (384, 1024, 10), "110M": (768, 2048, 12)}
"""Hidden size, feed-forward size, layers."""
PRECISIONS = ("float32", "bfloat16")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    tune()
    import torch

    torch.set_num_threads(1)
    milliseconds = {size: measure_time(*shape) for size, shape in SHAPES.items()}
    print(json.dumps(milliseconds))
    losses = []
    for seed in args.seeds:
        for precision in PRECISIONS:
            nats = measure_loss(args, seed, precision)
            losses.append({"seed": seed, "precision": precision, "validation_loss_nats": nats})
            print(json.dumps(losses[-1]), flush=True)
    path = result_path(args.out, "muon")
    record = {
        "cpu": cpu_name(), "steps": args.steps, "losses": losses, "milliseconds": milliseconds,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def measure_time(hidden, ffn, layers):
    """Milliseconds of the products of all layers' matrices."""
    import torch

    from blankfill.optim.muon import orthogonalize

    shapes = [(hidden, hidden)] * 4 + [(ffn, hidden)] * 2 + [(hidden, ffn)]
    matrices = [torch.randn(shape) for shape in shapes]
    seconds = {name: [] for name in PRECISIONS}
    for _ in range(7):
        for name, times in seconds.items():
            start = time.thread_time()
            for matrix in matrices:
                orthogonalize(matrix, getattr(torch, name))
            times.append(time.thread_time() - start)
    return {name: 1e3 * layers * statistics.median(times) for name, times in seconds.items()}


def measure_loss(args, seed, precision):
    """Held-out loss after training with Muon's products in a precision."""
    import torch

    from blankfill.config.presets import preset
    from blankfill.engine import engine as module
    from blankfill.prepare.build import build_trainer

    cfg = preset("demo").changed({
        "train.steps": args.steps, "train.seed": seed, "train.precision": "float32",
        "train.threads": 1, "train.compile": "off", "checkpoint.every": args.steps,
        "validation.every": args.steps, "validation.blanks": 0,
    })  # fmt: skip
    module.lowest_precision = lambda _: getattr(torch, precision)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            cfg, data=[args.data], validation=[args.validation],
            run=Path(folder) / "run",
        )  # fmt: skip
        trainer.fit()
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line).get("validation_loss_nats") for line in lines]
    return [nats for nats in found if nats is not None][-1]


if __name__ == "__main__":
    main()
