"""Wall time to the loss that the published recipe reaches, by recipe and seed.

    python benchmarks/time_to_loss.py --data en zh --validation en-valid zh-valid --preset small \
        --minutes 60 --seeds 1 2 3 --work runs/time

The published recipe (preset glm-tiny or glm-small) trains for the given minutes first: GLM's
mixture of short spans and documents, AdamW, a cosine, Pre-LN, learned positions, dropout. Every
other recipe adds one change to the one before it, in the order of RECIPES, and trains for as many
steps as fit into the same minutes uncompiled. All are scored on the same held-out rows of the
published mixture, on which all train. A line tells when a recipe passed the published end loss, in
seconds of preparation and training (saves and scores apart), and how many times sooner that is; one
that never does says so. Writes time-to-loss-CPU-DATE.json with every curve.

All of it takes a day. The curve of each recipe and seed stays under --work, and the same command,
or one with more recipes or seeds, goes on behind the last that is complete.
"""

import argparse
import dataclasses
import itertools
import json
import operator
import os
import shutil
import statistics
import time
from pathlib import Path

from result_file import result_path

from blankfill.config.objective import MIXTURES
from blankfill.config.presets import preset
from blankfill.config.run import to_dict
from blankfill.runtime import cpu_name, tune_process
from model import versions

tune_process()

from blankfill.checkpoint import write_json  # noqa: E402
from blankfill.data.rows import RowSource  # noqa: E402
from blankfill.train import build_trainer  # noqa: E402
from blankfill.train.pace import measure_pace  # noqa: E402
from blankfill.train.transfer import choose_device, choose_precision  # noqa: E402
from blankfill.train.validate import Validation, score_batches, validation_batches  # noqa: E402

COMMON = MIXTURES["glm-doc"]
SCORED_ROWS = 128
VALIDATIONS = 16
OURS = "as in our preset"
RECIPES = {
    "published": {},
    "no dropout, peak rate 2e-3": {"model.dropout": 0.0, "train.peak_lr": 2e-3},
    "article's blocks": dict.fromkeys(
        ("model.block", "model.positions", "model.activation", "model.max_position",
         "model.ffn_size"), OURS
    ),
    "Muon": dict.fromkeys(
        ("train.optimizer", "train.muon_momentum", "train.peak_lr", "train.beta2", "train.eps"),
        OURS,
    ),
    "linear to zero": dict.fromkeys(("train.schedule", "train.min_lr_ratio"), OURS),
    "embedding from neighbours": dict.fromkeys(
        ("train.embedding_init", "train.embedding_lr_ratio"), OURS
    ),
    "QK-norm": {"model.qk_norm": True},
    "compiled": {"train.compile": True},
}  # fmt: skip
"""What each recipe changes in the one before it; the first is the preset as published."""


