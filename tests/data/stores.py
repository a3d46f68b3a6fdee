"""Small token stores on disk."""

import numpy as np

from blankfill.data.store import TokenStore
from blankfill.data.store_writer import StoreWriter


def write_store(path, seed, num_documents, *, has_pairs=False, shard_tokens=0, **options):
    """A store of random documents of up to 300 tokens, of three languages, with sentences."""
    rng = np.random.default_rng(seed)
    options = {"tokenizer_fingerprint": "f" * 64, **options}
    with StoreWriter(path, vocab_size=500, shard_tokens=shard_tokens, **options) as writer:
        for i in range(num_documents):
            size = int(rng.integers(1, 300))
            prompt = int(rng.integers(0, size)) if has_pairs and i % 3 == 0 else None
            ends = np.unique(np.append(rng.integers(1, size + 1, 4), size))
            writer.add(
                rng.integers(8, 500, size), int(rng.integers(0, 3)), sentence_ends=ends,
                prompt=prompt, characters=3 * size, num_bytes=4 * size,
            )  # fmt: skip
        writer.finish()
    return TokenStore.open(path)
