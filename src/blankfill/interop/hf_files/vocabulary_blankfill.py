"""Text to ids and back, as blankfill does it: its own tokenizers, and the published vocabularies.

A tokenizer of blankfill (`ExactVocabulary`) loses nothing of a text. The vocabularies of published
models (`PublishedVocabulary`) each change a text as they did in training, and put a text with
blanks between the tokens that its models know: `[CLS] text eos` in GLM up to 10B, `text eos` in
GLM-130B and ChatGLM-6B. What tells one from another is data that stands beside the export.

Needs sentencepiece, or tokenizers for the English vocabularies; nothing else beside it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict, cast

import sentencepiece

__all__ = ["SPECIAL", "ExactVocabulary", "Published", "PublishedVocabulary", "open_vocabulary"]

SPECIAL = {
    "mask": "[MASK]", "smask": "[sMASK]", "gmask": "[gMASK]", "sop": "[S]", "eop": "[E]",
    "eos": "[EOS]", "pad": "[PAD]", "dblock": "[dBLOCK]",
}  # fmt: skip
"""How the special tokens are written, by role."""

BLANKS = ("mask", "smask", "gmask")
_BLANK = re.compile(r"(\[[sg]?MASK\])")
_ROLE_OF = {shown: role for role, shown in SPECIAL.items()}
_SPACE_BEFORE_BLANK = re.compile(r" (?=\[[sg]?MASK\])")
_SPACE_MARK = "\u2581"  # SentencePiece's mark for a space, which cannot stand for itself
_SEGMENT_CHARACTERS = 100_000  # longer texts are cut: SentencePiece needs much memory for each byte


class Published(TypedDict):
    """What is to be known of a published vocabulary, as the export's JSON has it."""

    special_ids: dict[str, int]
    """By role."""
    size: int
    """Number of ids."""
    opening: int | None
    """Id of `[CLS]`, which opens a text; None where nothing does."""
    open_ended: str
    """`gmask` or `any`: a text that ends in such a blank is not closed."""
    untrained: list[str]
    """Blanks that its models never saw."""


class PublishedPieces(Published):
    """The same and how the pieces of a SentencePiece model are used."""

    offset: int
    """Ids before the first piece."""
    spelled: list[tuple[str, str]]
    """Pairs: what stands in a text, and its piece."""
    longest_blank: int
    """Runs of up to so many spaces have pieces; 0: none has."""


def open_vocabulary(
    path: str | Path, published: Published | None
) -> ExactVocabulary | PublishedVocabulary:
    """Open an export's vocabulary.

    Args:
        path: tokenizer.model of SentencePiece, or vocabulary.json of tokenizers.
        published: what is to be known of a published vocabulary; None for one of blankfill.
    """
    if published is None:
        return ExactVocabulary(path)
    return PublishedVocabulary(path, published)


