"""Filling blanks token by token, many texts at a time, on the engine.

Each next token is the most probable one (greedy search), or drawn (`sampling.py`). Texts of any
length and number of blanks run together: one that is finished leaves and the next one joins. A row
sees only its own keys, so its answer is the one it gets alone. Other fills of a blank, and texts
that are equal, share one encoded Part A.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from blankfill import rng
from blankfill.config.run import RunConfig
from blankfill.errors import RequestError
from blankfill.generate.engine import Engine, Inputs, Prefix, Row
from blankfill.generate.sampling import GREEDY, Sampling, best, choose
from blankfill.generate.scores import Scorer
from blankfill.generate.writing import FilledBlank, Reading, Writing
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt, build_prompt
from blankfill.objective.special import SpecialIds
from blankfill.text.user_text import no_blank

if TYPE_CHECKING:
    from blankfill.generate.language_model import LanguageModel

__all__ = ["FilledText", "checked_prompt", "fill_tokens"]

BATCH_POSITIONS = 16_384
"""Most cached positions of what runs together: bounds memory, whatever the texts' lengths."""
PLANNED_TOKENS = 32
"""Tokens of a fill for which room is planned; most are shorter than what they may be."""
REFILL_SHARE = 4
"""Texts join once this share of the places is free, so that several are encoded at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledText:
    """One text with all of its blanks filled."""

    tokens: Int32
    """The whole text with the fills in place of the masks."""
    blanks: tuple[FilledBlank, ...]
    """Left to right."""
    starts: tuple[int, ...]
    """Where the fill of each begins in `tokens`."""


def fill_tokens(
    lm: LanguageModel,
    prompts: Sequence[Int32],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    sampling: Sampling = GREEDY,
    forced: Sequence[Sequence[Sequence[int]]] | None = None,
    lengths: Sequence[int] | None = None,
    num_candidates: int = 1,
    advance: Callable[[int], None] | None = None,
) -> list[FilledText]:
    """Fill every blank of every text.

    Args:
        lm: the model.
        prompts: token ids with mask ids where the blanks are.
        max_new_tokens: longest fill of one blank.
        batch_size: most rows that run together.
        sampling: greedy or drawn.
        forced: for each text and blank, tokens that the fill must begin with; `eop` may close it.
        lengths: for each text, how many tokens each of its blanks has: none ends before, and all
            end there.
        num_candidates: fills of each blank, the one in the text among them: greedy, the best going
            on of each of the most probable first tokens, as many as may appear; drawn, that many
            draws. The blanks before it keep the fill in the text.
        advance: called with the number of texts that were just finished.

    Returns:
        One result per text, in order.

    Raises:
        RequestError: a text has no blank, or is longer than the model's positions reach.
        CheckpointError: the model's scores are not numbers.
    """
    most = lm.model.cfg.max_position - 2
    texts: list[_Text] = []
    for index, tokens in enumerate(prompts):
        prompt = checked_prompt(tokens, lm.ids, lm.cfg)
        writing = Writing(
            prompt=prompt, scheme=lm.scheme, enders=(lm.ids.eop, lm.ids.eos),
            limit=min(most, max_new_tokens if lengths is None else lengths[index]),
            held=lengths is not None, forced=forced[index] if forced is not None else (),
            last=len(prompt.blanks) - 1,
        )  # fmt: skip
        texts.append(_Text(writing, np.ascontiguousarray(prompt.tokens).tobytes()))
    with lm.computing():
        _Filling(lm, texts, sampling, num_candidates, batch_size, advance).run()
    return [_finish(text) for text in texts]


def checked_prompt(tokens: Int32, ids: SpecialIds, cfg: RunConfig) -> Prompt:
    """Build Part A of a text, if a model can fill it.

    Args:
        tokens: `[n]` the text, with mask ids where its blanks are.
        ids: the special tokens of the model's tokenizer.
        cfg: what it was trained with.

    Raises:
        RequestError: it has no blank, or is longer than the model's positions reach.
        DataError: it has more blanks than the tokenizer has sentinels.
    """
    tokens = np.asarray(tokens, dtype=np.int32)
    prompt = build_prompt(tokens, ids, sentinel_position=cfg.sentinel_position)
    if not len(prompt.blanks):
        raise no_blank()
    longest = cfg.model.max_position
    if len(prompt.tokens) > longest:
        raise RequestError(
            f"the text has {len(prompt.tokens):,} tokens and this model reads "
            f"{longest:,}; shorten it around the blank"
        )
    return prompt


@dataclass(slots=True, eq=False)
class _Text:
    """One text: the fill that stands in it, and other fills of its blanks."""

    writing: Writing
    key: bytes
    """Its tokens; texts that are equal share their Part A."""
    first_choices: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """Of each blank whose beginning was chosen, the most probable first tokens."""
    others: list[list[Writing]] = field(default_factory=list[list[Writing]])
    """Of each blank the other fills."""
    running: int = 1
    """Rows that are not finished."""


@dataclass(slots=True, eq=False)
class _Job:
    """One row that waits or runs."""

    text: _Text
    writing: Writing
    seed: int
    generator: np.random.Generator | None = None
    row: Row | None = None

    @property
    def size(self) -> int:
        """Positions that it is expected to keep."""
        prompt, limit = self.writing.prompt, self.writing.limit
        blanks = self.writing.last + 1
        return len(prompt.tokens) + blanks * (min(limit, PLANNED_TOKENS) + 2)


class _Filling:
    """The rows of one call: who waits, who runs, and what each step does."""

    def __init__(
        self, lm: LanguageModel, texts: Sequence[_Text], sampling: Sampling, num_candidates: int,
        batch_size: int, advance: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        self._scorer = Scorer(lm)
        self._engine = Engine(lm.model)
        self._eop = lm.ids.eop
        self._sampling, self._num_candidates = sampling, num_candidates
        self._batch_size, self._advance = batch_size, advance
        # Those of similar length run together, so that little of what is attended to is padding.
        ordered = sorted(texts, key=lambda t: (t.writing.last, len(t.writing.prompt.tokens), t.key))
        self._waiting = deque(_Job(text, text.writing, sampling.seed) for text in ordered)
        self._active: list[_Job] = []
        self._prefixes: dict[bytes, Prefix] = {}
        self._uses = Counter(text.key for text in texts)

    def run(self) -> None:
        """Fill all."""
        while self._waiting or self._active:
            self._join()
            self._step()

    def _join(self) -> None:
        """Let waiting rows join where there is room."""
        free = self._batch_size - len(self._active)
        if not self._waiting or (self._active and free * REFILL_SHARE < self._batch_size):
            return
        size = sum(job.size for job in self._active)
        new: list[_Job] = []
        while self._waiting and len(new) < free:
            size += self._waiting[0].size
            if size > BATCH_POSITIONS and (self._active or new):
                break
            new.append(self._waiting.popleft())
        unknown = {
            job.text.key: job.writing.prompt for job in new if job.text.key not in self._prefixes
        }
        if unknown:
            parts = [(prompt.tokens, prompt.positions) for prompt in unknown.values()]
            self._prefixes |= zip(unknown, self._engine.encode(parts), strict=True)
        for job in new:
            job.row = self._engine.join(self._prefixes[job.text.key])
            if self._sampling.temperature:
                job.generator = rng.generator(job.seed, "fill", job.text.key.hex())
        self._active += new

    @torch.inference_mode()
    def _step(self) -> None:
        """Read one step of every row, and choose what comes next."""
        jobs, inputs, readings = self._active, [], []
        for job in jobs:
            reading = job.writing.reading()
            assert job.row is not None
            inputs.append(Inputs(job.row, reading.tokens, reading.positions))
            readings.append(reading)
        hidden = self._engine.step(inputs)
        following = [reading.known[:] for reading in readings]
        logprobs = self._scorer.known(hidden, readings)
        if opened := [i for i, reading in enumerate(readings) if reading.is_open]:
            chosen = self._choose(hidden, opened, readings)
            for i, (token, logprob) in zip(opened, chosen, strict=True):
                following[i].append(token)
                logprobs[i].append(logprob)
        for job, tokens, values in zip(jobs, following, logprobs, strict=True):
            for token, value in zip(tokens, values, strict=True):
                job.writing.take(token, value)
        self._leave()

    def _choose(
        self, hidden: torch.Tensor, opened: list[int], readings: list[Reading]
    ) -> list[tuple[int, float]]:
        """Choose the next token of the rows that are open; with its log-probability."""
        log_probs = self._scorer.last(hidden, opened, readings)  # [n, V]
        generators: list[np.random.Generator] = []
        for i in opened:
            generator = self._active[i].generator
            if generator is not None:  # a draw for every token, known ones too
                generator.random(len(readings[i].known))
                generators.append(generator)
        tokens = choose(log_probs, self._sampling, generators)
        if self._num_candidates > 1 and self._sampling.temperature == 0:
            for k, i in enumerate(opened):
                text, blank = self._active[i].text, readings[i].begins
                if blank is not None and self._active[i].writing is text.writing:
                    text.first_choices[blank] = best(log_probs[k], self._num_candidates)
        values = log_probs.gather(1, tokens[:, None])[:, 0].double()
        # One transfer; float64 holds every id and every log-probability.
        pairs = torch.stack([tokens.double(), values], dim=1).tolist()
        return [(int(token), self._scorer.checked(value)) for token, value in pairs]

    def _leave(self) -> None:
        """Take out the rows that are finished; other fills of a finished text wait next."""
        finished = [job for job in self._active if not job.writing.active]
        if not finished:
            return
        self._active = [job for job in self._active if job.writing.active]
        num_done = 0
        for job in finished:
            text = job.text
            if self._num_candidates > 1 and job.writing is text.writing:
                others = self._other_fills(text)
                self._uses[text.key] += len(others)
                text.running += len(others)
                self._waiting.extendleft(reversed(others))
            assert job.row is not None
            self._engine.leave(job.row)
            self._uses[text.key] -= 1
            if not self._uses[text.key]:
                self._engine.release(self._prefixes.pop(text.key))
            text.running -= 1
            num_done += not text.running
        if self._advance is not None and num_done:
            self._advance(num_done)

    def _other_fills(self, text: _Text) -> list[_Job]:
        """Give the rows that fill each blank in other ways, those before it held as they are."""
        drawn = self._sampling.temperature > 0
        jobs: list[_Job] = []
        done = text.writing.done
        for b in range(len(done)):
            before = [[*blank.tokens.tolist(), self._eop] for blank in done[:b]]
            starts: list[list[int]] = [[] for _ in range(1, self._num_candidates)]
            if not drawn:
                known = text.first_choices.get(b, [])
                starts = [[token] for token in known[1:]]
            others = [text.writing.another([*before, start], last=b) for start in starts]
            # Each draw has a seed of its own; the address of a draw is (seed, text, draw).
            jobs += [
                _Job(text, other, self._sampling.seed * 1_000_003 + draw)
                for draw, other in enumerate(others, start=1)
            ]
            text.others.append(others)
        return jobs


def _finish(text: _Text) -> FilledText:
    prompt, done = text.writing.prompt, text.writing.done
    parts: list[Int32] = []
    starts: list[int] = []
    start = length = 0
    for index, blank in zip(prompt.blanks, done, strict=True):
        starts.append(length + int(index) - start)
        length = starts[-1] + len(blank.tokens)
        parts += [prompt.tokens[start:index], blank.tokens]
        start = int(index) + 1
    parts.append(prompt.tokens[start:])
    blanks = tuple(
        replace(blank, others=tuple(other.done[b] for other in text.others[b]))
        if text.others else blank
        for b, blank in enumerate(done)
    )  # fmt: skip
    return FilledText(tokens=np.concatenate(parts), blanks=blanks, starts=tuple(starts))
