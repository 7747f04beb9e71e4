"""Reports: the data, the claim they support, and views of them.

`report.json` is the record; Markdown and HTML are drawn from it and add nothing to it.
"""

from unsee.report.schema import Report, Verdict
from unsee.report.storage import load, parse, save
from unsee.report.verdict import limits, verdict

__all__ = ["Report", "Verdict", "limits", "load", "parse", "save", "verdict"]
