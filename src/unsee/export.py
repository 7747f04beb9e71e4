"""Export: from run folders to what other tools open, a whole checkpoint or a LoRA adapter."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG_NAME
from transformers.utils import CONFIG_NAME

from unsee.artifacts import apply_stack, load_manifest, locked
from unsee.artifacts.files import naming, read_tensors, storing, sync
from unsee.artifacts.stack import stack_of
from unsee.artifacts.weights import ADAPTER
from unsee.errors import ArtifactError, ConfigError
from unsee.models.load import VLM, load
from unsee.models.lora import save_adapter

# What a checkpoint folder holds beside weights and configuration: tokenizer, processors, chat
# templates, licence. Code is not among them.
CARRIED = (
    *("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*"),
    "additional_chat_templates/*",
)


def export(
    run: str | os.PathLike[str],
    *,
    merged: str | os.PathLike[str] | None = None,
    peft: str | os.PathLike[str] | None = None,
    artifacts: Sequence[str | os.PathLike[str]] = (),
    base: str | os.PathLike[str] | None = None,
) -> Path:
    """Write what a run changed in a form that needs nothing of this package.

    The base is opened in the dtype that the run was made in, and the canary is run on it before
    anything is written. The folder appears when it is complete.

    Args:
        run: A run folder.
        merged: Folder for a plain Hugging Face checkpoint: the base with all changes in it.
        peft: Folder for a LoRA adapter that peft opens on the base.
        artifacts: The runs that this one was made on top of, in their order.
        base: Name or folder of the base, where it is not where it was when the run was made.

    Returns:
        The folder that was written.

    Raises:
        ConfigError: If not one of `merged` and `peft` is given, or the base cannot be opened.
        ArtifactError: If the folder holds something, a run is refused, it has no adapter, or it is
            an eraser, which acts at test time.
    """
    folder = merged if merged is not None else peft
    if folder is None or (merged is not None and peft is not None):
        raise ConfigError(
            f"expected --merged DIR or --peft DIR, got {'neither' if folder is None else 'both'}; "
            "--merged writes a whole checkpoint, --peft a LoRA adapter"
        )
    folder, stack = Path(folder), [*map(Path, artifacts), Path(run)]
    manifest = load_manifest(stack[-1])
    for place in stack:
        _check_weights(place)
    if peft is not None:
        _check_adapter(stack[-1], manifest)
    with _drafted(folder, "--merged" if peft is None else "--peft") as draft:
        vlm = _opened(stack, manifest, base)
        if peft is None:
            _save_merged(vlm, draft)
        else:
            save_adapter(draft, read_tensors(stack[-1], ADAPTER, manifest), base=vlm.source)
    return folder


def _opened(stack: Sequence[Path], manifest: Mapping[str, Any], base: Any) -> VLM:
    """The base with the runs on it."""
    source = os.fspath(base) if base is not None else manifest["base_source"]
    try:
        vlm = load(source, dtype=manifest["canary"].get("dtype", "auto"))
    except ConfigError as error:
        if base is not None:
            raise
        raise ConfigError(f"{error}; if the base is elsewhere, give it by --base") from error
    apply_stack(vlm, stack)
    return vlm


def _check_weights(run: Path) -> None:
    kind = load_manifest(run)["kind"]
    if kind == "eraser":
        raise ArtifactError(
            f"{run}: expected a run that changed weights, got an eraser, which acts at test time "
            "and has no merged checkpoint and no adapter; give it to ask and audit by --artifact"
        )


def _check_adapter(run: Path, manifest: Mapping[str, Any]) -> None:
    if ADAPTER not in manifest["files"]:
        raise ArtifactError(
            f"{run}: expected a run that trained LoRA adapters, got one that did not; export it "
            "with --merged, or forget with --method grad_diff --set method.lora_rank=8"
        )
    if beneath := stack_of(manifest):
        raise ArtifactError(
            f"{run}: made on top of {beneath[-1]}, and an adapter goes on the base alone; "
            "export it with --merged"
        )


@contextmanager
def _drafted(folder: Path, flag: str) -> Iterator[Path]:
    """A draft beside `folder` that is given its name once it is complete."""
    place = folder.absolute()
    partial = place.with_name(f".{place.name}.partial")
    draft = partial / place.name
    try:
        with locked(partial, called=folder, flag=flag):
            # A killed export leaves its draft to the next.
            _discard(draft)
            if folder.is_dir() and any(folder.iterdir()):
                raise ArtifactError(
                    f"{folder}: expected a new or an empty folder, got one with files; "
                    f"give another {flag}"
                )
            try:
                draft.mkdir()
                yield draft
                for path in (*draft.rglob("*"), draft):
                    sync(path)
                draft.replace(folder)
                sync(place.parent)
            finally:
                _discard(draft)
    finally:
        with suppress(OSError):
            partial.rmdir()


def _discard(draft: Path) -> None:
    """Remove a draft; its configuration first, without which nobody opens the rest."""
    for name in (CONFIG_NAME, ADAPTER_CONFIG_NAME):
        (draft / name).unlink(missing_ok=True)
    shutil.rmtree(draft, ignore_errors=True)


def _save_merged(vlm: VLM, folder: Path) -> None:
    """Write a checkpoint: the base's own files, then configuration and weights of the model.

    The weights come last, so a draft that a kill cut short is opened by nobody.
    """
    with storing(folder), naming(folder):
        _carry(_files_of(vlm.source), folder)
        # Checkpoints come with generation settings that Hugging Face opens and does not save; the
        # base's file, or that it has none, holds.
        vlm.model.can_generate = lambda: False
        try:
            vlm.model.save_pretrained(folder)
        finally:
            del vlm.model.can_generate


def _files_of(source: str) -> Path:
    """The folder of a model, where its files are all there."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(source, allow_patterns=list(CARRIED)))
    except OSError as error:
        raise ConfigError(f"{source}: cannot fetch the model's files: {error}") from error


def _carry(source: Path, folder: Path) -> None:
    for pattern in CARRIED:
        for path in source.glob(pattern):
            place = folder / path.relative_to(source)
            # The index is of the base's weights.
            if path.is_file() and not path.name.endswith(".index.json"):
                place.parent.mkdir(exist_ok=True)
                # `shutil` would name the base's file where the disk is full.
                place.write_bytes(path.read_bytes())
