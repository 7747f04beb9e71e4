"""Erasers as run folders, and a model under whatever a run folder holds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsee.artifacts import (
    apply_stack,
    atomic_write_json,
    load_manifest,
    read_stack,
    refuse_existing_run,
    versions,
)
from unsee.artifacts.canary import check_same
from unsee.artifacts.files import (
    FORMAT,
    MANIFEST,
    MANIFEST_KEYS,
    drafted,
    file_record,
    read_tensors,
    write_tensors,
)
from unsee.artifacts.stack import check_base
from unsee.erasers import ERASERS
from unsee.erasers.protocol import Eraser, erased
from unsee.errors import ArtifactError
from unsee.models.load import VLM
from unsee.models.restore import restored

ERASER = "eraser.safetensors"
CANARY = "canary.safetensors"


def save_eraser(
    folder: str | Path, vlm: VLM, eraser: Eraser, manifest_fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Write an eraser: its tensors, what its gates say of the probes, and the manifest last.

    Args:
        folder: The run folder, made with mode 0700; may hold no finished run.
        vlm: The base it was fitted on.
        eraser: What `fit` gave.
        manifest_fields: What the caller knows: method, settings, seeds, request.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: If the folder holds a run, or the eraser does nothing. Nothing is left
            behind then.
    """
    folder = Path(folder)
    refuse_existing_run(folder)
    clash = sorted(
        ({"versions", "created", "eraser", "stack"} | MANIFEST_KEYS) & set(manifest_fields)
    )
    if clash:
        raise ValueError(f"manifest fields {clash} are written by save_eraser itself")
    responses = eraser.respond()
    _check_acts(responses, where=folder)
    with drafted(folder) as draft:
        write_tensors(draft / ERASER, eraser.tensors())
        write_tensors(draft / CANARY, responses)
        manifest = {
            "format": FORMAT,
            "kind": "eraser",
            "base_fingerprint": eraser.base,
            "base_source": vlm.source,
            "stack": [run.model_dump() for run in vlm.stack],
            **manifest_fields,
            "eraser": {"name": eraser.name, **eraser.table()},
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {name: file_record(draft / name) for name in (ERASER, CANARY)},
            # Of the model; an eraser changes none.
            "tensors": {},
            "canary": {"dtype": "float32", "probes": "seeded normal vectors"},
        }
        atomic_write_json(draft / MANIFEST, manifest)
    return manifest


def load_eraser(vlm: VLM, folder: str | Path) -> Eraser:
    """The eraser of a run folder, after a look that it does what it did when it was saved.

    Args:
        vlm: The base.
        folder: The run folder.

    Raises:
        ArtifactError: If the run is incomplete or damaged, is no eraser, belongs to another base,
            or answers the probes otherwise than when it was saved.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    if manifest["kind"] != "eraser":
        raise ArtifactError(
            f"{folder}: expected an eraser, got {manifest['kind']!r}; put it on the model with "
            "--artifact"
        )
    check_base(vlm, manifest, where=folder)
    tensors = read_tensors(folder, ERASER, manifest)
    expected = read_tensors(folder, CANARY, manifest)
    try:
        table = manifest["eraser"]
        eraser = ERASERS.get(table["name"]).eraser.restored(table, tensors)
        responses = eraser.respond()
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ArtifactError(
            f"{folder}: {MANIFEST} and {ERASER} disagree ({error}); run the job again"
        ) from error
    _check_acts(expected, where=folder)
    check_same(
        responses,
        expected,
        torch.float32,
        where=str(folder),
        problem="loaded, but does not act as when it was saved; run the job again",
    )
    return eraser


@contextmanager
def under_artifacts(vlm: VLM, folders: Sequence[str | Path]) -> Iterator[VLM]:
    """Run a model as run folders make it; behind the block it is as it was, bit for bit.

    Args:
        vlm: The base.
        folders: Of changed weights, in the order in which they were made, and of erasers, which go
            over any weights of their base.

    Yields:
        The same model.

    Raises:
        ArtifactError: If a run cannot be used on this base.
    """
    runs = [Path(folder) for folder in folders]
    manifests = read_stack(vlm, runs)
    kinds = [manifest["kind"] for manifest in manifests]
    weights = [run for run, kind in zip(runs, kinds, strict=True) if kind != "eraser"]
    erasers = [
        load_eraser(vlm, run) for run, kind in zip(runs, kinds, strict=True) if kind == "eraser"
    ]
    changed = {name for manifest in manifests for name in manifest["tensors"]}
    stack = vlm.stack
    try:
        with restored(vlm.model, changed & set(vlm.model.state_dict())):
            apply_stack(vlm, weights)
            with erased(vlm, erasers):
                yield vlm
    finally:
        vlm.stack = stack


def _check_acts(responses: Mapping[str, Tensor], *, where: Path) -> None:
    """The base has neither gates nor pushes: its responses are 0."""
    for name, values in responses.items():
        if not (values.isfinite().all() and values.abs().amax() > 0):
            raise ArtifactError(
                f"{where}: the eraser does nothing, its {name} are 0 or not finite on the probes; "
                "run the job again"
            )
