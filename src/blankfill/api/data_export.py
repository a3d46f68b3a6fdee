"""`blankfill data export`: a token store for another program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blankfill.api.parameters import PathLike, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.results import short_repr

if TYPE_CHECKING:
    from blankfill.data.store import TokenStore

__all__ = ["DataExportResult", "data_export"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataExportResult:
    """A store that another program can read."""

    prefix: str
    """What to name there: the path of the ids and their index without a suffix."""
    prefixes: list[str]
    """The same of every shard; of a store without shards, of the one."""
    documents: int
    """Documents."""
    tokens: int
    """Tokens of all documents."""
    end_token: int | None
    """Id that ends a document, which the ids there do not hold; None where it is not known."""
    __repr__ = short_repr


@checks_arguments
def data_export(store: PathLike, /, *, to: Literal["megatron"] = "megatron") -> DataExportResult:
    """Let Megatron read a token store: write its index beside the ids.

    Example:
        blankfill data export store

    Args:
        store: folder of the store. Its tokens.bin, or that of each shard, is an indexed dataset's
            .bin as it is; a tokens.idx comes beside it.
        to: whose format.

    Raises:
        DataError: the folder is not a store, it lies elsewhere, or a document is too long for that
            format.
        OutputError: the folder cannot be written.
    """
    from blankfill.data.megatron import write_index
    from blankfill.data.store import TokenStore

    opened = TokenStore.open(as_path(store))
    prefixes = [str(prefix) for prefix in write_index(opened)]
    return DataExportResult(
        prefix=prefixes[0], prefixes=prefixes, documents=len(opened), tokens=opened.num_tokens,
        end_token=_end_token(opened),
    )  # fmt: skip


def _end_token(store: TokenStore) -> int | None:
    """Give the id that ends a document, as the store's own tokenizer has it."""
    from blankfill.text.vocabularies import load_tokenizer

    folder = store.path / "tokenizer"
    return load_tokenizer(folder).ids.eos if folder.is_dir() else None
