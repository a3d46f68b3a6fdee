"""The engine's cache equals computing everything anew, whoever joins, leaves, forks or moves."""

import numpy as np
import pytest
import torch

from blankfill.config.model import ModelConfig
from blankfill.generate.engine import Engine, Inputs
from blankfill.generate.search import fill_tokens
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask
from blankfill.objective.mask import visible
from conftest import language_model

MODELS = {
    "ours": {"positions": "rope_2d"},
    "glm": {"block": "pre_ln", "activation": "gelu", "positions": "learned_2d"},
    "glm-130b": {"positions": "rope_1d", "block": "deepnorm", "tie_head": False},
    "sandwich": {"block": "sandwich", "qk_norm": True, "activation": "swiglu"},
    "paper": {"block": "deepnorm_paper", "pb_relax": 32.0},
}
WORDS = range(8, 60)


def make_model(name, seed=5):
    cfg = ModelConfig(
        vocab_size=60, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48, max_position=128,
        **MODELS[name],
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # far from its start, so that answers are sharp
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


class Twin:
    """A row of the engine, and all that it has read."""

    def __init__(self, row, prefix, tokens=(), positions=()):
        self.row, self.prefix = row, prefix
        self.tokens, self.positions = list(tokens), list(positions)

    def anew(self, model, count):
        """Hidden states of the last inputs, by one pass over everything."""
        a_tokens, a_positions = self.prefix
        tokens = np.concatenate([a_tokens, self.tokens]).astype(np.int64)
        positions = np.concatenate([a_positions, np.array(self.positions).T], 1).astype(np.int64)
        part_b = np.arange(len(tokens)) >= len(a_tokens)
        seen = visible(np.zeros(len(tokens), np.int32), part_b)
        with torch.inference_mode():
            hidden = model(
                torch.from_numpy(tokens)[None], torch.from_numpy(positions)[None],
                DenseMask(torch.from_numpy(seen)[None]),
            )  # fmt: skip
        return hidden[0, len(tokens) - count :]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MODELS)
def test_every_step_equals_computing_all_anew(name, seed):
    model, rng = make_model(name).double(), np.random.default_rng(seed)
    engine, prefixes, twins, checked = Engine(model), [], [], 0

    def part_a():
        length = int(rng.integers(1, 40))
        positions = np.stack([np.arange(length), np.zeros(length, int)]).astype(np.int32)
        return rng.choice(WORDS, length).astype(np.int32), positions

    for _ in range(30):
        action = rng.choice(["encode", "join", "fork", "reorder", "leave", "step", "step", "step"])
        if action == "encode" or not prefixes:
            parts = [part_a() for _ in range(int(rng.integers(1, 4)))]
            prefixes += zip(engine.encode(parts), parts, strict=True)
        elif action == "join" or not twins:
            held, part = prefixes[rng.integers(len(prefixes))]
            twins += [Twin(engine.join(held), part) for _ in range(int(rng.integers(1, 5)))]
        elif action == "fork":
            of = twins[rng.integers(len(twins))]
            twins.append(Twin(engine.fork(of.row), of.prefix, of.tokens, of.positions))
        elif action == "reorder":
            prefix = twins[rng.integers(len(twins))].row.prefix
            beams = [twin for twin in twins if twin.row.prefix is prefix]
            parents = [beams[k] for k in rng.integers(len(beams), size=len(beams))]
            engine.reorder([t.row for t in beams], [t.row for t in parents])
            read = [(list(t.tokens), list(t.positions)) for t in parents]
            for twin, (tokens, positions) in zip(beams, read, strict=True):
                twin.tokens, twin.positions = tokens, positions
        elif action == "leave":
            engine.leave(twins.pop(rng.integers(len(twins))).row)
            if len(prefixes) > 2:  # its rows go on without who holds it
                engine.release(prefixes.pop(rng.integers(len(prefixes)))[0])
        else:
            chosen = rng.permutation(len(twins))[: int(rng.integers(1, len(twins) + 1))]
            inputs = []
            for twin in (twins[i] for i in chosen):
                count = int(rng.choice([1, 1, 1, 2, 9]))
                tokens = rng.choice(WORDS, count).tolist()
                positions = rng.integers(0, 100, (count, 2)).tolist()
                twin.tokens += tokens
                twin.positions += positions
                inputs.append(Inputs(twin.row, tokens, positions))
            given = engine.step(inputs).split([len(each.tokens) for each in inputs])
            for i, hidden in zip(chosen, given, strict=True):
                # float64, sums in another order; in float32 the order alone is up to 1e-5
                torch.testing.assert_close(
                    hidden, twins[i].anew(model, len(hidden)), atol=1e-12, rtol=1e-12
                )
                checked += 1
    assert checked
    for twin in twins:
        engine.leave(twin.row)
    for prefix, _ in prefixes:
        engine.release(prefix)
    assert engine.num_positions == 0


