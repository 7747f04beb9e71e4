"""The run folders we write and read: safetensors beside a manifest.

A folder is a run once it has a `manifest.json`, which is written last; whatever happens before
leaves no run. A weight artifact holds the changed tensors only, the fingerprint of the base they
belong to, the runs beneath it, and the canary that shows on every load that they act.
"""

from unsee.artifacts.canary import Canary, take_canary
from unsee.artifacts.files import (
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    cache_folder,
    fingerprint,
    load_manifest,
    refuse_existing_run,
    refuse_file,
    versions,
)
from unsee.artifacts.lock import locked
from unsee.artifacts.manifest import StackedRun, check_run, run_fingerprint
from unsee.artifacts.stack import read_stack
from unsee.artifacts.weights import apply_stack, apply_weights, save_weights

__all__ = [
    "Canary",
    "StackedRun",
    "apply_stack",
    "apply_weights",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "cache_folder",
    "check_run",
    "fingerprint",
    "load_manifest",
    "locked",
    "read_stack",
    "refuse_existing_run",
    "refuse_file",
    "run_fingerprint",
    "save_weights",
    "take_canary",
    "versions",
]
