"""report: one HTML page, SARIF and JSON from finished runs.

``doorward.report.report(runs, output)`` writes the page; `compose` makes it without writing; `sarif` gives the
findings as SARIF 2.1.0. A new verb's runs are reported once there is a module for it in `doorward.report.sections`.
"""

from __future__ import annotations

from doorward.report.page import Page, compose, report
from doorward.report.sarif import sarif
from doorward.verbs import make_callable

__all__ = ["Page", "compose", "report", "sarif"]

make_callable(__name__, report)
