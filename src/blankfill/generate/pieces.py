"""Text that is certain while tokens are still coming.

Three things hold text back: a character whose bytes have not all come, one that the next code point
may still join (an accent, the second half of a flag), and what may be the beginning of a stop
string. So no reader sees a character that is cut, nor a part of the text that is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

from blankfill.generate.endings import Stops
from blankfill.text.characters import last_character
from blankfill.text.tokenizer import TextTokenizer

__all__ = ["Pieces"]

CONTEXT = 8
"""Tokens in front that are decoded with the new ones: some vocabularies write the space between two
words by what stands on both sides."""
LONGEST_CHARACTER = 64
"""Code points of the longest character that is held back."""
SETTLE = 64
"""Tokens after which the text in front is not decoded again."""
_UNKNOWN = "\ufffd"


class Pieces:
    """Cuts a continuation into pieces that never change again.

    Args:
        tokenizer: the model's.
        before: tokens that stand in front of it.
        stops: texts that end it.
    """

    def __init__(self, tokenizer: TextTokenizer, before: Sequence[int], stops: Stops) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._context = [*before[-CONTEXT:]]
        self._settled = (0, "")  # tokens whose text is known, and their text
        self._given = 0

    def text(self, tokens: Sequence[int]) -> str:
        """Give the text of a continuation's tokens, all of them."""
        count, settled = self._settled
        context = [*self._context, *tokens[max(0, count - CONTEXT) : count]][-CONTEXT:]
        whole = self._tokenizer.decode([*context, *tokens[count:]])
        text = settled + whole[len(self._tokenizer.decode(context)) :]
        if len(tokens) - count > SETTLE and not text.endswith(_UNKNOWN):
            self._settled = (len(tokens), text)
        return text

    def more(self, tokens: Sequence[int]) -> str:
        """Give the text that has become certain since the last time.

        Args:
            tokens: of the continuation, all so far.
        """
        text = self.text(tokens)
        end = len(text.rstrip(_UNKNOWN))
        stop = self._stops.first_in(text)
        if stop is not None:
            end = min(end, stop[0])
        else:
            start = max(0, end - LONGEST_CHARACTER)
            held = last_character(text[start:end]) + start
            end = min(held, end - self._stops.held_back(text[:end]))
        return self._upto(text, end)

    def rest(self, text: str) -> str:
        """Give what of the finished text was not given yet."""
        return self._upto(text, len(text))

    def _upto(self, text: str, end: int) -> str:
        piece = text[self._given : end]
        self._given = max(self._given, end)
        return piece
