"""Train a tokenizer on text files: SentencePiece unigram with byte fallback.

What the trainer (`trainer.py`) sees is a sample of bounded size (`sample.py`). With `balance`, the
larger of English and Chinese is cut to the bytes of the smaller, within limits, as GLM-130B's
tokenizer was trained on equal amounts (Zeng et al. 2022, appendix B.1). The same input gives the
same `tokenizer.model`, byte for byte, on any number of cores.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blankfill.disk.publish import new_folder
from blankfill.errors import ConfigError
from blankfill.objective.special import DISPLAY
from blankfill.progress import bar
from blankfill.results import short_repr
from blankfill.text.corpus import Skips, no_documents, read_documents
from blankfill.text.language import LANGUAGES
from blankfill.text.options import TextOptions
from blankfill.text.records import ReadingReport, shown
from blankfill.text.sample import Sample
from blankfill.text.tokenizer import KIND, MODEL_NAME, VERSION, Tokenizer
from blankfill.text.trainer import (
    NUM_FIXED,
    ModelType,
    run_trainer,
    trainer_options,
    usual_coverage,
)

__all__ = ["ModelType", "TokenizerReport", "train_tokenizer"]

log = logging.getLogger(__name__)

_DEFAULT_SAMPLE = 100_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerReport:
    """What a tokenizer was trained on and how long it took."""

    path: str
    """The tokenizer's folder."""
    vocab_size: int
    """Number of ids, special tokens included."""
    fingerprint: str
    """SHA-256 of `tokenizer.model`."""
    num_documents: dict[str, int]
    """Documents read, by language."""
    num_bytes: dict[str, int]
    """Bytes of UTF-8 read, by language."""
    sampled_bytes: dict[str, int]
    """Bytes of UTF-8 given to the trainer, by language."""
    seconds: float
    """Time of reading and training."""
    num_skipped: int
    """Documents, lines or files that could not be used."""
    skipped: dict[str, int]
    """The same by reason."""
    first_skipped: list[str]
    """The first of them, with file, line and reason."""
    reading: ReadingReport
    """What was read, by the kind of file."""

    __repr__ = short_repr


def train_tokenizer(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    vocab_size: int = 16384,
    balance: bool = True,
    model_type: ModelType = "unigram",
    max_han_piece: int = 0,
    num_sentinels: int = 0,
    options: TextOptions | None = None,
    strict: bool = False,
    overwrite: bool = False,
    character_coverage: float | None = None,
    sample_bytes: int = _DEFAULT_SAMPLE,
) -> TokenizerReport:
    """Train a tokenizer and write its folder.

    Args:
        paths: files, folders, or `-` for stdin.
        out: the folder to write, complete or not at all.
        vocab_size: number of ids, special tokens and bytes included.
        balance: cut the larger of English and Chinese to the bytes of the smaller, but not below
            100 bytes for each id, and not where the smaller is less than 1 % of it.
        model_type: unigram (Kudo 2018), which encodes four times as fast; or bpe, which keeps
            whole words on small and repetitive text, where unigram prefers long phrases.
        max_han_piece: longest piece of Han characters, for small and repetitive text; 0 is off.
        num_sentinels: masks and `sop` of their own for the second and later spans of an example
            (`objective.sentinels`); none without that ablation.
        options: how the files are read; as usual where not given.
        strict: raise an error where a document cannot be used, instead of skipping it.
        overwrite: replace `out` if it is a tokenizer's folder.
        character_coverage: share of all characters that get a piece; the rest is spelled in bytes.
            0.9995 where not given, 0.9999 from 50,000 ids.
        sample_bytes: how much text the trainer sees at most.

    Returns:
        What was read and trained.

    Raises:
        ConfigError: a size cannot be used, or there is too little text for it.
        DataError: there is no text, or (strict) something cannot be used.
        OutputError: `out` is taken, another process writes it, or it cannot be written.
    """
    started = time.monotonic()
    is_usual = character_coverage is None
    if character_coverage is None:
        character_coverage = usual_coverage(vocab_size)
    _check(vocab_size, character_coverage, sample_bytes, num_sentinels)
    target, skips = Path(out), Skips(strict=strict)
    with new_folder(target, KIND, overwrite=overwrite) as folder:
        sample = _read_sample(paths, sample_bytes, options, skips)
        sampled = sample.write(
            folder / "sample.txt", balance=balance, vocab_size=vocab_size,
            max_han_piece=max_han_piece,
        )  # fmt: skip
        run_trainer(
            folder, trainer_options(vocab_size, character_coverage, model_type, num_sentinels),
            is_usual=is_usual, was_cut=sample.was_cut,
        )  # fmt: skip
        (folder / "sample.txt").unlink()
        model = (folder / MODEL_NAME).read_bytes()
        trained = Tokenizer(model, path=str(folder / MODEL_NAME))
        report = TokenizerReport(
            path=str(target),
            vocab_size=trained.vocab_size,
            fingerprint=trained.fingerprint,
            num_documents=_by_language(sample.documents),
            num_bytes=_by_language(sample.bytes_read),
            sampled_bytes=_by_language(sampled),
            seconds=round(time.monotonic() - started, 2),
            num_skipped=skips.total,
            skipped=dict(skips.counts),
            first_skipped=[str(case) for case in skips.first],
            reading=skips.report(),
        )
        chosen: dict[str, object] = {
            "model_type": model_type,
            "max_han_piece": max_han_piece,
            "num_sentinels": num_sentinels,
            "balance": balance,
            "character_coverage": character_coverage,
            "sample_bytes": sample_bytes,
        }
        trained.manifest = _manifest(trained, report, chosen, paths)
        trained.save(folder)
    return report


