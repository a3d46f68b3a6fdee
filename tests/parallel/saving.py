"""What ranks do in the tests of checkpoints: save, die, hand on."""

import errno
import os
import signal
import threading

import torch

from blankfill.data.mixture import RowMixture
from blankfill.errors import CheckpointError
from blankfill.runs import list_checkpoints, newest_checkpoint
from blankfill.runs.tensors import TensorWriter
from parallel.twins import CFG, all_parts, local_trainer, make_rows, parallel_trainer


def of_two_stores(trainer):
    """Let a trainer read two stores in shares that have changed, before its first step."""
    cfg = trainer.cfg
    sources = [make_rows(cfg, seed) for seed in (0, 1)]
    trainer.rows = RowMixture(sources, [0.5, 0.5], [318, 318])
    trainer.rows.change(2 * cfg.train.batch_rows, [0.2, 0.8])
    return trainer


def stands_at(trainer):
    """Tell where a run stands: step, row, the guard's window, sums of losses, the next rows."""
    next_rows = trainer.rows.rows(trainer.row, 6).tokens.tolist()
    return {
        "step": trainer.index, "row": trainer.row, "guard": trainer._watch.state(),
        "means": trainer._all_losses().means(), "next": next_rows,
        "scale": trainer.engine.loss_scale(), "mixtures": trainer.rows.mixtures,
    }  # fmt: skip


def save_on_ranks(changes, layout, run, steps):
    """Train some steps and save; tell what was saved."""
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    of_two_stores(trainer)
    with trainer.open_loader() as loader:
        for _ in range(steps):
            trainer.step(loader)
    trainer.save()
    trainer._saver.finish()
    return all_parts(trainer.engine), stands_at(trainer)


def pass_on(changes, layout, run):
    """Restore the newest checkpoint, and save it again; tell what was restored."""
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    found = restored(of_two_stores(trainer))
    trainer.save()
    trainer._saver.finish()
    return found


def load_alone(changes, run):
    """Restore the newest checkpoint in one process; tell what was restored."""
    return restored(of_two_stores(local_trainer(CFG.changed(changes), run, weights=torch.float32)))


def restored(trainer):
    trainer.restore(trainer.engine.once(lambda: newest_checkpoint(trainer.run)))
    return all_parts(trainer.engine), stands_at(trainer)


def train_beside_a_save(layout, run):
    """Save while the disk of one rank waits for later steps; tell what was saved, and what stood
    before and after that."""
    cfg = CFG.changed({"checkpoint.in_background": True})
    trainer = parallel_trainer(cfg, layout, run, weights=torch.float32)
    engine, stepped, names = trainer.engine, threading.Event(), []
    write = engine.write

    def slow(new, parts):
        if engine._ranks.rank == 1:
            assert stepped.wait(60)
        write(new, parts)

    trainer._saver._write = slow
    with trainer.open_loader() as loader:
        for index in range(4):
            if index == 2:
                trainer.save()
                stored = all_parts(engine)
            trainer.step(loader)
    names.append([path.name for path in list_checkpoints(run)])
    engine.gather([0])  # both have seen that none stands yet
    stepped.set()
    done = trainer.index
    trainer._saver.check_background_save()
    names.append([path.name for path in list_checkpoints(run)])
    trainer.save()
    trainer._saver.finish()
    return stored, done, names


def meet_a_full_disk(layout, run, on_error, met=None):
    """Train to the end, where the second rank's disk is full at step 4, or it meets something else;
    tell how that ended."""
    changes = {
        "checkpoint.every": 2, "checkpoint.keep": 5, "checkpoint.on_error": on_error,
        "checkpoint.in_background": on_error == "stop",
    }  # fmt: skip
    trainer = parallel_trainer(CFG.changed(changes), layout, run, weights=torch.float32)
    write = TensorWriter.write

    def refuse(writer, name, tensor, digest=None):
        if trainer.engine._ranks.rank == 1 and "step-00000004" in writer._folder.name:
            raise met or OSError(errno.ENOSPC, "No space left on device")
        return write(writer, name, tensor, digest)

    TensorWriter.write = refuse
    try:
        return trainer.fit(), trainer.index
    except Exception as error:
        return str(error) if isinstance(error, CheckpointError) else repr(error)
    finally:
        TensorWriter.write = write


def die_in_a_save(layout, run):
    """Train on from the newest checkpoint, where one rank is killed in the middle of its file."""
    trainer = parallel_trainer(CFG, layout, run, weights=torch.float32)
    restored(of_two_stores(trainer))
    put = TensorWriter._put

    def die(writer, data):
        if trainer.engine._ranks.rank == 1 and len(data) > 1000:
            put(writer, data[:100])
            os.kill(os.getpid(), signal.SIGKILL)
        put(writer, data)

    TensorWriter._put = die
    with trainer.open_loader() as loader:
        trainer.step(loader)
        trainer.save()
        trainer._saver.finish()


def newest_on_ranks(layout, run):
    """Look for the newest checkpoint together; tell its step, or why there is none, and which files
    this process has read whole."""
    from blankfill.config.parallel import ParallelConfig
    from blankfill.parallel import Ranks
    from blankfill.runs import folder

    ranks = Ranks(ParallelConfig(replicate=layout[0], shard=layout[1]), torch.device("cpu"))
    read, hash_of_file = [], folder.hash_of_file
    folder.hash_of_file = lambda path: read.append(path.name) or hash_of_file(path)
    try:
        return newest_checkpoint(run, among=ranks).step, read
    except CheckpointError as error:
        return str(error), read
    finally:
        folder.hash_of_file = hash_of_file
