"""Which settings of a preset end lowest after the same minutes on a CPU, by seed.

    python benchmarks/presets.py rates --preset tiny --data en zh --work runs/rates
    python benchmarks/presets.py train --rates RATES.json --data en zh --minutes 10 60 \
        --validation en-valid zh-valid --seeds 1 2 3 --work runs/presets

`rates` trains every candidate of CANDIDATES for some steps, uncompiled, taking turns in one
process, and writes their positions a second. `train` gives each candidate the steps that fit into
its minutes at that rate, trains it with `blankfill pretrain` and scores it with `blankfill
evaluate`: nats a token of held-out blanks that are drawn in characters, the same for every
candidate. As the steps are settled by the rates, the training may be done anywhere, a GPU included,
several runs at once (--jobs); the result says where. Minutes are those of training alone:
preparing, saving and scoring are not in them. Each run's score is in the result file as soon as it
is known, and --onto FILE keeps those of an earlier one. With --until (seconds from the start) what
would end later is not begun, or is given up.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from result_file import result_path

from blankfill.atomic import write_json
from blankfill.config.presets import preset
from blankfill.runtime import cpu_name, tune
from model import versions

MORE_CUT = {
    "objective.mask_ratio": 0.35, "objective.short_rate": 0.75, "objective.document_rate": 0.25,
}  # fmt: skip
FOUR = {"model.num_layers": 4, "model.qk_norm": True, "schedule.warmup_steps": 50, **MORE_CUT}
SIX = {**FOUR, "model.num_layers": 6}
TEN = {**FOUR, "model.num_layers": 10}
WIDE = {"model.hidden_size": 256, "model.num_heads": 4, "model.ffn_size": 704}
CANDIDATES = {
    "tiny": {
        "before": {},
        "4 layers": FOUR,
        "6 layers": SIX,
        "4 wide layers": {**FOUR, **WIDE},
        "3 wide layers": {**FOUR, **WIDE, "model.num_layers": 3},
        "4 layers, no QK-norm": {**FOUR, "model.qk_norm": False},
        "4 layers, 15 % cut": {**FOUR, "objective.mask_ratio": 0.15},
        "4 layers, 25 % cut": {**FOUR, "objective.mask_ratio": 0.25},
        "4 layers, 45 % cut": {**FOUR, "objective.mask_ratio": 0.45},
        "4 layers, rate 8e-3": {**FOUR, "schedule.peak_lr": 8e-3},
        "4 layers, rate 2e-3": {**FOUR, "schedule.peak_lr": 2e-3},
        "4 layers, 8 rows": {**FOUR, "train.batch_rows": 8, "train.micro_batch_rows": 8},
        "4 layers, 32 rows": {**FOUR, "train.batch_rows": 32},
        "4 layers, 90 % short": {
            **FOUR, "objective.short_rate": 0.9, "objective.document_rate": 0.1,
        },
        "4 layers, two heads": {**FOUR, "model.num_heads": 2},
    },
    "small": {
        "before": {},
        "10 layers": TEN,
        "6 layers": SIX,
        "6 wide layers": {
            **SIX, "model.hidden_size": 512, "model.num_heads": 8, "model.ffn_size": 1408,
        },
        "6 layers, rows of 256": {
            **SIX, "train.row_length": 256, "train.batch_rows": 32, "train.micro_batch_rows": 16,
        },
        "6 layers, rows of 256, half the batch": {
            **SIX, "train.row_length": 256, "train.batch_rows": 16, "train.micro_batch_rows": 16,
        },
        "6 layers, rate 4e-3": {**SIX, "schedule.peak_lr": 4e-3},
        "6 layers, rate 1e-3": {**SIX, "schedule.peak_lr": 1e-3},
        "6 layers, 15 % cut": {**SIX, "objective.mask_ratio": 0.15},
        "4 wide layers": {
            **FOUR, "model.hidden_size": 512, "model.num_heads": 8, "model.ffn_size": 1408,
        },
    },
}  # fmt: skip
"""What each candidate changes in the preset as it was when they were compared."""

BEFORE = {
    "tiny": {
        "model.num_layers": 6, "model.hidden_size": 192, "model.num_heads": 3,
        "model.ffn_size": 512, "model.qk_norm": False, "objective.mask_ratio": 0.15,
        "objective.short_rate": 0.7, "objective.document_rate": 0.3, "train.row_length": 256,
        "train.batch_rows": 16, "train.micro_batch_rows": 16, "schedule.peak_lr": 4e-3,
        "schedule.warmup_steps": 100,
    },
    "small": {
        "model.num_layers": 10, "model.hidden_size": 384, "model.num_heads": 6,
        "model.ffn_size": 1024, "model.qk_norm": False, "objective.mask_ratio": 0.15,
        "objective.short_rate": 0.7, "objective.document_rate": 0.3, "train.row_length": 512,
        "train.batch_rows": 16, "train.micro_batch_rows": 8, "schedule.peak_lr": 2e-3,
        "schedule.warmup_steps": 100,
    },
}  # fmt: skip
"""The presets then: what they are now may follow from this benchmark."""


def main():
    args = parse_args()
    args.command(args)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, command in (("rates", measure_rates), ("train", train_all)):
        sub = commands.add_parser(name)
        sub.set_defaults(command=command)
        sub.add_argument("--data", type=Path, nargs="+", required=True)
        sub.add_argument("--candidates", nargs="+", help="all where not given")
        sub.add_argument("--work", type=Path, required=True, help="folder for the runs")
        sub.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
        if command is measure_rates:
            sub.add_argument("--preset", choices=CANDIDATES, required=True)
            sub.add_argument("--rounds", type=int, default=6, help="of --steps steps each")
            sub.add_argument("--steps", type=int, default=5, help="of each candidate in a round")
            sub.add_argument("--threads", type=int, default=1)
            continue
        sub.add_argument("--rates", type=Path, required=True)
        sub.add_argument("--validation", type=Path, nargs="+", required=True)
        sub.add_argument("--minutes", type=float, nargs="+", required=True)
        sub.add_argument("--seeds", type=int, nargs="+", default=[1])
        sub.add_argument("--jobs", type=int, default=1, help="runs at once")
        sub.add_argument("--threads", type=int, help="of each; a share of the cores if absent")
        sub.add_argument("--max-blanks", type=int, default=1000, help="of each language")
        sub.add_argument("--until", type=float, default=1e6, help="seconds")
        sub.add_argument("--name", help="of the result file; presets-PRESET where not given")
        sub.add_argument("--flags", default="", help="more of pretrain's, that change no number")
        sub.add_argument("--onto", type=Path, help="an earlier result to go on with")
    return parser.parse_args()


def configure(name, candidate):
    """Give a candidate's fields, all of those that any candidate changes."""
    return {**BEFORE[name], **CANDIDATES[name][candidate]}


