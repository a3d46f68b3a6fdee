"""SentencePiece's trainer, run in a process of its own, and what its complaints mean.

Runs of blanks, line breaks and tabs have pieces of their own (user-defined symbols), as icetk has
its `<|blank_k|>`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from blankfill.errors import ConfigError, DataError
from blankfill.objective.special import DISPLAY, sentinel_names
from blankfill.progress import bar
from blankfill.text.sample import CHUNK_BYTES

__all__ = [
    "NUM_FIXED",
    "ModelType",
    "TooLittleTextError",
    "TrainerOptions",
    "run_trainer",
    "trainer_options",
    "usual_coverage",
]

ModelType = Literal["unigram", "bpe"]

_RUNS = (2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64)
"""Runs of blanks with a piece of their own; others are made of these."""
_SYMBOLS = ["\n", "\n\n", "\r", "\r\n", "\t", *("\u2581" * run for run in _RUNS)]
NUM_FIXED = 1 + len(DISPLAY) + len(_SYMBOLS) + 256
"""Ids that every tokenizer has: unknown, the special tokens, the symbols above and the bytes."""

_LINE_LIMIT = 4 * CHUNK_BYTES  # the trainer's own limit is 4192 bytes; longer lines are dropped
_THREADS = 4  # fixed, because the sums of the trainer depend on how the work was divided
# SentencePiece's advice for Chinese is 0.9995, and rarer characters are spelled in bytes; where ids
# are plenty, a fifth of that loss is cheap.
_COVERAGE, _LARGE_COVERAGE, _LARGE_VOCABULARY = 0.9995, 0.9999, 50_000


class TooLittleTextError(ConfigError):
    """A vocabulary is larger than its text allows.

    Args:
        message: the sentence.
        largest: the largest size that the text allows.
    """

    def __init__(self, message: str, *, largest: int) -> None:
        super().__init__(message)
        self.largest = largest


def usual_coverage(vocab_size: int) -> float:
    """Return the share of all characters that get a piece, for a vocabulary of this size."""
    return _COVERAGE if vocab_size < _LARGE_VOCABULARY else _LARGE_COVERAGE


class TrainerOptions(TypedDict):
    """The options of SentencePiece's trainer, by its names."""

    input: str
    model_prefix: str
    model_type: ModelType
    vocab_size: int
    character_coverage: float
    byte_fallback: bool
    normalization_rule_name: str
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    unk_id: int
    bos_id: int
    eos_id: int
    pad_id: int
    control_symbols: list[str]
    user_defined_symbols: list[str]
    max_sentence_length: int
    num_threads: int
    seed_sentencepiece_size: int
    train_extremely_large_corpus: bool
    minloglevel: int


def trainer_options(
    vocab_size: int, coverage: float, model_type: ModelType, num_sentinels: int
) -> TrainerOptions:
    """Build the options of SentencePiece's trainer."""
    sentinels = [name for k in range(num_sentinels) for name in sentinel_names(k + 1)]
    return {
        # The model file stores these names: with paths, equal trainings would give other bytes.
        "input": "sample.txt",
        "model_prefix": "tokenizer",
        "model_type": model_type,
        "vocab_size": vocab_size,
        "character_coverage": coverage,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "unk_id": 0,
        "bos_id": -1,
        "eos_id": -1,
        "pad_id": -1,
        "control_symbols": [*DISPLAY.values(), *sentinels],
        "user_defined_symbols": _SYMBOLS,
        "max_sentence_length": _LINE_LIMIT,
        "num_threads": _THREADS,
        "seed_sentencepiece_size": max(1_000_000, 10 * vocab_size),
        "train_extremely_large_corpus": False,
        "minloglevel": 0,
    }


