"""Kill, or stop, single processes of a run of several, and change the layout between attempts.

A run of `torchrun` is hurt at random moments and started anew on another layout until it is done;
then it is compared with a twin that was left alone on one layout. Good is: whatever was hurt was
named by one sentence and all others ended in time; no process stayed; no checkpoint that stood was
changed or lost; what was loaded on each layout are the bits that were stored; every step read the
same targets at the same place of the data; and losses differ by no more than sums in another order
make them differ.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from blankfill.config.parallel import AXES
from blankfill.metrics import read_metrics
from blankfill.parallel.fault import Guest
from blankfill.parallel.guests import began_at, has_ended
from blankfill.runs import list_checkpoints, newest_checkpoint

TOP = Path(__file__).resolve().parents[2]
Layout = tuple[int, ...]
"""Processes along each of `AXES`."""
NUM_HEADS = NUM_LAYERS = 2
"""Of the model; as many processes may compute a block together, or be its stages."""
BATCH_ROWS, MICRO_BATCH_ROWS = 6, 2
SAVE_EVERY = 5
STEPS_OF_A_KILL = 10
"""Steps for each kill, so that a run is about as long as its kills need."""
TIMEOUT_SECONDS = 60
LATE_SECONDS = 60
"""Above the time-out, or above five of it while processes meet, for a machine that has other things
to do."""
PATIENCE_SECONDS = 900.0
HANGS = 0.25
"""Share of processes that are stopped and not killed."""
LOSS_TOLERANCE = 2e-3
"""Largest difference of a step's loss, in nats: float32 sums in the order of another layout."""
EXACT = re.compile(r"targets(_(?!per)|$)|epoch|learning_rate")
"""Keys of a line of metrics that say which rows a step read."""


@dataclass
class Tally:
    """What was seen."""

    hurt: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_end: float = 0.0
    layouts: set[Layout] = field(default_factory=set)


