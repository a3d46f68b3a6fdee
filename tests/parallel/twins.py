"""The same tiny run on one process and on several, in float64, step by step."""

import numpy as np
import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.model import ModelConfig
from blankfill.config.parallel import ParallelConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.data.rows import RowSource
from blankfill.engine.device import update_precision
from blankfill.engine.local import LocalEngine
from blankfill.errors import BlankfillError, ConfigError, TrainingError
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.objective.special import SpecialIds
from blankfill.optim import matrices_of
from blankfill.runs import newest_checkpoint
from blankfill.train.trainer import Trainer
from memory_store import MemoryStore
from script_files import load_benchmark

STEPS = 10
CFG = RunConfig(
    model=ModelConfig(  # heights that 2, 3, 4 and 8 do not all divide
        vocab_size=203, hidden_size=32, num_layers=2, num_heads=2, ffn_size=44, max_position=64
    ),
    train=TrainConfig(
        steps=STEPS, row_length=64, batch_rows=6, micro_batch_rows=2, log_every=1, threads=1,
    ),
    schedule=ScheduleConfig(warmup_steps=2, peak_lr=1e-2),
    checkpoint=CheckpointConfig(every=100, in_background=False),
).changed({"optimizer.ema_decay": 0.9, "optimizer.max_grad_norm": 0.7})  # fmt: skip
IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)


def make_rows(cfg):
    rng = np.random.default_rng(0)
    lengths = [5, 17, 30, 44, 120, 9, 60, 33] * 6
    store = MemoryStore([rng.integers(8, cfg.model.vocab_size, n) for n in lengths])
    return RowSource(
        [store], cfg.objective, IDS, row_length=cfg.train.row_length, seed=cfg.train.seed
    )


def local_trainer(cfg, run, weights=torch.float64, **options):
    model = GLM(cfg.model)
    init_weights(model, cfg.train.seed)
    engine = LocalEngine(cfg, model.to(weights), dtype=torch.float32, **options)
    run.mkdir(exist_ok=True)
    return Trainer(cfg, engine, make_rows(cfg), run)


def parallel_trainer(cfg, layout, run, weights=torch.float64, **options):
    from blankfill.parallel import ParallelEngine, Ranks

    ranks = Ranks(ParallelConfig(replicate=layout[0], shard=layout[1]), torch.device("cpu"))
    engine = ParallelEngine(cfg, ranks, dtype=torch.float32, weights=weights, **options)
    run.mkdir(exist_ok=True)
    return Trainer(cfg, engine, make_rows(cfg), run)


def whole(tensors):
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}


def train(trainer, steps=STEPS):
    """Train some steps; tell losses, norms, rows in their order, and all tensors before and after.

    Of several processes the leading one has the tensors.
    """
    seen, transfer = [], trainer.engine.transfer

    def watched(batch, num_rows):
        made = transfer(batch, num_rows)
        seen.append((made.source.documents.tolist(), made.source.tokens.tolist()))
        return made

    trainer.engine.transfer = watched
    first = whole(trainer.engine.tensors()["model"])
    infos, rows = [], []
    with trainer.open_loader() as loader:
        for _ in range(steps):
            passes = len(trainer.engine.deal(trainer.row, trainer.cfg.train.rows_at(trainer.row)))
            infos.append(trainer.step(loader))
            mine, seen[:passes] = seen[:passes], []
            of_all = trainer.engine.gather(mine)
            rows.append([[item for part in of_all for item in part[which]] for which in (0, 1)])
    parts = {part: whole(tensors) for part, tensors in trainer.engine.tensors().items()}
    return {
        "losses": [info.loss_nats for info in infos], "norms": [i.grad_norm for i in infos],
        "targets": [info.num_targets for info in infos], "rows": rows, "first": first,
        "means": trainer._all_losses().means(), "parts": parts,
    }  # fmt: skip


def train_on_ranks(changes, layout, run, weights="float64", compiled=False):
    cfg = CFG.changed(changes)
    trainer = parallel_trainer(cfg, layout, run, weights=getattr(torch, weights), compiled=compiled)
    return train(trainer)


def train_alone(changes, run, weights="float64"):
    return train(local_trainer(CFG.changed(changes), run, weights=getattr(torch, weights)))


