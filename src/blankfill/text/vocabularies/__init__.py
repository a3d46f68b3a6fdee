"""The vocabularies of the published GLM models, each through the library it was made with.

They have the surface of `text.tokenizer.TextTokenizer`. Unlike our own they are not exact inverses:
each normalises text as it did when its models were trained.
"""

from __future__ import annotations

from blankfill.text.vocabularies.absent import NoVocabulary
from blankfill.text.vocabularies.folder import load_tokenizer, open_vocabulary, save_vocabulary
from blankfill.text.vocabularies.prompt import Vocabulary, is_published

__all__ = [
    "NoVocabulary",
    "Vocabulary",
    "is_published",
    "load_tokenizer",
    "open_vocabulary",
    "save_vocabulary",
]
