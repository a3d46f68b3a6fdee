"""From text files to a token store, on all cores, in the order of the input.

The reading process cuts the input into packets of a megabyte or so; worker processes parse and
encode them; the reading process writes the results in order. Only a few packets are under way at a
time, so memory does not grow with the input, and the store is the same for any number of workers.

Workers are spawned, not forked: the calling process may hold threads. They leave Ctrl-C to the
reading process and end by themselves when it has ended.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blankfill import progress
from blankfill.data.duplicates import DUPLICATE, MOST_DOCUMENTS, SeenDocuments, identity_of
from blankfill.data.hold_out import SplitWriter, fraction_of
from blankfill.data.manifest import StoreManifest
from blankfill.errors import DataError
from blankfill.runtime import available_cores
from blankfill.text.corpus import no_documents, read_records
from blankfill.text.fields import FieldCheck
from blankfill.text.options import TextOptions
from blankfill.text.records import FileKind, Record, Skipped, Skips, parse_record, shown
from blankfill.text.sentences import sentence_tokens
from blankfill.text.tokenizer import TextTokenizer
from blankfill.text.vocabularies import load_tokenizer

__all__ = ["Built", "build_store"]

log = logging.getLogger(__name__)

PACKET_BYTES = 1 << 20
"""Text of one packet; a longer document is a packet of its own."""
PACKET_RECORDS = 2000
"""Most documents of one packet."""
PACKETS_PER_WORKER = 3
"""Most packets under way for each worker."""
SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that, if not empty, keeps the current folder out of Python's module path."""
WAITING_BYTES = 128 << 20
"""Most text under way in total, so that many large documents do not fill the memory."""


class Built(NamedTuple):
    """What came of a text."""

    training: StoreManifest
    """The manifest of the store; where a share was held out, of the rest."""
    held_out: StoreManifest | None
    """The manifest of the held-out store; None where nothing was to be held out."""
    skips: Skips
    """What was read and skipped."""
    num_duplicates: int
    """Documents that were there before, word for word."""


class _Encoded(NamedTuple):
    """One document, encoded."""

    tokens: npt.NDArray[np.int32]
    language: int
    characters: int
    num_bytes: int
    sentence_ends: npt.NDArray[np.int64]
    prompt: int | None
    kind: FileKind
    where: tuple[str, int]
    has_answer: bool
    fraction: float
    identity: bytes

    def left_out(self, reason: str) -> Skipped:
        """Say that this document is left out."""
        return Skipped(*self.where, reason, self.kind)


_tokenizer: TextTokenizer | None = None
"""A worker's tokenizer: set once, when the worker starts."""


def build_store(
    files: Sequence[str | Path],
    tokenizer: Path,
    out: Path,
    *,
    options: TextOptions | None = None,
    strict: bool = False,
    overwrite: bool = False,
    num_workers: int = 0,
    hold_out: float = 0.0,
    drop_duplicates: bool = False,
    shard_tokens: int = 0,
) -> Built:
    """Build a token store.

    Args:
        files: files, folders, or `-` for stdin.
        tokenizer: folder of the tokenizer.
        out: folder of the store; it appears when it is complete.
        options: how the files are read; as usual where not given.
        strict: raise an error where a document cannot be used, instead of skipping it.
        overwrite: replace a store at `out`.
        num_workers: processes that encode; 0 takes one per core, 1 encodes in this process.
        hold_out: share of the documents that goes into a second store, `held_out_path(out)`.
        drop_duplicates: leave out documents that were there before, word for word; else they are
            only counted.
        shard_tokens: most tokens of a shard; 0 makes stores without shards.

    Returns:
        What was built, and what was skipped.

    Raises:
        DataError: nothing can be read, or nothing is left.
        OutputError: `out`, or the place of the second store, is taken or cannot be written.
    """
    loaded = load_tokenizer(tokenizer)
    skips = Skips(strict=strict)
    options = options or TextOptions()
    check = FieldCheck(options.fields)
    records = read_records(files, options, check=check, skips=skips)
    workers = num_workers or available_cores()
    with (
        SplitWriter(
            out, hold_out, vocab_size=loaded.vocab_size, tokenizer_fingerprint=loaded.fingerprint,
            tokenizer=tokenizer, overwrite=overwrite, shard_tokens=shard_tokens,
        ) as writer,
        progress.bar("encoding text", unit="documents") as meter,
    ):  # fmt: skip
        sorting = _Sorting(writer, skips, check, drop_duplicates=drop_duplicates)
        for results in _encode(records, loaded, tokenizer, options, workers):
            sorting.add(results)
            meter.advance(len(results), f"{writer.num_tokens / 1e6:.1f} M tokens")
        if not writer.num_documents:
            raise no_documents(files, skips)
        check.finish()
        training, held_out = writer.finish(
            {"sources": [shown(file) for file in files], "skipped": dict(skips.counts)}
        )
    sorting.warn()
    return Built(training, held_out, skips, sorting.num_duplicates)