def measure_rates(args):
    """Let the candidates take turns; write the positions a second of each."""
    tune()
    from blankfill.prepare import build_trainer

    names = args.candidates or [*CANDIDATES[args.preset]]
    times = {name: [] for name in names}
    with ExitStack() as stack:
        trainers = {}
        for number, name in enumerate(names):
            cfg = preset(args.preset).changed(
                {
                    **configure(args.preset, name),
                    "train.embedding_init": "random",
                    "train.compile": "off",
                    "train.threads": args.threads,
                    "guard.on_spike": "log",
                }
            )
            folder = args.work / f"rate-{args.preset}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            trainer = build_trainer(cfg, data=args.data, run=folder)
            trainers[name] = (cfg, trainer, stack.enter_context(trainer.open_loader()))
            for _ in range(args.steps):
                trainer.step(trainers[name][2])
        for _ in range(args.rounds):
            for name, (_, trainer, loader) in trainers.items():
                start = time.monotonic()
                for _ in range(args.steps):
                    trainer.step(loader)
                times[name].append((time.monotonic() - start) / args.steps)
        rates = {
            name: round(
                cfg.train.batch_rows * cfg.train.row_length / statistics.median(times[name]), 1
            )
            for name, (cfg, _, _) in trainers.items()
        }
    record = {
        "cpu": cpu_name(), "versions": versions(), "preset": args.preset,
        "threads": args.threads, "positions_per_second": rates, "step_seconds": times,
    }  # fmt: skip
    path = result_path(args.out, f"presets-rates-{args.preset}")
    write_json(path, record)
    print(json.dumps(rates, indent=1), path, sep="\n")


