"""Reports of runs: one HTML file that needs nothing else."""

from __future__ import annotations

from blankfill.report.evaluations import unlike
from blankfill.report.page import build_page, is_report
from blankfill.report.read import RunHistory, read_history

__all__ = ["RunHistory", "build_page", "is_report", "read_history", "unlike"]
