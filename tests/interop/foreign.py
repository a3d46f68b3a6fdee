"""Checkpoints in every published layout, written from the description of the layouts.

Nothing here knows how blankfill reads: the writers start from matrices of single heads and halves
and cut them for tensor-parallel ranks as the training code of each project did.
"""

import json
import math
from dataclasses import dataclass

import torch
from safetensors.torch import save_file


@dataclass
class Logical:
    """A model as its papers speak of it: one matrix per head, linear half and gate apart."""

    vocab: torch.Tensor
    head: torch.Tensor | None
    position: torch.Tensor | None
    block_position: torch.Tensor | None
    final: tuple
    layers: list
    num_heads: int
    hidden: int


def draw(*, gated, positions, tied, dtype=torch.float16, layers=2, hidden=32, heads=8, inner=48,
         vocab=96, seed=0, sandwich=False):  # fmt: skip
    """Draw a model; `positions` is the number of rows of the learned tables, or 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator).mul(0.1).to(dtype)

    def norm():
        return 1 + normal(hidden), normal(hidden)

    size = hidden // heads
    return Logical(
        vocab=normal(vocab, hidden), head=None if tied else normal(vocab, hidden),
        position=normal(positions, hidden) if positions else None,
        block_position=normal(positions, hidden) if positions else None, final=norm(),
        num_heads=heads, hidden=hidden,
        layers=[
            {
                "ln1": norm(), "ln2": norm(),
                **({"ln3": norm(), "ln4": norm()} if sandwich else {}),
                # for each of q, k, v and each head: weight [size, hidden] and bias [size]
                **{x: [(normal(size, hidden), normal(size)) for _ in range(heads)] for x in "qkv"},
                "out": (normal(hidden, hidden), normal(hidden)),
                "linear": (normal(inner, hidden), normal(inner)),
                "gate": (normal(inner, hidden), normal(inner)) if gated else None,
                "down": (normal(hidden, inner), normal(hidden)),
            }
            for _ in range(layers)
        ],
    )  # fmt: skip


def ours(model: Logical) -> dict:
    """Write the model down as blankfill names it."""
    found = {"embed.word.weight": model.vocab}
    if model.position is not None:
        found |= {"embed.position.weight": model.position,
                  "embed.block_position.weight": model.block_position}  # fmt: skip
    for i, layer in enumerate(model.layers):
        at = f"blocks.{i}."
        for j, kind in enumerate(("weight", "bias")):
            found[f"{at}attention_norm.{kind}"] = layer["ln1"][j]
            found[f"{at}mlp_norm.{kind}"] = layer["ln2"][j]
            if "ln3" in layer:
                found[f"{at}attention_out_norm.{kind}"] = layer["ln3"][j]
                found[f"{at}mlp_out_norm.{kind}"] = layer["ln4"][j]
            for x in "qkv":
                found[f"{at}attention.{x}.{kind}"] = torch.cat([part[j] for part in layer[x]])
            found[f"{at}attention.out.{kind}"] = layer["out"][j]
            found[f"{at}mlp.up.{kind}"] = layer["linear"][j]
            if layer["gate"]:
                found[f"{at}mlp.gate.{kind}"] = layer["gate"][j]
            found[f"{at}mlp.down.{kind}"] = layer["down"][j]
    found |= {"norm.weight": model.final[0], "norm.bias": model.final[1]}
    if model.head is not None:
        found["head.weight"] = model.head
    return found


def layer_of_rank(layer, rank, tp, *, interleaved):
    """Cut one layer for a rank; names without a prefix."""
    heads = len(layer["q"]) // tp
    mine = range(rank * heads, (rank + 1) * heads)
    if interleaved:
        order = [(x, head) for head in mine for x in "qkv"]
    else:
        order = [(x, head) for x in "qkv" for head in mine]

    def rows(matrix):
        return matrix.chunk(tp, 0)[rank].clone()

    def columns(matrix):
        return matrix.chunk(tp, 1)[rank].clone()

    halves = [layer["linear"]] + ([layer["gate"]] if layer["gate"] else [])
    found = {}
    for j, kind in enumerate(("weight", "bias")):
        found[f"input_layernorm.{kind}"] = layer["ln1"][j].clone()
        found[f"attention.query_key_value.{kind}"] = torch.cat([layer[x][h][j] for x, h in order])
        found[f"post_attention_layernorm.{kind}"] = layer["ln2"][j].clone()
        found[f"mlp.dense_h_to_4h.{kind}"] = torch.cat([rows(half[j]) for half in halves])
        if "ln3" in layer:
            found[f"third_layernorm.{kind}"] = layer["ln3"][j].clone()
            found[f"fourth_layernorm.{kind}"] = layer["ln4"][j].clone()
    found["attention.dense.weight"] = columns(layer["out"][0])
    found["attention.dense.bias"] = layer["out"][1].clone()
    found["mlp.dense_4h_to_h.weight"] = columns(layer["down"][0])
    found["mlp.dense_4h_to_h.bias"] = layer["down"][1].clone()
    return found


def state_of_rank(model, rank, tp, *, interleaved, stem="transformer.", word="", block=None):
    """Everything that one rank holds, as names of a state dictionary."""
    found = {f"{word}word_embeddings.weight": model.vocab.chunk(tp)[rank].clone()}
    if model.position is not None:
        found[f"{stem}position_embeddings.weight"] = model.position.clone()
        name = block or f"{stem}block_position_embeddings.weight"
        found[name] = model.block_position.clone()
    for i, layer in enumerate(model.layers):
        held = layer_of_rank(layer, rank, tp, interleaved=interleaved)
        found |= {f"{stem}layers.{i}.{name}": value for name, value in held.items()}
    found |= {f"{stem}final_layernorm.weight": model.final[0].clone(),
              f"{stem}final_layernorm.bias": model.final[1].clone()}  # fmt: skip
    return found


def save_ranks(folder, states, *, latest=None):
    """Write mp_rank files as DeepSpeed does, with what else it puts beside the weights."""
    target = folder / latest if latest else folder
    target.mkdir(parents=True, exist_ok=True)
    if latest:
        (folder / "latest").write_text(latest)
    for rank, state in enumerate(states):
        torch.save(
            {"module": state, "iteration": 7, "optimizer": None, "lr_scheduler": None,
             "csr_tensor_module_names": set(), "mp_world_size": len(states),
             "torch_rng_state": torch.get_rng_state()},
            target / f"mp_rank_{rank:02d}_model_states.pt",
        )  # fmt: skip


def glm_megatron(folder, model, tp):
    save_ranks(folder, [state_of_rank(model, r, tp, interleaved=False) for r in range(tp)])


def sat_glm(folder, model, tp):
    block = "mixins.block_position_embedding.block_position_embeddings.weight"
    states = [
        state_of_rank(model, r, tp, interleaved=False, word="transformer.", block=block)
        for r in range(tp)
    ]
    save_ranks(folder, states, latest="250000")


def sat_glm_130b(folder, model, tp, bits=16):
    states = []
    for rank in range(tp):
        state = state_of_rank(model, rank, tp, interleaved=True, word="transformer.")
        state["mixins.rotary-embedding.rotary_emb.inv_freq"] = torch.ones(4)
        for name in list(state):
            if bits < 16 and state[name].dim() == 2 and ".layers." in name:
                state[name], state[f"{name}_scale"] = quantise(state[name], bits)
        states.append(state)
    save_ranks(folder, states, latest="49300")


def quantise(weight, bits):
    """Quantise by row as GLM-130B's `quantization/layers.py` does; pack as its CUDA kernel does."""
    scale = (weight.abs().max(dim=-1).values / (2 ** (bits - 1) - 1)).half()
    whole = torch.round(weight / scale[:, None]).to(torch.int8)
    if bits == 8:
        return whole, scale
    packed = [
        [((row[i] & 0xF) << 4 | (row[i + 1] & 0xF)) for i in range(0, len(row), 2)]
        for row in whole.tolist()
    ]
    return torch.tensor(packed, dtype=torch.uint8).view(torch.int8), scale


