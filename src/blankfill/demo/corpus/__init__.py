"""The bilingual world that the demo learns: facts, and their tellings in English and Chinese."""

from __future__ import annotations

from blankfill.demo.corpus.generate import Corpus, DemoDocument, generate, write_corpus

__all__ = ["Corpus", "DemoDocument", "generate", "write_corpus"]
