"""Measure what several processes cost on this machine, and what they give.

    python benchmarks/parallel.py                about 20 minutes on two quiet cores
    python benchmarks/parallel.py --quick        every part once, small: does it run?

All contenders train one model on the same rows of random documents, in the same micro-batches: the
engine of one process on two threads and on one; the sharded engine (FSDP2, gloo) of one process, on
as many; of 2 processes and of 4 on a thread each, as copies and as parts of a copy; with AdamW and
with Muon. Each stays alive, and all take their steps in turn, round after round; figures are
medians over the rounds, ratios are of the same round. After that each process counts the bytes that
it sends in a step, beside the formula of `traffic.py`, and the run is saved. Losses are compared:
contenders that do not train the same model say so. Writes parallel-CPU-DATE.json.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from result_file import result_path

from blankfill.runtime import available_cores, cpu_name, tune

SHAPES = {
    "tiny": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "ffn_size": 128},
    "5M": {"hidden_size": 192, "num_layers": 6, "num_heads": 3, "ffn_size": 512},
    "25M": {"hidden_size": 384, "num_layers": 10, "num_heads": 6, "ffn_size": 1024},
}
ROWS = {"tiny": (128, 8), "5M": (256, 32), "25M": (512, 16)}
"""Row length and rows of a step; a micro-batch has a quarter of them."""
VOCAB = 16_384
SAME_LOSS = 0.02
"""Nats that the losses of contenders may be apart at the same step, in bfloat16."""
SECONDS = 900
"""In which a contender must answer."""


@dataclass(frozen=True)
class Contender:
    """Processes that train one model together."""

    processes: int
    threads: int
    """Of each process."""
    layout: tuple[int, int] | None
    """Copies and parts of each; None is the engine of one process."""
    optimizer: str = "adamw"

    @property
    def name(self):
        way = "local"
        if self.layout:
            copies, parts = self.layout
            way = f"replicate {copies}" if copies > 1 else f"shard {parts}"
        return f"{self.processes} x {self.threads}, {way}, {self.optimizer}"


TWO, ONE = Contender(1, 2, None), Contender(1, 1, None)
WRAPPED_TWO, WRAPPED_ONE = Contender(1, 2, (1, 1)), Contender(1, 1, (1, 1))
COPIES, PARTS = Contender(2, 1, (2, 1)), Contender(2, 1, (1, 2))
FOUR_COPIES, FOUR_PARTS = Contender(4, 1, (4, 1)), Contender(4, 1, (1, 4))


def by_muon(contender):
    return replace(contender, optimizer="muon")


SETS = {
    "two cores": (TWO, WRAPPED_TWO, COPIES, PARTS),
    "Muon": tuple(c for one in (TWO, COPIES, PARTS) for c in (one, by_muon(one))),
    "scaling": (ONE, WRAPPED_ONE, COPIES, PARTS, FOUR_COPIES, FOUR_PARTS),
}
"""Contenders that take their steps in turn."""
COMPARED = (
    ("2 processes beside 2 threads, copies", COPIES, TWO),
    ("2 processes beside 2 threads, parts", PARTS, TWO),
    ("wrappers on 2 threads", WRAPPED_TWO, TWO),
    ("wrappers on 1 thread", WRAPPED_ONE, ONE),
    ("2 processes beside 1, copies", COPIES, ONE),
    ("2 processes beside 1, parts", PARTS, ONE),
    ("4 processes beside 1, copies", FOUR_COPIES, ONE),
    ("4 processes beside 1, parts", FOUR_PARTS, ONE),
    *((f"Muon beside AdamW, {c.name.rpartition(',')[0]}", by_muon(c), c)
      for c in (TWO, COPIES, PARTS)),
)  # fmt: skip
"""Ratios of rates: what, of whom, beside whom."""


# -- one process ----------------------------------------------------------------------------------


def serve(pipe, contender, job, rank, port):
    """Be one process of a contender: answer what is asked until it is to end."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(contender.processes), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(contender.processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    tune()
    import torch

    torch.set_num_threads(contender.threads)
    with contextlib.ExitStack() as stack:
        process = Process(contender, job, stack)
        while (asked := pipe.recv()) is not None:
            pipe.send(getattr(process, asked[0])(*asked[1:]))


