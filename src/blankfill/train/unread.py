"""Steps whose numbers are still on the device: read and judged together, when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blankfill.config.run import RunConfig
from blankfill.engine.engine import Engine, StepNumbers, UnreadNumbers
from blankfill.guard.incident import Incident
from blankfill.guard.policy import Watch
from blankfill.objective.batch import Batch

__all__ = ["UnreadSteps"]

MOST_UNREAD = 100
"""Steps that wait at most, because their batches stay in memory until then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """One of them."""

    index: int
    """0-based optimizer step."""
    row: int
    """Its first row."""
    batches: Sequence[Batch]
    """Its micro-batches."""
    numbers: UnreadNumbers
    """Its loss and gradient norm, on the device."""


class UnreadSteps:
    """Steps that were done, in order, and not looked at.

    Args:
        cfg: the run.
        engine: which did them.
        watch: judges them.
        accept: called with the numbers and the batches of each step whose update was applied.
    """

    def __init__(
        self, cfg: RunConfig, engine: Engine, watch: Watch,
        accept: Callable[[StepNumbers, Sequence[Batch]], None],
    ) -> None:  # fmt: skip
        self._cfg, self._engine, self._watch, self._accept = cfg, engine, watch, accept
        self._steps: list[_Step] = []

    def are_due(self, done: int) -> bool:
        """Tell whether their numbers are needed after so many steps: to be logged or saved."""
        cfg = self._cfg
        every = (cfg.train.log_every, cfg.validate_every, cfg.checkpoint.every)
        is_logged = done == cfg.train.steps or any(n and done % n == 0 for n in every)
        return is_logged or len(self._steps) >= MOST_UNREAD

    def add(self, index: int, row: int, batches: Sequence[Batch], numbers: UnreadNumbers) -> None:
        """Put the step that was done last at the end."""
        self._steps.append(_Step(index=index, row=row, batches=batches, numbers=numbers))

    def drop(self) -> None:
        """Forget them: the run goes back to before them."""
        self._steps = []

    def settle(self) -> tuple[StepNumbers | None, Incident | None]:
        """Read and judge all of them.

        Returns:
            The numbers of the last one, and the first incident that ends the run.
        """
        steps, self._steps = self._steps, []
        found, ending = None, None
        for step in steps:
            found = step.numbers.read()
            action, incident = self._watch.check(
                self._engine, found, step.batches, step=step.index, row=step.row
            )
            if action == "go on":
                self._accept(found, step.batches)
            else:
                ending = ending or incident
        return found, ending
