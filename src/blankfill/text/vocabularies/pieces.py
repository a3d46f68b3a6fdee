"""The SentencePiece vocabularies: cog-pretrain of GLM's Chinese models, icetk of GLM-130B and
ChatGLM-6B.

cog-pretrain (`data_utils/tokenization.py` of GLM): 50,000 pieces, then the command tokens.

icetk (`icetk_glm_130B/ice_tokenizer.py` of SwissArmyTransformer): ids from 20,000 on are pieces of
`ice_text.model`, those below are codes of images. Eight command tokens, a tab, blanks of 2 to 80
spaces and 256 bytes are appended to the 130,000 pieces when the model is loaded; in ChatGLM-6B's
file of April 2023 the image codes are gone (offset 0) and the appended pieces are part of the file.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

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

__all__ = ["CogVocabulary", "IceVocabulary", "newline_id"]

Int32 = npt.NDArray[np.int32]

MAX_BLANK = 80
NUM_IMAGE_IDS = 20_000
_COMMANDS = ("[MASK]", "[gMASK]", "[sMASK]", "<eod>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
"""Types of pieces in SentencePiece's `sentencepiece_model.proto`."""


def _load(model: bytes, path: str) -> sentencepiece.SentencePieceProcessor:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        processor.get_piece_size()
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path}: not a SentencePiece model") from error
    return processor


def newline_id(path: Path) -> int:
    """Give the id of the piece `<n>`: 3 in cog-pretrain, 4 in icetk; 0 where there is none."""
    return int(_load(path.read_bytes(), str(path)).piece_to_id("<n>"))


class CogVocabulary:
    """cog-pretrain: `<n>` for a line break, command tokens after the pieces."""

    kind = "cog-pretrain"

    def __init__(self, model: bytes, *, fixed: bool, path: str = "cog-pretrain.model"):
        """Make the vocabulary of its model file.

        Args:
            model: the bytes of `cog-pretrain.model`.
            fixed: whether `[gMASK]` has an id of its own, as in GLM-Large-Chinese and in the
                Transformers port; false as in glm-10b-chinese, where it has that of `eop`.
            path: where the file came from, for error messages.
        """
        self._processor = _load(model, path)
        n = int(self._processor.get_piece_size())
        self.files = {"cog-pretrain.model": model}
        self.settings: Mapping[str, int] = {"fixed": fixed}
        self.fingerprint = hashlib.sha256(model + (b"fixed" if fixed else b"released")).hexdigest()
        self.ids = SpecialIds(
            pad=n, eos=n, mask=n + 3, sop=n + 6, eop=n + 7, smask=n + 8,
            gmask=n + 9 if fixed else n + 7, dblock=n + 10 if fixed else n + 9,
            shared=("pad", "eos") if fixed else ("pad", "eos", "gmask", "eop"), opening=n + 2,
        )  # fmt: skip
        self.vocab_size = n + 11
        self._num_pieces = n
        self._frame = Frame(open_ended="gmask")

    def encode(self, text: str) -> Int32:
        """Turn text into ids; line breaks become the piece `<n>`."""
        return np.array(self._processor.encode(text.replace("\n", "<n>")), np.int32)

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text into `[CLS] text eos`, blanks included; no `eos` after a final `[gMASK]`."""
        return encode_prompt(text, self.encode, self.ids, self._frame)

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text; blanks are shown, framing tokens not."""
        return decode_between(ids, self._decode, self.ids, self.vocab_size)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._processor.decode([i for i in ids if i < self._num_pieces])
        return text.replace("<n>", "\n")

    def token(self, token_id: int) -> str:
        """Show one token in a table."""
        (index,) = checked([token_id], self.vocab_size)
        if index < self._num_pieces:
            return str(self._processor.id_to_piece(index))
        names = ("eos", "SEP", "CLS", "MASK", "UNK", "unused", "sop", "eop", "sMASK")
        names += ("gMASK", "dBLOCK") if self.settings["fixed"] else ("dBLOCK", "unused")
        return f"[{names[index - self._num_pieces]}]"

    def portable(self) -> Portable:
        """Give what software without blankfill needs to do the same."""
        return portable(
            "tokenizer.model", self.files["cog-pretrain.model"], self.ids, self._frame,
            size=self.vocab_size, offset=0, spelled=[("\n", "<n>")], longest_blank=0,
        )  # fmt: skip


