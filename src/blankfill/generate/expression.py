"""Fills that match a regular expression, by the library llguidance.

The expression is met with one for the length: a fill has at most as many characters as it may have
tokens. So there is always a way to end in time, since a piece has at least one character, and the
library never leads where no match is left. What a token may be is read from its mask; of the pieces
of single bytes only those stay that spell a character without a piece.

Expressions have no look-around. What makes one too costly is bounded by the library's own limits.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blankfill.errors import RequestError
from blankfill.generate.spelling import Spelling

__all__ = ["Expression", "expression_of"]

LIMITS = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 50_000,
}
"""What an expression may cost: a tenth of a second at most where the library's defaults allow
several."""
_NEEDS = "a regular expression needs the library llguidance; pip install 'blankfill[constraints]'"


class Matching(NamedTuple):
    """Where a fill stands in the expression."""

    matcher: Any
    begun: bytes = b""
    """First bytes of a character without a piece."""


class Expression:
    """An expression, ready for the vocabulary of one model.

    Args:
        spelling: of the vocabulary.
        pattern: the expression, the text that a fill holds besides included.
        given: the expression as the user gave it.
        most: most characters of a match.

    Raises:
        RequestError: the library is missing, the expression is none, it is too costly, or nothing
            matches it.
    """

    def __init__(self, spelling: Spelling, pattern: str, given: str, most: int) -> None:
        library = _library()
        self._shown, self._size = _shown(given), len(spelling.texts)
        self._pieces = np.array([bool(text) for text in spelling.texts])
        self._bytes_of = spelling.bytes_of
        # Characters without a piece: all of a single byte, and the longer ones that are named.
        known = {chr(byte) for byte in range(128)} | set(pattern)
        self._spelled = {c.encode() for c in known if not spelling.is_whole(c)}
        self._begun = {text[:k] for text in self._spelled for k in range(1, len(text))}
        grammar = f"start: TEXT\nTEXT: /{_escaped(pattern)}/ & /(?s:.{{0,{most}}})/\n"
        self._matcher = library.LLMatcher(
            _vocabulary(spelling), library.LLMatcher.grammar_from_lark(grammar), log_level=0,
            limits=library.LLParserLimits(**LIMITS),
        )  # fmt: skip
        self._check(self._matcher)
        first = self.allowed(self.start)
        if not first.any() and not self.may_end(self.start):
            raise RequestError(
                f"no text of at most {most} characters that this model's vocabulary can write "
                f"matches the expression {self._shown}; loosen it, or raise max_new_tokens"
            )

    @property
    def start(self) -> Matching:
        """Where an empty fill stands."""
        return Matching(self._matcher)

    def allowed(self, state: Matching) -> npt.NDArray[np.bool_]:
        """Say which pieces may come next, `[V]`; none of those that end a fill."""
        mask = state.matcher.deep_copy().compute_bitmask()
        self._check(state.matcher)
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")[: self._size]
        found = bits.astype(np.bool_)
        allowed = found & self._pieces if not state.begun else np.zeros_like(found)
        for token, byte in self._bytes_of.items():
            text = state.begun + bytes([byte])
            allowed[token] = found[token] and (text in self._begun or text in self._spelled)
        return allowed

    def may_end(self, state: Matching) -> bool:
        """Tell whether the fill matches as it is."""
        return not state.begun and bool(state.matcher.is_accepting())

    def after(self, state: Matching, token: int) -> Matching:
        """Give where a fill stands after one more piece."""
        matcher = state.matcher.deep_copy()
        matcher.consume_token(token)
        self._check(matcher)
        byte = self._bytes_of.get(token)
        begun = b"" if byte is None else state.begun + bytes([byte])
        return Matching(matcher, begun if begun in self._begun else b"")

    def _check(self, matcher: Any) -> None:
        if not matcher.is_error():
            return
        said = str(matcher.get_error())
        if "NoExtension" in said:
            return  # nothing matches, which is said where it is asked
        if "invalid regex" in said or "regex parse error" in said:
            raise RequestError(f"{self._shown} is no regular expression: {_reason(said)}")
        raise RequestError(
            f"the expression {self._shown} is too costly to follow; make it shorter or simpler"
        )


@functools.lru_cache(maxsize=32)
def expression_of(spelling: Spelling, pattern: str, given: str, most: int) -> Expression:
    """Make an expression ready, once for all fills that it bounds."""
    return Expression(spelling, pattern, given, most)


def _library() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ImportError as error:
        raise RequestError(_NEEDS) from error


@functools.lru_cache(maxsize=4)
def _vocabulary(spelling: Spelling) -> Any:
    library = _library()
    return library.LLTokenizer(
        library.TokenizerWrapper(_Pieces(spelling)), n_vocab=len(spelling.texts),
        eos_token=spelling.tokenizer.ids.eop,
    )  # fmt: skip


class _Pieces:
    """A vocabulary as llguidance asks for it."""

    bos_token_id = None

    def __init__(self, spelling: Spelling) -> None:
        self.eos_token_id = spelling.tokenizer.ids.eop
        self.tokens = [text.encode() for text in spelling.texts]
        for token, byte in spelling.bytes_of.items():
            self.tokens[token] = bytes([byte])
        self.special_token_ids = [i for i, text in enumerate(self.tokens) if not text]
        self._encode = spelling.tokenizer.encode

    def __call__(self, text: str | bytes) -> list[int]:
        """Encode a text."""
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        return self._encode(text).tolist()


def _escaped(pattern: str) -> str:
    """Write an expression between slashes: those in it escaped, line breaks as what they are."""
    text, escaped = "", False
    for character in pattern:
        if character == "\n":
            text += "n" if escaped else "\\n"
        elif character == "/" and not escaped:
            text += "\\/"
        else:
            text += character
        escaped = character == "\\" and not escaped
    return text


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 60 else pattern[:60] + "..")


def _reason(said: str) -> str:
    """Give what the library says is wrong with an expression."""
    lines = [line.strip() for line in said.splitlines()]
    found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return found[0] if found else "it cannot be read"
