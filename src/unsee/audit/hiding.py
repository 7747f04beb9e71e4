"""The control of an audit: a run that merely hides, or one that is made of the base."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsee.artifacts import run_fingerprint
from unsee.audit.control import AUTO, Control, as_asked, hidden, under_control
from unsee.audit.runs import erasers_key
from unsee.data.records import Split
from unsee.erasers.storage import under_artifacts
from unsee.models.load import VLM
from unsee.replies import Progress


@dataclass(frozen=True)
class Hiding:
    """What merely hides.

    Attributes:
        identity: Tells it from all others.
        mark: What its replies are kept under, beside its weights.
        on: Makes base the control while the block runs.
    """

    identity: str
    mark: str
    on: Callable[[], AbstractContextManager[Any]]


def made_control(
    control: str | os.PathLike[str] | None,
    vlm: VLM,
    split: Split,
    folder: Path | None,
    seed: int,
    progress: Progress | None,
) -> Control | str | None:
    """The control, where one is to be made; or why there is none."""
    if control != AUTO:
        return None
    return hidden(vlm, as_asked(split), folder, seed=seed, progress=progress)


def hiding(
    vlm: VLM,
    runs: Sequence[Path],
    manifests: Sequence[Mapping[str, Any]],
    made: Control | str | None,
) -> Hiding | None:
    """What merely hides, where there is such a thing."""
    if runs:
        identity = "-".join(run_fingerprint(manifest) for manifest in manifests)
        return Hiding(identity, erasers_key(manifests), lambda: under_artifacts(vlm, runs))
    if isinstance(made, Control):
        return Hiding(made.mark, made.mark, lambda: under_control(vlm, made))
    return None


def told_of(made: Control | str | None) -> dict[str, Any] | None:
    """What a report says of how a control was made."""
    return {"not_made": made} if isinstance(made, str) else made.told if made else None


def moved(made: Control | str | None) -> set[str]:
    """Names of the tensors in which a control that was made differs from base."""
    return set(made.tensors) if isinstance(made, Control) else set()
