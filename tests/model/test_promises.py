"""The four promises of the model to those who lay it out over devices."""

import ast
import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import blankfill.model
from blankfill.config.model import ModelConfig
from blankfill.generate.slots import PrefixWriter, RowReader, Table
from blankfill.model.glm import GLM
from blankfill.model.init import init_weights
from blankfill.model.masks import DenseMask, PackedMask
from blankfill.model.rope import rotation_of
from blankfill.model.targets import IGNORE_INDEX, Targets

SHAPES = {
    "ours": {},
    "untied": {"block": "pre_ln", "positions": "rope_1d", "tie_head": False},
    "glm": {"block": "pre_ln", "activation": "gelu", "positions": "learned_2d"},
    "post-ln": {"block": "post_ln", "activation": "relu"},
    "paper": {"block": "deepnorm_paper", "pb_relax": 32.0, "shrink_head": True,
              "embedding_gradient_shrink": 0.1},
    "sandwich": {"block": "sandwich", "qk_norm": True, "activation": "swiglu"},
}  # fmt: skip
B, T = 2, 9
BLOCKS = np.array([[0, 0, 4, 6], [0, 6, 7, 9], [1, 0, 5, 8]], np.int32)


def build(name, heads=4):
    cfg = ModelConfig(
        **({"vocab_size": 40, "hidden_size": 8 * heads, "num_layers": 3, "num_heads": heads,
            "ffn_size": 24, "max_position": 32} | SHAPES[name])
    )  # fmt: skip
    model = GLM(cfg)
    init_weights(model, 1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # far from its start, biases included
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 40, (B, T), generator=generator)
    positions = torch.randint(0, 20, (B, 2, T), generator=generator)
    targets = tokens.roll(-1, 1).masked_fill(torch.arange(T) % 3 != 1, IGNORE_INDEX)
    weights = torch.rand(B, T, generator=generator, dtype=torch.float64)
    return tokens, positions, PackedMask(BLOCKS, (B, T)), Targets.of(targets, weights)


# -- it knows no device, rank, file or environment ------------------------------------------------

FORBIDDEN_MODULES = ("os", "sys", "io", "subprocess", "pathlib", "shutil", "tempfile", "socket",
                     "torch.distributed", "torch.cuda", "torch.compiler", "torch._dynamo",
                     "torch._inductor", "blankfill.disk", "blankfill.atomic")  # fmt: skip
FORBIDDEN_NAMES = {"environ", "getenv", "open", "compile", "set_device", "distributed"}


