"""A batch of texts in the middle of being filled: the cache, and who sees which key.

Part A of every text is encoded in one pass, padded on the right. Then each step feeds one token
of Part B per row. Keys are laid out `[Part A, padded | step 0 | step 1 | ...]`; a row sees its own
Part A and the steps at which it was active.

Shapes: B rows, A padded length of Part A, S steps taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blankfill.model.cache import KVCache
from blankfill.model.glm import GLM, device_of
from blankfill.model.masks import DenseMask
from blankfill.objective.blank import Prompt

__all__ = ["Session"]


class Session:
    """Part A of a batch, encoded, and Part B as far as it goes."""

    def __init__(self, model: GLM, prompts: Sequence[Prompt], *, pad: int) -> None:
        self._model = model
        lengths = np.array([len(prompt.tokens) for prompt in prompts])
        width = int(lengths.max())
        tokens = np.full((len(prompts), width), pad, dtype=np.int64)
        positions = np.zeros((len(prompts), 2, width), dtype=np.int64)
        for i, prompt in enumerate(prompts):
            tokens[i, : lengths[i]] = prompt.tokens
            positions[i, :, : lengths[i]] = prompt.positions
        self._device = device_of(model)
        self._seen = self._to_device(np.arange(width) < lengths[:, None])  # [B, A]
        self._cache = KVCache(capacity=width + 32)
        # A padded query sees the real keys too: its output is never read, and no row is empty.
        mask = DenseMask(self._seen[:, None, :].expand(-1, width, -1))
        model(self._to_device(tokens), self._to_device(positions), mask, cache=self._cache)

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        active: npt.NDArray[np.bool_],
    ) -> torch.Tensor:
        """Feed one token per row.

        Args:
            tokens: `[B]` ids; rows that are not active may hold anything.
            positions: `[B, 2]` both position ids.
            active: `[B]` false for rows that are finished.

        Returns:
            `[B, V]` logits of the next token, on the CPU, where tokens are chosen.
        """
        self._seen = torch.cat([self._seen, self._to_device(active)[:, None]], dim=1)
        hidden = self._model(
            self._to_device(tokens)[:, None],
            self._to_device(positions)[:, :, None],
            DenseMask(self._seen[:, None, :]),
            cache=self._cache,
        )
        return self._model.logits(hidden[:, 0]).cpu()

    def _to_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """Copy an array to the model's device."""
        return torch.from_numpy(array).to(self._device)
