"""Files of a run: written in full or not at all, read with every doubt spoken out."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unsee.artifacts.manifest import check_shape
from unsee.errors import ArtifactError

FORMAT = 1
MANIFEST = "manifest.json"
DRAFT = ".partial"
CACHE_VARIABLE = "UNSEE_CACHE"
MANIFEST_KEYS = frozenset(
    {"format", "kind", "base_fingerprint", "base_source", "files", "tensors", "canary"}
)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what decides its numbers."""
    packages = ("unsee", "torch", "transformers", "tokenizers", "peft", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def cache_folder() -> Path:
    """Where things are kept between runs; `UNSEE_CACHE` overrides the system's place."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else user_cache_path("unsee", appauthor=False)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Which weights these are: 16 hexadecimal digits of a SHA-256.

    Floating-point values are compared as float32, so a half-precision checkpoint has one
    fingerprint however it is opened, as long as opening it lost nothing.

    Args:
        state: Names and tensors, as a model's `state_dict()` gives them.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(header.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file that is there either as before or in full, also after a crash."""
    path = Path(path)
    # Always of one name: what a kill leaves is taken by the next write.
    draft = path.with_name(f".{path.name}{DRAFT}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says which file it was, where the system says only that it is full."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def atomic_write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text as `atomic_write_bytes` does."""
    atomic_write_bytes(path, content.encode())


def atomic_write_json(path: str | Path, content: Any) -> None:
    """Write JSON as `atomic_write_bytes` does; NaN and infinity are refused, they are not JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """What one of our files holds.

    Raises:
        ArtifactError: If it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove it and start again") from error


def refuse_file(folder: Path) -> None:
    """Refuse to write a run where a file is; to be called before the work, not after it.

    Raises:
        ArtifactError: If the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: expected a folder to write the run to, got a file")


def refuse_existing_run(folder: str | Path) -> None:
    """Refuse to write over a finished run; to be called before the work, not after it.

    Raises:
        ArtifactError: If the folder holds a manifest, or is a file.
    """
    folder = Path(folder)
    refuse_file(folder)
    if (folder / MANIFEST).exists():
        raise ArtifactError(f"{folder}: holds a finished run; give another --out, or remove it")


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a finished run whose files are all there in full length.

    Raises:
        ArtifactError: If there is no finished run, it is damaged, or it is of a newer format.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder}: not a finished run (no {MANIFEST}); give a run folder")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged, not JSON ({error}); run the job again") from error
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int:
        raise ArtifactError(f"{path}: expected a manifest with a format number; run the job again")
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest['format']} is newer than this version reads "
            f"(up to {FORMAT}); upgrade unsee"
        )
    missing = sorted(MANIFEST_KEYS - set(manifest))
    if missing:
        raise ArtifactError(f"{path}: lacks {', '.join(missing)}; run the job again")
    check_shape(manifest, where=path)
    for name, record in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(f"{folder}: {name} is missing; copy the run again")
        if file.stat().st_size != record["bytes"]:
            raise ArtifactError(
                f"{folder}: {name} has {file.stat().st_size} bytes, expected {record['bytes']}; "
                "copy the run again"
            )
    return manifest


def read_tensors(folder: Path, name: str, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of one file of a run, compared with the sum in its manifest.

    Raises:
        ArtifactError: If the file is damaged, or the manifest does not know it.
    """
    path = folder / name
    if name not in manifest["files"] or _sha256(path) != manifest["files"][name]["sha256"]:
        raise ArtifactError(f"{folder}: {name} is damaged; copy the run again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ArtifactError(f"{folder}: {name} is damaged ({error}); run the job again") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write safetensors and wait until they are on the disk.

    A kill may leave part of them beside `path`, under another name: write into a draft.

    Raises:
        ArtifactError: If they cannot be written, for example on a full disk.
    """
    with storing(path):
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            path,
            metadata=None if metadata is None else dict(metadata),
        )
    sync(path)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Safetensors wraps the system's errors in its own, which name no file.

    Raises:
        ArtifactError: Instead of `SafetensorError`.
    """
    try:
        yield
    except SafetensorError as error:
        raise ArtifactError(
            f"{path}: cannot be written ({error}); free some space, or give another folder"
        ) from error


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A draft that takes the place of `folder`, or joins what is in it, once it is complete."""
    joins = folder.is_dir()
    if joins:
        # In the folder, whose parent may not be ours to write to; a kill leaves it to the next.
        draft = folder / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        sync(draft)
        if joins:
            folder.chmod(0o700)
            # The manifest goes last: only then is the folder a run.
            for path in sorted(draft.iterdir(), key=lambda path: path.name == MANIFEST):
                os.replace(path, folder / path.name)
            sync(folder)
        else:
            os.replace(draft, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def file_record(path: Path) -> dict[str, Any]:
    """Length and SHA-256 of a file, as the manifest lists it."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
