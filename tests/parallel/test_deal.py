"""Who reads which rows, and who keeps which, is arithmetic."""

from math import prod

import numpy as np
import pytest

from blankfill.errors import ConfigError
from blankfill.parallel.deal import deal, first_rows, weigh_first_rows
from blankfill.parallel.muon import owners_of
from blankfill.parallel.places import kept_rows
from parallel.twins import CFG, laid_out, make_rows


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("num_rows", [1, 2, 6, 13, 16])
@pytest.mark.parametrize("micro_batch_rows", [1, 2, 5, 16])
def test_every_row_is_dealt_once_and_in_order(num_rows, micro_batch_rows, count):
    dealt = [
        deal(100, num_rows, micro_batch_rows=micro_batch_rows, rank=rank, count=count)
        for rank in range(count)
    ]
    rows = [row for of in dealt for p in of for row in range(p.first, p.first + p.num_rows)]
    assert rows == list(range(100, 100 + num_rows))
    sizes = {tuple(p.size for p in of) for of in dealt}
    assert len(sizes) == 1  # every rank does the same passes
    (passes,) = sizes
    assert len(set(passes)) == 1
    assert passes[0] <= micro_batch_rows
    # No rank computes a row more than the largest share takes in passes of one size.
    largest = -(-num_rows // count)
    assert sum(passes) - largest < len(passes)


@pytest.mark.parametrize("num_rows", [767, 768, 4224, 6144, 6145])
@pytest.mark.parametrize("first", [0, 10**12 + 1])
def test_768_ranks_have_equal_shares_anywhere_in_a_long_stream(num_rows, first):
    dealt = [deal(first, num_rows, micro_batch_rows=1, rank=rank, count=768) for rank in range(768)]
    rows = [row for of in dealt for p in of for row in range(p.first, p.first + p.num_rows)]
    assert rows == list(range(first, first + num_rows))
    shares = {sum(p.num_rows for p in of) for of in dealt}
    assert shares <= {num_rows // 768, -(-num_rows // 768)}
    assert {len(of) for of in dealt} == {-(-num_rows // 768)}
    # On 770 ranks too, and on 1, the rows of a step are the same ones.
    for count in (770, 1):
        again = [
            row
            for rank in range(count)
            for p in deal(first, num_rows, micro_batch_rows=4, rank=rank, count=count)
            for row in range(p.first, p.first + p.num_rows)
        ]
        assert again == rows


def test_a_batch_that_divides_is_dealt_as_one_process_cuts_it():
    assert [
        (p.first, p.num_rows, p.size)
        for rank in (0, 1)
        for p in deal(8, 8, micro_batch_rows=2, rank=rank, count=2)
    ] == [(8, 2, 2), (10, 2, 2), (12, 2, 2), (14, 2, 2)]


@pytest.mark.parametrize("num_rows", [0, 1, 3, 4])
def test_rows_after_the_first_have_no_weight_and_are_not_counted(num_rows):
    rows = make_rows(CFG)
    batch, expected = rows.rows(5, 4), rows.rows(5, max(num_rows, 1))
    weighed = weigh_first_rows(batch, num_rows)
    assert (weighed.weights[num_rows:] == 0).all()
    np.testing.assert_array_equal(weighed.weights[:num_rows], batch.weights[:num_rows])
    counted = first_rows(batch, num_rows)
    assert counted.tokens.shape == (num_rows, CFG.train.row_length)
    if num_rows:
        for name in ("tokens", "blocks", "kinds", "documents", "sources", "positions"):
            np.testing.assert_array_equal(getattr(counted, name), getattr(expected, name))
    else:
        assert counted.num_targets == len(counted.blocks) == 0


@pytest.mark.parametrize("height", [1, 2, 3, 8, 203])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_kept_rows_are_the_parts_that_torch_cuts(height, parts):
    import torch

    found = [torch.arange(height)[kept_rows(height, part, parts)] for part in range(parts)]
    chunks = torch.arange(height).chunk(parts)
    assert [x.tolist() for x in found[: len(chunks)]] == [x.tolist() for x in chunks]
    assert all(len(x) == 0 for x in found[len(chunks) :])


def test_matrices_are_shared_out_by_the_work_that_they_are():
    shapes = [(8, 8)] * 4 + [(16, 16)]
    owners = owners_of(shapes, 2)
    assert owners[4] not in owners[:4]
    assert set(owners_of(shapes, 5)) == {0, 1, 2, 3, 4}
    assert owners_of(shapes, 1) == [0] * 5


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_weights_in_bfloat16_refuse_another_precision(precision):
    changes = {"parallel.weights": "bfloat16", "train.precision": precision}
    with pytest.raises(ConfigError, match=r"parallel\.weights=bfloat16 .*train\.precision="):
        CFG.changed(changes)
    narrow = CFG.changed({"parallel.weights": "bfloat16"})
    assert (narrow.precision, CFG.precision) == ("bfloat16", "auto")


@pytest.mark.parametrize(
    ("layout", "count", "ways"),
    [
        ((1, 1), 4, ["--parallel.shard 4", "--parallel.replicate 2 --parallel.shard 2"]),
        ((2, 2), 3, ["--parallel.shard 3", "--parallel.replicate 3"]),
        ((1, 4), 1, ["--nproc-per-node 4", "leave both out"]),
        ((4, 4), 8, ["--parallel.shard 8"]),
        ((1, 1, 2), 8, ["times parallel.tensor=2 is 2", "--parallel.shard 4 --parallel.tensor 2",
                        "--parallel.replicate 2 --parallel.shard 2 --parallel.tensor 2"]),
        ((1, 2, 2), 2, ["parallel.tensor=2 is 4", "take --parallel.tensor 2"]),
        ((1, 1, 4), 6, ["take --parallel.shard 6, or --parallel.replicate 6"]),
        ((1, 1, 2), 1, ["--nproc-per-node 2", "leave them out"]),
    ],
)  # fmt: skip
def test_a_layout_of_other_processes_is_refused_with_those_that_would_do(layout, count, ways):
    cfg = laid_out(layout)
    with pytest.raises(ConfigError) as caught:
        cfg.require(count)
    said = str(caught.value)
    assert f"parallel.replicate={layout[0]} times parallel.shard={layout[1]}" in said
    assert all(way in said for way in ways)
    cfg.require(prod(layout))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.num_heads": 6, "model.hidden_size": 96},
         "parallel.tensor=4 does not divide model.num_heads=6; take --parallel.tensor 1 or 2, or "
         "model.num_heads 4 or 8"),
        ({"model.num_heads": 2, "model.ffn_size": 45},
         "parallel.tensor=4 does not divide model.num_heads=2; take --parallel.tensor 1, or "
         "model.num_heads 4"),
        # 4 heads of 9 cannot be rotated by two positions.
        ({"model.num_heads": 3, "model.hidden_size": 36}, "=3; take --parallel.tensor 1"),
        ({"model.ffn_size": 50},
         "does not divide model.ffn_size=50; take --parallel.tensor 1 or 2, or model.ffn_size 48 "
         "or 52"),
        ({"model.vocab_size": 3}, "take --parallel.tensor 1, or model.vocab_size 4"),
        ({"train.row_length": 62}, "or train.row_length 60 or 64"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_with_numbers_that_can(changes, sentence):
    fits = {"model.num_heads": 4, "model.vocab_size": 204}
    cfg = CFG.changed({**fits, **changes, "parallel.tensor": 4})
    with pytest.raises(ConfigError) as caught:
        cfg.parallel.require_parts(cfg.model, cfg.train.row_length)
    assert str(caught.value).endswith(sentence)
    fitting = CFG.changed({**fits, "parallel.tensor": 4})
    fitting.parallel.require_parts(fitting.model, fitting.train.row_length)
