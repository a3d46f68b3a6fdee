"""The files of an export by themselves, where transformers is not: loss, network, prompts, tokens.

The few classes of transformers that they derive from are stood in for; with the real ones they are
tested in test_export_clean.py.
"""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import blankfill.interop
from blankfill.generate import LanguageModel
from blankfill.interop.export_hf import describe
from blankfill.interop.export_reload import _load
from blankfill.objective.special import DISPLAY
from interop.runs import make_run

FILES = Path(blankfill.interop.__file__).parent / "hf_files"
IDS = {role: number for number, role in enumerate(DISPLAY)}
SOP, EOP, PAD = IDS["sop"], IDS["eop"], IDS["pad"]
MASK = IDS["mask"]


@pytest.fixture(scope="module")
def network(tmp_path_factory, tokenizer_folder):
    """An export's network with the weights of a small run."""
    run = LanguageModel.load(make_run(tmp_path_factory.mktemp("hf") / "r", tokenizer_folder))
    made = _load(FILES / "network_blankfill.py").Network(
        SimpleNamespace(**describe(run.cfg, run.tokenizer))
    )
    made.load_state_dict(run.model.state_dict())
    return made.eval()


class Tokenizer:
    """As much of transformers' slow tokenizer as ours stands on."""

    def __init__(self, **kwargs):
        self.init_kwargs = kwargs
        self.__dict__ |= {k: v for k, v in kwargs.items() if k.endswith("_token")}

    def _add_tokens(self, tokens, special_tokens=False):
        return 0

    def __call__(self, text):
        return [self._convert_token_to_id(piece) for piece in self.tokenize(text)]


@pytest.fixture
def hf_files(monkeypatch):
    """A function that loads a file of an export, with stand-ins for transformers."""
    stand_in = ModuleType("transformers")
    stand_in.PreTrainedTokenizer = Tokenizer
    stand_in.LogitsProcessor = stand_in.StoppingCriteria = object
    stand_in.GenerationConfig = lambda: SimpleNamespace(max_length=20)
    monkeypatch.setitem(sys.modules, "transformers", stand_in)

    def load(name):
        module = f"blankfill.interop.hf_files.{name}"
        spec = importlib.util.spec_from_file_location(module, FILES / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


def lay_out(tokens, real=None):
    real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real.bool()
    return _load(FILES / "layout_blankfill.py").lay_out(tokens, real, IDS, "corrupted")


def test_losses_of_parts_add_up_to_that_of_the_whole():
    mean_loss = _load(FILES / "network_blankfill.py").mean_loss
    logits = torch.randn(6, 9, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 20, (6, 9), generator=torch.Generator().manual_seed(1))
    labels[:, :3] = -100
    labels[0, 3:8] = -100  # rows of unlike numbers of targets
    whole, count = mean_loss(logits, labels), int((labels[:, 1:] != -100).sum())
    for number in (count, torch.tensor(count), torch.tensor([[count]]), torch.tensor(float(count))):
        parts = [mean_loss(logits[i : i + 1], labels[i : i + 1], number) for i in range(6)]
        assert all(part.shape == () for part in parts)
        assert math.isclose(float(sum(parts)), float(whole), rel_tol=1e-6)
    reference = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    assert math.isclose(float(whole), float(reference), rel_tol=1e-6)
    assert mean_loss(logits, torch.full_like(labels, -100)) == 0


class Fixed:
    """A cache that always gives back all the columns it has room for."""

    def __init__(self, size):
        self.size, self.held, self.start = size, {}, 0

    def update(self, keys, values, layer):
        room = keys.new_full((*keys.shape[:2], self.size, keys.shape[3]), 7.0)
        kept = self.held.setdefault(layer, (room, room.clone()))
        for whole, new in zip(kept, (keys, values), strict=True):
            whole[:, :, self.start : self.start + new.shape[2]] = new
        return kept


@torch.inference_mode()
def test_a_cache_with_room_changes_nothing(network):
    tokens = torch.randint(20, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(9).expand(2, 2, 9).clone()
    seen = torch.ones(9, 9, dtype=torch.bool).tril().expand(2, 1, 9, 9)
    wanted = network(tokens, positions, seen)
    cache = Fixed(16)
    first = network(tokens[:, :5], positions[:, :, :5], seen[:, :, :5, :5], cache)
    cache.start = 5
    second = network(tokens[:, 5:], positions[:, :, 5:], seen[:, :, 5:], cache)
    torch.testing.assert_close(torch.cat([first, second], dim=1), wanted)


def test_hidden_states_and_attentions_are_those_of_each_block(network):
    tokens = torch.randint(20, 200, (2, 7), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(7).expand(2, 2, 7).clone()
    seen = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 1, 7, 7)
    hidden, attentions = [], []
    with torch.inference_mode():
        plain = network(tokens, positions, seen)
        told = network(tokens, positions, seen, hidden_states=hidden, attentions=attentions)
    torch.testing.assert_close(told, plain)
    assert len(hidden) == len(network.blocks) + 1
    assert torch.equal(hidden[-1], told)
    torch.testing.assert_close(hidden[0], network.embed(tokens, positions, None))
    assert [weights.shape for weights in attentions] == [(2, 2, 7, 7)] * len(network.blocks)
    for weights in attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 7))
        assert not weights.masked_select(~seen).any()
    network.gradient_checkpointing = True
    network.train()
    try:
        with pytest.raises(ValueError, match="gradient_checkpointing_disable"):
            network(tokens, positions, seen, attentions=[])
    finally:
        network.gradient_checkpointing = False
        network.eval()


