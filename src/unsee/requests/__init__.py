"""What to forget, what to keep and what to compare with, from people folders or a world."""

from unsee.requests.folders import from_folders
from unsee.requests.request import Probe, Reference, Request, Scope, from_world

__all__ = ["Probe", "Reference", "Request", "Scope", "from_folders", "from_world"]
