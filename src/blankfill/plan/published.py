"""Runs that others published, which the plan's arithmetic is held against.

Each is described by its network, hardware, layout and program, and has its published figure as
seconds of a step. Two numbers of the whole plan were fitted, the shares in
`hardware.SUSTAINED_SHARE`, on the runs marked `fitted`: one of each source and family. All others
are checks. What a paper does not say is an assumption of ours, and stands in `assumed`.

Shapes: B rows, s positions of a row, l layers, h hidden, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blankfill.config.train import RecomputeKind
from blankfill.plan.hardware import GPUS, MEASURED_SHARE, Cluster, Family, Gpu
from blankfill.plan.layout import Layout
from blankfill.plan.memory import Memory, Moments, fullest_rank
from blankfill.plan.network import Network
from blankfill.plan.practice import (
    FOUNDRY,
    FOUNDRY_PURE,
    LARGESCALE,
    MEGATRON_2021,
    MEGATRON_2022,
    TITAN,
    TITAN_COMPILED,
    Practice,
)
from blankfill.plan.step import Costs, StepTime, costs_of

__all__ = ["RUNS", "PublishedRun", "fit_share"]

GPUS_PER_NODE: Final = 8
CAUSAL: Final = 0.5
"""Share of a row's pairs that causal attention computes."""
GLM_130B: Final = "GLM-130B, logs/main-log-en.md and its launch script"
NARAYANAN: Final = "Narayanan et al. 2021 (arXiv 2104.04473)"
KORTHIKANTI: Final = "Korthikanti et al. 2022 (arXiv 2205.05198)"
TORCHTITAN: Final = "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md"
TORCHTITAN_2025: Final = "torchtitan, benchmarks of June 2025"
LLM_FOUNDRY: Final = "llm-foundry, scripts/train/benchmarking/README.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """One run and its published figure."""

    name: str
    source: str
    gpu: Gpu
    network: Network
    practice: Practice
    layout: Layout
    rows: int
    """Of a step."""
    seconds: float
    """Of a step, as published or as follows from what is."""
    figure: str
    """What was published."""
    recompute: str = ""
    """In place of the layout's, where the program has another way."""
    assumed: str = ""
    """What the source does not say."""
    fitted: bool = False
    """Whether it had a part in fitting; otherwise it is a check."""
    memory_gib: float | None = None
    """Published peak."""

    @property
    def costs(self) -> Costs:
        """What its steps cost, by the plan's arithmetic."""
        nodes = math.ceil(self.layout.num_gpus / GPUS_PER_NODE)
        cluster = Cluster(gpu=self.gpu, nodes=nodes, gpus_per_node=GPUS_PER_NODE)
        return costs_of(
            self.network, self.practice, cluster, self.layout, recompute=self.recompute
        )  # fmt: skip

    @property
    def planned(self) -> StepTime:
        """Its step by the plan's arithmetic."""
        return self.costs.step(self.rows)

    @property
    def difference(self) -> float:
        """Planned over published seconds, less 1."""
        return self.planned.total / self.seconds - 1

    @property
    def memory(self) -> Memory:
        """What its fullest rank holds, by the plan's arithmetic."""
        return fullest_rank(
            self.network, self.practice, self.layout, self.rows, self.costs.cut, Moments(),
            recompute=self.recompute,
        )  # fmt: skip


def fit_share(runs: Iterable[PublishedRun], family: Family) -> float:
    """Find the share of a family's best product that makes the fitted runs' mean difference zero.

    The mean is of logarithms, so that a run at twice the time and one at half of it balance.
    """
    chosen = [run for run in runs if run.fitted and run.gpu.family == family]
    low, high = 0.3, 1.5
    for _ in range(40):
        middle = (low + high) / 2
        share = MEASURED_SHARE[family] * middle
        moved = (
            dataclasses.replace(run, gpu=dataclasses.replace(run.gpu, product_share=share))
            for run in chosen
        )
        slower = sum(math.log1p(run.difference) for run in moved) > 0
        low, high = (middle, high) if slower else (low, middle)
    return (low + high) / 2


def _gpt(layers: int, hidden: int, heads: int) -> Network:
    """GPT as both Megatron papers train it: rows of 2,048, V 51,200, dropout everywhere."""
    return Network(
        num_layers=layers, hidden_size=hidden, num_heads=heads, kv_heads=heads,
        ffn_size=4 * hidden, vocab_size=51_200, row_length=2048, is_gated=False, rotary=False,
        position_rows=2048, dropout=True, attention_dropout=True,
    )  # fmt: skip


