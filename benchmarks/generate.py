"""Measure generation: one text, 32 texts, 8 blanks of one text, 100 candidates of one blank.

    python benchmarks/generate.py --threads 1 2
    python benchmarks/generate.py --before ../earlier/src --kinds float32 --no-peers

Models of random weights, in float32, bfloat16, 8 and 4 bits. Every fill has a given length, so that
all sides do the same work. 8 blanks are beside a text that is encoded again for every blank, and
100 candidates beside one call for each. Where transformers is installed, its `generate` runs the
same model, exported, and a GPT-2 of the same shape. Each side runs in a process of its own, in
turn, and what is written is the median of the rounds: time on the clock and time of the processor,
and of one text the share of the memory's bandwidth that reading the weights reaches. Writes
generate-CPU-DATE.json, a line for each side as it goes.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from result_file import result_path

from blankfill.runtime import cpu_name

SIZES = {"5M": (192, 6, 4), "25M": (384, 10, 6), "110M": (768, 12, 12)}
"""Hidden size, layers, heads."""
KINDS = ("float32", "bfloat16", "int8", "int4")
"""What the weights are kept in."""
PEERS = ("transformers, this model", "transformers, GPT-2")
VOCABULARY = 16_384
ROW = 512
NEW_TOKENS = 48
BANDWIDTH_BYTES = 2**29
"""Read to measure the memory's bandwidth: more than any cache holds."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="src of an earlier revision, in float32")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        job = json.loads(args.child)
        side = measure_peer if job["side"] in PEERS else measure
        print(json.dumps(side(**job)))
        return
    has_peers = args.peers and find_spec("transformers") is not None
    if args.peers and not has_peers:
        print("transformers is not installed: its sides are left out", flush=True)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(args.rounds):
            for job in jobs(args, scratch, has_peers):
                name = f"{job['size']}, {job['threads']} threads, {job['side']}, {job['kind']}"
                found.setdefault(name, []).append(ask(job, args.before))
                print(f"round {number + 1}, {name}: {json.dumps(found[name][-1])}", flush=True)
    record = {
        "cpu": cpu_name(), "rounds": args.rounds, "vocabulary": VOCABULARY,
        "medians": {name: medians(rounds) for name, rounds in found.items()},
    }  # fmt: skip
    path = result_path(args.out, "generate")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def jobs(args, scratch, has_peers):
    """List what is measured, one process each."""
    for threads in args.threads:
        for size in args.sizes:
            for kind in args.kinds:
                job = {"size": size, "kind": kind, "threads": threads, "folder": scratch}
                if args.before is not None and kind == "float32":
                    yield job | {"side": "before"}
                yield job | {"side": "now"}
                if has_peers and kind in ("float32", "bfloat16"):
                    for peer in PEERS:
                        yield job | {"side": peer}


