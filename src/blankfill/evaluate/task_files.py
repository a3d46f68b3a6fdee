"""Files of items: found, read, and made into questions.

A file holds one JSON object a line and may be packed. Its name, without endings, says which task it
is of; a file of another name is taken where its fields are those of GLM-130B's own format. What is
wrong with one line is told, and the others are asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from blankfill.config.closest import closest
from blankfill.errors import ConfigError, DataError
from blankfill.evaluate.catalogue import GLM_130B, GLM_130B_WRITTEN, TASKS
from blankfill.evaluate.protocol import Protocol
from blankfill.evaluate.task import BadItemError, Question, Record, Task, ask, texts_of
from blankfill.rng import generator, permute
from blankfill.text.compressed import DamagedFileError, read_blocks
from blankfill.text.language import LANGUAGES, language_code

__all__ = ["AskedTask", "find_task_files", "read_task"]

ENDING = re.compile(r"\.(?:jsonl|ndjson|json)(?:\.(?:gz|zst|bz2|xz))?$")
"""What the name of a file of items ends in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedTask:
    """The questions of one file, as they are asked under one protocol."""

    task: Task
    """What is asked."""
    path: Path
    """The file."""
    protocol: Protocol
    """How."""
    shots: int
    """Solved examples before each question."""
    fingerprint: str
    """SHA-256 of the file's lines."""
    questions: tuple[Question, ...]
    """Those that can be asked, in the file's order."""
    numbers: tuple[int, ...]
    """Of each its number among all items of the file; the same for every run."""
    texts: tuple[tuple[str, ...], ...]
    """Of each the texts of its line."""
    examples: tuple[tuple[str, ...], ...] = ()
    """Of each the solved examples that stand before it, the nearest last."""
    bad: tuple[str, ...] = ()
    """What cannot be asked, and why."""


