"""`blankfill evaluate --harness`: runs in EleutherAI's lm-evaluation-harness (the extra `eval`)."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blankfill.errors import BlankfillError, ConfigError
from blankfill.evaluate.protocol import HarnessMode
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.evaluate.task_files import AskedTask
    from blankfill.generate import LanguageModel

__all__ = ["HarnessMode", "HarnessScore", "HarnessTasks", "find_harness_tasks", "run_harness"]

YAML = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessScore:
    """One number of the harness."""

    run: str
    """The run's folder."""
    step: int
    """Optimizer steps of the checkpoint that was asked."""
    mode: str
    """What was read of each context, and how."""
    task: str
    """Name of the task in the harness."""
    metric: str
    """Name of the metric there, with its filter."""
    value: float
    """The score."""
    standard_error: float | None
    """As the harness gives it: it takes all items for independent."""
    num_items: int
    """Items that were scored."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessTasks:
    """What the harness is asked for."""

    ours: tuple[AskedTask, ...]
    """Our tasks, which are written for it."""
    files: tuple[Path, ...]
    """Descriptions of tasks, of the user's."""
    names: tuple[str, ...]
    """Tasks that the harness knows itself."""


def find_harness_tasks(
    words: Sequence[str], items: Path | None, *, mode: HarnessMode, shots: int | None,
    max_items: int | None, seed: int,
) -> HarnessTasks:  # fmt: skip
    """Find the tasks that are named, before a model is loaded.

    A word is a file of items or a folder of such files; a name of our tasks where `items` says in
    which folder they lie; the YAML file of a task; or a name that the harness knows.

    Raises:
        ConfigError: the harness is not installed, or there is no such task.
        DataError: a file of items cannot be read, or nothing of it can be asked.
    """
    tasks = _harness("tasks")
    from blankfill.evaluate.catalogue import TASKS
    from blankfill.evaluate.protocol import PROTOCOLS
    from blankfill.evaluate.task_files import find_task_files, read_task

    files = [Path(word) for word in words if word.endswith(YAML)]
    gone = next((path for path in files if not path.is_file()), None)
    if gone is not None:
        raise ConfigError(f"harness: there is no file {gone}")
    rest = [word for word in words if not word.endswith(YAML)]
    own = [word for word in rest if Path(word).exists() or (items is not None and word in TASKS)]
    names = tuple(word for word in rest if word not in own)
    if names:
        known = set(tasks.TaskManager().all_tasks)
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise ConfigError(
                f"harness: there is no file {unknown}, and lm-eval {_version()} knows no task of "
                "this name; name a file of items, a YAML file, or a task that `lm-eval ls tasks` "
                "lists"
            )
    protocol = PROTOCOLS["unidirectional" if mode == "unidirectional" else "bidirectional"]
    ours = tuple(
        read_task(task, path, protocol, shots=shots, max_items=max_items, seed=seed)
        for task, path in find_task_files(own, items)
    )
    return HarnessTasks(ours=ours, files=tuple(files), names=names)


def run_harness(
    lm: LanguageModel, tasks: HarnessTasks, *, mode: HarnessMode, shots: int | None,
    max_items: int | None,
) -> list[HarnessScore]:  # fmt: skip
    """Run the harness on a model.

    Raises:
        ConfigError: the harness cannot run a task, such as one whose items it cannot fetch.
    """
    evaluator, managers = _harness("evaluator"), _harness("tasks")
    from blankfill.evaluate.harness import HarnessModel
    from blankfill.evaluate.harness_tasks import write_harness_tasks

    local = not (tasks.names or tasks.files)
    with tempfile.TemporaryDirectory(prefix="blankfill-harness-") as name, _offline(local):
        folder = Path(name)
        names = write_harness_tasks(tasks.ours, folder) + list(tasks.names)
        try:
            manager = managers.TaskManager(
                include_path=str(folder), include_defaults=bool(tasks.names or tasks.files)
            )
            found = evaluator.simple_evaluate(
                model=HarnessModel(lm, mode=mode), task_manager=manager, log_samples=False,
                tasks=[*names, *map(str, tasks.files)],
                num_fewshot=None if tasks.ours else shots,
                limit=None if tasks.ours else max_items,
            )  # fmt: skip
        except BlankfillError:
            raise
        except Exception as error:  # of the harness, or of a library that it fetches items with
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise ConfigError(
                f"harness: lm-eval cannot run {', '.join(names) or 'the files'} "
                f"({type(error).__name__}: {reason})"
            ) from error
    return list(_scores(found["results"], lm, mode))


def _scores(results: Mapping[str, Mapping[str, Any]], lm: LanguageModel, mode: str):
    for task, values in results.items():
        for name, value in values.items():
            metric, _, kind = name.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{kind}")
            yield HarnessScore(
                run=str(lm.path), step=lm.step, mode=mode, task=task, value=float(value),
                metric=metric if kind == "none" else f"{metric}, {kind}",
                standard_error=float(error) if isinstance(error, int | float) else None,
                num_items=int(values.get("sample_len", 0)),
            )  # fmt: skip


def _harness(module: str) -> Any:
    """Import a module of lm-eval.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        importlib.import_module("lm_eval")
        return importlib.import_module(f"lm_eval.{module}")
    except ImportError as error:
        raise ConfigError(
            f"harness: lm-eval cannot be imported ({error}); install it: "
            "pip install 'blankfill[eval]'"
        ) from error


@contextlib.contextmanager
def _offline(local: bool) -> Generator[None]:
    """Keep the harness's library of data sets from the network, where all items lie here.

    Even of a local file it would tell a server that it was read.
    """
    config = importlib.import_module("datasets.config")
    wanted = {"HF_UPDATE_DOWNLOAD_COUNTS": False, **({"HF_HUB_OFFLINE": True} if local else {})}
    before = {name: getattr(config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def _version() -> str:
    return str(getattr(importlib.import_module("lm_eval"), "__version__", ""))
