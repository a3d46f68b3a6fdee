"""The tokenizer of an exported GLM: SentencePiece, with nothing of a text lost.

    inputs = tokenizer(["The [MASK] fox jumps."], padding=True, return_tensors="pt")
    texts = tokenizer.fill(model.generate(**inputs))

`[MASK]`, `[sMASK]` and `[gMASK]` in a text become the ids of blanks; one space before a blank is
taken away, because pieces begin with the space before their word, so that a fill brings its own. A
text with a blank gets `[S]` behind it, unless add_special_tokens=False. Anything else is plain
text, and `decode` gives it back exactly: white space, line breaks and rare characters included.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import re
import shutil
from pathlib import Path

import sentencepiece
from transformers import PreTrainedTokenizer

__all__ = ["BlankfillTokenizer"]

SPECIAL = {
    "mask": "[MASK]", "smask": "[sMASK]", "gmask": "[gMASK]", "sop": "[S]", "eop": "[E]",
    "eos": "[EOS]", "pad": "[PAD]", "dblock": "[dBLOCK]",
}  # fmt: skip
"""The pieces of the special tokens by role."""

_BLANKS = re.compile(r"(\[[sg]?MASK\])")
_SPACE_BEFORE_BLANK = re.compile(r" (?=\[[sg]?MASK\])")
_SPACE_MARK = "\u2581"  # SentencePiece's mark for a space, which cannot stand for itself
_SEGMENT_CHARACTERS = 100_000  # longer texts are cut: SentencePiece needs much memory for each byte


class BlankfillTokenizer(PreTrainedTokenizer):
    """Text to ids and back, with blanks."""

    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012  # as transformers has it
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, vocab_file, **kwargs):
        self.vocab_file = vocab_file
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab_file))
        size = self.processor.get_piece_size()
        self.pieces = self.processor.id_to_piece(list(range(size)))
        self.id_of = {piece: i for i, piece in enumerate(self.pieces)}
        self.special = {role: self.id_of[piece] for role, piece in SPECIAL.items()}
        byte_of = {p: bytes([int(p[1:-1], 16)]) for i, p in enumerate(self.pieces)
                   if self.processor.is_byte(i)}  # fmt: skip
        self.bytes_of = [byte_of.get(piece, piece.replace(_SPACE_MARK, " ").encode())
                         for piece in self.pieces]  # fmt: skip
        self.mark_pieces = [f"<0x{b:02X}>" for b in _SPACE_MARK.encode()]
        kwargs.setdefault("padding_side", "left")
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        for name, role in (("mask_token", "mask"), ("eos_token", "eop"), ("pad_token", "pad")):
            kwargs.setdefault(name, SPECIAL[role])
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        """Number of ids, special ones included."""
        return len(self.pieces)

    def get_vocab(self):
        """Return every piece with its id."""
        return dict(self.id_of)

    def tokenize(self, text, **_kwargs):
        """Cut a text into pieces, blanks among them."""
        pieces = []
        for part in _BLANKS.split(_SPACE_BEFORE_BLANK.sub("", text)):
            pieces += [part] if _BLANKS.fullmatch(part) else self._tokenize(part)
        return pieces

    def _tokenize(self, text, **_kwargs):
        pieces = []
        for number, stretch in enumerate(text.split(_SPACE_MARK)):
            pieces += self.mark_pieces if number else []
            for segment in _segments(stretch):
                ids = self.processor.encode(segment.encode())
                pieces += [self.pieces[i] for i in ids]
        return pieces

    def _convert_token_to_id(self, token):
        return self.id_of.get(token, self.processor.unk_id())

    def _convert_token_to_id_with_added_voc(self, token):
        return self._convert_token_to_id(token)

    def _convert_id_to_token(self, index):
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens):
        """Join pieces; bytes that are no UTF-8, which a model may write, become U+FFFD."""
        joined = b"".join(self.bytes_of[self._convert_token_to_id(token)] for token in tokens)
        return joined.decode("utf-8", errors="replace")

    def _decode(self, token_ids, skip_special_tokens=False, **_kwargs):
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        if skip_special_tokens:
            ids = [i for i in ids if i not in self.special.values()]
        return b"".join(self.bytes_of[i] for i in ids).decode("utf-8", errors="replace")

    def num_special_tokens_to_add(self, pair=False):
        """Count what is put behind a text with a blank."""
        return 1

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        """Put `[S]` behind ids that have a blank."""
        if token_ids_1 is not None:
            raise ValueError("a blankfill tokenizer takes one text at a time, not pairs")
        blanks = {self.special[role] for role in ("mask", "smask", "gmask")}
        return token_ids_0 + [self.special["sop"]] * any(i in blanks for i in token_ids_0)

    def get_special_tokens_mask(
        self, token_ids_0, token_ids_1=None, already_has_special_tokens=False
    ):
        """Mark special ids by 1."""
        ids = token_ids_0 if already_has_special_tokens else (
            self.build_inputs_with_special_tokens(token_ids_0)
        )  # fmt: skip
        return [int(i in self.special.values()) for i in ids]

    def fills(self, sequences):
        """Read the fills off generated rows.

        Args:
            sequences: `[B, T]` what `generate()` returned.

        Returns:
            For each row the fill of each blank, left to right, as ids.
        """
        return [fills for _, fills in map(self._read, sequences)]

    def fill(self, sequences):
        """Put the fills of generated rows in place of their blanks.

        Args:
            sequences: `[B, T]` what `generate()` returned.

        Returns:
            The whole texts.
        """
        texts = []
        for part_a, fills in map(self._read, sequences):
            left, whole = iter(fills), []
            blanks = {self.special[role] for role in ("mask", "smask", "gmask")}
            for i in part_a:
                whole += next(left, [i]) if i in blanks else [i]
            texts.append(self._decode(whole))
        return texts

    def training_inputs(self, texts, fills, *, return_tensors="pt"):
        """Make a batch to train on: `Part A [S] fill [E] [S] fill [E]`, padded, with its labels.

        Args:
            texts: with blanks.
            fills: for each text the text of each of its blanks, left to right; a word's begins
                with its space.
            return_tensors: pt, np, or None for lists.

        Returns:
            input_ids, attention_mask and labels; labels are -100 but on the fills and their `[E]`.
        """
        sop, eop = self.special["sop"], self.special["eop"]
        rows, labels = [], []
        for text, own in zip(texts, fills, strict=True):
            row = self(text, add_special_tokens=False)["input_ids"]
            label = [-100] * len(row)
            for fill in own:
                ids = self.convert_tokens_to_ids(self._tokenize(fill))
                row, label = [*row, sop, *ids, eop], [*label, -100, *ids, eop]
            rows.append(row)
            labels.append(label)
        batch = self.pad({"input_ids": rows}, return_tensors=return_tensors)
        width = max(map(len, rows))
        pads = [[-100] * (width - len(label)) for label in labels]
        sides = [(p, v) if self.padding_side == "left" else (v, p)
                 for p, v in zip(pads, labels, strict=True)]  # fmt: skip
        padded = self.pad(
            {"input_ids": [first + second for first, second in sides]},
            return_tensors=return_tensors,
        )
        batch["labels"] = padded["input_ids"]
        return batch

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Copy the SentencePiece model."""
        name = (f"{filename_prefix}-" if filename_prefix else "") + "tokenizer.model"
        target = Path(save_directory) / name
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    def _read(self, sequence):
        """Split one generated row into Part A and the fills."""
        ids = [int(i) for i in sequence if int(i) != self.special["pad"]]
        sop = self.special["sop"]
        ends = {self.special["eop"], self.special["eos"]}
        start = ids.index(sop) if sop in ids else len(ids)
        fills: list[list[int]] = []
        for i in ids[start:]:
            if i == sop:
                fills.append([])
            elif i not in ends:
                fills[-1].append(i)
        return ids[:start], fills


def _segments(text):
    """Cut a long text behind line breaks, else behind blanks, else anywhere."""
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
