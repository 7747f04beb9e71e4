"""Audit: base, erased and gold on the same questions, beside one another in a report."""

from unsee.audit.job import audit

__all__ = ["audit"]
