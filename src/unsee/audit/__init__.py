"""Audit: base, erased and gold on the same questions, beside one another in a report."""

from unsee.audit.job import audit, refuse_other_base

__all__ = ["audit", "refuse_other_base"]
