"""A run of the loop that was interrupted, on disk: weights, moments and the step they belong to."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from unsee.artifacts.files import drafted, write_tensors
from unsee.errors import ArtifactError

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    path: Path,
    identity: str,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint whole, over the last one.

    Args:
        path: File.
        identity: What the run is, in words that another one would not give.
        step: Steps done.
        parameters: Name -> what the optimizer moves.
        optimizer: Its moments are kept.
    """
    tensors = {f"model.{name}": p.detach() for name, p in parameters.items()}
    for name, p in parameters.items():
        for key, value in optimizer.state[p].items():
            tensors[f"optimizer.{key}.{name}"] = value.clone()
    with drafted(path.parent) as draft:
        write_tensors(draft / path.name, tensors, {"identity": identity, "step": str(step)})


def resume(
    path: Path,
    identity: str,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> int:
    """Put an interrupted run back in place, in the arguments.

    Returns:
        Steps already done; 0 without a checkpoint.

    Raises:
        ArtifactError: If the checkpoint is damaged, or of another run.
    """
    if not path.exists():
        return 0
    try:
        opened = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove it to start again") from error
    with opened as stored:
        metadata = stored.metadata()
        if metadata["identity"] != identity:
            raise ArtifactError(
                f"{path}: checkpoint of another model, method or seed; "
                "choose another --out or remove it"
            )
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(stored.get_tensor(f"model.{name}"))
        # A parameter without a gradient (LLaVA never uses the tower's last norm) has no state.
        for key in stored.keys():  # noqa: SIM118
            side, _, rest = key.partition(".")
            if side == "optimizer":
                quantity, _, name = rest.partition(".")
                value = stored.get_tensor(key)
                p = parameters[name]
                # AdamW counts its steps on the CPU.
                value = value if quantity == "step" else value.to(p.device)
                optimizer.state[p][quantity] = value
    step = int(metadata["step"])
    schedule.last_epoch = step
    for group, base, rate in zip(
        optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * rate(step)
    return step