def outward(source):
    """List what a module takes from the world around it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [
            name for name in names
            if any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN_MODULES)
        ]  # fmt: skip
        called = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        found += [called] if called in FORBIDDEN_NAMES else []
    return found


def test_the_model_knows_no_rank_file_or_environment():
    files = sorted(Path(blankfill.model.__file__).parent.glob("*.py"))
    assert len(files) > 8
    assert {path.name: outward(path.read_text(encoding="utf-8")) for path in files} == {
        path.name: [] for path in files
    }


@pytest.mark.parametrize(
    "source",
    ["import os", "from torch import distributed", "import torch.distributed as dist",
     "from pathlib import Path", "x = torch.compile(f)", "block.compile()", "open('a')",
     "def f():\n    from torch._dynamo.decorators import mark_unbacked"],
)  # fmt: skip
def test_what_reaches_out_is_found(source):
    assert outward(source)


@pytest.mark.parametrize("name", SHAPES)
def test_the_model_is_built_and_called_without_a_device(name, batch, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)  # unknown of `meta`
    tokens, positions, mask, targets = batch
    with torch.device("meta"):
        model = GLM(build(name).cfg)
    made = Targets(*(x.to("meta") for x in (targets.index, targets.ids, targets.weights)))
    loss, nats = model(tokens.to("meta"), positions.to("meta"), mask, targets=made)
    loss.backward()
    assert nats.shape == targets.ids.shape
    assert {p.grad.device.type for p in model.parameters()} == {"meta"}


# -- a missing part passes through, and blocks may be any slice -----------------------------------


def stages(model, *cuts):
    """Cut a model into the stages of a pipeline at these blocks; a tied head has its own copy."""
    bounds = [0, *cuts, model.cfg.num_layers]
    made = []
    for first, end in pairwise(bounds):
        stage = copy.deepcopy(model)
        for name in list(stage.blocks):
            if not first <= int(name) < end:
                del stage.blocks[name]
        if made:
            stage.embed = None
        made.append(stage)
    made[-1].head.weight = nn.Parameter(model.head_weight.detach().clone())
    for stage in made[:-1]:
        stage.norm = stage.head = None
    return made


# A stage without any block, before, between or after the others, is a stage as well.
@pytest.mark.parametrize("cuts", [(1,), (2,), (1, 2), (0,), (1, 1), (3,)])
@pytest.mark.parametrize("name", SHAPES)
def test_a_model_in_stages_is_the_model(name, cuts, batch):
    tokens, positions, mask, targets = batch
    model = build(name)
    hidden, parts = tokens, stages(model, *cuts)
    for stage in parts[:-1]:
        hidden = stage(hidden, positions, mask, targets=targets)  # which all stages are given
        assert hidden.shape == (B, T, model.cfg.hidden_size)
    loss = parts[-1](hidden, positions, mask, targets=targets, z_loss=0.01)
    whole = model(tokens, positions, mask, targets=targets, z_loss=0.01)
    torch.testing.assert_close(loss, whole, rtol=1e-12, atol=1e-12)
    loss.total.backward()
    whole.total.backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    tied = model.cfg.tie_head
    for stage in parts:
        for name, parameter in stage.named_parameters():
            if tied and name in ("embed.word.weight", "head.weight"):
                continue  # the two add up, below
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-11)
    if tied:
        share = model.cfg.embedding_gradient_shrink if model.cfg.shrink_head else 1.0
        total = parts[0].embed.word.weight.grad + share * parts[-1].head.weight.grad
        torch.testing.assert_close(total, expected["embed.word.weight"], rtol=1e-9, atol=1e-11)


def test_without_a_head_or_a_norm_there_are_hidden_states(batch):
    tokens, positions, mask, targets = batch
    model = build("ours")
    normed = model(tokens, positions, mask)
    model.head = None
    assert torch.equal(model(tokens, positions, mask, targets=targets), normed)
    norm, model.norm = model.norm, None
    assert torch.equal(norm(model(tokens, positions, mask)), normed)


# -- widths come from tensors ---------------------------------------------------------------------


def narrowed(layer, rows=slice(None), columns=slice(None), bias=True):
    """Take some rows and columns of a layer; of a sum's parts one has the bias."""
    weight = layer.weight[rows, columns]
    made = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(layer.bias[rows] if bias else torch.zeros_like(made.bias))
    return made


def cut(block, heads, units, bias):
    """Give a block's attention and feed-forward layer some heads and some units alone."""
    made = copy.deepcopy(block)
    size = block.attention.head_size
    rows = slice(heads.start * size, heads.stop * size)
    for name in ("q", "k", "v"):
        setattr(made.attention, name, narrowed(getattr(block.attention, name), rows=rows))
    made.attention.out = narrowed(block.attention.out, columns=rows, bias=bias)
    for name in ("up", "gate"):
        if hasattr(block.mlp, name):
            setattr(made.mlp, name, narrowed(getattr(block.mlp, name), rows=units))
    made.mlp.down = narrowed(block.mlp.down, columns=units, bias=bias)
    return made


def parts_of(block, heads=4, units=24):
    """Cut a block into two uneven parts."""
    first = cut(block, slice(0, 1), slice(0, 10), bias=True)
    return first, cut(block, slice(1, heads), slice(10, units), bias=False)


