"""Measure the model's parts and its whole training step on this CPU, beside others.

    python benchmarks/model.py                   about six minutes on two quiet cores
    python benchmarks/model.py --quick           every part once, small: does it run?

Three tables from one run. The head: logits and loss of all positions by torch's cross-entropy
beside ours, which scores positions with a target, here 15 %, for two vocabularies. Attention: ours
by exact rectangles, what it replaced (by groups of similar length), the dense square, and torch's
`scaled_dot_product_attention` with the same mask, forward and backward, by row length, on documents
of mean 160 tokens. The training step (forward, backward, clipping, AdamW): ours with GLM's share of
targets and with all positions as targets, by each way of attention, and the GPT-2 and Llama classes
of transformers, where it is installed, in the same shape. Theirs see whole causal rows.

Head and step run in a process each, for their peak memory; figures are medians, and ratios are of
one run. Writes model-CPU-DATE.json.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from result_file import result_path

from blankfill.runtime import available_cores, cpu_name, tune

HEADS = {"all positions": "every", "ours": "ours"}
ATTENTION = ("blocks", "grouped", "dense", "sdpa")
STEPS = {
    "ours, 30 % targets": ("glm", "blocks", 0.3),
    "ours, all targets": ("glm", "blocks", 1.0),
    "ours, dense attention, all targets": ("glm", "dense", 1.0),
    "ours, SDPA with a mask, all targets": ("glm", "sdpa", 1.0),
    "transformers GPT-2": ("gpt2", "sdpa", 1.0),
    "transformers Llama": ("llama", "sdpa", 1.0),
}
SHAPES = {
    "5M": {"hidden_size": 192, "num_layers": 6, "num_heads": 3, "ffn_size": 512},
    "25M": {"hidden_size": 384, "num_layers": 10, "num_heads": 6, "ffn_size": 1024},
}
ROW_LENGTH = {"5M": 256, "25M": 512}
VOCAB = 16384
POSITIONS = 4096


def draw_blocks(rows, length, seed=0, mean=160):
    """Rows full of documents of lognormal length, a fifth of most and more of some in Part B."""
    import numpy as np

    rng = np.random.default_rng(seed)
    blocks = []
    for row in range(rows):
        start = 0
        while start < length:
            n = int(np.clip(rng.lognormal(np.log(mean) - 0.245, 0.7), 8, length - start or 8))
            n = min(max(n, 1), length - start)
            share = 0.2 if rng.random() < 0.7 else rng.uniform(0.3, 0.9)
            blocks.append((row, start, start + n - max(1, int(n * share)), start + n))
            start += n
    return np.array(blocks, np.int32)


def sdpa(q, k, v, mask, dropout=0.0, scale=None):
    """Torch's own, with the mask as booleans."""
    from torch.nn.functional import scaled_dot_product_attention

    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(*heads_first, attn_mask=mask.visible[:, None]).transpose(
        1, 2
    )


def timed(run, repeats):
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_head(job):
    import torch

    from blankfill.model.loss import target_loss
    from blankfill.model.targets import IGNORE_INDEX, Targets

    matrix = (torch.randn(job["vocab"], job["hidden"]) * 0.02).requires_grad_()
    hidden = torch.randn(1, job["positions"], job["hidden"], requires_grad=True)
    targets = torch.randint(0, job["vocab"], hidden.shape[:2])
    targets = targets.masked_fill(torch.rand(targets.shape) > job["share"], IGNORE_INDEX)

    def run():
        matrix.grad = hidden.grad = None
        if job["way"] == "ours":
            made = Targets.of(targets)
            loss, nll = target_loss(hidden.flatten(0, 1)[made.index], matrix, made)
            (loss / len(nll)).backward()
        else:
            logits = torch.nn.functional.linear(hidden, matrix).flatten(0, 1)
            torch.nn.functional.cross_entropy(logits, targets.flatten()).backward()

    before = peak_bytes()
    seconds = timed(run, job["repeats"])
    return {"seconds": seconds, "extra_peak_bytes": peak_bytes() - before}


