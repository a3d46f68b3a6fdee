"""The range of every number that a user can give, declared once, beside its type.

    peak_lr: Annotated[float, Range(1e-12, 10)] = 1e-3

From this one declaration come the check of a configuration (`check_numbers`), the check of a call
(`arguments.checks_arguments`), what `--help` says of the option, and the tests that stand on every
border. A number without a range is a mistake of ours: it is refused wherever the declarations are
read.

Relations between numbers, such as one that must divide another, are no ranges; they are written
out where they hold.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from blankfill.errors import ConfigError

__all__ = [
    "MOST_STEPS",
    "NewTokens",
    "NumCandidates",
    "Number",
    "Range",
    "RowLength",
    "Seed",
    "Steps",
    "Stride",
    "Temperature",
    "TopP",
    "check_numbers",
    "hints_of",
    "numbers_of",
    "shown",
    "words_of",
]


_UNIONS = (typing.Union, types.UnionType)


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a number may have, both ends included; never infinite, never NaN."""

    low: int | float
    """The least value."""
    high: int | float
    """The largest value."""
    or_zero: bool = False
    """Whether 0, which turns the thing off, may be given too where it lies outside."""

    def __contains__(self, value: float) -> bool:
        """Whether a number may be given; NaN may not, as it compares with nothing."""
        return self.low <= value <= self.high or (self.or_zero and value == 0)

    def __str__(self) -> str:
        """Say it in words."""
        span = f"from {_said(self.low)} to {_said(self.high)}"
        return f"0, or {span}" if self.or_zero else span


@dataclass(frozen=True, slots=True)
class Number:
    """What is known of one number that a user can give."""

    kind: type[int] | type[float]
    """Whether it is whole."""
    range: Range
    """Its values."""
    optional: bool
    """Whether it may be left out as None."""
    words: tuple[str, ...] = ()
    """Words that may stand in its place."""

    def check(self, name: str, value: Any) -> Any:
        """Check a value.

        Args:
            name: what the user calls it.
            value: any object.

        Returns:
            The value as a plain `int` or `float`, or None where it may be.

        Raises:
            ConfigError: it is no number of this kind, or outside the range.
        """
        if value is None and self.optional:
            return None
        if isinstance(value, str) and value in self.words:
            return value
        right = Integral if self.kind is int else Real
        if not isinstance(value, bool) and isinstance(value, right):
            number = typing.cast("float", value)
            if number in self.range:
                return self.kind(number)
        noun = "a whole number" if self.kind is int else "a number"
        span = str(self.range).replace("from", f"{noun} from", 1)
        allowed = ", ".join([*self.words, ""])
        raise ConfigError(f"{name}={shown(value)} must be {allowed}{'or ' * bool(allowed)}{span}")


Seed = Annotated[int, Range(0, 2**64 - 1)]
"""What makes draws repeat: any number of 64 bits."""
Temperature = Annotated[float, Range(1e-4, 1e4, or_zero=True)]
"""What logits are divided by before a token is drawn; 0 takes the most probable one."""
TopP = Annotated[float, Range(1e-9, 1)]
"""Probability of the set that tokens are drawn from."""
RowLength = Annotated[int, Range(16, 2**20)]
"""Positions of a packed row."""
NewTokens = Annotated[int, Range(1, 10**9)]
"""Most tokens of one fill."""
NumCandidates = Annotated[int, Range(1, 10**6)]
"""Fills of one blank."""
Stride = Annotated[int, Range(1, 10**9)]
"""Tokens of a whole text that one window scores."""
MOST_STEPS: Final = 10**12
"""Most optimizer steps of a run."""
Steps = Annotated[int, Range(0, MOST_STEPS)]
"""A number of optimizer steps."""


def check_numbers(config: Any, part: str) -> None:
    """Check every number of a configuration, and keep it as a plain `int` or `float`.

    Args:
        config: a frozen dataclass, from its `__post_init__`.
        part: what stands before a field's name, such as `train`.

    Raises:
        ConfigError: a number is outside its range.
    """
    for name, number in numbers_of(type(config)).items():
        value = getattr(config, name)
        kept = number.check(f"{part}.{name}" if part else name, value)
        if type(kept) is not type(value):
            object.__setattr__(config, name, kept)


@functools.cache
def numbers_of(owner: Callable[..., Any]) -> Mapping[str, Number]:
    """Find the numbers among the fields of a configuration or the parameters of a function."""
    found: dict[str, Number] = {}
    for name, hint in hints_of(owner).items():
        number = _number(hint, f"{owner.__name__}.{name}")
        if number is not None:
            found[name] = number
    return found


def hints_of(owner: Callable[..., Any]) -> dict[str, Any]:
    """Resolve the types of a configuration's fields or a function's parameters."""
    if isinstance(owner, type):
        return typing.get_type_hints(owner, include_extras=True)
    # What a function returns may be of a module that is not loaded.
    plain = inspect.unwrap(owner)
    parameters = {name: a for name, a in plain.__annotations__.items() if name != "return"}
    return typing.get_type_hints(
        types.SimpleNamespace(__annotations__=parameters), globalns=plain.__globals__,
        include_extras=True,
    )  # fmt: skip


def _number(hint: Any, where: str) -> Number | None:
    """Read one annotation; None where it is no number."""
    optional, words = False, ()
    if get_origin(hint) is Annotated and get_origin(get_args(hint)[0]) in _UNIONS:
        hint = get_args(hint)[0]
    if get_origin(hint) in _UNIONS:
        optional = types.NoneType in get_args(hint)
        words = tuple(word for part in get_args(hint) for word in words_of(part))
        inner = [p for p in get_args(hint) if p is not types.NoneType and not words_of(p)]
        if len(inner) != 1:
            kinds = {*map(_bare, inner)}
            # A number or a name, such as a checkpoint's, is read where it is used.
            assert str in kinds or not {int, float} & kinds, f"{where}: which number is it?"
            return None
        (hint,) = inner
    kind = _bare(hint)
    if kind not in (int, float):
        held = () if get_origin(kind) is Callable else get_args(kind)
        assert not {int, float} & {*held}, f"{where}: numbers in a list have no range"
        return None
    ranges = [part for part in get_args(hint)[1:] if isinstance(part, Range)]
    assert len(ranges) == 1, f"{where} is a number without a range"
    return Number(kind=kind, range=ranges[0], optional=optional, words=words)


def words_of(hint: Any) -> tuple[str, ...]:
    """Give the words that a type allows; none where it is not a choice of words."""
    return get_args(hint) if get_origin(hint) is Literal else ()


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _said(value: float) -> str:
    if isinstance(value, int) or value.is_integer():
        # Long numbers as powers: a line of help would break at their commas.
        whole = int(value)
        if whole >= 10**6 and set(str(whole)[1:]) == {"0"} and str(whole)[0] == "1":
            return f"10^{len(str(whole)) - 1}"
        if whole >= 2**20 and whole.bit_count() == 1:
            return f"2^{whole.bit_length() - 1}"
        if whole >= 2**20 and (whole + 1).bit_count() == 1:
            return f"2^{whole.bit_length()} - 1"
        return str(whole)
    return f"{value:g}" if abs(value) < 1e-9 else f"{value:.9f}".rstrip("0").rstrip(".")


_LONGEST_SHOWN: Final = 40
"""Characters of a value that a message repeats."""


def shown(value: object) -> str:
    """Repeat a value in a message, shortened."""
    # Python refuses to write out whole numbers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    try:
        text = " ".join((str(value) if isinstance(value, Real) else repr(value)).split())
    except Exception:  # a caller's own class may have any repr
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}.."
