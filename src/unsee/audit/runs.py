"""What the manifests of runs say in a report: method, cost, what was changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from unsee.artifacts import run_fingerprint
from unsee.cost import peak_memory
from unsee.models.layout import PARTS
from unsee.models.load import VLM
from unsee.report.evidence import Artifact
from unsee.report.schema import Cost, MethodUsed

Manifests = Sequence[Mapping[str, Any]]


def method_used(manifests: Manifests, *, changed: bool) -> MethodUsed:
    """The method of the last run; without any, whether weights were changed by somebody else.

    Its kind is "eraser" as soon as one of them is: what works at test time can be taken off.
    """
    if not manifests:
        return MethodUsed(kind="weights" if changed else "none")
    made = manifests[-1]["method"]
    kinds = {manifest["kind"] for manifest in manifests}
    kind = "eraser" if "eraser" in kinds else manifests[-1]["kind"]
    return MethodUsed(name=made["name"], kind=kind, settings=made["settings"])


def artifact_of(manifest: Mapping[str, Any]) -> Artifact:
    """A run as the evidence names it."""
    return Artifact(
        fingerprint=run_fingerprint(manifest),
        base=manifest["base_fingerprint"],
        kind=manifest["kind"],
        seeds=list(manifest["seeds"]),
    )


def identities(
    vlm: VLM,
    manifests: Manifests,
    control: Manifests = (),
    *,
    erased: VLM | None = None,
    gold: VLM | None = None,
) -> dict[str, str]:
    """Fingerprints of the models of an audit, by name.

    Args:
        vlm: The base.
        manifests: Of the runs that make the erased model.
        control: Of the run that merely hides.
        erased: The erased model, where it is one of its own.
        gold: The model that never knew.
    """
    found = {"base": vlm.identity}
    for name, runs in (("erased", manifests), ("control", control)):
        if runs:
            found[name] = "-".join([vlm.identity, *map(run_fingerprint, runs)])
    for name, model in (("erased", erased), ("gold", gold)):
        if model is not None:
            found[name] = model.identity
    return found


def cost_of(manifests: Manifests) -> Cost:
    """Of forgetting, where a run wrote it down; memory is this process's.

    Of several runs the last one's, but the bytes of all: none of them can be left out.
    """
    if not manifests:
        memory = peak_memory()
        return Cost(peak_rss_mb=memory["peak_rss_mb"], peak_gpu_mb=memory["peak_gpu_mb"])
    spent = manifests[-1]["cost"]
    return Cost(
        wall_s=spent["wall_s"],
        peak_rss_mb=spent["peak_rss_mb"],
        peak_gpu_mb=spent["peak_gpu_mb"],
        trained_parameters=spent["trained_parameters"],
        artifact_bytes=sum(
            record["bytes"] for manifest in manifests for record in manifest["files"].values()
        ),
    )


def changed_tensors(manifests: Manifests) -> set[str]:
    """Names of the tensors that any of the runs changes."""
    return {name for manifest in manifests for name in manifest["tensors"]}


def changed_parts(vlm: VLM, manifests: Manifests) -> dict[str, int]:
    """Number of changed tensors in each part of the model."""
    if not manifests:
        return {}
    changed = changed_tensors(manifests)
    counts = {
        part: len(changed & set(vlm.layout.parameter_names(vlm.model, [part]))) for part in PARTS
    }
    return {**counts, "elsewhere": len(changed) - sum(counts.values())}


def erasers_key(manifests: Manifests) -> str:
    """What answers under erasers are kept under."""
    return "-".join(run_fingerprint(m) for m in manifests if m["kind"] == "eraser")
