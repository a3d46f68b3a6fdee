"""The English vocabularies: BERT's WordPiece (GLM up to 515M), GPT-2's BPE (GLM-2B and 10B) and
RoBERTa's (GLM-RoBERTa), with the special tokens that GLM added after them.

Source: `data_utils/tokenization.py` of GLM. They need the library `tokenizers`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blankfill.errors import DataError
from blankfill.objective.special import SpecialIds
from blankfill.text.vocabularies.prompt import (
    Frame,
    Portable,
    checked,
    decode_between,
    encode_prompt,
    portable,
)

__all__ = ["BytePairVocabulary", "WordPieceVocabulary"]

Int32 = npt.NDArray[np.int32]
_NEEDS = "this vocabulary needs the library tokenizers; pip install 'blankfill[interop]'"


class WordPieceVocabulary:
    """BERT's uncased WordPiece; `[sMASK]` and `[gMASK]` have ids but were never trained."""

    kind = "wordpiece"

    def __init__(self, vocab: bytes, *, path: str = "vocab.txt"):
        """Make the vocabulary of its `vocab.txt`, one piece a line."""
        library = _library()
        pieces = _decoded(vocab, path).split("\n")
        id_of = {piece.rstrip("\r"): i for i, piece in enumerate(pieces) if piece.rstrip("\r")}
        for needed in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
            if needed not in id_of:
                raise DataError(f"{path}: no vocabulary of BERT, the piece {needed} is missing")
        model = library.Tokenizer(library.models.WordPiece(id_of, unk_token="[UNK]"))
        model.normalizer = library.normalizers.BertNormalizer(lowercase=True)
        model.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        model.decoder = library.decoders.WordPiece()
        self._encode: Callable[[str], list[int]] = lambda text: model.encode(text).ids
        self._decode: Callable[[list[int]], str] = model.decode
        self._name: Callable[[int], str | None] = model.id_to_token
        self._library_json: Callable[[], str] = model.to_str
        n = len(id_of)
        self.files = {"vocab.txt": vocab}
        self.settings: Mapping[str, int] = {}
        self.fingerprint = hashlib.sha256(vocab).hexdigest()
        self.ids = SpecialIds(
            pad=id_of["[PAD]"], eos=id_of["[PAD]"], mask=id_of["[MASK]"], sop=n, eop=n + 1,
            gmask=n + 2, smask=n + 3, dblock=n + 4, shared=("pad", "eos"), opening=id_of["[CLS]"],
        )  # fmt: skip
        self.vocab_size = n + 5
        self._frame = Frame(open_ended="gmask", untrained=("gmask", "smask"))

    def encode(self, text: str) -> Int32:
        """Turn text into ids; upper case and accents are lost."""
        return np.array(self._encode(text), np.int32)

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into `[CLS] text eos`, `[MASK]` included."""
        return encode_prompt(text, self.encode, self.ids, self._frame)

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text, with a blank between words."""
        return decode_between(ids, self._decode, self.ids, self.vocab_size)

    def token(self, token_id: int) -> str:
        """Show one token in a table."""
        (index,) = checked([token_id], self.vocab_size)
        return self._name(index) or _shown(index, self.ids)

    def portable(self) -> Portable:
        """Give what software without blankfill needs to do the same."""
        return portable(
            "vocabulary.json", self._library_json().encode(), self.ids, self._frame,
            size=self.vocab_size,
        )  # fmt: skip


class BytePairVocabulary:
    """The byte-level BPE of GPT-2 or RoBERTa, told apart by RoBERTa's `<s>` and `<mask>`."""

    def __init__(self, vocab: bytes, merges: bytes, *, path: str = "vocab.json"):
        """Make the vocabulary of its `vocab.json` and `merges.txt`."""
        library = _library()
        id_of = _vocabulary(vocab, path)
        lines = [line for line in _decoded(merges, path).split("\n") if line.strip()]
        pairs = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
        try:
            model = library.Tokenizer(library.models.BPE(id_of, [(a, b) for a, b in pairs]))
        except Exception as error:
            raise DataError(f"{path}: its merges.txt does not belong to it ({error})") from error
        model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = library.decoders.ByteLevel()
        self._encode: Callable[[str], list[int]] = lambda text: model.encode(text).ids
        self._decode: Callable[[list[int]], str] = model.decode
        self._name: Callable[[int], str | None] = model.id_to_token
        self._library_json: Callable[[], str] = model.to_str
        self.files = {"vocab.json": vocab, "merges.txt": merges}
        self.settings: Mapping[str, int] = {}
        self.fingerprint = hashlib.sha256(vocab + b"\0" + merges).hexdigest()
        n = len(id_of)
        self.kind = "roberta" if {"<s>", "</s>", "<mask>"} <= set(id_of) else "gpt2"
        if self.kind == "roberta":
            start, eos, mask, first = id_of["<s>"], id_of["</s>"], id_of["<mask>"], n + 2
        elif "<|endoftext|>" in id_of:
            start, eos, mask, first = n + 2, id_of["<|endoftext|>"], n + 3, n + 6
        else:
            raise DataError(f"{path}: neither GPT-2's vocabulary, which has <|endoftext|>, nor "
                            "RoBERTa's, which has <s> and <mask>")  # fmt: skip
        self.ids = SpecialIds(
            pad=eos, eos=eos, mask=mask, sop=n, eop=n + 1, gmask=first, smask=first + 1,
            dblock=first + 2, shared=("pad", "eos"), opening=start,
        )  # fmt: skip
        self.vocab_size = first + 3
        self._frame = Frame(
            open_ended="gmask", untrained=("gmask", "smask") if self.kind == "roberta" else ()
        )

    def encode(self, text: str) -> Int32:
        """Turn text into ids, byte for byte."""
        return np.array(self._encode(text), np.int32)

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into `[CLS] text eos`, blanks included; no `eos` after a final `[gMASK]`."""
        return encode_prompt(text, self.encode, self.ids, self._frame)

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text; bytes that are no UTF-8 become U+FFFD."""
        return decode_between(ids, self._decode, self.ids, self.vocab_size)

    def token(self, token_id: int) -> str:
        """Show one token in a table."""
        (index,) = checked([token_id], self.vocab_size)
        return self._name(index) or _shown(index, self.ids)

    def portable(self) -> Portable:
        """Give what software without blankfill needs to do the same."""
        return portable(
            "vocabulary.json", self._library_json().encode(), self.ids, self._frame,
            size=self.vocab_size,
        )  # fmt: skip


def _library() -> Any:
    """Load `tokenizers`, which only these vocabularies need."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise DataError(_NEEDS) from error


def _shown(index: int, ids: SpecialIds) -> str:
    roles = ("sop", "eop", "mask", "smask", "gmask", "dblock")
    return next((f"[{role}]" for role in roles if getattr(ids, role) == index), f"[{index}]")


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error


def _vocabulary(data: bytes, path: str) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads(data)
        good = sorted(found.values()) == list(range(len(found)))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no JSON of pieces and ids ({error})") from error
    if not good:
        raise DataError(f"{path}: its ids are not 0 to {len(found) - 1}")
    return found
