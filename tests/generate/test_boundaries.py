"""Blanks that begin or end inside a token, at every character, against the aligned blank."""

import itertools

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.generate.boundaries import encode_edges
from blankfill.model.glm import GLM
from blankfill.text.tokenizer import Tokenizer
from conftest import language_model

SENTENCES = {
    "en": "the old fox reads books, 42 dogs bring water.",
    "zh": "人山水火木土天地，日月书读看卖来去。",
    "rare": "a \U0001f600\u9f98b dog \u00e9t\u00e9 x",
}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder)


class Knows(GLM):
    """A model that knows one answer: after each token of it the next one, and then its end."""

    def answers(self, tokens, ids):
        """Learn it; false where a token comes twice and is followed by two different ones."""
        self.table = torch.zeros(self.cfg.vocab_size, self.cfg.vocab_size)
        pairs = dict.fromkeys(itertools.pairwise([ids.sop, *tokens, ids.eop]))
        for token, following in pairs:
            self.table[token, following] = 20.0
        return len({token for token, _ in pairs}) == len(pairs)

    def forward(self, tokens, *_):
        return torch.nn.functional.one_hot(tokens, self.cfg.vocab_size).float()

    def logits(self, hidden):
        return hidden @ self.table


@pytest.fixture(scope="module")
def lm(tokenizer):
    cfg = ModelConfig(
        vocab_size=512, hidden_size=16, num_layers=1, num_heads=1, ffn_size=16, max_position=128
    )
    return language_model(Knows(cfg).eval(), tokenizer)


def cuts(text, *, most):
    return [(i, j) for i in range(len(text)) for j in range(i + 1, min(i + most, len(text)) + 1)]


@pytest.mark.parametrize("back_off", [1, 3])
@pytest.mark.parametrize("language", SENTENCES)
def test_a_model_that_knows_the_aligned_blank_fills_it_from_every_character(
    lm, tokenizer, language, back_off
):
    text = SENTENCES[language]
    filled = 0
    for i, j in cuts(text, most=2):
        if text[j - 1] == " ":
            continue  # the space before a word belongs to the word
        cut = f"{text[:i]}[MASK]{text[j:]}"
        _, (edges,) = encode_edges(cut, tokenizer, back_off)
        space = " " if edges.after_space else ""
        answer = tokenizer.encode(f"{edges.before}{space}{text[i:j]}{edges.behind}")
        if not lm.model.answers(answer.tolist(), lm.ids):
            continue
        item = lm.fill(cut, back_off=back_off, max_new_tokens=12)
        assert item.text == text, cut
        (blank,) = item.blanks
        assert blank.text == space + text[i:j]
        assert item.text[blank.start :].startswith(blank.text)
        filled += 1
    assert filled >= len(text) // 2


@pytest.mark.parametrize("language", SENTENCES)
def test_text_around_a_blank_stays_character_by_character(tokenizer, language):
    text = SENTENCES[language]
    for back_off, (i, j) in itertools.product([1, 3], cuts(text, most=4)):
        cut = f"{text[:i]}[MASK]{text[j:]}"
        tokens, (edges,) = encode_edges(cut, tokenizer, back_off)
        (mask,) = np.flatnonzero(tokens == tokenizer.ids.mask)
        left = tokenizer.decode(tokens[:mask]) + edges.before + " " * edges.after_space
        assert left == text[:i]
        assert edges.behind + tokenizer.decode(tokens[mask + 1 :]) == text[j:]
        assert "\ufffd" not in edges.before + edges.behind


def test_nothing_is_taken_where_a_word_has_ended(tokenizer):
    for cut in ("the old [MASK] reads", "the old fox,[MASK] reads", "[MASK] reads", "a. [MASK]"):
        _, (edges,) = encode_edges(cut, tokenizer, 4)
        assert edges.num_held == 0, cut
    _, (edges,) = encode_edges("the o[MASK]x reads", tokenizer, 9)
    assert (edges.before, edges.behind) == (" o", "x")


def test_blanks_beside_each_other_share_what_is_between_them(tokenizer):
    for back_off in (1, 2, 9):
        text = "人山[MASK]水[MASK]火木"
        tokens, edges = encode_edges(text, tokenizer, back_off)
        found, rest = "", list(edges)
        for token in tokens.tolist():
            if token == tokenizer.ids.mask:
                edge = rest.pop(0)
                found += f"{edge.before}[MASK]{edge.behind}"
            else:
                found += tokenizer.decode([token])
        assert found == text
