"""Reports on any set of runs: Markdown, LaTeX tables, figures on paper and in one interactive page.

Everything is read from the run folders; the figures are those of `bottleneck_core.figures`.
"""

from bottleneck_core.report.files import FORMATS
from bottleneck_core.report.write import Request, write_report

__all__ = ["FORMATS", "Request", "write_report"]
