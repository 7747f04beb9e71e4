"""Several requests on one base: runs that were made one on top of another."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.artifacts.canary import Opened
from unsee.artifacts.files import load_manifest
from unsee.artifacts.manifest import StackedRun, run_fingerprint
from unsee.errors import ArtifactError


def check_base(vlm: Opened, manifest: Mapping[str, Any], *, where: Path) -> None:
    """Refuse an artifact of another base model.

    Raises:
        ArtifactError: Names both.
    """
    if manifest["base_fingerprint"] != vlm.fingerprint:
        raise ArtifactError(
            f"{where}: made for base {manifest['base_fingerprint']} "
            f"({manifest['base_source']}), got {vlm.fingerprint} ({vlm.source}); "
            "load the model it was made for"
        )


def check_beneath(
    beneath: Sequence[StackedRun], manifest: Mapping[str, Any], *, where: Path
) -> None:
    """Refuse an artifact on anything but the runs that it was fitted on, in their order.

    Args:
        beneath: The runs that are on the model.
        manifest: Of the run that is to come on top.
        where: Its folder.

    Raises:
        ArtifactError: Says which runs are missing and how to give them, or which are too many.
    """
    wanted = stack_of(manifest)
    if [run.fingerprint for run in wanted] == [run.fingerprint for run in beneath]:
        return
    if not wanted:
        advice = "leave those out, or forget again with them"
    else:
        flags = " ".join(f"--artifact {run.folder}" for run in wanted)
        advice = f"give {flags} before it"
    raise ArtifactError(
        f"{where}: made on top of {_named(wanted)}, got {_named(beneath)} beneath it; {advice}"
    )


def stack_of(manifest: Mapping[str, Any]) -> tuple[StackedRun, ...]:
    """The runs that a run was fitted on, the first one first; none for one on the base alone."""
    return tuple(StackedRun.model_validate(run) for run in manifest.get("stack", ()))


def read_stack(vlm: Opened, folders: Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Manifests of runs that are to be put on a model in this order; the model is not touched.

    Raises:
        ArtifactError: If a run is incomplete, was made for another base, or was not made on top
            of what comes before it.
    """
    beneath, manifests = vlm.stack, []
    for folder in map(Path, folders):
        manifest = load_manifest(folder)
        check_base(vlm, manifest, where=folder)
        # An eraser goes over any weights of its base, and no weights are made on top of it.
        if manifest["kind"] != "eraser":
            check_beneath(beneath, manifest, where=folder)
            beneath += (StackedRun(fingerprint=run_fingerprint(manifest), folder=str(folder)),)
        manifests.append(manifest)
    return manifests


def _named(runs: Sequence[StackedRun]) -> str:
    return ", ".join(map(str, runs)) if runs else "the base alone"
