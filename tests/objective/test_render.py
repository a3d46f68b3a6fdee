"""Lines between spans must not cover the spans."""

from blankfill.objective.render import _drawable


def test_spans_too_narrow_for_lines_get_none():
    assert _drawable(range(1710, 2048, 4), [(0, 1700, 2048)], 2048) == []


def test_spans_of_a_short_example_keep_their_lines():
    assert _drawable([12, 15], [(0, 10, 20)], 20) == [12, 15]