def dequantised(weight, bits):
    """What a weight is after it went through int8 or int4: plain arithmetic, value by value."""
    scale = (weight.abs().max(dim=-1).values / (2 ** (bits - 1) - 1)).half()
    return torch.round(weight / scale[:, None]).half() * scale[:, None]


def largescale(folder, model, tp):
    """Pipeline files: 01 is the embedding, 03 on are layers, two further is the final norm."""
    folder.mkdir(parents=True, exist_ok=True)
    last = 3 + len(model.layers) + 1
    for rank in range(tp):
        files = {1: {"word_embeddings.weight": model.vocab.chunk(tp)[rank].clone()}}
        for i, layer in enumerate(model.layers):
            held = layer_of_rank(layer, rank, tp, interleaved=True)
            files[3 + i] = {
                f"self_{name}" if name.startswith("attention.") else name: value
                for name, value in held.items()
            }
        files[last] = {"weight": model.final[0].clone(), "bias": model.final[1].clone()}
        for number, state in files.items():
            torch.save(state, folder / f"layer_{number:02d}-model_{rank:02d}-model_states.pt")
    for rank in range(tp):
        torch.save({"module": None, "iteration": 7}, folder / f"mp_rank_{rank:02d}_model_states.pt")


def save_hugging_face(folder, state, *, shards, safe, config):
    """Write one file or several with an index, and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    kind, stem = ("safetensors", "model") if safe else ("bin", "pytorch_model")
    save = save_file if safe else torch.save
    if shards == 1:
        save(state, folder / f"{stem}.{kind}")
        return
    per_file = math.ceil(len(state) / shards)
    where = {}
    for number in range(shards):
        names = list(state)[number * per_file : (number + 1) * per_file]
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{kind}"
        save({name: state[name] for name in names}, folder / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))


def glm_hf(folder, model, *, shards=1, safe=False, prefix="glm."):
    state = state_of_rank(model, 0, 1, interleaved=False)
    config = {"num_attention_heads": model.num_heads, "num_layers": len(model.layers),
              "hidden_size": model.hidden, "vocab_size": len(model.vocab),
              "max_sequence_length": len(model.position) - 1, "model_type": "glm"}  # fmt: skip
    state = {prefix + name: value for name, value in state.items()}
    save_hugging_face(folder, state, shards=shards, safe=safe, config=config)


def chatglm_hf(folder, model, *, shards=2, safe=False, bits=16):
    state = state_of_rank(model, 0, 1, interleaved=True, word="transformer.")
    for i in range(len(model.layers)):
        state[f"transformer.layers.{i}.attention.rotary_emb.inv_freq"] = torch.ones(4).half()
    for name in list(state):
        if bits < 16 and state[name].dim() == 2 and ".layers." in name:
            state[name], state[f"{name}_scale"] = quantise(state[name], bits)
        elif "layernorm" in name:
            state[name] = state[name].float()
    state["lm_head.weight"] = model.head.clone()
    config = {"num_attention_heads": model.num_heads, "num_layers": len(model.layers),
              "hidden_size": model.hidden, "vocab_size": len(model.vocab),
              "max_sequence_length": 64, "position_encoding_2d": True,
              "layernorm_epsilon": 1e-5, "model_type": "chatglm"}  # fmt: skip
    save_hugging_face(folder, state, shards=shards, safe=safe, config=config)


def sat_chatglm(folder, model, tp):
    states = []
    for rank in range(tp):
        state = state_of_rank(model, rank, tp, interleaved=False, word="transformer.")
        state["mixins.chatglm-final.lm_head.weight"] = model.head.chunk(tp)[rank].clone()
        state["mixins.chatglm-attn.rotary_emb.inv_freq"] = torch.ones(4)
        states.append(state)
    save_ranks(folder, states)
