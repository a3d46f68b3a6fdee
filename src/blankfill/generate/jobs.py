"""One request while it runs: its rows, and how they go on after each step.

A job has one branch, which is one row; in beam search it has several (`beams.py`). Of a `confident`
request the blanks that are left are looked at first: each opens the next blank in a copy of the
row, and the row goes on with the one whose two best first tokens are furthest apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blankfill import rng
from blankfill.config.filling import BeamSearch
from blankfill.generate.engine import Engine, Prefix, Row
from blankfill.generate.strategies import Answer, Request
from blankfill.generate.writing import Reading, Writing

__all__ = ["Branch", "Job"]

PLANNED_TOKENS = 32
"""Tokens of a fill for which room is planned; most are shorter than what they may be."""
LOOKED_AT = 32
"""Most blanks that are looked at in one step, each in a copy of the row."""


@dataclass(slots=True, eq=False)
class Branch:
    """One row of a job."""

    writing: Writing
    row: Row
    generator: np.random.Generator | None = None
    looks_at: int | None = None
    """The blank that is only looked at."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A request that waits or runs."""

    request: Request
    writing: Writing
    """Where it stands before it runs, and in which row it ends."""
    key: bytes
    """Tokens of its text; texts that are equal share their Part A."""
    beams: BeamSearch | None
    seed: int | None
    """Seed of the draws; None where nothing is drawn."""
    of: Job | None = None
    """The job one of whose blanks it fills in another way."""
    branches: list[Branch] = field(default_factory=list[Branch])
    """Rows that run."""
    ended: list[Branch] = field(default_factory=list[Branch])
    """Beams that have ended their blank."""
    num_before: int = 0
    """Blanks of the request that were done when the one that runs began."""
    left: list[int] = field(default_factory=list[int])
    """Blanks of a confident request that are not filled."""
    margins: dict[int, float] = field(default_factory=dict[int, float])
    """Of those that were looked at how far their two best first tokens are apart."""
    first_choices: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """Of each blank whose beginning was chosen, the most probable first tokens."""
    others: dict[int, list[Job]] = field(default_factory=dict[int, list["Job"]])
    """Of each blank the jobs that fill it in other ways."""
    answer: Answer | None = None
    """What it ended with; None while it runs, and where no token could follow."""
    num_running: int = 1
    """Jobs that are not finished: itself and its others."""

    @property
    def width(self) -> int:
        """Most rows that it takes."""
        if self.beams is not None:
            return self.beams.width
        return min(len(self.request.blanks), LOOKED_AT) if self.request.confident else 1

    @property
    def size(self) -> int:
        """Positions that it is expected to keep."""
        blanks = len(self.writing.before) + len(self.request.blanks)
        own = blanks * (min(self.writing.limit, PLANNED_TOKENS) + 2)
        return len(self.writing.prompt.tokens) + own * self.width

    @property
    def is_looking(self) -> bool:
        """Whether its rows look at blanks, of which one will be filled next."""
        return self.branches[0].looks_at is not None

    def join(self, engine: Engine, prefix: Prefix) -> None:
        """Take a row."""
        self.branches = [Branch(self.writing, engine.join(prefix))]
        if self.request.confident:
            self.left = list(self.request.blanks)
        self.next_blank(engine)

    def leave(self, engine: Engine) -> None:
        """Give all rows back."""
        for branch in (*self.branches, *self.ended):
            engine.leave(branch.row)
        self.branches, self.ended = [], []

    def next_blank(self, engine: Engine) -> bool:
        """Begin the next blank; tell whether there is one."""
        (branch,) = self.branches
        self.writing = branch.writing
        self.num_before = len(self.writing.done)
        if self.left:
            self._choose_blank(engine)
        if not self.writing.active and not self.is_looking:
            return False
        if self.seed is not None and not self.is_looking:
            # Drawn by address, so that neither the batch nor the order of blanks changes a draw.
            branch.generator = rng.generator(
                self.seed, "fill", self.key.hex(), self.writing.blank, self.request.draw
            )
        return True

    def look(self, engine: Engine, margins: Sequence[float]) -> None:
        """Note how far the two best first tokens of the blanks that were looked at are apart."""
        for branch, margin in zip(self.branches, margins, strict=True):
            assert branch.looks_at is not None
            self.margins[branch.looks_at] = margin
        base, *copies = self.branches
        self.branches = [Branch(self.writing, base.row)]
        for branch in copies:
            engine.leave(branch.row)
        self.next_blank(engine)

    def readings(self, engine: Engine) -> list[Reading]:
        """Give what each row reads next, once it has forgotten what is not so any more."""
        for branch in self.branches:
            if branch.writing.unread is not None:
                engine.rewind(branch.row, branch.writing.num_kept)
        return [branch.writing.reading() for branch in self.branches]

    def finish(self) -> None:
        """Keep the fills of all blanks as the answer."""
        fills = dict(zip(self.writing.order, self.writing.done, strict=True))
        self.answer = Answer(fills=fills)

    def collect(self) -> Answer | None:
        """Give the answer, with the other fills of each blank."""
        if self.answer is not None:
            for blank, jobs in self.others.items():
                found = tuple(job.answer.fills[blank] for job in jobs if job.answer is not None)
                self.answer.fills[blank] = replace(self.answer.fills[blank], others=found)
        return self.answer

    def _choose_blank(self, engine: Engine) -> None:
        """Take the next blank, or copies of the row that look at those that are left."""
        writing = self.writing
        unknown = [blank for blank in self.left if blank not in self.margins]
        if len(self.left) == 1 or not unknown:
            chosen = max(self.left, key=lambda blank: (self.margins.get(blank, 0.0), -blank))
            self.left.remove(chosen)
            self.margins.clear()
            writing.order = (*writing.order, chosen)
            return
        if writing.unread is None:  # what is read from here on is forgotten again
            writing.unread = len(writing.closed)
        (base,) = self.branches
        self.branches = []
        for place, blank in enumerate(unknown[:LOOKED_AT]):
            row = engine.fork(base.row) if place else base.row
            copy = writing.copy(order=(*writing.order, blank))
            self.branches.append(Branch(copy, row, looks_at=blank))