def ask(job, before):
    """Measure one side in a process of its own."""
    source = before if job["side"] == "before" else Path(__file__).parents[1] / "src"
    paths = [str(source.resolve()), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": str(job["threads"]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(job)], env=environment, text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def medians(rounds):
    """The median of each number over the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def timed(work, tokens):
    """Time some work after one time that is not counted: milliseconds a token."""
    work()
    clock, processor = [], []
    for _ in range(3):
        starts = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return 1e3 * min(clock) / tokens, 1e3 * min(processor) / tokens


def told(result, name, work, tokens):
    """Put the times of some work into a result."""
    clock, processor = timed(work, tokens)
    result[f"{name}: milliseconds a token"] = clock
    result[f"{name}: milliseconds of the processor a token"] = processor
    return clock


def texts():
    """The prompts of every work: tokens without masks, where the masks go, and fills' lengths."""
    import numpy as np

    rng = np.random.default_rng(0)

    def text(length, blanks=1):
        tokens = rng.integers(8, VOCABULARY - 64, length).astype(np.int32)
        return tokens, np.linspace(1, length - 2, blanks).astype(int)

    lengths = [int(n) for n in rng.integers(8, NEW_TOKENS, 32)]
    many = [text(int(n)) for n in rng.integers(20, 60, 32)]
    candidates = [[int(x) for x in rng.integers(8, VOCABULARY - 64, 3)] for _ in range(100)]
    return {
        "one text": ([text(40)], [NEW_TOKENS]), "32 texts": (many, lengths),
        "8 blanks": ([text(400, 8)], [6]),
    }, (text(40), candidates)  # fmt: skip


def measure(size, kind, threads, side, folder):
    """Milliseconds a token of one size and kind, by the work that is done."""
    import torch

    from blankfill.generate import fill_tokens

    torch.set_num_threads(threads)
    lm, num_bytes = language_model(size, kind)
    mask, result = lm.ids.mask, {}
    works, (text, candidates) = texts()

    def masked(tokens, places):
        tokens = tokens.copy()
        tokens[places] = mask
        return tokens

    for name, (prompts, lengths) in works.items():
        given = [masked(*prompt) for prompt in prompts]
        tokens = sum(n * len(places) for n, (_, places) in zip(lengths, prompts, strict=True))
        work = functools.partial(fill_tokens, lm, given, lengths=lengths)
        clock = told(result, name, work, tokens)
        if name == "one text":
            result["one text: share of the memory's bandwidth"] = (
                1e3 * num_bytes / clock / bandwidth()
            )
    (whole, places), (length,) = works["8 blanks"][0][0], works["8 blanks"][1]

    def again():
        """Each blank alone, left to right, its fill put into the text for the next."""
        now, shift = masked(whole, places), 0
        for place in places:
            at = place + shift
            one = now.copy()
            one[places[places > place] + shift] = whole[places[places > place]]
            filled = fill_tokens(lm, [one], lengths=[length])[0].blanks[0].tokens
            now = join(now[:at], filled, now[at + 1 :])
            shift += len(filled) - 1

    told(result, "8 blanks, encoded again", again, 8 * length)
    prompt, eop = masked(*text), lm.ids.eop
    forced = [[[*candidate, eop]] for candidate in candidates]
    count = sum(map(len, candidates))

    def together():
        fill_tokens(lm, [prompt] * len(forced), forced=forced, batch_size=len(forced))

    def one_by_one():
        for each in forced:
            fill_tokens(lm, [prompt], forced=[each])

    told(result, "100 candidates", together, count)
    told(result, "100 candidates, one by one", one_by_one, count)
    return result


def join(*parts):
    """Put tokens together."""
    import numpy as np

    return np.concatenate(parts).astype(np.int32)


def bandwidth():
    """Bytes a second that the threads read from memory: the best of five sums."""
    import torch

    data = torch.ones(BANDWIDTH_BYTES // 4)
    data.sum()
    found = []
    for _ in range(5):
        start = time.perf_counter()
        data.sum()
        found.append(BANDWIDTH_BYTES / (time.perf_counter() - start))
    return max(found)


def language_model(size, kind):
    """A model in use of random weights, and the bytes of them that a token reads."""
    import torch

    from blankfill.config.objective import ObjectiveConfig
    from blankfill.config.run import RunConfig
    from blankfill.config.train import TrainConfig
    from blankfill.generate import LanguageModel
    from blankfill.model.glm import GLM
    from blankfill.model.init import init_weights
    from blankfill.text.vocabularies import NoVocabulary

    cfg = model_config(size)
    model, options = GLM(cfg).eval(), {}
    init_weights(model, 0)
    if kind == "bfloat16":
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data = parameter.data.bfloat16()
    elif kind.startswith("int"):
        from blankfill.model.quantized import quantize

        quantize(model, int(kind.removeprefix("int")))
    # A token reads every weight once, but of the embedding what the output layer reads.
    tensors = [*model.parameters(), *model.buffers()]
    num_bytes = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    try:
        from blankfill.generate.loading import make_ready, quickest_products
    except ImportError:  # an earlier source
        assert kind == "float32"
    else:
        make_ready(model)
        options["cpu_precision"] = quickest_products(model)
    run = RunConfig(
        model=cfg, objective=ObjectiveConfig(positions="corrupted"),
        train=TrainConfig(row_length=cfg.max_position),
    )  # fmt: skip
    assert all(tensor.device == torch.device("cpu") for tensor in tensors)
    lm = LanguageModel(model=model, tokenizer=NoVocabulary(VOCABULARY), cfg=run, **options)
    return lm, num_bytes


def measure_peer(size, kind, threads, side, folder):
    """The same by transformers' `generate`, of one text and of 32."""
    import torch

    torch.set_num_threads(threads)
    works, _ = texts()
    model, mask, end = exported(size, folder) if side == PEERS[0] else gpt2(size)
    model = model.to(getattr(torch, kind)).eval()
    result = {}
    for name in ("one text", "32 texts"):
        prompts, lengths = works[name]
        longest = max(len(tokens) for tokens, _ in prompts)
        rows = torch.zeros(len(prompts), longest + len(end), dtype=torch.long)
        seen = torch.zeros_like(rows)
        for k, (tokens, places) in enumerate(prompts):
            own = torch.tensor([*tokens.tolist(), *end])
            if mask is not None:
                own[places] = mask
            rows[k, -len(own) :], seen[k, -len(own) :] = own, 1
        most = max(lengths)  # a batch of transformers goes on until its last row is done
        told(result, name, generating(model, rows, seen, most), sum(lengths))
    return result


def generating(model, rows, seen, count):
    """A call of `generate` that writes so many tokens to each row."""
    import torch

    def work():
        with torch.inference_mode():
            made = model.generate(
                input_ids=rows, attention_mask=seen, do_sample=False, min_new_tokens=count,
                max_new_tokens=count,
            )  # fmt: skip
        assert made.shape[1] == rows.shape[1] + count, made.shape

    return work


def exported(size, folder):
    """The model exported to transformers; its mask, and what stands after a text."""
    from transformers import AutoModelForCausalLM

    from blankfill.interop.export_hf import write_hf

    lm, _ = language_model(size, "float32")
    out = Path(folder) / size
    if not out.exists():
        out.mkdir()
        write_hf(out, lm, max_shard_bytes=10**10)
    roles = ("mask", "smask", "gmask", "sop", "eop", "eos", "pad", "dblock")
    special_ids = {role: getattr(lm.ids, role) for role in roles}
    model = AutoModelForCausalLM.from_pretrained(
        out, trust_remote_code=True, special_ids=special_ids
    )
    return model, lm.ids.mask, [lm.ids.sop]


def gpt2(size):
    """A GPT-2 of the same shape, of random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    hidden, layers, heads = SIZES[size]
    cfg = GPT2Config(
        vocab_size=VOCABULARY, n_positions=ROW, n_embd=hidden, n_layer=layers, n_head=heads,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(cfg), None, []


def model_config(size):
    """The shape of a size."""
    from blankfill.config.model import ModelConfig

    hidden, layers, heads = SIZES[size]
    return ModelConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_layers=layers, num_heads=heads,
        ffn_size=8 * hidden // 3, max_position=ROW,
    )  # fmt: skip


if __name__ == "__main__":
    main()
