"""A file of answers, one line of JSON each, that grows while texts are answered.

    with AnswersFile(out) as file:                  # locked, and known to be ours
        file.begin("runs/mine", 2000, {"top_p": 0.9})
        file.without_answered(texts)                # those whose answers it lacks
        file.write(items)
        file.finish()

A file that an earlier call of the same command left goes on: its whole lines stay, and a last line
that was cut off, as by a full disk or a killed process, is cut away and answered again. Nothing is
written before all of its lines are known to be answers of the same model, asked in the same way,
to the same texts in the same order.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, cast

from blankfill.disk.publish import NameLock, refused_by_disk
from blankfill.errors import OutputError
from blankfill.results import plain

if TYPE_CHECKING:
    from blankfill.generate import FilledItem
    from blankfill.text.user_text import UserText

__all__ = ["AnswersFile"]

_START = b'{"run": "'
"""What each line begins with."""
_KEYS = ("run", "step", "options", "prompt")
_BLOCK = 2**16


class AnswersFile:
    """A file of answers that is being written.

    Args:
        out: the file, as the user named it; or a pipe or device, which is written into.

    Raises:
        OutputError: it is something else that would be lost, is being written by another process,
            or cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.name = str(out)
        self._lock: NameLock | None = None
        self._start = b""
        self._number = 0
        """Lines that were compared."""
        with refused_by_disk(out):
            goes_on = _is_regular(out)
            if goes_on:
                self._lock = NameLock(out)
        try:
            with refused_by_disk(out):
                path = self._lock.path if self._lock is not None else out
                self._is_new = goes_on and not path.exists()
                self._file: IO[bytes] = path.open("a+b" if goes_on else "ab")
                try:
                    self._end = self._whole(self._file) if goes_on else None
                    if goes_on:
                        self._file.seek(0)
                except BaseException:
                    self._file.close()
                    raise
        except BaseException:
            self._release()
            raise

    def begin(self, run: str, step: int, options: Mapping[str, object]) -> None:
        """Say what answers, which stands in each line.

        Args:
            run: the run's folder.
            step: its optimizer steps.
            options: of the call, where they are not the usual ones.
        """
        head = {"run": run, "step": step, "options": options}
        self._start = _encode(head).removesuffix(b"}") + b", "

    def without_answered(self, texts: Sequence[UserText]) -> list[UserText]:
        """Give the texts whose answers the file lacks.

        Raises:
            OutputError: it holds answers to other texts, of another model, or to other options.
        """
        with refused_by_disk(self.name):
            for k, text in enumerate(texts):
                if not self._has_more():
                    return [*texts[k:]]
                self._compare(self._file.readline(), text)
        return []

    def write(self, items: Sequence[FilledItem]) -> None:
        """Add answers.

        Raises:
            OutputError: the disk refuses.
        """
        with refused_by_disk(self.name):
            self._cut()
            lines = (_encode(cast("dict[str, object]", plain(item))) for item in items)
            self._file.write(b"".join(self._start + line[1:] + b"\n" for line in lines))
            self._file.flush()

    def finish(self) -> None:
        """End the file where the texts do.

        Raises:
            OutputError: it holds more answers than there are texts.
        """
        with refused_by_disk(self.name):
            if self._has_more():
                raise OutputError(
                    f"{self.name} holds more answers than there are texts, {self._number:,}; name "
                    "another file"
                )
            self._cut()

    def _has_more(self) -> bool:
        """Whether a whole line of an earlier call was not compared yet."""
        return self._end is not None and self._file.tell() < self._end

    def _cut(self) -> None:
        """Cut away a last line that is not whole; from here on lines are added."""
        if self._end is not None:
            self._file.truncate(self._end)
            self._file.seek(0, os.SEEK_END)
            self._end = None

    def _compare(self, line: bytes, text: UserText) -> None:
        """Check that a line is the answer to a text.

        Raises:
            OutputError: it is not.
        """
        self._number += 1
        where = f"line {self._number:,} of {self.name}"
        found = _parsed(line)
        if found is None:
            raise OutputError(f"{where} is no answer of ours and would be lost; name another file")
        if not line.startswith(self._start):
            raise OutputError(
                f"{where} was answered by {found['run']}, step {found['step']}, with the options "
                f"{json.dumps(found['options'])}; ask the same way, or name another file"
            )
        if found["prompt"] != text.text:
            raise OutputError(
                f"{where} answers another text than the one that stands there now; give the same "
                "texts, or name another file"
            )

    def _whole(self, file: IO[bytes]) -> int:
        """Find where the last whole line ends.

        Raises:
            OutputError: the file is not ours.
        """
        file.seek(0)
        first = file.readline(2**24)
        whole = first.endswith(b"\n")
        ours = _parsed(first) is not None if whole else _is_start(first)
        if first and not ours:
            raise OutputError(
                f"{self.name} is not a file of answers and would be lost; name another file"
            )
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with refused_by_disk(self.name):
                self._file.close()
                if self._lock is not None and self._is_new and not self._lock.path.stat().st_size:
                    self._lock.path.unlink()  # nothing was written
        finally:
            self._release()


def _is_regular(out: Path) -> bool:
    """Tell a file, or a place for one, from a pipe or a device, which is written into.

    Raises:
        OutputError: it is a folder.
    """
    try:
        mode = out.stat().st_mode
    except OSError:
        return True  # what it is will be said when it is locked
    if stat.S_ISDIR(mode):
        raise OutputError(f"{out} is a folder; name a file, such as {out / 'answers.jsonl'}")
    return stat.S_ISREG(mode)


def _is_start(line: bytes) -> bool:
    """Tell whether a line that is not whole may be one of ours."""
    return line.startswith(_START) or _START.startswith(line)


def _parsed(line: bytes) -> dict[str, object] | None:
    """Read a line of ours; None where it is none."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not all(key in value for key in _KEYS):
        return None
    return cast("dict[str, object]", value)


def _encode(value: Mapping[str, object]) -> bytes:
    """Write JSON in one line; half of a surrogate pair, which UTF-8 lacks, as its escape."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
