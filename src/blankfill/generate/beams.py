"""Beam search: several fills of a blank are followed at a time.

In every step the most probable ways of going on are kept, as many as there are beams. One that ends
keeps its place, so that a width of one is greedy search. The blank ends when all beams have ended,
or when none that goes on can become better than those that are wanted: log-probabilities only fall,
so the best that it can reach is what it has, over the longest length. A joint search goes on
through all blanks of its request; else the best fill of a blank stays, and the next one begins.

Fills are compared by a length penalty (`BeamSearch.score`). GLM-130B's released code counts the
prompt into the length, which makes its penalty depend on it; here the fill alone is counted.

Shapes: n branches, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from blankfill.generate.engine import Engine
from blankfill.generate.jobs import Branch, Job
from blankfill.generate.strategies import Answer, Fills

__all__ = ["end_beams", "spread"]


def spread(
    job: Job, engine: Engine, log_probs: torch.Tensor, checked: Callable[[float], float]
) -> None:
    """Go on with the most probable next tokens of all beams together.

    Args:
        job: whose branches are open, and none of which has ended.
        engine: holds their rows.
        log_probs: `[n, V]` of the next token of each; minus infinity where it may not come.
        checked: refuses what is not a number.
    """
    parents = job.branches
    own = log_probs.double()
    own = _join_enders(own, parents[0].writing.enders)
    so_far = torch.tensor([_logprob(job, branch) for branch in parents], device=own.device)
    total = so_far[:, None].double() + own
    for i, branch in enumerate(parents):
        if len(branch.writing.tokens) == branch.writing.limit:
            token = int(own[i].argmax())  # ends the blank, or the blank is cut off here
            ends = token in branch.writing.enders
            value = float(so_far[i]) + (float(own[i, token]) if ends else 0.0)
            total[i] = -math.inf
            total[i, token] = value
    assert job.beams is not None
    places = job.beams.width - len(job.ended)
    top = total.flatten().topk(min(places, total.numel()))
    size = own.shape[1]
    chosen = [
        (flat // size, flat % size)
        for flat, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        if checked(value) > -math.inf
    ]
    _move(job, engine, [i for i, _ in chosen])
    values = own[[i for i, _ in chosen], [token for _, token in chosen]].tolist()
    for branch, (_, token), value in zip(job.branches, chosen, values, strict=True):
        branch.writing.take(token, value)


def end_beams(job: Job, engine: Engine, wanted: int) -> bool:
    """Put aside the beams that have ended; end the blank where all have, or no other can win.

    Returns:
        Whether the blank has ended: then one branch is left, with its best fill, or none where
        nothing could follow.
    """
    joint = job.request.joint
    target = len(job.request.blanks) if joint else job.num_before + 1
    assert job.beams is not None
    for branch in job.branches[:]:
        if len(branch.writing.done) >= target:
            job.branches.remove(branch)
            job.ended.append(branch)
    job.ended.sort(key=lambda branch: -_score(job, branch))
    if job.branches:
        if len(job.ended) < wanted:
            return False
        worst = _score(job, job.ended[wanted - 1])
        if any(_bound(job, branch) > worst for branch in job.branches):
            return False
    ended, job.ended = job.ended, []
    for branch in (*job.branches, *ended[1:]):
        engine.leave(branch.row)
    job.branches = ended[:1]
    if not ended:
        return True
    if joint:
        job.writing = ended[0].writing
        together = [_fills(branch) for branch in ended[:wanted]]
        job.answer = Answer(fills=together[0], together=together)
    else:
        best, *others = [branch.writing.done[-1] for branch in ended[:wanted]]
        ended[0].writing.done[-1] = replace(best, others=tuple(others))
    return True


def _move(job: Job, engine: Engine, parents: list[int]) -> None:
    """Let the branches go on from these parents: the first child of each keeps its row."""
    old = job.branches
    free = [branch.row for i, branch in enumerate(old) if i not in parents]
    taken: set[int] = set()
    new: list[Branch] = []
    rows, sources = [], []
    for i in parents:
        parent = old[i]
        if i not in taken:
            taken.add(i)
            new.append(Branch(parent.writing.copy(), parent.row))
            continue
        if free:
            row = free.pop()
            rows.append(row)
            sources.append(parent.row)
        else:
            row = engine.fork(parent.row)
        new.append(Branch(parent.writing.copy(), row))
    if rows:
        engine.reorder(rows, sources)
    for row in free:
        engine.leave(row)
    job.branches = new


def _join_enders(log_probs: torch.Tensor, enders: tuple[int, ...]) -> torch.Tensor:
    """Let one token stand for all that end a blank: the most probable of them."""
    columns = sorted(set(enders))
    if len(columns) == 1:
        return log_probs
    ends = log_probs[:, columns]
    best = ends.argmax(dim=-1, keepdim=True)
    kept = torch.full_like(ends, -math.inf).scatter(1, best, ends.gather(1, best))
    log_probs = log_probs.clone()
    log_probs[:, columns] = kept
    return log_probs


def _logprob(job: Job, branch: Branch) -> float:
    """Give the log-probability of what a beam has written: of its blank, or of all together."""
    own = branch.writing.logprob
    if job.request.joint:
        own += sum(fill.logprob for fill in branch.writing.done)
    return own


def _score(job: Job, branch: Branch) -> float:
    """Give what a beam that has ended is compared by."""
    assert job.beams is not None
    done = branch.writing.done if job.request.joint else branch.writing.done[-1:]
    length = sum(len(fill.tokens) + fill.ended for fill in done)
    return job.beams.score(sum(fill.logprob for fill in done), length)


def _bound(job: Job, branch: Branch) -> float:
    """Give the most that a beam that goes on can reach."""
    assert job.beams is not None
    blanks = len(job.request.blanks) if job.request.joint else 1
    return job.beams.score(_logprob(job, branch), blanks * (branch.writing.limit + 1))


def _fills(branch: Branch) -> Fills:
    return dict(zip(branch.writing.order, branch.writing.done, strict=True))
