"""The same tiny run on one process and on several, in float64, step by step."""

import os
from math import prod

import numpy as np
import torch

from blankfill.config.checkpoint import CheckpointConfig
from blankfill.config.model import ModelConfig
from blankfill.config.parallel import AXES, ParallelConfig
from blankfill.config.run import RunConfig
from blankfill.config.schedule import ScheduleConfig
from blankfill.config.train import TrainConfig
from blankfill.data.rows import RowSource
from blankfill.engine import engine as engine_module
from blankfill.engine.device import precision_context, update_precision
from blankfill.engine.local import LocalEngine
from blankfill.engine.transfer import to_tensors
from blankfill.errors import BlankfillError, ConfigError, TrainingError
from blankfill.kernels.native import load_native
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.objective.special import SpecialIds
from blankfill.optim import matrices_of
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
READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "item"}
"""Operations of torch that wait for a device."""
IDS = SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)


def make_rows(cfg, seed=0):
    rng = np.random.default_rng(seed)
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


def laid_out(layout):
    """Give the configuration of a layout: copies, shards, and as far as they are named
    tensor-parallel processes, those of a pipeline, and its schedule."""
    names = (*AXES[1:], AXES[0], "schedule")
    return ParallelConfig(**dict(zip(names, layout, strict=False)))


def parallel_trainer(cfg, layout, run, weights=torch.float64, dtype=torch.float32, **options):
    from blankfill.parallel import ParallelEngine, Ranks

    ranks = Ranks(laid_out(layout), torch.device("cpu"))
    engine = ParallelEngine(cfg, ranks, dtype=dtype, weights=weights, **options)
    run.mkdir(exist_ok=True)
    return Trainer(cfg, engine, make_rows(cfg), run)


def all_parts(engine):
    """Give the whole tensors of a checkpoint by part and name, put together where processes keep
    parts of them; what several keep must be the same in all, bit for bit."""
    kept = [
        (part, name, engine.kept.place_of(name) if hasattr(engine, "kept") else None, value.cpu())
        for part, tensors in engine.tensors().items()
        for name, value in tensors.items()
    ]
    whole = {}
    for part, name, place, value in engine._ranks.gather(kept) if hasattr(engine, "kept") else kept:
        of_part = whole.setdefault(part, {})
        if place is None:
            assert np.array_equal(of_part.setdefault(name, value.numpy().copy()), value)
            continue
        at = of_part.setdefault(name, np.full(place.shape, np.nan, value.numpy().dtype))[
            place.index
        ]
        assert np.isnan(at).all() or np.array_equal(at, value), f"copies of {name} differ"
        at[...] = value
    return {part: dict(sorted(tensors.items())) for part, tensors in whole.items()}


def train(trainer, steps=STEPS):
    """Train some steps; tell losses, norms, rows in their order, and all tensors before and after.

    Every process has the tensors, put together.
    """
    seen, transfer = [], trainer.engine.transfer

    def watched(batch, part):
        made = transfer(batch, part)
        seen.append((made.source.documents.tolist(), made.source.tokens.tolist()))
        return made

    trainer.engine.transfer = watched
    first = all_parts(trainer.engine)["model"]
    infos, rows = [], []
    with trainer.open_loader() as loader:
        for _ in range(steps):
            passes = len(trainer.engine.deal(trainer.row, trainer.cfg.train.rows_at(trainer.row)))
            infos.append(trainer.step(loader))
            mine, seen[:passes] = seen[:passes], []
            of_all = trainer.engine.gather(mine)
            rows.append([[item for part in of_all for item in part[which]] for which in (0, 1)])
    parts = all_parts(trainer.engine)
    return {
        "losses": [info.loss_nats for info in infos], "norms": [i.grad_norm for i in infos],
        "targets": [info.num_targets for info in infos], "rows": rows, "first": first,
        "means": trainer._all_losses().means(), "parts": parts,
    }  # fmt: skip


def train_on_ranks(changes, layout, run, weights="float64", **options):
    """Train on several processes; options are those of their engine."""
    cfg = CFG.changed(changes)
    trainer = parallel_trainer(cfg, layout, run, weights=getattr(torch, weights), **options)
    return train(trainer, cfg.train.steps)


def train_alone(changes, run, weights="float64", **options):
    """Train on one process; its dropout follows from what that of several follows from."""
    cfg = CFG.changed(changes)
    options = {"dropout_by_row": True, **options}
    trainer = local_trainer(cfg, run, weights=getattr(torch, weights), **options)
    return train(trainer, cfg.train.steps)


