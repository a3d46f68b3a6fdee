"""What processes send each other in a step is what the layout asks for, and no more."""

from collections import Counter
from math import prod

import pytest

from parallel.twins import traffic_on_ranks


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("layout", [(1, 2), (2, 1), (2, 2), (1, 1, 2), (1, 2, 2)], ids=str)
def test_bytes_sent_are_those_of_the_formula(crew, tmp_path, layout, kind):
    changes = {"optimizer.kind": kind, "model.vocab_size": 204}
    of_each = crew.run(traffic_on_ranks, prod(layout), changes, layout, tmp_path / "run")
    sent = sum((Counter(of_one) for of_one, _ in of_each), Counter())
    expected = of_each[0][1]
    assert sent == Counter(expected)
    assert sent.total() > 10_000
    assert (sent["Muon"] > 0) == (kind == "muon")
    assert (sent["blocks together"] > 0) == (len(layout) == 3)