def blanks_of(filled):
    return [[(b.tokens.tolist(), b.ended) for b in text.blanks] for text in filled]


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("ours", "corrupted"), ("ours", "original"), ("glm", "corrupted"), ("glm-130b", "linear")],
)
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_no_batch_or_order_changes_a_fill(ids, name, scheme, batch_size):
    lm = language_model(make_model(name), ids, scheme=scheme)
    rng = np.random.default_rng(2)
    prompts = []
    for length in (1, 3, 9, 9, 30, 60, 61):
        tokens = rng.choice(WORDS, length).astype(np.int32)
        blanks = rng.permutation(length)[: int(rng.integers(1, 4))]
        tokens[blanks] = rng.integers(1, 4, len(blanks))
        prompts.append(tokens)
    prompts.append(prompts[3].copy())  # shares its Part A with another
    alone = [fill_tokens(lm, [prompt], max_new_tokens=9)[0] for prompt in prompts]
    order = rng.permutation(len(prompts))
    together = fill_tokens(lm, [prompts[i] for i in order], max_new_tokens=9, batch_size=batch_size)
    assert blanks_of(together) == blanks_of([alone[i] for i in order])
    for text, single in zip(together, [alone[i] for i in order], strict=True):
        for blank, other in zip(text.blanks, single.blanks, strict=True):
            assert blank.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_each_token_is_computed_once_and_nothing_for_who_is_finished(ids, monkeypatch):
    lm = language_model(make_model("ours"), ids)
    rng = np.random.default_rng(4)
    prompts = []
    for _ in range(6):
        tokens = rng.choice(WORDS, int(rng.integers(5, 30))).astype(np.int32)
        tokens[3] = ids.mask
        prompts.append(tokens)
    calls = []
    forward = type(lm.model).forward

    def counted(self, tokens, *rest, **more):
        calls.append(tokens.numel())
        return forward(self, tokens, *rest, **more)

    monkeypatch.setattr(type(lm.model), "forward", counted)
    lengths = [1, 2, 3, 4, 5, 12]
    fill_tokens(lm, prompts, lengths=lengths)
    assert calls[0] == sum(map(len, prompts))  # without padding
    assert calls[1:] == [sum(n >= k for n in lengths) for k in range(max(lengths) + 1)]
    calls.clear()
    fill_tokens(lm, prompts[:1], num_candidates=8, max_new_tokens=4)
    assert calls[0] == len(prompts[0])
    assert max(calls[1:]) <= 2 * 7  # sop and the first token of each other fill, and no Part A
    calls.clear()
    forced = [[20, 21, 22, 23, 24, ids.eop]]
    fill_tokens(lm, prompts[:1], forced=[forced])
    assert calls == [len(prompts[0]), len(forced[0])]  # all that is known in one step


def test_a_model_whose_scores_are_not_numbers_is_named(ids):
    from blankfill.errors import CheckpointError

    model = make_model("ours")
    with torch.no_grad():
        model.norm.bias[3] = float("nan")
    prompt = np.array([9, ids.mask, 10], np.int32)
    with pytest.raises(CheckpointError, match="not numbers"):
        fill_tokens(language_model(model, ids), [prompt])
