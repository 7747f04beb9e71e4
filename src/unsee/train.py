"""The one training loop, and what it asks of a method.

A step draws photos and questions, asks the method for its terms, back-propagates the forget terms
(alone, where the method masks them), then the retain terms, and steps. Every draw is seeded by the
step's number, so an interrupted run continues to the same weights.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unsee.data.augment import variant
from unsee.data.collate import Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.errors import ArtifactError, ConfigError, DataError, LayoutError
from unsee.models.load import VLM
from unsee.models.lora import lora
from unsee.settings import Settings

CHECKPOINT = "checkpoint.safetensors"
_CACHED_PICTURES = 1024


@dataclass(frozen=True)
class Terms:
    """Weighted scalars that the loop adds up, kept apart by what they serve."""

    forget: Mapping[str, Tensor]
    retain: Mapping[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """Records of one side of a step, encoded, and which variant of which photo each shows.

    Attributes:
        records: One a row; text-only rows have no image.
        variants: Variant of each row's photo.
        batch: Tensors, answers included, on the model's device.
    """

    records: tuple[Record, ...]
    variants: tuple[int, ...]
    batch: Batch

    @property
    def photos(self) -> list[tuple[Photo, int]]:
        """Photo and variant of each image of the batch, in its order."""
        return [
            (record.image, number)
            for record, number in zip(self.records, self.variants, strict=True)
            if record.image is not None
        ]


@dataclass(frozen=True)
class PairBatch:
    """What one step sees.

    Attributes:
        step: Number of the step, from 0.
        forget: Photos and questions to be forgotten.
        keep: What stays: questions on retain people, strangers and general photos, refusals, and
            identity-free questions on the forget photos.
        forget_photos: Photos of the subjects, which no retain supervision may hold in place.
    """

    step: int
    forget: Rows
    keep: Rows
    forget_photos: frozenset[Photo]


class Trained(Settings):
    """Settings of the loop, shared by every method that trains.

    Attributes:
        steps: Optimizer steps.
        lr: Peak learning rate of AdamW; 10 % linear warm-up, then cosine to zero.
        forget_batch: Forget records a step.
        visible_batch: Identity-free questions on forget photos a step.
        retain_batch: Records on retain people a step.
        general_batch: Records on strangers, general photos and refusals a step.
        variants: Variants of each photo that training draws from; 1 for the photo alone.
        clip: Largest norm of the gradient.
        checkpoint_every: Steps between checkpoints; 0 for none.
    """

    steps: int = Field(150, ge=1)
    lr: float = Field(5e-4, gt=0)
    forget_batch: int = Field(16, ge=1)
    visible_batch: int = Field(4, ge=0)
    retain_batch: int = Field(12, ge=0)
    general_batch: int = Field(16, ge=0)
    variants: int = Field(64, ge=1)
    clip: float = Field(1.0, gt=0)
    checkpoint_every: int = Field(50, ge=0)


@runtime_checkable
class Method(Protocol):
    """Unlearning by training. `settings` in `Trained` drive the loop."""

    def trainable(self, vlm: VLM) -> list[str]:
        """Full names of the parameters that may move."""
        ...

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> object:
        """Teachers, masks and caches, made on the starting model: the state of the run."""
        ...

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """The terms of one step."""
        ...


@runtime_checkable
class MasksForget(Protocol):
    """Gets the forget gradient alone, before retain's is added."""

    def mask_forget(self, vlm: VLM, state: Any) -> None:
        """Edits the gradients in place."""
        ...


@runtime_checkable
class ConstrainsStep(Protocol):
    """Acts on the parameter change, which momentum and decay would otherwise carry past a mask."""

    def constrain_step(self, vlm: VLM, before: Mapping[str, Tensor], state: Any) -> None:
        """Edits parameters in place; `before` holds their values before the step."""
        ...


