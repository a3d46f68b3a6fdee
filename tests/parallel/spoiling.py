"""What ranks do in the tests of what is not finite: spoil rows, weights or the loss scale."""

import dataclasses
import math

import torch

from blankfill.errors import TrainingError
from parallel.twins import CFG, parallel_trainer

SPOILED = {"weight": "blocks.0.attention.q.weight", "norm": "blocks.0.mlp_norm.weight"}
"""Weights, by what is done."""


def spoil_on_ranks(layout, run, how):
    """Train until a guard ends the run, which the second process has spoiled at step 3: the
    gradient of its rows (`both`: and of the first one's), a weight that it keeps, or its losses.

    Returns:
        How that ended.
    """
    changes = {"guard.on_spike": "stop", "guard.spike_window": 8, "model.vocab_size": 204}
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    engine, step = trainer.engine, trainer.step
    rank = engine._ranks.rank
    spoils = rank == 1 or (how == "both" and rank == 0)

    def backwards(_module, _given, hidden):
        if trainer.index == 3 and how in ("gradient", "both"):
            hidden.register_hook(lambda gradient: gradient * math.inf)

    def watched(loader):
        if trainer.index == 3 and how in SPOILED and spoils:
            with torch.no_grad():
                engine.kept.weights[SPOILED[how]].view(-1)[:2] = math.nan
        return step(loader)

    def worse(batches, total_weight, *, step):
        found = compute(batches, total_weight, step=step)
        if step < 3 or how != "spike":
            return found
        nlls = [nll * 9 for nll in found.nlls] if spoils else found.nlls
        return dataclasses.replace(found, loss_nats=found.loss_nats * 9, nlls=nlls)

    if spoils:
        engine.model.norm.register_forward_hook(backwards)
    trainer.step, compute, engine.forward_backward = watched, engine.forward_backward, worse
    try:
        return f"it did not end: {trainer.fit()}"
    except TrainingError as error:
        return str(error)


def clip_on_ranks(layout, run, weights):
    """Clip a gradient to less than its norm; tell whether that changed it, and whether the bits are
    those of one product after another."""
    trainer = parallel_trainer(CFG, layout, run, weights=getattr(torch, weights))
    engine, rows = trainer.engine, trainer.rows
    part = engine.deal(0, 6)[0]
    made = engine.transfer(rows.rows(part.first, part.size), part)
    found = engine.forward_backward([made], 100.0, step=0)
    before = [gradient.clone() for gradient in engine.kept.gradients()]
    max_norm = found.grad_norm / 3
    engine.clip(max_norm)
    share = (max_norm / (engine._norm + 1e-6)).clamp(max=1.0)
    expected = [gradient.clone().mul_(share) for gradient in before]
    pairs = list(zip(engine.kept.gradients(), before, expected, strict=True))
    return (
        all(not torch.equal(now, was) for now, was, _ in pairs if was.any()),
        all(torch.equal(now, wanted) for now, _, wanted in pairs),
    )


def overflow_on_ranks(layout, run, overflowing_ranks, changes=None):
    """Train in float16, where the gradients of some ranks overflow in two steps; tell of each step
    whether it was left out, and the loss scale after it."""
    cfg = CFG.changed({"train.steps": 5, **(changes or {})})
    trainer = parallel_trainer(cfg, layout, run, weights=torch.float32, dtype=torch.float16)
    compute, rank, told = trainer.engine.forward_backward, trainer.engine._ranks.rank, []

    def computed(batches, total_weight, *, step):
        if rank in overflowing_ranks and step in (1, 2):
            for batch in batches:
                batch.targets.weights.mul_(1e6)
        return compute(batches, total_weight, step=step)

    trainer.engine.forward_backward = computed
    with trainer.open_loader() as loader:
        for _ in range(5):
            left_out = math.isnan(trainer.step(loader).loss_nats)
            told.append((left_out, trainer.engine.scaler.scale))
    return told
