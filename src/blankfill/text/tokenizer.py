"""Text to token ids and back, exactly.

A SentencePiece unigram model (Kudo 2018) with byte fallback, trained with identity normalisation
and without a dummy prefix, so that nothing of a text is lost: runs of blanks, tabs, line breaks and
full-width punctuation come back as they were. Two things are done here and not by SentencePiece:

- its mark for a blank, U+2581, cannot stand for itself in its input; a text that holds one is cut
  there and the mark is written as its three bytes;
- decoding joins the bytes of the pieces, because SentencePiece's own decoder takes U+2581 for a
  blank and drops a blank at the start.

The special tokens are control pieces, which SentencePiece never produces from text: `[MASK]` in a
text is plain text, unless the caller asks for blanks (`encode_with_blanks`).

On disk a tokenizer is a folder: `tokenizer.model` (SentencePiece's own format) and
`tokenizer.json` (version, fingerprint, special ids, how it was trained). The fingerprint is the
SHA-256 of `tokenizer.model`.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import sentencepiece

from blankfill.disk.json_files import Description, encode, read_object
from blankfill.disk.ownership import FolderKind
from blankfill.disk.pointer import is_pointer, pointer_sentence
from blankfill.errors import DataError
from blankfill.objective.special import DISPLAY, SpecialIds, sentinel_names
from blankfill.text.characters import is_dense, word_spans

__all__ = [
    "INNER_TOKENIZER",
    "KIND",
    "MANIFEST_NAME",
    "MODEL_NAME",
    "VOCABULARY_NAME",
    "TextTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "copy_tokenizer",
]

Int32 = npt.NDArray[np.int32]

MODEL_NAME = "tokenizer.model"
MANIFEST_NAME = "tokenizer.json"
VOCABULARY_NAME = "blankfill.json"
"""Manifest of a published vocabulary, which is other files (`text.vocabularies`)."""
VERSION = 1
DESCRIPTION = Description("kind", "blankfill tokenizer", VERSION, {"fingerprint": str})
"""What `tokenizer.json` says of itself."""
KIND = FolderKind(
    title="a tokenizer folder", marker=MANIFEST_NAME, description=DESCRIPTION,
    files=(MODEL_NAME,),
)  # fmt: skip
"""A tokenizer's folder, which a new one may replace."""
INNER_TOKENIZER = FolderKind(
    title="a tokenizer",
    files=(
        MANIFEST_NAME, MODEL_NAME, VOCABULARY_NAME, "ice_text.model", "cog-pretrain.model",
        "vocab.json", "merges.txt", "vocab.txt",
    ),
)  # fmt: skip
"""The copy of a tokenizer, ours or published, inside a store or a run."""

_SPACE_MARK = "\u2581"
_BLANK_ROLES = ("mask", "smask", "gmask")
_BLANKS = re.compile("|".join(re.escape(DISPLAY[role]) for role in _BLANK_ROLES))
_ROLE_OF = {shown: role for role, shown in DISPLAY.items()}

# SentencePiece needs tens of bytes for each byte of its input; longer texts are cut at line ends.
_SEGMENT_CHARACTERS = 100_000


