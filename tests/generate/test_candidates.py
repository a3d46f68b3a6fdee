"""Several fills of a blank: all by probability, each once, as they are printed and as they are."""

import math

import pytest
import torch

from blankfill.api.answers import FillResult
from blankfill.cli.console import Answer
from blankfill.cli.in_place import signs
from blankfill.cli.infill import print_fill
from blankfill.config.model import ModelConfig
from blankfill.generate.infill import fill_texts
from blankfill.generate.sampling import Sampling
from blankfill.generate.search import fill_tokens
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.text.tokenizer import Tokenizer
from conftest import language_model

TEXTS = ["the old fox [MASK] the river.", "[MASK] reads books and [MASK] bread. [gMASK]"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder)


@pytest.fixture(scope="module", params=range(4))
def model(request, tokenizer):
    """A model whose first tokens are nearly level: the best start is seldom the best fill."""
    cfg = ModelConfig(
        vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, ffn_size=48, max_position=128
    )
    model = GLM(cfg)
    init_weights(model, request.param)
    generator = torch.Generator().manual_seed(request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        end = model.head_weight[tokenizer.ids.eop]
        model.norm.bias += 4 * end / end.norm()
    return model.eval()


def filled(model, tokenizer, **options):
    options = {"num_candidates": 6, "max_new_tokens": 3} | options
    return fill_texts(language_model(model, tokenizer), TEXTS, **options)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, seed=2)])
@pytest.mark.parametrize("limit", [1, 3, 20])
def test_candidates_are_by_probability_and_each_once(model, tokenizer, sampling, limit):
    items = filled(model, tokenizer, sampling=sampling, max_new_tokens=limit)
    for blank in (blank for item in items for blank in item.blanks):
        probabilities = [candidate.probability for candidate in blank.candidates]
        assert probabilities == sorted(probabilities, reverse=True)
        texts = [candidate.text for candidate in blank.candidates]
        assert len(set(texts)) == len(texts)
        assert blank.text in texts


def test_a_probability_is_that_of_the_whole_fill_with_its_end(model, tokenizer):
    prompt = tokenizer.encode_with_blanks("the old fox[MASK] the river.")
    id_of = {tokenizer.token(i): i for i in range(tokenizer.vocab_size)}
    for candidate in filled(model, tokenizer)[0].blanks[0].candidates:
        ids = [id_of[piece] for piece in candidate.tokens]
        forced = [*ids, tokenizer.ids.eop] if candidate.ended else ids
        (again,) = fill_tokens(
            language_model(model, tokenizer), [prompt], max_new_tokens=3, forced=[[forced]]
        )
        assert again.blanks[0].tokens.tolist() == ids
        assert math.exp(again.blanks[0].logprob) == pytest.approx(candidate.probability, rel=1e-4)


def test_they_are_printed_in_their_order_and_the_one_in_the_text_is_marked(
    model, tokenizer, capsys
):
    items = filled(model, tokenizer)
    print_fill(FillResult(run="r", step=1, items=tuple(items)), Answer())
    printed = capsys.readouterr().out
    at = marked = 0
    for blank in (blank for item in items for blank in item.blanks):
        for place, candidate in enumerate(blank.candidates):
            notes = ["in the text"] if place and candidate.text == blank.text else []
            notes += [] if candidate.ended else ["cut off by --max-new-tokens"]
            shown = signs(candidate.text) or "(nothing)"
            row = f"  {shown}  {candidate.probability:.3f}"
            row += f"  {', '.join(notes)}\n" if notes else "\n"
            at = printed.index(row, at) + len(row)
            marked += "in the text" in notes
    assert printed.count("in the text") == marked


def test_each_fill_stands_where_it_is_said_to_begin(model, tokenizer):
    for item in filled(model, tokenizer, num_candidates=1, max_new_tokens=20):
        before = -1
        for blank in item.blanks:
            assert blank.start > before
            part = item.text[blank.start : blank.start + len(blank.text)]
            # Bytes that are half a character are another character beside the bytes around them.
            assert part == blank.text or "\ufffd" in blank.text + part
            before = blank.start
