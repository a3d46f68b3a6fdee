"""The Python side of the API: types that are there, and values as a caller has them."""

import dataclasses
import importlib
import inspect
import subprocess
import sys
import typing

import pytest

from blankfill import api
from blankfill.cli.main import VERBS
from blankfill.config.ranges import hints_of
from blankfill.errors import BlankfillError
from blankfill.results import short_repr

FUNCTIONS = {
    verb: getattr(importlib.import_module(f"blankfill.api.{module}"), name)
    for verb, (module, name) in ((v, where.function.split(":")) for v, where in VERBS.items())
}


def exported():
    """What `blankfill.api` has, the types that are loaded on request included."""
    return {name: getattr(api, name) for name in api.__all__}


def named(hint):
    """All dataclasses of ours that a type names, those of their fields included."""
    for inner in typing.get_args(hint):
        yield from named(inner)
    if dataclasses.is_dataclass(hint) and hint.__module__.startswith("blankfill"):
        yield hint
        for inner in typing.get_type_hints(hint, localns=exported()).values():
            yield from named(inner)


@pytest.mark.parametrize("verb", VERBS)
def test_every_type_of_a_result_is_exported(verb):
    function = inspect.unwrap(FUNCTIONS[verb])
    result = eval(function.__annotations__["return"], {**exported(), **function.__globals__})
    assert dataclasses.is_dataclass(result)
    for part in named(result):
        assert getattr(api, part.__name__) is part
        assert part.__name__ in api.__all__
        assert part.__dataclass_params__.frozen
        assert part.__repr__ is short_repr


def test_the_types_are_there_without_torch():
    code = (
        "import sys\nfrom blankfill.api import FillResult, TokenRow, EpochStatistics, __all__\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
def test_wherever_a_path_is_taken_a_string_will_do(verb):
    for name, hint in hints_of(FUNCTIONS[verb]).items():
        assert ("Path" in str(hint)) <= ("str" in str(hint).replace("Literal", "")), name


def test_one_value_is_not_its_letters(tokenizer_folder, tmp_path):
    text = tmp_path / "one.txt"
    text.write_text("the old fox reads books", encoding="utf-8")
    tok = str(tokenizer_folder)
    built = api.data_build(str(text), tokenizer=tok, out=str(tmp_path / "store"))
    assert built.store.documents == 1
    assert api.tokenizer_info(tok, text).languages["en"].documents == 1
    ids = api.tokenizer_encode(tok, "the old fox").ids
    for given in (ids, list(map(str, ids)), " ".join(map(str, ids)), tuple(ids)):
        assert api.tokenizer_decode(tok, given).text == "the old fox"
    assert api.tokenizer_decode(tok, ids[0]).text == api.tokenizer_decode(tok, [ids[0]]).text
    assert api.explain(data=str(tmp_path / "store"), spans="1:2").spans == [[1, 2]]
    report = str(tmp_path / "report.html")
    for call in (
        lambda: api.report("no-run", out=report),
        lambda: api.evaluate("no-run", data="no-store"),
        lambda: api.fill("no-run", "a [MASK]"),
        lambda: api.pretrain("tiny", data="no-store", out=str(tmp_path / "run")),
    ):
        with pytest.raises(BlankfillError, match=r"no-run|no-store"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: api.data_build(3, tokenizer="t", out="o"),
        lambda: api.data_build(["a", None], tokenizer="t", out="o"),
        lambda: api.data_info(None),
        lambda: api.info(""),
        lambda: api.report([], out="o"),
        lambda: api.fill("r", []),
        lambda: api.fill("r", [b"bytes [MASK]"]),
        lambda: api.tokenizer_decode("t", None),
        lambda: api.pretrain("tiny", data=1, out="o"),
        lambda: api.evaluate("r", data=[2]),
        lambda: api.export("", to="hf", out="x"),
    ],
)
def test_a_mistake_of_a_caller_is_a_blankfill_error(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BlankfillError):
        call()