@pytest.mark.parametrize("wanted", [None, torch.tensor([1, 4, 13])])
@pytest.mark.parametrize("kind", ["packed", "dense"])
@pytest.mark.parametrize("name", SHAPES)
def test_parts_of_the_heads_add_up_to_the_layer(name, kind, wanted, batch):
    _, positions, mask, _ = batch
    model = build(name)
    block = model.blocks["1"]
    mask = mask if kind == "packed" else DenseMask.of(BLOCKS, (B, T))
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(B, T, model.cfg.hidden_size, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    rotation = model.rotation(positions, x.dtype)
    found = []
    for layers in ((block,), parts_of(block)):
        attended = sum(layer.attention(x, rotation, mask, None, wanted) for layer in layers)
        fed = sum(layer.mlp(x) for layer in layers)
        loss = attended.sin().sum() + fed.sin().sum()
        found.append((attended, fed, *torch.autograd.grad(loss, x)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-11)


@torch.no_grad()
def test_a_cache_has_the_width_of_what_it_is_given():
    model = build("ours")
    block = model.blocks["1"]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 6, model.cfg.hidden_size, generator=generator, dtype=torch.float64)
    rotation = rotation_of(torch.arange(6).expand(1, 2, 6), 8, 2, x.dtype)
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    whole = block.attention(x, rotation, DenseMask(seen[None]))
    halves = []
    for part in parts_of(block):
        prefixes, rows, outputs = Table(2), Table(2), []
        prefixes.add(1), rows.add()
        for i in range(6):
            turn = rotation_of(torch.full((1, 2, 1), i), 8, 2, x.dtype)
            device, mask = torch.device("cpu"), None
            if i:
                cache = RowReader(prefixes, rows, [0], [0], [1], device)
            else:
                cache = PrefixWriter(prefixes, [0], device)
                mask = PackedMask(np.array([[0, 0, 1, 1]]), (1, 1))
            outputs.append(part.attention(x[:, i : i + 1], turn, mask, cache))
        halves.append(torch.cat(outputs, 1))
    torch.testing.assert_close(sum(halves), whole, rtol=1e-10, atol=1e-11)


# -- the loss is part of the call -----------------------------------------------------------------


def test_the_loss_and_the_shrink_are_part_of_one_call(batch):
    tokens, positions, mask, targets = batch
    model, calls = build("paper"), []
    model.register_forward_hook(lambda _model, _args, result: calls.append(result))
    grads = []
    for shrink in (None, 0.1, 1.0):
        loss, nats = model(tokens, positions, mask, targets=targets, shrink=shrink)
        grads.append(torch.autograd.grad(loss, model.embed.word.weight)[0])
        assert nats.shape == targets.ids.shape
    assert [type(call).__name__ for call in calls] == ["Loss"] * 3
    assert torch.equal(grads[0], grads[1])  # the configuration's, where none is named
    # The head shares the shrink, so all of the gradient is a tenth.
    torch.testing.assert_close(10 * grads[1], grads[2], rtol=1e-12, atol=1e-12)


def test_a_loss_is_differentiated_while_its_graph_is_kept_and_a_second_call_gives_another(batch):
    tokens, positions, mask, targets = batch
    model = build("ours")
    loss, _ = model(tokens, positions, mask, targets=targets)
    loss.backward(retain_graph=True)
    first = model.embed.word.weight.grad.clone()
    model.zero_grad()
    loss.backward()
    assert torch.equal(model.embed.word.weight.grad, first)
    with pytest.raises(RuntimeError, match="second time"):  # torch's own: the graph is gone
        loss.backward()
    model.zero_grad()
    model(tokens, positions, mask, targets=targets).total.backward()
    assert torch.equal(model.embed.word.weight.grad, first)


@pytest.mark.filterwarnings("ignore")  # torch's own, about what it imports
@pytest.mark.parametrize("name", ["ours", "untied"])
def test_what_wraps_calls_wraps_the_loss(name, batch):
    # Torch's FSDP on one process: parameters are whole within the calls that it wraps, and nowhere
    # else, so whatever is computed outside of them meets shards.
    from torch import distributed
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    tokens, positions, mask, targets = batch
    found = []
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        for sharded in (False, True):
            model = build(name)
            for part in (*model.blocks.values(), model) if sharded else ():
                fully_shard(part, mesh=mesh)
            loss, nats = model(tokens, positions, mask, targets=targets, z_loss=0.01)
            loss.backward()
            assert isinstance(model.embed.word.weight, DTensor) == sharded
            grads = [p.grad.full_tensor() if sharded else p.grad for p in model.parameters()]
            found.append((loss.detach(), nats, *grads))
    finally:
        distributed.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
