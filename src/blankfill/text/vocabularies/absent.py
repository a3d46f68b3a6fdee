"""The vocabulary of a model that was imported without one: its tokens are numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from blankfill.errors import DataError
from blankfill.objective.special import DISPLAY, SpecialIds

__all__ = ["NoVocabulary"]


class NoVocabulary:
    """Takes the place of a vocabulary.

    Which ids are special is not known. `ids` takes the last rows of the embedding for them, so that
    weights can be computed with: an export is compared with its run on rows of numbers.
    """

    fingerprint = ""

    def __init__(self, num_rows: int) -> None:
        """Number the tokens by the rows of the model's embedding."""
        self.vocab_size = num_rows
        first = num_rows - len(DISPLAY)
        if first < 1:
            raise DataError(f"an embedding of {num_rows} rows has no room for special tokens")
        self.ids = SpecialIds.of_roles({role: first + i for i, role in enumerate(DISPLAY)})

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Refuse: there are no pieces."""
        self._refuse()

    def encode_with_blanks(self, text: str) -> npt.NDArray[np.int32]:
        """Refuse: there are no pieces."""
        self._refuse()

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Refuse: there are no pieces."""
        self._refuse()

    def token(self, token_id: int) -> str:
        """Show one token in a table: its number."""
        return f"[{token_id}]"

    def _refuse(self) -> NoReturn:
        raise DataError("this model was imported without a vocabulary, so it has no text")
