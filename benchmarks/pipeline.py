"""Measure how long a pipeline's processes wait, beside the formula, with stages that sleep.

    python benchmarks/pipeline.py                    under a minute, on any number of cores
    python benchmarks/pipeline.py --processes 2 --micro-batches 4 --seconds 0.1

Real processes, and the schedules that train (`blankfill.parallel.schedule`), but a stage sleeps
where it would compute: as long forward as for either half of the backward pass. So no core is
needed, and whatever is measured beyond the passes of one process is waiting. The formulas are those
of `blankfill plan` (`plan/step.py`): p processes with a forward pass of F in each and 2 F back wait
(p - 1) 3 F by 1f1b, half of that by interleaved, (p - 1) F / 2 by zbv. Writes
pipeline-CPU-DATE.json.
"""

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import time
from pathlib import Path

from result_file import result_path

SCHEDULES = ("1f1b", "interleaved", "zbv")
FORMULA = {"1f1b": 3.0, "interleaved": 1.5, "zbv": 0.5}
"""Wait of a process for each of the others, in forward passes of a process."""


def sleeping_stage(torch, seconds):
    """Make a stage that sleeps as long forward as for its input's gradient and its weight's."""

    class Sleep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            time.sleep(seconds)
            return grad

    class Sleeping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.dtype, self.passes, self.is_last = torch.float32, None, False

        def forward(self, x=None, number=None):
            time.sleep(seconds)
            weight = Sleep.apply(self.weight)
            x = Sleep.apply(torch.ones(1, 1, 1, requires_grad=True) if x is None else x)
            made = x * weight
            return made.sum() if self.is_last else made

    return Sleeping()


def measure(rank, asked, schedule, port, pipe):
    """Be one process: do some steps, and tell how long each was."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch
    import torch.distributed as dist

    from blankfill.config.stages import CHUNKS, stages_of
    from blankfill.parallel.schedule import Timetable

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=asked.processes)
    chunks = CHUNKS[schedule]
    count = asked.processes * chunks
    stages = {
        index: sleeping_stage(torch, asked.seconds / chunks)
        for index in stages_of(schedule, asked.processes, rank, chunks)
    }
    for index, stage in stages.items():
        stage.is_last = index == count - 1

    class Pass:
        tokens = torch.zeros(1, 1)

    class Passes:
        batches = [Pass] * asked.micro_batches

    timetable = Timetable(
        schedule, stages, count, dist.group.WORLD, torch.device("cpu"), width=1, in_halves=True
    )
    times = []
    for _ in range(asked.steps + 1):
        dist.barrier()
        begin = time.perf_counter()
        timetable.run(Passes, 1)
        dist.barrier()
        times.append(time.perf_counter() - begin)
    pipe.send(times[1:])  # the first meets the others
    dist.destroy_process_group()


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def wait_of(schedule, asked):
    """Give the seconds of a step, and those in which a process waits by measurement and formula."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    port = free_port()
    processes = [
        context.Process(target=measure, args=(rank, asked, schedule, port, there), daemon=True)
        for rank in range(asked.processes)
    ]
    for process in processes:
        process.start()
    times = [here.recv() for _ in processes]
    for process in processes:
        process.join()
    step = statistics.median(max(of_step) for of_step in zip(*times, strict=True))
    expected = (asked.processes - 1) * FORMULA[schedule] * asked.seconds
    return step, step - 3 * asked.seconds * asked.micro_batches, expected


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--micro-batches", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a forward pass in a process")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    found = {}
    print("| schedule | step | waits | by the formula | step by the formula is off by |")
    print("|---|---|---|---|---|")
    for schedule in SCHEDULES:
        step, waits, expected = wait_of(schedule, asked)
        off = (expected - waits) / step
        found[schedule] = {"step_seconds": step, "wait_seconds": waits, "formula_seconds": expected}
        print(f"| {schedule} | {step:.3f} s | {waits:.3f} s | {expected:.3f} s | {off:+.1%} |")
    path = result_path(asked.out, "pipeline")
    said = {"processes": asked.processes, "micro_batches": asked.micro_batches,
            "forward_seconds": asked.seconds, "steps": asked.steps, "schedules": found}  # fmt: skip
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