class TextTokenizer(Protocol):
    """What turns text into tokens: a trained `Tokenizer`, or words for teaching."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        ...

    @property
    def ids(self) -> SpecialIds:
        """Ids of the special tokens."""
        ...

    @property
    def fingerprint(self) -> str:
        """Differs for every tokenizer of other content."""
        ...

    def encode(self, text: str) -> Int32:
        """Turn text into ids; never a special one."""
        ...

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into ids, `[MASK]`, `[sMASK]` and `[gMASK]` into theirs."""
        ...

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text; special ones are shown as `[MASK]` and so on."""
        ...

    def token(self, token_id: int) -> str:
        """Show one token in a table."""
        ...


class Tokenizer:
    """A trained tokenizer."""

    def __init__(
        self, model: bytes, *, path: str = "", manifest: Mapping[str, object] | None = None
    ):
        """Make a tokenizer of a SentencePiece model.

        Args:
            model: the bytes of `tokenizer.model`.
            path: where it came from, for error messages.
            manifest: what `tokenizer.json` holds.

        Raises:
            DataError: the bytes are no SentencePiece model, or not one that blankfill trained.
        """
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            size = self._processor.get_piece_size()
        except (RuntimeError, OSError) as error:
            raise DataError(f"{path}: not a SentencePiece model") from error
        self.path = path
        self.manifest: Mapping[str, object] = manifest or {}
        self.vocab_size = size
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self._model = model
        pieces: list[str] = self._processor.id_to_piece(list(range(size)))
        self.pieces: tuple[str, ...] = tuple(pieces)
        """`[V]` the piece of each id, as SentencePiece writes it: blanks as U+2581."""
        found = {
            _ROLE_OF[piece]: i
            for i, piece in enumerate(pieces)
            if self._processor.is_control(i) and piece in _ROLE_OF
        }
        byte_ids = {int(p[1:-1], 16): i for i, p in enumerate(pieces) if self._processor.is_byte(i)}
        if len(found) != len(DISPLAY) or len(byte_ids) != 256:
            raise DataError(
                f"{path}: a SentencePiece model without blankfill's special tokens or byte pieces; "
                "train one with `blankfill tokenizer train`"
            )
        self.ids = SpecialIds.of_roles(found, sentinels=_sentinel_ids(pieces))
        self.unknown_id: int = self._processor.unk_id()
        """SentencePiece requires such an id; with byte pieces no text is ever encoded to it."""
        self.byte_mask = np.zeros(size, dtype=np.bool_)
        """`[V]` which ids stand for one byte of a character without a piece."""
        self.byte_mask[list(byte_ids.values())] = True
        self._mark_ids = np.array([byte_ids[b] for b in _SPACE_MARK.encode()], np.int32)
        value_of = {i: bytes([b]) for b, i in byte_ids.items()}
        self._bytes = [
            value_of[i] if i in value_of else piece.replace(_SPACE_MARK, " ").encode()
            for i, piece in enumerate(pieces)
        ]
        self.byte_lengths = np.array([len(piece) for piece in self._bytes], np.int64)
        """`[V]` bytes of UTF-8 that each id stands for; those of a text's ids add up to it."""

    @staticmethod
    def load(path: str | Path) -> Tokenizer:
        """Load a tokenizer from its folder.

        Raises:
            DataError: the folder or a file in it is missing, damaged, or from a later blankfill.
        """
        folder = Path(path)
        if folder.is_file():
            raise DataError(
                f"{folder} is a file, and a tokenizer is a folder; name one that `blankfill "
                "tokenizer train` wrote"
            )
        if not folder.is_dir():
            raise DataError(f"{folder}: no such tokenizer folder")
        try:
            model = (folder / MODEL_NAME).read_bytes()
            manifest = read_object(folder / MANIFEST_NAME, DESCRIPTION)
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} is not a tokenizer folder: {Path(error.filename).name} is missing"
            ) from error
        except OSError as error:
            raise DataError(
                f"{error.filename or folder}: cannot be read, {error.strerror}"
            ) from error
        except ValueError as error:
            raise DataError(
                f"{folder / MANIFEST_NAME} is damaged, or another's: {error}; restore it, "
                "or train the tokenizer again"
            ) from error
        if is_pointer(model):
            raise DataError(pointer_sentence(folder / MODEL_NAME))
        tokenizer = Tokenizer(model, path=str(folder / MODEL_NAME), manifest=manifest)
        if manifest.get("fingerprint") != tokenizer.fingerprint:
            raise DataError(
                f"{folder / MODEL_NAME}: its SHA-256 is not the one in {MANIFEST_NAME}; "
                "the file was changed or damaged"
            )
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Write the tokenizer's two files into an existing folder."""
        folder = Path(path)
        (folder / MODEL_NAME).write_bytes(self._model)
        (folder / MANIFEST_NAME).write_bytes(encode(self.manifest))

    def encode(self, text: str) -> Int32:
        """Turn text into ids.

        Args:
            text: any text that UTF-8 can hold.

        Returns:
            `[n]` ids; never a special one, so `decode` gives exactly the text back.

        Raises:
            DataError: the text holds half of a surrogate pair, which UTF-8 cannot.
        """
        parts: list[Int32] = []
        for number, stretch in enumerate(text.split(_SPACE_MARK)):
            if number:
                parts.append(self._mark_ids)
            for segment in _segments(stretch):
                try:
                    ids: list[int] = self._processor.encode(segment.encode())
                except UnicodeEncodeError as error:
                    raise DataError(
                        "the text holds half of a surrogate pair (U+D800 to U+DFFF), "
                        "which is no character"
                    ) from error
                parts.append(np.array(ids, np.int32))
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int32), *parts])

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into ids; `[MASK]`, `[sMASK]` and `[gMASK]` become their special ids."""
        return _encode_with_blanks(self, text)

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text, the inverse of `encode`.

        Args:
            ids: token ids; special ones are shown as `[MASK]` and so on.

        Returns:
            The text; bytes that are no UTF-8 (a model may write them) become U+FFFD.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        return b"".join(self._bytes[i] for i in _checked(ids, self.vocab_size)).decode(
            "utf-8", errors="replace"
        )

    def token(self, token_id: int) -> str:
        """Show one token in a table: blanks as U+2581, control characters escaped."""
        (index,) = _checked([token_id], self.vocab_size)
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in self.pieces[index])


class WordTokenizer:
    """Words split at white space, Chinese and Japanese by character: a tokenizer for teaching.

    Its vocabulary is made from one text. The white space itself is not kept; `decode` puts one
    blank between words, and none beside a character of a script that is written without. A word of
    the text that looks like a special token, such as `[E]`, is a word.
    """

    def __init__(self, text: str):
        """Collect the words of a text, in order of appearance, after the special tokens."""
        words = list(dict.fromkeys(text[start:end] for start, end in word_spans(text)))
        self._words = [*DISPLAY.values(), *words]
        self._id_of = {word: i for i, word in enumerate(words, start=len(DISPLAY))}
        self.ids = SpecialIds.of_roles({role: i for i, role in enumerate(DISPLAY)})
        self.vocab_size = len(self._words)
        self.fingerprint = hashlib.sha256("\n".join(self._words).encode()).hexdigest()

    def encode(self, text: str) -> Int32:
        """Turn a text into ids; only words of the vocabulary can be encoded.

        Raises:
            DataError: a word is not in the vocabulary.
        """
        words = [text[start:end] for start, end in word_spans(text)]
        unknown = next((word for word in words if word not in self._id_of), None)
        if unknown is not None:
            raise DataError(f"the word {unknown!r} is not in this word list")
        return np.array([self._id_of[word] for word in words], np.int32)

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into ids; `[MASK]`, `[sMASK]` and `[gMASK]` become their special ids."""
        return _encode_with_blanks(self, text)

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into words with a blank between them, where their script has any."""
        text = ""
        for i in _checked(ids, self.vocab_size):
            word = self._words[i]
            dense = not text or is_dense(text[-1]) or is_dense(word[0])
            text += word if dense else f" {word}"
        return text

    def token(self, token_id: int) -> str:
        """Show one word."""
        (index,) = _checked([token_id], self.vocab_size)
        return self._words[index]


def copy_tokenizer(source: str | Path, target: str | Path) -> None:
    """Copy a tokenizer's files into a new folder, such as one inside a store or a run."""
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    published = (Path(source) / VOCABULARY_NAME).is_file()  # a vocabulary of other files
    names = [p.name for p in Path(source).iterdir()] if published else (MODEL_NAME, MANIFEST_NAME)
    for name in names:
        shutil.copyfile(Path(source) / name, target / name)


