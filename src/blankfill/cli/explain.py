"""How an example looks in a terminal, in English or Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from blankfill.cli.console import Answer, new_table

if TYPE_CHECKING:
    from rich.table import Table

    from blankfill.api.explain import ExplainResult
    from blankfill.data.statistics import EpochStatistics

__all__ = ["print_explain"]

WORDS = {
    "en": {
        "head": "{kind} blanks at {spans}, generated in the order {order}; {positions} positions",
        "draw": "drawn from the mixture {mixture}: kind {drawn_kind}, lengths {lengths}, placement "
        "{placement}, spans end in {end}; seed {seed}, epoch {epoch}, document {index}",
        "part": "part", "token": "token", "position": "position", "in span": "in span",
        "target": "target", "weight": "weight", "segment": "segment",
        "mask": "who sees whom (row looks at column): # Part A, + Part B, . nothing",
        "drawn": "drawn: {picture}",
        "how": "Part A is the text with its blanks, read in both directions. Part B is what was "
        "cut out: each span after [S], written left to right until [E], seeing all of Part A.",
        "epoch": "one epoch: {rows:,} rows of {row_length} positions, {examples:,} examples, "
        "{tokens:,} tokens ({stored:,} in the store); fill {fill:.2%}",
        "targets": "targets: {targets:,} = {masked:,} masked tokens + {ends:,} ends; lost: {lost}; "
        "a row has {mean:.1f} ({low:.0f} to {high:.0f})",
        "kinds": "kind", "share": "share of examples", "masked": "masked share",
        "fallbacks": "{fallbacks:,} examples took another kind than the drawn one: their documents "
        "were too short for it",
        "length": "span length", "found": "found", "law": "law",
    },
    "zh": {
        "head": "{kind} 类空白，位于 {spans}，生成顺序 {order}；位置方案 {positions}",
        "draw": "取自配方 {mixture}：类型 {drawn_kind}，长度 {lengths}，放置 {placement}，片段以 "
        "{end} 结尾；种子 {seed}，第 {epoch} 轮，文档 {index}",
        "part": "部分", "token": "词元", "position": "位置", "in span": "片段内", "target": "目标",
        "weight": "权重", "segment": "段",
        "mask": "谁能看见谁（行看列）：# 看见 A 部分，+ 看见 B 部分，. 看不见",
        "drawn": "已画出：{picture}",
        "how": "A 部分是带空白的原文，双向可见。B 部分是被挖出的片段：每段以 [S] 开头，从左到右"
        "写到 [E] 为止，能看见整个 A 部分。",
        "epoch": "一轮：{rows:,} 行，每行 {row_length} 个位置，{examples:,} 个样本，"
        "{tokens:,} 个词元（库中 {stored:,} 个）；填充率 {fill:.2%}",
        "targets": "目标：{targets:,} = 被遮词元 {masked:,} + 结束符 {ends:,}；丢失：{lost}；"
        "每行 {mean:.1f} 个（{low:.0f} 到 {high:.0f}）",
        "kinds": "类型", "share": "样本占比", "masked": "遮盖比例",
        "fallbacks": "{fallbacks:,} 个样本没有采用抽到的类型：文档太短",
        "length": "片段长度", "found": "实际", "law": "分布律",
    },
}  # fmt: skip


def print_explain(result: ExplainResult, console: Answer) -> None:
    """Print the table of tokens, then the mask where it is small enough; or the statistics."""
    words = WORDS[result.language]
    if result.statistics is not None:
        _print_statistics(result.statistics, words, console)
        return
    spans = ", ".join(f"{start}:{end}" for start, end in result.spans)
    console.print(
        words["head"].format(
            kind=result.kind, spans=spans, order=result.order, positions=result.positions
        ),
    )
    if draw := result.draw:
        text = words["draw"].format(
            mixture=draw.mixture, drawn_kind=draw.drawn_kind, lengths=draw.lengths,
            placement=draw.placement, end=draw.end, seed=draw.seed, epoch=draw.epoch,
            index=draw.index,
        )  # fmt: skip
        console.print(text)
    console.print(words["how"])
    console.print(_table(result, words))
    if result.mask:
        console.print(words["mask"])
        width = max(cell_len(row.token) for row in result.tokens)
        for row, line in zip(result.tokens, result.mask, strict=True):
            console.print(f"{' ' * (width - cell_len(row.token))}{row.token}  {line}")
    if result.picture:
        console.print(words["drawn"].format(picture=result.picture))


def _table(result: ExplainResult, words: dict[str, str]) -> Table:
    schemes = result.compare or {
        "": [[r.position for r in result.tokens], [r.block_position for r in result.tokens]]
    }
    positions = tuple(
        f"{name}\n{words[column]}".strip() for name in schemes for column in ("position", "in span")
    )
    numbers = (*positions, words["weight"], words["segment"])
    table = new_table(
        words["part"], words["token"], *positions, words["target"], words["weight"],
        words["segment"], right=numbers,
    )  # fmt: skip
    before = "A"
    for i, row in enumerate(result.tokens):
        if row.part != before:
            table.add_section()
            before = row.part
        table.add_row(
            row.part, row.token,
            *(str(scheme[dimension][i]) for scheme in schemes.values() for dimension in (0, 1)),
            row.target or "", f"{row.weight:g}" if row.target else "", str(row.segment),
            style="" if row.part == "A" else "bold",
        )  # fmt: skip
    return table


def _print_statistics(found: EpochStatistics, words: dict[str, str], console: Answer) -> None:
    console.print(
        words["epoch"].format(
            rows=found.rows, row_length=found.row_length, examples=found.examples,
            tokens=found.tokens, stored=found.tokens_in_stores, fill=found.fill,
        ),
        words["targets"].format(
            targets=found.targets, masked=found.masked_tokens, ends=found.ends, lost=found.lost,
            mean=found.targets_per_row["mean"], low=found.targets_per_row["min"],
            high=found.targets_per_row["max"],
        ),
        sep="\n",
    )  # fmt: skip
    if found.fallbacks:
        console.print(words["fallbacks"].format(fallbacks=found.fallbacks))
    kinds = new_table(words["kinds"], right=(words["share"], words["masked"]))
    for name, share in found.kinds.items():
        kinds.add_row(name, f"{share:.1%}", f"{found.masked_share[name]:.1%}")
    console.print(kinds)
    if any(found.span_lengths.values()):
        lengths = new_table(right=(words["length"], words["found"], words["law"]))
        for name, share in found.span_lengths.items():
            lengths.add_row(name, f"{share:.2%}", f"{found.length_law[name]:.2%}")
        console.print(lengths)
