"""An incident: the batch that a guard stopped at, as a page to read and as JSON.

runs/mine/incidents/step-00000137.md      what was found, what was done, and the examples with
                                          the highest loss, their blanks and targets as text
runs/mine/incidents/step-00000137.json    the same and every token with its loss
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from blankfill import atomic
from blankfill.disk.names import resume_option
from blankfill.metrics import example_of_targets
from blankfill.objective.batch import IGNORE_INDEX, Batch, Float32, Kind
from blankfill.text.language import LANGUAGES
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Incident", "write_incident"]

MOST_EXAMPLES = 512
"""Most examples in the JSON file, those of the highest loss."""
SHOWN_EXAMPLES = 12
"""Most examples on the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """What happened at one step."""

    step: int
    """0-based optimizer step."""
    first_row: int
    """Row of the stream at which its batch begins."""
    num_rows: int
    """Rows of its batch."""
    own_row: int
    """Row of the stream at which `batches` begin."""
    teller: str = ""
    """The process that tells of it, where there are several."""
    found: str
    """What the guard found."""
    done: str
    """What was done about it."""
    loss_nats: float
    """Weighted mean loss of the batch."""
    grad_norm: float
    """Global gradient norm before clipping."""
    gradient_norms: dict[str, float]
    """Gradient norm of each layer; none where the step was judged after its update."""
    bad_weights: list[str]
    """Weights that are not finite."""
    batches: Sequence[Batch]
    """Its micro-batches, those of the process that tells of it."""
    nlls: Sequence[Float32]
    """`[n]` nats of each target of each micro-batch."""

    def why_it_ends(self, run: Path, *, seen_at: int) -> str:
        """Say in one sentence why a run ends here and how it can go on.

        Args:
            run: its folder.
            seen_at: step at which it was seen: this one, or a later one where a step's numbers are
                read after its update.
        """
        late = seen_at > self.step
        dropped = f", and its update was dropped; seen at step {seen_at}" if late else ""
        skip = "" if late else f"--train.skip-steps {self.step}, "
        return (
            f"step {self.step}: {self.found}{dropped}; its batch is in {run / 'incidents'}; go on "
            f"with `blankfill pretrain {resume_option(run)}` and {skip}a lower --schedule.peak-lr "
            "or --guard.on-spike skip"
        )


class _Blank(TypedDict):
    """One span of an example in the JSON file."""

    targets: str
    """Its targets as text."""
    loss_nats: float | str | None
    """Mean over its targets; None where it has none."""
    tokens: list[tuple[int, str, float | str]]
    """Id, text and loss of each target."""


class _Example(TypedDict):
    """One example in the JSON file."""

    row: int
    source: int
    document: int
    kind: str
    language: str
    loss_nats: float | str
    part_a: str
    blanks: list[_Blank]


class _Record(TypedDict):
    """The JSON file; numbers that JSON cannot hold are words. Fields as in `Incident`."""

    step: int
    first_row: int
    num_rows: int
    told_rows: tuple[int, int]
    """First of the rows that are told of, and the first after them."""
    teller: str
    found: str
    done: str
    loss_nats: float | str
    grad_norm: float | str
    gradient_norms: dict[str, float | str]
    bad_weights: list[str]
    examples_in_batch: int
    """In the rows that are told of; also where the file holds fewer."""
    examples: list[_Example]


def write_incident(run: Path, incident: Incident, tokenizer: TextTokenizer | None) -> Path:
    """Write an incident's two files and return the page's path.

    Args:
        run: the run's folder.
        incident: what happened.
        tokenizer: turns ids into text; without it ids are shown.

    Raises:
        OSError: they cannot be written.
    """
    examples = _examples(incident, tokenizer)
    told = sum(len(batch.tokens) for batch in incident.batches)
    record: _Record = {
        "step": incident.step,
        "first_row": incident.first_row,
        "num_rows": incident.num_rows,
        "told_rows": (incident.own_row, incident.own_row + told),
        "teller": incident.teller,
        "found": incident.found,
        "done": incident.done,
        "loss_nats": _plain(incident.loss_nats),
        "grad_norm": _plain(incident.grad_norm),
        "gradient_norms": {name: _plain(v) for name, v in incident.gradient_norms.items()},
        "bad_weights": incident.bad_weights,
        "examples_in_batch": len(examples),
        "examples": examples[:MOST_EXAMPLES],
    }
    folder = run / "incidents"
    folder.mkdir(exist_ok=True)
    name = f"step-{incident.step:08d}"
    atomic.write_json(folder / f"{name}.json", record, indent=1)
    atomic.write_text(folder / f"{name}.md", _page(record), errors="backslashreplace")
    return folder / f"{name}.md"


