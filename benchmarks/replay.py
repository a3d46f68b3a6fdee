"""Go on with a run on other text, without replay and with it, and see what is forgotten.

    python benchmarks/replay.py RUN --old general --new statutes --old-valid general-valid \
        --new-valid statutes-valid --steps 300 --replay 0.3 --picture docs/pictures/replay.png

Every continuation starts from RUN's newest weights with a fresh optimizer and schedule (--init) and
trains on the new stores alone, or with a share of its rows from the old ones (--replay). The score
of a kind of text is 1 / perplexity on its held-out rows, so "90 % kept" is a loss 0.105 nats above
that of RUN. Prints a table, draws the scores over steps, and writes replay-CPU-DATE.json.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import tempfile
from pathlib import Path

from result_file import cpu_label, result_path

from blankfill.api.pretrain import pretrain
from blankfill.config.run import RunConfig, from_dict
from blankfill.metrics import read_metrics

LOSS = "validation_loss_nats_source_"
VALIDATIONS = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    for name in ("--old", "--new"):
        parser.add_argument(name, type=Path, nargs="+", required=True, help="token stores")
        parser.add_argument(f"{name}-valid", type=Path, required=True, help="a held-out store")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--replay", type=float, nargs="+", default=[0.3])
    parser.add_argument("--peak-lr", type=float, help="RUN's where not given")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    cfg = config(args)
    curves = {}
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        for share in (0.0, *args.replay):
            curves[share] = continued(args, cfg, share, Path(folder) / f"{share:g}")
    table = [row(share, curve) for share, curve in curves.items()]
    print(f"{'replay':>8} {'old, nats':>20} {'old score kept':>15} {'new, nats':>20}")
    for r in table:
        old, new = ("{:9.3f} -> {:.3f}".format(*r[key]) for key in ("old_nats", "new_nats"))
        print(f"{r['replay']:8.0%} {old} {r['old_score_kept']:14.1%} {new}")
    if args.picture:
        draw(curves, args.picture)
    record = {
        "cpu": cpu_label(), "cores": os.cpu_count(), "python": platform.python_version(),
        "config": dataclasses.asdict(cfg), "table": table,
        "curves": {f"{share:g}": curve for share, curve in curves.items()},
    }  # fmt: skip
    path = result_path(args.results, "replay")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path)


def config(args):
    """The run's own configuration, shorter, and validated as the curves need it."""
    info = json.loads((args.run / "run.json").read_text(encoding="utf-8"))
    cfg = from_dict(RunConfig, info["config"])
    return cfg.changed({
        "train.steps": args.steps, "schedule.warmup_steps": args.steps // 10,
        "schedule.peak_lr": args.peak_lr or cfg.schedule.peak_lr,
        "validation.every": -(-args.steps // VALIDATIONS), "validation.blanks": 0,
        "train.compile": "off", "checkpoint.every": args.steps,
    })  # fmt: skip


def continued(args, cfg, share, out):
    """Train one continuation; give (step, nats on old text, on new text) of each validation."""
    replay = [Path(f"{store}:{share / len(args.old)}") for store in args.old] if share else []
    pretrain(
        "tiny", data=args.new, out=out, validation=[args.old_valid, args.new_valid], init=args.run,
        replay=replay, config=cfg,
    )  # fmt: skip
    return [(r["step"], r[LOSS + "0"], r[LOSS + "1"]) for r in read_metrics(out) if LOSS + "0" in r]


def row(share, curve):
    (_, old_before, new_before), (_, old, new) = curve[0], curve[-1]
    return {
        "replay": share,
        "old_nats": [old_before, old],
        "old_score_kept": math.exp(old_before - old),
        "new_nats": [new_before, new],
    }


def draw(curves, path):
    import matplotlib.pyplot as plt

    colours = ["#ee8866", "#4477aa", "#66ccee", "#228833"]
    figure, (old, new) = plt.subplots(1, 2, figsize=(10.4, 4.0), dpi=130)
    for (share, curve), colour in zip(curves.items(), colours, strict=False):
        steps, on_old, on_new = zip(*curve, strict=True)
        label = f"{share:.0%} of the rows from the old text" if share else "new text alone"
        kept = [100 * math.exp(on_old[0] - x) for x in on_old]
        old.plot(steps, kept, color=colour, marker="o", ms=4, label=label)
        new.plot(steps, on_new, color=colour, marker="o", ms=4, label=label)
    old.axhline(90, color="#999999", lw=1, ls=":")
    old.set(title="Old text: score kept", ylabel="% of 1 / perplexity", xlabel="optimizer step")
    new.set(title="New text", ylabel="nats per target, held-out rows", xlabel="optimizer step")
    for panel in (old, new):
        panel.grid(alpha=0.25)
        panel.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
