"""Part d: `base` trained from the command line for about two minutes, killed, resumed, evaluated.

The first life ends by SIGKILL when it has saved and a share of the time is over. The same command
goes on from its last checkpoint, and is ended by SIGINT when the time is over, unless it was done.
The number of steps comes from part c's rate, so that the learning rate can fall to its end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blankfill.errors import CheckpointError
from blankfill.metrics import read_metrics
from blankfill.runs import list_checkpoints, newest_checkpoint
from gpu_check import Settings
from gpu_check.record import Record, read_rows

ROWS, ROW_LENGTH = 64, 512
"""Of a step, in one micro-batch."""
USUAL_RATE = 280_000.0
"""Positions a second where part c measured none; an NVIDIA H200's, not compiled."""
OVERHEAD_SECONDS = 35.0
"""Of the training's time, what two starts, the choice of attention, compiling, saves and
validations take; 28 s on that card."""
LEAST_SECONDS = 90.0
"""With less, compiling takes all the time until the kill (42 s were too few on an H100)."""
EVALUATION_SECONDS = 15.0
"""Kept for the evaluation, which took 9 s there."""
KILL_AT = 0.45
"""Share of the training's time at which it is killed."""
RECIPE = ("--train.batch-rows", str(ROWS), "--train.micro-batch-rows", str(ROWS),
          "--train.row-length", str(ROW_LENGTH), "--train.embedding-init", "neighbours",
          "--optimizer.kind", "muon", "--optimizer.muon-momentum", "0.9",
          "--optimizer.embedding-lr-ratio", "0.4", "--schedule.kind", "linear",
          "--schedule.min-lr-ratio", "0", "--schedule.peak-lr", "1e-3")  # fmt: skip
"""That of `small` and `tiny`, whose rate halves where the width doubles; AdamW at this rate stood
on the unigram loss for all of two minutes."""
QUICK = ("--model.hidden-size", "64", "--model.num-layers", "2", "--model.num-heads", "2",
         "--model.ffn-size", "128", "--train.row-length", "128", "--train.batch-rows", "4",
         "--train.micro-batch-rows", "4", "--schedule.warmup-steps", "10")  # fmt: skip


def run(settings: Settings, record: Record) -> None:
    """Train, kill, resume and evaluate; each is a row."""
    if settings.store is None or settings.held_out is None:
        record.add("pretrain", "left out", error="no --store and --held-out were given")
        return
    if settings.left() < LEAST_SECONDS and not settings.quick:
        record.add("pretrain", "left out", error=f"it needs {LEAST_SECONDS:.0f} s")
        return
    with tempfile.TemporaryDirectory() as folder:
        life = _Life(settings, Path(folder) / "run")
        record.do("pretrain, killed", life.first)
        record.do("pretrain, resumed", life.second)
        record.do("evaluate", life.evaluate)


