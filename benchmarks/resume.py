"""Measure what saving costs the steps, and what a late resume costs the start.

    python benchmarks/resume.py [--preset demo] [--steps 60] [--save-every 6]

Steps: the preset is trained on generated text, saving every few steps in the background; the median
time of steps during which a checkpoint was written (its copy included) is set against the median of
the others, and against saving in the foreground. Start: from opening the stores to the end of the
first step, fresh, and resumed at step 1,000,000. Prints a table and writes resume-CPU-DATE.json.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from result_file import cpu_label, result_path

from blankfill.runtime import available_cores, tune

tune()

import torch  # noqa: E402

from blankfill.cli.main import main as blankfill  # noqa: E402
from blankfill.config.presets import preset  # noqa: E402
from blankfill.demo.corpus import generate  # noqa: E402
from blankfill.prepare import build_trainer  # noqa: E402
from blankfill.runs import load_tensors, newest_checkpoint, save_checkpoint  # noqa: E402

LATE = 1_000_000
REPEATS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save-every", type=int, default=6)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    cfg = preset(args.preset).changed({
        "train.steps": args.steps, "checkpoint.every": args.save_every,
        "schedule.warmup_steps": 5,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder)
        figures = {}
        for part, measure in (
            ("background", lambda: step_times(cfg, folder, "background", background=True)),
            ("start", lambda: start_times(cfg, folder)),
            ("foreground", lambda: step_times(cfg, folder, "foreground", background=False)),
        ):
            figures[part] = measure()
            for key, value in figures[part].items():
                print(f"{part:12} {key:40} {value:10.3f}", flush=True)
    write_results(args, figures)


def write_store(folder):
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        for document in generate(1, num_train=6000, num_valid=2).train:
            file.write(json.dumps({"text": document.text}, ensure_ascii=False) + "\n")
    text, tok, store = (str(folder / name) for name in ("text.jsonl", "tok", "store"))
    with contextlib.redirect_stdout(io.StringIO()):
        blankfill(["--quiet", "tokenizer", "train", text, "--vocab-size", "2000",
                   "--model-type", "bpe", "--out", tok])  # fmt: skip
        blankfill(["--quiet", "data", "build", text, "--tokenizer", tok, "--out", store])


def step_times(cfg, folder, name, *, background):
    """Time every step from its beginning to that of the next."""
    cfg = cfg.changed({"checkpoint.in_background": background})
    trainer = build_trainer(cfg, data=[folder / "store"], run=folder / name)
    beginnings, saving, copies = [], [], []
    step, save = trainer.step, trainer.save
    thread = trainer._saver._writer

    def timed_step(loader):
        beginnings.append(time.monotonic())
        saving.append(thread._thread is not None and thread._thread.is_alive())
        return step(loader)

    def timed_save():
        start = time.monotonic()
        save()
        copies.append(time.monotonic() - start)

    trainer.step, trainer.save = timed_step, timed_save
    trainer.fit()
    times = [b - a for a, b in itertools.pairwise(beginnings)]
    # The save of step k happens at the end of its interval; its writing reaches into the next.
    due = [(index + 1) % cfg.checkpoint.every == 0 for index in range(len(times))]
    warm = range(cfg.checkpoint.every, len(times))
    quiet = [times[i] for i in warm if not due[i] and not saving[i]]
    beside = [times[i] for i in warm if saving[i] and not due[i]]
    found = {
        "step seconds, median": statistics.median(quiet),
        "step that saves, seconds": statistics.median(times[i] for i in warm if due[i]),
        "copy or save, seconds": statistics.median(copies[1:]),
        "parameters, millions": sum(p.numel() for p in trainer.engine.model.parameters()) / 1e6,
    }
    if beside:
        found["step beside a writing thread, seconds"] = statistics.median(beside)
    found["worst of these to a quiet step"] = max(
        found["step that saves, seconds"], found.get("step beside a writing thread, seconds", 0)
    ) / found["step seconds, median"]  # fmt: skip
    return found


def start_times(cfg, folder):
    """Time from nothing to the end of the first step."""
    run = folder / "background"
    newest = newest_checkpoint(run)
    rows = LATE * cfg.train.batch_rows
    training = newest.state.training
    ((window, _),) = training.anchors
    per_window = max(1, training.row // max(1, window))
    late_state = dataclasses.replace(training, row=rows + 3, anchors=((rows // per_window, rows),))
    parts = {
        part: load_tensors(newest.path / f"{part}.safetensors") for part in ("model", "optimizer")
    }
    save_checkpoint(run, LATE, parts, late_state, keep=1)
    longer = cfg.changed({"train.steps": LATE + 10})
    fresh, late = [], []
    for number in range(REPEATS):
        for times, options in (
            (fresh, {"run": folder / f"fresh-{number}"}),
            (late, {"run": run, "resume": True, "allow_change": ("train.steps",)}),
        ):
            start = time.monotonic()
            trainer = build_trainer(longer, data=[folder / "store"], **options)
            with trainer.open_loader() as loader:
                trainer.step(loader)
                times.append(time.monotonic() - start)
            trainer._lock.release()
        assert trainer.index == LATE + 1
    return {
        "fresh, seconds": statistics.median(fresh),
        "resumed at step 1,000,000, seconds": statistics.median(late),
        "difference, seconds": statistics.median(late) - statistics.median(fresh),
    }


def write_results(args, figures):
    now = datetime.now(UTC)
    path = result_path(args.results, "resume")
    record = {
        "date": now.isoformat(timespec="seconds"), "cpu": cpu_label(), "cores": available_cores(),
        "torch": torch.__version__, "preset": args.preset, "steps": args.steps,
        "save_every": args.save_every, "figures": figures,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
