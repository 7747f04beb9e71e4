"""Weight artifacts: the changed tensors, and what makes sure that they act."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsee.artifacts.canary import Canary, Opened, check_effect, check_same, distances, respond
from unsee.artifacts.files import (
    FORMAT,
    MANIFEST,
    MANIFEST_KEYS,
    atomic_write_json,
    drafted,
    file_record,
    load_manifest,
    read_tensors,
    refuse_existing_run,
    versions,
    write_tensors,
)
from unsee.artifacts.manifest import StackedRun, run_fingerprint
from unsee.artifacts.stack import check_base, check_beneath, read_stack
from unsee.errors import ArtifactError

WEIGHTS = "weights.safetensors"
ADAPTER = "adapter.safetensors"
CANARY = "canary.safetensors"


def save_weights(
    folder: str | Path,
    vlm: Opened,
    changed_names: Iterable[str],
    manifest_fields: Mapping[str, Any],
    canary: Canary,
    *,
    adapter: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Write a weight artifact: the changed tensors, the canary, and the manifest last.

    Args:
        folder: The run folder, made with mode 0700. It may hold other files of the same run, such
            as checkpoints, but no finished run.
        vlm: The model with its changes. `vlm.fingerprint` is still the base's, and `vlm.stack`
            tells the runs beneath the changes.
        changed_names: Full names of the tensors that were changed.
        manifest_fields: What the caller knows: method, settings, seeds, request.
        canary: Taken before the changes.
        adapter: Factors of the change where it was trained as one of low rank, as
            `models.lora.factors` names them.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: If the folder holds a run, a name is not in the model, or the change has no
            effect on the probes. Nothing is left behind then.
    """
    folder = Path(folder)
    refuse_existing_run(folder)
    tensors = _changed(vlm, changed_names, where=folder)
    clash = sorted(({"versions", "created", "stack"} | MANIFEST_KEYS) & set(manifest_fields))
    if clash:
        raise ValueError(f"manifest fields {clash} are written by save_weights itself")
    after = respond(vlm, canary.inputs, canary.tokens)
    check_effect(canary.outputs, after, vlm.model.dtype, where=str(folder))

    with drafted(folder) as draft:
        write_tensors(draft / WEIGHTS, tensors)
        write_tensors(draft / CANARY, _pack(canary, after))
        if adapter:
            write_tensors(draft / ADAPTER, adapter)
        manifest = {
            "format": FORMAT,
            "kind": "weights",
            "base_fingerprint": vlm.fingerprint,
            "base_source": vlm.source,
            "stack": [run.model_dump() for run in vlm.stack],
            **manifest_fields,
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {path.name: file_record(path) for path in sorted(draft.iterdir())},
            "tensors": {name: _tensor_record(tensor) for name, tensor in tensors.items()},
            "canary": {
                "dtype": str(vlm.model.dtype).removeprefix("torch."),
                "distance_to_base": distances(after, canary.outputs),
            },
        }
        atomic_write_json(draft / MANIFEST, manifest)
    return manifest


def apply_weights(vlm: Opened, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Put a weight artifact on what it was made on, and make sure that it acts.

    The model is changed in place, and `vlm.stack` tells of it; if the artifact is refused, both are
    as they were.

    Args:
        vlm: The base as it was opened, or with the runs beneath this one.
        folder: The run folder.

    Returns:
        The manifest.

    Raises:
        ArtifactError: If the run is incomplete or damaged, belongs to another base or on top of
            other runs, does not fit the model, or does not act as it did when it was saved.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    if manifest["kind"] != "weights":
        raise ArtifactError(
            f"{folder}: expected weights, got an {manifest['kind']}, which changes none: nothing "
            "is trained on top of it, and no checkpoint holds it; give it to ask and audit"
        )
    check_base(vlm, manifest, where=folder)
    check_beneath(vlm.stack, manifest, where=folder)
    tensors = read_tensors(folder, WEIGHTS, manifest)
    stored = read_tensors(folder, CANARY, manifest)
    own = _fitting(vlm, tensors, manifest, where=folder)
    canary, after = _unpack(stored, where=folder)
    dtype = vlm.model.dtype
    check_effect(canary.outputs, after, dtype, where=str(folder))
    check_same(
        respond(vlm, canary.inputs, canary.tokens),
        canary.outputs,
        dtype,
        where=str(folder),
        problem=f"the model is not {_beneath(vlm)}; load it anew",
    )

    before = {name: own[name].detach().clone() for name in tensors}
    try:
        _overwrite(own, tensors)
        check_same(
            respond(vlm, canary.inputs, canary.tokens),
            after,
            dtype,
            where=str(folder),
            problem="loaded, but does not act as when it was saved; do not use this model",
        )
    except BaseException:
        _overwrite(own, before)
        raise
    vlm.stack += (StackedRun(fingerprint=run_fingerprint(manifest), folder=str(folder)),)
    return manifest


def apply_stack(vlm: Opened, folders: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Put weight artifacts on their base in the order in which they were made.

    Args:
        vlm: As for `apply_weights`. If a run is refused, those before it stay on the model.
        folders: Run folders, the one made first first.

    Returns:
        Their manifests.

    Raises:
        ArtifactError: As `apply_weights`; a wrong order before the model is touched.
    """
    read_stack(vlm, folders)
    return [apply_weights(vlm, Path(folder)) for folder in folders]


def _beneath(vlm: Opened) -> str:
    if not vlm.stack:
        return "the base as it was opened"
    return f"what {vlm.stack[-1]} left"


def _overwrite(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)


def _changed(vlm: Opened, names: Iterable[str], *, where: Path) -> dict[str, Tensor]:
    state = vlm.model.state_dict()
    names = sorted(set(names))
    unknown = [name for name in names if name not in state]
    if unknown or not names:
        raise ArtifactError(
            f"{where}: expected names of changed tensors, got "
            f"{', '.join(unknown) or 'none'}, which the model does not have"
        )
    return {name: state[name].detach().cpu().clone().contiguous() for name in names}


def _fitting(
    vlm: Opened, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], *, where: Path
) -> dict[str, Tensor]:
    """The model's tensors, if those of the artifact fit it and the manifest, else an error."""
    own = vlm.model.state_dict()
    if {name: _tensor_record(tensor) for name, tensor in tensors.items()} != manifest["tensors"]:
        raise ArtifactError(f"{where}: {WEIGHTS} and {MANIFEST} disagree; copy the run again")
    misfits = [
        name
        for name, tensor in tensors.items()
        if name not in own or own[name].shape != tensor.shape
    ]
    if misfits:
        raise ArtifactError(f"{where}: the model has no tensor like {', '.join(misfits)}")
    return own


def _pack(canary: Canary, after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    packed = {f"input.{name}": tensor for name, tensor in canary.inputs.items()}
    packed |= {f"base.{name}": tensor for name, tensor in canary.outputs.items()}
    packed |= {f"after.{name}": tensor for name, tensor in after.items()}
    return packed | {"tokens": canary.tokens}


def _unpack(stored: Mapping[str, Tensor], *, where: Path) -> tuple[Canary, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {"input": {}, "base": {}, "after": {}}
    for key, tensor in stored.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = tensor
    if (
        "tokens" not in stored
        or not groups["base"]
        or groups["base"].keys() != groups["after"].keys()
    ):
        raise ArtifactError(f"{where}: {CANARY} lacks probes; run the job again")
    canary = Canary(inputs=groups["input"], tokens=stored["tokens"], outputs=groups["base"])
    return canary, groups["after"]


def _tensor_record(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
