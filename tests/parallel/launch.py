"""Commands of several processes, each a process of its own, forked from one that has loaded torch.

The launcher's part is played as torchrun plays it: it keeps the store, and where one process has
failed it tells the others to end.
"""

import multiprocessing
import os
import signal
import sys
import time

from parallel.crew import PRELOADED

HANDLED = [*PRELOADED, "blankfill.api.pretrain", "blankfill.prepare"]


class Launch:
    """One command on several processes.

    Args:
        folder: for what they write to stderr.
        of_ranks: the words of each.
        passes_on: whether the launcher ends the others where one has failed.
        environment: of each beside what a launcher says.
        hurt: by rank, what is done to a process before its command begins.
    """

    def __init__(self, folder, of_ranks, *, passes_on=True, environment=None, hurt=None):
        import torch.distributed as dist

        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(HANDLED)
        self._logs = [folder / f"{rank}.err" for rank in range(len(of_ranks))]
        self._passes_on, self._told = passes_on, False
        self.processes = []
        for rank, words in enumerate(of_ranks):
            told = {
                "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(of_ranks),
                "LOCAL_WORLD_SIZE": len(of_ranks), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": self._store.port, "TORCHELASTIC_USE_AGENT_STORE": "True",
                "BLANKFILL_PROGRESS": "0", "OMP_NUM_THREADS": 1, **(environment or {}),
            }  # fmt: skip
            told = {name: str(value) for name, value in told.items()}
            args = (words, told, self._logs[rank], (hurt or {}).get(rank))
            self.processes.append(context.Process(target=_run, args=args, daemon=True))
        for log, process in zip(self._logs, self.processes, strict=True):
            log.touch()
            process.start()

    def send(self, rank, number):
        """Send a signal to a process."""
        os.kill(self.processes[rank].pid, number)

    def wait(self, seconds, *, but=()):
        """Wait until all have ended; give their exit codes, None of those that live on."""
        until = time.monotonic() + seconds
        waited = [process for rank, process in enumerate(self.processes) if rank not in but]
        while time.monotonic() < until and any(process.is_alive() for process in waited):
            failed = any(process.exitcode for process in self.processes)
            if failed and self._passes_on and not self._told:
                self._told = True
                for process in self.processes:
                    process.terminate()
            time.sleep(0.05)
        return [process.exitcode for process in self.processes]

    def lose_store(self):
        """End the store, as where the launcher itself is killed."""
        self._store = None

    def said(self):
        """Give what each has said that is for people: its sentences, and no log."""
        found = []
        for rank, path in enumerate(self._logs):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [(rank, line) for line in lines if line.startswith("blankfill: ")]
        return found

    def log(self):
        """Give all that was written, for a test that fails."""
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in self._logs)

    def close(self):
        """End what is left."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()


def _run(words, environment, log, hurt):
    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", buffering=1, closefd=False))
    sys.argv = ["blankfill", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)

    import torch

    from blankfill.cli.main import entry_point

    torch.set_num_threads(1)
    if hurt is not None:
        hurt()
    entry_point()
