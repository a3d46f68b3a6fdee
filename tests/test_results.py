"""How results show themselves: in a few lines, whatever they hold."""

import math

import numpy as np

from blankfill import api
from blankfill.api import Candidate, EncodeResult, FilledItem, FillResult, InfoResult, TextBlank


def test_a_fill_reads_as_what_was_filled():
    blank = TextBlank(
        text=" brown",
        probability=0.91234567,
        tokens=("\u2581brown",),
        ended=True,
        candidates=(),
        start=4,
    )
    item = FilledItem(prompt="The [MASK] fox", text="The brown fox", blanks=(blank,))
    assert repr(item).startswith(
        "FilledItem(prompt='The [MASK] fox', text='The brown fox', blanks=(TextBlank("
    )
    for part in ("text=' brown'", "probability=0.9123", "tokens=('\u2581brown',)", "ended=True"):
        assert part in repr(item)
    assert "candidates" not in repr(item)
    assert "error" not in repr(item)
    whole = FillResult(run="runs/x", step=2000, items=(item,))
    assert repr(whole).startswith("FillResult(run='runs/x', step=2000, items=(FilledItem(prompt=")
    assert "blanks=(TextBlank(..),)" in repr(whole)


def test_what_is_long_is_cut_and_counted():
    ids = list(range(100_000))
    encoded = EncodeResult(ids=ids, tokens=["a" * 1000] * len(ids))
    assert repr(encoded).startswith("EncodeResult(ids=[0, 1, 2, .. 100,000 in all], tokens=['aaa")
    assert ".. 1,000 characters" in repr(encoded)
    assert len(repr(encoded)) < 400
    facts = {f"fact {i}": math.nan for i in range(40)}
    shown = repr(InfoResult(path="p", kind="run", facts=facts))
    assert shown.endswith("facts={'fact 0': nan, 'fact 1': nan, 'fact 2': nan, .. 40 in all})")
    assert encoded.ids == ids


def test_what_is_empty_is_left_out_and_zero_is_not():
    candidate = Candidate(text="", probability=0.0, tokens=(), ended=False)
    assert repr(candidate) == "Candidate(probability=0, ended=False)"
    assert api.DecodeResult(text="").text == ""


def test_arrays_are_named_by_their_shape():
    encoded = EncodeResult(ids=np.zeros((3, 4)), tokens=[])
    assert repr(encoded) == "EncodeResult(ids=array of (3, 4))"