def _glm_130b(rows: int, seconds: float, *, fitted: bool = False) -> PublishedRun:
    network = Network(
        num_layers=70, hidden_size=12288, num_heads=96, kv_heads=96, ffn_size=32768,
        vocab_size=150_528, row_length=2048, is_gated=True, dropout=True, attention_dropout=True,
    )  # fmt: skip
    return PublishedRun(
        name=f"GLM-130B, {rows:,} rows", source=GLM_130B, gpu=GPUS["A100-40"], network=network,
        practice=LARGESCALE, rows=rows, seconds=seconds, figure=f"{seconds} s", fitted=fitted,
        layout=Layout(shard=24, tensor=4, pipeline=8, recompute="full"),
        assumed="the network of DGX A100",
    )  # fmt: skip


def _narayanan(
    shape: tuple[int, int, int], tensor: int, pipeline: int, gpus: int, rows: int, tflops: float, *,
    name: str, micro: int = 1, chunks: int = 1, assumed: str = "", fitted: bool = False,
) -> PublishedRun:  # fmt: skip
    """Turn a rate into seconds: it counts 96 B s l h^2 (1 + s/6h + V/16lh) operations."""
    layers, hidden, _ = shape
    network = _gpt(*shape)
    s, vocab = network.row_length, network.vocab_size
    counted = 1 + s / (6 * hidden) + vocab / (16 * layers * hidden)
    operations = 96 * rows * s * layers * hidden**2 * counted
    return PublishedRun(
        name=name, source=NARAYANAN, gpu=GPUS["A100-80"], network=network,
        practice=MEGATRON_2021, rows=rows, seconds=operations / gpus / (tflops * 1e12),
        figure=f"{tflops:g} TFLOP/s", fitted=fitted, assumed=assumed,
        layout=Layout(
            replicate=gpus // tensor // pipeline, tensor=tensor, pipeline=pipeline, chunks=chunks,
            schedule="interleaved" if chunks > 1 else "1f1b", recompute="full",
            micro_batch_rows=micro,
        ),
    )  # fmt: skip


def _korthikanti(
    shape: tuple[int, int, int], pipeline: int, rows: int, seconds: float, *, name: str,
    micro: int = 1, chunks: int = 1, fitted: bool = False,
) -> PublishedRun:  # fmt: skip
    return PublishedRun(
        name=name, source=KORTHIKANTI, gpu=GPUS["A100-80"], network=_gpt(*shape),
        practice=MEGATRON_2022, rows=rows, seconds=seconds, figure=f"{seconds} s", fitted=fitted,
        layout=Layout(
            tensor=8, pipeline=pipeline, chunks=chunks, recompute="selective",
            schedule="interleaved" if chunks > 1 else "1f1b", micro_batch_rows=micro,
        ),
    )  # fmt: skip


H100_500_WATTS: Final = dataclasses.replace(
    GPUS["H100"], name="H100-96 at 500 W", peak_flops=912e12, memory_bytes=96e9,
    memory_bandwidth=2.4e12, watts=500,
)  # fmt: skip
"""torchtitan's card: its page gives 2.4 TB/s, 500 W, and a peak "between SXM and NVL", of which
this is the middle (989 and 835 TFLOP/s)."""


def _llama(layers: int, hidden: int, heads: int, ffn: int) -> Network:
    return Network(
        num_layers=layers, hidden_size=hidden, num_heads=heads, kv_heads=8, ffn_size=ffn,
        vocab_size=128_256, row_length=8192, is_gated=True, biases=False, tied=False,
        visible=CAUSAL,
    )  # fmt: skip


def _torchtitan(
    gpus: int, practice: Practice, rate: float, gib: float, *, fitted: bool = False
) -> PublishedRun:
    how = ", compiled" if practice is TITAN_COMPILED else ""
    return PublishedRun(
        name=f"Llama 8B on {gpus}{how}", source=TORCHTITAN, gpu=H100_500_WATTS,
        network=_llama(32, 4096, 32, 14336), practice=practice, rows=2 * gpus,
        seconds=2 * 8192 / rate, figure=f"{rate:,.0f} tokens/s a GPU", memory_gib=gib,
        layout=Layout(shard=gpus, micro_batch_rows=2, recompute="selective"), recompute="half",
        assumed="peak halfway between H100 SXM and NVL", fitted=fitted,
    )  # fmt: skip


