"""The rows of many texts that are being filled together: who waits, who runs, what each step does.

Each text has a plan (`strategies.py`), which asks for blanks to be filled; each request is a job
(`jobs.py`), which is one row or several. Texts of any length and number of blanks run together: a
row that is finished leaves and the next one joins. A row sees only its own keys, so its answer is
the one it gets alone. Jobs of one text, and texts that are equal, share one encoded Part A.

Shapes: V vocabulary, n rows.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from blankfill.config.filling import Wish
from blankfill.errors import RequestError
from blankfill.generate.beams import end_beams, spread
from blankfill.generate.engine import Engine, Inputs, Prefix
from blankfill.generate.jobs import Branch, Job
from blankfill.generate.prompts import checked_prompt
from blankfill.generate.sampling import Sampling, best, choose, discouraged
from blankfill.generate.scores import Scorer
from blankfill.generate.strategies import Answer, Plan, Request
from blankfill.generate.writing import Reading, Rule, Writing
from blankfill.objective.batch import Int32

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["Filling", "Text"]

BATCH_POSITIONS = 16_384
"""Most cached positions of what runs together: bounds memory, whatever the texts' lengths."""
NEAR_TIE = 1e-4
"""Nats between the two best tokens below which another batch may choose the other one."""
REFILL_SHARE = 4
"""Texts join once this share of the places is free, so that several are encoded at a time."""
NO_WAY_ON = (
    "no fill obeys the bounds: after some tokens none may follow; loosen them, or raise "
    "max_new_tokens"
)


@dataclass(slots=True, eq=False, kw_only=True)
class Text:
    """One text, and what was found for it."""

    tokens: Int32
    """`[n]` with mask ids where its blanks are."""
    plan: Plan
    """What it asks for."""
    limit: int
    """Longest fill of one blank."""
    held: bool
    """Whether every blank has exactly that many tokens."""
    forced: Sequence[Sequence[int]]
    """Of each blank, tokens that its fill begins with."""
    rules: Sequence[Rule | None]
    """Of each blank what its fill has to be like."""
    answer: Answer | None = None
    error: str | None = None
    """Why it could not be filled."""
    asked: tuple[Job, ...] = ()
    """What it waits for."""


