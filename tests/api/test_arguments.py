"""What a caller may give wrong: every parameter of every function, with all that is not it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from api.test_types import FUNCTIONS
from blankfill import api
from blankfill.config.arguments import is_checked
from blankfill.config.ranges import hints_of
from blankfill.errors import BlankfillError

FUNCTIONS = FUNCTIONS | {"load": api.load}
GIVEN = {
    "train": (("no-file",), {"out": "o"}), "demo": ((), {"out": "taken"}),
    "tokenizer train": (("no-file",), {"out": "o"}),
    "tokenizer encode": (("no-tok", "a"), {}), "tokenizer decode": (("no-tok", [1]), {}),
    "tokenizer info": (("no-tok", "no-file"), {}),
    "data build": (("no-file",), {"tokenizer": "no-tok", "out": "o"}),
    "data export": (("no-store",), {}),
    "data import": (("no-pair",), {"tokenizer": "no-tok", "out": "o"}),
    "data merge": (("no-store",), {"out": "o"}),
    "data info": (("no-store",), {}), "data show": (("no-store",), {}),
    "explain": (("a b c",), {"tokenizer": "no-tok"}),
    "pretrain": (("tiny",), {"data": "no-store", "out": "o"}),
    "evaluate": (("no-run",), {"data": "no-store"}), "report": (("no-run",), {"out": "o"}),
    "fill": (("no-run", "a [MASK]"), {}), "generate": (("no-run", "a"), {}),
    "score": (("no-run", "a [MASK]", "b"), {}), "rank": (("no-run", "a [MASK]", "b"), {}),
    "surprise": (("no-run", "a b"), {}),
    "probe": (("no-run",), {"data": "no-file", "target": "y", "out": "o"}),
    "import": (("no-path",), {"out": "o"}), "export": (("no-run",), {"to": "hf", "out": "o"}),
    "resize": (("no-run",), {"tokenizer": "no-tok", "out": "o"}),
    "quantize": (("no-run",), {"bits": 8, "out": "o"}), "info": (("no-path",), {}),
    "plan": (("no-preset",), {"gpu": "H100", "nodes": 1}), "load": (("no-run",), {}),
}  # fmt: skip
"""Arguments that are of the right types and name nothing that is there."""


class Odd:
    """An object of a caller's whose repr fails."""

    def __repr__(self):
        raise RuntimeError


NEVER = [
    1j, b"bytes", b"", object(), Odd(), print, dict, {}, {"a": 1}, slice(1, 2), math.nan, [None],
    [[None]], [["a", 1]], [b"a"], [1.5], [["a"], ["b"]], [1, "a", None], np.array([1.5]),
    np.float32("nan"), np.zeros((1, 2)), torch.zeros(2), Exception("x"),
]  # fmt: skip
"""What no parameter takes."""
SOMETIMES = [
    None, True, 0, -1, 10**6, 10**5000, 1.5, math.inf, set(), frozenset({"a"}), ("a", 3), range(3),
    np.array([[1, 2], [3, 4]]), np.array(3), np.zeros((0, 2)), torch.tensor(7), "", "\0", "\ud800",
    "no-such", Path("a\0b"), [""], ["\0"], ["a", "\ud800"],
]  # fmt: skip
"""What some take; here nothing that they name is there."""


def parameters(function):
    return list(hints_of(function))


@pytest.mark.parametrize("verb", FUNCTIONS)
def test_every_function_checks_its_arguments(verb):
    assert is_checked(FUNCTIONS[verb])
    assert verb in GIVEN


@pytest.mark.parametrize(
    ("verb", "name"),
    [(verb, name) for verb, function in FUNCTIONS.items() for name in parameters(function)],
)
def test_junk_is_refused_in_a_sentence(verb, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a user's")
    function = FUNCTIONS[verb]
    positional, keywords = GIVEN[verb]
    place = parameters(function).index(name)
    for value in [*NEVER, (item for item in (None,)), *SOMETIMES]:
        if name == "changes" and isinstance(value, dict):
            continue  # the one parameter that takes values by name
        if name in ("each", "pieces") and callable(value):
            continue  # it takes functions
        arguments, options = list(positional), dict(keywords)
        if place < len(arguments):
            arguments[place] = value
        elif (verb, name) in (("explain", "text"), ("tokenizer info", "files")):
            arguments.append(value)
        else:
            options[name] = value
        if (
            (verb, name) == ("demo", "out")
            and isinstance(value, str | Path)
            and str(value) == "no-such"
        ):
            continue  # it would be trained
        with pytest.raises(BlankfillError) as caught:
            function(*arguments, **options)
        told = str(caught.value)
        assert told.strip()
        assert "\n" not in told
        assert len(told) < 600
        assert name in told or any(value is other for other in SOMETIMES), (value, told)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]
