"""What an eraser is, and how a model runs under one or many."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from unsee.data.collate import reply_mark
from unsee.data.records import Split
from unsee.errors import ArtifactError
from unsee.models.hooks import edited
from unsee.models.load import VLM
from unsee.models.passes import Edit

Scope = Literal["visual", "both"]


@runtime_checkable
class Eraser(Protocol):
    """A frozen artifact, fitted on one base, that changes activations and nothing else.

    Attributes:
        name: Of its settings in the registry.
    """

    name: ClassVar[str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom it suppresses."""
        ...

    @property
    def base(self) -> str:
        """Fingerprint of the model it was fitted on."""
        ...

    def edits(self, vlm: VLM) -> Mapping[str, Sequence[Edit]]:
        """What it does to the input of which language layers."""
        ...

    def joined(self, others: Sequence[Any]) -> "Eraser":
        """One eraser for the subjects of all; what depends on their number is read off anew.

        Raises:
            ArtifactError: If they cannot act together.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What is stored of it as tensors."""
        ...

    def table(self) -> dict[str, Any]:
        """What else is stored of it, as JSON."""
        ...

    @classmethod
    def restored(cls, table: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Eraser":
        """The eraser that gave this table and these tensors."""
        ...

    def respond(self) -> dict[str, Tensor]:
        """What its parts make of seeded probe vectors, in which nobody is; for the canary.

        Without the eraser all of it would be 0.
        """
        ...


@runtime_checkable
class Fits(Protocol):
    """Settings of an eraser.

    Attributes:
        eraser: Class of what `fit` gives.
    """

    eraser: ClassVar[type[Eraser]]

    def fit(self, vlm: VLM, split: Split, *, seed: int, scope: Scope) -> Eraser:
        """The eraser of a split's subjects; the model is left as it is."""
        ...


@contextmanager
def erased(vlm: VLM, erasers: Sequence[Eraser]) -> Iterator[VLM]:
    """Run a model under erasers; behind the block its outputs are as before, bit for bit.

    Erasers of one kind act as one: a prompt is pushed once, however many of them fire, and the
    rate of false fire that was asked for is that of all of them together.

    Args:
        vlm: The model they were fitted on.
        erasers: Any number, of any subjects.

    Yields:
        The same model.

    Raises:
        ArtifactError: If one was fitted on another base, or they cannot act together.
        LayoutError: If one is made for layers that the model does not have.
    """
    for eraser in erasers:
        if eraser.base != vlm.fingerprint:
            raise ArtifactError(
                f"eraser of {', '.join(eraser.subjects)}: fitted on base {eraser.base}, got "
                f"{vlm.fingerprint} ({vlm.source}); load the model it was fitted on"
            )
    kinds: dict[str, list[Eraser]] = {}
    for eraser in erasers:
        kinds.setdefault(eraser.name, []).append(eraser)
    edits: dict[str, list[Edit]] = {}
    for first, *others in kinds.values():
        for path, chosen in first.joined(others).edits(vlm).items():
            edits.setdefault(path, []).extend(chosen)
    with edited(vlm.model, vlm.layout, edits, reply_mark=reply_mark(vlm)):
        yield vlm