class _Sorting:
    """What becomes of each document: written to its side, left out as a duplicate, or skipped.

    Args:
        writer: takes what is kept.
        skips: counts it, and what is not.
        check: learns which fields there were.
        drop_duplicates: leave out what was there before.
    """

    def __init__(
        self, writer: SplitWriter, skips: Skips, check: FieldCheck, *, drop_duplicates: bool
    ) -> None:
        self._writer, self._skips, self._check = writer, skips, check
        self._drop_duplicates = drop_duplicates
        self._seen = SeenDocuments()
        self.num_duplicates = 0

    def add(self, results: Sequence[_Encoded | Skipped]) -> None:
        """Take the results of a packet, in order."""
        identities = [result.identity for result in results if isinstance(result, _Encoded)]
        repeated = iter(self._seen.add(identities))
        for result in results:
            if isinstance(result, Skipped):
                self._skips.add(result)
                continue
            is_repeated = next(repeated)
            self.num_duplicates += is_repeated
            if is_repeated and self._drop_duplicates:
                self._skips.leave_out(result.left_out(DUPLICATE))
                continue
            self._skips.keep(result.kind)
            self._writer.side(result.fraction).add(
                result.tokens, result.language, characters=result.characters,
                num_bytes=result.num_bytes, sentence_ends=result.sentence_ends,
                prompt=result.prompt,
            )  # fmt: skip
            if result.kind != "text":
                self._check.add(has_answer=result.has_answer, is_pair=result.prompt is not None)

    def warn(self) -> None:
        """Say where not all duplicates were found."""
        if self._seen.is_full:
            log.warning("duplicates were looked for among the first %d documents only",
                        MOST_DOCUMENTS)  # fmt: skip


def _encode(
    records: Iterator[Record],
    loaded: TextTokenizer,
    tokenizer: Path,
    options: TextOptions,
    workers: int,
) -> Iterator[list[_Encoded | Skipped]]:
    packets = _packets(records)
    first = next(packets, None)
    if first is None:
        return
    second = next(packets, None)
    # A pool takes longer to start than one packet takes to encode.
    if workers == 1 or second is None:
        for packet in _chain(first, second, packets):
            yield [_encode_one(record, loaded, options) for record in packet]
        return
    context = multiprocessing.get_context("spawn")
    with _safe_path():  # the pool's semaphores are tracked by a process of their own
        resource_tracker.ensure_running()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(tokenizer,)
    ) as pool:
        waiting: deque[tuple[int, Future[list[_Encoded | Skipped]]]] = deque()
        num_bytes = 0
        try:
            for packet in _chain(first, second, packets):
                size = sum(record.num_bytes for record in packet)
                with _interrupts_held():
                    waiting.append((size, pool.submit(_encode_packet, packet, options)))
                num_bytes += size
                while len(waiting) >= PACKETS_PER_WORKER * workers or num_bytes > WAITING_BYTES:
                    size, future = waiting.popleft()
                    num_bytes -= size
                    yield future.result()
            while waiting:
                yield waiting.popleft()[1].result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that encoded text has ended: memory ran out, or the script "
                'that called lacks `if __name__ == "__main__":`; nothing was written: try '
                "--num-workers 1"
            ) from error
        finally:
            for _, future in waiting:
                future.cancel()


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Start processes that ignore Ctrl-C from their first instruction on.

    They inherit the blocked signal. In this process it is delivered at the end at the latest.
    """
    with _safe_path():
        resource_tracker.ensure_running()  # a process still to start unblocks the signal itself
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _safe_path() -> Generator[None]:
    """Start processes in which no module of the current folder shadows one of the library's."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


def _chain(
    first: list[Record], second: list[Record] | None, rest: Iterator[list[Record]]
) -> Iterator[list[Record]]:
    yield first
    if second is not None:
        yield second
    yield from rest


def _packets(records: Iterator[Record]) -> Iterator[list[Record]]:
    packet: list[Record] = []
    size = 0
    for record in records:
        packet.append(record)
        size += record.num_bytes
        if size >= PACKET_BYTES or len(packet) >= PACKET_RECORDS:
            yield packet
            packet, size = [], 0
    if packet:
        yield packet


def _start_worker(tokenizer: Path) -> None:
    """Load the tokenizer; leave Ctrl-C to the process that reads, and end with it."""
    global _tokenizer  # the only state that a worker keeps between packets
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _tokenizer = load_tokenizer(tokenizer)


def _end_with_parent() -> None:
    """End this process when the reading one has ended: it would wait for packets for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _encode_packet(packet: list[Record], options: TextOptions) -> list[_Encoded | Skipped]:
    assert _tokenizer is not None
    return [_encode_one(record, _tokenizer, options) for record in packet]


def _encode_one(
    record: Record, tokenizer: TextTokenizer, options: TextOptions
) -> _Encoded | Skipped:
    document = parse_record(record, options)
    if isinstance(document, Skipped):
        return document
    tokens = tokenizer.encode(document.text)
    ends = sentence_tokens(document.text, tokens, tokenizer)
    prompt = None
    if document.answer:
        prompt = len(tokens)
        tokens = np.concatenate([tokens, tokenizer.encode(document.answer)])
        ends = np.append(ends[ends < prompt], [prompt, len(tokens)])
    characters = len(document.text) + len(document.answer or "")
    return _Encoded(
        tokens, document.language, characters, document.num_bytes, ends, prompt,
        document.kind, (record.file, record.line), document.answer is not None,
        fraction_of(document.text), identity_of(document.text, document.answer),
    )  # fmt: skip
