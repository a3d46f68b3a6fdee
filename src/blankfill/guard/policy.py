"""What is done about a step that a guard stops at.

The batch is always written as text (`incidents/`). Then, by `guard.on_spike`: `log` goes on, `skip`
drops the update, `rollback` returns to the last checkpoint and then leaves out the step's rows,
`stop` saves and ends. Damaged weights are not the batch's fault: the run returns to
the last checkpoint and does the same step again.

All decisions follow from the losses and from `skipped_steps.json`, which is written before a
rollback: a run that is killed during it decides the same when it is resumed.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from blankfill.atomic import write_json
from blankfill.config.run import RunConfig
from blankfill.engine.engine import Engine, StepNumbers
from blankfill.errors import CheckpointError
from blankfill.guard.guards import Guard, Trouble
from blankfill.guard.incident import Incident, write_incident
from blankfill.objective.batch import Batch
from blankfill.runs import list_checkpoints
from blankfill.runs.record import GuardState
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Action", "Watch"]

log = logging.getLogger(__name__)

Action = Literal["go on", "skip", "rollback", "stop"]
"""What is done about a step."""
DONE: Final[dict[Action, str]] = {
    "go on": "the update was applied",
    "skip": "the update was dropped",
    "rollback": "the run returned to its last checkpoint",
    "stop": "the run ended",
}
"""The same in words."""
LEFT_OUT = "skipped_steps.json"
"""File of a run: steps that a return to a checkpoint leaves out."""
MOST_SKIPS = 16
"""Steps in a row that a run may leave out; leaving out more would not help it."""
MOST_INCIDENTS = 100
"""Most incidents that are written; the first ones show the cause."""
MOST_RETURNS = 2
"""Returns to a checkpoint for damaged weights at one step; after that it is not chance."""


class Watch:
    """Guards one run.

    Args:
        cfg: the run, whose `guard` is the policy.
        run: the run's folder.
        tokenizer: turns a batch into text.
    """

    def __init__(self, cfg: RunConfig, run: Path, tokenizer: TextTokenizer | None) -> None:
        self._cfg, self._run, self._tokenizer = cfg, run, tokenizer
        self._guard = Guard(cfg.guard.spike_window, cfg.guard.spike_threshold)
        self._left_out = _read_left_out(run / LEFT_OUT)
        self._skips_in_a_row = 0
        self._returns: Counter[int] = Counter()

    def leaves_out(self, step: int) -> bool:
        """Tell whether a step's rows are left out, by the configuration or after a return."""
        return step in self._left_out or self._cfg.train.skips(step)

    def check(
        self, engine: Engine, found: StepNumbers, batches: Sequence[Batch], *, step: int, row: int
    ) -> tuple[Action, Incident | None]:
        """Judge a step before its update; write the incident, if it is one.

        Args:
            engine: which holds the step's gradient, not yet clipped.
            found: the step's numbers.
            batches: its micro-batches.
            step: 0-based optimizer step.
            row: first row of the step.
        """
        trouble = self._guard.judge(found.loss_nats, found.grad_norm)
        if trouble is None:
            return "go on", None
        bad = [] if trouble.finite else engine.bad_weights()
        if bad:
            trouble = Trouble(kind="weights not finite", detail="; ".join(bad))
        can_return = engine.once(lambda: bool(list_checkpoints(self._run)))
        action = self._action(trouble, step, can_return=can_return)
        num_rows = self._cfg.train.rows_at(row)
        # Whoever holds the bad batch tells of it: it does not travel, however many they are.
        tells = engine.has_largest(_badness(found))
        teller = engine.processes.who(tells)
        incident = Incident(
            step=step, first_row=row, num_rows=num_rows,
            own_row=engine.deal(row, num_rows)[0].first, teller=teller,
            found=f"{trouble.kind}: {trouble.detail}{_of_whom(engine, trouble, found, teller)}",
            done=DONE[action], loss_nats=found.loss_nats, grad_norm=found.grad_norm,
            gradient_norms=engine.gradient_norms(), bad_weights=bad,
            batches=batches, nlls=found.nlls,
        )  # fmt: skip
        (written,) = engine.gather([self._write(incident)] if tells else [])
        if engine.leads:
            log.warning("step %d: %s; %s; see %s", step, incident.found, incident.done, written)
        if action == "skip":
            self._skips_in_a_row += 1
        if action == "rollback" and not bad:
            self._left_out.add(step)
            if engine.leads:
                write_json(self._run / LEFT_OUT, {"steps": sorted(self._left_out)})
        return action, incident

    def accept(self, found: StepNumbers) -> None:
        """Remember a step whose update was applied."""
        self._guard.accept(found.loss_nats, found.grad_norm)
        self._skips_in_a_row = 0

    def state(self) -> GuardState:
        """Give what a checkpoint keeps."""
        losses, log_norms = self._guard.window()
        return GuardState(losses=losses, log_norms=log_norms, skips_in_a_row=self._skips_in_a_row)

    def load(self, state: GuardState) -> None:
        """Restore what `state` gave."""
        self._guard.load(state.losses, state.log_norms)
        self._skips_in_a_row = state.skips_in_a_row

    def _action(self, trouble: Trouble, step: int, *, can_return: bool) -> Action:
        policy = self._cfg.guard.on_spike
        if trouble.kind == "weights not finite":
            self._returns[step] += 1
            helps = self._returns[step] <= MOST_RETURNS and can_return
            return "rollback" if policy in ("skip", "rollback") and helps else "stop"
        if policy == "log":
            return "go on" if trouble.finite else "stop"
        before = range(step - MOST_SKIPS, step)
        if self._skips_in_a_row >= MOST_SKIPS or all(i in self._left_out for i in before):
            return "stop"
        if policy == "rollback" and not can_return:
            return "skip"
        return policy

    def _write(self, incident: Incident) -> Path | str:
        folder = self._run / "incidents"
        if len(list(folder.glob("*.md"))) >= MOST_INCIDENTS:
            return f"{folder}, which is full"
        try:
            return write_incident(self._run, incident, self._tokenizer)
        except OSError as error:
            by = f" by {incident.teller}" if incident.teller else ""
            return f"no page, which could not be written{by} ({error})"


def _badness(found: StepNumbers) -> float:
    """Say how bad a process's own part of a step is: its highest loss, and infinity where a loss,
    their sum or the gradient is not finite."""
    nats = [float(nll.max()) for nll in found.nlls if len(nll)]
    is_finite = math.isfinite(sum(nats, found.own_loss_nats)) and found.own_gradient_is_finite
    return max(nats, default=0.0) if is_finite else math.inf


def _of_whom(engine: Engine, trouble: Trouble, found: StepNumbers, teller: str) -> str:
    """Name the processes that met a trouble, for the end of its sentence; of weights that is said
    beside each of them."""
    if trouble.kind == "weights not finite":
        return ""
    if trouble.finite:
        return f", the highest loss in {teller}" if teller else ""
    met = engine.processes.who(_badness(found) == math.inf)
    return f", met by {met}" if met else ""


def _read_left_out(path: Path) -> set[int]:
    if not path.exists():
        return set()
    try:
        return set(map(int, json.loads(path.read_text(encoding="utf-8"))["steps"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); restore it, or remove it to train on those steps"
        ) from error
