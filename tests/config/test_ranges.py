"""Every number that a user can give stands on its borders: it works, or one sentence refuses it."""

import dataclasses
import importlib
import inspect
import math
import re
from fractions import Fraction
from typing import Annotated, get_args, get_type_hints

import numpy as np
import pytest

from blankfill.cli.main import VERBS, main
from blankfill.cli.signature import parameters_of
from blankfill.config.arguments import checks_arguments
from blankfill.config.ranges import Range, check_numbers, numbers_of
from blankfill.config.run import RunConfig
from blankfill.errors import ConfigError
from blankfill.generate.sampling import Sampling

SECTIONS = get_type_hints(RunConfig)
CONFIGS = SECTIONS | {"": Sampling}
FIELDS = [(part, name) for part, cls in CONFIGS.items() for name in numbers_of(cls)]
FUNCTIONS = {
    verb: getattr(importlib.import_module(f"blankfill.api.{module}"), name)
    for verb, (module, name) in ((v, where.function.split(":")) for v, where in VERBS.items())
}
VALUES = {"bits": 8}
"""Of required parameters that take neither a number of a range nor any word."""
OPTIONS = [(verb, name) for verb, call in FUNCTIONS.items() for name in numbers_of(call)]


def borders(number):
    """Values at, beside and far beyond the ends of a number's range."""
    low, high = number.range.low, number.range.high
    if number.kind is int:
        beside = [low - 1, low + 1, high - 1, high + 1, low + 0.5]
    else:
        beside = [math.nextafter(x, y) for x in (low, high) for y in (-math.inf, math.inf)]
    far = [math.nan, math.inf, -math.inf, 10**30, -(10**30), 1e308, 5e-324, 2**63, 10**5000]
    return [low, high, *beside, *far, -1, -0.5, 0, 0.5, 1, True, "3", [3]]