def _mpt(
    shape: tuple[int, int, int], gpu: str, gpus: int, micro: int, rows: int, rate: float, *,
    name: str, recompute: RecomputeKind = "none", practice: Practice = FOUNDRY,
    fitted: bool = False,
) -> PublishedRun:  # fmt: skip
    layers, hidden, heads = shape
    network = Network(
        num_layers=layers, hidden_size=hidden, num_heads=heads, kv_heads=heads,
        ffn_size=4 * hidden, vocab_size=50_368, row_length=2048, is_gated=False, biases=False,
        rotary=False, position_rows=2048, visible=CAUSAL,
    )  # fmt: skip
    return PublishedRun(
        name=f"{name} on {gpus} {gpu}", source=LLM_FOUNDRY, gpu=GPUS[gpu], network=network,
        practice=practice, rows=rows, seconds=rows * 2048 / gpus / rate, fitted=fitted,
        figure=f"{rate:,.0f} tokens/s a GPU",
        layout=Layout(shard=gpus, micro_batch_rows=micro, recompute=recompute),
    )  # fmt: skip


_ROWS = "micro-batch of 4 rows"
_CHUNKED = "micro-batch of {} rows, 2 stages a rank (interleaved, as the text says)"
_ONE = "micro-batch of 1 row, 1 stage a rank"
RUNS: Final[tuple[PublishedRun, ...]] = (
    _glm_130b(4224, 88.5),
    _glm_130b(6144, 122.5, fitted=True),
    _narayanan((24, 2304, 24), 1, 1, 32, 512, 137, name="1.7B on 32", micro=4, assumed=_ROWS),
    _narayanan((36, 4096, 32), 4, 1, 128, 512, 142, name="7.5B on 128", micro=4, assumed=_ROWS),
    _narayanan((48, 8192, 64), 8, 2, 512, 1536, 138, name="39.1B on 512", micro=4, chunks=2,
               assumed=_CHUNKED.format(4)),
    _narayanan((80, 12288, 96), 8, 8, 1536, 2304, 148, name="145.6B on 1536", micro=2, chunks=2,
               assumed=_CHUNKED.format(2)),
    _narayanan((128, 25600, 160), 8, 64, 3072, 3072, 163, name="1008B on 3072", chunks=2,
               assumed=_CHUNKED.format(1)),
    _narayanan((96, 12288, 96), 8, 12, 384, 1536, 153, name="175B on 384", assumed=_ONE,
               fitted=True),
    _narayanan((96, 12288, 96), 8, 12, 1536, 1536, 141, name="175B on 1536", assumed=_ONE),
    _narayanan((105, 20480, 128), 8, 35, 560, 2240, 171, name="530B on 560", assumed=_ONE),
    _narayanan((105, 20480, 128), 8, 35, 2240, 2240, 159, name="530B on 2240", assumed=_ONE),
    _korthikanti((48, 6144, 64), 1, 4, 1.10, name="22B on 8", micro=4, fitted=True),
    _korthikanti((96, 12288, 96), 8, 64, 13.75, name="175B on 64", chunks=3),
    _korthikanti((105, 20480, 128), 35, 280, 37.83, name="530B on 280", chunks=3),
    _korthikanti((128, 25600, 160), 64, 512, 71.49, name="1T on 512"),
    _torchtitan(8, TITAN, 5762, 82.4, fitted=True),
    _torchtitan(8, TITAN_COMPILED, 6667, 77.0),
    _torchtitan(128, TITAN, 5605, 67.0),
    _torchtitan(128, TITAN_COMPILED, 6514, 62.0),
    PublishedRun(
        name="Llama 70B on 256, compiled", source=TORCHTITAN_2025, gpu=H100_500_WATTS,
        network=_llama(80, 8192, 64, 28672), practice=TITAN_COMPILED, rows=512,
        seconds=16 * 8192 / 8 / 597, figure="597 tokens/s a GPU",
        layout=Layout(shard=32, tensor=8, micro_batch_rows=16, recompute="full"),
        assumed="peak halfway between H100 SXM and NVL",
    ),
    _mpt((24, 2048, 16), "H100", 8, 14, 112, 45455, name="MPT-1B"),
    _mpt((32, 4096, 32), "H100", 8, 6, 48, 10643, name="MPT-7B", fitted=True),
    _mpt((48, 7168, 64), "H100", 32, 14, 1344, 2308, name="MPT-30B", recompute="full"),
    _mpt((40, 5120, 40), "A100-40", 128, 16, 2048, 1972, name="MPT-13B", recompute="full",
         practice=FOUNDRY_PURE, fitted=True),
    _mpt((24, 2048, 16), "A100-80", 8, 14, 448, 20513, name="MPT-1B"),
    _mpt((32, 4096, 32), "A100-80", 8, 6, 96, 4641, name="MPT-7B"),
    _mpt((40, 5120, 40), "A100-80", 8, 2, 48, 2262, name="MPT-13B"),
)  # fmt: skip
"""Every run that the plan is held against, GLM-130B's two steps first."""