def _read_sample(
    paths: Sequence[str | Path], sample_bytes: int, options: TextOptions | None, skips: Skips
) -> Sample:
    """Read all text, and keep as much of it as the trainer may see."""
    sample = Sample(sample_bytes)
    with bar("reading text", unit="documents") as meter:
        for document in read_documents(paths, options, report=skips):
            sample.add(document.text, document.language, document.num_bytes)
            meter.advance()
    if not sample.num_documents:
        raise no_documents(paths, skips)
    return sample


def _check(
    vocab_size: int, character_coverage: float, sample_bytes: int, num_sentinels: int
) -> None:
    if num_sentinels < 0:
        raise ConfigError(f"num_sentinels={num_sentinels} must be 0 or more")
    num_fixed = NUM_FIXED + 2 * num_sentinels
    if vocab_size <= num_fixed:
        raise ConfigError(
            f"vocab_size={vocab_size} must be more than the {num_fixed} ids of special tokens, "
            "bytes and blanks; try 16384"
        )
    if not 0.9 <= character_coverage <= 1:
        raise ConfigError(f"character_coverage={character_coverage} must be in [0.9, 1]")
    if sample_bytes < 1:
        raise ConfigError(f"sample_bytes={sample_bytes} must be at least 1")


def _manifest(
    trained: Tokenizer,
    report: TokenizerReport,
    options: Mapping[str, object],
    paths: Sequence[str | Path],
) -> dict[str, object]:
    import sentencepiece

    return {
        "version": VERSION,
        "kind": "blankfill tokenizer",
        "fingerprint": trained.fingerprint,
        "vocab_size": trained.vocab_size,
        "special_ids": {role: getattr(trained.ids, role) for role in DISPLAY},
        "special_tokens": dict(DISPLAY),
        "options": options,
        "training": {
            "sources": [shown(os.path.basename(path) or path) for path in paths],
            "documents": report.num_documents,
            "bytes": report.num_bytes,
            "sampled_bytes": report.sampled_bytes,
            "skipped": report.skipped,
            "seconds": report.seconds,
            "sentencepiece": sentencepiece.__version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        },
    }


def _by_language(numbers: Sequence[int]) -> dict[str, int]:
    return {name: numbers[code] for code, name in enumerate(LANGUAGES) if numbers[code]}