# A pass of the unigram trainer, or twenty pairs joined by the BPE trainer.
_PASS = re.compile(r"(?:EM sub_iter=\d+|Added: freq=\d+) size=(\d+)")
_ALPHABET = re.compile(r"Alphabet size=(\d+)")
_TOO_HIGH = re.compile(r"too high.*?<= *(\d+)")
_TOO_LOW = re.compile(r"smaller than required_chars[^\d]*(\d+) vs (\d+)")
_SMALL_SAMPLE = 1_000_000  # bytes; up to here the largest size is found in seconds


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the trainer ended."""

    code: int
    """Its exit code; 0 is done."""
    reason: str
    """The last line that it wrote."""
    num_characters: int
    """Characters that get a piece; 0 where it failed before counting them."""


def run_trainer(folder: Path, options: TrainerOptions, *, is_usual: bool, was_cut: bool) -> None:
    """Train, or raise an error that says which sizes are possible.

    Args:
        folder: where the sample lies and the model goes.
        options: for the trainer.
        is_usual: whether the coverage is the one that the size usually has.
        was_cut: whether balancing left out text.

    Raises:
        TooLittleTextError, ConfigError: the text allows other sizes; both bounds are named.
        DataError: the trainer has another reason.
        OSError: the disk is full.
    """
    outcome = _run(folder, options)
    if not outcome.code:
        (folder / "tokenizer.vocab").unlink(missing_ok=True)
        return
    vocab_size = options["vocab_size"]
    if found := _TOO_HIGH.search(outcome.reason):
        if is_usual and vocab_size >= _LARGE_VOCABULARY > int(found[1]):
            # The sizes that the message names use another coverage.
            outcome = _run(folder, {**options, "character_coverage": _COVERAGE})
            found = _TOO_HIGH.search(outcome.reason) or found
        fixed = NUM_FIXED + len(options["control_symbols"]) - len(DISPLAY)
        cut = " that balancing left (--no-balance takes all)" if was_cut else ""
        raise TooLittleTextError(
            f"there is too little text{cut} for vocab_size={vocab_size}: "
            + _sizes(fixed + outcome.num_characters, int(found[1])), largest=int(found[1]),
        )  # fmt: skip
    if found := _TOO_LOW.search(outcome.reason):
        raise ConfigError(
            f"vocab_size={vocab_size} is too small for the characters of this text: "
            f"{_sizes(int(found[2]), _largest(folder, options))}, or a smaller --character-coverage"
        )
    if outcome.code in (-9, 137):
        raise ConfigError(
            "training the tokenizer was killed, most likely because memory ran out; "
            "take a smaller --sample-bytes"
        )
    _write_probe(folder)
    reason = outcome.reason.removeprefix("FAILED ")[-200:] or f"exit code {outcome.code}"
    raise DataError(
        f"SentencePiece cannot make {vocab_size} ids of this text ({reason}); give it more text or "
        "take a smaller --vocab-size"
    )


def _write_probe(folder: Path) -> None:
    """Raise OSError where the disk is full: the trainer's own message does not say so."""
    probe = folder / "probe"
    probe.write_bytes(bytes(1 << 20))
    probe.unlink()


def _sizes(smallest: int, largest: int | None) -> str:
    """Write which sizes a text allows."""
    if largest is None:
        return f"take at least {smallest}"
    if smallest > largest:
        return "it allows no size; give it more text"
    if smallest == largest:
        return f"the only size that it allows is {largest}"
    return f"take at least {smallest}, at most {largest}"


def _largest(folder: Path, options: TrainerOptions) -> int | None:
    """Find the largest size that a text allows; None where that would take long.

    The trainer names it when it is asked for more, so it is asked for one id per byte.
    """
    size = (folder / "sample.txt").stat().st_size
    if size > _SMALL_SAMPLE:
        return None
    outcome = _run(folder, {**options, "vocab_size": size + NUM_FIXED + options["vocab_size"]})
    found = _TOO_HIGH.search(outcome.reason)
    return int(found[1]) if found else None


def _run(folder: Path, options: TrainerOptions) -> _Outcome:
    """Run the trainer in its own process and show its progress."""
    # -P: a module in the current folder must not shadow one of the library's.
    worker = [sys.executable, "-P", "-m", "blankfill.text.train_worker"]
    last, num_characters = "", 0
    with (
        subprocess.Popen(
            [*worker, json.dumps(options), str(folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
        ) as process,
        bar("training the tokenizer", unit="passes") as meter,
    ):  # fmt: skip
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last = line.strip() or last
                if found := _PASS.search(line):
                    meter.advance(1, f"{int(found[1]):,} pieces")
                elif found := _ALPHABET.search(line):
                    num_characters = int(found[1])
        except BaseException:
            process.kill()
            raise
    return _Outcome(process.returncode, last, num_characters)