def _examples(incident: Incident, tokenizer: TextTokenizer | None) -> list[_Example]:
    """Describe every example, the highest loss first."""
    found: list[_Example] = []
    row = incident.own_row
    for batch, nll in zip(incident.batches, incident.nlls, strict=True):
        owner = example_of_targets(batch)
        for k, (r, start, part_b, end) in enumerate(batch.blocks.tolist()):
            losses = nll[owner == k]
            targets = batch.targets[r, start:end]
            targets = targets[targets != IGNORE_INDEX]
            mean = float(losses.mean()) if len(losses) else math.nan
            found.append(
                {
                    "row": row + r,
                    "source": int(batch.sources[k]),
                    "document": int(batch.documents[k]),
                    "kind": Kind(batch.kinds[k]).name.lower(),
                    "language": LANGUAGES[batch.languages[k]],
                    "loss_nats": _plain(mean),
                    "part_a": _text(batch.tokens[r, start:part_b].tolist(), tokenizer),
                    "blanks": _blanks(batch, r, part_b, end, losses, tokenizer),
                }
            )
        row += batch.tokens.shape[0]
    return sorted(found, key=_badness, reverse=True)


def _blanks(
    batch: Batch, row: int, part_b: int, end: int, losses: Float32, tokenizer: TextTokenizer | None
) -> list[_Blank]:
    """Describe the spans of one example; each begins as Part B does, or with a `sop` sentinel."""
    targets = batch.targets[row, part_b:end]
    inputs = batch.tokens[row, part_b:end]
    opening = [*inputs[:1].tolist(), *(tokenizer.ids.sop_sentinels if tokenizer else ())]
    first = np.flatnonzero(np.isin(inputs, opening))
    blanks: list[_Blank] = []
    done = 0
    for low, high in zip(first.tolist(), [*first.tolist()[1:], len(inputs)], strict=True):
        wanted = targets[low:high]
        wanted = wanted[wanted != IGNORE_INDEX].tolist()
        mine = losses[done : done + len(wanted)]
        done += len(wanted)
        blanks.append(
            {
                "targets": _text(wanted, tokenizer),
                "loss_nats": _plain(float(mine.mean())) if len(mine) else None,
                "tokens": [
                    (token, _token(token, tokenizer), _plain(round(float(value), 4)))
                    for token, value in zip(wanted, mine, strict=True)
                ],
            }
        )
    return blanks


def _page(record: _Record) -> str:
    lines = [
        f"# Step {record['step']}: {record['found']}",
        "",
        f"Done: {record['done']}.",
        "",
        f"Loss {record['loss_nats']} nats, gradient norm {record['grad_norm']}; the batch begins "
        f"at row {record['first_row']} and {_extent(record)}.",
        "",
    ]
    if record["bad_weights"]:
        lines += ["Weights that are not finite: " + "; ".join(record["bad_weights"]) + ".", ""]
    if record["gradient_norms"]:
        lines += ["| layer | gradient norm |", "|---|---|"]
    lines += [f"| {name} | {_short(value)} |" for name, value in record["gradient_norms"].items()]
    lines += ["", "## Examples, highest loss first", ""]
    for example in record["examples"][:SHOWN_EXAMPLES]:
        lines += [
            f"### Row {example['row']}, source {example['source']}, document "
            f"{example['document']}: {_short(example['loss_nats'])} nats "
            f"({example['kind']}, {example['language']})",
            "",
            f"    {_one_line(example['part_a'])}",
            "",
        ]
        for blank in example["blanks"]:
            lines.append(f"- {_short(blank['loss_nats'])} nats: `{_one_line(blank['targets'])}`")
            tokens = [f"{_one_line(text)} {_short(loss)}" for _, text, loss in blank["tokens"]]
            lines.append("  - " + " | ".join(tokens))
        lines.append("")
    left = record["examples_in_batch"] - SHOWN_EXAMPLES
    if left > 0:
        lines += [f"{left} more with a lower loss are in the JSON file beside this page.", ""]
    return "\n".join(lines)


def _extent(record: _Record) -> str:
    """Say how large the batch is, and which part of it is told of where that is not all."""
    first, end = record["told_rows"]
    holds = f"holds {record['examples_in_batch']} examples"
    if end - first == record["num_rows"]:
        return holds
    return (
        f"has {record['num_rows']} rows; those from {first} to {end - 1}, of the process with the "
        f"highest loss ({record['teller']}), are told of here, with "
        f"{record['examples_in_batch']} examples"
    )


def _badness(example: _Example) -> float:
    loss = example["loss_nats"]
    return loss if isinstance(loss, float) else math.inf


def _text(ids: list[int], tokenizer: TextTokenizer | None) -> str:
    if tokenizer is None:
        return " ".join(map(str, ids))
    known = [i for i in ids if i < tokenizer.vocab_size]
    return tokenizer.decode(known)


def _token(token: int, tokenizer: TextTokenizer | None) -> str:
    known = tokenizer is not None and token < tokenizer.vocab_size
    return tokenizer.token(token) if tokenizer is not None and known else str(token)


def _plain(value: float) -> float | str:
    """Keep numbers that JSON can hold; write the others as words."""
    return value if math.isfinite(value) else str(value)


def _short(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