def find_task_files(words: Sequence[str], items: Path | None) -> list[tuple[Task, Path]]:
    """Find the files of the tasks that a user names.

    Args:
        words: names of tasks, files of items, or folders with such files.
        items: the folder that names are looked for in, with the folders in it.

    Raises:
        ConfigError: there is no such task or file, or two are of one name.
    """
    found: list[tuple[Task, Path]] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = [(_known(file), file) for file in sorted(path.rglob("*"))]
            files = [(task, file) for task, file in inside if task is not None]
            if not files:
                raise ConfigError(f"{word} holds no file of a task that is known by name; name the "
                                  "files of items themselves")  # fmt: skip
            found += files
        elif path.is_file():
            found.append((_known(path) or _of_fields(path), path))
        elif word in TASKS:
            found.append((TASKS[word], _of_name(word, items)))
        else:
            raise ConfigError(
                f"tasks: there is no file {word}, and no task of this name"
                f"{_near(word)}; name a file of items, or one of: {', '.join(TASKS)}"
            )
    names = [task.name for task, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        paths = " and ".join(dict.fromkeys(str(path) for task, path in found if task.name == twice))
        raise ConfigError(f"the task {twice} is named twice, by {paths}; name each once")
    return found


def read_task(
    task: Task, path: Path, protocol: Protocol, *, shots: int | None = None,
    max_items: int | None = None, seed: int = 0,
) -> AskedTask:  # fmt: skip
    """Read a file of items and put them in words.

    Args:
        task: what is asked.
        path: the file.
        protocol: how.
        shots: solved examples before each item; what the protocol says where not given.
        max_items: most lines that are asked, drawn from all; always the same.
        seed: of the draws.

    Raises:
        DataError: the file cannot be read, or none of its items can be asked, or all of them have
            the same answer.
    """
    shots = protocol.shots if shots is None else shots
    wording = task.wordings.get("en" if protocol.is_english else task.language)
    wording = wording or next(iter(task.wordings.values()))
    lines, bad, fingerprint = _read_lines(path)
    kept: list[tuple[int, int, Question]] = []
    pool: list[tuple[int, Question]] = []
    records = [line for _, line in lines]
    count = 0
    for number, line in lines:
        is_example = str(line.get("split", "")) in task.examples
        try:
            for record in task.unfold(line, number, records):
                count += 1
                try:
                    question = ask(task, record, wording, number)
                except BadItemError as error:
                    bad.append(f"line {number + 1}: {error}")
                    continue
                if is_example:
                    pool.append((number, question))
                else:
                    kept.append((count - 1, number, question))
        except BadItemError as error:
            bad.append(f"line {number + 1}: {error}")
    _require_items(task, path, kept, bad)
    if max_items is not None:
        kept = _draw(kept, max_items, seed, task.name)
    by_number = dict(lines)
    found = AskedTask(
        task=task, path=path, protocol=protocol, shots=shots, fingerprint=fingerprint,
        questions=tuple(question for _, _, question in kept),
        numbers=tuple(count for count, _, _ in kept),
        texts=tuple(tuple(texts_of(by_number[number], task.fields)) for _, number, _ in kept),
        bad=tuple(bad),
    )  # fmt: skip
    if not shots or task.metric == "bits per byte":
        return replace(found, shots=0)
    pool = pool or [(number, question) for _, number, question in kept]
    return replace(found, examples=tuple(_examples(pool, kept, shots, seed, task.name)))


def _known(path: Path) -> Task | None:
    """Give the task that a file's name says it is of."""
    name, changed = ENDING.subn("", path.name)
    return TASKS.get(name) if changed and path.is_file() else None


def _of_fields(path: Path) -> Task:
    """Give the task of a file of another name by the fields of its first line."""
    lines, bad, _ = _read_lines(path, most=1)
    if not lines:
        raise DataError(f"{path} holds no item: {bad[0] if bad else 'it is empty'}")
    (_, line), *_ = lines
    name = ENDING.sub("", path.name)
    for form in (GLM_130B, GLM_130B_WRITTEN):
        if form.fields[0] in line and form.fields[1] in line:
            # It says how answers are cut into words.
            found = LANGUAGES[language_code("\n".join(texts_of(line, form.fields)))]
            return replace(form, name=name, language="zh" if found == "zh" else "en")
    raise DataError(
        f"{path} is of no task that is known by name{_near(name)}, and its fields "
        f"({', '.join(list(line)[:6])}) are not those of GLM-130B's (inputs_pretokenized and "
        "choices_pretokenized with label, or targets_pretokenized)"
    )


def _of_name(name: str, items: Path | None) -> Path:
    if items is None:
        raise ConfigError(f"tasks: where the items of {name} lie is not said; give the folder as "
                          "--items, or name the file itself")  # fmt: skip
    if not items.is_dir():
        raise ConfigError(f"items: there is no folder {items}")
    files = [
        path for path in sorted(items.rglob(f"{name}.*"))
        if path.is_file() and ENDING.sub("", path.name) == name
    ]  # fmt: skip
    if not files:
        raise ConfigError(f"{items} holds no file {name}.jsonl, or packed; name the folder that "
                          "holds the items as --items, or the file itself")  # fmt: skip
    if len(files) > 1:
        raise ConfigError(f"{items} holds several files of {name}, {files[0]} and {files[1]}; name "
                          "the one that is meant")  # fmt: skip
    return files[0]


def _near(name: str) -> str:
    near = closest(name, list(TASKS))
    return f" (is {near} meant?)" if near else ""


def _read_lines(
    path: Path, most: int | None = None
) -> tuple[list[tuple[int, Record]], list[str], str]:
    """Read the objects of a file, each with the number of its line; what is none; a fingerprint."""
    lines: list[tuple[int, Record]] = []
    bad: list[str] = []
    digest = hashlib.sha256()
    for number, data in enumerate(_lines_of(path)):
        if not data.strip():
            continue
        digest.update(data + b"\n")
        try:
            value: object = json.loads(data)
        except (ValueError, RecursionError):
            bad.append(f"line {number + 1}: it is not JSON")
            continue
        if isinstance(value, dict):
            lines.append((number, value))
        else:
            bad.append(f"line {number + 1}: it is no JSON object")
        if most is not None and len(lines) >= most:
            break
    return lines, bad, digest.hexdigest()


def _lines_of(path: Path) -> Iterator[bytes]:
    rest = b""
    try:
        with path.open("rb") as file:
            for block in read_blocks(file):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
    except DamagedFileError as error:
        raise DataError(f"{path}: {error}; fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    yield rest


def _require_items(
    task: Task, path: Path, kept: Sequence[tuple[int, int, Question]], bad: Sequence[str]
) -> None:
    """Refuse a file of which nothing can be asked, or whose items all have one answer."""
    if not kept:
        why = f"; {len(bad):,} cannot be: {bad[0]}" if bad else ", it is empty"
        raise DataError(f"{path}: no item of it can be asked as {task.name}{why}")
    classes = {question.label for _, _, question in kept}
    if task.labels and len(classes) == 1 and len(kept) > 1:
        raise DataError(
            f"{path}: all {len(kept):,} items have the same answer, {classes.pop()!r}, so always "
            "giving it would be right; name a file with items of every class"
        )


def _draw(
    kept: Sequence[tuple[int, int, Question]], most: int, seed: int, name: str
) -> list[tuple[int, int, Question]]:
    """Draw lines, with all of their items, in the file's order."""
    lines = list(dict.fromkeys(line for _, line, _ in kept))
    if len(lines) <= most:
        return list(kept)
    places = permute(np.arange(most), len(lines), seed, "items", name)
    chosen = {lines[place] for place in places.tolist()}
    return [each for each in kept if each[1] in chosen]


def _examples(
    pool: Sequence[tuple[int, Question]], kept: Sequence[tuple[int, int, Question]], shots: int,
    seed: int, name: str,
) -> Iterator[tuple[str, ...]]:  # fmt: skip
    """Draw the solved examples of each question, none from its own line or cluster."""
    for count, line, _ in kept:
        draws = generator(seed, "examples", name, count)
        found: dict[int, str] = {}
        for place in draws.integers(0, len(pool), 8 * shots).tolist():
            of, example = pool[place]
            if of != line:
                found[place] = _solved(example)
            if len(found) == shots:
                break
        yield tuple(found.values())


def _solved(question: Question) -> str:
    """Give a question with its answer in the blank."""
    if question.candidates:
        return question.before + question.candidates[question.answer] + question.after
    space = "" if not question.before or question.before[-1] in "\n\uff1a" else " "
    return question.before + space + question.answers[0] + question.after
