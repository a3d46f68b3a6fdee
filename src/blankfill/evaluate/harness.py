"""A model of ours in EleutherAI's lm-evaluation-harness (the extra `eval`).

    model = HarnessModel(blankfill.load("runs/mine"), mode="bidirectional")
    lm_eval.simple_evaluate(model=model, tasks=["..."], task_manager=...)

The harness asks three things of a model. Ours answers as it was trained, which is not how a causal
model does:

- `loglikelihood`: context and continuation are encoded apart, for one is Part A and the other Part
  B. An empty context is `[gMASK]` alone, without a token that stands for nothing. Continuations of
  one context share its Part A, which is encoded once.
- `loglikelihood_rolling`: windows, each token once (`generate/whole.py`).
- `generate_until`: Part A is encoded once, and the answer is cut at the first of the given words.

What is read of a context is the mode: `bidirectional` (Part A and `[gMASK]`), `unidirectional`
(`[gMASK]`, then all from left to right) or `mask` (Part A and `[MASK]`, as GLM-130B is asked
choices). Scores depend on it, so it stands in the harness's results.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

# The harness is an extra: whoever imports this module has it.
from lm_eval.api.model import TemplateLM

from blankfill.errors import RequestError
from blankfill.evaluate.asking import Frames, Row, ScoredRow, lay_out, row_writings
from blankfill.evaluate.protocol import HarnessMode
from blankfill.evaluate.task import BadItemError
from blankfill.generate import LanguageModel, Sampling, fill_tokens
from blankfill.generate.known import known_rows
from blankfill.generate.whole import score_text
from blankfill.objective.batch import Int32

__all__ = ["HarnessMode", "HarnessModel"]

MAX_NEW_TOKENS = 256
"""Longest answer where a task does not say, as in the harness."""


class Request(Protocol):
    """What the harness asks for: texts, and how to answer."""

    @property
    def args(self) -> tuple[Any, ...]:
        """Context and continuation; a text; or context and how to write."""
        ...


class HarnessModel(TemplateLM):
    """What the harness takes for a model.

    Args:
        lm: the model.
        mode: what is read of a context, and how.
    """

    backend = "seq2seq"  # what it is to the harness: context and continuation are encoded apart

    def __init__(self, lm: LanguageModel, *, mode: HarnessMode = "bidirectional") -> None:
        super().__init__()
        self.lm, self.mode = lm, mode
        self._frames = Frames(lm.tokenizer)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.lm.ids.eos

    @property
    def tokenizer_name(self) -> str:
        """What tells cached requests of other tokenizers apart."""
        return self.lm.tokenizer.fingerprint

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: object
    ) -> list[int]:
        """Turn text into ids; never a special one."""
        return self.lm.tokenizer.encode(string).tolist()

    def get_model_info(self) -> dict[str, object]:
        """Give what the harness's results say of the model."""
        path = "" if self.lm.path is None else str(self.lm.path)
        return {"blankfill_run": path, "blankfill_step": self.lm.step, "blankfill_mode": self.mode}

    def loglikelihood(
        self, requests: Sequence[Request], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Score continuations of contexts.

        Returns:
            Of each the log-probability of its tokens, and whether they are the most probable.

        Raises:
            RequestError: a continuation has no room in a row, or no token.
        """
        del disable_tqdm
        encoded: list[tuple[tuple[str, str], list[int], list[int]]] = []
        for request in requests:
            context, continuation = request.args
            # A word begins with the space before it.
            bare = context.rstrip(" ")
            text = context[len(bare) :] + continuation
            encoded.append(((context, continuation), self.tok_encode(bare), self.tok_encode(text)))
        return self._loglikelihood_tokens(encoded)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: object
    ) -> list[tuple[float, bool]]:
        rows: list[tuple[Int32, ScoredRow]] = []
        for (_, continuation), context, tokens in requests:
            if not tokens:
                raise RequestError(f"the continuation {continuation!r} has no token to score")
            part_a, read = self._read(context, len(tokens))
            scored = np.concatenate([read, np.array(tokens, np.int32)])
            rows.append((part_a, ScoredRow(tokens=scored, first=len(read))))
        with self.lm.lock:
            found = known_rows(self.lm, row_writings(self.lm, rows), ranked=True)
        answers = [
            (math.fsum(known.logprobs[row.first :]), all(known.are_best[row.first :]))
            for known, (_, row) in zip(found, rows, strict=True)
        ]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Request], disable_tqdm: bool = False
    ) -> list[float]:
        """Score whole texts of any length, every token once."""
        del disable_tqdm
        mode = "one-way" if self.mode == "unidirectional" else "bidirectional"
        answers: list[float] = []
        for request in requests:
            (text,) = request.args
            with self.lm.lock:
                answers.append(score_text(self.lm, text, mode=mode).logprob if text else 0.0)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answers[-1])
        return answers

    def generate_until(
        self, requests: Sequence[Request], disable_tqdm: bool = False
    ) -> list[str]:  # fmt: skip
        """Write answers up to the first of some words, greedily unless a task says otherwise."""
        del disable_tqdm
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for k, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(k)
        for members in groups.values():
            options: Mapping[str, Any] = requests[members[0]].args[1]
            written = self._write([requests[k].args[0] for k in members], options)
            for k, text in zip(members, written, strict=True):
                answers[k] = text
                self.cache_hook.add_partial("generate_until", requests[k].args, text)
        return answers

    def _write(self, contexts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        limit = int(options.get("max_gen_toks", MAX_NEW_TOKENS))
        # Half of a row is for the context at least.
        limit = max(1, min(limit, self.lm.row_length // 2))
        drawn = bool(options.get("do_sample", False))
        sampling = Sampling(
            temperature=float(options.get("temperature", 1.0)) if drawn else 0.0,
            top_p=float(options.get("top_p", 1.0)) if drawn else 1.0,
        )
        read = [self._read(self.tok_encode(context.rstrip(" ")), limit) for context in contexts]
        longest = limit + max(len(tokens) for _, tokens in read)
        with self.lm.lock:
            filled = fill_tokens(
                self.lm, [part_a for part_a, _ in read], max_new_tokens=longest, sampling=sampling,
                forced=[[tokens.tolist()] for _, tokens in read],
            )  # fmt: skip
        texts = [
            self.lm.tokenizer.decode(text.blanks[0].tokens[len(tokens) : len(tokens) + limit])
            for text, (_, tokens) in zip(filled, read, strict=True)
        ]
        return [_cut(text, stops) for text in texts]

    def _read(self, context: Sequence[int], longest: int) -> tuple[Int32, Int32]:
        """Give Part A of a context, and what stands behind it before the continuation."""
        tokens, nothing = np.array(context, np.int32), np.zeros(0, np.int32)
        row = Row(
            left=tokens, right=nothing, in_blank=self.mode == "mask" and len(tokens) > 0,
            one_way=self.mode == "unidirectional",
        )  # fmt: skip
        try:
            part_a, read, _ = lay_out(row, longest, self._frames, self.lm.row_length)
        except BadItemError as error:
            raise RequestError(
                f"a task of the harness cannot be asked of this run: {error}"
            ) from error
        return part_a, read


def _cut(text: str, stops: Sequence[str]) -> str:
    """Cut a text before the first of some words."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
