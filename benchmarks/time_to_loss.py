"""Wall time to the loss that the published recipe reaches, by recipe and seed.

    python benchmarks/time_to_loss.py --data en zh --validation en-valid zh-valid --preset small \
        --goal-minutes 60 --minutes 20 --seeds 1 2 3 --work runs/time

The published recipe (preset glm-tiny or glm-small) trains for the goal's minutes first: GLM's
mixture of short spans and documents, AdamW, a cosine, Pre-LN, learned positions, dropout. The
medians over its seeds of the loss at the end and of the seconds to it are the goal. The recipes
train for --minutes each (the goal's where it is not given); every one adds one change to the one
before it, in the order of RECIPES, and has as many steps as fit into its minutes uncompiled. All
are scored on the same held-out rows of the published mixture, on which all train. A line tells when
a recipe passed the goal, in seconds of preparation and training (saves and scores apart), and how
many times sooner that is; one that never does says so. Writes time-to-loss-PRESET-CPU-DATE.json
with every curve, anew after each.

All of it takes a day. --stop-at-goal ends a run that has passed the goal. --scores says how often
a run is scored, which takes as long as a few steps. --onto FILE takes the curves of an earlier
result of the same preset and processor, keeps them all, and trains only what it lacks: another
recipe, seed or number of minutes.
"""

import argparse
import itertools
import json
import math
import operator
import os
import shutil
import signal
import statistics
import time
from pathlib import Path

from result_file import result_path

from blankfill.config.objective import MIXTURES
from blankfill.config.presets import preset
from blankfill.config.run import RunConfig, from_dict, to_dict
from blankfill.runtime import cpu_name, tune
from model import versions

tune()

from blankfill.atomic import write_json  # noqa: E402
from blankfill.data.rows import RowSource  # noqa: E402
from blankfill.engine.device import choose_device, choose_precision  # noqa: E402
from blankfill.prepare import build_trainer  # noqa: E402
from blankfill.prepare.pace import measure_pace  # noqa: E402
from blankfill.train.validate import Validation, score_batches, validation_batches  # noqa: E402

COMMON = MIXTURES["glm-doc"]
SCORED_ROWS = 128
OURS = "as in our preset"
RECIPES = {
    "published": {},
    "no dropout, peak rate 2e-3": {"model.dropout": 0.0, "schedule.peak_lr": 2e-3},
    "article's blocks": dict.fromkeys(
        ("model.block", "model.positions", "model.activation", "model.max_position",
         "model.ffn_size"), OURS
    ),
    "Muon": dict.fromkeys(
        ("optimizer.kind", "optimizer.muon_momentum", "schedule.peak_lr", "optimizer.beta2",
         "optimizer.eps"), OURS,
    ),
    "linear to zero": dict.fromkeys(("schedule.kind", "schedule.min_lr_ratio"), OURS),
    "embedding from neighbours": dict.fromkeys(
        ("train.embedding_init", "optimizer.embedding_lr_ratio"), OURS
    ),
    "QK-norm": {"model.qk_norm": True},
    "compiled": {"train.compile": "on"},
}  # fmt: skip
"""What each recipe changes in the one before it; the first is the preset as published."""


class Clock:
    """Scores the same rows at every validation, and keeps the seconds of training before it."""

    def __init__(self, cfg, tokenizer, stores, until):
        source = RowSource(stores, COMMON, tokenizer.ids, row_length=cfg.train.row_length, seed=0)
        self._batches = validation_batches(
            source, max_rows=SCORED_ROWS, micro_batch_rows=cfg.train.micro_batch_rows
        )
        self._dtype = choose_precision(cfg.train.precision, choose_device(cfg.train.device))
        self.curve, self._seconds, self._mark = [], 0.0, time.monotonic()
        self._until = until

    def __call__(self, model):
        self._seconds += time.monotonic() - self._mark if self.curve else 0.0
        values = score_batches(model, self._batches, self._dtype, prefix="common_")
        self.curve.append((self._seconds, values["common_loss_nats"]))
        if values["common_loss_nats"] <= self._until:
            signal.raise_signal(signal.SIGINT)
        self._mark = time.monotonic()
        return Validation(values=values)


