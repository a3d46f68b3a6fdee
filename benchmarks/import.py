"""Measure the peak memory and the time of `blankfill import` on a large generated checkpoint.

    python benchmarks/import.py --gigabytes 4 --shards 8

Generates, in a temporary folder that is deleted afterwards, a GLM-130B-like checkpoint of one
tensor-parallel rank a file in float16 (`--layout hugging-face`: ChatGLM-6B-like shards), imports it
in a process of its own, and writes the peak resident memory of that process (ru_maxrss) beside the
size of the largest shard into import-CPU-DATE.json in the folder of results.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from result_file import cpu_label, result_path

IMPORT = """\
import json, resource, sys, time
start = time.monotonic()
from blankfill.cli.main import main
code = main(["import", sys.argv[1], "--out", sys.argv[2], "--num-heads", "32", "--json", "--quiet"])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"code": code, "peak_bytes": peak, "seconds": time.monotonic() - start}),
      file=sys.stderr)
"""
BASELINE = """\
import resource, torch, safetensors, sentencepiece
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
HIDDEN, INNER, VOCAB = 2048, 5504, 50304


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--layout", choices=["ranks", "hugging-face"], default="ranks")
    parser.add_argument("--scratch", type=Path, help="where to generate; the system's by default")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        generate = generate_ranks if args.layout == "ranks" else generate_shards
        generate(args.generate, args.gigabytes, args.shards)
        return
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder = Path(name)
        # In a process of its own: a child's ru_maxrss begins with what its parent holds.
        words = [sys.executable, __file__, "--generate", folder / "theirs", "--layout", args.layout]
        words += ["--gigabytes", str(args.gigabytes), "--shards", str(args.shards)]
        subprocess.run(words, check=True)
        sizes = [p.stat().st_size for p in (folder / "theirs").iterdir() if p.suffix != ".json"]
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, folder / "theirs", folder / "ours"], check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        result = json.loads(done.stdout)
        figures = json.loads(done.stderr.splitlines()[-1])
    baseline = int(subprocess.run([sys.executable, "-c", BASELINE], check=True,
                                  capture_output=True).stdout)  # fmt: skip
    figures |= {
        "shards": len(sizes), "checkpoint_bytes": sum(sizes), "largest_shard_bytes": max(sizes),
        "peak_to_largest_shard": figures["peak_bytes"] / max(sizes),
        "libraries_alone_bytes": baseline, "parameters": result["parameters"],
        "tensors": result["tensors"],
        "megabytes_per_second": sum(sizes) / 1e6 / figures["seconds"],
    }  # fmt: skip
    write(args.results, f"{args.layout} {args.gigabytes:g} GB", figures)
    print(json.dumps(figures, indent=2))


def generate_ranks(folder, gigabytes, tp):
    """Write one file a rank: GLM-130B's names, rows of q, k, v head by head, halves of the gate."""
    layer_elements = 4 * HIDDEN**2 + 3 * HIDDEN * INNER
    num_layers = max(1, round((gigabytes * 5e8 - VOCAB * HIDDEN) / layer_elements))
    import torch

    folder.mkdir()
    for rank in range(tp):
        state = {"transformer.word_embeddings.weight": values(VOCAB // tp, HIDDEN)}
        for layer in range(num_layers):
            for name, *shape in layer_of(
                2 * INNER // tp, 3 * HIDDEN // tp, HIDDEN // tp, INNER // tp
            ):
                state[f"transformer.layers.{layer}.{name}"] = values(*shape)
        state |= {f"transformer.final_layernorm.{x}": values(HIDDEN) for x in ("weight", "bias")}
        torch.save({"module": state}, folder / f"mp_rank_{rank:02d}_model_states.pt")


def generate_shards(folder, gigabytes, shards):
    """Write ChatGLM-6B's names over several files with an index."""
    layer_elements = 4 * HIDDEN**2 + 2 * HIDDEN * INNER
    num_layers = max(1, round((gigabytes * 5e8 - 2 * VOCAB * HIDDEN) / layer_elements))
    names = [("transformer.word_embeddings.weight", VOCAB, HIDDEN)]
    for layer in range(num_layers):
        shapes = layer_of(INNER, 3 * HIDDEN, HIDDEN, INNER)
        names += [(f"transformer.layers.{layer}.{name}", *shape) for name, *shape in shapes]
    names += [(f"transformer.final_layernorm.{x}", HIDDEN) for x in ("weight", "bias")]
    names.append(("lm_head.weight", VOCAB, HIDDEN))
    import torch

    folder.mkdir()
    where, target = {}, gigabytes * 1e9 / shards
    number, size, state = 1, 0, {}
    for name, *shape in names:
        state[name] = values(*shape)
        size += 2 * state[name].numel()
        where[name] = f"pytorch_model-{number:05d}.bin"
        if size >= target or name == "lm_head.weight":
            torch.save(state, folder / where[name])
            number, size, state = number + 1, 0, {}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": where}))


def layer_of(up, qkv, width, inner):
    yield from ((f"input_layernorm.{x}", HIDDEN) for x in ("weight", "bias"))
    yield from ((f"post_attention_layernorm.{x}", HIDDEN) for x in ("weight", "bias"))
    yield ("attention.query_key_value.weight", qkv, HIDDEN)
    yield ("attention.query_key_value.bias", qkv)
    yield ("attention.dense.weight", HIDDEN, width)
    yield ("attention.dense.bias", HIDDEN)
    yield ("mlp.dense_h_to_4h.weight", up, HIDDEN)
    yield ("mlp.dense_h_to_4h.bias", up)
    yield ("mlp.dense_4h_to_h.weight", HIDDEN, inner)
    yield ("mlp.dense_4h_to_h.bias", HIDDEN)


def values(*shape):
    """Positive numbers; drawing normal ones would take longer than the import."""
    import torch

    return torch.randint(0, 15000, shape, dtype=torch.int16).view(torch.float16)


def write(folder, name, figures):
    path = result_path(folder, "import")
    before = json.loads(path.read_text()) if path.exists() else {}
    before |= {"cpu": cpu_label(), "cores": os.cpu_count(), "python": platform.python_version()}
    before |= {name: figures | {"load_after": os.getloadavg()[0]}}
    path.write_text(json.dumps(before, indent=2) + "\n")


if __name__ == "__main__":
    main()
