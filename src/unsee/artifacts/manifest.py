"""What a manifest must hold before anything in it is used, and which run it is of."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from unsee.errors import ArtifactError


class StackedRun(BaseModel):
    """A run whose weights are on a model.

    Attributes:
        fingerprint: Of the run, 16 hexadecimal digits.
        folder: Where it was read from.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    fingerprint: str
    folder: str

    def __str__(self) -> str:
        return f"{self.folder} ({self.fingerprint})"


def run_fingerprint(manifest: Mapping[str, Any]) -> str:
    """Which run this is: 16 hexadecimal digits of a SHA-256.

    Its files are digested, the canary among them, which tells what the run was made on.
    """
    files = json.dumps(manifest["files"], sort_keys=True)
    return hashlib.sha256(files.encode()).hexdigest()[:16]


def check_shape(manifest: Mapping[str, Any], *, where: Path) -> None:
    """Refuse a manifest in which anything that is read later is of another type.

    Raises:
        ArtifactError: With all faults at once.
    """
    _check(_Shape, manifest, where)


def check_run(manifest: Mapping[str, Any], *, where: Path) -> None:
    """Refuse the manifest of an artifact that no `unsee forget` wrote, so nobody can repeat it.

    Raises:
        ArtifactError: With all faults at once.
    """
    _check(_Run, manifest, where)


def _plain_name(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError("expected the name of a file in the run folder")
    return name


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Part):
    bytes: NonNegativeInt
    sha256: str


class _Shape(_Part):
    kind: str
    base_fingerprint: str
    base_source: str
    files: dict[Annotated[str, AfterValidator(_plain_name)], _File]
    tensors: dict[str, Any]
    canary: dict[str, Any]
    stack: list[StackedRun] = []


class _Method(_Part):
    name: str
    settings: dict[str, Any]


class _Cost(_Part):
    wall_s: float
    trained_parameters: int
    peak_rss_mb: float | None
    peak_gpu_mb: float | None


class _Run(_Part):
    method: _Method
    seeds: Annotated[list[int], Field(min_length=1)]
    split: str
    cost: _Cost


def _check(shape: type[BaseModel], manifest: Mapping[str, Any], where: Path) -> None:
    try:
        shape.model_validate(dict(manifest))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ArtifactError(f"{where}: damaged ({faults}); copy the run again") from error
