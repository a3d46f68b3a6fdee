"""`blankfill report`: what runs did, as one HTML file to keep, send or print."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blankfill.api.parameters import PathLike, Paths, as_list, as_path
from blankfill.config.arguments import checks_arguments
from blankfill.errors import ConfigError
from blankfill.results import short_repr

__all__ = ["ReportResult", "report"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportResult:
    """Where a report is."""

    path: str
    """The file."""
    num_bytes: int
    """Its size."""
    runs: list[str]
    """The names of the runs in it, in the order of their colours."""

    __repr__ = short_repr


@checks_arguments
def report(
    runs: Paths,
    /,
    *,
    out: PathLike = Path("report.html"),
    lang: Literal["en", "zh"] = "en",
) -> ReportResult:
    """Write a report of one run, or of several side by side, as one HTML file.

    Curves of loss, learning rate, gradient norm and speed, sample fills, held-out blanks beside
    n-gram models where `blankfill evaluate` has recorded them, final figures, configuration, data
    and machine. The file needs no network and no other file. A run may still be going on.

    Example:
        blankfill report runs/mine --out report.html

    Args:
        runs: the folder of a run, or of several, which are compared.
        out: the file to write; an earlier report there is replaced, a pipe is written into.
        lang: language of the report.

    Raises:
        CheckpointError: a folder is not a run.
        ConfigError: no run is named.
        OutputError: the file is not a report and would be lost, or cannot be written.
    """
    from blankfill.disk.new_file import NewFile
    from blankfill.metrics.names import unique_names
    from blankfill.report import build_page, is_report, read_history, unlike
    from blankfill.runs import locate

    # A report is of whole runs, so a checkpoint's folder stands for its run.
    paths = [locate(Path(run)).run for run in as_list(runs)]
    if not paths:
        raise ConfigError("no run was named; try: blankfill report runs/mine")
    out = as_path(out)
    with NewFile(out, "a report", is_report) as file:
        records = [read_history(path) for path in paths]
        names = unique_names(paths)
        if reason := unlike(records, names, "en"):
            log.warning("%s", reason)
        page = build_page(records, names, lang).encode("utf-8", "replace")
        file.write(page)
    return ReportResult(path=str(out), num_bytes=len(page), runs=names)
