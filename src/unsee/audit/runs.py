"""What the manifests of runs say in a report: method, cost, what was changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from unsee.artifacts import run_fingerprint
from unsee.cost import peak_memory
from unsee.models.layout import PARTS
from unsee.models.load import VLM
from unsee.report.schema import Cost, MethodUsed

Manifests = Sequence[Mapping[str, Any]]


def method_used(manifest: Mapping[str, Any] | None, *, changed: bool) -> MethodUsed:
    """The method of a run; without a run, whether weights were changed by somebody else."""
    if manifest is not None:
        made = manifest["method"]
        return MethodUsed(name=made["name"], kind=manifest["kind"], settings=made["settings"])
    return MethodUsed(kind="weights" if changed else "none")


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
