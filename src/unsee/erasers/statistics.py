"""States of a base that many requests share: read once, kept in the user's cache."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unsee.artifacts import atomic_write_bytes, cache_folder, fingerprint, versions
from unsee.data.conversation import question_text
from unsee.data.records import Record
from unsee.models.load import VLM

FOLDER = "statistics"
# Kept states must lie so close to ones that are read anew, as a share of their length.
SLACK = {torch.float32: 1e-3}
LOW_PRECISION_SLACK = 0.05


def remembered(
    vlm: VLM,
    what: Mapping[str, Any],
    probe: Callable[[], Tensor],
    make: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Tensors that are made once for a model and what they are made of, and read from then on.

    A few states are read anew each time and compared with those of the file, so that whatever
    changed without a trace in `what` (weights in memory, another library) is noticed. A file that
    is damaged or disagrees is made again.

    Args:
        vlm: The model, which is left as it is.
        what: JSON that says what the tensors are made of; no name, no photo and no question.
        probe: Some states of the model that take no time, (row, ..., width).
        make: The tensors, if they are not there.

    Returns:
        The tensors, on the CPU.
    """
    told = json.dumps([versions(), vlm.identity, str(vlm.dtype), what], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = cache_folder() / FOLDER / f"{vlm.fingerprint}-{digest}.safetensors"
    now = probe().float().cpu()
    found = _read(path)
    if "probe" in found and _agree(found.pop("probe"), now, vlm.dtype):
        return found
    made = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
    stored = {**made, "probe": now.contiguous()}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write_bytes(path, save(stored, {"sum": fingerprint(stored)}))
    except OSError as error:
        warnings.warn(
            f"{path}: cannot be written ({error.strerror}), so that the next request reads the "
            "same states again; set UNSEE_CACHE to a folder with space",
            stacklevel=2,
        )
    return made


def digest_of(records: Sequence[Record]) -> str:
    """Which photos are shown and what is asked, in this order: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for record in records:
        photo = None if record.image is None else record.image.key
        said = [photo, question_text(record), record.answer]
        for turn in record.before:
            shown = None if turn.image is None else turn.image.key
            said += [shown, turn.question, turn.answer]
        digest.update(json.dumps(said).encode())
    return digest.hexdigest()[:16]


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; none if it is not there or damaged."""
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    return found if metadata.get("sum") == fingerprint(found) else {}


def _agree(kept: Tensor, now: Tensor, dtype: torch.dtype) -> bool:
    if kept.shape != now.shape:
        return False
    slack = SLACK.get(dtype, LOW_PRECISION_SLACK)
    return bool(((kept - now).norm(dim=-1) <= slack * now.norm(dim=-1)).all())