class IceVocabulary:
    """icetk: text ids from an offset on, pieces for white space, bytes for the rest."""

    kind = "icetk"

    def __init__(
        self, model: bytes, *, num_image_ids: int = NUM_IMAGE_IDS, path: str = "ice_text.model"
    ):
        """Make the vocabulary of its model file.

        Args:
            model: the bytes of `ice_text.model`.
            num_image_ids: ids of image codes before the text's: 20,000, or 0 without them.
            path: where the file came from, for error messages.
        """
        self._processor = _load(model, path)
        if not self._processor.is_control(self._processor.piece_to_id("[MASK]")):
            self._processor = _load(model + _appended(), path)
        self.files = {"ice_text.model": model}
        self.settings: Mapping[str, int] = {"num_image_ids": num_image_ids}
        self.fingerprint = hashlib.sha256(model + str(num_image_ids).encode()).hexdigest()
        self._offset = num_image_ids
        self.vocab_size = num_image_ids + int(self._processor.get_piece_size())
        roles = {"mask": "[MASK]", "gmask": "[gMASK]", "smask": "[sMASK]", "sop": "<sop>",
                 "eop": "<eop>", "dblock": "<dBLOCK>", "eos": "</s>", "pad": "<pad>"}  # fmt: skip
        found = {role: int(self._processor.piece_to_id(piece)) for role, piece in roles.items()}
        unknown = self._processor.unk_id()
        if missing := [roles[role] for role, i in found.items() if i == unknown]:
            raise DataError(f"{path}: no model of icetk, the piece {missing[0]} is missing")
        self.ids = SpecialIds.of_roles({role: i + num_image_ids for role, i in found.items()})
        self._frame = Frame(open_ended="any")

    def encode(self, text: str) -> Int32:
        """Turn text into ids; line breaks, tabs and runs of spaces have pieces of their own."""
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        text = re.sub(f" {{2,{MAX_BLANK}}}", lambda run: f"<|blank_{len(run.group())}|>", text)
        return np.array(self._processor.encode(text), np.int32) + np.int32(self._offset)

    def encode_with_blanks(self, text: str) -> Int32:
        """Turn text with blanks into ids; `eos` closes it where it does not end in a blank."""
        return encode_prompt(text, self.encode, self.ids, self._frame)

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """Turn ids into text; image codes are shown as `<image_7>`."""
        return decode_between(ids, self._decode, self.ids, self.vocab_size)

    def _decode(self, ids: list[int]) -> str:
        text = ""
        for is_image, stretch in itertools.groupby(ids, lambda i: i < self._offset):
            if is_image:
                text += "".join(f"<image_{i}>" for i in stretch)
            else:
                text += str(self._processor.decode([i - self._offset for i in stretch]))
        text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
        return re.sub(r"<\|blank_(\d+)\|>", lambda found: " " * int(found.group(1)), text)

    def token(self, token_id: int) -> str:
        """Show one token in a table."""
        (index,) = checked([token_id], self.vocab_size)
        if index < self._offset:
            return f"<image_{index}>"
        return str(self._processor.id_to_piece(index - self._offset))

    def portable(self) -> Portable:
        """Give what software without blankfill needs to do the same; appended pieces included."""
        return portable(
            "tokenizer.model", self._processor.serialized_model_proto(), self.ids, self._frame,
            size=self.vocab_size, offset=self._offset,
            spelled=[("\n", "<n>"), ("\t", "<|tab|>")], longest_blank=MAX_BLANK,
        )  # fmt: skip


def _appended() -> bytes:
    """Serialise the pieces that icetk appends, to be joined to the end of a serialised model.

    Protocol buffers that are joined are merged: repeated fields (pieces, field 1 of the model)
    grow, and of single ones (byte_fallback, field 35 of trainer_spec, field 2) the last counts.
    """
    blanks = [f"<|blank_{n}|>" for n in range(2, MAX_BLANK + 1)]
    pieces = [_piece(name, _CONTROL) for name in _COMMANDS]
    pieces += [_piece(name, _USER_DEFINED) for name in ("<|tab|>", *blanks)]
    pieces += [_piece(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    byte_fallback = bytes([35 << 3 & 0x7F | 0x80, 35 << 3 >> 7, 1])
    return b"".join(pieces) + bytes([2 << 3 | 2, len(byte_fallback)]) + byte_fallback


def _piece(name: str, kind: int) -> bytes:
    """Serialise one piece: its text (field 1), score 0 (field 2, a float), its type (field 3)."""
    text = name.encode()
    body = bytes([1 << 3 | 2, len(text)]) + text + bytes([2 << 3 | 5, 0, 0, 0, 0, 3 << 3, kind])
    return bytes([1 << 3 | 2, len(body)]) + body
