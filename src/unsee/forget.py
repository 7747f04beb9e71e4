"""Forget: from a model and a request to a run folder that holds what changed."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsee.artifacts import (
    atomic_write_json,
    check_run,
    load_manifest,
    locked,
    save_weights,
    take_canary,
)
from unsee.artifacts.files import DRAFT
from unsee.artifacts.stack import stack_of
from unsee.checkpoint import CHECKPOINT
from unsee.cost import peak_memory
from unsee.data.records import Record, Split
from unsee.erasers import ERASERS
from unsee.erasers.protocol import Fits
from unsee.erasers.storage import save_eraser
from unsee.errors import ArtifactError
from unsee.method import Surgery
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.requests import Request
from unsee.settings import Settings
from unsee.train import may_change, train

JOB = "job.json"
MANIFEST = "manifest.json"
# What a run and its audit write; `overwrite` removes these and nothing else. Answers stay: they are
# told apart by model and question, and those of the base were just asked for the new run.
FILES = (
    MANIFEST,
    "weights.safetensors",
    "eraser.safetensors",
    "adapter.safetensors",
    "canary.safetensors",
    CHECKPOINT,
    JOB,
    "report.json",
    "evidence.json",
    "report.md",
    "report.html",
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it is.
        manifest: Its manifest.
        resumed: Whether it, or a part of it, was there before.
    """

    folder: Path
    manifest: Mapping[str, Any]
    resumed: bool = False

    def __fspath__(self) -> str:
        return str(self.folder)


def forget(
    vlm: VLM,
    request: Request | Split,
    *,
    method: Settings,
    seed: int = 0,
    out: Path,
    command: str = "",
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Run:
    """Make a model forget, by training, surgery or at test time, and write how to a run folder.

    The model comes back as it was, bit for bit, also after an error. A run that was killed goes on
    from its last checkpoint when the same is asked for again; one that is finished is returned.

    Args:
        vlm: The base as it was opened, or with the artifacts of earlier requests on it: then the
            run is made on top of these, and they must be loaded before it.
        request: What to forget and what to keep.
        method: Settings of a registered method or eraser.
        seed: Seeds every draw.
        out: The run folder; made with mode 0700.
        command: The command line that repeats the run.
        progress: Told the stage, steps done and steps in all.
        overwrite: Remove what an earlier run left in the folder.

    Raises:
        ArtifactError: If the folder belongs to another run, is one that this one is made on top
            of, or another process works in it.
        DataError: If there is nothing to forget.
    """
    split = request if isinstance(request, Split) else request.split
    out = Path(out)
    job = {
        "method": {"name": method_name(method), "settings": method.model_dump(mode="json")},
        "seed": seed,
        "base_fingerprint": vlm.fingerprint,
        "stack": [run.fingerprint for run in vlm.stack],
        "split": split_digest(split),
    }
    if any(Path(run.folder).resolve() == out.resolve() for run in vlm.stack):
        raise ArtifactError(f"{out}: this run is made on top of it; give another --out")
    with locked(out):
        out.chmod(0o700)
        if overwrite:
            _clear(out)
        if (out / MANIFEST).exists():
            run = _finished(out, job)
            _tidy(out)
            return run
        started = time.monotonic()

        def fields(kind: str, trained_parameters: int, steps: int) -> dict[str, Any]:
            return {
                "method": {**job["method"], "kind": kind},
                "settings": job["method"]["settings"],
                "seeds": [seed],
                "split": job["split"],
                "request": _description(request),
                "command": command,
                "cost": {
                    "wall_s": time.monotonic() - started,
                    "trained_parameters": trained_parameters,
                    "steps": steps,
                    **peak_memory(),
                },
            }

        if isinstance(method, Fits):
            scope = "visual" if isinstance(request, Split) else request.scope
            eraser = method.fit(vlm, split, seed=seed, scope=scope)
            return Run(out, save_eraser(out, vlm, eraser, fields("eraser", 0, 0)))
        canary = take_canary(vlm)
        with _begun(out, job) as resumed, restored(vlm.model, may_change(vlm, method)):
            if isinstance(method, Surgery):
                changed = method.edit(vlm, split, seed=seed, progress=progress)
                manifest = save_weights(out, vlm, changed, fields("weights", 0, 0), canary)
            else:
                result = train(vlm, split, method, seed=seed, folder=out, progress=progress)
                told = fields("weights", result.trained_parameters, result.steps)
                adapter = result.adapter
                manifest = save_weights(out, vlm, result.changed, told, canary, adapter=adapter)
        _tidy(out)
    return Run(out, manifest, resumed=resumed)


def method_name(method: Settings) -> str:
    """The registered name of a method or an eraser.

    Raises:
        ArtifactError: If it is not registered, so that nobody could repeat the run.
    """
    for name, cls in (*METHODS.items(), *ERASERS.items()):
        if cls is type(method):
            return name
    raise ArtifactError(
        f"{type(method).__name__}: expected a registered method ({', '.join(METHODS.names())}); "
        "register it with METHODS.register, so that the run can be repeated"
    )


def split_digest(split: Split) -> str:
    """Which photos and questions a method is given: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in ("forget", "visible", "retain", "general"):
        digest.update(f"{name}\n".encode())
        for record in getattr(split, name):
            digest.update(_row(record))
    return digest.hexdigest()[:16]


def _row(record: Record) -> bytes:
    key = record.image.key if record.image is not None else None
    fields = [record.subject, key, record.question, record.answer, record.form, record.options]
    return json.dumps(fields).encode() + b"\n"


def _description(request: Request | Split) -> dict[str, Any]:
    if isinstance(request, Split):
        return {"subjects": list(request.subjects), "scope": "visual"}
    return dict(request.description)


def _clear(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs; a kill may have come between."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / JOB).unlink(missing_ok=True)
    shutil.rmtree(folder / DRAFT, ignore_errors=True)


def _finished(folder: Path, job: Mapping[str, Any]) -> Run:
    manifest = load_manifest(folder)
    check_run(manifest, where=folder / MANIFEST)
    made = {
        "method": {key: manifest["method"][key] for key in ("name", "settings")},
        "seed": manifest["seeds"][0],
        "base_fingerprint": manifest["base_fingerprint"],
        "stack": [run.fingerprint for run in stack_of(manifest)],
        "split": manifest["split"],
    }
    if made != job:
        raise ArtifactError(
            f"{folder}: holds a finished run with {_difference(made, job)}; give another --out, "
            "or --overwrite"
        )
    return Run(folder, manifest, resumed=True)


@contextmanager
def _begun(folder: Path, job: Mapping[str, Any]) -> Iterator[bool]:
    """Notes what is under way while there is something to resume; True if it was already."""
    path = folder / JOB
    resumed = path.exists() and (folder / CHECKPOINT).exists()
    if resumed:
        try:
            # A run on the base alone may have been begun before runs could be stacked.
            begun = {"stack": []} | json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{path}: damaged; give another --out, or --overwrite") from error
        if begun != job:
            raise ArtifactError(
                f"{folder}: holds an unfinished run with {_difference(begun, job)}; give another "
                "--out, or --overwrite"
            )
    else:
        atomic_write_json(path, job)
    try:
        yield resumed
    finally:
        if not (folder / CHECKPOINT).exists():
            path.unlink(missing_ok=True)


def _difference(made: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    words = {
        "method": "another method or settings",
        "seed": "another seed",
        "base_fingerprint": "another base model",
        "stack": "other artifacts beneath it",
        "split": "other photos or questions",
    }
    return " and ".join(words[key] for key in job if made.get(key) != job[key])