def may_be(number, value):
    """Whether a value is of the right kind and in the range, said once more and differently."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if number.kind is int and not isinstance(value, int):
        return False
    if value == 0 and number.range.or_zero:
        return True
    return not (value != value or value < number.range.low or value > number.range.high)


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_a_field_on_its_borders_is_taken_or_refused_in_one_sentence(part, name):
    cls = CONFIGS[part]
    number = numbers_of(cls)[name]
    for value in borders(number):
        refused, kept = "", None
        try:
            kept = getattr(cls(**{name: value}), name)
        except ConfigError as error:
            refused = str(error)
        if refused:  # what is in the range may still not go with the other fields' defaults
            assert name in refused
            assert len(refused) < 400
        else:
            assert may_be(number, value), value
            assert type(kept) is number.kind
            assert kept == value


@pytest.mark.parametrize(("verb", "name"), OPTIONS)
def test_a_call_is_refused_before_anything_is_read_or_written(verb, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = FUNCTIONS[verb]
    number = numbers_of(call)[name]
    required = [
        parameter
        for parameter in inspect.signature(call).parameters.values()
        if parameter.default is parameter.empty
    ]
    first = ["no"] * sum(p.kind is p.POSITIONAL_ONLY for p in required)
    rest = {
        p.name: 1 if p.name in numbers_of(call) else VALUES.get(p.name, "hf")
        for p in required
        if p.kind is p.KEYWORD_ONLY
    }
    for value in borders(number):
        if not may_be(number, value):
            with pytest.raises(ConfigError, match=f"^{name}="):
                call(*first, **rest | {name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_says_every_range(verb, capsys):
    assert main([*verb.split(), "--help-all"]) == 0
    _, *entries = re.split(r"\n  (?=-)", capsys.readouterr().out)
    owners = {"": FUNCTIONS[verb]}
    if verb == "pretrain":
        owners |= {f"{section}.": config for section, config in SECTIONS.items()}
    for section, owner in owners.items():
        for name, number in numbers_of(owner).items():
            kind = "INT" if number.kind is int else "FLOAT"
            kind = "|".join([*number.words, kind])
            option = f"--{section}{name.replace('_', '-')} {kind}"
            (doc,) = (e for e in entries if option in e.partition("  ")[0].partition("\n")[0])
            text = str(number.range)
            assert f" {text[0].upper()}{text[1:]}." in " ".join(doc.split()), name


TYPED = ["-1", "0", "1", "0.5", "1.5", "-0.5", "1e308", "-1e308", "5e-324", "nan", "inf", "-inf",
         "9" * 40, "9" * 5000, "1e9999", "0x10", "1,5", "one", "", " "]  # fmt: skip
NUMERIC = [
    (verb, option)
    for verb, call in FUNCTIONS.items()
    for option in parameters_of(call)[1]
    if option.hint in (int, float)
]


def typed_value(kind, word):
    """What Python reads in a word; None where it reads no number."""
    try:
        return kind(word)
    except ValueError:
        return None


def words_of(verb, without):
    """A command that has all it needs but files that are there, and one option."""
    if verb == "pretrain":
        return ["pretrain", "tiny", "--data", "no-such-file", "--out", "no-such-file"]
    if verb == "plan":  # numbers of its configuration are read with the preset and the GPU
        return ["plan", "tiny", "--gpu", "H100", *([] if without == "--nodes" else ["--nodes=1"])]
    arguments, options = parameters_of(FUNCTIONS[verb])
    words = [*verb.split()]
    words += ["no-such-file" for _ in arguments]
    for option in options:
        if (option.required or option.unless) and option.spelled != without:
            choices = ["1"] if option.hint in (int, float) else get_args(option.hint)
            words += [option.spelled, str(choices[0]) if choices else "no-such-file"]
    return words


@pytest.mark.parametrize(("verb", "option"), NUMERIC, ids=lambda v: getattr(v, "spelled", v))
def test_every_number_that_is_typed_is_refused_in_one_sentence_or_works(
    verb, option, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    name = option.name.rpartition(".")[2]
    number = numbers_of(option.owner)[name]
    words = words_of(verb, option.spelled)
    for word in TYPED:
        value = typed_value(number.kind, word)
        allowed = value is not None and may_be(number, value)
        if allowed and verb in ("demo", "plan"):
            continue  # it would train, or plan, which takes half a second
        code = main([*words, f"{option.spelled}={word}"])
        told = capsys.readouterr()
        assert code in (0, 2), word
        assert "Traceback" not in told.err
        if code == 2:
            assert told.err.count("blankfill: ") == 1, word
            assert len(told.err) < 1000, word
        if not allowed:
            assert code == 2, (word, told.out)
            assert option.spelled in told.err or name in told.err, (word, told.err)
    assert not list(tmp_path.iterdir())


def test_there_are_numbers_to_type_in_every_verb_that_takes_one():
    assert len(NUMERIC) > 90
    assert {verb for verb, _ in NUMERIC} >= {"fill", "generate", "pretrain", "demo", "evaluate"}


@pytest.mark.parametrize(
    "word",
    [
        "-1",
        "0.5",
        "1e308",
        "nan",
        "9" * 5000,
        "9" * 5000 + ":3",
        "3:" + "9" * 5000,
        "one",
        "",
        "1-",
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ["explain", "a b c", "--spans"],
        ["explain", "a b c", "--tokenizer", "words", "--spans"],
        ["pretrain", "tiny", "--data", "no", "--out", "no", "--train.skip-steps"],
        ["pretrain", "tiny", "--data", "no", "--out", "no", "--init", "no", "--init-checkpoint"],
        ["fill", "no", "a [MASK]", "--checkpoint"],
        ["info", "no", "--checkpoint"],
        ["tokenizer", "decode", "no"],
    ],
    ids=lambda words: " ".join(words[:1] + words[-1:]) if isinstance(words, list) else words[:9],
)
def test_a_number_among_other_words_is_refused_in_one_sentence(
    words, word, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    last = [f"{words[-1]}={word}"] if words[-1].startswith("--") else [words[-1], "--", word]
    assert main([*words[:-1], *last]) == 2
    said = capsys.readouterr().err
    assert said.count("blankfill: ") == 1
    assert "Traceback" not in said
    assert len(said) < 1000
    assert not list(tmp_path.iterdir())


def test_a_number_without_a_range_is_a_mistake_of_ours():
    @dataclasses.dataclass
    class Bare:
        size: int = 1

    @dataclasses.dataclass
    class Several:
        sizes: tuple[int, ...] = ()

    for cls in (Bare, Several):
        with pytest.raises(AssertionError, match="range"):
            numbers_of(cls)


def test_numbers_of_other_libraries_are_kept_as_plain_ones():
    @dataclasses.dataclass(frozen=True)
    class Config:
        size: Annotated[int, Range(1, 8)] = 1
        rate: Annotated[float, Range(0.5, 2)] | None = None

        def __post_init__(self):
            check_numbers(self, "")

    kept = Config(size=np.int64(3), rate=Fraction(3, 2))
    assert (type(kept.size), type(kept.rate)) == (int, float)
    assert kept == Config(size=3, rate=1.5)
    assert type(Config(rate=1).rate) is float
    for wrong in ({"size": np.float64(3)}, {"rate": np.float32("nan")}, {"size": None}):
        with pytest.raises(ConfigError):
            Config(**wrong)


def test_a_call_is_checked_wherever_its_number_stands():
    @checks_arguments
    def call(first, size: Annotated[int, Range(1, 8)] = 1, *, out: str = ""):
        return first, size, out

    assert call(0, 8, out="x") == (0, 8, "x")
    for given in ((0, 9), (0, 0)):
        with pytest.raises(ConfigError, match="size="):
            call(*given)
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (Range(0, 1), "from 0 to 1"),
        (Range(1e-6, 0.9999, or_zero=True), "0, or from 0.000001 to 0.9999"),
        (Range(1e-30, 1e6), "from 1e-30 to 10^6"),
        (Range(1024, 2**64 - 1), "from 1024 to 2^64 - 1"),
        (Range(-5, 2**24), "from -5 to 2^24"),
    ],
)
def test_a_range_in_words(span, said):
    assert str(span) == said