class Process:
    """Trains with the others of its contender."""

    def __init__(self, contender, job, stack):
        from blankfill.train import Trainer

        self.cfg = configuration(contender, job)
        self.ranks = self.join(contender, stack)
        engine = self.engine()
        folder = Path(job["folder"]) / contender.name.replace(" ", "").replace(",", "-")
        folder.mkdir(exist_ok=True)
        self.trainer = Trainer(self.cfg, engine, row_source(self.cfg), folder)
        self.loader = stack.enter_context(self.trainer.open_loader())
        self.seconds_of_update = 0.0
        update = engine.step

        def timed(lr):
            begun = time.perf_counter()
            update(lr)
            self.seconds_of_update += time.perf_counter() - begun

        engine.step = timed

    def join(self, contender, stack):
        if contender.layout is None:
            return None
        from blankfill.config.parallel import ParallelConfig
        from blankfill.parallel import joined

        copies, parts = contender.layout
        return stack.enter_context(joined(ParallelConfig(replicate=copies, shard=parts), "cpu"))

    def engine(self):
        if self.ranks is not None:
            from blankfill.parallel import ParallelEngine

            return ParallelEngine(self.cfg, self.ranks, attention="blocks")
        from blankfill.engine.local import LocalEngine
        from blankfill.model.glm import GLM
        from blankfill.model.init import init_weights

        model = GLM(self.cfg.model)
        init_weights(model, self.cfg.train.seed)
        return LocalEngine(self.cfg, model, attention="blocks")

    def steps(self, number):
        """Do some steps; tell the seconds of each, of its update alone, and the losses."""
        found = []
        for _ in range(number):
            self.seconds_of_update = 0.0
            begun = time.perf_counter()
            info = self.trainer.step(self.loader)
            seconds = time.perf_counter() - begun
            found.append((seconds, self.seconds_of_update, info.loss_nats))
        return found

    def traffic(self):
        """Do a step and tell the bytes that this process sent, by kind, and those of all by the
        formula."""
        import torch
        from traffic import counted, expected_bytes

        from blankfill.engine.device import update_precision
        from blankfill.optim import matrices_of

        if self.ranks is None:
            return {}, {}
        engine = self.trainer.engine
        with counted(self.ranks.mesh) as sent:
            self.trainer.step(self.loader)
        train = self.cfg.train
        matrices = list(matrices_of(list(engine.kept.weights.items())))
        muon = self.cfg.optimizer.kind == "muon"
        expected = expected_bytes(
            {name: tuple(p.shape) for name, p in engine.model.named_parameters()},
            self.ranks.layout.sizes, passes=len(engine.deal(0, train.batch_rows)),
            muon_shapes=[engine.kept.places[name][0].shape for name, _ in matrices if muon],
            update_bytes=update_precision(engine.device, torch.float32).itemsize,
        )  # fmt: skip
        return dict(sent), expected

    def save(self):
        """Save; tell the seconds that training waits, and those until it is on the disk."""
        begun = time.perf_counter()
        self.trainer.save()
        waited = time.perf_counter() - begun
        self.trainer._saver.finish()
        size = sum(f.stat().st_size for f in self.trainer.run.rglob("*") if f.is_file())
        return waited, time.perf_counter() - begun, size

    def peak_bytes(self):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def configuration(contender, job):
    from blankfill.config.model import ModelConfig
    from blankfill.config.parallel import ParallelConfig
    from blankfill.config.run import RunConfig
    from blankfill.config.schedule import ScheduleConfig
    from blankfill.config.train import TrainConfig

    length, rows = ROWS[job["size"]]
    copies, parts = contender.layout or (1, 1)
    return RunConfig(
        model=ModelConfig(vocab_size=VOCAB, **SHAPES[job["size"]]),
        train=TrainConfig(
            steps=1000, row_length=length, batch_rows=rows, micro_batch_rows=rows // 4,
            precision=job["precision"], compile="off", log_every=1, threads=contender.threads,
        ),
        schedule=ScheduleConfig(peak_lr=1e-3, warmup_steps=10),
        parallel=ParallelConfig(replicate=copies, shard=parts),
    ).changed({"optimizer.kind": contender.optimizer})  # fmt: skip


def row_source(cfg):
    """Rows of random documents, the same in every process."""
    import numpy as np

    from blankfill.config.objective import ObjectiveConfig
    from blankfill.data.in_memory import InMemoryStore
    from blankfill.data.rows import RowSource
    from blankfill.objective.special import SpecialIds

    ids = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(300), 0.8, 2048), 8, 4096).astype(np.int64)
    tokens = rng.integers(8, VOCAB, lengths.max()).astype(np.int32)
    store = InMemoryStore([tokens[:length] for length in lengths.tolist()])
    return RowSource([store], ObjectiveConfig(), ids, row_length=cfg.train.row_length, seed=1)


# -- all of them ----------------------------------------------------------------------------------


class Group:
    """The processes of a contender, alive until `close`."""

    def __init__(self, contender, job):
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.members = []
        for rank in range(contender.processes):
            here, there = context.Pipe()
            process = context.Process(
                target=serve, args=(there, contender, job, rank, port), daemon=True
            )
            process.start()
            there.close()
            self.members.append((process, here))

    def ask(self, *question):
        """Ask every process, and give the answers by rank.

        Raises:
            RuntimeError: one has ended, or does not answer.
        """
        for _, pipe in self.members:
            pipe.send(question)
        answers = []
        for rank, (_, pipe) in enumerate(self.members):
            if not pipe.poll(SECONDS):
                raise RuntimeError(f"{self.contender.name}: process {rank} does not answer")
            try:
                answers.append(pipe.recv())
            except EOFError:
                raise RuntimeError(f"{self.contender.name}: process {rank} has ended") from None
        return answers

    def close(self):
        """End them: those that wait leave by themselves, any other is killed. The first one, where
        all meet, is the last."""
        for process, pipe in reversed(self.members):
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(10)
            process.kill()


