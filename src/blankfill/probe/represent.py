"""Hidden states of texts, layer by layer, of a model that is not trained further.

Texts are read as the model was trained: Part A in both directions, and where a blank is asked for,
its `sop` behind it, whose hidden state predicts the blank's first token. Layer 0 is the embedding,
layer i the state after block i, the last one after the final norm: what the output layer reads.

Shapes: n texts, L blocks, D hidden, Q positions of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError, DataError
from blankfill.generate.writing import input_positions
from blankfill.model.glm import GLM, device_of
from blankfill.model.init import init_weights
from blankfill.model.masks import PackedMask
from blankfill.objective.batch import Int32
from blankfill.objective.blank import Prompt, build_prompt
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Item", "encode_items", "represent", "require_place", "untrained"]

PASS_POSITIONS = 4_096
"""Most positions of one pass, unless one text alone has more."""
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A text as the model reads it."""

    prompt: Prompt
    sop: tuple[int, list[int]] | None
    """The token that opens its first blank and its two positions, where the blank is read."""
    index: int | None
    """The position whose state is taken; None takes the mean of the text's."""

    @property
    def num_positions(self) -> int:
        """Positions that it takes."""
        return len(self.prompt.tokens) + (self.sop is not None)


def require_place(at: str, text: str) -> None:
    """Check which hidden state is asked for.

    Raises:
        ConfigError: there is no such place, or it is a blank and the text's pattern has none.
    """
    if at not in ("blank", "mean", "first", "last") and _number(at) is None:
        raise ConfigError(f"at={at!r} must be blank, mean, first, last, or the number of a token, "
                          "from 0, or from the end: -1")  # fmt: skip
    if at == "blank" and "MASK]" not in text and "{" in text:
        raise ConfigError(f"--at blank needs a blank in --text {text!r}; put [MASK] into it where "
                          "it is to be read")  # fmt: skip


def encode_items(
    texts: Sequence[str], places: Sequence[str], tokenizer: TextTokenizer, cfg: RunConfig, at: str
) -> tuple[list[Item], list[str]]:
    """Turn texts into what a model reads; its weights are not needed.

    Args:
        texts: `[n]`.
        places: `[n]` where they stand, for messages.
        tokenizer: the model's.
        cfg: what it was trained with.
        at: which hidden state.

    Returns:
        Those that a row of the model holds; and of every text what is wrong with it, or "".

    Raises:
        DataError: a text has no token, no blank, or not the token that is asked for.
    """
    row = min(cfg.train.row_length, cfg.model.max_position)
    items: list[Item] = []
    wrong: list[str] = []
    for text, place in zip(texts, places, strict=True):
        tokens = tokenizer.encode_with_blanks(text)
        long = len(tokens) + (at == "blank") > row
        wrong.append(
            f"{place}: the text has {len(tokens):,} tokens and a row of this model holds {row:,}"
            if long else ""
        )  # fmt: skip
        if not long:
            items.append(_item(tokens, place, tokenizer, cfg, at))
    return items, wrong


def represent(
    model: GLM, items: Sequence[Item], advance: Callable[[int], None] | None = None
) -> Float32:
    """Give the hidden states of texts.

    Args:
        model: in evaluation mode; called in the precision that the caller has set.
        items: `[n]`.
        advance: called with the number of texts that were just read.

    Returns:
        `[L + 1, n, D]`.

    Raises:
        DataError: a state is not a finite number.
    """
    parts: list[torch.Tensor] = []
    for group in _passes(items):
        parts.append(_read(model, group))
        if advance is not None:
            advance(len(group))
    states = torch.cat(parts, 1).numpy()
    if not np.isfinite(states).all():
        raise DataError("the model's hidden states are not finite numbers, as of a run that "
                        "diverged; take another checkpoint")  # fmt: skip
    return states


def untrained(cfg: RunConfig, seed: int) -> GLM:
    """Build the same architecture with its first weights."""
    model = GLM(cfg.model)
    init_weights(model, seed)
    return model.eval()


def _item(tokens: Int32, place: str, tokenizer: TextTokenizer, cfg: RunConfig, at: str) -> Item:
    if not len(tokens):
        raise DataError(f"{place}: the model's tokenizer has no token for the text; leave it out")
    sentinels = cfg.sentinel_position
    prompt = build_prompt(tokens, tokenizer.ids, sentinel_position=sentinels)
    if at == "blank":
        if not len(prompt.blanks):
            raise DataError(f"{place}: the text has no blank, and --at blank reads one; put [MASK] "
                            "into it: --text '{field} [MASK]'")  # fmt: skip
        (positions,) = input_positions(prompt, 0, [], 1, cfg.objective.positions)
        return Item(prompt, (prompt.sops[0], positions), len(tokens))
    number = {"first": 0, "last": -1, "mean": None}.get(at, _number(at))
    if number is not None and not -len(tokens) <= number < len(tokens):
        raise DataError(f"{place}: the text has {len(tokens):,} tokens, and --at {at} reads one "
                        "that is not there; leave the row out")  # fmt: skip
    return Item(prompt, None, None if number is None else number % len(tokens))


def _number(at: str) -> int | None:
    sign = at[:1] == "-"
    digits = at[sign:]
    return int(at) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _passes(items: Sequence[Item]) -> Iterator[list[Item]]:
    group: list[Item] = []
    count = 0
    for item in items:
        if group and count + item.num_positions > PASS_POSITIONS:
            yield group
            group, count = [], 0
        group.append(item)
        count += item.num_positions
    if group:
        yield group


@torch.inference_mode()
def _read(model: GLM, group: Sequence[Item]) -> torch.Tensor:
    """Read texts that lie end to end, none of which sees another; `[L + 1, texts, D]`."""
    tokens, positions, blocks, owner = [], [], [], []
    start = 0
    for number, item in enumerate(group):
        a = len(item.prompt.tokens)
        tokens.append(item.prompt.tokens)
        positions.append(item.prompt.positions)
        if item.sop is not None:
            tokens.append(np.array([item.sop[0]], np.int32))
            positions.append(np.array([item.sop[1]], np.int32).T)
        blocks.append((0, start, start + a, start + item.num_positions))
        owner.append(np.full(item.num_positions, number))
        start += item.num_positions
    device = device_of(model)
    states: list[torch.Tensor] = []

    def take(_module: object, _given: object, out: torch.Tensor) -> None:
        states.append(out)

    hooks = [
        part.register_forward_hook(take)
        for part in (model.embed, *model.blocks.values())
        if part is not None
    ]
    try:
        last = model(
            torch.from_numpy(np.concatenate(tokens)).long().to(device)[None],
            torch.from_numpy(np.concatenate(positions, axis=1)).long().to(device)[None],
            PackedMask(np.array(blocks, np.int32), (1, start)),
        )
    finally:
        for hook in hooks:
            hook.remove()
    states[-1] = last
    taken = _taken(group, blocks, np.concatenate(owner))
    return torch.stack([taken(state[0].float().cpu()) for state in states])


def _taken(
    group: Sequence[Item], blocks: Sequence[tuple[int, ...]], owner: Any
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give what takes of `[Q, D]` states one for each text."""
    if group[0].index is not None:
        index = torch.tensor([
            block[1] + (item.index or 0) for item, block in zip(group, blocks, strict=True)
        ])  # fmt: skip
        return lambda state: state[index]
    counts = torch.tensor([item.num_positions for item in group])[:, None]
    places = torch.from_numpy(owner)
    return lambda state: torch.zeros(len(group), state.shape[1]).index_add_(
        0, places, state
    ) / counts  # fmt: skip