def evaluate_on_ranks(changes, layout, run):
    """Score some rows as a validation does, before and after a step; tell the mean losses."""
    cfg = CFG.changed(changes)
    dtype = getattr(torch, cfg.parallel.weights)
    trainer = parallel_trainer(cfg, layout, run, weights=torch.float32, dtype=dtype)
    engine, found = trainer.engine, []
    made = to_tensors(trainer.rows.rows(50, 2))

    def score():
        with (
            engine.evaluation() as model, torch.inference_mode(),
            precision_context(engine.dtype, engine.device),
        ):  # fmt: skip
            _, nats = model(made.tokens, made.positions, made.mask, targets=made.targets)
        found.append(float(nats.mean()))

    score()
    with trainer.open_loader() as loader:
        trainer.step(loader)
    score()
    return found


def traffic_on_ranks(changes, layout, run):
    """Count the bytes that this process sends in a step; tell them, and those of the formula."""
    from blankfill.parallel.tensor import cut_dimension

    traffic = load_benchmark("traffic")
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    engine = trainer.engine
    with trainer.open_loader() as loader, traffic.counted(engine._ranks.mesh) as sent:
        trainer.step(loader)
    places = {name: of[0] for name, of in engine.kept.places.items()}
    matrices = matrices_of(list(engine.kept.weights.items()))
    parts = engine.deal(0, trainer.cfg.train.batch_rows)
    computed = [trainer.rows.rows(part.first, part.size) for part in parts]
    positions, targets = engine.sum_over_data([
        sum(batch.tokens.size for batch in computed), sum(batch.num_targets for batch in computed)
    ])  # fmt: skip
    expected = traffic.expected_bytes(
        {name: tuple(p.shape) for name, p in engine.model.named_parameters()},
        engine._ranks.layout.sizes[1:], passes=len(parts),
        muon_shapes=[
            places[name].shape for name, _ in matrices if trainer.cfg.optimizer.kind == "muon"
        ],
        update_bytes=update_precision(engine.device, torch.float32).itemsize,
        positions=positions, targets=targets,
        uncut=sum(prod(of.shape) for name, of in places.items() if cut_dimension(name) is None),
    )  # fmt: skip
    return dict(sent), expected


def fit_on_ranks(changes, layout, run, stopped_rank=None, poisoned_ranks=()):
    """Train to the end as the command does.

    Returns:
        How that ended, after how many steps, what the guard remembers, and whether this process
        told of an incident.
    """
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    rank, step = trainer.engine._ranks.rank, trainer.step

    def watched(loader):
        if trainer.index == 4 and rank == stopped_rank:
            trainer._stop.set()
        return step(loader)

    def poisoned(batch, part):
        made = transfer(batch, part)
        if batch.documents[0] == poison:
            made.targets.weights.fill_(float("nan"))
        return made

    trainer.step, write, told = watched, trainer._watch._write, []
    trainer._watch._write = lambda incident: told.append(incident) or write(incident)
    if poisoned_ranks:
        transfer, deal = trainer.engine.transfer, trainer.engine.deal
        rows = trainer.cfg.train.batch_rows
        part = deal(3 * rows, rows)[0]
        mine = trainer.rows.rows(part.first, part.size).documents[0]
        poison = mine if rank in poisoned_ranks else None
        trainer.engine.transfer = poisoned
    try:
        ended = trainer.fit()
    except TrainingError as error:
        ended = str(error)
    return ended, trainer.index, trainer._watch.state(), len(told) > 0


