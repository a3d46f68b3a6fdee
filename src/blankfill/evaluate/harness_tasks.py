"""Our tasks as the lm-evaluation-harness takes them: YAML beside local files.

A file of questions with their context, candidates and answers is written for each task, and a YAML
file that names it; nothing is fetched from anywhere. A question is put as a protocol that reads
nothing after the blank puts it: what stands there is a part of each candidate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from blankfill.errors import ConfigError
from blankfill.evaluate.task import Metric, Question
from blankfill.evaluate.task_files import AskedTask

__all__ = ["PREFIX", "write_harness_tasks"]

PREFIX = "blankfill_"
"""What the names of our tasks begin with in the harness."""
_FIELDS = {
    "accuracy": ("multiple_choice", "context", "answer", "acc"),
    "exact": ("generate_until", "context", "answers", "exact_match"),
    "first word": ("generate_until", "context", "answers", "exact_match"),
    "bits per byte": ("loglikelihood_rolling", "empty", "context", "bits_per_byte"),
}
"""Of each metric the kind of output, the fields of context and answer, and the harness's metric."""

_AGGREGATED = {
    "multiple_choice": {"aggregation": "mean", "higher_is_better": True},
    "generate_until": {
        "aggregation": "mean", "higher_is_better": True, "ignore_case": True,
        "ignore_punctuation": True,
    },
    "loglikelihood_rolling": {"aggregation": "bits_per_byte", "higher_is_better": False},
}  # fmt: skip


def write_harness_tasks(asked: Sequence[AskedTask], folder: Path) -> list[str]:
    """Write tasks for the harness.

    Args:
        asked: the questions, under a protocol that does not read what stands after a blank.
        folder: where to; `TaskManager(include_path=folder)` finds them there.

    Returns:
        Their names in the harness.

    Raises:
        ConfigError: the protocol reads both sides of a blank, which the harness cannot ask for.
    """
    names: list[str] = []
    for task in asked:
        if task.protocol.sees == "both sides":
            raise ConfigError(
                f"protocol={task.protocol.name} reads both sides of a blank, the harness cannot "
                "ask so; take bidirectional or unidirectional"
            )
        name = PREFIX + task.task.name.replace(" ", "_")
        path = folder / f"{name}.jsonl"
        lines = (
            json.dumps(_document(question, task.examples[k] if task.examples else ()))
            for k, question in enumerate(task.questions)
        )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        value = _description(name, path, task.task.metric, folder)
        # JSON is YAML.
        (folder / f"{name}.yaml").write_text(json.dumps(value, indent=1), encoding="utf-8")
        names.append(name)
    return names


def _document(question: Question, examples: Sequence[str]) -> dict[str, object]:
    return {
        "context": "\n\n".join([*examples, question.before]),
        "choices": [candidate + question.after for candidate in question.candidates] or [""],
        "answer": question.answer, "answers": list(question.answers) or [""], "empty": "",
    }  # fmt: skip


def _description(name: str, path: Path, metric: Metric, folder: Path) -> dict[str, object]:
    kind, context, target, measured = _FIELDS[metric]
    found: dict[str, object] = {
        "task": name, "dataset_path": "json", "test_split": "test", "output_type": kind,
        "dataset_kwargs": {
            "data_files": {"test": str(path)}, "cache_dir": str(folder / "cache"),
        },
        "doc_to_text": context, "doc_to_target": target, "target_delimiter": "",
        "metric_list": [{"metric": measured, **_AGGREGATED[kind]}], "metadata": {"version": 1},
    }  # fmt: skip
    if kind == "multiple_choice":
        found["doc_to_choice"] = "choices"
    if kind == "generate_until":
        found["generation_kwargs"] = {"until": ["\n"], "max_gen_toks": 32, "do_sample": False}
    if metric == "first word":
        found["filter_list"] = [{"name": "first word", "filter": [
            {"function": "regex", "regex_pattern": r"(\w+(?:['\u2019\-]\w+)*)"},
            {"function": "take_first"},
        ]}]  # fmt: skip
    return found
