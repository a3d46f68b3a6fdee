"""Ranks for tests: processes that stay alive, join as a gloo group for a case, and part again.

One process loads torch and forks the ranks, so that the first case waits for one start and others
for none.
"""

import multiprocessing
import time
import traceback
from multiprocessing.connection import wait
from uuid import uuid4

PRELOADED = ["torch", "blankfill.parallel", "blankfill.engine.local", "blankfill.train.trainer"]


AFTER_FAILURE_SECONDS = 5.0


class RankFailedError(AssertionError):
    """A rank raised, or did not answer."""


class Crew:
    """Up to `size` ranks.

    Args:
        folder: for the file in which the ranks of a case find each other.
        size: most ranks of a case.
    """

    def __init__(self, folder, size):
        self._folder, self._size = folder, size
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._ranks = []

    def run(self, function, count, *args, seconds=120.0):
        """Call `function(*args)` on so many joined ranks and return what each gave, by rank.

        Args:
            function: of a module that the ranks can import.
            count: ranks.
            args: whatever can be pickled.
            seconds: within which all must have answered.
        """
        self._start()
        meeting = f"file://{self._folder / uuid4().hex}"
        ranks = self._ranks[:count]
        for rank, (_, pipe) in enumerate(ranks):
            pipe.send((function, args, rank, count, meeting))
        answers, end = {}, time.monotonic() + seconds
        while len(answers) < count:
            waiting = {pipe: r for r, (_, pipe) in enumerate(ranks) if r not in answers}
            ready = wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                try:
                    answers[waiting[pipe]] = pipe.recv()
                except EOFError:
                    answers[waiting[pipe]] = (False, "its process has ended")
            if not all(done for done, _ in answers.values()):
                # The rank that failed first is often heard after those that lost it.
                end = min(end, time.monotonic() + AFTER_FAILURE_SECONDS)
        failed = {rank: told for rank, (done, told) in answers.items() if not done}
        if failed or len(answers) < count:
            self.close()
        if failed:
            rank = min(failed, key=lambda rank: ("Connection" in failed[rank], rank))
            raise RankFailedError(f"rank {rank} of {count}:\n{failed[rank]}")
        if len(answers) < count:
            silent = sorted(set(range(count)) - set(answers))
            raise RankFailedError(f"ranks {silent} of {count} have not answered in {seconds} s")
        return [answers[rank][1] for rank in range(count)]

    def close(self):
        """End the ranks."""
        for process, pipe in self._ranks:
            pipe.close()
            process.kill()
            process.join()
        self._ranks = []

    def _start(self):
        while len(self._ranks) < self._size:
            here, there = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            there.close()
            self._ranks.append((process, here))


def _serve(pipe):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while True:
        try:
            function, args, rank, count, meeting = pipe.recv()
        except EOFError:
            return
        try:
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
            result = True, function(*args)
        except BaseException:
            result = False, traceback.format_exc()
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        pipe.send(result)