def _encode_with_blanks(tokenizer: Tokenizer | WordTokenizer, text: str) -> Int32:
    parts: list[Int32] = [np.zeros(0, np.int32)]
    end = 0
    for blank in _BLANKS.finditer(text):
        parts.append(tokenizer.encode(text[end : blank.start()]))
        parts.append(np.array([getattr(tokenizer.ids, _ROLE_OF[blank.group()])], np.int32))
        end = blank.end()
    parts.append(tokenizer.encode(text[end:]))
    return np.concatenate(parts)


def _sentinel_ids(pieces: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find the ids of the sentinels that a tokenizer was trained with, masks and sops."""
    index = {piece: i for i, piece in enumerate(pieces) if piece.startswith(("[MASK", "[S"))}
    known = itertools.takewhile(
        lambda pair: pair[0] in index and pair[1] in index, map(sentinel_names, itertools.count(1))
    )
    pairs = [(index[mask], index[sop]) for mask, sop in known]
    return tuple(mask for mask, _ in pairs), tuple(sop for _, sop in pairs)


def _segments(text: str) -> Iterator[str]:
    """Cut a long text after line breaks, else after spaces, else anywhere."""
    start = 0
    while len(text) - start > _SEGMENT_CHARACTERS:
        stop = start + _SEGMENT_CHARACTERS
        for mark in ("\n", " "):
            end = text.rfind(mark, start, stop) + 1
            if end > start:
                stop = end
                break
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:] if start else text


def _checked(ids: Iterable[int] | npt.NDArray[Any], size: int) -> Sequence[int]:
    """Turn ids into Python integers and check their range."""
    numbers = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
    if numbers and not (min(numbers) >= 0 and max(numbers) < size):
        wrong = next(i for i in numbers if not 0 <= i < size)
        raise DataError(f"token id {wrong} is outside the vocabulary of {size} ids")
    return numbers
