"""Values that many tests share."""

from __future__ import annotations

import logging
import os
import random
import signal

import numpy as np
import pytest

from blankfill.objective.special import SpecialIds
from memory_store import MemoryStore


def pytest_configure():
    """Give each worker of pytest-xdist a core of its own: two threads on a busy core are slow."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts():
    """A shell's background jobs ignore SIGINT, and so would the processes that tests send it to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def ids():
    return SpecialIds(pad=0, mask=1, smask=2, gmask=3, sop=4, eop=5, eos=6, dblock=7)


@pytest.fixture
def memory_store():
    """A function that wraps documents as a store."""
    return MemoryStore


@pytest.fixture
def random_store():
    """A function that makes a store of random documents of given lengths."""

    def make(lengths, seed=0, vocab_size=200):
        rng = np.random.default_rng(seed)
        return MemoryStore([rng.integers(8, vocab_size, n) for n in lengths])

    return make


class OnlyIds:
    """A tokenizer of which nothing but its ids is asked."""

    def __init__(self, ids, vocab_size):
        self.ids, self.vocab_size = ids, vocab_size


def language_model(model, tokenizer, *, scheme="corrupted", num_tokens=None):
    """A model in use: of a tokenizer, or of special tokens alone, where texts are ids."""
    from blankfill.config.objective import ObjectiveConfig
    from blankfill.config.run import RunConfig
    from blankfill.config.train import TrainConfig
    from blankfill.generate import LanguageModel

    if isinstance(tokenizer, SpecialIds):
        tokenizer = OnlyIds(tokenizer, num_tokens or model.cfg.vocab_size)
    cfg = RunConfig(
        model=model.cfg, objective=ObjectiveConfig(positions=scheme),
        train=TrainConfig(row_length=model.cfg.max_position),
    )  # fmt: skip
    return LanguageModel(model=model, tokenizer=tokenizer, cfg=cfg)


def small_corpus(num_documents=400, seed=0):
    """Varied sentences of both languages, enough for a few hundred pieces."""
    rng = random.Random(seed)
    words = [
        "the",
        "a",
        "old",
        "young",
        "fox",
        "dog",
        "river",
        "town",
        "reads",
        "sees",
        "sells",
        "brings",
        "bread",
        "books",
        "water",
    ]
    han = "人山水火木土天地日月书读看卖来去"
    documents = []
    for i in range(num_documents):
        if i % 2:
            text = (
                "".join(rng.choice(han) for _ in range(40)) + "\uff0c" + rng.choice(han) + "\u3002"
            )
        else:
            text = (
                " ".join(rng.choice(words) for _ in range(20)) + ".\n" + str(rng.randint(1, 3000))
            )
        documents.append(text)
    return documents


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """The folder of a small trained tokenizer."""
    from blankfill.text.train_tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "corpus.txt").write_text("\n\n".join(small_corpus()), encoding="utf-8")
    train_tokenizer([folder / "corpus.txt"], folder / "tok", vocab_size=500)
    return folder / "tok"


@pytest.fixture(autouse=True)
def root_logger_as_found():
    """Take away the handlers that a command left: their stream ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run_record(cfg, tokenizer=None, **fields):
    """What a run says of itself that nobody trained."""
    from blankfill.runs.made_with import Hardware, Software
    from blankfill.runs.record import RunRecord, TokenizerEntry

    of_run = {
        "tokenizer": TokenizerEntry(fingerprint=tokenizer.fingerprint) if tokenizer else None,
        "data": (), "validation": (), "started": "2025-01-01T00:00:00+00:00",
        "software": Software(blankfill="0", python="3", torch="2", numpy="2"),
        "hardware": Hardware(machine="x86_64", system="Linux", cpu="x", cores=1),
    }  # fmt: skip
    return RunRecord(config=cfg, **of_run | fields)