def buffers_on_ranks(changes, layout, run):
    """Train in a pipeline; tell how many buffers to receive hidden states or their gradients into
    were there at most as a pass began, how many are left, the bytes of them that were sent in a
    step, and what was sent to put weights together and to sum gradients, beside the bytes of the
    weights that this process has a part of."""
    from blankfill.parallel.schedule import _Station

    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    timetable, most, passed = trainer.engine._way._timetable, 0, 0
    traffic = load_benchmark("traffic")

    def buffers():
        return sum(
            info.buffer is not None and info.buffer.device.type != "meta"
            for schedule in timetable._made.values()
            for station in getattr(schedule, "_stages", None) or [schedule._stage]
            for infos in (*station.args_recv_info.values(), *station.grad_recv_info.values())
            for info in infos
        )

    def looked(stage, _given):
        nonlocal most
        most = max(most, buffers())

    for stage in trainer.engine.model.of_index.values():
        stage.register_forward_pre_hook(looked)
    originals = _Station.get_fwd_send_ops, _Station.get_bwd_send_ops

    def counted(get):
        def ops_of(station, number):
            nonlocal passed
            ops = get(station, number)
            passed += sum(op.tensor.nbytes for op in ops)
            return ops

        return ops_of

    _Station.get_fwd_send_ops, _Station.get_bwd_send_ops = map(counted, originals)
    try:
        with trainer.open_loader() as loader:
            for _ in range(trainer.cfg.train.steps):
                passed = 0
                with traffic.counted(trainer.engine._ranks.mesh) as sent:
                    trainer.step(loader)
    finally:
        _Station.get_fwd_send_ops, _Station.get_bwd_send_ops = originals
    parts = trainer.engine._ranks.layout.shard
    whole = sum(
        4 * -(-p.shape[0] // parts) * parts * p[0].numel()
        for p in trainer.engine.model.parameters()
    )
    fsdp = sent[traffic.GATHERED], sent[traffic.REDUCED]
    return most, buffers(), passed, fsdp, whole


def reads_on_ranks(changes, layout, run):
    """Train without waiting, by tensor operations alone; count what each step reads."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Reads(TorchDispatchMode):
        counted = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.counted += func.overloadpacket.__name__ in READS
            return func(*args, **(kwargs or {}))

    os.environ["BLANKFILL_NATIVE"] = "0"  # the forms in C read, on a CPU, what they are given
    load_native.cache_clear()
    read, together = engine_module.read_together, []
    engine_module.read_together = lambda tensors: together.append(1) or read(tensors)
    seen = []
    try:
        trainer = parallel_trainer(CFG.changed(changes), layout, run, reads_each_step=False)
        with trainer.open_loader() as loader, Reads() as reads:
            for _ in range(trainer.cfg.train.steps):
                trainer.step(loader)
                seen.append((len(together), reads.counted))
    finally:
        engine_module.read_together = read
        del os.environ["BLANKFILL_NATIVE"]
        load_native.cache_clear()
    return seen


def settle_on_ranks(ranks, store, run, options):
    """Build a trainer where every process would choose otherwise; tell what all have chosen."""
    from blankfill.prepare import build_trainer, together

    real = together.choose_precision, together.choose_attention
    together.choose_precision = lambda *_: torch.float32 if ranks.leads else torch.bfloat16
    together.choose_attention = lambda *_, **__: "dense" if ranks.leads else "blocks"
    try:
        cfg = CFG.changed({"optimizer.ema_decay": 0.0, **options})
        engine = build_trainer(cfg, data=[store], run=run, ranks=ranks).engine
    finally:
        together.choose_precision, together.choose_attention = real
    return str(engine.dtype), engine.attention, engine.compiled


def meet(layout, function, *args):
    """Call a function with the joined processes."""
    from blankfill.parallel import Ranks

    return function(Ranks(laid_out(layout), torch.device("cpu")), *args)


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

    places = [ranks.kept_by_holders(shape, None) for shape in shapes]
    matrices = [matrix(shape, k) for k, shape in enumerate(shapes)]
    kept = [m[of[ranks.holder].index] for m, of in zip(matrices, places, strict=True)]
    made = OwnedMatrices(places, ranks)(iter(kept), getattr(torch, dtype))
    return ranks.holder, [(piece.float().numpy(), side) for piece, side in made]


def matrix(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fail_on(failing):
    import torch.distributed as dist

    if dist.get_rank() == failing:
        raise ValueError(f"rank {failing} of this case")
    dist.barrier()


def build_on_ranks(ranks, stores, run, options, given=None):
    """Build a trainer of a store, or of several, for each rank, and train; tell how that went.

    Args:
        given: what each rank's trainer is given beside that.
    """
    from blankfill.prepare import build_trainer

    cfg = CFG.changed({"train.steps": 2, "optimizer.ema_decay": 0.0, **options})
    data = stores[ranks.rank]
    more = given[ranks.rank] if given else {}
    try:
        trainer = build_trainer(
            cfg, data=data if isinstance(data, list) else [data], run=run, ranks=ranks, **more
        )
    except BlankfillError as error:
        return f"{type(error).__name__}: {error}"
    return trainer.fit(), type(trainer.engine).__name__, trainer.run.name