class _Life:
    """One run and its processes.

    Args:
        settings: of the whole check.
        run: its folder.
    """

    def __init__(self, settings: Settings, run: Path) -> None:
        self.settings, self.run = settings, run
        self.seconds = max(5.0, settings.left() - EVALUATION_SECONDS * (not settings.quick))
        self.begun = time.monotonic()
        self.steps = 60 if settings.quick else self._steps()
        self.saved = 0

    def _steps(self) -> int:
        """Take the steps that fit at the rate that part c measured for `base`."""
        rates = [
            row["positions_per_second"]
            for row in read_rows(self.settings.out)
            if row["job"].startswith(f"110M, rows of {ROW_LENGTH}: ours")
            and row["status"] == "measured"
        ]
        rate = rates[0] if rates else USUAL_RATE
        return max(20, int((self.seconds - OVERHEAD_SECONDS) * rate / (ROWS * ROW_LENGTH)))

    @property
    def words(self) -> list[str]:
        """The command, the same for both lives."""
        recipe = [*RECIPE, "--schedule.warmup-steps", str(self.steps // 20)]
        return [
            sys.executable, "-m", "blankfill", "pretrain", "base", "--resume",
            "--data", str(self.settings.store), "--validation", str(self.settings.held_out),
            "--out", str(self.run), *(QUICK if self.settings.quick else recipe),
            "--train.steps", str(self.steps), "--train.device", self.settings.device,
            "--checkpoint.every", str(max(1, self.steps // 6)),
            "--validation.every", str(max(1, self.steps // 4)), "--validation.blanks", "0",
            "--train.log-every", str(max(1, min(10, self.steps // 20))), "--verbose",
        ]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        """Begin, or go on."""
        print(" ".join(self.words), flush=True)
        self.log = self.run.with_suffix(".log").open("ab")
        return subprocess.Popen(self.words, stdout=self.log, stderr=subprocess.STDOUT)

    def ended(self, code: int | None, found: dict[str, Any]) -> dict[str, Any]:
        """Show what a life printed, and give its row."""
        self.log.close()
        text = self.run.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        self.run.with_suffix(".log").unlink()
        print(text, flush=True)
        rows = [row for row in read_metrics(self.run) if "loss_nats" in row]
        chosen = re.search(r"attention \w+[^,]*, (not )?compiled", text)
        begun = re.search(r"from step (\d+) to step", text)
        lines = [line for line in text.splitlines() if line.strip()]
        if found["status"] == "failed":
            found["error"] = f"{found.get('error', '')} (code {code}): {lines[-1][:300]}"
        return {
            "steps": rows[-1]["step"] if rows else 0, "began_at": int(begun[1]) if begun else None,
            "chosen": chosen[0] if chosen else None, "losses": _curve(rows), **_rates(rows),
            **found,
        }  # fmt: skip

    def first(self) -> dict[str, Any]:
        """Train until a checkpoint stands and it is time, and kill."""
        process = self.start()
        due = self.begun + KILL_AT * self.seconds
        latest = self.begun + 0.7 * self.seconds
        while process.poll() is None and time.monotonic() < latest:
            ready = len(list_checkpoints(self.run)) > 0
            if ready and (self.settings.quick or time.monotonic() > due):
                break
            time.sleep(0.05)
        over = process.poll()
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            self.saved = newest_checkpoint(self.run).step
        except (CheckpointError, OSError):
            return self.ended(over, {"status": "failed", "error": "no checkpoint stood"})
        if over is not None and over != 0:
            return self.ended(over, {"status": "failed", "error": "it ended by itself"})
        return self.ended(over, {"status": "passed", "saved": self.saved,
                                 "killed": over is None})  # fmt: skip

    def second(self) -> dict[str, Any]:
        """Resume, and train until all steps are done or the time is over."""
        if not self.saved:
            raise RuntimeError("there is no checkpoint to go on from")
        known = {row["step"]: row["loss_nats"] for row in read_metrics(self.run)
                 if "loss_nats" in row}  # fmt: skip
        process = self.start()
        left = self.begun + self.seconds - time.monotonic()
        try:
            code = process.wait(max(1.0, left))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
        found = self.ended(code, {"status": "passed" if code in (0, 130) else "failed",
                                  "finished": code == 0, "saved": self.saved})  # fmt: skip
        if found["began_at"] != self.saved and found["status"] == "passed":
            found |= {"status": "failed",
                      "error": f"went on from {found['began_at']}, not {self.saved}"}  # fmt: skip
        # Steps that both lives did: the same rows, so the same losses, but for sums whose order
        # the card does not fix.
        again = [
            (row["loss_nats"], known[row["step"]])
            for row in read_metrics(self.run)
            if "loss_nats" in row and row["step"] > self.saved and row["step"] in known
        ]
        found["steps_done_again"] = len(again)
        found["largest_loss_difference"] = max((abs(a - b) for a, b in again), default=0.0)
        last = [row for row in read_metrics(self.run) if "validation_loss_nats" in row]
        found["validation_loss_nats"] = [[r["step"], r["validation_loss_nats"]] for r in last]
        return found

    def evaluate(self) -> dict[str, Any]:
        """Fill held-out blanks with the last weights."""
        blanks = "8" if self.settings.quick else "100"
        done = subprocess.run(
            [sys.executable, "-m", "blankfill", "evaluate", str(self.run), "--data",
             str(self.settings.held_out), "--no-baselines", "--max-blanks", blanks,
             "--device", self.settings.device, "--json"],
            capture_output=True, text=True, check=False, env={**os.environ},
        )  # fmt: skip
        print(done.stdout, done.stderr, flush=True)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return {"status": "failed", "error": f"code {done.returncode}: {''.join(last)[:300]}"}
        (result,) = json.loads(done.stdout)["runs"]
        return {"status": "passed", "step": result["step"], "rows": result["rows"],
                "languages": result["blanks"]["languages"]}  # fmt: skip


def _curve(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Give twenty points of the loss, the last among them."""
    return [[row["step"], row["loss_nats"]] for row in rows[:: -max(1, len(rows) // 20)][::-1]]


def _rates(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Give the median rates of the lines of metrics."""
    found: dict[str, float] = {}
    for name in ("positions_per_second", "mfu"):
        values = sorted(row[name] for row in rows if name in row)
        if values:
            found[name] = values[len(values) // 2]
    return found