def train_all(args):
    """Train and score every candidate, minute, and seed, the first seeds of all first."""
    begun = time.monotonic()
    where = json.loads(args.rates.read_text(encoding="utf-8"))
    name = where["preset"]
    kept = json.loads(args.onto.read_text(encoding="utf-8"))["runs"] if args.onto else []
    record = {
        "preset": name, "rates_on": where["cpu"], "threads": where["threads"],
        "trained_on": device_name(), "versions": versions(), "max_blanks": args.max_blanks,
        "before": BEFORE[name], "changes": CANDIDATES[name], "runs": kept,
    }  # fmt: skip
    path = args.out / f"{args.name or f'presets-{name}'}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()
    jobs = [
        (candidate, minutes, seed)
        for seed in args.seeds
        for minutes in sorted(args.minutes, reverse=True)
        for candidate in args.candidates or CANDIDATES[name]
        if not any(
            (run["candidate"], run["minutes"], run["seed"]) == (candidate, minutes, seed)
            for run in kept
        )
    ]

    def do(job):
        candidate, minutes, seed = job
        left = args.until - (time.monotonic() - begun)
        if left <= 0:
            return
        fields = configure(name, candidate)
        rate = where["positions_per_second"][candidate]
        steps = round(
            minutes * 60 * rate / (fields["train.batch_rows"] * fields["train.row_length"])
        )
        start = time.monotonic()
        found = train_one(args, name, job, fields, steps, left)
        with lock:
            if found is not None:
                record["runs"].append(
                    {"candidate": candidate, "minutes": minutes, "seed": seed, "steps": steps,
                     "seconds": round(time.monotonic() - start, 1), **found}
                )  # fmt: skip
                write_json(path, record)
            print(f"{candidate}, {minutes:g} min, seed {seed}, {steps} steps: {told(found)} "
                  f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(do, jobs))
    write_json(path, record)
    print(path)


def train_one(args, name, job, fields, steps, left):
    """Train and score one run; None where its time was over or a verb failed."""
    candidate, minutes, seed = job
    run = args.work / f"{name}-{'-'.join(candidate.split())}-{minutes:g}-{seed}".replace("%", "pc")
    shutil.rmtree(run, ignore_errors=True)  # what was cut off begins again
    warmup = min(fields["schedule.warmup_steps"], steps // 10)
    fields = {**fields, "schedule.warmup_steps": warmup}
    flags = [word for field, value in fields.items() for word in flag(field, value)]
    until = time.monotonic() + left
    pretrain = ["pretrain", name, "--data", *args.data, "--out", run, *flags, "--steps", steps,
                "--seed", seed, "--checkpoint.every", steps, *args.flags.split(),
                "--threads", args.threads or max(1, (os.cpu_count() or 1) // args.jobs),
                "--train.log-every", max(1, steps // 40)]  # fmt: skip
    scored = ["evaluate", run, "--data", *args.validation, "--no-baselines", "--max-blanks",
              args.max_blanks, "--json"]  # fmt: skip
    if verb(pretrain, until, run) is None:
        return None
    text = verb(scored, until, run)
    if text is None:
        return None
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    (evaluation,) = json.loads(text)["runs"]
    return {"languages": evaluation["blanks"]["languages"], "rows": evaluation["rows"]}


def verb(words, until, run):
    """Run a verb of the command line; give what it printed, None where it failed or ran over."""
    command = [sys.executable, "-m", "blankfill", *map(str, words)]
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as errors:
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                                  timeout=max(1.0, until - time.monotonic()), check=False,
                                  env={**os.environ, "BLANKFILL_PROGRESS": "0"})  # fmt: skip
        except subprocess.TimeoutExpired:
            return None
    return done.stdout if done.returncode == 0 else None


def flag(field, value):
    words = f"--{field.replace('_', '-')}"
    if isinstance(value, bool):
        section, _, name = words[2:].partition(".")
        return [words if value else f"--{section}.no-{name}"]
    return [words, str(value)]


def device_name():
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


def told(found):
    if found is None:
        return "failed or out of time"
    return ", ".join(f"{row['language']} {model_loss(row):.3f}" for row in found["languages"])


def model_loss(row):
    """Give the nats a token of the model that reads both sides, the first row."""
    return row["scores"][0]["loss_nats_per_token"]["value"]


if __name__ == "__main__":
    main()