def measure(size, name, args):
    """Time the contenders of a set in turn; then count bytes, and save."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"size": size, "precision": args.precision, "folder": folder}
        groups = []
        try:
            for contender in SETS[name]:
                groups.append(Group(contender, job))
                groups[-1].ask("steps", args.warm)  # one after the other: they draw weights
            taken = {group.contender: [] for group in groups}
            for _ in range(args.rounds):
                for group in groups:
                    taken[group.contender].append(group.ask("steps", args.steps)[0])
            return [
                {"set": name, **told(group, taken[group.contender], size, args)} for group in groups
            ]
        finally:
            for group in groups:
                group.close()


def told(group, rounds, size, args):
    """What a contender's rounds, bytes and saves come to."""
    length, rows = ROWS[size]
    seconds = [statistics.median(step[0] for step in steps) for steps in rounds]
    answers = group.ask("traffic")
    sent = {}
    for counted, _ in answers:
        for kind, number in counted.items():
            sent[kind] = sent.get(kind, 0) + number
    saves = [group.ask("save")[0] for _ in range(args.saves) if group.ask("steps", 1)]
    return {
        "size": size, "contender": group.contender.name, **asdict(group.contender),
        "rounds": seconds, "seconds": statistics.median(seconds),
        "positions_per_second": length * rows / statistics.median(seconds),
        "seconds_of_update": statistics.median(step[1] for steps in rounds for step in steps),
        "last_loss_nats": rounds[-1][-1][2],
        "bytes_sent": {kind: number for kind, number in sent.items() if number},
        "bytes_by_formula": {k: n for k, n in answers[0][1].items() if n},
        "save_waits_seconds": statistics.median(save[0] for save in saves),
        "save_seconds": statistics.median(save[1] for save in saves),
        "saved_bytes": saves[0][2], "peak_bytes": group.ask("peak_bytes"),
    }  # fmt: skip


def ratios(found):
    """Rates beside rates of the same set, round by round."""
    by_name = {each["contender"]: each for each in found}
    for what, first, second in COMPARED:
        a, b = by_name.get(first.name), by_name.get(second.name)
        if a and b:
            of_rounds = [y / x for x, y in zip(a["rounds"], b["rounds"], strict=True)]
            yield {
                "set": a["set"], "size": a["size"], "what": what,
                "ratio": statistics.median(of_rounds), "least": min(of_rounds),
                "most": max(of_rounds),
            }  # fmt: skip


def show(found):
    for each in found:
        sent, formula = each["bytes_sent"], each["bytes_by_formula"]
        agree = "as the formula" if sent == formula else f"NOT as the formula: {formula}"
        print(
            f"{each['size']:5} {each['contender']:28} {each['positions_per_second']:8,.0f}/s  "
            f"update {1e3 * each['seconds_of_update']:6.0f} ms  "
            f"save {each['save_waits_seconds']:5.2f} s of {each['save_seconds']:5.2f} s  "
            f"{sum(each['peak_bytes']) / 2**30:5.2f} GiB"
            + (f"  {sum(sent.values()) / 2**20:8.1f} MiB a step, {agree}" if sent else "")
        )
    for each in ratios(found):
        print(f"{each['size']:5} {each['what']:40} {each['ratio']:6.3f} "
              f"({each['least']:.3f} to {each['most']:.3f})")  # fmt: skip
    for kind in ("adamw", "muon"):
        losses = [each["last_loss_nats"] for each in found if each["optimizer"] == kind]
        if losses and max(losses) - min(losses) > SAME_LOSS:
            print(f"losses with {kind} are apart by {max(losses) - min(losses):.4f} nats: {losses}")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["5M", "25M"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rounds", type=int, default=5, help="times in turn")
    parser.add_argument("--steps", type=int, default=2, help="of a contender in a round")
    parser.add_argument("--warm", type=int, default=2, help="steps before the first round")
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto",
        help="auto: bfloat16 where this CPU multiplies it",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small and once; writes nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.rounds, args.steps, args.warm, args.saves = ["tiny"], 1, 1, 1, 1
    print(f"{cpu_name()}, {available_cores()} cores, {args.precision}")
    path = result_path(args.out, "parallel")
    results, compared = [], []
    for size in args.sizes:
        for name in args.sets:
            found = measure(size, name, args)
            show(found)
            results += found
            compared += ratios(found)
            if args.quick:
                continue
            record = {
                "cpu": cpu_name(), "cores": available_cores(), "precision": args.precision,
                "load": os.getloadavg()[0], "steps": args.steps, "results": results,
                "ratios": compared,
            }  # fmt: skip
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