class Clock:
    """Scores the same rows at every validation, and keeps the seconds of training before it."""

    def __init__(self, cfg, tokenizer, stores):
        source = RowSource(stores, COMMON, tokenizer.ids, row_length=cfg.train.row_length, seed=0)
        self._batches = validation_batches(
            source, max_rows=SCORED_ROWS, micro_batch_rows=cfg.train.micro_batch_rows
        )
        self._dtype = choose_precision(cfg.train.precision, choose_device(cfg.train.device))
        self.curve, self._seconds, self._mark = [], 0.0, time.monotonic()

    def __call__(self, model):
        self._seconds += time.monotonic() - self._mark if self.curve else 0.0
        values = score_batches(model, self._batches, self._dtype, prefix="common_")
        self.curve.append((self._seconds, values["common_loss_nats"]))
        self._mark = time.monotonic()
        return Validation(values=values)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--data", "--validation"):
        parser.add_argument(name, type=Path, nargs="+", required=True)
    parser.add_argument("--preset", choices=("tiny", "small"), default="small")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    path = result_path(args.out, "time-to-loss")
    record = {
        "cpu": cpu_name(), "cores": os.cpu_count(), "versions": versions(), "preset": args.preset,
        "minutes": args.minutes, "seeds": args.seeds, "recipes": {},
    }  # fmt: skip
    for name in dict.fromkeys(["published", *args.recipes]):
        curves = [curve_of(args, name, seed) for seed in args.seeds]
        record["recipes"][name] = {"changes": changes_of(args.preset, name), "curves": curves}
        print(line(name, curves, record["recipes"]["published"]["curves"]), flush=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def curve_of(args, name, seed):
    """Give the curve of one recipe and seed, from --work where it stands there."""
    cfg = configure(args.preset, name, seed)
    out = args.work / f"{name.replace(' ', '-')}-{seed}"
    asked = {"config": to_dict(cfg), "minutes": args.minutes, "cpu": cpu_name()}
    asked = json.loads(json.dumps(asked))
    try:
        kept = json.loads((out / "curve.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        shutil.rmtree(out, ignore_errors=True)  # what was interrupted begins again
        curve = train(args, cfg, out)
        write_json(out / "curve.json", {"asked": asked, "curve": curve})
        return curve
    if kept["asked"] != asked:
        raise SystemExit(f"{out} has the curve of another recipe, time or machine; name another "
                         "--work")  # fmt: skip
    return kept["curve"]


def train(args, cfg, out):
    """Train one recipe with one seed; give (seconds of training, common loss) along the way."""
    clocks = []

    def check(*parts):
        clocks.append(Clock(*parts))
        return clocks[-1]

    def build(cfg, folder):
        return build_trainer(
            cfg, data=args.data, run=folder, validation=args.validation, check_blanks=check
        )

    pace = measure_pace(cfg, build, out / "run")
    steps = max(VALIDATIONS, round(args.minutes * 60 / pace.step_seconds))
    train = dataclasses.replace(
        cfg.train, steps=steps, warmup_steps=max(1, steps // 25), validate_blanks=1,
        decay_steps=steps if cfg.train.decay_steps else 0,
        validate_every=-(-steps // VALIDATIONS), checkpoint_every=steps,
    )  # fmt: skip
    start = time.monotonic()
    trainer = build(dataclasses.replace(cfg, train=train), out / "run")
    prepared = time.monotonic() - start
    trainer.fit()
    return [(prepared + seconds, loss) for seconds, loss in clocks[-1].curve]


def configure(preset_name, name, seed):
    """Give the published preset with the changes of all recipes up to this one."""
    cfg = preset(f"glm-{preset_name}")
    for recipe in RECIPES:
        for field, value in changes_of(preset_name, recipe).items():
            part, option = field.split(".")
            changed = dataclasses.replace(getattr(cfg, part), **{option: value})
            cfg = dataclasses.replace(cfg, **{part: changed})
        if recipe == name:
            break
    return dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, seed=seed))


def changes_of(preset_name, recipe):
    """Give a recipe's fields and values."""
    ours = preset(preset_name)
    return {
        field: operator.attrgetter(field)(ours) if value is OURS else value
        for field, value in RECIPES[recipe].items()
    }


def line(name, curves, published):
    """Say how long a recipe took to the published end loss of the same seed, and where it ended."""
    goals = [curve[-1] for curve in published]
    sooner = [
        seconds / reached
        for curve, (seconds, loss) in zip(curves, goals, strict=True)
        if (reached := passes(curve, loss))
    ]
    end = statistics.median(curve[-1][1] for curve in curves)
    if len(sooner) < len(curves):
        return f"{name:34} end {end:.4f} nats, reaches it in {len(sooner)} of {len(curves)} seeds"
    return (f"{name:34} end {end:.4f} nats, {statistics.median(sooner):.2f} x sooner "
            f"({min(sooner):.2f} to {max(sooner):.2f})")  # fmt: skip


def passes(curve, loss):
    """Give the seconds after which a curve falls to a loss, between its points in a line."""
    for (before, high), (after, low) in itertools.pairwise(curve):
        if low <= loss:
            return before + (after - before) * (high - loss) / (high - low)
    return None


if __name__ == "__main__":
    main()