class ExactVocabulary:
    """A tokenizer of blankfill: `decode` gives every text back, white space included."""

    def __init__(self, path: str | Path) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        size = self._processor.get_piece_size()
        self.pieces: list[str] = self._processor.id_to_piece(list(range(size)))
        id_of = {piece: i for i, piece in enumerate(self.pieces)}
        self.special = {role: id_of[piece] for role, piece in SPECIAL.items()}
        byte_of = {
            piece: bytes([int(piece[1:-1], 16)])
            for i, piece in enumerate(self.pieces)
            if self._processor.is_byte(i)
        }
        self._bytes_of = [
            byte_of.get(piece, piece.replace(_SPACE_MARK, " ").encode()) for piece in self.pieces
        ]
        self._mark = [id_of[f"<0x{b:02X}>"] for b in _SPACE_MARK.encode()]

    def encode(self, text: str) -> list[int]:
        """Turn text into ids; never a special one."""
        ids: list[int] = []
        for number, stretch in enumerate(text.split(_SPACE_MARK)):
            ids += self._mark if number else []
            for segment in _segments(stretch):
                ids += self._processor.encode(segment.encode())
        return ids

    def encode_with_blanks(self, text: str) -> list[int]:
        """Turn a text into ids, blanks into theirs."""
        ids: list[int] = []
        for part, role in _parts(text):
            ids += [self.special[role]] if role else self.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; bytes that are no UTF-8, which a model may write, become U+FFFD."""
        return b"".join(self._bytes_of[i] for i in ids).decode("utf-8", errors="replace")


class PublishedVocabulary:
    """The vocabulary of a published model.

    Args:
        path: its pieces.
        published: what is to be known of it.
    """

    def __init__(self, path: str | Path, published: Published) -> None:
        self.special = dict(published["special_ids"])
        self._opening = published["opening"]
        self._open_ended = published["open_ended"]
        self._untrained = tuple(published["untrained"])
        if Path(path).suffix == ".json":
            self._pieces = _Merged(path)
        else:
            self._pieces = _Sentencepiece(path, cast("PublishedPieces", published))
        names = [self._pieces.name(i) for i in range(published["size"])]
        role_of = {i: shown for role, shown in SPECIAL.items() for i in [self.special[role]]}
        taken = {name for name in names if name is not None}
        self.pieces: list[str] = []
        for i, name in enumerate(names):
            shown = role_of.get(i, f"<token_{i}>") if name is None else name
            self.pieces.append(f"<token_{i}>" if name is None and shown in taken else shown)
        self._shown = {self.special[role]: SPECIAL[role] for role in reversed(SPECIAL)}
        self._shown |= dict.fromkeys((self.special["eos"], self.special["pad"]), "")
        if self._opening is not None:
            self._shown[self._opening] = ""

    def encode(self, text: str) -> list[int]:
        """Turn text into ids; never a special one."""
        return self._pieces.encode(text)

    def encode_with_blanks(self, text: str) -> list[int]:
        """Turn a text with blanks into the prompt that the models know; plain text as it is."""
        parts = list(_parts(text))
        roles = [role for _, role in parts if role]
        if not roles:
            return self.encode(text)
        if wrong := [role for role in roles if role in self._untrained]:
            raise ValueError(
                f"the models of this vocabulary never saw {SPECIAL[wrong[0]]} in training; write "
                "[MASK] instead"
            )
        ids = [] if self._opening is None else [self._opening]
        for part, role in parts:
            ids += [self.special[role]] if role else self.encode(part)
        is_open = parts[-1][1] and self._open_ended in ("any", roles[-1])
        return ids if is_open else [*ids, self.special["eos"]]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; blanks are shown, the tokens around a text are not."""
        text: list[str] = []
        stretch: list[int] = []
        for i in ids:
            if i not in self._shown:
                stretch.append(i)
            elif self._shown[i]:
                text += [self._pieces.decode(stretch) if stretch else "", self._shown[i]]
                stretch = []
        return "".join([*text, self._pieces.decode(stretch) if stretch else ""])


class _Sentencepiece:
    """Pieces of icetk or cog-pretrain."""

    def __init__(self, path: str | Path, published: PublishedPieces) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self._size = self._processor.get_piece_size()
        self._offset = published["offset"]
        self._spelled = published["spelled"]
        self._longest = published["longest_blank"]

    def name(self, i: int) -> str | None:
        """Give the piece of an id; None for one that is no piece."""
        if i < self._offset:
            return f"<image_{i}>"
        i -= self._offset
        return self._processor.id_to_piece(i) if i < self._size else None

    def encode(self, text: str) -> list[int]:
        """Turn text into ids; line breaks, tabs and runs of spaces have pieces of their own."""
        for character, piece in self._spelled:
            text = text.replace(character, piece)
        if self._longest:
            runs = f" {{2,{self._longest}}}"
            text = re.sub(runs, lambda run: f"<|blank_{len(run.group())}|>", text)
        return [i + self._offset for i in self._processor.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; ids beyond the last piece stand for nothing."""
        text = ""
        for is_image, stretch in itertools.groupby(ids, lambda i: i < self._offset):
            if is_image:
                text += "".join(f"<image_{i}>" for i in stretch)
            else:
                inside = [i - self._offset for i in stretch if i - self._offset < self._size]
                text += self._processor.decode(inside)
        for character, piece in self._spelled:
            text = text.replace(piece, character)
        if self._longest:
            text = re.sub(r"<\|blank_(\d+)\|>", lambda found: " " * int(found.group(1)), text)
        return text


class _Merged:
    """Pieces of BERT, GPT-2 or RoBERTa, in the format of the library tokenizers."""

    def __init__(self, path: str | Path) -> None:
        from tokenizers import Tokenizer

        self._model = Tokenizer.from_file(str(path))

    def name(self, i: int) -> str | None:
        """Give the piece of an id; None for one that is no piece."""
        return self._model.id_to_token(i)

    def encode(self, text: str) -> list[int]:
        """Turn text into ids."""
        return self._model.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text."""
        return self._model.decode(list(ids))


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Cut a text at its blanks: (text, "") or (blank, its role), without empty texts.

    One space before a blank is taken away: pieces begin with the space before their word, so that
    a fill brings its own.
    """
    for part in _BLANK.split(_SPACE_BEFORE_BLANK.sub("", text)):
        if part:
            yield part, _ROLE_OF[part] if _BLANK.fullmatch(part) else ""


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
        yield text[start:]
