"""The results as one JSON file and as a table."""

from __future__ import annotations

import json
import time
from typing import Any

from gpu_check import PARTS, Settings
from gpu_check.record import read_rows

__all__ = ["write_report"]


def write_report(settings: Settings, seconds: float, *, show: str) -> bool:
    """Write both files anew and print the lines of one part.

    Args:
        settings: of the whole check.
        seconds: time so far.
        show: letter of the part that was done last.

    Returns:
        Whether anything failed.
    """
    rows = read_rows(settings.out)
    failed = [row for row in rows if row["status"] in ("failed", "started")]
    report = {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "device": settings.device,
        "quick": settings.quick, "seconds": round(seconds, 1), "failed": len(failed), "rows": rows,
    }  # fmt: skip
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    temporary = settings.out / ".gpu-check.json.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(settings.out / "gpu-check.json")
    parts = {name: table(name, rows) for name in settings.parts}
    (settings.out / "gpu-check.txt").write_text("\n".join(filter(None, parts.values())) + "\n")
    print(parts[show], flush=True)
    return bool(failed)


def table(part: str, rows: list[dict[str, Any]]) -> str:
    """Lay out the rows of one part."""
    line = {"a": _test, "b": _way, "c": _step, "d": _life, "e": _pair}[part]
    own = [row for row in rows if row["part"] == part]
    if not own:
        return f"{part}: nothing was done"
    lines = [f"{part}: {PARTS[part].title}"]
    for row in own:
        said = row.get("error") or ("" if row["status"] == "left out" else line(row))
        if row.get("error") and "rate_ratio" in row:  # what failed was measured all the same
            said += "; " + line(row)
        lines.append(f"  {row['status']:9} {row['job']:48} {said}")
    return "\n".join(lines)


def _test(row: dict[str, Any]) -> str:
    return f"{row.get('took_seconds', 0):6.1f} s"


def _way(row: dict[str, Any]) -> str:
    errors = "  ".join(f"{name} {value:.1e}" for name, value in row["errors"].items())
    others = " ".join(f"{name} {value:.1e}" for name, value in row["between"].items())
    graphs = f"  graphs {row['graphs']}" if "graphs" in row else ""
    return (
        f"{1e3 * row['forward_seconds']:8.3f} ms there, {1e3 * row['seconds']:8.3f} both  "
        f"{row['visible_flops_per_second'] / 1e12:6.1f} TFLOP/s  {errors}  beside {others or '-'}"
        f"{graphs}{_memory(row)}"
    )


def _step(row: dict[str, Any]) -> str:
    if "product_flops_per_second" in row:
        return (
            f"{row.get('card', row['cpu'])}, torch {row['torch']}, Python {row['python']}: "
            f"products {row['product_flops_per_second'] / 1e12:.1f} TFLOP/s, "
            f"copies {row['copy_bytes_per_second'] / 1e12:.2f} TB/s"
        )
    waits = row.get("synchronisations") or {}
    counted = (
        f"{waits['main_thread']:.1f} + {waits['other_threads']:.1f} waits"
        if "main_thread" in waits
        else "waits not counted"
    )
    model = f" model {row['mfu_model']:5.1%}" if "mfu_model" in row else " " * 12
    more = (
        f"  {row['attention']}, {row['target_share']:.0%} targets, rows made at "
        f"{row['made_positions_per_second']:,.0f} pos/s"
        if "attention" in row
        else ""
    )
    return (
        f"{row['positions_per_second']:11,.0f} pos/s {1e3 * row['seconds']:8.1f} ms  MFU palm "
        f"{row['mfu_palm']:5.1%}{model}  {counted}  first {row['first_step_seconds']:.1f} s  "
        f"{row['parameters'] / 1e6:,.0f} M{more}{_memory(row)}"
    )


def _life(row: dict[str, Any]) -> str:
    if "languages" in row:
        return "; ".join(
            f"{each['language']}: "
            + ", ".join(
                f"{score['system']} ({score['reads']}) "
                f"{score['loss_nats_per_token']['value']:.2f} nats a token, "
                f"{score['exact_match_given_length']['value']:.0%} exact with the length given"
                for score in each["scores"]
            )
            for each in row["languages"]
        )
    losses = row.get("losses") or [[0, float("nan")]]
    said = (
        f"from step {row.get('began_at')} to {row.get('steps')}, loss {losses[0][1]:.2f} to "
        f"{losses[-1][1]:.2f}, {row.get('positions_per_second', 0):,.0f} pos/s, "
        f"MFU {row.get('mfu', 0):.1%}, {row.get('chosen')}"
    )
    if "largest_loss_difference" in row:
        said += (
            f", {row['steps_done_again']} lines done again, apart by "
            f"{row['largest_loss_difference']:.1e} nats at most"
        )
    return said


def _pair(row: dict[str, Any]) -> str:
    reached = "reached" if row["reached"] else "MISSED"
    sides = "; ".join(
        f"{name} {row[name]['positions_per_second']:,.0f} pos/s"
        f"{_memory(row[name])}{_waits(row[name])}"
        for name in ("sharded", "local")
    )
    return (
        f"{row['rate_ratio']:.3f} of the local rate (goal {row['goal']}: {reached}), "
        f"{row['backend']}; {sides}; {row['steps']} steps: losses apart by "
        f"{row['first_loss_difference']:.1e} at first and {row['loss_difference']:.1e} at most, "
        f"norms {row['norm_difference']:.1e}, weights {row['weights_apart']:.1e} of their way"
    )


def _waits(row: dict[str, Any]) -> str:
    waits = row["synchronisations"]
    return f"  {waits['main_thread']:.1f} waits" if "main_thread" in waits else ""


def _memory(row: dict[str, Any]) -> str:
    found = row.get("memory")
    return f"  {found['peak_bytes'] / 2**30:.1f} GiB" if found else ""
