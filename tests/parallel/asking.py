"""What ranks tell of a model that is not trained: gradients of a step, and answers."""

import numpy as np
import torch

from blankfill.engine.transfer import to_tensors
from parallel.twins import CFG, local_trainer, parallel_trainer


def gradients_of(trainer):
    """Compute a step's gradients and leave the weights; give the global norm, and layers' norms."""
    engine, train = trainer.engine, trainer.cfg.train
    with trainer.open_loader() as loader:
        batches = loader.batches(0, train.batch_rows)
        of_mine = sum(float(batch.source.weights.sum()) for batch in batches)
        found = engine.forward_backward(batches, engine.sum_over_data([of_mine])[0], step=0)
    return {"all": found.grad_norm, **engine.gradient_norms()}


def gradients_on_ranks(changes, layout, run):
    """Give the gradient of every weight, put together, and the norms."""
    trainer = parallel_trainer(CFG.changed(changes), layout, run)
    norms, kept = gradients_of(trainer), trainer.engine.kept
    kept.hand_on_gradients()
    whole = {}
    for name, part in kept.weights.items():
        place = kept.place_of(name)
        made = np.full(place.shape, np.nan)
        for its, values in trainer.engine._ranks.gather([(place, part.grad.numpy())]):
            made[its.index] = values
        whole[name] = made
    return whole, norms


def gradients_alone(changes, run):
    trainer = local_trainer(CFG.changed(changes), run, dropout_by_row=True)
    norms = gradients_of(trainer)
    named = trainer.engine.model.named_parameters()
    return {name: parameter.grad.numpy() for name, parameter in named}, norms


def ask_on_ranks(changes, layout, run, length):
    return ask(parallel_trainer(CFG.changed(changes), layout, run), length)


def ask_alone(changes, run, length):
    return ask(local_trainer(CFG.changed(changes), run), length)


def ask(trainer, length):
    """Give nats of targets, scores of all tokens, and scores of what rows of a cache go on with;
    after a step, so that weights are no first ones."""
    from blankfill.generate.engine import Engine, Inputs

    engine = trainer.engine
    with trainer.open_loader() as loader:
        trainer.step(loader)
    batch = trainer.rows.rows(50, 2)
    made = to_tensors(batch)
    with engine.evaluation() as model, torch.inference_mode():
        _, nats = model(made.tokens, made.positions, made.mask, targets=made.targets)
        asked = Engine(model)
        prefix = np.arange(8, 8 + length)
        places = np.stack([np.arange(length), np.zeros(length, np.int64)])
        held = asked.encode([(prefix, places)])[0]
        rows = [asked.join(held) for _ in range(2)]
        hidden = asked.step([Inputs(row, [4, 9 + k], [(3, 1), (3, 2)])
                             for k, row in enumerate(rows)])  # fmt: skip
        scores = model.logits(hidden)
    return {"nats": nats.numpy(), "hidden": hidden.numpy(), "scores": scores.numpy()}
