"""Memory: the published formulas of activations, and what more memory changes."""

import dataclasses

import pytest

from blankfill.config.layout import LayoutConfig
from blankfill.config.presets import preset
from blankfill.plan.hardware import GPUS, Cluster, OwnFigures, find_gpu
from blankfill.plan.layout import Layout
from blankfill.plan.memory import Moments, activation_bytes, fullest_rank
from blankfill.plan.network import Network
from blankfill.plan.practice import BLANKFILL, LARGESCALE, MEGATRON_2021, MEGATRON_2022
from blankfill.plan.published import RUNS
from blankfill.plan.search import Task, candidates, search
from blankfill.plan.step import costs_of

GPT = Network(
    num_layers=96, hidden_size=12288, num_heads=96, kv_heads=96, ffn_size=4 * 12288,
    vocab_size=51200, row_length=2048, is_gated=False, dropout=True, attention_dropout=True,
)  # fmt: skip
S, H, A = 2048, 12288, 96


@pytest.mark.parametrize("t", [1, 2, 8])
@pytest.mark.parametrize("rows", [1, 4])
def test_activations_are_those_of_korthikanti_et_al(t, rows):
    sbh = S * rows * H

    def kept(practice, recompute):
        return activation_bytes(GPT, practice, recompute, tensor=t, rows=rows)

    scores = 5 * A * S / H
    assert kept(MEGATRON_2021, "none") == pytest.approx(sbh * (10 + 24 / t + scores / t))
    assert kept(MEGATRON_2022, "none") == pytest.approx(sbh / t * (34 + scores))
    assert kept(MEGATRON_2022, "selective") == pytest.approx(sbh / t * 34)
    assert kept(MEGATRON_2021, "full") == pytest.approx(sbh * 2)
    assert kept(MEGATRON_2022, "full") == pytest.approx(sbh * 2 / t)


def test_a_gated_block_with_fused_attention_keeps_both_halves_and_their_product():
    glm = preset("glm-130b")
    network = dataclasses.replace(
        Network.of(glm.model, 2048, glm.objective), dropout=False, attention_dropout=False
    )
    kept = activation_bytes(network, BLANKFILL, "none", tensor=1, rows=1)
    # norms 4 x 2, q k v and the result 4 x 2, halves and product 3 x 2 of 32768; log-sum-exp.
    assert kept == 2048 * (12288 * (8 + 8) + 32768 * 6 + 4 * 96)
    assert activation_bytes(network, BLANKFILL, "full", tensor=1, rows=1) == 2048 * 12288 * 2


def test_recomputing_more_keeps_less():
    fused = dataclasses.replace(GPT, is_gated=True, attention_dropout=False)
    for network, kinds in ((GPT, 3), (fused, 2)):  # fused attention keeps no attention weights
        sizes = [
            activation_bytes(network, BLANKFILL, recompute, tensor=2, rows=2)
            for recompute in ("none", "selective", "full")
        ]
        assert sizes == sorted(sizes, reverse=True)
        assert len({*sizes}) == kinds


def test_a_receive_buffer_for_every_micro_batch_costs_glm_130b_16_gib():
    # 176 micro-batches of 2048 x 12288 halves, from either side, on a middle rank.
    run = RUNS[0]
    practice = dataclasses.replace(LARGESCALE, receives_all=True)
    memory = fullest_rank(
        run.network, practice, run.layout, run.rows, run.costs.cut, Moments()
    )  # fmt: skip
    assert memory.rank not in (0, 7)
    assert memory.receive_buffers / 2**30 == pytest.approx(16.5, abs=0.01)


def test_the_first_stage_of_glm_130b_holds_what_its_weights_say():
    # 8 blocks and the embedding over 4 ranks, in float16, with states over 24.
    run = RUNS[0]
    weights = (8 * 1_812_115_456 + 150_528 * 12288) / 4
    memory = run.memory
    assert memory.weights == pytest.approx(2 * weights, rel=0.01)
    assert memory.gradients == pytest.approx(2 * weights, rel=0.01)
    assert memory.optimizer == pytest.approx(12 * weights / 24, rel=0.01)


def task(name, gpu, nodes, *, wishes=None, **own):
    cfg = preset(name)
    return Task(
        name=name, network=Network.of(cfg.model, cfg.train.row_length, cfg.objective),
        practice=BLANKFILL, train=cfg.train, moments=Moments(), wishes=wishes or LayoutConfig(),
        cluster=Cluster(gpu=find_gpu(gpu, OwnFigures(**own)), nodes=nodes, gpus_per_node=8),
    )  # fmt: skip


def how_many_fit(of):
    fitting = 0
    for layout in candidates(of):
        costs = costs_of(of.network, of.practice, of.cluster, layout)
        memory = fullest_rank(
            of.network, of.practice, layout, of.train.batch_rows, costs.cut, of.moments
        )
        fitting += memory.total <= of.cluster.gpu.memory_bytes
    return fitting


@pytest.mark.parametrize(("name", "nodes"), [("glm-10b", 1), ("glm-130b", 8), ("xl", 1)])
def test_more_memory_never_makes_fewer_layouts_fit_nor_the_best_slower(name, nodes):
    wishes = LayoutConfig(schedule="1f1b") if name == "glm-130b" else None
    counts, seconds = [], []
    for gb in (10, 40, 80, 141, 1000):
        of = task(name, "H100", nodes, wishes=wishes, memory_gb=gb)
        counts.append(how_many_fit(of))
        answer = search(of)
        seconds.append(answer.fitting[0].seconds if answer.fitting else float("inf"))
        assert (counts[-1] == 0) == (answer.leanest is not None)
    assert counts == sorted(counts)
    assert seconds == sorted(seconds, reverse=True)


def test_what_is_listed_fits_and_the_fastest_stands_first():
    of = task("glm-130b", "H100", 16)
    answer = search(of)
    assert len(answer.fitting) == 10
    assert all(found.spare(of.cluster) >= 0 for found in answer.fitting)
    assert all(found.spare(of.cluster) < 0 for found in answer.failing)
    seconds = [found.seconds for found in answer.fitting]
    assert seconds == sorted(seconds)
    assert all(found.seconds < seconds[0] for found in answer.failing)


@pytest.mark.parametrize("gpu", GPUS)
def test_sharding_spreads_what_is_owned(gpu):
    of = task("glm-10b", gpu, 1)
    owned = [
        fullest_rank(
            of.network, BLANKFILL, Layout(shard=n, replicate=8 // n), 4032, (48,), of.moments
        )
        for n in (1, 2, 4, 8)
    ]
    for kind in ("gradients", "optimizer"):
        sizes = [getattr(memory, kind) for memory in owned]
        assert sizes == pytest.approx([sizes[0] / n for n in (1, 2, 4, 8)])
