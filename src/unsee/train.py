"""The one training loop; what it asks of a method is in `unsee.method`.

A step draws photos and questions, asks the method for its terms, back-propagates the forget terms
(alone, where the method masks them), then the retain terms, and steps. Every draw is seeded by the
step's number, so an interrupted run continues to the same weights.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unsee.checkpoint import CHECKPOINT, resume, save_checkpoint
from unsee.data.records import Split
from unsee.errors import ConfigError, DataError, LayoutError
from unsee.method import (
    Adapts,
    BoundsWeights,
    ConstrainsStep,
    MasksForget,
    Progress,
    Surgery,
    Terms,
)
from unsee.models.load import VLM
from unsee.models.lora import factors, lora
from unsee.models.sine import sine_bounded
from unsee.sampling import Sampler

AVERAGE = "average"


@dataclass(frozen=True)
class TrainResult:
    """What a run of the loop did.

    Attributes:
        changed: Full names of the tensors that differ from the starting model.
        trained_parameters: Numbers that the optimizer moved (of adapters, where there are any).
        steps: Steps of the run, those before an interruption included.
        seconds: Wall time of preparation and steps since the last start.
        terms: Value of each term at every step since the last start.
        adapter: Factors of the change, where adapters were trained; see `models.lora.factors`.
    """

    changed: tuple[str, ...]
    trained_parameters: int
    steps: int
    seconds: float
    terms: list[dict[str, float]] = field(default_factory=list)
    adapter: Mapping[str, Tensor] = field(default_factory=dict)


def train(
    vlm: VLM,
    split: Split,
    method: Any,
    *,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a model in place.

    Args:
        vlm: Starting model; its parameters move.
        split: What to forget and what to keep.
        method: Settings of a method.
        seed: Seeds every draw.
        folder: Where a checkpoint is kept and looked for; None for none.
        progress: Called with ("train", steps done, steps) after each step.

    Raises:
        ArtifactError: If the checkpoint belongs to another method, seed or model.
        DataError: If there is nothing to forget, or nothing to keep for a method that needs it.
        LayoutError: If a trainable name is not in the model.
    """
    if not split.forget:
        raise DataError("expected photos and questions to forget, got none; check --subject")
    started = time.monotonic()
    sampler = Sampler(vlm, split, method, seed)
    if method.keeps and not sampler.keeps:
        raise DataError(
            "expected something to keep in every step, got none; check --retain, --general and the "
            "batch sizes of the method"
        )
    bounded = _bounded(vlm, method)
    parameters = dict(vlm.model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in may_change(vlm, method)}
    torch.manual_seed(seed)
    with _trainable(vlm, method) as moving:
        state = method.prepare(vlm, split, seed=seed)
        steps = method.steps_for(split)
        terms = _steps(vlm, method, state, sampler, steps, moving, folder, progress, seed)
        # Preparing may have settled what stays.
        trained = sum(p.numel() for p in moving.values() if p.requires_grad)
    after = dict(vlm.model.named_parameters())
    changed = tuple(n for n, old in before.items() if not torch.equal(old, after[n].detach()))
    return TrainResult(
        changed=changed,
        trained_parameters=trained,
        steps=steps,
        seconds=time.monotonic() - started,
        terms=terms,
        # A change that is of low rank in some layers only is none that an adapter can tell.
        adapter=factors(moving) if _adapts(method) and not bounded else {},
    )


def may_change(vlm: VLM, method: Any) -> list[str]:
    """Full names of the parameters that a run of a method may move, in the model's order.

    Raises:
        LayoutError: If one is not in the model, or there is none.
    """
    if isinstance(method, Surgery):
        names = method.editable(vlm)
    elif _adapts(method):
        # Adapters are merged into the weights beneath them.
        names = [f"{path}.weight" for path in method.lora_targets(vlm)]
    else:
        names = method.trainable(vlm)
    names = [*names, *_bounded(vlm, method)]
    known = [name for name, _ in vlm.model.named_parameters()]
    missing = sorted(set(names) - set(known))
    if missing or not names:
        raise LayoutError(
            f"{type(method).__name__}: expected names of parameters, got "
            f"{missing[0] if missing else 'none'}; check what the method trains"
        )
    chosen = set(names)
    return [name for name in known if name in chosen]


