"""A token store in memory."""

from blankfill.data.in_memory import InMemoryStore as MemoryStore

__all__ = ["MemoryStore"]
