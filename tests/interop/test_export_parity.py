"""Rounding may decide between two tokens that the run scores alike; any other token is refused."""

import copy
import dataclasses
from collections import Counter

import pytest
import torch

from blankfill.cli.main import main
from blankfill.errors import ConversionError
from blankfill.generate import LanguageModel
from blankfill.interop import export as exports
from blankfill.interop.export_parity import compare, draw_rows, fill_rows, reference_logits
from interop.runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return LanguageModel.load(make_run(tmp_path_factory.mktemp("run") / "r", tokenizer_folder))


class Swapped:
    """The run itself, but for one token in place of another where its greedy fills hold it."""

    through = "the run"

    def __init__(self, run, model, one, other):
        self.lm, self.pair = dataclasses.replace(run, model=model), (one, other)
        self.num_swapped = 0

    def logits(self, rows):
        return [reference_logits(self.lm, row) for row in rows]

    def greedy(self, prompts, max_new_tokens):
        rows = fill_rows(self.lm, prompts, max_new_tokens)
        for row in rows:
            if self.pair[0] in row:
                row[row.index(self.pair[0])] = self.pair[1]
                self.num_swapped += 1
        return rows


def compared(run, model, swapped):
    return compare(dataclasses.replace(run, model=model), swapped, num_prompts=30)


def with_twins(run, apart):
    """A model that scores two tokens alike, up to `apart`, and the tokens; the first is chosen."""
    model = copy.deepcopy(run.model)
    size = run.tokenizer.vocab_size
    prompts = [row.prompt for row in draw_rows(run.ids, size, 128, count=30)]
    written = Counter(token for row in fill_rows(run, prompts, 16) for token in row if token > 20)
    one = written.most_common(1)[0][0]
    other = next(token for token in range(size - 1, 20, -1) if token not in written)
    with torch.no_grad():
        weight = model.embed.word.weight
        weight[other] = weight[one] * (1 - apart)
    return model, one, other


def test_a_tie_ends_the_comparison_of_its_row_and_no_more(run):
    model, one, other = with_twins(run, 1e-7)
    swapped = Swapped(run, model, one, other)
    parity = compared(run, model, swapped)
    assert parity.num_ties == swapped.num_swapped > 0
    assert parity.num_different_tokens == 0
    whole = compared(run, model, Swapped(run, model, -1, other))
    assert whole.num_ties == 0
    assert whole.num_greedy_tokens > parity.num_greedy_tokens > 0


def test_a_token_that_the_run_scores_lower_is_refused(run):
    model, one, other = with_twins(run, 0.02)
    with pytest.raises(ConversionError, match="greedy tokens differ"):
        compared(run, model, Swapped(run, model, one, other))
    ids = run.tokenizer.ids
    for wrong in (ids.sop, ids.eop):
        with pytest.raises(ConversionError, match="greedy tokens differ"):
            compared(run, model, Swapped(run, model, one, wrong))


def test_a_tie_is_said(run, tmp_path, monkeypatch, capsys):
    def tied(*arguments, **options):
        return dataclasses.replace(compare(*arguments, **options, num_prompts=4), num_ties=3)

    monkeypatch.setattr(exports, "compare", tied)
    assert main(["export", str(run.path), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
    assert "in 3 rows" in capsys.readouterr().out