def traffic_on_ranks(changes, layout, run):
    """Count the bytes that this process sends in a step; tell them, and those of the formula."""
    traffic = load_benchmark("traffic")
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    engine = trainer.engine
    with trainer.open_loader() as loader, traffic.counted(engine._ranks.mesh) as sent:
        trainer.step(loader)
    named = list(engine.model.named_parameters())
    muon = trainer.cfg.optimizer.kind == "muon"
    expected = traffic.expected_bytes(
        {name: tuple(p.shape) for name, p in named}, layout,
        passes=len(engine.deal(0, trainer.cfg.train.batch_rows)),
        muon_shapes=[tuple(p.shape) for _, p in matrices_of(named)] * muon,
        update_bytes=update_precision(engine.device, torch.float32).itemsize,
    )  # fmt: skip
    return dict(sent), expected


def save_on_ranks(changes, layout, run, steps):
    """Train some steps and save; the leading process tells what was saved."""
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    with trainer.open_loader() as loader:
        for _ in range(steps):
            trainer.step(loader)
    trainer.save()
    trainer.engine.once(trainer._saver.finish)
    return {part: whole(tensors) for part, tensors in trainer.engine.tensors().items()}


def load_on_ranks(changes, layout, run):
    """Restore the newest checkpoint; tell where the run stands, and all tensors."""
    return restored(parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32))


def load_alone(changes, run):
    return restored(local_trainer(CFG.changed(changes), run, weights=torch.float32))


def restored(trainer):
    trainer.restore(trainer.engine.once(lambda: newest_checkpoint(trainer.run)))
    parts = {part: whole(tensors) for part, tensors in trainer.engine.tensors().items()}
    means = trainer._all_losses().means()
    return trainer.index, trainer.row, means, trainer._watch.state(), parts


def fit_on_ranks(changes, layout, run, stopped_rank=None, poisoned_rank=None):
    """Train to the end as the command does; tell how that ended."""
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    rank, step = trainer.engine._ranks.rank, trainer.step

    def watched(loader):
        if trainer.index == 4 and rank == stopped_rank:
            trainer._stop.set()
        return step(loader)

    def poisoned(batch, num_rows):
        made = transfer(batch, num_rows)
        if batch.documents[0] == poison:
            made.targets.weights.fill_(float("nan"))
        return made

    trainer.step = watched
    if poisoned_rank is not None:
        transfer, deal = trainer.engine.transfer, trainer.engine.deal
        part = deal(3 * 6, 6)[0]
        mine = trainer.rows.rows(part.first, part.size).documents[0]
        poison = mine if rank == poisoned_rank else None
        trainer.engine.transfer = poisoned
    try:
        finished = trainer.fit()
    except TrainingError as error:
        return str(error), trainer.index
    return finished, trainer.index


def meet(layout, function, *args):
    """Call a function with the joined processes."""
    from blankfill.parallel import Ranks

    ranks = Ranks(ParallelConfig(replicate=layout[0], shard=layout[1]), torch.device("cpu"))
    return function(ranks, *args)


def refuse_once(ranks):
    try:
        ranks.once(_refuse)
    except ConfigError as error:
        return str(error)
    return None


def _refuse():
    raise ConfigError("no such thing")


def sums_and_lists(ranks):
    return ranks.sum([ranks.rank, 0.5]), ranks.gather([ranks.rank] * ranks.rank)


def orthogonal_rows(ranks, shapes, dtype):
    """Make matrices orthogonal that are kept by rows; tell this process's rows."""
    from blankfill.parallel.muon import OwnedMatrices
    from blankfill.parallel.rows import kept_rows

    matrices = [matrix(shape, k) for k, shape in enumerate(shapes)]
    kept = [m[kept_rows(len(m), ranks.part, ranks.layout.shard)] for m in matrices]
    made = OwnedMatrices(shapes, ranks)(iter(kept), getattr(torch, dtype))
    return ranks.part, [(piece.float().numpy(), side) for piece, side in made]


def matrix(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fail_on(failing):
    import torch.distributed as dist

    if dist.get_rank() == failing:
        raise ValueError(f"rank {failing} of this case")
    dist.barrier()


def build_on_ranks(ranks, stores, run, options):
    """Build a trainer of a store for each rank, and train; tell how that went."""
    from blankfill.prepare import build_trainer

    cfg = CFG.changed({"train.steps": 2, "optimizer.ema_decay": 0.0, **options})
    try:
        trainer = build_trainer(cfg, data=[stores[ranks.rank]], run=run, ranks=ranks)
    except BlankfillError as error:
        return f"{type(error).__name__}: {error}"
    return trainer.fit(), type(trainer.engine).__name__, trainer.run.name