def _steps(
    vlm: VLM,
    method: Any,
    state: Any,
    sampler: Sampler,
    steps: int,
    parameters: dict[str, nn.Parameter],
    folder: Path | None,
    progress: Progress | None,
    seed: int,
) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=method.lr, betas=(0.9, 0.99), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(steps, falls=not method.average))
    identity = json.dumps(
        {
            "base": vlm.identity,
            "seed": seed,
            "method": type(method).__qualname__,
            "settings": method.model_dump(mode="json"),
            "steps": steps,
        }
    )
    path = folder / CHECKPOINT if folder is not None and method.checkpoint_every else None
    start = resume(path, identity, parameters, optimizer, schedule) if path else 0
    constrain = _constraint(method)
    averaged_from = steps - round(steps * method.average)
    log = []
    for step in range(start, steps):
        # No name for the terms: it would keep one step's graph alive through the next one's pass.
        log.append(_backward(vlm, method, state, method.loss(vlm, sampler.draw(step), state)))
        nn.utils.clip_grad_norm_(parameters.values(), method.clip)
        old = {n: p.detach().clone() for n, p in parameters.items()} if constrain else {}
        optimizer.step()
        schedule.step()
        if constrain is not None:
            with torch.no_grad():
                constrain(vlm, old, state)
        if step >= averaged_from:
            _average(optimizer, 1 / (step - averaged_from + 1))
        optimizer.zero_grad(set_to_none=True)
        if progress is not None:
            progress("train", step + 1, steps)
        last = step + 1 == steps
        if path and (last or (step + 1) % method.checkpoint_every == 0):
            save_checkpoint(path, identity, step + 1, parameters, optimizer)
    with torch.no_grad():
        for p, moments in optimizer.state.items():
            p.copy_(moments.get(AVERAGE, p))
    return log


def _average(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Takes the weights of this step into their mean, beside the moments that checkpoints hold."""
    for p, moments in optimizer.state.items():
        moments.setdefault(AVERAGE, p.detach().clone()).lerp_(p.detach(), share)


def _constraint(method: Any) -> Callable[[VLM, Mapping[str, Tensor], Any], None] | None:
    return method.constrain_step if isinstance(method, ConstrainsStep) else None


def _adapts(method: Any) -> bool:
    return isinstance(method, Adapts) and method.lora_rank > 0


def _bounded(vlm: VLM, method: Any) -> list[str]:
    """Full names of the weights that follow a sine."""
    targets = method.sine_targets(vlm) if isinstance(method, BoundsWeights) else []
    return [f"{path}.weight" for path in targets]


def _backward(vlm: VLM, method: Any, state: Any, terms: Terms) -> dict[str, float]:
    forget = list(terms.forget.values())
    masks = isinstance(method, MasksForget) and bool(forget)
    if masks or terms.later:
        moved = _push(forget, again=not terms.later)
        if masks:
            method.mask_forget(vlm, state)
        moved = _push(list(terms.retain.values())) or moved
    else:
        moved = _push([*forget, *terms.retain.values()])
    if not moved:
        raise ConfigError(
            f"{type(method).__name__}: expected a loss that depends on what is trained, got "
            f"{'constants' if terms.forget or terms.retain else 'no term'}; raise a weight or "
            "train more"
        )
    named = {f"forget.{n}": v for n, v in terms.forget.items()}
    named |= {f"retain.{n}": v for n, v in terms.retain.items()}
    return {name: float(value.detach()) for name, value in named.items()}


def _push(terms: list[Tensor], *, again: bool = False) -> bool:
    """Adds the gradients of some terms; those on text alone may not reach what is trained.

    Returns:
        Whether any did.
    """
    moving = [term for term in terms if term.requires_grad]
    if moving:
        torch.stack(moving).sum().backward(retain_graph=again)
    return bool(moving)


def _rate(steps: int, *, falls: bool) -> Callable[[int], float]:
    warm = max(1, steps // 10)

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        if not falls:
            return 1.0
        done = (step - warm) / max(1, steps - warm)
        return 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())

    return rate


@contextmanager
def _trainable(vlm: VLM, method: Any) -> Iterator[dict[str, nn.Parameter]]:
    """Lets the method's parameters move and nothing else; puts the flags back on the way out."""
    flags = {name: p.requires_grad for name, p in vlm.model.named_parameters()}
    try:
        vlm.model.requires_grad_(False)
        bounded = _bounded(vlm, method)
        with ExitStack() as stack:
            if _adapts(method):
                targets = method.lora_targets(vlm)
                moving = stack.enter_context(lora(vlm.model, targets, rank=method.lora_rank))
            else:
                chosen = dict(vlm.model.named_parameters())
                names = [name for name in may_change(vlm, method) if name not in bounded]
                moving = {name: chosen[name].requires_grad_(True) for name in names}
            if bounded:
                # After the adapters, which freeze all that is there when they come.
                paths = [name.removesuffix(".weight") for name in bounded]
                moving = moving | stack.enter_context(sine_bounded(vlm.model, paths))
            yield moving
    finally:
        for name, p in vlm.model.named_parameters():
            p.requires_grad_(flags.get(name, False))
            p.grad = None
