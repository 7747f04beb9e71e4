"""What to forget, what to keep and what to compare with: people, a file, a benchmark or a world."""

from unsee.requests.albums import Sides
from unsee.requests.datasets import read_dataset
from unsee.requests.folders import from_folders, read_sides, read_subjects
from unsee.requests.people import from_people
from unsee.requests.request import Probe, Reference, Request, Scope, from_world
from unsee.requests.rows import read_rows

__all__ = [
    "Probe",
    "Reference",
    "Request",
    "Scope",
    "Sides",
    "from_folders",
    "from_people",
    "from_world",
    "read_dataset",
    "read_rows",
    "read_sides",
    "read_subjects",
]