@pytest.mark.parametrize("with_mask", [True, False])
def test_padding_moves_to_the_left_of_every_row(hf_files, with_mask):
    padded_left = hf_files("generation_blankfill").padded_left
    rows = [[9, MASK, SOP], [9, 9, MASK, 9, SOP], [MASK, SOP]]
    right = torch.tensor([row + [PAD] * (6 - len(row)) for row in rows])
    left = torch.tensor([[PAD] * (6 - len(row)) + row for row in rows])
    both = torch.tensor([[PAD, *row] + [PAD] * (5 - len(row)) for row in rows])
    for given in (right, left, both):
        mask = (given != PAD).long() if with_mask else None
        moved, kept = padded_left(given, mask, IDS)
        assert moved.tolist() == left.tolist()
        assert with_mask is False or kept.tolist() == (left != PAD).tolist()
    own = dict(IDS, pad=IDS["eos"])  # as the published vocabularies pad
    with pytest.raises(ValueError, match="attention_mask"):
        padded_left(torch.where(right == PAD, own["pad"], right), None, own)
    moved, _ = padded_left(torch.where(right == PAD, own["pad"], right), right != PAD, own)
    assert moved.tolist() == torch.where(left == PAD, own["pad"], left).tolist()
    with pytest.raises(ValueError, match="shape"):
        padded_left(right, (right != PAD)[:, 1:], IDS)


class Cache:
    def __init__(self, length):
        self.length = length

    def get_seq_length(self):
        return self.length

    def crop(self, difference):
        assert difference < 0
        self.length += difference


class FixedCache(Cache):
    def crop(self, difference):
        raise AttributeError("no crop")


def test_a_cache_leaves_the_last_column_to_be_read(hf_files):
    check_cache = hf_files("generation_blankfill").check_cache
    layout = lay_out(torch.tensor([[9, 9, MASK, SOP, 9, 9], [PAD, PAD, 9, MASK, SOP, 9]]))
    for length, kept in ((0, 0), (4, 4), (5, 5), (6, 5), (9, 5)):
        cache = Cache(length)
        check_cache(cache, layout)
        assert cache.length == kept
    for length in (1, 3):  # inside Part A of a row
        with pytest.raises(ValueError, match="whole text"):
            check_cache(Cache(length), layout)
    check_cache(None, layout)
    with pytest.raises(ValueError, match="cannot be cut"):
        check_cache(FixedCache(6), layout)


def test_only_what_the_caller_says_of_a_length_overrules_ours(hf_files):
    names_length = hf_files("generation_blankfill").names_length
    plain = SimpleNamespace(max_length=20, max_new_tokens=None)
    assert not names_length(plain, {})
    assert not names_length(None, {"max_length": None})
    assert names_length(plain, {"max_length": 20})
    assert names_length(plain, {"max_new_tokens": 1})
    assert names_length(SimpleNamespace(max_length=9, max_new_tokens=None), {})
    assert names_length(SimpleNamespace(max_length=20, max_new_tokens=9), {})


def test_a_text_is_never_read_in_chunks(hf_files):
    check_options = hf_files("generation_blankfill").check_options
    check_options(SimpleNamespace(prefill_chunk_size=None), {"cache_implementation": "static"})
    for config, kwargs in (
        (SimpleNamespace(prefill_chunk_size=4), {}), (SimpleNamespace(), {"prefill_chunk_size": 4}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="chunks"):
            check_options(config, kwargs)
    with pytest.raises(ValueError, match="paged"):
        check_options(None, {"cache_implementation": "paged"})


def test_a_row_that_is_filled_gets_no_more_than_an_end(hf_files):
    config = SimpleNamespace(special_ids=IDS, banned_ids=[15], num_tokens=30, vocab_size=32,
                             max_position=100)  # fmt: skip
    rules = hf_files("generation_blankfill").FillRules(config, lay_out)
    rows = torch.tensor([[9, MASK, SOP, 9, EOP], [MASK, MASK, SOP, 9, EOP], [9, MASK, SOP, 9, 9]])
    scores = rules(rows, torch.zeros(3, 32))
    for row, only in enumerate((EOP, SOP)):
        assert scores[row].isfinite().nonzero().flatten().tolist() == [only]
    never = {IDS[r] for r in ("mask", "smask", "gmask", "sop", "pad", "dblock")} | {15, 30, 31}
    assert set((~scores[2].isfinite()).nonzero().flatten().tolist()) == never


def test_a_token_is_added_by_resize_alone(hf_files, tokenizer_folder):
    made = hf_files("tokenization_blankfill").BlankfillTokenizer(
        str(tokenizer_folder / "tokenizer.model")
    )
    for tokens in (["<new>"], "<new>", ["[MASK]", "<new>"]):
        for special in (False, True):
            with pytest.raises(ValueError, match="blankfill resize"):
                made._add_tokens(tokens, special_tokens=special)
    assert made._add_tokens(["[MASK]", made.pieces[300]]) == 0
    assert made._convert_token_to_id("<new>") is None
    for wrong in (-100, len(made.pieces)):
        with pytest.raises(ValueError, match=f"token id {wrong} is outside"):
            made._decode([3, wrong])
    with pytest.raises(ValueError, match="whole texts"):
        made(["a", "b"], is_split_into_words=True)
    text = "a [MASK] b"
    assert made._decode(made(text)) == "a[MASK] b"