def main():
    args = parse_args()
    record = {
        "cpu": cpu_name(), "cores": os.cpu_count(), "versions": versions(), "preset": args.preset,
        "goal_minutes": args.goal_minutes, "curves": read_curves(args) if args.onto else [],
        "changes": {name: changes_of(args.preset, name) for name in RECIPES},
    }  # fmt: skip
    path = result_path(args.out, f"time-to-loss-{args.preset}")

    def curves_of(name, minutes, seeds, until=-math.inf):
        curves = []
        for seed in seeds:
            run = {
                "recipe": name, "minutes": minutes, "seed": seed,
                "config": written(configure(args.preset, name, seed)),
            }  # fmt: skip
            found = (old["curve"] for old in record["curves"] if old | run == old)
            curve = next(found, None)
            if curve is None:
                curve = train(args, run, until)
                record["curves"].append(run | {"curve": curve})
            write_json(path, record)
            curves.append(curve)
        return curves

    published = curves_of("published", args.goal_minutes, args.goal_seeds or args.seeds)
    goal = [statistics.median(ends) for ends in zip(*(c[-1] for c in published), strict=True)]
    print(
        f"published, {args.goal_minutes:g} min: {goal[1]:.4f} nats in {goal[0]:.0f} s", flush=True
    )
    until = goal[1] if args.stop_at_goal else -math.inf
    for name in args.recipes:
        curves = curves_of(name, args.minutes or args.goal_minutes, args.seeds, until)
        print(line(name, curves, goal), flush=True)
    print(f"wrote {path}")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--data", "--validation"):
        parser.add_argument(name, type=Path, nargs="+", required=True)
    parser.add_argument("--preset", choices=("tiny", "small"), default="small")
    parser.add_argument("--goal-minutes", type=float, default=60.0)
    parser.add_argument("--goal-seeds", type=int, nargs="+", help="those of --seeds if absent")
    parser.add_argument("--minutes", type=float, help="of each recipe but the goal")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=[*RECIPES][1:])
    parser.add_argument("--scores", type=int, default=16, help="of each run, after the first")
    parser.add_argument("--stop-at-goal", action="store_true")
    parser.add_argument("--onto", type=Path, help="an earlier result to go on with")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def read_curves(args):
    """Give all curves of an earlier result of this preset and processor."""
    record = json.loads(args.onto.read_text(encoding="utf-8"))
    was, now = (record["preset"], record["cpu"]), (args.preset, cpu_name())
    if was != now:
        raise SystemExit(f"{args.onto} has {' on '.join(was)}, this is {' on '.join(now)}; "
                         "leave out --onto here")  # fmt: skip
    return [
        run | {"config": written(from_dict(RunConfig, run["config"]))} if "config" in run else run
        for run in record["curves"]
    ]


def train(args, run, until):
    """Train one recipe with one seed; give [seconds of training, common loss] along the way.

    It ends as after a Ctrl-C where the loss falls to `until`.
    """
    cfg = configure(args.preset, run["recipe"], run["seed"])
    out = args.work / f"{run['recipe'].replace(' ', '-')}-{run['minutes']:g}-{run['seed']}"
    shutil.rmtree(out, ignore_errors=True)  # what was interrupted begins again
    clocks = []

    def check(*parts):
        clocks.append(Clock(*parts, until))
        return clocks[-1]

    def build(cfg, folder):
        return build_trainer(
            cfg, data=args.data, run=folder, validation=args.validation, check_blanks=check
        )

    pace = measure_pace(cfg, build, out)
    steps = max(args.scores, round(run["minutes"] * 60 / pace.step_seconds))
    cfg = cfg.changed({
        "train.steps": steps, "schedule.warmup_steps": max(1, steps // 25), "validation.blanks": 1,
        "schedule.decay_steps": steps if cfg.schedule.decay_steps else 0,
        "validation.every": -(-steps // args.scores), "checkpoint.every": steps,
    })  # fmt: skip
    start = time.monotonic()
    trainer = build(cfg, out)
    prepared = time.monotonic() - start
    trainer.fit()
    return [[prepared + seconds, loss] for seconds, loss in clocks[-1].curve]


def configure(preset_name, name, seed):
    """Give the published preset with the changes of all recipes up to this one."""
    cfg = preset(f"glm-{preset_name}").changed({"train.compile": "off", "train.seed": seed})
    for recipe in RECIPES:
        cfg = cfg.changed(changes_of(preset_name, recipe))
        if recipe == name:
            break
    return cfg


def written(cfg):
    """Give a configuration as it is read from a result."""
    return json.loads(json.dumps(to_dict(cfg)))


def changes_of(preset_name, recipe):
    """Give a recipe's fields and values."""
    ours = preset(preset_name)
    return {
        field: operator.attrgetter(field)(ours) if value is OURS else value
        for field, value in RECIPES[recipe].items()
    }


def line(name, curves, goal):
    """Say a recipe's last score, and how much sooner than the goal it passed the goal's loss."""
    seconds, loss = goal
    sooner = [seconds / reached for curve in curves if (reached := passes(curve, loss))]
    text = f"{name:34} last score {statistics.median(curve[-1][1] for curve in curves):.4f} nats, "
    if len(sooner) < len(curves):
        return f"{text}passes the goal in {len(sooner)} of {len(curves)} seeds"
    return (f"{text}{statistics.median(sooner):.2f} x sooner "
            f"({min(sooner):.2f} to {max(sooner):.2f})")  # fmt: skip


def passes(curve, loss):
    """Give the seconds after which a curve falls to a loss, between its points in a line."""
    for (before, high), (after, low) in itertools.pairwise(curve):
        if low <= loss:
            return before + (after - before) * (high - loss) / (high - low)
    return None


if __name__ == "__main__":
    main()
