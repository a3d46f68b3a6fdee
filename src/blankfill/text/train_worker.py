"""Train a SentencePiece model in a process of its own.

Run as `python -m blankfill.text.train_worker OPTIONS FOLDER`: the trainer's options as JSON, and
the folder to read and write. A separate process, because the trainer cannot be interrupted, writes
its log directly to stderr, and ends the whole process when it runs out of memory. This way Ctrl-C
stops it, its log becomes a progress bar, and its failure becomes a clear error message.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

__all__ = ["train"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def train(options: str, folder: str) -> None:
    """Train with the given options; the reason of a failure is the last line of stderr."""
    _die_with_parent()
    import sentencepiece

    os.chdir(folder)
    try:
        sentencepiece.SentencePieceTrainer.Train(**json.loads(options))
    except (RuntimeError, OSError) as error:
        print("FAILED " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)


def _die_with_parent() -> None:
    """Ask Linux to end this process with the one that started it."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2])
