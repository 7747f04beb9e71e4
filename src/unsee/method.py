"""What the training loop asks of a method, and what a method may ask of the loop."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor

from unsee.data.records import Split
from unsee.models.load import VLM
from unsee.sampling import PairBatch
from unsee.settings import Settings, Space, Span

Progress = Callable[[str, int, int], None]
Scalars = Mapping[str, Tensor]


class Terms:
    """Weighted scalars that the loop adds up, kept apart by what they serve.

    Attributes:
        forget: Those of forgetting.
        later: Whether the others come from a pass of their own, which is still to be made.
    """

    def __init__(self, forget: Scalars, retain: Scalars | Callable[[], Scalars]) -> None:
        """Terms of one step.

        Args:
            forget: Those of forgetting.
            retain: Those of keeping. Where they share no pass with the others, a function that
                makes them: it is called once the others are back-propagated, so that the graphs
                of both are never in memory together.
        """
        self.forget = forget
        self.later = callable(retain)
        self._retain = retain

    @cached_property
    def retain(self) -> Scalars:
        """Those of keeping."""
        return self._retain() if callable(self._retain) else self._retain


class Trained(Settings):
    """Settings of the loop, shared by every method that trains.

    Attributes:
        keeps: Whether a method trains on what is to be kept, and so needs something of it.
        space: Where each setting is searched that is.
        steps: Optimizer steps; None for 25 for each subject, and at least 150.
        lr: Peak learning rate of AdamW; 10 % linear warm-up, then cosine to zero.
        average: Share of the steps, the last ones, whose weights are averaged into the result
            (stochastic weight averaging, https://arxiv.org/abs/1803.05407); the rate then stays at
            its peak. 0 takes the last step's weights.
        forget_batch: Forget records a step.
        visible_batch: Identity-free questions on forget photos a step.
        retain_batch: Records on retain people a step.
        general_batch: Records on strangers, general photos and refusals a step.
        variants: Variants of each photo that training draws from; 1 for the photo alone.
        clip: Largest norm of the gradient.
        checkpoint_every: Steps between checkpoints; 0 for none.
    """

    keeps: ClassVar[bool] = True
    space: ClassVar[Space] = {"lr": Span(1e-6, 1e-3), "steps": (25, 50, 100, 150)}

    steps: int | None = Field(None, ge=1)
    lr: float = Field(5e-4, gt=0)
    average: float = Field(0.0, ge=0, lt=1)
    forget_batch: int = Field(16, ge=1)
    visible_batch: int = Field(4, ge=0)
    retain_batch: int = Field(12, ge=0)
    general_batch: int = Field(16, ge=0)
    variants: int = Field(64, ge=1)
    clip: float = Field(1.0, gt=0)
    checkpoint_every: int = Field(50, ge=0)

    def steps_for(self, split: Split) -> int:
        """Optimizer steps for a request: each of many subjects gets its share.

        The rule keeps what the defaults were chosen with: 150 steps for six people.
        """
        if self.steps is not None:
            return self.steps
        return max(150, 25 * len({record.subject for record in split.forget}))


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


@runtime_checkable
class BoundsWeights(Protocol):
    """Has some weights follow W + sin(V), V trained and merged at the end; see `models.sine`."""

    def sine_targets(self, vlm: VLM) -> list[str]:
        """Full paths of the linear layers whose weights do."""
        ...


@runtime_checkable
class Surgery(Protocol):
    """Unlearning without the loop: an edit of the weights, made once and too short to resume."""

    def editable(self, vlm: VLM) -> list[str]:
        """Full names of the parameters that may change."""
        ...

    def edit(
        self, vlm: VLM, split: Split, *, seed: int, progress: Progress | None = None
    ) -> tuple[str, ...]:
        """Changes parameters in place, and names those that are no longer what they were."""
        ...
