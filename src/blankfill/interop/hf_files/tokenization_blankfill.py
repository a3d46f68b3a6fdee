"""The tokenizer of an exported GLM.

    inputs = tokenizer(["The [MASK] fox jumps."], padding=True, return_tensors="pt")
    texts = tokenizer.fill(model.generate(**inputs))

`[MASK]`, `[sMASK]` and `[gMASK]` in a text become the ids of blanks; one space before a blank is
taken away, because pieces begin with the space before their word, so that a fill brings its own. A
text with a blank is followed by `[S]`, unless add_special_tokens=False. Anything else is plain
text (vocabulary_blankfill.py).
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import shutil
from pathlib import Path

from transformers import PreTrainedTokenizer

from .vocabulary_blankfill import BLANKS, open_vocabulary

__all__ = ["BlankfillTokenizer"]


class BlankfillTokenizer(PreTrainedTokenizer):
    """Text to ids and back, with blanks."""

    vocab_files_names = {  # noqa: RUF012  # as transformers has it
        "vocab_file": "tokenizer.model", "pieces_file": "vocabulary.json",
    }  # fmt: skip
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, vocab_file=None, pieces_file=None, published=None, **kwargs):
        if not (vocab_file or pieces_file):
            raise ValueError("the folder holds neither tokenizer.model nor vocabulary.json")
        self.vocab_file = str(vocab_file or pieces_file)
        self.vocabulary = open_vocabulary(self.vocab_file, published)
        self.special = self.vocabulary.special
        self.pieces = self.vocabulary.pieces
        self.id_of = {piece: i for i, piece in enumerate(self.pieces)}
        kwargs.setdefault("padding_side", "left")
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        for name, role in (("mask_token", "mask"), ("eos_token", "eop"), ("pad_token", "pad")):
            kwargs.setdefault(name, self.pieces[self.special[role]])
        super().__init__(published=published, **kwargs)

    @property
    def vocab_size(self):
        """Number of ids, special ones included."""
        return len(self.pieces)

    def get_vocab(self):
        """Return every piece with its id."""
        return dict(self.id_of)

    def _add_tokens(self, new_tokens, special_tokens=False):
        """Take note of special tokens that the vocabulary has; it takes no others.

        Raises:
            ValueError: a token is not in the vocabulary.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str) else list(new_tokens)
        if unknown := [str(token) for token in tokens if str(token) not in self.id_of]:
            raise ValueError(
                f"the vocabulary is fixed and has no piece {unknown[0]!r}: a new token needs a row "
                "of the model too; give the run a vocabulary that has it with `blankfill resize` "
                "and export it again"
            )
        return super()._add_tokens(tokens, special_tokens=True) if special_tokens else 0

    def __call__(self, *args, is_split_into_words=False, **kwargs):
        """Turn texts into ids, as every tokenizer of transformers does.

        Raises:
            ValueError: the texts were split into words.
        """
        if is_split_into_words:
            raise ValueError("give whole texts: the white space between words is part of them")
        return super().__call__(*args, **kwargs)

    def tokenize(self, text, **_kwargs):
        """Cut a text into pieces, blanks among them."""
        return [self.pieces[i] for i in self.vocabulary.encode_with_blanks(text)]

    def _convert_token_to_id(self, token):
        return self.id_of.get(token)

    def _convert_token_to_id_with_added_voc(self, token):
        return self.id_of.get(token)

    def _convert_id_to_token(self, index):
        return self.pieces[self._checked([index])[0]]

    def convert_tokens_to_string(self, tokens):
        """Join pieces; bytes that are no UTF-8, which a model may write, become U+FFFD."""
        if unknown := [token for token in tokens if token not in self.id_of]:
            raise ValueError(f"the vocabulary has no piece {unknown[0]!r}")
        return self.vocabulary.decode([self.id_of[token] for token in tokens])

    def _decode(self, token_ids, skip_special_tokens=False, **_kwargs):
        ids = self._checked([token_ids] if isinstance(token_ids, int) else token_ids)
        if skip_special_tokens:
            ids = [i for i in ids if i not in self.special.values()]
        return self.vocabulary.decode(ids)

    def _checked(self, ids):
        """Turn ids into Python integers.

        Raises:
            ValueError: an id is not in the vocabulary, such as the -100 of labels.
        """
        numbers = [int(i) for i in ids]
        if wrong := [i for i in numbers if not 0 <= i < len(self.pieces)]:
            raise ValueError(
                f"token id {wrong[0]} is outside the vocabulary of {len(self.pieces)} ids"
            )
        return numbers

    def num_special_tokens_to_add(self, pair=False):
        """Count what is appended to a text with a blank."""
        return 1

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        """Append `[S]` to ids that have a blank."""
        if token_ids_1 is not None:
            raise ValueError("a blankfill tokenizer takes one text at a time, not pairs")
        return token_ids_0 + [self.special["sop"]] * any(map(self._is_blank, token_ids_0))

    def _is_blank(self, token_id):
        return token_id in [self.special[role] for role in BLANKS]

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
            for i in part_a:
                whole += next(left, [i]) if self._is_blank(i) else [i]
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
                ids = self.vocabulary.encode(fill)
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
        """Copy the file of the vocabulary."""
        name = (f"{filename_prefix}-" if filename_prefix else "") + Path(self.vocab_file).name
        target = Path(save_directory) / name
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    def _read(self, sequence):
        """Split one generated row into Part A and the fills."""
        ids = [int(i) for i in sequence if int(i) != self.special["pad"]]
        while ids and ids[0] == self.pad_token_id:  # where another token was made to pad
            ids.pop(0)
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
