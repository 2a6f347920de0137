"""The report: one offline HTML page that shows what ran, what the pictures look like and what the numbers say."""

from alberti.report.inputs import ReportInputs, Result
from alberti.report.page import build_report
from alberti.report.summary import headline_metrics, key_figures

__all__ = ["ReportInputs", "Result", "build_report", "headline_metrics", "key_figures"]
