"""A token store in memory: rows of texts that are not on disk, to measure, to draw and to test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from blankfill.objective.batch import Int32, Int64, UInt8
from blankfill.objective.drawn import gather

__all__ = ["InMemoryStore"]


class InMemoryStore:
    """Documents in memory with what the stream of rows asks of a token store.

    Args:
        documents: ids of each.
        languages: language code of each; English where not given.
        prompts: tokens of each before its answer, -1 where it is plain text; where not given, all
            are.
    """

    has_sentences = False
    shuffle_shards = 1

    def __init__(
        self,
        documents: Sequence[npt.ArrayLike],
        languages: Sequence[int] | None = None,
        prompts: Sequence[int] | None = None,
    ) -> None:
        self.documents = [np.asarray(document, np.int32) for document in documents]
        self.languages = np.array([1] * len(documents) if languages is None else languages, "u1")
        self.prompts = None if prompts is None else np.array(prompts, np.int32)
        self.lengths = np.array([len(document) for document in self.documents], np.int64)
        self._tokens = np.concatenate([np.zeros(0, np.int32), *self.documents])
        self._starts = np.cumsum(self.lengths) - self.lengths
        self.num_tokens = len(self._tokens)
        self.shard_documents = np.array([len(documents)])

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def has_pairs(self) -> bool:
        """Whether some documents are a text and its answer."""
        return self.prompts is not None

    def document(self, index: int) -> Int32:
        """Return the ids of one document."""
        return self.documents[index]

    def lengths_of(self, documents: Int64) -> Int64:
        """Give `[n]` tokens of some documents."""
        return self.lengths[documents]

    def languages_of(self, documents: Int64) -> UInt8:
        """Give `[n]` language codes of some documents."""
        return self.languages[documents]

    def prompts_of(self, documents: Int64) -> Int32:
        """Give `[n]` tokens of some documents before their answers, -1 for plain text."""
        if self.prompts is None:
            return np.full(len(documents), -1, np.int32)
        return self.prompts[documents]

    def read(self, documents: Int64, starts: Int64, ends: Int64) -> Int32:
        """Return the tokens `starts:ends` of documents, one after another."""
        return gather(self._tokens, self._starts[documents] + starts, ends - starts)

    def sentence_ends(self, index: int, start: int, end: int) -> Int64:
        """Return no ends of sentences: they are not known."""
        return np.zeros(0, np.int64)