class Attempt:
    """One start of a run on some layout, with a log of its own."""

    def __init__(self, run: Path, world: Path, layout: Layout, steps: int, log: Path):
        self.run, self.layout, self.log = run, layout, log
        self.count = math.prod(layout)
        self.lines_before = len(read_metrics(run))
        words = [
            "-m", "blankfill", "pretrain", "tiny", "--data", str(world / "store"),
            "--validation", str(world / "valid"), "--out", str(run), "--resume",
            "--model.hidden-size", "32", "--model.num-heads", str(NUM_HEADS),
            "--model.num-layers", str(NUM_LAYERS), "--model.ffn-size", "64",
            "--train.row-length", "64", "--train.batch-rows", str(BATCH_ROWS),
            "--train.micro-batch-rows", str(MICRO_BATCH_ROWS), "--train.threads", "1",
            "--train.precision", "float32", "--train.attention", "blocks", "--train.compile", "off",
            "--train.log-every", "1", "--train.steps", str(steps),
            "--checkpoint.every", str(SAVE_EVERY), "--checkpoint.keep", "3",
            "--validation.every", "17", "--validation.blanks", "0",
            "--optimizer.ema-decay", "0.9", "--parallel.timeout-seconds", str(TIMEOUT_SECONDS),
        ]  # fmt: skip
        for axis, size in zip(AXES, layout, strict=True):
            words += [f"--parallel.{axis}", str(size)]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        several = [*launcher, str(self.count)] if self.count > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "BLANKFILL_PROGRESS": "0"}
        with log.open("w") as file:
            self.launcher = subprocess.Popen(
                [sys.executable, *several, *words], stdout=file, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip

    @property
    def is_over(self) -> bool:
        return self.launcher.poll() is not None

    def processes(self) -> dict[int, Guest]:
        """Find the processes that the launcher has started, by their numbers."""
        found: dict[int, Guest] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                told = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            own = int(folder.name) == self.launcher.pid and self.count == 1
            if own or (parent == self.launcher.pid and self.count > 1):
                ranks = [int(word[5:]) for word in told if word.startswith(b"RANK=")]
                rank = 0 if own else next(iter(ranks), None)
                if rank is not None:
                    pid = int(folder.name)
                    found[rank] = Guest(rank=rank, host="", machine="", pid=pid,
                                        began=began_at(pid))  # fmt: skip
        return found

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def steps_so_far(self) -> int:
        return max(0, len(read_metrics(self.run)) - self.lines_before)


def kill_ranks(folder: Path, ranks: int, kills: int, seed: int, seconds: float) -> int:
    """Do it all; give the exit code.

    Args:
        folder: with the stores; for the runs and their logs.
        ranks: most processes of a layout.
        kills: processes to kill or to stop.
        seed: of which, when and on what layout.
        seconds: after which nothing more is hurt.
    """
    begun, rng, tally = time.monotonic(), random.Random(seed), Tally()
    steps = STEPS_OF_A_KILL * kills + 2 * SAVE_EVERY
    twin = Attempt(folder / "twin", folder, (1, 1, ranks, 1), steps, folder / "twin.log")
    if twin.launcher.wait(PATIENCE_SECONDS + 2 * steps):
        raise SystemExit(f"the twin failed:\n{twin.text()[-3000:]}")
    print(f"twin: {steps} steps on 1 x {ranks}, {time.monotonic() - begun:.0f} s", flush=True)
    number = 0
    while tally.hurt.total() < kills and time.monotonic() - begun < seconds:
        run = folder / f"run-{number}"
        one_run(run, folder, ranks, steps, rng, tally, lambda: (
            tally.hurt.total() >= kills or time.monotonic() - begun > seconds
        ))  # fmt: skip
        tally.wrong += compare(twin.run, run, steps)
        number += 1
    return verdict(tally, kills, seconds, time.monotonic() - begun)


def one_run(
    run: Path, folder: Path, ranks: int, steps: int, rng: random.Random, tally: Tally,
    is_enough: Callable[[], bool],
) -> None:  # fmt: skip
    """Hurt and start a run, on another layout each time, until it is done."""
    layouts = list(layouts_up_to(ranks))
    layout, seen, number = (1, 1, ranks, 1), {}, 0
    while True:
        if list_checkpoints(run):
            layout = rng.choice([one for one in layouts if one != layout])
            tally.wrong += loads_differently(folder, run, layout)
        tally.layouts.add(layout)
        log = folder / f"{run.name}-attempt-{number}.log"
        attempt = Attempt(run, folder, layout, steps, log)
        if not is_enough():
            wait_for_moment(attempt, rng)
        if is_enough() or attempt.is_over:
            attempt.launcher.wait(PATIENCE_SECONDS + 2 * steps)
            if attempt.launcher.returncode:
                tally.wrong.append(f"{log.stem} failed:\n{attempt.text()[-2000:]}")
            return
        print(f"{log.stem} on {named(layout)}: {hurt_one(attempt, rng, tally)}",
              flush=True)  # fmt: skip
        tally.wrong += changed(run, seen)
        number += 1


def wait_for_moment(attempt: Attempt, rng: random.Random) -> None:
    """Wait for a moment: at the start, in a step, or while a checkpoint is written."""
    aim = rng.choice(["start", "step", "step", "save"])
    until = time.monotonic() + (rng.uniform(1, 20) if aim == "start" else PATIENCE_SECONDS)
    wanted = rng.randrange(2, 2 * STEPS_OF_A_KILL)
    while time.monotonic() < until and not attempt.is_over:
        if aim != "start" and attempt.steps_so_far() >= wanted:
            saving = list((attempt.run / "checkpoints").glob(".step-*"))
            if aim == "step" or saving:
                time.sleep(rng.uniform(0, 0.05))
                return
        time.sleep(0.002)


def hurt_one(attempt: Attempt, rng: random.Random, tally: Tally) -> str:
    """Kill or stop one process, wait for the end, and check it; tell what was done."""
    processes = attempt.processes()
    if not processes:
        attempt.launcher.kill()
        attempt.launcher.wait()
        return "killed before a process was there"
    rank = rng.choice(sorted(processes))
    stops = attempt.count > 1 and rng.random() < HANGS
    has_begun = "model: " in attempt.text()
    os.kill(processes[rank].pid, signal.SIGSTOP if stops else signal.SIGKILL)
    begun, what = time.monotonic(), "stopped" if stops else "killed"
    others = [guest for other, guest in processes.items() if other != rank]
    limit = (TIMEOUT_SECONDS if has_begun else 5 * TIMEOUT_SECONDS) + LATE_SECONDS
    while not all(map(has_ended, others)) and time.monotonic() - begun < limit:
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    name = f"{what} process {rank} of {attempt.count}"
    if not all(map(has_ended, others)):
        tally.wrong.append(f"{name}: others live on after {seconds:.0f} s")
    try:
        attempt.launcher.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        tally.wrong.append(f"{name}: its launcher lives on")
    left = [guest.pid for guest in processes.values() if not has_ended(guest)]
    if left:
        tally.wrong.append(f"{name}: processes {left} are left")
    for one in (attempt.launcher.pid, *left):
        if one in left or not attempt.is_over:
            os.kill(one, signal.SIGKILL)
    attempt.launcher.wait()
    tally.hurt[f"{what} {'in training' if has_begun else 'at the start'}"] += 1
    tally.slowest_end = max(tally.slowest_end, seconds)
    said = [line for line in attempt.text().splitlines() if line.startswith("blankfill: ")]
    if has_begun and others and not (len(said) == 1 and f"process {rank} of" in said[0]):
        tally.wrong.append(f"{name}, and was said: {said}")
    step = (read_metrics(attempt.run) or [{"step": 0}])[-1]["step"]
    return f"{name} at step {step:.0f}, ended after {seconds:.1f} s: {said[:1]}"


def changed(run: Path, seen: dict[Path, dict[str, str]]) -> list[str]:
    """Name what has changed of the checkpoints that stand, and remember those that are new."""
    wrong: list[str] = []
    for path in list_checkpoints(run):
        files = {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
                 for file in sorted(path.rglob("*")) if file.is_file()}  # fmt: skip
        if seen.setdefault(path, files) != files:
            wrong.append(f"{path.name} has changed")
    standing = list_checkpoints(run)
    if standing and newest_checkpoint(run).path != standing[-1]:
        wrong.append(f"{standing[-1].name} is damaged")
    if seen and standing and max(seen) > standing[-1]:
        wrong.append(f"{max(seen).name} is lost")
    return wrong


def layouts_up_to(most: int) -> Iterator[Layout]:
    """Give the layouts of so many processes or fewer that the model and its rows can have."""
    for layout in product(range(1, most + 1), repeat=len(AXES)):
        pipeline, replicate, shard, tensor = layout
        if math.prod(layout) > most or tensor not in (1, NUM_HEADS):
            continue
        rows_of_each = -(-BATCH_ROWS // (replicate * shard))
        if pipeline <= min(NUM_LAYERS, -(-rows_of_each // MICRO_BATCH_ROWS)):
            yield layout


def named(layout: Layout) -> str:
    """Write a layout as a reader does."""
    return " x ".join(map(str, layout))


def loads_differently(folder: Path, run: Path, layout: Layout) -> list[str]:
    """Load the newest checkpoint on a layout, and name the tensors that are not what is stored."""
    sys.path[:0] = [str(TOP / "tests"), str(TOP / "scripts")]
    from parallel.crew import Crew

    count = math.prod(layout)
    crew = Crew(folder, count)
    try:
        of_ranks = crew.run(compare_loaded, count, run, layout, seconds=PATIENCE_SECONDS)
    finally:
        crew.close()
        del sys.path[:2]
    return [f"on {named(layout)} {name} is not what is stored"
            for names in of_ranks for name in names]  # fmt: skip


def compare_loaded(run: Path, layout: Layout) -> list[str]:
    """Load the newest checkpoint whole and as this rank of a layout does; name what differs."""
    import torch

    from blankfill.config.parallel import ParallelConfig
    from blankfill.engine.local import LocalEngine
    from blankfill.model.glm import GLM
    from blankfill.parallel import ParallelEngine, Ranks
    from blankfill.runs import read_run

    cfg, checkpoint = read_run(run).config, newest_checkpoint(run)
    alone = LocalEngine(cfg, GLM(cfg.model), dtype=torch.float32, attention="blocks")
    alone.load(checkpoint)
    sizes = dict(zip(AXES, layout, strict=True))
    ranks = Ranks(ParallelConfig(**sizes), torch.device("cpu"))
    engine = ParallelEngine(cfg, ranks, dtype=torch.float32, attention="blocks")
    engine.load(checkpoint)
    stored = {"model": alone.model.state_dict(), "optimizer": alone.optimizer.tensors(),
              "ema": alone.ema}  # fmt: skip
    loaded = {"model": engine.kept.weights, "optimizer": engine.optimizer.tensors(),
              "ema": engine.ema}  # fmt: skip
    wrong: list[str] = []
    for part, tensors in stored.items():
        if tensors.keys() != set(ranks.gather(list(loaded[part]))):  # a stage has some of them
            wrong.append(f"the list of tensors of {part}")
            continue
        for name in loaded[part]:
            value = tensors[name]
            place = engine.kept.place_of(name)
            here = value if place is None else value[place.index]
            if not torch.equal(here.detach(), loaded[part][name].detach().reshape(here.shape)):
                wrong.append(name)
    return wrong


def compare(twin: Path, run: Path, steps: int) -> list[str]:
    """Name what differs between two finished runs."""
    wrong: list[str] = []
    lines = [[row for row in read_metrics(path) if "loss_nats" in row] for path in (twin, run)]
    numbers = [[row["step"] for row in of_run] for of_run in lines]
    if numbers[0] != numbers[1] or numbers[0] != list(range(1, steps + 1)):
        return [f"steps in metrics.jsonl: {len(numbers[0])} and {len(numbers[1])} of {steps}"]
    exact = [[{k: v for k, v in row.items() if EXACT.match(k)} for row in of] for of in lines]
    different = [step for step, (a, b) in enumerate(zip(*exact, strict=True), 1) if a != b]
    if different:
        wrong.append(f"other rows were read at steps {different[:8]}")
    largest = max(abs(a["loss_nats"] - b["loss_nats"]) for a, b in zip(*lines, strict=True))
    print(f"largest difference of a loss: {largest:.1e} nats")
    if not largest <= LOSS_TOLERANCE or math.isnan(largest):
        wrong.append(f"losses differ by {largest:.2e} nats")
    places = [newest_checkpoint(path).state.training for path in (twin, run)]
    if any(getattr(places[0], what) != getattr(places[1], what) for what in ("row", "anchors")):
        wrong.append("the last checkpoints stand at other rows")
    return wrong


def verdict(tally: Tally, kills: int, seconds: float, took: float) -> int:
    for what, number in sorted(tally.hurt.items()):
        print(f"{what:22} {number:4}")
    for line in tally.wrong:
        print(f"WRONG: {line}")
    done = tally.hurt.total()
    good = not tally.wrong and (done >= kills or took > seconds)
    print(f"{'good' if good else 'BAD'}: {done} processes were killed or stopped on "
          f"{len(tally.layouts)} layouts in {took:.0f} s; the others ended after "
          f"{tally.slowest_end:.1f} s at most; {len(tally.wrong)} things wrong")  # fmt: skip
    return 0 if good else 1