@runtime_checkable
class Adapts(Protocol):
    """Trains low-rank adapters that are merged at the end."""

    lora_rank: int

    def lora_targets(self, vlm: VLM) -> list[str]:
        """Full paths of the linear layers that get an adapter."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """What a run of the loop did.

    Attributes:
        changed: Full names of the tensors that differ from the starting model.
        trained_parameters: Numbers that the optimizer moved (of adapters, where there are any).
        steps: Steps of the run, those before an interruption included.
        seconds: Wall time of preparation and steps since the last start.
        terms: Value of each term at every step since the last start.
    """

    changed: tuple[str, ...]
    trained_parameters: int
    steps: int
    seconds: float
    terms: list[dict[str, float]] = field(default_factory=list)


Progress = Callable[[str, int, int], None]


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
        DataError: If there is nothing to forget, or nothing to keep.
        LayoutError: If a trainable name is not in the model.
    """
    if not split.forget:
        raise DataError("expected photos and questions to forget, got none; check --subject")
    started = time.monotonic()
    sampler = Sampler(vlm, split, method, seed)
    if not sampler.keeps:
        raise DataError(
            "expected something to keep in every step, got none; check --retain, --general and the "
            "batch sizes of the method"
        )
    before = {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    torch.manual_seed(seed)
    with _trainable(vlm, method) as parameters:
        state = method.prepare(vlm, split, seed=seed)
        terms = _steps(vlm, method, state, sampler, parameters, folder, progress, seed)
    after = dict(vlm.model.named_parameters())
    changed = tuple(n for n, old in before.items() if not torch.equal(old, after[n].detach()))
    return TrainResult(
        changed=changed,
        trained_parameters=sum(p.numel() for p in parameters.values()),
        steps=method.steps,
        seconds=time.monotonic() - started,
        terms=terms,
    )


def _steps(
    vlm: VLM,
    method: Any,
    state: Any,
    sampler: "Sampler",
    parameters: dict[str, nn.Parameter],
    folder: Path | None,
    progress: Progress | None,
    seed: int,
) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=method.lr, betas=(0.9, 0.99), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(method.steps))
    identity = json.dumps(
        {
            "base": vlm.fingerprint,
            "seed": seed,
            "method": type(method).__qualname__,
            "settings": method.model_dump(mode="json"),
        }
    )
    path = folder / CHECKPOINT if folder is not None and method.checkpoint_every else None
    start = _resume(path, identity, parameters, optimizer, schedule) if path else 0
    constrain = _constraint(method)
    log = []
    for step in range(start, method.steps):
        # No name for the terms: it would keep one step's graph alive through the next one's pass.
        log.append(_backward(vlm, method, state, method.loss(vlm, sampler.draw(step), state)))
        nn.utils.clip_grad_norm_(parameters.values(), method.clip)
        old = {n: p.detach().clone() for n, p in parameters.items()} if constrain else {}
        optimizer.step()
        schedule.step()
        if constrain is not None:
            with torch.no_grad():
                constrain(vlm, old, state)
        optimizer.zero_grad(set_to_none=True)
        if progress is not None:
            progress("train", step + 1, method.steps)
        last = step + 1 == method.steps
        if path and (last or (step + 1) % method.checkpoint_every == 0):
            _save(path, identity, step + 1, parameters, optimizer)
    return log


def _constraint(method: Any) -> Callable[[VLM, Mapping[str, Tensor], Any], None] | None:
    return method.constrain_step if isinstance(method, ConstrainsStep) else None


def _adapts(method: Any) -> bool:
    return isinstance(method, Adapts) and method.lora_rank > 0


def _backward(vlm: VLM, method: Any, state: Any, terms: Terms) -> dict[str, float]:
    forget, retain = list(terms.forget.values()), list(terms.retain.values())
    if not any(term.requires_grad for term in forget + retain):
        raise ConfigError(
            f"{type(method).__name__}: expected a loss that depends on what is trained, got "
            f"{'constants' if forget + retain else 'no term'}; raise a weight or train more"
        )
    if isinstance(method, MasksForget) and forget:
        _push(forget, again=bool(retain))
        method.mask_forget(vlm, state)
        _push(retain)
    else:
        _push(forget + retain)
    named = {f"forget.{n}": v for n, v in terms.forget.items()}
    named |= {f"retain.{n}": v for n, v in terms.retain.items()}
    return {name: float(value.detach()) for name, value in named.items()}


