"""Reports of runs: one HTML file that needs nothing else."""

from __future__ import annotations

from blankfill.report.page import MARK, build_page
from blankfill.report.read import RunRecord, read_record, unique_names

__all__ = ["MARK", "RunRecord", "build_page", "read_record", "unique_names"]
