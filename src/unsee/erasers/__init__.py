"""Forgetting at test time: no weight changes, and what is switched off is gone without a trace."""

from unsee.registry import Registry

ERASERS: Registry = Registry("eraser", "unsee.erasers")

from unsee.erasers import mllmeraser as mllmeraser  # noqa: E402