def _push(terms: list[Tensor], *, again: bool = False) -> None:
    """Adds the gradients of some terms; those on text alone may not reach what is trained."""
    moving = [term for term in terms if term.requires_grad]
    if moving:
        torch.stack(moving).sum().backward(retain_graph=again)


def _rate(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 10)

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        return 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())

    return rate


@contextmanager
def _trainable(vlm: VLM, method: Any) -> Iterator[dict[str, nn.Parameter]]:
    """Lets the method's parameters move and nothing else; puts the flags back on the way out."""
    flags = {name: p.requires_grad for name, p in vlm.model.named_parameters()}
    try:
        vlm.model.requires_grad_(False)
        if _adapts(method):
            targets = method.lora_targets(vlm)
            with lora(vlm.model, targets, rank=method.lora_rank) as adapters:
                yield adapters
            return
        chosen = dict(vlm.model.named_parameters())
        names = method.trainable(vlm)
        missing = [name for name in names if name not in chosen]
        if missing or not names:
            raise LayoutError(
                f"{type(method).__name__}: expected names of parameters, got "
                f"{missing[0] if missing else 'none'}; check what the method trains"
            )
        parameters = {name: chosen[name].requires_grad_(True) for name in names}
        yield parameters
    finally:
        for name, p in vlm.model.named_parameters():
            p.requires_grad_(flags.get(name, False))
            p.grad = None


def _save(
    path: Path,
    identity: str,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    tensors = {f"model.{name}": p.detach().contiguous() for name, p in parameters.items()}
    for name, p in parameters.items():
        for key, value in optimizer.state[p].items():
            tensors[f"optimizer.{key}.{name}"] = value.clone().contiguous()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"identity": identity, "step": str(step)})
    partial.replace(path)


def _resume(
    path: Path,
    identity: str,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> int:
    """Steps already done; 0 without a checkpoint."""
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


class Sampler:
    """Draws the records of each step; step and seed alone decide what is drawn."""

    def __init__(self, vlm: VLM, split: Split, method: Trained, seed: int) -> None:
        self.vlm = vlm
        self.seed = seed
        self.variants = method.variants
        self.sizes = {
            "visible": method.visible_batch,
            "retain": method.retain_batch,
            "general": method.general_batch,
        }
        self.forget_batch = method.forget_batch
        self.pools = {name: _by_photo(getattr(split, name)) for name in ("forget", *self.sizes)}
        self.forget_photos = frozenset(r.image for r in split.forget if r.image is not None)
        self.picture = lru_cache(maxsize=_CACHED_PICTURES)(variant)

    @property
    def keeps(self) -> bool:
        """Whether a step sees anything that is to be kept."""
        return any(self.pools[name] for name, size in self.sizes.items() if size)

    def draw(self, step: int) -> PairBatch:
        """The batch of one step."""
        rng = random.Random(f"{self.seed}-{step}")
        keep: list[Record] = []
        for name, size in self.sizes.items():
            keep += self._records(name, size, rng)
        return PairBatch(
            step=step,
            forget=self.rows(self._records("forget", self.forget_batch, rng), rng),
            keep=self.rows(keep, rng),
            forget_photos=self.forget_photos,
        )

    def _records(self, name: str, size: int, rng: random.Random) -> list[Record]:
        """Photos first, then one question on each: photos count alike, however much is asked."""
        pool = self.pools[name]
        if not pool:
            return []
        return [rng.choice(pool[rng.randrange(len(pool))]) for _ in range(size)]

    def rows(self, records: Sequence[Record], rng: random.Random) -> Rows:
        """Records with a drawn variant of each photo, encoded."""
        numbers = tuple(rng.randrange(self.variants) for _ in records)
        pictures: list[Image.Image | None] = [
            None if record.image is None else self.picture(record.image, number)
            for record, number in zip(records, numbers, strict=True)
        ]
        batch = encode(self.vlm, records, answers=True, side="right", images=pictures)
        return Rows(tuple(records), numbers, batch.to(self.vlm.device))


def _by_photo(records: Sequence[Record]) -> list[list[Record]]:
    """Records grouped by photo; a text-only record is a group of its own."""
    groups: dict[object, list[Record]] = {}
    for number, record in enumerate(records):
        groups.setdefault(number if record.image is None else record.image, []).append(record)
    return list(groups.values())