def measure_attention(job):
    import torch
    from grouped_attention import GroupedMask, grouped_attention

    from blankfill.model.attention import dense_attention, packed_attention
    from blankfill.model.masks import DenseMask, PackedMask

    length, heads = job["row_length"], job["hidden"] // 64
    shape = (job["positions"] // length, length)
    blocks = draw_blocks(*shape)
    dense, packed = DenseMask.of(blocks, shape), PackedMask(blocks, shape)
    grouped = GroupedMask(blocks, shape)
    ways = {
        "blocks": lambda q, k, v: packed_attention(q, k, v, packed),
        "grouped": lambda q, k, v: grouped_attention(q, k, v, grouped),
        "dense": lambda q, k, v: dense_attention(q, k, v, dense),
        "sdpa": lambda q, k, v: sdpa(q, k, v, dense),
    }
    qkv = torch.randn(*shape, 3, heads, 64, requires_grad=True)
    weight = torch.randn(*shape, heads, 64)
    seconds = {name: [] for name in ways}
    for turn in range(job["repeats"] + 1):
        for name, way in ways.items():
            qkv.grad = None
            start = time.perf_counter()
            way(*qkv.unbind(2)).backward(weight)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_step(job):
    import torch

    from blankfill.engine.device import precision_context

    rows, length = job["positions"] // job["row_length"], job["row_length"]
    tokens = torch.randint(8, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))
    build = {"glm": ours, "nanogpt": nanogpt}.get(job["model"], peer)
    model, loss_of = build(job, tokens)
    dtype = getattr(torch, job["precision"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run():
        with precision_context(dtype):
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(run, job["repeats"])
    return {
        "seconds": seconds,
        "positions_per_second": job["positions"] / seconds,
        "peak_bytes": peak_bytes(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def ours(job, tokens):
    """Our model and its loss, by a way of attention and with a share of targets."""
    import torch

    from blankfill.config.model import ModelConfig
    from blankfill.engine.compiled import compile_block, mark_varying
    from blankfill.model import attention
    from blankfill.model.glm import GLM
    from blankfill.model.init import init_weights
    from blankfill.model.masks import build_mask
    from blankfill.model.targets import Targets

    model = GLM(ModelConfig(vocab_size=VOCAB, **job["shape"]))
    init_weights(model, 0)
    blocks = draw_blocks(*tokens.shape)
    if job["attention"] == "sdpa":
        attention.dense_attention = sdpa
    if job["compile"]:
        for block in model.blocks.values():
            compile_block(block)
    kind = "dense" if job["attention"] == "sdpa" else job["attention"]
    positions = torch.zeros(len(tokens), 2, tokens.shape[1], dtype=torch.long)
    for row, start, part_b, end in blocks.tolist():
        positions[row, 0, start:end] = torch.arange(end - start)
        positions[row, 1, part_b:end] = torch.arange(end - part_b) + 1
    # Which positions are targets does not matter to the time, only how many.
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < job["share"]
    targets = Targets.of(tokens.masked_fill(~chosen, -100))

    def loss_of():
        mask = build_mask(blocks, tuple(tokens.shape), kind)
        if job["compile"]:
            mark_varying(mask, targets.index)
        loss, nll = model(tokens, positions, mask, targets=targets)
        return loss / len(nll)

    return model.train(), loss_of


def nanogpt(job, tokens):
    """The model of a checkout of nanoGPT in the same shape, every position a target."""
    import importlib.util

    import torch

    spec = importlib.util.spec_from_file_location("nanogpt", job["nanogpt"])
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt"] = module
    with contextlib.redirect_stdout(sys.stderr):
        spec.loader.exec_module(module)
        shape = job["shape"]
        cfg = module.GPTConfig(
            block_size=tokens.shape[1], vocab_size=VOCAB, n_layer=shape["num_layers"],
            n_head=shape["num_heads"], n_embd=shape["hidden_size"],
        )  # fmt: skip
        model = module.GPT(cfg)
    call = torch.compile(model) if job["compile"] else model
    return model.train(), lambda: call(tokens, tokens)[1]


def peer(job, tokens):
    """A class of transformers in the same shape, every position a target."""
    import torch
    import transformers

    shape = job["shape"]
    if job["model"] == "gpt2":
        # Two matrices of 3 F / 2 hold what our three of F hold.
        cfg = transformers.GPT2Config(
            vocab_size=VOCAB, n_positions=tokens.shape[1], n_embd=shape["hidden_size"],
            n_layer=shape["num_layers"], n_head=shape["num_heads"],
            n_inner=3 * shape["ffn_size"] // 2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            use_cache=False,
        )  # fmt: skip
    else:
        cfg = transformers.LlamaConfig(
            vocab_size=VOCAB, hidden_size=shape["hidden_size"],
            intermediate_size=shape["ffn_size"], num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"], max_position_embeddings=tokens.shape[1],
            tie_word_embeddings=True, use_cache=False,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(cfg, attn_implementation="sdpa")
    call = torch.compile(model) if job["compile"] else model
    return model.train(), lambda: call(input_ids=tokens, labels=tokens).loss


MEASURES = {"head": measure_head, "attention": measure_attention, "step": measure_step}


def child(job):
    """Measure one job in a process of its own."""
    arguments = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:]}
    return json.loads(done.stdout.splitlines()[-1])


def run_job(job):
    tune()
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    print(json.dumps(MEASURES[job["what"]](job)))


def jobs(args):
    """List what to measure: (table, row, contender, job)."""
    quick = args.quick
    common = {
        "threads": args.threads, "repeats": 1 if quick else args.repeats,
        "positions": 512 if quick else POSITIONS, "compile": args.compile,
        "precision": "float32",
    }  # fmt: skip
    for vocab in (16_384,) if quick else (16_384, 150_528):
        for name, way in HEADS.items():
            job = {**common, "what": "head", "way": way, "vocab": vocab, "hidden": 384,
                   "share": 0.15}  # fmt: skip
            yield "head", f"V {vocab}", name, job
    for length in (256,) if quick else (256, 512, 2048):
        job = {**common, "what": "attention", "row_length": length, "hidden": args.attention_width,
               "repeats": 1 if quick else 2 * args.repeats}  # fmt: skip
        yield "attention", f"T {length}", None, job
    for size in args.sizes:
        for name, (model, attention, share) in STEPS.items():
            job = {**common, "what": "step", "model": model, "attention": attention,
                   "share": share, "shape": SHAPES[size],
                   "row_length": ROW_LENGTH[size]}  # fmt: skip
            yield "step", size, name, job


def versions():
    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        import transformers
    except ImportError:
        return found
    return {**found, "transformers": transformers.__version__}


def show(table, row, name, result, first):
    """Print one line; ratios are against the first contender of its row."""
    if "error" in result:
        print(f"{table:10} {row:9} {name or '':38} {result['error']}")
    elif table == "attention":
        for way in ATTENTION:
            ratio = result[way] / result["blocks"]
            print(f"{table:10} {row:9} {way:38} {result[way] * 1e3:9.1f} ms   {ratio:5.2f} x")
    else:
        memory = result.get("extra_peak_bytes", result.get("peak_bytes")) / 2**30
        ratio = result["seconds"] / first["seconds"]
        rate = f"{result['positions_per_second']:9,.0f}/s" if table == "step" else " " * 11
        print(f"{table:10} {row:9} {name:38} {result['seconds'] * 1e3:9.1f} ms {rate} "
              f"{ratio:5.2f} x {memory:6.2f} GiB")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true", help="small and once; writes nothing")
    parser.add_argument("--compile", action="store_true", help="compile blocks, and whole peers")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=3, help="timed steps; medians are kept")
    parser.add_argument("--sizes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--attention-width", type=int, default=384)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        run_job(json.loads(args.job))
        return
    found = versions()
    name = cpu_name()
    print(f"{name}, {args.threads} threads, {found}, float32, {POSITIONS} positions a step")
    results, first = [], {}
    for table, row, contender, job in jobs(args):
        if job.get("model") in ("gpt2", "llama") and "transformers" not in found:
            print(f"{table:10} {row:9} {contender:38} not installed")
            continue
        result = child(job)
        first.setdefault((table, row), result)
        show(table, row, contender, result, first[table, row])
        results.append({"table": table, "row": row, "contender": contender, **result})
    if args.quick:
        return
    path = result_path(args.out, "model")
    record = {
        "cpu": name, "threads": args.threads,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"), "versions": found,
        "compile": args.compile, "load": os.getloadavg()[0], "results": results,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
