"""A token store in memory."""

import numpy as np


class MemoryStore:
    """Documents in memory with the attributes of a token store."""

    def __init__(self, documents, languages=None, *, dtype=np.uint16):
        self.documents = [np.asarray(d, dtype=dtype) for d in documents]
        self.lengths = np.array([len(d) for d in self.documents], dtype=np.int64)
        self.languages = np.array(
            [1] * len(documents) if languages is None else languages, dtype=np.uint8
        )
        self.num_tokens = int(self.lengths.sum())
        self.shard_documents = np.array([len(self.documents)])

    has_sentences = False
    prompts = None
    shuffle_shards = 1

    def __len__(self):
        return len(self.documents)

    @property
    def has_pairs(self):
        return self.prompts is not None

    def lengths_of(self, documents):
        return self.lengths[documents]

    def languages_of(self, documents):
        return self.languages[documents]

    def prompts_of(self, documents):
        return self.prompts[documents]

    def document(self, index):
        return self.documents[index]

    def read(self, documents, starts, ends):
        parts = [self.documents[d][a:b] for d, a, b in zip(documents, starts, ends, strict=True)]
        return np.concatenate(parts).astype(np.int32)

    def sentence_ends(self, index, start, end):
        return np.zeros(0, np.int64)
