"""Small models, random texts, and filling by hand: every token from one pass over everything."""

import numpy as np
import torch

from blankfill.config.model import ModelConfig
from blankfill.generate.scores import banned_tokens
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask
from blankfill.objective.blank import build_prompt
from blankfill.objective.mask import visible
from blankfill.objective.positions import blank_positions

MODELS = {
    "ours": {"positions": "rope_2d"},
    "glm": {"block": "pre_ln", "activation": "gelu", "positions": "learned_2d"},
    "glm-130b": {"positions": "rope_1d", "block": "deepnorm", "tie_head": False},
}
SCHEMES = [
    ("ours", "corrupted"),
    ("ours", "original"),
    ("glm", "corrupted"),
    ("glm-130b", "linear"),
]


def make_model(name="ours", *, vocab_size=60, seed=5):
    """A model far from its start, so that answers are sharp."""
    cfg = ModelConfig(
        vocab_size=vocab_size, hidden_size=32, num_layers=2, num_heads=2, ffn_size=48,
        max_position=128, **MODELS[name],
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def make_prompts(ids, lengths, *, vocab_size=60, seed=2, most_blanks=4):
    """Texts of words, some of which are blanks of any kind."""
    rng = np.random.default_rng(seed)
    prompts = []
    for length in lengths:
        tokens = rng.integers(8, vocab_size, length).astype(np.int32)
        blanks = rng.permutation(length)[: int(rng.integers(1, most_blanks))]
        tokens[blanks] = rng.choice([ids.mask, ids.mask, ids.smask, ids.gmask], len(blanks))
        prompts.append(tokens)
    return prompts


def next_log_probs(lm, tokens, closed, blank, written):
    """`[V]` of what comes next in a blank, behind closed ones, by one pass over everything."""
    prompt = build_prompt(tokens, lm.ids)
    inputs, positions, lengths = [], [prompt.positions], {}
    for number, fill in [*closed, (blank, written)]:
        left = [lengths[b] for b in sorted(lengths) if b < number]
        inputs += [lm.ids.sop, *fill]
        positions.append(
            blank_positions(
                lm.scheme, prompt.kinds[number], mask_index=int(prompt.blanks[number]),
                part_a_length=len(tokens), earlier_lengths=left, num_inputs=1 + len(fill),
            )
        )  # fmt: skip
        lengths[number] = len(fill)
    sequence = np.concatenate([tokens, np.array(inputs)]).astype(np.int64)
    seen = visible(np.zeros(len(sequence), np.int32), np.arange(len(sequence)) >= len(tokens))
    with torch.inference_mode():
        hidden = lm.model(
            torch.from_numpy(sequence)[None],
            torch.from_numpy(np.concatenate(positions, axis=1))[None].long(),
            DenseMask(torch.tensor(seen)[None]),
        )
        logits = lm.model.logits(hidden)[0, -1].float()
    return logits.masked_fill(banned_tokens(lm), float("-inf")).log_softmax(-1)


class NearError(Exception):
    """The best two tokens are so close that rounding decides between them."""


def fill_one(lm, tokens, closed, blank, limit):
    """Fill one blank greedily: its tokens, and the log-probability."""
    written, logprob = [], 0.0
    while True:
        log_probs = next_log_probs(lm, tokens, closed, blank, written)
        best = log_probs.topk(2).values
        if best[0] - best[1] < 1e-4:
            raise NearError
        token = int(log_probs.argmax())
        if token in (lm.ids.eop, lm.ids.eos):
            return written, logprob + float(best[0])
        if len(written) == limit:
            return written, logprob
        written.append(token)
        logprob += float(best[0])


def margin(lm, tokens, closed, blank):
    """How far the two best first tokens of a blank are apart in probability."""
    best = next_log_probs(lm, tokens, closed, blank, []).exp().topk(2).values
    return float(best[0] - best[1])


def fill_by_hand(lm, tokens, strategy, limit):
    """Fill a text by a strategy: of each blank its tokens and their log-probability."""
    ids = lm.ids
    count = int(np.isin(tokens, [ids.mask, ids.smask, ids.gmask]).sum())
    fills = {}

    def closed(*, but=None):
        return [(b, fill) for b, (fill, _) in fills.items() if b != but]

    if strategy == "confident":
        while len(fills) < count:
            margins = {
                b: margin(lm, tokens, closed(), b) for b in range(count) if b not in fills
            }  # fmt: skip
            first, *rest = sorted(margins.values(), reverse=True)
            if rest and first - rest[0] < 1e-4:
                raise NearError
            b = max(margins, key=margins.get)
            fills[b] = fill_one(lm, tokens, closed(), b, limit)
    elif strategy == "splice":
        for b in range(count):
            fills[b] = fill_one(lm, tokens, [], 0, limit)
            at = int(np.flatnonzero(np.isin(tokens, [ids.mask, ids.smask, ids.gmask]))[0])
            tokens = np.concatenate([tokens[:at], fills[b][0], tokens[at + 1 :]]).astype(np.int32)
    else:
        for b in range(count):
            seen = [] if strategy == "independent" else closed()
            fills[b] = fill_one(lm, tokens, seen, b, limit)
        if strategy == "refine" and count > 1:
            for b in range(count):
                order = [(o, fills[o][0]) for o in range(count) if o != b]
                fills[b] = fill_one(lm, tokens, order, b, limit)
    return [fills[b] for b in range(count)]