class Filling:
    """The rows of one call.

    Args:
        lm: the model.
        texts: to be filled.
        wish: what is wanted of each.
        sampling: greedy or drawn.
        batch_size: most rows that run together.
        advance: called with the number of texts that were just finished.
    """

    def __init__(
        self, lm: LanguageModel, texts: Sequence[Text], wish: Wish, sampling: Sampling,
        batch_size: int, advance: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        self._lm, self._scorer, self._engine = lm, Scorer(lm), Engine(lm.model)
        self._wish, self._sampling = wish, sampling
        self._batch_size, self._advance = batch_size, advance
        self._owners: dict[int, Text] = {}  # of each job that is not finished
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._prefixes: dict[bytes, Prefix] = {}
        self._uses: Counter[bytes] = Counter()
        for text in texts:
            self._go_on(text, None)
        # Those of similar length run together, so that little of what is attended to is padding.
        self._waiting = deque(sorted(
            self._waiting,
            key=lambda j: (len(j.request.blanks), len(j.writing.prompt.tokens), j.key),
        ))  # fmt: skip

    def run(self) -> None:
        """Fill all."""
        while self.step():
            pass

    def step(self) -> bool:
        """Do one step, if there is something left to do; tell whether there was."""
        if not self._waiting and not self._active:
            return False
        self._join()
        self._step()
        return True

    def written(self, text: Text) -> list[int]:
        """Give what the row of a text's only request has written of its blank so far."""
        (job,) = text.asked
        return job.branches[0].writing.tokens[:] if job.branches else []

    # What texts ask for.

    def _go_on(self, text: Text, answers: list[Answer] | None) -> None:
        """Give a text its answers, and let what it asks for next wait; or finish it."""
        try:
            requests = next(text.plan) if answers is None else text.plan.send(answers)
            text.asked = tuple(self._job(text, request) for request in requests)
        except StopIteration as end:
            text.answer = end.value
        except RequestError as error:
            text.error = str(error)
        else:
            self._wait(text, text.asked)
            return
        if self._advance is not None:
            self._advance(1)

    def _job(self, text: Text, request: Request) -> Job:
        lm = self._lm
        prompt = checked_prompt(request.tokens, lm.ids, lm.cfg)
        forced = text.forced[request.first :]
        if request.start:
            forced = {request.blanks[0]: request.start}
            forced = [forced.get(b, ()) for b in range(len(prompt.blanks))]
        writing = Writing(
            prompt=prompt, scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos),
            limit=text.limit if request.limit is None else request.limit,
            held=text.held, before=request.before, forced=forced,
            order=() if request.confident else request.blanks, rules=text.rules[request.first :],
            stepwise=self._wish.beams is not None and not request.joint,
        )  # fmt: skip
        drawn = self._sampling.temperature > 0
        return Job(
            request=request, writing=writing, key=np.ascontiguousarray(prompt.tokens).tobytes(),
            beams=self._wish.beams, seed=self._sampling.seed if drawn else None,
        )  # fmt: skip

    def _wait(self, text: Text, jobs: Sequence[Job]) -> None:
        self._waiting.extendleft(reversed(jobs))
        for job in jobs:
            self._owners[id(job)] = text
            self._uses[job.key] += 1

    def _join(self) -> None:
        """Let waiting jobs join where there is room."""
        free = self._batch_size - sum(job.width for job in self._active)
        if not self._waiting or (self._active and free * REFILL_SHARE < self._batch_size):
            return
        size = sum(job.size for job in self._active)
        new: list[Job] = []
        while self._waiting and (free > 0 or not (self._active or new)):
            size += self._waiting[0].size
            free -= self._waiting[0].width
            if (size > BATCH_POSITIONS or free < 0) and (self._active or new):
                break
            new.append(self._waiting.popleft())
        unknown = {job.key: job.writing.prompt for job in new if job.key not in self._prefixes}
        if unknown:
            parts = [(prompt.tokens, prompt.positions) for prompt in unknown.values()]
            self._prefixes |= zip(unknown, self._engine.encode(parts), strict=True)
        for job in new:
            job.join(self._engine, self._prefixes[job.key])
        self._active += new

    # Steps.

    @torch.inference_mode()
    def _step(self) -> None:
        """Read one step of every row, and choose what comes next."""
        readings = [reading for job in self._active for reading in job.readings(self._engine)]
        branches = [branch for job in self._active for branch in job.branches]
        hidden = self._engine.step([
            Inputs(branch.row, reading.tokens, reading.positions)
            for branch, reading in zip(branches, readings, strict=True)
        ])  # fmt: skip
        for branch, reading, values in zip(
            branches, readings, self._scorer.known(hidden, readings), strict=True
        ):
            for token, value in zip(reading.known, values, strict=True):
                branch.writing.take(token, value)
            if branch.generator is not None:  # a draw for every token, known ones too
                branch.generator.random(len(reading.known))
        opened = [i for i, reading in enumerate(readings) if reading.is_open]
        log_probs = self._log_probs(hidden, opened, branches, readings)
        place = {i: k for k, i in enumerate(opened)}
        first = 0
        greedy: list[tuple[Job, Branch, int]] = []
        for job in self._active:
            numbers = range(first, first + len(job.branches))
            first += len(job.branches)
            if job.is_looking:
                job.look(self._engine, [_margin(log_probs, place.get(i)) for i in numbers])
                continue
            open_rows = [place[i] for i in numbers if i in place]
            if open_rows and job.beams is not None:
                spread(job, self._engine, log_probs[open_rows], self._scorer.checked)
            elif open_rows:
                self._note_choices(job, readings[numbers[0]], log_probs[open_rows[0]])
                greedy.append((job, job.branches[0], open_rows[0]))
        normalizers = None
        if greedy and self._sampling.repetition_penalty != 1:
            normalizers = self._scorer.normalizers(hidden, opened, readings)
        self._take(greedy, log_probs, normalizers)
        self._end()

    def _log_probs(
        self, hidden: torch.Tensor, opened: list[int], branches: list[Branch],
        readings: list[Reading],
    ) -> torch.Tensor:  # fmt: skip
        """Score what comes after the rows that are open, `[n, V]`."""
        if not opened:
            return hidden.new_zeros(0, 0)
        log_probs = self._scorer.last(hidden, opened, readings)
        if not any(branches[i].writing.rule is not None for i in opened):
            return log_probs
        firsts = log_probs.argmax(dim=-1).tolist()
        ruled: list[int] = []
        masks: list[npt.NDArray[np.bool_]] = []
        for k, i in enumerate(opened):
            writing = branches[i].writing
            mask = writing.allowed(would_end=firsts[k] in writing.enders)
            if mask is not None:
                ruled.append(k)
                masks.append(mask)
        if ruled:
            never = torch.from_numpy(~np.stack(masks)).to(log_probs.device)
            width = never.shape[1]
            rows = torch.tensor(ruled, device=log_probs.device)
            held = log_probs[rows]
            held[:, :width].masked_fill_(never, -math.inf)
            log_probs[rows] = held
        return log_probs

    def _note_choices(self, job: Job, reading: Reading, log_probs: torch.Tensor) -> None:
        """Keep the most probable first tokens of a blank whose other fills are wanted."""
        drawn = self._sampling.temperature > 0
        if job.request.candidates > 1 and reading.begins is not None and not drawn:
            job.first_choices[reading.begins] = best(log_probs, job.request.candidates)

    def _take(
        self, chosen: list[tuple[Job, Branch, int]], log_probs: torch.Tensor,
        normalizers: torch.Tensor | None,
    ) -> None:  # fmt: skip
        """Choose the next token of rows that are alone in their job."""
        if not chosen:
            return
        rows = torch.tensor([row for _, _, row in chosen], device=log_probs.device)
        if len(rows) < len(log_probs):
            log_probs = log_probs[rows]
        generators = [b.generator for _, b, _ in chosen if b.generator is not None]
        scores = log_probs
        if normalizers is not None:
            seen = [branch.writing.seen for _, branch, _ in chosen]
            scores = discouraged(
                log_probs + normalizers[rows], seen, self._sampling.repetition_penalty
            )
        tokens = choose(scores, self._sampling, generators)
        is_near = [False] * len(chosen)
        if self._sampling.temperature == 0:
            two = scores.topk(2, dim=-1).values
            is_near = (two[:, 0] - two[:, 1] < NEAR_TIE).tolist()
        values = log_probs.gather(1, tokens[:, None])[:, 0].double()
        # One transfer; float64 holds every id and every log-probability.
        pairs = torch.stack([tokens.double(), values], dim=1).tolist()
        for (job, branch, _), (token, value), near in zip(chosen, pairs, is_near, strict=True):
            if self._scorer.checked(value) == -math.inf:
                self._engine.leave(branch.row)
                job.branches = []  # nothing may follow
            else:
                if near:
                    branch.writing.ties.append(len(branch.writing.tokens))
                branch.writing.take(int(token), value)

    # Ends.

    def _end(self) -> None:
        """Take out the jobs that are finished; what comes of them waits next."""
        going_on: list[Job] = []
        finished: list[Job] = []
        for job in self._active:
            (going_on if self._goes_on(job) else finished).append(job)
        self._active = going_on
        for job in finished:
            job.leave(self._engine)
            others = self._other_fills(job)
            if others:
                self._wait(self._owners[id(job)], others)
                job.num_running += len(others)
        for job in finished:
            self._finish(job)

    def _goes_on(self, job: Job) -> bool:
        """Begin the next blank where one has ended; tell whether the job runs on."""
        if not job.branches and not job.ended:
            return False  # nothing may follow
        if job.branches and job.is_looking:
            return True
        if job.beams is not None:
            if not end_beams(job, self._engine, job.request.candidates):
                return True
            if not job.branches or job.answer is not None:
                return False
        elif len(job.branches[0].writing.done) == job.num_before:
            return True
        if job.next_blank(self._engine):
            return True
        job.finish()
        return False

    def _other_fills(self, job: Job) -> list[Job]:
        """Give jobs that fill each blank in other ways, those before it held as they are."""
        request = job.request
        if request.candidates < 2 or job.answer is None or job.beams is not None:
            return []
        text = self._owners[id(job)]
        drawn = self._sampling.temperature > 0
        found: list[Job] = []
        for place, blank in enumerate(job.writing.order):
            before = tuple(job.writing.closed[: len(request.before) + place])
            part = replace(request, blanks=(blank,), before=before, candidates=1, confident=False)
            if drawn:
                parts = [replace(part, draw=draw) for draw in range(1, request.candidates)]
            else:
                firsts = job.first_choices.get(blank, [])[1:]
                parts = [replace(part, start=(token,)) for token in firsts]
            job.others[blank] = [self._job(text, each) for each in parts]
            for other in job.others[blank]:
                other.of = job
            found += job.others[blank]
        return found

    def _finish(self, job: Job) -> None:
        """Count a job as finished; give its text the answers where it was the last."""
        text = self._owners[id(job)]
        whole = job.of or job
        whole.num_running -= 1
        if not whole.num_running and not any(each.num_running for each in text.asked):
            answers = [each.collect() for each in text.asked]
            if text.error is None:
                self._answer(text, answers)
        self._uses[job.key] -= 1
        del self._owners[id(job)]
        if not self._uses[job.key]:
            del self._uses[job.key]
            self._engine.release(self._prefixes.pop(job.key))

    def _answer(self, text: Text, answers: list[Answer | None]) -> None:
        found = [answer for answer in answers if answer is not None]
        if len(found) == len(answers):
            self._go_on(text, found)
            return
        text.error = NO_WAY_ON
        text.plan.close()
        if self._advance is not None:
            self._advance(1)


def _margin(log_probs: torch.Tensor, row: int | None) -> float:
    """Give how far the two best next tokens are apart in probability; where the next one is known,
    as far as there is."""
    if row is None:
        return 1.0
    first, second = log_probs[row].topk(2).values.exp().tolist()
    return first - second
